//! What must hold before a planned move or a rejoin is opened, judged from what is seen and read at one moment. Nothing is
//! changed by it; each gate has its own words, and names what to do where it is shut.

use std::collections::BTreeMap;

use super::attempt::Prospect;
use super::ids::{GroupName, HostName, RegionName};
use super::loss;
use super::observation::Measure;
use super::plan::{Action, Plan};
use super::policy::{ClusterPolicy, GroupPolicy};
use super::quorum::{Vote, count};
use super::readiness::{GuardSeen, Holds, Readiness, redis_unlatch};
use super::run::RunKind;
use super::state::GroupState;
use super::view::View;

/// What of readiness keeps a planned move from opening: what it acts upon. Whether a failover would begin by itself, and
/// what one would lose, is another question.
const READY: [&str; 6] = ["fence", "standby", "dns", "token", "guards", "services"];

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What, in a word or two.
    pub name: &'static str,
    /// It holds.
    pub is_open: bool,
    /// What was found, and what to do where it does not hold.
    pub detail: String,
}

fn condition(name: &'static str, is_open: bool, detail: impl Into<String>) -> Condition {
    Condition { name, is_open, detail: detail.into() }
}

/// What was seen and read.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The group's name.
    pub name: &'a GroupName,
    /// The configuration.
    pub policy: &'a ClusterPolicy,
    /// Its rules.
    pub rules: &'a GroupPolicy,
    /// The group as it stands.
    pub group: &'a GroupState,
    /// What the nodes see.
    pub view: &'a View,
    /// What would be done.
    pub plan: &'a Plan,
    /// What each guard of the plan says of itself.
    pub guards: &'a BTreeMap<HostName, GuardSeen>,
    /// Whether the plan's promotion could succeed; `None` where it promotes nothing, or was not asked.
    pub prospect: Option<Prospect>,
    /// What was judged of the failover on the same way; `None` where it could not be.
    pub readiness: Option<&'a Readiness>,
}

/// The gates of a switchover or failback.
pub fn of_move(facts: &Facts<'_>, kind: RunKind) -> Vec<Condition> {
    let mut gates = vec![serves(facts), primary_is_up(facts, &facts.plan.from)];
    let hint = match kind {
        RunKind::Failback => format!("; `watchdogctl rejoin {}` makes it a standby again", facts.name),
        _ => String::new(),
    };
    let promotes = facts.plan.promotes();
    if promotes {
        gates.push(standby(facts, &hint));
        gates.push(streaming(facts, &hint));
        gates.push(lag(facts));
    }
    gates.extend(guards(facts));
    gates.extend(readiness(facts));
    gates
}

/// The gates of a rejoin: the region acted upon follows the region that serves.
pub fn of_rejoin(facts: &Facts<'_>) -> Vec<Condition> {
    let here = &facts.group.serving.last;
    let region = &facts.plan.to;
    let mut gates = match &facts.group.serving.region {
        Some(serving) if serving == region => {
            vec![condition("serving", false, format!("{region} serves: it follows nobody"))]
        }
        Some(serving) => vec![condition("serving", true, format!("{serving} serves"))],
        None => vec![condition("serving", false, "nobody serves: there is nothing to follow")],
    };
    gates.push(primary_is_up(facts, here));
    gates.extend(guards(facts));
    gates
}

/// An open run moves on by itself, or says what keeps it: then nothing else is to be ordered.
fn nobody_serves(facts: &Facts<'_>) -> String {
    match &facts.group.open_run {
        Some(run) => format!("nobody serves while run {} is between fence and promotion", run.id),
        None => format!("nobody serves: `watchdogctl failover {}` moves it", facts.name),
    }
}

fn serves(facts: &Facts<'_>) -> Condition {
    let from = &facts.plan.from;
    match &facts.group.serving.region {
        Some(region) if region == from => condition("serving", true, format!("{from} serves")),
        Some(region) => condition("serving", false, format!("{region} serves, not {from}")),
        None => condition("serving", false, nobody_serves(facts)),
    }
}

/// A majority of all voters sees the primary alive: what is planned does not begin in the middle of a fault.
fn primary_is_up(facts: &Facts<'_>, region: &RegionName) -> Condition {
    let name = "primary up";
    let Some(trigger) = facts.rules.triggers.get(region) else {
        return condition(name, true, format!("{region} has no trigger: nobody watches it"));
    };
    let seen_up = &facts.group.seen_up;
    let found = count(facts.policy, facts.name, facts.rules, trigger, region, seen_up, facts.view);
    let alive = found.ballots.iter().filter(|ballot| ballot.vote == Vote::NotDown).count();
    let tally = format!("{alive} of {} voters see {region} up, {} are needed", found.ballots.len(), found.needed);
    condition(name, alive >= found.needed, tally)
}

