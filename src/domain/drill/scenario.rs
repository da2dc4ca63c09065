//! What a drill does next. Pure: from what the log holds of it and of its group, so that every leader goes on where the one
//! before it stopped.

use super::{Drill, DrillKind, DrillOutcome, DrillPhase, Found};
use crate::domain::ids::UnixMs;
use crate::domain::plan::Plan;
use crate::domain::policy::GroupPolicy;
use crate::domain::run::{RunKind, RunOutcome};
use crate::domain::state::GroupState;

/// The next move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Wait,
    /// What is to be looked at in this phase is, and what is found put into the log.
    Look,
    /// On to the next phase.
    Advance {
        /// Which.
        to: DrillPhase,
        /// Why.
        why: String,
    },
    /// A run is opened, once its gates are open.
    Open {
        /// What for.
        kind: RunKind,
        /// Its plan.
        plan: Box<Plan>,
    },
    /// It is to end, and the group to be brought home.
    Abort {
        /// Why.
        reason: String,
    },
    /// It is over.
    Close {
        /// How.
        outcome: DrillOutcome,
        /// Why; empty where it passed.
        why: String,
    },
}

/// Decides it. `alarm`: what of the drill's abort conditions holds now.
pub fn next(rules: &GroupPolicy, group: &GroupState, drill: &Drill, alarm: Option<&str>, now: UnixMs) -> Next {
    if let Some(reason) = end_early(group, drill, alarm, now) {
        return Next::Abort { reason };
    }
    // A run decides for itself, and a pause stops everything automatic.
    if group.open_run.is_some() || (group.pause.is_some() && drill.kind.acts()) {
        return Next::Wait;
    }
    let looked = drill.findings.iter().any(|finding| finding.phase == drill.phase);
    let aborted = drill.abort.is_some();
    match drill.phase {
        DrillPhase::Checking if aborted => over(drill),
        DrillPhase::Checking if !looked => Next::Look,
        DrillPhase::Checking if !drill.kind.acts() => over(drill),
        DrillPhase::Checking => begin(drill),
        DrillPhase::Injecting | DrillPhase::Moving => away(rules, group, drill),
        DrillPhase::Testing if !looked && !aborted => Next::Look,
        DrillPhase::Testing => homeward(drill, "the other side was tried"),
        DrillPhase::Rejoining => rejoin(rules, group, drill, now),
        DrillPhase::Returning => back(rules, group, drill, now),
        DrillPhase::Closed => Next::Wait,
    }
}

/// Why it must end, where nobody said so yet.
fn end_early(group: &GroupState, drill: &Drill, alarm: Option<&str>, now: UnixMs) -> Option<String> {
    if drill.abort.is_some() || !drill.is_open() {
        return None;
    }
    if let Some(run) = group.open_run.as_ref().filter(|run| !run.drill) {
        return Some(format!("run {} ({}) was opened beside it", run.id, run.kind));
    }
    let limit_ms = drill.settings.limit_ms;
    if now.since(drill.opened_at) > limit_ms {
        return Some(format!("it takes longer than {} s", limit_ms / 1000));
    }
    let is_away = matches!(drill.phase, DrillPhase::Moving | DrillPhase::Injecting | DrillPhase::Testing);
    alarm.filter(|_| is_away).map(|alarm| format!("alarm: {alarm}"))
}

/// Nothing is moved where something is not as it should be.
fn begin(drill: &Drill) -> Next {
    if drill.worst() != Found::Ok {
        return over(drill);
    }
    let to = if drill.kind == DrillKind::Simulated { DrillPhase::Injecting } else { DrillPhase::Moving };
    Next::Advance { to, why: "everything that was looked at is as it should be".to_owned() }
}

