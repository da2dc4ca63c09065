//! Counting votes: whether a strict majority of all voters, one of them outside the region, judges a trigger down, and
//! for how long they have agreed.

use std::collections::BTreeSet;

use super::ids::{GroupName, NodeId, RegionName, TargetName};
use super::observation::Verdict;
use super::policy::{ClusterPolicy, GroupPolicy, Need, Trigger};
use super::view::{Sight, View};

/// One voter's answer to "is this region's trigger down?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vote {
    /// It sees enough targets down, for this long, milliseconds.
    Down {
        /// How long enough of them have been down together.
        held_ms: u64,
    },
    /// It sees enough of them alive.
    NotDown,
    /// It cannot tell: some are only suspect, or were never seen up.
    Unsure {
        /// Why.
        why: String,
    },
    /// It sees neither its references nor its peers: its `down` does not count.
    Isolated,
    /// No report, or one too old.
    Absent,
}

/// A voter with its vote and the words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ballot {
    /// Who.
    pub node: NodeId,
    /// By the configuration, never by what was probed.
    pub region: Option<RegionName>,
    /// The vote.
    pub vote: Vote,
    /// What it saw, target by target.
    pub words: String,
}

/// The votes on one region's trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Every voter's ballot.
    pub ballots: Vec<Ballot>,
    /// Votes needed: a strict majority of all voters.
    pub needed: usize,
    /// Votes for down.
    pub down: usize,
    /// At least one of them from outside the region.
    pub outside: bool,
    /// How long the needed majority, with one from outside, has agreed, milliseconds; 0 where it has not.
    pub agreed_ms: u64,
}

impl Count {
    /// A quorum verdict of down.
    pub fn is_down(&self) -> bool {
        self.down >= self.needed && self.outside
    }

    /// Some fresh voter says the region lives.
    pub fn somebody_sees_it_up(&self) -> bool {
        self.ballots.iter().any(|ballot| ballot.vote == Vote::NotDown)
    }
}

/// Counts the votes on `region`'s trigger. `seen_up`: targets that may trigger at all.
pub fn count(
    policy: &ClusterPolicy,
    group: &GroupName,
    rules: &GroupPolicy,
    trigger: &Trigger,
    region: &RegionName,
    seen_up: &BTreeSet<TargetName>,
    view: &View,
) -> Count {
    let ballots: Vec<Ballot> = view
        .voters
        .iter()
        .map(|id| {
            let sight = view.sights.get(id).filter(|sight| sight.age_ms <= rules.observation_ttl_ms);
            let (vote, words) = vote_of(sight, group, trigger, seen_up);
            Ballot { node: *id, region: policy.members.get(id).map(|member| member.region.clone()), vote, words }
        })
        .collect();
    let needed = view.majority();
    let mut held: Vec<u64> = Vec::new();
    let mut held_outside: Vec<u64> = Vec::new();
    for ballot in &ballots {
        if let Vote::Down { held_ms } = ballot.vote {
            held.push(held_ms);
            if ballot.region.as_ref().is_some_and(|from| from != region) {
                held_outside.push(held_ms);
            }
        }
    }
    held.sort_unstable_by(|a, b| b.cmp(a));
    let majority_ms = held.get(needed.saturating_sub(1)).copied();
    let outside_ms = held_outside.iter().max().copied();
    let agreed_ms = match (majority_ms, outside_ms) {
        (Some(all), Some(one)) => all.min(one),
        _ => 0,
    };
    Count { down: held.len(), needed, outside: outside_ms.is_some(), agreed_ms, ballots }
}

fn vote_of(
    sight: Option<&Sight>,
    group: &GroupName,
    trigger: &Trigger,
    seen_up: &BTreeSet<TargetName>,
) -> (Vote, String) {
    let Some(sight) = sight else { return (Vote::Absent, "no fresh report".to_owned()) };
    let mut held: Vec<u64> = Vec::new();
    let mut doubtful = Vec::new();
    let mut words = Vec::new();
    for target in &trigger.targets {
        let Some((seen, held_ms)) = sight.of(group, target) else {
            doubtful.push(format!("{target} not probed yet"));
            words.push(format!("{target} ?"));
            continue;
        };
        let reason = seen.failure.as_ref().map_or(String::new(), |failure| format!(" ({})", failure.detail));
        match seen.verdict {
            Verdict::Up => words.push(format!("{target} up")),
            verdict => words.push(format!("{target} {verdict} for {:.1} s{reason}", held_ms as f64 / 1000.0)),
        }
        match seen.verdict {
            Verdict::Down if seen_up.contains(target) => held.push(held_ms),
            Verdict::Down => doubtful.push(format!("{target} was never seen up under this configuration")),
            Verdict::Suspect => doubtful.push(format!("{target} is suspect{reason}")),
            Verdict::Up => {}
        }
    }
    let need = need_of(trigger);
    held.sort_unstable_by(|a, b| b.cmp(a));
    let vote = if sight.report.isolated {
        Vote::Isolated
    } else if need > 0 && held.len() >= need {
        Vote::Down { held_ms: held[need - 1] }
    } else if held.len() + doubtful.len() >= need {
        Vote::Unsure { why: doubtful.join("; ") }
    } else {
        Vote::NotDown
    };
    (vote, words.join(", "))
}

/// How many targets must be down. A trigger without targets needs one more than it has: it never fires.
pub(crate) fn need_of(trigger: &Trigger) -> usize {
    match trigger.need {
        Need::All => trigger.targets.len().max(1),
        Need::Any => 1,
        Need::AtLeast(n) => usize::try_from(n).unwrap_or(usize::MAX).max(1),
    }
}
