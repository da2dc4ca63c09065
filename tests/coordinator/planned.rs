//! Planned moves: carried out to the end through any leader's death, or turned back while nothing was promoted.

use std::sync::Arc;
use std::time::Duration;

use watchdog::domain::command::{Applied, Change, RunOrder};
use watchdog::domain::ids::{RunId, Token};
use watchdog::domain::observation::Verdict;
use watchdog::domain::policy::Fencing;
use watchdog::domain::run::{Cause, RunKind, RunOutcome, RunPhase, StepPhase};

use crate::world::{Mood, Node, group};
use crate::{Stage, is_stuck_at, outcome, phase};

/// In the order of the plan: what it does, and which step that is.
const FORWARD: [(&str, &str); 7] = [
    ("fence", "fence"),
    ("catch-up", "catch-up"),
    ("promote", "promote"),
    ("dns", "dns"),
    ("start-services", "services"),
    ("rejoin", "rejoin"),
    ("verify", "verify"),
];

/// A stage whose writing may stand still for `timeout_ms`, and short retries.
fn stage(timeout_ms: u64) -> Stage {
    patient(Stage::new(), timeout_ms)
}

fn patient(mut stage: Stage, timeout_ms: u64) -> Stage {
    let mut policy = (*stage.policy).clone();
    for rules in policy.groups.values_mut() {
        rules.switchover_timeout_ms = timeout_ms;
        let steps = rules.switchover_plans.iter_mut().flat_map(|plan| plan.stages.iter_mut().chain(&mut plan.undo));
        for step in steps.flat_map(|stage| &mut stage.steps) {
            step.retry.backoff_ms = 20;
            step.retry.backoff_max_ms = 50;
        }
    }
    stage.policy = Arc::new(policy);
    stage
}

