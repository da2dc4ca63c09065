//! A store with everything in it, copies of it, and what a damaged copy must be.

use std::fs;
use std::path::Path;

use openraft::entry::RaftEntry;
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::vote::RaftLeaderId;
use openraft::{LogId, RaftLogReader, Vote};
use tempfile::TempDir;
use watchdog::consensus::{MARK_FILE, STORE_FILE, StateMachine, Store, StoreError, TypeConfig};
use watchdog::domain::ids::NodeId;
use watchdog::domain::sealed::Sealed;
use watchdog::domain::state::ClusterState;

use crate::support::{identity, note};

pub type Entry = EntryOf<TypeConfig>;

pub fn leader(term: u64) -> LeaderId<u64, NodeId> {
    LeaderId::new(term, NodeId(1))
}

pub fn log_id(term: u64, index: u64) -> LogIdOf<TypeConfig> {
    LogId::new(leader(term).to_committed(), index)
}

pub fn entry(index: u64) -> Entry {
    let note = note(&format!("entry {index}, with some words to fill its page"));
    Entry::new_normal(log_id(2, index), Sealed::new(note).expect("a note is JSON"))
}

pub fn vote(term: u64) -> VoteOf<TypeConfig> {
    Vote::new_committed(term, NodeId(1))
}

/// Everything a store holds, as openraft sees it.
#[derive(Debug, PartialEq)]
pub struct Contents {
    pub vote: Option<VoteOf<TypeConfig>>,
    pub committed: Option<LogIdOf<TypeConfig>>,
    pub last: Option<LogIdOf<TypeConfig>>,
    pub purged: Option<LogIdOf<TypeConfig>>,
    pub log: Vec<Entry>,
    pub snapshot: Option<Vec<u8>>,
}

pub async fn contents(mut store: Store) -> Result<Contents, std::io::Error> {
    let state = store.get_log_state().await?;
    let mut machine = StateMachine::open(store.clone()).await?;
    Ok(Contents {
        vote: store.read_vote().await?,
        committed: store.read_committed().await?,
        last: state.last_log_id,
        purged: state.last_purged_log_id,
        log: store.try_get_log_entries(0..).await?,
        snapshot: machine.get_current_snapshot().await?.map(|found| found.snapshot),
    })
}

/// A store with a vote, a snapshot, a purged beginning and a log.
pub async fn filled(folder: &Path) -> Store {
    let mut store = Store::open(folder, &identity(1)).expect("a new store opens");
    store.save_vote(&vote(1)).await.expect("voted");
    store.blocking_append((0..40).map(entry)).await.expect("appended");
    let mut machine = StateMachine::open(store.clone()).await.expect("an empty state");
    machine.get_snapshot_builder().await.build_snapshot().await.expect("an empty snapshot");
    let meta = openraft::SnapshotMeta { last_log_id: Some(log_id(2, 9)), last_membership: Default::default() };
    let state = ClusterState { applied_index: 9, ..ClusterState::default() };
    let data = serde_json::to_vec(&state).expect("it is JSON");
    machine.install_snapshot(&meta, data).await.expect("installed");
    store.purge(log_id(2, 9)).await.expect("purged");
    store.save_committed(Some(log_id(2, 30))).await.expect("saved");
    store.save_vote(&vote(2)).await.expect("voted");
    store
}

pub fn copy(from: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in [STORE_FILE, MARK_FILE] {
        fs::copy(from.join(name), folder.path().join(name)).expect("copied");
    }
    folder
}

/// Opens a damaged copy: an error with the name of one of `files`, or exactly what was written.
pub async fn judge(folder: &Path, files: &[&str], written: &Contents, damage: &str) -> Result<(), StoreError> {
    let store = match Store::open(folder, &identity(1)) {
        Ok(store) => store,
        Err(error) => {
            let named = files.iter().any(|file| error.file() == folder.join(file) && error.to_string().contains(file));
            assert!(named, "{damage}: {error}");
            return Err(error);
        }
    };
    let found = contents(store.clone()).await.expect("what opened can be read");
    assert_eq!(&found, written, "{damage}: something was lost in silence");
    store.close().await.expect("closes");
    Ok(())
}
