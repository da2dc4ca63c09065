//! Keeps a node's audit files up with the replicated state, beside everything else: nothing waits for them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::audit_files::{AuditError, AuditFiles};
use crate::domain::state::ClusterState;

/// What comes within this is written and synced at once: until then the replicated state has it.
const GATHER: Duration = Duration::from_millis(300);
/// After a failure it is tried again so soon.
const AGAIN: Duration = Duration::from_secs(5);
/// Old months are looked for so often.
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);

/// What keeps the audit from the disk, for as long as it does.
#[derive(Debug, Default)]
pub struct AuditTrouble(Mutex<Option<String>>);

impl AuditTrouble {
    /// For the status.
    pub fn warning(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Told once when it begins, and once when it is over.
    fn set(&self, trouble: Option<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*known, &trouble) {
            (_, Some(trouble)) if known.as_ref() != Some(trouble) => tracing::error!("{trouble}"),
            (Some(_), None) => tracing::info!("the audit is written to its files again"),
            _ => {}
        }
        *known = trouble;
    }
}

/// Writes the audit to files in `folder` until dropped; months that ended longer ago than `retention` are deleted.
pub async fn keep_files(
    mut state: watch::Receiver<Arc<ClusterState>>,
    folder: PathBuf,
    retention: Duration,
    trouble: Arc<AuditTrouble>,
) {
    let mut files = AuditFiles::new(&folder);
    let mut expired_at: Option<Instant> = None;
    loop {
        let now = state.borrow_and_update().clone();
        let is_due = expired_at.is_none_or(|at| at.elapsed() >= EXPIRE_EVERY);
        // A disk that hangs holds up this task alone.
        let worked = tokio::task::spawn_blocking(move || {
            let taken = work(&mut files, &now, is_due.then_some(retention));
            (files, taken)
        });
        let taken = match worked.await {
            Ok((back, taken)) => {
                files = back;
                taken.map_err(|error| format!("audit: {error}"))
            }
            Err(error) => {
                files = AuditFiles::new(&folder);
                Err(format!("audit: {error}"))
            }
        };
        let failed = taken.is_err();
        if is_due && !failed {
            expired_at = Some(Instant::now());
        }
        trouble.set(taken.err());
        if failed {
            sleep(AGAIN).await;
        } else if let Ok(Err(_)) = timeout(EXPIRE_EVERY, state.changed()).await {
            return;
        } else {
            sleep(GATHER).await;
        }
    }
}

fn work(files: &mut AuditFiles, state: &ClusterState, retention: Option<Duration>) -> Result<(), AuditError> {
    let written = files.take(state)?;
    tracing::trace!(written, "audit");
    if let (Some(retention), Some(newest)) = (retention, state.audit.back()) {
        for path in files.expire(retention, SystemTime::now(), newest.at)? {
            tracing::info!(path = %path.display(), "deleted a month of the audit: older than [audit] retention_days");
        }
    }
    Ok(())
}
