//! A real sshd on a free loopback port, in a folder of its own, with a forced command. Everything ends when it is dropped.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use watchdog::domain::plan::GuardEndpoint;

use crate::wait_until;

#[path = "../lab/stopped.rs"]
mod stopped;

/// The options a guard's key is installed with.
pub const RESTRICT: &str = "restrict";

pub struct Sshd {
    pub folder: tempfile::TempDir,
    port: u16,
    server: Child,
}

/// Runs to its end and must succeed.
pub fn run(command: &mut Command) {
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn keygen(path: &Path) {
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path));
}

/// The user this test runs as: sshd without root lets in nobody else.
fn user() -> String {
    let out = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

impl Sshd {
    /// With a stand-in for the guard: a shell script that finds itself in the rig's folder.
    pub async fn with_stand_in(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stand-in-guard");
        fs::write(&path, format!("#!/bin/sh\ncd '{}' || exit 99\n{script}\n", folder.path().display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self::start(folder, &path.display().to_string()).await
    }

    pub async fn start(folder: tempfile::TempDir, forced: &str) -> Self {
        let at = folder.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        keygen(&at.join("host_key"));
        keygen(&at.join("id"));
        keygen(&at.join("stranger"));
        let public = fs::read_to_string(at.join("id.pub")).unwrap();
        fs::write(at.join("authorized_keys"), format!("{RESTRICT},command=\"{forced}\" {public}")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let shown = at.display();
        // Bash as a login shell under sshd reads ~/.bashrc, whatever that costs, unless it is not the first.
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/host_key\nPidFile none\n\
             AuthorizedKeysFile {shown}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin forced-commands-only\nLogLevel VERBOSE\n\
             SetEnv SHLVL=1\n"
        );
        fs::write(at.join("sshd_config"), config).unwrap();
        let server = spawn(at);
        let sshd = Self { folder, port, server };
        sshd.listening(1).await;
        sshd
    }

    async fn listening(&self, times: usize) {
        wait_until("sshd listens", || self.log().matches("Server listening").count() >= times).await;
    }

    pub async fn restart(&mut self) {
        self.signal_all(Signal::KILL);
        self.server.wait().unwrap();
        let times = self.log().matches("Server listening").count();
        self.server = spawn(self.folder.path());
        self.listening(times + 1).await;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn endpoint(&self) -> GuardEndpoint {
        GuardEndpoint {
            host: "db-hanoi".into(),
            address: format!("127.0.0.1:{}", self.port),
            user: user(),
            host_key: fs::read_to_string(self.path("host_key.pub")).unwrap().trim().to_owned(),
            identity_file: self.path("id").display().to_string(),
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Sessions let in so far.
    pub fn accepted(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// A file the stand-in writes, line by line.
    pub fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// To the server and everything below it that is called sshd.
    pub fn signal_all(&self, signal: Signal) {
        for pid in descendants(self.server.id()) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.starts_with("sshd") {
                send(pid, signal);
                if signal == Signal::STOP {
                    stopped::until_stopped(pid);
                }
            }
        }
    }
}

fn spawn(folder: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    // Ends with the test's thread, however that ends.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "/usr/sbin/sshd", "-D", "-e", "-f"])
        .arg(folder.join("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap()
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The process and all below it, itself first.
fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for pid in descendants(self.server.id()) {
            send(pid, Signal::KILL);
        }
        let _ = self.server.wait();
        // Stand-ins that hang wrote who they are: their session may be gone already.
        for pid in self.lines("hanging").iter().filter_map(|line| line.parse().ok()) {
            let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
            if cwd.is_ok_and(|cwd| cwd == self.folder.path()) {
                send(pid, Signal::KILL);
            }
        }
    }
}
