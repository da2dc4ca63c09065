//! What took how long in a run: detection, decision, then step by step.

use serde::{Deserialize, Serialize};

use crate::domain::ids::UnixMs;
use crate::domain::plan::Action;
use crate::domain::run::Run;

/// One part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// `detect`, `decide`, `fence`, `dns`, `promote`, `services`, `verify`, or another step's word.
    pub name: String,
    /// From.
    pub from: UnixMs,
    /// Until.
    pub until: UnixMs,
}

impl Span {
    /// How long, milliseconds.
    pub fn ms(&self) -> u64 {
        self.until.since(self.from)
    }
}

/// By the clocks of whoever led; of steps by the same name the whole time from the first's start to the last's end. Steps that
/// were not done have no span.
pub fn spans(run: &Run) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    if let Some(fault_at) = run.cause.fault_at {
        spans.push(Span { name: "detect".to_owned(), from: fault_at, until: run.opened_at });
    }
    if let Some(claim) = run.claims.first() {
        spans.push(Span { name: "decide".to_owned(), from: run.opened_at, until: claim.at });
    }
    for (_, step) in run.plan.steps() {
        let Some(record) = run.record(&step.id) else { continue };
        let (Some(from), Some(until)) = (record.first_started_at, record.finished_at) else { continue };
        let name = match &step.action {
            Action::Guarded { name, .. } if name == "start-services" => "services",
            action => action.verb(),
        };
        match spans.iter_mut().find(|span| span.name == name) {
            Some(span) => {
                span.from = span.from.min(from);
                span.until = span.until.max(until);
            }
            None => spans.push(Span { name: name.to_owned(), from, until }),
        }
    }
    spans
}
