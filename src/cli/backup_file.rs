//! A backup as a file: a line that says what it is, a line with the header, the state, and a checksum over all of it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::backups::{BACKUP_BYTES_MAX, sha256};
use crate::proto;

/// The first line; a later form has another number.
const MAGIC: &str = "watchdog backup 1";
/// Before the checksum.
const SUM: &str = "sha256:";
/// Header and checksum besides the state, bytes.
const AROUND_MAX: usize = 64 << 10;

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The cluster.
    pub cluster: String,
    /// Its epoch.
    pub epoch: u64,
    /// How far its log had come.
    pub applied_index: u64,
    /// The program that wrote it.
    pub version: String,
    /// When, by the leader's clock.
    pub taken_at_ms: i64,
    /// By whom.
    pub by: String,
    /// Of the state.
    pub bytes: u64,
    /// Of the same.
    pub sha256: String,
}

impl Header {
    /// From a node's.
    pub fn of(wire: &proto::BackupHeader) -> Self {
        let proto::BackupHeader { cluster, epoch, applied_index, version, taken_at_ms, by, bytes, sha256 } =
            wire.clone();
        Self { cluster, epoch, applied_index, version, taken_at_ms, by, bytes, sha256 }
    }

    /// For a node.
    pub fn to_wire(&self) -> proto::BackupHeader {
        let Self { cluster, epoch, applied_index, version, taken_at_ms, by, bytes, sha256 } = self.clone();
        proto::BackupHeader { cluster, epoch, applied_index, version, taken_at_ms, by, bytes, sha256 }
    }
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// What it is of.
    pub header: Header,
    /// The state, JSON.
    pub state: Vec<u8>,
}

/// As it is written.
pub fn encode(backup: &Backup) -> Result<Vec<u8>, String> {
    let header = serde_json::to_string(&backup.header).map_err(|error| format!("the header is no JSON: {error}"))?;
    let mut bytes = format!("{MAGIC}\n{header}\n").into_bytes();
    bytes.extend_from_slice(&backup.state);
    bytes.push(b'\n');
    let sum = sha256(&bytes);
    bytes.extend_from_slice(format!("{SUM}{sum}\n").as_bytes());
    Ok(bytes)
}

/// Of what is wrong with a header so much is told, characters.
const WORDS_MAX: usize = 300;

/// As it was written.
///
/// # Errors
/// What is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Backup, String> {
    let damaged = |what: &str| format!("it is damaged: {what}; take another backup file");
    let Some(rest) = bytes.strip_prefix(format!("{MAGIC}\n").as_bytes()) else {
        return Err(format!("it is no backup of this program: its first line is not {MAGIC:?}"));
    };
    let tail = SUM.len() + 64 + 1;
    let whole = bytes.len().checked_sub(tail).ok_or_else(|| damaged("its end is missing"))?;
    let sum = std::str::from_utf8(&bytes[whole..]).ok().and_then(|line| line.strip_prefix(SUM)?.strip_suffix('\n'));
    let sum = sum.ok_or_else(|| damaged("its end is missing"))?;
    if sha256(&bytes[..whole]) != sum {
        return Err(damaged("its checksum does not match"));
    }
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it has no header"))?;
    let header: Header =
        serde_json::from_slice(&rest[..end]).map_err(|error| format!("its header cannot be read: {}", cut(&error)))?;
    let from = MAGIC.len() + 1 + end + 1;
    let state = bytes.get(from..whole.saturating_sub(1)).ok_or_else(|| damaged("it has no state"))?.to_vec();
    if state.len() as u64 != header.bytes || sha256(&state) != header.sha256 {
        return Err(damaged("its state is not the one that its header describes"));
    }
    Ok(Backup { header, state })
}

/// The parser's words repeat what was read, however long.
fn cut(error: &serde_json::Error) -> String {
    error.to_string().chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

/// Before anything is asked of the cluster.
pub fn may_write(path: &Path, replace: bool) -> Result<(), String> {
    if !replace && path.exists() {
        return Err(format!("{} is there already: name another file, or --replace it", path.display()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(format!("{}: there is no folder {}", path.display(), folder.display()));
    }
    Ok(())
}

/// Whole, or not at all; nobody else may read it.
pub fn write(path: &Path, backup: &Backup, replace: bool) -> Result<(), String> {
    let bytes = encode(backup)?;
    let fresh = beside(path);
    let failed = |doing: &str, error: std::io::Error| format!("cannot {doing} {}: {error}", path.display());
    // Left by one that died: it was never whole.
    drop(fs::remove_file(&fresh));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(|error| failed("create the new copy of", error))?;
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    let named = written.map_err(|error| failed("write", error)).and_then(|()| {
        if replace {
            fs::rename(&fresh, path).map_err(|error| failed("name", error))
        } else {
            // Unlike a rename this replaces nothing.
            fs::hard_link(&fresh, path).map_err(|error| failed("name", error))
        }
    });
    drop(fs::remove_file(&fresh));
    named?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed("make durable", error))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

/// Reads and checks one.
pub fn read(path: &Path) -> Result<Backup, String> {
    let of_file = |what: String| format!("{}: {what}", path.display());
    let file = File::open(path).map_err(|error| of_file(error.to_string()))?;
    let most = BACKUP_BYTES_MAX + AROUND_MAX;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| of_file(error.to_string()))?;
    if bytes.len() > most {
        return Err(of_file(format!("it has more than {most} bytes, and no backup has")));
    }
    decode(&bytes).map_err(of_file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn backup() -> Backup {
        let state = br#"{"epoch":1,"cluster":"demo"}"#.to_vec();
        let header = Header {
            cluster: "demo".to_owned(),
            epoch: 1,
            applied_index: 7,
            version: "0.1.0".to_owned(),
            taken_at_ms: 1_795_231_050_123,
            by: "user:linh".to_owned(),
            bytes: state.len() as u64,
            sha256: sha256(&state),
        };
        Backup { header, state }
    }

    #[test]
    fn what_is_written_is_read_and_nobody_else_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.backup");
        may_write(&path, false).unwrap();
        write(&path, &backup(), false).unwrap();
        assert_eq!(read(&path).unwrap(), backup());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(may_write(&path, false).unwrap_err().contains("is there already"));
        assert!(write(&path, &backup(), false).unwrap_err().contains("exists"));
        write(&path, &backup(), true).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(may_write(&folder.path().join("no/state"), false).unwrap_err().contains("no folder"));
    }

    #[test]
    fn no_byte_of_it_can_be_missing_or_another() {
        let whole = encode(&backup()).unwrap();
        assert_eq!(decode(&whole), Ok(backup()));
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert!(decode(&other).is_err(), "byte {at}");
        }
        assert!(decode(&[&whole[..], b"more"].concat()).is_err());
    }
}
