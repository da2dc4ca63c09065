//! Drills in the replicated state: which schedules are known and up to when, the open drill, the newest that are over.
//!
//! A drill of one `(schedule, due)` begins once at most: what is due carries its moment, and the moment of what began or was
//! skipped never goes back.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{ClusterState, Effect, Entry, GroupState, bound, reject};
use crate::domain::chapters::chapters;
use crate::domain::command::{Rejection, RejectionCode};
use crate::domain::drill::due::Known;
use crate::domain::drill::figures::Skipped;
use crate::domain::drill::spans::spans;
use crate::domain::drill::{
    Closing, Drill, DrillChange, DrillEvent, DrillOpening, DrillOutcome, DrillPhase, DrillRun, Finding, Lesson,
    Measured,
};
use crate::domain::ids::{DrillId, DrillName, GroupName, UnixMs};
use crate::domain::page::{Page, PageAction, Severity};
use crate::domain::run::{Assertion, Run, RunKind, RunOutcome, RunPhase};
use crate::domain::text::one_line;

/// Drills kept that are over.
pub const DRILLS_KEPT: usize = 24;
/// Skips kept.
const SKIPS_KEPT: usize = 24;
/// Findings of one drill.
const FINDINGS_MAX: usize = 100;
/// Lines of a drill's timeline.
const EVENTS_MAX: usize = 100;
/// Lessons of one drill.
const LESSONS_MAX: usize = 20;
/// Runs of one drill: there are not as many kinds.
const RUNS_MAX: usize = 8;
/// A line, characters.
const LINE_CHARS_MAX: usize = 500;

/// A group's drills.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupDrills {
    /// Schedules by name.
    pub known: BTreeMap<DrillName, Known>,
    /// The one that is not over.
    pub open: Option<Box<Drill>>,
    /// Over, newest last, bounded.
    pub past: VecDeque<Drill>,
    /// Skipped, newest last, bounded.
    pub skipped: VecDeque<Skipped>,
}

impl GroupDrills {
    /// Nothing was ever due or begun.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// All of them, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Drill> {
        self.open.as_deref().into_iter().chain(self.past.iter().rev())
    }

    /// Whether the nodes report the group's trigger as failed now, and for which drill.
    pub fn injecting(&self) -> Option<&Drill> {
        self.open.as_deref().filter(|drill| drill.injects())
    }

    fn open_mut(&mut self, id: &DrillId) -> Result<&mut Drill, Rejection> {
        if self.past.iter().any(|drill| &drill.id == id) {
            return reject(RejectionCode::Illegal, format!("drill {id} is over"));
        }
        match self.open.as_deref_mut().filter(|drill| &drill.id == id) {
            Some(drill) => Ok(drill),
            None => reject(RejectionCode::NotFound, format!("there is no drill {id}; `watchdogctl drill list`")),
        }
    }
}

impl ClusterState {
    pub(super) fn change_drill(&mut self, entry: Entry<'_>, name: &GroupName, change: &DrillChange) -> Effect {
        match change {
            DrillChange::Know { schedule, rule, after } => self.know_schedule(name, schedule, rule, *after),
            DrillChange::Announce { schedule, due_at, kind, when } => {
                self.due_mut(name, schedule, *due_at)?.announced = Some(*due_at);
                let summary = format!("{name}: {} drill {schedule} begins at {when}", kind.word());
                let page =
                    self.drill_page(name, &format!("drill-due/{schedule}"), "DRILL_ANNOUNCED", Severity::Info, summary);
                self.send(entry, page)
            }
            DrillChange::Skip { schedule, due_at, missed, reason } => {
                self.skip_drill(entry, name, schedule, (*due_at, *missed, reason))
            }
            DrillChange::Open(opening) => self.open_drill(entry, name, opening),
            DrillChange::Advance { id, from, to, why } => {
                let drill = self.group_mut(name)?.drills.open_mut(id)?;
                in_phase(drill, *from)?;
                if !from.may_go_to(*to, drill.kind) {
                    let message =
                        format!("a {} drill does not go from {} to {}", drill.kind.word(), from.word(), to.word());
                    return reject(RejectionCode::Illegal, message);
                }
                drill.phase = *to;
                drill.phase_since = entry.at;
                tell(drill, entry, why);
                Ok(None)
            }
            DrillChange::Find { id, phase, findings, measured } => {
                let drill = self.group_mut(name)?.drills.open_mut(id)?;
                in_phase(drill, *phase)?;
                find(drill, *phase, findings, measured)
            }
            DrillChange::Abort { id, reason } => self.abort_drill(entry, name, id, reason),
            DrillChange::Close { id, from, outcome, why } => self.close_drill(entry, name, id, *from, (*outcome, why)),
            DrillChange::Learn { id, text } => self.learn(entry, name, id, text),
        }
    }

