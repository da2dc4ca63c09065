//! Who is in the cluster, as the leader sees and changes it.
//!
//! A change is done in steps, each of which looks at everything again: the intent is committed, Raft's membership changes,
//! the outcome is committed. Whoever dies between two of them, the same call at the next leader finds what is done and does
//! the rest. One that sleeps an hour in the middle wakes as no leader: its change is refused by Raft, its record by the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::{Instant, timeout, timeout_at};

use super::backend::Backend;
use super::journal::CONFIRM_TIMEOUT;
use crate::api::backend::{AdminBackend, NodeSight, ProposeError};
use crate::api::nodes::{
    ChangeNodes, MembershipBackend, NodeRow, Nodes, NodesChanged, Progress, Transfer, Transferred, Wish,
};
use crate::api::origin::{origin, recorded};
use crate::clock::unix_now;
use crate::consensus::{Membership, MembershipError, Node, TransferError};
use crate::domain::command::{Applied, Change, Command, Rejection, RejectionCode};
use crate::domain::ids::{NodeId, NodeName, Principal, RequestId};
use crate::domain::leading;
use crate::domain::membership::{Ask, Heir, Judged, Next, Picture, Seen, judge, may_lead};
use crate::domain::state::{ClusterState, NodePhase, NodeSpec, NodeStep};
use crate::domain::view::View;
use crate::proto::NodeRole;

/// A node that does not answer within this is not there.
const PING: Duration = Duration::from_secs(1);
/// One change of the membership, committed twice over.
const CHANGE: Duration = Duration::from_secs(4);
/// Another call's step is waited for.
const TURN: Duration = Duration::from_secs(2);
/// Handing leadership over, and seeing the other lead.
const TRANSFER: Duration = Duration::from_secs(5);

/// Who asks, for the log.
struct Asker<'a> {
    by: &'a Principal,
    reason: &'a str,
    request_id: &'a RequestId,
}

fn spec_of(node: &Node) -> NodeSpec {
    NodeSpec { name: node.name.clone(), region: node.region.clone(), address: node.address.clone() }
}

fn rejected(code: RejectionCode, message: impl Into<String>) -> ProposeError {
    ProposeError::Rejected(Rejection { code, message: message.into() })
}

fn failed(error: MembershipError) -> ProposeError {
    match error {
        MembershipError::NotLeader(_) => ProposeError::NotLeader,
        MembershipError::Busy { .. } => rejected(RejectionCode::ChangeUnderWay, error.to_string()),
        MembershipError::Refused { .. } => rejected(RejectionCode::Illegal, error.to_string()),
        MembershipError::Unknown { .. } => ProposeError::Unknown(error.to_string()),
        MembershipError::Stopped { .. } => ProposeError::Unavailable(error.to_string()),
    }
}

impl Backend {
    /// Every node of the configuration and of the membership.
    pub(super) fn node_sights(&self, state: &ClusterState, view: &View) -> Vec<NodeSight> {
        let membership = self.parts.consensus.membership();
        let (reachable, behind) = (self.reachable(), self.parts.consensus.behind());
        let is_leader = self.standing().borrow().is_leader();
        let member = |id: &NodeId| membership.voters.get(id).or_else(|| membership.learners.get(id));
        let ids: BTreeSet<NodeId> = self
            .parts
            .policy
            .members
            .keys()
            .chain(membership.voters.keys())
            .chain(membership.learners.keys())
            .copied()
            .collect();
        let node = |id: NodeId| {
            let sight = view.sights.get(&id).filter(|_| is_leader || id == self.parts.own.id);
            NodeSight {
                node: id,
                member: member(&id).map(|node| (node.name.clone(), node.region.clone())),
                is_voter: view.voters.contains(&id),
                is_reachable: if id == self.parts.own.id { Some(true) } else { reachable.get(&id).copied() },
                last_report_age_ms: sight.map(|sight| sight.age_ms),
                is_isolated: sight.is_some_and(|sight| sight.report.isolated),
                other_config: sight.is_some_and(|s| state.digest.as_ref().is_some_and(|d| d != &s.report.digest)),
                behind_entries: behind.get(&id).copied(),
            }
        };
        ids.into_iter().map(node).collect()
    }

