//! The lease (design section 12): a time-bounded right of the serving region's database to answer its clients, so that an
//! old primary falls silent by itself. Pure: what the leader answers to a primary's guard, and when silence is proved.
//!
//! Only a *bound* lease proves anything. A lease is bound from the commit of `BindLease`, proposed once the primary's guard
//! attested a gate that shuts by itself, until the commit of `UnbindLease`, which comes before that guard may let the gate
//! stand open. Between the two every request that was granted ends at most one TTL after it was sent.

use serde::{Deserialize, Serialize};

use super::ids::{GroupName, HostName, RegionName, Token, UnixMs};
use super::mutation::{Mutation, is_out};
use super::policy::Fencing;
use super::state::{ClusterState, GroupState};

/// How much longer than its TTL a lease is waited for, percent: clocks of two hosts do not run at one rate.
pub const RATE_MARGIN_PERCENT: u64 = 20;

/// A lease that bounds a primary: its expiry is a fence proof (P4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseBinding {
    /// Whose primary.
    pub region: RegionName,
    /// The host whose guard keeps the gate.
    pub host: HostName,
    /// No granted request lets the gate stand open longer than this after it was sent, milliseconds.
    pub ttl_ms: u64,
    /// Hosts whose promotion hold renews it too: none of them may be promoted before its hold ran out.
    pub holders: Vec<HostName>,
    /// Since when, by the proposer's clock; for people.
    pub since: UnixMs,
    /// What the guard attested.
    pub attestation: String,
}

/// How the gate of a primary's host stands, read from its kernel and not from memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "gate")]
pub enum GateSeen {
    /// It shuts by itself at a deadline that lies at most one TTL ahead.
    Bounded {
        /// Kind, port, program or table, and the database's processes found behind it.
        evidence: String,
    },
    /// It is in place and lets everything pass for ever.
    OpenEnded,
    /// It is not in force, or cannot be read.
    Absent {
        /// Why.
        why: String,
    },
}

/// What a primary's guard asks of the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The group.
    pub group: GroupName,
    /// The asking guard's host, as the configuration names it.
    pub host: HostName,
    /// That host's region.
    pub region: RegionName,
    /// The TTL the guard will use, milliseconds.
    pub ttl_ms: u64,
    /// How its gate stands.
    pub gate: GateSeen,
    /// Standby guards that granted their hold within the last TTL, and all that the binding names.
    pub holders: Vec<HostName>,
    /// It was sent after every answer after which the gate could stand open: what it attests is still so. A request that
    /// was held up on its way may be granted, but binds nothing.
    pub may_bind: bool,
}

/// What the leader answers, and what it must commit first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The gate may let pass until the TTL after the request was sent, and must be bounded from now on.
    Granted {
        /// Commit this binding before answering; the grant does not depend on it.
        bind: Option<LeaseBinding>,
    },
    /// The lease is not to be bounded: the gate may stand open. `unbind`: commit the unbinding before answering.
    OpenEnded {
        /// Must be committed first.
        unbind: bool,
        /// For status.
        why: String,
    },
    /// What was bound can no longer be relied on: commit the unbinding, then answer as denied.
    Unreliable {
        /// For the audit.
        why: String,
    },
    /// Nothing may pass on this cluster's word.
    Denied {
        /// For status.
        why: String,
    },
}

