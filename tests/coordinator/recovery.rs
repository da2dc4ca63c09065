//! A recovery is the least of all runs: where a failover is due it gives way, also in the middle of its work.

use watchdog::domain::command::{Applied, Change};
use watchdog::domain::ids::RunId;
use watchdog::domain::observation::Verdict;
use watchdog::domain::plan::{Action, Plan};
use watchdog::domain::run::{Cause, Run, RunKind, RunOutcome, RunPhase, StepPhase};

use crate::world::{Mood, group};
use crate::{Stage, is_stuck_at, phase};

/// An operator's rejoin of that region.
fn rejoin(stage: &Stage, region: &str) {
    let name = group(&stage.policy);
    let known = stage.policy.groups[&name].rejoin_plans.iter().find(|known| known.plan.to.as_str() == region);
    recover(stage, known.unwrap().plan.clone());
}

/// An operator's restart of a service beside the primary.
fn restart(stage: &Stage) {
    let rules = &stage.policy.groups[&group(&stage.policy)];
    let mut plan = rules.failover_plan(&"hanoi".into(), &"hcmc".into()).unwrap().clone();
    plan.from = plan.to.clone();
    plan.stages.iter_mut().for_each(|stage| stage.steps.retain(|step| step.id.as_str() == "services"));
    plan.stages.retain(|stage| !stage.steps.is_empty());
    for step in plan.stages.iter_mut().flat_map(|stage| &mut stage.steps) {
        let Action::Guarded { name, .. } = &mut step.action else { panic!("{step:?}") };
        *name = "restart".to_owned();
    }
    recover(stage, plan);
}

fn recover(stage: &Stage, plan: Plan) {
    let now = stage.log.group();
    let change = Change::OpenRun {
        run: RunId::from("recovery"),
        group: group(&stage.policy),
        kind: RunKind::Recovery,
        drill: false,
        plan,
        digest: stage.policy.digest.clone(),
        expected_token: now.token,
        expected_serving_epoch: now.serving.epoch,
        cause: Cause {
            by: "operator:linh".into(),
            automatic: false,
            reason: "its disk is new".to_owned(),
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

#[tokio::test]
async fn a_recovery_at_work_or_stuck_gives_way_to_a_failover() {
    for mood in [Mood::Hangs, Mood::Hopeless] {
        let stage = Stage::new();
        stage.world.mood("rejoin", mood);
        rejoin(&stage, "hanoi");
        let leader = stage.lead(3, Verdict::Up);
        stage
            .log
            .until("the rejoin is at work, or stuck", |group| match mood {
                Mood::Hangs => phase(group, "rejoin") == Some(StepPhase::Started),
                _ => is_stuck_at(group, "rejoin"),
            })
            .await;
        leader.report(3, Verdict::Down, 60_000, &stage.policy);
        let now = stage.log.until("both runs are over", |group| group.history.len() == 2).await;
        let ended: Vec<_> = now.history.iter().map(|run| (run.kind, run.phase.clone())).collect();
        let [(RunKind::Recovery, RunPhase::Closed { outcome: RunOutcome::Aborted, .. }), (RunKind::Failover, _)] =
            ended.as_slice()
        else {
            panic!("{ended:?}")
        };
        assert_eq!(crate::outcome(&now), RunOutcome::Succeeded);
        assert_eq!(now.serving.region, Some("hanoi".into()));
        assert!(stage.world.effects("rejoin").is_empty(), "what was dropped came to nothing");
        stage.end();
    }
}

/// Its host dies in the middle of a service's restart: what became of that nobody can tell, and nobody needs to.
#[tokio::test]
async fn a_restart_that_its_dead_host_leaves_unsettled_holds_up_no_failover() {
    let stage = crate::leased(true);
    stage.world.mood("restart", Mood::Hangs);
    restart(&stage);
    let leader = stage.lead(3, Verdict::Up);
    stage.log.until("the restart is at work", |group| phase(group, "services") == Some(StepPhase::Started)).await;
    stage.world.mood("host:db-hcmc", Mood::Unreachable);
    leader.report(3, Verdict::Down, 60_000, &stage.policy);
    let now = stage.log.until("both runs are over", |group| group.history.len() == 2).await;
    assert_eq!((crate::outcome(&now), now.serving.region), (RunOutcome::Succeeded, Some("hanoi".into())));
    assert!(now.unsettled.values().any(|left| left.is_due), "{:?}", now.unsettled);
    stage.world.mood("host:db-hcmc", Mood::Good);
    stage.log.until("it is settled when it answers", |group| group.unsettled.is_empty()).await;
    assert_eq!(stage.world.effects("fence").len(), 1, "fenced for good");
    assert!(stage.world.effects("restart").is_empty(), "what was dropped came to nothing");
    stage.end();
}

/// It is ordered while the old primary's host is away, which is fenced for good as it comes back, under the rejoin's token.
#[tokio::test]
async fn a_rejoin_may_clear_the_latch_that_was_set_under_its_own_token() {
    let stage = crate::leased(true);
    stage.world.mood("host:db-hcmc", Mood::Unreachable);
    let leader = stage.lead(3, Verdict::Down);
    let now = stage.until_closed().await;
    assert!(now.unsettled.values().any(|left| left.is_due), "{:?}", now.unsettled);
    rejoin(&stage, "hcmc");
    let is_claimed = |run: &Run| !run.claims.is_empty();
    stage.log.until("the rejoin is claimed", |group| group.open_run.as_ref().is_some_and(is_claimed)).await;
    stage.world.mood("host:db-hcmc", Mood::Good);
    let now =
        stage.log.until("it is over, or stuck", |group| group.history.len() == 2 || is_stuck_at(group, "rejoin")).await;
    assert_eq!((crate::outcome(&now), now.serving.region), (RunOutcome::Succeeded, Some("hanoi".into())));
    assert_eq!((stage.world.effects("fence").len(), stage.world.effects("rejoin").len()), (1, 1));
    drop(leader);
    stage.end();
}
