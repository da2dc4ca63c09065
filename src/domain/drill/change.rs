//! The changes about drills that the log knows.

use serde::{Deserialize, Serialize};

use super::{DrillKind, DrillOutcome, DrillPhase, DrillSettings, Finding, Measured};
use crate::domain::ids::{DrillId, DrillName, RegionName, UnixMs};

/// Who asks for a drill to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillOpening {
    /// Its id.
    pub id: DrillId,
    /// How much of it is real.
    pub kind: DrillKind,
    /// By which schedule; `None`: an operator's word.
    pub schedule: Option<DrillName>,
    /// When it was to begin.
    pub due_at: UnixMs,
    /// To which region.
    pub to: RegionName,
    /// What it goes by.
    pub settings: DrillSettings,
    /// Why.
    pub reason: String,
}

/// Every change about drills. Those about a schedule carry the moment they are about, those about a drill its phase, so that
/// what was decided on an older state is rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "drill")]
pub enum DrillChange {
    /// A schedule is known from now on, or has another rule: what was due before is not due.
    Know {
        /// Which.
        schedule: DrillName,
        /// Its [rule](DrillPlan::rule).
        rule: String,
        /// Nothing up to here is due.
        after: UnixMs,
    },
    /// A drill will begin.
    Announce {
        /// By which schedule.
        schedule: DrillName,
        /// When.
        due_at: UnixMs,
        /// Of which kind, for the page.
        kind: DrillKind,
        /// When, for people.
        when: String,
    },
    /// What was due does not take place.
    Skip {
        /// By which schedule.
        schedule: DrillName,
        /// When it was due; where more were missed, the last of them.
        due_at: UnixMs,
        /// So many, this one among them.
        missed: u32,
        /// Why.
        reason: String,
    },
    /// A drill begins.
    Open(DrillOpening),
    /// It goes on to its next phase.
    Advance {
        /// Which.
        id: DrillId,
        /// The phase that this was decided in.
        from: DrillPhase,
        /// The next.
        to: DrillPhase,
        /// Why.
        why: String,
    },
    /// What was found in its phase; a second time in the same phase changes nothing.
    Find {
        /// Which.
        id: DrillId,
        /// In which phase.
        phase: DrillPhase,
        /// What.
        findings: Vec<Finding>,
        /// What was measured with it.
        measured: Measured,
    },
    /// It is to end, and the group to be brought home.
    Abort {
        /// Which.
        id: DrillId,
        /// Why.
        reason: String,
    },
    /// It is over.
    Close {
        /// Which.
        id: DrillId,
        /// The phase that this was decided in.
        from: DrillPhase,
        /// How.
        outcome: DrillOutcome,
        /// Why; empty where it passed.
        why: String,
    },
    /// Somebody learned something.
    Learn {
        /// From which.
        id: DrillId,
        /// What.
        text: String,
    },
}

impl DrillChange {
    /// In one line, for the audit.
    pub fn describe(&self) -> String {
        match self {
            DrillChange::Know { schedule, rule, .. } => format!("know drill schedule {schedule}: {rule}"),
            DrillChange::Announce { schedule, when, .. } => format!("announce drill {schedule} of {when}"),
            DrillChange::Skip { schedule, missed: 1, .. } => format!("skip drill {schedule}"),
            DrillChange::Skip { schedule, missed, .. } => format!("skip {missed} drills {schedule}"),
            DrillChange::Open(DrillOpening { id, kind, schedule: Some(schedule), .. }) => {
                format!("open {} drill {id} of schedule {schedule}", kind.word())
            }
            DrillChange::Open(DrillOpening { id, kind, .. }) => format!("open {} drill {id}", kind.word()),
            DrillChange::Advance { id, from, to, .. } => {
                format!("drill {id} goes from {} to {}", from.word(), to.word())
            }
            DrillChange::Find { id, phase, findings, .. } => {
                format!("drill {id} found {} things while {}", findings.len(), phase.word())
            }
            DrillChange::Abort { id, .. } => format!("abort drill {id}"),
            DrillChange::Close { id, outcome, .. } => format!("close drill {id}: {}", outcome.word()),
            DrillChange::Learn { id, .. } => format!("lesson of drill {id}"),
        }
    }

    /// Why, for the audit.
    pub fn reason(&self) -> String {
        match self {
            DrillChange::Skip { reason, .. } | DrillChange::Abort { reason, .. } => reason.clone(),
            DrillChange::Advance { why, .. } | DrillChange::Close { why, .. } => why.clone(),
            DrillChange::Open(opening) => opening.reason.clone(),
            DrillChange::Learn { text, .. } => text.clone(),
            DrillChange::Know { .. } | DrillChange::Announce { .. } | DrillChange::Find { .. } => String::new(),
        }
    }

    /// What makes two uses of a request id the same request.
    pub fn fingerprint(&self) -> String {
        match self {
            DrillChange::Open(opening) => format!("open {} {}", opening.kind.word(), opening.to),
            DrillChange::Learn { id, text } => format!("learn {id} {text}"),
            other => other.describe(),
        }
    }
}
