//! Who should lead: rather the witness than DR, rather DR than the serving region, so that the loss of any one site costs
//! the serving side neither an election nor its lease.

use super::ids::{ConfigDigest, NodeId};
use super::policy::ClusterPolicy;
use super::state::ClusterState;
use super::view::View;

/// A candidate must have reported within this, milliseconds.
pub const FRESH_MS: u64 = 3000;

/// 0 serves nothing ever, then one more for each group that it could serve, many more for each that it serves now. Last of
/// all whom the configuration does not know.
pub fn rank(policy: &ClusterPolicy, state: &ClusterState, node: NodeId) -> usize {
    let Some(member) = policy.members.get(&node) else { return usize::MAX - 1 };
    let serving = state.groups.values().filter(|group| group.serving.last == member.region).count();
    let could = state.groups.values().any(|group| group.regions.contains(&member.region));
    serving * 2 + usize::from(could)
}

/// The best of those that rank below `below`, whose reports come, who run under `digest`, and whose clock is right.
pub fn preferred(
    policy: &ClusterPolicy,
    state: &ClusterState,
    digest: &ConfigDigest,
    view: &View,
    but: NodeId,
    below: usize,
) -> Option<NodeId> {
    let on_time = view.on_time(FRESH_MS);
    view.fresh(FRESH_MS)
        .filter(|(id, sight)| *id != but && &sight.report.digest == digest && !sight.report.isolated)
        .filter(|(id, _)| on_time.is_empty() || on_time.contains(id))
        .map(|(id, _)| (rank(policy, state, id), id))
        .filter(|(rank, _)| *rank < below)
        .min()
        .map(|(_, id)| id)
}
