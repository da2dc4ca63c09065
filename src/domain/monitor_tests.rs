//! The watch after a move: what is amiss is told once under the run's name, whoever leads; it ends, and the record says how.

use std::collections::BTreeMap;

use super::*;
use crate::domain::command::{Change, RejectionCode};
use crate::domain::fixtures::{UP, World, group, policy, region, view};
use crate::domain::observation::{Measure, Verdict};
use crate::domain::page::PageAction;
use crate::domain::readiness::mark::{JudgedItem, Judgement};
use crate::domain::run::RunOutcome;

const FOR_MS: u64 = 900_000;

/// Failed over to hanoi by run r1, just now.
fn moved() -> World {
    let (mut world, token) = World::opened("r1");
    for step in ["fence", "dns", "promote", "services", "verify"] {
        world.do_step(step, token);
    }
    close(&mut world, "r1", token, RunOutcome::Succeeded);
    world
}

fn close(world: &mut World, run: &str, token: crate::domain::ids::Token, outcome: RunOutcome) {
    world.must(Change::CloseRun {
        group: group(),
        run: run.into(),
        token,
        outcome,
        settled: Default::default(),
        old_primary_untouched: false,
        reason: String::new(),
        monitor_ms: FOR_MS,
    });
}

fn monitor(world: &World) -> &Monitor {
    world.group().history.back().unwrap().monitor.as_ref().unwrap()
}

/// Hanoi's database as each node says.
fn seen(verdicts: [Verdict; 3]) -> View {
    let mut view = view(&[Some(UP), Some(UP), Some(UP)]);
    for (sight, verdict) in view.sights.values_mut().zip(verdicts) {
        for observation in sight.report.observations.iter_mut().filter(|seen| seen.target.as_str() == "hanoi-db") {
            observation.verdict = verdict;
        }
        // There is no replica of the new primary yet.
        sight.report.observations.retain(|seen| !matches!(seen.measure, Some(Measure::Replication(_))));
    }
    view.clock_agrees = true;
    view
}

const WELL: [Verdict; 3] = [Verdict::Up; 3];
const DOWN: [Verdict; 3] = [Verdict::Down, Verdict::Suspect, Verdict::Up];

fn due_in(world: &World, view: &View, now: UnixMs) -> Option<MonitorDue> {
    let policy = policy();
    due(&policy, (&group(), &policy.groups[&group()]), world.group(), view, now)
}

fn write(world: &mut World, due: MonitorDue) {
    world.must(Change::Monitor { group: group(), run: due.run, revision: due.revision, about: due.about });
}

/// Looks, and writes down what is due.
fn look(world: &mut World, verdicts: [Verdict; 3], after_ms: u64) -> bool {
    world.now = world.now.plus(after_ms);
    let due = due_in(world, &seen(verdicts), world.now);
    let is_due = due.is_some();
    due.into_iter().for_each(|due| write(world, due));
    is_due
}

fn pages(world: &World) -> Vec<(PageAction, String)> {
    let of = |entry: &&crate::domain::page::OutboxEntry| entry.page.key.ends_with("/monitor");
    world.state.outbox.iter().filter(of).map(|entry| (entry.page.action, entry.page.summary.clone())).collect()
}

