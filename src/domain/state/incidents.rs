//! Incidents in the replicated state: opened by the first page of a key, told up their ladder, acknowledged, over.

use std::collections::{BTreeMap, BTreeSet};

use super::audit::Words;
use super::{ClusterState, Effect, Entry, INCIDENTS_MAX, PAST_INCIDENTS_KEPT, bound, reject};
use crate::domain::command::{IncidentRef, RejectionCode};
use crate::domain::ids::{ContactName, LadderName, ReceiverName, RunId, UnixMs};
use crate::domain::incident::{
    Acknowledgement, Incident, NextTelling, Resolution, TELLINGS_KEPT, Telling, is_event, next, stamped,
};
use crate::domain::on_call::Ladder;
use crate::domain::page::{Notice, Page, PageAction, Severity, Told};

/// Whom a telling reaches, and in which words.
struct Reach {
    contacts: Vec<ContactName>,
    receivers: BTreeSet<ReceiverName>,
    what: String,
    ladder: Option<LadderName>,
}

impl ClusterState {
    /// A page opens an incident, adds to the open one of its key, or makes it worse: then the ladder begins anew.
    pub(super) fn raise(&mut self, entry: Entry<'_>, page: Page) {
        let (page, level) = stamped(&self.on_call, page);
        let known = self.incidents.get(&page.key);
        if let Some(open) = known.filter(|open| page.severity >= open.severity()) {
            let reach = Reach {
                contacts: Vec::new(),
                receivers: self.reached(open),
                what: "changed".to_owned(),
                ladder: open.ladder.clone(),
            };
            let key = page.key.clone();
            if let Some(open) = self.incidents.get_mut(&key) {
                open.page.clone_from(&page);
                open.level = level;
            }
            self.tell_incident(entry, &key, page, reach);
            return;
        }
        let before = known.map(|open| open.receivers.clone()).unwrap_or_default();
        let ladder = self.on_call.ladder_for(page.group.as_ref(), page.severity).cloned();
        let mut reach = match &ladder {
            Some(ladder) => self.step_reach(ladder, 0, &BTreeSet::new()),
            None => {
                Reach { contacts: Vec::new(), receivers: self.everybody(), what: "everybody".to_owned(), ladder: None }
            }
        };
        reach.receivers.extend(self.in_force(&before));
        let incident = Incident {
            opened: entry.index,
            at: entry.at,
            page: page.clone(),
            level,
            told: u32::from(ladder.is_some()),
            told_at: entry.at,
            ladder: ladder.map(|ladder| ladder.name).filter(|_| !is_event(&page.event)),
            round: 0,
            tellings: Default::default(),
            receivers: before,
            acknowledged: None,
            resolved: None,
            is_test: false,
        };
        self.open_incident(entry, incident);
        let key = page.key.clone();
        self.tell_incident(entry, &key, page, reach);
    }

    fn open_incident(&mut self, entry: Entry<'_>, incident: Incident) {
        self.incidents.insert(incident.key().to_owned(), incident);
        while self.incidents.len() > INCIDENTS_MAX {
            // Rather a test, or one that somebody has, or the least severe; of those the oldest. Never the newest.
            let rank = |one: &&Incident| {
                (!one.is_test, one.acknowledged.is_none(), std::cmp::Reverse(one.severity()), one.opened)
            };
            let old = self.incidents.values().filter(|one| one.opened != entry.index).min_by_key(rank);
            let Some(old) = old.map(|one| one.key().to_owned()) else { return };
            let reason = format!("more than {INCIDENTS_MAX} incidents are open");
            self.note_dropped(entry, &old, reason);
            self.incidents.remove(&old);
        }
    }

    fn note_dropped(&mut self, entry: Entry<'_>, key: &str, reason: String) {
        let group = self.incidents.get(key).and_then(|incident| incident.group().cloned());
        let (what, outcome) = (format!("forget incident {key}"), "done".to_owned());
        let (change, code) = ("ForgetIncident", "done".to_owned());
        self.enter(entry, Words { group, change, code, what, reason, evidence: Vec::new(), outcome });
    }