    fn know_schedule(&mut self, name: &GroupName, schedule: &DrillName, rule: &str, after: UnixMs) -> Effect {
        let known = &mut self.group_mut(name)?.drills.known;
        match known.get_mut(schedule) {
            Some(before) if before.rule == rule => {
                return reject(RejectionCode::Stale, format!("drill schedule {schedule} is known by that rule"));
            }
            // Never back: what took place stays so under another rule.
            Some(before) => *before = Known { rule: rule.to_owned(), after: before.after.max(after), announced: None },
            None => {
                known.insert(schedule.clone(), Known { rule: rule.to_owned(), after, announced: None });
            }
        }
        Ok(None)
    }

    /// The schedule, where that moment was neither begun nor skipped before.
    fn due_mut(&mut self, name: &GroupName, schedule: &DrillName, due_at: UnixMs) -> Result<&mut Known, Rejection> {
        let Some(known) = self.group_mut(name)?.drills.known.get_mut(schedule) else {
            return reject(RejectionCode::NotFound, format!("drill schedule {schedule} of group {name} is not known"));
        };
        if due_at <= known.after {
            let message = format!("drill {schedule} of that moment began or was skipped before");
            return reject(RejectionCode::Stale, message);
        }
        Ok(known)
    }

    fn skip_drill(
        &mut self,
        entry: Entry<'_>,
        name: &GroupName,
        schedule: &DrillName,
        (due_at, missed, reason): (UnixMs, u32, &str),
    ) -> Effect {
        self.due_mut(name, schedule, due_at)?.after = due_at;
        let reason = one_line(reason, LINE_CHARS_MAX);
        let drills = &mut self.group_mut(name)?.drills;
        drills.skipped.push_back(Skipped { schedule: schedule.clone(), due_at, missed, reason: reason.clone() });
        bound(&mut drills.skipped, SKIPS_KEPT);
        let what = if missed == 1 { "drill".to_owned() } else { format!("{missed} times drill") };
        let summary = format!("{name}: {what} {schedule} is skipped: {reason}");
        self.end_announcement(entry, name, schedule, &summary);
        let mut page =
            self.drill_page(name, &format!("drill-skipped/{schedule}"), "DRILL_SKIPPED", Severity::Warning, summary);
        page.details.insert("due_unix_ms".to_owned(), due_at.0.to_string());
        page.details.insert("missed".to_owned(), missed.to_string());
        page.details.insert("next".to_owned(), format!("watchdogctl drill start {name}"));
        self.send(entry, page)
    }