    /// What a node is called: by the membership in force, else by the configuration, else by its number.
    pub(super) fn called(&self, node: NodeId) -> NodeName {
        let membership = self.parts.consensus.membership();
        let member = membership.voters.get(&node).or_else(|| membership.learners.get(&node));
        let configured = || self.parts.policy.members.get(&node).map(|member| member.name.clone());
        member.map(|node| node.name.clone()).or_else(configured).unwrap_or_else(|| NodeName(format!("node-{node}")))
    }

    /// What is weak in the membership in force, where it is not what the configuration describes: that was judged when the
    /// node started.
    pub(super) fn membership_warnings(&self) -> Vec<String> {
        let voters: BTreeSet<NodeId> = self.parts.consensus.membership().voters.into_keys().collect();
        let configured: BTreeSet<NodeId> = self.parts.policy.members.keys().copied().collect();
        if voters.is_empty() || voters == configured {
            return Vec::new();
        }
        let names = |ids: Vec<&NodeId>| ids.into_iter().map(|id| self.called(*id).0).collect::<Vec<_>>().join(", ");
        let mut found = Vec::new();
        let only_configured: Vec<_> = configured.difference(&voters).collect();
        if !only_configured.is_empty() {
            found.push(format!("in the configuration, but no voter: {}", names(only_configured)));
        }
        let only_voting: Vec<_> = voters.difference(&configured).collect();
        if !only_voting.is_empty() {
            let who = names(only_voting);
            found.push(format!("a voter that this node's configuration does not know, standing nowhere: {who}"));
        }
        let layout = self.parts.policy.layout_of(voters);
        found.extend(
            layout.iter().filter(|loss| !loss.leaves_majority()).map(|loss| format!("the voters in force: {loss}")),
        );
        found
    }

    /// Every member, asked now, with its program's version.
    async fn look_at_members(&self, membership: &Membership) -> (BTreeMap<NodeId, Seen>, BTreeMap<NodeId, String>) {
        let behind = self.parts.consensus.behind();
        let all =
            membership.voters.iter().map(|one| (one, true)).chain(membership.learners.iter().map(|one| (one, false)));
        let looks = all.map(|((id, node), is_voter)| async move {
            let pong = if *id == self.parts.own.id {
                Some(env!("CARGO_PKG_VERSION").to_owned())
            } else {
                let pong = self.parts.consensus.ping_at(*id, &node.address, PING).await;
                pong.ok().map(|pong| pong.version)
            };
            (*id, node, is_voter, pong)
        });
        let (mut seen, mut versions) = (BTreeMap::new(), BTreeMap::new());
        for (id, node, is_voter, pong) in join_all(looks).await {
            let answers = pong.is_some();
            versions.extend(pong.map(|version| (id, version)));
            seen.insert(id, Seen { spec: spec_of(node), is_voter, answers, behind: behind.get(&id).copied() });
        }
        (seen, versions)
    }

    async fn confirmed(&self) -> Result<(), ProposeError> {
        let confirmed = self.parts.consensus.confirm_leadership(CONFIRM_TIMEOUT).await;
        confirmed.map(drop).map_err(|error| ProposeError::NoQuorum(error.to_string()))
    }

    /// A step on record. Done before Raft's membership changes, so that the intent is known whatever becomes of it.
    async fn record(
        &self,
        asker: &Asker<'_>,
        node: NodeId,
        spec: &NodeSpec,
        step: NodeStep,
    ) -> Result<(), ProposeError> {
        let id = match &step {
            NodeStep::Admit { .. } | NodeStep::Dismiss => asker.request_id.clone(),
            _ => RequestId(format!("{}.{}.{node}", asker.request_id, step.word())),
        };
        let change = Change::ChangeNode { node, spec: spec.clone(), step, reason: asker.reason.to_owned() };
        match self.propose(self.command(asker, Some(id), change)).await? {
            Applied::Rejected(rejection) => Err(ProposeError::Rejected(rejection)),
            Applied::Done { .. } | Applied::Nothing => Ok(()),
        }
    }

    fn command(&self, asker: &Asker<'_>, request_id: Option<RequestId>, change: Change) -> Command {
        Command { node: self.parts.own.id, at: unix_now(), by: asker.by.clone(), from: origin(), request_id, change }
    }

