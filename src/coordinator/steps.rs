//! Single moves of an open run, each a task of its own: confirm, commit the intent, act, read back, commit the result.
//!
//! Wherever such a task dies, the log tells what may have happened: before `StepStarted` nothing has, after it the next
//! holder reads the effect back under a higher token before anything else is done about the step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument as _;

use super::{Coordinator, JournalError};
use crate::clock::unix_now;
use crate::domain::advance::{Move, backoff_ms, lapse_step, may_be_called_off};
use crate::domain::attempt::{Outcome, Raised, ReadBack, Warrant};
use crate::domain::command::{Applied, Change};
use crate::domain::decide::Holds;
use crate::domain::ids::{GroupName, ResourceName, RunId, StepId, Token};
use crate::domain::mutation::{Mutation, is_out};
use crate::domain::plan::{Action, Step};
use crate::domain::run::{Run, RunOutcome, RunPhase, StepPhase};
use crate::domain::state::GroupState;
use crate::domain::view::View;

/// Reading back and raising take no longer than this.
pub(super) const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// What is in flight at a resource is looked at this often.
const POLL: Duration = Duration::from_millis(50);
/// A condition that is not met is looked at this often.
pub(super) const RECHECK: Duration = Duration::from_millis(200);
/// A stuck run's resource is looked at this often.
const WATCH: Duration = Duration::from_secs(2);
/// So long after its opening a run whose trigger can be judged neither way calls a person, milliseconds.
const UNSURE_PATIENCE_MS: u64 = 30_000;
/// What that person is told.
const UNSURE: &str = "too few nodes can tell whether the region is still down: look at `watchdogctl status`, then `run abort`, \
                      or `run assert-fence` where you know better";
/// A stuck fence whose host answers is tried again at least this often, milliseconds.
const TRY_AGAIN_MAX_MS: u64 = 300_000;
/// An actuator that outlives its deadline by this is dropped, and its outcome is unknown.
pub(super) const GRACE: Duration = Duration::from_millis(500);
/// A result is proposed again for this long where the log does not answer.
const REPORT_FOR: Duration = Duration::from_secs(10);

/// How a task ended.
pub(super) enum Over {
    /// A claim; `None` where it failed.
    Claimed { group: GroupName, run: RunId, token: Option<Token> },
    /// Something about a step. `rest`: how long to leave it alone. `silent`: its resource did (not) answer a watch.
    Step { group: GroupName, step: StepId, rest: Duration, floor: Option<Token>, silent: Option<bool> },
    /// Something about the run as a whole.
    Run { group: GroupName },
    /// An unsettled resource was tried.
    Settled { group: GroupName, resource: ResourceName },
}

/// One move, with the state and view it was decided on.
pub(super) struct Executor {
    pub coordinator: Arc<Coordinator>,
    pub group: GroupState,
    pub run: Run,
    pub token: Token,
    pub floor: Option<Token>,
    pub view: View,
    pub was_silent: bool,
}

/// What a move leaves behind.
pub(super) struct Rest {
    rest: Duration,
    floor: Option<Token>,
    silent: Option<bool>,
}

impl Rest {
    fn none() -> Self {
        Self::of(Duration::ZERO)
    }

    pub(super) fn of(rest: Duration) -> Self {
        Self { rest, floor: None, silent: None }
    }
}

impl Executor {
    /// Every line that is logged on the way, by whatever part, carries whose move it was.
    pub(super) async fn carry_out(self, due: Move) -> Over {
        let step = match &due {
            Move::Start { step, .. } | Move::Settle { step, .. } | Move::GiveUp { step, .. } => step.as_str(),
            Move::Lapse { step } | Move::Watch { step } => step.as_str(),
            Move::Claim | Move::Abort | Move::TurnBack { .. } | Move::Close { .. } => "",
        };
        let Run { group, id, .. } = &self.run;
        let span = tracing::info_span!("move", %group, run = %id, step, token = %self.token);
        self.make(due).instrument(span).await
    }

    async fn make(self, due: Move) -> Over {
        let group = self.run.group.clone();
        let (step, rest) = match due {
            Move::Claim => return self.claim().await,
            Move::Abort => return self.abort().await,
            Move::Close { outcome } => {
                let reason = self.run.turned_back.as_ref().map_or_else(String::new, |back| back.reason.clone());
                return self.close(outcome, &reason).await;
            }
            Move::TurnBack { reason } => {
                self.turn_back(reason).await;
                return Over::Run { group };
            }
            Move::Start { step, attempt } => (step.clone(), self.start(&step, attempt).await),
            Move::Settle { step, attempt } => (step.clone(), self.settle(&step, attempt).await),
            Move::Lapse { step } => (lapse_step(), self.lapse(&step).await),
            Move::Watch { step } => (step.clone(), self.watch(&step).await),
            Move::GiveUp { step, reason } => (step.clone(), self.give_up(&step, reason).await),
        };
        Over::Step { group, step, rest: rest.rest, floor: rest.floor, silent: rest.silent }
    }

