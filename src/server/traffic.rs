//! Moving a group's traffic by an operator's word (C1): the load balancer's records, and nothing else.

use tokio::time::Instant;

use super::backend::{Backend, DRY_RUN_DEADLINE};
use super::dry_run::{gate, opened_before, refused, same_wish, settled_gates, standing_gates, token_as_seen};
use super::journal::CONFIRM_TIMEOUT;
use crate::api::backend::{AdminBackend, DryRun, Gate, OpenFailover, ProposeError};
use crate::api::traffic::{MoveTraffic, TrafficBackend};
use crate::domain::command::RejectionCode;
use crate::domain::ids::{RegionName, RunId};
use crate::domain::plan::Plan;
use crate::domain::policy::{GroupPolicy, Need, Trigger};
use crate::domain::quorum;
use crate::domain::run::RunKind;
use crate::domain::state::GroupState;

impl Backend {
    /// The group, its rules and the plan that the wish asks for, or why there is none.
    fn resolve_traffic(&self, ask: &MoveTraffic) -> Result<(GroupState, GroupPolicy, Plan), ProposeError> {
        let (group, rules) = self.known_group(&ask.group)?;
        let from = &group.traffic;
        let plan = rules.traffic_plans.iter().find(|plan| &plan.from == from && plan.to == ask.to).cloned();
        let plan = plan.ok_or_else(|| no_plan(&rules, from, ask))?;
        token_as_seen(&ask.group, &group, ask.expected_token)?;
        Ok((group, rules, plan))
    }

    /// Whether traffic would find anybody at the other side.
    fn load_balancer_gate(&self, ask: &MoveTraffic, group: &GroupState, rules: &GroupPolicy) -> Gate {
        let (is_open, detail) = match rules.load_balancers.get(&ask.to) {
            None => (true, format!("no load_balancer target is named for {}: nobody looks", ask.to)),
            Some(target) => {
                let trigger = Trigger { targets: vec![target.clone()], need: Need::All };
                let (policy, view) = (&self.parts.policy, self.view());
                let count = quorum::count(policy, &ask.group, rules, &trigger, &ask.to, &group.seen_up, &view);
                let seen = format!("{} of {} voters see {target} down", count.down, count.ballots.len());
                match count.is_down() {
                    true => (false, format!("{seen}: whoever is sent to {} finds nobody; mend it first", ask.to)),
                    false => (true, seen),
                }
            }
        };
        gate("load balancer", is_open, detail)
    }
}

fn no_plan(rules: &GroupPolicy, from: &RegionName, ask: &MoveTraffic) -> ProposeError {
    if rules.traffic_plans.is_empty() {
        let message =
            format!("group {} has no [[group.traffic_record]], so that its traffic cannot be moved alone", ask.group);
        return refused(RejectionCode::OtherConfig, message);
    }
    let known: Vec<_> = rules.traffic_plans.iter().filter(|plan| &plan.from == from).map(|p| p.to.as_str()).collect();
    let known = known.join(", ");
    let message = match from == &ask.to {
        true => format!("to: the traffic of {} goes to {from} already; it can go to: {known}", ask.group),
        false => format!("to: traffic cannot go from {from} to {}; it can go to: {known}", ask.to),
    };
    refused(RejectionCode::Invalid, message)
}

/// What a dry run reads under, and what is opened; a failover's wish has all that is needed for it.
fn look(ask: &MoveTraffic) -> OpenFailover {
    OpenFailover::plain(&ask.group, &ask.to, (&ask.by, &ask.reason), ask.expected_token, &ask.request_id)
}

#[async_trait::async_trait]
impl TrafficBackend for Backend {
    async fn dry_run_traffic(&self, ask: &MoveTraffic) -> Result<DryRun, ProposeError> {
        if let Err(error) = self.parts.consensus.confirm_leadership(CONFIRM_TIMEOUT).await {
            return Err(ProposeError::NoQuorum(error.to_string()));
        }
        let (group, rules, plan) = self.resolve_traffic(ask)?;
        let deadline = Instant::now() + DRY_RUN_DEADLINE;
        let present = self.look_at_steps(&look(ask), &group, &plan, deadline).await;
        let mut gates = standing_gates(&group);
        gates.push(self.load_balancer_gate(ask, &group, &rules));
        gates.extend(settled_gates(&group));
        Ok(DryRun { plan, present, gates })
    }

    async fn open_traffic(&self, ask: MoveTraffic) -> Result<RunId, ProposeError> {
        let run = RunId(ask.request_id.0.clone());
        let state = self.state().borrow().clone();
        if let Some(known) = state.group(&ask.group).and_then(|group| opened_before(group, &run)) {
            return same_wish(known, RunKind::Traffic, &ask.to).map(|()| run);
        }
        let (group, rules, plan) = self.resolve_traffic(&ask)?;
        let there = self.load_balancer_gate(&ask, &group, &rules);
        if !there.is_open {
            return Err(refused(RejectionCode::Illegal, format!("{}: {}", there.name, there.detail)));
        }
        self.open_by_hand(&look(&ask), (RunKind::Traffic, plan), &group, vec![there.detail], Some(0)).await
    }
}
