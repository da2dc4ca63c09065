//! The judgement as it is replicated: what each item came to and why, in words that stay the same while the cause does, so
//! that nothing is written while nothing changes.

use serde::{Deserialize, Serialize};

use super::{Holds, Readiness};
use crate::domain::ids::{NodeId, RegionName, UnixMs};
use crate::domain::text::one_line;

/// No judgement has more items.
pub const ITEMS_MAX: usize = 24;
/// A reason is at most so long, characters.
pub const REASON_CHARS_MAX: usize = 200;
/// An item's name is at most so long, characters.
const NAME_CHARS_MAX: usize = 32;

/// One item of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedItem {
    /// What.
    pub name: String,
    /// Whether.
    pub holds: Holds,
    /// Why not, in short; empty where it does.
    pub reason: String,
}

/// What a leader found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The group's serving epoch then.
    pub serving_epoch: u64,
    /// The region that would vanish.
    pub from: RegionName,
    /// Where the group would go; the same region where no plan leads away.
    pub to: RegionName,
    /// In the order of a failover.
    pub items: Vec<JudgedItem>,
}

impl Judgement {
    /// What is worth remembering of it.
    pub fn of(readiness: &Readiness, serving_epoch: u64) -> Self {
        let item = |item: &super::Item| JudgedItem {
            name: item.name.to_owned(),
            holds: item.holds,
            reason: one_line(&item.reason, REASON_CHARS_MAX),
        };
        Self {
            serving_epoch,
            from: readiness.from.clone(),
            to: readiness.to.clone(),
            items: readiness.items.iter().map(item).collect(),
        }
    }

    /// That it could not be judged, or that there is nothing to judge.
    pub fn without(serving_epoch: u64, here: RegionName, holds: Holds, reason: &str) -> Self {
        let item = JudgedItem { name: "judgement".to_owned(), holds, reason: one_line(reason, REASON_CHARS_MAX) };
        Self { serving_epoch, from: here.clone(), to: here, items: vec![item] }
    }

    /// The worst item's; what has no items is unknown.
    pub fn verdict(&self) -> Holds {
        self.items.iter().map(|item| item.holds).max().unwrap_or(Holds::Unknown)
    }

    /// Why it is not well: the reasons of whatever is as bad as the whole.
    pub fn why(&self) -> String {
        let verdict = self.verdict();
        let worst = self.items.iter().filter(|item| item.holds == verdict && item.holds != Holds::Yes);
        worst.map(|item| format!("{}: {}", item.name, item.reason)).collect::<Vec<_>>().join("; ")
    }

    fn is_about_the_same(&self, other: &Judgement) -> bool {
        (self.serving_epoch, &self.from) == (other.serving_epoch, &other.from)
    }

    fn item(&self, name: &str) -> Option<&JudgedItem> {
        self.items.iter().find(|item| item.name == name)
    }

    /// What keeps it from being replicated; nothing that this program judges.
    pub fn fault(&self) -> Option<String> {
        let is_long = |text: &str, max| text.chars().count() > max || text.chars().any(char::is_control);
        if self.items.is_empty() || self.items.len() > ITEMS_MAX {
            return Some(format!("items: {} are not 1 to {ITEMS_MAX}", self.items.len()));
        }
        let odd = |item: &&JudgedItem| is_long(&item.name, NAME_CHARS_MAX) || is_long(&item.reason, REASON_CHARS_MAX);
        self.items.iter().position(|item| odd(&item)).map(|at| format!("items[{at}]: too long, or not one line"))
    }
}

/// What should be remembered after this judgement, where that is something else than what is: better at once, worse only when
/// two judgements in a row say so. One packet that is lost pages nobody, and writes nothing.
///
/// `last` is the judgement before this one by the same leader.
pub fn to_remember(remembered: Option<&Judgement>, last: Option<&Judgement>, now: &Judgement) -> Option<Judgement> {
    let same = |other: &&Judgement| other.is_about_the_same(now);
    let (before, last) = (remembered.filter(same), last.filter(same));
    let mut items = Vec::with_capacity(now.items.len());
    for item in &now.items {
        let find = |of: Option<&Judgement>| of.and_then(|of| of.item(&item.name)).cloned();
        items.push(settle(find(before), find(last), item)?);
    }
    let found = Judgement { items, ..now.clone() };
    (remembered != Some(&found)).then_some(found)
}

/// One item. `None`: bad for the first time anybody looks.
fn settle(before: Option<JudgedItem>, last: Option<JudgedItem>, now: &JudgedItem) -> Option<JudgedItem> {
    if last.as_ref() == Some(now) {
        return last;
    }
    let better = |last: JudgedItem| if last.holds < now.holds { last } else { now.clone() };
    match (before, last) {
        (Some(before), _) if now.holds < before.holds => Some(now.clone()),
        (Some(before), Some(last)) if now.holds > before.holds && last.holds > before.holds => Some(better(last)),
        (Some(before), _) => Some(before),
        (None, Some(last)) => Some(better(last)),
        (None, None) => (now.holds <= Holds::Weak).then(|| now.clone()),
    }
}

/// What is remembered of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The judgement.
    pub judgement: Judgement,
    /// Since when the whole comes to what it does, by the judges' clocks.
    pub since: UnixMs,
    /// When something of it last changed.
    pub changed_at: UnixMs,
    /// Who judged then.
    pub node: NodeId,
}

impl Mark {
    /// After this judgement.
    pub fn after(earlier: Option<Mark>, judgement: Judgement, at: UnixMs, node: NodeId) -> Self {
        let same = |mark: &Mark| {
            mark.judgement.is_about_the_same(&judgement) && mark.judgement.verdict() == judgement.verdict()
        };
        let since = earlier.filter(same).map_or(at, |mark| mark.since);
        Self { judgement, since, changed_at: at, node }
    }
}
