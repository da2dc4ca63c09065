//! Acting on hosts: `fence`, `promote`, `release` and named actions, by asking the host's guard; and `catch-up`, which only asks both
//! guards what they show.
//!
//! Nothing here retries. Deadlines are stated in the guard's own time, from its last answer, so that a request that was
//! held up on the way (or with a frozen leader) is refused as expired instead of acted upon late.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::Actuator;
use super::catch_up;
use super::shown::Shown;
use super::ssh::{Ask, AskError, GuardChannels, Settings, excerpt};
use crate::domain::attempt::{Outcome, Prospect, Raised, ReadBack, Warrant};
use crate::domain::ids::{ClusterName, GroupName};
use crate::domain::plan::{Action, GuardEndpoint};
use crate::guard::protocol::{
    Answer, FENCE, GroupStatus, PROMOTE, PostgresRole, RELEASE, Refusal, Reply, Request, Status,
};

/// A guard's time is asked anew when its last answer is older: clocks drift apart, and the host may have been booted.
const FRAME_AGE_MAX: Duration = Duration::from_secs(60);

/// A guard's time at a moment of ours, and the boot it belongs to.
#[derive(Debug, Clone)]
struct Frame {
    boot_nonce: String,
    boottime_ms: u64,
    /// When the answer was here: later than it was written, so what is computed from it errs to the early side.
    at: Instant,
}

impl Frame {
    /// `deadline` in the guard's time.
    fn not_after_ms(&self, deadline: Instant) -> u64 {
        let ahead = deadline.saturating_duration_since(self.at).as_millis();
        self.boottime_ms.saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX))
    }
}

/// Who is asked: the address and the key it proves itself with.
type Host = (String, String);

/// Carries out [`Action::Fence`], [`Action::Promote`], [`Action::Release`], [`Action::Guarded`] and [`Action::CatchUp`].
#[derive(Debug)]
pub struct GuardedActuator {
    channels: Box<dyn Ask>,
    frames: Mutex<BTreeMap<Host, Frame>>,
}

impl Default for GuardedActuator {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

/// The guard, the action's name and its parameters; `None` for an action that is not a guard's.
fn asked(action: &Action) -> Option<(&GuardEndpoint, &str, BTreeMap<String, String>)> {
    match action {
        Action::Fence { guard } => Some((guard, FENCE, BTreeMap::new())),
        Action::Promote { guard } => Some((guard, PROMOTE, BTreeMap::new())),
        Action::Guarded { guard, name, params } => Some((guard, name, params.clone())),
        Action::Release { guard } => Some((guard, RELEASE, BTreeMap::new())),
        Action::CatchUp { .. } | Action::UpsertDns { .. } | Action::Verify { .. } => None,
    }
}

fn not_a_guards(action: &Action) -> String {
    format!("{} is not carried out by a guard: give it to its own actuator", action.verb())
}

impl GuardedActuator {
    /// No session yet.
    pub fn new(settings: Settings) -> Self {
        Self::over(Box::new(GuardChannels::new(settings)))
    }

    /// Over another way to the guards than SSH.
    pub fn over(channels: Box<dyn Ask>) -> Self {
        Self { channels, frames: Mutex::default() }
    }

    /// Connects ahead of time and learns the guard's time, so that the next action costs one exchange.
    ///
    /// # Errors
    /// As [`GuardedActuator::status`].
    pub async fn warm(
        &self,
        cluster: &ClusterName,
        epoch: u64,
        endpoint: &GuardEndpoint,
        deadline: Instant,
    ) -> Result<(), String> {
        self.status(cluster, epoch, endpoint, deadline).await.map(drop)
    }

    /// What the guard shows of its host. Changes nothing.
    ///
    /// # Errors
    /// In words: the host, what went wrong and what to do next.
    pub async fn status(
        &self,
        cluster: &ClusterName,
        epoch: u64,
        endpoint: &GuardEndpoint,
        deadline: Instant,
    ) -> Result<Status, String> {
        let asked = self.ask(endpoint, &Request::status(cluster.clone(), epoch), deadline).await;
        match asked.map_err(|e| e.to_string())? {
            Reply::Status(status) => Ok(status),
            Reply::Refused { refusal, reason, .. } => {
                tracing::warn!(host = %endpoint.host, %cluster, ?refusal, "guard refused status: {reason}");
                Err(format!("guard of host {} refused status ({refusal}): {reason}", endpoint.host))
            }
            other => Err(format!("guard of host {} answered status with {other:?}", endpoint.host)),
        }
    }

