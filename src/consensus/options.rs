//! What a node's consensus is started with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use tokio::sync::mpsc;

use super::types::{Identity, Node};
use crate::domain::ids::NodeId;
use crate::domain::observation::Report;
use crate::tls::Material;

/// Raft's clocks. The defaults suit voters up to 80 ms apart on disks that sync within 20 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often the leader shows that it is there, milliseconds.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing stands for election after at least this, milliseconds.
    pub election_min_ms: u64,
    /// … and at most this, milliseconds.
    pub election_max_ms: u64,
    /// For sending and installing one snapshot, milliseconds.
    pub install_snapshot_timeout_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 250, election_min_ms: 1000, election_max_ms: 1500, install_snapshot_timeout_ms: 10_000 }
    }
}

impl Timing {
    /// A leader that a majority has not answered for so long no longer counts as having a quorum.
    pub fn quorum_limit(&self) -> Duration {
        Duration::from_millis(self.election_max_ms)
    }
}

/// How much of the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// A snapshot is made after so many entries.
    pub snapshot_after: u64,
    /// Entries kept behind a snapshot, so that a node that was away shortly needs none.
    pub keep: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { snapshot_after: 2000, keep: 500 }
    }
}

/// Everything needed to start.
pub struct Options {
    /// Who this node is.
    pub identity: Identity,
    /// The members as configured, this node among them: their addresses, and the first membership.
    pub members: BTreeMap<NodeId, Node>,
    /// Where the store lies.
    pub data_dir: PathBuf,
    /// Raft's clocks.
    pub timing: Timing,
    /// How much of the log is kept.
    pub retention: Retention,
    /// Where reports of other nodes go. When it is full they are refused.
    pub reports: mpsc::Sender<Report>,
    /// This node's certificate: peers are dialled by TLS, and must prove to be who they say they are. `None` is plain
    /// text, where nobody proves anything.
    pub client_tls: Option<Arc<Material>>,
}

impl Options {
    /// openraft's settings, or what is wrong with ours.
    pub(super) fn config(&self) -> Result<Config, String> {
        let config = Config {
            cluster_name: self.identity.cluster.0.clone(),
            heartbeat_interval: self.timing.heartbeat_ms,
            election_timeout_min: self.timing.election_min_ms,
            election_timeout_max: self.timing.election_max_ms,
            install_snapshot_timeout: self.timing.install_snapshot_timeout_ms,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.retention.snapshot_after),
            max_in_snapshot_log_to_keep: self.retention.keep,
            replication_lag_threshold: self.retention.snapshot_after.max(self.retention.keep),
            // A node that was cut off must not depose the leader when it comes back.
            enable_pre_vote: Some(true),
            // A leader that restarts was away: it must win an election like anybody else.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        config.validate().map_err(|error| error.to_string())
    }
}
