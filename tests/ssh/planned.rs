//! A planned move's own steps, over real guards behind real sshds, on a real primary and its standby: catch-up and release.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use watchdog::actuator::Actuator;
use watchdog::actuator::guarded::GuardedActuator;
use watchdog::domain::attempt::{Outcome, ReadBack};
use watchdog::domain::ids::Token;
use watchdog::domain::plan::{Action, GuardEndpoint};
use watchdog::guard::postgres::processes;

use crate::guarded::warrant;
use crate::real_guard::{BIN, GUARD, Host, as_postgres};
use crate::rig::{Sshd, run};
use crate::{ample, wait_until};

/// A database's host.
struct Side {
    name: &'static str,
    sshd: Sshd,
    port: u16,
}

impl Side {
    /// With its guard, enrolled; no database yet.
    async fn start(name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shown = folder.path().display().to_string();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::create_dir(folder.path().join("pg")).unwrap();
        run(Command::new("chown").arg("postgres:").arg(folder.path().join("pg")));
        let config = format!(
            "cluster = \"demo\"\nstate_dir = \"{shown}/guard\"\ngroups = [\"aicamera\"]\n\n[postgres]\n\
             data_dir = \"{shown}/pg/data\"\nbin_dir = \"{BIN}\"\nsocket_dir = \"{shown}/pg\"\nport = {port}\n\
             start_options = \"{}\"\nstart_log = \"{shown}/pg/log\"\n",
            options(&shown, port)
        );
        fs::write(folder.path().join("guard.toml"), config).unwrap();
        let side =
            Self { name, sshd: Sshd::start(folder, &format!("{GUARD} --config {shown}/guard.toml ssh")).await, port };
        let me = Host::hostname();
        let words = ["enroll", "--group", "aicamera", "--cluster", "demo", "--epoch", "1", "--confirm", &me];
        run(Command::new(GUARD).arg("--config").arg(side.sshd.path("guard.toml")).args(words));
        side
    }

    fn start_server(&self) {
        let options = options(&self.sshd.folder.path().display().to_string(), self.port);
        let mut start = as_postgres(&format!("{BIN}/pg_ctl"));
        start.args(["-w", "-s", "-o", &options, "-l"]).arg(self.sshd.path("pg/log"));
        run(start.arg("-D").arg(self.sshd.path("pg/data")).arg("start"));
    }

    fn sql(&self, sql: &str) -> String {
        let mut psql = as_postgres(&format!("{BIN}/psql"));
        psql.args(["-XAtq", "-U", "postgres", "-p", &self.port.to_string(), "-h"]).arg(self.sshd.path("pg"));
        let out = psql.args(["-c", sql]).output().unwrap();
        assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    fn kill(&self) {
        let data = self.sshd.path("pg/data");
        let left = || processes(&data).unwrap_or_default();
        for pid in left() {
            let _ = Pid::from_raw(i32::try_from(pid).unwrap()).map(|pid| kill_process(pid, Signal::KILL));
        }
        while !left().is_empty() {
            watchdog::guard::host::pause(5);
        }
    }

    fn endpoint(&self) -> GuardEndpoint {
        GuardEndpoint { host: self.name.into(), ..self.sshd.endpoint() }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.kill();
    }
}

fn options(shown: &str, port: u16) -> String {
    format!("-p {port} -k {shown}/pg -c listen_addresses=127.0.0.1 -c fsync=off")
}

struct Pair {
    old: Side,
    new: Side,
    actuator: GuardedActuator,
}

impl Pair {
    async fn start() -> Self {
        let (old, new) = (Side::start("db-hcmc").await, Side::start("db-hanoi").await);
        let mut initdb = as_postgres(&format!("{BIN}/initdb"));
        run(initdb.args(["-A", "trust", "-U", "postgres", "-N", "-D"]).arg(old.sshd.path("pg/data")));
        old.start_server();
        let source = format!("host=127.0.0.1 port={} user=postgres", old.port);
        let mut copy = as_postgres(&format!("{BIN}/pg_basebackup"));
        run(copy.args(["-R", "-c", "fast", "-N", "-d", &source, "-D"]).arg(new.sshd.path("pg/data")));
        new.start_server();
        wait_until("the standby streams", || old.sql("SELECT count(*) FROM pg_stat_replication") == "1").await;
        old.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS x");
        Self { old, new, actuator: GuardedActuator::default() }
    }

    fn catch_up(&self) -> Action {
        Action::CatchUp { from: self.old.endpoint(), to: self.new.endpoint() }
    }

    async fn fence(&self, n: u64) {
        let fence = Action::Fence { guard: self.old.endpoint() };
        let outcome = self.actuator.execute(&warrant(n), &fence, ample()).await;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    }

    /// Waits for nothing: asked once.
    async fn caught_up(&self, n: u64) -> Outcome {
        self.actuator.execute(&warrant(n), &self.catch_up(), ample()).await
    }