fn standby(facts: &Facts<'_>, hint: &str) -> Condition {
    match &facts.prospect {
        Some(Prospect::Good { evidence }) => condition("standby", true, evidence.clone()),
        Some(Prospect::Bad { reason } | Prospect::Unknown { reason }) => {
            condition("standby", false, format!("{reason}{hint}"))
        }
        None => condition("standby", false, format!("the guard in {} was not asked", facts.plan.to)),
    }
}

fn streaming(facts: &Facts<'_>, hint: &str) -> Condition {
    let (name, to) = ("streaming", &facts.plan.to);
    let Some(target) = facts.rules.replication.get(to) else {
        let detail = format!("no target measures replication into {to}: name one (`replication` of its group.region)");
        return condition(name, false, detail);
    };
    let fresh = facts.view.fresh(facts.rules.observation_ttl_ms);
    let streams =
        |measure: &Measure| matches!(measure, Measure::Replication(seen) if seen.in_recovery && seen.streaming);
    let is_seen = fresh.filter_map(|(_, sight)| sight.of(facts.name, target)?.0.measure.as_ref()).any(streams);
    match is_seen {
        true => condition(name, true, format!("the standby in {to} receives")),
        false => condition(name, false, format!("nobody sees the standby in {to} receiving{hint}")),
    }
}

fn lag(facts: &Facts<'_>) -> Condition {
    let (to, limit_ms) = (&facts.plan.to, facts.rules.switchover_max_lag_ms);
    match loss::lag_ms(facts.name, facts.rules, to, facts.view) {
        Some(lag_ms) => {
            condition("lag", lag_ms <= limit_ms, format!("{to} lags {lag_ms} ms; the limit is {limit_ms} ms"))
        }
        None => condition("lag", false, format!("how far {to} lags is not known; the limit is {limit_ms} ms")),
    }
}

/// Every guard of the plan answers, knows the group and offers what the plan asks of it, on the way back too.
fn guards(facts: &Facts<'_>) -> Vec<Condition> {
    let mut gates = Vec::new();
    for (host, seen) in facts.guards {
        let (is_open, detail) = match seen {
            GuardSeen::Silent { reason } => (false, reason.clone()),
            GuardSeen::Answers { fault: Some(fault), .. } => (false, format!("{host}: {fault}")),
            GuardSeen::Answers { fault: None, actions: None, .. } => {
                (false, format!("the guard of {host} is of a version that does not tell what it can do: renew it"))
            }
            GuardSeen::Answers { fault: None, actions: Some(actions), redis_latch } => {
                let wanted = facts.plan.all_steps().filter_map(|step| match &step.action {
                    Action::Release { guard } if &guard.host == host => Some("release"),
                    Action::Guarded { guard, name, .. } if &guard.host == host => Some(name.as_str()),
                    _ => None,
                });
                let missing = wanted.filter_map(|name| match actions.get(name) {
                    None if name == "rejoin" => Some(format!(
                        "{host} knows no primary to follow: add [postgres.upstream.NAME] to its guard's file"
                    )),
                    None => Some(format!("{host} offers no {name}")),
                    Some(shown) => shown.fault.as_ref().map(|fault| format!("{host}, {name}: {fault}")),
                });
                let promotes_redis = facts.plan.redis_to_promote() == Some(host);
                let latched = redis_latch
                    .iter()
                    .filter(|_| promotes_redis)
                    .map(|why| format!("the Redis server of {host} is latched ({why}): {}", redis_unlatch(facts.name)));
                let missing: Vec<_> = missing.chain(latched).collect();
                match missing.is_empty() {
                    true => (true, format!("the guard of {host} answers and offers what is asked of it")),
                    false => (false, missing.join("; ")),
                }
            }
        };
        gates.push(condition("guard", is_open, detail));
    }
    gates
}

fn readiness(facts: &Facts<'_>) -> Option<Condition> {
    let judged = facts.readiness?;
    let bad = judged.items.iter().filter(|item| item.holds == Holds::No && READY.contains(&item.name));
    let bad: Vec<_> = bad.map(|item| format!("{}: {}", item.name, item.detail)).collect();
    Some(match bad.is_empty() {
        true => condition("readiness", true, format!("nothing that a move to {} needs is missing", facts.plan.to)),
        false => condition("readiness", false, bad.join("; ")),
    })
}

#[cfg(test)]
#[path = "moving_tests.rs"]
mod tests;
