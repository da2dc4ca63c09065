//! Closed runs to a trace collector, by whoever leads. A run never waits for it: it is told after it is closed, from the
//! history, which is all the queue there is.
//!
//! A leader that dies in the middle leaves it to the next, which sends what closed lately once more: ids come of the record,
//! so that the collector has one trace. A collector that is down is tried again, for no longer than a run counts as late.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use url::Url;

use super::ServerError;
use crate::clock::unix_now;
use crate::config::{Config, NodeConfig};
use crate::consensus::Consensus;
use crate::domain::ids::{ReceiverName, RunId, UnixMs};
use crate::domain::policy::ClusterPolicy;
use crate::domain::run::{Run, RunPhase};
use crate::domain::state::ClusterState;
use crate::domain::trace;
use crate::metrics::events;
use crate::notify::{NotifyError, SEND_TIMEOUT, Sent, Traces};

/// What closed longer ago is not sent any more, milliseconds: a new leader sends no history, and a collector that stays down
/// loses what was.
const LATE_MS: u64 = 15 * 60 * 1000;
/// After a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// The configured collector; `None` where there is none.
pub fn collector(config: &Config, own: &NodeConfig) -> Result<Option<Traces>, ServerError> {
    let Some(wanted) = &config.traces else { return Ok(None) };
    let faulty = |source| ServerError::Receiver { receiver: ReceiverName("[traces]".to_owned()), source };
    let endpoint = wanted.endpoint.parse::<Url>();
    let endpoint = endpoint.map_err(|error| faulty(NotifyError::BaseUrl { address: error.to_string() }))?;
    let token_file = wanted.token_file.as_ref().map(Into::into);
    Traces::new(config.cluster.clone(), own.name.clone(), &endpoint, token_file, SEND_TIMEOUT).map(Some).map_err(faulty)
}

/// Sends while this node leads. Never returns before the state's sender is gone.
pub async fn export(traces: Traces, consensus: Consensus, policy: Arc<ClusterPolicy>) {
    let (mut leadership, mut state) = (consensus.leadership(), consensus.state());
    let mut sent = BTreeSet::new();
    loop {
        if leadership.wait_for(|now| now.is_self).await.is_err() {
            return;
        }
        let now = state.borrow_and_update().clone();
        let is_failing = look(&traces, &policy, &now, &mut sent).await;
        tokio::select! {
            changed = state.changed(), if !is_failing => if changed.is_err() { return },
            () = sleep(AGAIN), if is_failing => {}
        }
    }
}

/// Sends what is due, oldest first; true where something has to be tried again.
async fn look(traces: &Traces, policy: &ClusterPolicy, state: &ClusterState, sent: &mut BTreeSet<RunId>) -> bool {
    let now = unix_now();
    let mut due: Vec<(UnixMs, &Run)> =
        state.groups.values().flat_map(|group| &group.history).filter_map(closed).collect();
    due.retain(|(at, run)| now.since(*at) < LATE_MS && !sent.contains(&run.id));
    due.sort_by_key(|(at, _)| *at);
    let known: BTreeSet<&RunId> = state.groups.values().flat_map(|group| &group.history).map(|run| &run.id).collect();
    sent.retain(|id| known.contains(id));
    for (_, run) in due {
        let Some(trace) = trace::of_run(policy, run) else { continue };
        let answer = traces.send(&trace).await;
        events::traced(answer.word());
        match answer {
            Sent::Delivered => tracing::info!(run = %run.id, spans = trace.spans.len(), "the run's trace is exported"),
            Sent::Refused { reason } => tracing::error!(run = %run.id, "the run's trace is refused: {reason}"),
            Sent::Retry { reason, .. } => {
                tracing::warn!(run = %run.id, "the run's trace is not exported yet: {reason}");
                return true;
            }
        }
        sent.insert(run.id.clone());
    }
    false
}

fn closed(run: &Run) -> Option<(UnixMs, &Run)> {
    match &run.phase {
        RunPhase::Closed { at, .. } => Some((*at, run)),
        _ => None,
    }
}
