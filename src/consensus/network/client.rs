//! openraft's calls to the other nodes. Every failure is `Unreachable`, so that openraft backs off instead of calling
//! again at once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use tonic::Status;

use super::peers::Peers;
use super::wire::{self, CHUNK_BYTES, SnapshotBegin};
use crate::consensus::handle::quorum_age;
use crate::consensus::types::{Node, Raft, Snapshot, TypeConfig, Vote};
use crate::domain::ids::NodeId;
use crate::proto::{PeerReply, PeerRequest, SnapshotChunk};

/// Makes a client for each member.
pub(crate) struct NetworkFactory {
    pub(crate) peers: Arc<Peers>,
    /// Set once Raft runs: appends tell followers how long ago a quorum answered.
    pub(crate) raft: Arc<OnceLock<Raft>>,
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &Node) -> Client {
        Client { peers: self.peers.clone(), raft: self.raft.clone(), target, address: node.address.clone() }
    }
}

/// A client of one member.
pub(crate) struct Client {
    peers: Arc<Peers>,
    raft: Arc<OnceLock<Raft>>,
    target: NodeId,
    address: String,
}

/// Which method is called.
#[derive(Clone, Copy)]
enum Method {
    Append,
    Vote,
    PreVote,
    TransferLeader,
}

impl Client {
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        payload: Result<Vec<u8>, Status>,
        wait: Duration,
    ) -> Result<T, Unreachable<TypeConfig>> {
        let payload = payload.map_err(|status| Unreachable::new(&status))?;
        let quorum_age_ms = match method {
            Method::Append => {
                self.raft.get().and_then(quorum_age).map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
            }
            _ => None,
        };
        let header = Some(self.peers.header(self.target));
        let request = PeerRequest { header, payload, quorum_age_ms };
        let mut client = self.peers.client(self.target, &self.address).map_err(|error| Unreachable::new(&error))?;
        let call = async {
            match method {
                Method::Append => client.append(request).await,
                Method::Vote => client.vote(request).await,
                Method::PreVote => client.pre_vote(request).await,
                Method::TransferLeader => client.transfer_leader(request).await,
            }
        };
        let reply = self.peers.within(self.target, &self.address, wait, call).await;
        let reply: PeerReply = reply.map_err(|error| {
            tracing::debug!(%error, "call between nodes failed");
            Unreachable::new(&error)
        })?;
        self.decode(&reply).await
    }

    async fn decode<T: DeserializeOwned>(&self, reply: &PeerReply) -> Result<T, Unreachable<TypeConfig>> {
        let known = self.peers.recognise(self.target, &self.address, &reply.store, &reply.reached).await;
        known.map_err(|error| Unreachable::new(&error))?;
        wire::decode(&reply.payload).map_err(|status| Unreachable::new(&status))
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        wait: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, Unreachable<TypeConfig>> {
        let data = snapshot.snapshot;
        let begin =
            SnapshotBegin { vote, meta: snapshot.meta, bytes: data.len() as u64, crc32c: crc32c::crc32c(&data) };
        let begin = wire::encode(&begin).map_err(|status| Unreachable::new(&status))?;
        let header = self.peers.header(self.target);
        let first = SnapshotChunk { header: Some(header), begin, data: Vec::new() };
        let count = data.len().div_ceil(CHUNK_BYTES);
        let rest = (0..count).map(move |at| {
            let end = data.len().min((at + 1) * CHUNK_BYTES);
            SnapshotChunk { header: None, begin: Vec::new(), data: data[at * CHUNK_BYTES..end].to_vec() }
        });
        let mut client = self.peers.client(self.target, &self.address).map_err(|error| Unreachable::new(&error))?;
        let call = client.snapshot(futures::stream::iter(std::iter::once(first).chain(rest)));
        let reply = self.peers.within(self.target, &self.address, wait, call).await;
        let reply = reply.map_err(|error| {
            tracing::warn!(%error, "a snapshot was not taken");
            Unreachable::new(&error)
        })?;
        self.decode(&reply).await
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(Method::Append, wire::encode(&request), option.soft_ttl()).await?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(Method::Vote, wire::encode(&request), option.soft_ttl()).await?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(Method::PreVote, wire::encode(&request), option.soft_ttl()).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = self.send_snapshot(vote, snapshot, option.soft_ttl()) => Ok(answer?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(Method::TransferLeader, wire::encode(&request), option.soft_ttl()).await?)
    }
}
