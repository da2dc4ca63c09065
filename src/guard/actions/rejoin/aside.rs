//! Keeps what diverged before it is rewound: `DATA.diverged-UNIXMS/` with the segments of the log from the fork on and a report.
//!
//! Made as `DATA.diverged.unfinished` and renamed when it is whole and synced: one that is there under its own name is complete. If it
//! dies before, the next attempt begins it anew; the data directory is untouched until the name is there. Where the disk has no room for
//! the segments only the report is kept, which needs next to none.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::diverged::{self, About, Diverged};
use super::way::{Fork, Part};
use super::{End, Postgres, copy};
use crate::clock::unix_now;
use crate::guard::exec::{Ended, Stop};
use crate::guard::host::boottime_ms;
use crate::guard::in_flight::Supervisor;
use crate::guard::postgres;
use crate::guard::protocol::Lsn;
use crate::guard::records;
use crate::guard::wal::Segment;

/// How many records are listed one by one.
const RECORDS_MAX: usize = 20_000;
/// How long `pg_waldump` may look, milliseconds. Time over it tells what it has told until then.
const DUMP_MS: u64 = 120_000;
/// Of what `pg_waldump` prints no more is read, bytes.
const LIST_BYTES_MAX: u64 = 64 * 1024 * 1024;
const STATS_BYTES_MAX: u64 = 32 * 1024;

/// What lies past the fork here.
pub struct Past<'a> {
    pub fork: Fork,
    /// This host's history.
    pub ours: &'a [Part],
    /// This host's timeline, and the new primary's.
    pub timelines: (u32, u32),
}

/// Keeps it. What was kept, in words.
pub fn keep(pg: &Postgres, past: &Past<'_>, supervisor: &mut Supervisor<'_>, until: u64) -> Result<String, End> {
    supervisor.phase("keeping aside what diverged");
    let again = |why: String| End::again(format!("nothing was changed: what diverged could not be kept: {why}"));
    let folder = copy::beside(pg, "diverged.unfinished");
    copy::empty_folder(&folder).map_err(again)?;
    let stats = dump(pg, past, &["--stats=record"], STATS_BYTES_MAX, supervisor, until)?;
    let mut diverged = Diverged { end: diverged::end_in(&stats), ..Diverged::default() };
    let list = dump(pg, past, &["-n", &RECORDS_MAX.to_string()], LIST_BYTES_MAX, supervisor, until)?;
    list.lines().for_each(|line| diverged.take(line));
    let is_all = list.lines().count() < RECORDS_MAX;
    let listed = if is_all { "in all of it".to_owned() } else { format!("in the first {RECORDS_MAX} records") };
    let kept = segments(pg, past, diverged.end, &folder, supervisor)?;
    let data_dir = pg.data_dir.display().to_string();
    let (fork, timelines) = (past.fork, past.timelines);
    let about = About {
        fork,
        timelines,
        data_dir: &data_dir,
        diverged: &diverged,
        stats: &stats,
        listed: &listed,
        kept: &kept,
    };
    let name = copy::beside(pg, &format!("diverged-{}", unix_now().0));
    let write = || {
        let path = folder.join("report.txt");
        fs::write(&path, diverged::report(&about)).and_then(|()| fs::File::open(&path)?.sync_all())?;
        fs::rename(&folder, &name)
    };
    write().map_err(|e| again(format!("{}: {e}", folder.display())))?;
    records::sync_dir_of(&name).map_err(|e| again(e.to_string()))?;
    let bytes = diverged::bytes_past(past.fork, diverged.end);
    let committed = diverged.committed.len();
    Ok(format!("{bytes}, {committed} transactions, kept in {} ({kept})", name.display()))
}

/// What `pg_waldump` prints of the log past the fork; it always ends with an error, at the log's end.
fn dump(
    pg: &Postgres,
    past: &Past<'_>,
    words: &[&str],
    bytes: u64,
    supervisor: &mut Supervisor<'_>,
    until: u64,
) -> Result<String, End> {
    let (timeline, _) = past.timelines;
    // On its own timeline, where that began after the fork.
    let begin = past.ours.last().map_or(past.fork.lsn, |part| part.begin.max(past.fork.lsn)).to_string();
    let (pg_wal, timeline) = (pg.data_dir.join("pg_wal").display().to_string(), timeline.to_string());
    let mut argv = vec!["-p", pg_wal.as_str(), "-t", timeline.as_str(), "-s", begin.as_str()];
    argv.extend(words);
    let until = until.min(boottime_ms().saturating_add(DUMP_MS));
    let output = supervisor.output();
    let (ran, in_words) = postgres::program(pg, "pg_waldump", &argv, &output, until, supervisor);
    match ran.ended {
        Ended::Stopped(Stop::Preempted(by)) => Err(End::Preempted(by)),
        Ended::NotStarted(_) => Ok(in_words),
        _ => Ok(read(&output, bytes)),
    }
}

fn read(output: &Path, bytes_max: u64) -> String {
    let mut bytes = Vec::new();
    // What was read until an error counts.
    let _whole = fs::File::open(output).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Copies the segments from the fork on, where there is room for them. In words.
fn segments(
    pg: &Postgres,
    past: &Past<'_>,
    end: Option<Lsn>,
    folder: &Path,
    supervisor: &mut Supervisor<'_>,
) -> Result<String, End> {
    use crate::guard::exec::Watch;
    let again = |e: std::io::Error| End::again(format!("nothing was changed: the log could not be kept: {e}"));
    let found = wanted(pg, past, end).map_err(again)?;
    let bytes: u64 = found.iter().map(|(_, bytes)| bytes).sum();
    if let Err(why) = copy::room_for(pg, folder, bytes) {
        return Ok(format!("this report alone: no room for {} segments: {why}", found.len()));
    }
    let into = folder.join("pg_wal");
    fs::create_dir(&into).map_err(again)?;
    for (path, _) in &found {
        if let Some(Stop::Preempted(by)) = supervisor.stop() {
            return Err(End::Preempted(by));
        }
        let Some(name) = path.file_name() else { continue };
        let to = into.join(name);
        fs::copy(path, &to).and_then(|_| fs::File::open(&to)?.sync_all()).map_err(again)?;
    }
    fs::File::open(&into).and_then(|dir| dir.sync_all()).map_err(again)?;
    Ok(format!("{} files of the log in pg_wal/", found.len()))
}

/// Segments from the fork to the log's end on this host's own timelines, and its history files. What lies past the end are segments made
/// ready for later, which hold nothing.
fn wanted(pg: &Postgres, past: &Past<'_>, end: Option<Lsn>) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(pg.data_dir.join("pg_wal"))? {
        let entry = entry?;
        let (name, bytes) = (entry.file_name(), entry.metadata()?.len());
        let name = name.to_string_lossy();
        let is_past = Segment::parse(&name).is_some_and(|segment| {
            let number = segment.number(bytes);
            let is_ours = past.ours.iter().any(|part| part.timeline == segment.timeline);
            let is_before_end = end.is_none_or(|end| number <= Segment::number_of(Lsn(end.0.saturating_sub(1)), bytes));
            is_ours
                && segment.timeline >= past.fork.timeline
                && number >= Segment::number_of(past.fork.lsn, bytes)
                && is_before_end
        });
        if past_history(&name) || is_past {
            found.push((entry.path(), bytes));
        }
    }
    found.sort();
    Ok(found)
}

fn past_history(name: &str) -> bool {
    name.strip_suffix(".history").is_some_and(|number| number.len() == 8)
}
