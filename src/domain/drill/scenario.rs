//! What a drill does next. Pure: from what the log holds of it and of its group, so that every leader goes on where the one
//! before it stopped.

use super::{Drill, DrillKind, DrillOutcome, DrillPhase, Found};
use crate::domain::ids::UnixMs;
use crate::domain::policy::GroupPolicy;
use crate::domain::state::GroupState;

/// The next move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Wait,
    /// Every gate and every step's present state is read, and what is found put into the log.
    Look,
    /// It is over.
    Close {
        /// How.
        outcome: DrillOutcome,
        /// Why; empty where it passed.
        why: String,
    },
}

/// Decides it.
pub fn next(_rules: &GroupPolicy, _group: &GroupState, drill: &Drill, _now: UnixMs) -> Next {
    if let Some(abort) = &drill.abort {
        return Next::Close { outcome: DrillOutcome::Aborted, why: format!("by {}: {}", abort.by, abort.reason) };
    }
    let looked = drill.findings.iter().any(|finding| finding.phase == drill.phase);
    match (drill.phase, drill.kind) {
        (DrillPhase::Checking, _) if !looked => Next::Look,
        (DrillPhase::Checking, DrillKind::Tabletop) => verdict(drill),
        _ => Next::Wait,
    }
}

/// By what was found.
fn verdict(drill: &Drill) -> Next {
    let bad: Vec<&str> =
        drill.findings.iter().filter(|one| one.found != Found::Ok).map(|one| one.what.as_str()).collect();
    match bad.as_slice() {
        [] => Next::Close { outcome: DrillOutcome::Passed, why: String::new() },
        bad => Next::Close { outcome: DrillOutcome::Failed, why: format!("not as it should be: {}", bad.join(", ")) },
    }
}
