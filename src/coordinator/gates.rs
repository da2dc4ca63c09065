//! The gates of an attempt: what must hold right now, besides the log's word, before its intent is committed.

use futures::future::join_all;
use tokio::time::Instant;

use super::steps::{Executor, GRACE, LOOK_DEADLINE, RECHECK, Rest};
use crate::clock::unix_now;
use crate::domain::advance::gives_way;
use crate::domain::attempt::{Outcome, Prospect, ReadBack};
use crate::domain::command::FenceProof;
use crate::domain::decide::{Holds, loss_obstacle, trigger_holds};
use crate::domain::ids::{HostName, StepId, Token, UnixMs};
use crate::domain::lease::{GrantsSeen, lapsed, silence_ms};
use crate::domain::loss;
use crate::domain::mutation::{Mutation, is_out};
use crate::domain::plan::{Action, Step};
use crate::domain::policy::Fencing;
use crate::domain::run::{RunKind, RunOutcome, StepPhase};
use crate::domain::stuck::{NO_FENCE_PROOF, NO_STANDBY};

/// Reports no older than this let P5 be judged, milliseconds.
const LOOK_MS: u64 = 5000;

/// A gate is shut.
pub(super) enum Shut {
    /// A person must do something.
    Now(String),
    /// It may open by itself: a person is called only when it stays shut.
    Soon(String),
    /// It opens by itself in a moment.
    Wait(String),
    /// The fence's resource holds a higher token.
    Higher(Box<Step>, Token),
}

/// What P5 was judged by.
#[derive(Default)]
pub(super) struct LossGate {
    pub expected_ms: Option<u64>,
    pub limit_ms: Option<u64>,
}

impl Executor {
    /// Only an automatic failover is withdrawn: an operator's order does not depend on what is seen.
    pub(super) fn trigger(&self) -> Holds {
        if !self.run.cause.automatic || self.run.kind != RunKind::Failover {
            return Holds::Yes;
        }
        trigger_holds(&self.coordinator.policy, &self.run.group, &self.group, self.run.from(), &self.view)
    }

    /// P4 and P5, judged just before `StepStarted`.
    async fn may_promote(&self) -> Result<(Option<FenceProof>, LossGate), Shut> {
        let gate = self.loss_gate().map_err(Shut::Now)?;
        let is_planned = self.run.is_planned() && !is_out(Mutation::PlannedOnAnyProof);
        if matches!(self.run.fencing, Fencing::None { .. }) && !is_planned {
            return Ok((Some(FenceProof::Standing), gate));
        }
        let mut missing = "the plan has no fence step".to_owned();
        if self.run.lease_lapsed {
            match self.silence().await {
                Ok(evidence) => return Ok((Some(FenceProof::LeaseExpired { token: self.token, evidence }), gate)),
                Err((why, _)) => missing = why,
            }
        }
        for step in self.run.fence_steps() {
            if self.run.lease_lapsed {
                continue;
            }
            if self.run.phase_of(&step.id) != StepPhase::Done {
                missing = format!("step {} is {}", step.id, self.run.phase_of(&step.id));
                continue;
            }
            if is_out(Mutation::PromoteWithoutReread) {
                return Ok((
                    Some(FenceProof::Guard { token: self.token, evidence: "its step is done".to_owned() }),
                    gate,
                ));
            }
            let warrant = self.warrant(&step.id, self.run.record(&step.id).map_or(0, |record| record.attempts));
            match self.look(&warrant, &step.action).await {
                ReadBack::Done { evidence } => {
                    let caught_up = self.caught_up().await?;
                    let evidence = format!("{evidence}{caught_up}");
                    return Ok((Some(FenceProof::Guard { token: self.token, evidence }), gate));
                }
                ReadBack::Refused { held } => return Err(Shut::Higher(Box::new(step.clone()), held)),
                ReadBack::NotDone { evidence } | ReadBack::Untouched { evidence } => {
                    missing = format!("the fence does not hold any more: {evidence}");
                }
                ReadBack::InFlight { evidence } => missing = format!("something is in flight there: {evidence}"),
                ReadBack::Unknown { reason } => missing = reason,
            }
        }
        if let Some(word) = &self.run.fence_assertion {
            self.holds_are_over(word.at).await?;
            return Ok((Some(FenceProof::Asserted), gate));
        }
        if is_out(Mutation::NoFenceProof) {
            return Ok((None, gate));
        }
        Err(Shut::Soon(format!("{NO_FENCE_PROOF}: {missing}")))
    }

