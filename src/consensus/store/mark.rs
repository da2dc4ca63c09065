//! The mark beside the store: which generation it had reached. A store that is gone, empty, or older than its mark has
//! lost what this node promised to its peers, which redb alone cannot tell from a new one.
//!
//! The mark is written after every commit, without a sync of its own: after a power loss it may lag, and that is harmless,
//! since only a store *behind* its mark is refused.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// Fixed, so that writing never allocates: a full disk cannot tear it.
const LENGTH: usize = 64;

#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: File,
}

impl Mark {
    /// The generation in the mark at `path`; `None` where there is no mark.
    pub(super) fn read(path: &Path) -> Result<Option<u64>, StoreError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::open(path, error)),
        };
        match decode(&bytes) {
            Some(generation) => Ok(Some(generation)),
            None => Err(StoreError::corrupt(path, "file", "mark", "it is not what was written")),
        }
    }

    /// Opens the mark for writing, creates it where it is missing, and makes it durable.
    pub(super) fn open(path: &Path, generation: u64) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::open(path, error);
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
        let mark = Self { path: path.to_owned(), file };
        mark.write(generation)?;
        mark.file.sync_all().map_err(failed)?;
        if let Some(folder) = path.parent() {
            File::open(folder).and_then(|opened| opened.sync_all()).map_err(failed)?;
        }
        Ok(mark)
    }

    /// Records that the store has reached `generation`.
    pub(super) fn write(&self, generation: u64) -> Result<(), StoreError> {
        self.file.write_all_at(&encode(generation), 0).map_err(|error| StoreError::write(&self.path, error))
    }
}

fn encode(generation: u64) -> [u8; LENGTH] {
    let body = format!("watchdog store generation {generation:020}");
    let text = format!("{body} {:08x}", crc32c::crc32c(body.as_bytes()));
    let mut bytes = [b'\n'; LENGTH];
    for (to, from) in bytes.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let generation = text.strip_prefix("watchdog store generation ")?.get(..20)?.parse().ok()?;
    (encode(generation) == bytes).then_some(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_read() {
        for generation in [0, 1, u64::MAX] {
            let written = encode(generation);
            assert_eq!(decode(&written), Some(generation));
            for at in 0..LENGTH {
                let mut bad = written;
                bad[at] ^= 1;
                assert_eq!(decode(&bad), None, "byte {at}");
                assert_eq!(decode(&written[..at]), None, "cut to {at}");
            }
        }
    }
}
