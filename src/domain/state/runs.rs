//! The life of a run in the replicated state: opened, claimed, stepped, closed. Every check here is the last word: what
//! was decided on an older view is rejected.

use std::collections::BTreeMap;

use super::orders::leave_unsettled;
use super::timeline::{note, note_attempt};
use super::turning::{all_that_was_acknowledged, may_release, plan_can_turn_back, way_back_is_done};
use super::{CLAIMS_KEPT, ClusterState, Effect, Entry, GroupState, HISTORY_KEPT, LastFailover, bound, reject};
use crate::domain::attempt::Outcome;
use crate::domain::command::{Change, FenceProof, Rejection, RejectionCode};
use crate::domain::ids::{GroupName, RegionName, RunId, StepId, Token};
use crate::domain::mutation::{Mutation, is_out};
use crate::domain::plan::{Action, Plan, REDIS_RELEASE, Step};
use crate::domain::policy::Fencing;
use crate::domain::run::{AttemptMark, Claim, Run, RunKind, RunOutcome, RunPhase, StepEvent, StepPhase, StepRecord};

/// Group, run and token that a command of an executor carries.
pub(super) type Holder<'a> = (&'a GroupName, &'a RunId, Token);

/// An outcome in words.
pub(super) fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { evidence } => format!("done: {evidence}"),
        Outcome::Failed { retryable: true, reason } => format!("failed: {reason}"),
        Outcome::Failed { retryable: false, reason } => format!("failed for good: {reason}"),
        Outcome::Unknown { reason } => format!("outcome unknown: {reason}"),
        Outcome::Refused { held } => format!("refused: the resource holds token {held}"),
    }
}

impl GroupState {
    /// Moves the right to write. Counts only real changes.
    pub(super) fn serve_from(&mut self, region: Option<RegionName>) {
        if self.serving.region == region {
            return;
        }
        if let Some(region) = &region {
            self.serving.last = region.clone();
            // Whoever serves from here has not been bound yet.
            self.lease = self.lease.take().filter(|lease| &lease.region == region);
        }
        self.serving.region = region;
        self.serving.epoch += 1;
    }

    /// The open run of that id.
    pub(super) fn run_mut(&mut self, name: &GroupName, id: &RunId) -> Result<&mut Run, Rejection> {
        let other = match &self.open_run {
            Some(run) if &run.id != id => format!("the open one is {}", run.id),
            _ => "none is".to_owned(),
        };
        match &mut self.open_run {
            Some(run) if &run.id == id => Ok(run),
            _ => reject(RejectionCode::NotFound, format!("run {id} is not open in group {name}; {other}")),
        }
    }

    /// The open run, if the caller's token is its newest: P3 within the log itself.
    pub(super) fn held_run(&mut self, (name, id, token): Holder<'_>) -> Result<&mut Run, Rejection> {
        let run = self.run_mut(name, id)?;
        match run.token() {
            Some(current) if current == token || is_out(Mutation::AnyTokenHolds) => Ok(run),
            Some(current) => reject(
                RejectionCode::Stale,
                format!("token {token} of run {id} is stale: the run was claimed anew under {current}"),
            ),
            None => reject(RejectionCode::Stale, format!("token {token}: run {id} has not been claimed")),
        }
    }
}

