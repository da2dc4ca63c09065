//! Carries calls that this node refused to the leader, for the replicated audit (P10).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::refusals::Refusals;
use crate::consensus::Consensus;
use crate::domain::command::Command;

/// One attempt takes no longer than this.
const ATTEMPT: Duration = Duration::from_secs(3);
/// An election, and a while: without a leader for longer, they stay in the node's own log.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(500);

/// Until dropped.
pub async fn carry(refusals: Arc<Refusals>, consensus: Consensus) {
    loop {
        let notes = refusals.next().await;
        if let Err(why) = deliver(&consensus, &notes).await {
            let count = notes.len();
            tracing::warn!(count, why, "refused calls are in this node's own log only, not in the audit");
        }
    }
}

/// Each has an id of its own: what is written twice is entered once.
async fn deliver(consensus: &Consensus, notes: &[Command]) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let leader = consensus.leadership().borrow().leader;
        let why = match leader {
            Some(leader) => match consensus.note(leader, notes, ATTEMPT).await {
                Ok(()) => return Ok(()),
                Err(why) => why,
            },
            None => "there is no leader".to_owned(),
        };
        if Instant::now() >= until {
            return Err(why);
        }
        sleep(AGAIN).await;
    }
}
