//! Redis beside the database in the log: promoted only behind its fence or its hand-over, whatever an executor proposes.

use crate::domain::advance::gives_way;
use crate::domain::attempt::Outcome;
use crate::domain::command::{Change, RejectionCode, RunOrder};
use crate::domain::fixtures::{World, done, group, plan};
use crate::domain::ids::{HostName, ResourceName, RunId, Token};
use crate::domain::invariants::violations;
use crate::domain::plan::{Action, Plan, REDIS_FENCE, REDIS_HAND_OVER, REDIS_PROMOTE, REDIS_RELEASE, Stage, Step};
use crate::domain::run::{RunOutcome, StepPhase};
use crate::domain::stuck::ways_on;

/// A step of that name at the Redis server of `region`, as the configuration makes it.
fn redis(name: &str, region: &str, blocking: bool) -> Step {
    let sample = plan("hcmc", "hanoi").steps().next().expect("a fence").1.clone();
    let Action::Fence { mut guard } = sample.action.clone() else { unreachable!() };
    guard.host = HostName(format!("redis-{region}"));
    let action = Action::Guarded { guard, name: name.to_owned(), params: Default::default() };
    Step { id: name.into(), action, blocking, ..sample }
}

/// A failover with Redis in it: with a fence, or on a standing word that two of it do no harm.
fn failing_over(fences: bool) -> (World, Token) {
    let mut world = World::new();
    let mut open = world.open_change("r1");
    if let Change::OpenRun { plan, .. } = &mut open {
        let fence = fences.then(|| redis(REDIS_FENCE, "hcmc", false));
        plan.stages[1].steps.extend(fence.into_iter().chain([redis(REDIS_PROMOTE, "hanoi", false)]));
    }
    world.must(open);
    let token = world.claim("r1");
    (world, token)
}

/// A switchover with Redis in it, opened with a plan that was changed so.
fn switching_over(change: impl Fn(&mut Plan)) -> (World, Change) {
    let world = World::new();
    let mut open = world.open_planned("r1");
    if let Change::OpenRun { plan, .. } = &mut open {
        plan.stages.insert(2, Stage { steps: vec![redis(REDIS_HAND_OVER, "hcmc", true)] });
        plan.stages.insert(4, Stage { steps: vec![redis(REDIS_PROMOTE, "hanoi", false)] });
        plan.undo[0].steps.push(redis(REDIS_RELEASE, "hcmc", true));
        change(plan);
    }
    (world, open)
}

fn skip(step: &str) -> Change {
    let (order, reason) = (RunOrder::Skip { step: step.into() }, "I have looked: it is silent".to_owned());
    Change::Order { group: group(), run: RunId::from("r1"), expected_token: None, order, reason }
}

fn failed(retryable: bool) -> Outcome {
    Outcome::Failed { retryable, reason: "no luck".to_owned() }
}

fn unknown() -> Outcome {
    Outcome::Unknown { reason: "no answer".to_owned() }
}

/// How far a step has come: never begun, begun, or with that result.
type Ends = Option<fn() -> Option<Outcome>>;

const UNPROVED: [(&str, Ends); 5] = [
    ("pending", None),
    ("started", Some(|| None)),
    ("failed", Some(|| Some(failed(true)))),
    ("failed for good", Some(|| Some(failed(false)))),
    ("unknown", Some(|| Some(unknown()))),
];

fn bring(world: &mut World, token: Token, step: &str, how_far: Ends) {
    let Some(result) = how_far else { return };
    world.must(world.start_change(step, token));
    if let Some(outcome) = result() {
        world.must(world.finish_change(step, token, outcome));
    }
}

fn must_wait(world: &mut World, token: Token, how_far: &str) {
    let start = world.start_change(REDIS_PROMOTE, token);
    assert_eq!(world.rejected(start), RejectionCode::Illegal, "behind what is {how_far}");
    assert_eq!(world.run().phase_of(&REDIS_PROMOTE.into()), StepPhase::Pending, "{how_far}");
}

#[test]
fn redis_is_promoted_only_behind_its_fence() {
    for (how_far, result) in UNPROVED {
        let (mut world, token) = failing_over(true);
        world.do_step("fence", token);
        bring(&mut world, token, REDIS_FENCE, result);
        must_wait(&mut world, token, how_far);
        // A later holder of the run has no better right to it.
        let later = world.claim("r1");
        must_wait(&mut world, later, how_far);
    }
    let (mut world, token) = failing_over(true);
    world.do_step("fence", token);
    world.do_step(REDIS_FENCE, token);
    world.do_step(REDIS_PROMOTE, token);
    assert_eq!(violations(&world.state), Vec::<String>::new());
}

