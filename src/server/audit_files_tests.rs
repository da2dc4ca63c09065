//! Files of the audit through crashes, gaps, damage, a full disk, and years.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::domain::audit_verify::{Findings, Verifier};
use crate::domain::command::{Change, Command};
use crate::domain::ids::NodeId;

/// 2026-11-15.
const NOVEMBER: u64 = 1_794_700_800_000;

fn enter(state: &mut ClusterState, at: u64, count: usize) {
    for _ in 0..count {
        let n = state.applied_index + 1;
        let change = Change::Note { group: None, what: format!("note {n}"), outcome: "done".to_owned() };
        let by = "user:linh".into();
        state.apply(n, &Command { node: NodeId(1), at: UnixMs(at + n), by, from: None, request_id: None, change });
    }
}

fn judged(folder: &Path) -> Findings {
    let mut verifier = Verifier::default();
    for (_, path) in AuditFiles::new(folder).months().unwrap() {
        verifier.begin_file("node", &path.file_name().unwrap().to_string_lossy());
        for (at, line) in fs::read(&path).unwrap().split_inclusive(|byte| *byte == b'\n').enumerate() {
            verifier.line(at + 1, line.strip_suffix(b"\n").expect("a whole line"));
        }
    }
    verifier.finish()
}

fn is_whole(folder: &Path, first: u64, last: u64) {
    let found = judged(folder);
    assert!(found.ok, "{found:?}");
    assert_eq!((found.first_seq, found.head.seq, found.entries), (first, last, last - first + 1));
}

const FILE: &str = "audit-2026-11.jsonl";

#[test]
fn p10_each_entry_is_written_once_whatever_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("a/b");
    let mut state = ClusterState::default();
    let mut files = AuditFiles::new(&at);
    assert_eq!(files.take(&state).unwrap(), 0);
    for count in [3, 1, 0, 5] {
        enter(&mut state, NOVEMBER, count);
        assert_eq!(files.take(&state).unwrap(), count);
        assert_eq!(AuditFiles::new(&at).take(&state).unwrap(), 0, "started again");
    }
    is_whole(&at, 1, 9);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&at), mode(&at.join(FILE)) & 0o137), (0o750, 0));
    // Behind the disk: the log is still being applied.
    let mut earlier = ClusterState::default();
    enter(&mut earlier, NOVEMBER, 4);
    assert_eq!(AuditFiles::new(&at).take(&earlier).unwrap(), 0);
}

/// Cut off at every byte, as a process that dies leaves it.
#[test]
fn p10_a_torn_end_is_cut_off_and_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ClusterState::default();
    enter(&mut state, NOVEMBER, 4);
    AuditFiles::new(folder.path()).take(&state).unwrap();
    let path = folder.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        AuditFiles::new(folder.path()).take(&state).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole, "cut at {length}");
    }
    // Power was lost: the file has its length, and zeros where the rest belongs.
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        let mut zeros = whole.clone();
        zeros[length..].fill(0);
        fs::write(&path, &zeros).unwrap();
        AuditFiles::new(folder.path()).take(&state).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole, "zeros from {length}");
    }
}

/// A file longer than one piece of its end, and a last line longer than one too.
#[test]
fn the_end_of_a_long_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ClusterState::default();
    enter(&mut state, NOVEMBER, 600);
    let change = Change::Note { group: None, what: "x".repeat(200_000), outcome: "done".to_owned() };
    let by = "user:linh".into();
    let command = Command { node: NodeId(1), at: UnixMs(NOVEMBER), by, from: None, request_id: None, change };
    state.apply(601, &command);
    AuditFiles::new(folder.path()).take(&state).unwrap();
    assert_eq!(AuditFiles::new(folder.path()).take(&state).unwrap(), 0);
    enter(&mut state, NOVEMBER, 1);
    assert_eq!(AuditFiles::new(folder.path()).take(&state).unwrap(), 1);
    is_whole(folder.path(), 1, 602);
}

#[test]
fn p10_what_went_by_while_the_node_was_away_is_a_gap_with_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ClusterState::default();
    enter(&mut state, NOVEMBER, 3);
    AuditFiles::new(folder.path()).take(&state).unwrap();
    enter(&mut state, NOVEMBER, 1200);
    let mut files = AuditFiles::new(folder.path());
    assert_eq!(files.take(&state).unwrap(), 1000);
    let found = judged(folder.path());
    assert_eq!(found.faults.len(), 1, "{found:?}");
    assert_eq!((found.faults[0].first_seq, found.faults[0].last_seq), (4, 203));
    assert!(found.faults[0].text.contains("the node was away (audit-2026-11.jsonl:4)"), "{found:?}");
    assert_eq!(AuditFiles::new(folder.path()).take(&state).unwrap(), 0);
    // A node that joins late says so in its first line.
    let late = tempfile::tempdir().unwrap();
    AuditFiles::new(late.path()).take(&state).unwrap();
    let text = fs::read_to_string(late.path().join(FILE)).unwrap();
    assert!(text.starts_with("{\"line\":\"gap\",\"after_seq\":0,"), "{text}");
    assert!(judged(late.path()).ok);
}

