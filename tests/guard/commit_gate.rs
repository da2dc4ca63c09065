//! The commit gate in front of a real PostgreSQL. It runs in a process of its own, so that it can be killed and frozen;
//! what the kernel's gate would be told comes from the test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;
use watchdog::guard::commit_gate::BothLayers;
use watchdog::guard::commit_gate::keep::CommitGate;
use watchdog::guard::config::Config;
use watchdog::guard::host::boottime_ms;
use watchdog::guard::lease::gate::Gate;
use watchdog::proto::LeaseWord;

use crate::host::{Host, signal_to, text, wait_until};
use crate::leases::{Site, StandInGate};
use crate::nodes::leased;
use crate::server::Server;

const ROLE: &str = "WATCHDOG_COMMIT_GATE";
/// A lease that does not end while a test runs.
const LONG_MS: u64 = 600_000;

/// What the other process does; nothing in an ordinary run.
#[test]
fn gate_process() {
    let Ok(config) = std::env::var(ROLE) else { return };
    let config = Config::load(Path::new(&config)).unwrap();
    let (both, shared) = BothLayers::new(Arc::new(StandInGate::default()));
    both.install().unwrap();
    let gate = CommitGate::new(&config, shared).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.spawn(async move { gate.keep(&CancellationToken::new()).await });
    // Ends with the test that began it.
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("until", ms)) => both.extend_until(ms.parse().unwrap()).unwrap(),
            Some(("at-most", ms)) => both.bound_at(ms.parse().unwrap()).unwrap(),
            _ => {}
        }
        println!("\nSTANDS {}", both.second_layer().unwrap());
    }
}

/// The other process, ended when dropped.
struct GateProcess {
    child: Child,
    said: Box<dyn Iterator<Item = String>>,
}

impl GateProcess {
    fn begin(config: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["commit_gate::gate_process", "--exact", "--nocapture"]).env(ROLE, config);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let said = Box::new(lines.filter_map(|line| line.strip_prefix("STANDS ").map(str::to_owned)));
        Self { child, said }
    }

    /// Answers how the gate stands, once it was done.
    fn tell(&mut self, line: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.said.next().unwrap()
    }

    fn grant(&mut self, ms: u64) -> u64 {
        let until_ms = boottime_ms() + ms;
        self.tell(&format!("until {until_ms}"));
        until_ms
    }

    fn lapse(&mut self) {
        self.tell("at-most 0");
    }

    fn until_it_stands(&mut self, wanted: &str) -> String {
        let mut last = String::new();
        wait_until(wanted, || {
            let stands = self.tell("stands");
            if stands != last {
                println!("{stands}");
                last.clone_from(&stands);
            }
            stands.contains(wanted).then_some(stands)
        })
    }

    fn signal(&self, signal: Signal) {
        signal_to(self.child.id(), signal);
    }
}

