//! A node's audit files: one a month, a line an entry, appended once each whatever crashes in between.
//!
//! Before anything is written the files' ends are read: a line without its end is cut off, and the last entry says where to
//! go on. What is written is synced before the next file is touched. If the process dies before writing, the entry is still
//! in the replicated state; in the middle, its torn line is cut off and written again; after it, its number is found there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::domain::audit::{AuditHash, Link};
use crate::domain::audit_line::{EntryLine, GapLine, LINE_BYTES_MAX, Line};
use crate::domain::ids::UnixMs;
use crate::domain::state::ClusterState;

const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;
/// The end of a file is read in pieces that grow from this.
const TAIL_BYTES: u64 = 64 << 10;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Why nothing is written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The disk.
    #[error("{path}: {source}; entries wait in memory, the newest 1000 of them")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is on the disk is not of this cluster's history.
    #[error(
        "{folder}: its last entry, {seq}, is not the cluster's entry {seq}: the files were changed, or are another \
         cluster's; keep them elsewhere and empty the folder, then this node begins new ones"
    )]
    Fork {
        /// Where.
        folder: PathBuf,
        /// The last entry there.
        seq: u64,
    },
    /// A fault of this program.
    #[error("entry {seq} cannot be written as JSON: {why}")]
    Json {
        /// Which.
        seq: u64,
        /// Why.
        why: String,
    },
}

/// A month of the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Month {
    year: u64,
    month: u64,
}

impl Month {
    /// After Howard Hinnant's `civil_from_days`.
    fn of(at: UnixMs) -> Self {
        let z = at.0 / DAY_MS + 719_468;
        let day_of_era = z % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self { year: year_of_era + z / 146_097 * 400 + u64::from(month <= 2), month }
    }

    /// When the month after it begins.
    fn end(self) -> UnixMs {
        let (year, month) = if self.month == 12 { (self.year + 1, 1) } else { (self.year, self.month + 1) };
        let (year, shifted) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
        let day_of_era = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + (153 * shifted + 2) / 5;
        UnixMs((year / 400 * 146_097 + day_of_era).saturating_sub(719_468).saturating_mul(DAY_MS))
    }

    fn file(self) -> String {
        format!("audit-{:04}-{:02}.jsonl", self.year, self.month)
    }

    fn of_file(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
        let (year, month) = name.split_once('-')?;
        let found = Self { year: year.parse().ok()?, month: month.parse().ok()? };
        ((1..=12).contains(&found.month) && found.year < 10_000 && found.file() == format!("audit-{name}.jsonl"))
            .then_some(found)
    }
}

/// The last entry on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    link: Link,
    /// Of its words: the next line's are bound to them.
    words: AuditHash,
    index: u64,
    month: Month,
}

/// A node's folder of audit files.
#[derive(Debug)]
pub struct AuditFiles {
    folder: PathBuf,
    /// Not read yet, or not since something failed.
    is_read: bool,
    last: Option<Last>,
}

