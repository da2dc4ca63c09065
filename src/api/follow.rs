//! A run as it goes: a snapshot at once, and again whenever it or the node's standing changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::backend::AdminBackend;
use super::deadline;
use super::refuse::nothing_done;
use super::{show, status};
use crate::domain::ids::RunId;
use crate::proto::FollowRunResponse;

/// Changes closer together than this are one message, milliseconds.
const COALESCE_MS: u64 = 20;

/// Sends snapshots until the run is closed, the caller leaves, or the node stops.
pub(super) async fn follow(
    backend: Arc<dyn AdminBackend>,
    id: RunId,
    to: mpsc::Sender<Result<FollowRunResponse, Status>>,
    shutdown: CancellationToken,
    until: Option<Instant>,
    proved_until: Option<Instant>,
) {
    let (mut applied, mut standing) = (backend.state(), backend.standing());
    let mut sent = None;
    loop {
        let state = applied.borrow_and_update().clone();
        let node = standing.borrow_and_update().clone();
        let Ok(run) = show::find_run(&state, id.as_str()) else {
            let gone = Status::not_found(format!("run {id} is no longer remembered; only the newest runs are"));
            let _ = to.send(Err(gone)).await;
            return;
        };
        let now = (run.clone(), node);
        if sent.as_ref() != Some(&now) {
            let message = FollowRunResponse {
                standing: Some(status::standing(&now.1, &state)),
                run: Some(show::run(run, state.group(&run.group), &backend.policy())),
            };
            if to.send(Ok(message)).await.is_err() || !run.is_open() {
                return;
            }
            sent = Some(now);
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            changed = standing.changed() => if changed.is_err() { return },
            () = to.closed() => return,
            () = deadline::passed(until) => {
                let _ = to.send(Err(Status::deadline_exceeded("your deadline passed; the run goes on"))).await;
                return;
            }
            () = deadline::passed(proved_until) => {
                let _ = to.send(Err(deadline::no_longer_proved())).await;
                return;
            }
            () = shutdown.cancelled() => {
                let _ = to.send(Err(nothing_done("this node is stopping; the run goes on: follow it at another node"))).await;
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(COALESCE_MS)).await;
    }
}
