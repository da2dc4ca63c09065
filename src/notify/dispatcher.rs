//! Takes what is pending in the outbox to its receivers, on the leader only.
//!
//! Each receiver has a line of its own: its pages go one after the other in the order of their numbers, and a receiver that
//! is down holds up nobody else. What was taken is reported to be committed; a page whose report was lost is sent again,
//! and its key makes the receiver collapse the two (P11).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::watch;

use super::{Notifier, Parcel, ReceiverConfig, SEND_TIMEOUT, Sent, http::NotifyError};
use crate::domain::ids::{ClusterName, ReceiverName, UnixMs};
use crate::domain::incident::Incident;
use crate::domain::page::{Delivery, OutboxEntry, Page, PageAction};
use crate::domain::state::ClusterState;
use crate::metrics::events;

/// What is to be committed about a page and a receiver (`Change::Told`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The page's number.
    pub seq: u64,
    /// Who.
    pub receiver: ReceiverName,
    /// `None` is delivered; otherwise why it is not tried again.
    pub refused: Option<String>,
}

/// Commits what became of a page.
#[async_trait]
pub trait Settle: Send + Sync {
    /// Returns once it is committed.
    ///
    /// # Errors
    /// In words for the log. It is reported again for as long as this node leads and the page is pending.
    async fn settle(&self, told: Told) -> Result<(), String>;
}

/// Waits between attempts: doubling, capped, and shortened by up to a half at random so that nodes do not march in step.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// Never longer, unless the receiver itself asked for more.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    fn wait(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let jittered = doubled.min(self.max).mul_f64(rand::random_range(0.5..=1.0));
        jittered.max(asked.unwrap_or_default())
    }
}

/// Sends the outbox's pages, and a lone node's own.
pub struct Dispatcher {
    lines: Vec<(ReceiverName, Box<dyn Notifier>)>,
    backoff: Backoff,
    send_timeout: Duration,
}

impl Dispatcher {
    /// For the configured receivers.
    ///
    /// # Errors
    /// Names the receiver whose notifier cannot be made.
    pub fn new(cluster: &ClusterName, receivers: &[ReceiverConfig]) -> Result<Self, (ReceiverName, NotifyError)> {
        let line = |receiver: &ReceiverConfig| match receiver.notifier(cluster, SEND_TIMEOUT) {
            Ok(notifier) => Ok((receiver.name.clone(), notifier)),
            Err(e) => Err((receiver.name.clone(), e)),
        };
        let lines = receivers.iter().map(line).collect::<Result<_, _>>()?;
        // The notifiers' own time-out names the address: this one is for those that fail to keep it.
        Ok(Self::with_notifiers(lines, Backoff::default(), SEND_TIMEOUT + Duration::from_secs(1)))
    }

    /// For ready-made notifiers.
    pub fn with_notifiers(
        lines: Vec<(ReceiverName, Box<dyn Notifier>)>,
        backoff: Backoff,
        send_timeout: Duration,
    ) -> Self {
        Self { lines, backoff, send_timeout }
    }

    /// Delivers while `leading`; drops everything in flight the moment it is not. Ends when either sender is gone.
    ///
    /// One send at a time and receiver, so as many at once as there are receivers.
    pub async fn run(
        &self,
        state: watch::Receiver<Arc<ClusterState>>,
        mut leading: watch::Receiver<bool>,
        settle: &dyn Settle,
    ) {
        loop {
            if leading.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            let lines = self.lines.iter().map(|(name, notifier)| self.line(name, &**notifier, state.clone(), settle));
            let work = async {
                tokio::join!(join_all(lines), self.unknown_receivers(state.clone(), settle));
            };
            tokio::select! {
                // First, so that nothing more is begun once leadership is known to be lost.
                biased;
                lost = leading.wait_for(|leads| !*leads) => if lost.is_err() { return },
                () = work => return,
            }
        }
    }

