//! The dead-man heartbeat, wired: the leader beats, each time after a majority has just confirmed that it leads.
//!
//! The leader alone, because a beat says "this cluster could act": a follower knows of a quorum only by its leader's word,
//! and beats of several nodes would hide that the one which acts cannot. A node that dies before, in or after a beat leaves
//! nothing behind: the next leader beats at once. One that sleeps in the middle asks its majority again before the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use url::Url;

use super::ServerError;
use super::journal::CONFIRM_TIMEOUT;
use crate::clock::unix_now;
use crate::config::{self, Config, NodeConfig};
use crate::consensus::Consensus;
use crate::coordinator::Sightings;
use crate::domain::ids::{ReceiverName, UnixMs};
use crate::domain::view;
use crate::metrics::events;
use crate::notify::{Address, Heartbeat, HeartbeatConfig, NotifyError, SEND_TIMEOUT, Sent};

/// A beat that was not taken is tried again after this, or after the interval where that is shorter.
const AGAIN: Duration = Duration::from_secs(10);
/// Leadership that a majority does not confirm is looked at again after this.
const UNCONFIRMED: Duration = Duration::from_secs(1);
/// So many in a row that were not taken are told of.
const MISSED_MAX: u32 = 3;

/// What the metrics tell of this node's beats.
#[derive(Debug, Default)]
pub struct Beats {
    /// Milliseconds since 1970; 0 before the first.
    last_ms: AtomicU64,
    /// Zero where none is configured.
    interval_ms: AtomicU64,
}

impl Beats {
    /// When a beat of this node was last taken.
    pub fn last(&self) -> Option<UnixMs> {
        Some(UnixMs(self.last_ms.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }

    /// Milliseconds between two, where beats are configured.
    pub fn interval_ms(&self) -> Option<u64> {
        Some(self.interval_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }
}

/// One node's beats, ready to be sent.
pub struct Heart {
    heartbeat: Heartbeat,
    interval: Duration,
    /// What the metrics tell of them.
    pub beats: Arc<Beats>,
}

impl Heart {
    /// As configured; `None` where it is not.
    pub fn new(config: &Config, own: &NodeConfig) -> Result<Option<Self>, ServerError> {
        let Some(wanted) = &config.heartbeat else { return Ok(None) };
        let faulty = |source| ServerError::Receiver { receiver: ReceiverName("[heartbeat]".to_owned()), source };
        let to = match &wanted.to {
            config::Address::Url(url) => {
                let url = url.parse::<Url>().map_err(|e| faulty(NotifyError::BaseUrl { address: e.to_string() }))?;
                Address::Fixed(url)
            }
            config::Address::File(path) => Address::File(path.into()),
        };
        let token_file = wanted.token_file.as_ref().map(Into::into);
        let beating = HeartbeatConfig { to, by_get: wanted.by_get, token_file };
        let heartbeat =
            Heartbeat::new(config.cluster.clone(), own.name.clone(), beating, SEND_TIMEOUT).map_err(faulty)?;
        let beats = Beats::default();
        beats.interval_ms.store(u64::try_from(wanted.interval.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(Some(Self { heartbeat, interval: wanted.interval, beats: Arc::new(beats) }))
    }

    /// Beats while this node leads; whatever is under way is dropped the moment it does not. Never returns.
    pub async fn keep_beating(self, consensus: Consensus, sightings: Arc<Sightings>) {
        let mut leadership = consensus.leadership();
        loop {
            sightings.beaten(view::Heartbeat::Unknown);
            if leadership.wait_for(|now| now.is_self).await.is_err() {
                return;
            }
            tokio::select! {
                biased;
                lost = leadership.wait_for(|now| !now.is_self) => if lost.is_err() { return },
                () = self.lead(&consensus, &sightings) => {}
            }
        }
    }

    async fn lead(&self, consensus: &Consensus, sightings: &Sightings) {
        let mut missed = 0u32;
        loop {
            let term = match consensus.confirm_leadership(CONFIRM_TIMEOUT).await {
                Ok(term) => term,
                Err(error) => {
                    tracing::debug!(%error, "no heartbeat: no majority confirms this leader");
                    sleep(UNCONFIRMED).await;
                    continue;
                }
            };
            let now = unix_now();
            let sent = self.heartbeat.beat(term, now).await;
            events::beaten(sent.word());
            let why = match sent {
                Sent::Delivered => {
                    self.beats.last_ms.store(now.0, Ordering::Relaxed);
                    missed = 0;
                    sightings.beaten(view::Heartbeat::Heard);
                    sleep(self.interval).await;
                    continue;
                }
                Sent::Retry { reason, .. } | Sent::Refused { reason } => reason,
            };
            missed = missed.saturating_add(1);
            tracing::warn!(missed, "heartbeat not taken: {why}");
            if missed >= MISSED_MAX {
                sightings.beaten(view::Heartbeat::Unheard { why });
            }
            sleep(AGAIN.min(self.interval)).await;
        }
    }
}
