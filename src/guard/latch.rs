//! The latch: a durable mark "fenced under token X". Its file is there from enrolment on, clear or set, so that a lost
//! file is never read as clear.

use serde::{Deserialize, Serialize};

use super::protocol::LatchMark;
use super::records::{self, RecordError};
use super::token_store::GroupFiles;
use crate::domain::ids::Token;

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
    records::read(&files.latch())
}

/// Writes the latch, durably. The caller holds the action lock.
///
/// # Errors
/// The write failed: it may be as before.
pub fn store(files: &GroupFiles, latch: &Latch) -> Result<(), RecordError> {
    records::write_durably(&files.latch(), latch)
}

/// May `token` clear this latch? Only a later one than set it.
pub fn may_clear(mark: &LatchMark, token: Token) -> bool {
    token > mark.token
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::UnixMs;

    #[test]
    fn only_a_later_token_clears() {
        let token = |n| Token { epoch: 1, n };
        let mark = LatchMark { token: token(5), run: "r".into(), step: "fence".into(), at: UnixMs(0) };
        assert!(!may_clear(&mark, token(4)));
        assert!(!may_clear(&mark, token(5)));
        assert!(may_clear(&mark, token(6)));
        assert!(may_clear(&mark, Token { epoch: 2, n: 1 }));
    }
}