impl ClusterState {
    pub(super) fn open_run(&mut self, entry: Entry<'_>, change: &Change) -> Effect {
        let Change::OpenRun {
            run: id,
            group: name,
            kind,
            drill,
            plan,
            digest,
            expected_token,
            expected_serving_epoch,
            cause,
            loss_acceptance,
            fence_assertion,
        } = change
        else {
            return reject(RejectionCode::Invalid, "not an OpenRun");
        };
        if self.digest.as_ref() != Some(digest) {
            let message = format!("the plan was made under configuration {digest}, which is not the one in force");
            return reject(RejectionCode::OtherConfig, message);
        }
        if *drill {
            self.run_fits_drill(name, *kind)?;
        }
        let group = self.group_mut(name)?;
        may_open(group, name, *kind, plan, *expected_token, *expected_serving_epoch)?;
        if kind.is_planned() {
            plan_can_turn_back(plan)?;
            if loss_acceptance.is_some() || fence_assertion.is_some() {
                let message =
                    format!("a {kind} loses nothing and proves its fence: nobody's word takes the place of that");
                return reject(RejectionCode::Invalid, message);
            }
        }
        if group.history.iter().any(|run| &run.id == id) {
            return reject(RejectionCode::Illegal, format!("run id {id} was used before"));
        }
        let at_once = group.last_failover.as_ref().is_some_and(|last| last.serving_epoch == group.serving.epoch);
        if *kind == RunKind::Failover && cause.automatic && at_once && !is_out(Mutation::NoCooldown) {
            let message = format!("a failover already completed in serving epoch {}", group.serving.epoch);
            return reject(RejectionCode::AlreadyFailedOver, message);
        }
        let steps = plan.all_steps().map(|step| (step.id.clone(), StepRecord::default())).collect();
        let mut run = Run {
            id: id.clone(),
            group: name.clone(),
            kind: *kind,
            drill: *drill,
            opened_at: entry.at,
            serving_epoch: group.serving.epoch,
            cause: cause.clone(),
            digest: digest.clone(),
            fencing: group.fencing.clone(),
            plan: plan.clone(),
            phase: RunPhase::Open,
            claims: Vec::new(),
            steps,
            fence_assertion: fence_assertion.clone(),
            loss_acceptance: loss_acceptance.clone(),
            lease_lapsed: false,
            writing_stopped_at: None,
            turned_back: None,
            events: Vec::new(),
            pages: Vec::new(),
            monitor: None,
        };
        note(&mut run, entry, None, format!("opened by {}: {}", cause.by, cause.reason));
        group.open_run = Some(run.clone());
        self.monitor_gives_way(entry, &run);
        self.drill_run_opened(entry, &run);
        self.page_opened(entry, &run);
        Ok(None)
    }

    pub(super) fn claim_run(
        &mut self,
        entry: Entry<'_>,
        name: &GroupName,
        id: &RunId,
        expected: Token,
        floor: Option<Token>,
    ) -> Effect {
        let epoch = self.epoch;
        let group = self.group_mut(name)?;
        let last = group.token;
        let run = group.run_mut(name, id)?;
        if last != expected {
            return reject(
                RejectionCode::Stale,
                format!("group {name}'s last token is {last}, the claim expected {expected}"),
            );
        }
        let floor = floor.unwrap_or_default();
        if floor.epoch > epoch {
            let message = format!(
                "a resource holds token {floor}, of a later cluster epoch than this cluster's {epoch}: raise the epoch in the configuration"
            );
            return reject(RejectionCode::Invalid, message);
        }
        let n_of = |token: Token| if token.epoch == epoch { token.n } else { 0 };
        let step = if is_out(Mutation::ClaimDoesNotRaise) && last.n > 0 { 0 } else { 1 };
        let Some(n) = n_of(last).max(n_of(floor)).checked_add(step) else {
            return reject(
                RejectionCode::Invalid,
                format!("there is no token above {floor}: raise the cluster's epoch"),
            );
        };
        let token = Token { epoch, n };
        run.claims.push(Claim { token, node: entry.node, at: entry.at });
        if run.claims.len() > CLAIMS_KEPT {
            run.claims.remove(0);
        }
        note(run, entry, None, format!("claimed under token {token}"));
        group.token = token;
        Ok(Some(token))
    }

