//! A run's record in the order that the users' own procedure has (C4): detect, assess, decide, execute, verify, communicate,
//! monitor, failback. Pure: read off what the log holds of the run, and of the runs after it.

use serde::{Deserialize, Serialize};

use super::ids::UnixMs;
use super::monitor::MonitorOutcome;
use super::plan::{Action, Step};
use super::run::{Run, RunKind, RunOutcome, RunPhase, StepPhase};
use super::text::one_line;

/// What a chapter is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChapterKind {
    /// What was first seen, and when.
    Detect,
    /// How long it was looked at, and what a quorum saw.
    Assess,
    /// Who opened the run, and who took it.
    Decide,
    /// What was done.
    Execute,
    /// What was looked at after it.
    Verify,
    /// Who was told.
    Communicate,
    /// How what serves now was watched.
    Monitor,
    /// How the group came back.
    Failback,
}

impl ChapterKind {
    /// `detect`, `assess`, `decide`, `execute`, `verify`, `communicate`, `monitor`, `failback`.
    pub fn word(self) -> &'static str {
        match self {
            ChapterKind::Detect => "detect",
            ChapterKind::Assess => "assess",
            ChapterKind::Decide => "decide",
            ChapterKind::Execute => "execute",
            ChapterKind::Verify => "verify",
            ChapterKind::Communicate => "communicate",
            ChapterKind::Monitor => "monitor",
            ChapterKind::Failback => "failback",
        }
    }
}

/// How far a chapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// It has none in this run.
    None,
    /// It has not begun.
    Ahead,
    /// It goes on.
    Going,
    /// It is over, and well.
    Done,
    /// It did not go, or does not go, as it should.
    Amiss,
}

impl Progress {
    /// `none`, `ahead`, `going`, `done`, `amiss`.
    pub fn word(self) -> &'static str {
        match self {
            Progress::None => "none",
            Progress::Ahead => "ahead",
            Progress::Going => "going",
            Progress::Done => "done",
            Progress::Amiss => "amiss",
        }
    }
}

/// One of the eight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chapter {
    /// Which.
    pub kind: ChapterKind,
    /// How far.
    pub progress: Progress,
    /// Since when.
    pub from: Option<UnixMs>,
    /// Until when.
    pub until: Option<UnixMs>,
    /// In a line.
    pub detail: String,
}

/// A line, characters.
const LINE_CHARS_MAX: usize = 300;

fn chapter(kind: ChapterKind, progress: Progress, detail: impl AsRef<str>) -> Chapter {
    Chapter { kind, progress, from: None, until: None, detail: one_line(detail.as_ref(), LINE_CHARS_MAX) }
}

impl Chapter {
    fn during(self, from: Option<UnixMs>, until: Option<UnixMs>) -> Self {
        Self { from, until, ..self }
    }

    /// How long, milliseconds, where both ends are known.
    pub fn ms(&self) -> Option<u64> {
        Some(self.until?.since(self.from?))
    }
}

/// All eight, in their order. `later`: the group's runs, among which those after this one are found.
pub fn chapters<'a>(run: &Run, later: impl IntoIterator<Item = &'a Run>) -> Vec<Chapter> {
    vec![
        detect(run),
        assess(run),
        decide(run),
        of_steps(run, ChapterKind::Execute),
        of_steps(run, ChapterKind::Verify),
        communicate(run),
        monitor(run),
        failback(run, later),
    ]
}

fn is_over(run: &Run) -> Option<(RunOutcome, UnixMs)> {
    match run.phase {
        RunPhase::Closed { outcome, at } => Some((outcome, at)),
        _ => None,
    }
}

fn detect(run: &Run) -> Chapter {
    match run.cause.fault_at {
        Some(at) => {
            chapter(ChapterKind::Detect, Progress::Done, "the first of the failures seen").during(Some(at), Some(at))
        }
        None => chapter(ChapterKind::Detect, Progress::None, "nothing had failed: it was ordered"),
    }
}

