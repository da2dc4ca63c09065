//! What the leader knows of the world at one moment: the newest report of each node with its age. Data only.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::{GroupName, NodeId, TargetName, UnixMs};
use super::mutation::{Mutation, is_out};
use super::observation::{Observation, Report};

/// A node's newest report and how long ago it came, by the leader's monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Milliseconds since it arrived.
    pub age_ms: u64,
    /// What it said.
    pub report: Report,
}

/// The leader's view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The leader.
    pub self_id: NodeId,
    /// Voters by the Raft membership in force: every one counts, seen or not.
    pub voters: BTreeSet<NodeId>,
    /// Newest reports.
    pub sights: BTreeMap<NodeId, Sight>,
    /// How long this leader has been collecting reports, milliseconds: before, a missing one says nothing.
    pub watched_ms: u64,
    /// The leader's wall clock agrees within 5 s with a majority's: only then does it let things expire.
    pub clock_agrees: bool,
    /// The outside receiver of the leader's heartbeat.
    pub heartbeat: Heartbeat,
}

/// Whether the outside receiver of heartbeats hears this leader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Heartbeat {
    /// None is configured.
    #[default]
    Off,
    /// This leader has not tried often enough to say.
    Unknown,
    /// It heard the last beat.
    Heard,
    /// It has missed several in a row.
    Unheard {
        /// What it answered, or why it was not reached.
        why: String,
    },
}

/// Who reported within this is present, milliseconds: a majority of those is *not* what counts.
const PRESENT_MS: u64 = 2000;

impl View {
    /// A strict majority of all voters.
    pub fn majority(&self) -> usize {
        let all = if is_out(Mutation::MajorityOfPresent) { self.fresh(PRESENT_MS).count() } else { self.voters.len() };
        all / 2 + 1
    }

    /// Voters whose report is no older than `ttl_ms`.
    pub fn fresh(&self, ttl_ms: u64) -> impl Iterator<Item = (NodeId, &Sight)> {
        self.sights
            .iter()
            .filter(move |(id, sight)| sight.age_ms <= ttl_ms && self.voters.contains(id))
            .map(|(id, sight)| (*id, sight))
    }

    /// Enough fresh reports to say that something is *not* so.
    pub fn is_settled(&self, ttl_ms: u64) -> bool {
        self.fresh(ttl_ms).count() >= self.majority()
    }
}

impl View {
    /// Nodes whose wall clock a majority of all voters agrees with, by reports no older than `ttl_ms`. Empty where there
    /// is no such majority.
    pub fn on_time(&self, ttl_ms: u64) -> BTreeSet<NodeId> {
        let clocks: Vec<_> = self.fresh(ttl_ms).map(|(id, sight)| (id, sight.clock())).collect();
        let agree = |clock: UnixMs| clocks.iter().filter(|(_, other)| agrees(clock, *other)).count();
        clocks.iter().filter(|(_, clock)| agree(*clock) >= self.majority()).map(|(id, _)| *id).collect()
    }
}

/// Two wall clocks that differ by more do not agree, milliseconds.
const CLOCK_TOLERANCE_MS: u64 = 5000;

/// Two wall clocks agree.
pub fn agrees(one: UnixMs, other: UnixMs) -> bool {
    one.0.abs_diff(other.0) <= CLOCK_TOLERANCE_MS
}

impl Sight {
    /// What this node's wall clock shows by now.
    pub fn clock(&self) -> UnixMs {
        self.report.clock.plus(self.age_ms)
    }

    /// What this node says of a target, with `held_ms` brought up to now.
    pub fn of(&self, group: &GroupName, target: &TargetName) -> Option<(&Observation, u64)> {
        let found = self.report.observations.iter().find(|o| &o.group == group && &o.target == target)?;
        Some((found, found.held_ms.saturating_add(self.age_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ConfigDigest;

    /// Three voters; each that reports with its clock, milliseconds, and the report's age.
    fn view(clocks: &[(u64, u64, u64)]) -> View {
        let sight = |clock: u64, age_ms: u64| {
            let report = Report {
                node: NodeId(0),
                incarnation: UnixMs(0),
                seq: 0,
                digest: ConfigDigest::from("digest"),
                isolated: false,
                clock: UnixMs(clock),
                observations: vec![],
            };
            Sight { age_ms, report }
        };
        View {
            voters: [1, 2, 3].map(NodeId).into(),
            sights: clocks.iter().map(|(id, clock, age)| (NodeId(*id), sight(*clock, *age))).collect(),
            ..View::default()
        }
    }

    #[test]
    fn on_time_is_who_agrees_with_a_majority_of_all_voters() {
        let on_time = |clocks: &[(u64, u64, u64)]| view(clocks).on_time(3000).iter().map(|id| id.0).collect::<Vec<_>>();
        let hour = 3_600_000;
        // What a report said is as much older as it is itself.
        assert_eq!(on_time(&[(1, 9_100_000, 0), (2, 9_098_000, 2000), (3, 9_100_000 + hour, 0)]), [1, 2]);
        assert_eq!(on_time(&[(1, 9_100_000, 0), (2, 9_100_000 - hour, 0)]), Vec::<u64>::new(), "nobody can tell");
        assert_eq!(on_time(&[(1, 9_100_000, 0), (2, 9_097_000, 9000), (3, 9_100_000, 0)]), [1, 3], "too old to count");
        assert_eq!(on_time(&[(1, 9_100_000, 0), (2, 9_104_000, 0), (3, 9_108_000, 0)]), [1, 2, 3]);
        assert_eq!(on_time(&[(9, 9_100_000, 0), (8, 9_100_000, 0), (1, 9_100_000, 0)]), Vec::<u64>::new(), "no voters");
    }
}
