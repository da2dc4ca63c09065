//! `rejoin` on a real old primary and a real new one: after a planned move, after a failover with what diverged, on a new disk, and
//! ended in its middle.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use watchdog::guard::host::{boot_nonce, boottime_ms, pause};
use watchdog::guard::protocol::{Reply, Request};

use crate::host::{Asked, Host, act, read_back, text, wait_until, warrant};
use crate::server::Server;

const BIN: &str = "/usr/lib/postgresql/15/bin";

struct Pair {
    /// The old primary's guard.
    host: Host,
    new_host: Host,
    old: Server,
    new: Server,
    dir: tempfile::TempDir,
}

impl Pair {
    /// A primary and its standby, streaming. `more`: of the old primary's guard; `stand_ins`: programs of PostgreSQL in whose place its
    /// guard finds others, `{dir}` and `{bin}` in them being the test's folder and the real ones'.
    fn new(upstream: &str, more: &str, stand_ins: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let old = Server::primary(dir.path());
        let new = Server::standby(dir.path(), &old);
        old.sql("CREATE TABLE rows AS SELECT generate_series(1, 1000) AS x");
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for entry in fs::read_dir(BIN).unwrap().flatten() {
            let stand_in = stand_ins.iter().find(|(name, _)| entry.file_name() == *name);
            let at = bin.join(entry.file_name());
            match stand_in {
                None => std::os::unix::fs::symlink(entry.path(), at).unwrap(),
                Some((_, script)) => {
                    let script = script.replace("{dir}", &dir.path().display().to_string()).replace("{bin}", BIN);
                    fs::write(&at, format!("#!/bin/sh\n{script}\n")).unwrap();
                    fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
                }
            }
        }
        // Stand-ins leave word there as the server's user.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let to = format!("{more}[postgres.upstream.other]\nconninfo = \"{}\"\n{upstream}", new.conninfo());
        let host = Host::new(&old.guarded_by(&bin.display().to_string(), &to));
        let back = format!("[postgres.upstream.other]\nconninfo = \"{}\"\n", old.conninfo());
        let new_host = Host::new(&new.guarded(&back));
        Self { host, new_host, old, new, dir }
    }

    fn plain() -> Self {
        Self::new("", "", &[])
    }

    /// The other side is promoted while this one still runs and writes; then this one is fenced, stopped in an orderly way.
    fn parted(self) -> Self {
        self.promote("r1", 5);
        self.old.sql("CREATE TABLE lost AS SELECT generate_series(1, 500) AS x");
        self.old.sql("INSERT INTO rows VALUES (-1)");
        self.new.sql("INSERT INTO rows VALUES (2001)");
        self.fence("r1", 5);
        self
    }

    fn fence(&self, run: &str, n: u64) {
        let (reply, _) = self.host.ask(&act(&warrant(run, "fence", n), "fence"));
        assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    }

    fn promote(&self, run: &str, n: u64) {
        let (reply, _) = self.new_host.ask(&act(&warrant(run, "promote", n), "promote"));
        assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    }

    fn request(run: &str, n: u64) -> Request {
        let params = BTreeMap::from([("upstream".to_owned(), "other".to_owned())]);
        Request::act(&warrant(run, "rejoin", n), "rejoin", params, &boot_nonce(), boottime_ms() + 120_000)
    }

    fn rejoin(&self, run: &str, n: u64) -> String {
        match self.host.ask(&Self::request(run, n)).0 {
            Reply::Done { evidence, .. } => evidence,
            other => panic!("{other:?}"),
        }
    }

    fn rejoin_fails(&self, run: &str, n: u64) -> (bool, String) {
        match self.host.ask(&Self::request(run, n)).0 {
            Reply::Failed { retryable, reason } => (retryable, reason),
            other => panic!("{other:?}"),
        }
    }

    /// What lies beside the old primary's data, by the begin of its name.
    fn beside(&self, word: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.old.data.parent().unwrap()).unwrap().flatten();
        let prefix = format!("data.{word}");
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path())
            .collect()
    }

    /// It follows the new one, has its rows and no others, and no latch.
    fn assert_follows(&self) {
        assert_eq!(self.host.status().groups[0].latch, None);
        assert_eq!(self.host.run(&["gate"]).status.code(), Some(0));
        assert_eq!(self.old.sql("SELECT pg_is_in_recovery()"), "t");
        self.new.sql("DROP TABLE IF EXISTS marker; CREATE TABLE marker AS SELECT 1 AS x");
        wait_until("it to follow", || (self.old.sql("SELECT to_regclass('marker') IS NOT NULL") == "t").then_some(()));
        let rows = "SELECT count(*) || ' ' || sum(x) FROM rows";
        assert_eq!(self.old.sql(rows), self.new.sql(rows));
        assert_eq!(self.old.sql("SELECT to_regclass('lost') IS NULL"), "t");
        assert!(self.beside("rejoining").is_empty() && self.beside("incoming").is_empty());
        assert!(self.beside("diverged.unfinished").is_empty());
    }
}

