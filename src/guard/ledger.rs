//! The ledger: what was begun here and how it ended, each line with its checksum, each append synced. A hint for reading
//! back, never a proof.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::protocol::LedgerHint;
use super::records::{self, RecordError};
use crate::domain::ids::{RunId, StepId, Token, UnixMs};

/// Beyond this the ledger is moved to `ledger.old` (replacing the one before) and begun anew, bytes.
const LEDGER_BYTES_MAX: u64 = 256 * 1024;
/// Details are cut to this, bytes.
const DETAIL_BYTES_MAX: usize = 2048;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// About to act.
    Started,
    /// Acted, and the effect is there.
    Done,
    /// Acted, and it said that it failed.
    Failed,
    /// Acted, and cannot tell.
    Unknown,
    /// Ended by a later token.
    Preempted,
}

impl Event {
    /// As in the file.
    pub fn word(self) -> &'static str {
        match self {
            Event::Started => "started",
            Event::Done => "done",
            Event::Failed => "failed",
            Event::Unknown => "unknown",
            Event::Preempted => "preempted",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When, for people.
    pub at: UnixMs,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt.
    pub attempt: u32,
    /// The token.
    pub token: Token,
    /// The action's name.
    pub action: String,
    /// What happened.
    pub event: Event,
    /// What was read or went wrong.
    pub detail: String,
}

impl Entry {
    /// In short, for status.
    pub fn hint(&self) -> LedgerHint {
        LedgerHint {
            at: self.at,
            run: self.run.clone(),
            step: self.step.clone(),
            attempt: self.attempt,
            token: self.token,
            action: self.action.clone(),
            event: self.event.word().to_owned(),
            detail: cut(&self.detail, 300).to_owned(),
        }
    }
}

/// The first `bytes` of a text, at a character's border.
pub fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Reads all entries, oldest first. A last line without its newline was never acknowledged and is left out.
///
/// # Errors
/// Unreadable, or a whole line is damaged: the file and line are named. No file is no entries.
pub fn load(path: &Path) -> Result<Vec<Entry>, RecordError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(RecordError::io(path, "read the ledger")(e)),
    };
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let mut entries = Vec::new();
    for (number, line) in bytes[..whole].split(|b| *b == b'\n').enumerate() {
        if line.is_empty() && number > 0 {
            continue;
        }
        let entry = std::str::from_utf8(line).map_err(|_| "not text".to_owned()).and_then(records::unseal);
        match entry {
            Ok(entry) => entries.push(entry),
            Err(_) if whole == 0 => {}
            Err(why) => {
                let why = format!("line {}: {why}", number + 1);
                return Err(RecordError::Damaged { path: path.to_path_buf(), why });
            }
        }
    }
    Ok(entries)
}

/// Appends one entry and syncs it. The caller holds the action lock.
///
/// # Errors
/// The step that failed. The entry may be there or not.
pub fn append(path: &Path, entry: &Entry) -> Result<(), RecordError> {
    let io = |doing| RecordError::io(path, doing);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io("open the ledger"))?;
    let mut length = file.metadata().map_err(io("look at the ledger"))?.len();
    if length > LEDGER_BYTES_MAX && entry.event == Event::Started {
        std::fs::rename(path, path.with_extension("old")).map_err(io("move the full ledger"))?;
        return append(path, entry);
    }
    if length == 0 {
        records::sync_dir_of(path)?;
    }
    length = without_torn_tail(&mut file, length).map_err(io("look at the end of the ledger"))?;
    let entry = Entry { detail: cut(&entry.detail, DETAIL_BYTES_MAX).to_owned(), ..entry.clone() };
    file.set_len(length).map_err(io("cut an unfinished line off the ledger"))?;
    file.seek(SeekFrom::Start(length)).map_err(io("find the end of the ledger"))?;
    file.write_all(records::seal(&entry).as_bytes()).map_err(io("append to the ledger"))?;
    file.sync_all().map_err(io("sync the ledger"))
}

/// The file's length without a last line that has no newline.
fn without_torn_tail(file: &mut std::fs::File, length: u64) -> std::io::Result<u64> {
    let window = length.min(16 * 1024);
    file.seek(SeekFrom::Start(length - window))?;
    let mut tail = Vec::new();
    file.take(window).read_to_end(&mut tail)?;
    let kept = tail.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    Ok(length - window + kept as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(step: &str, event: Event) -> Entry {
        Entry {
            at: UnixMs(1),
            run: "r".into(),
            step: step.into(),
            attempt: 1,
            token: Token { epoch: 1, n: 2 },
            action: "fence".into(),
            event,
            detail: "đã dừng".into(),
        }
    }

    #[test]
    fn entries_come_back_in_order_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().expect("temp folder");
        let path = dir.path().join("ledger.log");
        assert_eq!(load(&path).expect("none yet"), vec![]);
        append(&path, &entry("a", Event::Started)).expect("appended");
        let mut bytes = std::fs::read(&path).expect("bytes");
        bytes.extend_from_slice(b"12345678 {\"at\":1,");
        std::fs::write(&path, &bytes).expect("torn");
        assert_eq!(load(&path).expect("whole lines"), vec![entry("a", Event::Started)]);
        append(&path, &entry("b", Event::Done)).expect("appended");
        assert_eq!(load(&path).expect("both"), vec![entry("a", Event::Started), entry("b", Event::Done)]);
    }

    #[test]
    fn a_flipped_byte_is_named_by_line() {
        let dir = tempfile::tempdir().expect("temp folder");
        let path = dir.path().join("ledger.log");
        for step in ["a", "b", "c"] {
            append(&path, &entry(step, Event::Done)).expect("appended");
        }
        let mut bytes = std::fs::read(&path).expect("bytes");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).expect("flipped");
        let error = load(&path).expect_err("damaged").to_string();
        assert!(error.contains("ledger.log is damaged: line 2"), "{error}");
    }

    #[test]
    fn a_full_ledger_is_moved_aside_and_begun_anew() {
        let dir = tempfile::tempdir().expect("temp folder");
        let path = dir.path().join("ledger.log");
        append(&path, &entry("a", Event::Done)).expect("appended");
        let line = std::fs::read(&path).expect("line");
        let many = usize::try_from(LEDGER_BYTES_MAX).expect("small") / line.len() + 1;
        std::fs::write(&path, line.repeat(many)).expect("filled");
        append(&path, &entry("b", Event::Started)).expect("appended");
        assert_eq!(load(&path).expect("new"), vec![entry("b", Event::Started)]);
        assert_eq!(load(&path.with_extension("old")).expect("old").len(), many);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("đã", 1), "");
        assert_eq!(cut("đã", 2), "đ");
        assert_eq!(cut("ab", 9), "ab");
    }
}
