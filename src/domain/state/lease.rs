//! The lease in the replicated state: when silence begins to prove something, when it no longer does, and how an expired
//! lease takes the place of a fence step.

use super::orders::leave_unsettled;
use super::runs::Holder;
use super::timeline::note;
use super::{ClusterState, Effect, Entry, reject};
use crate::domain::command::RejectionCode;
use crate::domain::ids::{GroupName, StepId};
use crate::domain::lease::LeaseBinding;
use crate::domain::mutation::{Mutation, is_out};
use crate::domain::plan::Action;
use crate::domain::policy::Fencing;
use crate::domain::run::{Run, RunPhase, StepEvent, StepPhase};

impl ClusterState {
    pub(super) fn bind_lease(&mut self, name: &GroupName, binding: &LeaseBinding) -> Effect {
        let group = self.group_mut(name)?;
        let Fencing::Lease { ttl_ms } = group.fencing else {
            let message = format!("group {name}'s fencing mode is {}", group.fencing.word());
            return reject(RejectionCode::Illegal, message);
        };
        if binding.ttl_ms > ttl_ms {
            let message = format!("ttl_ms: {} is longer than the group's {ttl_ms}", binding.ttl_ms);
            return reject(RejectionCode::Invalid, message);
        }
        if group.serving.region.as_ref() != Some(&binding.region) {
            let message = format!("{} does not serve group {name}: its lease cannot be bound", binding.region);
            return reject(RejectionCode::Stale, message);
        }
        if let Some(bound) = &group.lease {
            if bound.host != binding.host {
                let message = format!("group {name}'s lease is bound to host {}", bound.host);
                return reject(RejectionCode::Illegal, message);
            }
            // What was promised to count goes on counting until it is unbound.
            if let Some(lost) = bound.holders.iter().find(|host| !binding.holders.contains(host)) {
                let message = format!("holder {lost} may still renew the lease of {}; unbind it first", bound.host);
                return reject(RejectionCode::Illegal, message);
            }
            if binding.ttl_ms < bound.ttl_ms {
                let message = format!("the lease of {} is bound for {} ms; unbind it first", bound.host, bound.ttl_ms);
                return reject(RejectionCode::Illegal, message);
            }
        }
        group.lease = Some(binding.clone());
        Ok(None)
    }

    /// Always allowed but while a promotion counts on it. What the run promoted may be unbound: nobody counts on that.
    pub(super) fn unbind_lease(&mut self, name: &GroupName) -> Effect {
        let group = self.group_mut(name)?;
        let Some(lease) = &group.lease else {
            return reject(RejectionCode::Illegal, format!("group {name}'s lease is not bound"));
        };
        let counts_on_it = |run: &&Run| run.lease_lapsed && run.from() == &lease.region;
        if let Some(run) = group.open_run.as_ref().filter(counts_on_it) {
            let message = format!("run {} counts on the silence of the old primary in {}", run.id, run.from());
            return reject(RejectionCode::RunOpen, message);
        }
        group.lease = None;
        Ok(None)
    }

    /// The step is skipped for the proof's sake, and its host is fenced for good as soon as it can be reached.
    pub(super) fn lease_lapsed(
        &mut self,
        entry: Entry<'_>,
        holder: Holder<'_>,
        step: &StepId,
        evidence: &str,
    ) -> Effect {
        let group = self.group_mut(holder.0)?;
        let lease = group.lease.clone();
        let run = group.held_run(holder)?;
        if !matches!(run.phase, RunPhase::Open | RunPhase::Stuck { .. }) {
            return reject(RejectionCode::Illegal, format!("run {} is {}", run.id, run.phase.word()));
        }
        if run.is_planned() {
            let message = format!("a {} promotes only by its guard's own proof: silence is none", run.kind);
            return reject(RejectionCode::Illegal, message);
        }
        let is_bound = lease.is_some_and(|lease| &lease.region == run.from()) || is_out(Mutation::SilenceUnbound);
        if !is_bound || !matches!(run.fencing, Fencing::Lease { .. }) {
            let message = format!("the lease of {} is not bound: its silence proves nothing", run.from());
            return reject(RejectionCode::NoFenceProof, message);
        }
        let Some(planned) = run.plan.step(step).filter(|step| matches!(step.action, Action::Fence { .. })).cloned()
        else {
            return reject(RejectionCode::NotFound, format!("run {} has no fence step {step}", run.id));
        };
        let phase = run.phase_of(step);
        // Before the fence's intent is committed leases are still granted.
        let after = phase.after(StepEvent::Skip).filter(|_| phase != StepPhase::Pending);
        let Some(after) = after else {
            return reject(RejectionCode::Illegal, format!("step {step} is {phase}: no lease takes its place"));
        };
        if let Some(record) = run.steps.get_mut(step) {
            record.phase = after;
            record.finished_at = Some(entry.at);
            record.detail = format!("lease expired: {evidence}");
        }
        run.lease_lapsed = true;
        let was_stuck_here = matches!(&run.phase, RunPhase::Stuck { step: at, .. } if at == step);
        if was_stuck_here {
            run.phase = RunPhase::Open;
        }
        note(run, entry, Some(step), format!("lease expired: {evidence}"));
        let run = run.clone();
        leave_unsettled(group, &run, &planned, entry);
        if let Some(left) = planned.action.resource().and_then(|resource| group.unsettled.get_mut(&resource)) {
            left.is_due = true;
        }
        if was_stuck_here {
            self.page_unstuck(entry, &run, "the old primary's lease ran out");
        }
        Ok(None)
    }
}
