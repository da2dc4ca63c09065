//! A run's timeline: a line for everything that is entered of it, bounded.

use super::{EVENTS_KEPT, Entry};
use crate::domain::ids::StepId;
use crate::domain::run::{AttemptMark, Run, RunEvent};

/// Adds a line.
pub(super) fn note(run: &mut Run, entry: Entry<'_>, step: Option<&StepId>, what: String) {
    add(run, entry, step, None, what);
}

/// Adds the line by which an attempt at the step begins or ends.
pub(super) fn note_attempt(run: &mut Run, entry: Entry<'_>, step: &StepId, mark: AttemptMark, what: String) {
    add(run, entry, Some(step), Some(mark), what);
}

fn add(run: &mut Run, entry: Entry<'_>, step: Option<&StepId>, attempt: Option<AttemptMark>, what: String) {
    let (token, step) = (run.token(), step.cloned());
    run.events.push(RunEvent { index: entry.index, at: entry.at, node: entry.node, step, token, attempt, what });
    // The first says who opened it, and why.
    if run.events.len() > EVENTS_KEPT {
        run.events.remove(1);
    }
}
