//! The newest report of every node, with the moment it came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::ids::{NodeId, UnixMs};
use crate::domain::observation::Report;
use crate::domain::view::{Heartbeat, Sight, View, agrees};

/// A process that has not reported for so long may have been followed by one with an earlier clock.
const INCARNATION_SILENCE: Duration = Duration::from_secs(5);
/// Reports are kept from so many nodes at most: more than any cluster has.
const NODES_MAX: usize = 64;

/// Kept by every node, so that a new leader starts with what it was pushed last.
#[derive(Default)]
pub struct Sightings {
    newest: Mutex<BTreeMap<NodeId, (Instant, Report)>>,
    changed: Notify,
    heartbeat: Mutex<Heartbeat>,
}

impl Sightings {
    /// Takes a report; an older one than the newest of its node is dropped. Answers whether it was taken.
    ///
    /// A node that was restarted after its clock was set back says an earlier incarnation: it is believed once nothing
    /// has come from the later one for a while.
    pub fn receive(&self, report: Report) -> bool {
        let mut newest = self.lock();
        let known = newest.get(&report.node);
        let is_older = known.is_some_and(|(came, old)| {
            let is_silent = old.incarnation != report.incarnation && came.elapsed() >= INCARNATION_SILENCE;
            (old.incarnation, old.seq) >= (report.incarnation, report.seq) && !is_silent
        });
        if is_older {
            return false;
        }
        if known.is_none() && newest.len() >= NODES_MAX {
            return false;
        }
        newest.insert(report.node, (Instant::now(), report));
        drop(newest);
        self.changed.notify_one();
        true
    }

    /// Returns when something new came since it was last asked.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The view at `now`.
    pub fn view(&self, self_id: NodeId, voters: BTreeSet<NodeId>, now: Instant, clock: UnixMs) -> View {
        let newest = self.lock();
        let sights: BTreeMap<NodeId, Sight> = newest
            .iter()
            .map(|(id, (came, report))| {
                let age_ms = u64::try_from(now.saturating_duration_since(*came).as_millis()).unwrap_or(u64::MAX);
                (*id, Sight { age_ms, report: report.clone() })
            })
            .collect();
        drop(newest);
        let agreeing = sights
            .iter()
            .filter(|(id, _)| voters.contains(id))
            .filter(|(_, sight)| agrees(sight.clock(), clock))
            .count();
        let clock_agrees = agreeing > voters.len() / 2;
        View { self_id, voters, sights, watched_ms: 0, clock_agrees, heartbeat: self.heartbeat() }
    }

    /// Whether the outside receiver hears this node's heartbeat, from now on.
    pub fn beaten(&self, heartbeat: Heartbeat) {
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = heartbeat;
    }

    fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, (Instant, Report)>> {
        // A panic elsewhere leaves the map whole: every write is a single insert.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
