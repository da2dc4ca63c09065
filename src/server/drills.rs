//! What a drill finds by looking: every gate of the move that it rehearses and what each step's resource shows; after the move
//! what works on the other side. Changes nothing but the drill's own marker rows.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::Instant;

use super::backend::Backend;
use super::moving::OPEN_DEADLINE;
use crate::actuator::verify::rehearsal::{self, Kept};
use crate::api::backend::{AdminBackend as _, DryRun, Gate, OpenFailover, ProposeError};
use crate::api::moving::{MoveKind, MovingBackend as _, PlanMove};
use crate::domain::attempt::ReadBack;
use crate::domain::drill::{Drill, DrillKind, DrillPhase, Finding, Found, Measured};
use crate::domain::ids::{GroupName, RegionName, RequestId, StepId};
use crate::domain::plan::{Action, Check, DatabaseEndpoint, Plan};
use crate::domain::readiness::{Holds, Readiness};
use crate::domain::run::RunKind;
use crate::drill::Examiner;

/// Marker rows of a drill.
const MARKER_ROWS: u64 = 20;
/// Marker rows are written, and checks answered, within this.
const CHECK_DEADLINE: Duration = Duration::from_secs(10);

type Line = (String, Found, String);

#[async_trait]
impl Examiner for Backend {
    async fn look(&self, group: &GroupName, drill: &Drill) -> (Vec<Finding>, Measured) {
        let (lines, measured) = match drill.phase {
            DrillPhase::Checking => self.look_before(group, drill).await,
            _ => self.look_after(group, drill).await,
        };
        let finding = |(what, found, detail)| Finding { phase: drill.phase, what, found, detail };
        (lines.into_iter().map(finding).collect(), measured)
    }

    async fn gates(&self, group: &GroupName, drill: &Drill, kind: RunKind, plan: &Plan) -> Result<Vec<String>, String> {
        let (known, rules) = self.known_group(group).map_err(|error| error.to_string())?;
        let ask = asked(group, drill, kind, &plan.to);
        let gates = self.gates_of_move(&ask, (&known, &rules, plan), Instant::now() + OPEN_DEADLINE).await;
        let shut = gates.iter().filter(|gate| !gate.is_open).map(|gate| format!("{}: {}", gate.name, gate.detail));
        let shut: Vec<String> = shut.collect();
        if shut.is_empty() {
            return Ok(gates.into_iter().map(|gate| format!("{}: {}", gate.name, gate.detail)).collect());
        }
        Err(shut.join("; "))
    }
}

impl Backend {
    async fn look_before(&self, group: &GroupName, drill: &Drill) -> (Vec<Line>, Measured) {
        let (dry, ready) = tokio::join!(self.rehearse(group, drill), self.readiness(group, Some(&drill.to)));
        let mut lines = Vec::new();
        let mut measured = Measured::default();
        match dry {
            Ok(dry) => lines.extend(of_dry_run(&dry)),
            Err(error) => lines.push(("dry run".to_owned(), Found::Unknown, error.to_string())),
        }
        match ready {
            Ok(ready) => {
                lines.extend(of_readiness(&ready));
                measured.expected_recovery_ms = ready.recovery_ms;
                measured.expected_loss_ms = ready.loss.ms();
                // Whoever moves the group measures it, and waits for no person: only a tabletop rests on what is expected.
                if !drill.kind.acts() {
                    let (found, detail) = recovery_in_objective(&ready, drill.settings.rto_ms);
                    lines.push(("objective recovery time".to_owned(), found, detail));
                }
                let rpo = in_objective(ready.loss.ms(), drill.settings.rpo_ms, "what would be lost is not known");
                lines.push(("objective data loss".to_owned(), rpo.0, rpo.1));
            }
            Err(error) => lines.push(("readiness".to_owned(), Found::Unknown, error.to_string())),
        }
        let database = drill.kind.acts().then(|| self.database_in(group, &drill.from)).flatten();
        if let Some(database) = database {
            let until = Instant::now() + CHECK_DEADLINE;
            match rehearsal::mark(&database, drill.id.as_str(), MARKER_ROWS, until).await {
                Ok(marked) => {
                    measured.rows_written = Some(marked.rows);
                    measured.lsn_before = Some(marked.lsn);
                    lines.push((
                        "marker rows".to_owned(),
                        Found::Ok,
                        format!("{} written and acknowledged", marked.rows),
                    ));
                }
                Err(why) => lines.push(("marker rows".to_owned(), Found::Bad, why)),
            }
        }
        (lines, measured)
    }

    /// What the drill's move would do, and whether its gates are open: a planned move's, or a failover's.
    async fn rehearse(&self, group: &GroupName, drill: &Drill) -> Result<DryRun, ProposeError> {
        match drill.kind {
            DrillKind::Live => self.dry_run_move(&asked(group, drill, RunKind::Switchover, &drill.to)).await,
            DrillKind::Tabletop | DrillKind::Simulated => self.dry_run(&wish(group, drill, &drill.to)).await,
        }
    }

