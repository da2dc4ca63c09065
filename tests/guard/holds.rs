//! Promotion holds on a real standby: when one is granted, and that a promotion waits for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use watchdog::domain::attempt::Warrant;
use watchdog::domain::ids::{HostName, Token};
use watchdog::guard::config::Config;
use watchdog::guard::host::boottime_ms;
use watchdog::guard::lease::hold::{self, Ask, HoldRecord};
use watchdog::guard::postgres::{Role, look_closely};
use watchdog::guard::protocol::{Refusal, Reply};
use watchdog::guard::records;
use watchdog::guard::session::Session;

use crate::host::{Host, act, flip, read_back, text, wait_until, warrant};
use crate::server::Server;

/// A standby's host whose guard may hold.
struct Site {
    host: Host,
    primary: Server,
    standby: Server,
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let primary = Server::primary(dir.path());
        let standby = Server::standby(dir.path(), &primary);
        let host = Host::new(&standby.guarded(""));
        Self { host, primary, standby, dir }
    }

    fn hold(&self, ask: &Ask) -> Result<HoldRecord, String> {
        hold::grant(&Config::load(&self.host.config).unwrap(), ask, boottime_ms(), look_closely)
    }
}

/// For a TTL that no test waits for, over the token that `Host::new` leaves.
fn ask(n: u64) -> Ask {
    Ask {
        cluster: "demo".into(),
        epoch: 1,
        group: "aicamera".into(),
        host: "db-hcmc".into(),
        ttl_ms: 50_000,
        ground: Token { epoch: 1, n },
    }
}

/// As if it had been granted so long ago that only this is left of it.
fn shorten(host: &Host, remaining_ms: u64) {
    let mut record: HoldRecord = records::read(&host.state("hold.json")).unwrap();
    record.until_boottime_ms = boottime_ms() + remaining_ms;
    records::write_durably(&host.state("hold.json"), &record).unwrap();
}

fn promote(host: &Host, run: &str, n: u64) -> (Reply, i32) {
    host.ask(&act(&warrant(run, "promote", n), "promote"))
}

fn assert_held(reply: &Reply, words: &str) {
    let is_held = matches!(reply, Reply::Failed { retryable: true, reason } if reason.contains(words));
    assert!(is_held, "{reply:?} does not say {words:?}");
}

#[test]
fn a_promotion_waits_for_the_hold_and_ends_new_ones() {
    let site = Site::new();
    let before = boottime_ms();
    let granted = site.hold(&ask(3)).unwrap();
    assert!((before + 60_000..=boottime_ms() + 60_000).contains(&granted.until_boottime_ms), "{granted:?}");
    let shown = site.host.status().groups[0].hold.clone().unwrap();
    assert_eq!(shown.host, HostName::from("db-hcmc"));
    assert!((1..=60_000).contains(&shown.remaining_ms), "{shown:?}");
    let words = text(&site.host.run(&["status"]).stdout);
    assert!(words.contains("hold       the promotion hold for db-hcmc runs"), "{words}");

    site.primary.kill();
    // The holder's guard was never alive in between: the hold is in the file alone.
    let (reply, code) = promote(&site.host, "r1", 4);
    assert_held(&reply, "the promotion hold for db-hcmc runs");
    assert_eq!((code, site.standby.sql("SELECT pg_is_in_recovery()").as_str()), (10, "t"));
    let (reply, code) = site.host.ask(&read_back(&warrant("r1", "promote", 4), "promote"));
    assert!(matches!(&reply, Reply::NotDone { evidence } if evidence.contains("runs")), "{reply:?}");
    assert_eq!(code, 13);

    // Another host's end is no reason; its own is, and is said with a promotion only.
    let over_the_end_of =
        |host: &str| act(&Warrant { fenced_host: Some(host.into()), ..warrant("r1", "promote", 4) }, "promote");
    assert_held(&site.host.ask(&over_the_end_of("db-hue")).0, "the promotion hold for db-hcmc runs");
    let mut odd = over_the_end_of("db-hcmc");
    odd.action = "fence".to_owned();
    assert!(matches!(site.host.ask(&odd).0, Reply::Refused { refusal: Refusal::BadRequest, .. }));

    // The run's token stands above the old ground, and its own ground would let holds begin again.
    let why = site.hold(&ask(3)).unwrap_err();
    assert!(why.contains("token 1.4 was raised here, above the ground 1.3"), "{why}");
    shorten(&site.host, 300);
    let done = wait_until("the hold to be over", || match promote(&site.host, "r1", 4).0 {
        Reply::Done { evidence, .. } => Some(evidence),
        reply => {
            assert_held(&reply, "runs");
            None
        }
    });
    assert!(done.contains("in production"), "{done}");
    assert_eq!(site.host.status().groups[0].hold, None);
    let why = site.hold(&ask(4)).unwrap_err();
    assert!(why.contains("no standby"), "{why}");
}