    fn planned(&self, step: &StepId) -> Option<Step> {
        self.run.plan.step(step).cloned()
    }

    pub(super) fn warrant(&self, step: &StepId, attempt: u32) -> Warrant {
        Warrant {
            cluster: self.coordinator.policy.cluster.clone(),
            group: self.run.group.clone(),
            run: self.run.id.clone(),
            step: step.clone(),
            attempt,
            token: self.token,
            fenced_host: None,
        }
    }

    async fn claim(self) -> Over {
        let change = Change::ClaimRun {
            group: self.run.group.clone(),
            run: self.run.id.clone(),
            expected_token: self.group.token,
            floor: self.floor,
        };
        let token = match self.coordinator.propose(change).await {
            Some(Applied::Done { token, .. }) => token,
            _ => None,
        };
        if let Some(token) = token {
            tracing::info!(run = %self.run.id, %token, "claimed");
        }
        Over::Claimed { group: self.run.group, run: self.run.id, token }
    }

    // --- an attempt ------------------------------------------------------------------------------------------------

    async fn start(&self, id: &StepId, attempt: u32) -> Rest {
        let Some(step) = self.planned(id) else { return Rest::of(WATCH) };
        if let Some((_, left)) = self.group.left_in_the_way(&step.action) {
            if unix_now().since(self.run.opened_at) < UNSURE_PATIENCE_MS || self.redis_gives_way(&step) {
                return Rest::of(RECHECK);
            }
            let reason = format!(
                "its resource is unsettled since run {}: it must answer once before anything else is done to it; `run skip` goes on without",
                left.run
            );
            return self.give_up(id, reason).await;
        }
        match &step.action {
            Action::Fence { .. } => match self.trigger() {
                Holds::Unknown if unix_now().since(self.run.opened_at) < UNSURE_PATIENCE_MS => {
                    return Rest::of(RECHECK);
                }
                Holds::Unknown => return self.give_up(id, UNSURE.to_owned()).await,
                Holds::No => {
                    if let Some(rest) = self.withdraw(&step).await {
                        return rest;
                    }
                }
                Holds::Yes => {}
            },
            Action::Promote { .. } if !self.can_judge_loss() => return Rest::of(RECHECK),
            _ => {}
        }
        let is_forward = self.run.turned_back.is_none();
        if !is_out(Mutation::StartWithoutConfirming)
            && !self.coordinator.confirm_for(&self.run.id, id, "not started").await
        {
            return Rest::of(RECHECK);
        }
        let deadline = Instant::now() + Duration::from_millis(step.deadline_ms);
        let (proof, gate) = match self.gates(&step).await {
            Ok(passed) => passed,
            Err(shut) => return self.refused_gate(&step, shut).await,
        };
        self.gates_opened(id);
        let fenced_host = self.fenced_host(proof.as_ref());
        if !step.action.is_repeatable() && self.run.moves_serving() && is_forward {
            // Before the proposal, whatever becomes of it: it may be committed although this node never hears so.
            self.coordinator.leases.stop(&self.run.group, self.run.from());
        }
        let started = self
            .propose(Change::StepStarted {
                group: self.run.group.clone(),
                run: self.run.id.clone(),
                step: id.clone(),
                token: self.token,
                attempt,
                fence_proof: proof,
                expected_loss_ms: gate.expected_ms,
                loss_limit_ms: gate.limit_ms,
            })
            .await;
        if !started && !is_out(Mutation::ActBeforeCommit) {
            return Rest::of(RECHECK);
        }
        let warrant = Warrant { fenced_host, ..self.warrant(id, attempt) };
        let outcome = self.attempt(&warrant, &step.action, deadline).await;
        self.conclude(&step, attempt, outcome).await
    }

    async fn attempt(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Outcome {
        // Between the quorum check and here this process may have slept; what is late is not sent.
        if Instant::now() >= deadline {
            let reason = "its deadline passed before anything was sent".to_owned();
            return Outcome::Failed { retryable: true, reason };
        }
        let acting = self.coordinator.actuator.execute(warrant, action, deadline);
        match tokio::time::timeout_at(deadline + GRACE, acting).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Unknown { reason: "no answer within the step's deadline".to_owned() },
        }
    }

