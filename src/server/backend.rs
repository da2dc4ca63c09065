//! What the admin service is told of this node, and what it may make it do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::actuators::ActuatorSet;
use super::audit::AuditTrouble;
use super::dry_run::{opened_before, refused, same_wish, settled_gates, standing_gates, token_as_seen};
use super::heartbeat::Beats;
use super::journal::{CONFIRM_TIMEOUT, PROPOSE_TIMEOUT};
use super::leases::AskedBook;
use super::readiness::Notices;
use crate::actuator::Actuator;
use crate::api::backend::{
    AdminBackend, DryRun, Gate, GroupSight, Leader, NodeStanding, OpenFailover, ProposeError, ReplicationSight, Sight,
    VoteSight,
};
use crate::api::origin::{self, origin};
use crate::clock::unix_now;
use crate::config::NodeConfig;
use crate::consensus::{self, Consensus};
use crate::coordinator::{Leases, Sightings};
use crate::domain::attempt::{Prospect, ReadBack, Warrant};
use crate::domain::command::{Applied, Change, Command, Rejection, RejectionCode};
use crate::domain::decide::{Decisions, loss_obstacle};
use crate::domain::ids::{GroupName, NodeId, RegionName, RunId, StepId, TargetName, Token};
use crate::domain::loss::{self, Loss};
use crate::domain::observation::{Measure, Verdict};
use crate::domain::plan::{Action, Plan};
use crate::domain::policy::{ClusterPolicy, Fencing, GroupPolicy};
use crate::domain::readiness::Readiness;
use crate::domain::run::RunKind;
use crate::domain::state::{ClusterState, GroupState};
use crate::domain::view::View;
use crate::probe::{Observer, SightKind};
use crate::tls::Material;

/// How often standing is looked at besides its changes, while there is a quorum.
const STANDING_EVERY: Duration = Duration::from_millis(500);
/// The same while there is none: whoever waits for this node to be ready waits no longer than it must.
const STANDING_SOON: Duration = Duration::from_millis(20);
/// A dry run reads every resource within this.
pub(super) const DRY_RUN_DEADLINE: Duration = Duration::from_secs(8);

/// What the backend is made of.
pub struct Parts {
    pub consensus: Consensus,
    pub policy: Arc<ClusterPolicy>,
    pub own: NodeConfig,
    pub sightings: Arc<Sightings>,
    pub look: watch::Receiver<Arc<Decisions>>,
    pub actuators: Arc<ActuatorSet>,
    pub observer: Arc<Observer>,
    pub leases: Arc<Leases>,
    pub book: Arc<AskedBook>,
    pub notices: Notices,
    pub tls: Option<Arc<Material>>,
    pub audit_trouble: Arc<AuditTrouble>,
    pub warnings: Vec<String>,
    /// Targets of kind `backup`: their region, and when one is late, milliseconds.
    pub backups: BTreeMap<(GroupName, TargetName), (RegionName, u64)>,
    /// The outside receiver's, where one is configured.
    pub beats: Option<Arc<Beats>>,
}

/// This node.
pub struct Backend {
    pub(super) parts: Parts,
    standing: watch::Sender<NodeStanding>,
    /// One change of the membership at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Backend {
    /// Its standing is unknown until [`keep_standing`] has looked once.
    pub fn new(parts: Parts) -> Self {
        let first = NodeStanding {
            node: parts.own.id,
            name: parts.own.name.clone(),
            leader: None,
            has_quorum: false,
            term: 0,
            note: "just started".to_owned(),
        };
        Self { parts, standing: watch::Sender::new(first), turn: tokio::sync::Mutex::default() }
    }

    fn look_at_standing(&self) -> NodeStanding {
        let consensus = &self.parts.consensus;
        let leadership = consensus.leadership().borrow().clone();
        let has_quorum = consensus.has_quorum();
        let leader = leadership.leader.filter(|_| has_quorum || leadership.is_self).map(|node| Leader {
            node,
            name: self.called(node),
            address: consensus.address(node).unwrap_or_default(),
        });
        let note = match (&leader, has_quorum) {
            (Some(_), true) => String::new(),
            (None, true) => "an election is under way".to_owned(),
            _ => format!(
                "{} of {} voters answer it; {} are needed",
                1 + self.reachable().values().filter(|answers| **answers).count(),
                leadership.voters.len().max(1),
                leadership.voters.len() / 2 + 1,
            ),
        };
        NodeStanding {
            node: self.parts.own.id,
            name: self.parts.own.name.clone(),
            leader,
            has_quorum,
            term: leadership.term,
            note,
        }
    }

    /// Which peers answer, as far as this node's pings tell.
    pub(super) fn reachable(&self) -> BTreeMap<NodeId, bool> {
        let sights = self.parts.observer.sights();
        let answers = |sight: &crate::probe::Sight| match sight.kind {
            SightKind::Peer { node } => Some((node, sight.standing.verdict != Verdict::Down)),
            _ => None,
        };
        sights.iter().filter_map(answers).collect()
    }