    /// A line of the audit. That it could not be written is no reason to answer otherwise.
    async fn note(&self, asker: &Asker<'_>, what: String, outcome: String) {
        let what = format!("{what}: {}", asker.reason);
        let change = Change::Note { group: None, what, outcome };
        match self.propose(self.command(asker, None, change)).await {
            Ok(_) => recorded(),
            Err(error) => tracing::warn!(%error, "a call about nodes could not be recorded in the audit"),
        }
    }

    async fn step(
        &self,
        asker: &Asker<'_>,
        (state, membership, members): (&ClusterState, &Membership, &BTreeMap<NodeId, Seen>),
        ask: &Ask,
        judged: &Judged,
    ) -> Result<Progress, ProposeError> {
        let consensus = &self.parts.consensus;
        let node = ask.node();
        let phase = |id: NodeId| state.nodes.get(&id).map(|record| record.phase);
        match &judged.next {
            Next::Done => {
                // Whoever did it may have died before it was on record.
                for (id, is_member) in [(Some(node), !matches!(ask, Ask::Remove { .. })), (leaver(ask), false)] {
                    let Some(id) = id else { continue };
                    let (step, wanted) = if is_member {
                        (NodeStep::Joined, NodePhase::Voter)
                    } else {
                        (NodeStep::Gone, NodePhase::Gone)
                    };
                    let known = phase(id);
                    let spec = known_spec(state, members, id);
                    if let (Some(spec), true) = (spec, known != Some(wanted) && (known.is_some() || is_member)) {
                        self.record(asker, id, &spec, step).await?;
                    }
                }
                Ok(Progress::Done)
            }
            Next::Admit => {
                self.intend(asker, (state, members), ask, judged).await?;
                if let Ask::Add { spec, .. } | Ask::Replace { spec, .. } = ask {
                    let (name, region, address) = (spec.name.clone(), spec.region.clone(), spec.address.clone());
                    let newcomer = Node { name, region, address };
                    consensus.admit_learner(membership, node, newcomer, CHANGE).await.map_err(failed)?;
                }
                Ok(Progress::CatchingUp(None))
            }
            Next::Wait { behind } => {
                self.intend(asker, (state, members), ask, judged).await?;
                Ok(Progress::CatchingUp(*behind))
            }
            Next::Rest => {
                if phase(node) != Some(NodePhase::Learner) {
                    self.intend(asker, (state, members), ask, judged).await?;
                    if let Some(spec) = known_spec(state, members, node) {
                        self.record(asker, node, &spec, NodeStep::Rests).await?;
                    }
                }
                Ok(Progress::Learner)
            }
            Next::Vote { voters } => {
                self.intend(asker, (state, members), ask, judged).await?;
                consensus.set_voters(membership, node, voters.clone(), CHANGE).await.map_err(failed)?;
                for id in voters.difference(&judged.before).copied().chain([node]).collect::<BTreeSet<_>>() {
                    let step = if voters.contains(&id) { NodeStep::Joined } else { NodeStep::Gone };
                    if let Some(spec) = known_spec(state, members, id) {
                        self.record(asker, id, &spec, step).await.map_err(changed_already)?;
                    }
                }
                Ok(Progress::Done)
            }
            Next::Drop => {
                self.intend(asker, (state, members), ask, judged).await?;
                consensus.drop_learner(membership, node, CHANGE).await.map_err(failed)?;
                if let Some(spec) = known_spec(state, members, node) {
                    self.record(asker, node, &spec, NodeStep::Gone).await.map_err(changed_already)?;
                }
                Ok(Progress::Done)
            }
        }
    }

    /// What is wished, on record; and before it that a removal which nothing came of is given up.
    async fn intend(
        &self,
        asker: &Asker<'_>,
        (state, members): (&ClusterState, &BTreeMap<NodeId, Seen>),
        ask: &Ask,
        judged: &Judged,
    ) -> Result<(), ProposeError> {
        for id in &judged.given_up {
            if let Some(spec) = known_spec(state, members, *id) {
                self.record(asker, *id, &spec, NodeStep::Stays).await?;
            }
        }
        self.enter(asker, state, members, ask).await
    }

