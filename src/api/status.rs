//! The whole picture as one message.

use super::backend::{AdminBackend, GroupSight, LeaseSight, NodeSight, NodeStanding, ReplicationSight, VoteSight};
use super::pages;
use super::show::{self, ms};
use crate::clock::unix_now;
use crate::domain::ids::{GroupName, NodeName, UnixMs};
use crate::domain::lease::GateSeen;
use crate::domain::page::{Delivery, OutboxEntry};
use crate::domain::policy::{ClusterPolicy, Fencing};
use crate::domain::state::{ClusterState, GroupState, Unsettled};
use crate::proto;

const PAGES_SHOWN: usize = 50;

/// A node's standing, beside the state it answers from.
pub(super) fn standing(node: &NodeStanding, state: &ClusterState) -> proto::Standing {
    proto::Standing {
        node: node.name.0.clone(),
        leader: node.leader.as_ref().map(|leader| leader.name.0.clone()).unwrap_or_default(),
        has_quorum: node.has_quorum,
        note: node.note.clone(),
        term: node.term,
        as_of_index: state.applied_index,
        at_ms: ms(unix_now()),
    }
}

/// Everything, or one group of it.
pub(super) fn status(backend: &dyn AdminBackend, only: Option<&GroupName>) -> proto::GetStatusResponse {
    let (policy, sight) = (backend.policy(), backend.sight());
    let state = backend.state().borrow().clone();
    let node = backend.standing().borrow().clone();
    let leader = node.leader.as_ref().map(|leader| &leader.name);
    let wanted = |group: &GroupName| only.is_none_or(|only| only == group);
    let groups = state.groups.iter().filter(|(name, _)| wanted(name)).map(|(name, group)| {
        let seen = sight.groups.as_ref().and_then(|groups| groups.get(name));
        group_status(name, group, seen, &policy)
    });
    let incidents = pages::open(&state, only);
    let undelivered: Vec<proto::PageStatus> = state.outbox.iter().filter_map(page_status).collect();
    proto::GetStatusResponse {
        standing: Some(standing(&node, &state)),
        cluster: state.cluster.as_ref().map(|cluster| cluster.0.clone()).unwrap_or_default(),
        epoch: state.epoch,
        config_digest: state.digest.as_ref().map(|digest| digest.0.clone()).unwrap_or_default(),
        nodes: sight.nodes.iter().map(|node| node_status(node, leader, &policy)).collect(),
        groups: groups.collect(),
        pages_undelivered_total: u32::try_from(undelivered.len()).unwrap_or(u32::MAX),
        pages_undelivered: undelivered.into_iter().take(PAGES_SHOWN).collect(),
        warnings: sight.warnings,
        has_sight: sight.groups.is_some(),
        incidents_total: u32::try_from(incidents.len()).unwrap_or(u32::MAX),
        incidents: incidents.into_iter().take(PAGES_SHOWN).collect(),
    }
}

fn node_status(node: &NodeSight, leader: Option<&NodeName>, policy: &ClusterPolicy) -> proto::NodeStatus {
    let name = node.member.as_ref().map_or_else(|| show::node_name(policy, node.node), |(name, _)| name.0.clone());
    let reach = match node.is_reachable {
        Some(true) => proto::Reach::Reachable,
        Some(false) => proto::Reach::Unreachable,
        None => proto::Reach::Unknown,
    };
    proto::NodeStatus {
        id: node.node.0,
        is_leader: leader.is_some_and(|leader| leader.as_str() == name),
        region: policy.members.get(&node.node).map(|member| member.region.0.clone()).unwrap_or_default(),
        name,
        is_voter: node.is_voter,
        reach: reach.into(),
        last_report_age_ms: node.last_report_age_ms,
        isolated: node.is_isolated,
        other_config: node.other_config,
        behind_entries: node.behind_entries,
    }
}

fn group_status(
    name: &GroupName,
    group: &GroupState,
    seen: Option<&GroupSight>,
    policy: &ClusterPolicy,
) -> proto::GroupStatus {
    let rules = policy.groups.get(name);
    let mode = if group.pause.is_some() {
        proto::Mode::Paused
    } else if rules.is_some_and(|rules| rules.shadow) {
        proto::Mode::Shadow
    } else {
        proto::Mode::Automatic
    };
    let asserted_by = match &group.fencing {
        Fencing::None { asserted_by } => asserted_by.clone(),
        Fencing::Confirm | Fencing::Lease { .. } => String::new(),
    };
    let limit_ms = rules.map(|rules| rules.rpo_limit_ms).unwrap_or_default();
    let seen = seen.cloned().unwrap_or_default();
    proto::GroupStatus {
        name: name.0.clone(),
        home: group.home.0.clone(),
        regions: group.regions.iter().map(|region| region.0.clone()).collect(),
        serving: Some(proto::Serving {
            region: group.serving.region.as_ref().map(|region| region.0.clone()).unwrap_or_default(),
            last: group.serving.last.0.clone(),
            epoch: group.serving.epoch,
        }),
        mode: mode.into(),
        pause: group.pause.as_ref().map(show::pause),
        fencing: show::fencing(&group.fencing).into(),
        fencing_asserted_by: asserted_by,
        fencing_configured: rules.map_or(proto::Fencing::Unspecified, |rules| show::fencing(&rules.fencing)).into(),
        token: group.token.to_string(),
        open_run: group.open_run.as_ref().map(|run| show::run(run, Some(group), policy)),
        explanation: seen.explanation,
        votes: seen.votes.iter().map(|one| vote(one, policy)).collect(),
        replication: seen.replication.iter().map(|one| replication(one, limit_ms)).collect(),
        unsettled: group.unsettled.iter().map(|(resource, left)| unsettled(resource.as_str(), left)).collect(),
        last_failover: group.last_failover.as_ref().map(|last| proto::LastFailover {
            run_id: last.run.0.clone(),
            at_ms: ms(last.at),
            automatic: last.automatic,
        }),
        traffic_region: group.traffic.0.clone(),
        lease: group.lease.as_ref().map(|lease| proto::LeaseBinding {
            host: lease.host.0.clone(),
            ttl_ms: lease.ttl_ms,
            holders: lease.holders.iter().map(|host| host.0.clone()).collect(),
            since_ms: ms(lease.since),
            attestation: lease.attestation.clone(),
        }),
        readiness: group.readiness.as_ref().map(|mark| show::readiness_mark(mark, group.serving.epoch)),
        lease_status: seen.lease.as_ref().map(|seen| lease_status(seen, &group.fencing, policy)),
    }
}

