//! What this node answers to the others. Every call is checked for who speaks to whom before anything is read from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::AppendEntriesResponse;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Response, Status, Streaming};

use super::wire;
use crate::consensus::handle::{has_quorum, stop_reason};
use crate::consensus::store::{Contradiction, Store, StoreError};
use crate::consensus::types::{Identity, MAX_MESSAGE_BYTES, Raft, Snapshot};
use crate::domain::identity::Caller;
use crate::domain::ids::{NodeId, NodeName};
use crate::domain::observation::Report;
use crate::domain::sealed::Sealed;
use crate::proto::peer_server::{Peer, PeerServer};
use crate::proto::{Header, Known, PeerReply, PeerRequest, PingReply, SnapshotChunk};

/// A snapshot whose next message does not come for so long is given up.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// A note that is not entered within this may be, or not: it is sent again.
const NOTE_TIMEOUT: Duration = Duration::from_secs(2);

/// When a leader was last heard, and how old its quorum was then.
#[derive(Debug, Default)]
pub struct Contact(Mutex<Option<(Instant, Option<Duration>)>>);

impl Contact {
    fn heard(&self, quorum_age: Option<Duration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), quorum_age));
    }

    /// How long ago a majority is known to have answered the leader.
    pub(crate) fn quorum_age(&self) -> Option<Duration> {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.and_then(|(at, age)| age.map(|age| age.saturating_add(at.elapsed())))
    }
}

/// The peer service of one node.
#[derive(Clone)]
pub struct PeerService {
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    pub(crate) raft: Raft,
    /// The configured ones: before there is a membership, they are all that is known.
    pub(crate) members: Arc<BTreeMap<NodeId, NodeName>>,
    /// A call counts only from the node that its caller proved to be.
    pub(crate) must_prove: bool,
    pub(crate) contact: Arc<Contact>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) quorum_limit: Duration,
}

impl PeerService {
    /// For a tonic router. Messages larger than [`MAX_MESSAGE_BYTES`] are refused before they are read.
    pub fn into_server(self) -> PeerServer<Self> {
        PeerServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    async fn check(&self, request: Request<PeerRequest>) -> Result<(NodeId, PeerRequest), Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let mut message = request.into_inner();
        let from = self.caller(message.header.take(), caller.as_ref()).await?;
        Ok((from, message))
    }

    async fn caller(&self, header: Option<Header>, caller: Option<&Caller>) -> Result<NodeId, Status> {
        let header = header.ok_or_else(|| Status::invalid_argument("header: missing"))?;
        let from = wire::check(&self.identity, self.store.id(), &header)?;
        if !self.is_member(from) {
            tracing::warn!(%from, "refused a call from a node that is no member");
            let text = format!("header.from: node {from} is neither configured here nor a member");
            return Err(Status::permission_denied(text));
        }
        self.prove(from, caller)?;
        if !self.store.recognise(from, &header.store).await.map_err(|error| stopped(&error))? {
            let text = format!("header.store: {}", wire::other_store(from));
            tracing::warn!(%from, "refused a call between nodes: {text}");
            return Err(Status::failed_precondition(text));
        }
        let reached = wire::check_reached("header.reached", &header.reached)?;
        if !reached.iter().any(|said| said.node == from) {
            return Err(Status::invalid_argument(format!("header.reached: node {from} does not say how far it came")));
        }
        self.store.meet(from, &reached).await.map_err(|contradiction| match contradiction {
            Contradiction::Own(error) => revoked(&error),
            Contradiction::Theirs { ref known, .. } => {
                let text = format!("header.reached: {contradiction}");
                tracing::warn!(%from, "refused a call between nodes: {text}");
                let known = Known { reached: vec![known.to_wire()] };
                Status::with_details(Code::FailedPrecondition, text, known.encode_to_vec().into())
            }
        })?;
        Ok(from)
    }

    /// Nothing that was promised is answered once others know better.
    fn still_counts(&self) -> Result<(), Status> {
        self.store.revoked().map_or(Ok(()), |error| Err(revoked(&error)))
    }

    fn is_member(&self, node: NodeId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        self.members.contains_key(&node) || metrics.membership_config.membership().get_node(&node).is_some()
    }

    /// The sender named in a message is the node of the certificate.
    fn prove(&self, from: NodeId, caller: Option<&Caller>) -> Result<(), Status> {
        if !self.must_prove {
            return Ok(());
        }
        let Some(Caller::Proven { identity, held }) = caller else {
            return Err(Status::unauthenticated("a call between nodes needs a node's certificate"));
        };
        let joined = self.raft.metrics().borrow_watched().membership_config.membership().get_node(&from).cloned();
        let name = self.members.get(&from).cloned().or(joined.map(|node| node.name));
        if name.is_some() && name == held.node {
            return Ok(());
        }
        let name = name.map(|name| name.0).unwrap_or_default();
        let text = format!(
            "header.from: node {from} is {name}, but the caller's certificate is {identity} ({}); give each node its own \
             certificate",
            held.in_words()
        );
        tracing::warn!("refused a call between nodes: {text}");
        Err(Status::permission_denied(text))
    }

