//! "If this region vanished now": would its group come up in the other one by itself, how soon, and with what loss? Judged
//! from what is seen and read at one moment; nothing is changed by it. [`resources`] judges what would be acted upon,
//! [`past`] what the group has been through, [`mark`] is what is remembered of a judgement.

pub mod mark;
mod past;
mod resources;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::past::Past;
pub use self::resources::{ActionSeen, GuardSeen, ZoneSeen, fence_host, redis_unlatch};
use super::attempt::{Prospect, ReadBack};
use super::decide::loss_obstacle;
use super::ids::{GroupName, HostName, NodeId, RegionName, StepId, UnixMs};
use super::lease::silence_ms;
use super::loss::Loss;
use super::observation::RedisMeasure;
use super::plan::Plan;
use super::policy::{ClusterPolicy, Fencing, GroupPolicy};
use super::quorum::need_of;
use super::state::GroupState;
use super::text::without_measures;

/// From the decision to the first write elsewhere, besides any waiting for proof, milliseconds: what fence, promotion and
/// DNS are allowed to take (design, section 18).
const ACT_MS: u64 = 500;
/// An election, milliseconds.
const ELECTION_MS: u64 = 3000;

/// Whether one thing holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// It does.
    Yes,
    /// The failover would come through, but later, with less than it should have, or after a person's word.
    Weak,
    /// It could not be judged, which is not good.
    Unknown,
    /// The failover would not come through by itself.
    No,
}

impl Holds {
    /// `yes`, `weak`, `unknown`, `no`.
    pub fn word(self) -> &'static str {
        match self {
            Holds::Yes => "yes",
            Holds::Weak => "weak",
            Holds::Unknown => "unknown",
            Holds::No => "no",
        }
    }
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What.
    pub name: &'static str,
    /// Whether.
    pub holds: Holds,
    /// Why not, in words that stay the same while the cause does; empty where it does.
    pub reason: String,
    /// What was found, and what to do where it is not well.
    pub detail: String,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The region that would vanish.
    pub from: RegionName,
    /// Where the group would go.
    pub to: RegionName,
    /// In the order of a failover.
    pub items: Vec<Item>,
    /// What would be lost.
    pub loss: Loss,
    /// P5's limit, milliseconds.
    pub loss_limit_ms: u64,
    /// From the fault to the first write in `to`, about, milliseconds. `None`: a person would be needed.
    pub recovery_ms: Option<u64>,
    /// How that is made up.
    pub recovery: Vec<String>,
    /// What the group's failovers took so far.
    pub past: Option<Past>,
    /// The objective, milliseconds.
    pub objective_ms: Option<u64>,
}

impl Readiness {
    /// The group would fail over: by itself, or where `recovery_ms` is `None`, after a person's word.
    pub fn is_ready(&self) -> bool {
        self.items.iter().all(|item| item.holds <= Holds::Weak)
    }

    /// The group would fail over, but not before a person's word: nothing else is missing.
    pub fn waits_for_a_person(&self) -> bool {
        self.is_ready() && self.recovery_ms.is_none()
    }
}

/// What was seen and read.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The group's name.
    pub name: &'a GroupName,
    /// The configuration.
    pub policy: &'a ClusterPolicy,
    /// The group as it stands.
    pub group: &'a GroupState,
    /// The plan from the serving region.
    pub plan: &'a Plan,
    /// The leader.
    pub leader: NodeId,
    /// Every voter.
    pub voters: &'a BTreeSet<NodeId>,
    /// Those that answer the leader, itself included.
    pub answering: &'a BTreeSet<NodeId>,
    /// Those that run under another configuration than the one in force.
    pub other_config: &'a BTreeSet<NodeId>,
    /// What each guarded step's resource shows.
    pub present: &'a BTreeMap<StepId, ReadBack>,
    /// What each guard of the plan says it could do.
    pub guards: &'a BTreeMap<HostName, GuardSeen>,
    /// What the provider of each DNS step shows.
    pub zones: &'a BTreeMap<StepId, ZoneSeen>,
    /// Whether the promotion could succeed now.
    pub prospect: Option<Prospect>,
    /// Replication into the target region streams.
    pub is_streaming: bool,
    /// The Redis server in the target region as it was last seen; the inner `None` where nobody sees it, the outer where the
    /// group has none there.
    pub redis: Option<Option<RedisMeasure>>,
    /// The expected loss.
    pub loss: Loss,
    /// Mode `lease`: why the lease is not bound; empty where it is.
    pub unbound: &'a str,
    /// How long a region that falls silent goes unnoticed, milliseconds: until the first failed probe, and until it is `down`.
    pub notice: Option<(u64, u64)>,
    /// What keeps an automatic failover from opening whatever is seen ([`super::decide::standing_obstacle`]).
    pub obstacle: Option<String>,
    /// By the leader's clock, for how old things are.
    pub now: UnixMs,
}