    async fn enter(
        &self,
        asker: &Asker<'_>,
        state: &ClusterState,
        members: &BTreeMap<NodeId, Seen>,
        ask: &Ask,
    ) -> Result<(), ProposeError> {
        match ask {
            Ask::Add { node, spec, .. } => {
                self.record(asker, *node, spec, NodeStep::Admit { replaces: None, old_spec: None }).await
            }
            Ask::Replace { old, node, spec } => {
                let old_spec = known_spec(state, members, *old);
                self.record(asker, *node, spec, NodeStep::Admit { replaces: Some(*old), old_spec }).await
            }
            Ask::Remove { node } => match known_spec(state, members, *node) {
                Some(spec) => self.record(asker, *node, &spec, NodeStep::Dismiss).await,
                None => Ok(()),
            },
        }
    }
}

/// The membership was changed before this failed: "nothing was changed" would be wrong.
fn changed_already(error: ProposeError) -> ProposeError {
    let why =
        format!("the membership was changed, and this could not be recorded: {error}; the same call again does it");
    match error {
        ProposeError::Rejected(_) => error,
        _ => ProposeError::Unknown(why),
    }
}

fn leaver(ask: &Ask) -> Option<NodeId> {
    if let Ask::Replace { old, .. } = ask { Some(*old) } else { None }
}

fn known_spec(state: &ClusterState, members: &BTreeMap<NodeId, Seen>, id: NodeId) -> Option<NodeSpec> {
    let member = members.get(&id).map(|seen| seen.spec.clone());
    member.or_else(|| state.nodes.get(&id).map(|record| record.spec.clone()))
}

/// The node meant, or that there is none.
fn resolve(picture: &Picture<'_>, wish: &Wish) -> Result<Ask, ProposeError> {
    let find = |text: &str| {
        picture.find(text).ok_or_else(|| {
            let message = format!("there is no node {text}: watchdogctl node list shows those there are");
            rejected(RejectionCode::NotFound, message)
        })
    };
    Ok(match wish {
        Wish::Add { id, spec, as_learner } => Ask::Add { node: *id, spec: spec.clone(), as_learner: *as_learner },
        Wish::Remove { node } => Ask::Remove { node: find(node)? },
        Wish::Replace { node, id, spec } => Ask::Replace { old: find(node)?, node: *id, spec: spec.clone() },
    })
}

fn in_words(wish: &Wish) -> String {
    match wish {
        Wish::Add { id, spec, .. } => format!("add node {id}, {spec}"),
        Wish::Remove { node } => format!("remove node {node}"),
        Wish::Replace { node, id, spec } => format!("replace node {node} by node {id}, {spec}"),
    }
}

#[async_trait]
impl MembershipBackend for Backend {
    async fn confirm(&self) -> Result<(), ProposeError> {
        self.confirmed().await
    }

    async fn nodes(&self) -> Result<Nodes, ProposeError> {
        self.confirmed().await?;
        let membership = self.parts.consensus.membership();
        let (members, mut versions) = self.look_at_members(&membership).await;
        let state = self.state().borrow().clone();
        let view = self.view();
        let policy = &self.parts.policy;
        let own = self.parts.own.id;
        let ids: BTreeSet<NodeId> = members
            .keys()
            .chain(policy.members.keys())
            .chain(state.nodes.keys())
            .copied()
            .chain(self.parts.consensus.used_numbers())
            .collect();
        let row = |id: NodeId| {
            let (seen, record) = (members.get(&id), state.nodes.get(&id));
            let configured = policy.members.get(&id);
            let is_gone = record.is_some_and(|record| record.phase == NodePhase::Gone);
            let role = match seen {
                Some(seen) if seen.is_voter => NodeRole::Voter,
                Some(_) => NodeRole::Learner,
                None if is_gone || configured.is_none() => NodeRole::Gone,
                None => NodeRole::Configured,
            };
            let spec = seen.map(|seen| seen.spec.clone()).or_else(|| record.map(|record| record.spec.clone()));
            let sight = view.sights.get(&id).filter(|_| seen.is_some());
            NodeRow {
                id,
                name: spec.as_ref().map_or_else(|| self.called(id), |spec| spec.name.clone()),
                region: configured.map(|member| member.region.clone()),
                address: spec.map_or_else(String::new, |spec| spec.address),
                role,
                is_leader: id == own,
                answers: seen.is_some_and(|seen| seen.answers),
                behind: seen.and_then(|seen| seen.behind),
                same_config: sight.map(|sight| state.digest.as_ref() == Some(&sight.report.digest)),
                version: versions.remove(&id).unwrap_or_default(),
                record: record.map(|record| (record.by.clone(), record.since)),
                note: match (record.map(|record| record.phase), seen, configured) {
                    (Some(NodePhase::Joining), _, _) => "joins: repeat the command, or remove it".to_owned(),
                    (Some(NodePhase::Leaving), _, _) => {
                        "leaves: repeat the command; another change gives it up".to_owned()
                    }
                    (_, Some(_), None) => "not in the leader's configuration: it stands nowhere".to_owned(),
                    (_, None, Some(_)) if !is_gone => "in the configuration only: watchdogctl node add".to_owned(),
                    (Some(NodePhase::Gone), _, Some(_)) => "still in the configuration: take it out".to_owned(),
                    _ => String::new(),
                },
            }
        };
        let layout = policy.layout_of(membership.voters.keys().copied());
        Ok(Nodes { rows: ids.into_iter().map(row).collect(), layout })
    }