    /// What is there now, as far as the guard's status tells, under no token: for a dry run. Changes nothing.
    pub async fn peek(&self, cluster: &ClusterName, epoch: u64, action: &Action, deadline: Instant) -> ReadBack {
        if let Action::CatchUp { from, to } = action {
            let asked = (self.status(cluster, epoch, from, deadline), self.status(cluster, epoch, to, deadline));
            let (from_shows, to_shows) = tokio::join!(asked.0, asked.1);
            return catch_up::present((from, from_shows), (to, to_shows));
        }
        let Some((guard, _, _)) = asked(action) else {
            return ReadBack::Unknown { reason: not_a_guards(action) };
        };
        match self.status(cluster, epoch, guard, deadline).await {
            Ok(status) => Self::present(action, &status),
            Err(reason) => ReadBack::Unknown { reason },
        }
    }

    /// What a guard's status tells of an action's effect.
    pub(super) fn present(action: &Action, status: &Status) -> ReadBack {
        let Some((guard, name, _)) = asked(action) else {
            return ReadBack::Unknown { reason: not_a_guards(action) };
        };
        if let Some(fault) = status.groups.iter().find_map(|group| group.fault.as_ref()) {
            return ReadBack::Unknown { reason: format!("guard of host {}: {fault}", guard.host) };
        }
        let is_latched = status.groups.iter().any(|group| group.latch.is_some());
        let built_in = [FENCE, PROMOTE, RELEASE].contains(&name);
        let Some(postgres) = status.postgres.as_ref().filter(|_| built_in) else {
            return ReadBack::NotDone { evidence: format!("the guard of {} answers", guard.host) };
        };
        let latch = if is_latched { "latched" } else { "not latched" };
        let evidence = format!("{}: server {}, {latch} ({})", guard.host, postgres.role, postgres.seen_by);
        match (name, postgres.role, is_latched) {
            (FENCE, PostgresRole::Stopped | PostgresRole::InRecovery, true) => ReadBack::Done { evidence },
            (PROMOTE, PostgresRole::Writable, _) | (RELEASE, PostgresRole::Writable, false) => {
                ReadBack::Done { evidence }
            }
            (PROMOTE, PostgresRole::Stopped, _) | (_, PostgresRole::Unknown, _) => {
                ReadBack::Unknown { reason: evidence }
            }
            _ => ReadBack::NotDone { evidence },
        }
    }

