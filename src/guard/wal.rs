//! Where the server's write-ahead log stands: what `pg_control` says, and what a running server answers.
//!
//! Measured on PostgreSQL 15: a fast stop writes the shutdown checkpoint as the log's last record and waits until the
//! standbys that stream have it. `pg_last_wal_replay_lsn()` of such a standby then lies behind that record (120 bytes past
//! its begin, more across a page's border), and stays there when the receiver ends and when the standby is restarted. The
//! received position does not: after a restart it is the begin of a segment. So replayed is what is compared, and it lies
//! beyond the record's begin exactly when the record was replayed, since it always lies at the end of one.
//!
//! The timeline that a standby replays is in none of its control file's fields until its next restart point, and its
//! receiver tells it only while it streams. The newest timeline that has a segment for the replayed position is the one
//! PostgreSQL reads it from.

use std::fs;
use std::path::Path;

use super::config::Postgres;
use super::ledger::cut;
use super::postgres;
use super::protocol::{Lsn, PostgresRole, WalRunning, WalShown, WalState};
use super::session;

/// How long a running server may take to answer, milliseconds: whoever asks for the status of a frozen one waits for it.
const ASK_MS: u64 = 1000;
/// Why it could not be asked is told in no more, bytes.
const WHY_BYTES_MAX: usize = 300;
/// The layouts that are known: from PostgreSQL 11 to 18.
const VERSIONS: std::ops::RangeInclusive<u32> = 1100..=1899;

const ASK: &str = "SELECT concat_ws(' ', r, \
    coalesce(CASE WHEN r THEN pg_last_wal_receive_lsn() END::text, '-'), \
    coalesce(CASE WHEN r THEN pg_last_wal_replay_lsn() END::text, '-'), \
    coalesce(CASE WHEN NOT r THEN pg_current_wal_lsn() END::text, '-'), \
    coalesce(CASE WHEN NOT r THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, '-'), \
    EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')) \
    FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS a";

/// What counts here of a control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// How the server stands.
    pub state: WalState,
    /// Of which database cluster.
    pub system_identifier: u64,
    /// The latest checkpoint's timeline.
    pub timeline: u32,
    /// Where its record begins.
    pub checkpoint_lsn: Lsn,
    /// Recovery must reach this at least; 0 where none is needed.
    pub min_recovery_lsn: Lsn,
    /// On this timeline.
    pub min_recovery_timeline: u32,
}

/// Reads a data directory's control file.
///
/// # Errors
/// Unreadable, damaged, or of a version whose layout is not known; in words.
pub fn control(data_dir: &Path) -> Result<Control, String> {
    control_in(&postgres::control_bytes(data_dir)?).map_err(|why| format!("{}: {why}", data_dir.display()))
}

fn control_in(bytes: &[u8]) -> Result<Control, String> {
    let short = || "its pg_control is too short".to_owned();
    let u32_at = |at: usize| -> Result<u32, String> {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).ok_or_else(short)?;
        Ok(u32::from_ne_bytes(word))
    };
    let u64_at = |at: usize| -> Result<u64, String> {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).ok_or_else(short)?;
        Ok(u64::from_ne_bytes(word))
    };
    let version = u32_at(8)?;
    if !VERSIONS.contains(&version) {
        return Err(format!("its pg_control is of version {version}, whose layout is not known here"));
    }
    let state = match u32_at(16)? {
        0 => WalState::Starting,
        1 => WalState::ShutDown,
        2 => WalState::ShutDownInRecovery,
        3 => WalState::ShuttingDown,
        4 => WalState::InCrashRecovery,
        5 => WalState::InArchiveRecovery,
        6 => WalState::InProduction,
        other => return Err(format!("its pg_control says state {other}, which is not known here")),
    };
    Ok(Control {
        state,
        system_identifier: u64_at(0)?,
        checkpoint_lsn: Lsn(u64_at(32)?),
        timeline: u32_at(48)?,
        min_recovery_lsn: Lsn(u64_at(136)?),
        min_recovery_timeline: u32_at(144)?,
    })
}

/// For status: never fails, and asks only a server that is seen to run.
pub fn shown(pg: &Postgres, role: PostgresRole) -> Option<WalShown> {
    let control = control(&pg.data_dir).ok()?;
    let asked = match role {
        PostgresRole::Stopped | PostgresRole::Unknown => None,
        PostgresRole::InRecovery | PostgresRole::Writable => Some(ask(pg)),
    };
    let (running, unread) = match asked {
        None => (None, None),
        Some(Ok(running)) => (Some(running), None),
        Some(Err(why)) => (None, Some(cut(&why, WHY_BYTES_MAX).to_owned())),
    };
    Some(WalShown {
        state: control.state,
        system_identifier: control.system_identifier,
        timeline: control.timeline,
        checkpoint_lsn: control.checkpoint_lsn,
        running,
        unread,
    })
}

fn ask(pg: &Postgres) -> Result<WalRunning, String> {
    let answer = session::once(pg, ASK, ASK_MS)?;
    let mut running = running_in(&answer).ok_or_else(|| format!("the server answers {answer:?}"))?;
    if let Some(replayed) = running.replayed_lsn {
        running.timeline = timeline_of(&pg.data_dir.join("pg_wal"), replayed);
    }
    Ok(running)
}

