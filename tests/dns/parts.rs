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

use crate::stopped::until_stopped;

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

    /// SIGSTOP to the group: a frozen server, whose kernel still takes connections. Returns when it has stopped.
    pub fn freeze(&self) {
        kill_process_group(self.group, Signal::STOP).unwrap();
        until_stopped(self.child.id());
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

    /// The provider by way of another address.
    pub fn provider_at(&self, address: &str) -> DnsProvider {
        match self.provider() {
            DnsProvider::Rfc2136 { name, zone, key_name, key_file, .. } => {
                DnsProvider::Rfc2136 { name, server: address.to_owned(), zone, key_name, key_file }
            }
            other => other,
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

/// A Route 53 API server with one hosted zone, `demo.test.`.
pub struct Route53 {
    pub program: Program,
    pub address: String,
    pub hosted_zone_id: String,
    pub client: aws_sdk_route53::Client,
    pub folder: TempDir,
}

impl Route53 {
    /// Started, with the zone made.
    pub async fn start() -> Self {
        use aws_sdk_route53::config::{BehaviorVersion, Config, Credentials, Region};
        let folder = folder();
        let port = free_port();
        let log = folder.path().join("ministack.log");
        let home = folder.path().display().to_string();
        let env = [
            ("BIND_HOST", "127.0.0.1"),
            ("GATEWAY_PORT", &*port.to_string()),
            ("TMPDIR", &*home),
            ("SERVICES", "route53"),
        ];
        // Where `scripts/install` has put it, if it is in no folder of the PATH.
        let ministack = std::env::var("WATCHDOG_LAB_MINISTACK").unwrap_or_else(|_| "ministack".to_owned());
        let program = Program::start(&[&ministack], &env, &log);
        let address = format!("127.0.0.1:{port}");
        wait_until("ministack listens", || async { tokio::net::TcpStream::connect(&address).await.is_ok() }).await;
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(format!("http://{address}"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        let client = aws_sdk_route53::Client::from_conf(config);
        let zone = client.create_hosted_zone().name("demo.test.").caller_reference("one").send().await.unwrap();
        let hosted_zone_id = zone.hosted_zone.unwrap().id.trim_start_matches("/hostedzone/").to_owned();
        fs::write(
            folder.path().join("credentials"),
            "[default]\naws_access_key_id = test\naws_secret_access_key = test\n",
        )
        .unwrap();
        Self { program, address, hosted_zone_id, client, folder }
    }

    /// The provider, directly.
    pub fn provider(&self) -> DnsProvider {
        self.provider_at(&self.address)
    }

    /// The provider by way of another address.
    pub fn provider_at(&self, address: &str) -> DnsProvider {
        DnsProvider::Route53 {
            name: "aws".into(),
            hosted_zone_id: self.hosted_zone_id.clone(),
            endpoint_url: Some(format!("http://{address}")),
            credentials_file: Some(self.folder.path().join("credentials").display().to_string()),
        }
    }

    /// The values listed for a name and type.
    pub async fn values(&self, name: &str, kind: &str) -> Vec<String> {
        let listed = self.client.list_resource_record_sets().hosted_zone_id(&self.hosted_zone_id).send().await.unwrap();
        let sets = listed.resource_record_sets.into_iter();
        let mine = sets.filter(|set| set.name == name && set.r#type.as_str() == kind);
        mine.flat_map(|set| set.resource_records.unwrap_or_default()).map(|record| record.value).collect()
    }

    /// Changes one record set, as somebody else would.
    pub async fn change(&self, action: &str, name: &str, kind: &str, values: &[&str]) {
        use aws_sdk_route53::types::{Change, ChangeBatch, ResourceRecord, ResourceRecordSet};
        let values = values.iter().map(|value| ResourceRecord::builder().value(*value).build().unwrap()).collect();
        let set =
            ResourceRecordSet::builder().name(name).r#type(kind.into()).ttl(60).set_resource_records(Some(values));
        let change = Change::builder().action(action.into()).resource_record_set(set.build().unwrap()).build().unwrap();
        let batch = ChangeBatch::builder().changes(change).build().unwrap();
        let request =
            self.client.change_resource_record_sets().hosted_zone_id(&self.hosted_zone_id).change_batch(batch);
        request.send().await.unwrap();
    }
}

/// What a proxy does with bytes on their way to the server.
pub enum Pass {
    /// Hands them on.
    On,
    /// Drops them and all that follow on this connection.
    Swallow,
    /// Hands them on, and drops what the server answers on this connection.
    SwallowAnswer,
    /// Hands them on only when as many others wait.
    Together(std::sync::Arc<tokio::sync::Barrier>),
    /// Drops them and answers this instead.
    Answer(Vec<u8>),
}

/// A stand-in for a network between us and `server` that behaves as `judge` says of each piece sent.
pub async fn network_stand_in(server: &str, judge: impl Fn(&[u8]) -> Pass + Send + Sync + 'static) -> String {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, server, judge) = (listener.local_addr().unwrap().to_string(), server.to_owned(), Arc::new(judge));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(upstream) = tokio::net::TcpStream::connect(&server).await else { continue };
            let judge = Arc::clone(&judge);
            tokio::spawn(async move {
                let ((mut from, mut to), (mut back, mut on)) = (client.into_split(), upstream.into_split());
                let mute = Arc::new(AtomicBool::new(false));
                let muted = Arc::clone(&mute);
                let (answers, mut answered) = tokio::sync::mpsc::channel::<Vec<u8>>(8);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 65536];
                    loop {
                        tokio::select! {
                            Some(answer) = answered.recv() => { if to.write_all(&answer).await.is_err() { return } }
                            read = back.read(&mut buffer) => match read {
                                Ok(length) if length > 0 => {
                                    if !muted.load(Ordering::SeqCst) && to.write_all(&buffer[..length]).await.is_err() { return }
                                }
                                _ => return,
                            }
                        }
                    }
                });
                let mut buffer = vec![0; 65536];
                let mut swallow = false;
                while let Ok(length) = from.read(&mut buffer).await {
                    if length == 0 {
                        // The server is not told that the client gave up: what was sent stays under way.
                        return std::future::pending::<()>().await;
                    }
                    match judge(&buffer[..length]) {
                        _ if swallow => continue,
                        Pass::On => {}
                        Pass::Together(barrier) => {
                            barrier.wait().await;
                        }
                        Pass::Swallow => {
                            swallow = true;
                            continue;
                        }
                        Pass::SwallowAnswer => mute.store(true, Ordering::SeqCst),
                        Pass::Answer(answer) => {
                            swallow = true;
                            let _ = answers.send(answer).await;
                            continue;
                        }
                    }
                    if on.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// PostgreSQL 15, a primary taking passwords.
pub struct Postgres {
    pub program: Program,
    pub port: u16,
    pub folder: TempDir,
}

impl Postgres {
    /// Started and answering, with the roles `watchdog` (may write) and `reader` (may not). With `tls`, it shows
    /// that certificate.
    pub async fn start(tls: Option<&Authority>) -> Self {
        let folder = folder();
        let data = folder.path().join("data").display().to_string();
        let as_postgres = |argv: &[&str]| {
            let done =
                Command::new("runuser").args(["-u", "postgres", "--"]).args(argv).current_dir("/").output().unwrap();
            assert!(done.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let own = |path: &Path| {
            let done = Command::new("chown").arg("postgres:").arg(path).status().unwrap();
            assert!(done.success());
        };
        own(folder.path());
        as_postgres(&["/usr/lib/postgresql/15/bin/initdb", "-D", &data, "-A", "trust", "-U", "postgres", "--no-sync"]);
        fs::write(
            folder.path().join("data/pg_hba.conf"),
            "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
        let port = free_port();
        let mut config = format!(
            "listen_addresses='127.0.0.1'\nport={port}\nunix_socket_directories='{}'\nfsync=off\n",
            folder.path().display()
        );
        if let Some(authority) = tls {
            for (name, from) in [("server.crt", &authority.certificate), ("server.key", &authority.key)] {
                let path = folder.path().join("data").join(name);
                fs::copy(from, &path).unwrap();
                fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
                own(&path);
            }
            config.push_str("ssl=on\n");
        }
        fs::write(folder.path().join("data/postgresql.auto.conf"), config).unwrap();
        let program = Self::serve(&folder);
        let this = Self { program, port, folder };
        wait_until("PostgreSQL answers", || async { this.psql("SELECT 1").status.success() }).await;
        let roles = "CREATE ROLE watchdog LOGIN PASSWORD 'topsecret'; CREATE ROLE reader LOGIN PASSWORD 'topsecret'; \
             GRANT ALL ON SCHEMA public TO watchdog";
        assert!(this.psql(roles).status.success());
        this
    }

    /// Stopped, and started again in recovery that never ends: to a client the same as a standby.
    pub async fn into_standby(self) -> Self {
        let Self { program, port, folder } = self;
        let data = folder.path().join("data");
        let pid_file = fs::read_to_string(data.join("postmaster.pid")).unwrap();
        let process = Path::new("/proc").join(pid_file.lines().next().unwrap());
        drop(program);
        wait_until("the killed server is gone", || async { !process.exists() }).await;
        fs::write(data.join("standby.signal"), "").unwrap();
        let this = Self { program: Self::serve(&folder), port, folder };
        wait_until("the standby answers", || async { this.read("SELECT pg_is_in_recovery()") == "t" }).await;
        this
    }

    fn serve(folder: &TempDir) -> Program {
        let data = folder.path().join("data").display().to_string();
        let argv = ["runuser", "-u", "postgres", "--", "/usr/lib/postgresql/15/bin/postgres", "-D", &data];
        Program::start(&argv, &[], &folder.path().join("postgres.log"))
    }

    /// Asked as the superuser.
    pub fn psql(&self, sql: &str) -> std::process::Output {
        let socket = self.folder.path().display().to_string();
        let port = self.port.to_string();
        let argv = ["-u", "postgres", "--", "psql", "-h", &socket, "-p", &port, "-AtXc", sql];
        Command::new("runuser").args(argv).current_dir("/").output().unwrap()
    }

    /// What a query gives.
    pub fn read(&self, sql: &str) -> String {
        String::from_utf8(self.psql(sql).stdout).unwrap().trim().to_owned()
    }

    /// How `user` reaches it.
    pub fn endpoint(&self, user: &str, password: &str) -> watchdog::domain::plan::DatabaseEndpoint {
        let nth = fs::read_dir(self.folder.path()).unwrap().count();
        let file = self.folder.path().join(format!("password{nth}"));
        fs::write(&file, format!("{password}\n")).unwrap();
        watchdog::domain::plan::DatabaseEndpoint {
            conninfo: format!("host=127.0.0.1 port={} user={user} dbname=postgres", self.port),
            password_file: Some(file.display().to_string()),
            tls_ca_file: None,
        }
    }
}

/// A certificate that vouches for itself and for 127.0.0.1.
pub struct Authority {
    pub certificate: PathBuf,
    pub key: PathBuf,
    _folder: TempDir,
}

impl Authority {
    /// Made by openssl.
    pub fn new() -> Self {
        let folder = folder();
        let (certificate, key) = (folder.path().join("crt"), folder.path().join("key"));
        let done = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
            .args(["-subj", "/CN=watchdog test", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self { certificate, key, _folder: folder }
    }
}