impl AuditFiles {
    /// Reads and writes nothing yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), is_read: false, last: None }
    }

    /// Writes what the state has and the disk has not. How many entries were written.
    ///
    /// # Errors
    /// What is wrong with the disk, or with what is on it. Nothing is lost by calling again.
    pub fn take(&mut self, state: &ClusterState) -> Result<usize, AuditError> {
        if !self.is_read {
            self.last = self.read_folder()?;
            self.is_read = true;
        }
        // Once somebody has mended the folder, it is read anew.
        let lines = self.missing(state).inspect_err(|_| self.is_read = false)?;
        let mut count = 0;
        let mut rest = &lines[..];
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|line| line.month == first.month).count();
            let (now, later) = rest.split_at(same);
            self.is_read = false;
            self.append(first.month, now)?;
            self.is_read = true;
            self.last = now.last().map(|line| line.last);
            count += now.len();
            rest = later;
        }
        Ok(count)
    }

    /// The lines that the disk has not, each with the gap before it where there is one.
    fn missing(&self, state: &ClusterState) -> Result<Vec<Written>, AuditError> {
        let fork = |last: Last| AuditError::Fork { folder: self.folder.clone(), seq: last.link.seq };
        let (head, mut before) = (state.audit_head(), self.last.map(|last| last.link).unwrap_or_default());
        if let Some(last) = self.last {
            let is_past = state.applied_index >= last.index && head.seq < last.link.seq;
            if is_past || state.audit_base.seq == last.link.seq && state.audit_base != last.link {
                return Err(fork(last));
            }
        }
        let mut lines = Vec::new();
        let mut words_prev = self.last.map(|last| last.words).unwrap_or_default();
        for (prev, entry) in state.audit_chain() {
            if entry.seq <= before.seq {
                match self.last {
                    Some(last) if entry.seq == last.link.seq && entry.link() != last.link => return Err(fork(last)),
                    _ => continue,
                }
            }
            let json = |why| AuditError::Json { seq: entry.seq, why };
            let mut text = String::new();
            if entry.seq > before.seq.saturating_add(1) {
                let (after_seq, after_hash) = (before.seq, before.hash);
                let gap = GapLine { after_seq, after_hash, next_seq: entry.seq, next_prev: prev };
                text = Line::Gap(gap).to_text().map_err(json)?;
            }
            let line = EntryLine::of(entry, prev, words_prev);
            words_prev = line.words;
            text += &Line::Entry(line).to_text().map_err(json)?;
            let month = Month::of(entry.at);
            let last = Last { link: entry.link(), words: words_prev, index: entry.index, month };
            lines.push(Written { month, text, last });
            before = entry.link();
        }
        Ok(lines)
    }

    fn failed(&self, path: &Path) -> impl FnOnce(io::Error) -> AuditError {
        let path = path.to_owned();
        move |source| AuditError::Io { path, source }
    }

    fn append(&self, month: Month, lines: &[Written]) -> Result<(), AuditError> {
        let path = self.folder.join(month.file());
        let is_new = !path.exists();
        let opened = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&path);
        let mut file = opened.map_err(self.failed(&path))?;
        let before = file.metadata().map_err(self.failed(&path))?.len();
        let text: String = lines.iter().map(|line| line.text.as_str()).collect();
        if let Err(source) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
            // What may not be on the disk must not look as if it were. Where this fails too, the next reading cuts what is
            // torn.
            drop(file.set_len(before));
            return Err(AuditError::Io { path, source });
        }
        if is_new { self.sync_folder() } else { Ok(()) }
    }

    fn sync_folder(&self) -> Result<(), AuditError> {
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(self.failed(&self.folder))
    }

    fn months(&self) -> Result<Vec<(Month, PathBuf)>, AuditError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(self.failed(&self.folder))? {
            let path = entry.map_err(self.failed(&self.folder))?.path();
            if let Some(month) = Month::of_file(&path) {
                found.push((month, path));
            }
        }
        found.sort();
        Ok(found)
    }

    fn read_folder(&self) -> Result<Option<Last>, AuditError> {
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.folder);
        made.map_err(self.failed(&self.folder))?;
        let mut last: Option<Last> = None;
        for (month, path) in self.months()? {
            let found = read_end(&path, month).map_err(self.failed(&path))?;
            last = last.into_iter().chain(found).max_by_key(|last| last.link.seq);
        }
        Ok(last)
    }

    /// Deletes whole months that ended so long ago, never the one with the last entry. `newest` is the time of the newest
    /// entry: a clock of this node that runs ahead deletes nothing.
    ///
    /// # Errors
    /// What could not be deleted.
    pub fn expire(&self, retention: Duration, now: SystemTime, newest: UnixMs) -> Result<Vec<PathBuf>, AuditError> {
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let mut gone = Vec::new();
        let Some(last) = self.last else { return Ok(gone) };
        for (month, path) in self.months()? {
            let modified = fs::metadata(&path).and_then(|data| data.modified()).map_err(self.failed(&path))?;
            let is_old = month.end().0.saturating_add(retention_ms) <= newest.0
                && now.duration_since(modified).is_ok_and(|age| age >= retention);
            if is_old && month != last.month {
                fs::remove_file(&path).map_err(self.failed(&path))?;
                gone.push(path);
            }
        }
        if !gone.is_empty() {
            self.sync_folder()?;
        }
        Ok(gone)
    }
}

/// What is written for one entry.
struct Written {
    month: Month,
    text: String,
    last: Last,
}

/// The last entry of a file, once what is torn was cut off its end.
fn read_end(path: &Path, month: Month) -> io::Result<Option<Last>> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    let mut window = TAIL_BYTES;
    loop {
        let begin = length.saturating_sub(window);
        file.seek(SeekFrom::Start(begin))?;
        let mut tail = Vec::new();
        (&file).take(length - begin).read_to_end(&mut tail)?;
        // The first line of a piece may be half of one.
        let start =
            if begin == 0 { 0 } else { tail.iter().position(|byte| *byte == b'\n').map_or(tail.len(), |at| at + 1) };
        let (keep, last) = judge_end(&tail[start..], month);
        if last.is_none() && begin > 0 && window <= 64 * LINE_BYTES_MAX as u64 {
            window = window.saturating_mul(4);
            continue;
        }
        let keep = begin + (start + keep) as u64;
        if keep < length {
            tracing::warn!(path = %path.display(), bytes = length - keep, "cut a torn end off an audit file");
            file.set_len(keep)?;
        }
        // What a program that was killed had written may not be on the disk yet.
        file.sync_all()?;
        return Ok(last);
    }
}

/// How many bytes of whole lines there are, and the last entry in them. Where zeros are, power was lost before what belongs
/// there was on the disk: nothing from there on was synced.
fn judge_end(tail: &[u8], month: Month) -> (usize, Option<Last>) {
    let mut whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if let Some(zero) = tail[..whole].iter().position(|byte| *byte == 0) {
        whole = tail[..zero].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    }
    let entries = tail[..whole].split(|byte| *byte == b'\n').rev().filter_map(|line| match Line::parse(line) {
        Ok(Line::Entry(entry)) => Some(Last { link: entry.link(), words: entry.words, index: entry.index, month }),
        _ => None,
    });
    (whole, entries.into_iter().next())
}

#[cfg(test)]
#[path = "audit_files_tests.rs"]
mod tests;
