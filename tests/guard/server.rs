//! A real PostgreSQL in a folder of its own, stopped by its process id whatever happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::host::{runs, signal_to, text, wait_until};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// One server.
pub struct Server {
    pub data: PathBuf,
    pub port: u16,
    sockets: PathBuf,
    log: PathBuf,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program as the server's user.
fn as_postgres(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]);
    command.arg(Path::new(BIN).join(program)).args(words).current_dir("/");
    command
}

fn must(mut command: Command) -> String {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {} {}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout).trim().to_owned()
}

impl Server {
    fn at(dir: &Path, name: &str) -> Self {
        let at = dir.join(name);
        fs::create_dir(&at).unwrap();
        let mut own = Command::new("chown");
        own.arg("postgres:postgres").arg(&at);
        must(own);
        Self { data: at.join("data"), port: free_port(), log: at.join("log"), sockets: at }
    }

    /// A fresh primary, running.
    pub fn primary(dir: &Path) -> Self {
        let server = Self::at(dir, "primary");
        let data = server.data.display().to_string();
        must(as_postgres("initdb", &["-D", &data, "-A", "trust", "-U", "postgres", "-N", "--no-locale"]));
        let settings = "wal_log_hints = on\nwal_keep_size = 128MB\nlisten_addresses = '127.0.0.1'\nshared_buffers = 16MB\n\
                        log_min_messages = log\nfsync = off\nmax_connections = 20\n";
        let conf = server.data.join("postgresql.conf");
        fs::write(&conf, fs::read_to_string(&conf).unwrap() + settings).unwrap();
        server.start();
        server
    }

    /// A standby of `primary`, streaming.
    pub fn standby(dir: &Path, primary: &Server) -> Self {
        let server = Self::at(dir, "standby");
        let data = server.data.display().to_string();
        must(as_postgres("pg_basebackup", &["-D", &data, "-R", "-c", "fast", "-N", "-d", &primary.conninfo()]));
        server.start();
        let streams = || (primary.sql("SELECT count(*) FROM pg_stat_replication") == "1").then_some(());
        wait_until("the standby to stream", streams);
        server
    }

    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres", self.port)
    }

    /// Options that differ between servers whose files are copies.
    pub fn options(&self) -> String {
        format!("-p {} -k {}", self.port, self.sockets.display())
    }

    pub fn start(&self) {
        let (data, log) = (self.data.display().to_string(), self.log.display().to_string());
        must(as_postgres("pg_ctl", &["start", "-w", "-D", &data, "-l", &log, "-o", &self.options()]));
    }

    /// One value.
    pub fn sql(&self, sql: &str) -> String {
        let (sockets, port) = (self.sockets.display().to_string(), self.port.to_string());
        must(as_postgres("psql", &["-XAtq", "-h", &sockets, "-p", &port, "-U", "postgres", "-c", sql]))
    }

    /// Begins what may have to wait.
    pub fn begin_sql(&self, sql: &str) -> Child {
        let (sockets, port) = (self.sockets.display().to_string(), self.port.to_string());
        let words = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", &sockets, "-p", &port, "-U", "postgres", "-c", sql];
        as_postgres("psql", &words).stdin(Stdio::null()).spawn().unwrap()
    }

    /// For sessions that begin afterwards.
    pub fn set(&self, setting: &str, value: &str) {
        self.sql(&format!("ALTER SYSTEM SET {setting} = '{value}'"));
        self.sql("SELECT pg_reload_conf()");
    }

    /// Lets in whom these lines of `pg_hba.conf` let in, and nobody else.
    pub fn allow(&self, lines: &str) {
        fs::write(self.data.join("pg_hba.conf"), lines).unwrap();
        self.sql("SELECT pg_reload_conf()");
    }

    /// Begins a client of replication.
    pub fn receive_log(&self, name: &str) -> Child {
        let conninfo = format!("{} application_name={name}", self.conninfo());
        let folder = self.sockets.display().to_string();
        as_postgres("pg_receivewal", &["-d", &conninfo, "-D", &folder, "--no-loop"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// As an operator stops it.
    pub fn stop_fast(&self) {
        let data = self.data.display().to_string();
        must(as_postgres("pg_ctl", &["stop", "-w", "-t", "30", "-m", "fast", "-D", &data]));
    }

    /// The guard's `[postgres]` table.
    pub fn guarded(&self, more: &str) -> String {
        self.guarded_by(BIN, more)
    }

    pub fn guarded_by(&self, bin: &str, more: &str) -> String {
        format!(
            "[postgres]\ndata_dir = \"{}\"\nbin_dir = \"{bin}\"\nsocket_dir = \"{}\"\nport = {}\nuser = \"postgres\"\n\
             stop_timeout_s = 5\nstart_log = \"{}\"\nstart_options = \"{}\"\n{more}",
            self.data.display(),
            self.sockets.display(),
            self.port,
            self.log.display(),
            self.options()
        )
    }

    pub fn postmaster(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok().filter(|pid| runs(*pid))
    }

    /// As when the machine loses it: every process at once.
    ///
    /// Ends when the postmaster's number is free too: while init has not reaped it, PostgreSQL takes the lock files it
    /// left for a living server's and does not start.
    pub fn kill(&self) {
        let postmaster = self.postmaster();
        self.end();
        let reaped = || postmaster.is_none_or(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(());
        wait_until("the postmaster to be reaped", reaped);
    }

    fn end(&self) {
        for pid in watchdog::guard::postgres::processes(&self.data).unwrap_or_default() {
            // One of them may have ended by itself meanwhile.
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            let _gone = rustix::process::kill_process(pid, Signal::KILL);
        }
        let gone = || watchdog::guard::postgres::processes(&self.data).unwrap_or_default().is_empty().then_some(());
        wait_until("the server to be gone", gone);
    }

    pub fn freeze(&self) {
        signal_to(self.postmaster().unwrap(), Signal::STOP);
    }

    /// Every process of it: those that serve sessions too.
    pub fn signal_all(&self, signal: Signal) {
        for pid in watchdog::guard::postgres::processes(&self.data).unwrap() {
            signal_to(pid, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
