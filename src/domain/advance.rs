//! What the holder of a run does next. Pure: from the replicated run, what is under way here, and the time, to moves.

use std::collections::BTreeSet;

use super::ids::{StepId, Token, UnixMs};
use super::mutation::{Mutation, is_out};
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
    /// A planned move cannot go on: go back.
    TurnBack {
        /// What keeps it.
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
    /// So long may a planned move keep writing stopped without promoting, milliseconds: then it turns back.
    pub stopped_ms: u64,
}

/// The next moves of the open run. None means: wait for what is under way.
///
/// A request of ours that nobody answered may still be on its way, and a token equal to its own does not keep it out:
/// before it is read back as not done, or left alone for good, the run is claimed anew. What else is under way is waited
/// for first; until then reading back can only find it done.
pub fn advance(group: &GroupState, run: &Run, hand: &Hand, patience: Patience, now: UnixMs) -> Vec<Move> {
    if hand.token.is_none() || hand.token != run.token() {
        return vec![Move::Claim];
    }
    if hand.busy.is_empty() && has_loose_end(group, run) {
        return vec![Move::Claim];
    }
    let is_paused = group.pause.is_some() && !is_out(Mutation::NoPauseGate);
    if !is_paused && let Some(reason) = stopped_too_long(run, patience, now) {
        return vec![Move::TurnBack { reason }];
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
        RunPhase::Open | RunPhase::Reverting if is_paused => open_questions(run, hand, None),
        RunPhase::Reverting => way_back(group, run, hand, patience, now),
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
    let is_bound =
        group.lease.as_ref().is_some_and(|lease| &lease.region == run.from()) || is_out(Mutation::SilenceUnbound);
    if !is_bound || group.pause.is_some() || !matches!(run.fencing, Fencing::Lease { .. }) || run.is_planned() {
        return None;
    }
    let is_wanting =
        |step: &&Step| matches!(run.phase_of(&step.id), StepPhase::Started | StepPhase::Unknown | StepPhase::Failed);
    let step = run.fence_steps().find(is_wanting)?;
    is_free(hand, &lapse_step()).then(|| Move::Lapse { step: step.id.clone() })
}

/// Under the present token something was begun whose end nobody knows.
fn has_loose_end(group: &GroupState, run: &Run) -> bool {
    let is_left = group.unsettled.values().any(|left| left.run == run.id && !may_be_called_off(run, Some(left.token)));
    is_left
        || run.plan.all_steps().filter(|step| !step.action.is_repeatable()).any(|step| {
            let record = run.steps.get(&step.id);
            record.is_some_and(|record| record.phase.is_open_question() && !may_be_called_off(run, record.token))
        })
}

/// Whether the holder's token keeps out a request under `token`: only then "not there" means that it will not come.
pub fn may_be_called_off(run: &Run, token: Option<Token>) -> bool {
    token < run.token()
}

fn is_free(hand: &Hand, step: &StepId) -> bool {
    !hand.busy.contains(step) && !hand.resting.contains(step)
}

/// Reading back starts nothing: it goes on while paused or stuck. What is dropped as needless is not begun again.
fn open_questions(run: &Run, hand: &Hand, except: Option<&StepId>) -> Vec<Move> {
    run.steps
        .iter()
        .filter(|(id, record)| record.phase.is_open_question() && is_free(hand, id) && except != Some(*id))
        .filter(|(id, _)| !run.is_needless(id))
        .map(|(id, record)| Move::Settle { step: id.clone(), attempt: record.attempts })
        .collect()
}

fn open_moves(group: &GroupState, run: &Run, hand: &Hand, patience: Patience, now: UnixMs) -> Vec<Move> {
    if run.plan.steps().all(|(_, step)| run.phase_of(&step.id).is_settled()) {
        // A step that was skipped may still be under way here: what becomes of it is this run's business.
        let close = Move::Close { outcome: RunOutcome::Succeeded };
        return if hand.busy.is_empty() { vec![close] } else { Vec::new() };
    }
    let due = run.plan.steps().filter(|(stage, step)| run.is_due(*stage, step)).map(|(_, step)| step);
    moves_of(due, group, run, hand, patience, now)
}

/// What the way forward may have done is known first; then what is to be undone, stage by stage.
fn way_back(group: &GroupState, run: &Run, hand: &Hand, patience: Patience, now: UnixMs) -> Vec<Move> {
    // Whatever was done on the way forward is kept out for good by a later token than its own.
    let is_kept_out = |step: &Step| {
        let was_begun = |record: &&StepRecord| record.attempts > 0;
        let token = run.record(&step.id).filter(was_begun).map(|record| record.token);
        token.is_none_or(|token| may_be_called_off(run, token)) || is_out(Mutation::ReleaseUnderOldToken)
    };
    let mut effects = run.plan.steps().map(|(_, step)| step).filter(|step| !step.action.is_repeatable());
    if !effects.all(is_kept_out) {
        return if hand.busy.is_empty() { vec![Move::Claim] } else { Vec::new() };
    }
    let is_undone = run.plan.undo_steps().all(|(_, step)| run.phase_of(&step.id).is_settled());
    if !run.was_begun() || is_undone || is_out(Mutation::RevertedUnreleased) {
        let outcome = if run.was_begun() { RunOutcome::Reverted } else { RunOutcome::Withdrawn };
        return if hand.busy.is_empty() { vec![Move::Close { outcome }] } else { Vec::new() };
    }
    let is_out = is_out(Mutation::ReleaseOverOpenQuestion);
    let questions = run.forward_questions().filter(|step| !hand.busy.contains(&step.id) && !is_out);
    let in_hand: Vec<_> = run.plan.steps().map(|(_, step)| step).filter(|step| hand.busy.contains(&step.id)).collect();
    let is_free = |step: &Step| is_out || !in_hand.iter().any(|forward| step.action.waits_for(&forward.action));
    let undo = run.plan.undo_steps().filter(|(stage, step)| run.undo_is_due(*stage, step) && is_free(step));
    let due = questions.chain(undo.map(|(_, step)| step));
    moves_of(due, group, run, hand, patience, now)
}

/// Why a planned move that has stopped the writing goes back: it does not leave its group without a primary for long.
fn stopped_too_long(run: &Run, patience: Patience, now: UnixMs) -> Option<String> {
    let stopped_ms = now.since(run.writing_stopped_at?);
    let waits = stopped_ms < patience.stopped_ms || is_out(Mutation::StoppedForEver);
    if !run.turns_back_by_itself() || waits {
        return None;
    }
    let next = run.plan.steps().map(|(_, step)| step).find(|step| !run.phase_of(&step.id).is_settled());
    let waited = next.map_or_else(String::new, |step| {
        let detail = run.record(&step.id).map(|record| record.detail.as_str()).filter(|detail| !detail.is_empty());
        format!("; {}: {}", step.action.verb(), detail.unwrap_or("not done yet"))
    });
    let (stopped_s, limit_s) = (stopped_ms as f64 / 1000.0, patience.stopped_ms as f64 / 1000.0);
    Some(format!("writing was stopped for {stopped_s:.1} s, {limit_s:.1} s is the limit before promoting{waited}"))
}

fn moves_of<'a>(
    due: impl Iterator<Item = &'a Step>,
    group: &GroupState,
    run: &Run,
    hand: &Hand,
    patience: Patience,
    now: UnixMs,
) -> Vec<Move> {
    // Patience runs while this holder could act: not before its claim, and not while paused.
    let claimed_at = run.claims.last().map(|claim| claim.at);
    let since = claimed_at.max(group.resumed_at).unwrap_or_default();
    let mut moves = Vec::new();
    for step in due {
        let Some(record) = run.steps.get(&step.id) else { continue };
        if hand.busy.contains(&step.id) || record.phase.is_settled() {
            continue;
        }
        if let Some(reason) = hopeless(step, record, patience, since, now)
            && !gives_way(run, step)
            && (step.blocking || hand.busy.is_empty())
        {
            if run.turns_back_by_itself() {
                return vec![Move::TurnBack { reason }];
            }
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
    // Both act on the old primary's host, which may come back any moment.
    let is_fence = matches!(step.action, Action::Fence { .. });
    let by_time = is_fence || matches!(step.action, Action::Release { .. });
    let waited_ms = record.first_started_at.map_or(0, |first| now.since(first.max(since)));
    let allowed_ms = if is_fence {
        patience.fence_ms
    } else if by_time {
        patience.fence_ms.saturating_add(step.deadline_ms)
    } else {
        patience.unknown_ms.saturating_add(step.deadline_ms)
    };
    let is_spent = match record.phase {
        StepPhase::Failed if record.is_permanent => true,
        StepPhase::Failed if by_time => waited_ms >= allowed_ms,
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

/// Whether a person is not called for a step yet, since a stuck run begins nothing and others are still to be done: for one that
/// the next stage does not wait for the blocking ones, and for Redis whatever is not Redis, on the way back too. Each of those
/// ends, or calls a person itself.
pub fn gives_way(run: &Run, step: &Step) -> bool {
    let is_left = |other: &Step| other.id != step.id && !run.phase_of(&other.id).is_settled();
    if run.turned_back.is_some() {
        let mut undo = run.plan.undo_steps().map(|(_, other)| other);
        return step.action.is_redis() && undo.any(|other| !other.action.is_redis() && is_left(other));
    }
    let comes_first = |other: &Step| other.blocking || step.action.is_redis() && !other.action.is_redis();
    let mut others = run.plan.steps().filter(|(stage, _)| !run.waits_for_all(*stage)).map(|(_, other)| other);
    !step.blocking && others.any(|other| comes_first(other) && is_left(other))
}

/// The wait before the next attempt: doubles from `backoff_ms` to its limit. The executor adds jitter.
pub fn backoff_ms(step: &Step, attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(20);
    step.retry.backoff_ms.saturating_mul(1 << doublings).min(step.retry.backoff_max_ms.max(step.retry.backoff_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::attempt::Outcome;
    use crate::domain::command::{Change, RunOrder};
    use crate::domain::fixtures::{World, group};
    use crate::domain::run::StepPhase;

    fn next(world: &World, token: Token, busy: &[&str]) -> Vec<Move> {
        let busy = busy.iter().map(|step| StepId::from(*step)).collect();
        let hand = Hand { token: Some(token), busy, resting: BTreeSet::new() };
        let patience = Patience { fence_ms: u64::MAX, unknown_ms: u64::MAX, stopped_ms: u64::MAX };
        advance(world.group(), world.run(), &hand, patience, world.now)
    }

    fn settle(step: &str) -> Move {
        Move::Settle { step: StepId::from(step), attempt: 1 }
    }

    fn order(world: &mut World, order: RunOrder) {
        let (run, reason) = (world.run().id.clone(), "a person's word".to_owned());
        world.must(Change::Order { group: group(), run, expected_token: None, order, reason });
    }

    #[test]
    fn an_unanswered_request_is_kept_out_by_a_new_claim_before_it_is_called_off() {
        let (mut world, token) = World::opened("r1");
        world.must(world.start_change("fence", token));
        assert_eq!(next(&world, token, &["fence"]), [], "the answer is waited for");
        let unknown = Outcome::Unknown { reason: "no answer".to_owned() };
        world.must(world.finish_change("fence", token, unknown));
        assert_eq!(next(&world, token, &[]), [Move::Claim], "an equal token keeps nothing out");
        assert!(!may_be_called_off(world.run(), Some(token)));
        let token = world.claim("r1");
        assert_eq!(next(&world, token, &[]), [settle("fence")]);
        assert!(may_be_called_off(world.run(), world.run().record(&"fence".into()).and_then(|fence| fence.token)));
    }

    #[test]
    fn what_is_under_way_beside_an_unanswered_request_is_not_held_up() {
        let (mut world, token) = World::opened("r1");
        world.do_step("fence", token);
        world.must(world.start_change("dns", token));
        world.must(world.start_change("promote", token));
        world.must(world.finish_change("dns", token, Outcome::Unknown { reason: String::new() }));
        assert_eq!(next(&world, token, &["promote"]), [settle("dns")], "it may be found done meanwhile");
        assert_eq!(next(&world, token, &[]), [Move::Claim]);
    }

    #[test]
    fn an_abort_claims_before_it_looks() {
        let (mut world, token) = World::opened("r1");
        world.do_step("fence", token);
        world.must(world.start_change("promote", token));
        order(&mut world, RunOrder::Abort);
        assert_eq!(next(&world, token, &["promote"]), []);
        assert_eq!(next(&world, token, &[]), [Move::Claim]);
        let token = world.claim("r1");
        assert_eq!(next(&world, token, &[]), [Move::Abort]);
    }

    #[test]
    fn a_look_that_turning_back_made_needless_is_not_read_back_while_paused_or_stuck() {
        let (mut world, token) = World::switching("r1");
        world.do_step("fence", token);
        world.must(world.start_change("catch-up", token));
        order(&mut world, RunOrder::Abort);
        let token = world.claim("r1");
        world.must(world.start_change("release", token));
        let reason = || "look".to_owned();
        world.must(Change::Pause { group: group(), reason: reason(), until: None });
        assert_eq!(next(&world, token, &["release"]), []);
        world.must(Change::Resume { group: group(), reason: reason(), expired: None });
        let run = world.run().id.clone();
        world.must(Change::MarkStuck { group: group(), run, token, step: "release".into(), reason: reason() });
        assert_eq!(next(&world, token, &[]), [Move::Claim]);
        let token = world.claim("r1");
        assert_eq!(next(&world, token, &[]), [Move::Watch { step: "release".into() }]);
    }

    #[test]
    fn what_an_assertion_leaves_behind_is_kept_out_before_the_run_goes_on_to_its_end() {
        let (mut world, token) = World::opened("r1");
        world.must(world.start_change("fence", token));
        order(&mut world, RunOrder::AssertFence { region: "hcmc".into() });
        let left = world.group().unsettled.values().next().map(|left| left.token);
        assert_eq!(left, Some(token), "the token it was started under");
        assert_eq!(next(&world, token, &[]), [Move::Claim]);
        let token = world.claim("r1");
        assert!(!next(&world, token, &[]).contains(&Move::Claim), "the later token keeps it out");
    }

    #[test]
    fn a_run_is_not_closed_over_a_skipped_step_that_is_still_under_way() {
        let (mut world, token) = World::opened("r1");
        for step in ["fence", "dns", "promote", "services"] {
            world.do_step(step, token);
        }
        world.must(world.start_change("verify", token));
        order(&mut world, RunOrder::Skip { step: "verify".into() });
        assert_eq!(world.run().phase_of(&"verify".into()), StepPhase::Skipped);
        assert_eq!(next(&world, token, &["verify"]), []);
        assert_eq!(next(&world, token, &[]), [Move::Close { outcome: RunOutcome::Succeeded }]);
    }
}
