//! What a node must be able to do for the admin service, and the plain facts it hands over.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::moving::MovingBackend;
use super::nodes::MembershipBackend;
use super::services::ServiceBackend;
use super::traffic::TrafficBackend;
use crate::domain::attempt::ReadBack;
use crate::domain::command::{Applied, Command, Rejection};
use crate::domain::ids::{
    GroupName, NodeId, NodeName, Principal, RegionName, RequestId, RunId, StepId, TargetName, Token,
};
use crate::domain::lease::LeaseAsked;
use crate::domain::observation::{Failure, Verdict};
use crate::domain::plan::Plan;
use crate::domain::policy::ClusterPolicy;
use crate::domain::readiness::Readiness;
use crate::domain::state::ClusterState;

/// One node, as the admin service needs it. Nothing here blocks except where it is `async`.
#[async_trait]
pub trait AdminBackend: MembershipBackend + MovingBackend + TrafficBackend + ServiceBackend {
    /// This node's own copy of the replicated state; changes whenever something was applied to it.
    fn state(&self) -> watch::Receiver<Arc<ClusterState>>;

    /// Who leads and whether a majority is in contact. Must change only when one of the fields does.
    fn standing(&self) -> watch::Receiver<NodeStanding>;

    /// The configuration this node runs under.
    fn policy(&self) -> Arc<ClusterPolicy>;

    /// What this node sees of the others; on the leader also votes and explanations.
    fn sight(&self) -> Sight;

    /// Proposes a command and waits until it is applied here. Called only while this node leads.
    ///
    /// A refusal by `apply` is `Ok(Applied::Rejected)`. Bounded by a time-out of its own.
    async fn propose(&self, command: Command) -> Result<Applied, ProposeError>;

    /// What `open_failover` would do: reads every resource of the plan under no token and changes nothing.
    async fn dry_run(&self, ask: &OpenFailover) -> Result<DryRun, ProposeError>;

    /// Resolves the plan and proposes `OpenRun`. Called only while this node leads.
    ///
    /// The same `request_id` again must answer the run that the first opened. Where the id is a UUIDv7, use it as the
    /// run's id: then a repeated call proposes the same run and nothing can be opened twice.
    async fn open_failover(&self, ask: OpenFailover) -> Result<RunId, ProposeError>;

    /// What would become of the group if its serving region vanished now; `to`: else the first other region with a plan.
    /// Reads every resource under no token and changes nothing. Called only while this node leads.
    async fn readiness(&self, group: &GroupName, to: Option<&RegionName>) -> Result<Readiness, ProposeError>;
}

/// Who leads, as one node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStanding {
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The leader it knows, itself included.
    pub leader: Option<Leader>,
    /// In contact with a majority: on the leader, a quorum acknowledged it lately; elsewhere, the leader was heard lately.
    pub has_quorum: bool,
    /// Raft's term.
    pub term: u64,
    /// In words, where there is no leader or no quorum ("1 of 3 voters answer it; 2 are needed"); else empty.
    pub note: String,
}

impl NodeStanding {
    /// This node leads.
    pub fn is_leader(&self) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.node == self.node)
    }
}

/// Where the leader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// `address:port` of its gRPC listener.
    pub address: String,
}

/// What one node sees of the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sight {
    /// Every node of the configuration and of the membership, this one included.
    pub nodes: Vec<NodeSight>,
    /// On the leader only: what it counts, by group.
    pub groups: Option<BTreeMap<GroupName, GroupSight>>,
    /// What is wrong or weak for as long as it lasts, such as a layout that cannot lose some region.
    pub warnings: Vec<String>,
}

/// A node, as another sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSight {
    /// Which node.
    pub node: NodeId,
    /// What the membership calls it, and where it has it stand; `None` where it is no member.
    pub member: Option<(NodeName, RegionName)>,
    /// Counts for quorum.
    pub is_voter: bool,
    /// It answers; `None` where this node cannot tell.
    pub is_reachable: Option<bool>,
    /// How long ago its last report came, milliseconds.
    pub last_report_age_ms: Option<u64>,
    /// It sees neither its references nor a majority of its peers.
    pub is_isolated: bool,
    /// It runs under another configuration than the one in force.
    pub other_config: bool,
    /// How many log entries it is behind.
    pub behind_entries: Option<u64>,
}