    /// Looks once more whether the standby has all that was acknowledged, behind the fence that was just read back. Answers
    /// what was seen; nothing where the plan does not ask.
    async fn caught_up(&self) -> Result<String, Shut> {
        let mut seen = String::new();
        for (_, step) in self.run.plan.steps() {
            if !matches!(step.action, Action::CatchUp { .. }) || is_out(Mutation::NoCatchUp) {
                continue;
            }
            let warrant = self.warrant(&step.id, self.run.record(&step.id).map_or(1, |record| record.attempts.max(1)));
            let deadline = Instant::now() + LOOK_DEADLINE;
            let looking = self.coordinator.actuator.execute(&warrant, &step.action, deadline);
            match tokio::time::timeout_at(deadline + GRACE, looking).await {
                Ok(Outcome::Done { evidence }) => seen = format!("{seen}; {evidence}"),
                Ok(Outcome::Failed { retryable: false, reason }) => return Err(Shut::Now(reason)),
                Ok(Outcome::Failed { reason, .. } | Outcome::Unknown { reason }) => return Err(Shut::Soon(reason)),
                Ok(Outcome::Refused { held }) => return Err(Shut::Higher(Box::new(step.clone()), held)),
                Err(_) => return Err(Shut::Soon(format!("{}: no answer in time", step.action.verb()))),
            }
        }
        Ok(seen)
    }

    /// Before the old primary takes writes again: a promotion that was tried is seen not to have happened, under our token.
    async fn may_release(&self) -> Result<(), Shut> {
        for step in self.run.promote_steps() {
            let attempts = self.run.record(&step.id).map_or(0, |record| record.attempts);
            if attempts == 0 || is_out(Mutation::ReleaseWithoutLook) {
                continue;
            }
            match self.look(&self.warrant(&step.id, attempts), &step.action).await {
                ReadBack::NotDone { .. } | ReadBack::Untouched { .. } => {}
                ReadBack::Refused { held } => return Err(Shut::Higher(Box::new(step.clone()), held)),
                ReadBack::Done { evidence } => {
                    let to = self.run.to();
                    let what = format!("{to} is promoted after all ({evidence}): the old primary must not take writes");
                    return Err(Shut::Now(format!("{what}; `run abort`, then `watchdogctl failover --to {to}`")));
                }
                ReadBack::InFlight { evidence: reason } | ReadBack::Unknown { reason } => {
                    return Err(Shut::Soon(format!("whether {} was promoted is not known: {reason}", self.run.to())));
                }
            }
        }
        Ok(())
    }

    /// Before a Redis server is promoted: the old one is still fenced, or still follows it. Its host may have been started
    /// past its boot gate since that was done. Where a person skipped the fence, their word stands.
    async fn still_fenced(&self, step: &Step) -> Result<(), Shut> {
        for fence in self.run.plan.waited_for(step) {
            if self.run.phase_of(&fence.id) != StepPhase::Done || is_out(Mutation::PromoteWithoutReread) {
                continue;
            }
            let attempts = self.run.record(&fence.id).map_or(0, |record| record.attempts);
            match self.look(&self.warrant(&fence.id, attempts), &fence.action).await {
                ReadBack::Done { .. } => {}
                ReadBack::Refused { held } => return Err(Shut::Higher(Box::new(fence.clone()), held)),
                ReadBack::NotDone { evidence } | ReadBack::Untouched { evidence } => {
                    return Err(Shut::Soon(format!("{} does not hold any more: {evidence}", fence.id)));
                }
                ReadBack::InFlight { evidence: reason } | ReadBack::Unknown { reason } => {
                    return Err(Shut::Soon(format!("whether {} still holds is not known: {reason}", fence.id)));
                }
            }
        }
        Ok(())
    }

    /// Whether the old primary has fallen silent by itself (docs/adr/0008): its bound lease had no renewal for its TTL and
    /// the margin, and every promotion hold that could renew it is over and cannot begin again under our token.
    pub(super) async fn silence(&self) -> Result<String, (String, Option<u64>)> {
        let bound = self.group.lease.as_ref().filter(|lease| &lease.region == self.run.from());
        let Some(binding) = bound else {
            if is_out(Mutation::SilenceUnbound) {
                return Ok("nobody renews it".to_owned());
            }
            return Err((format!("the lease of {} is not bound: its silence proves nothing", self.run.from()), None));
        };
        let mut seen = GrantsSeen {
            led_ms: self.view.watched_ms,
            last_granted_ms: self.coordinator.leases.last_granted(&self.run.group, self.run.from()).map(elapsed_ms),
            holds_over: false,
        };
        let holds = join_all(binding.holders.iter().map(|host| self.end_holds(host))).await;
        let standing = holds.into_iter().find_map(Result::err);
        seen.holds_over = standing.is_none() || is_out(Mutation::HoldsNotEnded);
        lapsed(binding, seen).map_err(|(why, wait_ms)| match (wait_ms, standing) {
            (None, Some(standing)) => (format!("{why}: {standing}"), None),
            _ => (why, wait_ms),
        })
    }

