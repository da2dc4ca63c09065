//! The stand-in moves a group by the plans of its configuration, and looks at nothing.

use async_trait::async_trait;
use watchdog::api::backend::{AdminBackend, DryRun, Gate, ProposeError};
use watchdog::api::moving::{MoveKind, MovingBackend, PlanMove};
use watchdog::clock::unix_now;
use watchdog::domain::command::{Applied, Change, Command, Rejection, RejectionCode};
use watchdog::domain::ids::{NodeId, RunId};
use watchdog::domain::plan::Plan;
use watchdog::domain::run::{Cause, RunKind};

use crate::standin::StandInNode;

impl StandInNode {
    fn planned(&self, ask: &PlanMove) -> Result<(RunKind, Plan), ProposeError> {
        let state = self.state().borrow().clone();
        let (rules, here) = (&self.policy.groups[&ask.group], &state.groups[&ask.group].serving.last);
        let other = rules.regions.iter().find(|region| *region != here);
        let region = ask.region.as_ref().or(other).unwrap();
        let (kind, plan) = match ask.kind {
            MoveKind::Switchover => (RunKind::Switchover, rules.switchover_plan(here, region)),
            MoveKind::Failback => (RunKind::Failback, rules.switchover_plan(here, &rules.home)),
            MoveKind::Rejoin => (RunKind::Recovery, rules.rejoin_plan(region, here)),
        };
        let message = format!("region: there is no plan for a {} of {here} and {region}", ask.kind);
        let rejection = Rejection { code: RejectionCode::Invalid, message };
        plan.cloned().map(|plan| (kind, plan)).ok_or(ProposeError::Rejected(rejection))
    }
}

#[async_trait]
impl MovingBackend for StandInNode {
    async fn dry_run_move(&self, ask: &PlanMove) -> Result<DryRun, ProposeError> {
        let (_, plan) = self.planned(ask)?;
        let open = self.state().borrow().groups[&ask.group].open_run.is_none();
        let detail = if open { "none is open" } else { "one is open" }.to_owned();
        let gate = Gate { name: "no open run".to_owned(), is_open: open, detail, before_promote: false };
        Ok(DryRun { plan, present: Default::default(), gates: vec![gate] })
    }

    async fn open_move(&self, ask: PlanMove) -> Result<RunId, ProposeError> {
        let (kind, plan) = self.planned(&ask)?;
        let state = self.state().borrow().clone();
        let (group, run) = (&state.groups[&ask.group], RunId(ask.request_id.0.clone()));
        let change = Change::OpenRun {
            run: run.clone(),
            group: ask.group.clone(),
            kind,
            drill: false,
            plan,
            digest: self.policy.digest.clone(),
            expected_token: ask.expected_token.unwrap_or(group.token),
            expected_serving_epoch: group.serving.epoch,
            cause: Cause {
                by: ask.by.clone(),
                automatic: false,
                reason: ask.reason.clone(),
                evidence: Vec::new(),
                fault_at: None,
                expected_loss_ms: Some(0),
            },
            loss_acceptance: None,
            fence_assertion: None,
        };
        let (at, request_id) = (unix_now(), Some(ask.request_id));
        match self.take(Command { node: NodeId(3), at, by: ask.by, from: None, request_id, change }).await? {
            Applied::Rejected(rejection) => Err(ProposeError::Rejected(rejection)),
            _ => Ok(run),
        }
    }
}
