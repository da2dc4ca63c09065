//! Names and numbers that identify things. Each is a type of its own, so that a group's name cannot stand where a
//! region's is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    )+};
}

names! {
    /// The cluster's name: the same on every node, checked in every remote call and by every guard.
    ClusterName,
    /// A group: what fails over together.
    GroupName,
    /// A region, or the witness's site.
    RegionName,
    /// A node's name in the configuration (`hcmc-1`).
    NodeName,
    /// A probed target's name, unique in the cluster.
    TargetName,
    /// A host acted upon through its guard, unique in the cluster.
    HostName,
    /// A DNS provider's entry in the configuration.
    ProviderName,
    /// A receiver of pages in the configuration.
    ReceiverName,
    /// Somebody who is told, or called by hand.
    ContactName,
    /// An escalation ladder.
    LadderName,
    /// A run: UUIDv7, unique in the world.
    RunId,
    /// A step's name within its plan.
    StepId,
    /// A drill's schedule in the configuration, unique in its group.
    DrillName,
    /// A drill: UUIDv7, unique in the world.
    DrillId,
    /// Chosen by the caller of an admin call: the same id twice gives the first answer again.
    RequestId,
    /// SHA-256 of the configuration that all nodes must share, in hexadecimal.
    ConfigDigest,
    /// Who asked: a person (`user:linh`; `operator:linh` where it was said and not proved), a node (`node:hcmc-1`).
    Principal,
    /// A thing acted upon that keeps a token: `host:db-hcmc`, `zone:bind/example.vn`.
    ResourceName,
}

/// A node's number in Raft. Never reused, not even after the node was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for NodeId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// A fencing token: strictly increasing within a group, compared by the cluster's epoch first.
///
/// Issued only by applying a committed `ClaimRun`. (Kleppmann, "How to do distributed locking", 2016; Neon RFC 025.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The cluster's epoch: raised when a cluster is rebuilt.
    pub epoch: u64,
    /// Counts claims within the group and epoch; 0 is never issued.
    pub n: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

/// A token's text was not of the form `EPOCH.N`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("token {0:?} is not of the form EPOCH.N, for example 1.7")]
pub struct TokenParseError(pub String);

impl std::str::FromStr for Token {
    type Err = TokenParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || TokenParseError(text.to_owned());
        let number = |part: &str| {
            let canonical = part == "0" || !part.starts_with('0');
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if digits && canonical { part.parse::<u64>().ok() } else { None }
        };
        let (epoch, n) = text.split_once('.').ok_or_else(wrong)?;
        Ok(Self { epoch: number(epoch).ok_or_else(wrong)?, n: number(n).ok_or_else(wrong)? })
    }
}

/// Wall-clock time as data: milliseconds since 1970, for people. Nothing is decided by comparing two nodes' values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// Milliseconds since `earlier`, 0 where that lies later.
    pub fn since(self, earlier: UnixMs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This time, `ms` later.
    pub fn plus(self, ms: u64) -> UnixMs {
        UnixMs(self.0.saturating_add(ms))
    }
}
