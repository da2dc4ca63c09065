//! What the status page shows, gathered: from the leader where it answers, else from this node's own state.

use tonic::Request;
use tonic::metadata::AsciiMetadataValue;

use super::forward::FORWARDED_BY;
use super::page::Picture;
use super::service::{AdminService, FORWARD_STATUS};
use super::{audit, drills, show, status};
use crate::proto;

/// Closed runs, drills, and entries of the audit, that are shown.
const RUNS_MAX: usize = 30;
const DRILLS_MAX: usize = 30;
const AUDIT_MAX: u32 = 30;

impl AdminService {
    /// The picture as it is now. Reads only; bounded by the time a leader is given to answer.
    pub async fn picture(&self) -> Picture {
        let (state, policy) = (self.state(), self.backend.policy());
        let runs = show::runs(&state).into_iter().filter(|run| !run.is_open()).take(RUNS_MAX).map(show::summary);
        let ask = proto::ListAuditRequest { limit: AUDIT_MAX, ..Default::default() };
        let audit = audit::list(&state, &policy, &ask).map(|page| page.entries).unwrap_or_default();
        let goals = policy.groups.iter().filter_map(|(name, rules)| Some((name.0.clone(), rules.rto_objective_ms?)));
        let mut drills = drills::newest_first(state.groups.iter());
        drills.truncate(DRILLS_MAX);
        let (runs, objectives) = (runs.collect(), goals.collect());
        Picture { status: self.seen_by_the_leader().await, runs, drills, audit, objectives }
    }

    /// Only the leader counts votes. A node asks for itself: it has every word of the state already.
    async fn seen_by_the_leader(&self) -> proto::GetStatusResponse {
        let standing = self.standing();
        if let (false, Some(leader)) = (standing.is_leader(), &standing.leader)
            && let Ok(mut client) = self.reach(leader, FORWARD_STATUS).await
        {
            let mut request = Request::new(proto::GetStatusRequest::default());
            let by = AsciiMetadataValue::try_from(standing.name.as_str());
            request.metadata_mut().insert(FORWARDED_BY, by.unwrap_or(AsciiMetadataValue::from_static("a-node")));
            if let Ok(answer) = client.get_status(request).await {
                return answer.into_inner();
            }
        }
        status::status(self.backend.as_ref(), None)
    }
}
