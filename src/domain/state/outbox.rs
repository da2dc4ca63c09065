//! Pages in the replicated state: put in by what happened, taken out when every receiver has answered (P11).

use std::collections::{BTreeMap, BTreeSet};

use super::audit::Words;
use super::{Alarm, ClusterState, Effect, Entry, OUTBOX_MAX, TOLD_KEPT, reject};
use crate::domain::command::RejectionCode;
use crate::domain::ids::ReceiverName;
use crate::domain::page::{Delivery, Notice, OutboxEntry, Page, PageAction, Severity, Told};
use crate::domain::run::{RUN_PAGES_KEPT, Run, RunKind, RunOutcome, RunPage};
use crate::domain::service::ServiceAction;
use crate::domain::stuck::ways_on;

impl ClusterState {
    /// Puts a page in, and keeps the alarm it opens or ends.
    pub(super) fn tell(&mut self, entry: Entry<'_>, page: &Page) -> Effect {
        match page.action {
            PageAction::Trigger => {
                let alarm = Alarm {
                    since: self.alarms.get(&page.key).map_or(entry.at, |alarm| alarm.since),
                    event: page.event.clone(),
                    summary: page.summary.clone(),
                    group: page.group.clone(),
                };
                self.alarms.insert(page.key.clone(), alarm);
            }
            PageAction::Resolve => {
                if self.alarms.remove(&page.key).is_none() {
                    return reject(RejectionCode::NotFound, format!("no alarm {} is open", page.key));
                }
            }
            PageAction::Acknowledge => {
                return reject(RejectionCode::Invalid, "an alarm is acknowledged by a person, with Acknowledge");
            }
        }
        self.send(entry, page.clone())
    }

    /// Opens, changes or ends the incident of the page's key, and tells whoever is to hear of it.
    pub(super) fn send(&mut self, entry: Entry<'_>, page: Page) -> Effect {
        if page.action == PageAction::Trigger {
            self.raise(entry, page);
        } else {
            let receivers = self.end(entry, &page);
            self.put(entry, page, &receivers, None);
        }
        Ok(None)
    }

    /// Puts a page at the end of the outbox; answers its number. Where the newest of its key says the same to the same
    /// receivers and reached nobody yet, it gives way: never an older one, or a resolve between the two would be the last
    /// word.
    pub(super) fn put(
        &mut self,
        entry: Entry<'_>,
        page: Page,
        receivers: &BTreeSet<ReceiverName>,
        notice: Option<Notice>,
    ) -> u64 {
        self.next_page += 1;
        let newest = self.outbox.iter().rposition(|waiting| waiting.page.key == page.key);
        if let Some(at) = newest
            && let Some(waiting) = self.outbox.get(at)
            && waiting.page.action == page.action
            && waiting.deliveries.keys().eq(receivers)
            && contacts(waiting.notice.as_ref()) == contacts(notice.as_ref())
            && waiting.deliveries.values().all(|delivery| matches!(delivery, Delivery::Pending))
        {
            let gone = waiting.seq;
            self.outbox.remove(at);
            self.run_mut_of(&page).into_iter().for_each(|run| run.pages.retain(|known| known.seq != gone));
            let tellings = self.incidents.get_mut(&page.key).into_iter().flat_map(|open| open.tellings.iter_mut());
            tellings.filter(|telling| telling.seq == gone).for_each(|telling| telling.seq = self.next_page);
        }
        let deliveries: BTreeMap<_, _> = receivers.iter().map(|r| (r.clone(), Delivery::Pending)).collect();
        self.note_page(entry, &page, deliveries.len());
        self.outbox.push_back(OutboxEntry { seq: self.next_page, at: entry.at, page, deliveries, notice });
        self.make_room(entry);
        self.prune_outbox();
        self.next_page
    }

    /// A receiver that takes nothing for weeks must not silence the others: the oldest page gives way, rather one that
    /// somebody has taken, and never the newest.
    fn make_room(&mut self, entry: Entry<'_>) {
        while self.outbox.len() > OUTBOX_MAX {
            let is_taken = |waiting: &OutboxEntry| {
                waiting.deliveries.values().any(|delivery| matches!(delivery, Delivery::Delivered { .. }))
            };
            let oldest = self.outbox.iter().position(is_taken).unwrap_or(0);
            let Some(dropped) = self.outbox.remove(oldest) else { return };
            let words = Words {
                group: dropped.page.group.clone(),
                change: "DropPage",
                code: "done".to_owned(),
                what: format!("drop page {} ({})", dropped.page.event, dropped.page.key),
                reason: format!("the outbox holds {OUTBOX_MAX} pages that some receiver does not take"),
                evidence: Vec::new(),
                outcome: "done".to_owned(),
            };
            self.enter(entry, words);
        }
    }

