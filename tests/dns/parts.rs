//! The real parts: each in its own folder and on its own loopback port, stopped by pid whatever happens.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use watchdog::domain::plan::DnsProvider;
use watchdog::resolve::{Question, query};

/// A program in a process group of its own, killed when dropped.
pub struct Program {
    child: Child,
    group: Pid,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it says goes to `log`. It also dies when the thread that started it does.
    pub fn start(argv: &[&str], env: &[(&str, &str)], log: &Path) -> Self {
        let file = fs::File::create(log).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(argv)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("{argv:?} cannot be started: {e}"));
        let group = Pid::from_child(&child);
        Self { child, group, log: log.to_owned() }
    }

    /// SIGSTOP to the group: a frozen server, whose kernel still takes connections.
    pub fn freeze(&self) {
        kill_process_group(self.group, Signal::STOP).unwrap();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        kill_process_group(self.group, Signal::CONT).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Waits for a state, or fails naming it.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !look().await {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A loopback port that is free for TCP and UDP.
pub fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A folder that other users can pass through.
pub fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix("watchdog-dns-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// The key that the zone's policy grants everything.
pub const KEY: &str = "c2VjcmV0IG9mIHRoZSB6b25lIG9mIHRoZSBkZW1vIDE=";
/// A key that the server knows and grants nothing.
pub const POWERLESS_KEY: &str = "c2VjcmV0IG9mIGEga2V5IHdpdGhvdXQgcG93ZXIgMDA=";

/// BIND, primary for `demo.test`.
pub struct Named {
    pub program: Program,
    pub address: String,
    pub folder: TempDir,
}

impl Named {
    /// Started and answering.
    pub async fn start() -> Self {
        let folder = folder();
        let port = free_port();
        let at = folder.path().display().to_string();
        let config = format!(
            r#"options {{ directory "{at}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  pid-file "{at}/named.pid"; session-keyfile "{at}/session.key"; recursion no; dnssec-validation no; notify no; }};
controls {{ }};
key "watchdog." {{ algorithm hmac-sha256; secret "{KEY}"; }};
key "powerless." {{ algorithm hmac-sha256; secret "{POWERLESS_KEY}"; }};
zone "demo.test" {{ type primary; file "{at}/demo.zone"; update-policy {{ grant watchdog. zonesub ANY; }}; }};
"#
        );
        fs::write(folder.path().join("named.conf"), config).unwrap();
        let zone = "$TTL 60\n@ IN SOA ns.demo.test. root.demo.test. 1 60 60 600 60\n@ IN NS ns\nns IN A 127.0.0.1\n";
        let many: String = (0..95).map(|n| format!("many IN A 10.0.0.{n}\n")).collect();
        fs::write(folder.path().join("demo.zone"), format!("{zone}{many}alias IN CNAME ns\n")).unwrap();
        let conf = folder.path().join("named.conf").display().to_string();
        let log = folder.path().join("named.log");
        let program = Program::start(&["/usr/sbin/named", "-g", "-n", "1", "-c", &conf], &[], &log);
        let address = format!("127.0.0.1:{port}");
        wait_until(&format!("named answers, see {}", log.display()), || async {
            query(&address, "ns.demo.test.", Question::A, Duration::from_millis(200))
                .await
                .is_ok_and(|a| !a.records.is_empty())
        })
        .await;
        Self { program, address, folder }
    }

    /// The provider with the right key.
    pub fn provider(&self) -> DnsProvider {
        self.provider_with("watchdog.", KEY)
    }

    /// The provider with another key.
    pub fn provider_with(&self, key_name: &str, secret: &str) -> DnsProvider {
        let nth = fs::read_dir(self.folder.path()).unwrap().count();
        let key_file = self.write(&format!("{key_name}{nth}.key"), &format!("{secret}\n"));
        DnsProvider::Rfc2136 {
            name: "zone".into(),
            server: self.address.clone(),
            zone: "demo.test.".into(),
            key_name: key_name.into(),
            key_file: key_file.display().to_string(),
        }
    }

    /// A file in the folder.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// What the zone answers now.
    pub async fn answers(&self, name: &str, question: Question) -> Vec<String> {
        query(&self.address, name, question, Duration::from_secs(5)).await.unwrap().values()
    }

    /// Changes the zone by BIND's own tool, as somebody else would.
    pub fn nsupdate(&self, commands: &str) {
        let (host, port) = self.address.split_once(':').unwrap();
        let script = self.write("nsupdate", &format!("server {host} {port}\nzone demo.test.\n{commands}\nsend\n"));
        let done = Command::new("nsupdate")
            .arg("-y")
            .arg(format!("hmac-sha256:watchdog.:{KEY}"))
            .arg(script)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
