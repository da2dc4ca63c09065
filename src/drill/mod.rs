//! Drills, on the leader: [`driver`] begins what is due and carries what is open from phase to phase, with what the
//! [`Examiner`] finds. All judgement is [`crate::domain::drill`]'s; all that moves a group is a run, and so the
//! coordinator's. [`report`] writes down what came of one.

pub mod driver;
pub mod report;

use async_trait::async_trait;

use crate::domain::drill::{Drill, DrillPlan, Finding, Measured};
use crate::domain::ids::{GroupName, UnixMs};

pub use driver::DrillDriver;

/// What looks at a group for its drill.
#[async_trait]
pub trait Examiner: Send + Sync + 'static {
    /// Every gate and every step's present state of the move that is rehearsed; what recovery would take and lose. Reads only.
    async fn look(&self, group: &GroupName, drill: &Drill) -> (Vec<Finding>, Measured);
}

/// When a schedule is due for the first time after `after`; `None` where it never is.
pub fn next_after(plan: &DrillPlan, after: UnixMs) -> Option<UnixMs> {
    crate::calendar::Schedule::parse(&plan.cron, &plan.settings.zone).ok()?.next_after(after)
}