    fn open_drill(&mut self, entry: Entry<'_>, name: &GroupName, opening: &DrillOpening) -> Effect {
        let DrillOpening { id, kind, schedule, due_at, to, settings, reason } = opening;
        if let Some(schedule) = schedule {
            self.due_mut(name, schedule, *due_at)?;
        }
        let group = self.group_mut(name)?;
        may_open(group, name, opening)?;
        if let Some(known) = schedule.as_ref().and_then(|schedule| group.drills.known.get_mut(schedule)) {
            known.after = *due_at;
        }
        let mut drill = Drill {
            id: id.clone(),
            kind: *kind,
            schedule: schedule.clone(),
            due_at: *due_at,
            by: entry.by.clone(),
            reason: one_line(reason, LINE_CHARS_MAX),
            opened_at: entry.at,
            from: group.serving.last.clone(),
            to: to.clone(),
            settings: settings.clone(),
            phase: DrillPhase::Checking,
            phase_since: entry.at,
            runs: Vec::new(),
            findings: Vec::new(),
            measured: Measured::default(),
            abort: None,
            closing: None,
            lessons: Vec::new(),
            events: Vec::new(),
        };
        let begun = format!("begun by {}: {}", entry.by, drill.reason);
        tell(&mut drill, entry, &begun);
        let summary = format!("{name}: {} drill from {} to {to} begins: {}", kind.word(), drill.from, drill.reason);
        group.drills.open = Some(Box::new(drill));
        if let Some(schedule) = schedule {
            self.end_announcement(entry, name, schedule, &summary);
            self.end_page(entry, name, &format!("drill-skipped/{schedule}"), "DRILL_STARTED", &summary);
        }
        let mut page = self.drill_page(name, &format!("drill/{id}"), "DRILL_STARTED", Severity::Info, summary);
        page.details.insert("drill".to_owned(), id.to_string());
        page.details.insert("abort".to_owned(), format!("watchdogctl drill abort {id}"));
        self.send(entry, page)
    }

    fn abort_drill(&mut self, entry: Entry<'_>, name: &GroupName, id: &DrillId, reason: &str) -> Effect {
        let drill = self.group_mut(name)?.drills.open_mut(id)?;
        if drill.abort.is_some() {
            return reject(RejectionCode::Illegal, format!("drill {id} is being aborted already"));
        }
        let reason = one_line(reason, LINE_CHARS_MAX);
        drill.abort = Some(Assertion { by: entry.by.clone(), at: entry.at, reason: reason.clone() });
        tell(drill, entry, &format!("aborted by {}: {reason}", entry.by));
        let summary = format!("{name}: drill {id} is aborted and the group brought home: {reason}");
        let mut page = self.drill_page(name, &format!("drill/{id}/aborted"), "DRILL_ABORTED", Severity::Error, summary);
        page.details.insert("drill".to_owned(), id.to_string());
        self.send(entry, page)
    }

    fn close_drill(
        &mut self,
        entry: Entry<'_>,
        name: &GroupName,
        id: &DrillId,
        from: DrillPhase,
        (outcome, why): (DrillOutcome, &str),
    ) -> Effect {
        let group = self.group_mut(name)?;
        if let Some(run) = group.open_run.as_ref().filter(|run| run.drill) {
            return reject(RejectionCode::RunOpen, format!("run {} of drill {id} is open", run.id));
        }
        let history = &group.history;
        let drill = group.drills.open_mut(id)?;
        in_phase(drill, from)?;
        for known in &mut drill.runs {
            let run = history.iter().rfind(|run| run.id == known.run);
            known.chapters = run.map_or_else(|| std::mem::take(&mut known.chapters), |run| chapters(run, history));
        }
        let why = one_line(why, LINE_CHARS_MAX);
        drill.phase = DrillPhase::Closed;
        drill.phase_since = entry.at;
        drill.closing = Some(Closing { outcome, at: entry.at, why: why.clone() });
        let colon = if why.is_empty() { "" } else { ": " };
        tell(drill, entry, &format!("{}{colon}{why}", outcome.word()));
        let summary = format!("{name}: {} drill {id} {}{colon}{why}", drill.kind.word(), outcome.word());
        let details = closing_details(drill);
        let over = group.drills.open.take();
        group.drills.past.extend(over.map(|drill| *drill));
        bound(&mut group.drills.past, DRILLS_KEPT);
        let event = match outcome {
            DrillOutcome::Passed => "DRILL_PASSED",
            DrillOutcome::Failed => "DRILL_FAILED",
            DrillOutcome::Aborted => "DRILL_ABORTED",
        };
        if outcome == DrillOutcome::Failed {
            let mut page =
                self.drill_page(name, &format!("drill/{id}/result"), event, Severity::Error, summary.clone());
            page.details.extend(details);
            let _told = self.send(entry, page);
        }
        self.end_page(entry, name, &format!("drill/{id}/aborted"), event, &summary);
        self.end_page(entry, name, &format!("drill/{id}"), event, &summary);
        Ok(None)
    }

