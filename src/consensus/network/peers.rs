//! Connections to the other nodes, one per address, shared by everything that calls them.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::{StdError, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::wire;
use crate::consensus;
use crate::consensus::store::{Contradiction, Store, StoreError};
use crate::consensus::types::{Identity, MAX_MESSAGE_BYTES};
use crate::domain::command::Command;
use crate::domain::ids::{ClusterName, NodeId, NodeName};
use crate::domain::observation::Report;
use crate::proto::peer_client::PeerClient;
use crate::proto::{Header, Known, PeerRequest, Reached};
use crate::tls::dial::{Connector, why};
use crate::tls::{Dialer, Expect, Material};

/// Of a peer's word for its version, characters.
const VERSION_CHARS_MAX: usize = 40;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that answers no ping for so long is dropped, and dialled anew.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// A call to another node that did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// No such member, or its address cannot be dialled.
    #[error("cannot call node {node}: {reason}")]
    Address {
        /// The node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// Nothing came back in time.
    #[error("node {node} at {address} did not answer within {waited_ms} ms")]
    TimedOut {
        /// The node.
        node: NodeId,
        /// Where it was called.
        address: String,
        /// How long.
        waited_ms: u128,
    },
    /// There is no way there, or it refused.
    #[error("node {node} at {address}: {reason}")]
    Failed {
        /// The node.
        node: NodeId,
        /// Where it was called.
        address: String,
        /// What it answered.
        reason: String,
        /// The answer's code.
        code: Code,
    },
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pong {
    /// The node.
    pub node: NodeId,
    /// Its term.
    pub term: u64,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// It has a log: the cluster was formed.
    pub formed: bool,
    /// It has heard from a leader with a quorum, or is one.
    pub quorum: bool,
    /// Its program's version; empty where it does not say.
    pub version: String,
}

/// What carries calls to one address.
pub type Line = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, LineError>;
/// Makes a line to an address, without waiting for anybody there; or says why that is no address.
pub type Dial = Box<dyn Fn(&str) -> Result<Line, String> + Send + Sync>;

/// Why a line carried nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LineError(#[source] pub StdError);

/// Lines over TCP, by TLS where this node has a certificate: at a member's address that member must answer.
pub(crate) fn dial_tcp(
    tls: Option<Arc<Material>>,
    cluster: ClusterName,
    members: &BTreeMap<NodeId, consensus::Node>,
) -> Dial {
    let dialer = Dialer::of(tls);
    let names: BTreeMap<String, NodeName> =
        members.values().map(|member| (member.address.clone(), member.name.clone())).collect();
    Box::new(move |address| {
        let channel = connect(address, dialer.to(Expect::node(Some(&cluster), names.get(address))))?;
        Ok(BoxCloneSyncService::new(channel.map_err(|error| LineError(error.into()))))
    })
}

/// Connections by address.
pub struct Peers {
    identity: Identity,
    store: Store,
    dial: Dial,
    lines: Mutex<BTreeMap<String, Line>>,
}

impl Peers {
    pub(crate) fn new(identity: Identity, store: Store, dial: Dial) -> Self {
        Self { identity, store, dial, lines: Mutex::new(BTreeMap::new()) }
    }

    /// The header of a call to `node`.
    pub(super) fn header(&self, node: NodeId) -> Header {
        wire::header(&self.identity, &self.store, node)
    }

    /// An answer counts only if it comes from the store that promised what the node promised before.
    pub(super) async fn recognise(
        &self,
        node: NodeId,
        address: &str,
        store: &str,
        reached: &[Reached],
    ) -> Result<(), PeerError> {
        let fail = |reason: String| {
            tracing::warn!(%node, address, "refused an answer between nodes: {reason}");
            PeerError::Failed { node, address: address.to_owned(), reason, code: Code::FailedPrecondition }
        };
        match self.store.recognise(node, store).await {
            Ok(true) => {}
            Ok(false) => return Err(fail(wire::other_store(node))),
            Err(error) => return Err(fail(error.to_string())),
        }
        let reached = wire::check_reached("reached", reached).map_err(|status| fail(status.message().to_owned()))?;
        if !reached.iter().any(|said| said.node == node) {
            return Err(fail("reached: it does not say how far it came".to_owned()));
        }
        self.store.meet(node, &reached).await.map_err(|contradiction| match contradiction {
            Contradiction::Own(error) => self.gone(node, address, &error),
            Contradiction::Theirs { .. } => fail(contradiction.to_string()),
        })
    }

    /// This node itself takes no part any more.
    fn gone(&self, node: NodeId, address: &str, error: &StoreError) -> PeerError {
        let reason = format!("node {} takes no part: {error}", self.identity.node);
        PeerError::Failed { node, address: address.to_owned(), reason, code: Code::FailedPrecondition }
    }

    /// Waits for a call's answer. A refusal may tell what is known of this node's own store.
    pub(super) async fn within<T>(
        &self,
        node: NodeId,
        address: &str,
        wait: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, PeerError> {
        match timeout(wait, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                let told = Known::decode(status.details()).unwrap_or_default();
                let told = wire::check_reached("details", &told.reached).unwrap_or_default();
                self.store.judge_own(&told).await.map_err(|error| self.gone(node, address, &error))?;
                Err(failed(node, address, &status))
            }
            Err(_) => Err(PeerError::TimedOut { node, address: address.to_owned(), waited_ms: wait.as_millis() }),
        }
    }

    /// A client for the node; connects when first used, and again after every failure.
    pub(super) fn client(&self, node: NodeId, address: &str) -> Result<PeerClient<Line>, PeerError> {
        if let Some(error) = self.store.revoked() {
            return Err(self.gone(node, address, &error));
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = match lines.get(address) {
            Some(line) => line.clone(),
            None => {
                let line = (self.dial)(address)
                    .map_err(|reason| PeerError::Address { node, reason: format!("address {address:?}: {reason}") })?;
                lines.insert(address.to_owned(), line.clone());
                line
            }
        };
        Ok(PeerClient::new(line).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Pushes what this node sees to `node`.
    pub(crate) async fn push_report(
        &self,
        node: NodeId,
        address: &str,
        report: &Report,
        wait: Duration,
    ) -> Result<(), PeerError> {
        let payload = wire::encode(report).map_err(|status| failed(node, address, &status))?;
        let request = self.request(node, payload);
        let mut client = self.client(node, address)?;
        let reply = self.within(node, address, wait, client.push_report(request)).await?;
        self.recognise(node, address, &reply.store, &reply.reached).await
    }

    /// Has `node`, the leader, enter what this node refused.
    pub(crate) async fn note(
        &self,
        node: NodeId,
        address: &str,
        notes: &[Command],
        wait: Duration,
    ) -> Result<(), PeerError> {
        let request = self.request(node, wire::encode(&notes).map_err(|status| failed(node, address, &status))?);
        let mut client = self.client(node, address)?;
        let reply = self.within(node, address, wait, client.note(request)).await?;
        self.recognise(node, address, &reply.store, &reply.reached).await
    }

    /// Asks `node` whether it is there.
    pub(crate) async fn ping(&self, node: NodeId, address: &str, wait: Duration) -> Result<Pong, PeerError> {
        let request = self.request(node, Vec::new());
        let mut client = self.client(node, address)?;
        let reply = self.within(node, address, wait, client.ping(request)).await?;
        self.recognise(node, address, &reply.store, &reply.reached).await?;
        Ok(Pong {
            node: NodeId(reply.node),
            term: reply.term,
            leader: (reply.leader != 0).then_some(NodeId(reply.leader)),
            formed: reply.formed,
            quorum: reply.quorum,
            version: shown(&reply.version),
        })
    }

    fn request(&self, node: NodeId, payload: Vec<u8>) -> PeerRequest {
        PeerRequest { header: Some(self.header(node)), payload, quorum_age_ms: None }
    }
}

/// Another's word for people: short, and without what could steer a terminal.
fn shown(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(VERSION_CHARS_MAX).collect()
}

fn connect(address: &str, connector: Connector) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector))
}

pub(super) fn failed(node: NodeId, address: &str, status: &Status) -> PeerError {
    // A node's own words come without a source; what the transport wraps says more than its outermost words.
    let reason = status.source().map_or_else(|| status.message().to_owned(), why);
    PeerError::Failed { node, address: address.to_owned(), reason, code: status.code() }
}
