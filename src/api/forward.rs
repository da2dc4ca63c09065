//! To the leader, once: a forwarded call carries a header, and a node that gets one and does not lead refuses it, so that
//! two nodes with different ideas of the leader cannot pass a call to and fro.

use std::time::Duration;

use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::access::carry_identity;
use super::backend::{Leader, NodeStanding};
use super::deadline;
use super::origin;
use super::refuse::{NO_LEADER, NO_QUORUM, is_certain, not_now, nothing_done, nothing_done_in_time, outcome_unknown};
use super::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES};
use crate::domain::identity::Caller;
use crate::domain::ids::ClusterName;
use crate::proto::admin_client::AdminClient;
use crate::tls::dial::why;
use crate::tls::{Dialer, Expect};

/// Header of a forwarded call: the node that forwarded it.
pub(super) const FORWARDED_BY: &str = "watchdog-forwarded-by";

const CONNECT_MS: u64 = 2_000;

/// Where a write is to be done.
pub(super) enum Place {
    /// Here.
    Here,
    /// At the leader.
    Leader(Leader),
}

/// Where a write that arrived at this node is to be done.
pub(super) fn place<T>(standing: &NodeStanding, request: &Request<T>) -> Result<Place, Status> {
    if standing.is_leader() && standing.has_quorum {
        return Ok(Place::Here);
    }
    if let (false, Some(by)) = (standing.is_leader(), request.metadata().get(FORWARDED_BY)) {
        let by = by.to_str().unwrap_or("another node");
        return Err(nothing_done(format!(
            "{by} took {} for the leader, which it is not; nothing was changed: ask again",
            standing.name
        )));
    }
    match &standing.leader {
        Some(leader) if !standing.is_leader() => Ok(Place::Leader(leader.clone())),
        _ => Err(no_leader(standing)),
    }
}

/// That there is nobody to decide, as a status. A leader that lost its majority refuses too: what it wrote down now, nobody
/// might ever confirm.
fn no_leader(standing: &NodeStanding) -> Status {
    let (word, missing) = if standing.has_quorum { (NO_LEADER, "no leader") } else { (NO_QUORUM, "no quorum") };
    let note = if standing.note.is_empty() { String::new() } else { format!(" ({})", standing.note) };
    not_now(word, format!("{} has {missing}{note}; nothing was changed", standing.name))
}

/// A client of the leader's admin service. An error here means that nothing was sent.
pub(super) async fn connect(
    dialer: &Dialer,
    cluster: &ClusterName,
    leader: &Leader,
    timeout: Duration,
) -> Result<AdminClient<Channel>, Status> {
    let unreachable = |error: &(dyn std::error::Error + 'static)| {
        let error = why(error);
        let Leader { name, address, .. } = leader;
        nothing_done(format!(
            "the leader {name} at {address} cannot be reached from here ({error}); nothing was changed: ask again"
        ))
    };
    let timeout = deadline::left(timeout);
    if timeout.is_zero() {
        return Err(nothing_done_in_time("your deadline had passed before the leader was asked"));
    }
    let endpoint = Endpoint::from_shared(format!("http://{}", leader.address)).map_err(|error| unreachable(&error))?;
    let endpoint = endpoint.connect_timeout(Duration::from_millis(CONNECT_MS).min(timeout)).timeout(timeout);
    let connector = dialer.to(Expect::node(Some(cluster), Some(&leader.name)));
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| unreachable(&error))?;
    Ok(AdminClient::new(channel)
        .max_decoding_message_size(MAX_ANSWER_BYTES)
        .max_encoding_message_size(MAX_REQUEST_BYTES))
}

/// The message with the headers that mark it as forwarded, and say for whom, and what is left of the caller's deadline.
pub(super) fn carried<T>(message: T, standing: &NodeStanding, caller: &Caller) -> Request<T> {
    let mut request = Request::new(message);
    let by = AsciiMetadataValue::try_from(standing.name.as_str()).unwrap_or(AsciiMetadataValue::from_static("a-node"));
    request.metadata_mut().insert(FORWARDED_BY, by);
    carry_identity(request.metadata_mut(), caller);
    origin::carry(request.metadata_mut());
    if deadline::current().is_some() {
        request.set_timeout(deadline::left(Duration::MAX));
    }
    request
}

/// The leader's answer; where none came, that the outcome is unknown.
pub(super) fn came_back<T>(leader: &Leader, answer: Result<Response<T>, Status>) -> Result<Response<T>, Status> {
    answer.map_err(|status| {
        if is_certain(&status) {
            return status;
        }
        let code = if status.code() == Code::Cancelled { Code::DeadlineExceeded } else { Code::Unknown };
        outcome_unknown(code, &format!("no answer from the leader {}: {}", leader.name, status.message()))
    })
}
