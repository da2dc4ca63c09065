//! Guards and connections that die in the middle.

use rustix::process::Signal;
use watchdog::guard::exec::group_alive;
use watchdog::guard::protocol::{Reply, Request};

use crate::host::{Asked, Host, act, read_back, wait_until, warrant};

fn killed_in_the_middle(host: &Host, action: &str) -> u32 {
    let Asked(mut guard) = host.begin(&act(&warrant("r1", "s", 5), action));
    let group = host.until_in_flight().process_group.unwrap();
    guard.kill().unwrap();
    guard.wait().unwrap();
    assert_eq!(host.events("s"), ["started"]);
    group
}

#[test]
fn after_a_guards_death_reading_back_looks_at_reality() {
    let host = Host::new("");
    let group = killed_in_the_middle(&host, "slow");
    let (reply, code) = host.ask(&read_back(&warrant("r1", "s", 6), "slow"));
    assert!(matches!(&reply, Reply::InFlight { in_flight } if in_flight.orphaned), "{reply:?}");
    assert_eq!(code, 12);
    host.go();
    wait_until("the orphan to end", || (!group_alive(group)).then_some(()));
    assert!(matches!(host.ask(&read_back(&warrant("r1", "s", 6), "slow")), (Reply::Done { .. }, 0)));
    assert!(matches!(host.ask(&act(&warrant("r1", "s", 6), "slow")), (Reply::Done { acted: false, .. }, 0)));
    assert_eq!(host.effects(), 1);
}

#[test]
fn an_orphan_whose_group_was_not_written_down_yet_is_found_by_its_guards_session() {
    let host = Host::new("");
    let group = killed_in_the_middle(&host, "slow");
    // As if the guard had died a moment earlier.
    let file = host.state("in-flight.json");
    let mut entered: serde_json::Value = watchdog::guard::records::read(&file).unwrap();
    entered["what"]["process_group"] = serde_json::Value::Null;
    entered["leader_started"] = serde_json::Value::Null;
    watchdog::guard::records::write_quickly(&file, &entered).unwrap();
    let (reply, _) = host.ask(&read_back(&warrant("r1", "s", 6), "slow"));
    let found = matches!(&reply, Reply::InFlight { in_flight } if in_flight.process_group == Some(group));
    host.go();
    assert!(found, "{reply:?}");
    wait_until("the orphan to end", || (!group_alive(group)).then_some(()));
}

#[test]
fn an_orphan_is_adopted_by_its_own_run() {
    let host = Host::new("");
    killed_in_the_middle(&host, "slow");
    let adopter = host.begin(&act(&warrant("r1", "s", 6), "slow"));
    host.go();
    assert!(matches!(adopter.answer(), (Reply::Done { acted: false, .. }, 0)));
    assert_eq!(host.effects(), 1);
}

#[test]
fn an_orphan_is_ended_by_another_run() {
    let host = Host::new("");
    let group = killed_in_the_middle(&host, "slow");
    host.ask(&Request::raise(&warrant("r2", "s", 6), false));
    wait_until("the orphan to be gone", || (!group_alive(group)).then_some(()));
    let (reply, code) = host.ask(&read_back(&warrant("r1", "s", 6), "slow"));
    assert!(matches!(reply, Reply::NotDone { .. }), "{reply:?}");
    assert_eq!((code, host.effects()), (13, 0));
}

#[test]
fn what_cannot_be_read_back_stays_unknown() {
    let host = Host::new("");
    let group = killed_in_the_middle(&host, "blind");
    host.go();
    wait_until("the orphan to end", || (!group_alive(group)).then_some(()));
    for request in [act(&warrant("r1", "s", 6), "blind"), read_back(&warrant("r1", "s", 6), "blind")] {
        let (reply, code) = host.ask(&request);
        assert!(matches!(&reply, Reply::Unknown { reason } if reason.contains("look by hand")), "{reply:?}");
        assert_eq!(code, 11);
    }
    assert_eq!(host.effects(), 1);
}

#[test]
fn an_effect_outlives_the_connection_and_is_written_down() {
    let host = Host::new("");
    let mut asked = host.begin(&act(&warrant("r1", "s", 5), "slow"));
    host.until_in_flight();
    drop(asked.0.stdout.take());
    asked.signal(Signal::HUP);
    host.go();
    wait_until("the ledger's last word", || (host.events("s").len() == 2).then_some(()));
    assert_eq!(asked.0.wait().unwrap().code(), Some(0));
    assert_eq!((host.effects(), host.events("s")), (1, vec!["started".to_owned(), "done".to_owned()]));
}

#[test]
fn a_done_record_counts_only_while_it_is_so() {
    let host = Host::new("");
    let request = act(&warrant("r1", "s", 5), "once");
    assert!(matches!(host.ask(&request), (Reply::Done { acted: true, .. }, 0)));
    assert!(matches!(host.ask(&request), (Reply::Done { acted: false, .. }, 0)));
    std::fs::remove_file(host.path("effects")).unwrap();
    let (reply, code) = host.ask(&read_back(&warrant("r1", "s", 5), "once"));
    assert!(matches!(reply, Reply::NotDone { .. }), "{reply:?}");
    assert_eq!(code, 13);
    assert!(matches!(host.ask(&request), (Reply::Done { acted: true, .. }, 0)));
}

#[test]
fn what_was_never_begun_is_not_done_whatever_the_world_looks_like() {
    let host = Host::new("");
    std::fs::write(host.path("effects"), "by others\n").unwrap();
    let (reply, code) = host.ask(&read_back(&warrant("r1", "s", 5), "once"));
    assert!(matches!(reply, Reply::NotDone { .. }), "{reply:?}");
    assert_eq!(code, 13);
}