    pub(super) fn step_started(&mut self, entry: Entry<'_>, change: &Change) -> Effect {
        let Change::StepStarted {
            group: name,
            run: id,
            step,
            token,
            attempt,
            fence_proof,
            expected_loss_ms,
            loss_limit_ms,
        } = change
        else {
            return reject(RejectionCode::Invalid, "not a StepStarted");
        };
        let group = self.group_mut(name)?;
        if let Some(pause) = group.pause.as_ref().filter(|_| !is_out(Mutation::NoPauseGate)) {
            let message = format!("group {name} is paused by {}: {}", pause.by, pause.reason);
            return reject(RejectionCode::Paused, message);
        }
        let run = group.held_run((name, id, *token))?.clone();
        let (planned, phase) = may_start(&run, step, *attempt)?;
        if let Some((resource, left)) = group.left_in_the_way(&planned.action) {
            let message = format!("{resource} is unsettled since run {}: it must be read back first", left.run);
            return reject(RejectionCode::Unsettled, message);
        }
        if matches!(planned.action, Action::Release { .. }) || planned.action.is_named(REDIS_RELEASE) {
            may_release(&run, *token)?;
        }
        if matches!(planned.action, Action::Promote { .. }) {
            may_promote(&run, *token, fence_proof.as_ref(), *expected_loss_ms, *loss_limit_ms)?;
        }
        match &planned.action {
            // From here nobody may write, until a promotion starts or the fence is seen not to have happened.
            Action::Fence { .. } if run.moves_serving() => group.serve_from(None),
            Action::Promote { .. } if run.moves_serving() => group.serve_from(Some(run.to().clone())),
            // The old primary is about to take writes again: in mode `lease` its lease must be granted for that.
            Action::Release { .. } if run.moves_serving() && !is_out(Mutation::ReleaseWithoutServing) => {
                group.serve_from(Some(run.from().clone()));
            }
            _ => {}
        }
        let (verb, is_fence) = (planned.action.verb().to_owned(), matches!(planned.action, Action::Fence { .. }));
        let run = group.held_run((name, id, *token))?;
        if is_fence {
            run.writing_stopped_at.get_or_insert(entry.at);
        }
        if let Some(record) = run.steps.get_mut(step) {
            record.phase = phase;
            record.attempts = *attempt;
            record.attempts_since_retry += 1;
            record.token = Some(*token);
            record.first_started_at.get_or_insert(entry.at);
            record.started_at = Some(entry.at);
            record.finished_at = None;
            record.detail.clear();
        }
        let proof = fence_proof.as_ref().map_or(String::new(), |proof| format!(" ({})", proof_text(proof)));
        let mark = AttemptMark::Began(*attempt);
        note_attempt(run, entry, step, mark, format!("{verb} started, attempt {attempt}{proof}"));
        Ok(None)
    }

    pub(super) fn step_finished(
        &mut self,
        entry: Entry<'_>,
        holder: Holder<'_>,
        step: &StepId,
        attempt: u32,
        outcome: &Outcome,
    ) -> Effect {
        let group = self.group_mut(holder.0)?;
        let run = group.held_run(holder)?;
        let Some(planned) = run.plan.step(step).cloned() else {
            return reject(RejectionCode::NotFound, format!("run {} has no step {step}", run.id));
        };
        let Some(record) = run.steps.get_mut(step) else {
            return reject(RejectionCode::NotFound, format!("run {} has no step {step}", run.id));
        };
        if record.attempts != attempt {
            let message = format!("step {step} is at attempt {}, the result is of attempt {attempt}", record.attempts);
            return reject(RejectionCode::Stale, message);
        }
        // What may write was settled with the way back: nothing moves it any more.
        if run.turned_back.is_some() && matches!(planned.action, Action::Promote { .. }) {
            return reject(RejectionCode::Illegal, format!("run {} has turned back: step {step} is over", run.id));
        }
        let event = match outcome {
            Outcome::Done { .. } => StepEvent::FinishDone,
            Outcome::Failed { .. } | Outcome::Refused { .. } => StepEvent::FinishFailed,
            Outcome::Unknown { .. } => StepEvent::FinishUnknown,
        };
        let Some(phase) = record.phase.after(event) else {
            return reject(
                RejectionCode::Illegal,
                format!("step {step} is {}: it has no result to come", record.phase),
            );
        };
        record.phase = phase;
        record.finished_at = Some(entry.at);
        record.detail = outcome_text(outcome);
        record.is_permanent = matches!(outcome, Outcome::Failed { retryable: false, .. });
        let what = format!("{} {}", planned.action.verb(), outcome_text(outcome));
        note_attempt(run, entry, step, AttemptMark::Ended(attempt), what);
        // A promotion that certainly did not happen leaves nobody with the right to write, and the old primary the last
        // that had it.
        let moves = run.moves_serving();
        let (from, to) = (run.from().clone(), run.to().clone());
        if moves && matches!(planned.action, Action::Promote { .. }) {
            match phase {
                StepPhase::Failed => {
                    group.serve_from(None);
                    group.serving.last = from;
                }
                // It was called failed before, and is found done after all.
                StepPhase::Done => group.serve_from(Some(to)),
                _ => {}
            }
        }
        Ok(None)
    }

