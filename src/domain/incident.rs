//! An incident: what was told under one key until it is over, who has it, and who is told next. Pure.
//!
//! It opens with the first page of its key, climbs its ladder while nobody acknowledges, and ends with the resolve. Every
//! telling is a command of its own ([`Change::Escalate`](super::command::Change::Escalate)) that carries how often
//! somebody was told before, so that two leaders cannot tell the same step twice.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::ids::{ContactName, GroupName, LadderName, Principal, ReceiverName, UnixMs};
use super::on_call::{Ladder, Level, OnCall};
use super::page::{Page, Severity};

/// A word that a person has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Who.
    pub by: Principal,
    /// When.
    pub at: UnixMs,
    /// From where, as the first node saw the caller; empty where nobody can tell.
    pub from: String,
    /// Why, or what they do about it.
    pub reason: String,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// Who: a node where it ended by itself.
    pub by: Principal,
    /// When.
    pub at: UnixMs,
    /// In words.
    pub summary: String,
}

/// One telling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// When.
    pub at: UnixMs,
    /// The page's number in the outbox.
    pub seq: u64,
    /// What for: `step 2 of 3`, `repeat 1 of 3`, `everybody` …
    pub what: String,
    /// Whom; empty where no ladder says.
    pub contacts: Vec<ContactName>,
    /// By which routes.
    pub receivers: BTreeSet<ReceiverName>,
}

/// How many tellings an incident keeps: the first and the newest.
pub const TELLINGS_KEPT: usize = 40;

/// One incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Position in the log where it opened, or became worse: tells one incident of a key from the next.
    pub opened: u64,
    /// When.
    pub at: UnixMs,
    /// What was told last; its key is the incident's.
    pub page: Page,
    /// How bad.
    pub level: Option<Level>,
    /// The ladder it climbs; none: everybody was told.
    pub ladder: Option<LadderName>,
    /// How often the ladder told somebody since it began (anew).
    pub told: u32,
    /// When last.
    pub told_at: UnixMs,
    /// How often the ladder began anew because an acknowledgement lapsed.
    pub round: u32,
    /// Who was told when, bounded.
    pub tellings: VecDeque<Telling>,
    /// Every receiver reached so far.
    pub receivers: BTreeSet<ReceiverName>,
    /// Who has it.
    pub acknowledged: Option<Acknowledgement>,
    /// How it ended.
    #[serde(default)]
    pub resolved: Option<Resolution>,
    /// An operator tries whether pages arrive.
    #[serde(default)]
    pub is_test: bool,
}

impl Incident {
    /// Its key.
    pub fn key(&self) -> &str {
        &self.page.key
    }

    /// The group it concerns.
    pub fn group(&self) -> Option<&GroupName> {
        self.page.group.as_ref()
    }

    /// How urgent.
    pub fn severity(&self) -> Severity {
        self.page.severity
    }
}

/// The page with its level's severity, and the level's objectives among its facts.
pub fn stamped(on_call: &OnCall, mut page: Page) -> (Page, Option<Level>) {
    let level = on_call.level_of(page.group.as_ref(), &page.event, page.severity);
    if let Some(level) = &level {
        page.severity = level.severity;
        page.details.insert("level".to_owned(), level.title());
        page.details.insert("rto_objective_s".to_owned(), (level.rto_ms / 1000).to_string());
        page.details.insert("rpo_objective_s".to_owned(), (level.rpo_ms / 1000).to_string());
    }
    (page, level)
}

/// What comes next if nothing else happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextTelling {
    /// A step of the ladder, counted from 0.
    Step(usize),
    /// Everybody reached so far again, counted from 1.
    Repeat(u32),
    /// The ladder is gone from the configuration: every receiver, as without ladders.
    Everybody,
    /// The acknowledgement lapses, and the ladder begins anew.
    Lapse,
}

/// What comes next, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// What.
    pub what: NextTelling,
    /// It waits since.
    pub since: UnixMs,
    /// For so long, milliseconds.
    pub wait_ms: u64,
}

impl Next {
    /// When it is due, by the clock that `since` was read from.
    pub fn at(&self) -> UnixMs {
        self.since.plus(self.wait_ms)
    }

