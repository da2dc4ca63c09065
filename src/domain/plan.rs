//! A plan: the whole resolved recipe of a run. It is carried in `OpenRun`, and whoever continues the run uses only it.
//! Secrets are never in it: it names the files that hold them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{HostName, ProviderName, RegionName, ResourceName, StepId};

/// Where a guard is reached, and how its host proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardEndpoint {
    /// The host's name in the configuration.
    pub host: HostName,
    /// `address:port` of its SSH server.
    pub address: String,
    /// SSH user whose forced command is the guard.
    pub user: String,
    /// The host's public key as in `known_hosts`: `ssh-ed25519 AAAA…`. Anything else is refused.
    pub host_key: String,
    /// The private key's file on the node.
    pub identity_file: String,
}

/// How a database is reached. The password, if any, is in a file on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseEndpoint {
    /// libpq key/value string without a password: `host=10.1.0.5 port=5432 user=watchdog dbname=aicamera`.
    pub conninfo: String,
    /// File whose first line is the password.
    pub password_file: Option<String>,
    /// PEM file of the authority to trust; with it TLS is required, without it none is used.
    pub tls_ca_file: Option<String>,
}

/// How a Redis server is reached. The password, if any, is in a file on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisEndpoint {
    /// `address:port`.
    pub address: String,
    /// The user of its access list; without one the default user.
    pub user: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<String>,
}

/// The kinds of record a failover repoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RecordKind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    #[serde(rename = "AAAA")]
    Aaaa,
    /// Another name, with its final dot.
    #[serde(rename = "CNAME")]
    Cname,
}

impl std::fmt::Display for RecordKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RecordKind::A => "A",
            RecordKind::Aaaa => "AAAA",
            RecordKind::Cname => "CNAME",
        })
    }
}

/// One record as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    /// Fully qualified, with its final dot.
    pub name: String,
    /// Type.
    pub kind: RecordKind,
    /// Time to live, seconds.
    pub ttl_s: u32,
    /// The value: an address, or a name with its final dot.
    pub value: String,
}

/// What answers for a zone. Credentials are read from files or the environment on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DnsProvider {
    /// Amazon Route 53.
    Route53 {
        /// The provider's name in the configuration.
        name: ProviderName,
        /// `Z…`.
        hosted_zone_id: String,
        /// Another endpoint than AWS's, for a compatible server.
        endpoint_url: Option<String>,
        /// Shared credentials file; without it the SDK's environment variables.
        credentials_file: Option<String>,
    },
    /// A primary name server taking RFC 2136 updates signed by TSIG (RFC 8945).
    Rfc2136 {
        /// The provider's name in the configuration.
        name: ProviderName,
        /// `address:port`.
        server: String,
        /// The zone's name with its final dot.
        zone: String,
        /// The key's name with its final dot.
        key_name: String,
        /// File whose first line is the key, base64. The algorithm is hmac-sha256.
        key_file: String,
    },
}

impl DnsProvider {
    /// The provider's name in the configuration.
    pub fn name(&self) -> &ProviderName {
        match self {
            DnsProvider::Route53 { name, .. } | DnsProvider::Rfc2136 { name, .. } => name,
        }
    }
}

/// One thing `verify` looks at. All are repeatable and change nothing but the token table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Check {
    /// `GET url` answers with the status.
    Http {
        /// Absolute URL.
        url: String,
        /// The status wanted.
        expect_status: u16,
        /// Connect to this `address:port` instead of resolving the URL's host.
        connect_to: Option<String>,
        /// Resolve the URL's host at this name server (`address:port`) instead of the system's resolver, so that what
        /// is checked is what the public name answers now.
        resolve_at: Option<String>,
    },
    /// The name server answers the name with exactly this value.
    DnsAnswers {
        /// `address:port` of the name server asked.
        server: String,
        /// What must be there.
        record: DnsRecord,
    },
    /// The Redis server is a primary and takes a write.
    RedisWritable {
        /// Where.
        server: RedisEndpoint,
    },
    /// The database takes a write: the run's token is inserted where it is higher (the table `watchdog_token`).
    DatabaseWritable {
        /// Where.
        database: DatabaseEndpoint,
    },
}

