//! The DNS actuator and `verify` against real parts: BIND, a Route 53 API server, PostgreSQL, an HTTP server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers too")]

mod parts;
mod resolve;
mod rfc2136;
mod route53;
#[path = "../lab/stopped.rs"]
mod stopped;
mod verify;

use tokio::time::{Duration, Instant};
use watchdog::domain::attempt::{Outcome, Warrant};
use watchdog::domain::ids::Token;
use watchdog::domain::plan::{Action, DnsProvider, DnsRecord, RecordKind};

/// The token record of the test group.
pub const TOKEN_RECORD: &str = "_watchdog-aicamera.demo.test.";
/// The record of the test group.
pub const API: &str = "api.demo.test.";

/// A warrant of the test group.
pub fn warrant(n: u64, run: &str) -> Warrant {
    Warrant {
        cluster: "demo".into(),
        group: "aicamera".into(),
        run: run.into(),
        step: "dns".into(),
        attempt: 1,
        token: Token { epoch: 1, n },
        fenced_host: None,
    }
}

/// The token 1.`n`.
pub fn token(n: u64) -> Token {
    Token { epoch: 1, n }
}

/// `api.demo.test. 300 A value`.
pub fn a(value: &str) -> DnsRecord {
    DnsRecord { name: API.into(), kind: RecordKind::A, ttl_s: 300, value: value.into() }
}

/// Sets the records at the provider.
pub fn upsert(provider: &DnsProvider, records: Vec<DnsRecord>) -> Action {
    Action::UpsertDns { provider: provider.clone(), token_record: TOKEN_RECORD.into(), records }
}

/// That many milliseconds from now.
pub fn within(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Long enough for everything on this machine; nothing waits for it unless it is broken.
pub fn ample() -> Instant {
    within(20_000)
}

/// What a done outcome says.
pub fn evidence(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Done { evidence } => evidence,
        other => panic!("not done: {other:?}"),
    }
}

/// What a failed outcome says, if it may be tried again as wanted.
pub fn failure(outcome: &Outcome, want_retryable: bool) -> &str {
    match outcome {
        Outcome::Failed { retryable, reason } if *retryable == want_retryable => reason,
        other => panic!("not failed with retryable={want_retryable}: {other:?}"),
    }
}
