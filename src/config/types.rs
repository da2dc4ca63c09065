//! The configuration after it was judged: every name refers to something, every number is in its range.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::domain::identity::{Grant, Identity};
use crate::domain::ids::{
    ClusterName, ConfigDigest, GroupName, HostName, NodeId, NodeName, ProviderName, ReceiverName, RegionName,
    TargetName,
};
use crate::domain::on_call::OnCall;
use crate::domain::plan::{DatabaseEndpoint, DnsProvider, GuardEndpoint, RecordKind, RedisEndpoint};
use crate::domain::policy::GroupPolicy;

use super::check::Fault;
use super::template::Template;

/// The whole file.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The cluster's epoch.
    pub epoch: u64,
    /// Regions whose loss leaves no quorum, knowingly: status shows them for ever.
    pub no_automatic_failover_from: BTreeSet<RegionName>,
    /// All that the file accepts so, also what its own nodes do not need: membership changes go through layouts between.
    /// Nothing is decided by it but whether a change of membership is refused.
    #[serde(skip)]
    pub accepted_losses: BTreeSet<RegionName>,
    /// How nodes prove to each other who they are.
    pub tls: TlsConfig,
    /// Who may do what, besides the nodes and the hosts' guards, which are known by their names.
    pub roles: Vec<(Identity, Grant)>,
    /// Raft's and the reports' timing.
    pub timing: Timing,
    /// Months of audit files that ended longer ago are deleted. No part of the digest.
    #[serde(skip)]
    pub audit_retention: Duration,
    /// Who hears that the cluster lives, and misses it when it does not. No part of the digest: no run depends on it.
    #[serde(skip)]
    pub heartbeat: Option<HeartbeatConfig>,
    /// Where closed runs are told as traces. No part of the digest.
    #[serde(skip)]
    pub traces: Option<TracesConfig>,
    /// Regions and witness sites.
    pub regions: BTreeMap<RegionName, RegionConfig>,
    /// Nodes, all of them voters.
    pub nodes: BTreeMap<NodeId, NodeConfig>,
    /// Targets that have nothing to do with any group.
    pub references: BTreeMap<TargetName, TargetConfig>,
    /// Who is paged.
    pub receivers: BTreeMap<ReceiverName, ReceiverConfig>,
    /// Who of them is told when, and how bad what is. Left out of the digest where nothing is configured.
    #[serde(skip_serializing_if = "OnCall::is_empty")]
    pub on_call: OnCall,
    /// Hosts acted upon through their guard.
    pub hosts: BTreeMap<HostName, HostConfig>,
    /// DNS providers.
    pub dns: BTreeMap<ProviderName, DnsProvider>,
    /// Groups.
    pub groups: BTreeMap<GroupName, GroupConfig>,
    /// Digest of everything above.
    #[serde(skip)]
    pub digest: ConfigDigest,
    /// Allowed, but somebody should know.
    #[serde(skip)]
    pub warnings: Vec<Fault>,
    /// Every file the configuration names, with the field that names it.
    #[serde(skip)]
    pub files: Vec<NamedFile>,
}

/// What the nodes' gRPC ports speak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsConfig {
    /// Mutual TLS. `{node}` in a path stands for the node's name.
    Files {
        /// The authority's certificate.
        ca: String,
        /// The node's.
        certificate: String,
        /// Its key.
        key: String,
    },
    /// Plain text between programs of one machine: anybody there is believed to be whoever they say.
    PlaintextOnLoopback,
}

/// Timing of Raft and of the reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timing {
    /// Between two heartbeats of the leader.
    pub heartbeat: Duration,
    /// Shortest wait for a lost leader.
    pub election_min: Duration,
    /// Longest.
    pub election_max: Duration,
    /// Between two reports to the leader when nothing changes.
    pub report_interval: Duration,
    /// For one snapshot to arrive.
    pub install_snapshot_timeout: Duration,
    /// Between two judgements of a group's readiness.
    pub readiness_interval: Duration,
}

/// A region or witness site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegionConfig {
    /// Voter and observer only: it cannot serve.
    pub witness: bool,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeConfig {
    /// Number in Raft.
    pub id: NodeId,
    /// Name.
    pub name: NodeName,
    /// Where it stands.
    pub region: RegionName,
    /// What it binds for gRPC.
    pub listen: SocketAddr,
    /// `host:port` that peers dial.
    pub address: String,
    /// What it binds for `/livez` and `/readyz`.
    pub http: Option<SocketAddr>,
    /// What it binds for its status page: on loopback in plain text, elsewhere behind mutual TLS. No part of the digest.
    #[serde(skip)]
    pub page: Option<SocketAddr>,
    /// Where it keeps its log and state.
    pub data_dir: PathBuf,
    /// Where it keeps its audit files. No part of the digest: no run depends on it.
    #[serde(skip)]
    pub audit_dir: PathBuf,
}

/// How often a target is probed and when it changes its verdict (HAProxy's words).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// Between two probes.
    pub interval: Duration,
    /// Between two probes while in doubt.
    pub fastinter: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// So many failures in a row: down.
    pub fall: u32,
    /// So many successes in a row: up.
    pub rise: u32,
}

