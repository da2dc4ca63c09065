//! The google.rpc details of a refusal, made in one place: which field, which precondition, when to ask again, and for
//! every refusal one `ErrorInfo` with the stable reason, who answered, and where the leader is.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::backend::NodeStanding;
use super::refuse::{NODE, OUTCOME, REJECTION};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "watchdog.v1";

/// What a precondition is about, where no group is named.
const CLUSTER: &str = "cluster";

/// Keys of an `ErrorInfo`'s metadata.
pub mod key {
    /// The node that answered.
    pub const NODE: &str = "node";
    /// The leader it knows; absent where it knows none.
    pub const LEADER: &str = "leader";
    /// `address:port` of that leader: a hint, for whoever wants to ask it directly.
    pub const LEADER_ADDRESS: &str = "leader_address";
    /// `none` where certainly nothing was changed, `unknown` where it may have been.
    pub const OUTCOME: &str = "outcome";
    /// The role that was missing.
    pub const REQUIRED_ROLE: &str = "required_role";
}

/// How the domain's own messages begin, and the field of a request that they mean.
const FIELDS: &[(&str, &str)] = &[
    ("reason", "context.reason"),
    ("request_id", "context.request_id"),
    ("until", "until_ms"),
    ("to", "to_region"),
    ("service", "service"),
    ("action", "action"),
    ("replicas", "replicas"),
    ("assert_fence", "assert_fence_region"),
    ("region", "region"),
    ("step", "step"),
];

/// The fields that the domain's own messages name, as they are on the wire.
pub fn fields() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().map(|(_, wire)| *wire)
}

/// The same status with other details; code, message and trailers stay.
fn with(status: &Status, details: ErrorDetails) -> Status {
    let metadata = status.metadata().clone();
    Status::with_error_details_and_metadata(status.code(), status.message(), details, metadata)
}

/// The field that is wrong.
pub(super) fn field(status: &Status, field: &str, why: &str) -> Status {
    let mut details = status.get_error_details();
    details.add_bad_request_violation(field, why);
    with(status, details)
}

/// The field that a message of the form `FIELD: why` is about; the same status where it names none.
pub(super) fn named_field(status: Status) -> Status {
    let Some((name, why)) = status.message().split_once(": ") else { return status };
    let known = FIELDS.iter().find(|(word, wire)| name == *word || name == *wire);
    known.map_or_else(|| status.clone(), |(_, wire)| field(&status, wire, why))
}

/// What had to be so and is not: `reason` is the stable code.
pub(super) fn precondition(status: &Status, reason: &str) -> Status {
    let mut details = status.get_error_details();
    details.add_precondition_failure_violation(reason, CLUSTER, status.message());
    with(status, details)
}

/// The group that a failed precondition is about.
pub(super) fn about_group(status: Status, group: &str) -> Status {
    let mut details = status.get_error_details();
    let Some(failure) = details.precondition_failure().cloned() else { return status };
    let mut violations = failure.violations;
    for violation in &mut violations {
        violation.subject = format!("group/{group}");
    }
    details.set_precondition_failure(violations);
    with(&status, details)
}

/// When it is worth while to ask again.
pub(super) fn retry_after(status: &Status, delay: Duration) -> Status {
    let mut details = status.get_error_details();
    details.set_retry_info(Some(delay));
    with(status, details)
}

/// The role that was missing.
pub(super) fn missing_role(status: &Status, role: &str) -> Status {
    let mut details = status.get_error_details();
    let metadata = HashMap::from([(key::REQUIRED_ROLE.to_owned(), role.to_owned())]);
    details.set_error_info(reason(status), DOMAIN, metadata);
    with(status, details)
}

/// The stable word for why: the replicated state's where it refused, else one that goes with the gRPC code.
pub fn reason(status: &Status) -> &str {
    let word = |name: &str| status.metadata().get(name).and_then(|word| word.to_str().ok());
    if let Some(word) = word(REJECTION) {
        return word;
    }
    match (word(OUTCOME), status.code()) {
        (Some("unknown"), _) => "outcome_unknown",
        (_, Code::DeadlineExceeded) => "deadline_exceeded",
        (_, Code::Unavailable) => "unavailable",
        (_, Code::InvalidArgument) => "invalid",
        (_, Code::NotFound) => "not_found",
        (_, Code::ResourceExhausted) => "too_many",
        (_, Code::Unimplemented) => "unimplemented",
        _ => "internal",
    }
}

/// With the one `ErrorInfo`: by `node`, and with the leader where its standing is at hand. What another node said stays.
pub(super) fn complete(status: &Status, node: &str, standing: Option<&NodeStanding>) -> Status {
    let mut details = status.get_error_details();
    let mut metadata = details.error_info().map(|info| info.metadata.clone()).unwrap_or_default();
    let outcome = status.metadata().get(OUTCOME).and_then(|word| word.to_str().ok()).unwrap_or("none");
    let mut add = |key: &str, value: &str| {
        metadata.insert(key.to_owned(), value.to_owned());
    };
    add(key::NODE, node);
    add(key::OUTCOME, outcome);
    if let Some(leader) = standing.and_then(|standing| standing.leader.as_ref()) {
        add(key::LEADER, leader.name.as_str());
        if !leader.address.is_empty() {
            add(key::LEADER_ADDRESS, &leader.address);
        }
    }
    details.set_error_info(reason(status), DOMAIN, metadata);
    debug_assert!(status.metadata().get(NODE).is_none(), "another node's refusal is left as it is");
    with(status, details)
}