    pub(super) fn mark_stuck(&mut self, entry: Entry<'_>, holder: Holder<'_>, step: &StepId, reason: &str) -> Effect {
        let group = self.group_mut(holder.0)?;
        let run = group.held_run(holder)?;
        match &run.phase {
            RunPhase::Open | RunPhase::Reverting => {}
            RunPhase::Stuck { step: at, reason: why, .. } if at == step && why == reason => return Ok(None),
            RunPhase::Stuck { .. } => {}
            other => return reject(RejectionCode::Illegal, format!("run {} is {}", run.id, other.word())),
        }
        if run.plan.step(step).is_none() {
            return reject(RejectionCode::NotFound, format!("run {} has no step {step}", run.id));
        }
        // Decided before it was skipped. Nobody watches a skipped step: nothing would ever set the run going again.
        if run.phase_of(step) == StepPhase::Skipped {
            return reject(RejectionCode::Illegal, format!("step {step} is skipped: it does not keep run {}", run.id));
        }
        run.phase = RunPhase::Stuck { step: step.clone(), reason: reason.to_owned(), since: entry.at };
        note(run, entry, Some(step), format!("stuck: {reason}"));
        let run = run.clone();
        self.page_stuck(entry, &run, step.as_str(), reason);
        Ok(None)
    }

    pub(super) fn unstick(&mut self, entry: Entry<'_>, holder: Holder<'_>, reason: &str) -> Effect {
        let group = self.group_mut(holder.0)?;
        let run = group.held_run(holder)?;
        let RunPhase::Stuck { step, .. } = run.phase.clone() else {
            return reject(RejectionCode::Illegal, format!("run {} is not stuck", run.id));
        };
        if let Some(record) = run.steps.get_mut(&step) {
            record.refresh(entry.at);
        }
        run.phase = run.going();
        note(run, entry, Some(&step), format!("goes on: {reason}"));
        let run = run.clone();
        self.page_unstuck(entry, &run, reason);
        Ok(None)
    }

    pub(super) fn close_run(&mut self, entry: Entry<'_>, change: &Change) -> Effect {
        let Change::CloseRun {
            group: name,
            run: id,
            token,
            outcome,
            settled,
            old_primary_untouched,
            reason,
            monitor_ms,
        } = change
        else {
            return reject(RejectionCode::Invalid, "not a CloseRun");
        };
        let group = self.group_mut(name)?;
        let run = group.held_run((name, id, *token))?.clone();
        may_close(&run, *outcome, *old_primary_untouched)?;
        match outcome {
            RunOutcome::Succeeded => succeeded(group, &run, entry),
            RunOutcome::Reverted => {}
            RunOutcome::Withdrawn | RunOutcome::Aborted => {
                if run.moves_serving() && group.serving.region.is_none() && *old_primary_untouched {
                    group.serve_from(Some(run.from().clone()));
                    // Whoever serves again is not fenced for good.
                    group.unsettled.values_mut().for_each(|left| left.is_due = false);
                }
                for step in run.plan.all_steps() {
                    if run.phase_of(&step.id).is_open_question()
                        && let Some(resource) = step.action.resource()
                        && !settled.contains_key(&resource)
                    {
                        leave_unsettled(group, &run, step, entry);
                    }
                }
            }
        }
        let mut run = run;
        let was_stuck = matches!(run.phase, RunPhase::Stuck { .. });
        note(&mut run, entry, None, format!("{outcome}{}{reason}", if reason.is_empty() { "" } else { ": " }));
        run.phase = RunPhase::Closed { outcome: *outcome, at: entry.at };
        run.monitor = Self::monitor_of(&run, *outcome, entry, *monitor_ms);
        group.open_run = None;
        group.history.push_back(run.clone());
        bound(&mut group.history, HISTORY_KEPT);
        if was_stuck {
            self.page_unstuck(entry, &run, "the run is over");
        }
        self.drill_run_closed(entry, &run);
        self.page_closed(entry, &run, *outcome, reason);
        Ok(None)
    }
}

