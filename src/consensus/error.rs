//! What can go wrong with the handle's calls.

use super::store::StoreError;
use crate::domain::ids::NodeId;

/// Who leads instead, as far as this node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader.
    pub leader: Option<NodeId>,
    /// Where it is dialled.
    pub address: Option<String>,
}

impl std::fmt::Display for LeaderHint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.leader, &self.address) {
            (Some(leader), Some(address)) => write!(f, "node {leader} at {address} leads"),
            (Some(leader), None) => write!(f, "node {leader} leads"),
            _ => f.write_str("no leader is known"),
        }
    }
}

/// The consensus does not start.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The clocks contradict one another.
    #[error("timing: {0}")]
    Timing(String),
    /// This node is not among the configured members.
    #[error("node {node} is not among the configured members")]
    NotAMember {
        /// The node.
        node: NodeId,
    },
    /// Raft did not start.
    #[error("raft does not start: {0}")]
    Raft(String),
}

/// The cluster was not formed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BootstrapError {
    /// The membership cannot be.
    #[error("the cluster cannot be formed: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// Raft has stopped.
    #[error("raft has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// A command was not applied, or it is not known whether it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Not written: this node does not lead, or no longer in the term asked for.
    #[error("this node does not lead; {0}")]
    NotLeader(LeaderHint),
    /// Not written.
    #[error("the command is {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Its size as JSON.
        bytes: usize,
        /// [`MAX_COMMAND_BYTES`](super::MAX_COMMAND_BYTES).
        limit: usize,
    },
    /// It may be applied, now or later, or never: read the state before proposing it again.
    #[error("it is not known whether the command was committed: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// Not written: this node has stopped and must be started again.
    #[error("raft has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Leadership was not confirmed: do not act.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConfirmError {
    /// This node does not lead.
    #[error("this node does not lead; {0}")]
    NotLeader(LeaderHint),
    /// No majority answered.
    #[error("leadership is not confirmed: {reason}")]
    NoQuorum {
        /// What happened.
        reason: String,
    },
    /// This node has stopped.
    #[error("raft has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Leadership was not handed over.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransferError {
    /// Only a leader can.
    #[error("this node does not lead; the leader it knows: {leader:?}")]
    NotLeader {
        /// Who leads.
        leader: Option<NodeId>,
    },
    /// Only to a voter.
    #[error("node {node} is not a voter")]
    NotAVoter {
        /// To whom.
        node: NodeId,
    },
    /// Nobody else leads yet; it may still happen.
    #[error("node {to} did not take over within {waited_ms} ms")]
    TimedOut {
        /// To whom.
        to: NodeId,
        /// How long.
        waited_ms: u128,
    },
    /// This node has stopped.
    #[error("raft has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// The membership was not changed, or it is not known whether it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MembershipError {
    /// Only a leader can.
    #[error("this node does not lead; {0}")]
    NotLeader(LeaderHint),
    /// Nothing was changed.
    #[error("node {node}: {reason}")]
    Refused {
        /// Which node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// Nothing was changed: another change is not committed yet.
    #[error("node {node}: another change of the membership is not committed yet; ask again")]
    Busy {
        /// Which node.
        node: NodeId,
    },
    /// It may be changed, now or later: look at the members, and repeat the call.
    #[error("node {node}: it is not known whether the membership was changed: {reason}")]
    Unknown {
        /// Which node.
        node: NodeId,
        /// What happened.
        reason: String,
    },
    /// This node has stopped.
    #[error("raft has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}