    pub(super) fn view(&self) -> View {
        let voters = self.parts.consensus.leadership().borrow().voters.keys().copied().collect();
        self.parts.sightings.view(self.parts.own.id, voters, Instant::now(), unix_now())
    }

    pub(super) async fn apply(&self, change: Change, ask: &OpenFailover) -> Result<Applied, ProposeError> {
        let command = Command {
            node: self.parts.own.id,
            at: unix_now(),
            by: ask.by.clone(),
            from: origin(),
            request_id: Some(ask.request_id.clone()),
            change,
        };
        self.propose(command).await
    }

    /// The group, its rules and the plan that the wish asks for, or why there is none.
    pub(super) fn resolve(&self, ask: &OpenFailover) -> Result<(GroupState, GroupPolicy, Plan), ProposeError> {
        let (group, rules) = self.known_group(&ask.group)?;
        let from = &group.serving.last;
        let plan = rules.failover_plan(from, &ask.to).cloned().ok_or_else(|| {
            let known: Vec<_> =
                rules.failover_plans.iter().filter(|p| &p.from == from).map(|p| p.to.as_str()).collect();
            let message =
                format!("to: there is no plan from {from} to {}; there is one to: {}", ask.to, known.join(", "));
            refused(RejectionCode::Invalid, message)
        })?;
        token_as_seen(&ask.group, &group, ask.expected_token)?;
        Ok((group, rules, plan))
    }
}

/// Whether there is a standby to promote, for a dry run.
fn standby_gate(prospect: Prospect) -> Gate {
    let (is_open, detail) = match prospect {
        Prospect::Good { evidence } => (true, evidence),
        Prospect::Bad { reason } | Prospect::Unknown { reason } => (false, reason),
    };
    Gate { name: "standby".to_owned(), is_open, detail, before_promote: false }
}

/// P5, or an operator's word for it, for a dry run.
fn loss_gate(ask: &OpenFailover, loss: &Loss, limit_ms: u64) -> Gate {
    let found = format!("{loss}; the limit is {} s", limit_ms / 1000);
    let (is_open, detail) = match (loss.is_within(limit_ms), ask.accept_loss) {
        (_, true) => (true, format!("accepted by {}: {found}", ask.by)),
        (true, false) => (true, found),
        (false, false) => (false, format!("{found}; `--accept-loss` accepts it by name")),
    };
    Gate { name: "loss".to_owned(), is_open, detail, before_promote: false }
}

/// Keeps the standing up to date.
pub async fn keep_standing(backend: Arc<Backend>) {
    let mut leadership = backend.parts.consensus.leadership();
    loop {
        let standing = backend.look_at_standing();
        let again = if standing.has_quorum { STANDING_EVERY } else { STANDING_SOON };
        backend.standing.send_if_modified(|current| {
            let changed = *current != standing;
            *current = standing;
            changed
        });
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again) => {}
        }
    }
}