fn may_open(
    group: &GroupState,
    name: &GroupName,
    kind: RunKind,
    plan: &Plan,
    expected_token: Token,
    expected_serving_epoch: u64,
) -> Result<(), Rejection> {
    if let Some(open) = group.open_run.as_ref().filter(|_| !is_out(Mutation::ManyOpenRuns)) {
        return reject(RejectionCode::RunOpen, format!("run {} is open in group {name}; one at a time", open.id));
    }
    if group.token != expected_token || group.serving.epoch != expected_serving_epoch {
        let message = format!(
            "group {name} is at token {} and serving epoch {}, the decision was made at {expected_token} and {expected_serving_epoch}",
            group.token, group.serving.epoch
        );
        return reject(RejectionCode::Stale, message);
    }
    if let Some(pause) = group.pause.as_ref().filter(|_| !is_out(Mutation::NoPauseGate)) {
        let message = format!("group {name} is paused by {}: {}; resume it first", pause.by, pause.reason);
        return reject(RejectionCode::Paused, message);
    }
    group.fits(name, kind, plan)?;
    let mut seen = BTreeMap::new();
    for step in plan.all_steps() {
        if seen.insert(&step.id, ()).is_some() {
            return reject(RejectionCode::Invalid, format!("the plan has two steps named {}", step.id));
        }
    }
    if seen.is_empty() {
        return reject(RejectionCode::Invalid, "the plan has no step");
    }
    Ok(())
}

fn may_start<'a>(run: &'a Run, step: &StepId, attempt: u32) -> Result<(&'a Step, StepPhase), Rejection> {
    let is_it = |(_, planned): &(usize, &Step)| &planned.id == step;
    let planned = match run.phase {
        RunPhase::Open => run.plan.steps().find(is_it).map(|(stage, planned)| (run.is_due(stage, planned), planned)),
        RunPhase::Reverting => {
            let undo =
                run.plan.undo_steps().find(is_it).map(|(stage, planned)| (run.undo_is_due(stage, planned), planned));
            let forward = || run.plan.steps().find(is_it).map(|(stage, planned)| (run.is_due(stage, planned), planned));
            undo.or_else(|| if is_out(Mutation::ForwardOnTheWayBack) { forward() } else { None })
        }
        _ => None,
    };
    let Some((is_due, planned)) = planned else {
        let (code, why) = match run.plan.step(step) {
            Some(_) => (RejectionCode::Illegal, format!("is {}: step {step} may not start", run.phase.word())),
            None => (RejectionCode::NotFound, format!("has no step {step}")),
        };
        return reject(code, format!("run {} {why}", run.id));
    };
    if !is_due {
        return reject(RejectionCode::Illegal, format!("step {step}: what it waits for is not finished"));
    }
    let record = run.steps.get(step).cloned().unwrap_or_default();
    let Some(phase) = record.phase.after(StepEvent::Start) else {
        return reject(RejectionCode::Illegal, format!("step {step} is {}: it cannot start", record.phase));
    };
    if record.attempts.checked_add(1) != Some(attempt) {
        let message = format!("step {step} has had {} attempts; the next is not {attempt}", record.attempts);
        return reject(RejectionCode::Stale, message);
    }
    Ok((planned, phase))
}

