//! "If this region vanished now": would its group come up in the other one by itself, how soon, and with what loss? Judged
//! from what is seen and read at one moment; nothing is changed by it.

use std::collections::{BTreeMap, BTreeSet};

use super::attempt::{Prospect, ReadBack};
use super::decide::loss_obstacle;
use super::ids::{GroupName, HostName, NodeId, RegionName, StepId};
use super::lease::silence_ms;
use super::loss::Loss;
use super::plan::{Action, Plan, Step};
use super::policy::{ClusterPolicy, Fencing, GroupPolicy};
use super::quorum::need_of;
use super::state::GroupState;

/// From the decision to the first write elsewhere, besides any waiting for proof, milliseconds: what fence, promotion and
/// DNS are allowed to take (design, section 18).
const ACT_MS: u64 = 500;
/// An election, milliseconds.
const ELECTION_MS: u64 = 3000;

/// Whether one thing holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    /// It does.
    Yes,
    /// The failover would come through, but later or with less than it should have.
    Weak,
    /// The failover would not come through by itself.
    No,
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What.
    pub name: &'static str,
    /// Whether.
    pub holds: Holds,
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
    /// From the fault to the first write in `to`, about, milliseconds. `None`: nothing would happen by itself.
    pub recovery_ms: Option<u64>,
    /// How that is made up.
    pub recovery: Vec<String>,
    /// The objective, milliseconds.
    pub objective_ms: Option<u64>,
}

impl Readiness {
    /// The group would fail over by itself.
    pub fn is_ready(&self) -> bool {
        self.items.iter().all(|item| item.holds != Holds::No)
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
    /// What each step's resource shows.
    pub present: &'a BTreeMap<StepId, ReadBack>,
    /// Whether the promotion could succeed now.
    pub prospect: Option<Prospect>,
    /// Replication into the target region streams.
    pub is_streaming: bool,
    /// The expected loss.
    pub loss: Loss,
    /// Mode `lease`: why the lease is not bound; empty where it is.
    pub unbound: &'a str,
    /// How long a region that falls silent goes unnoticed, milliseconds: until the first failed probe, and until it is `down`.
    pub notice: Option<(u64, u64)>,
    /// What keeps an automatic failover from opening whatever is seen ([`super::decide::standing_obstacle`]).
    pub obstacle: Option<String>,
}

/// Judges.
pub fn judge(facts: &Facts<'_>, rules: &GroupPolicy) -> Readiness {
    let items = vec![
        quorum(facts),
        decision(facts, rules),
        fence(facts),
        standby(facts),
        loss(facts, rules),
        dns(facts),
        services(facts),
    ];
    let mut readiness = Readiness {
        from: facts.plan.from.clone(),
        to: facts.plan.to.clone(),
        items,
        loss: facts.loss.clone(),
        loss_limit_ms: rules.rpo_limit_ms,
        recovery_ms: None,
        recovery: Vec::new(),
        objective_ms: rules.rto_objective_ms,
    };
    if readiness.is_ready()
        && let Some(notice) = facts.notice
    {
        let (recovery_ms, recovery) = recovery(facts, rules, notice);
        readiness.recovery_ms = Some(recovery_ms);
        readiness.recovery = recovery;
    }
    readiness
}

fn item(name: &'static str, holds: Holds, detail: impl Into<String>) -> Item {
    Item { name, holds, detail: detail.into() }
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
        let detail = format!(
            "{} of {voters} voters stand outside {from}, {needed} are needed: nobody could decide",
            stands.len()
        );
        return item("quorum", Holds::No, detail);
    }
    if answers.len() < needed {
        let detail = format!(
            "{} of {voters} voters outside {from} answer, {needed} are needed: start {}",
            answers.len(),
            names(facts, &silent)
        );
        return item("quorum", Holds::No, detail);
    }
    let can_act = answers.iter().any(|id| !facts.other_config.contains(id));
    if !can_act {
        let detail = format!(
            "{} run under another configuration than the one in force: none of them would act",
            names(facts, &answers)
        );
        return item("quorum", Holds::No, detail);
    }
    let detail = format!("{} of {voters} voters answer outside {from}, {needed} are needed", answers.len());
    if leads_from_the_lost_region(facts) {
        let leader = names(facts, &[facts.leader]);
        return item(
            "quorum",
            Holds::Weak,
            format!("{detail}; {leader} leads and would be lost too: an election comes first"),
        );
    }
    let missing =
        if silent.is_empty() { String::new() } else { format!("; {} does not answer", names(facts, &silent)) };
    item("quorum", if silent.is_empty() { Holds::Yes } else { Holds::Weak }, detail + &missing)
}

fn decision(facts: &Facts<'_>, rules: &GroupPolicy) -> Item {
    let no = |detail: String| item("decision", Holds::No, detail);
    let (group, from) = (facts.group, &facts.plan.from);
    if let Some(run) = &group.open_run {
        return no(format!(
            "run {} is {}: one at a time; watchdogctl run show {}",
            run.id,
            run.phase.word(),
            facts.name
        ));
    }
    if let Some(obstacle) = &facts.obstacle {
        let way = if group.pause.is_some() { format!("; watchdogctl resume {}", facts.name) } else { String::new() };
        return no(format!("{obstacle}{way}"));
    }
    let Some(trigger) = rules.triggers.get(from) else {
        return no(format!("{from} has no trigger: only an operator moves the group away"));
    };
    let never: Vec<&str> = trigger
        .targets
        .iter()
        .filter(|target| !group.seen_up.contains(*target))
        .map(|target| target.as_str())
        .collect();
    if trigger.targets.len() - never.len() < need_of(trigger) {
        return no(format!("{} was never seen up under this configuration: it cannot trigger", never.join(", ")));
    }
    item(
        "decision",
        Holds::Yes,
        format!("automatic, once it has lasted for the hold-down of {}", seconds(rules.hold_down_ms)),
    )
}

