//! The latch: a durable mark "fenced under token X". Its file is there from enrolment on, clear or set, so that a lost
//! file is never read as clear.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::in_flight::Who;
use super::protocol::{LatchMark, Refusal};
use super::records::{self, RecordError};
use super::token_store::GroupFiles;

/// The latch's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latch {
    /// Set, by whom.
    pub mark: Option<LatchMark>,
    /// Why it is clear, for people: the token that cleared it, or an operator's words.
    pub cleared_by: Option<String>,
}

/// Reads the latch.
///
/// # Errors
/// Missing, damaged or unreadable: none of them means clear.
pub fn load(files: &GroupFiles) -> Result<Latch, RecordError> {
    load_at(&files.latch())
}

/// Reads the latch in this file: Redis has its own.
///
/// # Errors
/// As [`load`].
pub fn load_at(file: &Path) -> Result<Latch, RecordError> {
    records::read(file)
}

/// Writes the latch, durably. The caller holds the action lock.
///
/// # Errors
/// The write failed: it may be as before.
pub fn store(files: &GroupFiles, latch: &Latch) -> Result<(), RecordError> {
    store_at(&files.latch(), latch)
}

/// Writes the latch in this file.
///
/// # Errors
/// As [`store`].
pub fn store_at(file: &Path, latch: &Latch) -> Result<(), RecordError> {
    records::write_durably(file, latch)
}

/// May `who` clear this latch? A later token than set it, or the very run that set it, under the same token: a planned move fences, and
/// then takes that back or makes the host a standby. Whoever holds that token orders its own requests, and no fence proof is asked for
/// after either.
pub fn may_clear(mark: &LatchMark, who: &Who) -> bool {
    who.token > mark.token || (who.token == mark.token && who.run == mark.run)
}

/// What forbids clearing it, for an action that would have to.
pub fn forbids_clearing(file: &Path, who: &Who) -> Option<(Refusal, String)> {
    match load_at(file) {
        Err(e) => Some((Refusal::DamagedStore, format!("{e}: a latch that cannot be read cannot be cleared"))),
        Ok(Latch { mark: Some(mark), .. }) if !may_clear(&mark, who) => {
            let why = format!(
                "latched under token {} by run {}, which token {} of run {} is not later than",
                mark.token, mark.run, who.token, who.run
            );
            Some((Refusal::Latched, why))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{Token, UnixMs};

    #[test]
    fn only_a_later_token_or_the_run_that_set_it_clears() {
        let who = |epoch, n, run: &str| Who {
            group: "a".into(),
            run: run.into(),
            step: "release".into(),
            attempt: 1,
            token: Token { epoch, n },
        };
        let mark = LatchMark { token: Token { epoch: 1, n: 5 }, run: "r".into(), step: "fence".into(), at: UnixMs(0) };
        for (who, may) in [
            (who(1, 4, "r"), false),
            (who(1, 5, "r"), true),
            (who(1, 5, "other"), false),
            (who(1, 6, "r"), true),
            (who(1, 6, "other"), true),
            (who(2, 1, "other"), true),
        ] {
            assert_eq!(may_clear(&mark, &who), may, "{who:?}");
        }
    }
}
