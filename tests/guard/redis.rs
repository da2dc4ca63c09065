//! What is done to Redis, on a real primary and its replica.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use watchdog::domain::ids::UnixMs;
use watchdog::guard::host::{boot_nonce, boottime_ms};
use watchdog::guard::latch::{self, Latch};
use watchdog::guard::protocol::{LatchMark, Refusal, Reply, Request};

use crate::host::{Host, act, name, read_back, signal_to, text, warrant};

#[path = "../lab/redis.rs"]
#[allow(dead_code, reason = "shared with other tests, which use all of it")]
mod server;
use server::Redis;

/// Two servers and the guard of each.
struct Pair {
    old: Redis,
    new: Redis,
    old_host: Host,
    new_host: Host,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let old = Redis::primary(&folder.path().join("old"), true);
        let new = Redis::replica_of(&old, &folder.path().join("new"));
        let (old_host, new_host) = (Host::new(&guarded(&old, &new)), Host::new(&guarded(&new, &old)));
        Self { old, new, old_host, new_host, _folder: folder }
    }
}

fn guarded(own: &Redis, other: &Redis) -> String {
    format!(
        "[redis]\naddress = \"{}\"\npassword_file = \"{}\"\nconfig_file = \"{}\"\nrun_as = \"root\"\n\
         upstream.other = \"{}\"\n",
        own.address(),
        own.password_file().display(),
        own.config().display(),
        other.address()
    )
}

fn with_upstream(run: &str, action: &str, n: u64) -> Request {
    let params = BTreeMap::from([("upstream".to_owned(), "other".to_owned())]);
    Request::act(&warrant(run, action, n), action, params, &boot_nonce(), boottime_ms() + 20_000)
}

fn brief(mut request: Request) -> Request {
    request.not_after_boottime_ms = Some(boottime_ms() + 3000);
    request
}

/// As a guard leaves it that dies between its latch and the demotion.
fn leave_latched(host: &Host, run: &str, step: &str, n: u64) {
    let asker = warrant(run, step, n);
    assert!(matches!(host.ask(&Request::raise(&asker, false)).0, Reply::Raised { .. }));
    let mark = LatchMark { token: asker.token, run: asker.run, step: asker.step, at: UnixMs(0) };
    latch::store_at(&host.state("redis-latch.json"), &Latch { mark: Some(mark), cleared_by: None }).unwrap();
}

fn simple(run: &str, action: &str, n: u64) -> Request {
    act(&warrant(run, action, n), action)
}

fn must(host: &Host, request: &Request) -> String {
    match host.ask(request).0 {
        Reply::Done { evidence, acted: true } => evidence,
        other => panic!("{}: {other:?}", request.action),
    }
}

fn is_there_already(host: &Host, request: &Request) {
    let (reply, _) = host.ask(request);
    assert!(matches!(reply, Reply::Done { acted: false, .. }), "{}: {reply:?}", request.action);
}

fn refuses_lower(host: &Host, request: &Request) {
    let (reply, _) = host.ask(request);
    assert!(matches!(reply, Reply::Refused { refusal: Refusal::LowerToken, .. }), "{}: {reply:?}", request.action);
}

fn failed(host: &Host, request: &Request) -> String {
    match host.ask(request).0 {
        Reply::Failed { reason, .. } => reason,
        other => panic!("{}: {other:?}", request.action),
    }
}

fn gate(host: &Host) -> Option<i32> {
    host.run(&["gate", "--redis"]).status.code()
}

fn is_primary(server: &Redis) -> bool {
    server.info("role").as_deref() == Some("master")
}

fn config(server: &Redis) -> String {
    std::fs::read_to_string(server.config()).unwrap()
}

#[test]
fn a_fenced_primary_is_gone_and_does_not_come_back() {
    let pair = Pair::new();
    let host = &pair.old_host;
    assert_eq!(gate(host), Some(0));
    let (reply, _) = host.ask(&read_back(&warrant("r1", "redis-fence", 5), "redis-fence"));
    assert!(matches!(reply, Reply::NotDone { .. }), "{reply:?}");
    let evidence = must(host, &simple("r1", "redis-fence", 5));
    assert!(evidence.contains("latched under 1.5") && evidence.contains("nobody listens"), "{evidence}");
    assert!(pair.old.try_ask(&["PING"]).is_err());
    assert_eq!(gate(host), Some(40));
    assert!(text(&host.run(&["status"]).stdout).contains("Redis of group aicamera"));
    is_there_already(host, &simple("r1", "redis-fence", 5));
    refuses_lower(host, &simple("r0", "redis-fence", 4));
    // Its latch is its own: a person's word for the database does not open it.
    let words = ["unlatch", "--group", "aicamera", "--confirm", &name(), "--reason", "test"];
    assert!(host.run(&words).status.success());
    assert_eq!(gate(host), Some(40));
    assert!(host.run(&[&words[..], &["--redis"]].concat()).status.success());
    assert_eq!(gate(host), Some(0));
}

