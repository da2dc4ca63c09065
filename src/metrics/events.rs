//! What is counted as it happens. One set a process: these are facts about it, and start at nothing with it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::domain::attempt::Outcome;
use crate::domain::command::{Applied, Change, Command};
use crate::domain::ids::{GroupName, RunId};
use crate::domain::observation::FailureKind;
use crate::domain::policy::GroupPolicy;
use crate::domain::run::{Run, RunKind, RunOutcome};
use crate::domain::state::ClusterState;

/// Buckets of a probe's duration, seconds.
const PROBE_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets of a step's or run's duration, seconds.
const RUN_BUCKETS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];

struct Events {
    registry: Registry,
    probes: IntCounterVec,
    probe_duration: HistogramVec,
    commands: IntCounterVec,
    steps: IntCounterVec,
    step_duration: HistogramVec,
    runs: IntCounterVec,
    run_duration: HistogramVec,
    tokens: IntCounterVec,
    token_refusals: IntCounterVec,
    pages: IntCounterVec,
    calls: IntCounterVec,
    heartbeats: IntCounterVec,
    traces: IntCounterVec,
}

static EVENTS: LazyLock<Events> = LazyLock::new(Events::new);

impl Events {
    fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are literals here");
            registry.register(Box::new(made.clone())).expect("each name is used once");
            made
        };
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let made = HistogramVec::new(opts, labels).expect("names and labels are literals here");
            registry.register(Box::new(made.clone())).expect("each name is used once");
            made
        };
        Self {
            probes: counter(
                "watchdog_probes_total",
                "Probes by this node and what came of them: good, or the kind of failure.",
                &["group", "target", "result"],
            ),
            probe_duration: histogram(
                "watchdog_probe_duration_seconds",
                "How long probes of the target took, failed ones too.",
                &["group", "target"],
                PROBE_BUCKETS,
            ),
            commands: counter(
                "watchdog_commands_total",
                "Changes that this node proposed and the log applied: done, or why they were rejected.",
                &["change", "outcome"],
            ),
            steps: counter(
                "watchdog_steps_total",
                "Attempts at steps whose result this node committed: done, failed, unknown or refused.",
                &["group", "action", "outcome"],
            ),
            step_duration: histogram(
                "watchdog_step_duration_seconds",
                "From a step's start to its being done, as this node committed it.",
                &["group", "action"],
                RUN_BUCKETS,
            ),
            runs: counter(
                "watchdog_runs_total",
                "Runs that this node closed, by how they ended; drill: true where it was part of a rehearsal.",
                &["group", "kind", "outcome", "drill"],
            ),
            run_duration: histogram(
                "watchdog_run_duration_seconds",
                "From a run's opening to its end, as this node closed it; drill: true where it was part of a rehearsal.",
                &["group", "kind", "outcome", "drill"],
                RUN_BUCKETS,
            ),
            tokens: counter(
                "watchdog_tokens_issued_total",
                "Fencing tokens issued to this node by a claim.",
                &["group"],
            ),
            token_refusals: counter(
                "watchdog_token_refusals_total",
                "Times a resource refused this node's token for a higher one.",
                &["group", "action"],
            ),
            pages: counter(
                "watchdog_pages_total",
                "Pages that this node sent, by what the receiver answered: delivered, refused or retried.",
                &["receiver", "result"],
            ),
            calls: counter(
                "watchdog_calls_refused_total",
                "gRPC calls that the table of roles refused here, by code.",
                &["code"],
            ),
            heartbeats: counter(
                "watchdog_heartbeats_total",
                "Heartbeats that this node sent while it led, by what the outside receiver answered: delivered, refused or retried.",
                &["result"],
            ),
            traces: counter(
                "watchdog_traces_total",
                "Traces of closed runs that this node sent, by what the collector answered: delivered, refused or retried.",
                &["result"],
            ),
            registry,
        }
    }
}

/// Begins at 0 what may happen to the configured groups: an increase from nothing at all would not be seen.
pub fn expect(groups: &BTreeMap<GroupName, GroupPolicy>) {
    for (group, rules) in groups {
        let group = group.as_str();
        EVENTS.tokens.with_label_values(&[group]);
        for step in rules.plans().flat_map(|plan| plan.all_steps()) {
            EVENTS.token_refusals.with_label_values(&[group, step.action.verb()]);
            for outcome in ["done", "failed", "unknown", "refused"] {
                EVENTS.steps.with_label_values(&[group, step.action.verb(), outcome]);
            }
        }
        let kinds = [
            (RunKind::Failover, rules.failover_plans.is_empty()),
            (RunKind::Switchover, rules.switchover_plans.is_empty()),
            (RunKind::Failback, rules.switchover_plans.is_empty()),
            (RunKind::Traffic, rules.traffic_plans.is_empty()),
            (RunKind::Recovery, rules.rejoin_plans.is_empty()),
        ];
        for (kind, _) in kinds.iter().filter(|(_, is_empty)| !is_empty) {
            let reverted = kind.is_planned().then_some(RunOutcome::Reverted);
            for outcome in
                [RunOutcome::Succeeded, RunOutcome::Withdrawn, RunOutcome::Aborted].into_iter().chain(reverted)
            {
                for drill in ["false", "true"] {
                    EVENTS.runs.with_label_values(&[group, &kind.to_string(), &outcome.to_string(), drill]);
                }
            }
        }
    }
}