/// Answers a request from a state that was read after a quorum round which began when the request was here.
/// `is_stopped`: a fence of this group was proposed by this leader, whatever became of it.
pub fn answer(state: &ClusterState, request: &LeaseRequest, is_stopped: bool, now: UnixMs) -> LeaseAnswer {
    let Some(group) = state.group(&request.group) else {
        return LeaseAnswer::Denied { why: format!("there is no group {}", request.group) };
    };
    // First of all: a run may count on the silence of a region that does not serve, whatever the mode is by now.
    if group.serving.region.as_ref() != Some(&request.region) {
        let serving = group.serving.region.as_ref().map_or("nobody", RegionName::as_str);
        return LeaseAnswer::Denied { why: format!("{serving} serves, not {}", request.region) };
    }
    // A guard that was enrolled too early must not open an old primary's gate while another region serves.
    if group.unconfirmed {
        let why = format!(
            "epoch {}: this cluster was formed anew and does not know who serves: restore a backup, or resume the group",
            state.epoch
        );
        return LeaseAnswer::Denied { why };
    }
    if is_stopped {
        return LeaseAnswer::Denied { why: format!("a fence of {} was ordered", request.region) };
    }
    let Fencing::Lease { ttl_ms } = &group.fencing else {
        let why = format!("the group's fencing mode is {}", group.fencing.word());
        return LeaseAnswer::OpenEnded { unbind: group.lease.is_some(), why };
    };
    if let Some(bound) = group.lease.as_ref().filter(|bound| bound.host != request.host) {
        return LeaseAnswer::Denied { why: format!("the lease of {} is bound to host {}", request.region, bound.host) };
    }
    if request.ttl_ms > *ttl_ms {
        let why = format!("the guard's TTL of {} ms is longer than the group's {ttl_ms} ms", request.ttl_ms);
        return LeaseAnswer::Denied { why };
    }
    if let Some(pause) = &group.pause {
        let why = format!("paused by {}: {}", pause.by, pause.reason);
        return LeaseAnswer::OpenEnded { unbind: group.lease.is_some(), why };
    }
    grant(group, request, *ttl_ms, now)
}

fn grant(group: &GroupState, request: &LeaseRequest, ttl_ms: u64, now: UnixMs) -> LeaseAnswer {
    match (&request.gate, &group.lease) {
        (GateSeen::Bounded { evidence }, bound) => {
            let is_so = bound.as_ref().is_some_and(|bound| bound.holders == request.holders && bound.ttl_ms == ttl_ms);
            // Holders are only added here: one that is silent now may still hold, and is dropped by unbinding alone.
            let mut holders = bound.as_ref().map(|bound| bound.holders.clone()).unwrap_or_default();
            holders.extend(request.holders.iter().filter(|host| !holders.contains(host)).cloned().collect::<Vec<_>>());
            holders.sort();
            let grown = bound.as_ref().is_none_or(|bound| bound.holders != holders || bound.ttl_ms != ttl_ms);
            let bind = (!is_so && grown && request.may_bind).then(|| LeaseBinding {
                region: request.region.clone(),
                host: request.host.clone(),
                ttl_ms,
                holders,
                since: now,
                attestation: evidence.clone(),
            });
            LeaseAnswer::Granted { bind }
        }
        (GateSeen::OpenEnded, Some(_)) => {
            LeaseAnswer::Unreliable { why: format!("the gate of {} stands open", request.host) }
        }
        (GateSeen::Absent { why }, Some(_)) => {
            LeaseAnswer::Unreliable { why: format!("the gate of {} is not in force: {why}", request.host) }
        }
        (GateSeen::OpenEnded | GateSeen::Absent { .. }, None) => LeaseAnswer::Granted { bind: None },
    }
}

/// What is known of grants to a group's primary, by one monotonic clock of the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantsSeen {
    /// How long ago this leader's term had its first commit, milliseconds. Grants of earlier leaders ended their quorum
    /// round before that, so their requests were sent before it.
    pub led_ms: u64,
    /// How long ago the last request that this leader granted arrived, milliseconds.
    pub last_granted_ms: Option<u64>,
    /// How long ago it was learned that every holder's hold is over and no new one can begin, milliseconds; `None` while
    /// that is not known. Without holders it is as long as the leader leads.
    pub holds_over: bool,
}

/// How long a lease of `ttl_ms` is waited for from the latest moment its request can have been sent, milliseconds.
pub fn silence_ms(ttl_ms: u64) -> u64 {
    if is_out(Mutation::NoRateMargin) {
        return ttl_ms;
    }
    ttl_ms.saturating_mul(100 + RATE_MARGIN_PERCENT).div_ceil(100)
}

