//! The resident guard: grants promotion holds on `[lease] listen`, and keeps the lease while its database is the primary.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::ServeError;
use super::gate::Gate;
use super::hold::{self, Ask};
use super::primary::{self, Site};
use super::wire;
use crate::domain::identity::Kind;
use crate::guard::commit_gate::BothLayers;
use crate::guard::commit_gate::keep::CommitGate;
use crate::guard::config::Config;
use crate::guard::host::boottime_ms;
use crate::guard::locks;
use crate::guard::session::Session;
use crate::proto::hold_server::{Hold, HoldServer};
use crate::proto::{HoldReply, HoldRequest};
use crate::systemd;
use crate::tls::{Peer, incoming};

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
        let peer = request.extensions().get::<Peer>().cloned();
        let request = request.into_inner();
        let nonce = request.nonce;
        let ask = wire::asked_for_hold(&request)?;
        may_ask(peer.as_ref(), &ask)?;
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

/// A hold is granted to the guard of the host that it is for, and to nobody in its place.
fn may_ask(peer: Option<&Peer>, ask: &Ask) -> Result<(), Status> {
    match peer {
        // Only where the configuration says so, on loopback.
        Some(Peer::Plain { .. }) => Ok(()),
        Some(Peer::Known { identity, .. }) => {
            let own = identity.parts() == Some((ask.cluster.as_str(), Kind::Guard, ask.host.as_str()));
            if own || identity.plain_name() == Some(ask.host.as_str()) {
                return Ok(());
            }
            let why = format!(
                "host: {identity} may not ask for a hold for {}: give each guard its own certificate",
                ask.host
            );
            Err(Status::permission_denied(why))
        }
        Some(Peer::Nobody { .. }) | None => {
            Err(Status::unauthenticated("a hold is granted to a guard with a certificate"))
        }
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
        .serve_with_incoming_shutdown(incoming(listener, site.tls()), async move { closing.cancelled().await });
    let fresh = async {
        match site.tls() {
            Some(tls) => tls.keep_fresh().await,
            None => std::future::pending().await,
        }
    };
    systemd::ready(&format!("serves {} on {}", site.lease().host, site.lease().listen));
    tokio::select! {
        () = fresh => Ok(()),
        served = grpc => served.map_err(ServeError::Grpc),
        kept = primary::keep(site.clone(), stop.clone()) => kept,
        () = keep_commits(commit_gate, &stop) => Ok(()),
        () = systemd::keep_alive() => Ok(()),
        // Those still connected are not waited for: a hold is kept by its file.
        () = stop.cancelled() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::identity::Identity;
    use crate::domain::ids::UnixMs;
    use tonic::Code;

    #[test]
    fn a_hold_is_for_the_guard_of_its_host() {
        let ask = Ask {
            cluster: "demo".into(),
            epoch: 1,
            group: "a".into(),
            host: "db-a".into(),
            ttl_ms: 2000,
            ground: crate::domain::ids::Token { epoch: 1, n: 1 },
        };
        let known = |text: &str| Peer::Known {
            identity: Identity::parse(text).expect("sound"),
            from: None,
            until: UnixMs(u64::MAX),
        };
        for (peer, code) in [
            (Some(known("watchdog://demo/guard/db-a")), None),
            (Some(known("CN=db-a")), None),
            (Some(known("watchdog://demo/guard/db-b")), Some(Code::PermissionDenied)),
            (Some(known("watchdog://other/guard/db-a")), Some(Code::PermissionDenied)),
            (Some(known("watchdog://demo/node/db-a")), Some(Code::PermissionDenied)),
            (Some(known("watchdog://demo/user/db-a")), Some(Code::PermissionDenied)),
            (Some(known("CN=db-b")), Some(Code::PermissionDenied)),
            (Some(Peer::Nobody { from: None }), Some(Code::Unauthenticated)),
            (None, Some(Code::Unauthenticated)),
            (Some(Peer::Plain { from: None }), None),
        ] {
            assert_eq!(may_ask(peer.as_ref(), &ask).err().map(|status| status.code()), code, "{peer:?}");
        }
    }
}
