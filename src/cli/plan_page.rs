//! What a run that is opened by hand would do: gates, then steps with what each resource shows now.

use super::error::{CliError, Exit};
use super::text::{Page, Span, bad, bold, dim, good, warn};
use crate::proto::{FailoverResponse, Gate, PlannedStep, Present, Word};

/// The page of a dry run.
pub fn page(what: &str, group: &str, plan: &FailoverResponse) -> Page {
    let mut page = Page::default();
    // A service is recovered, and a database rejoins, where it is.
    let stays = plan.to_region.is_empty() || plan.to_region == plan.from_region;
    page.line([
        dim(format!("{what} of ")),
        bold(group),
        dim(if stays { " in " } else { " from " }),
        bold(&plan.from_region),
        dim(if stays { "" } else { " to " }),
        bold(if stays { "" } else { &plan.to_region }),
        dim(format!("   token {}", plan.token)),
    ]);
    page.gap();
    page.line([dim("gates")]);
    page.table(2, plan.gates.iter().map(gate_row).collect());
    page.gap();
    page.line([dim("steps, and what is there now")]);
    page.table(2, plan.steps.iter().map(step_row).collect());
    page.gap();
    let closed = |before_promote: bool| {
        let gates = plan.gates.iter().filter(|gate| !gate.open && gate.before_promote == before_promote);
        gates.map(|gate| gate.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let late = closed(true);
    if !plan.would_open {
        page.line([bad(format!("would not open; closed: {}", closed(false)))]);
    } else if late.is_empty() {
        page.line([good("would open and go through")]);
    } else {
        page.line([warn(format!("would open, and stop before promoting until it is settled: {late}"))]);
    }
    page
}

/// The gates that keep it from opening, with their reasons, for one line.
fn closed_gates(plan: &FailoverResponse) -> String {
    let closed = plan.gates.iter().filter(|gate| !gate.open && !gate.before_promote);
    closed.map(|gate| format!("{}: {}", gate.name, gate.detail)).collect::<Vec<_>>().join("; ")
}

/// The code that says what to do next: of the one gate that is closed, or of gates in general.
fn closed_code(plan: &FailoverResponse) -> &'static str {
    let mut closed = plan.gates.iter().filter(|gate| !gate.open && !gate.before_promote).map(|gate| gate.name.as_str());
    let first = closed.next();
    match first.filter(|first| closed.all(|other| other == *first)) {
        Some("pause") => "paused",
        Some("no open run") => "run_open",
        Some("settled") => "unsettled",
        _ => "gate_closed",
    }
}

/// How the verb ends where the plan was all that was asked for, or will not open; `None`: it goes on to the opening.
///
/// # Errors
/// A gate is closed.
pub fn ends_here(plan: &FailoverResponse, is_dry_run: bool) -> Result<Option<Exit>, CliError> {
    match (is_dry_run, plan.would_open) {
        (true, true) => Ok(Some(Exit::Ok)),
        (true, false) => Ok(Some(Exit::Refused)),
        (false, true) => Ok(None),
        (false, false) => Err(CliError::Refused { code: closed_code(plan).to_owned(), message: closed_gates(plan) }),
    }
}

fn gate_row(gate: &Gate) -> Vec<Span> {
    let (mark, word) = if gate.open { (good("✓"), good("open")) } else { (bad("✗"), bad("closed")) };
    let when = if gate.before_promote { "before promoting" } else { "before opening" };
    vec![mark, Span::from(gate.name.as_str()), word, dim(when), Span::from(gate.detail.as_str())]
}

fn step_row(step: &PlannedStep) -> Vec<Span> {
    let word = Present::word(step.present).replace('_', " ");
    let present = match step.present() {
        Present::Done => good("already so"),
        Present::NotDone => Span::from("not so yet"),
        Present::NotRead => dim("not read"),
        Present::Unknown => warn("cannot be read"),
        _ => bad(word),
    };
    vec![
        dim(step.stage.to_string()),
        bold(&step.id),
        Span::from(step.detail.as_str()),
        present,
        dim(&step.present_detail),
    ]
}