/// From the first failure on, for as long as it had to last; what a person ordered was judged as it was opened.
fn assess(run: &Run) -> Chapter {
    let (votes, judged) = (run.cause.evidence.len(), run.opened_at);
    let detail = match run.cause.evidence.last() {
        Some(last) => format!("{votes} votes and measurements; {last}"),
        None => "nothing was measured".to_owned(),
    };
    let from = run.cause.fault_at.unwrap_or(judged);
    chapter(ChapterKind::Assess, Progress::Done, detail).during(Some(from), Some(judged))
}

fn decide(run: &Run) -> Chapter {
    let by = if run.cause.automatic { "automatic, by" } else { "ordered by" };
    let (progress, claimed) = match run.claims.first() {
        Some(claim) => (Progress::Done, Some(claim.at)),
        None if run.is_open() => (Progress::Going, None),
        None => (Progress::Amiss, is_over(run).map(|(_, at)| at)),
    };
    let detail = format!("{by} {}: {}", run.cause.by, run.cause.reason);
    chapter(ChapterKind::Decide, progress, detail).during(Some(run.opened_at), claimed)
}

fn of_steps(run: &Run, kind: ChapterKind) -> Chapter {
    let is_verify = |step: &&Step| matches!(step.action, Action::Verify { .. });
    let wants = |step: &&Step| is_verify(step) == (kind == ChapterKind::Verify);
    let back = run.plan.undo_steps().filter(|_| run.turned_back.is_some());
    let steps: Vec<&Step> = run.plan.steps().chain(back).map(|(_, step)| step).filter(wants).collect();
    let records = || steps.iter().filter_map(|step| run.record(&step.id));
    let from = records().filter_map(|record| record.first_started_at).min();
    let until = records().filter_map(|record| record.finished_at).max();
    let named = |wanted: fn(StepPhase) -> bool| {
        let ids = steps.iter().filter(|step| wanted(run.phase_of(&step.id))).map(|step| step.id.as_str());
        ids.collect::<Vec<_>>().join(", ")
    };
    let settled = steps.iter().filter(|step| run.phase_of(&step.id).is_settled()).count();
    let is_all = settled == steps.len();
    let stuck_here = match &run.phase {
        RunPhase::Stuck { step, .. } => steps.iter().any(|known| &known.id == step),
        _ => false,
    };
    let progress = match (steps.is_empty(), from) {
        (true, _) => Progress::None,
        _ if stuck_here || run.turned_back.is_some() && from.is_some() => Progress::Amiss,
        (_, _) if is_all => Progress::Done,
        (_, None) if run.is_open() => Progress::Ahead,
        (_, None) => Progress::None,
        (_, Some(_)) if run.is_open() => Progress::Going,
        (_, Some(_)) => Progress::Amiss,
    };
    let skipped = named(|phase| phase == StepPhase::Skipped);
    let unfinished = named(|phase| !phase.is_settled());
    let mut detail = format!("{settled} of {} steps", steps.len());
    for (word, names) in [("skipped", skipped), ("not done", unfinished)] {
        if !names.is_empty() && from.is_some() {
            detail.push_str(&format!("; {word}: {names}"));
        }
    }
    let until = until.filter(|_| is_all || !run.is_open());
    chapter(kind, progress, detail).during(from, until)
}

