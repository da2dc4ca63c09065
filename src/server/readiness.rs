//! "If this region vanished now", answered by the leader: every resource read, nothing changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::Instant;

use super::actuators::guards_of_plan;
use super::backend::{Backend, DRY_RUN_DEADLINE};
use crate::actuator::described::Described;
use crate::api::backend::{AdminBackend, LeaseSight, OpenFailover, ProposeError};
use crate::clock::unix_now;
use crate::config::Config;
use crate::coordinator::Judge;
use crate::domain::attempt::{Prospect, ReadBack};
use crate::domain::command::{Rejection, RejectionCode};
use crate::domain::decide::standing_obstacle;
use crate::domain::ids::{GroupName, HostName, NodeId, Principal, RegionName, RequestId, StepId, TargetName};
use crate::domain::lease::why_unbound;
use crate::domain::loss;
use crate::domain::observation::{Measure, RedisMeasure, Verdict};
use crate::domain::plan::{Action, GuardEndpoint, Plan};
use crate::domain::policy::{Fencing, Need};
use crate::domain::readiness::mark::Judgement;
use crate::domain::readiness::{Facts, GuardSeen, Holds, Readiness, ZoneSeen, judge};
use crate::domain::state::GroupState;
use crate::domain::view::View;

/// For each group and region: how long its falling silent goes unnoticed, milliseconds: until the first failed probe, and
/// until enough of the trigger's targets are `down`.
pub type Notices = BTreeMap<(GroupName, RegionName), (u64, u64)>;

/// As the file's probing keys have it.
pub fn notices(config: &Config) -> Notices {
    let mut notices = Notices::new();
    for group in config.groups.values() {
        for (region, trigger) in &group.policy.triggers {
            let of = trigger.targets.iter().filter_map(|name| group.targets.get(name)).map(|target| {
                let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                let (interval, timeout) = (ms(target.schedule.interval), ms(target.schedule.timeout));
                (interval + timeout, interval + timeout.saturating_mul(target.schedule.fall.into()))
            });
            let found = if trigger.need == Need::Any { of.min_by_key(|it| it.1) } else { of.max_by_key(|it| it.1) };
            notices.extend(found.map(|found| ((group.name.clone(), region.clone()), found)));
        }
    }
    notices
}

impl Backend {
    /// Mode `lease` only.
    pub(super) fn lease_sight(&self, name: &GroupName, group: &GroupState) -> Option<LeaseSight> {
        if !matches!(group.fencing, Fencing::Lease { .. }) {
            return None;
        }
        let here = &group.serving.last;
        let asked = self.parts.book.newest(name);
        let granted = self.parts.leases.last_granted(name, here);
        let mut plans = self.parts.policy.groups.get(name).into_iter().flat_map(|rules| &rules.failover_plans);
        let host = plans.find(|plan| &plan.from == here).and_then(crate::domain::readiness::fence_host);
        Some(LeaseSight {
            unbound: why_unbound(group, host.map(|(_, host)| host), asked.as_ref()),
            asked,
            granter: self.parts.own.id,
            granted_ms: granted.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        })
    }

    /// Reads everything and judges.
    pub(super) async fn judge_readiness(
        &self,
        name: &GroupName,
        to: Option<&RegionName>,
    ) -> Result<Readiness, ProposeError> {
        let ask = self.ask_for(name, to)?;
        let (group, rules, plan) = self.resolve(&ask)?;
        let deadline = Instant::now() + DRY_RUN_DEADLINE;
        let looked = self.look_around(&ask, &group, &plan, deadline).await;
        let view = self.view();
        let state = self.state().borrow().clone();
        let strangers =
            view.sights.iter().filter(|(_, s)| state.digest.as_ref().is_some_and(|d| d != &s.report.digest));
        let other_config: BTreeSet<NodeId> = strangers.map(|(id, _)| *id).collect();
        let mut answering: BTreeSet<NodeId> =
            self.reachable().into_iter().filter(|(_, answers)| *answers).map(|(id, _)| id).collect();
        answering.insert(self.parts.own.id);
        let facts = Facts {
            name,
            policy: &self.parts.policy,
            group: &group,
            plan: &plan,
            leader: self.parts.own.id,
            voters: &view.voters,
            answering: &answering,
            other_config: &other_config,
            present: &looked.present,
            guards: &looked.guards,
            zones: &looked.zones,
            prospect: looked.prospect,
            is_streaming: streams(name, &rules.replication, &plan.to, rules.observation_ttl_ms, &view),
            redis: rules.redis.get(&plan.to).map(|target| redis(name, target, rules.observation_ttl_ms, &view)),
            loss: loss::expected(name, &rules, &plan.to, &view),
            unbound: &self.lease_sight(name, &group).map(|sight| sight.unbound).unwrap_or_default(),
            notice: self.parts.notices.get(&(name.clone(), plan.from.clone())).copied(),
            obstacle: standing_obstacle(&self.parts.policy, (name, &rules), &group, &plan.to, &view, unix_now()),
            now: unix_now(),
        };
        Ok(judge(&facts, &rules))
    }

