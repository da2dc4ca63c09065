//! The parts that tests run: each in a private folder, on a free port, and gone when dropped.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};
use watchdog::domain::observation::{Failure, FailureKind, Measure};
use watchdog::probe::{Probe, ProbeBuilder, ProbeSpec, ProbeSurroundings};

#[path = "../lab/stopped.rs"]
mod stopped;

/// Generous: the machine may be busy with other builds.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PG_BIN: &str = "/usr/lib/postgresql/15/bin";

/// Polls until `look` gives something; the only place that waits.
pub async fn wait_until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder that other users can reach into.
pub fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Builds a probe with a time-out that a busy machine keeps.
pub fn probe_of(spec: &ProbeSpec) -> Arc<dyn Probe> {
    probe_within(spec, 3000)
}

pub fn probe_within(spec: &ProbeSpec, timeout_ms: u64) -> Arc<dyn Probe> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let around = ProbeSurroundings { who: "test/it's".to_owned(), timeout_ms, expected: None };
    ProbeBuilder::default().build(spec, around).unwrap_or_else(|e| panic!("{spec:?}: {e}"))
}

pub fn kind(outcome: &Result<Option<Measure>, Failure>) -> Option<FailureKind> {
    outcome.as_ref().err().map(|failure| failure.kind)
}

/// A child that dies with the test, however the test ends.
pub struct Running {
    child: Child,
}

impl Running {
    pub fn start(program: &str, user: Option<&str>, arguments: &[&str], folder: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = user {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        }
        command.arg(program).args(arguments).current_dir(folder).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0).spawn().unwrap();
        Self { child }
    }

    /// The process and its children.
    fn pids(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        std::iter::once(pid).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        for pid in self.pids() {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, signal);
        }
        if signal == rustix::process::Signal::STOP {
            self.pids().into_iter().for_each(stopped::until_stopped);
        }
    }

    pub fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A PostgreSQL server. User `watchdog` needs the password `secret`; `postgres` needs none.
pub struct Postgres {
    pub port: u16,
    pub folder: tempfile::TempDir,
    running: Option<Running>,
}

impl Postgres {
    pub async fn primary() -> Self {
        let (folder, port) = (folder(), free_port());
        chown(folder.path());
        let data = folder.path().join("data");
        as_postgres("initdb", &["--no-sync", "-A", "trust", "-U", "postgres", "-D", data.to_str().unwrap()]);
        let hba = "host all watchdog 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n\
                   host replication postgres 127.0.0.1/32 trust\n";
        std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let mut server = Self { port, folder, running: None };
        server.configure("");
        server.start().await;
        server.sql("CREATE ROLE watchdog LOGIN PASSWORD 'secret'; GRANT pg_monitor TO watchdog");
        server.sql("GRANT CREATE ON SCHEMA public TO watchdog");
        server
    }

    pub async fn standby_of(primary: &Postgres) -> Self {
        let (folder, port) = (folder(), free_port());
        chown(folder.path());
        let data = folder.path().join("data");
        let source = format!("host=127.0.0.1 port={} user=postgres", primary.port);
        as_postgres("pg_basebackup", &["--no-sync", "-c", "fast", "-R", "-d", &source, "-D", data.to_str().unwrap()]);
        let mut server = Self { port, folder, running: None };
        server.configure("");
        server.start().await;
        server
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Rewrites the settings; `more` is added to the usual ones.
    pub fn configure(&self, more: &str) {
        let text = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nshared_buffers = 16MB\n\
             wal_retrieve_retry_interval = 200ms\nautovacuum = off\n{more}\n",
            self.port
        );
        std::fs::write(self.data().join("postgresql.conf"), text).unwrap();
    }

    /// Starts the server and waits until it answers.
    pub async fn start(&mut self) {
        let data = self.data();
        let program = format!("{PG_BIN}/postgres");
        self.running =
            Some(Running::start(&program, Some("postgres"), &["-D", data.to_str().unwrap()], self.folder.path()));
        wait_until("PostgreSQL answers", || async { self.try_sql("SELECT 1").ok() }).await;
    }

    pub fn kill(&mut self) {
        self.running.take().unwrap().kill();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        self.running.as_ref().unwrap().signal(signal);
    }

    pub fn promote(&self) {
        as_postgres("pg_ctl", &["promote", "-w", "-D", self.data().to_str().unwrap()]);
    }

    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        let port = self.port.to_string();
        let arguments = ["-XAtq", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "postgres", "-c", sql];
        let output = Command::new("psql").args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// How the probe connects.
    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=watchdog dbname=postgres", self.port)
    }

    /// A file with the right password.
    pub fn password_file(&self) -> PathBuf {
        let file = self.folder.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        file
    }
}

fn chown(folder: &Path) {
    run(Command::new("chown").arg("postgres:postgres").arg(folder));
}

fn as_postgres(program: &str, arguments: &[&str]) {
    let program = format!("{PG_BIN}/{program}");
    let identity = ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"];
    run(Command::new("setpriv").args(identity).arg(program).args(arguments).current_dir("/"));
}

/// Runs to the end and expects success.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What a stand-in server does with each connection, after something was received.
#[derive(Clone)]
pub enum Reply {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Says nothing and keeps the connection.
    Silence,
    /// Closes at once.
    Close,
}

/// A stand-in server that answers everybody with the same reply. Ends with the test's runtime.
pub async fn stand_in(reply: Reply) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let reply = reply.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                match reply {
                    Reply::Close => {}
                    Reply::Silence => while stream.read(&mut request).await.is_ok_and(|length| length > 0) {},
                    Reply::Bytes(bytes) => {
                        let _ = stream.read(&mut request).await;
                        let _ = stream.write_all(&bytes).await;
                        let _ = stream.shutdown().await;
                    }
                }
            });
        }
    });
    port
}
