//! What an operator may order an open run to do.

use super::timeline::note;
use super::turning::begin_way_back;
use super::{ClusterState, Effect, Entry, GroupState, Unsettled, reject};
use crate::domain::command::{Rejection, RejectionCode, RunOrder};
use crate::domain::ids::{GroupName, RunId, StepId, Token, UnixMs};
use crate::domain::mutation::{Mutation, is_out};
use crate::domain::plan::{Action, REDIS_HAND_OVER, Step};
use crate::domain::run::{Assertion, Run, RunOutcome, RunPhase, StepEvent, StepPhase};

impl ClusterState {
    pub(super) fn order(
        &mut self,
        entry: Entry<'_>,
        (name, id, expected): (&GroupName, &RunId, Option<Token>),
        order: &RunOrder,
        reason: &str,
    ) -> Effect {
        if reason.trim().is_empty() {
            return reject(RejectionCode::Invalid, "reason: say why, for the audit");
        }
        let group = self.group_mut(name)?;
        if let Some(over) = group.history.iter().find(|past| &past.id == id) {
            return reject(RejectionCode::RunClosed, over_in_words(over, entry.at));
        }
        let run = group.run_mut(name, id)?;
        if expected.is_some() && expected != run.token() {
            let now = run.token().map_or("none".to_owned(), |token| token.to_string());
            return reject(
                RejectionCode::Stale,
                format!("run {id} is under token {now} by now; look again (`run show {id}`)"),
            );
        }
        let was_stuck = matches!(run.phase, RunPhase::Stuck { .. });
        let word = Assertion { by: entry.by.clone(), at: entry.at, reason: reason.to_owned() };
        let open_question = match order {
            RunOrder::Retry { step } => retry(run, step, entry.at).map(|()| None)?,
            RunOrder::Skip { step } => skip(run, step, &word)?,
            RunOrder::Abort => {
                if matches!(run.phase, RunPhase::Aborting { .. }) {
                    return reject(RejectionCode::Illegal, format!("run {id} is being aborted already"));
                }
                // A planned move that promoted nothing does not leave its group without a primary.
                match run.may_be_turned_back() {
                    true => begin_way_back(run, entry, format!("aborted by {}: {reason}", entry.by)),
                    false => run.phase = RunPhase::Aborting { order: word.clone() },
                }
                None
            }
            RunOrder::AssertFence { region } => {
                if region != run.from() {
                    let message = format!("region: the old primary is in {}, not in {region}", run.from());
                    return reject(RejectionCode::Invalid, message);
                }
                refuse_while_aborting(run)?;
                refuse_in_planned(run, "assert-fence")?;
                run.fence_assertion = Some(word.clone());
                assert_fence(run, &word)
            }
            RunOrder::AcceptLoss => {
                refuse_while_aborting(run)?;
                refuse_in_planned(run, "accept-loss")?;
                run.loss_acceptance = Some(word.clone());
                go_on_if_stuck_at(run, entry.at, |action| matches!(action, Action::Promote { .. }));
                None
            }
        };
        note(run, entry, None, format!("{} ordered by {}: {reason}", order.word(), entry.by));
        let run = run.clone();
        if let Some(step) = open_question.and_then(|step| run.plan.step(&step)) {
            leave_unsettled(group, &run, step, entry);
        }
        // Skipping a promotion says that it was done by hand: the right to write follows.
        if let RunOrder::Skip { step } = order
            && run.moves_serving()
            && run.plan.step(step).is_some_and(|step| matches!(step.action, Action::Promote { .. }))
        {
            group.serve_from(Some(run.to().clone()));
        }
        if was_stuck && !matches!(run.phase, RunPhase::Stuck { .. }) {
            self.page_unstuck(entry, &run, &format!("{} ordered by {}", order.word(), entry.by));
        }
        Ok(None)
    }
}