    fn learn(&mut self, entry: Entry<'_>, name: &GroupName, id: &DrillId, text: &str) -> Effect {
        let drills = &mut self.group_mut(name)?.drills;
        let found = drills.open.as_deref_mut().into_iter().chain(&mut drills.past).find(|drill| &drill.id == id);
        let Some(drill) = found else {
            return reject(RejectionCode::NotFound, format!("there is no drill {id}; `watchdogctl drill list`"));
        };
        let text = one_line(text, LINE_CHARS_MAX);
        if text.is_empty() || drill.lessons.len() >= LESSONS_MAX {
            return reject(
                RejectionCode::Invalid,
                format!("a lesson says something, and a drill has {LESSONS_MAX} at most"),
            );
        }
        drill.lessons.push(Lesson { by: entry.by.clone(), at: entry.at, text });
        Ok(None)
    }

    /// Whether a run may open as part of the group's drill: one of each kind, in the phase it belongs to.
    pub(super) fn run_fits_drill(&self, name: &GroupName, kind: RunKind) -> Result<(), Rejection> {
        let drill = self.groups.get(name).and_then(|group| group.drills.open.as_deref());
        let Some(drill) = drill else {
            return reject(RejectionCode::Illegal, format!("no drill is open in group {name}"));
        };
        if drill.phase.run_kind(drill.kind) != Some(kind) || drill.run_of(kind).is_some() {
            let message = format!("drill {} is {}: no {kind} belongs there now", drill.id, drill.phase.word());
            return reject(RejectionCode::Illegal, message);
        }
        Ok(())
    }

    /// A run of a drill was opened.
    pub(super) fn drill_run_opened(&mut self, entry: Entry<'_>, run: &Run) {
        let Some(drill) = self.open_drill_of(run) else { return };
        if drill.runs.len() < RUNS_MAX {
            drill.runs.push(DrillRun {
                run: run.id.clone(),
                kind: run.kind,
                from: run.from().clone(),
                to: run.to().clone(),
                opened_at: run.opened_at,
                outcome: None,
                closed_at: None,
                spans: Vec::new(),
                chapters: Vec::new(),
            });
        }
        tell(drill, entry, &format!("{} {} from {} to {} opened", run.kind, run.id, run.from(), run.to()));
    }

    /// It is over: what the report needs of it is kept with the drill.
    pub(super) fn drill_run_closed(&mut self, entry: Entry<'_>, run: &Run) {
        let RunPhase::Closed { outcome, at } = run.phase else { return };
        let Some(drill) = self.open_drill_of(run) else { return };
        if let Some(known) = drill.runs.iter_mut().find(|known| known.run == run.id) {
            known.outcome = Some(outcome);
            known.closed_at = Some(at);
            known.spans = spans(run);
            known.chapters = chapters(run, []);
        }
        if drill.measured.recovery_ms.is_none() && matches!(run.kind, RunKind::Failover | RunKind::Switchover) {
            // From the order or the simulated fault on, where that is earlier than what was seen of it.
            let begun =
                if run.kind == RunKind::Failover { drill.phase_since.min(run.opened_at) } else { run.opened_at };
            let succeeded = outcome == RunOutcome::Succeeded;
            drill.measured.recovery_ms = succeeded.then(|| at.since(begun));
        }
        tell(drill, entry, &format!("{} {} {outcome}", run.kind, run.id));
    }

    fn open_drill_of(&mut self, run: &Run) -> Option<&mut Drill> {
        self.groups.get_mut(&run.group).filter(|_| run.drill)?.drills.open.as_deref_mut()
    }

    fn end_announcement(&mut self, entry: Entry<'_>, name: &GroupName, schedule: &DrillName, summary: &str) {
        self.end_page(entry, name, &format!("drill-due/{schedule}"), "DRILL_STARTED", summary);
    }

    /// Ends the incident of that key, where one is open.
    fn end_page(&mut self, entry: Entry<'_>, name: &GroupName, suffix: &str, event: &str, summary: &str) {
        let mut page = self.drill_page(name, suffix, event, Severity::Info, summary.to_owned());
        page.action = PageAction::Resolve;
        if self.incidents.contains_key(&page.key) {
            let _told = self.send(entry, page);
        }
    }