    /// Commits the result of an attempt or of reading back, and says how long to wait before the next move.
    async fn conclude(&self, step: &Step, attempt: u32, outcome: Outcome) -> Rest {
        let (run, id) = (&self.run.id, &step.id);
        match &outcome {
            Outcome::Done { evidence } => tracing::info!(%run, step = %id, token = %self.token, "done: {evidence}"),
            other => tracing::warn!(%run, step = %id, token = %self.token, outcome = ?other, "not done"),
        }
        let rest = match &outcome {
            Outcome::Done { .. } => Duration::ZERO,
            Outcome::Unknown { .. } => POLL,
            Outcome::Failed { .. } | Outcome::Refused { .. } => jittered(backoff_ms(step, self.since_retry(id) + 1)),
        };
        let outcome = match outcome {
            // A repeatable action needs no reading back: whatever it did may be done again.
            Outcome::Unknown { reason } if step.action.is_repeatable() => Outcome::Failed { retryable: true, reason },
            other => other,
        };
        let held = if let Outcome::Refused { held } = &outcome { Some(*held) } else { None };
        self.report(id, attempt, outcome).await;
        if let Some(held) = held {
            return self.held_higher(step, held).await;
        }
        Rest::of(rest)
    }

    fn since_retry(&self, id: &StepId) -> u32 {
        self.run.record(id).map_or(0, |record| record.attempts_since_retry)
    }

    /// The log must learn the result: asked again while it does not answer. Where it never does, the step stays `started`
    /// in the log and is read back.
    async fn report(&self, id: &StepId, attempt: u32, outcome: Outcome) {
        let give_up_at = Instant::now() + REPORT_FOR;
        let change = Change::StepFinished {
            group: self.run.group.clone(),
            run: self.run.id.clone(),
            step: id.clone(),
            token: self.token,
            attempt,
            outcome,
        };
        loop {
            match self.coordinator.answer(change.clone()).await {
                Ok(_) | Err(JournalError::NotLeader) => return,
                Err(error) if Instant::now() >= give_up_at => {
                    tracing::error!(run = %self.run.id, step = %id, %error, "the result could not be committed; it will be read back");
                    return;
                }
                Err(_) => tokio::time::sleep(RECHECK).await,
            }
        }
    }

    /// A resource remembers a higher token than the log's newest: stop, page, and go on only by a claim above it.
    pub(super) async fn held_higher(&self, step: &Step, held: Token) -> Rest {
        let resource = step.action.resource().map_or_else(String::new, |resource| resource.0);
        tracing::warn!(run = %self.run.id, step = %step.id, ours = %self.token, %held, %resource, "refused: a higher token is held there");
        let reason = format!(
            "{resource} holds token {held}, above this run's {}: find out who raised it; {}",
            self.token,
            if held.epoch > self.token.epoch {
                "then raise the cluster's epoch"
            } else {
                "`run retry` then claims above it"
            },
        );
        self.call_a_person(&step.id, reason).await;
        // Above a token of a later epoch nothing can be claimed before the epoch is raised: the next attempt meets it again.
        let floor = (held.epoch <= self.token.epoch && held.n < u64::MAX).then_some(held);
        Rest { rest: RECHECK, floor, silent: None }
    }

    // --- reading back ----------------------------------------------------------------------------------------------

    /// Raises our token at the resource and reads it back.
    pub(super) async fn look(&self, warrant: &Warrant, action: &Action) -> ReadBack {
        let deadline = Instant::now() + LOOK_DEADLINE;
        let actuator = &self.coordinator.actuator;
        let looking = async {
            if actuator.read_back_raises(action) {
                return actuator.read_back(warrant, action, deadline).await;
            }
            match actuator.raise(warrant, action, deadline).await {
                Raised::Done { .. } => actuator.read_back(warrant, action, deadline).await,
                Raised::Unknown { reason } => ReadBack::Unknown { reason },
                Raised::Refused { held } => ReadBack::Refused { held },
            }
        };
        match tokio::time::timeout_at(deadline + GRACE, looking).await {
            Ok(seen) => seen,
            Err(_) => ReadBack::Unknown { reason: "no answer in time".to_owned() },
        }
    }