    /// It is due. A moment further ahead than the whole wait comes from a clock that was wrong: better told twice as early
    /// than never.
    pub fn is_due(&self, now: UnixMs) -> bool {
        now >= self.at() || self.since > now.plus(self.wait_ms.max(CLOCK_TOLERANCE_MS))
    }
}

/// Clocks of a majority differ by no more, milliseconds.
const CLOCK_TOLERANCE_MS: u64 = 5000;

/// What comes next for an open incident; `None`: nothing until it is over.
pub fn next(on_call: &OnCall, incident: &Incident) -> Option<Next> {
    if incident.is_test || incident.resolved.is_some() {
        return None;
    }
    let ladder = on_call.ladder_for(incident.group(), incident.severity());
    if let Some(ack) = &incident.acknowledged {
        let wait_ms = ladder?.ack_lasts(incident.severity())?;
        return Some(Next { what: NextTelling::Lapse, since: ack.at, wait_ms });
    }
    let climbed = incident.ladder.as_ref()?;
    let at_once = |what| Some(Next { what, since: incident.told_at, wait_ms: 0 });
    match ladder {
        None => at_once(NextTelling::Everybody),
        Some(other) if &other.name != climbed => at_once(NextTelling::Step(0)),
        Some(ladder) => rung(ladder, incident),
    }
}

fn rung(ladder: &Ladder, incident: &Incident) -> Option<Next> {
    let told = usize::try_from(incident.told).unwrap_or(usize::MAX);
    if let Some(step) = ladder.steps.get(told) {
        let before = told.checked_sub(1).and_then(|n| ladder.steps.get(n)).map_or(0, |step| step.after_ms);
        let wait_ms = step.after_ms.saturating_sub(before);
        return Some(Next { what: NextTelling::Step(told), since: incident.told_at, wait_ms });
    }
    let repeated = u32::try_from(told.saturating_sub(ladder.steps.len())).unwrap_or(u32::MAX);
    (repeated < ladder.repeat_max && ladder.repeat_every_ms > 0).then_some(Next {
        what: NextTelling::Repeat(repeated + 1),
        since: incident.told_at,
        wait_ms: ladder.repeat_every_ms,
    })
}

/// It tells of something that is over, as a run that succeeded: nobody climbs a ladder for it, and it is no open incident
/// for long.
pub fn is_event(event: &str) -> bool {
    event == "LB_FAILOVER" || event.ends_with("_SUCCESS") || event.ends_with("_WITHDRAWN")
}

/// So long it stands for those who come to look, milliseconds.
pub const EVENT_LASTS_MS: u64 = 15 * 60_000;

/// Events that have stood long enough.
pub fn over<'a>(
    incidents: impl IntoIterator<Item = &'a Incident> + 'a,
    clock_agrees: bool,
    now: UnixMs,
) -> impl Iterator<Item = &'a Incident> + 'a {
    let is_over = move |incident: &&Incident| {
        clock_agrees && is_event(&incident.page.event) && !incident.is_test && now.since(incident.at) >= EVENT_LASTS_MS
    };
    incidents.into_iter().filter(is_over)
}

/// One telling that is due, with the state it was decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The incident.
    pub key: String,
    /// The group it concerns.
    pub group: Option<GroupName>,
    /// Which incident of that key.
    pub opened: u64,
    /// How often somebody was told before.
    pub told: u32,
    /// How often the ladder began anew.
    pub round: u32,
    /// The moment of the acknowledgement that has lapsed.
    pub lapsed: Option<UnixMs>,
}

/// What is due now, one telling an incident. Nothing while this node's clock disagrees with a majority's.
pub fn due<'a>(
    on_call: &'a OnCall,
    incidents: impl IntoIterator<Item = &'a Incident> + 'a,
    clock_agrees: bool,
    now: UnixMs,
) -> impl Iterator<Item = Due> + 'a {
    let is_due = move |incident: &&Incident| next(on_call, incident).is_some_and(|next| next.is_due(now));
    incidents.into_iter().filter(move |_| clock_agrees).filter(is_due).map(|incident| Due {
        key: incident.key().to_owned(),
        group: incident.group().cloned(),
        opened: incident.opened,
        told: incident.told,
        round: incident.round,
        lapsed: incident.acknowledged.as_ref().map(|ack| ack.at),
    })
}
