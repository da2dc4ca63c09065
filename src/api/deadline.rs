//! The caller's deadline, `grpc-timeout`: nothing is begun once it has passed, and nobody is waited for beyond it.
//!
//! It is read as a call arrives and goes with the call's task, so that every write and every way to the leader is bounded
//! by it without being told. The node answers a little before: an answer that says what became of a write is worth more
//! than the caller's own clock running out.

use std::time::Duration;

use tokio::time::Instant;
use tonic::codegen::http::HeaderMap;
use tonic::{Code, Status};

use super::refuse::{UNPROVEN, nothing_done_in_time, outcome_unknown, refused_caller};

/// The answer is on its way this much before the caller stops listening, and no more than a tenth of the time it gave.
const MARGIN: Duration = Duration::from_millis(50);

tokio::task_local! {
    static DEADLINE: Option<Instant>;
    static PROVED_UNTIL: Option<Instant>;
}

/// The deadline of a call that has just arrived; `None` where it named none.
///
/// # Errors
/// `grpc-timeout` is not what gRPC says it is.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Instant>, String> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let given = parse(text)
        .ok_or_else(|| format!("{text:?} is not 1 to 8 digits and one of H, M, S, m, u, n: for example 1500m"))?;
    let margin = MARGIN.min(given / 10);
    Ok(Instant::now().checked_add(given.saturating_sub(margin)))
}

fn parse(text: &str) -> Option<Duration> {
    let digits = text.get(..text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match text.as_bytes().last()? {
        b'H' => Some(Duration::from_secs(n * 3600)),
        b'M' => Some(Duration::from_secs(n * 60)),
        b'S' => Some(Duration::from_secs(n)),
        b'm' => Some(Duration::from_millis(n)),
        b'u' => Some(Duration::from_micros(n)),
        b'n' => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

/// Runs a call under its deadline; `proved_until`: when the caller's certificate proves nothing any more.
pub(super) async fn within<F: Future>(deadline: Option<Instant>, proved_until: Option<Instant>, call: F) -> F::Output {
    PROVED_UNTIL.scope(proved_until, DEADLINE.scope(deadline, call)).await
}

/// When the caller's certificate ends: no stream goes on beyond it.
pub(super) fn proved_until() -> Option<Instant> {
    PROVED_UNTIL.try_with(|until| *until).ok().flatten()
}

/// What a stream ends with then.
pub(super) fn no_longer_proved() -> Status {
    let why = "your certificate has expired meanwhile: call again with a new one, from where this ended";
    refused_caller(Code::Unauthenticated, UNPROVEN, why)
}

/// The deadline of the call that this task works on.
pub(super) fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok().flatten()
}

/// What is left of it, and no more than `most`.
pub(super) fn left(most: Duration) -> Duration {
    current().map_or(most, |deadline| deadline.saturating_duration_since(Instant::now()).min(most))
}

/// When it passes: never, where there is none.
pub(super) async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Does the write, unless the deadline has passed: then nothing is begun. Where it passes meanwhile, the outcome is unknown.
pub(super) async fn write<T>(write: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let deadline = current();
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(nothing_done_in_time("your deadline had passed before it was begun"));
    }
    tokio::select! {
        done = write => done,
        () = passed(deadline) => {
            Err(outcome_unknown(Code::DeadlineExceeded, "your deadline passed while it was being done"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grpc_says_is_read_and_nothing_else() {
        for (text, wanted) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("1500m", Some(Duration::from_millis(1500))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("1s", None),
            ("123456789S", None),
            ("1é", None),
        ] {
            assert_eq!(parse(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn the_answer_comes_before_the_caller_stops_listening() {
        let at = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", tonic::codegen::http::HeaderValue::from_static(text));
            let before = Instant::now();
            of(&headers).unwrap().unwrap() - before
        };
        assert!(at("10S") < Duration::from_millis(9_960));
        assert!(at("100m") < Duration::from_millis(95));
        assert!(of(&HeaderMap::new()).unwrap().is_none());
    }
}
