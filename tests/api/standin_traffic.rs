//! The stand-in moves traffic by the plans of its configuration.

use std::collections::BTreeMap;

use async_trait::async_trait;
use watchdog::api::backend::{AdminBackend, DryRun, Gate, ProposeError};
use watchdog::api::traffic::{MoveTraffic, TrafficBackend};
use watchdog::clock::unix_now;
use watchdog::domain::attempt::ReadBack;
use watchdog::domain::command::{Applied, Change, Command, Rejection, RejectionCode};
use watchdog::domain::ids::{NodeId, RunId};
use watchdog::domain::plan::Plan;
use watchdog::domain::run::{Cause, RunKind};

use crate::standin::StandInNode;

impl StandInNode {
    fn traffic_plan(&self, ask: &MoveTraffic) -> Result<Plan, ProposeError> {
        let state = self.state().borrow().clone();
        let (rules, from) = (&self.policy.groups[&ask.group], &state.groups[&ask.group].traffic);
        let plan = rules.traffic_plans.iter().find(|plan| &plan.from == from && plan.to == ask.to);
        let message = format!("to: traffic cannot go from {from} to {}", ask.to);
        plan.cloned().ok_or(ProposeError::Rejected(Rejection { code: RejectionCode::Invalid, message }))
    }
}

#[async_trait]
impl TrafficBackend for StandInNode {
    async fn dry_run_traffic(&self, ask: &MoveTraffic) -> Result<DryRun, ProposeError> {
        let plan = self.traffic_plan(ask)?;
        let open = self.state().borrow().groups[&ask.group].open_run.is_none();
        let detail = if open { "none is open" } else { "one is open" }.to_owned();
        let gate = Gate { name: "no open run".to_owned(), is_open: open, detail, before_promote: false };
        let evidence = "www.demo.test. A 10.1.0.30".to_owned();
        let present = BTreeMap::from([("dns".into(), ReadBack::NotDone { evidence })]);
        Ok(DryRun { plan, present, gates: vec![gate] })
    }

    async fn open_traffic(&self, ask: MoveTraffic) -> Result<RunId, ProposeError> {
        let plan = self.traffic_plan(&ask)?;
        let state = self.state().borrow().clone();
        let (group, run) = (&state.groups[&ask.group], RunId(ask.request_id.0.clone()));
        let change = Change::OpenRun {
            run: run.clone(),
            group: ask.group.clone(),
            kind: RunKind::Traffic,
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
