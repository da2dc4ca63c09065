//! The real guard behind a real sshd, over a real PostgreSQL: fence, promote, their proofs and refusals.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use std::collections::BTreeMap;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use watchdog::actuator::Actuator;
use watchdog::actuator::guarded::GuardedActuator;
use watchdog::domain::attempt::{Outcome, Prospect, Raised, ReadBack};
use watchdog::domain::ids::Token;
use watchdog::domain::plan::Action;
use watchdog::guard::protocol::PostgresRole;

use crate::ample;
use crate::guarded::warrant;
use crate::rig::{Sshd, run};

pub const GUARD: &str = env!("CARGO_BIN_EXE_watchdog-guard");
pub const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A host with a standby that follows nobody: in recovery, and it can be promoted.
pub struct Host {
    sshd: Sshd,
}

/// PostgreSQL refuses to run as root.
pub fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

impl Host {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_owned();
        let shown = at.display();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
        let forced = format!("{GUARD} --config {shown}/guard.toml ssh");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let pg = at.join("pg");
        fs::create_dir(&pg).unwrap();
        run(Command::new("chown").arg("postgres:").arg(&pg));
        let options = format!("-p {port} -k {shown}/pg -c listen_addresses=127.0.0.1 -c fsync=off");
        fs::write(
            at.join("guard.toml"),
            format!(
                "cluster = \"demo\"\nstate_dir = \"{shown}/guard\"\ngroups = [\"aicamera\"]\n\n[postgres]\n\
                 data_dir = \"{shown}/pg/data\"\nbin_dir = \"{BIN}\"\nsocket_dir = \"{shown}/pg\"\nport = {port}\n\
                 start_options = \"{options}\"\nstart_log = \"{shown}/pg/log\"\n\n\
                 [action.touch]\nargv = [[\"/usr/bin/touch\", \"{shown}/touched\"]]\n\
                 read_back = [\"/usr/bin/test\", \"-e\", \"{shown}/touched\"]\nuser = \"root\"\ntimeout_s = 10\n"
            ),
        )
        .unwrap();
        // Made before anything that can fail, so that its drop stops the database too.
        let host = Self { sshd: Sshd::start(folder, &forced).await };
        let data = host.sshd.path("pg/data");
        run(as_postgres(&format!("{BIN}/initdb")).args(["-A", "trust", "-U", "postgres", "-N", "-D"]).arg(&data));
        fs::write(data.join("standby.signal"), "").unwrap();
        run(Command::new("chown").arg("postgres:").arg(data.join("standby.signal")));
        run(as_postgres(&format!("{BIN}/pg_ctl"))
            .args(["-w", "-s", "-o", &options, "-l"])
            .arg(host.sshd.path("pg/log"))
            .arg("-D")
            .arg(&data)
            .arg("start"));
        host
    }

    fn guard(&self, args: &[&str]) {
        run(Command::new(GUARD).arg("--config").arg(self.sshd.path("guard.toml")).args(args));
    }

    pub fn hostname() -> String {
        fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let lock = fs::read_to_string(self.sshd.path("pg/data/postmaster.pid")).unwrap_or_default();
        let pid = lock.lines().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        // Immediate shutdown: its children go with it.
        let _ = pid.map(|pid| kill_process(pid, Signal::QUIT));
    }
}

