//! A page: what on-call people are told, with a key that makes duplicates collapse.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{ContactName, GroupName, LadderName, ReceiverName, RunId, UnixMs};
use super::on_call::Level;

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

impl Severity {
    /// All of them, the most urgent first.
    pub const ALL: [Severity; 4] = [Severity::Critical, Severity::Error, Severity::Warning, Severity::Info];

    /// The severity's word.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
    }
}

/// What happens to the incident of that key. The words are PagerDuty's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageAction {
    /// Open it, or add to it.
    Trigger,
    /// Somebody has it.
    Acknowledge,
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
    /// Trigger, acknowledge or resolve.
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
    /// Whom it is meant for; `None` where it ends an incident, or says that somebody has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Notice>,
}

/// Whom a page is meant for, and how bad it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// How bad; none where it is for the record.
    pub level: Option<Level>,
    /// The ladder; none: everybody is told.
    pub ladder: Option<LadderName>,
    /// What for: `step 2 of 3`, `repeat 1 of 3`, `changed`, `everybody`, `test`.
    pub step: String,
    /// Who is told by it.
    pub contacts: Vec<Told>,
}

/// Somebody a page is meant for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Who.
    pub name: ContactName,
    /// What they are.
    pub role: String,
}