    pub(super) fn told(
        &mut self,
        entry: Entry<'_>,
        seq: u64,
        receiver: &ReceiverName,
        refused: Option<&str>,
    ) -> Effect {
        let Some(waiting) = self.outbox.iter_mut().find(|waiting| waiting.seq == seq) else {
            return reject(RejectionCode::NotFound, format!("page {seq} is no longer in the outbox"));
        };
        let Some(delivery) = waiting.deliveries.get_mut(receiver) else {
            return reject(RejectionCode::NotFound, format!("page {seq} is not for {receiver}"));
        };
        if !matches!(delivery, Delivery::Pending) {
            return reject(RejectionCode::Stale, format!("page {seq} to {receiver} was settled before"));
        }
        *delivery = match refused {
            None => Delivery::Delivered { at: entry.at },
            Some(reason) => Delivery::Refused { at: entry.at, reason: reason.to_owned() },
        };
        let page = waiting.page.clone();
        if let Some(known) = self.run_mut_of(&page).and_then(|run| run.pages.iter_mut().find(|known| known.seq == seq))
        {
            let count = if refused.is_none() { &mut known.delivered } else { &mut known.refused };
            *count = count.saturating_add(1);
            known.answered_at = Some(entry.at);
        }
        self.prune_outbox();
        Ok(None)
    }

    /// The run that a page is about, where it is remembered.
    fn run_mut_of(&mut self, page: &Page) -> Option<&mut Run> {
        let id = page.run.as_ref()?;
        let group = self.groups.get_mut(page.group.as_ref()?)?;
        group.open_run.iter_mut().chain(group.history.iter_mut().rev()).find(|run| &run.id == id)
    }

    /// Who was told of a run stays in its record when the outbox has forgotten it.
    fn note_page(&mut self, entry: Entry<'_>, page: &Page, receivers: usize) {
        let seq = self.next_page;
        let Some(run) = self.run_mut_of(page) else { return };
        run.pages.push(RunPage {
            seq,
            event: page.event.clone(),
            at: entry.at,
            receivers: u32::try_from(receivers).unwrap_or(u32::MAX),
            delivered: 0,
            refused: 0,
            answered_at: None,
        });
        if run.pages.len() > RUN_PAGES_KEPT {
            run.pages.remove(1);
        }
    }

    /// Keeps every page somebody still waits for, and the newest of the others.
    fn prune_outbox(&mut self) {
        let is_settled = |entry: &OutboxEntry| entry.deliveries.values().all(|d| !matches!(d, Delivery::Pending));
        let mut excess = self.outbox.iter().filter(|entry| is_settled(entry)).count().saturating_sub(TOLD_KEPT);
        self.outbox.retain(|entry| {
            let drop = excess > 0 && is_settled(entry);
            excess -= usize::from(drop);
            !drop
        });
    }

    /// The prefix of a run's keys: one incident per run, whoever leads.
    pub(super) fn run_key(&self, run: &Run) -> String {
        let cluster = self.cluster.as_ref().map_or("", |c| c.as_str());
        format!("{cluster}/{}/{}", run.group, run.id)
    }

    pub(super) fn run_page(&self, run: &Run, suffix: &str, event: &str, severity: Severity, summary: String) -> Page {
        let mut details = BTreeMap::from([
            ("run".to_owned(), run.id.to_string()),
            ("kind".to_owned(), run.kind.to_string()),
            ("from".to_owned(), run.from().to_string()),
            ("to".to_owned(), run.to().to_string()),
            ("cause".to_owned(), run.cause.reason.clone()),
        ]);
        if let Some(token) = run.token() {
            details.insert("token".to_owned(), token.to_string());
        }
        for (n, line) in run.cause.evidence.iter().enumerate().take(20) {
            details.insert(format!("evidence_{:02}", n + 1), line.clone());
        }
        // A rehearsal is told as one. What waits for a person does so all the same.
        let is_real = matches!(suffix, "/stuck" | "/monitor");
        let (event, severity, summary) = match run.drill {
            true if is_real => (format!("DRILL_{event}"), severity, format!("DRILL {summary}")),
            true => (format!("DRILL_{event}"), severity.max(Severity::Warning), format!("DRILL {summary}")),
            false => (event.to_owned(), severity, summary),
        };
        Page {
            key: format!("{}{suffix}", self.run_key(run)),
            event,
            action: PageAction::Trigger,
            severity,
            summary,
            group: Some(run.group.clone()),
            run: Some(run.id.clone()),
            details,
        }
    }

