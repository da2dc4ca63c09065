//! Locks between guard processes: `flock` on a file. The kernel releases them with the process, and Rust opens files so
//! that children do not inherit them: a daemon started by an action cannot keep the lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::host::{boottime_ms, pause};
use super::records::RecordError;

/// A lock held until dropped.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held for its lock, released when dropped")] File);

fn open(path: &Path) -> Result<File, RecordError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(RecordError::io(path, "open the lock"))
}

/// Takes the lock, waiting for it until `until_boottime_ms`. `None`: somebody else held it all that time.
///
/// # Errors
/// The lock's file could not be opened or locked.
pub fn take(path: &Path, until_boottime_ms: u64) -> Result<Option<Held>, RecordError> {
    let file = open(path)?;
    let mut wait_ms = 1;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Held(file))),
            Err(TryLockError::WouldBlock) if boottime_ms() >= until_boottime_ms => return Ok(None),
            Err(TryLockError::WouldBlock) => pause(wait_ms),
            Err(TryLockError::Error(e)) => return Err(RecordError::io(path, "lock")(e)),
        }
        wait_ms = (wait_ms * 2).min(8);
    }
}

/// Somebody holds the lock now. Looks by a shared lock, so that those who look do not see one another.
///
/// # Errors
/// The lock's file could not be opened.
pub fn is_held(path: &Path) -> Result<bool, RecordError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(RecordError::io(path, "open the lock")(e)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(RecordError::io(path, "look at the lock")(e)),
    }
}