/// The latch as the cluster is told, in words; the guard's report has none where all is well.
fn told(host: &Host) -> Option<Result<String, String>> {
    match host.ask(&Request::describe("demo".into(), 1)).0 {
        Reply::Described { redis, .. } => redis.map(|shown| match (shown.latch, shown.fault) {
            (Some(mark), None) => Ok(format!("{} {}/{}", mark.token, mark.run, mark.step)),
            (None, Some(why)) => Err(why),
            other => panic!("{other:?}"),
        }),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_cluster_is_told_of_a_latch() {
    let pair = Pair::new();
    assert_eq!(told(&pair.old_host), None);
    must(&pair.old_host, &simple("r1", "redis-fence", 5));
    assert_eq!(told(&pair.old_host), Some(Ok("1.5 r1/redis-fence".to_owned())));
    std::fs::write(pair.old_host.state("redis-latch.json"), "{").unwrap();
    let why = told(&pair.old_host).and_then(Result::err);
    assert!(why.as_ref().is_some_and(|why| why.contains("redis-latch.json")), "{why:?}");
    assert_eq!(told(&pair.new_host), None);
}

#[test]
fn a_frozen_primary_is_killed() {
    let pair = Pair::new();
    signal_to(pair.old.pid(), rustix::process::Signal::STOP);
    let request = Request::act(
        &warrant("r1", "redis-fence", 5),
        "redis-fence",
        BTreeMap::new(),
        &boot_nonce(),
        boottime_ms() + 3000,
    );
    must(&pair.old_host, &request);
}

#[test]
fn a_replica_is_promoted_once_and_stays_so() {
    let mut pair = Pair::new();
    pair.old.ask(&["SET", "key", "value"]);
    pair.new.until_linked();
    let host = &pair.new_host;
    must(&pair.old_host, &simple("r1", "redis-fence", 5));
    let (reply, _) = host.ask(&read_back(&warrant("r1", "redis-promote", 5), "redis-promote"));
    assert!(matches!(reply, Reply::NotDone { .. }), "{reply:?}");
    must(host, &simple("r1", "redis-promote", 5));
    assert!(is_primary(&pair.new));
    assert_eq!(pair.new.ask(&["SET", "other", "1"]), "OK");
    is_there_already(host, &simple("r1", "redis-promote", 5));
    refuses_lower(host, &simple("r0", "redis-promote", 4));
    assert!(!config(&pair.new).contains("replicaof 127"), "{}", config(&pair.new));
    pair.new.kill();
    pair.new.start();
    assert!(is_primary(&pair.new), "a restart undid it");
    // What was fenced is not promoted: it lacks what the other has taken. Nor where it was started past its boot gate.
    let host = &pair.old_host;
    let unlatch = "watchdog-guard unlatch --redis --group aicamera --confirm";
    for runs in [false, true] {
        if runs {
            pair.old.start();
        }
        let (reply, _) = host.ask(&simple("r2", "redis-promote", 6));
        assert!(
            matches!(&reply, Reply::Refused { refusal: Refusal::Latched, reason, .. } if reason.contains(unlatch)),
            "{reply:?}"
        );
        let (seen, _) = host.ask(&read_back(&warrant("r2", "redis-promote", 6), "redis-promote"));
        let is_told = |evidence: &str| !runs || evidence.contains("is a primary") && evidence.contains(unlatch);
        assert!(matches!(&seen, Reply::NotDone { evidence } if is_told(evidence)), "{seen:?}");
    }
}

#[test]
fn a_fenced_primary_follows_the_new_one_and_never_serves_in_between() {
    let pair = Pair::new();
    let host = &pair.old_host;
    must(host, &simple("r1", "redis-fence", 5));
    // Nobody to follow yet: nothing is changed.
    let why = failed(host, &with_upstream("r2", "redis-rejoin", 6));
    assert!(why.contains("is no primary"), "{why}");
    assert_eq!(gate(host), Some(40));
    must(&pair.new_host, &simple("r1", "redis-promote", 5));
    pair.new.ask(&["SET", "since", "then"]);
    let why = failed(&pair.new_host, &with_upstream("r2", "redis-rejoin", 6));
    assert!(why.contains("nothing was rejoined"), "{why}");

    must(host, &with_upstream("r3", "redis-rejoin", 7));
    assert!(!is_primary(&pair.old) && gate(host) == Some(0));
    assert_eq!(pair.old.ask(&["GET", "since"]), "then");
    assert!(pair.old.try_ask(&["SET", "x", "1"]).unwrap_err().contains("READONLY"));
    assert!(config(&pair.old).contains(&format!("replicaof 127.0.0.1 {}", pair.new.port)));
    is_there_already(host, &with_upstream("r3", "redis-rejoin", 7));
    refuses_lower(host, &with_upstream("r2", "redis-rejoin", 6));
}

/// Writes as fast as it can; every key that was acknowledged.
fn writer(server: &Redis, go_on: &AtomicBool) -> usize {
    let mut client = server.client().unwrap();
    let mut acknowledged = 0;
    while go_on.load(Ordering::Relaxed) && client.ask(&["SET", &format!("key:{acknowledged}"), "x"]).is_ok() {
        acknowledged += 1;
    }
    acknowledged
}

#[test]
fn nothing_acknowledged_is_lost_in_a_hand_over() {
    let pair = Pair::new();
    let go_on = AtomicBool::new(true);
    let acknowledged = std::thread::scope(|scope| {
        let writing = scope.spawn(|| writer(&pair.old, &go_on));
        server::wait_until("some writes", || pair.new.try_ask(&["EXISTS", "key:500"]).as_deref() == Ok("1"));
        let evidence = must(&pair.old_host, &with_upstream("r1", "redis-hand-over", 5));
        assert!(evidence.contains("has all of it") && evidence.contains("latched under 1.5"), "{evidence}");
        // Refused, not left hanging.
        writing.join().unwrap()
    });
    assert!(acknowledged > 500);
    assert_eq!(gate(&pair.old_host), Some(40));
    is_there_already(&pair.old_host, &with_upstream("r1", "redis-hand-over", 5));
    refuses_lower(&pair.old_host, &with_upstream("r0", "redis-hand-over", 4));
    must(&pair.new_host, &simple("r1", "redis-promote", 5));
    assert_eq!(pair.new.ask(&["DBSIZE"]), acknowledged.to_string());
    must(&pair.old_host, &with_upstream("r1", "redis-rejoin", 5));
    assert_eq!(pair.old.ask(&["DBSIZE"]), acknowledged.to_string());
    assert_eq!(gate(&pair.old_host), Some(0));
}

#[test]
fn what_cannot_be_handed_over_goes_on_as_it_was() {
    let pair = Pair::new();
    pair.new.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let why = failed(&pair.old_host, &brief(with_upstream("r1", "redis-hand-over", 5)));
    assert!(why.contains("writes go on") && why.contains("not in step"), "{why}");
    assert_eq!(pair.old.ask(&["SET", "key", "1"]), "OK");
    assert_eq!(gate(&pair.old_host), Some(0));
}

/// What the latch of an earlier attempt says may not be so any more.
#[test]
fn a_write_taken_after_the_latch_of_a_hand_over_is_not_dropped() {
    let mut pair = Pair::new();
    leave_latched(&pair.old_host, "r1", "redis-hand-over", 5);
    pair.new.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    // Started past its boot gate, without the pause.
    pair.old.kill();
    pair.old.start();
    pair.old.ask(&["SET", "since", "then"]);
    let why = failed(&pair.old_host, &brief(with_upstream("r1", "redis-hand-over", 5)));
    assert!(why.contains("nothing was handed over, writes go on") && why.contains("not in step"), "{why}");
    assert!(is_primary(&pair.old) && pair.old.ask(&["GET", "since"]) == "then");
    assert_eq!(pair.old.ask(&["SET", "more", "1"]), "OK");
    assert_eq!(gate(&pair.old_host), Some(0), "a latch would say that it was handed over");
    pair.new.ask(&["REPLICAOF", "127.0.0.1", &pair.old.port.to_string()]);
    must(&pair.old_host, &with_upstream("r1", "redis-hand-over", 6));
    must(&pair.new_host, &simple("r1", "redis-promote", 6));
    assert_eq!((pair.new.ask(&["GET", "since"]).as_str(), pair.new.ask(&["GET", "more"]).as_str()), ("then", "1"));
}

#[test]
fn a_server_that_is_started_again_during_its_hand_over_goes_on() {
    let mut pair = Pair::new();
    pair.new.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let asked = pair.old_host.begin(&with_upstream("r1", "redis-hand-over", 5));
    server::wait_until("writes to be paused", || {
        pair.old.try_ask(&["INFO", "commandstats"]).is_ok_and(|said| said.contains("client|pause:calls=1"))
    });
    pair.old.kill();
    pair.old.start();
    pair.old.ask(&["SET", "since", "then"]);
    pair.new.ask(&["REPLICAOF", "127.0.0.1", &pair.old.port.to_string()]);
    let (reply, _) = asked.answer();
    assert!(matches!(reply, Reply::Failed { .. } | Reply::Unknown { .. }), "{reply:?}");
    assert!(is_primary(&pair.old) && pair.old.ask(&["SET", "more", "1"]) == "OK");
    assert_eq!(gate(&pair.old_host), Some(0));
}

#[test]
fn one_that_stopped_was_handed_over_only_where_it_followed() {
    let mut pair = Pair::new();
    let request = with_upstream("r1", "redis-hand-over", 5);
    let look = || Request { read_back: true, not_after_boottime_ms: None, boot_nonce: None, ..request.clone() };
    leave_latched(&pair.old_host, "r1", "redis-hand-over", 5);
    pair.old.kill();
    let (reply, _) = pair.old_host.ask(&look());
    assert!(matches!(reply, Reply::NotDone { .. }), "it may have taken writes since: {reply:?}");
    let why = failed(&pair.old_host, &request);
    assert!(why.contains("the latch of an earlier attempt stands") && why.contains("redis-release"), "{why}");
    assert_eq!(gate(&pair.old_host), Some(40));
    pair.old.start();
    pair.new.until_linked();
    must(&pair.old_host, &request);
    pair.old.kill();
    is_there_already(&pair.old_host, &request);
}

/// The server does not say that they wait.
#[test]
fn writers_that_a_dead_guard_left_waiting_go_on_when_it_is_taken_back() {
    let pair = Pair::new();
    pair.new.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let mut asked = pair.old_host.begin(&with_upstream("r1", "redis-hand-over", 5));
    server::wait_until("writes to be paused", || {
        pair.old.try_ask(&["INFO", "commandstats"]).is_ok_and(|said| said.contains("client|pause:calls=1"))
    });
    asked.0.kill().unwrap();
    asked.0.wait().unwrap();
    assert!(is_primary(&pair.old) && gate(&pair.old_host) == Some(0));
    let (seen, _) = pair.old_host.ask(&read_back(&warrant("r1", "redis-release", 6), "redis-release"));
    assert!(matches!(&seen, Reply::NotDone { evidence } if evidence.contains("may wait still")), "{seen:?}");
    must(&pair.old_host, &simple("r1", "redis-release", 6));
    assert_eq!(pair.old.ask(&["SET", "key", "1"]), "OK");
    is_there_already(&pair.old_host, &simple("r1", "redis-release", 6));
    is_there_already(&pair.old_host, &simple("r2", "redis-release", 6));
}

#[test]
fn a_hand_over_is_taken_back() {
    let pair = Pair::new();
    pair.old.ask(&["SET", "key", "1"]);
    must(&pair.old_host, &with_upstream("r1", "redis-hand-over", 5));
    assert!(pair.old.try_ask(&["SET", "key", "2"]).unwrap_err().contains("READONLY"));
    let (reply, _) = pair.old_host.ask(&simple("r9", "redis-release", 5));
    assert!(
        matches!(reply, Reply::Refused { refusal: Refusal::Latched, .. }),
        "another run of the same token: {reply:?}"
    );
    must(&pair.old_host, &simple("r1", "redis-release", 6));
    assert_eq!((pair.old.ask(&["GET", "key"]).as_str(), gate(&pair.old_host)), ("1", Some(0)));
    assert_eq!(pair.old.ask(&["SET", "key", "3"]), "OK");
    is_there_already(&pair.old_host, &simple("r1", "redis-release", 6));
    refuses_lower(&pair.old_host, &simple("r1", "redis-release", 5));
    pair.new.until_linked();
    // A replica that was never handed over is not made a primary by it.
    let evidence = must(&pair.new_host, &simple("r1", "redis-release", 6));
    assert!(evidence.contains("nothing of this run's") && !is_primary(&pair.new), "{evidence}");
}

/// Nobody else has what it takes.
#[test]
fn a_replica_that_takes_writes_is_no_primary_and_not_silent() {
    let pair = Pair::new();
    let writable = ["CONFIG", "SET", "replica-read-only", "no"];
    pair.new.ask(&writable);
    let why = failed(&pair.new_host, &with_upstream("r1", "redis-hand-over", 5));
    assert!(why.contains("nothing was handed over") && why.contains("takes writes"), "{why}");
    must(&pair.new_host, &simple("r1", "redis-promote", 5));
    assert!(is_primary(&pair.new));

    pair.old.ask(&["REPLICAOF", "127.0.0.1", &pair.new.port.to_string()]);
    pair.old.until_linked();
    pair.old.ask(&writable);
    leave_latched(&pair.old_host, "r2", "redis-hand-over", 6);
    let hand_over = with_upstream("r2", "redis-hand-over", 6);
    let look = Request { read_back: true, not_after_boottime_ms: None, boot_nonce: None, ..hand_over };
    assert!(matches!(pair.old_host.ask(&look).0, Reply::NotDone { .. }));
    let (seen, _) = pair.old_host.ask(&read_back(&warrant("r2", "redis-fence", 6), "redis-fence"));
    assert!(matches!(seen, Reply::NotDone { .. }), "{seen:?}");
    must(&pair.old_host, &with_upstream("r2", "redis-rejoin", 6));
    assert!(pair.old.try_ask(&["SET", "x", "1"]).unwrap_err().contains("READONLY"));
    pair.old.ask(&writable);
    let evidence = must(&pair.old_host, &simple("r3", "redis-fence", 7));
    assert!(evidence.contains("nobody listens"), "{evidence}");
}

#[test]
fn only_what_a_run_took_is_taken_back_by_it() {
    let mut pair = Pair::new();
    must(&pair.old_host, &with_upstream("r1", "redis-hand-over", 5));
    let release = |run, n| simple(run, "redis-release", n);
    let evidence = must(&pair.old_host, &release("r2", 6));
    assert!(evidence.contains("nothing of this run's") && evidence.contains("r1/redis-hand-over, which stays"));
    assert!(gate(&pair.old_host) == Some(40) && !is_primary(&pair.old));

    // Memory was all that held every byte here.
    pair.old.kill();
    let follows = format!("replicaof 127.0.0.1 {}", pair.new.port);
    for (run, n, words) in [("r1", 7, "come up with older data"), ("r2", 8, "not by this run")] {
        let why = failed(&pair.old_host, &release(run, n));
        assert!(why.contains("not started") && why.contains(words), "{why}");
    }
    assert_eq!(gate(&pair.old_host), Some(40));
    let unlatch = ["unlatch", "--redis", "--group", "aicamera", "--confirm", &name(), "--reason", "test"];
    assert!(pair.old_host.run(&unlatch).status.success());
    let why = failed(&pair.old_host, &release("r1", 9));
    assert!(why.contains("This run did not stop it"), "{why}");
    assert!(pair.old.try_ask(&["PING"]).is_err() && config(&pair.old).contains(&follows));

    pair.old.start();
    let why = failed(&pair.old_host, &release("r1", 10));
    assert!(why.contains("its latch was cleared since (operator: test)"), "{why}");
    must(&pair.old_host, &release("r2", 11));
    assert!(!is_primary(&pair.old));
}

/// As a guard leaves it that dies before it lets them go on.
#[test]
fn nobody_is_left_waiting_behind_a_hand_over() {
    let pair = Pair::new();
    let pause = ["CLIENT", "PAUSE", "86400000", "WRITE"];
    pair.new.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    failed(&pair.old_host, &brief(with_upstream("r1", "redis-hand-over", 5)));
    pair.old.ask(&pause);
    let said = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pair.old.try_ask(&["SET", "key", "1"]));
        server::wait_until("a writer to wait", || pair.old.ask(&["CLIENT", "LIST"]).contains("cmd=set"));
        leave_latched(&pair.old_host, "r1", "redis-hand-over", 6);
        pair.old.ask(&["REPLICAOF", "127.0.0.1", &pair.new.port.to_string()]);
        let hand_over = with_upstream("r1", "redis-hand-over", 6);
        let look = Request { read_back: true, not_after_boottime_ms: None, boot_nonce: None, ..hand_over.clone() };
        let (seen, _) = pair.old_host.ask(&look);
        assert!(matches!(&seen, Reply::NotDone { evidence } if evidence.contains("may wait still")), "{seen:?}");
        must(&pair.old_host, &hand_over);
        is_there_already(&pair.old_host, &hand_over);
        waiting.join().unwrap()
    });
    assert!(said.unwrap_err().contains("READONLY"));

    pair.new.ask(&pause);
    must(&pair.new_host, &simple("r1", "redis-promote", 6));
    assert_eq!(pair.new.ask(&["SET", "key", "2"]), "OK");
    pair.old.ask(&pause);
    must(&pair.old_host, &with_upstream("r1", "redis-rejoin", 6));
    pair.old.ask(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(pair.old.ask(&["SET", "key", "3"]), "OK");
}

