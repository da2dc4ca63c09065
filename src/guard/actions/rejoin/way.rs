//! Whether the old primary's log and the new one's have parted, and where. Pure: histories and control files in, a way out. As `pg_rewind`
//! decides it, and besides where no log hints are written and `pg_rewind` could not look.

use crate::guard::protocol::{Lsn, WalState};
use crate::guard::wal::Control;

/// A timeline of a history, and where it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its number.
    pub timeline: u32,
    /// Where it began.
    pub begin: Lsn,
    /// Where the next began; `u64::MAX` of the last.
    pub end: Lsn,
}

/// Every timeline up to `last`, by the content of its history file (empty for timeline 1).
///
/// # Errors
/// What is wrong with the file, in words.
pub fn history(last: u32, file: &str) -> Result<Vec<Part>, String> {
    let mut parts: Vec<Part> = Vec::new();
    let begin_of_next = |parts: &[Part]| parts.last().map_or(Lsn(0), |part| part.end);
    for line in file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_ascii_whitespace();
        let timeline = words.next().and_then(|word| word.parse().ok());
        let end = words.next().and_then(Lsn::parse);
        let (Some(timeline), Some(end)) = (timeline, end) else {
            return Err(format!("the history of timeline {last} has a line that is none: {line:?}"));
        };
        let begin = begin_of_next(&parts);
        if end < begin || timeline >= last || parts.last().is_some_and(|part| part.timeline >= timeline) {
            return Err(format!("the history of timeline {last} is not in order at {line:?}"));
        }
        parts.push(Part { timeline, begin, end });
    }
    parts.push(Part { timeline: last, begin: begin_of_next(&parts), end: Lsn(u64::MAX) });
    Ok(parts)
}

/// Where two histories part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The last timeline of both.
    pub timeline: u32,
    /// The last position of both on it.
    pub lsn: Lsn,
}

/// `None`: they have nothing in common.
pub fn fork(ours: &[Part], theirs: &[Part]) -> Option<Fork> {
    let common =
        ours.iter().zip(theirs).take_while(|(our, their)| our.timeline == their.timeline && our.begin == their.begin);
    common.last().map(|(our, their)| Fork { timeline: our.timeline, lsn: our.end.min(their.end) })
}

/// What is to be done with the old data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing: all of its log is in the other's too.
    Follow(Fork),
    /// It has, or may have, what the other has not.
    Rewind(Fork),
    /// It is of no use.
    Copy,
}

