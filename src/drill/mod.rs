//! Drills, on the leader: [`driver`] begins what is due and carries what is open from phase to phase, with what the
//! [`Examiner`] finds. All judgement is [`crate::domain::drill`]'s; all that moves a group is a run, and so the
//! coordinator's. [`report`] writes down what came of one.

pub mod driver;
pub mod report;
#[cfg(test)]
mod year_tests;

use async_trait::async_trait;

use crate::domain::drill::{Drill, DrillPlan, Finding, Measured};
use crate::domain::ids::{GroupName, UnixMs};
use crate::domain::plan::Plan;
use crate::domain::run::RunKind;

pub use driver::DrillDriver;

/// What looks at a group for its drill.
#[async_trait]
pub trait Examiner: Send + Sync + 'static {
    /// Before the move: every gate and every step's present state, what recovery would take and lose; of a drill that acts also
    /// marker rows on the primary. After it: the functional checks, and which marker rows are there.
    async fn look(&self, group: &GroupName, drill: &Drill) -> (Vec<Finding>, Measured);

    /// What must hold before a run of the drill opens: `Ok` with what was found.
    ///
    /// # Errors
    /// What is shut.
    async fn gates(&self, group: &GroupName, drill: &Drill, kind: RunKind, plan: &Plan) -> Result<Vec<String>, String>;
}

/// When a schedule is due for the first time after `after`; `None` where it never is.
pub fn next_after(plan: &DrillPlan, after: UnixMs) -> Option<UnixMs> {
    crate::calendar::Schedule::parse(&plan.cron, &plan.settings.zone).ok()?.next_after(after)
}