impl Drop for GateProcess {
    fn drop(&mut self) {
        let _gone = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A primary whose commits wait for the gate.
struct Gated {
    gate: GateProcess,
    host: Host,
    server: Server,
    _dir: tempfile::TempDir,
}

const GATE: &str = "commit_gate = true\n";

impl Gated {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let server = Server::primary(dir.path());
        server.sql("CREATE TABLE written (n int)");
        server.set("synchronous_standby_names", "watchdog_gate");
        // It asks whether the gate still lives every second.
        server.set("wal_sender_timeout", "2s");
        let host = Host::new(&(server.guarded("") + &leased("db-hcmc", "127.0.0.1:9", "127.0.0.1:9", GATE)));
        let gate = GateProcess::begin(&host.config);
        Self { gate, host, server, _dir: dir }
    }

    /// Begins a commit.
    fn write(&self) -> Child {
        self.server.begin_sql("INSERT INTO written VALUES (1)")
    }

    fn until_waiting(&self, count: usize) {
        wait_until("commits to wait", || (self.waiting() == count).then_some(()));
    }

    fn waiting(&self) -> usize {
        self.server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").parse().unwrap()
    }

    fn rows(&self) -> usize {
        self.server.sql("SELECT count(*) FROM written").parse().unwrap()
    }

    /// Waits until the server has asked the gate and was answered, twice, on one and the same connection.
    fn until_answered_twice(&self) {
        let answer = || self.server.sql("SELECT pid, reply_time FROM pg_stat_replication");
        for _ in 0..2 {
            let before = answer();
            let pid = before.split('|').next().unwrap().to_owned() + "|";
            let after = wait_until("an answer to the server", || Some(answer()).filter(|now| *now != before));
            assert!(after.starts_with(&pid), "the stream was lost: {before} {after}");
        }
    }
}

impl Gated {
    /// Another gate, which comes by TCP under this role.
    fn comes_as(&mut self, role: &str, password: Option<&str>) {
        let file = self.host.path(&format!("password-of-{role}"));
        let mut by = format!("{GATE}[lease.replication]\nhost = \"127.0.0.1\"\nuser = \"{role}\"\n");
        if let Some(password) = password {
            fs::write(&file, password).unwrap();
            by += &format!("password_file = \"{}\"\n", file.display());
        }
        let text = self.server.guarded("") + &leased("db-hcmc", "127.0.0.1:9", "127.0.0.1:9", &by);
        let config = self.host.path(&format!("{role}.toml"));
        let head = fs::read_to_string(&self.host.config).unwrap();
        fs::write(&config, head.split("[postgres]").next().unwrap().to_owned() + &text).unwrap();
        self.gate = GateProcess::begin(&config);
    }
}

/// It was acknowledged.
fn done(mut commit: Child) {
    let status = wait_until("a commit to be acknowledged", || commit.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

#[test]
fn commits_wait_while_lapsed_and_no_answer_or_late_wakening_releases_them() {
    let mut gated = Gated::new();
    gated.gate.until_it_stands("in force: commits wait for \"watchdog_gate\" alone");
    let first = gated.write();
    gated.until_waiting(1);
    gated.gate.grant(LONG_MS);
    done(first);
    done(gated.write());

    gated.gate.lapse();
    let mut second = gated.write();
    gated.until_waiting(1);
    gated.until_answered_twice();
    assert_eq!((gated.waiting(), second.try_wait().unwrap()), (1, None), "released by an answer");
    gated.gate.grant(LONG_MS);
    done(second);

    // Frozen while the lease runs, awake when it is over. What came meanwhile it reads when it wakes.
    gated.gate.lapse();
    gated.until_answered_twice();
    let until_ms = gated.gate.grant(300);
    gated.gate.signal(Signal::STOP);
    let mut third = gated.write();
    gated.until_waiting(1);
    wait_until("the lease to be over", || (boottime_ms() >= until_ms).then_some(()));
    gated.gate.signal(Signal::CONT);
    gated.until_answered_twice();
    assert_eq!((gated.waiting(), third.try_wait().unwrap()), (1, None), "released by one that woke too late");
    gated.gate.grant(LONG_MS);
    done(third);
    assert_eq!(gated.rows(), 4);
}

#[test]
fn a_planned_stop_does_not_hang_and_the_gate_comes_back_with_the_server() {
    let mut gated = Gated::new();
    gated.gate.until_it_stands("in force");
    let mut commit = gated.write();
    gated.until_waiting(1);
    gated.server.stop_fast();
    assert!(!wait_until("the client to be sent away", || commit.try_wait().unwrap()).success(), "acknowledged");
    gated.gate.until_it_stands("not needed");

    gated.server.start();
    gated.gate.until_it_stands("in force");
    assert_eq!(gated.rows(), 1, "what was not acknowledged is not lost either");
    gated.gate.grant(LONG_MS);
    done(gated.write());
    // With the lease it stops by itself; and crashed it comes back as well.
    gated.server.stop_fast();
    gated.server.start();
    gated.gate.until_it_stands("in force");
    gated.server.kill();
    gated.server.start();
    done(gated.write());
    assert_eq!(gated.rows(), 3);
}

#[test]
fn a_killed_guard_loses_no_commit() {
    let mut gated = Gated::new();
    // The server asks for nothing: what releases is the gate's own doing.
    gated.server.set("wal_sender_timeout", "0");
    gated.gate.until_it_stands("in force");
    gated.gate.grant(LONG_MS);
    done(gated.write());
    let kill = |gated: &Gated| {
        gated.gate.signal(Signal::KILL);
        let streams = || gated.server.sql("SELECT count(*) FROM pg_stat_replication");
        wait_until("the stream to end", || (streams() == "0").then_some(()));
    };
    kill(&gated);
    let commits: Vec<Child> = (0..3).map(|_| gated.write()).collect();
    gated.until_waiting(3);
    gated.gate = GateProcess::begin(&gated.host.config);
    gated.gate.until_it_stands("in force");
    assert_eq!(gated.waiting(), 3, "a new process has no lease yet");
    kill(&gated);
    // Granted before there is a stream: its first replies may come too early to count.
    gated.gate = GateProcess::begin(&gated.host.config);
    gated.gate.grant(LONG_MS);
    commits.into_iter().for_each(done);
    assert_eq!(gated.rows(), 4);
}

#[test]
fn what_is_wrong_is_named() {
    let mut gated = Gated::new();
    gated.gate.until_it_stands("in force");
    for (setting, value, wanted) in [
        ("synchronous_standby_names", "", "NOT IN FORCE: synchronous_standby_names is empty"),
        ("synchronous_standby_names", "watchdog_gate, hanoi", "it must name \"watchdog_gate\" alone"),
        ("synchronous_standby_names", "*", "synchronous_standby_names is \"*\""),
        ("synchronous_standby_names", "FIRST 1 (WATCHDOG_gate)", "in force"),
        ("synchronous_commit", "off", "NOT IN FORCE: synchronous_commit is off"),
        ("synchronous_commit", "remote_apply", "in force: "),
    ] {
        gated.server.set(setting, value);
        gated.gate.until_it_stands(wanted);
    }
    gated.gate.grant(LONG_MS);
    done(gated.write());
    gated.server.sql("ALTER ROLE postgres SET synchronous_commit = local");
    gated.gate.until_it_stands("synchronous_commit=local is set for role postgres");
    gated.server.sql("ALTER ROLE postgres RESET synchronous_commit");
    gated.gate.until_it_stands("in force: ");

    // Others under its name would let commits go.
    let mut other = gated.server.receive_log("watchdog_gate");
    gated.gate.until_it_stands("serves another client named \"watchdog_gate\"");
    let _gone = other.kill().and_then(|()| other.wait());
    gated.gate.until_it_stands("in force: ");
}

#[test]
fn the_gate_comes_in_as_the_server_lets_it_and_says_why_not() {
    let mut gated = Gated::new();
    // The test's own psql comes by the first line, the gate, root's process, by the second as postgres.
    gated.server.allow(
        "local postgres all trust\nlocal replication postgres peer\nhost replication replicant 127.0.0.1/32 scram-sha-256\n\
         host replication old 127.0.0.1/32 md5\nhost replication clear 127.0.0.1/32 password\n",
    );
    gated.gate.grant(LONG_MS);
    gated.server.sql("CREATE ROLE replicant LOGIN PASSWORD 'right'");
    gated.server.sql("CREATE ROLE clear LOGIN REPLICATION PASSWORD 'right'");
    gated.server.sql("SET password_encryption = md5; CREATE ROLE old LOGIN REPLICATION PASSWORD 'right'");
    for (role, password, wanted) in [
        ("replicant", None, "asks for a password of replicant: name a file"),
        ("replicant", Some(""), "its first line is empty"),
        ("replicant", Some("wrong\n"), "(28P01); see lease.replication.password_file"),
        ("replicant", Some("right\n"), "(42501); give the role the attribute REPLICATION"),
        ("clear", Some("right"), "asks for the password in clear"),
        ("nobody", Some("right"), "(28000); add a line for database \"replication\" to pg_hba.conf"),
        ("old", Some("right"), "in force"),
    ] {
        gated.comes_as(role, password);
        gated.gate.until_it_stands(wanted);
    }
    gated.gate.grant(LONG_MS);
    gated.server.sql("ALTER ROLE replicant REPLICATION");
    gated.comes_as("replicant", Some("right\r\n"));
    gated.gate.until_it_stands("in force");
    let late = gated.write();
    gated.until_waiting(1);
    gated.gate.grant(LONG_MS);
    done(late);
}

#[test]
fn the_lease_drives_it_and_status_and_attestation_tell_of_it() {
    let site = Site::with(GATE);
    let status = |wanted: &str| {
        wait_until(wanted, || text(&site.primary_host.run(&["status"]).stdout).contains(wanted).then_some(()));
    };
    let attested = |wanted: &str| {
        let last = || site.node.last.lock().unwrap().clone();
        wait_until(wanted, || last().filter(|request| request.gate_detail.contains(wanted)).map(drop));
    };
    status("  commits    configured, but NOT IN FORCE: synchronous_standby_names is empty");
    site.node.say(Some(LeaseWord::Granted));
    attested("commit gate configured, but NOT IN FORCE");
    site.primary.sql("CREATE TABLE written (n int)");
    site.primary.set("synchronous_standby_names", "watchdog_gate");
    status("  commits    in force: commits wait for \"watchdog_gate\" alone");
    attested("commit gate in force");
    assert_eq!(site.primary.sql("INSERT INTO written VALUES (1) RETURNING n"), "1");

    // A denial ends the standby's word too.
    site.node.say(Some(LeaseWord::Denied));
    site.until("the lease to lapse", |until_ms| until_ms <= boottime_ms());
    let late = site.primary.begin_sql("INSERT INTO written VALUES (2)");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_until("the commit to wait", || (site.primary.sql(waiting) == "1").then_some(()));
    site.node.say(Some(LeaseWord::Granted));
    done(late);
}