#[test]
fn an_operators_name_takes_the_place_of_its_fence_whatever_became_of_that() {
    for (how_far, result) in UNPROVED {
        let (mut world, token) = failing_over(true);
        world.do_step("fence", token);
        bring(&mut world, token, REDIS_FENCE, result);
        world.must(skip(REDIS_FENCE));
        let detail = world.run().record(&REDIS_FENCE.into()).map(|record| record.detail.clone());
        assert!(detail.is_some_and(|detail| detail.starts_with("skipped by node:3: I have looked")), "{how_far}");
        let is_open = ["started", "unknown"].contains(&how_far);
        let left: Vec<_> = world.group().unsettled.keys().map(|resource| resource.0.as_str()).collect();
        assert_eq!(left, if is_open { vec!["host:redis-hcmc"] } else { vec![] }, "{how_far}: it may still come");
        world.do_step(REDIS_PROMOTE, token);
        assert_eq!(violations(&world.state), Vec::<String>::new(), "{how_far}");
    }
}

#[test]
fn an_assertion_for_the_database_is_none_for_redis() {
    let (mut world, token) = failing_over(true);
    let (order, reason) = (RunOrder::AssertFence { region: "hcmc".into() }, "its host is off".to_owned());
    world.must(Change::Order { group: group(), run: "r1".into(), expected_token: None, order, reason });
    assert_eq!(world.run().phase_of(&"fence".into()), StepPhase::Skipped);
    must_wait(&mut world, token, "asserted for the database");
}

#[test]
fn on_a_standing_word_it_waits_for_the_databases_fence_alone() {
    let (mut world, token) = failing_over(false);
    must_wait(&mut world, token, "the database's fence, and pending");
    world.do_step("fence", token);
    world.do_step(REDIS_PROMOTE, token);
}

#[test]
fn neither_holds_the_database_or_its_services_up_and_the_run_ends_with_neither_open() {
    let (mut world, token) = failing_over(true);
    world.do_step("fence", token);
    bring(&mut world, token, REDIS_FENCE, UNPROVED[4].1);
    for step in ["promote", "services", "dns"] {
        world.do_step(step, token);
    }
    let verify = world.start_change("verify", token);
    assert_eq!(world.rejected(verify), RejectionCode::Illegal, "the last stage waits for every step");
    world.must(world.finish_change(REDIS_FENCE, token, done()));
    let verify = world.start_change("verify", token);
    assert_eq!(world.rejected(verify), RejectionCode::Illegal, "redis-promote is still to come");
    for step in [REDIS_PROMOTE, "verify"] {
        world.do_step(step, token);
    }
}

/// Where nothing is verified services are the last: they look at nothing, and wait for nobody but the database.
#[test]
fn services_wait_for_it_no_more_where_they_are_the_last() {
    let (mut world, open) = {
        let world = World::new();
        let mut open = world.open_change("r1");
        if let Change::OpenRun { plan, .. } = &mut open {
            plan.stages.retain(|stage| stage.steps.iter().all(|step| step.id != "verify".into()));
            let steps = vec![redis(REDIS_FENCE, "hcmc", false), redis(REDIS_PROMOTE, "hanoi", false)];
            plan.stages.insert(2, Stage { steps });
        }
        (world, open)
    };
    world.must(open);
    let token = world.claim("r1");
    for step in ["fence", "promote"] {
        world.do_step(step, token);
    }
    bring(&mut world, token, REDIS_FENCE, UNPROVED[3].1);
    let fence = world.run().plan.step(&REDIS_FENCE.into()).cloned().expect("a step");
    assert!(gives_way(world.run(), &fence), "services are still to be started");
    for step in ["services", "dns"] {
        world.do_step(step, token);
    }
    assert!(!gives_way(world.run(), &fence), "now a person is called");
}

#[test]
fn a_planned_move_promotes_it_behind_its_hand_over_and_the_databases_promotion() {
    let ahead = ["fence", "catch-up", REDIS_HAND_OVER, "promote"];
    for unfinished in 0..ahead.len() {
        for (how_far, result) in UNPROVED {
            let (mut world, open) = switching_over(|_| {});
            world.must(open);
            let token = world.claim("r1");
            ahead[..unfinished].iter().for_each(|step| world.do_step(step, token));
            bring(&mut world, token, ahead[unfinished], result);
            must_wait(&mut world, token, &format!("{} {how_far}", ahead[unfinished]));
        }
    }
    let (mut world, open) = switching_over(|_| {});
    world.must(open);
    let token = world.claim("r1");
    for step in ahead.into_iter().chain([REDIS_PROMOTE]) {
        world.do_step(step, token);
    }
    assert_eq!(violations(&world.state), Vec::<String>::new());
}