fn away(rules: &GroupPolicy, group: &GroupState, drill: &Drill) -> Next {
    let kind = if drill.kind == DrillKind::Simulated { RunKind::Failover } else { RunKind::Switchover };
    let aborted = drill.abort.is_some();
    match drill.run_of(kind) {
        None if aborted => over(drill),
        // The failover opens by itself.
        None if kind == RunKind::Failover => Next::Wait,
        None => match rules.switchover_plan(&group.serving.last, &drill.to) {
            Some(plan) => Next::Open { kind, plan: Box::new(plan.clone()) },
            None => failed(format!("there is no plan from {} to {}", group.serving.last, drill.to)),
        },
        Some(run) if run.outcome == Some(RunOutcome::Succeeded) && aborted => homeward(drill, "the drill is aborted"),
        Some(run) if run.outcome == Some(RunOutcome::Succeeded) => {
            Next::Advance { to: DrillPhase::Testing, why: format!("the {kind} succeeded") }
        }
        Some(run) => failed(format!("the {kind} {}", how(run.outcome))),
    }
}

fn homeward(drill: &Drill, why: &str) -> Next {
    let to = if drill.kind == DrillKind::Simulated { DrillPhase::Rejoining } else { DrillPhase::Returning };
    Next::Advance { to, why: why.to_owned() }
}

/// After a failover the old primary follows the new one, before anything can go home.
fn rejoin(rules: &GroupPolicy, group: &GroupState, drill: &Drill, now: UnixMs) -> Next {
    let on = || Next::Advance { to: DrillPhase::Returning, why: "the old primary follows".to_owned() };
    match drill.run_of(RunKind::Recovery) {
        Some(run) if run.outcome == Some(RunOutcome::Succeeded) => on(),
        Some(run) => failed(stays(group, &format!("the rejoin {}", how(run.outcome)))),
        None => match rules.rejoin_plan(&drill.from, &group.serving.last).filter(|plan| !plan.stages.is_empty()) {
            None => on(),
            Some(_) if is_late(drill, now) => failed(stays(group, "the old primary's host is not ready to follow")),
            Some(plan) => Next::Open { kind: RunKind::Recovery, plan: Box::new(plan.clone()) },
        },
    }
}

fn back(rules: &GroupPolicy, group: &GroupState, drill: &Drill, now: UnixMs) -> Next {
    if group.serving.region.as_ref() == Some(&drill.from) {
        return over(drill);
    }
    match drill.run_of(RunKind::Failback) {
        Some(run) => failed(stays(group, &format!("the failback {}", how(run.outcome)))),
        None if is_late(drill, now) => failed(stays(group, "the gates home stayed shut")),
        None => match rules.switchover_plan(&group.serving.last, &drill.from) {
            Some(plan) => Next::Open { kind: RunKind::Failback, plan: Box::new(plan.clone()) },
            None => failed(stays(group, "there is no plan home")),
        },
    }
}

/// A phase of the way home has lasted for as long as the whole drill may.
fn is_late(drill: &Drill, now: UnixMs) -> bool {
    now.since(drill.phase_since) > drill.settings.limit_ms
}

fn stays(group: &GroupState, why: &str) -> String {
    format!("{why}; the group stays in {}: `watchdogctl failback` brings it home", group.serving.last)
}

fn how(outcome: Option<RunOutcome>) -> String {
    match outcome {
        Some(RunOutcome::Succeeded) | None => "is not over".to_owned(),
        Some(outcome) => format!("was {outcome}"),
    }
}

fn failed(why: String) -> Next {
    Next::Close { outcome: DrillOutcome::Failed, why }
}

/// By what was found and measured; what was aborted is aborted whatever was found.
fn over(drill: &Drill) -> Next {
    if let Some(abort) = &drill.abort {
        return Next::Close { outcome: DrillOutcome::Aborted, why: format!("by {}: {}", abort.by, abort.reason) };
    }
    let mut bad: Vec<String> =
        drill.findings.iter().filter(|one| one.found != Found::Ok).map(|one| one.what.clone()).collect();
    if drill.measured.recovery_ms.is_some_and(|ms| ms > drill.settings.rto_ms) {
        bad.push("recovery time".to_owned());
    }
    if drill.measured.rows_lost().is_some_and(|rows| rows > 0) {
        bad.push("rows lost".to_owned());
    }
    match bad.is_empty() {
        true => Next::Close { outcome: DrillOutcome::Passed, why: String::new() },
        false => failed(format!("not as it should be: {}", bad.join(", "))),
    }
}
