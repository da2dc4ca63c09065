//! Redis beside the database: promoted only while the old one is seen to be fenced, and never in the way of what people wait
//! for.

use std::sync::Arc;

use watchdog::domain::command::RunOrder;
use watchdog::domain::ids::{HostName, RegionName};
use watchdog::domain::observation::Verdict;
use watchdog::domain::plan::{
    Action, GuardEndpoint, Plan, REDIS_FENCE, REDIS_PROMOTE, Retry, Stage as PlanStage, Step,
};
use watchdog::domain::run::{RunOutcome, RunPhase, StepPhase};
use watchdog::domain::state::GroupState;

use crate::world::{ModelLog, Mood};
use crate::{Stage, is_stuck_at, keep_reporting, outcome, phase};

/// With a Redis server in both regions.
fn stage() -> Stage {
    let stage = Stage::new();
    let mut policy = (*stage.policy).clone();
    for plan in policy.groups.values_mut().flat_map(|rules| &mut rules.failover_plans) {
        let fence = redis(plan, REDIS_FENCE, &plan.from);
        let promote = redis(plan, REDIS_PROMOTE, &plan.to);
        let is_promotion = |step: &Step| matches!(step.action, Action::Promote { .. });
        let promotion = plan.stages.iter().position(|stage| stage.steps.iter().any(is_promotion)).unwrap();
        plan.stages.insert(promotion + 1, PlanStage { steps: vec![fence, promote] });
    }
    let policy = Arc::new(policy);
    Stage { log: ModelLog::new(&policy), policy, world: stage.world }
}

/// As the configuration makes it, with few and quick attempts.
fn redis(plan: &Plan, name: &str, region: &RegionName) -> Step {
    let fence = |step: &Step| {
        if let Action::Fence { guard } = &step.action { Some((step.clone(), guard.clone())) } else { None }
    };
    let (sample, guard) = plan.steps().find_map(|(_, step)| fence(step)).unwrap();
    let guard = GuardEndpoint { host: HostName(format!("redis-{region}")), ..guard };
    let action = Action::Guarded { guard, name: name.to_owned(), params: Default::default() };
    Step { id: name.into(), action, blocking: false, retry: Retry { max_attempts: 3, ..sample.retry }, ..sample }
}

fn reason(stage: &Stage) -> String {
    match stage.log.group().open_run.map(|run| run.phase) {
        Some(RunPhase::Stuck { reason, .. }) => reason,
        other => panic!("not stuck: {other:?}"),
    }
}

#[tokio::test]
async fn it_moves_with_its_group() {
    let stage = stage();
    let _leader = stage.lead(3, Verdict::Down);
    assert_eq!(outcome(&stage.until_closed().await), RunOutcome::Succeeded);
    for verb in [REDIS_FENCE, REDIS_PROMOTE] {
        assert_eq!(stage.world.effects(verb).len(), 1, "{verb}");
    }
    stage.end();
}

#[tokio::test]
async fn it_is_not_promoted_beside_an_old_one_that_was_started_again() {
    let stage = stage();
    stage.world.mood(REDIS_PROMOTE, Mood::Unreachable);
    let leader = stage.lead(3, Verdict::Down);
    let tried = |group: &GroupState| phase(group, REDIS_PROMOTE) == Some(StepPhase::Failed);
    stage.log.until("it was tried", tried).await;
    // A person starts it past its boot gate.
    stage.world.undo(REDIS_FENCE);
    stage.world.mood(REDIS_PROMOTE, Mood::Good);
    stage.log.until("stuck", |group| is_stuck_at(group, REDIS_PROMOTE)).await;
    let said = reason(&stage);
    assert!(said.starts_with("redis-fence does not hold any more: "), "{said}");
    let group = stage.log.group();
    for settled in ["promote", "dns", "services"] {
        assert_eq!(phase(&group, settled), Some(StepPhase::Done), "{settled}");
    }
    assert!(stage.world.effects(REDIS_PROMOTE).is_empty());
    stage.order(RunOrder::Skip { step: REDIS_PROMOTE.into() });
    keep_reporting(&stage, &leader).await;
    assert!(stage.world.effects(REDIS_PROMOTE).is_empty());
    stage.end();
}

#[tokio::test]
async fn a_hopeless_one_calls_nobody_while_the_name_is_still_to_be_moved() {
    let stage = stage();
    stage.world.mood("dns", Mood::Unreachable);
    stage.world.mood(REDIS_FENCE, Mood::Fails);
    let leader = stage.lead(3, Verdict::Down);
    let failed = |group: &GroupState| {
        phase(group, REDIS_FENCE) == Some(StepPhase::Failed) && phase(group, "services") == Some(StepPhase::Done)
    };
    let group = stage.log.until("it failed for good", failed).await;
    let attempts = |group: &GroupState| {
        group.open_run.as_ref().map_or(0, |run| run.record(&"dns".into()).map_or(0, |record| record.attempts))
    };
    let before = attempts(&group);
    stage.log.until("the name is tried on", |group| attempts(group) >= before + 2).await;
    assert_eq!(stage.log.group().open_run.map(|run| run.phase), Some(RunPhase::Open), "nobody was called");
    stage.world.mood("dns", Mood::Good);
    stage.log.until("stuck", |group| is_stuck_at(group, REDIS_FENCE)).await;
    assert_eq!(phase(&stage.log.group(), "dns"), Some(StepPhase::Done));
    stage.order(RunOrder::Skip { step: REDIS_FENCE.into() });
    keep_reporting(&stage, &leader).await;
    assert_eq!(outcome(&stage.log.group()), RunOutcome::Succeeded);
    assert_eq!(stage.world.effects(REDIS_PROMOTE).len(), 1, "a person's word took the place of its fence");
    stage.end();
}

#[tokio::test]
async fn a_stuck_fence_of_it_goes_on_by_itself_when_its_host_answers() {
    let stage = stage();
    stage.world.mood(REDIS_FENCE, Mood::Unreachable);
    let leader = stage.lead(3, Verdict::Down);
    stage.log.until("stuck", |group| is_stuck_at(group, REDIS_FENCE)).await;
    stage.world.mood(REDIS_FENCE, Mood::Good);
    keep_reporting(&stage, &leader).await;
    assert_eq!(outcome(&stage.log.group()), RunOutcome::Succeeded);
    assert_eq!(stage.world.effects(REDIS_PROMOTE).len(), 1);
    stage.end();
}
