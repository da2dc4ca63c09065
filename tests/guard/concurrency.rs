//! Many at once: a raise is instant, one effect happens once, a later run's token ends what an earlier one has begun.

use rustix::process::Signal;
use watchdog::domain::ids::Token;
use watchdog::guard::exec::group_alive;
use watchdog::guard::protocol::{Refusal, Reply, Request};

use crate::host::{Host, act, act_within, read_back, runs, signal_to, wait_until, warrant};

#[test]
fn a_raise_is_answered_while_an_action_runs_and_a_newer_token_adopts_it() {
    let host = Host::new("");
    let first = host.begin(&act(&warrant("r1", "s", 5), "slow"));
    let at_work = host.until_in_flight();
    assert_eq!((at_work.run.as_str(), at_work.step.as_str(), at_work.token.n), ("r1", "s", 5));

    let (reply, code) = host.ask(&Request::raise(&warrant("r1", "s", 6), false));
    let Reply::Raised { held, in_flight: Some(seen) } = reply else { panic!("{reply:?}") };
    assert_eq!((code, held, seen.guard_pid), (0, Token { epoch: 1, n: 6 }, first.0.id()));
    assert_eq!(seen.process_group, at_work.process_group);

    let (reply, code) = host.ask(&read_back(&warrant("r1", "s", 6), "slow"));
    assert!(matches!(&reply, Reply::InFlight { in_flight } if !in_flight.orphaned), "{reply:?}");
    assert_eq!(code, 12);
    let (reply, code) = host.ask(&act_within(&warrant("r1", "s", 6), "slow", 100));
    assert!(matches!(reply, Reply::InFlight { .. }), "{reply:?}");
    assert_eq!(code, 12);

    let adopter = host.begin(&act(&warrant("r1", "s", 6), "slow"));
    assert!(group_alive(at_work.process_group.unwrap()), "adopting ended it");
    host.go();
    assert!(matches!(first.answer(), (Reply::Done { acted: true, .. }, 0)));
    assert!(matches!(adopter.answer(), (Reply::Done { acted: false, .. }, 0)));
    assert_eq!((host.effects(), host.events("s")), (1, vec!["started".to_owned(), "done".to_owned()]));
    assert_eq!(host.status().groups[0].in_flight, None);
}

#[test]
fn another_runs_token_ends_what_is_in_flight_with_all_its_children() {
    let host = Host::new("");
    let first = host.begin(&act(&warrant("r1", "s", 5), "slow"));
    let group = host.until_in_flight().process_group.unwrap();
    let (reply, _) = host.ask(&Request::raise(&warrant("r2", "s", 6), false));
    assert!(matches!(&reply, Reply::Raised { in_flight: Some(seen), .. } if seen.run.as_str() == "r1"), "{reply:?}");
    let (reply, code) = first.answer();
    assert!(matches!(&reply, Reply::Unknown { reason } if reason.contains("pre-empted by token 1.6")), "{reply:?}");
    assert_eq!((code, host.events("s")), (11, vec!["started".to_owned(), "preempted".to_owned()]));
    wait_until("the process group to be empty", || (!group_alive(group)).then_some(()));
    host.go();
    assert!(matches!(host.ask(&act(&warrant("r2", "s", 6), "slow")), (Reply::Done { acted: true, .. }, 0)));
    assert_eq!(host.effects(), 1);
}

#[test]
fn an_aborts_token_ends_its_own_runs_action_but_a_plain_raise_does_not() {
    let host = Host::new("");
    let first = host.begin(&act(&warrant("r1", "s", 5), "slow"));
    let group = host.until_in_flight().process_group.unwrap();
    host.ask(&Request::raise(&warrant("r1", "s", 6), false));
    host.ask(&Request::raise(&warrant("r1", "other-step", 6), false));
    assert!(group_alive(group));
    host.ask(&Request::raise(&warrant("r1", "s", 7), true));
    let (reply, _) = first.answer();
    assert!(matches!(&reply, Reply::Unknown { reason } if reason.contains("aborted by token 1.7")), "{reply:?}");
    assert_eq!(host.effects(), 0);
}

#[test]
fn who_waits_for_the_action_lock_is_refused_when_a_higher_token_came_meanwhile() {
    let host = Host::new("");
    let first = host.begin(&act(&warrant("r1", "s", 5), "slow"));
    host.until_in_flight();
    let waiting = host.begin(&act(&warrant("r1", "t", 5), "once"));
    // It keeps the lock's file open while it waits.
    let fds = format!("/proc/{}/fd", waiting.0.id());
    let waits = |fd: std::fs::DirEntry| std::fs::read_link(fd.path()).is_ok_and(|at| at.ends_with("action.lock"));
    wait_until("the second to wait for the lock", || std::fs::read_dir(&fds).ok()?.flatten().any(waits).then_some(()));
    assert_eq!(host.ask(&Request::raise(&warrant("r1", "s", 6), false)).1, 0);
    host.go();
    assert!(matches!(first.answer(), (Reply::Done { .. }, 0)));
    let (reply, code) = waiting.answer();
    assert!(matches!(reply, Reply::Refused { refusal: Refusal::LowerToken, .. }), "{reply:?}");
    assert_eq!((code, host.effects(), host.events("t").len()), (22, 1, 0));
}

#[test]
fn twenty_at_once_have_one_effect() {
    let host = Host::new("");
    let asked: Vec<_> = (0..20).map(|_| host.begin(&act(&warrant("r1", "s", 5), "once"))).collect();
    let replies: Vec<_> = asked.into_iter().map(|asked| asked.answer().0).collect();
    let acted = replies.iter().filter(|reply| matches!(reply, Reply::Done { acted: true, .. })).count();
    let found = replies.iter().filter(|reply| matches!(reply, Reply::Done { acted: false, .. })).count();
    assert_eq!((acted, found, host.effects()), (1, 19, 1), "{replies:?}");
}

#[test]
fn twenty_tokens_at_once_have_one_effect_and_the_highest_is_held() {
    let host = Host::new("");
    let asked: Vec<_> = (0..20).map(|i| host.begin(&act(&warrant("r1", "s", 1 + (i * 7) % 20), "once"))).collect();
    let replies: Vec<_> = asked.into_iter().map(|asked| asked.answer().0).collect();
    for reply in &replies {
        let fits = matches!(reply, Reply::Done { .. } | Reply::Refused { refusal: Refusal::LowerToken, .. });
        assert!(fits, "{reply:?}");
    }
    assert_eq!(host.effects(), 1, "{replies:?}");
    assert_eq!(host.status().groups[0].token, Some(Token { epoch: 1, n: 20 }));
}

#[test]
fn a_daemon_does_not_keep_the_lock() {
    let host = Host::new("");
    assert!(matches!(host.ask(&act(&warrant("r1", "daemon", 5), "daemon")), (Reply::Done { .. }, 0)));
    let pid = std::fs::read_to_string(host.path("daemon.pid")).unwrap().trim().parse().unwrap();
    assert!(runs(pid));
    let next = host.ask(&act_within(&warrant("r1", "s", 5), "once", 5000));
    signal_to(pid, Signal::KILL);
    assert!(matches!(next, (Reply::Done { acted: true, .. }, 0)), "{next:?}");
}