    /// One exchange. Every answer tells the guard's time, refusals too.
    pub(super) async fn ask(
        &self,
        endpoint: &GuardEndpoint,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, AskError> {
        let host: Host = (endpoint.address.clone(), endpoint.host_key.clone());
        let line = serde_json::to_string(request).map_err(|e| AskError::NotSent {
            retryable: false,
            reason: format!("the request to host {} cannot be written: {e}", endpoint.host),
        })?;
        let asked = self.channels.ask(endpoint, line, deadline).await;
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = asked.inspect_err(|_| {
            // Whatever cut the session may have been a boot.
            frames.remove(&host);
        })?;
        let answer = read_answer(endpoint.host.as_str(), &bytes).map_err(|reason| AskError::Lost { reason })?;
        let Answer { boot_nonce, boottime_ms, reply, .. } = answer;
        frames.insert(host, Frame { boot_nonce, boottime_ms, at: Instant::now() });
        Ok(reply)
    }

    fn frame(&self, endpoint: &GuardEndpoint) -> Option<Frame> {
        let frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = frames.get(&(endpoint.address.clone(), endpoint.host_key.clone()));
        frame.filter(|frame| frame.at.elapsed() < FRAME_AGE_MAX).cloned()
    }

    /// The guard's time, from its last answer or by asking.
    async fn learn(&self, warrant: &Warrant, endpoint: &GuardEndpoint, deadline: Instant) -> Result<Frame, AskError> {
        if let Some(frame) = self.frame(endpoint) {
            return Ok(frame);
        }
        self.ask(endpoint, &Request::status(warrant.cluster.clone(), warrant.token.epoch), deadline).await?;
        self.frame(endpoint).ok_or_else(|| AskError::NotSent {
            retryable: true,
            reason: format!("guard of host {}: its time was lost again at once", endpoint.host),
        })
    }

    /// `status` under a warrant, for what a reply in words cannot prove.
    pub(super) async fn group_shown(
        &self,
        warrant: &Warrant,
        endpoint: &GuardEndpoint,
        deadline: Instant,
    ) -> Result<Shown, String> {
        let status = self.status(&warrant.cluster, warrant.token.epoch, endpoint, deadline).await?;
        Shown::of(&warrant.group, endpoint, status)
    }

    /// Whether a promotion could succeed, by a status that was read already.
    pub(super) fn prospect(group: &GroupName, guard: &GuardEndpoint, status: &Status) -> Prospect {
        match Shown::of(group, guard, status.clone()) {
            Ok(shown) => shown.can_be_promoted(guard),
            Err(reason) => Prospect::Unknown { reason },
        }
    }

    /// P4: what the guard says in words is believed only with the server's role and the latch beside it.
    async fn prove_fence(&self, warrant: &Warrant, guard: &GuardEndpoint, said: String, deadline: Instant) -> ReadBack {
        let unknown = |reason: String| ReadBack::Unknown { reason };
        let shown = match self.group_shown(warrant, guard, deadline).await {
            Ok(shown) => shown,
            Err(reason) => return unknown(reason),
        };
        let host = &guard.host;
        let state = match shown.role {
            PostgresRole::Stopped => "stopped",
            PostgresRole::InRecovery => "in recovery",
            PostgresRole::Writable | PostgresRole::Unknown => {
                let (role, seen_by) = (shown.role, shown.seen_by);
                return unknown(format!("guard of host {host} says {said:?} but shows its server {role} ({seen_by})"));
            }
        };
        match shown.group.latch {
            Some(latch) if latch.token <= warrant.token => {
                let (token, run, seen_by) = (latch.token, latch.run, shown.seen_by);
                ReadBack::Done {
                    evidence: format!("{host}: server {state} ({seen_by}), latched under {token} by run {run}; {said}"),
                }
            }
            Some(latch) => ReadBack::Refused { held: latch.token },
            None => unknown(format!("guard of host {host} says {said:?} but shows no latch")),
        }
    }

    /// Not fenced: was it tried at all? As if nobody had, only where the server runs, unlatched, with nothing at work.
    async fn look_for_traces(
        &self,
        warrant: &Warrant,
        guard: &GuardEndpoint,
        evidence: String,
        deadline: Instant,
    ) -> ReadBack {
        match self.group_shown(warrant, guard, deadline).await {
            Ok(Shown {
                role: PostgresRole::Writable,
                group: GroupStatus { latch: None, in_flight: None, .. },
                seen_by,
                ..
            }) => ReadBack::Untouched {
                evidence: format!("{}: server writable ({seen_by}), no latch; {evidence}", guard.host),
            },
            Ok(_) => ReadBack::NotDone { evidence },
            // What the guard said stands; only what would be more than that is missing.
            Err(missing) => ReadBack::NotDone { evidence: format!("{evidence}; {missing}") },
        }
    }

    /// What the guard says in words is believed only with a server that takes writes, and no latch, beside it.
    async fn prove_release(
        &self,
        warrant: &Warrant,
        guard: &GuardEndpoint,
        said: String,
        deadline: Instant,
    ) -> ReadBack {
        let (host, unknown) = (&guard.host, |reason: String| ReadBack::Unknown { reason });
        match self.group_shown(warrant, guard, deadline).await {
            Err(reason) => unknown(reason),
            Ok(Shown { group: GroupStatus { latch: Some(latch), .. }, .. }) if latch.token > warrant.token => {
                ReadBack::Refused { held: latch.token }
            }
            Ok(Shown { role: PostgresRole::Writable, group: GroupStatus { latch: None, .. }, seen_by, .. }) => {
                ReadBack::Done { evidence: format!("{host}: server writable ({seen_by}), no latch; {said}") }
            }
            Ok(Shown { role, seen_by, group, .. }) => {
                let latch = if group.latch.is_some() { "latched" } else { "not latched" };
                unknown(format!("guard of host {host} says {said:?} but shows its server {role}, {latch} ({seen_by})"))
            }
        }
    }

    /// "Not promoted" lets a run turn back: only with the server in recovery and nothing pending.
    async fn prove_not_promoted(
        &self,
        warrant: &Warrant,
        guard: &GuardEndpoint,
        seen: ReadBack,
        deadline: Instant,
    ) -> ReadBack {
        match self.group_shown(warrant, guard, deadline).await {
            Err(reason) => ReadBack::Unknown { reason },
            Ok(Shown { group: GroupStatus { in_flight: Some(in_flight), .. }, .. }) => {
                ReadBack::InFlight { evidence: in_flight.to_string() }
            }
            Ok(Shown { role: PostgresRole::InRecovery, .. }) => seen,
            Ok(Shown { role, seen_by, .. }) => ReadBack::Unknown {
                reason: format!("guard of host {} shows its server {role} ({seen_by}), not in recovery", guard.host),
            },
        }
    }
}

/// A guard's answer from what came back of the session to `host`.
///
/// # Errors
/// What is wrong with it, with the beginning of what was read.
pub fn read_answer(host: &str, bytes: &[u8]) -> Result<Answer, String> {
    serde_json::from_slice(bytes).map_err(|e| {
        // The parser's words repeat what was read as it stands, however long.
        let (why, shown) = (excerpt(e.to_string().as_bytes()), excerpt(bytes));
        let what = format!("guard of host {host} answered what is no answer of a guard ({why}): {shown}");
        format!("{what}; is its forced command watchdog-guard of this version?")
    })
}

/// Every refusal leaves a line in the log, by name.
fn log_refusal(warrant: &Warrant, endpoint: &GuardEndpoint, action: &str, reply: &Reply) {
    if let Reply::Refused { refusal, reason, held } = reply {
        let held = held.map(|token| token.to_string()).unwrap_or_default();
        tracing::warn!(
            host = %endpoint.host, group = %warrant.group, run = %warrant.run, step = %warrant.step, action,
            token = %warrant.token, held, refusal = ?refusal, "guard refused: {reason}"
        );
        if *refusal == Refusal::LowerToken {
            tracing::warn!(host = %endpoint.host, group = %warrant.group, "somebody newer acts there: nothing was changed");
        }
    }
}

#[async_trait]
impl Actuator for GuardedActuator {
    async fn raise(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Raised {
        if let Action::CatchUp { .. } = action {
            // It changes nothing, so no later token has anything to wait for.
            return Raised::Done { in_flight: None };
        }
        let Some((guard, _, _)) = asked(action) else { return Raised::Unknown { reason: not_a_guards(action) } };
        // Attempts count from 1: a warrant for none settles what an abort or a skip left, and ends it where it may.
        let settles = warrant.attempt == 0;
        let warrant = &Warrant { attempt: warrant.attempt.max(1), ..warrant.clone() };
        match self.ask(guard, &Request::raise(warrant, settles), deadline).await {
            Ok(reply) => {
                log_refusal(warrant, guard, "raise", &reply);
                reply.into_raised()
            }
            Err(e) => Raised::Unknown { reason: e.to_string() },
        }
    }

    async fn can_succeed(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Prospect {
        let Action::Promote { guard } = action else {
            return Prospect::Good { evidence: format!("{} cannot be foreseen", action.verb()) };
        };
        match self.group_shown(warrant, guard, deadline).await {
            Ok(shown) => shown.can_be_promoted(guard),
            Err(reason) => Prospect::Unknown { reason },
        }
    }

    async fn end_holds(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Prospect {
        let Action::Promote { guard } = action else {
            return Prospect::Unknown { reason: not_a_guards(action) };
        };
        match self.raise(warrant, action, deadline).await {
            Raised::Done { .. } => {}
            Raised::Unknown { reason } => return Prospect::Unknown { reason },
            Raised::Refused { held } => {
                return Prospect::Bad { reason: format!("guard of host {} holds the higher token {held}", guard.host) };
            }
        }
        match self.group_shown(warrant, guard, deadline).await {
            Err(reason) => Prospect::Unknown { reason },
            Ok(Shown { group: GroupStatus { hold: Some(hold), .. }, .. }) => {
                let (host, left) = (&guard.host, hold.remaining_ms);
                Prospect::Bad { reason: format!("{host} holds still for {} for {left} ms", hold.host) }
            }
            Ok(_) => Prospect::Good { evidence: format!("{}: no promotion hold, none can begin", guard.host) },
        }
    }

    async fn execute(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Outcome {
        if let Action::CatchUp { from, to } = action {
            return self.catch_up(warrant, (from, to), deadline).await.into_outcome();
        }
        let Some((guard, name, params)) = asked(action) else {
            return Outcome::Failed { retryable: false, reason: not_a_guards(action) };
        };
        let frame = match self.learn(warrant, guard, deadline).await {
            Ok(frame) => frame,
            Err(AskError::NotSent { retryable, reason }) => return Outcome::Failed { retryable, reason },
            // Only the guard's status was asked: nothing was begun.
            Err(AskError::Lost { reason }) => return Outcome::Failed { retryable: true, reason },
        };
        let request = Request::act(warrant, name, params, &frame.boot_nonce, frame.not_after_ms(deadline));
        match self.ask(guard, &request, deadline).await {
            Ok(reply) => {
                log_refusal(warrant, guard, name, &reply);
                reply.into_outcome()
            }
            Err(AskError::NotSent { retryable, reason }) => Outcome::Failed { retryable, reason },
            Err(AskError::Lost { reason }) => Outcome::Unknown { reason },
        }
    }

    /// A guard raises before it looks: its store is fsynced before anything is looked at.
    fn read_back_raises(&self, _action: &Action) -> bool {
        true
    }

    async fn read_back(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> ReadBack {
        if let Action::CatchUp { from, to } = action {
            return self.catch_up(warrant, (from, to), deadline).await.into_read_back();
        }
        let Some((guard, name, params)) = asked(action) else {
            return ReadBack::Unknown { reason: not_a_guards(action) };
        };
        let seen = match self.ask(guard, &Request::read_back(warrant, name, params), deadline).await {
            Ok(reply) => {
                log_refusal(warrant, guard, name, &reply);
                reply.into_read_back()
            }
            Err(e) => return ReadBack::Unknown { reason: e.to_string() },
        };
        match (action, seen) {
            (Action::Fence { .. }, ReadBack::Done { evidence }) => {
                self.prove_fence(warrant, guard, evidence, deadline).await
            }
            (Action::Fence { .. }, ReadBack::NotDone { evidence }) => {
                self.look_for_traces(warrant, guard, evidence, deadline).await
            }
            (Action::Promote { .. }, seen @ (ReadBack::NotDone { .. } | ReadBack::Untouched { .. })) => {
                self.prove_not_promoted(warrant, guard, seen, deadline).await
            }
            (Action::Release { .. }, ReadBack::Done { evidence }) => {
                self.prove_release(warrant, guard, evidence, deadline).await
            }
            (_, seen) => seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_the_last_key_or_not_at_all() {
        let answer = |reply: &str| {
            let text = format!(r#"{{"guard_version":"0","boot_nonce":"b","boottime_ms":1,"reply":{reply}}}"#);
            read_answer("db-hcmc", text.as_bytes())
        };
        assert!(answer(r#"{"kind":"raised","held":{"epoch":1,"n":7}}"#).is_ok());
        for reply in [
            // Overheard, each of these would read as something safer than was said.
            r#"{"kind":"raised","held":{"epoch":1,"n":7},"inflight":{}}"#,
            r#"{"kind":"raised","held":{"epoch":1,"n":7,"m":1}}"#,
            r#"{"kind":"done","evidence":"","acted":true,"but":"not yet"}"#,
        ] {
            let why = answer(reply).unwrap_err();
            assert!(why.contains("host db-hcmc") && why.contains("unknown field"), "{why}");
        }
        let long = format!("{{\"\u{7f}{}\":1}}", "x".repeat(100_000));
        let why = read_answer("db-hcmc", long.as_bytes()).unwrap_err();
        assert!(why.len() < 4000 && !why.chars().any(char::is_control), "{} bytes: {why:.200}", why.len());
    }
}
