//! What goes between nodes: who speaks to whom, and how payloads are written.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::consensus::store::Store;
use crate::consensus::types::{Identity, SnapshotMeta, Vote};
use crate::domain::ids::NodeId;
use crate::proto::Header;

/// The data of one message of a snapshot.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// What precedes a snapshot's data.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SnapshotBegin {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
}

/// The header of a call from this node to `to`.
pub(super) fn header(identity: &Identity, store: &Store, to: NodeId) -> Header {
    Header {
        cluster: identity.cluster.0.clone(),
        epoch: identity.epoch,
        from: identity.node.0,
        to: to.0,
        store: store.id().to_owned(),
        to_store: store.known_store(to).unwrap_or_default(),
    }
}

/// The caller, once its header is as it should be.
pub(super) fn check(own: &Identity, own_store: &str, header: &Header) -> Result<NodeId, Status> {
    let from = NodeId(header.from);
    let refuse = |text: String| {
        tracing::warn!(%from, "refused a call between nodes: {text}");
        Status::failed_precondition(text)
    };
    if header.cluster != own.cluster.0 {
        return Err(refuse(format!(
            "header.cluster: node {from} is of cluster {:?}, node {} of cluster {:?}; correct the addresses",
            header.cluster, own.node, own.cluster.0
        )));
    }
    if header.epoch != own.epoch {
        return Err(refuse(format!(
            "header.epoch: node {from} is of epoch {}, node {} of epoch {}; give both the same configuration",
            header.epoch, own.node, own.epoch
        )));
    }
    if header.to != own.node.0 {
        return Err(refuse(format!(
            "header.to: node {from} means to call node {}, but this is node {}; correct the addresses",
            header.to, own.node
        )));
    }
    if from == own.node {
        return Err(refuse(format!(
            "header.from: node {from} calls itself; two nodes run under the same id, or an address points to its own node"
        )));
    }
    if header.store.is_empty() {
        return Err(refuse(format!("header.store: missing in the call of node {from}")));
    }
    if !header.to_store.is_empty() && header.to_store != own_store {
        return Err(refuse(format!("header.to_store: to node {from}, {}", other_store(own.node))));
    }
    Ok(from)
}

/// What is said of a node that presents another store than before.
pub(super) fn other_store(node: NodeId) -> String {
    format!(
        "node {node} presents another store than before: its folder was emptied or replaced, and with it what it had \
         promised, or two nodes run under this id; remove it from the cluster and add it again under a new id"
    )
}

/// Nobody speaks with another's vote.
pub(super) fn check_vote(from: NodeId, vote: &Vote) -> Result<(), Status> {
    let voted_for = vote.leader_id.voted_for;
    if voted_for == from {
        return Ok(());
    }
    let text = format!("payload.vote: node {from} speaks for node {voted_for}");
    tracing::warn!("refused a call between nodes: {text}");
    Err(Status::invalid_argument(text))
}

/// A payload as JSON.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(value).map_err(|error| Status::internal(format!("payload: cannot be written as JSON: {error}")))
}

/// A payload from JSON.
pub(super) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(payload)
        .map_err(|error| Status::invalid_argument(format!("payload: not understood by this version: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn a_header_of_somebody_else_is_refused_by_name() {
        let own = Identity { cluster: "demo".into(), epoch: 2, node: NodeId(1) };
        let good = Header {
            cluster: "demo".to_owned(),
            epoch: 2,
            from: 3,
            to: 1,
            store: "s".to_owned(),
            to_store: "own".to_owned(),
        };
        assert_eq!(check(&own, "own", &good).unwrap(), NodeId(3));
        let bad = [
            ("header.cluster", Header { cluster: "other".to_owned(), ..good.clone() }),
            ("header.epoch", Header { epoch: 1, ..good.clone() }),
            ("header.to", Header { to: 2, ..good.clone() }),
            ("header.from", Header { from: 1, ..good.clone() }),
            ("header.store", Header { store: String::new(), ..good.clone() }),
            ("header.to_store", Header { to_store: "lost".to_owned(), ..good }),
        ];
        for (field, header) in bad {
            let status = check(&own, "own", &header).unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition, "{field}");
            assert!(status.message().starts_with(field), "{status}");
        }
    }
}
