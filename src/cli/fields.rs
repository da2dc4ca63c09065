//! Fields of a request in the words of the command line, so that a refusal names what was typed.

use tonic::Status;
use tonic_types::StatusExt;

/// A field on the wire, and the option or argument that it comes from. `region` of an order on a run is `--region`, a
/// `group` an argument of every verb that has one.
pub(super) const TYPED: &[(&str, &str)] = &[
    ("context.request_id", "--request-id"),
    ("context.reason", "--reason"),
    ("context.by", "--by"),
    ("group", "GROUP"),
    ("confirm_group", "--yes"),
    ("to_region", "--to"),
    ("assert_fence_region", "--assert-fence"),
    ("accept_loss", "--accept-loss"),
    ("region", "--region"),
    ("service", "NAME"),
    ("replicas", "--replicas"),
    ("run_id", "RUN"),
    ("step", "STEP"),
    ("until_ms", "--for"),
    ("limit", "--limit"),
    ("before_index", "--before"),
];

/// What was typed for a field; the field's own name where nothing was.
pub fn typed(field: &str) -> &str {
    TYPED.iter().find(|(wire, _)| *wire == field).map_or(field, |(_, typed)| *typed)
}

/// The first field that is wrong; empty where none is named.
pub fn first_wrong(status: &Status) -> String {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    violations.into_iter().next().map(|wrong| wrong.field).unwrap_or_default()
}

/// The refusal with each wrong field by what was typed for it; its own words where it names no field.
pub fn words(status: &Status) -> String {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let each = violations.iter().map(|wrong| format!("{}: {}", typed(&wrong.field), wrong.description));
    let all: Vec<String> = each.collect();
    if all.is_empty() { status.message().to_owned() } else { all.join("; ") }
}