#[test]
fn after_a_planned_move_nothing_is_rewound_and_the_way_home_is_the_same() {
    let pair = Pair::plain();
    fs::write(pair.old.data.join("pg_ident.conf"), "# of db-hcmc\n").unwrap();
    pair.fence("r1", 5);
    pair.promote("r1", 5);
    pair.new.sql("INSERT INTO rows VALUES (2001)");
    // In the very run, under its token.
    let said = pair.rejoin("r1", 5);
    println!("{said}");
    assert!(said.contains("nothing diverged"), "{said}");
    pair.assert_follows();
    assert!(pair.beside("diverged").is_empty() && pair.beside("aside").is_empty());
    assert_eq!(fs::read_to_string(pair.old.data.join("pg_ident.conf")).unwrap(), "# of db-hcmc\n");
    let (reply, _) = pair.host.ask(&Pair::request("r1", 5));
    assert!(matches!(reply, Reply::Done { acted: false, .. }), "{reply:?}");

    // Home again: the one that was promoted is fenced, this one promoted, that one rejoins.
    let (reply, _) = pair.new_host.ask(&act(&warrant("r2", "fence", 6), "fence"));
    assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    let end = pair.new_host.status().postgres.unwrap().wal.unwrap();
    wait_until("it to have everything", || {
        let here = pair.host.status().postgres.unwrap().wal.unwrap().running.unwrap();
        // The control file of neither standby nor primary needs to say so yet.
        (here.timeline == Some(end.timeline) && here.replayed_lsn > Some(end.checkpoint_lsn)).then_some(())
    });
    assert_eq!(end.timeline, 2);
    let (reply, _) = pair.host.ask(&act(&warrant("r2", "promote", 6), "promote"));
    assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    let params = BTreeMap::from([("upstream".to_owned(), "other".to_owned())]);
    let back = Request::act(&warrant("r2", "rejoin", 6), "rejoin", params, &boot_nonce(), boottime_ms() + 120_000);
    let (reply, _) = pair.new_host.ask(&back);
    assert!(matches!(&reply, Reply::Done { evidence, .. } if evidence.contains("nothing diverged")), "{reply:?}");
    pair.old.sql("INSERT INTO rows VALUES (3001)");
    wait_until("the row at home to arrive", || (pair.new.sql("SELECT max(x) FROM rows") == "3001").then_some(()));
    assert_eq!(pair.new.sql("SELECT count(*) FROM rows"), "1002");
}

#[test]
fn what_diverged_is_kept_aside_and_rewound() {
    let pair = Pair::plain().parted();
    fs::write(pair.old.data.join("pg_ident.conf"), "# of db-hcmc\n").unwrap();
    let fork = fs::read_to_string(pair.new.data.join("pg_wal/00000002.history")).unwrap();
    let fork = fork.split('\t').nth(1).unwrap().to_owned();
    let said = pair.rejoin("r2", 6);
    println!("{said}");
    assert!(said.contains("rewound") && said.contains(&fork), "{said}");
    pair.assert_follows();
    assert_eq!(fs::read_to_string(pair.old.data.join("pg_ident.conf")).unwrap(), "# of db-hcmc\n");

    let kept = pair.beside("diverged");
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    let report = fs::read_to_string(kept.join("report.txt")).unwrap();
    println!("{report}");
    for words in
        [format!("{fork} on timeline 1"), "1 here, 2 on the new primary".to_owned(), "2 committed of 2".to_owned()]
    {
        assert!(report.contains(&words), "{words}: {report}");
    }
    assert!(report.contains("1663/5/") && report.contains("Transaction/COMMIT"), "{report}");
    // And what is kept can be read.
    let out = Command::new(format!("{BIN}/pg_waldump"))
        .args(["-t", "1", "-s", &fork, "-p"])
        .arg(kept.join("pg_wal"))
        .output()
        .unwrap();
    assert_eq!(text(&out.stdout).matches("COMMIT").count(), 2, "{}", text(&out.stderr));
}

