//! The audit as it is read: pages, newest first, with what shows that nothing was taken out or altered. There is no call
//! that changes it.

use tonic::Status;

use super::check;
use super::show::{ms, node_name};
use crate::domain::audit::{AuditEntry, AuditHash};
use crate::domain::policy::ClusterPolicy;
use crate::domain::state::ClusterState;
use crate::proto;

/// A page ends after so many bytes of text: an answer has room for twice as many.
const PAGE_BYTES: usize = 3 << 20;

/// The page that was asked for, without the node's standing.
pub(super) fn list(
    state: &ClusterState,
    policy: &ClusterPolicy,
    ask: &proto::ListAuditRequest,
) -> Result<proto::ListAuditResponse, Status> {
    let only = check::group_or_all(&ask.group)?;
    let limit = check::limit(ask.limit, 50, 500)?;
    let before = |asked: u64| if asked == 0 { u64::MAX } else { asked };
    let (before_index, before_seq) = (before(ask.before_index), before(ask.before_seq));
    let fits = |(_, entry): &(Option<AuditHash>, &AuditEntry)| {
        entry.index < before_index
            && entry.seq < before_seq
            && only.as_ref().is_none_or(|only| entry.group.as_ref() == Some(only))
    };
    let mut all = with_hashes_before(state).rev().filter(fits).peekable();
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some((prev, entry)) = all.next_if(|(_, entry)| {
        // Entries of one position stay together: the next page begins below it.
        let is_together = entries.last().is_some_and(|last: &proto::AuditEntry| last.index == entry.index);
        entries.len() < limit && bytes < PAGE_BYTES || is_together && ask.before_seq == 0
    }) {
        bytes += entry.what.len() + entry.reason.len() + entry.outcome.len();
        bytes += entry.evidence.iter().map(String::len).sum::<usize>();
        entries.push(shown(entry, prev, policy));
    }
    let last = entries.last().filter(|_| all.peek().is_some());
    let head = state.audit_head();
    Ok(proto::ListAuditResponse {
        standing: None,
        next_before_index: last.map(|entry| entry.index).unwrap_or_default(),
        next_before_seq: last.map(|entry| entry.seq).unwrap_or_default(),
        head_seq: head.seq,
        head_hash: head.hash.to_string(),
        entries,
    })
}

/// All kept entries, oldest first, each with the hash of the one before; none for those older than the chain.
pub(super) fn with_hashes_before(
    state: &ClusterState,
) -> impl DoubleEndedIterator<Item = (Option<AuditHash>, &AuditEntry)> {
    let unchained = state.audit.iter().filter(|entry| entry.seq == 0).map(|entry| (None, entry));
    unchained.chain(state.audit_chain().map(|(prev, entry)| (Some(prev), entry)))
}

/// An entry, with the hash of the one before.
pub(super) fn shown(entry: &AuditEntry, prev: Option<AuditHash>, policy: &ClusterPolicy) -> proto::AuditEntry {
    proto::AuditEntry {
        index: entry.index,
        at_ms: ms(entry.at),
        node_id: entry.node.0,
        node: node_name(policy, entry.node),
        by: entry.by.0.clone(),
        group: entry.group.as_ref().map(|group| group.0.clone()).unwrap_or_default(),
        what: entry.what.clone(),
        reason: entry.reason.clone(),
        outcome: entry.outcome.clone(),
        seq: entry.seq,
        from: entry.from.clone(),
        evidence: entry.evidence.clone(),
        hash: prev.map(|_| entry.hash.to_string()).unwrap_or_default(),
        prev: prev.map(|prev| prev.to_string()).unwrap_or_default(),
        change: entry.change.clone(),
        command: prev.map(|_| entry.command.to_string()).unwrap_or_default(),
        code: entry.code.clone(),
    }
}
