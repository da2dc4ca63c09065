//! What is remembered of judgements, how it is applied, and who is told.

use super::Holds::{self, No, Unknown, Weak, Yes};
use super::mark::{Judgement, Mark, to_remember};
use crate::domain::alarms::not_ready;
use crate::domain::command::{Change, RejectionCode};
use crate::domain::fixtures::{World, group, policy};
use crate::domain::ids::UnixMs;
use crate::domain::page::Severity;
use crate::domain::readiness::mark::{ITEMS_MAX, JudgedItem, REASON_CHARS_MAX};

fn judged(items: &[(&str, Holds, &str)]) -> Judgement {
    let item = |(name, holds, reason): &(&str, Holds, &str)| JudgedItem {
        name: (*name).to_owned(),
        holds: *holds,
        reason: (*reason).to_owned(),
    };
    Judgement { serving_epoch: 1, from: "hcmc".into(), to: "hanoi".into(), items: items.iter().map(item).collect() }
}

fn change(judgement: Judgement) -> Change {
    Change::Readiness { group: group(), judgement }
}

#[test]
fn worse_is_believed_the_second_time_and_better_at_once() {
    let good = judged(&[("standby", Yes, ""), ("dns", Yes, "")]);
    let bad = judged(&[("standby", No, "gone"), ("dns", Yes, "")]);
    let other = judged(&[("standby", No, "silent"), ("dns", Yes, "")]);
    let weak = judged(&[("standby", Yes, ""), ("dns", Weak, "slow")]);
    let both = judged(&[("standby", No, "gone"), ("dns", Weak, "slow")]);
    let lost = judged(&[("judgement", Unknown, "too long")]);
    // Remembered, the one before by the same leader, this one: what is written.
    let table = [
        (None, None, &good, Some(&good)),
        (None, None, &weak, Some(&weak)),
        (None, None, &bad, None),
        (None, Some(&bad), &bad, Some(&bad)),
        (None, Some(&good), &bad, Some(&good)),
        (Some(&good), None, &good, None),
        (Some(&good), Some(&good), &good, None),
        (Some(&good), None, &bad, None),
        (Some(&good), Some(&good), &bad, None),
        (Some(&good), Some(&bad), &good, None),
        (Some(&good), Some(&bad), &bad, Some(&bad)),
        (Some(&good), Some(&other), &bad, Some(&bad)),
        (Some(&good), Some(&weak), &bad, None),
        (Some(&good), Some(&weak), &both, Some(&weak)),
        (Some(&bad), None, &good, Some(&good)),
        (Some(&bad), Some(&bad), &good, Some(&good)),
        (Some(&bad), None, &bad, None),
        (Some(&bad), Some(&bad), &other, None),
        (Some(&bad), Some(&other), &other, Some(&other)),
        (Some(&good), Some(&good), &lost, None),
        (Some(&good), Some(&lost), &lost, Some(&lost)),
        (Some(&lost), Some(&lost), &good, Some(&good)),
        (Some(&lost), Some(&lost), &bad, None),
    ];
    for (n, (remembered, last, now, wanted)) in table.into_iter().enumerate() {
        assert_eq!(to_remember(remembered, last, now).as_ref(), wanted, "row {n}");
    }
    let moved = Judgement { serving_epoch: 3, from: "hanoi".into(), to: "hcmc".into(), ..good.clone() };
    assert_eq!(to_remember(Some(&bad), Some(&bad), &moved), Some(moved), "another region is another matter");
}