fn communicate(run: &Run) -> Chapter {
    let answered = |page: &&super::run::RunPage| page.delivered + page.refused >= page.receivers;
    let (pages, waiting) = (run.pages.len(), run.pages.iter().filter(|page| !answered(page)).count());
    let refused = run.pages.iter().filter(|page| page.refused > 0).count();
    let from = run.pages.first().map(|page| page.at);
    let until = run.pages.iter().filter_map(|page| page.answered_at).max();
    if pages == 0 {
        return chapter(ChapterKind::Communicate, Progress::None, "nobody was told");
    }
    let mut events: Vec<&str> = Vec::new();
    for page in &run.pages {
        if !events.contains(&page.event.as_str()) {
            events.push(&page.event);
        }
    }
    let mut detail =
        format!("{} of {pages} pages delivered: {}", pages - waiting - refused.min(pages - waiting), events.join(", "));
    if waiting > 0 {
        detail.push_str(&format!("; {waiting} under way"));
    }
    if refused > 0 {
        detail.push_str(&format!("; {refused} refused by a receiver"));
    }
    let progress = match (refused, waiting, run.is_open()) {
        (1.., _, _) => Progress::Amiss,
        (0, 0, false) => Progress::Done,
        _ => Progress::Going,
    };
    chapter(ChapterKind::Communicate, progress, detail).during(from, until.filter(|_| progress == Progress::Done))
}

fn monitor(run: &Run) -> Chapter {
    let Some(monitor) = &run.monitor else {
        let (progress, detail) = match (run.moves_serving(), run.is_open()) {
            (true, true) => (Progress::Ahead, "begins with the run's end"),
            (true, false) => (Progress::None, "it moved nothing, or monitor_for_s is 0"),
            (false, _) => (Progress::None, "it does not move the group"),
        };
        return chapter(ChapterKind::Monitor, progress, detail);
    };
    let amiss: Vec<String> = monitor.seen.iter().map(|seen| format!("{}: {}", seen.what, seen.detail)).collect();
    let (progress, until, head) = match &monitor.ended {
        Some(end) => {
            let is_well = end.how != MonitorOutcome::Unwell;
            let progress = if is_well { Progress::Done } else { Progress::Amiss };
            (progress, Some(end.at), format!("{}: {}", end.how.word(), end.why))
        }
        None => {
            let progress = if monitor.trouble().next().is_some() { Progress::Amiss } else { Progress::Going };
            (progress, None, format!("for {} s, {}", monitor.for_ms / 1000, monitor.summary()))
        }
    };
    let detail = if amiss.is_empty() { head } else { format!("{head} ({})", amiss.join("; ")) };
    chapter(ChapterKind::Monitor, progress, detail).during(Some(monitor.since), until)
}

/// The first run after it that brings the group back to where it left.
fn failback<'a>(run: &Run, later: impl IntoIterator<Item = &'a Run>) -> Chapter {
    if !run.moves_serving() || run.kind == RunKind::Failback {
        return chapter(ChapterKind::Failback, Progress::None, "it leads nowhere that one comes back from");
    }
    match is_over(run) {
        None => return chapter(ChapterKind::Failback, Progress::Ahead, "after the run"),
        Some((RunOutcome::Succeeded, _)) => {}
        Some((outcome, _)) => return chapter(ChapterKind::Failback, Progress::None, format!("the run was {outcome}")),
    }
    let is_back = |other: &&Run| other.opened_at >= run.opened_at && other.id != run.id && other.moves_serving();
    let leads_back = |other: &&Run| {
        other.to() == run.from() && !matches!(is_over(other), Some((outcome, _)) if outcome != RunOutcome::Succeeded)
    };
    let mut back: Vec<&Run> = later.into_iter().filter(is_back).filter(leads_back).collect();
    back.sort_by(|a, b| (a.opened_at, &a.id).cmp(&(b.opened_at, &b.id)));
    match back.first() {
        None => chapter(ChapterKind::Failback, Progress::Ahead, format!("the group is not back in {}", run.from())),
        Some(other) => {
            let over = is_over(other).map(|(_, at)| at);
            let progress = if over.is_some() { Progress::Done } else { Progress::Going };
            chapter(ChapterKind::Failback, progress, format!("by {} {}", other.kind, other.id))
                .during(Some(other.opened_at), over)
        }
    }
}

#[cfg(test)]
#[path = "chapters_tests.rs"]
mod tests;
