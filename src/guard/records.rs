//! Small files that must never lie: one line each, `CRC32C JSON`. Written beside, synced, renamed, directory synced.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// No record file is longer, bytes.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No such file.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// There, but not as it was written.
    #[error("{} is damaged: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system said no.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

impl RecordError {
    pub(super) fn io(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> RecordError {
        move |source| match source.kind() {
            std::io::ErrorKind::NotFound => RecordError::Missing(path.to_path_buf()),
            _ => RecordError::Io { path: path.to_path_buf(), doing, source },
        }
    }
}

/// One value as a line with its checksum and newline.
pub fn seal<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_string(value).expect("plain data with text keys always has a JSON form");
    format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
}

/// The value of a line without its newline.
///
/// # Errors
/// What is wrong with it, in words.
pub fn unseal<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    let (sum, json) = line.split_once(' ').ok_or("no checksum")?;
    let sum_ok = sum.len() == 8 && u32::from_str_radix(sum, 16).is_ok_and(|sum| sum == crc32c::crc32c(json.as_bytes()));
    if !sum_ok {
        return Err(format!("its checksum {sum:?} is not that of its content"));
    }
    serde_json::from_str(json).map_err(|e| format!("its content is not of the known shape: {e}"))
}

/// Reads one record.
///
/// # Errors
/// Missing, damaged or unreadable.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    let file = File::open(path).map_err(RecordError::io(path, "open"))?;
    let damaged = |why: String| RecordError::Damaged { path: path.to_path_buf(), why };
    let mut text = String::new();
    match file.take(RECORD_BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Err(damaged("it is not text".into())),
        Err(e) => return Err(RecordError::io(path, "read")(e)),
    }
    let line = text.strip_suffix('\n').ok_or_else(|| damaged("it is cut short".into()))?;
    unseal(line).map_err(damaged)
}

/// Replaces a record so that after a crash there is the old one or the new one, and after return the new one.
///
/// # Errors
/// The step that failed, with the file.
pub fn write_durably<T: Serialize>(path: &Path, value: &T) -> Result<(), RecordError> {
    replace(path, value, true)
}

/// Replaces a record so that other processes see the old one or the new one. After a crash of the host there may be
/// neither.
///
/// # Errors
/// The step that failed, with the file.
pub fn write_quickly<T: Serialize>(path: &Path, value: &T) -> Result<(), RecordError> {
    replace(path, value, false)
}

fn replace<T: Serialize>(path: &Path, value: &T, durably: bool) -> Result<(), RecordError> {
    let beside = path.with_extension("new");
    let io = |doing| RecordError::io(path, doing);
    let mut file = File::create(&beside).map_err(io("create the new copy of"))?;
    file.write_all(seal(value).as_bytes()).map_err(io("write"))?;
    if durably {
        file.sync_all().map_err(io("sync"))?;
    }
    std::fs::rename(&beside, path).map_err(io("rename the new copy of"))?;
    if durably { sync_dir_of(path) } else { Ok(()) }
}

/// Makes a file's present content and name durable.
///
/// # Errors
/// The step that failed, with the file.
pub fn make_durable(path: &Path) -> Result<(), RecordError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(RecordError::io(path, "sync"))?;
    sync_dir_of(path)
}

/// Makes the names in a file's directory durable.
///
/// # Errors
/// With the directory.
pub fn sync_dir_of(path: &Path) -> Result<(), RecordError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(RecordError::io(dir, "sync the directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_any_flipped_bit_is_seen() {
        let dir = tempfile::tempdir().expect("temp folder");
        let path = dir.path().join("record.json");
        assert!(matches!(read::<Vec<u32>>(&path), Err(RecordError::Missing(_))));
        write_durably(&path, &vec![1u32, 22, 333]).expect("written");
        assert_eq!(read::<Vec<u32>>(&path).expect("read"), vec![1, 22, 333]);

        let good = std::fs::read(&path).expect("bytes");
        for byte in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                std::fs::write(&path, &bad).expect("written");
                // A letter's case in the checksum is the one change that changes nothing.
                if let Ok(value) = read::<Vec<u32>>(&path) {
                    assert!(byte < 8 && value == vec![1, 22, 333], "byte {byte} bit {bit}");
                }
            }
        }
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).expect("written");
            assert!(matches!(read::<Vec<u32>>(&path), Err(RecordError::Damaged { .. })), "cut to {length}");
        }
    }
}