    async fn settle(&self, id: &StepId, attempt: u32) -> Rest {
        let Some(step) = self.planned(id) else { return Rest::of(WATCH) };
        if !self.coordinator.confirm_for(&self.run.id, id, "not read back").await {
            return Rest::of(RECHECK);
        }
        if step.action.is_repeatable() || is_out(Mutation::RepeatInsteadOfReadingBack) {
            let reason = "interrupted; it may be repeated".to_owned();
            self.report(id, attempt, Outcome::Failed { retryable: true, reason }).await;
            return Rest::none();
        }
        let phase = self.run.phase_of(id);
        match self.look(&self.warrant(id, attempt), &step.action).await {
            ReadBack::Done { evidence } => {
                let evidence = format!("found done: {evidence}");
                self.conclude(&step, attempt, Outcome::Done { evidence }).await
            }
            ReadBack::NotDone { evidence } | ReadBack::Untouched { evidence } => {
                if self.keeps_out(id) {
                    let reason = format!("found not done: {evidence}");
                    self.report(id, attempt, Outcome::Failed { retryable: true, reason }).await;
                }
                Rest::of(POLL)
            }
            ReadBack::InFlight { .. } => Rest::of(POLL),
            ReadBack::Unknown { reason } => {
                if phase == StepPhase::Started {
                    self.report(id, attempt, Outcome::Unknown { reason }).await;
                }
                Rest::of(RECHECK)
            }
            ReadBack::Refused { held } => self.held_higher(&step, held).await,
        }
    }

    /// Whether the token in hand keeps out the step's last request. Where it does not, "not there" may be "not yet": the
    /// run is claimed anew (`advance`) and looked at again.
    fn keeps_out(&self, id: &StepId) -> bool {
        may_be_called_off(&self.run, self.run.record(id).and_then(|record| record.token))
    }

    /// Looks whether what keeps a stuck run is gone. A step that was never tried goes on by itself when its gates open; a
    /// fence also when proof arrives or its host answers again; any other step only when its effect is found to be there.
    async fn watch(&self, id: &StepId) -> Rest {
        let Some(step) = self.planned(id) else { return Rest::of(WATCH) };
        let record = self.run.record(id).cloned().unwrap_or_default();
        if record.attempts == 0 {
            if self.would_start(&step).await {
                self.unstick("what kept the step from being tried is gone").await;
            }
            return Rest::of(WATCH);
        }
        if step.action.is_repeatable() {
            return Rest::of(WATCH);
        }
        let seen = self.look(&self.warrant(id, record.attempts), &step.action).await;
        let is_silent = matches!(seen, ReadBack::Unknown { .. });
        match seen {
            ReadBack::Done { evidence } => {
                let evidence = format!("found done: {evidence}");
                self.report(id, record.attempts, Outcome::Done { evidence }).await;
                self.unstick("the effect is there").await;
                return Rest::none();
            }
            ReadBack::NotDone { evidence } | ReadBack::Untouched { evidence } => {
                if record.phase.is_open_question() && self.keeps_out(id) {
                    let reason = format!("found not done: {evidence}");
                    self.report(id, record.attempts, Outcome::Failed { retryable: true, reason }).await;
                    if self.run.turned_back.is_some() && self.run.plan.is_forward(id) {
                        self.unstick("what became of the step is known").await;
                        return Rest::none();
                    }
                }
                if step.action.is_at_old_primary()
                    && (self.was_silent || record.phase.is_open_question() || self.is_time_again(record.attempts))
                    && self.target_stands(&step).await.is_ok()
                {
                    self.unstick("the old primary's host answers").await;
                }
            }
            ReadBack::InFlight { .. } | ReadBack::Unknown { .. } => {}
            ReadBack::Refused { held } => return self.held_higher(&step, held).await,
        }
        Rest { rest: WATCH, floor: None, silent: Some(is_silent) }
    }

    /// Mode `lease`: commits the old primary's silence once it is proved, beside whatever the fence step is doing.
    async fn lapse(&self, fence: &StepId) -> Rest {
        if !self.coordinator.confirm_for(&self.run.id, fence, "silence is not judged").await {
            return Rest::of(RECHECK);
        }
        match self.silence().await {
            Ok(evidence) => {
                tracing::warn!(run = %self.run.id, step = %fence, token = %self.token, "silent by itself: {evidence}");
                let (group, run) = (self.run.group.clone(), self.run.id.clone());
                let change = Change::LeaseLapsed { group, run, token: self.token, step: fence.clone(), evidence };
                self.propose(change).await;
                Rest::of(RECHECK)
            }
            Err((_, Some(missing_ms))) => Rest::of(Duration::from_millis(missing_ms.clamp(1, 1000))),
            Err((why, None)) => {
                tracing::debug!(run = %self.run.id, step = %fence, "not silent yet: {why}");
                Rest::of(RECHECK)
            }
        }
    }

