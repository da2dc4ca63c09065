//! Refusals as gRPC statuses: one table from the domain's codes to gRPC's. Each comes with google.rpc details, which
//! [`details`](super::details) makes, and with trailers for those who do not read them.

use std::time::Duration;

use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Status};

use super::backend::{NodeStanding, ProposeError};
use super::details;
use crate::domain::command::{Rejection, RejectionCode};
use crate::domain::ids::GroupName;

/// After an election or a lost answer.
const RETRY_SOON: Duration = Duration::from_millis(500);
/// Where somebody else must leave first.
const RETRY_LATER: Duration = Duration::from_secs(10);

/// Trailer: the stable code of a refusal by the replicated state (`stale`, `run_open` …).
pub const REJECTION: &str = "watchdog-rejection";

/// The word of [`REJECTION`] where no majority answers the node.
pub const NO_QUORUM: &str = "no_quorum";

/// The word of [`REJECTION`] where there is a majority and no leader yet.
pub const NO_LEADER: &str = "no_leader";

/// The word of [`REJECTION`] where the caller proved nothing.
pub const UNPROVEN: &str = "unauthenticated";

/// The word of [`REJECTION`] where the caller lacks the role.
pub const FORBIDDEN: &str = "permission_denied";

/// Trailer: the node that answered. An error without it came from the transport, not from a node's service.
pub const NODE: &str = "watchdog-node";

/// Trailer: `none` where certainly nothing was changed, `unknown` where it may have been.
pub const OUTCOME: &str = "watchdog-outcome";

/// Every code with its gRPC code; on the wire it is said by its word.
pub const REJECTION_CODES: &[(RejectionCode, Code)] = &[
    (RejectionCode::NotFound, Code::NotFound),
    (RejectionCode::Stale, Code::Aborted),
    (RejectionCode::RunOpen, Code::FailedPrecondition),
    (RejectionCode::Paused, Code::FailedPrecondition),
    (RejectionCode::Illegal, Code::FailedPrecondition),
    (RejectionCode::NoFenceProof, Code::FailedPrecondition),
    (RejectionCode::LossTooGreat, Code::FailedPrecondition),
    (RejectionCode::NoStandby, Code::FailedPrecondition),
    (RejectionCode::NotPaused, Code::FailedPrecondition),
    (RejectionCode::RunClosed, Code::FailedPrecondition),
    (RejectionCode::OtherConfig, Code::FailedPrecondition),
    (RejectionCode::AlreadyFailedOver, Code::FailedPrecondition),
    (RejectionCode::Unsettled, Code::FailedPrecondition),
    (RejectionCode::Taken, Code::FailedPrecondition),
    (RejectionCode::ChangeUnderWay, Code::FailedPrecondition),
    (RejectionCode::IsLeader, Code::FailedPrecondition),
    (RejectionCode::LayoutBroken, Code::FailedPrecondition),
    (RejectionCode::QuorumLost, Code::FailedPrecondition),
    (RejectionCode::NotReachable, Code::FailedPrecondition),
    (RejectionCode::Invalid, Code::InvalidArgument),
];

/// A rejection as a status.
pub fn rejected(rejection: &Rejection) -> Status {
    let row = REJECTION_CODES.iter().find(|(code, _)| *code == rejection.code);
    let (code, word) = (row.map_or(Code::FailedPrecondition, |(_, code)| *code), rejection.code.word());
    let mut status = Status::new(code, rejection.message.clone());
    status.metadata_mut().insert(REJECTION, AsciiMetadataValue::from_static(word));
    match code {
        Code::InvalidArgument => details::named_field(status),
        Code::FailedPrecondition | Code::Aborted => details::precondition(&status, word),
        _ => status,
    }
}

/// The same refusal, which is about this group.
pub fn about(status: Status, group: &GroupName) -> Status {
    details::about_group(status, group.as_str())
}

/// A failed proposal as a status.
pub fn failed(error: ProposeError) -> Status {
    match error {
        ProposeError::NotLeader => nothing_done(error.to_string()),
        ProposeError::Unavailable(why) => nothing_done(why),
        ProposeError::NoQuorum(why) => not_now(NO_QUORUM, why),
        ProposeError::Unknown(why) => outcome_unknown(Code::DeadlineExceeded, &why),
        ProposeError::Rejected(rejection) => rejected(&rejection),
    }
}

/// `UNAVAILABLE`: certainly nothing was changed.
pub fn nothing_done(why: impl Into<String>) -> Status {
    let mut status = Status::unavailable(why);
    status.metadata_mut().insert(OUTCOME, AsciiMetadataValue::from_static("none"));
    details::retry_after(&status, RETRY_SOON)
}

/// `DEADLINE_EXCEEDED` before anything was begun: certainly nothing was changed.
pub fn nothing_done_in_time(why: &str) -> Status {
    let mut status = Status::deadline_exceeded(format!("{why}; nothing was changed: ask again with more time"));
    status.metadata_mut().insert(OUTCOME, AsciiMetadataValue::from_static("none"));
    status
}

/// There are too many of these already: certainly nothing was changed.
pub fn too_many(why: impl Into<String>) -> Status {
    details::retry_after(&Status::resource_exhausted(why), RETRY_LATER)
}

/// The caller may not do this: certainly nothing was changed. [`UNPROVEN`] or [`FORBIDDEN`].
pub fn refused_caller(code: Code, word: &'static str, why: impl Into<String>) -> Status {
    let mut status = Status::new(code, why);
    status.metadata_mut().insert(REJECTION, AsciiMetadataValue::from_static(word));
    status
}

/// [`nothing_done`], with the stable word for why: [`NO_QUORUM`] or [`NO_LEADER`].
pub fn not_now(word: &'static str, why: impl Into<String>) -> Status {
    let mut status = nothing_done(why);
    status.metadata_mut().insert(REJECTION, AsciiMetadataValue::from_static(word));
    status
}

/// It may or may not have been done.
pub fn outcome_unknown(code: Code, why: &str) -> Status {
    let mut status = Status::new(code, format!("outcome unknown: ask again with the same request_id ({why})"));
    status.metadata_mut().insert(OUTCOME, AsciiMetadataValue::from_static("unknown"));
    details::retry_after(&status, RETRY_SOON)
}

/// A field of a request is wrong.
pub fn invalid(field: &str, why: impl std::fmt::Display) -> Status {
    let why = why.to_string();
    details::field(&Status::invalid_argument(format!("{field}: {why}")), field, &why)
}

/// Says which node answered, so that callers can tell its word from the transport's.
pub fn signed(status: Status, node: &str) -> Status {
    sign(status, node, None)
}

/// [`signed`], with the leader that the node knows as a hint.
pub fn signed_by(status: Status, standing: &NodeStanding) -> Status {
    sign(status, standing.name.as_str(), Some(standing))
}

fn sign(status: Status, node: &str, standing: Option<&NodeStanding>) -> Status {
    let Ok(name) = AsciiMetadataValue::try_from(node) else { return status };
    if status.metadata().get(NODE).is_some() {
        return status;
    }
    let mut status = details::complete(&status, node, standing);
    status.metadata_mut().insert(NODE, name);
    status
}

/// A node's service said this, or the transport refused the message for certain before any service saw it.
pub fn is_certain(status: &Status) -> bool {
    let refused_unread = matches!(
        status.code(),
        Code::Unimplemented | Code::OutOfRange | Code::ResourceExhausted | Code::InvalidArgument | Code::NotFound
    );
    status.metadata().get(NODE).is_some() || refused_unread
}
