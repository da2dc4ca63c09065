//! What a failover would have to act upon: guards, their actions, the zone and its token record.

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Holds, Item, no, weak, yes};
use crate::domain::attempt::{Prospect, ReadBack};
use crate::domain::ids::{GroupName, HostName, Token};
use crate::domain::lease::silence_ms;
use crate::domain::observation::RedisMeasure;
use crate::domain::plan::{Action, GuardEndpoint, Plan, Step};
use crate::domain::policy::Fencing;
use crate::domain::stuck::UNLATCH;
use crate::domain::text::one_line;

/// What a host's guard says of the group and of what it could do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardSeen {
    /// It did not answer.
    Silent {
        /// Why, and what to do next.
        reason: String,
    },
    /// It answers.
    Answers {
        /// The group is not enrolled there, or its records are damaged: everything is refused.
        fault: Option<String>,
        /// By name; `None` where the guard is of a version that does not tell.
        actions: Option<BTreeMap<String, ActionSeen>>,
        /// The Redis server there may neither start nor be promoted: its latch, in words. `None` where it has none, or the
        /// guard is of a version that does not tell.
        redis_latch: Option<String>,
    },
}

/// An action as its guard shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActionSeen {
    /// The parameters it takes.
    pub params: BTreeSet<String>,
    /// Why it could not even be started.
    pub fault: Option<String>,
}

/// What a DNS provider shows of the token record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneSeen {
    /// The provider does not answer, or cannot now.
    Unreachable {
        /// Why.
        reason: String,
    },
    /// It answers, but does not let us read: our key, our rights, our names.
    Unreadable {
        /// Why, and what to do next.
        reason: String,
    },
    /// The record is another group's, and would never be replaced.
    Alien {
        /// Whose, and what to do next.
        reason: String,
    },
    /// It holds a higher token than the group was ever issued.
    Held {
        /// Which.
        held: Token,
    },
    /// It can be read, and would be replaced.
    Readable {
        /// The token there; none before the first run.
        token: Option<Token>,
    },
}

/// Characters of a guard's own words that are kept in a reason.
const SAID_MAX: usize = 120;

/// The plan's fence step and whose guard carries it out.
pub fn fence_host(plan: &Plan) -> Option<(&Step, &HostName)> {
    plan.steps().find_map(|(_, step)| match &step.action {
        Action::Fence { guard } => Some((step, &guard.host)),
        _ => None,
    })
}

/// Whether a guard could start an action now; with the reason that stays the same while the cause does, and the detail.
fn could_start(
    facts: &Facts<'_>,
    guard: &GuardEndpoint,
    action: &str,
    params: &BTreeMap<String, String>,
) -> (Holds, String, String) {
    let host = &guard.host;
    let just = |holds, reason: String| (holds, reason.clone(), reason);
    match facts.guards.get(host) {
        None => just(Holds::Unknown, format!("the guard of {host} was not asked")),
        Some(GuardSeen::Silent { reason }) => {
            (Holds::No, format!("the guard of {host} does not answer"), reason.clone())
        }
        Some(GuardSeen::Answers { fault: Some(fault), .. }) => {
            (Holds::No, format!("the guard of {host} refuses everything for {}", facts.name), fault.clone())
        }
        Some(GuardSeen::Answers { actions: None, .. }) => just(
            Holds::Weak,
            format!("the guard of {host} is too old to tell whether {action} could be started: update it"),
        ),
        Some(GuardSeen::Answers { actions: Some(actions), .. }) => match actions.get(action) {
            None => just(Holds::No, format!("the guard of {host} knows no action {action}: configure it there")),
            Some(ActionSeen { fault: Some(fault), .. }) => {
                let fault = one_line(fault, SAID_MAX);
                just(Holds::No, format!("{action} on {host} could not be started: {fault}"))
            }
            Some(seen) if !seen.params.iter().eq(params.keys()) => {
                let takes = seen.params.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                just(Holds::No, format!("{action} on {host} takes other parameters than the plan gives: {takes}"))
            }
            Some(_) => (Holds::Yes, String::new(), format!("{action} could be started on {host}")),
        },
    }
}