/// Judges.
pub fn judge(facts: &Facts<'_>, rules: &GroupPolicy) -> Readiness {
    let mut items = vec![
        quorum(facts),
        decision(facts, rules),
        resources::fence(facts),
        resources::standby(facts),
        loss(facts, rules),
        resources::dns(facts),
        resources::token(facts),
        resources::guards(facts),
        resources::services(facts),
        past::drill(facts, rules),
    ];
    items.extend(resources::redis(facts));
    let mut readiness = Readiness {
        from: facts.plan.from.clone(),
        to: facts.plan.to.clone(),
        items,
        loss: facts.loss.clone(),
        loss_limit_ms: rules.rpo_limit_ms,
        recovery_ms: None,
        recovery: Vec::new(),
        past: past::past(facts.group),
        objective_ms: rules.rto_objective_ms,
    };
    if readiness.is_ready()
        && facts.group.fencing != Fencing::Confirm
        && let Some(notice) = facts.notice
    {
        let (recovery_ms, recovery) = recovery(facts, rules, notice);
        readiness.recovery_ms = Some(recovery_ms);
        readiness.recovery = recovery;
    }
    readiness
}

fn yes(name: &'static str, detail: impl Into<String>) -> Item {
    Item { name, holds: Holds::Yes, reason: String::new(), detail: detail.into() }
}

fn weak(name: &'static str, reason: impl Into<String>, detail: impl Into<String>) -> Item {
    Item { name, holds: Holds::Weak, reason: reason.into(), detail: detail.into() }
}

