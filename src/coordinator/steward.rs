//! Who should lead: a node that the others' reports reach, under the configuration in force, whose clock is right (name
//! servers take no update signed at another time), and rather the witness than DR, rather DR than the serving region, so
//! that the loss of any one site costs the serving side neither an election nor its lease.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Coordinator;
use crate::domain::ids::{ConfigDigest, NodeId};
use crate::domain::leading::{self, FRESH_MS};
use crate::domain::state::ClusterState;
use crate::domain::view::View;

/// A leader leads at least this long before it hands over, so that reports and elections come to rest.
const SETTLE: Duration = Duration::from_secs(3);
/// A transfer that did not happen is tried again after this long.
const RETRY: Duration = Duration::from_secs(30);

/// Looks after leadership.
pub struct Steward {
    coordinator: Arc<Coordinator>,
    not_before: Instant,
    /// Whom a leader that hears no reports has asked to take over.
    tried: BTreeSet<NodeId>,
}

impl Steward {
    pub(super) fn new(coordinator: Arc<Coordinator>) -> Self {
        Self { coordinator, not_before: Instant::now() + SETTLE, tried: BTreeSet::new() }
    }

    /// Hands leadership over where somebody else should have it. Answers whether it was handed over.
    pub(super) async fn look(&mut self, state: &ClusterState, view: &View, is_idle: bool) -> bool {
        let Some(digest) = &state.digest else { return false };
        let ours = digest == &self.coordinator.policy.digest;
        if is_idle && Instant::now() >= self.not_before && self.is_deaf(view) {
            return self.hand_to_anybody(state, view).await;
        }
        // A run goes on under whoever holds it; only a node that may not act hands it on.
        let is_calm = is_idle && state.groups.values().all(|group| group.open_run.is_none());
        let is_late = is_idle && self.is_off(view);
        if Instant::now() < self.not_before || (ours && !is_calm && !is_late) {
            return false;
        }
        let Some(better) = self.better(state, digest, view, ours) else { return false };
        self.not_before = Instant::now() + RETRY;
        tracing::info!(to = %better, same_configuration = ours, clock_is_off = is_late, "handing leadership over");
        match self.coordinator.journal.transfer(better).await {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(to = %better, %error, "leadership was not handed over");
                false
            }
        }
    }

    /// Too few reports come to judge any group by, and have not for as long as one counts. A majority that follows all the
    /// same can be reached from here, and perhaps not the other way: a firewall that lets nothing in.
    fn is_deaf(&self, view: &View) -> bool {
        let lasts = self.coordinator.policy.groups.values().map(|rules| rules.observation_ttl_ms).max();
        lasts.is_some_and(|ttl_ms| view.watched_ms > ttl_ms && !view.is_settled(ttl_ms))
    }

    /// A majority's clocks agree with each other, and not with this node's. A node whose own report is late shows nothing.
    fn is_off(&self, view: &View) -> bool {
        let (on_time, own) = (view.on_time(FRESH_MS), self.coordinator.node);
        !on_time.is_empty() && !on_time.contains(&own) && view.fresh(FRESH_MS).any(|(id, _)| id == own)
    }

    /// To whoever takes it, another one each time.
    async fn hand_to_anybody(&mut self, state: &ClusterState, view: &View) -> bool {
        // Without a majority there is nobody to take it.
        if self.coordinator.journal.confirm().await.is_err() {
            return false;
        }
        let others = view.voters.iter().copied().filter(|id| *id != self.coordinator.node);
        let Some(to) = others.min_by_key(|id| (self.tried.contains(id), self.rank(state, *id))) else { return false };
        if !self.tried.insert(to) {
            self.tried = BTreeSet::from([to]);
        }
        self.not_before = Instant::now() + SETTLE;
        tracing::warn!(%to, "handing leadership over: a majority follows, but too few nodes' reports come here");
        if let Err(error) = self.coordinator.journal.transfer(to).await {
            tracing::warn!(%to, %error, "leadership was not handed over");
        }
        false
    }

    fn better(&self, state: &ClusterState, digest: &ConfigDigest, view: &View, ours: bool) -> Option<NodeId> {
        let must = !ours || self.is_off(view);
        let own = self.coordinator.node;
        let own_rank = if must { usize::MAX } else { self.rank(state, own) };
        leading::preferred(&self.coordinator.policy, state, digest, view, own, own_rank)
    }

    fn rank(&self, state: &ClusterState, node: NodeId) -> usize {
        leading::rank(&self.coordinator.policy, state, node)
    }
}