/// A guard's built-in actions for Redis, as named actions in a plan.
pub const REDIS_FENCE: &str = "redis-fence";
/// Stops its writes once another has everything.
pub const REDIS_HAND_OVER: &str = "redis-hand-over";
/// Makes a replica the primary.
pub const REDIS_PROMOTE: &str = "redis-promote";
/// Makes a fenced one a replica.
pub const REDIS_REJOIN: &str = "redis-rejoin";
/// Takes a hand-over back.
pub const REDIS_RELEASE: &str = "redis-release";

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// Stop the old primary for certain and latch it, on its own host. Read back.
    Fence {
        /// The old primary's host.
        guard: GuardEndpoint,
    },
    /// Repoint records by one compare-and-swap with the token. Read back.
    UpsertDns {
        /// Where.
        provider: DnsProvider,
        /// The TXT record that keeps the token, fully qualified.
        token_record: String,
        /// What they shall be.
        records: Vec<DnsRecord>,
    },
    /// Make the standby the primary. Never killed, only awaited. Read back.
    Promote {
        /// The standby's host.
        guard: GuardEndpoint,
    },
    /// A named action of a guard (`start-services`, `restart`, `scale` …). Read back.
    Guarded {
        /// Which host.
        guard: GuardEndpoint,
        /// The action's name in the guard's configuration.
        name: String,
        /// Declared parameters, checked by the guard's patterns.
        #[serde(default)]
        params: BTreeMap<String, String>,
    },
    /// Wait until nothing acknowledged is missing on the standby: the old primary was shut down cleanly, and the standby, of
    /// the same system identifier and timeline, has received and replayed past its shutdown checkpoint. Changes nothing.
    /// Repeatable.
    CatchUp {
        /// The old primary's host.
        from: GuardEndpoint,
        /// The standby's host.
        to: GuardEndpoint,
    },
    /// Make a fenced, cleanly stopped old primary the primary again: its latch is cleared, it is started, and awaited until
    /// it takes writes. Only ever an undoing of this run's fence. Read back.
    Release {
        /// The old primary's host.
        guard: GuardEndpoint,
    },
    /// Look whether the other side really works. Repeatable.
    Verify {
        /// All must hold.
        checks: Vec<Check>,
    },
}

impl Action {
    /// A word for people: `fence`, `catch-up`, `dns`, `promote`, `release`, the guarded action's name, `verify`.
    pub fn verb(&self) -> &str {
        match self {
            Action::Fence { .. } => "fence",
            Action::UpsertDns { .. } => "dns",
            Action::Promote { .. } => "promote",
            Action::Guarded { name, .. } => name,
            Action::CatchUp { .. } => "catch-up",
            Action::Release { .. } => "release",
            Action::Verify { .. } => "verify",
        }
    }

    /// The thing acted upon that keeps the token; `None` where nothing is changed.
    pub fn resource(&self) -> Option<ResourceName> {
        match self {
            Action::Fence { guard }
            | Action::Promote { guard }
            | Action::Release { guard }
            | Action::Guarded { guard, .. } => Some(ResourceName(format!("host:{}", guard.host))),
            Action::UpsertDns { provider, token_record, .. } => {
                Some(ResourceName(format!("zone:{}/{token_record}", provider.name())))
            }
            Action::CatchUp { .. } | Action::Verify { .. } => None,
        }
    }

    /// It acts upon Redis.
    pub fn is_redis(&self) -> bool {
        matches!(self, Action::Guarded { name, .. } if name.starts_with("redis-"))
    }

