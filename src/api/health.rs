//! gRPC health: `""` and `watchdog.v1.Admin` are serving only while this node knows a leader and has a quorum (P8).

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};

use super::backend::{AdminBackend, NodeStanding};

/// Names whose health follows leader and quorum.
pub const FOLLOWS_QUORUM: [&str; 2] = ["", "watchdog.v1.Admin"];

/// The name whose health says no more than that the process answers.
pub const LIVENESS: &str = "watchdog.liveness";

/// The health service, kept up to date until `shutdown`.
pub fn serve(backend: Arc<dyn AdminBackend>, shutdown: CancellationToken) -> HealthServer<impl Health> {
    let reporter = HealthReporter::new();
    let service = HealthService::from_health_reporter(reporter.clone());
    tokio::spawn(async move {
        let mut standing = backend.standing();
        reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
        loop {
            let status = judge(&standing.borrow_and_update());
            for name in FOLLOWS_QUORUM {
                reporter.set_service_status(name, status).await;
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = standing.changed() => if changed.is_err() { break },
            }
        }
        for name in FOLLOWS_QUORUM {
            reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
    });
    HealthServer::new(service)
}

fn judge(standing: &NodeStanding) -> ServingStatus {
    if standing.leader.is_some() && standing.has_quorum { ServingStatus::Serving } else { ServingStatus::NotServing }
}