/// What proves the old primary silent when its whole region is gone, and what does when only its database is.
pub(super) fn fence(facts: &Facts<'_>) -> Item {
    let from = &facts.plan.from;
    if let Fencing::None { asserted_by } = &facts.group.fencing {
        let reason = format!("mode none: {asserted_by} asserts that two primaries do no harm");
        return weak("fence", reason.clone(), reason);
    }
    let Some((step, host)) = fence_host(facts.plan) else {
        let reason = "the plan has no fence step: only a person's assertion would do";
        return no("fence", reason, reason);
    };
    let (answers, said) = match facts.present.get(&step.id) {
        Some(ReadBack::Unknown { reason }) => (false, format!("its guard does not answer now: {reason}")),
        Some(ReadBack::Refused { held }) => {
            (false, format!("its guard holds the higher token {held}: find out who raised it"))
        }
        Some(_) => (true, "its guard answers, and proves it at once where only the database dies".to_owned()),
        None => (false, "its guard was not asked".to_owned()),
    };
    let person = "the run would wait for a person's `run assert-fence`";
    match (&facts.group.fencing, &facts.group.lease) {
        (Fencing::Lease { .. }, Some(lease)) => {
            let silent = super::seconds(silence_ms(lease.ttl_ms));
            let held = match lease.holders.as_slice() {
                [] => String::new(),
                holders => {
                    format!(" and the hold of {}", holders.iter().map(HostName::as_str).collect::<Vec<_>>().join(", "))
                }
            };
            yes(
                "fence",
                format!(
                    "the lease of {host} is bound: {silent} after its last renewal{held} its silence is proof; {said}"
                ),
            )
        }
        (Fencing::Lease { .. }, None) => {
            let detail = format!("the lease is not bound: {}; {person} ({said})", facts.unbound);
            no("fence", "the lease is not bound", detail)
        }
        _ if answers => {
            let reason = format!("mode confirm: with all of {from} gone a person must assert that {host} is silent");
            weak("fence", reason.clone(), format!("{reason}; {said}"))
        }
        _ => {
            let reason = format!("mode confirm: the guard of {host} proves nothing now");
            no("fence", reason, format!("mode confirm: nobody proves {host} silent; {person} ({said})"))
        }
    }
}

pub(super) fn standby(facts: &Facts<'_>) -> Item {
    let to = &facts.plan.to;
    match &facts.prospect {
        None => weak("standby", "the plan promotes nothing", "the plan promotes nothing"),
        Some(Prospect::Bad { reason }) => {
            no("standby", format!("there is no standby to promote in {to}"), reason.clone())
        }
        Some(Prospect::Unknown { reason }) => {
            no("standby", format!("the standby in {to} cannot be judged"), reason.clone())
        }
        Some(Prospect::Good { evidence }) if facts.is_streaming => yes("standby", format!("{evidence}; streaming")),
        Some(Prospect::Good { evidence }) => weak(
            "standby",
            format!("the standby in {to} does not stream"),
            format!("{evidence}; it does NOT stream: what is written now would be lost"),
        ),
    }
}

/// What takes a latch from a Redis server that shall start, or may be promoted.
pub fn redis_unlatch(group: &GroupName) -> String {
    format!(
        "where it serves, or follows the present primary: `{UNLATCH} --redis --group {group} --confirm HOSTNAME --reason TEXT` \
         there; else `watchdogctl rejoin {group}` makes it a replica"
    )
}

/// Latched Redis servers on either side: with the reason and the detail.
fn latched_redis(facts: &Facts<'_>) -> Vec<(String, String)> {
    let latched = facts.guards.iter().filter_map(|(host, seen)| match seen {
        GuardSeen::Answers { redis_latch: Some(why), .. } => Some((host, why)),
        _ => None,
    });
    let told = latched.map(|(host, why)| {
        let is_promoted = facts.plan.redis_to_promote() == Some(host);
        let then = if is_promoted { "redis-promote would be refused" } else { "once stopped it does not start again" };
        let reason = format!("the Redis server of {host} is latched: {then}");
        let detail = format!("{reason} ({}); {}", one_line(why, SAID_MAX), redis_unlatch(facts.name));
        (reason, detail)
    });
    told.collect()
}