    /// On the way back: whether what `forward` did must be known first. Redis holds no database up.
    pub fn waits_for(&self, forward: &Action) -> bool {
        self.is_redis() || !forward.is_redis()
    }

    /// It stops a server of the side that is left, or lets it go on: that host may come back any moment.
    pub fn is_at_old_primary(&self) -> bool {
        let is_of_redis = || [REDIS_FENCE, REDIS_RELEASE].iter().any(|name| self.is_named(name));
        matches!(self, Action::Fence { .. } | Action::Release { .. }) || is_of_redis()
    }

    /// It is the guard's action of that name.
    pub fn is_named(&self, wanted: &str) -> bool {
        matches!(self, Action::Guarded { name, .. } if name == wanted)
    }

    /// May be done again without harm where its outcome is unknown and cannot be read back.
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Action::CatchUp { .. } | Action::Verify { .. })
    }
}

/// How often a step is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// At most this many attempts before the run is stuck.
    pub max_attempts: u32,
    /// Wait after the first failure, milliseconds; doubles with each further one, jittered by the executor.
    pub backoff_ms: u64,
    /// Never wait longer than this, milliseconds.
    pub backoff_max_ms: u64,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name, unique in the plan.
    pub id: StepId,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
    /// An attempt never outlives this, milliseconds.
    pub deadline_ms: u64,
    /// How often it is tried.
    pub retry: Retry,
    /// The next stage waits for it. A last stage that only looks waits for every step, blocking or not; so does the run's end.
    pub blocking: bool,
}

/// Steps that run side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// In the order of the configuration.
    pub steps: Vec<Step>,
}

/// Stages, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// From which region (it may be dead).
    pub from: RegionName,
    /// To which.
    pub to: RegionName,
    /// In order.
    pub stages: Vec<Stage>,
    /// What puts writing back on the old primary, in order: carried out only by a planned move that turns back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undo: Vec<Stage>,
}

impl Plan {
    /// Every step of the way forward with its stage's number, in order.
    pub fn steps(&self) -> impl Iterator<Item = (usize, &Step)> {
        numbered(&self.stages)
    }

    /// Every step of the way back with its stage's number, in order.
    pub fn undo_steps(&self) -> impl Iterator<Item = (usize, &Step)> {
        numbered(&self.undo)
    }

    /// The step of that name stands on the way forward.
    pub fn is_forward(&self, id: &StepId) -> bool {
        self.steps().any(|(_, step)| &step.id == id)
    }

    /// It promotes a standby.
    pub fn promotes(&self) -> bool {
        self.steps().any(|(_, step)| matches!(step.action, Action::Promote { .. }))
    }

    /// The host whose Redis server it promotes.
    pub fn redis_to_promote(&self) -> Option<&HostName> {
        self.steps().find_map(|(_, step)| match &step.action {
            Action::Guarded { guard, name, .. } if name == REDIS_PROMOTE => Some(&guard.host),
            _ => None,
        })
    }

    /// Steps of the way forward that this one waits for whatever their stage: a Redis server is not promoted before the old
    /// one is fenced, where the plan fences it.
    pub fn waited_for<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = &'a Step> {
        let fences = |other: &&Step| [REDIS_FENCE, REDIS_HAND_OVER].iter().any(|name| other.action.is_named(name));
        self.steps().map(|(_, other)| other).filter(move |other| step.action.is_named(REDIS_PROMOTE) && fences(other))
    }

    /// Every step there is, forward and back.
    pub fn all_steps(&self) -> impl Iterator<Item = &Step> {
        self.steps().chain(self.undo_steps()).map(|(_, step)| step)
    }

    /// The step of that name, forward or back.
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.all_steps().find(|step| &step.id == id)
    }
}

fn numbered(stages: &[Stage]) -> impl Iterator<Item = (usize, &Step)> {
    stages.iter().enumerate().flat_map(|(n, stage)| stage.steps.iter().map(move |step| (n, step)))
}
