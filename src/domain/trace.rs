//! A closed run as one trace: what was seen, the decision, who executed it, its steps and their attempts.
//!
//! Made of the replicated record alone, ids included: whichever node exports it, and however often, it is the same trace.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};

use super::ids::{StepId, UnixMs};
use super::plan::Step;
use super::policy::ClusterPolicy;
use super::run::{AttemptMark, Run, RunEvent, RunOutcome, RunPhase, StepPhase};

/// One span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Unique within the trace.
    pub id: [u8; 8],
    /// The span it is part of; `None` at the run itself.
    pub parent: Option<[u8; 8]>,
    /// In few words, without anything that differs from run to run.
    pub name: String,
    /// When it began.
    pub start: UnixMs,
    /// When it ended; never before it began.
    pub end: UnixMs,
    /// Facts by name.
    pub attributes: BTreeMap<&'static str, String>,
    /// Moments within it, in words.
    pub events: Vec<(UnixMs, String)>,
    /// Why it did not do what it was for; `None` where it did.
    pub error: Option<String>,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The run's id (a UUID has as many bytes as a trace's id), else its hash.
    pub id: [u8; 16],
    /// The run first, then what is part of it.
    pub spans: Vec<Span>,
}

/// Attempts that are shown of one step, at most.
const ATTEMPTS_MAX: usize = 50;

/// The trace of a closed run; `None` while it is open.
pub fn of_run(policy: &ClusterPolicy, run: &Run) -> Option<Trace> {
    let RunPhase::Closed { outcome, at: closed } = &run.phase else { return None };
    let made = Made { run, closed: *closed, policy };
    let start = run.cause.fault_at.unwrap_or(run.opened_at).min(run.opened_at);
    let root = made.span(None, "run", run.kind.to_string(), start, *closed);
    let mut attributes = BTreeMap::from([
        ("watchdog.run", run.id.to_string()),
        ("watchdog.group", run.group.to_string()),
        ("watchdog.kind", run.kind.to_string()),
        ("watchdog.drill", run.drill.to_string()),
        ("watchdog.from", run.from().to_string()),
        ("watchdog.to", run.to().to_string()),
        ("watchdog.by", run.cause.by.to_string()),
        ("watchdog.automatic", run.cause.automatic.to_string()),
        ("watchdog.outcome", outcome.to_string()),
    ]);
    attributes.extend(run.recovery_time_ms().map(|ms| ("watchdog.recovery_time_ms", ms.to_string())));
    let error = (*outcome != RunOutcome::Succeeded).then(|| outcome.to_string());
    let of_the_run = run.events.iter().filter(|event| event.step.is_none());
    let root = Span { attributes, error, events: of_the_run.map(told).collect(), ..root };
    let parent = root.id;
    let mut spans = vec![root, made.seen(parent, start), made.decided(parent)];
    spans.extend(made.claims(parent));
    for (stage, step) in run.plan.steps() {
        spans.extend(made.step(parent, stage, step));
    }
    Some(Trace { id: trace_id(run.id.as_str()), spans })
}

struct Made<'a> {
    run: &'a Run,
    closed: UnixMs,
    policy: &'a ClusterPolicy,
}