/// How and when it ended.
fn over_in_words(run: &Run, now: UnixMs) -> String {
    let RunPhase::Closed { outcome, at } = &run.phase else { return format!("run {} is over", run.id) };
    let how = match outcome {
        RunOutcome::Succeeded => "succeeded",
        RunOutcome::Withdrawn => "was withdrawn",
        RunOutcome::Aborted => "was aborted",
        RunOutcome::Reverted => "turned back",
    };
    let ago_s = now.since(*at) / 1000;
    let (n, unit) = match ago_s {
        0..120 => (ago_s, "s"),
        120..7_200 => (ago_s / 60, "min"),
        7_200..172_800 => (ago_s / 3_600, "h"),
        _ => (ago_s / 86_400, "days"),
    };
    format!("run {} is over: it {how} {n} {unit} ago; nothing is left to order", run.id)
}

fn refuse_while_aborting(run: &Run) -> Result<(), Rejection> {
    if matches!(run.phase, RunPhase::Aborting { .. }) {
        return reject(RejectionCode::Illegal, format!("run {} is being aborted", run.id));
    }
    Ok(())
}

fn retry(run: &mut Run, step: &StepId, now: UnixMs) -> Result<(), Rejection> {
    refuse_while_aborting(run)?;
    let Some(record) = run.steps.get_mut(step) else {
        return reject(RejectionCode::NotFound, format!("run {} has no step {step}", run.id));
    };
    if record.phase.is_settled() {
        return reject(RejectionCode::Illegal, format!("step {step} is {}: nothing to retry", record.phase));
    }
    if run.turned_back.is_some() && run.plan.is_forward(step) {
        return reject(
            RejectionCode::Illegal,
            format!("run {} has turned back: step {step} is not tried again", run.id),
        );
    }
    record.refresh(now);
    run.phase = run.going();
    Ok(())
}

/// What a planned move proves nobody's word takes the place of.
fn refuse_in_planned(run: &Run, what: &str) -> Result<(), Rejection> {
    if !run.is_planned() || is_out(Mutation::PlannedBySkipping) {
        return Ok(());
    }
    let message = format!(
        "{what}: run {} is a {}, which loses nothing and proves its fence; to move without that, abort it (it then turns back) \
         and order a failover",
        run.id, run.kind
    );
    reject(RejectionCode::Illegal, message)
}

/// Returns the step where its effect is still an open question.
fn skip(run: &mut Run, step: &StepId, word: &Assertion) -> Result<Option<StepId>, Rejection> {
    refuse_while_aborting(run)?;
    let Some(action) = run.plan.step(step).map(|step| step.action.clone()) else {
        return reject(RejectionCode::NotFound, format!("run {} has no step {step}", run.id));
    };
    // On the way back a hand-over that nobody can look at is a person's to leave: Redis has not moved.
    let is_left_behind = run.turned_back.is_some() && action.is_named(REDIS_HAND_OVER);
    if matches!(action, Action::Fence { .. } | Action::CatchUp { .. } | Action::Promote { .. } | Action::Release { .. })
        || action.is_named(REDIS_HAND_OVER) && !is_left_behind
    {
        refuse_in_planned(run, "skip")?;
    }
    if run.turned_back.is_some() && !is_left_behind && run.plan.is_forward(step) {
        return reject(RejectionCode::Illegal, format!("run {} has turned back: step {step} is not begun", run.id));
    }
    if matches!(action, Action::Fence { .. }) && run.fence_assertion.is_none() {
        let message = format!(
            "step {step} proves that the old primary in {0} is silent: `run assert-fence --region {0}` takes its place by your name",
            run.from()
        );
        return reject(RejectionCode::NoFenceProof, message);
    }
    let fence_open = run.fence_steps().any(|step| !run.phase_of(&step.id).is_settled());
    if matches!(action, Action::Promote { .. }) && fence_open {
        return reject(RejectionCode::NoFenceProof, format!("step {step}: the old primary is not fenced yet"));
    }
    let was = run.phase_of(step);
    let Some(phase) = was.after(StepEvent::Skip) else {
        return reject(RejectionCode::Illegal, format!("step {step} is {was}: nothing to skip"));
    };
    if let Some(record) = run.steps.get_mut(step) {
        record.phase = phase;
        record.finished_at = Some(word.at);
        record.detail = format!("skipped by {}: {}", word.by, word.reason);
    }
    if matches!(&run.phase, RunPhase::Stuck { step: at, .. } if at == step) {
        run.phase = run.going();
    }
    Ok(was.is_open_question().then(|| step.clone()))
}

