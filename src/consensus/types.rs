//! The types that openraft is instantiated with.

use serde::{Deserialize, Serialize};

use crate::domain::command::Applied;
use crate::domain::ids::{ClusterName, NodeId, NodeName, RegionName};
use crate::domain::sealed::Sealed;

use super::state_machine::StateMachine;

/// A member of the cluster, as its membership records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in the configuration.
    pub name: NodeName,
    /// The region it stands in.
    pub region: RegionName,
    /// `host:port` that the other nodes dial.
    pub address: String,
}

impl Default for Node {
    /// Nobody: only the storage suite asks for it.
    fn default() -> Self {
        Self { name: NodeName(String::new()), region: RegionName(String::new()), address: String::new() }
    }
}

/// Who a node is. Written into its store, and said in every call between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The cluster's epoch.
    pub epoch: u64,
    /// The node's number.
    pub node: NodeId,
}

openraft::declare_raft_types!(
    /// One leader a term; commands and answers of `domain`.
    pub TypeConfig:
        D = Sealed,
        R = Applied,
        NodeId = NodeId,
        Node = Node,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

/// Raft over this crate's state machine.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
/// An entry of the log.
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// Term and index of an entry.
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote.
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// What a snapshot covers.
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot: the state as JSON.
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Vec<u8>>;
/// The membership with the entry it stands in.
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

/// The largest command that is proposed, as it is written to the log.
pub const MAX_COMMAND_BYTES: usize = 256 << 10;
/// The most log entries' bytes sent in one append. It must get through within three quarters of a heartbeat, or the
/// follower never catches up: 256 KiB in 187 ms is 11 Mbit/s.
pub(crate) const MAX_APPEND_BYTES: usize = 256 << 10;
/// The largest message between nodes that is decoded.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// The largest state that can be snapshotted and sent.
pub const MAX_SNAPSHOT_BYTES: usize = 64 << 20;