fn no(name: &'static str, reason: impl Into<String>, detail: impl Into<String>) -> Item {
    Item { name, holds: Holds::No, reason: reason.into(), detail: detail.into() }
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

fn names(facts: &Facts<'_>, nodes: &[NodeId]) -> String {
    let name =
        |id: &NodeId| facts.policy.members.get(id).map_or_else(|| id.to_string(), |member| member.name.0.clone());
    nodes.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn leads_from_the_lost_region(facts: &Facts<'_>) -> bool {
    facts.policy.members.get(&facts.leader).is_some_and(|member| member.region == facts.plan.from)
}

fn quorum(facts: &Facts<'_>) -> Item {
    // A voter that the configuration does not know may stand anywhere: it is not counted on.
    let outside = |id: &&NodeId| facts.policy.members.get(*id).is_some_and(|member| member.region != facts.plan.from);
    let stands: Vec<NodeId> = facts.voters.iter().filter(outside).copied().collect();
    let (answers, silent): (Vec<NodeId>, Vec<NodeId>) = stands.iter().partition(|id| facts.answering.contains(id));
    let (voters, needed) = (facts.voters.len(), facts.voters.len() / 2 + 1);
    let from = &facts.plan.from;
    if stands.len() < needed {
        let reason = format!("{} of {voters} voters stand outside {from}, {needed} are needed", stands.len());
        return no("quorum", reason.clone(), format!("{reason}: nobody could decide"));
    }
    if answers.len() < needed {
        let reason = format!("{} of {voters} voters outside {from} answer, {needed} are needed", answers.len());
        return no("quorum", reason.clone(), format!("{reason}: start {}", names(facts, &silent)));
    }
    let can_act = answers.iter().any(|id| !facts.other_config.contains(id));
    if !can_act {
        let reason = format!(
            "{} run under another configuration than the one in force: none of them would act",
            names(facts, &answers)
        );
        return no("quorum", reason.clone(), reason);
    }
    let spare = match answers.len() - needed {
        0 => "none to spare".to_owned(),
        spare => format!("{spare} to spare"),
    };
    let detail = format!("{} of {voters} voters answer outside {from}, {needed} are needed, {spare}", answers.len());
    if leads_from_the_lost_region(facts) {
        let reason = format!("{} leads and would be lost too: an election comes first", names(facts, &[facts.leader]));
        return weak("quorum", reason.clone(), format!("{detail}; {reason}"));
    }
    if silent.is_empty() {
        return yes("quorum", detail);
    }
    let reason = format!("{} does not answer", names(facts, &silent));
    weak("quorum", reason.clone(), format!("{detail}; {reason}"))
}

fn decision(facts: &Facts<'_>, rules: &GroupPolicy) -> Item {
    let (group, from) = (facts.group, &facts.plan.from);
    let just = |reason: String| no("decision", reason.clone(), reason);
    if let Some(run) = &group.open_run {
        let reason = format!("run {} is open: one at a time", run.id);
        let detail =
            format!("run {} is {}: one at a time; watchdogctl run show {}", run.id, run.phase.word(), facts.name);
        return no("decision", reason, detail);
    }
    if let Some(obstacle) = &facts.obstacle {
        let way = if group.pause.is_some() { format!("; watchdogctl resume {}", facts.name) } else { String::new() };
        return no("decision", without_measures(obstacle), format!("{obstacle}{way}"));
    }
    let Some(trigger) = rules.triggers.get(from) else {
        return just(format!("{from} has no trigger: only an operator moves the group away"));
    };
    let never: Vec<&str> = trigger
        .targets
        .iter()
        .filter(|target| !group.seen_up.contains(*target))
        .map(|target| target.as_str())
        .collect();
    if trigger.targets.len() - never.len() < need_of(trigger) {
        return just(format!("{} was never seen up under this configuration: it cannot trigger", never.join(", ")));
    }
    yes("decision", format!("automatic, once it has lasted for the hold-down of {}", seconds(rules.hold_down_ms)))
}

fn loss(facts: &Facts<'_>, rules: &GroupPolicy) -> Item {
    if facts.prospect.is_none() {
        return yes("loss", "nothing is promoted, so nothing is lost");
    }
    let Some(obstacle) = loss_obstacle(rules, Some(&facts.loss), &facts.plan.to) else {
        return yes("loss", format!("{}; the limit is {}", facts.loss, seconds(rules.rpo_limit_ms)));
    };
    let reason = match &facts.loss {
        Loss::AtMost { .. } => "more than the limit would be lost",
        Loss::Unknown { .. } => "what would be lost is unknown, which exceeds the limit",
    };
    no("loss", reason, obstacle)
}

/// About how long until somebody writes on the other side, when the whole region falls silent at once.
fn recovery(facts: &Facts<'_>, rules: &GroupPolicy, (first_ms, down_ms): (u64, u64)) -> (u64, Vec<String>) {
    let mut decided_ms = down_ms.max(first_ms.saturating_add(rules.hold_down_ms));
    let mut made_of = vec![format!(
        "{} until a majority has seen it down for the hold-down (first failure after {}, down after {}, hold-down {})",
        seconds(decided_ms),
        seconds(first_ms),
        seconds(down_ms),
        seconds(rules.hold_down_ms)
    )];
    let mut silent_ms = match (&facts.group.fencing, &facts.group.lease) {
        (Fencing::Lease { .. }, Some(lease)) => silence_ms(lease.ttl_ms),
        _ => 0,
    };
    if leads_from_the_lost_region(facts) {
        // A new leader counts silence from its own beginning, and takes no want of a lease for evidence before two TTLs.
        let patience_ms = facts.group.lease.as_ref().map_or(0, |lease| lease.ttl_ms.saturating_mul(2));
        silent_ms = if silent_ms == 0 { 0 } else { silent_ms.saturating_add(ELECTION_MS) };
        decided_ms = decided_ms.max(ELECTION_MS.saturating_add(patience_ms));
        made_of.push(format!("{} with the election of another leader, beside it", seconds(decided_ms)));
    }
    if silent_ms > 0 {
        made_of.push(format!("{} until the lease has provably run out, beside it", seconds(silent_ms)));
    }
    made_of.push(format!("{} for fence, promotion and DNS", seconds(ACT_MS)));
    (decided_ms.max(silent_ms).saturating_add(ACT_MS), made_of)
}

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "readiness_mark_tests.rs"]
mod mark_tests;