    async fn change_nodes(&self, ask: ChangeNodes) -> Result<NodesChanged, ProposeError> {
        let Ok(_turn) = timeout(TURN, self.turn.lock()).await else {
            let message = "another call changes the membership just now; ask again";
            return Err(rejected(RejectionCode::ChangeUnderWay, message));
        };
        self.confirmed().await?;
        let membership = self.parts.consensus.membership();
        let (members, _) = self.look_at_members(&membership).await;
        let state = self.state().borrow().clone();
        let mut picture = Picture {
            leader: self.parts.own.id,
            members: members.clone(),
            goal: membership.goal.clone(),
            used: self.parts.consensus.used_numbers(),
            records: &state.nodes,
            policy: &self.parts.policy,
            newcomer_silent: None,
            is_in_force: state.digest.as_ref() == Some(&self.parts.policy.digest),
        };
        let asker = Asker { by: &ask.by, reason: &ask.reason, request_id: &ask.request_id };
        let wished = match resolve(&picture, &ask.wish) {
            Ok(wished) => wished,
            Err(error) => {
                // Whoever may only look must not be able to fill the audit.
                if !ask.dry_run {
                    self.note(&asker, in_words(&ask.wish), format!("refused: {error}")).await;
                }
                return Err(error);
            }
        };
        if let Ask::Add { node, spec, .. } | Ask::Replace { node, spec, .. } = &wished {
            let pong = self.parts.consensus.ping_at(*node, &spec.address, PING).await;
            picture.newcomer_silent = pong.err().map(|error| error.to_string());
        }
        let judged = judge(&picture, &wished);
        let leaving = match &wished {
            Ask::Remove { node } | Ask::Replace { old: node, .. } => self.name_of(&state, &members, *node),
            Ask::Add { .. } => String::new(),
        };
        let names = |ids: &BTreeSet<NodeId>| {
            let of_ask = |id: &NodeId| match &wished {
                Ask::Add { node, spec, .. } | Ask::Replace { node, spec, .. } if node == id => spec.name.0.clone(),
                _ => self.name_of(&state, &members, *id),
            };
            ids.iter().map(of_ask).collect()
        };
        let done = |progress| NodesChanged {
            progress,
            node: match &wished {
                Ask::Add { spec, .. } | Ask::Replace { spec, .. } => spec.name.0.clone(),
                Ask::Remove { .. } => leaving.clone(),
            },
            leaving: leaving.clone(),
            gates: judged.gates.clone(),
            voters_before: names(&judged.before),
            voters_after: names(&judged.after),
            layout_before: judged.layout_before.clone(),
            layout_after: judged.layout_after.clone(),
        };
        if ask.dry_run {
            return Ok(done(Progress::Judged));
        }
        if ask.confirm_name != leaving {
            let message =
                format!("confirm_name: is {:?}, but this is about {leaving:?}: type its name again", ask.confirm_name);
            return Err(rejected(RejectionCode::Invalid, message));
        }
        if let Some(rejection) = judged.refusal() {
            self.note(&asker, in_words(&ask.wish), format!("refused: {}", rejection.message)).await;
            return Err(ProposeError::Rejected(rejection));
        }
        let progress = self.step(&asker, (&state, &membership, &members), &wished, &judged).await?;
        Ok(done(progress))
    }

