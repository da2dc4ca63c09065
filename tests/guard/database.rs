//! `fence`, `promote` and `rejoin` on a real primary and standby.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use watchdog::domain::stuck::UNLATCH;
use watchdog::guard::host::{boot_nonce, boottime_ms};
use watchdog::guard::postgres::{ControlState, control_state};
use watchdog::guard::protocol::{PostgresRole, Refusal, Reply, Request};

use crate::host::{Host, act, act_within, read_back, text, wait_until, warrant};
use crate::server::Server;

/// A folder that the server's user may pass through.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn role(host: &Host) -> PostgresRole {
    host.status().postgres.unwrap().role
}

fn rejoin(run: &str, n: u64) -> Request {
    let params = BTreeMap::from([("upstream".to_owned(), "other".to_owned())]);
    Request::act(&warrant(run, "rejoin", n), "rejoin", params, &boot_nonce(), boottime_ms() + 120_000)
}

fn gate(host: &Host) -> (Option<i32>, String) {
    let out = host.run(&["gate"]);
    (out.status.code(), text(&out.stderr))
}

/// Fenced: said so, gone, latched, and the gate refuses.
fn assert_fenced(host: &Host, server: &Server) {
    assert_eq!(server.postmaster(), None);
    assert_eq!(host.status().groups[0].latch.as_ref().map(|mark| mark.token.n), Some(5));
    let (code, words) = gate(host);
    assert_eq!(code, Some(40));
    assert!(words.contains("fenced under token 1.5"), "{words}");
}

#[test]
fn a_standby_is_promoted_once() {
    let dir = folder();
    let primary = Server::primary(dir.path());
    let standby = Server::standby(dir.path(), &primary);
    let host = Host::new(&standby.guarded(""));
    assert_eq!(role(&host), PostgresRole::InRecovery);
    let warrant = warrant("r1", "promote", 5);
    assert!(matches!(host.ask(&read_back(&warrant, "promote")), (Reply::NotDone { .. }, 13)));
    primary.kill();

    let (reply, code) = host.ask(&act(&warrant, "promote"));
    assert!(matches!(reply, Reply::Done { acted: true, .. }), "{reply:?}");
    assert_eq!(code, 0);
    // Done means writable at once, not soon.
    assert_eq!(control_state(&standby.data), Ok(ControlState::InProduction));
    standby.sql("CREATE TABLE t AS SELECT 1 AS x");
    assert_eq!(role(&host), PostgresRole::Writable);
    for request in [act(&warrant, "promote"), read_back(&warrant, "promote")] {
        let (reply, code) = host.ask(&request);
        assert!(matches!(reply, Reply::Done { acted: false, .. }), "{reply:?}");
        assert_eq!(code, 0);
    }
    assert_eq!(host.events("promote"), ["started", "done"]);
    assert_eq!(standby.sql("SELECT timeline_id FROM pg_control_checkpoint()").parse::<u32>().unwrap().min(2), 2);
}