    /// A run has begun.
    pub(super) fn page_opened(&mut self, entry: Entry<'_>, run: &Run) {
        let event = format!("{}_STARTED", event_of(run));
        let severity =
            if run.is_planned() || run.kind == RunKind::Recovery { Severity::Warning } else { Severity::Critical };
        let summary = format!("{}: {} begins: {}", run.group, way(run), run.cause.reason);
        let page = self.run_page(run, "", &event, severity, summary);
        self.send_quietly(entry, page);
    }

    /// A run waits for a person.
    pub(super) fn page_stuck(&mut self, entry: Entry<'_>, run: &Run, step: &str, reason: &str) {
        let event = format!("{}_FAILED", event_of(run));
        let summary = format!("{}: {} to {} is stuck at {step}: {reason}", run.group, run.kind, run.to());
        let mut page = self.run_page(run, "/stuck", &event, Severity::Critical, summary);
        page.details.insert("step".to_owned(), step.to_owned());
        page.details.insert("reason".to_owned(), reason.to_owned());
        page.details.insert("next".to_owned(), format!("watchdogctl run show {}", run.id));
        for (n, way) in ways_on(run).into_iter().enumerate() {
            page.details.insert(format!("next_{:02}", n + 1), format!("{}: {}", way.meaning, way.command));
        }
        self.send_quietly(entry, page);
    }

    /// What kept a run is gone.
    pub(super) fn page_unstuck(&mut self, entry: Entry<'_>, run: &Run, reason: &str) {
        let summary = format!("{}: {} to {} goes on: {reason}", run.group, run.kind, run.to());
        let mut page = self.run_page(run, "/stuck", &format!("{}_RESUMED", event_of(run)), Severity::Info, summary);
        page.action = PageAction::Resolve;
        self.send_quietly(entry, page);
    }

    /// A run is over: its result is told under a key of its own, and the incident that told of its start ends.
    pub(super) fn page_closed(&mut self, entry: Entry<'_>, run: &Run, outcome: RunOutcome, reason: &str) {
        let (suffix, severity) = match outcome {
            RunOutcome::Succeeded if run.kind == RunKind::Traffic => ("", Severity::Warning),
            RunOutcome::Succeeded => ("_SUCCESS", Severity::Warning),
            RunOutcome::Withdrawn => ("_WITHDRAWN", Severity::Warning),
            RunOutcome::Aborted => ("_FAILED", Severity::Critical),
            RunOutcome::Reverted => ("_REVERTED", Severity::Critical),
        };
        let event = format!("{}{suffix}", event_of(run));
        let took_s = entry.at.since(run.opened_at) as f64 / 1000.0;
        let summary = format!(
            "{}: {} {outcome} {took_s:.1} s after the decision{}{reason}",
            run.group,
            way(run),
            if reason.is_empty() { "" } else { ": " },
        );
        let mut result = self.run_page(run, "/result", &event, severity, summary.clone());
        result.details.insert("outcome".to_owned(), outcome.to_string());
        result.details.insert("took_ms".to_owned(), entry.at.since(run.opened_at).to_string());
        let mut over = self.run_page(run, "", &format!("{}_ENDED", event_of(run)), Severity::Info, summary);
        over.action = PageAction::Resolve;
        self.send_quietly(entry, result);
        self.send_quietly(entry, over);
    }

    /// Telling never stops a run.
    fn send_quietly(&mut self, entry: Entry<'_>, page: Page) {
        let _full = self.send(entry, page);
    }
}

/// Of one service, which stays where it is.
fn is_of_service(run: &Run) -> bool {
    let first = run.plan.steps().next().map(|(_, step)| step.action.verb());
    run.kind == RunKind::Recovery && ServiceAction::ALL.iter().any(|action| Some(action.word()) == first)
}

/// What kind of run, and between which regions; what is recovered stays in its own.
fn way(run: &Run) -> String {
    if is_of_service(run) {
        let what = run.cause.evidence.first().map_or("", String::as_str);
        return format!("{} in {} ({what})", run.kind, run.to());
    }
    match run.from() == run.to() {
        true => format!("{} in {}", run.kind, run.to()),
        false => format!("{} from {} to {}", run.kind, run.from(), run.to()),
    }
}

/// What the events of such a run begin with.
fn event_of(run: &Run) -> &'static str {
    match run.kind {
        RunKind::Failover => "DR_FAILOVER",
        RunKind::Switchover => "DR_SWITCHOVER",
        RunKind::Failback => "DR_FAILBACK",
        RunKind::Traffic => "LB_FAILOVER",
        RunKind::Recovery if is_of_service(run) => "SERVICE_RECOVERY",
        RunKind::Recovery => "DR_RECOVERY",
    }
}

/// Who is meant by it.
fn contacts(notice: Option<&Notice>) -> &[Told] {
    notice.map_or(&[], |notice| notice.contacts.as_slice())
}
