//! Planned moves and rejoins by an operator's word: which plan is meant, whether its gates are open, and its opening. No
//! other than an operator opens any of these.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::actuators::guards_of_plan;
use super::backend::{Backend, DRY_RUN_DEADLINE};
use super::dry_run::{gate, opened_before, refused, same_wish, settled_gates, standing_gates, token_as_seen};
use super::journal::CONFIRM_TIMEOUT;
use super::readiness;
use crate::api::backend::{AdminBackend, DryRun, Gate, OpenFailover, ProposeError};
use crate::api::moving::{MoveKind, MovingBackend, PlanMove};
use crate::domain::command::RejectionCode;
use crate::domain::ids::{GroupName, HostName, RegionName, RunId};
use crate::domain::moving::{self, Facts};
use crate::domain::plan::{Plan, Stage};
use crate::domain::policy::GroupPolicy;
use crate::domain::readiness::GuardSeen;
use crate::domain::run::RunKind;
use crate::domain::state::GroupState;

/// What does not answer within this keeps a move from being opened.
pub(super) const OPEN_DEADLINE: Duration = Duration::from_secs(6);

fn run_kind(kind: MoveKind) -> RunKind {
    match kind {
        MoveKind::Switchover => RunKind::Switchover,
        MoveKind::Failback => RunKind::Failback,
        MoveKind::Rejoin => RunKind::Recovery,
    }
}

/// What a dry run reads under, and what is opened; a failover's wish has all that is needed for it.
fn look(ask: &PlanMove, plan: &Plan) -> OpenFailover {
    OpenFailover::plain(&ask.group, &plan.to, (&ask.by, &ask.reason), ask.expected_token, &ask.request_id)
}

/// The region that is meant: the one named, or the only one it can be.
fn region_meant(ask: &PlanMove, group: &GroupState, rules: &GroupPolicy) -> Result<RegionName, ProposeError> {
    let here = &group.serving.last;
    let invalid = |message: String| Err(refused(RejectionCode::Invalid, message));
    let others: Vec<_> = rules.regions.iter().filter(|region| *region != here).collect();
    let named = || others.iter().map(|region| region.as_str()).collect::<Vec<_>>().join(", ");
    let region = match (ask.kind, &ask.region) {
        (MoveKind::Failback, _) => rules.home.clone(),
        (_, Some(region)) => region.clone(),
        (_, None) => match others.as_slice() {
            [only] => (*only).clone(),
            _ => return invalid(format!("region: which one? {}", named())),
        },
    };
    if &region == here && ask.kind == MoveKind::Failback {
        let message = format!("group {} serves from its home {region} already", ask.group);
        return Err(refused(RejectionCode::Illegal, message));
    }
    if &region == here {
        return invalid(format!("region: group {} serves from {region}; the others are: {}", ask.group, named()));
    }
    if !others.contains(&&region) {
        return invalid(format!("region: {region} is none of group {}'s; the others are: {}", ask.group, named()));
    }
    Ok(region)
}

impl Backend {
    /// The group, its rules and the plan that is meant.
    fn resolve_move(&self, ask: &PlanMove) -> Result<(GroupState, GroupPolicy, Plan), ProposeError> {
        let (group, rules) = self.known_group(&ask.group)?;
        token_as_seen(&ask.group, &group, ask.expected_token)?;
        let region = region_meant(ask, &group, &rules)?;
        let here = &group.serving.last;
        let plan = match ask.kind {
            MoveKind::Rejoin => rules.rejoin_plan(&region, here),
            MoveKind::Switchover | MoveKind::Failback => rules.switchover_plan(here, &region),
        };
        let mut plan = plan.cloned();
        if ask.kind == MoveKind::Rejoin && !self.redis_serves(&ask.group, &rules, here) {
            // Its fence would stop the only server that there is.
            let is_redis = |stage: &Stage| stage.steps.iter().any(|step| step.action.is_redis());
            plan.iter_mut().for_each(|plan| plan.stages.retain(|stage| !is_redis(stage)));
        }
        let Some(plan) = plan.filter(|plan| !plan.stages.is_empty()) else {
            let message = format!(
                "this leader's configuration has no plan for a {} of {here} and {region}: both regions of the group need a \
                 database_host with a guard",
                ask.kind
            );
            return Err(refused(RejectionCode::OtherConfig, message));
        };
        Ok((group, rules, plan))
    }

    /// A node sees that the region's Redis server is a primary.
    fn redis_serves(&self, group: &GroupName, rules: &GroupPolicy, region: &RegionName) -> bool {
        let seen = |target| readiness::redis(group, target, rules.observation_ttl_ms, &self.view());
        rules.redis.get(region).and_then(seen).is_some_and(|measure| measure.is_primary)
    }

