//! How far each node's store is known to have come, so that one that went back in time is found out: a folder restored as
//! a whole from an older copy agrees with itself, but not with what its node told the others since.
//!
//! A store counts its *position*: the commits that hold something others rely on. At each start it writes down a new
//! name for this start and the position at which it began. Both are said in every message between nodes, for the node
//! itself and for every other that it knows of. What a node said of itself stays true for ever, however late or often it
//! arrives, so an old message accuses nobody; and a store that went back has begun, under another name, where it had
//! already been.

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use crate::domain::ids::NodeId;

/// So many starts of its own a store remembers.
const STARTS_KEPT: usize = 1000;
/// Of so many nodes a store remembers how far they came.
const NODES_KEPT: usize = 64;

/// A node's store had come so far: said by that node, passed on by others as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Whose store.
    pub node: NodeId,
    /// The name of its start: each has another.
    pub start: String,
    /// The position at which that start began.
    pub began: u64,
    /// The position that was on its disk when this was said.
    pub position: u64,
}

/// One of a store's own starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) id: String,
    pub(super) began: u64,
}

/// Adds a start, and forgets the oldest beyond those kept.
pub(super) fn begin(starts: &mut Vec<Start>, start: Start) {
    starts.push(start);
    let beyond = starts.len().saturating_sub(STARTS_KEPT);
    starts.drain(..beyond);
}

/// Whether a store with these starts, now at `position`, has been where it is said to have been; else, why not.
pub(super) fn judge_own(starts: &[Start], position: u64, said: &Reached) -> Result<(), String> {
    let Some(at) = starts.iter().position(|start| start.id == said.start) else {
        let is_forgotten = starts.len() >= STARTS_KEPT && starts.first().is_some_and(|kept| said.position < kept.began);
        if is_forgotten {
            return Ok(());
        }
        return Err(format!("it knows nothing of its start {}, in which it came to {}", said.start, said.position));
    };
    let came_to = starts.get(at + 1).map_or(position, |next| next.began - 1);
    if said.position <= came_to {
        return Ok(());
    }
    Err(format!("it had come to {} in its start {}, but knows only of {came_to}", said.position, said.start))
}

/// What a store remembers of another that says `said`: nothing it knows is given up for what contradicts it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// Nothing new.
    Known,
    /// It came further, or began anew where it had been.
    Further,
    /// It began where it had been before: it went back in time, or this was said before its last start.
    Backwards,
}

/// Compares what is said of a node's store with what is known of it.
pub(super) fn judge(known: Option<&Reached>, said: &Reached) -> Judged {
    match known {
        None => Judged::Further,
        Some(known) if known.start == said.start => {
            if said.position > known.position {
                Judged::Further
            } else {
                Judged::Known
            }
        }
        Some(known) if said.began > known.position => Judged::Further,
        Some(_) => Judged::Backwards,
    }
}

/// Whether room is left to remember a node that only others speak of.
pub(super) fn has_room(known: usize) -> bool {
    known < NODES_KEPT
}

/// Why a store does not take what was told to it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Contradiction {
    /// This node itself went back in time, or its store fails.
    #[error(transparent)]
    Own(#[from] StoreError),
    /// The one that speaks did.
    #[error(
        "the store of node {} went back in time: it began at {} where it had come to {} before; it was restored from an \
         older copy, or two nodes run under this id, or this was said before its last start; remove it from the cluster \
         and add it again under a new id",
        said.node, said.began, known.position
    )]
    Theirs {
        /// What it said.
        said: Reached,
        /// What is known of it.
        known: Reached,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(start: &str, began: u64, position: u64) -> Reached {
        Reached { node: NodeId(3), start: start.to_owned(), began, position }
    }

    fn starts(list: &[(&str, u64)]) -> Vec<Start> {
        list.iter().map(|(id, began)| Start { id: (*id).to_owned(), began: *began }).collect()
    }

    /// A store that never went back has been wherever it said, however late it hears of it.
    #[test]
    fn nothing_that_a_node_ever_said_accuses_it() {
        let list = starts(&[("a", 1), ("b", 8), ("c", 9), ("d", 20)]);
        for (start, began, last) in [("a", 1, 7), ("b", 8, 8), ("c", 9, 19), ("d", 20, 25)] {
            for position in began..=last {
                assert_eq!(judge_own(&list, 25, &said(start, began, position)), Ok(()), "{start} {position}");
            }
        }
    }

    #[test]
    fn a_store_that_went_back_knows_less_than_it_said() {
        // Copied at position 12 in start c, restored as start e, whatever it did since.
        let list = starts(&[("a", 1), ("b", 8), ("c", 9), ("e", 13), ("f", 60)]);
        assert_eq!(judge_own(&list, 99, &said("c", 9, 12)), Ok(()), "nothing was lost");
        for lost in [said("c", 9, 13), said("c", 9, 59), said("d", 20, 20)] {
            assert!(judge_own(&list, 99, &lost).is_err(), "{lost:?}");
        }
        // A machine set back with its memory goes on in the same start.
        assert!(judge_own(&starts(&[("a", 1)]), 12, &said("a", 1, 13)).is_err());
    }

    #[test]
    fn only_starts_that_were_forgotten_may_be_unknown() {
        let mut list = Vec::new();
        for at in 1..=STARTS_KEPT as u64 + 5 {
            begin(&mut list, Start { id: at.to_string(), began: at * 2 });
        }
        assert_eq!((list.len(), list[0].began), (STARTS_KEPT, 12));
        assert_eq!(judge_own(&list, 9999, &said("5", 10, 11)), Ok(()));
        assert!(judge_own(&list, 9999, &said("x", 10, 12)).is_err());
    }

    /// Every order in which a node's words can arrive ends with the same knowledge, and only the newest start speaks.
    #[test]
    fn what_is_known_of_another_never_goes_back() {
        let words =
            [said("a", 1, 1), said("a", 1, 7), said("b", 8, 8), said("c", 9, 9), said("c", 9, 19), said("d", 20, 20)];
        let take = |known: &mut Option<Reached>, word: &Reached| {
            let judged = judge(known.as_ref(), word);
            if judged == Judged::Further {
                *known = Some(word.clone());
            }
            judged
        };
        for first in 0..words.len() {
            for second in 0..words.len() {
                let mut known = None;
                take(&mut known, &words[first]);
                take(&mut known, &words[second]);
                for word in &words {
                    take(&mut known, word);
                }
                assert_eq!(known.as_ref(), words.last(), "after {first} and {second}");
            }
        }
        let mut known = Some(said("c", 9, 19));
        assert_eq!(take(&mut known, &said("c", 9, 15)), Judged::Known, "late, of the same start");
        assert_eq!(take(&mut known, &said("a", 1, 7)), Judged::Backwards, "late, of an earlier start");
        assert_eq!(take(&mut known, &said("e", 13, 13)), Judged::Backwards, "restored");
        assert_eq!(take(&mut known, &said("e", 13, 99)), Judged::Backwards, "however far it came since");
        assert_eq!(take(&mut known, &said("d", 20, 20)), Judged::Further, "the true one's next start");
    }
}