#[test]
fn trouble_is_told_once_under_the_runs_name_and_ends_when_the_watch_ends_well() {
    let mut world = moved();
    assert!(look(&mut world, WELL, 100), "that it is well is written down");
    assert!(!look(&mut world, WELL, 6000), "and only once");
    assert!(look(&mut world, DOWN, 100) && !look(&mut world, DOWN, 100));
    let told = pages(&world);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].1.contains("r1") && told[0].1.contains("hanoi-db"), "{told:?}");
    let key = "test/shop/r1/monitor";
    assert_eq!(world.state.incidents[key].page.event, "DR_MONITOR_TROUBLE");
    // An operator cannot end what the watch will.
    assert!(world.state.ends_by_itself(&world.state.incidents[key]));
    // Well again, and amiss again: the same incident, told no second time; and what comes and goes is not written at each look.
    assert!(!look(&mut world, WELL, 100) && look(&mut world, WELL, 6000));
    assert!(look(&mut world, DOWN, 10) && look(&mut world, WELL, 6000));
    assert_eq!((pages(&world).len(), monitor(&world).seen.len(), monitor(&world).seen[0].times), (1, 1, 2));
    assert!(look(&mut world, WELL, FOR_MS));
    let end = monitor(&world).ended.clone().unwrap();
    assert_eq!(end.how, MonitorOutcome::Well);
    assert_eq!(pages(&world).last().unwrap().0, PageAction::Resolve);
    assert!(!world.state.incidents.contains_key(key));
    assert!(world.group().monitored().is_none() && !look(&mut world, DOWN, 100), "it is over");
    let audit: Vec<&str> = world.state.audit.iter().map(|entry| entry.what.as_str()).collect();
    assert!(
        audit.contains(&"watch after run r1: 1 amiss") && audit.contains(&"end the watch after run r1"),
        "{audit:?}"
    );
}

#[test]
fn what_is_amiss_at_the_end_stays_told_until_somebody_says_it_is_over() {
    let mut world = moved();
    look(&mut world, WELL, 100);
    look(&mut world, DOWN, 100);
    look(&mut world, DOWN, FOR_MS);
    let end = monitor(&world).ended.clone().unwrap();
    assert_eq!((end.how, end.why.as_str()), (MonitorOutcome::Unwell, "still amiss: target hanoi-db"));
    let incident = &world.state.incidents["test/shop/r1/monitor"];
    assert!(incident.page.summary.contains("still amiss") && !world.state.ends_by_itself(incident));
}

/// A standby's region has much that is not up before it serves; what never comes up is trouble after a while all the same.
#[test]
fn what_was_not_up_yet_has_some_time() {
    let mut world = moved();
    assert!(!look(&mut world, DOWN, 100) && !look(&mut world, DOWN, GRACE_MS - 1000));
    assert!(look(&mut world, DOWN, 1000) && pages(&world).len() == 1);
    // A minority's word is none.
    let mut world = moved();
    look(&mut world, WELL, 100);
    assert!(!look(&mut world, [Verdict::Down, Verdict::Up, Verdict::Up], GRACE_MS));
    // Nor is silence: neither trouble nor its end, nor by a clock that disagrees.
    look(&mut world, DOWN, 100);
    let mut few = seen(WELL);
    few.sights.pop_last();
    few.sights.pop_last();
    assert_eq!(due_in(&world, &few, world.now.plus(60_000)), None);
    few.clock_agrees = false;
    assert_eq!(due_in(&world, &few, world.now.plus(FOR_MS)), None);
    few.clock_agrees = true;
    assert_eq!(due_in(&world, &few, world.now.plus(FOR_MS)).unwrap().about, MonitorChange::End);
}

#[test]
fn a_replica_and_readiness_count_once_they_were_there() {
    let mut world = moved();
    world.now = world.now.plus(100);
    let mut view = view(&[Some(UP), Some(UP), Some(UP)]);
    view.clock_agrees = true;
    let judged = |world: &mut World, holds| {
        let item = JudgedItem { name: "standby".to_owned(), holds, reason: "gone".to_owned() };
        let (from, to, serving_epoch) = (region("hanoi"), region("hcmc"), world.group().serving.epoch);
        let judgement = Judgement { serving_epoch, from, to, items: vec![item] };
        world.must(Change::Readiness { group: group(), judgement });
    };
    // Nobody has made a replica: no trouble, however long.
    judged(&mut world, Holds::No);
    let mut rules = policy();
    let replica = rules.groups.get_mut(&group()).unwrap();
    replica.replication = BTreeMap::from([(region("hcmc"), "replication".into())]);
    let look = |world: &World, view: &View, after: u64| {
        due(&rules, (&group(), &rules.groups[&group()]), world.group(), view, world.now.plus(after))
    };
    write(&mut world, due_in(&moved(), &seen(WELL), UnixMs(1_100_000)).unwrap());
    assert_eq!(look(&world, &seen(WELL), GRACE_MS), None);
    judged(&mut world, Holds::Weak);
    let well = look(&world, &view, 6000).unwrap();
    let MonitorChange::Saw { well: names, .. } = &well.about else { panic!("{well:?}") };
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["readiness", "replica in hcmc"]);
    write(&mut world, well);
    judged(&mut world, Holds::No);
    let amiss = look(&world, &seen(WELL), 100).unwrap();
    let MonitorChange::Saw { trouble, .. } = &amiss.about else { panic!("{amiss:?}") };
    assert_eq!(trouble["readiness"], "standby: gone");
    assert!(trouble["replica in hcmc"].contains("does not follow"));
}