/// One of each fencing mode; of mode `lease` with a bound lease and without.
fn every_mode() -> [(&'static str, Stage); 4] {
    let standing = Fencing::None { asserted_by: "operator:linh".to_owned() };
    [
        ("confirm", Stage::new()),
        ("lease, bound", crate::leased(true)),
        ("lease", crate::leased(false)),
        ("none", Stage::of(standing)),
    ]
    .map(|(mode, stage)| (mode, patient(stage, 60_000)))
}

/// An operator's switchover to hanoi.
fn switch_over(stage: &Stage) {
    let name = group(&stage.policy);
    let now = stage.log.group();
    let plan = stage.policy.groups[&name].switchover_plan(&"hcmc".into(), &"hanoi".into()).unwrap().clone();
    let change = Change::OpenRun {
        run: RunId::from("planned"),
        group: name,
        kind: RunKind::Switchover,
        drill: false,
        plan,
        digest: stage.policy.digest.clone(),
        expected_token: now.token,
        expected_serving_epoch: now.serving.epoch,
        cause: Cause {
            by: "operator:linh".into(),
            automatic: false,
            reason: "maintenance".to_owned(),
            evidence: Vec::new(),
            fault_at: None,
            expected_loss_ms: Some(0),
        },
        loss_acceptance: None,
        fence_assertion: None,
    };
    let applied = stage.log.write("operator:linh", change);
    assert!(matches!(applied, Applied::Done { .. }), "{applied:?}");
}

/// A release's answer is not waited for long.
fn impatient_release() -> Stage {
    let stage = stage(60_000);
    let mut policy = (*stage.policy).clone();
    for rules in policy.groups.values_mut() {
        rules.switchover_plans.iter_mut().flat_map(|plan| &mut plan.undo).for_each(|stage| {
            stage.steps.iter_mut().for_each(|step| step.deadline_ms = 500);
        });
    }
    Stage { policy: Arc::new(policy), ..stage }
}

fn begun(stage: &Stage, node: u64) -> Node {
    switch_over(stage);
    stage.lead(node, Verdict::Up)
}

/// Writing is at home again and nothing was promoted.
async fn must_be_back(stage: &Stage, what: &str) {
    let now = stage.until_closed().await;
    assert_eq!(outcome(&now), RunOutcome::Reverted, "{what}");
    assert_eq!(now.serving.region, Some("hcmc".into()), "{what}");
    assert!(stage.world.effects("promote").is_empty() && stage.world.effects("dns").is_empty(), "{what}");
    assert_eq!(stage.world.effects("release").len(), 1, "{what}");
    assert!(now.unsettled.is_empty(), "{what}: {:?}", now.unsettled);
    stage.end();
}

#[tokio::test]
async fn a_switchover_carries_out_its_plan_in_order_and_each_effect_once() {
    let stage = stage(60_000);
    let _leader = begun(&stage, 3);
    let now = stage.until_closed().await;
    assert_eq!((outcome(&now), now.serving.region), (RunOutcome::Succeeded, Some("hanoi".into())));
    for (verb, _) in FORWARD.iter().filter(|(verb, _)| !["catch-up", "verify"].contains(verb)) {
        assert_eq!(stage.world.effects(verb), [Token { epoch: 1, n: 1 }], "{verb}");
    }
    // As its step, and again right before the promotion.
    assert_eq!(stage.world.effects("catch-up").len(), 2);
    assert!(stage.world.effects("release").is_empty());
    assert_eq!(stage.log.pages(), ["DR_SWITCHOVER_STARTED", "DR_SWITCHOVER_SUCCESS", "DR_SWITCHOVER_ENDED"]);
    stage.end();
}

#[tokio::test]
async fn p4_in_every_mode_it_promotes_by_its_guards_own_proof() {
    for (mode, stage) in every_mode() {
        let _leader = begun(&stage, 3);
        let now = stage.until_closed().await;
        assert_eq!((outcome(&now), now.serving.region), (RunOutcome::Succeeded, Some("hanoi".into())), "{mode}");
        let run = now.history.back().unwrap();
        let promoted = run.events.iter().find(|event| event.what.starts_with("promote started")).unwrap();
        assert!(promoted.what.contains("fence proof under 1.1"), "{mode}: {}", promoted.what);
        stage.end();
    }
}

#[tokio::test]
async fn p4_in_every_mode_neither_silence_nor_a_standing_word_takes_the_place_of_its_fence() {
    for (mode, stage) in every_mode() {
        stage.world.mood("fence", Mood::Unreachable);
        let _leader = begun(&stage, 3);
        // Far longer than a lease of 200 ms needs to run out.
        stage
            .log
            .until("it gives its fence up", |group| group.open_run.as_ref().is_none_or(|run| run.turned_back.is_some()))
            .await;
        stage.world.mood("fence", Mood::Good);
        must_be_back(&stage, mode).await;
        let now = stage.log.group();
        let run = now.history.back().unwrap();
        assert!(!run.lease_lapsed && stage.world.effects("catch-up").is_empty(), "{mode}");
    }
}

#[tokio::test]
async fn in_every_mode_it_turns_back_when_the_standby_does_not_catch_up() {
    for (mode, stage) in every_mode() {
        stage.world.mood("catch-up", Mood::Fails);
        let leader = begun(&stage, 3);
        must_be_back(&stage, mode).await;
        let name = group(&stage.policy);
        let allowed = async {
            while leader.coordinator.leases.is_stopped(&name, &"hcmc".into()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(crate::world::PATIENCE, allowed).await.expect("what was stopped is granted again");
    }
}

#[tokio::test]
async fn p6_a_switchover_goes_on_whichever_step_its_leader_dies_in() {
    for (verb, step) in FORWARD {
        let stage = stage(60_000);
        stage.world.mood(verb, Mood::Hangs);
        let first = begun(&stage, 3);
        stage.log.until("the step has begun", |group| phase(group, step) == Some(StepPhase::Started)).await;
        drop(first);
        stage.world.mood(verb, Mood::Good);
        let _second = stage.lead(2, Verdict::Up);
        let now = stage.until_closed().await;
        assert_eq!(outcome(&now), RunOutcome::Succeeded, "{verb}");
        for (done, _) in FORWARD.iter().filter(|(verb, _)| !["catch-up", "verify"].contains(verb)) {
            assert_eq!(stage.world.effects(done).len(), 1, "{done} after a crash in {verb}");
        }
        stage.end();
    }
}

#[tokio::test]
async fn it_turns_back_when_the_standby_does_not_catch_up_in_time() {
    let stage = stage(400);
    stage.world.mood("catch-up", Mood::Unreachable);
    let _leader = begun(&stage, 3);
    must_be_back(&stage, "time-out").await;
    let back = stage.log.group().history.back().unwrap().turned_back.clone().unwrap();
    assert!(back.reason.contains("writing was stopped") && back.reason.contains("no route to host"), "{back:?}");
    assert!(stage.log.pages().contains(&"DR_SWITCHOVER_REVERTED".to_owned()));
}

#[tokio::test]
async fn it_turns_back_at_once_from_what_failed_for_good_and_from_a_fence_without_proof() {
    for (verb, mood) in [("catch-up", Mood::Fails), ("fence", Mood::Fails), ("fence", Mood::Unreachable)] {
        let stage = stage(60_000);
        stage.world.mood(verb, mood);
        let _leader = begun(&stage, 3);
        must_be_back(&stage, verb).await;
    }
}

#[tokio::test]
async fn p6_the_way_back_goes_on_whichever_step_its_leader_dies_in() {
    // The leader dies while it fences (its request is still on its way), while it looks, and while it releases.
    for verb in ["fence", "catch-up", "release"] {
        let stage = stage(500);
        if verb != "catch-up" {
            stage.world.mood("catch-up", Mood::Unreachable);
        }
        stage.world.mood(verb, Mood::Hangs);
        let first = begun(&stage, 3);
        stage.log.until("the step has begun", |group| phase(group, verb) == Some(StepPhase::Started)).await;
        drop(first);
        tokio::time::sleep(Duration::from_millis(600)).await;
        stage.world.mood("catch-up", Mood::Unreachable);
        if verb != "catch-up" {
            stage.world.mood(verb, Mood::Good);
        }
        let _second = stage.lead(2, Verdict::Up);
        must_be_back(&stage, verb).await;
    }
}

#[tokio::test]
async fn an_abort_before_the_promotion_turns_back() {
    let stage = stage(60_000);
    stage.world.mood("catch-up", Mood::Unreachable);
    let _leader = begun(&stage, 3);
    stage.log.until("it waits for the standby", |group| phase(group, "catch-up") == Some(StepPhase::Failed)).await;
    stage.order(RunOrder::Abort);
    must_be_back(&stage, "abort").await;
    let back = stage.log.group().history.back().unwrap().turned_back.clone().unwrap();
    assert!(back.reason.starts_with("aborted by operator:linh"), "{back:?}");
}

#[tokio::test]
async fn an_abort_after_a_promotion_that_failed_for_certain_turns_back_under_a_later_token() {
    let stage = stage(60_000);
    stage.world.mood("promote", Mood::Fails);
    let _leader = begun(&stage, 3);
    stage.log.until("a person is called", |group| is_stuck_at(group, "promote")).await;
    stage.order(RunOrder::Abort);
    must_be_back(&stage, "abort").await;
    assert_eq!(stage.world.effects("release"), [Token { epoch: 1, n: 2 }]);
}

#[tokio::test]
async fn nothing_is_stopped_for_a_standby_that_cannot_be_promoted_and_the_switchover_is_withdrawn() {
    let stage = stage(60_000);
    stage.world.mood("promote", Mood::Hopeless);
    let _leader = begun(&stage, 3);
    let now = stage.until_closed().await;
    assert_eq!((outcome(&now), now.serving.epoch), (RunOutcome::Withdrawn, 1));
    assert!(stage.world.tokens_raised().is_empty());
    stage.end();
}

#[tokio::test]
async fn p9_a_paused_switchover_stays_where_it_is_and_turns_back_after_the_resume() {
    let stage = stage(300);
    stage.world.mood("catch-up", Mood::Unreachable);
    switch_over(&stage);
    stage.world.mood("fence", Mood::Hangs);
    let _leader = stage.lead(3, Verdict::Up);
    stage.log.until("it fences", |group| phase(group, "fence") == Some(StepPhase::Started)).await;
    let name = group(&stage.policy);
    stage.log.write("operator:linh", Change::Pause { group: name.clone(), reason: "wait".to_owned(), until: None });
    stage.world.mood("fence", Mood::Good);
    stage.log.until("its result counts", |group| phase(group, "fence") == Some(StepPhase::Done)).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let now = stage.log.group();
    assert_eq!(now.open_run.as_ref().map(|run| run.phase.clone()), Some(RunPhase::Open));
    assert_eq!(phase(&now, "catch-up"), Some(StepPhase::Pending));
    stage.log.write("operator:linh", Change::Resume { group: name, reason: "go".to_owned(), expired: None });
    must_be_back(&stage, "resumed").await;
}

#[tokio::test]
async fn the_old_primarys_lease_is_granted_again_as_soon_as_its_release_has_begun() {
    let stage = stage(60_000);
    stage.world.mood("catch-up", Mood::Fails);
    stage.world.mood("release", Mood::Hangs);
    let leader = begun(&stage, 3);
    let name = group(&stage.policy);
    stage.log.until("it is being released", |group| phase(group, "release") == Some(StepPhase::Started)).await;
    assert_eq!(stage.log.group().serving.region, Some("hcmc".into()));
    let allowed = async {
        while leader.coordinator.leases.is_stopped(&name, &"hcmc".into()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::world::PATIENCE, allowed).await.expect("it is granted while the run is still open");
    stage.world.mood("release", Mood::Good);
    must_be_back(&stage, "release").await;
}

/// The fence that was done there says nothing about the release that is at work on the same host.
#[tokio::test]
async fn an_abort_on_the_way_back_settles_no_host_whose_release_is_at_work() {
    let stage = impatient_release();
    stage.world.mood("catch-up", Mood::Fails);
    stage.world.mood("release", Mood::AtWork);
    let _leader = begun(&stage, 3);
    stage.log.until("it is being released", |group| phase(group, "release") == Some(StepPhase::Started)).await;
    stage.order(RunOrder::Abort);
    let now = stage.until_closed().await;
    assert_eq!((outcome(&now), now.serving.region), (RunOutcome::Aborted, Some("hcmc".into())));
    let left: Vec<_> = now.unsettled.iter().map(|(resource, left)| (resource.as_str(), left.action.verb())).collect();
    assert_eq!(left, [("host:db-hcmc", "release")]);
    stage.world.mood("release", Mood::Good);
    stage.log.until("it is settled once nothing is at work", |group| group.unsettled.is_empty()).await;
    stage.end();
}

#[tokio::test]
async fn a_release_that_nobody_answers_calls_a_person_and_goes_on_when_the_host_is_back() {
    let stage = impatient_release();
    stage.world.mood("catch-up", Mood::Fails);
    stage.world.mood("release", Mood::Unreachable);
    let _leader = begun(&stage, 3);
    stage.log.until("a person is called", |group| is_stuck_at(group, "release")).await;
    stage.world.mood("release", Mood::Good);
    must_be_back(&stage, "host back").await;
}