#[async_trait]
impl AdminBackend for Backend {
    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.parts.consensus.state()
    }

    fn standing(&self) -> watch::Receiver<NodeStanding> {
        self.standing.subscribe()
    }

    fn policy(&self) -> Arc<ClusterPolicy> {
        self.parts.policy.clone()
    }

    fn sight(&self) -> Sight {
        let view = self.view();
        let state = self.state().borrow().clone();
        let is_leader = self.standing.borrow().is_leader();
        let nodes = self.node_sights(&state, &view);
        let groups = is_leader.then(|| self.group_sights(&state, &view));
        let certificate = self.parts.tls.iter().flat_map(|tls| tls.warnings());
        let warnings = self.parts.warnings.iter().cloned().chain(self.membership_warnings()).chain(certificate);
        let warnings = warnings.chain(self.parts.audit_trouble.warning()).collect();
        Sight { nodes, groups, warnings }
    }

    async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let answer = self.parts.consensus.propose(command, PROPOSE_TIMEOUT).await;
        if matches!(answer, Ok(Applied::Rejected(_))) {
            origin::recorded();
        }
        answer.map_err(|error| match error {
            consensus::ProposeError::NotLeader(_) => ProposeError::NotLeader,
            consensus::ProposeError::Unknown { .. } => ProposeError::Unknown(error.to_string()),
            other => ProposeError::Unavailable(other.to_string()),
        })
    }

    async fn dry_run(&self, ask: &OpenFailover) -> Result<DryRun, ProposeError> {
        if let Err(error) = self.parts.consensus.confirm_leadership(CONFIRM_TIMEOUT).await {
            return Err(ProposeError::NoQuorum(error.to_string()));
        }
        let (group, rules, plan) = self.resolve(ask)?;
        let deadline = Instant::now() + DRY_RUN_DEADLINE;
        let reading = self.look_at_steps(ask, &group, &plan, deadline);
        let (present, prospect) = tokio::join!(reading, self.target_prospect(ask, &group, &plan, deadline));
        let mut gates = self.gates(ask, &group, &rules, &plan, &present);
        gates.extend(prospect.map(standby_gate));
        Ok(DryRun { plan, present, gates })
    }

    async fn readiness(&self, group: &GroupName, to: Option<&RegionName>) -> Result<Readiness, ProposeError> {
        if let Err(error) = self.parts.consensus.confirm_leadership(CONFIRM_TIMEOUT).await {
            return Err(ProposeError::NoQuorum(error.to_string()));
        }
        self.judge_readiness(group, to).await
    }

    async fn open_failover(&self, ask: OpenFailover) -> Result<RunId, ProposeError> {
        let run = RunId(ask.request_id.0.clone());
        let state = self.state().borrow().clone();
        if let Some(known) = state.group(&ask.group).and_then(|group| opened_before(group, &run)) {
            return same_wish(known, RunKind::Failover, &ask.to).map(|()| run);
        }
        let (group, rules, plan) = self.resolve(&ask)?;
        let view = self.view();
        let loss = loss::expected(&ask.group, &rules, &ask.to, &view);
        let needs_promotion = plan.steps().any(|(_, step)| matches!(step.action, Action::Promote { .. }));
        if needs_promotion
            && !ask.accept_loss
            && let Some(obstacle) = loss_obstacle(&rules, Some(&loss), &ask.to)
        {
            return Err(ProposeError::Rejected(Rejection { code: RejectionCode::LossTooGreat, message: obstacle }));
        }
        let deadline = Instant::now() + DRY_RUN_DEADLINE;
        if let Some(Prospect::Bad { reason } | Prospect::Unknown { reason }) =
            self.target_prospect(&ask, &group, &plan, deadline).await
        {
            let message = format!("no standby to promote in {}: {reason}", plan.to);
            return Err(ProposeError::Rejected(Rejection { code: RejectionCode::NoStandby, message }));
        }
        if let Some(region) = &ask.assert_fence
            && region != &plan.from
        {
            let message = format!("assert_fence: the old primary is in {}, not in {region}", plan.from);
            return Err(ProposeError::Rejected(Rejection { code: RejectionCode::Invalid, message }));
        }
        let evidence = vec![format!("expected loss {loss}")];
        self.open_by_hand(&ask, (RunKind::Failover, plan), &group, evidence, loss.ms()).await
    }
}

impl Backend {
    fn gates(
        &self,
        ask: &OpenFailover,
        group: &GroupState,
        rules: &GroupPolicy,
        plan: &Plan,
        present: &BTreeMap<StepId, ReadBack>,
    ) -> Vec<Gate> {
        let mut gates = standing_gates(group);
        gates.push(self.fence_gate(ask, rules, plan, present));
        let loss = loss::expected(&ask.group, rules, &ask.to, &self.view());
        gates.push(loss_gate(ask, &loss, rules.rpo_limit_ms));
        gates.extend(settled_gates(group));
        gates
    }

    /// Whether the plan's promotion could succeed now; `None` where it promotes nothing.
    pub(super) async fn target_prospect(
        &self,
        ask: &OpenFailover,
        group: &GroupState,
        plan: &Plan,
        deadline: Instant,
    ) -> Option<Prospect> {
        let (_, step) = plan.steps().find(|(_, step)| matches!(step.action, Action::Promote { .. }))?;
        let mut warrant = self.look_warrant(ask, group, &step.id);
        // A guard is asked under the cluster's epoch, which the last token need not be of.
        warrant.token = Token { epoch: self.parts.policy.epoch, n: 0 };
        Some(self.parts.actuators.can_succeed(&warrant, &step.action, deadline).await)
    }

    pub(super) fn look_warrant(&self, ask: &OpenFailover, group: &GroupState, step: &StepId) -> Warrant {
        Warrant {
            cluster: self.parts.policy.cluster.clone(),
            group: ask.group.clone(),
            run: RunId(ask.request_id.0.clone()),
            step: step.clone(),
            attempt: 0,
            // The last token issued: nobody is refused for having seen it.
            token: group.token,
            fenced_host: None,
        }
    }