    /// One receiver's line, until the state's sender is gone.
    async fn line(
        &self,
        name: &ReceiverName,
        notifier: &dyn Notifier,
        mut state: watch::Receiver<Arc<ClusterState>>,
        settle: &dyn Settle,
    ) {
        // Committed by us, though the state at hand may not show it yet.
        let mut settled = BTreeSet::new();
        let mut failures = 0u32;
        // At once: who led before may have been the last to say it.
        let mut again_at = notifier.again_every().map(|_| tokio::time::Instant::now());
        loop {
            let now = state.borrow_and_update().clone();
            forget_settled(&mut settled, &now, name);
            let Some(entry) = now.outbox.iter().find(|entry| is_pending(entry, name) && !settled.contains(&entry.seq))
            else {
                let again = async {
                    match again_at {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = state.changed() => if changed.is_err() { return },
                    () = again => {
                        again_at = next_time(notifier);
                        if let Sent::Retry { reason, .. } | Sent::Refused { reason } = self.stand(name, notifier, &now).await {
                            tracing::warn!(receiver = %name, "it was not told again what stands: {reason}");
                        }
                    }
                }
                continue;
            };
            let parcel =
                Parcel { seq: Some(entry.seq), at: entry.at, page: &entry.page, notice: entry.notice.as_ref() };
            let is_known = incidents(&now).any(|incident| incident.key() == entry.page.key);
            let sent = match entry.page.action {
                // Under which labels it stands there, only the incident knows.
                PageAction::Acknowledge | PageAction::Resolve if is_known && notifier.again_every().is_some() => {
                    self.stand(name, notifier, &now).await
                }
                _ => self.send(name, notifier, parcel).await,
            };
            let refused = match sent {
                Sent::Retry { reason, after } => {
                    failures = failures.saturating_add(1);
                    let wait = self.backoff.wait(failures, after);
                    let wait_ms = wait.as_millis();
                    tracing::warn!(receiver = %name, seq = entry.seq, key = entry.page.key, failures, %wait_ms, "page not taken: {reason}");
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Sent::Delivered => {
                    tracing::info!(receiver = %name, seq = entry.seq, key = entry.page.key, "page taken");
                    None
                }
                Sent::Refused { reason } => {
                    tracing::error!(receiver = %name, seq = entry.seq, key = entry.page.key, "page refused for good: {reason}");
                    Some(reason)
                }
            };
            failures = 0;
            let told = Told { seq: entry.seq, receiver: name.clone(), refused };
            self.commit(settle, told).await;
            settled.insert(entry.seq);
        }
    }

    /// Receivers that were in force when a page was put in and are configured no more: their pages cannot be delivered.
    async fn unknown_receivers(&self, mut state: watch::Receiver<Arc<ClusterState>>, settle: &dyn Settle) {
        let mut settled = BTreeSet::new();
        loop {
            let now = state.borrow_and_update().clone();
            let outdated = |(seq, name): &(u64, ReceiverName)| {
                !now.outbox.iter().any(|entry| entry.seq == *seq && is_pending(entry, name))
            };
            settled.retain(|key| !outdated(key));
            for entry in &now.outbox {
                for name in entry.deliveries.keys().filter(|name| is_pending(entry, name) && !self.knows(name)) {
                    if settled.contains(&(entry.seq, name.clone())) {
                        continue;
                    }
                    let reason = format!("receiver {name} is not in the configuration any more");
                    tracing::error!(receiver = %name, seq = entry.seq, key = entry.page.key, "page not deliverable: {reason}");
                    let told = Told { seq: entry.seq, receiver: name.clone(), refused: Some(reason) };
                    self.commit(settle, told).await;
                    settled.insert((entry.seq, name.clone()));
                }
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    fn knows(&self, name: &ReceiverName) -> bool {
        self.lines.iter().any(|(known, _)| known == name)
    }

    /// Reports until it is committed: the page itself is not sent again for a report that failed.
    async fn commit(&self, settle: &dyn Settle, told: Told) {
        let mut failures = 0u32;
        while let Err(reason) = settle.settle(told.clone()).await {
            failures = failures.saturating_add(1);
            tracing::warn!(receiver = %told.receiver, seq = told.seq, failures, "cannot commit what became of a page: {reason}");
            tokio::time::sleep(self.backoff.wait(failures, None)).await;
        }
    }

    /// Pages every receiver at once without the outbox: for a node that has no quorum to commit to it (P8).
    ///
    /// Retries like the outbox does, for no longer than `patience`; answers the last result of each receiver. Dropping
    /// the future gives up.
    pub async fn direct_page(&self, page: &Page, at: UnixMs, patience: Duration) -> BTreeMap<ReceiverName, Sent> {
        let until = tokio::time::Instant::now() + patience;
        let parcel = Parcel { seq: None, at, page, notice: None };
        let lines = self.lines.iter().map(|(name, notifier)| async move {
            let mut failures = 0;
            loop {
                let sent = self.send(name, &**notifier, parcel).await;
                let Sent::Retry { reason, after } = &sent else { return (name.clone(), sent) };
                failures += 1;
                let wait = self.backoff.wait(failures, *after);
                tracing::warn!(receiver = %name, key = page.key, failures, "page not taken: {reason}");
                if tokio::time::Instant::now() + wait >= until {
                    return (name.clone(), sent);
                }
                tokio::time::sleep(wait).await;
            }
        });
        join_all(lines).await.into_iter().collect()
    }

    /// Says again what stands, to a receiver that forgets.
    async fn stand(&self, name: &ReceiverName, notifier: &dyn Notifier, state: &ClusterState) -> Sent {
        let incidents: Vec<&Incident> = incidents(state).filter(|incident| incident.receivers.contains(name)).collect();
        let said = tokio::time::timeout(self.send_timeout, notifier.say_again(&incidents)).await;
        said.unwrap_or_else(|_| self.late())
    }

    fn late(&self) -> Sent {
        let reason = format!("the receiver did not answer within {} ms", self.send_timeout.as_millis());
        Sent::Retry { reason, after: None }
    }

    /// One attempt, whatever the notifier does about its own time.
    async fn send(&self, name: &ReceiverName, notifier: &dyn Notifier, parcel: Parcel<'_>) -> Sent {
        let sent = tokio::time::timeout(self.send_timeout, notifier.send(parcel)).await;
        let sent = sent.unwrap_or_else(|_| self.late());
        events::paged(name.as_str(), sent.word());
        sent
    }
}

/// Open ones, and those that ended and are still known.
fn incidents(state: &ClusterState) -> impl Iterator<Item = &Incident> {
    state.incidents.values().chain(&state.past_incidents)
}

fn next_time(notifier: &dyn Notifier) -> Option<tokio::time::Instant> {
    Some(tokio::time::Instant::now() + notifier.again_every()?)
}

fn is_pending(entry: &OutboxEntry, receiver: &ReceiverName) -> bool {
    entry.deliveries.get(receiver) == Some(&Delivery::Pending)
}

/// Keeps the memory of what was committed no longer than the state still shows it as pending.
fn forget_settled(settled: &mut BTreeSet<u64>, state: &ClusterState, receiver: &ReceiverName) {
    settled.retain(|seq| state.outbox.iter().any(|entry| entry.seq == *seq && is_pending(entry, receiver)));
}
