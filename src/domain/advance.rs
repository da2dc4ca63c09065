//! What the holder of a run does next. Pure: from the replicated run, what is under way here, and the time, to moves.

use std::collections::BTreeSet;

use super::ids::{StepId, Token, UnixMs};
use super::plan::{Action, Step};
use super::policy::Fencing;
use super::run::{Run, RunOutcome, RunPhase, StepPhase, StepRecord};
use super::state::GroupState;
use super::stuck::NO_FENCE_PROOF;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// The newest claim is not ours: claim anew, before anything else.
    Claim,
    /// Begin an attempt (its gates are looked at first).
    Start {
        /// Which step.
        step: StepId,
        /// The attempt's number.
        attempt: u32,
    },
    /// An effect is an open question: raise our token at its resource, read it back, commit what it shows.
    Settle {
        /// Which step.
        step: StepId,
        /// The attempt in question.
        attempt: u32,
    },
    /// Mode `lease`: look whether the old primary has fallen silent by itself, beside what the fence step is doing.
    Lapse {
        /// The fence step whose place that would take.
        step: StepId,
    },
    /// The run is stuck: look whether what keeps it is gone.
    Watch {
        /// Which step.
        step: StepId,
    },
    /// The step cannot succeed by itself: call a person.
    GiveUp {
        /// Which step.
        step: StepId,
        /// Why, and what the operator may do.
        reason: String,
    },
    /// Raise the token wherever a step is an open question, then close as aborted.
    Abort,
    /// Close.
    Close {
        /// How.
        outcome: RunOutcome,
    },
}

/// What the executor holds in its own memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hand {
    /// The token of the claim made in this leadership.
    pub token: Option<Token>,
    /// Steps with something under way.
    pub busy: BTreeSet<StepId>,
    /// Steps whose back-off is not over.
    pub resting: BTreeSet<StepId>,
}

/// How long a fence may look for proof, and how long another effect may stay an open question, before a person is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the fence, milliseconds.
    pub fence_ms: u64,
    /// For the rest, milliseconds, besides the step's own deadline.
    pub unknown_ms: u64,
}

/// The next moves of the open run. None means: wait for what is under way.
pub fn advance(group: &GroupState, run: &Run, hand: &Hand, patience: Patience, now: UnixMs) -> Vec<Move> {
    if hand.token.is_none() || hand.token != run.token() {
        return vec![Move::Claim];
    }
    match &run.phase {
        RunPhase::Closed { .. } => Vec::new(),
        RunPhase::Aborting { .. } if hand.busy.is_empty() => vec![Move::Abort],
        RunPhase::Aborting { .. } => Vec::new(),
        RunPhase::Stuck { step, .. } => {
            let mut moves = open_questions(run, hand, Some(step));
            moves.extend(lapse(group, run, hand));
            if is_free(hand, step) {
                moves.push(Move::Watch { step: step.clone() });
            }
            moves
        }
        RunPhase::Open if group.pause.is_some() => open_questions(run, hand, None),
        RunPhase::Open => {
            let mut moves = open_moves(group, run, hand, patience, now);
            moves.extend(lapse(group, run, hand));
            moves
        }
    }
}

/// The wait for silence is under way as if it were a step of this name.
pub fn lapse_step() -> StepId {
    StepId::from("(lapse)")
}

/// Only what was bound before the fence's intent proves anything by its silence.
fn lapse(group: &GroupState, run: &Run, hand: &Hand) -> Option<Move> {
    let is_bound = group.lease.as_ref().is_some_and(|lease| &lease.region == run.from());
    if !is_bound || group.pause.is_some() || !matches!(run.fencing, Fencing::Lease { .. }) {
        return None;
    }
    let is_wanting =
        |step: &&Step| matches!(run.phase_of(&step.id), StepPhase::Started | StepPhase::Unknown | StepPhase::Failed);
    let step = run.fence_steps().find(is_wanting)?;
    is_free(hand, &lapse_step()).then(|| Move::Lapse { step: step.id.clone() })
}