#[test]
fn what_is_old_wrong_or_under_a_run_is_rejected() {
    let good = judged(&[("standby", Yes, "")]);
    let mut world = World::new();
    for wrong in [
        Judgement { serving_epoch: 0, ..good.clone() },
        Judgement { serving_epoch: 2, ..good.clone() },
        Judgement { from: "hanoi".into(), ..good.clone() },
    ] {
        assert_eq!(world.rejected(change(wrong)), RejectionCode::Stale);
    }
    let long = "x".repeat(REASON_CHARS_MAX + 1);
    for wrong in [
        judged(&[]),
        judged(&vec![("a", Yes, ""); ITEMS_MAX + 1]),
        judged(&[("a", No, &long)]),
        judged(&[(&long, No, "")]),
        judged(&[("a", No, "two\nlines")]),
    ] {
        assert_eq!(world.rejected(change(wrong)), RejectionCode::Invalid);
    }
    let nobody = Change::Readiness { group: "nobody".into(), judgement: good.clone() };
    assert_eq!(world.rejected(nobody), RejectionCode::NotFound);
    assert_eq!(world.group().readiness, None);
    world.must(change(good.clone()));
    world.must(world.open_change("r1"));
    assert_eq!(world.rejected(change(good)), RejectionCode::RunOpen);
}

#[test]
fn since_counts_from_the_verdicts_change() {
    let mark = |earlier, judgement, at| Mark::after(earlier, judgement, UnixMs(at), crate::domain::ids::NodeId(1));
    let good = mark(None, judged(&[("dns", Yes, "")]), 10);
    let bad = mark(Some(good), judged(&[("dns", No, "gone")]), 20);
    let still = mark(Some(bad), judged(&[("dns", No, "silent")]), 30);
    assert_eq!((still.since, still.changed_at), (UnixMs(20), UnixMs(30)));
    let moved = Judgement { serving_epoch: 2, ..judged(&[("dns", No, "silent")]) };
    assert_eq!(mark(Some(still), moved, 40).since, UnixMs(40));
}

/// Whether it is told, as things stand.
fn told(world: &World, now: UnixMs) -> Option<crate::domain::page::Page> {
    let policy = policy();
    let (name, rules) = policy.groups.iter().next().expect("one group");
    not_ready(&world.state, &policy, name, rules, world.group(), now).map(|(_, page)| page)
}

#[test]
fn who_is_not_ready_is_paged_but_not_under_a_run_or_a_fresh_pause() {
    let bad = judged(&[("standby", No, "gone"), ("dns", Weak, "slow")]);
    let weak = judged(&[("standby", Yes, ""), ("dns", Weak, "slow")]);
    let mut world = World::new();
    assert_eq!(told(&world, world.now), None, "not judged yet");
    world.must(change(weak.clone()));
    assert_eq!(told(&world, world.now), None, "weak is shown, and pages nobody");
    world.must(change(judged(&[("judgement", Unknown, "too long")])));
    assert!(told(&world, world.now).expect("told").summary.contains("cannot be judged: judgement: too long"));
    world.must(change(bad));
    let page = told(&world, world.now).expect("told");
    assert_eq!(
        (page.event.as_str(), page.severity, page.key.as_str()),
        ("NOT_READY", Severity::Error, "test/shop/not-ready")
    );
    assert!(page.summary.contains("standby: gone") && !page.summary.contains("slow"), "{}", page.summary);
    assert_eq!(page.details["dns"], "weak: slow");

    let mut paused = World { state: world.state.clone(), ..World::new() };
    paused.must(Change::Pause { group: group(), reason: "work".to_owned(), until: None });
    assert_eq!(told(&paused, paused.now), None);
    assert!(told(&paused, paused.now.plus(5 * 3_600_000)).is_some(), "it lasts");

    let mut running = World { state: world.state.clone(), ..World::new() };
    running.must(running.open_change("r1"));
    assert_eq!(told(&running, running.now), None, "nothing new under a run");

    // What was told stands until somebody judged otherwise.
    world.must(Change::Tell { page });
    world.must(world.open_change("r1"));
    assert!(told(&world, world.now).is_some());
    world.state.groups.get_mut(&group()).expect("the group").open_run = None;
    world.must(change(weak));
    assert_eq!(told(&world, world.now), None, "over");
}

#[test]
fn in_shadow_mode_nobody_is_paged_for_what_was_chosen() {
    let mut world = World::new();
    world.must(change(judged(&[("decision", No, "shadow mode")])));
    let mut policy = policy();
    let rules = policy.groups.get_mut(&group()).expect("the group");
    rules.shadow = true;
    let rules = rules.clone();
    assert_eq!(not_ready(&world.state, &policy, &group(), &rules, world.group(), world.now), None);
}
