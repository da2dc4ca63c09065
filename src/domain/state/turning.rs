//! Planned moves in the log: what their plan must hold, what promoting demands of them besides P4's proof, and how they turn
//! back while their promotion was never begun.

use super::runs::Holder;
use super::timeline::note;
use super::{ClusterState, Effect, Entry, reject};
use crate::domain::command::{FenceProof, Rejection, RejectionCode};
use crate::domain::ids::Token;
use crate::domain::mutation::{Mutation, is_out};
use crate::domain::plan::{Action, Plan, REDIS_HAND_OVER, REDIS_RELEASE, Step};
use crate::domain::run::{Run, RunPhase, StepPhase, TurnedBack};

impl ClusterState {
    pub(super) fn turn_back(&mut self, entry: Entry<'_>, holder: Holder<'_>, reason: &str) -> Effect {
        let group = self.group_mut(holder.0)?;
        if let Some(pause) = &group.pause {
            let message = format!("group {} is paused by {}: {}", holder.0, pause.by, pause.reason);
            return reject(RejectionCode::Paused, message);
        }
        let run = group.held_run(holder)?;
        if !run.turns_back_by_itself() {
            return reject(RejectionCode::Illegal, why_not_back(run));
        }
        let was_stuck = matches!(run.phase, RunPhase::Stuck { .. });
        begin_way_back(run, entry, reason.to_owned());
        let run = run.clone();
        if was_stuck {
            self.page_unstuck(entry, &run, "it turns back");
        }
        Ok(None)
    }
}

/// From here on no step of the way forward may start.
pub(super) fn begin_way_back(run: &mut Run, entry: Entry<'_>, reason: String) {
    note(run, entry, None, format!("turns back: {reason}"));
    run.turned_back = Some(TurnedBack { reason, at: entry.at });
    run.phase = RunPhase::Reverting;
}

/// Why a run does not turn back, and what to do instead.
pub(super) fn why_not_back(run: &Run) -> String {
    let Run { id, kind, phase, .. } = run;
    if !run.is_planned() {
        return format!("run {id} is a {kind}: only a planned move turns back");
    }
    if run.plan.undo.is_empty() {
        return format!("run {id} promotes nothing: there is nothing to turn back to");
    }
    if !matches!(phase, RunPhase::Open | RunPhase::Stuck { .. }) || run.turned_back.is_some() {
        return format!("run {id} is {} already", phase.word());
    }
    format!("run {id} has begun to promote {}: it goes forward, unless that is seen not to have happened", run.to())
}

/// Nothing but the fence and the look at the standby, and what is taken back, may come before or beside the promotion, both in
/// that order and waited for: whatever else were begun there would not be undone.
pub(super) fn plan_can_turn_back(plan: &Plan) -> Result<(), Rejection> {
    let invalid = |why: String| reject(RejectionCode::Invalid, format!("a planned move's plan: {why}"));
    let stage_of = |fits: fn(&Action) -> bool| {
        plan.steps().find(|(_, step)| step.blocking && fits(&step.action)).map(|(stage, _)| stage)
    };
    let Some((promote, _)) = plan.steps().find(|(_, step)| matches!(step.action, Action::Promote { .. })) else {
        return if plan.undo.is_empty() {
            Ok(())
        } else {
            invalid("it promotes nothing, and has something to undo".into())
        };
    };
    let fence = stage_of(|action| matches!(action, Action::Fence { .. }));
    let catch_up = stage_of(|action| matches!(action, Action::CatchUp { .. }));
    let in_order = fence.is_some_and(|fence| catch_up.is_some_and(|catch_up| fence < catch_up && catch_up < promote));
    if !in_order {
        return invalid("fence, catch-up and promote must stand in stages of their own, in this order".into());
    }
    let is_early =
        |action: &Action| !matches!(action, Action::Fence { .. } | Action::CatchUp { .. } | Action::Promote { .. });
    // A hand-over of Redis is waited for, and taken back where it was done.
    let is_taken_back = |step: &Step| {
        let (Action::Guarded { guard, .. }, true) = (&step.action, step.action.is_named(REDIS_HAND_OVER)) else {
            return false;
        };
        let takes_back = |undo: &Action| {
            undo.is_named(REDIS_RELEASE) && matches!(undo, Action::Guarded { guard: at, .. } if at == guard)
        };
        step.blocking && plan.undo_steps().any(|(_, undo)| takes_back(&undo.action))
    };
    let mut early = plan.steps().filter(|(stage, step)| *stage <= promote && is_early(&step.action));
    if let Some((_, step)) = early.find(|(_, step)| !is_taken_back(step)) {
        return invalid(format!("step {} comes before or beside the promotion, and could not be undone", step.id));
    }
    if plan.steps().any(|(_, step)| matches!(step.action, Action::Release { .. })) {
        return invalid("release stands on the way forward".into());
    }
    if !plan.undo_steps().any(|(_, step)| matches!(step.action, Action::Release { .. })) {
        return invalid("nothing in its undo releases the old primary".into());
    }
    match plan.undo_steps().find(|(_, step)| matches!(step.action, Action::Fence { .. } | Action::Promote { .. })) {
        Some((_, step)) => invalid(format!("its undo fences or promotes ({})", step.id)),
        None => Ok(()),
    }
}