/// Decides it. `theirs_to`: how far the other's log goes now.
pub fn decide(control: &Control, ours: &[Part], theirs: &[Part], theirs_to: Lsn) -> Way {
    let Some(mut fork) = fork(ours, theirs) else { return Way::Copy };
    fork.lsn = fork.lsn.min(theirs_to);
    let (begins_before, timeline) = match control.state {
        // The record of the shutdown checkpoint is the last one, and begins here; a fork lies between two records.
        WalState::ShutDown => (control.checkpoint_lsn < fork.lsn, control.timeline),
        // A standby's: what its data may hold already lies before this.
        WalState::ShutDownInRecovery | WalState::InArchiveRecovery => {
            let (lsn, timeline) = match control.min_recovery_lsn {
                Lsn(0) => (control.checkpoint_lsn, control.timeline),
                lsn => (lsn, control.min_recovery_timeline),
            };
            (lsn <= fork.lsn, timeline)
        }
        // It was killed: only its log can tell how far it went.
        _ => (false, control.timeline),
    };
    let is_common = theirs.iter().any(|part| part.timeline == timeline) && timeline <= fork.timeline;
    if begins_before && is_common { Way::Follow(fork) } else { Way::Rewind(fork) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(text: &str) -> Lsn {
        Lsn::parse(text).expect("an LSN")
    }

    #[test]
    fn a_history_is_read_in_order_or_not_at_all() {
        let file = "1\t0/3000000\tno recovery target specified\n\n# a note\n2\t0/5000000\tbefore 2026\n";
        let parts = history(3, file).expect("in order");
        let part = |timeline, begin: &str, end| Part { timeline, begin: lsn(begin), end };
        assert_eq!(
            parts,
            [
                part(1, "0/0", lsn("0/3000000")),
                part(2, "0/3000000", lsn("0/5000000")),
                part(3, "0/5000000", Lsn(u64::MAX))
            ]
        );
        assert_eq!(history(1, "").expect("the first").len(), 1);
        for (last, file) in [(2, "x"), (2, "1"), (2, "1 0/g"), (2, "2 0/1"), (3, "2 0/1\n1 0/2"), (3, "1 0/2\n2 0/1")] {
            assert!(history(last, file).is_err(), "{file:?}");
        }
    }

    #[test]
    fn what_is_done_follows_from_where_the_two_parted() {
        let control = |state, at: &str, timeline| Control {
            state,
            system_identifier: 7,
            timeline,
            checkpoint_lsn: lsn(at),
            min_recovery_lsn: lsn(at),
            min_recovery_timeline: timeline,
        };
        let (first, second) = (history(1, "").expect("plain"), history(2, "1 0/3000000").expect("plain"));
        let other_second = history(2, "1 0/2000000").expect("plain");
        let third = history(3, "1 0/3000000\n2 0/5000000").expect("plain");
        let far = lsn("0/9000000");
        let at = |text: &str| Fork { timeline: 1, lsn: lsn(text) };
        let on_second = |text: &str| Fork { timeline: 2, lsn: lsn(text) };
        use WalState::{InArchiveRecovery, InProduction, ShutDown, ShutDownInRecovery};
        for (state, end, timeline, ours, theirs, to, way) in [
            // A planned move: the checkpoint's record is the last before the fork.
            (ShutDown, "0/2FFFF88", 1, &first, &second, far, Way::Follow(at("0/3000000"))),
            (ShutDown, "0/3000000", 1, &first, &second, far, Way::Rewind(at("0/3000000"))),
            (ShutDown, "0/3000080", 1, &first, &second, far, Way::Rewind(at("0/3000000"))),
            // Nobody was promoted: it has been behind, or ahead.
            (ShutDown, "0/2FFFF88", 1, &first, &first, lsn("0/2FFFFFF"), Way::Follow(at("0/2FFFFFF"))),
            (ShutDown, "0/2FFFF88", 1, &first, &first, lsn("0/2000000"), Way::Rewind(at("0/2000000"))),
            // Killed: only pg_rewind knows.
            (InProduction, "0/2000000", 1, &first, &second, far, Way::Rewind(at("0/3000000"))),
            // A standby that stopped before the fork, at it, and past it.
            (ShutDownInRecovery, "0/2000000", 1, &first, &second, far, Way::Follow(at("0/3000000"))),
            (InArchiveRecovery, "0/3000000", 1, &first, &second, far, Way::Follow(at("0/3000000"))),
            (ShutDownInRecovery, "0/3000001", 1, &first, &second, far, Way::Rewind(at("0/3000000"))),
            // Both were promoted, each by its own.
            (ShutDown, "0/2800000", 2, &second, &other_second, far, Way::Rewind(at("0/2000000"))),
            (ShutDown, "0/4000000", 2, &second, &first, far, Way::Rewind(at("0/3000000"))),
            // Home again.
            (ShutDown, "0/4FFFF88", 2, &second, &third, far, Way::Follow(on_second("0/5000000"))),
            (ShutDown, "0/4FFFF88", 2, &second, &second, far, Way::Follow(on_second("0/9000000"))),
        ] {
            assert_eq!(decide(&control(state, end, timeline), ours, theirs, to), way, "{state} {end} {timeline}");
        }
        let stranger = [Part { timeline: 9, begin: Lsn(0), end: Lsn(u64::MAX) }];
        assert_eq!(decide(&control(ShutDown, "0/1", 1), &first, &stranger, far), Way::Copy);
    }
}
