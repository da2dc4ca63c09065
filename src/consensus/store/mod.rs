//! The log, the vote and the snapshot, in one redb file: fsynced, and checked by our own checksums.
//!
//! Everything is read and verified once, when the store is opened, and kept in memory; the log is bounded by snapshots.
//! From then on the file is only written (and the snapshot read back, verified again).

mod error;
mod log_storage;
mod mark;
mod open;
mod record;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

pub use error::StoreError;

use super::types::{Entry, LogId, SnapshotMeta, Vote};
use crate::domain::ids::NodeId;
use writer::Request;

/// The store's name in a node's data folder.
pub const STORE_FILE: &str = "consensus.redb";
/// The name of the mark beside it.
pub const MARK_FILE: &str = "consensus.mark";

/// A node's durable part of the consensus. Clones share it.
#[derive(Clone)]
pub struct Store {
    id: Arc<str>,
    file: Arc<PathBuf>,
    cache: Arc<Mutex<Cache>>,
    requests: mpsc::Sender<Request>,
}

/// An entry and the size of its JSON, so that what is sent can be bounded.
struct Cached {
    entry: Entry,
    bytes: usize,
}

#[derive(Default)]
struct Cache {
    log: BTreeMap<u64, Cached>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// The store that each peer was first seen with.
    peers: BTreeMap<NodeId, String>,
    /// Every number that was ever a member's.
    members: BTreeSet<NodeId>,
}

impl Store {
    /// The store's file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Given to it when it was created: an emptied or replaced folder has another.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether this is the store that `peer` was first seen with; that one is remembered, durably.
    pub(super) async fn recognise(&self, peer: NodeId, store: &str) -> Result<bool, StoreError> {
        if let Some(known) = self.cache().peers.get(&peer) {
            return Ok(known == store);
        }
        let payload = {
            let mut cache = self.cache();
            // Somebody may have been quicker: the first one holds.
            if cache.peers.entry(peer).or_insert_with(|| store.to_owned()) != store {
                return Ok(false);
            }
            record::to_json(&self.file, &cache.peers)?
        };
        self.ask(|done| Request::Peers { payload, done }).await?;
        Ok(true)
    }

    /// The store that `peer` was first seen with.
    pub(super) fn known_store(&self, peer: NodeId) -> Option<String> {
        self.cache().peers.get(&peer).cloned()
    }

    /// A node of this number is or was a member, as far as this node has seen.
    pub(super) fn was_member(&self, node: NodeId) -> bool {
        self.cache().members.contains(&node)
    }

    /// Remembers for good that these numbers were used.
    pub(super) async fn note_members(&self, nodes: impl Iterator<Item = NodeId>) -> Result<(), StoreError> {
        let payload = {
            let mut cache = self.cache();
            let before = cache.members.len();
            cache.members.extend(nodes);
            if cache.members.len() == before {
                return Ok(());
            }
            record::to_json(&self.file, &cache.members)?
        };
        self.ask(|done| Request::Members { payload, done }).await
    }

    /// Nothing was ever voted, logged or received.
    pub fn is_pristine(&self) -> bool {
        let cache = self.cache();
        cache.log.is_empty() && cache.vote.is_none() && cache.purged.is_none()
    }

    /// Writes what is queued, closes the file and releases its lock. Later calls fail.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ask(|done| Request::Close { done }).await
    }

    /// Saves a snapshot; durable on return.
    pub(super) async fn save_snapshot(&self, meta: &SnapshotMeta, data: Vec<u8>) -> Result<(), StoreError> {
        let meta = record::to_json(&self.file, meta)?;
        self.ask(|done| Request::Snapshot { meta, data, done }).await
    }

    /// The last snapshot, verified.
    pub(super) async fn read_snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StoreError> {
        let Some((meta, data)) = self.ask(|done| Request::ReadSnapshot { done }).await? else { return Ok(None) };
        let meta = record::from_json(&meta)
            .map_err(|detail| StoreError::corrupt(&self.file, "snapshot", writer::SNAPSHOT_META, detail))?;
        Ok(Some((meta, data)))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Nothing panics while it is held; and if it did, each change is a single insertion or removal.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> StoreError {
        StoreError::Closed { file: self.file.to_path_buf() }
    }

    async fn ask<T>(&self, request: impl FnOnce(writer::Reply<T>) -> Request) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        self.requests.send(request(done)).await.map_err(|_| self.closed())?;
        answer.await.map_err(|_| self.closed())?
    }
}
