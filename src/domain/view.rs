//! What the leader knows of the world at one moment: the newest report of each node with its age. Data only.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::{GroupName, NodeId, TargetName};
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

impl Sight {
    /// What this node says of a target, with `held_ms` brought up to now.
    pub fn of(&self, group: &GroupName, target: &TargetName) -> Option<(&Observation, u64)> {
        let found = self.report.observations.iter().find(|o| &o.group == group && &o.target == target)?;
        Some((found, found.held_ms.saturating_add(self.age_ms)))
    }
}