/// A planned move promotes only where the old primary's guard was read back under the promoting token, and where the standby
/// was seen to have all that was acknowledged. No loss is expected, and nobody can accept one.
pub(super) fn all_that_was_acknowledged(run: &Run, proof: Option<&FenceProof>) -> Result<(), Rejection> {
    if !matches!(proof, Some(FenceProof::Guard { .. })) && !is_out(Mutation::PlannedOnAnyProof) {
        let message = format!("a {} promotes only by its guard's own proof for {}", run.kind, run.from());
        return reject(RejectionCode::NoFenceProof, message);
    }
    let is_catch_up = |action: &Action| matches!(action, Action::CatchUp { .. }) && !is_out(Mutation::NoCatchUp);
    let unseen =
        run.plan.steps().find(|(_, step)| is_catch_up(&step.action) && run.phase_of(&step.id) != StepPhase::Done);
    match unseen {
        Some((_, step)) => {
            let phase = run.phase_of(&step.id);
            let message =
                format!("step {} is {phase}: the standby in {} may lack what was acknowledged", step.id, run.to());
            reject(RejectionCode::LossTooGreat, message)
        }
        None => Ok(()),
    }
}

/// The old primary takes writes again only under a later token than that of every effect of the way forward, so that none of
/// their requests comes after it, however late or how often it arrives; and a promotion that was tried has certainly failed.
pub(super) fn may_release(run: &Run, token: Token) -> Result<(), Rejection> {
    if is_out(Mutation::ReleaseUnderOldToken) {
        return Ok(());
    }
    for (_, step) in run.plan.steps().filter(|(_, step)| !step.action.is_repeatable()) {
        let Some(record) = run.record(&step.id).filter(|record| record.attempts > 0) else { continue };
        let is_promoted = matches!(step.action, Action::Promote { .. }) && record.phase != StepPhase::Failed;
        if is_promoted || record.token >= Some(token) {
            let failed = if is_promoted { "it failed, and " } else { "" };
            let message = format!(
                "step {} is {}, started under token {}: the release needs {failed}a later token than {token}",
                step.id,
                record.phase,
                record.token.unwrap_or_default()
            );
            return reject(RejectionCode::Illegal, message);
        }
    }
    Ok(())
}

pub(super) fn way_back_is_done(run: &Run) -> Result<(), Rejection> {
    let undone = run.plan.undo_steps().filter(|(_, step)| !run.phase_of(&step.id).is_settled());
    let undone: Vec<_> = undone.map(|(_, step)| step.id.as_str()).collect();
    if undone.is_empty() || is_out(Mutation::RevertedUnreleased) {
        return Ok(());
    }
    reject(RejectionCode::Illegal, format!("run {}: not undone yet: {}", run.id, undone.join(", ")))
}