/// Whether the bound lease has provably run out; else how it stands, and how many milliseconds are missing where that is
/// all that is missing.
pub fn lapsed(binding: &LeaseBinding, seen: GrantsSeen) -> Result<String, (String, Option<u64>)> {
    let needed_ms = silence_ms(binding.ttl_ms);
    let quiet_ms = seen.last_granted_ms.map_or(seen.led_ms, |granted| granted.min(seen.led_ms));
    if quiet_ms < needed_ms {
        let missing_ms = needed_ms - quiet_ms;
        return Err((format!("the lease of {} runs for at most {missing_ms} ms more", binding.host), Some(missing_ms)));
    }
    if !binding.holders.is_empty() && !seen.holds_over {
        let holders: Vec<_> = binding.holders.iter().map(HostName::as_str).collect();
        return Err((format!("the promotion hold of {} may still renew it", holders.join(", ")), None));
    }
    Ok(format!(
        "the lease of {} (TTL {} ms, bound since unix time {} s) had no renewal for {quiet_ms} ms; {}",
        binding.host,
        binding.ttl_ms,
        binding.since.0 / 1000,
        binding.attestation
    ))
}

/// A promotion hold as a primary's guard counts on it. For status alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldTold {
    /// The standby's host.
    pub host: HostName,
    /// It counts so much longer, milliseconds.
    pub for_ms: u64,
    /// Nothing above it was raised there when it was granted.
    pub ground: Token,
}

/// The word that a primary's guard was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// It may answer its clients until the TTL after it asked.
    Granted,
    /// Its gate may stand open: nothing counts on it.
    OpenEnded,
    /// Nothing may pass on the cluster's word.
    Denied,
}

impl Given {
    /// For people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Given::Granted => "granted",
            Given::OpenEnded => "open-ended",
            Given::Denied => "denied",
        }
    }
}

/// What the serving primary's guard asked last, as this leader remembers it. For status alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseAsked {
    /// Who asked.
    pub host: HostName,
    /// How long ago that arrived, milliseconds.
    pub age_ms: u64,
    /// What it was told.
    pub given: Given,
    /// Why, where not granted.
    pub why: String,
    /// How its gate stood then.
    pub gate: GateSeen,
    /// How much longer the gate was to stand open then, milliseconds.
    pub open_for_ms: u64,
    /// The holds that counted then.
    pub holds: Vec<HoldTold>,
}

/// Why the group's lease is not bound, so that its old primary's silence would prove nothing. Empty where it is bound, or
/// where the mode knows no lease. `host`: whose guard should ask.
pub fn why_unbound(group: &GroupState, host: Option<&HostName>, asked: Option<&LeaseAsked>) -> String {
    let Fencing::Lease { ttl_ms } = group.fencing else { return String::new() };
    if group.lease.is_some() {
        return String::new();
    }
    if group.serving.region.is_none() {
        return "nobody serves: a run is between fence and promotion".to_owned();
    }
    if let Some(pause) = &group.pause {
        return format!("paused by {}: the gate may stand open until the group is resumed", pause.by);
    }
    let Some(host) = host else { return "the configuration names no database_host in the serving region".to_owned() };
    let silent = |since: &str| {
        format!(
            "the guard of {host} has asked nothing {since}: is `watchdog-guard serve` running there, and does it reach a node? \
             `watchdog-guard status` there tells"
        )
    };
    let Some(asked) = asked else { return silent("since this node leads") };
    if asked.age_ms > ttl_ms {
        return silent(&format!("for {:.1} s", asked.age_ms as f64 / 1000.0));
    }
    match (asked.given, &asked.gate) {
        (Given::Denied | Given::OpenEnded, GateSeen::Bounded { .. }) => {
            format!("{host} was last {}: {}", asked.given.word(), asked.why)
        }
        (_, GateSeen::Absent { why }) => format!("the gate of {host} is not in force: {why}"),
        (_, GateSeen::OpenEnded) => {
            format!("the gate of {host} stands open: it is about to be bounded, or somebody broke the glass there")
        }
        (Given::Granted, GateSeen::Bounded { .. }) => format!("{host} has just begun: its next request binds it"),
    }
}