    fn drill_page(&self, name: &GroupName, suffix: &str, event: &str, severity: Severity, summary: String) -> Page {
        let cluster = self.cluster.as_ref().map_or("", |cluster| cluster.as_str());
        Page {
            key: format!("{cluster}/{name}/{suffix}"),
            event: event.to_owned(),
            action: PageAction::Trigger,
            severity,
            summary,
            group: Some(name.clone()),
            run: None,
            details: BTreeMap::new(),
        }
    }
}

/// The same conditions as [`obstacle`](crate::domain::drill::due::obstacle), as far as the state knows them.
fn may_open(group: &GroupState, name: &GroupName, opening: &DrillOpening) -> Result<(), Rejection> {
    let DrillOpening { id, kind, to, .. } = opening;
    if let Some(open) = &group.drills.open {
        return reject(RejectionCode::Illegal, format!("drill {} is open in group {name}; one at a time", open.id));
    }
    if group.drills.past.iter().any(|drill| &drill.id == id) {
        return reject(RejectionCode::Illegal, format!("drill id {id} was used before"));
    }
    if let Some(run) = &group.open_run {
        return reject(RejectionCode::RunOpen, format!("run {} is open in group {name}: no drill beside it", run.id));
    }
    if let Some(pause) = &group.pause {
        let message = format!("group {name} is paused by {}: {}; resume it first", pause.by, pause.reason);
        return reject(RejectionCode::Paused, message);
    }
    if to == &group.serving.last || !group.regions.contains(to) {
        let message = format!("to: group {name} is at {}; it cannot be rehearsed to move to {to}", group.serving.last);
        return reject(RejectionCode::Invalid, message);
    }
    if !kind.acts() {
        return Ok(());
    }
    if group.serving.region.as_ref() != Some(&group.home) {
        let message = format!("group {name} does not serve from home, {}: fail back first", group.home);
        return reject(RejectionCode::Illegal, message);
    }
    if let Some((resource, left)) = group.unsettled.first_key_value() {
        let message = format!("{resource} of group {name} is unsettled since run {}", left.run);
        return reject(RejectionCode::Unsettled, message);
    }
    Ok(())
}

fn in_phase(drill: &Drill, phase: DrillPhase) -> Result<(), Rejection> {
    if drill.phase != phase {
        let message = format!("drill {} is {} by now, not {}", drill.id, drill.phase.word(), phase.word());
        return reject(RejectionCode::Stale, message);
    }
    Ok(())
}

fn find(drill: &mut Drill, phase: DrillPhase, findings: &[Finding], measured: &Measured) -> Effect {
    if findings.is_empty() || drill.findings.iter().any(|known| known.phase == phase) {
        let message = format!("drill {} was looked at while {} before, or nothing was found", drill.id, phase.word());
        return reject(RejectionCode::Stale, message);
    }
    let room = FINDINGS_MAX.saturating_sub(drill.findings.len());
    drill.findings.extend(findings.iter().take(room).map(|finding| Finding {
        phase,
        what: one_line(&finding.what, LINE_CHARS_MAX),
        found: finding.found,
        detail: one_line(&finding.detail, LINE_CHARS_MAX),
    }));
    drill.measured = measured.clone().or(&drill.measured);
    Ok(None)
}

fn tell(drill: &mut Drill, entry: Entry<'_>, what: &str) {
    if drill.events.len() < EVENTS_MAX {
        let what = one_line(what, LINE_CHARS_MAX);
        drill.events.push(DrillEvent { at: entry.at, phase: drill.phase, what });
    }
}

fn closing_details(drill: &Drill) -> BTreeMap<String, String> {
    let mut details = BTreeMap::from([
        ("drill".to_owned(), drill.id.to_string()),
        ("report".to_owned(), format!("watchdogctl drill report {}", drill.id)),
    ]);
    let measures = [
        ("recovery_ms", drill.measured.recovery_ms),
        ("rows_lost", drill.measured.rows_lost()),
        ("bytes_lost", drill.measured.bytes_lost()),
    ];
    details.extend(measures.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_string()))));
    details
}
