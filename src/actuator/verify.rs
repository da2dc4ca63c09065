//! Looking whether the other side really works: over HTTP, by DNS, and by writing into its database.
//!
//! Everything here may be done again and again. The only thing changed is the token table of the promoted database, and
//! there a lower token is refused like anywhere else.

mod database;
mod http;
pub mod rehearsal;

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::Actuator;
use super::dns::canonical_value;
use crate::domain::attempt::{Outcome, Raised, ReadBack, Warrant};
use crate::domain::ids::Token;
use crate::domain::plan::{Action, Check, DnsRecord, RedisEndpoint};
use crate::redis::{Connection, Role, Trouble};
use crate::resolve::{Question, query};

/// Kept back from the deadline, so that what failed can still be told.
const RESERVE: Duration = Duration::from_millis(50);

/// The actuator of `Action::Verify`.
#[derive(Debug, Clone, Copy)]
pub struct VerifyActuator(());

impl Default for VerifyActuator {
    fn default() -> Self {
        Self::new()
    }
}

impl VerifyActuator {
    /// Sees to it that TLS has its cryptography, where `main` has not yet.
    pub fn new() -> Self {
        // An error means that it is set already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self(())
    }
}

/// Why a check does not hold.
#[derive(Debug)]
enum Fault {
    /// It does not hold; the words say why.
    Fails(String),
    /// The database remembers a higher token.
    Held(Token),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Fault::Fails(reason)
    }
}

/// What all checks together say.
enum Seen {
    Holds(String),
    Fails(String),
    Held(Token),
}

#[async_trait]
impl Actuator for VerifyActuator {
    /// Nothing to raise: the token table is written with the check itself.
    async fn raise(&self, _warrant: &Warrant, _action: &Action, _deadline: Instant) -> Raised {
        Raised::Done { in_flight: None }
    }

    async fn execute(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Outcome {
        let checks = match checks(action) {
            Ok(checks) => checks,
            Err(reason) => return Outcome::Failed { retryable: false, reason },
        };
        match look(warrant, checks, deadline).await {
            Seen::Holds(evidence) => Outcome::Done { evidence },
            Seen::Fails(reason) => Outcome::Failed { retryable: true, reason },
            Seen::Held(held) => Outcome::Refused { held },
        }
    }

    async fn read_back(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> ReadBack {
        let checks = match checks(action) {
            Ok(checks) => checks,
            Err(reason) => return ReadBack::Unknown { reason },
        };
        match look(warrant, checks, deadline).await {
            Seen::Holds(evidence) => ReadBack::Done { evidence },
            Seen::Fails(evidence) => ReadBack::NotDone { evidence },
            Seen::Held(held) => ReadBack::Refused { held },
        }
    }
}

fn checks(action: &Action) -> Result<&[Check], String> {
    match action {
        Action::Verify { checks } if checks.is_empty() => {
            Err("there is nothing to verify: name at least one check for this region in the configuration".to_owned())
        }
        Action::Verify { checks } => Ok(checks),
        other => Err(format!("action {:?} is nothing to verify: this is a fault of the program", other.verb())),
    }
}

/// All checks side by side; one that does not end in time fails by name.
async fn look(warrant: &Warrant, checks: &[Check], deadline: Instant) -> Seen {
    let limit = deadline.saturating_duration_since(Instant::now());
    let until = Instant::now() + limit.saturating_sub(RESERVE.min(limit / 4));
    let one = |check| async move {
        match timeout_at(until, look_at(warrant, check, until)).await {
            Ok(seen) => seen,
            Err(_) => Err(Fault::Fails(format!("no answer within {} ms", limit.as_millis()))),
        }
    };
    let seen = join_all(checks.iter().map(one)).await;
    let (mut holds, mut fails, mut held) = (Vec::new(), Vec::new(), None);
    for (check, seen) in checks.iter().zip(seen) {
        match seen {
            Ok(evidence) => holds.push(evidence),
            Err(Fault::Fails(reason)) => fails.push(format!("{}: {reason}", name_of(check))),
            Err(Fault::Held(token)) => held = held.max(Some(token)),
        }
    }
    match held {
        Some(token) => Seen::Held(token),
        None if fails.is_empty() => Seen::Holds(holds.join("; ")),
        None => Seen::Fails(format!("{} of {} checks fail: {}", fails.len(), checks.len(), fails.join("; "))),
    }
}

async fn look_at(warrant: &Warrant, check: &Check, until: Instant) -> Result<String, Fault> {
    match check {
        Check::Http { url, expect_status, connect_to, resolve_at } => {
            let by = http::By { connect_to: connect_to.as_deref(), resolve_at: resolve_at.as_deref() };
            Ok(http::get(url, *expect_status, by, until).await?)
        }
        Check::DnsAnswers { server, record } => Ok(dns_answers(server, record, until).await?),
        Check::DatabaseWritable { database } => database::write(warrant, database, until).await,
        Check::RedisWritable { server } => Ok(redis_takes_a_write(warrant, server).await?),
    }
}

/// The write is one key of the group's own; a replica refuses it.
async fn redis_takes_a_write(warrant: &Warrant, server: &RedisEndpoint) -> Result<String, String> {
    let failed = |trouble: Trouble| trouble.to_string();
    let mut connection = Connection::open(server).await.map_err(failed)?;
    let shown = connection.look().await.map_err(failed)?;
    if let Role::Replica { of, .. } = shown.role {
        return Err(format!("it is a replica of {of}, not a primary"));
    }
    let (key, token) = (format!("watchdog:verify:{}", warrant.group), warrant.token.to_string());
    connection.ask(&["SET", &key, &token]).await.map_err(failed)?;
    Ok(format!("Redis at {} took a write", server.address))
}

async fn dns_answers(server: &str, record: &DnsRecord, until: Instant) -> Result<String, String> {
    let wanted = canonical_value(record)?;
    let limit = until.saturating_duration_since(Instant::now());
    let answer = query(server, &record.name, Question::from(record.kind), limit).await.map_err(|e| e.to_string())?;
    let values = answer.values();
    if values == [wanted.as_str()] {
        return Ok(format!("{server} answers {} {} {wanted}", record.name, record.kind));
    }
    let there = if values.is_empty() { "nothing".to_owned() } else { values.join(" ") };
    Err(format!("it answers {there}, not {wanted}"))
}

/// A check's name for people: no secret is ever part of it.
fn name_of(check: &Check) -> String {
    match check {
        Check::Http { url, .. } => format!("GET {}", http::without_secrets(url)),
        Check::DnsAnswers { server, record } => format!("{} {} at {server}", record.name, record.kind),
        Check::DatabaseWritable { database } => format!("write to {}", database::name_of(database)),
        Check::RedisWritable { server } => format!("write to Redis at {}", server.address),
    }
}