    fn reply<T: serde::Serialize>(&self, answer: &T) -> Result<Response<PeerReply>, Status> {
        self.still_counts()?;
        let (payload, store) = (wire::encode(answer)?, self.store.id().to_owned());
        Ok(Response::new(PeerReply { payload, store, reached: wire::reached(&self.store) }))
    }
}

fn revoked(error: &StoreError) -> Status {
    Status::failed_precondition(format!("this node takes no part: {error}"))
}

fn stopped(error: &impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this node has stopped: {error}"))
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn append(&self, request: Request<PeerRequest>) -> Result<Response<PeerReply>, Status> {
        let (from, message) = self.check(request).await?;
        let request = wire::read_append(from, &message.payload)?;
        let answer = self.raft.append_entries(request).await.map_err(|error| stopped(&error))?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.contact.heard(message.quorum_age_ms.map(Duration::from_millis));
        }
        self.reply(&answer)
    }

    async fn vote(&self, request: Request<PeerRequest>) -> Result<Response<PeerReply>, Status> {
        let (from, message) = self.check(request).await?;
        let request = wire::read_vote(from, &message.payload)?;
        self.reply(&self.raft.vote(request).await.map_err(|error| stopped(&error))?)
    }

    async fn pre_vote(&self, request: Request<PeerRequest>) -> Result<Response<PeerReply>, Status> {
        let (from, message) = self.check(request).await?;
        let request = wire::read_vote(from, &message.payload)?;
        self.reply(&self.raft.pre_vote(request).await.map_err(|error| stopped(&error))?)
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<PeerReply>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let mut chunks = request.into_inner();
        let first = next(&mut chunks).await?.ok_or_else(|| Status::invalid_argument("begin: missing"))?;
        let from = self.caller(first.header, caller.as_ref()).await?;
        let (begin, expected) = wire::read_begin(from, &first.begin)?;
        let mut data = Vec::new();
        while let Some(chunk) = next(&mut chunks).await? {
            if data.len() + chunk.data.len() > expected {
                return Err(Status::invalid_argument(format!("data: more than the announced {expected} bytes")));
            }
            data.extend_from_slice(&chunk.data);
        }
        wire::check_data(&begin, &data)?;
        let snapshot = Snapshot { meta: begin.meta, snapshot: data };
        let answer = self.raft.install_full_snapshot(begin.vote, snapshot).await.map_err(|error| stopped(&error))?;
        self.reply(&answer)
    }

    async fn transfer_leader(&self, request: Request<PeerRequest>) -> Result<Response<PeerReply>, Status> {
        let (from, message) = self.check(request).await?;
        let request = wire::read_transfer(from, &message.payload)?;
        let answer = self.raft.handle_transfer_leader(request).await.map_err(|error| stopped(&error))?;
        self.reply(&answer)
    }

    async fn push_report(&self, request: Request<PeerRequest>) -> Result<Response<PeerReply>, Status> {
        let (from, message) = self.check(request).await?;
        let report = wire::read_report(from, &message.payload)?;
        self.reports.try_send(report).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Status::resource_exhausted("too many reports wait to be taken"),
            mpsc::error::TrySendError::Closed(_) => Status::unavailable("nobody takes reports here any more"),
        })?;
        self.reply(&())
    }

    async fn note(&self, request: Request<PeerRequest>) -> Result<Response<PeerReply>, Status> {
        let (from, message) = self.check(request).await?;
        for note in wire::read_notes(from, &message.payload)? {
            let note = Sealed::new(note).map_err(|error| Status::internal(format!("not entered: {error}")))?;
            match timeout(NOTE_TIMEOUT, self.raft.client_write(note)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Status::unavailable(format!("not entered: {error}"))),
                Err(_) => return Err(Status::deadline_exceeded("no majority confirmed it in time")),
            }
        }
        self.reply(&())
    }

    async fn ping(&self, request: Request<PeerRequest>) -> Result<Response<PingReply>, Status> {
        self.check(request).await?;
        if let Some(reason) = stop_reason(&self.raft) {
            return Err(stopped(&reason));
        }
        let formed = self.raft.is_initialized().await.map_err(|error| stopped(&error))?;
        let quorum = has_quorum(&self.raft, &self.contact, self.quorum_limit);
        let metrics = self.raft.metrics().borrow_watched().clone();
        let leader = metrics.current_leader.map_or(0, |leader| leader.0);
        Ok(Response::new(PingReply {
            node: self.identity.node.0,
            term: metrics.current_term,
            leader,
            formed,
            quorum,
            store: self.store.id().to_owned(),
            reached: wire::reached(&self.store),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }
}

async fn next(chunks: &mut Streaming<SnapshotChunk>) -> Result<Option<SnapshotChunk>, Status> {
    timeout(CHUNK_TIMEOUT, chunks.message())
        .await
        .map_err(|_| Status::deadline_exceeded("data: the next message of the snapshot did not come"))?
}
