//! The token store: the highest token of a group this host has seen, durable before anything is done under it.
//!
//! A missing or damaged file is not zero: everything is refused until the group is enrolled again by name.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::records::{self, RecordError};
use crate::domain::ids::{ClusterName, GroupName, Token, UnixMs};

/// The files of one group under the guard's state directory.
#[derive(Debug, Clone)]
pub struct GroupFiles {
    dir: PathBuf,
}

impl GroupFiles {
    /// Those of `group`.
    pub fn new(state_dir: &Path, group: &GroupName) -> Self {
        Self { dir: state_dir.join(group.as_str()) }
    }
    /// The directory they lie in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The token store.
    pub fn token(&self) -> PathBuf {
        self.dir.join("token.json")
    }
    /// Held while the token is compared and raised, and while an action is entered as in flight.
    pub fn token_lock(&self) -> PathBuf {
        self.dir.join("token.lock")
    }
    /// Held while acting.
    pub fn action_lock(&self) -> PathBuf {
        self.dir.join("action.lock")
    }
    /// The latch.
    pub fn latch(&self) -> PathBuf {
        self.dir.join("latch.json")
    }
    /// The Redis server's own latch.
    pub fn redis_latch(&self) -> PathBuf {
        self.dir.join("redis-latch.json")
    }
    /// What was begun and how it ended.
    pub fn ledger(&self) -> PathBuf {
        self.dir.join("ledger.log")
    }
    /// What is at work.
    pub fn in_flight(&self) -> PathBuf {
        self.dir.join("in-flight.json")
    }
    /// The highest token that wants what is at work ended.
    pub fn preempt(&self) -> PathBuf {
        self.dir.join("preempt.json")
    }
    /// The promotion hold, if one was ever granted.
    pub fn hold(&self) -> PathBuf {
        self.dir.join("hold.json")
    }
    /// What the primary's guard must remember of its lease.
    pub fn lease(&self) -> PathBuf {
        self.dir.join("lease.json")
    }
    /// How the lease stands now.
    pub fn lease_now(&self) -> PathBuf {
        self.dir.join("lease-now.json")
    }
    /// Held by the resident guard.
    pub fn lease_lock(&self) -> PathBuf {
        self.dir.join("lease.lock")
    }
    /// An operator's word that the gate shall stand open.
    pub fn glass(&self) -> PathBuf {
        self.dir.join("break-glass.json")
    }
    /// What the last command printed.
    pub fn output(&self) -> PathBuf {
        self.dir.join("output.log")
    }
}

/// What the token store remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// The cluster it was enrolled with.
    pub cluster: ClusterName,
    /// That cluster's epoch.
    pub epoch: u64,
    /// The group.
    pub group: GroupName,
    /// The highest token seen.
    pub token: Token,
    /// When it was enrolled, for people.
    pub enrolled_at: UnixMs,
}

/// What comparing says, before anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Higher than the one held: must be written.
    Higher,
    /// The one held.
    Equal,
    /// Lower: refuse.
    Lower,
}

/// Compares an asked token with the one held.
pub fn compare(held: Token, asked: Token) -> Compared {
    match asked.cmp(&held) {
        std::cmp::Ordering::Greater => Compared::Higher,
        std::cmp::Ordering::Equal => Compared::Equal,
        std::cmp::Ordering::Less => Compared::Lower,
    }
}

/// Reads the store.
///
/// # Errors
/// Missing, damaged, of another group, or unreadable.
pub fn load(files: &GroupFiles, group: &GroupName) -> Result<TokenRecord, RecordError> {
    let path = files.token();
    let record: TokenRecord = records::read(&path)?;
    if &record.group != group {
        let why = format!("it belongs to group {:?}, not {group:?}", record.group.as_str());
        return Err(RecordError::Damaged { path, why });
    }
    Ok(record)
}

/// Makes `token` the one remembered, durably. The caller holds the token lock and has compared.
///
/// # Errors
/// The write failed: the old one may still be held.
pub fn remember(files: &GroupFiles, record: &TokenRecord, token: Token) -> Result<(), RecordError> {
    if record.token == token {
        // Written by a process that may have died before its directory was synced.
        return records::make_durable(&files.token());
    }
    records::write_durably(&files.token(), &TokenRecord { token, ..record.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_weighs_more_than_the_number() {
        let token = |epoch, n| Token { epoch, n };
        assert_eq!(compare(token(1, 5), token(1, 6)), Compared::Higher);
        assert_eq!(compare(token(1, 5), token(1, 5)), Compared::Equal);
        assert_eq!(compare(token(1, 5), token(1, 4)), Compared::Lower);
        assert_eq!(compare(token(2, 0), token(1, 99)), Compared::Lower);
        assert_eq!(compare(token(1, 99), token(2, 0)), Compared::Higher);
    }
}
