//! What goes between nodes: who speaks to whom, how payloads are written, and what is wrong with one before anything acts on it.

use openraft::entry::RaftEntry;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::consensus::store::{Reached, Store};
use crate::consensus::types::{Identity, MAX_SNAPSHOT_BYTES, SnapshotMeta, TypeConfig, Vote};
use crate::domain::command::{Change, Command};
use crate::domain::ids::NodeId;
use crate::domain::observation::Report;
use crate::domain::state::ClusterState;
use crate::proto::{self, Header};

/// The data of one message of a snapshot.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Of so many stores one message speaks at most.
const MOST_REACHED: usize = 128;
/// The name of a start is no longer.
const START_BYTES: usize = 64;

/// Of so many refused calls one message speaks at most.
const NOTES_MAX: usize = 32;
/// The texts of one are no longer, bytes.
const NOTE_BYTES_MAX: usize = 8 << 10;

/// Of an error's words about a payload, characters.
const WORDS_CHARS_MAX: usize = 300;

/// What precedes a snapshot's data.
#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotBegin {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
}

/// The header of a call from this node to `to`.
pub(super) fn header(identity: &Identity, store: &Store, to: NodeId) -> Header {
    Header {
        cluster: identity.cluster.0.clone(),
        epoch: identity.epoch,
        from: identity.node.0,
        to: to.0,
        store: store.id().to_owned(),
        to_store: store.known_store(to).unwrap_or_default(),
        reached: reached(store),
    }
}

/// How far stores came, as it is said in every message.
pub(super) fn reached(store: &Store) -> Vec<proto::Reached> {
    store.reached().iter().map(Reached::to_wire).collect()
}

/// What a message says of how far stores came; `field` is where.
pub(super) fn check_reached(field: &str, said: &[proto::Reached]) -> Result<Vec<Reached>, Status> {
    let wrong = |what: String| {
        tracing::warn!("refused a message between nodes: {what}");
        Status::invalid_argument(what)
    };
    if said.len() > MOST_REACHED {
        return Err(wrong(format!("{field}: {} stores are more than {MOST_REACHED}", said.len())));
    }
    let of = |said: &proto::Reached| {
        Reached::from_wire(said).map_err(|what| wrong(format!("{field}: of node {}: {what}", said.node)))
    };
    said.iter().map(of).collect()
}

impl Reached {
    /// As it goes between nodes.
    pub fn to_wire(&self) -> proto::Reached {
        let mut wire = proto::Reached {
            node: self.node.0,
            start: self.start.clone(),
            began: self.began,
            position: self.position,
            crc32c: 0,
        };
        wire.crc32c = sum(&wire);
        wire
    }

    fn from_wire(wire: &proto::Reached) -> Result<Self, String> {
        if wire.start.is_empty() || wire.start.len() > START_BYTES {
            return Err(format!("the name of its start has {} bytes, not 1 to {START_BYTES}", wire.start.len()));
        }
        if wire.crc32c != sum(wire) {
            return Err("its checksum does not match: it is not what that node said".to_owned());
        }
        if wire.began > wire.position {
            return Err(format!("it is at {}, before its start at {}", wire.position, wire.began));
        }
        let (start, began, position) = (wire.start.clone(), wire.began, wire.position);
        Ok(Self { node: NodeId(wire.node), start, began, position })
    }
}

fn sum(wire: &proto::Reached) -> u32 {
    let numbers = [wire.node, wire.began, wire.position];
    numbers
        .iter()
        .fold(crc32c::crc32c(wire.start.as_bytes()), |sum, number| crc32c::crc32c_append(sum, &number.to_le_bytes()))
}

/// The caller, once its header is as it should be.
pub(super) fn check(own: &Identity, own_store: &str, header: &Header) -> Result<NodeId, Status> {
    let from = NodeId(header.from);
    let refuse = |text: String| {
        tracing::warn!(%from, "refused a call between nodes: {text}");
        Status::failed_precondition(text)
    };
    if header.cluster != own.cluster.0 {
        return Err(refuse(format!(
            "header.cluster: node {from} is of cluster {:?}, node {} of cluster {:?}; correct the addresses",
            header.cluster, own.node, own.cluster.0
        )));
    }
    if header.epoch != own.epoch {
        return Err(refuse(format!(
            "header.epoch: node {from} is of epoch {}, node {} of epoch {}; give both the same configuration",
            header.epoch, own.node, own.epoch
        )));
    }
    if header.to != own.node.0 {
        return Err(refuse(format!(
            "header.to: node {from} means to call node {}, but this is node {}; correct the addresses",
            header.to, own.node
        )));
    }
    if from == own.node {
        return Err(refuse(format!(
            "header.from: node {from} calls itself; two nodes run under the same id, or an address points to its own node"
        )));
    }
    if header.store.is_empty() {
        return Err(refuse(format!("header.store: missing in the call of node {from}")));
    }
    if !header.to_store.is_empty() && header.to_store != own_store {
        return Err(refuse(format!("header.to_store: to node {from}, {}", other_store(own.node))));
    }
    Ok(from)
}