/// What would become the primary of Redis. Nothing of it keeps the group from failing over.
pub(super) fn redis(facts: &Facts<'_>) -> Option<Item> {
    let to = &facts.plan.to;
    let steps = facts.plan.steps().filter_map(|(_, step)| match &step.action {
        Action::Guarded { guard, name, params } if step.action.is_redis() => {
            Some(could_start(facts, guard, name, params))
        }
        _ => None,
    });
    let shut = steps.filter(|(holds, ..)| *holds != Holds::Yes).map(|(_, reason, _)| (reason.clone(), reason));
    let (reasons, details): (Vec<String>, Vec<String>) = shut.chain(latched_redis(facts)).unzip();
    if !reasons.is_empty() {
        return Some(weak("redis", reasons.join("; "), details.join("; ")));
    }
    let just = |reason: String| weak("redis", reason.clone(), reason);
    Some(match facts.redis.as_ref()? {
        None => just(format!("no node sees the Redis server in {to} as it should be")),
        Some(RedisMeasure { is_primary: true, .. }) => just(format!("the Redis server in {to} follows nobody")),
        Some(RedisMeasure { linked: false, .. }) => {
            just(format!("the Redis replica in {to} is not linked: what is written now would be lost"))
        }
        Some(measure) => {
            let behind =
                measure.behind_bytes().map_or("its lag is not known".to_owned(), |n| format!("{n} bytes behind"));
            yes("redis", format!("Redis replica linked, {behind}"))
        }
    })
}

/// Several findings as one item: the worst counts, and each bad one is told.
fn worst_of(name: &'static str, none: &str, found: Vec<(Holds, String, String)>) -> Item {
    if found.is_empty() {
        return yes(name, none);
    }
    let holds = found.iter().map(|(holds, ..)| *holds).max().unwrap_or(Holds::Yes);
    let mut reasons: Vec<&str> = Vec::new();
    for (_, reason, _) in found.iter().filter(|(one, ..)| *one == holds) {
        if holds != Holds::Yes && !reasons.contains(&reason.as_str()) {
            reasons.push(reason);
        }
    }
    let details: Vec<&str> = found.iter().map(|(.., detail)| detail.as_str()).collect();
    Item { name, holds, reason: reasons.join("; "), detail: details.join("; ") }
}

/// Whether the provider answers. Its outage holds up neither promotion nor services, but nobody is led there.
pub(super) fn dns(facts: &Facts<'_>) -> Item {
    let found = facts.zones.iter().map(|(step, seen)| match seen {
        ZoneSeen::Unreachable { reason } => {
            (Holds::Weak, format!("the provider of {step} cannot be reached"), format!("{step}: {reason}"))
        }
        _ => (Holds::Yes, String::new(), format!("{step}: the provider answers")),
    });
    worst_of("dns", "no records to repoint", found.collect())
}

/// Whether the token record beside the records can be compared and replaced.
pub(super) fn token(facts: &Facts<'_>) -> Item {
    let found = facts.zones.iter().map(|(step, seen)| match seen {
        ZoneSeen::Unreachable { .. } => {
            let reason = format!("the token record of {step} cannot be read while its provider is out of reach");
            (Holds::Weak, reason.clone(), reason)
        }
        ZoneSeen::Unreadable { reason } => {
            (Holds::No, format!("the token record of {step} cannot be read"), format!("{step}: {reason}"))
        }
        ZoneSeen::Alien { reason } => {
            (Holds::No, format!("the token record of {step} is another group's"), format!("{step}: {reason}"))
        }
        ZoneSeen::Held { held } => (
            Holds::No,
            format!("the token record of {step} holds a higher token"),
            format!("{step}: holds the higher token {held}: find out who raised it"),
        ),
        ZoneSeen::Readable { token: Some(token) } => {
            (Holds::Yes, String::new(), format!("{step}: reads, token {token}"))
        }
        ZoneSeen::Readable { token: None } => {
            (Holds::Yes, String::new(), format!("{step}: reads, no token yet: the first run writes it"))
        }
    });
    worst_of("dns-token", "no records to repoint", found.collect())
}

/// The guards that fence and promote. The old primary's may be silent where its lease proves as much: weak.
pub(super) fn guards(facts: &Facts<'_>) -> Item {
    let mut found = Vec::new();
    let none = BTreeMap::new();
    for (_, step) in facts.plan.steps() {
        match &step.action {
            Action::Fence { guard } => {
                let (holds, reason, detail) = could_start(facts, guard, "fence", &none);
                found.push((holds.min(Holds::Weak), reason, detail));
            }
            Action::Promote { guard } => found.push(could_start(facts, guard, "promote", &none)),
            _ => {}
        }
    }
    worst_of("guards", "the plan asks no guard", found)
}

pub(super) fn services(facts: &Facts<'_>) -> Item {
    let started = facts.plan.steps().filter_map(|(_, step)| match &step.action {
        Action::Guarded { guard, name, params } if !step.action.is_redis() => {
            Some(could_start(facts, guard, name, params))
        }
        _ => None,
    });
    worst_of("services", "none to start", started.collect())
}