    /// Reads what the plan would act upon, each guard and each zone once.
    async fn look_around(&self, ask: &OpenFailover, group: &GroupState, plan: &Plan, deadline: Instant) -> Looked {
        let (actuators, policy) = (&self.parts.actuators, &self.parts.policy);
        let hosts: BTreeMap<&HostName, &GuardEndpoint> =
            guards_of_plan(plan).map(|guard| (&guard.host, guard)).collect();
        let describing = hosts
            .iter()
            .map(|(host, guard)| async move { ((*host).clone(), actuators.describe(policy, guard, deadline).await) });
        let steps = || plan.steps().map(|(_, step)| step);
        let zones = steps().filter(|step| matches!(step.action, Action::UpsertDns { .. })).map(|step| {
            let warrant = self.look_warrant(ask, group, &step.id);
            async move { (step.id.clone(), actuators.look_at_zone(&warrant, &step.action, deadline).await) }
        });
        let (described, zones) = tokio::join!(join_all(describing), join_all(zones));
        let described: BTreeMap<HostName, Described> = described.into_iter().collect();
        let mut looked = Looked { zones: zones.into_iter().collect(), ..Looked::default() };
        for step in steps() {
            let (Action::Fence { guard } | Action::Promote { guard } | Action::Guarded { guard, .. }) = &step.action
            else {
                continue;
            };
            let Some(found) = described.get(&guard.host) else { continue };
            looked.present.insert(step.id.clone(), found.present(&step.action));
            if matches!(step.action, Action::Promote { .. }) {
                looked.prospect = Some(found.prospect(&ask.group, guard));
            }
            looked.guards.insert(guard.host.clone(), found.seen(&ask.group, group.token));
        }
        looked
    }

    /// As an operator's wish without any word of theirs.
    fn ask_for(&self, name: &GroupName, to: Option<&RegionName>) -> Result<OpenFailover, ProposeError> {
        let refuse = |code, message| ProposeError::Rejected(Rejection { code, message });
        let state = self.state().borrow().clone();
        let group =
            state.group(name).ok_or_else(|| refuse(RejectionCode::NotFound, format!("there is no group {name}")))?;
        let here = &group.serving.last;
        let plans = self.parts.policy.groups.get(name).map(|rules| rules.failover_plans.as_slice()).unwrap_or_default();
        let first = || plans.iter().find(|plan| &plan.from == here).map(|plan| plan.to.clone());
        let to = to.cloned().or_else(first).ok_or_else(|| {
            refuse(RejectionCode::NotFound, format!("group {name} has no plan that leads away from {here}"))
        })?;
        let by = Principal(format!("node:{}", self.parts.own.name));
        Ok(OpenFailover::plain(name, &to, (&by, "readiness"), None, &RequestId("readiness".to_owned())))
    }
}

/// What was read.
#[derive(Default)]
struct Looked {
    present: BTreeMap<StepId, ReadBack>,
    guards: BTreeMap<HostName, GuardSeen>,
    zones: BTreeMap<StepId, ZoneSeen>,
    prospect: Option<Prospect>,
}

#[async_trait]
impl Judge for Backend {
    async fn judge(&self, group: &GroupName) -> Option<Judgement> {
        let serving = self.state().borrow().group(group)?.serving.clone();
        Some(match self.judge_readiness(group, None).await {
            Ok(readiness) => Judgement::of(&readiness, serving.epoch),
            // Nobody would act: a plan is missing.
            Err(ProposeError::Rejected(why)) => {
                Judgement::without(serving.epoch, serving.last, Holds::No, &why.message)
            }
            Err(error) => Judgement::without(serving.epoch, serving.last, Holds::Unknown, &error.to_string()),
        })
    }
}

/// The Redis server as the node sees it that knows most of it: in step, and by the newest word of its primary.
pub(super) fn redis(name: &GroupName, target: &TargetName, ttl_ms: u64, view: &View) -> Option<RedisMeasure> {
    let seen = view.fresh(ttl_ms).filter_map(|(_, sight)| {
        let (seen, _) = sight.of(name, target)?;
        match &seen.measure {
            Some(Measure::Redis(measure)) if seen.verdict == Verdict::Up => Some(measure.clone()),
            _ => None,
        }
    });
    seen.max_by_key(|measure| (measure.linked, Reverse(measure.primary_offset_age_ms.unwrap_or(u64::MAX))))
}

/// Some fresh report sees the standby's receiver stream.
fn streams(
    name: &GroupName,
    replication: &BTreeMap<RegionName, TargetName>,
    to: &RegionName,
    ttl_ms: u64,
    view: &View,
) -> bool {
    let Some(target) = replication.get(to) else { return false };
    view.fresh(ttl_ms).any(|(_, sight)| {
        let seen = sight.of(name, target).and_then(|(seen, _)| seen.measure.as_ref());
        matches!(seen, Some(Measure::Replication(measure)) if measure.streaming)
    })
}