fn is_free(hand: &Hand, step: &StepId) -> bool {
    !hand.busy.contains(step) && !hand.resting.contains(step)
}

/// Reading back starts nothing: it goes on while paused or stuck.
fn open_questions(run: &Run, hand: &Hand, except: Option<&StepId>) -> Vec<Move> {
    run.steps
        .iter()
        .filter(|(id, record)| record.phase.is_open_question() && is_free(hand, id) && except != Some(*id))
        .map(|(id, record)| Move::Settle { step: id.clone(), attempt: record.attempts })
        .collect()
}

fn open_moves(group: &GroupState, run: &Run, hand: &Hand, patience: Patience, now: UnixMs) -> Vec<Move> {
    if run.steps.values().all(|record| record.phase.is_settled()) {
        return vec![Move::Close { outcome: RunOutcome::Succeeded }];
    }
    // Patience runs while this holder could act: not before its claim, and not while paused.
    let claimed_at = run.claims.last().map(|claim| claim.at);
    let since = claimed_at.max(group.resumed_at).unwrap_or_default();
    let mut moves = Vec::new();
    for (stage, step) in run.plan.steps() {
        let Some(record) = run.steps.get(&step.id) else { continue };
        if !run.stage_is_due(stage) || hand.busy.contains(&step.id) || record.phase.is_settled() {
            continue;
        }
        if let Some(reason) = hopeless(step, record, patience, since, now)
            && (step.blocking || is_last_hope(run, hand, step))
        {
            moves.push(Move::GiveUp { step: step.id.clone(), reason });
            continue;
        }
        if hand.resting.contains(&step.id) {
            continue;
        }
        moves.push(match record.phase {
            StepPhase::Started | StepPhase::Unknown => Move::Settle { step: step.id.clone(), attempt: record.attempts },
            _ => Move::Start { step: step.id.clone(), attempt: record.attempts.saturating_add(1) },
        });
    }
    moves
}

/// Why a step will not succeed by itself, in words that say what the operator may do.
fn hopeless(step: &Step, record: &StepRecord, patience: Patience, since: UnixMs, now: UnixMs) -> Option<String> {
    let is_fence = matches!(step.action, Action::Fence { .. });
    let waited_ms = record.first_started_at.map_or(0, |first| now.since(first.max(since)));
    let allowed_ms = if is_fence { patience.fence_ms } else { patience.unknown_ms.saturating_add(step.deadline_ms) };
    let is_spent = match record.phase {
        StepPhase::Failed if record.is_permanent => true,
        StepPhase::Failed if is_fence => waited_ms >= allowed_ms,
        StepPhase::Failed => record.attempts_since_retry >= step.retry.max_attempts,
        StepPhase::Started | StepPhase::Unknown => waited_ms >= allowed_ms,
        _ => false,
    };
    if !is_spent {
        return None;
    }
    let detail = if record.detail.is_empty() { "no answer yet" } else { &record.detail };
    let missing = if is_fence { NO_FENCE_PROOF } else { step.action.verb() };
    let plural = if record.attempts == 1 { "" } else { "s" };
    Some(format!("{missing} after {} attempt{plural}: {detail}", record.attempts))
}

/// A step that the next stage does not wait for calls a person only when nothing else is left to do.
fn is_last_hope(run: &Run, hand: &Hand, step: &Step) -> bool {
    let last_stage = run.plan.stages.len().saturating_sub(1);
    hand.busy.is_empty()
        && run
            .plan
            .steps()
            .filter(|(stage, other)| *stage < last_stage && other.id != step.id && other.blocking)
            .all(|(_, other)| run.phase_of(&other.id).is_settled())
}

/// The wait before the next attempt: doubles from `backoff_ms` to its limit. The executor adds jitter.
pub fn backoff_ms(step: &Step, attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(20);
    step.retry.backoff_ms.saturating_mul(1 << doublings).min(step.retry.backoff_max_ms.max(step.retry.backoff_ms))
}
