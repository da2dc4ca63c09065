//! The replicated state: what every node holds after applying the same log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::command::{Applied, Command, Rejection, RejectionCode};
use super::ids::{
    ClusterName, ConfigDigest, GroupName, NodeId, Principal, ReceiverName, RegionName, RequestId, ResourceName, RunId,
    TargetName, Token, UnixMs,
};
use super::page::OutboxEntry;
use super::policy::Fencing;
use super::run::Run;

/// Which region may accept writes now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// `None`: nobody, between the fence's start and the promotion's.
    pub region: Option<RegionName>,
    /// The last region that served: what a run moves away from.
    pub last: RegionName,
    /// Counts changes of `region`.
    pub epoch: u64,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who.
    pub by: Principal,
    /// Since when.
    pub at: UnixMs,
    /// Why.
    pub reason: String,
    /// When it ends by itself.
    pub until: Option<UnixMs>,
}

/// A resource where an aborted or skipped step may still have an effect under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    /// The run that left it.
    pub run: RunId,
    /// The token to raise there.
    pub token: Token,
    /// Since when.
    pub since: UnixMs,
    /// The action to read back by.
    pub action: super::plan::Action,
}

/// The last failover that completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailover {
    /// Which run.
    pub run: RunId,
    /// When it closed.
    pub at: UnixMs,
    /// Nobody asked for it.
    pub automatic: bool,
    /// The serving epoch it was opened in.
    pub serving_epoch: u64,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Where it serves from when all is well.
    pub home: RegionName,
    /// Every region that may serve it.
    pub regions: Vec<RegionName>,
    /// Which region may accept writes.
    pub serving: Serving,
    /// The last token issued; n = 0 where none was.
    pub token: Token,
    /// Paused by whom, why, until when.
    pub pause: Option<Pause>,
    /// The fencing mode in force.
    pub fencing: Fencing,
    /// The run that is not closed: at most one (P1).
    pub open_run: Option<Run>,
    /// Closed runs, newest last, bounded.
    pub history: VecDeque<Run>,
    /// The last failover that succeeded.
    pub last_failover: Option<LastFailover>,
    /// Targets seen up under the digest in force.
    pub seen_up: BTreeSet<TargetName>,
    /// Resources to settle before anything else is done to them.
    pub unsettled: BTreeMap<ResourceName, Unsettled>,
}

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Position in the log.
    pub index: u64,
    /// By the proposer's clock.
    pub at: UnixMs,
    /// The proposing node.
    pub node: NodeId,
    /// Who asked.
    pub by: Principal,
    /// The group.
    pub group: Option<GroupName>,
    /// The change, with what matters of it.
    pub what: String,
    /// Why.
    pub reason: String,
    /// `done`, or why it was rejected.
    pub outcome: String,
}

/// Answers to admin calls, kept so that the same request id gets the first answer again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The request.
    pub id: RequestId,
    /// What it asked for: the same id for something else is refused.
    pub change: String,
    /// What was answered.
    pub applied: Applied,
}

/// Everything that is replicated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The cluster's name, once a configuration was adopted.
    pub cluster: Option<ClusterName>,
    /// Its epoch.
    pub epoch: u64,
    /// The configuration in force.
    pub digest: Option<ConfigDigest>,
    /// Who is paged.
    pub receivers: Vec<ReceiverName>,
    /// The groups.
    pub groups: BTreeMap<GroupName, GroupState>,
    /// Pages not yet settled with every receiver, oldest first, and the newest that are.
    pub outbox: VecDeque<OutboxEntry>,
    /// The next page's number.
    pub next_page: u64,
    /// Bounded; older entries are in each node's audit file.
    pub audit: VecDeque<AuditEntry>,
    /// Bounded.
    pub answered: VecDeque<Answered>,
    /// Position of the last command applied.
    pub applied_index: u64,
}

impl ClusterState {
    /// Applies one committed command. Deterministic and total: what is stale or illegal is a recorded rejection.
    pub fn apply(&mut self, index: u64, command: &Command) -> Applied {
        self.applied_index = index;
        let _ = command;
        Applied::Rejected(Rejection { code: RejectionCode::Invalid, message: String::new() })
    }
}