    /// Every receiver in force.
    fn everybody(&self) -> BTreeSet<ReceiverName> {
        self.receivers.iter().cloned().collect()
    }

    fn in_force(&self, receivers: &BTreeSet<ReceiverName>) -> BTreeSet<ReceiverName> {
        receivers.iter().filter(|receiver| self.receivers.contains(receiver)).cloned().collect()
    }

    /// Whoever was reached so far; everybody where no ladder says otherwise, or none of them is left.
    fn reached(&self, incident: &Incident) -> BTreeSet<ReceiverName> {
        let reached = self.in_force(&incident.receivers);
        let is_for_everybody = incident.ladder.is_none() || reached.is_empty();
        if is_for_everybody && !incident.is_test { self.everybody() } else { reached }
    }

    /// A step whose contacts have no route is told to those reached so far: they call by hand. Never to nobody.
    fn step_reach(&self, ladder: &Ladder, step: usize, reached: &BTreeSet<ReceiverName>) -> Reach {
        let contacts = ladder.steps.get(step).map(|step| step.contacts.clone()).unwrap_or_default();
        let mut receivers = self.in_force(&self.on_call.receivers_of(&contacts));
        for wider in [self.in_force(reached), self.everybody()] {
            if receivers.is_empty() {
                receivers = wider;
            }
        }
        let what = format!("step {} of {}", step + 1, ladder.steps.len());
        Reach { contacts, receivers, what, ladder: Some(ladder.name.clone()) }
    }

    /// Puts a page about an open incident in the outbox, and keeps whom it told.
    fn tell_incident(&mut self, entry: Entry<'_>, key: &str, page: Page, reach: Reach) {
        let told = |name: &ContactName| Told {
            name: name.clone(),
            role: self.on_call.contacts.get(name).map(|contact| contact.role.clone()).unwrap_or_default(),
        };
        let notice = Notice {
            level: self.incidents.get(key).and_then(|incident| incident.level.clone()),
            ladder: reach.ladder,
            step: reach.what.clone(),
            contacts: reach.contacts.iter().map(told).collect(),
        };
        let seq = self.put(entry, page, &reach.receivers, Some(notice));
        let Some(incident) = self.incidents.get_mut(key) else { return };
        incident.receivers.extend(reach.receivers.iter().cloned());
        let (at, what) = (entry.at, reach.what);
        incident.tellings.push_back(Telling { at, seq, what, contacts: reach.contacts, receivers: reach.receivers });
        if incident.tellings.len() > TELLINGS_KEPT {
            incident.tellings.remove(1);
        }
    }

