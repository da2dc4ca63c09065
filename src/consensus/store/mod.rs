//! The log, the vote and the snapshot, in one redb file: fsynced, and checked by our own checksums.
//!
//! Everything is read and verified once, when the store is opened, and kept in memory; the log is bounded by snapshots.
//! From then on the file is only written (and the snapshot read back, verified again).

mod error;
mod log_storage;
mod mark;
mod open;
mod past;
mod record;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};

pub use error::StoreError;
pub use past::Reached;

pub(super) use past::Contradiction;

use super::types::{Entry, LogId, SnapshotMeta, Vote};
use crate::domain::ids::NodeId;
use past::{Judged, Start};
use writer::Request;

/// The store's name in a node's data folder.
pub const STORE_FILE: &str = "consensus.redb";
/// The name of the mark beside it.
pub const MARK_FILE: &str = "consensus.mark";

/// What is heard of how far others came is written so long after it was heard, all at once.
const HEARD_AFTER: Duration = Duration::from_secs(1);

/// A node's durable part of the consensus. Clones share it.
#[derive(Clone)]
pub struct Store {
    id: Arc<str>,
    node: NodeId,
    /// How far it has come on the disk.
    position: Arc<AtomicU64>,
    /// Its own starts; the last is this one.
    starts: Arc<[Start]>,
    /// There is something to write about how far others came.
    heard: Arc<Notify>,
    /// Why this store may not be used any more.
    revoked: Arc<watch::Sender<Option<StoreError>>>,
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
    /// How far the others' stores are known to have come.
    reached: BTreeMap<NodeId, Reached>,
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
        self.ask(|done| Request::Note { key: writer::PEERS, payload, done }).await?;
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

    /// Every number that is or was a member's, as far as this node has seen.
    pub(super) fn used_numbers(&self) -> BTreeSet<NodeId> {
        self.cache().members.clone()
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
        self.ask(|done| Request::Note { key: writer::MEMBERS, payload, done }).await
    }

    /// How far this store has come, and the others' as far as this node knows; its own is the first.
    pub(super) fn reached(&self) -> Vec<Reached> {
        // Read before the lock, so that it is never more than what is on the disk.
        let position = self.position.load(Ordering::Acquire);
        let own = self.starts.last().map(|start| Reached {
            node: self.node,
            start: start.id.clone(),
            began: start.began,
            position,
        });
        own.into_iter().chain(self.cache().reached.values().cloned()).collect()
    }

    /// Takes what `from` told about how far it came itself, and what it heard of others. Refused where that shows that
    /// either of the two went back in time; this one is then revoked, for good.
    pub(super) async fn meet(&self, from: NodeId, told: &[Reached]) -> Result<(), Contradiction> {
        self.judge_own(told).await?;
        let mut cache = self.cache();
        let reached = &mut cache.reached;
        let mut is_new = false;
        // The one that speaks first: of one that went back nothing is taken.
        for said in told.iter().filter(|said| said.node == from).chain(told.iter().filter(|said| said.node != from)) {
            let known = reached.get(&said.node);
            if said.node == self.node || (known.is_none() && said.node != from && !past::has_room(reached.len())) {
                continue;
            }
            match past::judge(known, said) {
                Judged::Known => {}
                Judged::Further => {
                    reached.insert(said.node, said.clone());
                    is_new = true;
                }
                Judged::Backwards => {
                    if let Some(known) = known.filter(|_| said.node == from) {
                        return Err(Contradiction::Theirs { said: said.clone(), known: known.clone() });
                    }
                }
            }
        }
        if is_new {
            self.heard.notify_one();
        }
        Ok(())
    }

    /// Revokes this store where others know that it had come further than it knows itself.
    pub(super) async fn judge_own(&self, told: &[Reached]) -> Result<(), StoreError> {
        if let Some(error) = self.revoked() {
            return Err(error);
        }
        let position = self.position.load(Ordering::Acquire);
        let own = told.iter().filter(|said| said.node == self.node);
        let Some(detail) = own.filter_map(|said| past::judge_own(&self.starts, position, said).err()).next() else {
            return Ok(());
        };
        let error = StoreError::WentBack { file: self.file.to_path_buf(), detail: detail.clone() };
        tracing::error!(%error, "this node takes no further part");
        // At once: from here on nothing is answered and nothing counted. Then for good.
        self.revoked.send_replace(Some(error.clone()));
        let payload = record::to_json(&self.file, &detail)?;
        self.ask(|done| Request::Note { key: writer::REVOKED, payload, done }).await?;
        Err(error)
    }

    /// Why it may not be used any more.
    pub(super) fn revoked(&self) -> Option<StoreError> {
        self.revoked.borrow().clone()
    }

    /// To wait until it may not be used any more.
    pub(super) fn watch_revoked(&self) -> watch::Receiver<Option<StoreError>> {
        self.revoked.subscribe()
    }

    /// Writes how far others are known to have come.
    pub(super) async fn write_reached(&self) -> Result<(), StoreError> {
        let payload = record::to_json(&self.file, &self.cache().reached)?;
        self.ask(|done| Request::Note { key: writer::REACHED, payload, done }).await
    }

    /// Writes how far others came, a little after it was heard, until the store takes no more.
    pub(super) async fn keep_reached(self) {
        loop {
            self.heard.notified().await;
            tokio::time::sleep(HEARD_AFTER).await;
            if let Err(error) = self.write_reached().await {
                tracing::debug!(%error, "it is no longer written how far others came");
                return;
            }
        }
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