#[test]
fn promote_is_reported_and_never_killed() {
    let dir = folder();
    let primary = Server::primary(dir.path());
    let standby = Server::standby(dir.path(), &primary);
    // A stand-in pg_ctl that waits before it does what the real one does.
    let slow_bin = dir.path().join("slow-bin");
    fs::create_dir(&slow_bin).unwrap();
    let go = dir.path().join("go");
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.01; done\nexec /usr/lib/postgresql/15/bin/pg_ctl \"$@\"\n",
        go.display()
    );
    fs::write(slow_bin.join("pg_ctl"), script).unwrap();
    fs::set_permissions(slow_bin.join("pg_ctl"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/usr/lib/postgresql/15/bin/psql", slow_bin.join("psql")).unwrap();
    let host = Host::new(&standby.guarded_by(&slow_bin.display().to_string(), ""));

    let promoting = host.begin(&act(&warrant("r1", "promote", 5), "promote"));
    let at_work = host.until_in_flight();
    for (run, abort) in [("r2", false), ("r2", true)] {
        let n = if abort { 7 } else { 6 };
        let (reply, _) = host.ask(&Request::raise(&warrant(run, "x", n), abort));
        assert!(matches!(&reply, Reply::Raised { in_flight: Some(seen), .. } if seen.action == "promote"), "{reply:?}");
    }
    let (reply, code) = host.ask(&act(&warrant("r2", "fence", 8), "fence"));
    assert!(matches!(&reply, Reply::InFlight { in_flight } if in_flight.action == "promote"), "{reply:?}");
    assert_eq!(code, 12);
    assert!(watchdog::guard::exec::group_alive(at_work.process_group.unwrap()));
    fs::write(&go, "").unwrap();
    assert!(matches!(promoting.answer(), (Reply::Done { acted: true, .. }, 0)));
    assert_eq!(standby.sql("SELECT pg_is_in_recovery()"), "f");
}

/// The guard sleeps through its deadline and through the word that its fence is called off.
#[test]
fn an_aborted_fence_is_not_gone_on_with_by_a_guard_that_slept() {
    let dir = folder();
    let primary = Server::primary(dir.path());
    let stop = "stop_argv = [\"/bin/sleep\", \"60\"]\n";
    let host = Host::new(&primary.guarded(stop));
    let fencing = host.begin(&act_within(&warrant("r1", "fence", 5), "fence", 2000));
    host.until_in_flight();
    fencing.signal(Signal::STOP);
    let called_off_at = boottime_ms();
    host.ask(&Request::raise(&warrant("r1", "fence", 6), true));
    wait_until("the deadline to pass", || (boottime_ms() > called_off_at + 2000).then_some(()));
    fencing.signal(Signal::CONT);
    let (reply, _) = fencing.answer();
    assert!(matches!(&reply, Reply::Unknown { reason } if reason.contains("aborted by token 1.6")), "{reply:?}");
    assert_eq!(host.events("fence"), ["started", "preempted"]);
    assert_eq!(primary.sql("SELECT pg_is_in_recovery()"), "f", "the server was stopped all the same");
}

#[test]
fn a_running_primary_is_fenced_once_and_a_later_tokens_rejoin_clears_the_latch() {
    let dir = folder();
    let primary = Server::primary(dir.path());
    let standby = Server::standby(dir.path(), &primary);
    let new_primary = Host::new(&standby.guarded(""));
    let upstream = format!("[postgres.upstream.other]\nconninfo = \"{}\"\n", standby.conninfo());
    let host = Host::new(&primary.guarded(&upstream));
    assert_eq!(gate(&host).0, Some(0));
    let (reply, _) = host.ask(&rejoin("r1", 4));
    assert!(matches!(&reply, Reply::Failed { reason, .. } if reason.contains("fence it first")), "{reply:?}");

    let fence = warrant("r1", "fence", 5);
    assert!(matches!(host.ask(&read_back(&fence, "fence")), (Reply::NotDone { .. }, 13)));
    let (reply, code) = host.ask(&act(&fence, "fence"));
    assert!(matches!(&reply, Reply::Done { acted: true, evidence } if evidence.contains("lock free")), "{reply:?}");
    assert_eq!(code, 0);
    assert_fenced(&host, &primary);
    for request in [act(&fence, "fence"), read_back(&fence, "fence")] {
        assert!(matches!(host.ask(&request), (Reply::Done { acted: false, .. }, 0)));
    }
    assert_eq!(host.events("fence"), ["started", "done"]);

    assert!(matches!(new_primary.ask(&act(&warrant("r1", "promote", 5), "promote")), (Reply::Done { .. }, 0)));
    standby.sql("CREATE TABLE after_promotion AS SELECT 42 AS x");
    let (reply, code) = host.ask(&rejoin("another", 5));
    assert!(matches!(&reply, Reply::Refused { refusal: Refusal::Latched, .. }), "{reply:?}");
    assert_eq!(code, 31);
    let (reply, code) = host.ask(&rejoin("r2", 6));
    assert!(
        matches!(&reply, Reply::Done { acted: true, evidence } if evidence.contains("nothing diverged")),
        "{reply:?}"
    );
    assert_eq!((code, gate(&host).0), (0, Some(0)));
    wait_until("the row to arrive", || {
        (primary.sql("SELECT to_regclass('after_promotion') IS NOT NULL") == "t").then_some(())
    });
    assert_eq!(primary.sql("SELECT pg_is_in_recovery()"), "t");
    let (reply, _) = host.ask(&rejoin("r2", 6));
    assert!(matches!(reply, Reply::Done { acted: false, .. }), "{reply:?}");
}

#[test]
fn a_dead_primary_is_fenced_too_and_rejoins_by_base_backup_where_rewinding_cannot() {
    let dir = folder();
    let primary = Server::primary(dir.path());
    let standby = Server::standby(dir.path(), &primary);
    let upstream = format!("[postgres.upstream.other]\nconninfo = \"{}\"\n", standby.conninfo());
    let host = Host::new(&primary.guarded(&upstream));
    primary.kill();
    // Its process number is somebody else's by now: of all things the other server's.
    let other = standby.postmaster().unwrap();
    fs::write(primary.data.join("postmaster.pid"), format!("{other}\n")).unwrap();
    assert!(matches!(host.ask(&read_back(&warrant("r1", "fence", 5), "fence")), (Reply::NotDone { .. }, 13)));
    let (reply, _) = host.ask(&act(&warrant("r1", "fence", 5), "fence"));
    assert!(matches!(reply, Reply::Done { acted: true, .. }), "{reply:?}");
    fs::remove_file(primary.data.join("postmaster.pid")).unwrap();
    assert_fenced(&host, &primary);
    assert_eq!(standby.postmaster(), Some(other));

    let promoted = Host::new(&standby.guarded(""));
    assert!(matches!(promoted.ask(&act(&warrant("r1", "promote", 5), "promote")), (Reply::Done { .. }, 0)));
    fs::remove_file(primary.data.join("global/pg_control")).unwrap();
    let (reply, _) = host.ask(&rejoin("r2", 6));
    assert!(matches!(&reply, Reply::Done { evidence, .. } if evidence.contains("base backup taken")), "{reply:?}");
    assert_eq!(primary.sql("SELECT pg_is_in_recovery()"), "t");
    let kept = fs::read_dir(primary.data.parent().unwrap()).unwrap().flatten();
    assert_eq!(kept.filter(|entry| entry.file_name().to_string_lossy().starts_with("data.aside-")).count(), 1);
}

#[test]
fn a_frozen_primary_is_fenced() {
    let dir = folder();
    let primary = Server::primary(dir.path());
    let host = Host::new(&primary.guarded("").replace("stop_timeout_s = 5", "stop_timeout_s = 1"));
    primary.freeze();
    let (reply, _) = host.ask(&act(&warrant("r1", "fence", 5), "fence"));
    assert!(matches!(reply, Reply::Done { acted: true, .. }), "{reply:?}");
    assert_fenced(&host, &primary);
}

#[test]
fn a_standby_is_fenced_by_the_latch_alone_and_then_not_promoted() {
    let dir = folder();
    let primary = Server::primary(dir.path());
    let standby = Server::standby(dir.path(), &primary);
    let host = Host::new(&standby.guarded(""));
    let (reply, _) = host.ask(&act(&warrant("r1", "fence", 5), "fence"));
    assert!(
        matches!(&reply, Reply::Done { evidence, .. } if evidence.contains("in recovery and latched")),
        "{reply:?}"
    );
    assert_eq!((standby.sql("SELECT pg_is_in_recovery()").as_str(), gate(&host).0), ("t", Some(40)));
    let (reply, code) = host.ask(&act(&warrant("r2", "promote", 6), "promote"));
    // The refusal names the very command that clears the latch.
    let me = crate::host::name();
    let names_the_way = |reason: &str| reason.contains(&format!("{UNLATCH} --group aicamera --confirm {me} --reason"));
    let is_told = matches!(&reply, Reply::Refused { refusal: Refusal::Latched, reason, .. } if names_the_way(reason));
    assert!(is_told && names_the_way(&gate(&host).1), "{reply:?}");
    assert_eq!((code, standby.sql("SELECT pg_is_in_recovery()").as_str()), (31, "t"));

    let typed = ["unlatch", "--group", "aicamera", "--confirm", &me, "--reason", "a test of the latch"];
    assert!(host.run(&typed).status.success());
    assert_eq!(gate(&host).0, Some(0));
    assert!(matches!(host.ask(&act(&warrant("r2", "promote", 6), "promote")), (Reply::Done { .. }, 0)));
}

#[test]
fn a_fence_proves_nothing_where_it_cannot_look() {
    let dir = folder();
    let primary = Server::primary(dir.path());
    let wrong = primary.guarded("").replace(&primary.data.display().to_string(), "/var/lib/no-such-data");
    let host = Host::new(&wrong);
    let (reply, code) = host.ask(&act(&warrant("r1", "fence", 5), "fence"));
    assert!(matches!(&reply, Reply::Unknown { reason } if reason.contains("no data directory")), "{reply:?}");
    assert_eq!(code, 11);
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("PG_VERSION"), "15\n").unwrap();
    let host = Host::new(&primary.guarded("").replace(
        &format!("data_dir = \"{}\"", primary.data.display()),
        &format!("data_dir = \"{}\"", empty.display()),
    ));
    let (reply, _) = host.ask(&act(&warrant("r1", "fence", 5), "fence"));
    assert!(matches!(&reply, Reply::Unknown { reason } if reason.contains("somebody listens")), "{reply:?}");
    assert_eq!(primary.sql("SELECT pg_is_in_recovery()"), "f");
}

#[test]
fn a_guard_that_may_not_look_proves_nothing() {
    let dir = folder();
    let primary = Server::primary(dir.path());
    let host =
        Host::new(&primary.guarded("address = \"127.0.0.9\"\n").replace("socket_dir = \"", "socket_dir = \"/no"));
    // Somebody who is neither root nor the server's user, and who finds nobody at port or socket.
    fs::set_permissions(primary.data.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&primary.data, fs::Permissions::from_mode(0o755)).unwrap();
    let guard = dir.path().join("watchdog-guard");
    fs::copy(env!("CARGO_BIN_EXE_watchdog-guard"), &guard).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(&guard);
    let out = command.arg("--config").arg(&host.config).args(["status", "--output", "json"]).output().unwrap();
    fs::set_permissions(&primary.data, fs::Permissions::from_mode(0o700)).unwrap();
    let mut status: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let shown: watchdog::guard::protocol::PostgresStatus = serde_json::from_value(status["postgres"].take()).unwrap();
    assert_eq!(shown.role, PostgresRole::Unknown, "{}", shown.seen_by);
    assert!(shown.seen_by.contains("may not see where process"), "{}", shown.seen_by);
}