/// A probe ended.
pub fn probed(group: &str, target: &str, failure: Option<FailureKind>, took: std::time::Duration) {
    let result = failure.map_or_else(|| "good".to_owned(), word);
    EVENTS.probes.with_label_values(&[group, target, result.as_str()]).inc();
    EVENTS.probe_duration.with_label_values(&[group, target]).observe(took.as_secs_f64());
}

/// A command that this node proposed was applied; `state` is the state after.
pub fn applied(state: &ClusterState, command: &Command, applied: &Applied) {
    let outcome = match applied {
        Applied::Rejected(rejection) => word(rejection.code),
        Applied::Done { .. } | Applied::Nothing => "done".to_owned(),
    };
    EVENTS.commands.with_label_values(&[command.change.name(), outcome.as_str()]).inc();
    if matches!(applied, Applied::Rejected(_)) {
        return;
    }
    match &command.change {
        Change::ClaimRun { group, .. } => EVENTS.tokens.with_label_values(&[group.as_str()]).inc(),
        Change::StepFinished { group, run, step, outcome, .. } => {
            let Some(run) = find_run(state, group, run) else { return };
            let action = run.plan.step(step).map_or("unknown", |it| it.action.verb());
            EVENTS.steps.with_label_values(&[group.as_str(), action, outcome_word(outcome)]).inc();
            if matches!(outcome, Outcome::Refused { .. }) {
                EVENTS.token_refusals.with_label_values(&[group.as_str(), action]).inc();
            }
            let record = run.record(step);
            if let (Outcome::Done { .. }, Some((start, end))) =
                (outcome, record.and_then(|record| record.first_started_at.zip(record.finished_at)))
            {
                let took = seconds(end.0.saturating_sub(start.0));
                EVENTS.step_duration.with_label_values(&[group.as_str(), action]).observe(took);
            }
        }
        Change::CloseRun { group, run, outcome, .. } => {
            let Some(run) = find_run(state, group, run) else { return };
            let (kind, outcome) = (run.kind.to_string(), outcome.to_string());
            let drill = if run.drill { "true" } else { "false" };
            let labels = [group.as_str(), kind.as_str(), outcome.as_str(), drill];
            EVENTS.runs.with_label_values(&labels).inc();
            let took = seconds(command.at.0.saturating_sub(run.opened_at.0));
            EVENTS.run_duration.with_label_values(&labels).observe(took);
        }
        _ => {}
    }
}

/// A receiver answered a page, or did not: `delivered`, `refused` or `retried`.
pub fn paged(receiver: &str, result: &'static str) {
    EVENTS.pages.with_label_values(&[receiver, result]).inc();
}

/// The outside receiver answered a heartbeat, or did not: `delivered`, `refused` or `retried`.
pub fn beaten(result: &'static str) {
    EVENTS.heartbeats.with_label_values(&[result]).inc();
}

/// The trace collector answered, or did not: `delivered`, `refused` or `retried`.
pub fn traced(result: &'static str) {
    EVENTS.traces.with_label_values(&[result]).inc();
}

/// The table of roles refused a call.
pub fn call_refused(code: &str) {
    EVENTS.calls.with_label_values(&[code]).inc();
}

/// What was counted so far.
pub(super) fn gather() -> Vec<prometheus::proto::MetricFamily> {
    EVENTS.registry.gather()
}

/// Names of all families here, whether or not anything was counted.
pub fn names() -> Vec<String> {
    use prometheus::core::Collector as _;
    let events = &*EVENTS;
    let counters = [
        &events.probes,
        &events.commands,
        &events.steps,
        &events.runs,
        &events.tokens,
        &events.token_refusals,
        &events.pages,
        &events.calls,
        &events.heartbeats,
        &events.traces,
    ];
    let histograms = [&events.probe_duration, &events.step_duration, &events.run_duration];
    let of_counters = counters.into_iter().flat_map(|it| it.desc()).map(|desc| desc.fq_name.clone());
    let of_histograms = histograms.into_iter().flat_map(|it| it.desc()).map(|desc| desc.fq_name.clone());
    of_counters.chain(of_histograms).collect()
}

fn find_run<'a>(state: &'a ClusterState, group: &GroupName, run: &RunId) -> Option<&'a Run> {
    let group = state.group(group)?;
    group.open_run.iter().chain(group.history.iter().rev()).find(|it| &it.id == run)
}

/// Milliseconds as seconds.
pub fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

/// A unit variant's word, as the replicated state writes it.
fn word<T: serde::Serialize>(of: T) -> String {
    let written = serde_json::to_value(of).ok();
    written.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_else(|| "other".to_owned())
}

fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Failed { .. } => "failed",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Refused { .. } => "refused",
    }
}