/// Also where the two stand in one stage, or the hand-over is not waited for: the log knows whom it waits for by name.
#[test]
fn a_hand_over_is_waited_for_wherever_it_stands() {
    let (mut world, open) = switching_over(|plan| {
        let hand_over = Step { blocking: false, ..plan.stages.remove(2).steps.remove(0) };
        plan.stages[3].steps.push(hand_over);
    });
    world.must(open);
    let token = world.claim("r1");
    ["fence", "catch-up", "promote"].iter().for_each(|step| world.do_step(step, token));
    must_wait(&mut world, token, "pending beside it");
    world.do_step(REDIS_HAND_OVER, token);
    world.do_step(REDIS_PROMOTE, token);
}

#[test]
fn nobodys_word_takes_the_place_of_a_hand_over() {
    let (mut world, open) = switching_over(|_| {});
    world.must(open);
    assert_eq!(world.rejected(skip(REDIS_HAND_OVER)), RejectionCode::Illegal);
}

#[test]
fn a_planned_move_opens_only_with_a_hand_over_that_is_taken_back() {
    type Edit = fn(&mut Plan);
    let spoil: [(&str, Edit); 5] = [
        ("not waited for", |plan| plan.stages[2].steps[0].blocking = false),
        ("taken back by nobody", |plan| drop(plan.undo[0].steps.pop())),
        ("taken back elsewhere", |plan| plan.undo[0].steps[1] = redis(REDIS_RELEASE, "hanoi", true)),
        ("promoted beside the database", |plan| {
            let promote = plan.stages.remove(4).steps.remove(0);
            plan.stages[3].steps.push(promote);
        }),
        ("fenced instead", |plan| plan.stages[2].steps[0] = redis(REDIS_FENCE, "hcmc", true)),
    ];
    for (what, edit) in spoil {
        let (mut world, open) = switching_over(edit);
        assert_eq!(world.rejected(open), RejectionCode::Invalid, "{what}");
    }
}

/// The hand-over is taken back only under a later token than its own, and only once it is known what it did.
#[test]
fn a_hand_over_is_taken_back_under_a_later_token() {
    [true, false].into_iter().for_each(taken_back);
}

/// The database does not wait for what became of Redis.
fn taken_back(is_known: bool) {
    let (mut world, open) = switching_over(|_| {});
    world.must(open);
    let token = world.claim("r1");
    ["fence", "catch-up"].iter().for_each(|step| world.do_step(step, token));
    bring(&mut world, token, REDIS_HAND_OVER, UNPROVED[4].1);
    world.must(Change::TurnBack { group: group(), run: "r1".into(), token, reason: "no answer".to_owned() });
    let token = world.claim("r1");
    let release = world.start_change(REDIS_RELEASE, token);
    assert_eq!(world.rejected(release), RejectionCode::Illegal, "nobody knows what the hand-over did");
    let redis_release = world.run().plan.step(&REDIS_RELEASE.into()).cloned().expect("a step");
    assert!(gives_way(world.run(), &redis_release), "the database is not released yet");
    world.do_step("release", token);
    assert!(!gives_way(world.run(), &redis_release));
    match is_known {
        true => drop(world.must(world.finish_change(REDIS_HAND_OVER, token, done()))),
        // Its host does not come back: a person leaves it at that.
        false => {
            let (run, reason) = (world.run().id.clone(), "no answer".to_owned());
            world.must(Change::MarkStuck { group: group(), run, token, step: REDIS_HAND_OVER.into(), reason });
            let offered = |word: &str| ways_on(world.run()).iter().any(|way| way.command.contains(word));
            assert!(offered("run skip shop redis-hand-over") && !offered("retry"), "{:?}", ways_on(world.run()));
            world.must(skip(REDIS_HAND_OVER));
        }
    }
    must_wait(&mut world, token, "on the way back");
    if !is_known {
        assert!(world.group().unsettled.contains_key(&ResourceName("host:redis-hcmc".to_owned())), "it may still come");
        world.must(skip(REDIS_RELEASE));
    } else {
        world.do_step(REDIS_RELEASE, token);
    }
    let (group, run, reason) = (group(), RunId::from("r1"), String::new());
    let outcome = RunOutcome::Reverted;
    let settled = Default::default();
    let old_primary_untouched = false;
    world.must(Change::CloseRun { group, run, token, outcome, settled, old_primary_untouched, reason, monitor_ms: 0 });
    assert_eq!(violations(&world.state), Vec::<String>::new());
}

/// A hand-over that is late on its way must not come behind the release: it would leave Redis without a primary.
#[test]
fn redis_is_released_only_under_a_later_token_than_its_hand_over() {
    let (mut world, open) = switching_over(|_| {});
    world.must(open);
    let token = world.claim("r1");
    ["fence", "catch-up", REDIS_HAND_OVER].iter().for_each(|step| world.do_step(step, token));
    world.must(Change::TurnBack { group: group(), run: "r1".into(), token, reason: "no answer".to_owned() });
    let release = world.start_change(REDIS_RELEASE, token);
    assert_eq!(world.rejected(release), RejectionCode::Illegal);
    let later = world.claim("r1");
    world.do_step(REDIS_RELEASE, later);
}
