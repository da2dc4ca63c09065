//! What a drill finds by looking: every gate of the move that it rehearses, and what each step's resource shows. Changes nothing.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::backend::Backend;
use crate::api::backend::{AdminBackend as _, DryRun, Gate, OpenFailover};
use crate::domain::attempt::ReadBack;
use crate::domain::drill::{Drill, Finding, Found, Measured};
use crate::domain::ids::{GroupName, RequestId, StepId};
use crate::domain::plan::{Action, Plan};
use crate::domain::readiness::{Holds, Readiness};
use crate::drill::Examiner;

#[async_trait]
impl Examiner for Backend {
    async fn look(&self, group: &GroupName, drill: &Drill) -> (Vec<Finding>, Measured) {
        let ask = OpenFailover {
            group: group.clone(),
            to: drill.to.clone(),
            by: drill.by.clone(),
            reason: drill.reason.clone(),
            accept_loss: false,
            assert_fence: None,
            expected_token: None,
            request_id: RequestId(drill.id.0.clone()),
        };
        let (dry, ready) = tokio::join!(self.dry_run(&ask), self.readiness(group, Some(&drill.to)));
        let finding =
            |what: &str, found, detail: String| Finding { phase: drill.phase, what: what.to_owned(), found, detail };
        let mut findings = Vec::new();
        let mut measured = Measured::default();
        match dry {
            Ok(dry) => findings.extend(of_dry_run(&dry).map(|(what, found, detail)| finding(&what, found, detail))),
            Err(error) => findings.push(finding("dry run", Found::Unknown, error.to_string())),
        }
        match ready {
            Ok(ready) => {
                findings.extend(of_readiness(&ready).map(|(what, found, detail)| finding(&what, found, detail)));
                measured.expected_recovery_ms = ready.recovery_ms;
                measured.expected_loss_ms = ready.loss.ms();
                let rto = in_objective(ready.recovery_ms, drill.settings.rto_ms, "nobody would take over by itself");
                findings.push(finding("objective recovery time", rto.0, rto.1));
                let rpo = in_objective(ready.loss.ms(), drill.settings.rpo_ms, "what would be lost is not known");
                findings.push(finding("objective data loss", rpo.0, rpo.1));
            }
            Err(error) => findings.push(finding("readiness", Found::Unknown, error.to_string())),
        }
        (findings, measured)
    }
}

type Line = (String, Found, String);

fn of_dry_run(dry: &DryRun) -> impl Iterator<Item = Line> {
    let gates = dry.gates.iter().map(|Gate { name, is_open, detail, .. }| {
        (format!("gate {name}"), if *is_open { Found::Ok } else { Found::Bad }, detail.clone())
    });
    gates.chain(of_steps(&dry.plan, &dry.present))
}

/// A step is well where its resource can be read and nobody else holds it; what it shows before the move is not yet so.
fn of_steps(plan: &Plan, present: &BTreeMap<StepId, ReadBack>) -> impl Iterator<Item = Line> {
    plan.steps().map(|(_, step)| {
        let (found, detail) = match present.get(&step.id) {
            Some(ReadBack::Done { evidence }) => (Found::Ok, format!("already so: {evidence}")),
            Some(ReadBack::NotDone { evidence } | ReadBack::Untouched { evidence }) => {
                (Found::Ok, format!("not so yet: {evidence}"))
            }
            Some(ReadBack::InFlight { evidence }) => (Found::Bad, format!("something is in flight there: {evidence}")),
            Some(ReadBack::Unknown { reason }) => (Found::Unknown, reason.clone()),
            Some(ReadBack::Refused { held }) => (Found::Bad, format!("it holds the higher token {held}")),
            None if matches!(step.action, Action::Verify { .. }) => {
                (Found::Ok, "looked at after the move; there is nothing to read before it".to_owned())
            }
            None => (Found::Unknown, "not read".to_owned()),
        };
        (format!("step {}", step.id), found, detail)
    })
}

/// What is weak passes, and is said. That no drill has succeeded is what this one is for, and that a drill is open is no fault.
fn of_readiness(ready: &Readiness) -> impl Iterator<Item = Line> {
    ready.items.iter().filter(|item| item.name != "drill").map(|item| {
        let found = match item.holds {
            Holds::Yes | Holds::Weak => Found::Ok,
            Holds::Unknown => Found::Unknown,
            Holds::No => Found::Bad,
        };
        let weak = if item.holds == Holds::Weak { "weak: " } else { "" };
        (format!("readiness {}", item.name), found, format!("{weak}{}", item.detail))
    })
}

fn in_objective(expected_ms: Option<u64>, objective_ms: u64, unknown: &str) -> (Found, String) {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let objective = seconds(objective_ms);
    match expected_ms {
        Some(ms) if ms <= objective_ms => {
            (Found::Ok, format!("about {:.1} s expected of {objective:.0} s", seconds(ms)))
        }
        Some(ms) => (Found::Bad, format!("about {:.1} s expected, the objective is {objective:.0} s", seconds(ms))),
        None => (Found::Unknown, format!("{unknown}; the objective is {objective:.0} s")),
    }
}
