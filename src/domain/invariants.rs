//! What must hold of the replicated state after every command. Checked by the property tests and the simulation, and
//! cheap enough for a debug build to check always.

use super::ids::Token;
use super::run::{RunPhase, StepPhase};
use super::state::{ClusterState, INCIDENTS_MAX};

/// Everything wrong with a state, in words; empty when all is well.
pub fn violations(state: &ClusterState) -> Vec<String> {
    let mut found = Vec::new();
    for (name, group) in &state.groups {
        if let Some(region) = &group.serving.region
            && region != &group.serving.last
        {
            found.push(format!("{name}: serves from {region} but last served from {}", group.serving.last));
        }
        let Some(run) = &group.open_run else { continue };
        if matches!(run.phase, RunPhase::Closed { .. }) {
            found.push(format!("{name}: open run {} is closed", run.id));
        }
        if group.serving.region.is_none() && run.moves_serving() && &group.serving.last != run.from() {
            found.push(format!(
                "{name}: nobody serves, and {} is said to be the last, not {}",
                group.serving.last,
                run.from()
            ));
        }
        let mut before = Token::default();
        for claim in &run.claims {
            if claim.token <= before {
                found.push(format!("{name}: claim {} does not rise above {before}", claim.token));
            }
            before = claim.token;
        }
        if run.token().is_some_and(|token| token != group.token) {
            found.push(format!("{name}: the open run's token is not the group's last"));
        }
        if run.steps.len() != run.plan.all_steps().count() {
            found.push(format!("{name}: run {} has records of other steps than its plan's", run.id));
        }
        for step in run.plan.undo_steps().map(|(_, step)| step).filter(|_| run.turned_back.is_none()) {
            if run.phase_of(&step.id) != StepPhase::Pending {
                found.push(format!(
                    "{name}: step {} undoes what run {} did, which has not turned back",
                    step.id, run.id
                ));
            }
        }
        if run.turned_back.is_some() && run.promote_steps().any(|step| run.phase_of(&step.id).is_open_question()) {
            found.push(format!("{name}: run {} has turned back while its promotion is an open question", run.id));
        }
        for (id, record) in &run.steps {
            if record.token > run.token() {
                found.push(format!("{name}: step {id} was started under a token above the run's"));
            }
            if record.phase == StepPhase::Pending && record.attempts > 0 {
                found.push(format!("{name}: step {id} is pending after {} attempts", record.attempts));
            }
        }
    }
    if let Some((prev, newest)) = state.audit_chain().next_back()
        && newest.hash != newest.hash_after(&prev)
    {
        found.push(format!("the audit's entry {} is not bound to the one before", newest.seq));
    }
    for (key, incident) in &state.incidents {
        if incident.key() != key || incident.resolved.is_some() {
            found.push(format!("incident {key} is kept as open, and is {} or over", incident.key()));
        }
    }
    if state.incidents.len() > INCIDENTS_MAX {
        found.push(format!("{} incidents are open", state.incidents.len()));
    }
    found
}

/// Everything wrong with a change of state: what may only grow has shrunk.
pub fn violations_between(before: &ClusterState, after: &ClusterState) -> Vec<String> {
    let mut found = Vec::new();
    if after.epoch < before.epoch {
        found.push(format!("the cluster's epoch fell from {} to {}", before.epoch, after.epoch));
    }
    let (head, next) = (before.audit_head(), after.audit_head());
    if next.seq < head.seq || next.seq == head.seq && next != head {
        found.push(format!("the audit's head {} gave way to {}", head.seq, next.seq));
    }
    for (name, old) in &before.groups {
        let Some(new) = after.groups.get(name) else {
            found.push(format!("group {name} disappeared"));
            continue;
        };
        if new.token < old.token {
            found.push(format!("{name}: token fell from {} to {}", old.token, new.token));
        }
        if new.serving.epoch < old.serving.epoch {
            found.push(format!("{name}: serving epoch fell from {} to {}", old.serving.epoch, new.serving.epoch));
        }
        if new.serving.region != old.serving.region && new.serving.epoch == old.serving.epoch {
            found.push(format!("{name}: serving changed without its epoch"));
        }
        if let (Some(a), Some(b)) = (&old.open_run, &new.open_run)
            && a.id != b.id
        {
            found.push(format!("{name}: run {} gave way to {} without being closed", a.id, b.id));
        }
    }
    found
}