    async fn look_after(&self, group: &GroupName, drill: &Drill) -> (Vec<Line>, Measured) {
        let until = Instant::now() + CHECK_DEADLINE;
        let checks = drill.settings.checks.iter().filter(|check| check.region == drill.to);
        let looking = checks.map(|check| async move {
            let what = format!("check {}", check.name);
            match rehearsal::examine(&check.what, until).await {
                Ok(found) => (what, Found::Ok, found),
                Err(why) => (what, Found::Bad, why),
            }
        });
        let mut lines = join_all(looking).await;
        let mut measured = Measured::default();
        if let (Some(written), Some(database)) = (drill.measured.rows_written, self.database_in(group, &drill.to)) {
            match rehearsal::count(&database, drill.id.as_str(), until).await {
                Ok(Kept { rows, lsn }) => {
                    measured.rows_found = Some(rows);
                    // The log has one order: where a row came through, everything before it did.
                    measured.lsn_after = if rows >= written { drill.measured.lsn_before } else { lsn };
                    let found = if rows >= written { Found::Ok } else { Found::Bad };
                    lines.push(("marker rows".to_owned(), found, format!("{rows} of {written} are there")));
                }
                Err(why) => lines.push(("marker rows".to_owned(), Found::Unknown, why)),
            }
        }
        if lines.is_empty() {
            let detail = format!("no [[group.drill_check]] names {}: that it serves is all that was seen", drill.to);
            lines.push(("checks".to_owned(), Found::Ok, detail));
        }
        (lines, measured)
    }

    /// The database that is written to after moving to the region, where the configuration names it.
    fn database_in(&self, group: &GroupName, region: &RegionName) -> Option<DatabaseEndpoint> {
        let rules = self.parts.policy.groups.get(group)?;
        rules.failover_plans.iter().filter(|plan| &plan.to == region).find_map(writable)
    }
}

fn writable(plan: &Plan) -> Option<DatabaseEndpoint> {
    plan.steps().find_map(|(_, step)| match &step.action {
        Action::Verify { checks } => checks.iter().find_map(|check| match check {
            Check::DatabaseWritable { database } => Some(database.clone()),
            _ => None,
        }),
        _ => None,
    })
}

/// What an operator would ask for, for the same run.
fn asked(group: &GroupName, drill: &Drill, kind: RunKind, region: &RegionName) -> PlanMove {
    PlanMove {
        kind: match kind {
            RunKind::Failback => MoveKind::Failback,
            RunKind::Recovery => MoveKind::Rejoin,
            RunKind::Failover | RunKind::Switchover | RunKind::Traffic => MoveKind::Switchover,
        },
        group: group.clone(),
        region: Some(region.clone()),
        by: drill.by.clone(),
        reason: drill.reason.clone(),
        expected_token: None,
        request_id: RequestId(drill.id.0.clone()),
    }
}

/// A failover's wish has all that a dry run needs.
fn wish(group: &GroupName, drill: &Drill, to: &RegionName) -> OpenFailover {
    OpenFailover::plain(group, to, (&drill.by, &drill.reason), None, &RequestId(drill.id.0.clone()))
}

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
            // Both guards answer, or their gates are shut.
            None if matches!(step.action, Action::CatchUp { .. }) => {
                (Found::Ok, "looked at once the writing has stopped; there is nothing to read before it".to_owned())
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

/// Where the group waits for a person's word, as mode `confirm` means it to, the time is that person's: it is said, and held
/// against nobody. Whatever else keeps the group from moving is for a person too, and is no such wait.
fn recovery_in_objective(ready: &Readiness, objective_ms: u64) -> (Found, String) {
    if ready.waits_for_a_person() {
        let objective_s = objective_ms as f64 / 1000.0;
        let detail = format!(
            "weak: not judged, a person must act: nobody is expected to take over by itself; the objective is {objective_s:.0} s"
        );
        return (Found::Ok, detail);
    }
    in_objective(ready.recovery_ms, objective_ms, "nobody would take over by itself")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::loss::Loss;
    use crate::domain::readiness::Item;

    #[test]
    fn a_person_who_must_act_fails_no_drill_and_whoever_else_keeps_the_group_does() {
        let ready = |recovery_ms, decision| Readiness {
            from: "hcmc".into(),
            to: "hanoi".into(),
            items: [("fence", Holds::Weak), ("decision", decision)]
                .map(|(name, holds)| Item { name, holds, reason: String::new(), detail: "cooldown".to_owned() })
                .to_vec(),
            loss: Loss::AtMost { bytes: Some(0), ms: 0 },
            loss_limit_ms: 0,
            recovery_ms,
            recovery: Vec::new(),
            past: None,
            objective_ms: None,
        };
        for (recovery_ms, decision, found, says) in [
            (Some(4200), Holds::Yes, Found::Ok, "about 4.2 s expected of 60 s"),
            (Some(61_000), Holds::Yes, Found::Bad, "the objective is 60 s"),
            (None, Holds::Yes, Found::Ok, "weak: not judged, a person must act"),
            (None, Holds::Weak, Found::Ok, "weak: not judged, a person must act"),
            (None, Holds::Unknown, Found::Unknown, "nobody would take over by itself"),
            (None, Holds::No, Found::Unknown, "nobody would take over by itself"),
        ] {
            let ready = ready(recovery_ms, decision);
            let (judged, detail) = recovery_in_objective(&ready, 60_000);
            assert!(judged == found && detail.contains(says), "{recovery_ms:?} {decision:?}: {judged:?} {detail}");
            let line = of_readiness(&ready).find(|(what, ..)| what == "readiness decision").unwrap();
            assert_eq!(line.1 == Found::Ok, decision <= Holds::Weak, "what else is bad still shows: {line:?}");
        }
    }
}