    /// The next step of the ladder. Rejected where anything happened to the incident since it was decided.
    pub(super) fn escalate(
        &mut self,
        entry: Entry<'_>,
        of: &IncidentRef,
        (told, round): (u32, u32),
        lapsed: Option<UnixMs>,
    ) -> Effect {
        let incident = self.open_one(of)?;
        if (incident.told, incident.round) != (told, round) {
            return reject(RejectionCode::Stale, format!("{}: that step was told before", of.key));
        }
        if incident.acknowledged.as_ref().map(|ack| ack.at) != lapsed {
            return reject(RejectionCode::Stale, format!("{}: acknowledged, or acknowledged anew, since", of.key));
        }
        let Some(next) = next(&self.on_call, incident) else {
            return reject(RejectionCode::Illegal, format!("{}: nobody is left to be told", of.key));
        };
        // Under another ladder than it was decided by, another step may come next.
        if !next.is_due(entry.at) {
            return reject(RejectionCode::Stale, format!("{}: what comes next is not due yet", of.key));
        }
        let ladder = self.on_call.ladder_for(incident.group(), incident.severity());
        let reached = &incident.receivers;
        let (mut reach, now_told, climbs) = match (&next.what, ladder) {
            (NextTelling::Step(step), Some(ladder)) => {
                let now_told = u32::try_from(*step).unwrap_or(u32::MAX).saturating_add(1);
                (self.step_reach(ladder, *step, reached), now_told, Some(ladder.name.clone()))
            }
            (NextTelling::Lapse, Some(ladder)) => (self.step_reach(ladder, 0, reached), 1, Some(ladder.name.clone())),
            (NextTelling::Repeat(n), Some(ladder)) => {
                let everyone: BTreeSet<_> =
                    ladder.steps.iter().flat_map(|step| step.contacts.iter().cloned()).collect();
                let reach = Reach {
                    contacts: everyone.into_iter().collect(),
                    receivers: self.reached(incident),
                    what: format!("repeat {n} of {}", ladder.repeat_max),
                    ladder: Some(ladder.name.clone()),
                };
                (reach, told.saturating_add(1), Some(ladder.name.clone()))
            }
            (_, _) => {
                let receivers = self.everybody();
                (Reach { contacts: Vec::new(), receivers, what: "everybody".to_owned(), ladder: None }, told, None)
            }
        };
        let is_lapse = next.what == NextTelling::Lapse;
        let mut page = incident.page.clone();
        page.summary = unheard(incident, entry.at, &reach.what, is_lapse);
        if let Some(incident) = self.incidents.get_mut(&of.key) {
            incident.told = now_told;
            incident.told_at = entry.at;
            incident.ladder = climbs;
            if is_lapse {
                incident.acknowledged = None;
                incident.round = incident.round.saturating_add(1);
                reach.what.push_str(", again");
            }
        }
        self.tell_incident(entry, &of.key, page, reach);
        Ok(None)
    }

    fn open_one(&self, of: &IncidentRef) -> Result<&Incident, crate::domain::command::Rejection> {
        match self.incidents.get(&of.key) {
            Some(incident) if incident.opened == of.opened => Ok(incident),
            Some(_) => reject(RejectionCode::Stale, format!("{}: it is another incident by now; look again", of.key)),
            None => reject(
                RejectionCode::NotFound,
                format!("no incident {} is open; `watchdogctl page list` shows those that are", of.key),
            ),
        }
    }

    /// Somebody has these: all of them, or none where one is not open any more. Whoever was told hears it.
    pub(super) fn acknowledge(&mut self, entry: Entry<'_>, pages: &[IncidentRef], reason: &str) -> Effect {
        if pages.is_empty() {
            return reject(RejectionCode::Invalid, "pages: empty; name what is acknowledged");
        }
        for of in pages {
            self.open_one(of)?;
        }
        for of in pages {
            let Some(incident) = self.incidents.get_mut(&of.key) else { continue };
            let (by, at) = (entry.by.clone(), entry.at);
            let from = entry.from.unwrap_or_default().to_owned();
            let ack = Acknowledgement { by, at, from, reason: reason.to_owned() };
            // Said again it only lasts anew.
            if incident.acknowledged.replace(ack).is_some() {
                continue;
            }
            let mut page = incident.page.clone();
            page.action = PageAction::Acknowledge;
            page.summary = format!("acknowledged by {}: {reason}: {}", entry.by, incident.page.summary);
            let receivers = self.incidents.get(&of.key).map(|incident| self.reached(incident)).unwrap_or_default();
            self.put(entry, page, &receivers, None);
        }
        Ok(None)
    }

    /// Whom a resolve goes to; keeps how the incident ended.
    pub(super) fn end(&mut self, entry: Entry<'_>, page: &Page) -> BTreeSet<ReceiverName> {
        let Some(mut incident) = self.incidents.remove(&page.key) else { return self.everybody() };
        let receivers = self.reached(&incident);
        incident.resolved = Some(Resolution { by: entry.by.clone(), at: entry.at, summary: page.summary.clone() });
        self.past_incidents.push_back(incident);
        bound(&mut self.past_incidents, PAST_INCIDENTS_KEPT);
        receivers
    }