    /// A person's word takes no promotion hold back, and no attempt is spent on one that ends by itself.
    async fn holds_are_over(&self, asserted_at: UnixMs) -> Result<(), Shut> {
        let Fencing::Lease { ttl_ms } = self.run.fencing else { return Ok(()) };
        for (_, step) in self.run.plan.steps() {
            let Action::Promote { guard } = &step.action else { continue };
            if let Err(reason) = self.end_holds(&guard.host).await {
                let is_ending = unix_now().since(asserted_at) < silence_ms(ttl_ms) + LOOK_MS;
                return Err(if is_ending { Shut::Wait(reason) } else { Shut::Soon(reason) });
            }
        }
        Ok(())
    }

    /// The host whose own guard is the proof: the hold that was given to it need not be waited for.
    pub(super) fn fenced_host(&self, proof: Option<&FenceProof>) -> Option<HostName> {
        if !matches!(proof, Some(FenceProof::Guard { .. })) || !matches!(self.run.fencing, Fencing::Lease { .. }) {
            return None;
        }
        self.run.fence_steps().filter(|step| self.run.phase_of(&step.id) == StepPhase::Done).find_map(
            |step| match &step.action {
                Action::Fence { guard } => Some(guard.host.clone()),
                _ => None,
            },
        )
    }

    /// `Err`: why a hold of that host may still renew the lease.
    async fn end_holds(&self, host: &HostName) -> Result<(), String> {
        let rules = self.coordinator.policy.groups.get(&self.run.group);
        let planned = rules.into_iter().flat_map(|rules| &rules.failover_plans).chain([&self.run.plan]);
        let mut promotes = planned.flat_map(|plan| plan.steps().map(|(_, step)| &step.action).collect::<Vec<_>>());
        let action = promotes
            .rfind(|action| matches!(action, Action::Promote { guard } if &guard.host == host))
            .ok_or_else(|| format!("no plan promotes host {host}: its guard cannot be asked"))?;
        let warrant = self.warrant(&StepId::from("lapse"), 1);
        let deadline = Instant::now() + LOOK_DEADLINE;
        let asking = self.coordinator.actuator.end_holds(&warrant, action, deadline);
        match tokio::time::timeout_at(deadline, asking).await {
            Ok(Prospect::Good { .. }) => Ok(()),
            Ok(Prospect::Bad { reason } | Prospect::Unknown { reason }) => Err(reason),
            Err(_) => Err(format!("no answer from host {host} in time")),
        }
    }

    fn loss_gate(&self) -> Result<LossGate, String> {
        if self.run.loss_acceptance.is_some() || self.run.kind != RunKind::Failover {
            return Ok(LossGate::default());
        }
        let Some(rules) = self.coordinator.policy.groups.get(&self.run.group) else {
            return Err(format!("the configuration no longer has group {}", self.run.group));
        };
        let loss = loss::expected(&self.run.group, rules, self.run.to(), &self.view);
        match loss_obstacle(rules, Some(&loss), self.run.to()) {
            Some(obstacle) => Err(obstacle),
            None => Ok(LossGate { expected_ms: loss.ms(), limit_ms: Some(rules.rpo_limit_ms) }),
        }
    }

    /// Enough nodes have reported for P5 to be judged, or a person has taken the loss upon themselves.
    pub(super) fn can_judge_loss(&self) -> bool {
        self.run.loss_acceptance.is_some() || self.run.is_planned() || self.view.is_settled(LOOK_MS)
    }

    /// What must hold right before `StepStarted`: there is a standby to promote; for a promotion P4 and P5 besides.
    pub(super) async fn gates(&self, step: &Step) -> Result<(Option<FenceProof>, LossGate), Shut> {
        let proving = async {
            match step.action {
                Action::Promote { .. } => self.may_promote().await,
                Action::Release { .. } => self.may_release().await.map(|()| (None, LossGate::default())),
                Action::Guarded { .. } => self.still_fenced(step).await.map(|()| (None, LossGate::default())),
                _ => Ok((None, LossGate::default())),
            }
        };
        let (stands, proved) = tokio::join!(self.target_stands(step), proving);
        stands.and(proved)
    }

    /// All gates of a first attempt are open.
    pub(super) async fn would_start(&self, step: &Step) -> bool {
        if self.group.left_in_the_way(&step.action).is_some() {
            return false;
        }
        match &step.action {
            Action::Fence { .. } if self.trigger() == Holds::Unknown => return false,
            // It is not tried then, but withdrawn.
            Action::Fence { .. } if self.trigger() == Holds::No => return true,
            Action::Promote { .. } if !self.can_judge_loss() => return false,
            _ => {}
        }
        self.gates(step).await.is_ok()
    }

