//! What a node saw: the facts that are pushed to the leader. A node gives its verdict; only the leader counts votes.

use serde::{Deserialize, Serialize};

use super::ids::{ConfigDigest, GroupName, NodeId, TargetName, UnixMs};

/// A node's judgement of a target over a window of probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Answers as it should (`rise` good probes in a row).
    Up,
    /// Some probes failed, or the fault may be ours: never counts as down.
    Suspect,
    /// `fall` probes in a row failed through the target's own fault.
    Down,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Verdict::Up => "up",
            Verdict::Suspect => "suspect",
            Verdict::Down => "down",
        })
    }
}

/// How a probe failed. The kinds weigh differently: a refusal is a fact about the host, a time-out may be the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The host answered that nothing listens there.
    Refused,
    /// Nothing came back within the probe's time-out.
    TimedOut,
    /// The network said there is no way there.
    Unreachable,
    /// It answered, but not what was expected.
    WrongAnswer,
    /// It answers but cannot do its work (canary write failed, disk full).
    Unusable,
    /// Nobody looked lately: this node was paused, or is overloaded. Only ever `suspect`.
    NotLooked,
    /// Wrong password, certificate, name or path: our configuration's fault. Only ever `suspect`.
    OurFault,
}

/// The last failure of a target, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind it was.
    pub kind: FailureKind,
    /// The error's text: names what was probed and what came back. Never holds a secret.
    pub detail: String,
}

/// What a replication probe measured. All LSNs are byte positions in the WAL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationMeasure {
    /// The standby says it is in recovery.
    pub in_recovery: bool,
    /// `pg_last_wal_receive_lsn()` of the standby.
    pub received_lsn: Option<u64>,
    /// `pg_last_wal_replay_lsn()` of the standby.
    pub replayed_lsn: Option<u64>,
    /// The standby's WAL receiver is connected and streaming.
    pub streaming: bool,
    /// `pg_current_wal_lsn()` of the primary when it was last reached by this node.
    pub primary_lsn: Option<u64>,
    /// How long ago `primary_lsn` was read, milliseconds.
    pub primary_lsn_age_ms: Option<u64>,
    /// Everything the primary had written up to this many milliseconds ago is known to have reached the standby:
    /// the age of the newest primary sample that the standby's received LSN covers. `None` where nothing is known.
    pub covered_age_ms: Option<u64>,
    /// Last replayed commit's age by the standby's clock, milliseconds; grows on an idle primary, so it is for people.
    pub replay_age_ms: Option<u64>,
}

/// What is known of a database's backups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupMeasure {
    /// When the newest good one was finished; `None` where there is none.
    pub last_success: Option<UnixMs>,
    /// The backup tool has no complaint.
    pub is_ok: bool,
    /// How long the newest good one took, milliseconds, where that is said.
    pub took_ms: Option<u64>,
    /// How large its database is, bytes, where that is said.
    pub size_bytes: Option<u64>,
    /// The tool's complaint.
    pub note: String,
}

/// What a look at a Redis server found. Offsets are byte positions in its history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisMeasure {
    /// It takes writes; otherwise it is a replica.
    pub is_primary: bool,
    /// A replica: connected to its primary and in step.
    pub linked: bool,
    /// A replica: how long ago it last heard of its primary, milliseconds; Redis counts whole seconds.
    pub last_io_age_ms: Option<u64>,
    /// How far its history goes.
    pub offset: u64,
    /// How far the primary's went when it was last reached by this node, while they share one history.
    pub primary_offset: Option<u64>,
    /// How long ago that was, milliseconds.
    pub primary_offset_age_ms: Option<u64>,
}

impl RedisMeasure {
    /// What a replica lacks of what its primary is known to have written.
    pub fn behind_bytes(&self) -> Option<u64> {
        self.primary_offset.filter(|_| !self.is_primary).map(|primary| primary.saturating_sub(self.offset))
    }
}

/// Numbers that some kinds of probe bring home besides the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Measure {
    /// HTTP status.
    Http {
        /// The status code of the answer.
        status: u16,
    },
    /// A PostgreSQL server's role and position.
    Postgres {
        /// `pg_is_in_recovery()`.
        in_recovery: bool,
        /// Current or replayed LSN.
        lsn: Option<u64>,
        /// The timeline it is on.
        timeline: Option<u32>,
    },
    /// Replication.
    Replication(ReplicationMeasure),
    /// Backups.
    Backup(BackupMeasure),
    /// A Redis server.
    Redis(RedisMeasure),
    /// What a name resolved to.
    Dns {
        /// Addresses or names, sorted.
        values: Vec<String>,
    },
}

/// One target as one node judges it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The group the target belongs to.
    pub group: GroupName,
    /// Which target.
    pub target: TargetName,
    /// The judgement.
    pub verdict: Verdict,
    /// How long it has been so when the report was sent, milliseconds. A `down` counts from the first failure of its
    /// streak, since the target has failed from then on.
    pub held_ms: u64,
    /// The node saw it up at least once under its present configuration.
    pub seen_up: bool,
    /// Why it is not up.
    pub failure: Option<Failure>,
    /// Numbers of the last good probe of this kind.
    pub measure: Option<Measure>,
}

/// Everything a node pushes to the leader, on change and every interval. The newest by (`incarnation`, `seq`) holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who saw it.
    pub node: NodeId,
    /// When the node's process started, by its own clock: a restarted node's reports supersede its earlier ones.
    pub incarnation: UnixMs,
    /// Counts reports of one incarnation.
    pub seq: u64,
    /// The configuration the node runs under.
    pub digest: ConfigDigest,
    /// All references and a majority of peers fail from here: this node's `down` does not count.
    pub isolated: bool,
    /// The node's wall clock when it sent this; a leader whose clock disagrees with a majority's expires nothing.
    pub clock: UnixMs,
    /// What it sees.
    pub observations: Vec<Observation>,
}