    /// A host that answers but could not be fenced is tried again by itself, the more seldom the more often it failed.
    fn is_time_again(&self, attempts: u32) -> bool {
        let RunPhase::Stuck { step, since, .. } = &self.run.phase else { return false };
        if self.trigger() == Holds::Unknown || self.run.record(step).is_some_and(|record| record.is_permanent) {
            return false;
        }
        let patience_ms = self.coordinator.policy.groups.get(&self.run.group).map_or(10_000, |r| r.fence_patience_ms);
        let wait_ms = patience_ms.saturating_mul(u64::from(attempts / 4 + 1)).min(TRY_AGAIN_MAX_MS);
        let now = unix_now();
        // Stuck since a moment that is still to come: whoever wrote that had a clock that was wrong. Ours tells how long
        // this node has watched.
        let waited_ms = if *since > now { self.view.watched_ms } else { now.since(*since) };
        waited_ms >= wait_ms
    }

    async fn unstick(&self, reason: &str) {
        let (group, run) = (self.run.group.clone(), self.run.id.clone());
        self.propose(Change::Unstick { group, run, token: self.token, reason: reason.to_owned() }).await;
    }

    /// A planned move that promoted nothing goes back by itself; anything else waits for a person.
    pub(super) async fn give_up(&self, id: &StepId, reason: String) -> Rest {
        if self.run.turns_back_by_itself() {
            self.turn_back(format!("{id}: {reason}")).await;
            return Rest::of(RECHECK);
        }
        self.call_a_person(id, reason).await
    }

    async fn turn_back(&self, reason: String) {
        tracing::warn!(run = %self.run.id, token = %self.token, "turning back: {reason}");
        let (group, run) = (self.run.group.clone(), self.run.id.clone());
        self.propose(Change::TurnBack { group, run, token: self.token, reason }).await;
    }

    async fn call_a_person(&self, id: &StepId, reason: String) -> Rest {
        tracing::error!(run = %self.run.id, step = %id, "stuck: {reason}");
        let (group, run) = (self.run.group.clone(), self.run.id.clone());
        let marked = self.propose(Change::MarkStuck { group, run, token: self.token, step: id.clone(), reason }).await;
        if !marked {
            // No rest holds up a call for a person: what could not be committed would be due again at once.
            tokio::time::sleep(RECHECK).await;
        }
        Rest::of(RECHECK)
    }

    // --- the end ---------------------------------------------------------------------------------------------------

    async fn abort(self) -> Over {
        let mut settled = Vec::new();
        let mut open = BTreeSet::new();
        let mut untouched = true;
        for step in self.run.plan.all_steps() {
            let Some(record) = self.run.record(&step.id) else { continue };
            let is_fence = matches!(step.action, Action::Fence { .. });
            if record.attempts == 0 || !(record.phase.is_open_question() || is_fence) {
                continue;
            }
            let seen = self.look(&self.warrant(&step.id, record.attempts), &step.action).await;
            untouched &= !is_fence || matches!(seen, ReadBack::Untouched { .. });
            let Some(resource) = step.action.resource() else { continue };
            match seen {
                ReadBack::Done { evidence } | ReadBack::NotDone { evidence } | ReadBack::Untouched { evidence } => {
                    settled.push((resource, evidence));
                }
                ReadBack::InFlight { .. } | ReadBack::Unknown { .. } | ReadBack::Refused { .. } => {
                    open.insert(resource);
                }
            }
        }
        // A fence and its release act on one host: it is at rest only where neither is under way.
        settled.retain(|(resource, _)| !open.contains(resource));
        self.propose_close(RunOutcome::Aborted, untouched, settled, "aborted by an operator").await;
        Over::Run { group: self.run.group }
    }

    async fn close(self, outcome: RunOutcome, reason: &str) -> Over {
        self.propose_close(outcome, false, Vec::new(), reason).await;
        Over::Run { group: self.run.group }
    }

    pub(super) async fn propose_close(
        &self,
        outcome: RunOutcome,
        old_primary_untouched: bool,
        settled: Vec<(ResourceName, String)>,
        reason: &str,
    ) {
        self.propose(Change::CloseRun {
            group: self.run.group.clone(),
            run: self.run.id.clone(),
            token: self.token,
            outcome,
            settled: settled.into_iter().collect(),
            old_primary_untouched,
            reason: reason.to_owned(),
            monitor_ms: self.coordinator.policy.groups.get(&self.run.group).map_or(0, |rules| rules.monitor_ms),
        })
        .await;
    }

    async fn propose(&self, change: Change) -> bool {
        matches!(self.coordinator.propose(change).await, Some(Applied::Done { .. }))
    }
}

/// Between three quarters and five quarters of it, so that many retries do not keep step.
fn jittered(ms: u64) -> Duration {
    let factor = rand::random_range(0.75..1.25);
    Duration::from_millis(ms).mul_f64(factor)
}