#[test]
fn two_leaders_write_one_word_and_the_next_move_takes_the_watch_over() {
    let mut world = moved();
    let first = due_in(&world, &seen(WELL), world.now.plus(100)).unwrap();
    write(&mut world, first.clone());
    let again = Change::Monitor { group: group(), run: first.run, revision: first.revision, about: MonitorChange::End };
    assert_eq!(world.rejected(again), RejectionCode::Stale);
    look(&mut world, DOWN, 100);
    // A rejoin is what one does now: the watch goes on beside it.
    world.must(world.open_recovery("r2", "hcmc"));
    assert!(world.group().monitored().is_some());
    let token = world.claim("r2");
    for step in ["services", "verify"] {
        world.do_step(step, token);
    }
    close(&mut world, "r2", token, RunOutcome::Succeeded);
    assert_eq!(world.group().monitored().unwrap().id.as_str(), "r1", "a recovery is not watched itself");
    world.must(world.open_planned("r3"));
    assert!(world.group().monitored().is_none());
    let run = world.group().history.iter().find(|run| run.id.as_str() == "r1").unwrap();
    let end = run.monitor.as_ref().unwrap().ended.clone().unwrap();
    assert!(end.how == MonitorOutcome::CutShort && end.why.contains("r3"), "{end:?}");
    assert_eq!(pages(&world).last().unwrap().0, PageAction::Resolve);
    let gone = Change::Monitor { group: group(), run: "r1".into(), revision: 9, about: MonitorChange::End };
    assert_eq!(world.rejected(gone), RejectionCode::Illegal);
}

#[test]
fn what_did_not_move_the_group_is_not_watched_and_the_record_is_bounded() {
    let (mut world, token) = World::opened("r1");
    let mut run = world.run().clone();
    assert!(run.monitor.is_none());
    world.must(Change::CloseRun {
        group: group(),
        run: "r1".into(),
        token,
        outcome: RunOutcome::Withdrawn,
        settled: Default::default(),
        old_primary_untouched: true,
        reason: String::new(),
        monitor_ms: FOR_MS,
    });
    assert!(world.group().monitored().is_none());
    // What an older program wrote is read, and a watch of before there was any is none.
    let mut json = serde_json::to_value(&run).unwrap();
    for key in ["monitor", "pages"] {
        json.as_object_mut().unwrap().remove(key);
    }
    run.pages.clear();
    assert_eq!(serde_json::from_value::<Run>(json).unwrap(), run);
    let mut monitor = Monitor::begin(UnixMs(1), FOR_MS);
    let many = (0..SEEN_MAX + 9).map(|n| (format!("target {n}"), "x".repeat(999))).collect();
    let told = monitor.take_in(UnixMs(2), &many, &many.keys().cloned().collect());
    assert_eq!((told.len(), monitor.seen.len(), monitor.well.len()), (SEEN_MAX, SEEN_MAX, SEEN_MAX));
    assert!(monitor.seen.iter().all(|seen| seen.detail.chars().count() <= REASON_CHARS_MAX));
}

#[test]
fn what_serves_now_and_what_follows_it_is_looked_at_closely() {
    let policy = policy();
    let rules = &policy.groups[&group()];
    let closely = |world: &World, target: &str| world.group().is_watched_closely(rules, &target.into());
    let mut world = moved();
    assert!(closely(&world, "hanoi-db") && closely(&world, "replication") && !closely(&world, "hcmc-db"));
    look(&mut world, WELL, FOR_MS);
    assert!(!closely(&world, "hanoi-db"));
}
