//! A drill's report: what was rehearsed, how long each part took, what was lost, what differed from the last, what was learned.
//! Pure: from what the log holds of the drill and of those before it, so that every node writes the same.

mod html;
mod markdown;
mod picture;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::calendar;
use crate::domain::drill::{Drill, DrillOutcome, Finding, Found};
use crate::domain::ids::{ClusterName, GroupName, UnixMs};

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people, as text.
    Markdown,
    /// For programs.
    Json,
    /// For people, one file with its pictures in it.
    Html,
}

/// What is reported on.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// Whose.
    pub cluster: &'a ClusterName,
    /// Which group's.
    pub group: &'a GroupName,
    /// The drill.
    pub drill: &'a Drill,
    /// Those of its kind before it, oldest first.
    pub earlier: Vec<&'a Drill>,
}

/// The report.
pub fn render(subject: &Subject<'_>, format: Format) -> String {
    match format {
        Format::Markdown => markdown::render(subject),
        Format::Json => json(subject),
        Format::Html => html::render(subject),
    }
}

#[derive(Serialize)]
struct Json<'a> {
    cluster: &'a ClusterName,
    group: &'a GroupName,
    drill: &'a Drill,
    objectives: [Objective; 2],
    parts: Vec<Part>,
    rows_lost: Option<u64>,
    bytes_lost: Option<u64>,
    last: Option<Last<'a>>,
}

#[derive(Serialize)]
struct Last<'a> {
    id: &'a str,
    outcome: Option<DrillOutcome>,
    recovery_ms: Option<u64>,
    rows_lost: Option<u64>,
    bytes_lost: Option<u64>,
}

fn json(subject: &Subject<'_>) -> String {
    let drill = subject.drill;
    let last = subject.earlier.last().map(|last| Last {
        id: last.id.as_str(),
        outcome: last.closing.as_ref().map(|closing| closing.outcome),
        recovery_ms: last.measured.recovery_ms,
        rows_lost: last.measured.rows_lost(),
        bytes_lost: last.measured.bytes_lost(),
    });
    let whole = Json {
        cluster: subject.cluster,
        group: subject.group,
        drill,
        objectives: objectives(drill),
        parts: parts_beside(drill, subject.earlier.last().copied()),
        rows_lost: drill.measured.rows_lost(),
        bytes_lost: drill.measured.bytes_lost(),
        last,
    };
    // Plain data with text keys.
    serde_json::to_string_pretty(&whole)
        .map_or_else(|error| format!("{{\"error\": {:?}}}\n", error.to_string()), |text| text + "\n")
}

/// An objective and what was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Objective {
    name: &'static str,
    objective: String,
    reached: String,
    /// `None`: not known.
    met: Option<bool>,
}

fn objectives(drill: &Drill) -> [Objective; 2] {
    let measured = &drill.measured;
    let (reached, met) = match (measured.recovery_ms, measured.expected_recovery_ms) {
        (Some(ms), _) => (took(ms), Some(ms <= drill.settings.rto_ms)),
        (None, Some(ms)) if !drill.kind.acts() => {
            (format!("about {} expected", took(ms)), Some(ms <= drill.settings.rto_ms))
        }
        _ => ("not measured".to_owned(), None),
    };
    let recovery = Objective { name: "recovery time", objective: took(drill.settings.rto_ms), reached, met };
    let (reached, met) = loss_in_words(drill);
    let objective = format!("{} of writes", took(drill.settings.rpo_ms));
    [recovery, Objective { name: "data loss", objective, reached, met }]
}

/// Rows and bytes, each where it was measured. Nothing lost meets every objective; something lost cannot be told in time, and
/// is for a person to judge.
fn loss_in_words(drill: &Drill) -> (String, Option<bool>) {
    let measured = &drill.measured;
    let rows = match (measured.rows_lost(), measured.rows_written) {
        (Some(lost), Some(written)) => format!("{lost} of {written} marker rows"),
        _ => "rows not counted".to_owned(),
    };
    let bytes = measured.bytes_lost().map_or_else(|| "bytes not measured".to_owned(), in_bytes);
    match (measured.rows_lost(), measured.bytes_lost()) {
        (None, None) if !drill.kind.acts() => match measured.expected_loss_ms {
            Some(ms) => (format!("at most {} of writes expected", took(ms)), Some(ms <= drill.settings.rpo_ms)),
            None => ("not known".to_owned(), None),
        },
        (None, None) => (format!("{rows}, {bytes}"), None),
        (lost_rows, lost_bytes) => {
            let nothing = lost_rows.unwrap_or(0) == 0 && lost_bytes.unwrap_or(0) == 0;
            (format!("{rows}, {bytes}"), nothing.then_some(true))
        }
    }
}

/// None is exact: the log has one order. More is as far as the newest row that came through tells.
fn in_bytes(bytes: u64) -> String {
    if bytes == 0 { "0 bytes of log".to_owned() } else { format!("at most {bytes} bytes of log") }
}

/// A part of the move's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Part {
    run: String,
    name: String,
    from: UnixMs,
    ms: u64,
    /// The same part of the last drill of that kind.
    last_ms: Option<u64>,
}

fn parts_beside(drill: &Drill, last: Option<&Drill>) -> Vec<Part> {
    let mut parts = Vec::new();
    for run in &drill.runs {
        let before = last.and_then(|last| last.run_of(run.kind));
        for span in &run.spans {
            let same = before.and_then(|run| run.spans.iter().find(|other| other.name == span.name));
            let (run, name) = (run.kind.to_string(), span.name.clone());
            parts.push(Part { run, name, from: span.from, ms: span.ms(), last_ms: same.map(|span| span.ms()) });
        }
    }
    parts
}

fn not_well(drill: &Drill) -> impl Iterator<Item = &Finding> {
    drill.findings.iter().filter(|finding| finding.found != Found::Ok)
}

fn outcome(drill: &Drill) -> &'static str {
    drill.closing.as_ref().map_or("open", |closing| closing.outcome.word())
}

fn begun_by(drill: &Drill) -> String {
    match &drill.schedule {
        Some(schedule) => format!("schedule {schedule}"),
        None => format!("{}: {}", drill.by, drill.reason),
    }
}

fn stamp(drill: &Drill, at: UnixMs) -> String {
    calendar::stamp(at, &drill.settings.zone)
}

/// `0.412 s`, `4.2 s`, `4 min 12 s`, `2 h 5 min`.
fn took(ms: u64) -> String {
    match ms {
        0..1_000 => format!("0.{ms:03} s"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60).replace(" 0 s", ""),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60).replace(" 0 min", ""),
    }
}

/// `+0.3 s`, `-1.2 s` beside the last.
fn beside(ms: u64, last_ms: Option<u64>) -> String {
    match last_ms {
        None => String::new(),
        Some(last) if ms == last => "same".to_owned(),
        Some(last) if ms > last => format!("+{}", took(ms - last)),
        Some(last) => format!("-{}", took(last - ms)),
    }
}
