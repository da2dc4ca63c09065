//! A group's rules as the configuration gives them, validated and resolved: what `decide` weighs, and the plans it opens.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::drill::DrillRules;
use super::ids::{ClusterName, ConfigDigest, GroupName, NodeId, NodeName, ReceiverName, RegionName, TargetName};
use super::layout::{self, Loss};
use super::on_call::OnCall;
use super::plan::Plan;
use super::service::ServiceRule;

/// How many of a trigger's targets must be down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Every one.
    All,
    /// One is enough.
    Any,
    /// At least so many.
    AtLeast(u32),
}

/// What a group's region must show before it counts as lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Targets of that region.
    pub targets: Vec<TargetName>,
    /// How many of them.
    pub need: Need,
}

/// What replication lag above its limit does (A3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LagAction {
    /// Pages only.
    Page,
    /// Pages, and blocks an automatic failover while it lasts.
    Gate,
    /// Pages, and is a trigger by itself: the users' procedure to the letter.
    Failover,
}

/// How a group proves that its old primary is silent (P4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum Fencing {
    /// The old primary's guard shows it stopped and latched, or an operator asserts it.
    Confirm,
    /// As `confirm`; or the old primary's lease provably ran out while it was bound.
    Lease {
        /// How long one renewal lets the primary answer its clients, milliseconds.
        ttl_ms: u64,
    },
    /// A standing assertion, by name, that two primaries can do no harm here.
    None {
        /// Who asserts it.
        asserted_by: String,
    },
}

impl Fencing {
    /// The mode's word.
    pub fn word(&self) -> &'static str {
        match self {
            Fencing::Confirm => "confirm",
            Fencing::Lease { .. } => "lease",
            Fencing::None { .. } => "none",
        }
    }
}

/// One group's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPolicy {
    /// Where it serves from when all is well.
    pub home: RegionName,
    /// Every region that can serve it, home first.
    pub regions: Vec<RegionName>,
    /// Decide, record and page, but do nothing.
    pub shadow: bool,
    /// How the old primary is proved silent.
    pub fencing: Fencing,
    /// For each region: what must be down before a failover away from it opens.
    pub triggers: BTreeMap<RegionName, Trigger>,
    /// How long the trigger must last, milliseconds.
    pub hold_down_ms: u64,
    /// No automatic failover so soon after the last one, milliseconds.
    pub cooldown_ms: u64,
    /// An observation older than this is no evidence, milliseconds.
    pub observation_ttl_ms: u64,
    /// P5: at most so much may be lost by an automatic promotion, milliseconds of writes.
    pub rpo_limit_ms: u64,
    /// For each region: the target that measures replication into it.
    pub replication: BTreeMap<RegionName, TargetName>,
    /// For each region: the target that looks at its Redis server. Left out of the digest where there is none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redis: BTreeMap<RegionName, TargetName>,
    /// What lag above `lag_limit_ms` does.
    pub lag_action: LagAction,
    /// The limit, milliseconds.
    pub lag_limit_ms: u64,
    /// For each region: its load balancer's target; down alone it opens a `traffic` run (C1).
    pub load_balancers: BTreeMap<RegionName, TargetName>,
    /// A fence that finds no proof for so long makes the run stuck, milliseconds.
    pub fence_patience_ms: u64,
    /// A planned move begins only while the standby lags no more than this, milliseconds.
    pub switchover_max_lag_ms: u64,
    /// A planned move that has stopped the writing for so long without promoting turns back, milliseconds.
    pub switchover_timeout_ms: u64,
    /// The plans of a planned move, by the region moved to (each names the region it comes from).
    pub switchover_plans: Vec<Plan>,
    /// The plans that make a region's database a standby of another's.
    pub rejoin_plans: Vec<RejoinPlan>,
    /// The plans of a failover, by the region moved to (each names the region it comes from).
    pub failover_plans: Vec<Plan>,
    /// The plans of a traffic run.
    pub traffic_plans: Vec<Plan>,
    /// Services that can be recovered by themselves (C2).
    #[serde(default)]
    pub services: Vec<ServiceRule>,
    /// What serves after a move is watched closely for so long, milliseconds; 0: not at all.
    #[serde(default)]
    pub monitor_ms: u64,
    /// For each region: its targets that are to be well while it serves.
    #[serde(default)]
    pub targets: BTreeMap<RegionName, BTreeSet<TargetName>>,
    /// The recovery-time objective, milliseconds, shown beside what was reached.
    pub rto_objective_ms: Option<u64>,
    /// Readiness is weak when the last drill that succeeded is older, milliseconds.
    pub drill_max_age_ms: u64,
    /// What is rehearsed when. Left out of the digest where nothing is configured.
    #[serde(default, skip_serializing_if = "DrillRules::is_empty")]
    pub drills: DrillRules,
}