#[test]
fn a_latch_stays_until_the_servers_own_file_names_whom_it_follows() {
    let mut pair = Pair::new();
    let rejoin = |n| with_upstream("r2", "redis-rejoin", n);
    let own = pair.old.config();
    let other = pair.old.folder.join("other.conf");
    std::fs::copy(&own, &other).unwrap();
    let toml = guarded(&pair.old, &pair.new);
    let astray = Host::new(&toml.replace(&own.display().to_string(), &other.display().to_string()));
    let names_both = |why: &str| [&own, &other].iter().all(|file| why.contains(&format!("{}", file.display())));
    let why = failed(&astray, &with_upstream("r1", "redis-hand-over", 5));
    assert!(why.contains("nothing was handed over") && names_both(&why), "{why}");
    must(&pair.new_host, &simple("r1", "redis-promote", 5));
    for host in [&astray, &pair.old_host] {
        leave_latched(host, "r1", "redis-hand-over", 6);
    }
    let why = failed(&astray, &rejoin(7));
    assert!(why.contains("nothing was rejoined") && names_both(&why) && gate(&astray) == Some(40), "{why}");

    let text = config(&pair.old);
    pair.old.ask(&["ACL", "SETUSER", "default", "-config|rewrite"]);
    let why = failed(&pair.old_host, &rejoin(7));
    assert!(why.contains("stays latched") && why.contains("was not rewritten"), "{why}");
    assert_eq!(gate(&pair.old_host), Some(40));
    // Started with a file that names nobody.
    pair.old.kill();
    let stray_start =
        format!("start_argv = [\"/usr/bin/redis-server\", \"{}\", \"--daemonize\", \"yes\"]\n", other.display());
    let wrong = Host::new(&(toml + &stray_start));
    must(&wrong, &simple("r1", "redis-fence", 6));
    let why = failed(&wrong, &rejoin(7));
    assert!(why.contains("came up as a primary") && why.contains("stopped again") && names_both(&why), "{why}");
    assert!(pair.old.try_ask(&["PING"]).is_err() && gate(&wrong) == Some(40));

    std::fs::write(&own, format!("{text}replica-read-only no\n")).unwrap();
    must(&pair.old_host, &rejoin(8));
    assert!(pair.old.try_ask(&["SET", "x", "1"]).unwrap_err().contains("READONLY"));
}

#[test]
fn what_is_left_of_redis_counts_when_a_host_is_enrolled_again() {
    let host = Host::new("[redis]\naddress = \"127.0.0.1:1\"\nconfig_file = \"/nowhere\"\nrun_as = \"root\"\n");
    leave_latched(&host, "r1", "redis-fence", 9);
    std::fs::remove_file(host.state("token.json")).unwrap();
    assert!(!host.state("ledger.log").exists());
    host.enroll(1);
    assert_eq!(host.status().groups[0].token.unwrap().to_string(), "1.9");

    std::fs::write(host.state("ledger.log"), "no entry\n").unwrap();
    let words = ["--group", "aicamera", "--confirm", &name()];
    assert!(host.run(&[&["set-ledger-aside"], &words[..]].concat()).status.success());
    std::fs::remove_file(host.state("redis-latch.json")).unwrap();
    let out = host.run(&[&["enroll", "--cluster", "demo", "--epoch", "1"], &words[..]].concat());
    assert!(text(&out.stderr).contains("--latch set (safe)"), "{}{}", text(&out.stdout), text(&out.stderr));
    assert_eq!(gate(&host), Some(41));
}
