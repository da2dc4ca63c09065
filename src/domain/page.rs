//! A page: what on-call people are told, with a key that makes duplicates collapse.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{GroupName, ReceiverName, RunId, UnixMs};

/// How urgent. The words are PagerDuty's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Wake someone.
    Critical,
    /// Something does not work.
    Error,
    /// Look at it today.
    Warning,
    /// For the record.
    Info,
}

/// What happens to the incident of that key. The words are PagerDuty's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageAction {
    /// Open it, or add to it.
    Trigger,
    /// It is over.
    Resolve,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// De-duplication key: `CLUSTER/GROUP/…`.
    pub key: String,
    /// The event's name: `DR_FAILOVER_SUCCESS`, `DR_FAILOVER_FAILED`, `LB_FAILOVER` (A10) and others in that style.
    pub event: String,
    /// Trigger or resolve.
    pub action: PageAction,
    /// How urgent.
    pub severity: Severity,
    /// One line for a phone's screen.
    pub summary: String,
    /// The group it concerns.
    pub group: Option<GroupName>,
    /// The run it concerns.
    pub run: Option<RunId>,
    /// Facts, by name.
    pub details: BTreeMap<String, String>,
}

/// Where a page stands with one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "delivery")]
pub enum Delivery {
    /// Not yet taken.
    Pending,
    /// Taken.
    Delivered {
        /// When, by the leader's clock.
        at: UnixMs,
    },
    /// Will never be taken (400): reported, not retried.
    Refused {
        /// When.
        at: UnixMs,
        /// What the receiver answered.
        reason: String,
    },
}

/// A page in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// Counts pages; strictly increasing.
    pub seq: u64,
    /// When it was put in.
    pub at: UnixMs,
    /// The page.
    pub page: Page,
    /// Every receiver in force when it was put in.
    pub deliveries: BTreeMap<ReceiverName, Delivery>,
}