    async fn until_caught_up(&self, n: u64) -> String {
        for _ in 0..2000 {
            match self.caught_up(n).await {
                Outcome::Done { evidence } => return evidence,
                Outcome::Failed { retryable: true, .. } => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("not caught up: {:?}", self.caught_up(n).await)
    }
}

fn assert_failed(outcome: &Outcome, is_retryable: bool, words: &str) {
    let is_so = matches!(outcome, Outcome::Failed { retryable, reason } if *retryable == is_retryable && reason.contains(words));
    assert!(is_so, "{outcome:?} does not say {words:?}, retryable {is_retryable}");
}

#[tokio::test]
async fn a_stopped_primary_is_caught_up_with_and_released() {
    let pair = Pair::start().await;
    assert_failed(&pair.caught_up(1).await, true, "it must be stopped first");
    pair.fence(2).await;
    let evidence = pair.until_caught_up(2).await;
    println!("{evidence}");
    let end = pair.new.sql("SELECT pg_last_wal_replay_lsn()");
    assert!(
        evidence.contains("db-hcmc: shut down") && evidence.contains(&format!("db-hanoi: replayed {end}")),
        "{evidence}"
    );
    let catch_up = pair.catch_up();
    for seen in [
        pair.actuator.read_back(&warrant(2), &catch_up, ample()).await,
        pair.actuator.peek(&"demo".into(), 1, &catch_up, ample()).await,
    ] {
        assert!(matches!(&seen, ReadBack::Done { evidence } if evidence.contains(&end)), "{seen:?}");
    }
    // A standby that was restarted since says of what it received nothing, and of what it replayed the same.
    let mut restart = as_postgres(&format!("{BIN}/pg_ctl"));
    run(restart.args(["stop", "-w", "-m", "fast", "-D"]).arg(pair.new.sshd.path("pg/data")));
    assert_failed(&pair.caught_up(2).await, true, "start it there");
    pair.new.start_server();
    assert!(pair.until_caught_up(2).await.contains(&end));

    let release = Action::Release { guard: pair.old.endpoint() };
    let seen = pair.actuator.read_back(&warrant(2), &release, ample()).await;
    assert!(matches!(seen, ReadBack::NotDone { .. }), "{seen:?}");
    let seen = pair.actuator.peek(&"demo".into(), 1, &release, ample()).await;
    assert!(matches!(seen, ReadBack::NotDone { .. }), "{seen:?}");
    let outcome = pair.actuator.execute(&warrant(2), &release, ample()).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    let seen = pair.actuator.read_back(&warrant(2), &release, ample()).await;
    let is_proved = matches!(&seen, ReadBack::Done { evidence } if evidence.contains("db-hcmc: server writable") && evidence.contains("no latch"));
    assert!(is_proved, "{seen:?}");
    let seen = pair.actuator.peek(&"demo".into(), 1, &release, ample()).await;
    assert!(matches!(seen, ReadBack::Done { .. }), "{seen:?}");
    assert_eq!(pair.old.sql("INSERT INTO kept VALUES (0); SELECT count(*) FROM kept"), "1001");
    wait_until("the standby follows it again", || pair.new.sql("SELECT count(*) FROM kept") == "1001").await;

    // And again, under a later token; the one before does nothing any more.
    pair.fence(3).await;
    pair.until_caught_up(3).await;
    let held = Token { epoch: 1, n: 3 };
    assert_eq!(pair.caught_up(2).await, Outcome::Refused { held });
    assert_eq!(pair.actuator.execute(&warrant(2), &release, ample()).await, Outcome::Refused { held });
    let outcome = pair.actuator.execute(&warrant(3), &release, ample()).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
}

#[tokio::test]
async fn who_lags_or_cannot_be_asked_is_not_caught_up_and_after_a_crash_nobody_is() {
    let pair = Pair::start().await;
    pair.new.sql("SELECT pg_wal_replay_pause()");
    pair.old.sql("INSERT INTO kept SELECT generate_series(1, 1000)");
    pair.fence(2).await;
    let lags = pair.caught_up(2).await;
    assert_failed(&lags, true, "bytes and that record are missing");
    println!("{lags:?}");
    pair.new.sql("SELECT pg_wal_replay_resume()");
    pair.until_caught_up(2).await;
    pair.new.sshd.signal_all(Signal::STOP);
    let soon = tokio::time::Instant::now() + std::time::Duration::from_millis(400);
    let silent = pair.actuator.execute(&warrant(2), &pair.catch_up(), soon).await;
    pair.new.sshd.signal_all(Signal::CONT);
    assert_failed(&silent, true, "db-hanoi");

    let release = Action::Release { guard: pair.old.endpoint() };
    let outcome = pair.actuator.execute(&warrant(2), &release, ample()).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    pair.old.kill();
    pair.fence(3).await;
    assert_failed(&pair.caught_up(3).await, false, "in production, not shut down");
}