    fn fence_gate(
        &self,
        ask: &OpenFailover,
        rules: &GroupPolicy,
        plan: &Plan,
        present: &BTreeMap<StepId, ReadBack>,
    ) -> Gate {
        let (is_open, detail) = if let Fencing::None { asserted_by } = &rules.fencing {
            (true, format!("mode none, asserted by {asserted_by}"))
        } else if ask.assert_fence.is_some() {
            (true, format!("asserted by {}", ask.by))
        } else {
            let fence = plan.steps().find(|(_, step)| matches!(step.action, Action::Fence { .. }));
            match fence.and_then(|(_, step)| present.get(&step.id)) {
                Some(ReadBack::Done { evidence }) => (true, format!("proved already: {evidence}")),
                Some(ReadBack::NotDone { evidence } | ReadBack::Untouched { evidence }) => {
                    (true, format!("the old primary's guard answers, and would be asked to stop it: {evidence}"))
                }
                Some(ReadBack::InFlight { evidence }) => (true, format!("a fence is in flight: {evidence}")),
                Some(ReadBack::Unknown { reason }) => (false, format!("{reason}; else `--assert-fence {}`", plan.from)),
                Some(ReadBack::Refused { held }) => {
                    (false, format!("the old primary's guard holds the higher token {held}: find out who raised it"))
                }
                None => (false, format!("the plan has no fence; `--assert-fence {}`", plan.from)),
            }
        };
        Gate { name: "fence".to_owned(), is_open, detail, before_promote: true }
    }

    fn group_sights(&self, state: &ClusterState, view: &View) -> BTreeMap<GroupName, GroupSight> {
        let look = self.parts.look.borrow().clone();
        let of = |(name, rules): (&GroupName, &GroupPolicy)| {
            let explanation = look.explain.get(name).map(|e| e.lines.clone()).unwrap_or_default();
            let seen_up = state.group(name).map(|group| group.seen_up.clone()).unwrap_or_default();
            let mut votes = Vec::new();
            for (region, trigger) in &rules.triggers {
                for target in &trigger.targets {
                    for (node, sight) in &view.sights {
                        let Some((seen, held_ms)) = sight.of(name, target) else { continue };
                        let not_counted = if sight.age_ms > rules.observation_ttl_ms {
                            Some("expired")
                        } else if sight.report.isolated {
                            Some("isolated")
                        } else if !seen_up.contains(target) {
                            Some("never seen up")
                        } else if !view.voters.contains(node) {
                            Some("not a voter")
                        } else {
                            None
                        };
                        votes.push(VoteSight {
                            target: target.clone(),
                            region: region.clone(),
                            node: *node,
                            verdict: seen.verdict,
                            held_ms,
                            age_ms: sight.age_ms,
                            not_counted: not_counted.map(str::to_owned),
                            failure: seen.failure.clone(),
                        });
                    }
                }
            }
            // Into the region that serves nothing is replicated: its target measures the other way's past.
            let here = state.group(name).map(|group| group.serving.last.clone());
            let into = rules.replication.iter().filter(|(region, _)| here.as_ref() != Some(*region));
            let replication = into.map(|(region, target)| {
                let measured = view.fresh(rules.observation_ttl_ms).filter_map(|(_, sight)| {
                    match sight.of(name, target)?.0.measure.clone()? {
                        Measure::Replication(measure) => Some(measure),
                        _ => None,
                    }
                });
                let best = measured.min_by_key(|measure| measure.covered_age_ms.unwrap_or(u64::MAX));
                ReplicationSight {
                    region: region.clone(),
                    target: target.clone(),
                    is_streaming: best.as_ref().is_some_and(|measure| measure.streaming),
                    expected_loss_ms: loss::expected(name, rules, region, view).ms(),
                    behind_bytes: best.as_ref().and_then(|m| Some(m.primary_lsn?.saturating_sub(loss::reached(m)?))),
                }
            });
            let replication = replication.collect();
            let lease = state.group(name).and_then(|group| self.lease_sight(name, group));
            (name.clone(), GroupSight { explanation, votes, replication, lease })
        };
        self.parts.policy.groups.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::RequestId;

    #[test]
    fn an_accepted_loss_is_said_to_be_accepted() {
        let unknown = Loss::Unknown { why: "nobody reports".to_owned() };
        let small = Loss::AtMost { ms: 400, bytes: None };
        let table = [
            (&small, false, true, "at most the last 0.4 s of writes; the limit is 60 s"),
            (&small, true, true, "accepted by operator:linh: at most the last 0.4 s of writes; the limit is 60 s"),
            (&unknown, false, false, "unknown: nobody reports; the limit is 60 s; `--accept-loss` accepts it by name"),
            (&unknown, true, true, "accepted by operator:linh: unknown: nobody reports; the limit is 60 s"),
        ];
        for (loss, accept_loss, is_open, detail) in table {
            let ask = OpenFailover {
                group: "shop".into(),
                to: "hanoi".into(),
                by: "operator:linh".into(),
                reason: "a test".to_owned(),
                accept_loss,
                assert_fence: None,
                expected_token: None,
                request_id: RequestId("r".to_owned()),
            };
            let gate = loss_gate(&ask, loss, 60_000);
            assert_eq!((gate.is_open, gate.detail.as_str()), (is_open, detail));
        }
    }
}
