//! Resources that an aborted or skipped step may still act upon: reached sooner or later, and then at rest.

use std::sync::Arc;

use tokio::time::Instant;

use super::Coordinator;
use super::steps::{GRACE, LOOK_DEADLINE, Over};
use crate::domain::attempt::{Raised, ReadBack, Warrant};
use crate::domain::command::Change;
use crate::domain::ids::{GroupName, ResourceName, StepId, Token};
use crate::domain::state::Unsettled;

/// Raises the group's last token at a resource that an aborted or skipped step may still act upon, and records what it shows.
pub(super) async fn settle_left(
    coordinator: Arc<Coordinator>,
    group: GroupName,
    resource: ResourceName,
    left: Unsettled,
    token: Token,
) -> Over {
    let warrant = Warrant {
        cluster: coordinator.policy.cluster.clone(),
        group: group.clone(),
        run: left.run.clone(),
        step: StepId::from("settle"),
        attempt: 0,
        token,
    };
    let deadline = Instant::now() + LOOK_DEADLINE;
    let raising = coordinator.actuator.raise(&warrant, &left.action, deadline);
    match tokio::time::timeout_at(deadline + GRACE, raising).await {
        Ok(Raised::Done { in_flight: None }) => {
            let warrant = Warrant { attempt: 1, ..warrant };
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
