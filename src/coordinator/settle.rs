//! Resources that an aborted or skipped step may still act upon: reached sooner or later, and then at rest.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Coordinator;
use super::steps::{GRACE, LOOK_DEADLINE, Over};
use crate::domain::attempt::{Outcome, Raised, ReadBack, Warrant};
use crate::domain::command::Change;
use crate::domain::ids::{GroupName, ResourceName, RunId, StepId, Token};
use crate::domain::state::Unsettled;

/// A fence may have to stop a server first.
const FENCE_DEADLINE: Duration = Duration::from_secs(60);

/// Raises the group's last token at a resource that an aborted or skipped step may still act upon, and records what it shows.
/// `run` holds that token: a latch that is set under it may be cleared by that run's own steps, a rejoin's above all, and by later
/// tokens.
pub(super) async fn settle_left(
    coordinator: Arc<Coordinator>,
    group: GroupName,
    resource: ResourceName,
    left: Unsettled,
    (run, token): (RunId, Token),
) -> Over {
    let warrant = Warrant {
        cluster: coordinator.policy.cluster.clone(),
        group: group.clone(),
        run,
        step: StepId::from("settle"),
        attempt: 0,
        token,
        fenced_host: None,
    };
    let deadline = Instant::now() + LOOK_DEADLINE;
    let raising = coordinator.actuator.raise(&warrant, &left.action, deadline);
    match tokio::time::timeout_at(deadline + GRACE, raising).await {
        Ok(Raised::Done { in_flight: None }) => {
            let warrant = Warrant { attempt: 1, ..warrant };
            if left.is_due && !fenced_for_good(&coordinator, &warrant, &left).await {
                return Over::Settled { group, resource };
            }
            let seen = coordinator.actuator.read_back(&warrant, &left.action, deadline);
            let untouched =
                matches!(tokio::time::timeout_at(deadline + GRACE, seen).await, Ok(ReadBack::Untouched { .. }));
            let evidence = format!("token {token} raised; nothing in flight");
            coordinator
                .propose(Change::Settle { group: group.clone(), resource: resource.clone(), evidence, untouched })
                .await;
        }
        Ok(Raised::Done { in_flight: Some(what) }) => {
            tracing::info!(%group, %resource, "unsettled still: {what} is in flight");
        }
        Ok(Raised::Unknown { reason }) => tracing::debug!(%group, %resource, "unsettled still: {reason}"),
        // What is refused for a higher token can take no effect any more: that is all that settling is for.
        Ok(Raised::Refused { held }) => {
            let evidence =
                format!("the resource holds the higher token {held}: nothing of an earlier one gets through");
            let change =
                Change::Settle { group: group.clone(), resource: resource.clone(), evidence, untouched: false };
            coordinator.propose(change).await;
        }
        Err(_) => tracing::debug!(%group, %resource, "unsettled still: no answer in time"),
    }
    Over::Settled { group, resource }
}

/// A host whose silence was proof enough is fenced for good once it answers: its lease may end its silence no more, but its
/// server could be started by hand. Its intent is the log's: `LeaseLapsed` left it due.
async fn fenced_for_good(coordinator: &Coordinator, warrant: &Warrant, left: &Unsettled) -> bool {
    let warrant = Warrant { step: StepId::from("fence-for-good"), ..warrant.clone() };
    let deadline = Instant::now() + FENCE_DEADLINE;
    let acting = coordinator.actuator.execute(&warrant, &left.action, deadline);
    match tokio::time::timeout_at(deadline + GRACE, acting).await {
        Ok(Outcome::Done { evidence }) => {
            tracing::info!(group = %warrant.group, run = %warrant.run, "the old primary is fenced for good: {evidence}");
            true
        }
        other => {
            tracing::warn!(group = %warrant.group, run = %warrant.run, outcome = ?other, "the old primary is not fenced for good yet");
            false
        }
    }
}