/// P4 and P5, judged by the log itself.
fn may_promote(
    run: &Run,
    token: Token,
    proof: Option<&FenceProof>,
    expected_loss_ms: Option<u64>,
    loss_limit_ms: Option<u64>,
) -> Result<(), Rejection> {
    let missing = |why: &str| {
        reject(RejectionCode::NoFenceProof, format!("no fence proof for the old primary in {}: {why}", run.from()))
    };
    match proof {
        None if is_out(Mutation::NoFenceProof) => {}
        None => return missing("none was given"),
        Some(FenceProof::Guard { token: read_under, .. }) => {
            if *read_under != token {
                return missing(&format!("it was read under token {read_under}, the promotion is under {token}"));
            }
            if !run.fence_steps().any(|step| run.phase_of(&step.id) == StepPhase::Done) {
                return missing("no fence step is done");
            }
        }
        Some(FenceProof::LeaseExpired { token: read_under, .. }) => {
            if *read_under != token {
                return missing(&format!("it was judged under token {read_under}, the promotion is under {token}"));
            }
            if !run.lease_lapsed {
                return missing("its lease was not bound when it fell silent");
            }
        }
        Some(FenceProof::Asserted) if run.fence_assertion.is_none() => {
            return missing("no operator has asserted it (`watchdogctl run assert-fence`)");
        }
        Some(FenceProof::Standing) if !matches!(run.fencing, Fencing::None { .. }) => {
            return missing("the group's fencing mode is not none");
        }
        Some(FenceProof::Asserted | FenceProof::Standing) => {}
    }
    if run.is_planned() {
        return all_that_was_acknowledged(run, proof);
    }
    if run.loss_acceptance.is_some() || is_out(Mutation::NoLossGate) {
        return Ok(());
    }
    match (expected_loss_ms, loss_limit_ms) {
        (Some(loss), Some(limit)) if loss <= limit => Ok(()),
        (Some(loss), Some(limit)) => reject(
            RejectionCode::LossTooGreat,
            format!("promoting would lose {loss} ms of writes; the limit is {limit} ms"),
        ),
        _ => reject(RejectionCode::LossTooGreat, "what promoting would lose is unknown, and nobody accepted it"),
    }
}

fn may_close(run: &Run, outcome: RunOutcome, old_primary_untouched: bool) -> Result<(), Rejection> {
    match (outcome, &run.phase) {
        (RunOutcome::Reverted, RunPhase::Reverting) => way_back_is_done(run),
        (RunOutcome::Withdrawn, RunPhase::Reverting) if !run.was_begun() => Ok(()),
        (RunOutcome::Succeeded, RunPhase::Open) => {
            let unfinished: Vec<_> = run
                .plan
                .steps()
                .filter(|(_, step)| !run.phase_of(&step.id).is_settled())
                .map(|(_, s)| s.id.as_str())
                .collect();
            if unfinished.is_empty() {
                return Ok(());
            }
            reject(RejectionCode::Illegal, format!("run {}: unfinished: {}", run.id, unfinished.join(", ")))
        }
        (RunOutcome::Withdrawn, RunPhase::Open | RunPhase::Stuck { .. }) => {
            if run.went_past_fence() {
                return reject(
                    RejectionCode::Illegal,
                    format!("run {} went past its fence: it only goes forward", run.id),
                );
            }
            let fence_tried = run.fence_steps().any(|step| run.phase_of(&step.id) != StepPhase::Pending);
            if fence_tried && !old_primary_untouched {
                let message =
                    format!("run {}: the fence was tried; the old primary must be seen untouched first", run.id);
                return reject(RejectionCode::Illegal, message);
            }
            Ok(())
        }
        (RunOutcome::Aborted, RunPhase::Aborting { .. }) => Ok(()),
        (outcome, phase) => {
            reject(RejectionCode::Illegal, format!("run {} is {}: it cannot end as {outcome}", run.id, phase.word()))
        }
    }
}

fn succeeded(group: &mut GroupState, run: &Run, entry: Entry<'_>) {
    if run.kind == RunKind::Recovery {
        return;
    }
    group.traffic = run.to().clone();
    if !run.moves_serving() {
        return;
    }
    // A group without a database has no promotion: its right to write moves when the run is over.
    group.serve_from(Some(run.to().clone()));
    group.last_failover = Some(LastFailover {
        run: run.id.clone(),
        at: entry.at,
        automatic: run.cause.automatic,
        serving_epoch: run.serving_epoch,
    });
}

pub(super) fn proof_text(proof: &FenceProof) -> String {
    match proof {
        FenceProof::Guard { token, evidence } => format!("fence proof under {token}: {evidence}"),
        FenceProof::LeaseExpired { evidence, .. } => format!("lease expired: {evidence}"),
        FenceProof::Asserted => "fence asserted by an operator".to_owned(),
        FenceProof::Standing => "fencing mode none".to_owned(),
    }
}