/// A target of a group, or a reference (`group` is `None`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetConfig {
    /// Name, unique in the file.
    pub name: TargetName,
    /// Whose.
    pub group: Option<GroupName>,
    /// Where it stands; a reference stands nowhere.
    pub region: Option<RegionName>,
    /// How it is probed.
    #[serde(flatten)]
    pub kind: TargetKind,
    /// How often.
    pub schedule: Schedule,
}

/// How a target is probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TargetKind {
    /// `GET url`.
    Http {
        /// Absolute.
        url: String,
        /// The status wanted.
        expect_status: u16,
        /// Text that the body must hold.
        body_contains: Option<String>,
        /// PEM file of the authority to trust instead of the public ones.
        ca_file: Option<String>,
        /// A redirect is followed instead of judged.
        follow_redirects: bool,
    },
    /// A connection is opened.
    Tcp {
        /// `host:port`.
        address: String,
    },
    /// A PostgreSQL server.
    Postgres {
        /// Where.
        database: DatabaseEndpoint,
        /// The role wanted.
        expect_role: DatabaseRole,
        /// Try a write too.
        canary: bool,
    },
    /// Replication from one server to another.
    Replication {
        /// From.
        primary: DatabaseEndpoint,
        /// To.
        standby: DatabaseEndpoint,
    },
    /// A Redis server.
    Redis {
        /// Where.
        server: RedisEndpoint,
        /// The primary that it follows while another region serves; reached with the same user and password.
        primary: Option<RedisEndpoint>,
        /// The role wanted: [`DatabaseRole::Standby`] is a replica.
        expect_role: DatabaseRole,
    },
    /// When the last good backup was made. Never part of a trigger.
    Backup {
        /// Where that is written.
        source: BackupSource,
        /// pgBackRest's stanza; without it the source's time of change counts.
        stanza: Option<String>,
        /// Older than this the last good backup is late.
        max_age: Duration,
        /// PEM file of the authority to trust instead of the public ones.
        ca_file: Option<String>,
        /// Nodes that look; all where empty.
        nodes: BTreeSet<NodeName>,
    },
    /// A name resolves to the serving region's value.
    Dns {
        /// `address:port` of the name server asked.
        server: String,
        /// Fully qualified, with its final dot.
        record_name: String,
        /// Type.
        record_type: RecordKind,
        /// The value wanted while the region serves.
        expected: BTreeMap<RegionName, String>,
    },
}

impl TargetKind {
    /// The kind's word in the file.
    pub fn word(&self) -> &'static str {
        match self {
            TargetKind::Http { .. } => "http",
            TargetKind::Tcp { .. } => "tcp",
            TargetKind::Postgres { .. } => "postgres",
            TargetKind::Replication { .. } => "replication",
            TargetKind::Redis { .. } => "redis",
            TargetKind::Backup { .. } => "backup",
            TargetKind::Dns { .. } => "dns",
        }
    }
}

/// Where it is written when the last backup was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupSource {
    /// A file on the node's machine.
    File(String),
    /// By HTTP.
    Url(String),
}

/// The role a PostgreSQL server shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseRole {
    /// Takes writes.
    Primary,
    /// In recovery.
    Standby,
    /// Either.
    Any,
}

/// Who is paged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiverConfig {
    /// Name.
    pub name: ReceiverName,
    /// How.
    #[serde(flatten)]
    pub kind: ReceiverKind,
}

/// An address that is given as it is, or in a file because it is a secret itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// Absolute, http or https.
    Url(String),
    /// The first line of this file.
    File(String),
}

/// The dead-man heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Where to.
    pub to: Address,
    /// By `GET`, without a body.
    pub by_get: bool,
    /// Between two beats.
    pub interval: Duration,
    /// File whose first line is a bearer token.
    pub token_file: Option<String>,
}

/// The collector of traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracesConfig {
    /// Without `/v1/traces`: `http://127.0.0.1:4318`.
    pub endpoint: String,
    /// File whose first line is a bearer token.
    pub token_file: Option<String>,
}

/// How a receiver is paged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ReceiverKind {
    /// PagerDuty Events v2.
    Pagerduty {
        /// Without a path: `https://events.pagerduty.com`.
        base_url: String,
        /// File whose first line is the integration's key.
        routing_key_file: String,
    },
    /// Prometheus' Alertmanager, API v2.
    Alertmanager {
        /// Without `/api/v2`: `http://10.1.0.20:9093`.
        base_url: String,
        /// File whose first line is a bearer token.
        token_file: Option<String>,
    },
    /// A POST of the page as JSON.
    Webhook {
        /// Where to.
        to: Address,
        /// Another body than the promised one.
        template: Option<Template>,
        /// File whose first line is the key of the HMAC-SHA256 signature.
        secret_file: Option<String>,
    },
}

/// A host acted upon through its guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostConfig {
    /// Where it stands.
    pub region: RegionName,
    /// How its guard is reached.
    pub guard: GuardEndpoint,
}

/// One group: its rules with resolved plans, and its targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupConfig {
    /// Name.
    pub name: GroupName,
    /// What `decide` weighs, and the plans it opens.
    pub policy: GroupPolicy,
    /// What is probed.
    pub targets: BTreeMap<TargetName, TargetConfig>,
}

/// A file that the configuration names. `{node}` in its path stands for the name of the node that reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The field that names it.
    pub field: String,
    /// The field's line.
    pub line: Option<usize>,
    /// The file.
    pub path: PathBuf,
    /// It holds a secret: nobody but its owner and group may read it.
    pub secret: bool,
}
