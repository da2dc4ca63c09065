//! One changes a gate at a time, and nobody waits for ever for one that is frozen.

use std::fs::File;
use std::io;

use rustix::fs::{FlockOperation, flock};

use super::super::host::{boottime_ms, pause};

/// A change takes some 10 ms; who holds the lock for longer is frozen, milliseconds.
const WAIT_MS: u64 = 2000;

/// Held until dropped; the kernel lets go of a dead process's.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Locks what an open file stands for.
    ///
    /// # Errors
    /// Somebody else holds it and does not let go.
    pub(super) fn take(file: File) -> io::Result<Self> {
        let until = boottime_ms() + WAIT_MS;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(rustix::io::Errno::WOULDBLOCK) if boottime_ms() < until => pause(2),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let why =
                        format!("another guard has been changing it for {WAIT_MS} ms: look for one that is stopped");
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It ends with the last descriptor at the latest.
        let _held = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_holds_it_is_not_waited_for_for_ever() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let open = || File::open(file.path()).expect("open");
        let held = Lock::take(open()).expect("free");
        assert_eq!(Lock::take(open()).expect_err("held").kind(), io::ErrorKind::WouldBlock);
        drop(held);
        Lock::take(open()).expect("free again");
    }
}