    /// Every gate, judged by what is seen and read now.
    pub(super) async fn gates_of_move(
        &self,
        ask: &PlanMove,
        (group, rules, plan): (&GroupState, &GroupPolicy, &Plan),
        deadline: Instant,
    ) -> Vec<Gate> {
        let wish = look(ask, plan);
        let hosts: BTreeMap<&HostName, _> = guards_of_plan(plan).map(|guard| (&guard.host, guard)).collect();
        let describing = hosts.iter().map(|(host, guard)| async move {
            let described = self.parts.actuators.describe(&self.parts.policy, guard, deadline).await;
            ((*host).clone(), described.seen(&ask.group, group.token))
        });
        let is_rejoin = ask.kind == MoveKind::Rejoin;
        let judging = async {
            let judging = self.judge_readiness(&ask.group, Some(&plan.to));
            if is_rejoin { None } else { tokio::time::timeout_at(deadline, judging).await.ok()?.ok() }
        };
        let asking = self.target_prospect(&wish, group, plan, deadline);
        let (guards, prospect, readiness) = tokio::join!(join_all(describing), asking, judging);
        let guards: BTreeMap<HostName, GuardSeen> = guards.into_iter().collect();
        let view = self.view();
        let facts = Facts {
            name: &ask.group,
            policy: &self.parts.policy,
            rules,
            group,
            view: &view,
            plan,
            guards: &guards,
            prospect,
            readiness: readiness.as_ref(),
        };
        let judged = if is_rejoin { moving::of_rejoin(&facts) } else { moving::of_move(&facts, run_kind(ask.kind)) };
        let mut gates = standing_gates(group);
        gates.extend(judged.into_iter().map(|found| gate(found.name, found.is_open, found.detail)));
        let moves_redis = |plan: &Plan| plan.steps().any(|(_, step)| step.action.is_redis());
        if is_rejoin && rules.rejoin_plan(&plan.to, &group.serving.last).is_some_and(moves_redis) && !moves_redis(plan)
        {
            let here = &group.serving.last;
            let detail = format!("left as it is: no node sees a Redis primary in {here} that it could follow");
            gates.push(gate("redis", true, detail));
        }
        gates.extend(settled_gates(group));
        gates
    }
}

#[async_trait::async_trait]
impl MovingBackend for Backend {
    async fn dry_run_move(&self, ask: &PlanMove) -> Result<DryRun, ProposeError> {
        if let Err(error) = self.parts.consensus.confirm_leadership(CONFIRM_TIMEOUT).await {
            return Err(ProposeError::NoQuorum(error.to_string()));
        }
        let (group, rules, plan) = self.resolve_move(ask)?;
        let deadline = Instant::now() + DRY_RUN_DEADLINE;
        let wish = look(ask, &plan);
        let reading = self.look_at_steps(&wish, &group, &plan, deadline);
        let (present, gates) = tokio::join!(reading, self.gates_of_move(ask, (&group, &rules, &plan), deadline));
        Ok(DryRun { plan, present, gates })
    }

    async fn open_move(&self, ask: PlanMove) -> Result<RunId, ProposeError> {
        let run = RunId(ask.request_id.0.clone());
        let kind = run_kind(ask.kind);
        let state = self.state().borrow().clone();
        if let Some(known) = state.group(&ask.group).and_then(|group| opened_before(group, &run)) {
            let to = ask.region.clone().unwrap_or_else(|| known.to().clone());
            return same_wish(known, kind, &to).map(|()| run);
        }
        let (group, rules, plan) = self.resolve_move(&ask)?;
        let gates = self.gates_of_move(&ask, (&group, &rules, &plan), Instant::now() + OPEN_DEADLINE).await;
        let shut: Vec<_> = gates.iter().filter(|gate| !gate.is_open).collect();
        if !shut.is_empty() {
            let code = match shut.first().map(|gate| gate.name.as_str()) {
                Some("pause") => RejectionCode::Paused,
                Some("no open run") => RejectionCode::RunOpen,
                Some("standby" | "streaming") => RejectionCode::NoStandby,
                Some("lag") => RejectionCode::LossTooGreat,
                _ => RejectionCode::Illegal,
            };
            let why: Vec<_> = shut.iter().map(|gate| format!("{}: {}", gate.name, gate.detail)).collect();
            return Err(refused(code, why.join("; ")));
        }
        let evidence = gates.iter().map(|gate| format!("{}: {}", gate.name, gate.detail)).collect();
        let wish = look(&ask, &plan);
        self.open_by_hand(&wish, (kind, plan), &group, evidence, Some(0)).await
    }
}