    async fn transfer(&self, ask: Transfer) -> Result<Transferred, ProposeError> {
        self.confirmed().await?;
        let asker = Asker { by: &ask.by, reason: &ask.reason, request_id: &ask.request_id };
        let heir = self.heir(&asker, ask.node.as_deref()).await?;
        let own = self.parts.own.id;
        let from = self.called(own).0;
        if heir != own {
            self.note(&asker, format!("transfer leadership to {}", self.called(heir)), "ordered".to_owned()).await;
            let deadline = Instant::now() + TRANSFER;
            let mut leadership = self.parts.consensus.leadership();
            self.parts.consensus.transfer_leadership(heir, TRANSFER).await.map_err(|error| match error {
                TransferError::NotLeader { .. } => ProposeError::NotLeader,
                TransferError::NotAVoter { .. } => rejected(RejectionCode::Illegal, error.to_string()),
                TransferError::TimedOut { .. } => ProposeError::Unknown(error.to_string()),
                // It was asked for before Raft stopped: somebody may have taken it.
                TransferError::Stopped { .. } => ProposeError::Unknown(error.to_string()),
            })?;
            let taken = leadership.wait_for(|now| now.leader == Some(heir));
            if !matches!(timeout_at(deadline, taken).await, Ok(Ok(_))) {
                let message = format!("{} gave leadership up, and {} was not seen to take it", from, self.called(heir));
                return Err(ProposeError::Unknown(message));
            }
        }
        let state = self.state().borrow().clone();
        let policy = &self.parts.policy;
        let rank = leading::rank(policy, &state, heir);
        let preferred = state
            .digest
            .as_ref()
            .and_then(|digest| leading::preferred(policy, &state, digest, &self.view(), heir, rank))
            .map(|id| (self.called(id), policy.members.get(&id).map(|member| member.region.clone())));
        let note = match &preferred {
            None => String::new(),
            Some((name, region)) => format!(
                "{name}{} is preferred as a leader, so that the loss of a serving site costs no election: it takes over within \
                 some seconds, while no run is open",
                region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default()
            ),
        };
        Ok(Transferred { leader: self.called(heir).0, from, preferred: preferred.map(|(name, _)| name.0), note })
    }
}

impl Backend {
    fn name_of(&self, state: &ClusterState, members: &BTreeMap<NodeId, Seen>, id: NodeId) -> String {
        known_spec(state, members, id).map_or_else(|| self.called(id).0, |spec| spec.name.0)
    }

    /// The voter that is meant, or the best besides this one; refusals go to the audit.
    async fn heir(&self, asker: &Asker<'_>, meant: Option<&str>) -> Result<NodeId, ProposeError> {
        let membership = self.parts.consensus.membership();
        let (members, _) = self.look_at_members(&membership).await;
        let (state, view, own) = (self.state().borrow().clone(), self.view(), self.parts.own.id);
        let may = |id: NodeId, seen: &Seen| {
            let report = view.sights.get(&id).map(|sight| &sight.report);
            let heir = Heir {
                seen: seen.clone(),
                digest: report.map(|report| report.digest.clone()),
                is_isolated: report.is_some_and(|report| report.isolated),
            };
            may_lead(seen.spec.name.as_str(), &heir, state.digest.as_ref())
        };
        let found = match meant {
            Some(text) => {
                let by_text = |(id, seen): &(&NodeId, &Seen)| seen.spec.name.as_str() == text || id.to_string() == text;
                match members.iter().find(by_text) {
                    Some((id, _)) if *id == own => Ok(*id),
                    Some((id, seen)) => may(*id, seen).map(|()| *id),
                    None => Err(Rejection {
                        code: RejectionCode::NotFound,
                        message: format!("there is no node {text}: watchdogctl node list shows those there are"),
                    }),
                }
            }
            None => {
                let others = members.iter().filter(|(id, seen)| **id != own && seen.is_voter);
                let able = others.filter(|(id, seen)| may(**id, seen).is_ok());
                let best = able.min_by_key(|(id, _)| (leading::rank(&self.parts.policy, &state, **id), **id));
                best.map(|(id, _)| *id).ok_or_else(|| Rejection {
                    code: RejectionCode::NotReachable,
                    message: "no other voter could lead: watchdogctl node list shows why not".to_owned(),
                })
            }
        };
        match found {
            Ok(id) => Ok(id),
            Err(rejection) => {
                let what = format!("transfer leadership to {}", meant.unwrap_or("another"));
                self.note(asker, what, format!("refused: {}", rejection.message)).await;
                Err(ProposeError::Rejected(rejection))
            }
        }
    }
}
