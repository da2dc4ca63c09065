//! Who is told, in which order, and how bad an event is: contacts, escalation ladders and incident levels, as the
//! configuration in force has them. Replicated with it, so that whoever applies a page knows whom it goes to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ids::{ContactName, GroupName, LadderName, ReceiverName};
use super::page::Severity;

/// A critical incident's acknowledgement lasts so long unless the ladder says otherwise, milliseconds.
pub const CRITICAL_ACK_LASTS_MS: u64 = 4 * 3_600_000;

/// Somebody who is told, or is called by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// `dr-coordinator`, `database-administrator`, `cloud-provider` … or a free word (E4).
    pub role: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The routes by which the watchdog reaches them; none: they are called by hand.
    #[serde(default)]
    pub receivers: Vec<ReceiverName>,
}

/// One step of a ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderStep {
    /// So long after the incident opened, not acknowledged, milliseconds.
    pub after_ms: u64,
    /// Who is told.
    pub contacts: Vec<ContactName>,
}

/// Who is told when nobody acknowledges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ladder {
    /// Its name.
    pub name: LadderName,
    /// Whose incidents; empty: those that no other ladder names, and the cluster's own.
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// Which; empty: all.
    #[serde(default)]
    pub severities: Vec<Severity>,
    /// In order, times rising, the first at 0.
    pub steps: Vec<LadderStep>,
    /// After the last step everybody is told again this often, milliseconds.
    #[serde(default)]
    pub repeat_every_ms: u64,
    /// At most so many times.
    #[serde(default)]
    pub repeat_max: u32,
    /// So long an acknowledgement keeps the ladder still, milliseconds; 0: until the incident is over. `None`: 4 h where
    /// critical, else until it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_lasts_ms: Option<u64>,
}

impl Ladder {
    fn takes(&self, severity: Severity) -> bool {
        self.severities.is_empty() || self.severities.contains(&severity)
    }

    /// How long an acknowledgement keeps it still, milliseconds; `None`: until the incident is over.
    pub fn ack_lasts(&self, severity: Severity) -> Option<u64> {
        match self.ack_lasts_ms {
            Some(0) => None,
            Some(ms) => Some(ms),
            None => (severity == Severity::Critical).then_some(CRITICAL_ACK_LASTS_MS),
        }
    }

    /// How often it tells somebody in all, repeats included.
    pub fn tellings(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX).saturating_add(self.repeat_max)
    }
}

/// How bad, and what is aimed for then (requirements B).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// 1 is the worst.
    pub number: u8,
    /// In a word.
    pub name: String,
    /// How urgently people are told.
    pub severity: Severity,
    /// Objective: it serves again within, milliseconds.
    pub rto_ms: u64,
    /// Objective: at most so much is lost, milliseconds of writes.
    pub rpo_ms: u64,
}

impl Level {
    /// `1 critical`.
    pub fn title(&self) -> String {
        format!("{} {}", self.number, self.name)
    }
}

/// A level as configured: of one group or of all, and the events that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelRule {
    /// Of this group alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// Events by name, or by their beginning and `*`.
    #[serde(default)]
    pub events: Vec<String>,
    /// What they mean.
    pub level: Level,
}

impl LevelRule {
    fn names(&self, event: &str) -> bool {
        self.events.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => event.starts_with(start),
            None => pattern == event,
        })
    }
}

/// The levels of requirements B, where nothing else is configured.
pub fn built_in_levels() -> [Level; 3] {
    let level = |number, name: &str, severity, rto_h: u64, rpo_min: u64| Level {
        number,
        name: name.to_owned(),
        severity,
        rto_ms: rto_h * 3_600_000,
        rpo_ms: rpo_min * 60_000,
    };
    [
        level(1, "critical", Severity::Critical, 1, 15),
        level(2, "high", Severity::Error, 4, 60),
        level(3, "medium", Severity::Warning, 8, 240),
    ]
}

/// Everything about telling that the configuration in force says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OnCall {
    /// By name.
    pub contacts: BTreeMap<ContactName, Contact>,
    /// In the file's order. None: every receiver gets every page.
    pub ladders: Vec<Ladder>,
    /// What differs from [`built_in_levels`].
    pub levels: Vec<LevelRule>,
}

impl OnCall {
    /// Nothing is configured.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// The ladder of an incident: the first that names its group, else the first that names none.
    pub fn ladder_for(&self, group: Option<&GroupName>, severity: Severity) -> Option<&Ladder> {
        let mut fitting = self.ladders.iter().filter(|ladder| ladder.takes(severity));
        let own = |ladder: &&Ladder| group.is_some_and(|group| ladder.groups.contains(group));
        fitting.clone().find(own).or_else(|| fitting.find(|ladder| ladder.groups.is_empty()))
    }

    /// The levels of a group, or of the cluster's own incidents, worst first.
    pub fn levels_of(&self, group: Option<&GroupName>) -> BTreeMap<u8, Level> {
        let mut levels: BTreeMap<u8, Level> =
            built_in_levels().into_iter().map(|level| (level.number, level)).collect();
        let common = self.levels.iter().filter(|rule| rule.group.is_none());
        let own = self.levels.iter().filter(|rule| rule.group.is_some() && rule.group.as_ref() == group);
        levels.extend(common.chain(own).map(|rule| (rule.level.number, rule.level.clone())));
        levels
    }

    /// The level of an event: as configured for the group, else for all, else by the severity it was told with.
    pub fn level_of(&self, group: Option<&GroupName>, event: &str, severity: Severity) -> Option<Level> {
        let named = |rule: &&LevelRule| rule.names(event);
        let own = self.levels.iter().filter(|rule| rule.group.is_some() && rule.group.as_ref() == group).find(named);
        let rule = own.or_else(|| self.levels.iter().filter(|rule| rule.group.is_none()).find(named));
        let number = match (rule, severity) {
            (Some(rule), _) => rule.level.number,
            (None, Severity::Critical) => 1,
            (None, Severity::Error) => 2,
            (None, Severity::Warning) => 3,
            (None, Severity::Info) => return None,
        };
        self.levels_of(group).remove(&number)
    }

    /// The receivers of these contacts.
    pub fn receivers_of<'a>(&self, contacts: impl IntoIterator<Item = &'a ContactName>) -> BTreeSet<ReceiverName> {
        let found = contacts.into_iter().filter_map(|name| self.contacts.get(name));
        found.flat_map(|contact| contact.receivers.iter().cloned()).collect()
    }
}