#[test]
fn a_hold_for_a_host_that_is_fenced_is_not_waited_for() {
    let site = Site::new();
    site.hold(&ask(3)).unwrap();
    site.primary.kill();
    let over = Warrant { fenced_host: Some("db-hcmc".into()), ..warrant("r1", "promote", 4) };
    let (reply, code) = site.host.ask(&act(&over, "promote"));
    assert!(matches!(reply, Reply::Done { acted: true, .. }), "{reply:?}");
    assert_eq!(code, 0);
}

#[test]
fn a_hold_is_refused_where_it_could_not_be_kept() {
    let site = Site::new();
    let wrong = |change: &dyn Fn(&mut Ask)| {
        let mut ask = ask(9);
        change(&mut ask);
        site.hold(&ask).unwrap_err()
    };
    for (why, words) in [
        (wrong(&|ask| ask.cluster = "other".into()), "serves cluster \"demo\""),
        (wrong(&|ask| ask.epoch = 2), "enrolled with cluster \"demo\" epoch 1"),
        (wrong(&|ask| ask.group = "payments".into()), "no database of group \"payments\""),
        (wrong(&|ask| ask.ttl_ms = 0), "ttl_ms: 0"),
        (wrong(&|ask| ask.ttl_ms = 60_001), "ttl_ms: 60001"),
    ] {
        assert!(why.contains(words), "{why:?} does not say {words:?}");
    }
    // Asked for too long ago: the primary could make nothing of it.
    let config = Config::load(&site.host.config).unwrap();
    let why = hold::grant(&config, &ask(9), boottime_ms().saturating_sub(50_001), look_closely).unwrap_err();
    assert!(why.contains("TTL"), "{why}");
    let primary = Host::new(&site.primary.guarded(""));
    let why = hold::grant(&Config::load(&primary.config).unwrap(), &ask(9), boottime_ms(), look_closely).unwrap_err();
    assert!(why.contains("no standby"), "{why}");
    let stranger = Host::not_enrolled(&site.standby.guarded(""));
    let why = hold::grant(&Config::load(&stranger.config).unwrap(), &ask(9), boottime_ms(), look_closely).unwrap_err();
    assert!(why.contains("does not exist"), "{why}");
    site.standby.freeze();
    let why = site.hold(&ask(9)).unwrap_err();
    assert!(why.contains("no standby that stays one"), "a server that cannot be asked: {why}");
    for host in [&site.host, &primary] {
        assert!(!host.state("hold.json").exists());
    }
}

#[test]
fn a_latched_standby_may_hold_and_a_withdrawn_run_lets_holds_begin_again() {
    let site = Site::new();
    assert!(matches!(site.host.ask(&act(&warrant("r1", "fence", 4), "fence")).0, Reply::Done { .. }));
    site.hold(&ask(3)).unwrap_err();
    site.hold(&ask(4)).unwrap();
    // A word once given is not shortened by a shorter one.
    let long = site.hold(&ask(5)).unwrap();
    let short = site.hold(&Ask { ttl_ms: 1000, ..ask(5) }).unwrap();
    assert!(short.until_boottime_ms + 100 >= long.until_boottime_ms, "{short:?} {long:?}");
}