    /// Whether there is a standby to promote. Nothing is stopped or repointed for one that cannot be: a group whose old
    /// primary was fenced for nothing serves nowhere.
    ///
    /// Asked without a token, since a token is raised at a resource only as it is acted upon.
    pub(super) async fn target_stands(&self, step: &Step) -> Result<(), Shut> {
        let asks = match step.action {
            Action::Fence { .. } | Action::Promote { .. } => true,
            Action::UpsertDns { .. } | Action::Guarded { .. } => !self.run.went_past_fence(),
            Action::CatchUp { .. } | Action::Release { .. } | Action::Verify { .. } => false,
        };
        if !asks || self.run.turned_back.is_some() {
            return Ok(());
        }
        for (_, promote) in self.run.plan.steps() {
            let is_ahead = !self.run.phase_of(&promote.id).is_settled();
            if !is_ahead || !matches!(promote.action, Action::Promote { .. }) {
                continue;
            }
            let warrant = self.warrant(&promote.id, self.run.record(&promote.id).map_or(0, |record| record.attempts));
            let asking =
                self.coordinator.actuator.can_succeed(&warrant, &promote.action, Instant::now() + LOOK_DEADLINE);
            let seen = match tokio::time::timeout(LOOK_DEADLINE, asking).await {
                Ok(seen) => seen,
                Err(_) => Prospect::Unknown { reason: "no answer in time".to_owned() },
            };
            if let Prospect::Bad { reason } | Prospect::Unknown { reason } = seen {
                return Err(Shut::Soon(format!("{NO_STANDBY} in {}: {reason}", self.run.to())));
            }
        }
        Ok(())
    }

    fn gate_matter(&self, id: &StepId) -> String {
        format!("gate of {id} of {}", self.run.id)
    }

    /// Every gate of a step is open: where one was shut before, that is told.
    pub(super) fn gates_opened(&self, id: &StepId) {
        if let Some(untold) = self.coordinator.news.goes_well(&self.gate_matter(id)) {
            tracing::info!(run = %self.run.id, step = %id, untold, "the gates are open");
        }
    }

    /// Redis has nothing that a stuck run may hold up: a person is called for it when all else is done.
    pub(super) fn redis_gives_way(&self, step: &Step) -> bool {
        step.action.is_redis() && gives_way(&self.run, step)
    }

    /// A gate is shut: what may open by itself is looked at again for a while, then a person is called.
    pub(super) async fn refused_gate(&self, step: &Step, shut: Shut) -> Rest {
        let id = &step.id;
        // A planned move has shown before that its gates were open: each of its legs is given the same patience.
        let began_at = self.run.turned_back.as_ref().map(|back| back.at).or(self.run.writing_stopped_at);
        let began_at = began_at.filter(|_| self.run.is_planned()).unwrap_or(self.run.opened_at);
        let opened_ms = unix_now().since(began_at);
        let patience_ms =
            self.coordinator.policy.groups.get(&self.run.group).map_or(0, |rules| rules.fence_patience_ms);
        match shut {
            Shut::Higher(fence, held) => self.held_higher(&fence, held).await,
            Shut::Now(reason) => self.give_up(id, reason).await,
            Shut::Soon(reason) if opened_ms >= patience_ms && !self.redis_gives_way(step) => {
                self.give_up(id, reason).await
            }
            Shut::Soon(reason) | Shut::Wait(reason) => {
                // Looked at again many times a second.
                if self.coordinator.news.is_news(&self.gate_matter(id), &reason) {
                    tracing::warn!(run = %self.run.id, step = %id, "not yet: {reason}");
                }
                Rest::of(RECHECK)
            }
        }
    }

    /// The trigger no longer holds. Closes the run as withdrawn where nothing irreversible happened; `None`: go on.
    pub(super) async fn withdraw(&self, fence: &Step) -> Option<Rest> {
        if self.run.went_past_fence() {
            return None;
        }
        let is_tried = self.run.record(&fence.id).is_some_and(|record| record.attempts > 0);
        if is_tried {
            let warrant = self.warrant(&fence.id, self.run.record(&fence.id).map_or(0, |record| record.attempts));
            match self.look(&warrant, &fence.action).await {
                ReadBack::Untouched { .. } => {}
                ReadBack::Done { .. } | ReadBack::NotDone { .. } => return None,
                ReadBack::InFlight { .. } | ReadBack::Unknown { .. } => return Some(Rest::of(RECHECK)),
                ReadBack::Refused { held } => return Some(self.held_higher(fence, held).await),
            }
        }
        tracing::info!(run = %self.run.id, "withdrawn: the trigger no longer holds");
        self.propose_close(RunOutcome::Withdrawn, is_tried, Vec::new(), "the trigger no longer holds").await;
        Some(Rest::of(RECHECK))
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
