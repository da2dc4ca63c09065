//! Repointing DNS records by one compare-and-swap with the token, at Route 53 or by RFC 2136 (design, section 10).
//!
//! The token is kept in a TXT record beside the records. One atomic change replaces exactly the text that was read by the
//! new one and sets the records: a writer that read before another wrote changes nothing. What the zone holds is
//! compared with what the warrant carries; the log is the authority, so a lower token, none, or somebody else's text is
//! replaced (and the evidence says so), a higher one never.

mod rfc2136;
mod route53;
mod route53_text;
pub mod token_record;
mod wire;
pub mod zone;

use async_trait::async_trait;
use tokio::time::Instant;

use self::token_record::{Standing, TokenRecord, judge};
pub(super) use self::zone::canonical_value;
use self::zone::{Settled, SwapTrouble, Trouble, Wanted, Zone, check, describe, differences};
use super::Actuator;
use crate::clock;
use crate::domain::attempt::{Outcome, Raised, ReadBack, Warrant};
use crate::domain::ids::UnixMs;
use crate::domain::plan::{Action, DnsProvider, DnsRecord};
use crate::domain::readiness::ZoneSeen;
use crate::resolve::canonical_name;

/// Time to live of the token record, seconds. Nobody but us reads it, and we ask the provider itself.
const TOKEN_TTL_S: u32 = 60;

/// The actuator of `Action::UpsertDns`. Cheap to share; keeps one client per Route 53 provider.
#[derive(Debug)]
pub struct DnsActuator {
    route53: route53::Clients,
    now: fn() -> UnixMs,
}

impl Default for DnsActuator {
    fn default() -> Self {
        Self::new()
    }
}

impl DnsActuator {
    /// With the system's clock.
    pub fn new() -> Self {
        Self::with_clock(clock::unix_now)
    }

    /// With another wall clock: TSIG signatures carry the time.
    pub fn with_clock(now: fn() -> UnixMs) -> Self {
        Self { route53: route53::Clients::default(), now }
    }
}