    /// Its alarm, or its run, is not over: then it is over with them.
    pub fn ends_by_itself(&self, incident: &Incident) -> bool {
        let of_run = incident.page.run.as_ref();
        let is_open =
            |run: &RunId| self.groups.values().filter_map(|group| group.open_run.as_ref()).any(|open| &open.id == run);
        let is_watched = self.is_monitored(incident.key());
        self.alarms.contains_key(incident.key()) || is_watched || of_run.is_some_and(is_open)
    }

    /// An operator ends what nothing ends by itself.
    pub(super) fn resolve_page(&mut self, entry: Entry<'_>, of: &IncidentRef, reason: &str) -> Effect {
        let incident = self.open_one(of)?;
        if self.ends_by_itself(incident) {
            let message = format!("{} ends by itself when its cause is gone: acknowledge it instead", of.key);
            return reject(RejectionCode::Illegal, message);
        }
        let mut page = incident.page.clone();
        page.action = PageAction::Resolve;
        page.severity = Severity::Info;
        page.summary = format!("resolved by {}: {reason}: {}", entry.by, incident.page.summary);
        self.send(entry, page)
    }

    /// An operator tries whether pages arrive: these receivers are told, whatever the ladders say.
    pub(super) fn test_page(
        &mut self,
        entry: Entry<'_>,
        key: &str,
        receivers: &BTreeSet<ReceiverName>,
        reason: &str,
    ) -> Effect {
        if let Some(unknown) = receivers.iter().find(|receiver| !self.receivers.contains(receiver)) {
            let known: Vec<&str> = self.receivers.iter().map(ReceiverName::as_str).collect();
            let message = format!("there is no receiver {unknown}; there are: {}", known.join(", "));
            return reject(RejectionCode::NotFound, message);
        }
        if receivers.is_empty() {
            return reject(RejectionCode::Invalid, "receivers: nobody would be told");
        }
        if self.incidents.contains_key(key) {
            return reject(RejectionCode::Illegal, format!("{key}: a test of that key is open; resolve it first"));
        }
        let page = Page {
            key: key.to_owned(),
            event: "WATCHDOG_TEST".to_owned(),
            action: PageAction::Trigger,
            severity: Severity::Info,
            summary: format!("test by {}: {reason}; nothing is wrong", entry.by),
            group: None,
            run: None,
            details: BTreeMap::new(),
        };
        let incident = Incident {
            opened: entry.index,
            at: entry.at,
            page: page.clone(),
            level: None,
            ladder: None,
            told: 0,
            told_at: entry.at,
            round: 0,
            tellings: Default::default(),
            receivers: BTreeSet::new(),
            acknowledged: None,
            resolved: None,
            is_test: true,
        };
        self.open_incident(entry, incident);
        let (receivers, what) = (receivers.clone(), "test".to_owned());
        self.tell_incident(entry, key, page, Reach { contacts: Vec::new(), receivers, what, ladder: None });
        Ok(None)
    }
}

/// The line of somebody who is told because nobody answered.
fn unheard(incident: &Incident, now: UnixMs, what: &str, is_lapse: bool) -> String {
    let since = match &incident.acknowledged {
        Some(ack) if is_lapse => ack.at,
        _ => incident.at,
    };
    let s = now.since(since) / 1000;
    let lasted = if s < 120 { format!("{s} s") } else { format!("{} min", s / 60) };
    match (&incident.acknowledged, is_lapse) {
        (Some(ack), true) => {
            format!("acknowledged by {} {lasted} ago and not over ({what}): {}", ack.by, incident.page.summary)
        }
        _ => format!("not acknowledged for {lasted} ({what}): {}", incident.page.summary),
    }
}
