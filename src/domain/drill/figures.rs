//! What drills came to, month by month (D3).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Drill, DrillOutcome};
use crate::domain::ids::{DrillName, UnixMs};

/// What was due and did not take place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// By which schedule.
    pub schedule: DrillName,
    /// When it was due; where more were missed, the last of them.
    pub due_at: UnixMs,
    /// So many.
    pub missed: u32,
    /// Why.
    pub reason: String,
}

/// One month.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Month {
    /// Passed.
    pub passed: u32,
    /// Failed.
    pub failed: u32,
    /// Ended before their end.
    pub aborted: u32,
    /// Due, and not begun.
    pub skipped: u32,
    /// Recovery times that were measured: how many.
    pub recoveries: u32,
    /// Of these, within the objective.
    pub recoveries_met: u32,
    /// In the mean, milliseconds.
    pub recovery_mean_ms: Option<u64>,
    /// At worst, milliseconds.
    pub recovery_worst_ms: Option<u64>,
    /// Losses that were measured: how many.
    pub losses: u32,
    /// Of these, nothing was lost.
    pub losses_none: u32,
    /// At worst, rows.
    pub rows_lost_worst: Option<u64>,
    /// At worst, bytes.
    pub bytes_lost_worst: Option<u64>,
}

impl Month {
    /// Of those that came to an end by themselves, so many in a hundred passed.
    pub fn success_percent(&self) -> Option<u32> {
        let ended = self.passed + self.failed;
        (ended > 0).then(|| self.passed * 100 / ended)
    }

    fn count(&mut self, drill: &Drill, sum_ms: &mut u64) {
        match drill.closing.as_ref().map(|closing| closing.outcome) {
            Some(DrillOutcome::Passed) => self.passed += 1,
            Some(DrillOutcome::Failed) => self.failed += 1,
            Some(DrillOutcome::Aborted) => self.aborted += 1,
            None => return,
        }
        if let Some(ms) = drill.measured.recovery_ms {
            self.recoveries += 1;
            self.recoveries_met += u32::from(ms <= drill.settings.rto_ms);
            *sum_ms = sum_ms.saturating_add(ms);
            self.recovery_mean_ms = sum_ms.checked_div(u64::from(self.recoveries));
            self.recovery_worst_ms = self.recovery_worst_ms.max(Some(ms));
        }
        let (rows, bytes) = (drill.measured.rows_lost(), drill.measured.bytes_lost());
        if rows.is_some() || bytes.is_some() {
            self.losses += 1;
            self.losses_none += u32::from(rows.unwrap_or(0) == 0 && bytes.unwrap_or(0) == 0);
            self.rows_lost_worst = self.rows_lost_worst.max(rows);
            self.bytes_lost_worst = self.bytes_lost_worst.max(bytes);
        }
    }
}

/// By month, as `month_of` names them. Drills that are open count for nothing yet.
pub fn monthly<'a>(
    drills: impl IntoIterator<Item = &'a Drill>,
    skipped: impl IntoIterator<Item = &'a Skipped>,
    month_of: impl Fn(UnixMs) -> String,
) -> BTreeMap<String, Month> {
    let mut months: BTreeMap<String, (Month, u64)> = BTreeMap::new();
    for drill in drills.into_iter().filter(|drill| !drill.is_open()) {
        let (month, sum_ms) = months.entry(month_of(drill.opened_at)).or_default();
        month.count(drill, sum_ms);
    }
    for one in skipped {
        let (month, _) = months.entry(month_of(one.due_at)).or_default();
        month.skipped = month.skipped.saturating_add(one.missed);
    }
    months.into_iter().map(|(name, (month, _))| (name, month)).collect()
}