impl DnsActuator {
    /// What the provider shows of the token record, for readiness. Changes nothing.
    pub async fn look(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> ZoneSeen {
        let (provider, wanted) = match parts(warrant, action) {
            Ok(parts) => parts,
            Err(reason) => return ZoneSeen::Unreadable { reason },
        };
        match provider {
            DnsProvider::Route53 { .. } => match self.route53.zone(provider, warrant).await {
                Ok(zone) => look(zone, warrant, &wanted, deadline).await,
                Err(trouble) => trouble.into(),
            },
            DnsProvider::Rfc2136 { .. } => match rfc2136::Rfc2136::new(provider, self.now).await {
                Ok(zone) => look(zone, warrant, &wanted, deadline).await,
                Err(trouble) => trouble.into(),
            },
        }
    }
}

#[async_trait]
impl Actuator for DnsActuator {
    async fn raise(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Raised {
        let (provider, mut wanted) = match parts(warrant, action) {
            Ok(parts) => parts,
            Err(reason) => return Raised::Unknown { reason },
        };
        wanted.records = &[];
        match provider {
            DnsProvider::Route53 { .. } => match self.route53.zone(provider, warrant).await {
                Ok(zone) => raise(zone, warrant, &wanted, deadline).await,
                Err(trouble) => Raised::Unknown { reason: trouble.reason },
            },
            DnsProvider::Rfc2136 { .. } => match rfc2136::Rfc2136::new(provider, self.now).await {
                Ok(zone) => raise(zone, warrant, &wanted, deadline).await,
                Err(trouble) => Raised::Unknown { reason: trouble.reason },
            },
        }
    }

    async fn execute(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Outcome {
        let (provider, wanted) = match parts(warrant, action) {
            Ok(parts) => parts,
            Err(reason) => return Outcome::Failed { retryable: false, reason },
        };
        match provider {
            DnsProvider::Route53 { .. } => match self.route53.zone(provider, warrant).await {
                Ok(zone) => execute(zone, warrant, &wanted, deadline).await,
                Err(trouble) => trouble.into(),
            },
            DnsProvider::Rfc2136 { .. } => match rfc2136::Rfc2136::new(provider, self.now).await {
                Ok(zone) => execute(zone, warrant, &wanted, deadline).await,
                Err(trouble) => trouble.into(),
            },
        }
    }

    async fn read_back(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> ReadBack {
        let (provider, wanted) = match parts(warrant, action) {
            Ok(parts) => parts,
            Err(reason) => return ReadBack::Unknown { reason },
        };
        match provider {
            DnsProvider::Route53 { .. } => match self.route53.zone(provider, warrant).await {
                Ok(zone) => read_back(zone, warrant, &wanted, deadline).await,
                Err(trouble) => ReadBack::Unknown { reason: trouble.reason },
            },
            DnsProvider::Rfc2136 { .. } => match rfc2136::Rfc2136::new(provider, self.now).await {
                Ok(zone) => read_back(zone, warrant, &wanted, deadline).await,
                Err(trouble) => ReadBack::Unknown { reason: trouble.reason },
            },
        }
    }
}

/// The same at whatever it opens as the zone: what the simulation acts through.
#[cfg(feature = "simulation")]
pub struct ZoneActuator<F>(pub F);

#[cfg(feature = "simulation")]
#[async_trait]
impl<Z: Zone, F: Fn() -> Z + Send + Sync> Actuator for ZoneActuator<F> {
    async fn raise(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Raised {
        match parts(warrant, action) {
            Ok((_, wanted)) => raise((self.0)(), warrant, &Wanted { records: &[], ..wanted }, deadline).await,
            Err(reason) => Raised::Unknown { reason },
        }
    }

    async fn execute(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Outcome {
        match parts(warrant, action) {
            Ok((_, wanted)) => execute((self.0)(), warrant, &wanted, deadline).await,
            Err(reason) => Outcome::Failed { retryable: false, reason },
        }
    }

    async fn read_back(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> ReadBack {
        match parts(warrant, action) {
            Ok((_, wanted)) => read_back((self.0)(), warrant, &wanted, deadline).await,
            Err(reason) => ReadBack::Unknown { reason },
        }
    }
}

impl From<Trouble> for Outcome {
    fn from(Trouble { retryable, reason }: Trouble) -> Self {
        Outcome::Failed { retryable, reason }
    }
}

impl From<Trouble> for ZoneSeen {
    /// What trying again cannot help was said by the provider, or is wrong on this side of it.
    fn from(Trouble { retryable, reason }: Trouble) -> Self {
        if retryable { ZoneSeen::Unreachable { reason } } else { ZoneSeen::Unreadable { reason } }
    }
}

async fn look<Z: Zone>(mut zone: Z, warrant: &Warrant, wanted: &Wanted<'_>, deadline: Instant) -> ZoneSeen {
    let seen = match zone.read(wanted, deadline).await {
        Ok(seen) => seen,
        Err(trouble) => return trouble.into(),
    };
    match judge(&seen.texts, warrant, &wanted.token_record) {
        Standing::Held(held) => ZoneSeen::Held { held },
        Standing::Alien(reason) => ZoneSeen::Alien { reason },
        Standing::Ours => ZoneSeen::Readable { token: Some(warrant.token) },
        Standing::Lower { found, .. } => ZoneSeen::Readable { token: found.map(|found| found.token) },
    }
}

fn parts<'a>(warrant: &Warrant, action: &'a Action) -> Result<(&'a DnsProvider, Wanted<'a>), String> {
    let Action::UpsertDns { provider, token_record, records } = action else {
        return Err(format!("action {:?} has nothing to do with DNS: this is a fault of the program", action.verb()));
    };
    check(records, token_record)?;
    let token = TokenRecord::new(warrant).map_err(|e| e.to_string())?;
    Ok((provider, Wanted { token_record: canonical_name(token_record), records: records.as_slice(), token }))
}

async fn raise<Z: Zone>(mut zone: Z, warrant: &Warrant, wanted: &Wanted<'_>, deadline: Instant) -> Raised {
    let seen = match zone.read(wanted, deadline).await {
        Ok(seen) => seen,
        Err(trouble) => return Raised::Unknown { reason: trouble.reason },
    };
    match judge(&seen.texts, warrant, &wanted.token_record) {
        Standing::Held(held) => return Raised::Refused { held },
        Standing::Alien(reason) => return Raised::Unknown { reason },
        Standing::Ours => return Raised::Done { in_flight: None },
        Standing::Lower { .. } => {}
    }
    match zone.swap(&seen, wanted, deadline).await {
        Ok(()) => Raised::Done { in_flight: None },
        Err(SwapTrouble::Failed(trouble)) => Raised::Unknown { reason: trouble.reason },
        Err(SwapTrouble::Unsure(reason)) => Raised::Unknown { reason },
        Err(SwapTrouble::Lost) => match after_loss(&mut zone, warrant, wanted, deadline).await {
            Standing::Held(held) => Raised::Refused { held },
            Standing::Ours => Raised::Done { in_flight: None },
            Standing::Alien(reason) => Raised::Unknown { reason },
            Standing::Lower { was, .. } => Raised::Unknown { reason: lost_race(wanted, &was) },
        },
    }
}

async fn execute<Z: Zone>(mut zone: Z, warrant: &Warrant, wanted: &Wanted<'_>, deadline: Instant) -> Outcome {
    let seen = match zone.read(wanted, deadline).await {
        Ok(seen) => seen,
        Err(trouble) => return trouble.into(),
    };
    let token = warrant.token;
    let was = match judge(&seen.texts, warrant, &wanted.token_record) {
        Standing::Held(held) => return Outcome::Refused { held },
        Standing::Alien(reason) => return Outcome::Failed { retryable: false, reason },
        Standing::Ours if differences(wanted.records, &seen.present).is_empty() => {
            return match zone.settled(wanted, deadline).await {
                Settled::Yes(how) => Outcome::Done { evidence: already(wanted, &how) },
                Settled::Pending(what) => Outcome::Unknown { reason: what },
            };
        }
        Standing::Ours => format!("was our token {token} already"),
        Standing::Lower { was, .. } => was,
    };
    match zone.swap(&seen, wanted, deadline).await {
        Ok(()) => match zone.settled(wanted, deadline).await {
            Settled::Yes(how) => {
                let records = describe(wanted.records);
                let evidence = format!("set {records} with token {token} in {} ({was}); {how}", wanted.token_record);
                Outcome::Done { evidence }
            }
            Settled::Pending(what) => Outcome::Unknown { reason: what },
        },
        Err(SwapTrouble::Failed(trouble)) => trouble.into(),
        Err(SwapTrouble::Unsure(reason)) => Outcome::Unknown { reason },
        Err(SwapTrouble::Lost) => match after_loss(&mut zone, warrant, wanted, deadline).await {
            Standing::Held(held) => Outcome::Refused { held },
            Standing::Alien(reason) => Outcome::Failed { retryable: false, reason },
            Standing::Ours => Outcome::Failed { retryable: true, reason: lost_race(wanted, "it is our own token now") },
            Standing::Lower { was, .. } => Outcome::Failed { retryable: true, reason: lost_race(wanted, &was) },
        },
    }
}

async fn read_back<Z: Zone>(mut zone: Z, warrant: &Warrant, wanted: &Wanted<'_>, deadline: Instant) -> ReadBack {
    let seen = match zone.read(wanted, deadline).await {
        Ok(seen) => seen,
        Err(trouble) => return ReadBack::Unknown { reason: trouble.reason },
    };
    let by = match judge(&seen.texts, warrant, &wanted.token_record) {
        Standing::Held(held) => return ReadBack::Refused { held },
        Standing::Alien(reason) => return ReadBack::Unknown { reason },
        Standing::Ours => Some(warrant.token),
        Standing::Lower { found, .. } => {
            found.filter(|found| found.run == warrant.run || found.token == warrant.token).map(|found| found.token)
        }
    };
    let mut missing = differences(wanted.records, &seen.present);
    let Some(by) = by else {
        missing.insert(0, format!("{} holds no token of this run", wanted.token_record));
        return ReadBack::NotDone { evidence: missing.join("; ") };
    };
    if !missing.is_empty() {
        return ReadBack::NotDone { evidence: missing.join("; ") };
    }
    match zone.settled(wanted, deadline).await {
        Settled::Yes(how) => {
            ReadBack::Done { evidence: format!("{} under token {by}; {how}", describe(wanted.records)) }
        }
        Settled::Pending(evidence) => ReadBack::InFlight { evidence },
    }
}

/// Reads again after the swap did not match. Where that fails, all that is known is that nothing was changed.
async fn after_loss<Z: Zone>(zone: &mut Z, warrant: &Warrant, wanted: &Wanted<'_>, deadline: Instant) -> Standing {
    match zone.read(wanted, deadline).await {
        Ok(seen) => judge(&seen.texts, warrant, &wanted.token_record),
        Err(trouble) => Standing::Lower { found: None, was: format!("reading it again failed: {}", trouble.reason) },
    }
}

fn lost_race(wanted: &Wanted<'_>, now: &str) -> String {
    format!("{} changed between reading and writing, so nothing was written ({now}); try again", wanted.token_record)
}

fn already(wanted: &Wanted<'_>, how: &str) -> String {
    format!("{} was already so under token {}; {how}", describe(wanted.records), wanted.token.token)
}

/// The records' distinct names, canonical.
fn names(records: &[DnsRecord]) -> Vec<String> {
    let mut names: Vec<String> = records.iter().map(|record| canonical_name(&record.name)).collect();
    names.sort();
    names.dedup();
    names
}
