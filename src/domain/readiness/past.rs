//! What the group's own past says: how long its failovers took, and when the last one was rehearsed.

use super::{Facts, Item, weak, yes};
use crate::domain::drill::Drill;
use crate::domain::policy::GroupPolicy;
use crate::domain::run::{Run, RunKind};
use crate::domain::state::GroupState;

/// A day, milliseconds.
const DAY_MS: u64 = 86_400_000;

/// What past failovers took, from the fault to the run's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// So many succeeded, of those remembered.
    pub runs: u32,
    /// In the middle, milliseconds.
    pub median_ms: u64,
    /// At worst, milliseconds.
    pub worst_ms: u64,
}

/// From the runs remembered, drills among them; `None` before the first.
pub(super) fn past(group: &GroupState) -> Option<Past> {
    let failovers = group.history.iter().filter(|run| run.kind == RunKind::Failover);
    let mut took_ms: Vec<u64> = failovers.filter_map(Run::recovery_time_ms).collect();
    took_ms.sort_unstable();
    let worst_ms = *took_ms.last()?;
    let median_ms = *took_ms.get(took_ms.len() / 2)?;
    Some(Past { runs: u32::try_from(took_ms.len()).unwrap_or(u32::MAX), median_ms, worst_ms })
}

/// When this was last rehearsed with success. A tabletop drill is none: nothing is done in it.
pub(super) fn drill(facts: &Facts<'_>, rules: &GroupPolicy) -> Item {
    let days = rules.drill_max_age_ms / DAY_MS;
    let Some(last) = facts.group.drills.past.iter().filter_map(Drill::rehearsed_at).max() else {
        return weak("drill", "no drill has succeeded yet", "no drill of those remembered has succeeded: rehearse it");
    };
    let age_ms = facts.now.since(last);
    let detail = format!("the last that succeeded ended {} days ago", age_ms / DAY_MS);
    if age_ms > rules.drill_max_age_ms {
        return weak("drill", format!("no drill has succeeded in {days} days"), format!("{detail}: rehearse it"));
    }
    yes("drill", detail)
}
