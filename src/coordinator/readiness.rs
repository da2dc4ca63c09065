//! While this node leads, every group's readiness is judged now and then, and what changed of it is put into the log. Beside
//! the coordinator's loop, which waits for none of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Coordinator, lost};
use crate::domain::command::Change;
use crate::domain::ids::GroupName;
use crate::domain::readiness::Holds;
use crate::domain::readiness::mark::{Judgement, to_remember};

/// A new leader has no reports yet: it judges nothing before this, or the interval where that is shorter.
const FIRST_AFTER: Duration = Duration::from_secs(10);
/// A judgement that takes longer is given up, and is none.
const JUDGE_MAX: Duration = Duration::from_secs(20);
/// So many groups are judged at once: their hosts are often the same ones.
const AT_ONCE: usize = 4;

/// Judges a group as it stands. Reads only.
#[async_trait]
pub trait Judge: Send + Sync + 'static {
    /// `None`: there is no such group any more.
    async fn judge(&self, group: &GroupName) -> Option<Judgement>;
}

/// Judges while its node leads.
pub struct ReadinessWatch {
    coordinator: Arc<Coordinator>,
    judge: Arc<dyn Judge>,
    every: Duration,
    turns: Semaphore,
}

impl ReadinessWatch {
    /// Each group so often.
    pub fn new(coordinator: Arc<Coordinator>, judge: Arc<dyn Judge>, every: Duration) -> Self {
        Self { coordinator, judge, every, turns: Semaphore::new(AT_ONCE) }
    }

    /// Runs until `stop` becomes true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut leadership = self.coordinator.journal.leadership();
        loop {
            let current = leadership.borrow_and_update().clone();
            if *stop.borrow() {
                return;
            }
            if !current.leads {
                tokio::select! {
                    changed = leadership.changed() => if changed.is_err() { return },
                    _ = stop.changed() => return,
                }
                continue;
            }
            tokio::select! {
                () = self.attend_all() => return,
                () = lost(&mut leadership, current.term) => {}
                _ = stop.changed() => return,
            }
        }
    }

    /// Every group, spread over the interval.
    async fn attend_all(&self) {
        let names: Vec<&GroupName> = self.coordinator.policy.groups.keys().collect();
        let begin = Instant::now() + FIRST_AFTER.min(self.every);
        let share = self.every / u32::try_from(names.len().max(1)).unwrap_or(u32::MAX);
        let attending = names.iter().enumerate().map(|(nth, name)| {
            let first = begin + share.saturating_mul(u32::try_from(nth).unwrap_or(u32::MAX));
            self.attend(name, first)
        });
        join_all(attending).await;
        // Without groups there is nothing to do for as long as this node leads.
        std::future::pending::<()>().await;
    }

    async fn attend(&self, name: &GroupName, first: Instant) {
        let mut last: Option<Judgement> = None;
        let mut next = first;
        loop {
            sleep_until(next).await;
            if let Some(found) = self.look(name, last.as_ref()).await {
                last = Some(found);
            }
            next = (next + self.every).max(Instant::now());
        }
    }

    /// One judgement, put into the log where it is to be remembered. Answers it, where there was one to be made.
    async fn look(&self, name: &GroupName, last: Option<&Judgement>) -> Option<Judgement> {
        if !self.is_due(name) {
            return None;
        }
        let found = {
            let _turn = self.turns.acquire().await.ok()?;
            match timeout(JUDGE_MAX, self.judge.judge(name)).await {
                Ok(found) => found?,
                Err(_) => self.unjudged(name, &format!("it took longer than {} seconds", JUDGE_MAX.as_secs()))?,
            }
        };
        // A run that was opened meanwhile changes what was looked at.
        if !self.is_due(name) {
            return None;
        }
        let state = self.coordinator.journal.state().borrow().clone();
        let group = state.group(name)?;
        if found.serving_epoch != group.serving.epoch {
            return None;
        }
        let remembered = group.readiness.as_ref().map(|mark| &mark.judgement);
        if let Some(judgement) = to_remember(remembered, last, &found) {
            tracing::info!(group = %name, verdict = judgement.verdict().word(), "readiness: {}", judgement.why());
            self.coordinator.propose(Change::Readiness { group: name.clone(), judgement }).await;
        }
        Some(found)
    }

    /// This node may decide, and no run is open.
    fn is_due(&self, name: &GroupName) -> bool {
        let state = self.coordinator.journal.state().borrow().clone();
        let ours = state.digest.as_ref() == Some(&self.coordinator.policy.digest);
        ours && state.group(name).is_some_and(|group| group.open_run.is_none())
    }

    fn unjudged(&self, name: &GroupName, why: &str) -> Option<Judgement> {
        let state = self.coordinator.journal.state().borrow().clone();
        let serving = &state.group(name)?.serving;
        Some(Judgement::without(serving.epoch, serving.last.clone(), Holds::Unknown, why))
    }
}