/// Killed with what nobody else has: its own log tells, and pg_rewind recovers it first.
#[test]
fn what_a_killed_primary_had_alone_is_kept_too() {
    let pair = Pair::new("slot = \"old_primary\"\n", "", &[]);
    pair.promote("r1", 5);
    pair.old.sql("CREATE TABLE lost AS SELECT generate_series(1, 500) AS x");
    pair.old.kill();
    pair.new.sql("INSERT INTO rows VALUES (2001)");
    pair.fence("r1", 5);
    let said = pair.rejoin("r1", 6);
    assert!(said.contains("rewound") && said.contains("1 transactions"), "{said}");
    pair.assert_follows();
    let slot = pair.new.sql("SELECT slot_name || ' ' || active FROM pg_replication_slots");
    assert_eq!(slot, "old_primary true");
}

#[test]
fn a_new_disk_gets_a_base_backup_and_tablespaces_are_refused() {
    let pair = Pair::plain();
    pair.fence("r1", 5);
    pair.promote("r1", 5);
    let space = pair.new.data.parent().unwrap().join("space");
    fs::create_dir(&space).unwrap();
    assert!(Command::new("chown").arg("postgres:").arg(&space).status().unwrap().success());
    pair.new.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display()));
    fs::remove_dir_all(&pair.old.data).unwrap();
    let (is_retryable, why) = pair.rejoin_fails("r1", 5);
    assert!(!is_retryable && why.contains("fast at /") && why.contains("--tablespace-mapping"), "{why}");
    pair.new.sql("DROP TABLESPACE fast");
    let said = pair.rejoin("r1", 5);
    assert!(said.contains("base backup taken (no data directory; there was no old data)"), "{said}");
    pair.assert_follows();

    // An empty one: a new file system, not yet filled.
    pair.fence("r2", 6);
    pair.old.stop_fast();
    fs::remove_dir_all(&pair.old.data).unwrap();
    fs::create_dir(&pair.old.data).unwrap();
    let (reply, _) = pair.host.ask(&Request::read_back(
        &warrant("r2", "rejoin", 7),
        "rejoin",
        BTreeMap::from([("upstream".to_owned(), "other".to_owned())]),
    ));
    assert!(matches!(reply, Reply::NotDone { .. }), "{reply:?}");
    assert!(pair.rejoin("r2", 7).contains("there was no old data"));
    pair.assert_follows();
    assert!(pair.beside("aside").is_empty());
}

#[test]
fn an_upstream_that_is_silent_or_another_database_changes_nothing() {
    let pair = Pair::plain();
    pair.fence("r1", 5);
    pair.new.stop_fast();
    let (is_retryable, why) = pair.rejoin_fails("r2", 6);
    assert!(is_retryable && why.contains("nothing was changed: the upstream cannot be asked"), "{why}");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let stranger = Server::primary(elsewhere.path());
    let config = fs::read_to_string(&pair.host.config).unwrap();
    let config = config.replace(&pair.new.conninfo(), &stranger.conninfo());
    fs::write(&pair.host.config, config).unwrap();
    let (is_retryable, why) = pair.rejoin_fails("r2", 6);
    assert!(!is_retryable && why.contains("another database"), "{why}");
    assert!(pair.beside("").iter().all(|path| path.ends_with("data")), "{:?}", pair.beside(""));
    assert!(!pair.old.data.join("standby.signal").exists());
    assert!(pair.host.status().groups[0].latch.is_some());
}

#[test]
fn where_room_is_short_only_the_report_is_kept_and_no_base_backup_is_begun() {
    let pair = Pair::new("", "keep_free_mb = 100000000\n", &[]).parted();
    let said = pair.rejoin("r2", 6);
    assert!(said.contains("rewound") && said.contains("this report alone"), "{said}");
    let kept = pair.beside("diverged").remove(0);
    assert!(kept.join("report.txt").exists() && !kept.join("pg_wal").exists());
    pair.assert_follows();
    pair.fence("r3", 7);
    pair.old.stop_fast();
    fs::remove_file(pair.old.data.join("global/pg_control")).unwrap();
    let (is_retryable, why) = pair.rejoin_fails("r3", 8);
    assert!(is_retryable && why.contains("MiB are needed") && why.contains("keep_free_mb"), "{why}");
    assert!(pair.beside("incoming").is_empty());
}

/// Waits for `go`, then does what the real one does.
const HELD: &str = "echo '  1234/7258 kB (17%) copied' >&2\nwhile [ ! -e {dir}/go ]; do sleep 0.01; done\nexec {bin}/$(basename $0) \"$@\"";

