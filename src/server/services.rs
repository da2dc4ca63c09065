//! Recovering one service by an operator's word (C2): one action of a guard, and a look whether the service is well.

use tokio::time::Instant;

use super::backend::{Backend, DRY_RUN_DEADLINE};
use super::dry_run::{opened_before, refused, same_wish, settled_gates, standing_gates, token_as_seen};
use super::journal::CONFIRM_TIMEOUT;
use crate::api::backend::{AdminBackend, DryRun, OpenFailover, ProposeError};
use crate::api::services::{RecoverService, ServiceBackend};
use crate::domain::command::RejectionCode;
use crate::domain::ids::RunId;
use crate::domain::plan::Plan;
use crate::domain::run::RunKind;
use crate::domain::service;
use crate::domain::state::GroupState;

impl Backend {
    /// The group and the plan that the wish asks for, or why there is none.
    fn resolve_recovery(&self, ask: &RecoverService) -> Result<(GroupState, Plan), ProposeError> {
        let (group, rules) = self.known_group(&ask.group)?;
        let wrong = |why| refused(RejectionCode::Invalid, why);
        let found = service::find(&rules.services, &ask.service, ask.region.as_ref()).map_err(wrong)?;
        let plan = found.plan(ask.action, ask.replicas).map_err(wrong)?;
        token_as_seen(&ask.group, &group, ask.expected_token)?;
        Ok((group, plan))
    }
}

/// What a dry run reads under, and what is opened; a failover's wish has all that is needed for it.
fn look(ask: &RecoverService, plan: &Plan) -> OpenFailover {
    OpenFailover::plain(&ask.group, &plan.to, (&ask.by, &ask.reason), ask.expected_token, &ask.request_id)
}

#[async_trait::async_trait]
impl ServiceBackend for Backend {
    async fn dry_run_recovery(&self, ask: &RecoverService) -> Result<DryRun, ProposeError> {
        if let Err(error) = self.parts.consensus.confirm_leadership(CONFIRM_TIMEOUT).await {
            return Err(ProposeError::NoQuorum(error.to_string()));
        }
        let (group, plan) = self.resolve_recovery(ask)?;
        let deadline = Instant::now() + DRY_RUN_DEADLINE;
        let present = self.look_at_steps(&look(ask, &plan), &group, &plan, deadline).await;
        let mut gates = standing_gates(&group);
        gates.extend(settled_gates(&group));
        Ok(DryRun { plan, present, gates })
    }

    async fn open_recovery(&self, ask: RecoverService) -> Result<RunId, ProposeError> {
        let run = RunId(ask.request_id.0.clone());
        let state = self.state().borrow().clone();
        let known = state.group(&ask.group).and_then(|group| opened_before(group, &run));
        if let Some(known) = known.filter(|known| known.cause.evidence == [ask.in_words()]) {
            return same_wish(known, RunKind::Recovery, known.to()).map(|()| run);
        }
        if let Some(known) = known {
            let message = format!("request_id: {run} was used for another {} before; choose a new one", known.kind);
            return Err(refused(RejectionCode::Invalid, message));
        }
        let (group, plan) = self.resolve_recovery(&ask)?;
        let wish = look(&ask, &plan);
        self.open_by_hand(&wish, (RunKind::Recovery, plan), &group, vec![ask.in_words()], Some(0)).await
    }
}