#[tokio::test]
async fn a_standby_is_promoted_and_a_primary_fenced_each_with_proof() {
    let host = Host::start().await;
    let endpoint = host.sshd.endpoint();
    let actuator = GuardedActuator::default();
    let promote = Action::Promote { guard: endpoint.clone() };
    let fence = Action::Fence { guard: endpoint.clone() };

    // Nothing is trusted before a person enrolled it.
    let early = actuator.execute(&warrant(1), &promote, ample()).await;
    assert!(matches!(&early, Outcome::Failed { retryable: false, reason } if reason.contains("enroll")), "{early:?}");
    let name = Host::hostname();
    host.guard(&["enroll", "--group", "aicamera", "--cluster", "demo", "--epoch", "1", "--confirm", &name]);

    let status = actuator.status(&"demo".into(), 1, &endpoint, ample()).await.unwrap();
    assert_eq!(status.postgres.unwrap().role, PostgresRole::InRecovery);
    let begun = Instant::now();
    for _ in 0..20 {
        actuator.warm(&"demo".into(), 1, &endpoint, ample()).await.unwrap();
    }
    println!("warm session, real guard: {:?} for status, mean of 20", begun.elapsed() / 20);
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(actuator.raise(&warrant(3), &promote, ample()).await, Raised::Done { in_flight: None });
    }
    println!("warm session, real guard: {:?} for raise, mean of 20", begun.elapsed() / 20);

    let seen = actuator.read_back(&warrant(3), &promote, ample()).await;
    assert!(matches!(seen, ReadBack::NotDone { .. }), "{seen:?}");
    let prospect = actuator.can_succeed(&warrant(1), &promote, ample()).await;
    assert!(matches!(&prospect, Prospect::Good { evidence } if evidence.contains("in recovery")), "{prospect:?}");
    let begun = Instant::now();
    let outcome = actuator.execute(&warrant(3), &promote, ample()).await;
    println!("warm session, real guard: {:?} for promote", begun.elapsed());
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    let seen = actuator.read_back(&warrant(3), &promote, ample()).await;
    assert!(matches!(seen, ReadBack::Done { .. }), "{seen:?}");

    // A frozen leader wakes: refused by name, nothing changed.
    let held = Token { epoch: 1, n: 3 };
    assert_eq!(actuator.execute(&warrant(2), &fence, ample()).await, Outcome::Refused { held });
    assert_eq!(actuator.raise(&warrant(2), &fence, ample()).await, Raised::Refused { held });
    assert_eq!(actuator.read_back(&warrant(2), &fence, ample()).await, ReadBack::Refused { held });

    let seen = actuator.read_back(&warrant(4), &fence, ample()).await;
    assert!(matches!(seen, ReadBack::Untouched { .. }), "{seen:?}");
    let begun = Instant::now();
    let outcome = actuator.execute(&warrant(5), &fence, ample()).await;
    println!("warm session, real guard: {:?} for fence", begun.elapsed());
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    let begun = Instant::now();
    let seen = actuator.read_back(&warrant(6), &fence, ample()).await;
    println!("warm session, real guard: {:?} to read the fence back with its proof", begun.elapsed());
    let ReadBack::Done { evidence } = seen else { panic!("{seen:?}") };
    assert!(evidence.contains("server stopped") && evidence.contains("latched under 1.5 by run r1"), "{evidence}");
    assert!(!host.sshd.path("pg/data/postmaster.pid").exists());
    let prospect = actuator.can_succeed(&warrant(6), &promote, ample()).await;
    assert!(matches!(&prospect, Prospect::Bad { reason } if reason.contains("watchdogctl rejoin")), "{prospect:?}");
    assert_eq!(host.sshd.accepted(), 1, "all over one session");
}

#[tokio::test]
async fn a_latched_or_foreign_standby_is_no_prospect() {
    let host = Host::start().await;
    let endpoint = host.sshd.endpoint();
    let actuator = GuardedActuator::default();
    let promote = Action::Promote { guard: endpoint.clone() };
    let early = actuator.can_succeed(&warrant(1), &promote, ample()).await;
    assert!(matches!(&early, Prospect::Unknown { .. }), "not enrolled: {early:?}");
    let name = Host::hostname();
    host.guard(&["enroll", "--group", "aicamera", "--cluster", "demo", "--epoch", "1", "--confirm", &name]);
    let fenced = actuator.execute(&warrant(2), &Action::Fence { guard: endpoint.clone() }, ample()).await;
    assert!(matches!(fenced, Outcome::Done { .. }), "{fenced:?}");
    let latched = actuator.can_succeed(&warrant(1), &promote, ample()).await;
    let Prospect::Bad { reason } = latched else { panic!("{latched:?}") };
    assert!(reason.contains("latched") && reason.contains("watchdog-guard unlatch"), "{reason}");
    host.guard(&["unlatch", "--group", "aicamera", "--confirm", &name, "--reason", "it follows the primary"]);
    let prospect = actuator.can_succeed(&warrant(1), &promote, ample()).await;
    assert!(matches!(prospect, Prospect::Good { .. }), "{prospect:?}");
    host.sshd.signal_all(Signal::KILL);
    let silent = actuator.can_succeed(&warrant(1), &promote, ample()).await;
    assert!(matches!(silent, Prospect::Unknown { .. }), "{silent:?}");
}

#[tokio::test]
async fn named_actions_are_done_and_read_back_and_unknown_ones_refused() {
    let host = Host::start().await;
    let name = Host::hostname();
    host.guard(&["enroll", "--group", "aicamera", "--cluster", "demo", "--epoch", "1", "--confirm", &name]);
    let actuator = GuardedActuator::default();
    let action =
        |name: &str| Action::Guarded { guard: host.sshd.endpoint(), name: name.to_owned(), params: BTreeMap::new() };
    let seen = actuator.read_back(&warrant(1), &action("touch"), ample()).await;
    assert!(matches!(seen, ReadBack::NotDone { .. }), "{seen:?}");
    let outcome = actuator.execute(&warrant(1), &action("touch"), ample()).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert!(host.sshd.path("touched").exists());
    let seen = actuator.read_back(&warrant(1), &action("touch"), ample()).await;
    assert!(matches!(seen, ReadBack::Done { .. }), "{seen:?}");
    let outcome = actuator.execute(&warrant(1), &action("rm"), ample()).await;
    assert!(matches!(&outcome, Outcome::Failed { retryable: false, reason } if reason.contains("rm")), "{outcome:?}");
    let other = watchdog::domain::attempt::Warrant { cluster: "other".into(), ..warrant(9) };
    let outcome = actuator.execute(&other, &action("touch"), ample()).await;
    assert!(matches!(&outcome, Outcome::Failed { retryable: false, reason } if reason.contains("demo")), "{outcome:?}");
}
