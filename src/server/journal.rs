//! The coordinator's view of Raft.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::consensus::{ConfirmError, Consensus, ProposeError};
use crate::coordinator::{Journal, JournalError, Leadership};
use crate::domain::command::{Applied, Command};
use crate::domain::ids::NodeId;
use crate::domain::state::ClusterState;

/// A command that is not applied within this is of unknown outcome.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// A quorum round takes no longer than this, or fails.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// A transfer of leadership, likewise.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);

/// [`Journal`] over the consensus handle.
pub struct RaftJournal {
    consensus: Consensus,
    leadership: watch::Receiver<Leadership>,
    task: tokio::task::JoinHandle<()>,
}

impl RaftJournal {
    /// Starts translating leadership.
    pub fn start(consensus: Consensus) -> Self {
        let (publish, leadership) = watch::channel(Leadership::default());
        let task = tokio::spawn(translate(consensus.leadership(), publish));
        Self { consensus, leadership, task }
    }
}

impl Drop for RaftJournal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn translate(mut raft: watch::Receiver<crate::consensus::Leadership>, publish: watch::Sender<Leadership>) {
    loop {
        let now = raft.borrow_and_update().clone();
        let voters = now.voters.keys().copied().collect();
        let next = Leadership { leads: now.is_self && now.stopped.is_none(), term: now.term, voters };
        publish.send_if_modified(|current| {
            let changed = *current != next;
            *current = next;
            changed
        });
        if raft.changed().await.is_err() {
            return;
        }
    }
}

#[async_trait]
impl Journal for RaftJournal {
    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.consensus.state()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    async fn propose(&self, command: Command) -> Result<Applied, JournalError> {
        // In the term in which it was decided: a command never slips into another leadership of this node.
        let term = self.leadership.borrow().term;
        self.consensus.propose_in_term(term, command, PROPOSE_TIMEOUT).await.map_err(|error| match error {
            ProposeError::NotLeader(_) => JournalError::NotLeader,
            ProposeError::Unknown { reason } => JournalError::Unknown(reason),
            other => JournalError::Unavailable(other.to_string()),
        })
    }

    async fn confirm(&self) -> Result<(), JournalError> {
        match self.consensus.confirm_leadership(CONFIRM_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err(ConfirmError::NotLeader(_)) => Err(JournalError::NotLeader),
            Err(other) => Err(JournalError::Unavailable(other.to_string())),
        }
    }

    async fn transfer(&self, to: NodeId) -> Result<(), JournalError> {
        let transferred = self.consensus.transfer_leadership(to, TRANSFER_TIMEOUT).await;
        transferred.map_err(|error| JournalError::Unavailable(error.to_string()))
    }
}