/// How one region's old primary becomes a standby again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinPlan {
    /// Whose primary it follows from then on.
    pub upstream: RegionName,
    /// The plan: from and to the region acted upon.
    pub plan: Plan,
}

impl GroupPolicy {
    /// The plan of a planned move between two regions.
    pub fn switchover_plan(&self, from: &RegionName, to: &RegionName) -> Option<&Plan> {
        self.switchover_plans.iter().find(|plan| &plan.from == from && &plan.to == to)
    }

    /// The plan that makes a region's database a standby of another's.
    pub fn rejoin_plan(&self, region: &RegionName, upstream: &RegionName) -> Option<&Plan> {
        let fits = |known: &&RejoinPlan| &known.plan.to == region && &known.upstream == upstream;
        self.rejoin_plans.iter().find(fits).map(|known| &known.plan)
    }

    /// Every plan a run of the group may have.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        let rejoin = self.rejoin_plans.iter().map(|known| &known.plan);
        let services = self.services.iter().flat_map(|service| service.plans.values());
        self.failover_plans
            .iter()
            .chain(&self.switchover_plans)
            .chain(&self.traffic_plans)
            .chain(rejoin)
            .chain(services)
    }

    /// The failover plan between two regions.
    pub fn failover_plan(&self, from: &RegionName, to: &RegionName) -> Option<&Plan> {
        self.failover_plans.iter().find(|plan| &plan.from == from && &plan.to == to)
    }
}

/// A member as the configuration names it. Its region comes from here only, never from what was probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Name.
    pub name: NodeName,
    /// Region or witness site.
    pub region: RegionName,
}

/// Everything `decide` needs to know beyond the replicated state and what is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPolicy {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Its epoch.
    pub epoch: u64,
    /// Digest of the shared configuration.
    pub digest: ConfigDigest,
    /// Nodes by number.
    pub members: BTreeMap<NodeId, Member>,
    /// Regions whose loss may leave no majority, accepted by name.
    #[serde(default)]
    pub accepted_losses: BTreeSet<RegionName>,
    /// Who is paged.
    pub receivers: Vec<ReceiverName>,
    /// Who of them when, and how bad what is.
    #[serde(default)]
    pub on_call: OnCall,
    /// The groups.
    pub groups: BTreeMap<GroupName, GroupPolicy>,
}

impl ClusterPolicy {
    /// Regions that can serve some group.
    pub fn serving_regions(&self) -> BTreeSet<RegionName> {
        self.groups.values().flat_map(|group| group.regions.iter().cloned()).collect()
    }

    /// What becomes of the cluster when each region that can serve is lost, with these voters. A voter that this
    /// configuration does not know stands nowhere.
    pub fn layout_of(&self, voters: impl IntoIterator<Item = NodeId>) -> Vec<Loss> {
        let region = |id| self.members.get(&id).map(|member| &member.region);
        layout::judge(&self.serving_regions(), &self.accepted_losses, voters.into_iter().map(region))
    }
}
