//! The stand-in recovers services by the plans of its configuration.

use std::collections::BTreeMap;

use async_trait::async_trait;
use watchdog::api::backend::{AdminBackend, DryRun, Gate, ProposeError};
use watchdog::api::services::{RecoverService, ServiceBackend};
use watchdog::clock::unix_now;
use watchdog::domain::attempt::ReadBack;
use watchdog::domain::command::{Applied, Change, Command, Rejection, RejectionCode};
use watchdog::domain::ids::{NodeId, RunId};
use watchdog::domain::plan::Plan;
use watchdog::domain::run::{Cause, RunKind};
use watchdog::domain::service;

use crate::standin::StandInNode;

impl StandInNode {
    fn recovery_plan(&self, ask: &RecoverService) -> Result<Plan, ProposeError> {
        let wrong = |message| ProposeError::Rejected(Rejection { code: RejectionCode::Invalid, message });
        let services = &self.policy.groups[&ask.group].services;
        let found = service::find(services, &ask.service, ask.region.as_ref()).map_err(wrong)?;
        found.plan(ask.action, ask.replicas).map_err(wrong)
    }
}

#[async_trait]
impl ServiceBackend for StandInNode {
    async fn dry_run_recovery(&self, ask: &RecoverService) -> Result<DryRun, ProposeError> {
        let plan = self.recovery_plan(ask)?;
        let open = self.state().borrow().groups[&ask.group].open_run.is_none();
        let detail = if open { "none is open" } else { "one is open" }.to_owned();
        let gate = Gate { name: "no open run".to_owned(), is_open: open, detail, before_promote: false };
        let evidence = "the guard has no record of it".to_owned();
        let present = BTreeMap::from([(ask.action.word().into(), ReadBack::NotDone { evidence })]);
        Ok(DryRun { plan, present, gates: vec![gate] })
    }

    async fn open_recovery(&self, ask: RecoverService) -> Result<RunId, ProposeError> {
        let plan = self.recovery_plan(&ask)?;
        let state = self.state().borrow().clone();
        let (group, run) = (&state.groups[&ask.group], RunId(ask.request_id.0.clone()));
        let change = Change::OpenRun {
            run: run.clone(),
            group: ask.group.clone(),
            kind: RunKind::Recovery,
            drill: false,
            plan,
            digest: self.policy.digest.clone(),
            expected_token: ask.expected_token.unwrap_or(group.token),
            expected_serving_epoch: group.serving.epoch,
            cause: Cause {
                by: ask.by.clone(),
                automatic: false,
                reason: ask.reason.clone(),
                evidence: vec![ask.in_words()],
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