impl Made<'_> {
    fn span(&self, parent: Option<[u8; 8]>, key: &str, name: String, start: UnixMs, end: UnixMs) -> Span {
        let mut id = [0; 8];
        let hash = digest(&SHA256, format!("{}/{key}", self.run.id).as_bytes());
        id.iter_mut().zip(hash.as_ref()).for_each(|(byte, from)| *byte = *from);
        // An id of nothing but zeros is no id.
        id[7] |= 1;
        let (attributes, events) = (BTreeMap::new(), Vec::new());
        Span { id, parent, name, start, end: end.max(start), attributes, events, error: None }
    }

    /// From the first failure to the opening: what the nodes' probes said.
    fn seen(&self, parent: [u8; 8], start: UnixMs) -> Span {
        let opened = self.run.opened_at;
        let span = self.span(Some(parent), "seen", "verdicts".to_owned(), start, opened);
        Span { events: self.run.cause.evidence.iter().map(|line| (opened, line.clone())).collect(), ..span }
    }

    fn decided(&self, parent: [u8; 8]) -> Span {
        let first = self.run.claims.first().map_or(self.run.opened_at, |claim| claim.at);
        let span = self.span(Some(parent), "decision", "decision".to_owned(), self.run.opened_at, first);
        let mut attributes = BTreeMap::from([("watchdog.reason", self.run.cause.reason.clone())]);
        attributes.extend(self.run.cause.expected_loss_ms.map(|ms| ("watchdog.expected_loss_ms", ms.to_string())));
        Span { attributes, ..span }
    }

    /// Each lasts until the next, or the end.
    fn claims(&self, parent: [u8; 8]) -> impl Iterator<Item = Span> {
        let ends = self.run.claims.iter().skip(1).map(|claim| claim.at).chain([self.closed]);
        self.run.claims.iter().zip(ends).map(move |(claim, end)| {
            let key = format!("claim/{}", claim.token);
            let span = self.span(Some(parent), &key, "claim".to_owned(), claim.at, end);
            let name =
                self.policy.members.get(&claim.node).map_or_else(|| claim.node.to_string(), |it| it.name.to_string());
            let attributes = BTreeMap::from([("watchdog.token", claim.token.to_string()), ("watchdog.node", name)]);
            Span { attributes, ..span }
        })
    }

    /// A step that was begun, and each attempt at it.
    fn step(&self, parent: [u8; 8], stage: usize, step: &Step) -> Vec<Span> {
        let Some(record) = self.run.record(&step.id) else { return Vec::new() };
        let Some(start) = record.first_started_at else { return Vec::new() };
        let end = record.finished_at.unwrap_or(self.closed);
        let key = format!("step/{}", step.id);
        let span = self.span(Some(parent), &key, format!("step {}", step.action.verb()), start, end);
        let is_good = matches!(record.phase, StepPhase::Done | StepPhase::Skipped);
        let mut attributes = BTreeMap::from([
            ("watchdog.step", step.id.to_string()),
            ("watchdog.stage", (stage + 1).to_string()),
            ("watchdog.phase", record.phase.to_string()),
            ("watchdog.attempts", record.attempts.to_string()),
            ("watchdog.detail", record.detail.clone()),
        ]);
        attributes.extend(step.action.resource().map(|resource| ("watchdog.resource", resource.to_string())));
        attributes.extend(record.token.map(|token| ("watchdog.token", token.to_string())));
        let error = (!is_good).then(|| record.detail.clone());
        let of_it = || self.run.events.iter().filter(|event| event.step.as_ref() == Some(&step.id));
        let mut spans = vec![Span { attributes, error, events: of_it().map(told).collect(), ..span }];
        let within = spans[0].id;
        spans.extend(self.attempts(within, &step.id, end, of_it().collect()));
        spans
    }

    /// From the line by which each begins to the one by which it ends. A leader that was lost in the middle enters no end:
    /// then it lasts until the next one begins, else until the step is over.
    fn attempts(&self, parent: [u8; 8], step: &StepId, over: UnixMs, lines: Vec<&RunEvent>) -> Vec<Span> {
        let marked: Vec<(&RunEvent, AttemptMark)> =
            lines.into_iter().filter_map(|line| Some((line, line.attempt?))).collect();
        let mut spans = Vec::new();
        for (n, (begin, mark)) in marked.iter().enumerate() {
            let AttemptMark::Began(attempt) = mark else { continue };
            if spans.len() == ATTEMPTS_MAX {
                break;
            }
            let next = marked.get(n + 1);
            let end = next.filter(|(_, mark)| *mark == AttemptMark::Ended(*attempt));
            let key = format!("attempt/{step}/{}", begin.index);
            let until = next.map_or(over, |(line, _)| line.at);
            let span = self.span(Some(parent), &key, "attempt".to_owned(), begin.at, until);
            let mut attributes = BTreeMap::from([
                ("watchdog.attempt", attempt.to_string()),
                ("watchdog.began", begin.what.clone()),
                ("watchdog.ended", end.map_or("nobody entered how".to_owned(), |(line, _)| line.what.clone())),
            ]);
            attributes.extend(begin.token.map(|token| ("watchdog.token", token.to_string())));
            spans.push(Span { attributes, ..span });
        }
        spans
    }
}

fn told(event: &RunEvent) -> (UnixMs, String) {
    (event.at, event.what.clone())
}

fn trace_id(run: &str) -> [u8; 16] {
    let mut id = [0; 16];
    let digits: Vec<u8> = run.bytes().filter(|b| *b != b'-').collect();
    let read = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(read).collect();
    match bytes.filter(|bytes| bytes.len() == 16 && bytes.iter().any(|byte| *byte != 0)) {
        Some(bytes) => id.copy_from_slice(&bytes),
        None => id.iter_mut().zip(digest(&SHA256, run.as_bytes()).as_ref()).for_each(|(byte, from)| *byte = *from),
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_id_is_its_traces() {
        let hex = |id: [u8; 16]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(trace_id("019a0000-0000-7000-8000-000000000001")), "019a0000000070008000000000000001");
        assert_eq!(trace_id("run-1"), trace_id("run-1"));
        assert_ne!(trace_id("run-1"), trace_id("run-2"));
    }
}