#[test]
fn a_promotion_in_flight_ends_new_holds_and_is_seen_though_its_token_is_the_ground() {
    let site = Site::new();
    // A stand-in pg_ctl that waits before it does what the real one does.
    let slow_bin = site.dir.path().join("slow-bin");
    fs::create_dir(&slow_bin).unwrap();
    let go = site.dir.path().join("go");
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.01; done\nexec /usr/lib/postgresql/15/bin/pg_ctl \"$@\"\n",
        go.display()
    );
    fs::write(slow_bin.join("pg_ctl"), script).unwrap();
    fs::set_permissions(slow_bin.join("pg_ctl"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/usr/lib/postgresql/15/bin/psql", slow_bin.join("psql")).unwrap();
    let host = Host::new(&site.standby.guarded_by(&slow_bin.display().to_string(), ""));
    let promoting = host.begin(&act(&warrant("r1", "promote", 5), "promote"));
    host.until_in_flight();
    let config = Config::load(&host.config).unwrap();
    let why = hold::grant(&config, &ask(5), boottime_ms(), look_closely).unwrap_err();
    assert!(why.contains("a promotion is in flight"), "{why}");
    // Asked for by hand, and not taken up yet.
    let signal = site.standby.data.join("promote");
    fs::write(&signal, "").unwrap();
    let why = hold::grant(&config, &ask(5), boottime_ms(), look_closely).unwrap_err();
    assert!(why.contains("a promotion was asked for"), "{why}");
    fs::remove_file(&signal).unwrap();
    fs::write(&go, "").unwrap();
    assert!(matches!(promoting.answer(), (Reply::Done { acted: true, .. }, 0)));
}

#[test]
fn a_hold_of_an_earlier_boot_and_one_that_cannot_be_read_stand() {
    let site = Site::new();
    site.hold(&ask(3)).unwrap();
    let file = site.host.state("hold.json");
    let mut record: HoldRecord = records::read(&file).unwrap();
    record.boot_nonce = "an earlier boot".to_owned();
    record.until_boottime_ms = 1;
    record.lasts_ms = boottime_ms() + 60_000;
    records::write_durably(&file, &record).unwrap();
    assert_held(&promote(&site.host, "r1", 4).0, "the promotion hold for db-hcmc runs");

    flip(&file);
    assert_held(&promote(&site.host, "r1", 4).0, "watchdog-guard enroll --group aicamera");
    let group = site.host.status().groups[0].clone();
    assert_eq!(group.hold.map(|hold| hold.remaining_ms), Some(u64::MAX));
    assert!(group.fault.is_some_and(|fault| fault.contains("hold.json is damaged")));
    assert!(site.hold(&ask(4)).unwrap_err().contains("damaged"));
    // Enrolled again, it holds once more for as long as anybody can have been promised.
    site.host.enroll(1);
    let hold = site.host.status().groups[0].hold.clone().unwrap();
    assert!(hold.remaining_ms > 60_000, "{hold:?}");
    record.boot_nonce = "an earlier boot".to_owned();
    record.lasts_ms = boottime_ms() - 1;
    records::write_durably(&file, &record).unwrap();
    assert!(matches!(promote(&site.host, "r1", 4), (Reply::Done { .. }, 0)));
}

/// The resident guard's way of asking: one session for many questions, and another when the server is another.
#[test]
fn the_server_is_asked_over_one_session_until_it_is_another() {
    let site = Site::new();
    let config = Config::load(&site.host.config).unwrap();
    let pg = config.postgres.as_ref().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _within = runtime.enter();
    let session = Session::default();
    let ours = "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity \
                WHERE application_name = 'watchdog-guard'";
    let ask = || session.look_closely(pg);

    assert_eq!(ask().role, Role::InRecovery);
    let first = site.standby.sql(ours);
    assert_eq!(first.split(' ').count(), 1, "{first}");
    assert_eq!(ask().role, Role::InRecovery);
    assert_eq!(site.standby.sql(ours), first);

    site.standby.stop_fast();
    assert_eq!(ask().role, Role::Stopped);
    site.standby.start();
    assert_eq!(ask().role, Role::InRecovery);
    assert_ne!(site.standby.sql(ours), first);

    // Frozen with all its sessions: nothing can be told, and nothing waits for ever.
    site.standby.signal_all(Signal::STOP);
    let seen = ask();
    assert_eq!(seen.role, Role::Unknown, "{seen:?}");
    assert!(seen.how.contains("no answer in time"), "{seen:?}");
    site.standby.signal_all(Signal::CONT);
    wait_until("an answer once it is awake", || (ask().role == Role::InRecovery).then_some(()));

    site.standby.sql("SELECT pg_promote()");
    wait_until("its promotion to be seen", || (ask().role == Role::Writable).then_some(()));
}