fn running_in(answer: &str) -> Option<WalRunning> {
    let words: Vec<&str> = answer.split(' ').collect();
    let [in_recovery, received, replayed, current, timeline, streams] = words.as_slice() else { return None };
    let lsn = |word: &str| if word == "-" { Some(None) } else { Lsn::parse(word).map(Some) };
    let is = |word: &str| match word {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    };
    let timeline = if *timeline == "-" { None } else { Some(u32::from_str_radix(timeline, 16).ok()?) };
    let running = WalRunning {
        received_lsn: lsn(received)?,
        replayed_lsn: lsn(replayed)?,
        current_lsn: lsn(current)?,
        timeline,
        streams: is(streams)?,
    };
    // A server that was promoted between two of these looks shows neither.
    let is_whole = if is(in_recovery)? { running.current_lsn.is_none() } else { running.current_lsn.is_some() };
    is_whole.then_some(running)
}

/// The newest timeline with a segment that holds the last byte before `replayed`.
fn timeline_of(pg_wal: &Path, replayed: Lsn) -> Option<u32> {
    let mut segments = fs::read_dir(pg_wal).ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let segment = Segment::parse(entry.file_name().to_str()?)?;
        Some((segment, entry))
    });
    let first = segments.next()?;
    // All are of one size.
    let bytes = first.1.metadata().ok()?.len();
    let wanted = Segment::number_of(Lsn(replayed.0.checked_sub(1)?), bytes)?;
    let all = std::iter::once(first).chain(segments).map(|(segment, _)| segment);
    all.filter(|segment| segment.number(bytes) == Some(wanted)).map(|segment| segment.timeline).max()
}

/// A segment of the log, by its file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Whose.
    pub timeline: u32,
    log: u32,
    part: u32,
}

impl Segment {
    /// `00000001000000000000000A`, and nothing else.
    pub fn parse(name: &str) -> Option<Self> {
        let is_name = name.len() == 24 && name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        let part = |at: usize| u32::from_str_radix(name.get(at..at + 8)?, 16).ok();
        is_name.then_some(())?;
        Some(Self { timeline: part(0)?, log: part(8)?, part: part(16)? })
    }

    /// Which one of its timeline it is, segments having so many bytes.
    pub fn number(self, segment_bytes: u64) -> Option<u64> {
        let in_log = (1u64 << 32).checked_div(segment_bytes)?;
        u64::from(self.log).checked_mul(in_log)?.checked_add(u64::from(self.part))
    }

    /// The one that holds the byte at `lsn`.
    pub fn number_of(lsn: Lsn, segment_bytes: u64) -> Option<u64> {
        lsn.0.checked_div(segment_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a real one, of PostgreSQL 15: shut down, checkpoint at 0/3637180 on timeline 2.
    fn bytes() -> Vec<u8> {
        let mut bytes = vec![0u8; 288];
        let mut put = |at: usize, word: &[u8]| bytes[at..at + word.len()].copy_from_slice(word);
        put(0, &7_710_710_487_131_245_171_u64.to_ne_bytes());
        put(8, &1300_u32.to_ne_bytes());
        put(16, &1_u32.to_ne_bytes());
        put(32, &0x363_7180_u64.to_ne_bytes());
        put(48, &2_u32.to_ne_bytes());
        put(136, &0x300_0000_u64.to_ne_bytes());
        put(144, &1_u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_control_file_is_read_by_its_layout_or_not_at_all() {
        let control = control_in(&bytes()).expect("a known layout");
        assert_eq!((control.state, control.timeline, control.checkpoint_lsn), (WalState::ShutDown, 2, Lsn(0x363_7180)));
        assert_eq!((control.min_recovery_lsn, control.min_recovery_timeline), (Lsn(0x300_0000), 1));
        assert_eq!(control.system_identifier, 7_710_710_487_131_245_171);
        for (at, word, wanted) in [(8, 1002_u32, "version 1002"), (8, 1900, "version 1900"), (16, 7, "state 7")] {
            let mut bytes = bytes();
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
            let why = control_in(&bytes).expect_err(wanted);
            assert!(why.contains(wanted), "{why}");
        }
        assert!(control_in(&bytes()[..147]).expect_err("cut").contains("too short"));
    }

    #[test]
    fn a_servers_answer_is_read_whole_or_not_at_all() {
        let standby = running_in("t 0/3000000 0/36371F8 - - f").expect("a standby");
        assert_eq!(standby.replayed_lsn, Some(Lsn(0x363_71F8)));
        assert_eq!((standby.current_lsn, standby.timeline, standby.streams), (None, None, false));
        let primary = running_in("f - - 1/A 0000000B f").expect("a primary");
        assert_eq!((primary.current_lsn, primary.timeline), (Some(Lsn(0x1_0000_000A)), Some(11)));
        assert!(running_in("t - - - - f").is_some(), "nothing received and nothing replayed yet");
        for answer in ["", "t", "t - - - - f f", "x - - - - f", "t 0/g - - - f", "f - - - - f", "t - - 0/1 - f"] {
            assert_eq!(running_in(answer), None, "{answer}");
        }
    }

    #[test]
    fn the_newest_timeline_of_the_replayed_segment_counts() {
        let dir = tempfile::tempdir().expect("a folder");
        let put = |name: &str| fs::write(dir.path().join(name), vec![0u8; 1 << 20]).expect("written");
        let of = |lsn: u64| timeline_of(dir.path(), Lsn(lsn));
        assert_eq!(of(5), None);
        for name in ["000000010000000000000002", "000000010000000000000003", "000000020000000000000003"] {
            put(name);
        }
        fs::write(dir.path().join("00000003.history"), "").expect("written");
        fs::write(dir.path().join("000000090000000000000003.partial"), "").expect("written");
        // At a segment's end the byte before counts.
        for (lsn, timeline) in [(0x20_0001, Some(1)), (0x30_0000, Some(1)), (0x30_0001, Some(2)), (0x50_0000, None)] {
            assert_eq!(of(lsn), timeline, "{lsn:X}");
        }
        assert_eq!(of(0), None);
    }
}
