//! gRPC health, by names that tell a leader, a follower and a node without quorum apart (P8).
//!
//! | | `watchdog.liveness` | `watchdog.quorum` | `""`, `watchdog.v1.Admin` | `watchdog.leader` |
//! |---|---|---|---|---|
//! | leader | serving | serving | serving | serving |
//! | follower | serving | serving | serving | not serving |
//! | election under way | serving | serving | not serving | not serving |
//! | no quorum | serving | not serving | not serving | not serving |
//! | stopping | not serving | not serving | not serving | not serving |

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};

use super::backend::{AdminBackend, NodeStanding};

/// Names that are serving while this node knows a leader and has a quorum: it can answer whatever it is asked.
pub const ANSWERS: [&str; 2] = ["", "watchdog.v1.Admin"];

/// The name that is serving while this node is in contact with a majority, also while that elects a leader.
pub const QUORUM: &str = "watchdog.quorum";

/// The name that is serving on the leader alone, and there only while it has a quorum: what a load balancer asks that wants
/// to spare the way through a follower.
pub const LEADER: &str = "watchdog.leader";

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
            let now = standing.borrow_and_update().clone();
            tell(&reporter, &now).await;
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = standing.changed() => if changed.is_err() { break },
            }
        }
        for name in ANSWERS.into_iter().chain([QUORUM, LEADER, LIVENESS]) {
            reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
    });
    HealthServer::new(service)
}

async fn tell(reporter: &HealthReporter, standing: &NodeStanding) {
    let answers = standing.leader.is_some() && standing.has_quorum;
    let all = ANSWERS.into_iter().map(|name| (name, answers));
    for (name, is_so) in all.chain([(QUORUM, standing.has_quorum), (LEADER, answers && standing.is_leader())]) {
        let status = if is_so { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status(name, status).await;
    }
}