fn until_phase(host: &Host, words: &str) {
    wait_until(&format!("the phase {words:?}"), || {
        host.status().groups[0].in_flight.clone()?.phase.filter(|phase| phase == words).map(drop)
    });
}

#[test]
fn a_rewind_that_outlives_its_guard_counts_once_it_is_through() {
    let pair = Pair::new("", "", &[("pg_rewind", HELD)]).parted();
    let Asked(mut guard) = pair.host.begin(&Pair::request("r2", 6));
    until_phase(&pair.host, "rewinding 17 %");
    guard.kill().unwrap();
    guard.wait().unwrap();
    let params = BTreeMap::from([("upstream".to_owned(), "other".to_owned())]);
    let (reply, _) = pair.host.ask(&Request::read_back(&warrant("r2", "rejoin", 7), "rejoin", params));
    assert!(
        matches!(&reply, Reply::InFlight { in_flight } if in_flight.to_string().contains("rewinding 17 %")),
        "{reply:?}"
    );
    let again = pair.host.begin(&Pair::request("r2", 7));
    fs::write(pair.dir.path().join("go"), "").unwrap();
    let (reply, _) = again.answer();
    assert!(matches!(&reply, Reply::Done { evidence, .. } if evidence.contains("by an earlier attempt")), "{reply:?}");
    pair.assert_follows();
}

#[test]
fn a_rewind_that_died_in_the_middle_is_followed_by_a_base_backup() {
    // A stand-in that leaves half a data directory behind.
    let dies = "for last; do :; done\nrm -f {dir}/primary/data/PG_VERSION.x\necho torn >{dir}/primary/data/global/1262\nsleep 300";
    let pair = Pair::new("", "", &[("pg_rewind", dies), ("pg_basebackup", HELD)]).parted();
    let Asked(mut guard) = pair.host.begin(&Pair::request("r2", 6));
    wait_until("half of it to be changed", || {
        (fs::read(pair.old.data.join("global/1262")).ok()? == b"torn\n").then_some(())
    });
    guard.kill().unwrap();
    guard.wait().unwrap();
    let (code, words) = {
        let out = pair.host.run(&["gate"]);
        (out.status.code(), text(&out.stderr))
    };
    assert!(code != Some(0) && words.contains("is not whole"), "{code:?} {words}");
    // Another run ends what goes on; and a release of what is nobody's is refused.
    let (reply, _) = pair.host.ask(&act(&warrant("r3", "release", 7), "release"));
    assert!(
        matches!(&reply, Reply::Failed { retryable: false, reason } if reason.contains("rejoin it again")),
        "{reply:?}"
    );
    let again = pair.host.begin(&Pair::request("r3", 7));
    until_phase(&pair.host, "base backup 17 %");
    let words = text(&pair.host.run(&["status"]).stdout);
    assert!(words.contains("base backup 17 %"), "{words}");
    fs::write(pair.dir.path().join("go"), "").unwrap();
    let (reply, _) = again.answer();
    assert!(matches!(&reply, Reply::Done { evidence, .. } if evidence.contains("in the middle")), "{reply:?}");
    pair.assert_follows();
    assert_eq!((pair.beside("aside").len(), pair.beside("diverged").len()), (1, 1));
}

/// One rejoin, its guard killed later each time, with what it runs left to itself; until one comes through.
#[test]
fn a_rejoin_killed_again_and_again_comes_through() {
    let pair = Pair::plain().parted();
    let mut n = 6;
    for after_ms in (30..).step_by(120) {
        let Asked(mut guard) = pair.host.begin(&Pair::request("r2", n));
        pause(after_ms);
        let is_through = guard.try_wait().unwrap().is_some();
        guard.kill().unwrap();
        guard.wait().unwrap();
        n += 1;
        if is_through {
            println!("through within {after_ms} ms, after {} that were killed", n - 7);
            break;
        }
        // Latched, or what can start as a standby only.
        let is_latched = pair.host.status().groups[0].latch.is_some();
        assert!(is_latched || pair.old.data.join("standby.signal").exists(), "killed after {after_ms} ms");
    }
    pair.rejoin("r2", n);
    pair.assert_follows();
    assert!(!pair.beside("diverged").is_empty());
    let (reply, _) = pair.host.ask(&read_back(&warrant("r2", "fence", n + 1), "fence"));
    assert!(matches!(reply, Reply::NotDone { .. }), "{reply:?}");
}