/// The plan's fence step and whose guard carries it out.
pub fn fence_host(plan: &Plan) -> Option<(&Step, &HostName)> {
    plan.steps().find_map(|(_, step)| match &step.action {
        Action::Fence { guard } => Some((step, &guard.host)),
        _ => None,
    })
}

/// What proves the old primary silent when its whole region is gone, and what does when only its database is.
fn fence(facts: &Facts<'_>) -> Item {
    let from = &facts.plan.from;
    if let Fencing::None { asserted_by } = &facts.group.fencing {
        return item("fence", Holds::Weak, format!("mode none: {asserted_by} asserts that two primaries do no harm"));
    }
    let Some((step, host)) = fence_host(facts.plan) else {
        return item("fence", Holds::No, "the plan has no fence step: only a person's assertion would do");
    };
    let answers = match facts.present.get(&step.id) {
        Some(ReadBack::Unknown { reason }) => format!("its guard does not answer now: {reason}"),
        Some(ReadBack::Refused { held }) => format!("its guard holds the higher token {held}: find out who raised it"),
        Some(_) => "its guard answers, and proves it at once where only the database dies".to_owned(),
        None => "its guard was not asked".to_owned(),
    };
    let person = format!("the run would wait for a person's `run assert-fence` ({answers})");
    match (&facts.group.fencing, &facts.group.lease) {
        (Fencing::Lease { .. }, Some(lease)) => {
            let silent = seconds(silence_ms(lease.ttl_ms));
            let held = match lease.holders.as_slice() {
                [] => String::new(),
                holders => {
                    format!(" and the hold of {}", holders.iter().map(HostName::as_str).collect::<Vec<_>>().join(", "))
                }
            };
            let detail = format!(
                "the lease of {host} is bound: {silent} after its last renewal{held} its silence is proof; {answers}"
            );
            item("fence", Holds::Yes, detail)
        }
        (Fencing::Lease { .. }, None) => {
            item("fence", Holds::No, format!("the lease is not bound: {}; {person}", facts.unbound))
        }
        _ => item("fence", Holds::No, format!("mode confirm: with {from} gone nobody proves {host} silent; {person}")),
    }
}

fn standby(facts: &Facts<'_>) -> Item {
    match &facts.prospect {
        None => item("standby", Holds::Weak, "the plan promotes nothing"),
        Some(Prospect::Bad { reason } | Prospect::Unknown { reason }) => item("standby", Holds::No, reason.clone()),
        Some(Prospect::Good { evidence }) if facts.is_streaming => {
            item("standby", Holds::Yes, format!("{evidence}; streaming"))
        }
        Some(Prospect::Good { evidence }) => {
            item("standby", Holds::Weak, format!("{evidence}; it does NOT stream: what is written now would be lost"))
        }
    }
}

fn loss(facts: &Facts<'_>, rules: &GroupPolicy) -> Item {
    if facts.prospect.is_none() {
        return item("loss", Holds::Yes, "nothing is promoted, so nothing is lost");
    }
    match loss_obstacle(rules, Some(&facts.loss), &facts.plan.to) {
        Some(obstacle) => item("loss", Holds::No, obstacle),
        None => item("loss", Holds::Yes, format!("{}; the limit is {}", facts.loss, seconds(rules.rpo_limit_ms))),
    }
}

/// The steps of one kind, judged by what their resources show.
fn resources<'a>(facts: &'a Facts<'_>, is_it: impl Fn(&Action) -> bool) -> Vec<(&'a Step, Option<&'a ReadBack>)> {
    let steps = facts.plan.steps().map(|(_, step)| step).filter(|step| is_it(&step.action));
    steps.map(|step| (step, facts.present.get(&step.id))).collect()
}

fn of_resources(name: &'static str, none: &str, silent: Holds, found: &[(&Step, Option<&ReadBack>)]) -> Item {
    if found.is_empty() {
        return item(name, Holds::Yes, none);
    }
    let mut worst = Holds::Yes;
    let mut words = Vec::new();
    for (step, seen) in found {
        let (holds, what) = match seen {
            Some(
                ReadBack::Done { evidence }
                | ReadBack::NotDone { evidence }
                | ReadBack::Untouched { evidence }
                | ReadBack::InFlight { evidence },
            ) => (Holds::Yes, evidence.clone()),
            Some(ReadBack::Unknown { reason }) => (silent, reason.clone()),
            Some(ReadBack::Refused { held }) => {
                (Holds::No, format!("holds the higher token {held}: find out who raised it"))
            }
            None => (silent, "was not read".to_owned()),
        };
        worst = worst.max(holds);
        words.push(format!("{}: {what}", step.id));
    }
    item(name, worst, words.join("; "))
}

fn dns(facts: &Facts<'_>) -> Item {
    let found = resources(facts, |action| matches!(action, Action::UpsertDns { .. }));
    // A provider's outage holds up neither promotion nor services, but nobody is led there.
    of_resources("dns", "no records to repoint", Holds::Weak, &found)
}

fn services(facts: &Facts<'_>) -> Item {
    let found = resources(facts, |action| matches!(action, Action::Guarded { .. }));
    of_resources("services", "none to start", Holds::No, &found)
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
