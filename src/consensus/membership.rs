//! Forming the cluster, and changing who is in it: one node at a time, through a learner, and never under a number that
//! was used before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::raft::Precondition;
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use super::error::{BootstrapError, MembershipError};
use super::handle::{Consensus, hint, stop_reason};
use super::network::{PeerError, Pong};
use super::types::{LogId, Node, TypeConfig};
use crate::domain::ids::NodeId;

/// How long `bootstrap` waits for the other members' answers.
const PING_WAIT: Duration = Duration::from_secs(1);

/// Who is in the cluster, as of one entry of the log: a change decided on it is made only while it is still so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Who votes; while a change is half done, by the old voters or by the new.
    pub voters: BTreeMap<NodeId, Node>,
    /// Who only receives the log.
    pub learners: BTreeMap<NodeId, Node>,
    /// Where a change of voters is half done: the voters that it leads to.
    pub goal: Option<BTreeSet<NodeId>>,
    at: Option<LogId>,
}

impl Consensus {
    /// Forms the cluster out of the configured members, unless it was formed before. Every node may call it, at every
    /// start, once it serves its peers: a member that finds the cluster formed by others waits for the leader's log, and
    /// those that form it at the same time write the same first entry.
    pub async fn bootstrap(&self) -> Result<(), BootstrapError> {
        let fatal = |error: Fatal<TypeConfig>| BootstrapError::Stopped { reason: error.to_string() };
        if self.inner.raft.is_initialized().await.map_err(fatal)? {
            return Ok(());
        }
        if self.is_formed_elsewhere().await? {
            return Ok(());
        }
        match self.inner.raft.initialize(self.inner.members.clone()).await {
            // Somebody's vote or log came in the meantime: then the cluster is there.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(BootstrapError::Refused { reason: error.to_string() }),
            Err(RaftError::Fatal(error)) => Err(fatal(error)),
        }
    }