/// Files of another history are not written to: neither is lost.
#[test]
fn p10_files_that_do_not_fit_are_left_alone_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, mut other) = (ClusterState::default(), ClusterState::default());
    enter(&mut one, NOVEMBER, 5);
    AuditFiles::new(folder.path()).take(&one).unwrap();
    let before = fs::read(folder.path().join(FILE)).unwrap();
    for count in [5, 1, 1000] {
        enter(&mut other, NOVEMBER + 1, count);
        let mut files = AuditFiles::new(folder.path());
        match files.take(&other) {
            Err(AuditError::Fork { seq: 5, .. }) => {}
            // So far on that the fifth is forgotten: the gap has both hashes, and another node's file shows it.
            other => assert!(count == 1000 && other.is_ok(), "{count}: {other:?}"),
        }
        if count != 1000 {
            assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), before);
        }
    }
    // Rebuilt, and not so far yet.
    let folder = tempfile::tempdir().unwrap();
    AuditFiles::new(folder.path()).take(&one).unwrap();
    let mut rebuilt = ClusterState::default();
    enter(&mut rebuilt, NOVEMBER, 2);
    rebuilt.applied_index = 100;
    let told = AuditFiles::new(folder.path()).take(&rebuilt).unwrap_err().to_string();
    assert!(
        told.contains("its last entry, 5, is not the cluster's entry 5") && told.contains("empty the folder"),
        "{told}"
    );
}

#[test]
fn an_entry_goes_to_its_own_month_and_only_whole_old_months_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let day = 24 * 3600 * 1000;
    let mut state = ClusterState::default();
    // The second was proposed by a node whose clock runs ahead, over the end of the month.
    for at in [NOVEMBER, NOVEMBER + 16 * day, NOVEMBER + 15 * day, NOVEMBER + 60 * day] {
        enter(&mut state, at, 1);
    }
    let mut files = AuditFiles::new(folder.path());
    files.take(&state).unwrap();
    let names = || -> Vec<String> {
        let months = AuditFiles::new(folder.path()).months().unwrap();
        months.iter().map(|(_, path)| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(), ["audit-2026-11.jsonl", "audit-2026-12.jsonl", "audit-2027-01.jsonl"]);
    assert_eq!(AuditFiles::new(folder.path()).take(&state).unwrap(), 0);
    is_whole(folder.path(), 1, 4);
    let newest = state.audit.back().unwrap().at;
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let later = SystemTime::now() + days(400);
    for (retention, now, newest, left) in [
        (days(100), later, newest, 3),
        (days(30), SystemTime::now(), newest, 3),
        (days(30), later, UnixMs(NOVEMBER), 3),
        (days(30), later, newest, 2),
        (days(0), later, UnixMs(u64::MAX), 1),
    ] {
        files.expire(retention, now, newest).unwrap();
        assert_eq!(names().len(), left, "{retention:?} {newest:?}");
    }
    assert_eq!(names(), ["audit-2027-01.jsonl"], "never the one with the last entry");
    let found = judged(folder.path());
    assert!(found.ok && found.notes[0].contains("retention"), "{found:?}");
}

#[test]
fn months_are_those_of_the_calendar() {
    for (at, file) in [
        (0, "audit-1970-01.jsonl"),
        (NOVEMBER, FILE),
        (951_782_400_000, "audit-2000-02.jsonl"),
        (951_868_799_999, "audit-2000-02.jsonl"),
        (951_868_800_000, "audit-2000-03.jsonl"),
        (1_798_761_599_999, "audit-2026-12.jsonl"),
        (1_798_761_600_000, "audit-2027-01.jsonl"),
    ] {
        let month = Month::of(UnixMs(at));
        assert_eq!(month.file(), file);
        assert_eq!(Month::of_file(Path::new(file)), Some(month));
        assert!(month.end().0 > at && Month::of(month.end()) > month, "{file}");
        assert_eq!(Month::of(UnixMs(month.end().0 - 1)), month, "{file}");
    }
    for other in
        ["audit-2026-13.jsonl", "audit-2026-1.jsonl", "audit-26-01.jsonl", "audit.jsonl", "audit-2026-11.jsonl.gz"]
    {
        assert_eq!(Month::of_file(Path::new(other)), None, "{other}");
    }
}

/// Where nothing can be written, nothing is lost: it is written once that is over.
#[test]
fn p10_a_folder_that_cannot_be_written_is_named_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("audit");
    fs::write(&blocked, "a file stands here").unwrap();
    let mut state = ClusterState::default();
    enter(&mut state, NOVEMBER, 2);
    let mut files = AuditFiles::new(&blocked);
    let told = files.take(&state).unwrap_err().to_string();
    assert!(told.contains("/audit: ") && told.contains("entries wait in memory"), "{told}");
    fs::remove_file(&blocked).unwrap();
    enter(&mut state, NOVEMBER, 2);
    assert_eq!(files.take(&state).unwrap(), 4);
    is_whole(&blocked, 1, 4);
}
