//! Readiness in the replicated state: the last judgement that was another than the one before.

use super::{ClusterState, Effect, Entry, reject};
use crate::domain::command::RejectionCode;
use crate::domain::ids::GroupName;
use crate::domain::readiness::mark::{Judgement, Mark};

impl ClusterState {
    /// A judgement of a group that has moved since, or is moving, says nothing any more.
    pub(super) fn mark_readiness(&mut self, entry: Entry<'_>, name: &GroupName, judgement: &Judgement) -> Effect {
        let group = self.group_mut(name)?;
        if let Some(fault) = judgement.fault() {
            return reject(RejectionCode::Invalid, fault);
        }
        let (judged_in, now_in) = (judgement.serving_epoch, group.serving.epoch);
        if judged_in != now_in || judgement.from != group.serving.last {
            let message = format!(
                "readiness was judged in serving epoch {judged_in} of {}; group {name} is in epoch {now_in} of {}",
                judgement.from, group.serving.last
            );
            return reject(RejectionCode::Stale, message);
        }
        if let Some(run) = &group.open_run {
            return reject(RejectionCode::RunOpen, format!("run {} is open: readiness is judged after it", run.id));
        }
        let mark = Mark::after(group.readiness.take(), judgement.clone(), entry.at, entry.node);
        group.readiness = Some(mark);
        Ok(None)
    }
}