    async fn is_formed_elsewhere(&self) -> Result<bool, BootstrapError> {
        let others = self.inner.members.keys().filter(|id| **id != self.inner.identity.node);
        let answers = join_all(others.map(|id| self.ping(*id, PING_WAIT))).await;
        for answer in answers {
            match answer {
                Ok(pong) if pong.formed => {
                    tracing::info!(node = %pong.node, "joins the cluster that this node is in");
                    return Ok(true);
                }
                // This node's store is not the one that its peers know, or its identity is not theirs.
                Err(error @ PeerError::Failed { code: Code::FailedPrecondition, .. }) => {
                    return Err(BootstrapError::Refused { reason: error.to_string() });
                }
                // Not yet added: then it is to wait until it is, and not to form a cluster of its own.
                Err(error @ PeerError::Failed { code: Code::PermissionDenied, .. }) => {
                    tracing::warn!("waits to be added to the cluster: {error}");
                    return Ok(true);
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(false)
    }

    /// The membership that this node acts by, committed or not yet.
    pub fn membership(&self) -> Membership {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        let membership = stored.membership();
        let voting: BTreeSet<NodeId> = membership.voter_ids().collect();
        let all = membership.nodes().map(|(id, node)| (*id, node.clone()));
        let (voters, learners) = all.partition(|(id, _)| voting.contains(id));
        let configs = membership.get_joint_config();
        let goal = configs.last().filter(|_| configs.len() > 1).cloned();
        Membership { voters, learners, goal, at: *stored.log_id() }
    }

    /// How many entries each member lacks that the leader has; empty where this node does not lead. Without an entry for a
    /// member that has not answered this leader yet.
    pub fn behind(&self) -> BTreeMap<NodeId, u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(replication) = &metrics.replication else { return BTreeMap::new() };
        let last = metrics.last_log_index.unwrap_or_default();
        let of = |(id, matched): (&NodeId, &Option<LogId>)| {
            let matched = matched.as_ref()?;
            Some((*id, last.saturating_sub(matched.index)))
        };
        let own = (self.inner.identity.node, 0);
        replication.iter().filter_map(of).chain([own]).collect()
    }

    /// Every number that this node's store knows to have been a member's.
    pub fn used_numbers(&self) -> BTreeSet<NodeId> {
        self.inner.store.used_numbers()
    }

    /// Asks a node that need not be a member yet whether it is there: of this cluster and epoch, and of that number.
    pub async fn ping_at(&self, node: NodeId, address: &str, wait: Duration) -> Result<Pong, PeerError> {
        self.inner.peers.ping(node, address, wait).await
    }

    /// Makes a node a learner, and does not wait until it has caught up. As [`set_voters`](Self::set_voters): one that was
    /// judged on a membership which is no more, or by a leader that slept since, comes to nothing.
    pub async fn admit_learner(
        &self,
        seen: &Membership,
        id: NodeId,
        node: Node,
        wait: Duration,
    ) -> Result<(), MembershipError> {
        let change = ChangeMembers::AddNodes(BTreeMap::from([(id, node)]));
        let still = Precondition::LastMembershipLogId { last_membership_log_id: seen.at };
        self.change(id, Instant::now() + wait, self.inner.raft.change_membership_if(change, true, [still])).await
    }

    /// Changes the voters to exactly these, all of them members already, through a majority of both; who votes no longer is
    /// a member no longer. Leader only, and only while the membership is the one that was `seen`.
    ///
    /// A leader that dies in the middle leaves a change that is half done (see [`Membership::goal`]): the same call again,
    /// at any leader, ends it.
    pub async fn set_voters(
        &self,
        seen: &Membership,
        about: NodeId,
        voters: BTreeSet<NodeId>,
        wait: Duration,
    ) -> Result<(), MembershipError> {
        let change = ChangeMembers::ReplaceAllVoters(voters);
        let still = Precondition::LastMembershipLogId { last_membership_log_id: seen.at };
        self.change(about, Instant::now() + wait, self.inner.raft.change_membership_if(change, false, [still])).await
    }

    /// Takes a learner out. As [`set_voters`](Self::set_voters).
    pub async fn drop_learner(&self, seen: &Membership, id: NodeId, wait: Duration) -> Result<(), MembershipError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        let still = Precondition::LastMembershipLogId { last_membership_log_id: seen.at };
        self.change(id, Instant::now() + wait, self.inner.raft.change_membership_if(change, false, [still])).await
    }

    /// Adds a voter: as a learner first, and once it has caught up as a voter. Leader only. May be repeated after a
    /// time-out. Whether the new layout is sound (section 3) is the caller's to judge.
    pub async fn add_node(&self, id: NodeId, node: Node, wait: Duration) -> Result<(), MembershipError> {
        let deadline = Instant::now() + wait;
        let members = self.leadership().borrow().clone();
        let known = members.voters.get(&id).or_else(|| members.learners.get(&id));
        match known {
            Some(known) if known != &node => {
                let reason = format!("it is a member already, at {} in {}", known.address, known.region);
                return Err(MembershipError::Refused { node: id, reason });
            }
            Some(_) if members.voters.contains_key(&id) => return Ok(()),
            Some(_) => {}
            None if self.inner.store.was_member(id) => {
                let reason = "its number was used before; give it a new one".to_owned();
                return Err(MembershipError::Refused { node: id, reason });
            }
            None => {}
        }
        self.change(id, deadline, self.inner.raft.add_learner(id, node, true)).await?;
        let voter = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.change(id, deadline, self.inner.raft.change_membership(voter, true)).await
    }

    /// Removes a voter or learner for good: its number is not used again. Leader only, and not the leader itself.
    pub async fn remove_node(&self, id: NodeId, wait: Duration) -> Result<(), MembershipError> {
        let deadline = Instant::now() + wait;
        let members = self.leadership().borrow().clone();
        if id == self.inner.identity.node {
            let reason = "it leads; hand leadership over first".to_owned();
            return Err(MembershipError::Refused { node: id, reason });
        }
        let gone = BTreeSet::from([id]);
        if members.voters.contains_key(&id) {
            let change = ChangeMembers::RemoveVoters(gone);
            self.change(id, deadline, self.inner.raft.change_membership(change, false)).await
        } else if members.learners.contains_key(&id) {
            let change = ChangeMembers::RemoveNodes(gone);
            self.change(id, deadline, self.inner.raft.change_membership(change, false)).await
        } else {
            Err(MembershipError::Refused { node: id, reason: "it is no member".to_owned() })
        }
    }

    async fn change<T>(
        &self,
        node: NodeId,
        deadline: Instant,
        change: impl Future<Output = Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>>,
    ) -> Result<(), MembershipError> {
        match timeout_at(deadline, change).await {
            Err(_) => {
                let reason = "no answer in time: it may not have caught up yet".to_owned();
                Err(MembershipError::Unknown { node, reason })
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(MembershipError::NotLeader(hint(to)))
            }
            // The second step of a change may find it so when the first is done.
            Ok(Err(RaftError::APIError(
                error @ (ClientWriteError::LogEntryDiscarded(_) | ClientWriteError::PreconditionFailed(_)),
            ))) => Err(MembershipError::Unknown { node, reason: error.to_string() }),
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
            )))) => Err(MembershipError::Busy { node }),
            Ok(Err(RaftError::APIError(error))) => Err(MembershipError::Refused { node, reason: error.to_string() }),
            Ok(Err(RaftError::Fatal(error))) => {
                let reason = stop_reason(&self.inner.raft).unwrap_or_else(|| error.to_string());
                Err(MembershipError::Stopped { reason })
            }
        }
    }
}
