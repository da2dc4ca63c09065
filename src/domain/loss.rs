//! P5: what an automatic promotion would lose, and how far a standby lags. Unknown exceeds every limit.

use super::ids::{GroupName, RegionName};
use super::observation::{Measure, ReplicationMeasure, Verdict};
use super::policy::GroupPolicy;
use super::view::{Sight, View};

/// Expected loss of promoting a region's standby now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// At most so much of the old primary's last writes, milliseconds.
    AtMost {
        /// Milliseconds of writes.
        ms: u64,
        /// WAL bytes known to be missing, where both positions are known.
        bytes: Option<u64>,
    },
    /// It cannot be known.
    Unknown {
        /// Why not.
        why: String,
    },
}

impl Loss {
    /// Milliseconds, where known.
    pub fn ms(&self) -> Option<u64> {
        match self {
            Loss::AtMost { ms, .. } => Some(*ms),
            Loss::Unknown { .. } => None,
        }
    }

    /// Whether an automatic promotion may go on.
    pub fn is_within(&self, limit_ms: u64) -> bool {
        self.ms().is_some_and(|ms| ms <= limit_ms)
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Loss::AtMost { ms, bytes: Some(bytes) } => {
                write!(
                    f,
                    "at most the last {:.1} s of writes ({bytes} bytes of WAL known missing)",
                    *ms as f64 / 1000.0
                )
            }
            Loss::AtMost { ms, bytes: None } => write!(f, "at most the last {:.1} s of writes", *ms as f64 / 1000.0),
            Loss::Unknown { why } => write!(f, "unknown: {why}"),
        }
    }
}

fn measured<'a>(
    sight: &'a Sight,
    group: &GroupName,
    rules: &GroupPolicy,
    to: &RegionName,
) -> Option<(&'a ReplicationMeasure, Verdict)> {
    let target = rules.replication.get(to)?;
    let (seen, _) = sight.of(group, target)?;
    match &seen.measure {
        Some(Measure::Replication(measure)) => Some((measure, seen.verdict)),
        _ => None,
    }
}

/// How far the standby has come. Its received position is unknown after a restart without a primary; what it replayed it has.
pub fn reached(measure: &ReplicationMeasure) -> Option<u64> {
    measure.received_lsn.max(measure.replayed_lsn)
}

/// What promoting `to` would lose: at most everything written since the last moment known to be covered by the standby.
///
/// Time since the first failure is *not* taken off: a primary that only this side cannot reach goes on writing until it is
/// fenced. Of several nodes' bounds the least holds, since each is true.
pub fn expected(group: &GroupName, rules: &GroupPolicy, to: &RegionName, view: &View) -> Loss {
    if !rules.replication.contains_key(to) {
        return Loss::Unknown { why: format!("no target measures replication into {to}") };
    }
    let mut best: Option<(u64, Option<u64>)> = None;
    let mut why = format!("no fresh measurement of replication into {to}");
    for (_, sight) in view.fresh(rules.observation_ttl_ms) {
        let Some((measure, verdict)) = measured(sight, group, rules, to) else { continue };
        if verdict == Verdict::Down {
            why = format!("the standby in {to} is down");
            continue;
        }
        if !measure.in_recovery {
            why = format!("the database in {to} is not in recovery: it is no standby");
            continue;
        }
        let Some(covered_age_ms) = measure.covered_age_ms else {
            why = format!("the standby in {to} has not been seen to catch up with its primary");
            continue;
        };
        let ms = covered_age_ms.saturating_add(sight.age_ms);
        let bytes = match (measure.primary_lsn, reached(measure)) {
            (Some(primary), Some(received)) => Some(primary.saturating_sub(received)),
            _ => None,
        };
        if best.is_none_or(|(least, _)| ms < least) {
            best = Some((ms, bytes));
        }
    }
    best.map_or(Loss::Unknown { why }, |(ms, bytes)| Loss::AtMost { ms, bytes })
}

/// How far the standby in `to` lags behind a primary that can still be asked, milliseconds. `None` where nobody knows.
/// An idle primary is not a lagging standby: what was read from the primary and is covered counts as no lag.
pub fn lag_ms(group: &GroupName, rules: &GroupPolicy, to: &RegionName, view: &View) -> Option<u64> {
    view.fresh(rules.observation_ttl_ms)
        .filter_map(|(_, sight)| {
            let (measure, _) = measured(sight, group, rules, to)?;
            let primary_age_ms = measure.primary_lsn_age_ms.filter(|age| *age <= rules.observation_ttl_ms)?;
            match (measure.primary_lsn, reached(measure)) {
                (Some(primary), Some(received)) if received >= primary => Some(0),
                _ => Some(measure.covered_age_ms?.saturating_sub(primary_age_ms)),
            }
        })
        .min()
}