/// What the leader counts for a group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupSight {
    /// Why nothing happens and what is missing, or what is about to happen; a line each.
    pub explanation: Vec<String>,
    /// What each node says of each target.
    pub votes: Vec<VoteSight>,
    /// Replication into each region that has it measured.
    pub replication: Vec<ReplicationSight>,
    /// Mode `lease`: who holds what until when.
    pub lease: Option<LeaseSight>,
}

/// Mode `lease`, as the leader knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseSight {
    /// Why it is not bound; empty where it is.
    pub unbound: String,
    /// What the serving primary's guard asked last.
    pub asked: Option<LeaseAsked>,
    /// The node that answers here as the leader.
    pub granter: NodeId,
    /// How long ago the last request that it granted arrived, milliseconds.
    pub granted_ms: Option<u64>,
}

/// One node's judgement of one target.
#[derive(Debug, Clone, PartialEq)]
pub struct VoteSight {
    /// Which target.
    pub target: TargetName,
    /// The target's region.
    pub region: RegionName,
    /// Who judges.
    pub node: NodeId,
    /// What.
    pub verdict: Verdict,
    /// How long it has been so, milliseconds.
    pub held_ms: u64,
    /// How old the report is, milliseconds.
    pub age_ms: u64,
    /// Why it does not count (`isolated`, `expired`, `other configuration`, `never seen up`); `None` where it does.
    pub not_counted: Option<String>,
    /// Why it is not up.
    pub failure: Option<Failure>,
}

/// Replication into a region, the best a reporting node knows.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicationSight {
    /// Into which region.
    pub region: RegionName,
    /// The target that measures it.
    pub target: TargetName,
    /// The standby's receiver is connected and streaming.
    pub is_streaming: bool,
    /// What would be lost by promoting now, milliseconds of writes; `None` is unknown.
    pub expected_loss_ms: Option<u64>,
    /// Bytes of WAL the standby has not received.
    pub behind_bytes: Option<u64>,
}

/// An operator's wish to fail over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFailover {
    /// The group.
    pub group: GroupName,
    /// Where to.
    pub to: RegionName,
    /// Who.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// "I accept what is lost."
    pub accept_loss: bool,
    /// "I have looked: the database in this region is silent."
    pub assert_fence: Option<RegionName>,
    /// The group's token as the operator saw it.
    pub expected_token: Option<Token>,
    /// The caller's id.
    pub request_id: RequestId,
}

impl OpenFailover {
    /// A wish in which nobody vouches for anything. What other runs ask for by hand, and what a dry run reads under, is one too.
    pub fn plain(
        group: &GroupName,
        to: &RegionName,
        (by, reason): (&Principal, &str),
        expected_token: Option<Token>,
        request_id: &RequestId,
    ) -> Self {
        Self {
            group: group.clone(),
            to: to.clone(),
            by: by.clone(),
            reason: reason.to_owned(),
            accept_loss: false,
            assert_fence: None,
            expected_token,
            request_id: request_id.clone(),
        }
    }
}

/// What a failover would do.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// The resolved plan.
    pub plan: Plan,
    /// What each step's resource shows now; steps that are not here were not read.
    pub present: BTreeMap<StepId, ReadBack>,
    /// What is asked before the run opens and before promoting.
    pub gates: Vec<Gate>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// `quorum`, `pause`, `fence`, `loss` …
    pub name: String,
    /// It is met.
    pub is_open: bool,
    /// What was found, and what opens it.
    pub detail: String,
    /// Asked before promoting only: closed, the run opens but stops there.
    pub before_promote: bool,
}

/// Why a proposal has no answer from `apply`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not proposed: this node does not lead any more.
    #[error("this node does not lead any more; nothing was changed: ask again")]
    NotLeader,
    /// Certainly not proposed.
    #[error("{0}")]
    Unavailable(String),
    /// Certainly not proposed: no majority answers this node.
    #[error("{0}")]
    NoQuorum(String),
    /// It may or may not be applied.
    #[error("{0}")]
    Unknown(String),
    /// The answer is no.
    #[error("{}", .0.message)]
    Rejected(Rejection),
}