/// What is said of a node that presents another store than before.
pub(super) fn other_store(node: NodeId) -> String {
    format!(
        "node {node} presents another store than before: its folder was emptied or replaced, and with it what it had \
         promised, or two nodes run under this id; remove it from the cluster and add it again under a new id"
    )
}

/// Nobody speaks with another's vote.
pub(super) fn check_vote(from: NodeId, vote: &Vote) -> Result<(), Status> {
    let voted_for = vote.leader_id.voted_for;
    if voted_for == from {
        return Ok(());
    }
    let text = format!("payload.vote: node {from} speaks for node {voted_for}");
    tracing::warn!("refused a call between nodes: {text}");
    Err(Status::invalid_argument(text))
}

/// What openraft takes for granted of a leader, and panics or errs without: one entry after the other, none of a later
/// term than its leader's, no position that cannot be counted on from.
pub(super) fn check_append(request: &AppendEntriesRequest<TypeConfig>) -> Result<(), Status> {
    let wrong = |what: String| {
        tracing::warn!("refused a call between nodes: {what}");
        Err(Status::invalid_argument(what))
    };
    let term = request.vote.leader_id.term;
    let mut last = request.prev_log_id;
    for entry in &request.entries {
        let log_id = entry.log_id();
        let next = last.map_or(Some(0), |last| last.index.checked_add(1));
        if Some(log_id.index) != next {
            return wrong(format!("payload.entries: entry {} does not follow {last:?}", log_id.index));
        }
        if last.is_some_and(|last| last.committed_leader_id().term > log_id.committed_leader_id().term) {
            return wrong(format!("payload.entries: entry {} is of an earlier term than {last:?}", log_id.index));
        }
        last = Some(log_id);
    }
    for (field, log_id) in
        [("entries", last), ("prev_log_id", request.prev_log_id), ("leader_commit", request.leader_commit)]
    {
        let Some(log_id) = log_id else { continue };
        if log_id.committed_leader_id().term > term {
            return wrong(format!("payload.{field}: {log_id} is of a later term than its leader, {term}"));
        }
        if log_id.index == u64::MAX {
            return wrong(format!("payload.{field}: nothing can follow {log_id}"));
        }
    }
    Ok(())
}

/// Entries of the leader `from`.
///
/// # Errors
/// They are none, or not such as a leader sends; the field is named.
pub fn read_append(from: NodeId, payload: &[u8]) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    let request: AppendEntriesRequest<TypeConfig> = decode(payload)?;
    check_vote(from, &request.vote)?;
    check_append(&request)?;
    Ok(request)
}

/// What the candidate `from` asks, of a vote or of what a vote would be.
///
/// # Errors
/// As [`read_append`].
pub fn read_vote(from: NodeId, payload: &[u8]) -> Result<VoteRequest<TypeConfig>, Status> {
    let request: VoteRequest<TypeConfig> = decode(payload)?;
    check_vote(from, &request.vote)?;
    Ok(request)
}

/// The word of the leader `from` that another shall lead.
///
/// # Errors
/// As [`read_append`].
pub fn read_transfer(from: NodeId, payload: &[u8]) -> Result<TransferLeaderRequest<TypeConfig>, Status> {
    let request: TransferLeaderRequest<TypeConfig> = decode(payload)?;
    check_vote(from, request.from_leader())?;
    Ok(request)
}

/// What node `from` has observed.
///
/// # Errors
/// As [`read_append`].
pub fn read_report(from: NodeId, payload: &[u8]) -> Result<Report, Status> {
    let report: Report = decode(payload)?;
    if report.node != from {
        return Err(Status::invalid_argument(format!("payload.node: node {from} reports as node {}", report.node)));
    }
    Ok(report)
}

/// What the leader `from` says of the snapshot that follows, and how many bytes it has.
///
/// # Errors
/// As [`read_append`].
pub fn read_begin(from: NodeId, payload: &[u8]) -> Result<(SnapshotBegin, usize), Status> {
    let begin: SnapshotBegin = decode(payload)?;
    check_vote(from, &begin.vote)?;
    let bytes = usize::try_from(begin.bytes).ok().filter(|bytes| *bytes <= MAX_SNAPSHOT_BYTES).ok_or_else(|| {
        Status::out_of_range(format!("begin.bytes: {} is more than {MAX_SNAPSHOT_BYTES}", begin.bytes))
    })?;
    // openraft panics on a snapshot from beyond its leader's term.
    if begin.meta.last_log_id.is_some_and(|last| last.committed_leader_id().term > begin.vote.leader_id.term) {
        return Err(Status::invalid_argument("begin.meta: the snapshot is of a later term than its leader"));
    }
    Ok((begin, bytes))
}