/// The operator's word takes the place of the fence step. What that step may still do stays to be settled.
fn assert_fence(run: &mut Run, word: &Assertion) -> Option<StepId> {
    let steps: Vec<StepId> = run.fence_steps().map(|step| step.id.clone()).collect();
    let mut open_question = None;
    for id in steps {
        let Some(record) = run.steps.get_mut(&id) else { continue };
        let was = record.phase;
        let Some(phase) = was.after(StepEvent::Skip) else { continue };
        record.phase = phase;
        record.finished_at = Some(word.at);
        record.detail = format!("asserted by {}: {}", word.by, word.reason);
        if was.is_open_question() || was == StepPhase::Failed {
            open_question = Some(id);
        }
    }
    go_on_if_stuck_at(run, word.at, |action| matches!(action, Action::Fence { .. } | Action::Promote { .. }));
    open_question
}

fn go_on_if_stuck_at(run: &mut Run, now: UnixMs, fits: impl Fn(&Action) -> bool) {
    if let RunPhase::Stuck { step, .. } = &run.phase
        && run.plan.step(step).is_some_and(|step| fits(&step.action))
    {
        if let Some(record) = run.steps.get_mut(&step.clone()) {
            record.refresh(now);
        }
        run.phase = RunPhase::Open;
    }
}

/// Remembers that a step may still take effect at its resource: a token above the one it was started under is raised there
/// before anything else is done.
pub(super) fn leave_unsettled(group: &mut GroupState, run: &Run, step: &Step, entry: Entry<'_>) {
    let token = run.record(&step.id).and_then(|record| record.token);
    if let (Some(resource), Some(token)) = (step.action.resource(), token) {
        let action = step.action.clone();
        let unsettled = Unsettled { run: run.id.clone(), token, since: entry.at, action, is_due: false };
        group.unsettled.insert(resource, unsettled);
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::advance::{Hand, Move, Patience, advance};
    use crate::domain::attempt::Outcome;
    use crate::domain::command::{Change, RunOrder};
    use crate::domain::fixtures::{World, group};
    use crate::domain::ids::UnixMs;

    #[test]
    fn a_person_is_called_again_where_nothing_answers_after_their_retry() {
        let (mut world, token) = World::opened("r1");
        world.must(world.start_change("fence", token));
        world.must(world.finish_change("fence", token, Outcome::Unknown { reason: "no answer".to_owned() }));
        let token = world.claim("r1");
        let (run, step, reason) = (world.run().id.clone(), "fence".into(), "no answer".to_owned());
        world.must(Change::MarkStuck { group: group(), run: run.clone(), token, step, reason: reason.clone() });
        let order = RunOrder::Retry { step: "fence".into() };
        world.must(Change::Order { group: group(), run, expected_token: None, order, reason });
        let patience = Patience { fence_ms: 5000, unknown_ms: 5000, stopped_ms: u64::MAX };
        let hand = Hand { token: Some(token), ..Hand::default() };
        let calls = |now: UnixMs| {
            let moves = advance(world.group(), world.run(), &hand, patience, now);
            moves.iter().any(|due| matches!(due, Move::GiveUp { .. }))
        };
        assert!(!calls(world.now.plus(4000)), "its patience is given again");
        assert!(calls(world.now.plus(6000)));
    }
}
