//! The resident guard: grants promotion holds on `[lease] listen`, and keeps the lease while its database is the primary.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::ServeError;
use super::gate::Gate;
use super::hold;
use super::primary::{self, Site};
use super::wire;
use crate::guard::commit_gate::BothLayers;
use crate::guard::commit_gate::keep::CommitGate;
use crate::guard::config::Config;
use crate::guard::host::boottime_ms;
use crate::guard::locks;
use crate::guard::session::Session;
use crate::proto::hold_server::{Hold, HoldServer};
use crate::proto::{HoldReply, HoldRequest};

/// Holds looked into at once: each asks the database one question.
const HOLDS_AT_ONCE: usize = 4;
/// No request is longer, bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Connections that go silent are closed, seconds.
const KEEPALIVE_S: u64 = 10;

struct Holds {
    config: Arc<Config>,
    session: Arc<Session>,
    room: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Hold for Holds {
    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldReply>, Status> {
        let arrived_ms = boottime_ms();
        let request = request.into_inner();
        let nonce = request.nonce;
        let ask = wire::asked_for_hold(&request)?;
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted("other holds are being looked into: ask again"));
        };
        let (config, session) = (self.config.clone(), self.session.clone());
        let granted = spawn_blocking(move || {
            let _place = place;
            hold::grant(&config, &ask, arrived_ms, |pg| session.look_closely(pg))
        });
        let granted = granted.await.map_err(|e| Status::internal(e.to_string()))?;
        let why = granted.as_ref().err().cloned().unwrap_or_default();
        Ok(Response::new(HoldReply { nonce, granted: granted.is_ok(), why }))
    }
}

/// The gate, and the commit gate behind it where one is configured.
fn layers(config: &Config, gate: Arc<dyn Gate>) -> Result<(Arc<dyn Gate>, Option<CommitGate>), ServeError> {
    if !config.lease.as_ref().is_some_and(|lease| lease.commit_gate) {
        return Ok((gate, None));
    }
    let (both, shared) = BothLayers::new(gate);
    Ok((Arc::new(both), Some(CommitGate::new(config, shared)?)))
}

async fn keep_commits(gate: Option<CommitGate>, stop: &CancellationToken) {
    match gate {
        Some(gate) => gate.keep(stop).await,
        None => std::future::pending().await,
    }
}

/// Serves both roles until told to stop. The gate stays in the kernel as it is.
///
/// # Errors
/// The configuration lacks a part, another such process runs, or the address cannot be listened on.
pub async fn serve(config: Config, gate: Arc<dyn Gate>, stop: CancellationToken) -> Result<(), ServeError> {
    let (gate, commit_gate) = layers(&config, gate)?;
    let site = Arc::new(Site::new(config, gate)?);
    let path = site.files().lease_lock();
    let _only_one = locks::take(&path, 0)?.ok_or_else(|| ServeError::Running(path.display().to_string()))?;
    let listen = site.lease().listen.clone();
    let listener = TcpListener::bind(&listen).await.map_err(|source| ServeError::Listen { listen, source })?;
    tracing::info!(listen = %site.lease().listen, host = %site.lease().host, "serving");
    let config = Arc::new(site.config.clone());
    let holds = Holds { config, session: Arc::default(), room: Arc::new(Semaphore::new(HOLDS_AT_ONCE)) };
    let closing = stop.clone();
    let grpc = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(KEEPALIVE_S)))
        .http2_keepalive_timeout(Some(Duration::from_secs(KEEPALIVE_S)))
        .concurrency_limit_per_connection(HOLDS_AT_ONCE)
        .add_service(HoldServer::new(holds).max_decoding_message_size(REQUEST_BYTES_MAX))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move { closing.cancelled().await });
    tokio::select! {
        served = grpc => served.map_err(ServeError::Grpc),
        kept = primary::keep(site, stop.clone()) => kept,
        () = keep_commits(commit_gate, &stop) => Ok(()),
        // Those still connected are not waited for: a hold is kept by its file.
        () = stop.cancelled() => Ok(()),
    }
}