/// Whether a snapshot's data is what was announced, and a state: one that cannot be read would stop the state machine.
///
/// # Errors
/// It is other bytes, or no state.
pub fn check_data(begin: &SnapshotBegin, data: &[u8]) -> Result<(), Status> {
    if data.len() as u64 != begin.bytes || crc32c::crc32c(data) != begin.crc32c {
        let text = format!("data: {} of {} bytes, or other ones than were sent", data.len(), begin.bytes);
        return Err(Status::data_loss(text));
    }
    decode::<ClusterState>(data).map(drop)
}

/// What a node refused, for the audit.
///
/// # Errors
/// It is something else, somebody else's, or too much.
pub fn read_notes(from: NodeId, payload: &[u8]) -> Result<Vec<Command>, Status> {
    let notes: Vec<Command> = decode(payload)?;
    if notes.len() > NOTES_MAX {
        return Err(Status::invalid_argument(format!("payload: {} notes are more than {NOTES_MAX}", notes.len())));
    }
    for note in &notes {
        let Change::Note { what, outcome, .. } = &note.change else {
            return Err(Status::invalid_argument(format!("payload: {} is no note", note.change.name())));
        };
        let who = note.by.0.len() + note.from.as_ref().map_or(0, String::len);
        if who + what.len() + outcome.len() > NOTE_BYTES_MAX || note.node != from || note.request_id.is_none() {
            return Err(Status::invalid_argument("payload: a note is too long, without id, or another node's"));
        }
    }
    Ok(notes)
}

/// A payload as JSON.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(value).map_err(|error| Status::internal(format!("payload: cannot be written as JSON: {error}")))
}

/// A payload from JSON. An error repeats words of it, into the answer and the caller's log: they are cut, and without
/// control characters.
pub(super) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(payload).map_err(|error| {
        let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let words: String = error.to_string().chars().map(shown).take(WORDS_CHARS_MAX).collect();
        Status::invalid_argument(format!("payload: not understood by this version: {words}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn a_header_of_somebody_else_is_refused_by_name() {
        let own = Identity { cluster: "demo".into(), epoch: 2, node: NodeId(1) };
        let good = Header {
            cluster: "demo".to_owned(),
            epoch: 2,
            from: 3,
            to: 1,
            store: "s".to_owned(),
            to_store: "own".to_owned(),
            reached: Vec::new(),
        };
        assert_eq!(check(&own, "own", &good).unwrap(), NodeId(3));
        let bad = [
            ("header.cluster", Header { cluster: "other".to_owned(), ..good.clone() }),
            ("header.epoch", Header { epoch: 1, ..good.clone() }),
            ("header.to", Header { to: 2, ..good.clone() }),
            ("header.from", Header { from: 1, ..good.clone() }),
            ("header.store", Header { store: String::new(), ..good.clone() }),
            ("header.to_store", Header { to_store: "lost".to_owned(), ..good }),
        ];
        for (field, header) in bad {
            let status = check(&own, "own", &header).unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition, "{field}");
            assert!(status.message().starts_with(field), "{status}");
        }
    }

    #[test]
    fn an_append_that_openraft_would_panic_on_is_refused_by_its_field() {
        let append = |prev: &str, entries: &[(u64, u64)], commit: &str| {
            let entry = |(term, index): &(u64, u64)| {
                format!(r#"{{"log_id":{{"leader_id":{term},"index":{index}}},"payload":"Blank"}}"#)
            };
            let entries = entries.iter().map(entry).collect::<Vec<_>>().join(",");
            let vote = r#"{"leader_id":{"term":2,"voted_for":2},"committed":true}"#;
            let text =
                format!(r#"{{"vote":{vote},"prev_log_id":{prev},"entries":[{entries}],"leader_commit":{commit}}}"#);
            check_append(&decode(text.as_bytes()).unwrap())
        };
        let at = |term: u64, index: u64| format!(r#"{{"leader_id":{term},"index":{index}}}"#);
        assert!(append("null", &[(1, 0), (2, 1)], &at(2, 9)).is_ok());
        assert!(append(&at(1, 3), &[(2, 4)], "null").is_ok());
        assert!(append(&at(2, 3), &[], &at(2, 3)).is_ok());
        for (prev, entries, commit, field) in [
            ("null".to_owned(), vec![(2, 1)], "null".to_owned(), "payload.entries: entry 1 does not follow"),
            (at(1, 3), vec![(2, 4), (2, 6)], "null".to_owned(), "payload.entries: entry 6 does not follow"),
            (at(1, 3), vec![(2, 4), (1, 5)], "null".to_owned(), "payload.entries: entry 5 is of an earlier term"),
            (at(1, 3), vec![(255, 4)], "null".to_owned(), "payload.entries: "),
            (at(3, 3), vec![], "null".to_owned(), "payload.entries: "),
            (at(2, u64::MAX), vec![(2, 0)], "null".to_owned(), "payload.entries: entry 0 does not follow"),
            (at(2, 3), vec![], at(9, 3), "payload.leader_commit: "),
            (at(2, 3), vec![], at(2, u64::MAX), "payload.leader_commit: nothing can follow"),
        ] {
            let refused = append(&prev, &entries, &commit).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().starts_with(field), "{refused} for {field}");
        }
    }
}
