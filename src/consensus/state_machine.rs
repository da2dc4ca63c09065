//! Applies committed commands to the replicated state, and publishes it. The state lives in memory; snapshots of it in
//! the store.

use std::io;
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;

use super::store::{Store, StoreError};
use super::types::{LogId, MAX_SNAPSHOT_BYTES, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::domain::command::Applied;
use crate::domain::state::ClusterState;
use crate::metrics::events;

/// The replicated state of one node.
pub struct StateMachine {
    store: Store,
    state: Arc<ClusterState>,
    applied: Option<LogId>,
    membership: StoredMembership,
    published: watch::Sender<Arc<ClusterState>>,
}

impl StateMachine {
    /// The state as of the store's last snapshot; what was committed since is applied again by Raft.
    pub async fn open(store: Store) -> Result<Self, StoreError> {
        let (published, _) = watch::channel(Arc::default());
        let mut machine = Self {
            store: store.clone(),
            state: Arc::default(),
            applied: None,
            membership: StoredMembership::default(),
            published,
        };
        if let Some((meta, data)) = store.read_snapshot().await? {
            let state = serde_json::from_slice(&data).map_err(|error| StoreError::Corrupt {
                file: store.file().to_owned(),
                table: "snapshot".to_owned(),
                key: "data".to_owned(),
                detail: format!("its JSON is not a state of this program's version: {error}"),
            })?;
            machine.replace(&meta, state);
        }
        Ok(machine)
    }

    /// The state, whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.published.subscribe()
    }

    fn replace(&mut self, meta: &SnapshotMeta, state: ClusterState) {
        self.state = Arc::new(state);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.published.send_replace(self.state.clone());
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        let result = loop {
            let (entry, responder) = match entries.try_next().await {
                Ok(Some(next)) => next,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let id = entry.log_id();
            let answer = match &entry.payload {
                // Copied at most once per batch: readers keep the state they saw.
                EntryPayload::Normal(sealed) => Arc::make_mut(&mut self.state).apply_sealed(id.index, sealed),
                EntryPayload::Membership(membership) => {
                    let ids = membership.nodes().map(|(id, _)| *id);
                    if let Err(error) = self.store.note_members(ids).await {
                        break Err(error.into());
                    }
                    self.membership = StoredMembership::new(Some(id), membership.clone());
                    Applied::Nothing
                }
                EntryPayload::Blank => Applied::Nothing,
            };
            self.applied = Some(id);
            if let Some(responder) = responder {
                // Only here: an entry that is applied again after a restart, or on every other node, is no second event.
                if let EntryPayload::Normal(sealed) = &entry.payload {
                    events::applied(&self.state, sealed.command(), &answer);
                }
                answers.push((responder, answer));
            }
        };
        // Published first: whoever proposed sees the effect as soon as the answer is there.
        if !Arc::ptr_eq(&self.published.borrow(), &self.state) {
            self.published.send_replace(self.state.clone());
        }
        for (responder, answer) in answers {
            responder.send(answer);
        }
        result
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            store: self.store.clone(),
            state: self.state.clone(),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> Result<(), io::Error> {
        let state = serde_json::from_slice(&data).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the leader's snapshot is not a state: {error}"))
        })?;
        self.store.note_members(meta.last_membership.membership().nodes().map(|(id, _)| *id)).await?;
        self.store.save_snapshot(meta, data).await?;
        self.replace(meta, state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let found = self.store.read_snapshot().await?;
        Ok(found.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Writes one state as a snapshot, while the state machine goes on.
pub struct SnapshotBuilder {
    store: Store,
    state: Arc<ClusterState>,
    meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let data = serde_json::to_vec(&*self.state).map_err(io::Error::other)?;
        if data.len() > MAX_SNAPSHOT_BYTES {
            let text = format!("the state is {} bytes of JSON, more than {MAX_SNAPSHOT_BYTES}", data.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        self.store.save_snapshot(&self.meta, data.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}