/// Ages become moments here, by this node's clock, for people.
fn lease_status(seen: &LeaseSight, fencing: &Fencing, policy: &ClusterPolicy) -> proto::LeaseStatus {
    let now = unix_now();
    let ago = |age_ms: u64| now.0.saturating_sub(age_ms);
    let moment = |at_ms: u64| ms(UnixMs(at_ms));
    let asked = seen.asked.as_ref().map(|asked| {
        let arrived = ago(asked.age_ms);
        let (gate, detail) = match &asked.gate {
            GateSeen::Bounded { evidence } => ("bounded", evidence.as_str()),
            GateSeen::OpenEnded => ("open-ended", ""),
            GateSeen::Absent { why } => ("absent", why.as_str()),
        };
        let is_bounded = matches!(asked.gate, GateSeen::Bounded { .. }) && asked.open_for_ms > 0;
        let holds = asked.holds.iter().map(|hold| proto::HoldStatus {
            host: hold.host.0.clone(),
            until_ms: moment(arrived.saturating_add(hold.for_ms)),
            ground: hold.ground.to_string(),
        });
        proto::LeaseAsked {
            host: asked.host.0.clone(),
            at_ms: moment(arrived),
            answer: asked.given.word().to_owned(),
            why: asked.why.clone(),
            gate: gate.to_owned(),
            gate_detail: detail.to_owned(),
            gate_until_ms: is_bounded.then(|| moment(arrived.saturating_add(asked.open_for_ms))),
            holds: holds.collect(),
        }
    });
    let ttl_ms = if let Fencing::Lease { ttl_ms } = fencing { *ttl_ms } else { 0 };
    let grant = seen.granted_ms.map(|age_ms| proto::LeaseGrant {
        node: show::node_name(policy, seen.granter),
        at_ms: moment(ago(age_ms)),
        until_ms: moment(ago(age_ms).saturating_add(ttl_ms)),
    });
    proto::LeaseStatus { unbound_because: seen.unbound.clone(), asked, grant }
}

fn vote(vote: &VoteSight, policy: &ClusterPolicy) -> proto::Vote {
    let failure = vote.failure.as_ref();
    proto::Vote {
        target: vote.target.0.clone(),
        region: vote.region.0.clone(),
        node: show::node_name(policy, vote.node),
        verdict: show::verdict(vote.verdict).into(),
        held_for_ms: vote.held_ms,
        age_ms: vote.age_ms,
        counts: vote.not_counted.is_none(),
        not_counted: vote.not_counted.clone().unwrap_or_default(),
        failure: failure.map_or(proto::FailureKind::Unspecified, |failure| show::failure_kind(failure.kind)).into(),
        failure_detail: failure.map(|failure| failure.detail.clone()).unwrap_or_default(),
    }
}

fn replication(seen: &ReplicationSight, limit_ms: u64) -> proto::Replication {
    proto::Replication {
        region: seen.region.0.clone(),
        target: seen.target.0.clone(),
        streaming: seen.is_streaming,
        expected_loss_ms: seen.expected_loss_ms,
        behind_bytes: seen.behind_bytes,
        limit_ms,
    }
}

fn unsettled(resource: &str, left: &Unsettled) -> proto::Unsettled {
    proto::Unsettled {
        resource: resource.to_owned(),
        run_id: left.run.0.clone(),
        token: left.token.to_string(),
        since_ms: ms(left.since),
        action: left.action.verb().to_owned(),
    }
}

/// The page, where some receiver has not taken it.
fn page_status(entry: &OutboxEntry) -> Option<proto::PageStatus> {
    let mut waiting_for = Vec::new();
    let mut refused_by = Vec::new();
    for (receiver, delivery) in &entry.deliveries {
        match delivery {
            Delivery::Pending => waiting_for.push(receiver.0.clone()),
            Delivery::Refused { reason, .. } => refused_by.push(format!("{receiver}: {reason}")),
            Delivery::Delivered { .. } => {}
        }
    }
    if waiting_for.is_empty() && refused_by.is_empty() {
        return None;
    }
    Some(proto::PageStatus {
        seq: entry.seq,
        at_ms: ms(entry.at),
        event: entry.page.event.clone(),
        severity: entry.page.severity.word().to_owned(),
        summary: entry.page.summary.clone(),
        group: entry.page.group.as_ref().map(|group| group.0.clone()).unwrap_or_default(),
        waiting_for,
        refused_by,
    })
}
