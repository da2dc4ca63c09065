//! One target, looked at for ever: when, for how long at most, and what to do with a look that does not end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Probe, failure};
use crate::domain::observation::{FailureKind, Measure};
use crate::domain::verdict::{Outcome, WindowParameters};

/// How long a dropped look has to end before it counts as hung.
const ABORT_GRACE: Duration = Duration::from_millis(100);

/// Takes outcomes in and says when to look next.
pub trait Judge: Send + Sync {
    /// A look has ended that took so long. Gives how long after its start the next shall start, milliseconds.
    fn judge(&self, outcome: Outcome, took: Duration) -> u64;
}

/// A task that is ended when this is dropped.
struct Supervised<T>(JoinHandle<T>);

impl<T> Drop for Supervised<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Look = Supervised<Result<Option<Measure>, crate::domain::observation::Failure>>;

/// Looks at one target until dropped. Each look is a task of its own: when its time is over it is dropped and has
/// failed, whatever it is doing, and no look waits for another target's.
pub async fn watch(probe: Arc<dyn Probe>, parameters: WindowParameters, judge: Arc<dyn Judge>) {
    // Not all in step: neither this node's targets, nor all nodes on one target.
    sleep(Duration::from_millis(rand::random_range(0..=parameters.interval_ms.min(1000) / 2))).await;
    let nudge = probe.nudge();
    let mut hung: Option<Look> = None;
    let mut nudged: Option<Instant> = None;
    loop {
        let started = Instant::now();
        let outcome = look(&probe, parameters.timeout_ms, &mut hung).await;
        let next = started + Duration::from_millis(judge.judge(outcome, started.elapsed()).max(1));
        let Some(nudge) = &nudge else {
            sleep_until(next).await;
            continue;
        };
        tokio::select! {
            () = sleep_until(next) => {}
            () = nudge.notified() => {
                // At once, but only once an interval: a server that drops every connection is not to be hammered.
                let interval = Duration::from_millis(parameters.interval_ms);
                if nudged.is_some_and(|last| last.elapsed() < interval) {
                    sleep_until(next.min(started + Duration::from_millis(parameters.fastinter_ms.max(1)))).await;
                } else {
                    nudged = Some(Instant::now());
                }
            }
        }
    }
}

async fn look(probe: &Arc<dyn Probe>, timeout_ms: u64, hung: &mut Option<Look>) -> Outcome {
    if hung.as_ref().is_some_and(|look| !look.0.is_finished()) {
        // Dropping it did not end it: it blocks its thread. Never a second one beside it.
        sleep(Duration::from_millis(timeout_ms)).await;
        let detail = "the previous look at it hangs and cannot be ended; restart this node if it stays so";
        return Outcome::Bad(failure::failure(FailureKind::OurFault, detail));
    }
    *hung = None;
    let probe = probe.clone();
    let mut task = Supervised(tokio::spawn(async move { probe.probe().await }));
    match timeout(Duration::from_millis(timeout_ms), &mut task.0).await {
        Ok(Ok(Ok(measure))) => Outcome::Good(measure),
        Ok(Ok(Err(failure))) => Outcome::Bad(failure),
        Ok(Err(crashed)) => {
            let detail = format!("the probe itself failed, which is a fault in this program: {crashed}");
            Outcome::Bad(failure::failure(FailureKind::OurFault, detail))
        }
        Err(_) => {
            task.0.abort();
            // An aborted task ends the next time it would wait: at once, unless it blocks its thread.
            if timeout(ABORT_GRACE, &mut task.0).await.is_err() {
                *hung = Some(task);
            }
            Outcome::Bad(failure::failure(FailureKind::TimedOut, format!("no answer within {timeout_ms} ms")))
        }
    }
}
