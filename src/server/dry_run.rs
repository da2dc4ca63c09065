//! What a failover's and a traffic run's dry run have in common, and their opening: what is known of the group, what each
//! resource shows, what every run asks before it opens.

use std::collections::BTreeMap;

use futures::future::join_all;
use tokio::time::Instant;

use super::backend::Backend;
use crate::api::backend::{AdminBackend as _, Gate, OpenFailover, ProposeError};
use crate::clock::unix_now;
use crate::domain::attempt::ReadBack;
use crate::domain::command::{Applied, Change, Rejection, RejectionCode};
use crate::domain::ids::{GroupName, RegionName, RunId, StepId, Token};
use crate::domain::plan::Plan;
use crate::domain::policy::GroupPolicy;
use crate::domain::run::{Assertion, Cause, Run, RunKind};
use crate::domain::state::GroupState;

/// The cluster's word against a wish.
pub(super) fn refused(code: RejectionCode, message: String) -> ProposeError {
    ProposeError::Rejected(Rejection { code, message })
}

/// A condition of the opening.
pub(super) fn gate(name: &str, is_open: bool, detail: String) -> Gate {
    Gate { name: name.to_owned(), is_open, detail, before_promote: false }
}

/// What every run asks of its group first.
pub(super) fn standing_gates(group: &GroupState) -> Vec<Gate> {
    let pause = match &group.pause {
        Some(pause) => gate("pause", false, format!("paused by {}: {}; `watchdogctl resume`", pause.by, pause.reason)),
        None => gate("pause", true, "not paused".to_owned()),
    };
    let open_run = match &group.open_run {
        Some(run) => gate("no open run", false, format!("run {} is {}", run.id, run.phase.word())),
        None => gate("no open run", true, "none is open".to_owned()),
    };
    vec![gate("quorum", true, "a majority confirms this leader".to_owned()), pause, open_run]
}

/// What every run asks of its group last: a closed gate for each resource that is not settled.
pub(super) fn settled_gates(group: &GroupState) -> impl Iterator<Item = Gate> {
    let left = group.unsettled.iter();
    left.map(|(resource, left)| gate("settled", false, format!("{resource} is unsettled since run {}", left.run)))
}

/// The group's token is still what the operator saw.
pub(super) fn token_as_seen(name: &GroupName, group: &GroupState, seen: Option<Token>) -> Result<(), ProposeError> {
    if seen.is_some_and(|token| token != group.token) {
        let message = format!("group {name}'s token is {} by now; look again", group.token);
        return Err(refused(RejectionCode::Stale, message));
    }
    Ok(())
}

/// The run that an earlier call of this request id opened.
pub(super) fn opened_before<'a>(group: &'a GroupState, run: &RunId) -> Option<&'a Run> {
    group.open_run.iter().chain(&group.history).find(|known| &known.id == run)
}

/// A request id used again asks for what it asked for before, or is refused.
pub(super) fn same_wish(known: &Run, kind: RunKind, to: &RegionName) -> Result<(), ProposeError> {
    if known.kind == kind && known.to() == to {
        return Ok(());
    }
    let message =
        format!("request_id: {} was used for a {} to {} before; choose a new one", known.id, known.kind, known.to());
    Err(refused(RejectionCode::Invalid, message))
}

impl Backend {
    /// The group as it stands, and its rules.
    pub(super) fn known_group(&self, name: &GroupName) -> Result<(GroupState, GroupPolicy), ProposeError> {
        let state = self.state().borrow().clone();
        let group =
            state.group(name).ok_or_else(|| refused(RejectionCode::NotFound, format!("there is no group {name}")))?;
        let rules = self.parts.policy.groups.get(name).ok_or_else(|| {
            refused(RejectionCode::NotFound, format!("group {name} is not in this node's configuration"))
        })?;
        Ok((group.clone(), rules.clone()))
    }

    /// Proposes a run under the wish's own request id, with what is vouched for in the wish.
    pub(super) async fn open_by_hand(
        &self,
        wish: &OpenFailover,
        (kind, plan): (RunKind, Plan),
        group: &GroupState,
        evidence: Vec<String>,
        expected_loss_ms: Option<u64>,
    ) -> Result<RunId, ProposeError> {
        let word = || Assertion { by: wish.by.clone(), at: unix_now(), reason: wish.reason.clone() };
        let run = RunId(wish.request_id.0.clone());
        let change = Change::OpenRun {
            run: run.clone(),
            group: wish.group.clone(),
            kind,
            drill: false,
            plan,
            digest: self.parts.policy.digest.clone(),
            expected_token: group.token,
            expected_serving_epoch: group.serving.epoch,
            cause: Cause {
                by: wish.by.clone(),
                automatic: false,
                reason: wish.reason.clone(),
                evidence,
                fault_at: None,
                expected_loss_ms,
            },
            loss_acceptance: wish.accept_loss.then(word),
            fence_assertion: wish.assert_fence.is_some().then(word),
        };
        match self.apply(change, wish).await? {
            Applied::Rejected(rejection) => Err(ProposeError::Rejected(rejection)),
            _ => Ok(run),
        }
    }

    /// What each step's resource shows now, all read at once and under no token; what cannot be read before is left out.
    pub(super) async fn look_at_steps(
        &self,
        ask: &OpenFailover,
        group: &GroupState,
        plan: &Plan,
        deadline: Instant,
    ) -> BTreeMap<StepId, ReadBack> {
        let reading = plan.steps().map(|(_, step)| {
            let warrant = self.look_warrant(ask, group, &step.id);
            async move {
                let seen = self.parts.actuators.peek(&self.parts.policy, &warrant, &step.action, deadline).await;
                seen.map(|seen| (step.id.clone(), seen))
            }
        });
        join_all(reading).await.into_iter().flatten().collect()
    }
}
