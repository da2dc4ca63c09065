//! What callers wrote, checked field by field before anything is done. Texts end up in logs and on terminals, so that
//! control characters are refused.

use tonic::Status;

use super::origin;
use super::refuse::invalid;
use crate::domain::command::RunOrder;
use crate::domain::identity::Caller;
use crate::domain::ids::{ClusterName, GroupName, Principal, RegionName, RequestId, RunId, StepId, Token, UnixMs};
use crate::proto::{FailoverRequest, Order, OrderRunRequest, PauseRequest, WriteContext};

const REASON_CHARS: usize = 500;
const NAME_CHARS: usize = 128;
const PAUSE_MAX_MS: u64 = 90 * 24 * 3600 * 1000;

/// A write's context, checked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) request_id: RequestId,
    pub(super) by: Principal,
    pub(super) reason: String,
}

/// The context of a write. Who asks is what the caller proved; what the message says counts only where nobody could prove
/// anything.
pub(super) fn context(context: Option<&WriteContext>, caller: &Caller, cluster: &ClusterName) -> Result<Asked, Status> {
    let context = context.ok_or_else(|| invalid("context", "missing; a write carries request_id, by and reason"))?;
    let id_length = 8..=64;
    if !id_length.contains(&context.request_id.len()) || !context.request_id.bytes().all(is_id_byte) {
        return Err(invalid("context.request_id", "must be 8 to 64 of A-Z a-z 0-9 . _ -, best a UUIDv7"));
    }
    let by = match caller {
        Caller::Proven { identity, .. } => identity.principal(cluster),
        Caller::Unproven => said_by(context)?,
    };
    let reason = context.reason.trim();
    if reason.is_empty() {
        return Err(invalid("context.reason", "empty; say why, it goes into the audit"));
    }
    if reason.chars().count() > REASON_CHARS {
        return Err(invalid("context.reason", format!("longer than {REASON_CHARS} characters")));
    }
    if reason.chars().any(char::is_control) {
        return Err(invalid("context.reason", "must be one line without control characters"));
    }
    origin::asked(&by, reason);
    Ok(Asked { request_id: RequestId(context.request_id.clone()), by, reason: reason.to_owned() })
}

fn said_by(context: &WriteContext) -> Result<Principal, Status> {
    let by_ok = context.by.bytes().all(|b| is_id_byte(b) || b == b'@');
    if !(1..=64).contains(&context.by.len()) || !by_ok {
        return Err(invalid("context.by", "must be who asks, 1 to 64 of A-Z a-z 0-9 . _ @ -"));
    }
    Ok(Principal(format!("operator:{}", context.by)))
}

fn is_id_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')
}

/// A name: not empty, not long, printable.
pub(super) fn name<'a>(field: &str, value: &'a str) -> Result<&'a str, Status> {
    if value.is_empty() {
        return Err(invalid(field, "empty"));
    }
    if value.len() > NAME_CHARS || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid(field, format!("must be a name of at most {NAME_CHARS} bytes without spaces")));
    }
    Ok(value)
}

/// A group's name.
pub(super) fn group(value: &str) -> Result<GroupName, Status> {
    let group = name("group", value).map(GroupName::from)?;
    origin::about(&group);
    Ok(group)
}

/// An optional group's name.
pub(super) fn group_or_all(value: &str) -> Result<Option<GroupName>, Status> {
    if value.is_empty() { Ok(None) } else { group(value).map(Some) }
}

/// The group's name typed again.
pub(super) fn confirmed(typed: &str, group: &GroupName) -> Result<(), Status> {
    if typed == group.as_str() {
        return Ok(());
    }
    Err(invalid("confirm_group", format!("is {typed:?}, but this is about {:?}: type its name again", group.as_str())))
}

/// A token in a text field; empty is none.
pub(super) fn token(field: &str, text: &str) -> Result<Option<Token>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| invalid(field, error))
}

/// When a pause ends.
pub(super) fn pause_until(ask: &PauseRequest, now: UnixMs) -> Result<Option<UnixMs>, Status> {
    let Some(until_ms) = ask.until_ms else { return Ok(None) };
    let until = u64::try_from(until_ms).map_err(|_| invalid("until_ms", "must be milliseconds since 1970"))?;
    if until <= now.0 {
        return Err(invalid("until_ms", format!("{until} has already passed; this node's clock says {}", now.0)));
    }
    if until > now.plus(PAUSE_MAX_MS).0 {
        return Err(invalid("until_ms", "more than 90 days ahead; leave it out to pause until resumed"));
    }
    Ok(Some(UnixMs(until)))
}

/// A failover's destination and assertion.
pub(super) fn failover(ask: &FailoverRequest) -> Result<(GroupName, RegionName, Option<RegionName>), Status> {
    let group = group(&ask.group)?;
    let to = RegionName::from(name("to_region", &ask.to_region)?);
    if !ask.dry_run {
        confirmed(&ask.confirm_group, &group)?;
    }
    let assert_fence = match ask.assert_fence_region.as_str() {
        "" => None,
        region => Some(RegionName::from(name("assert_fence_region", region)?)),
    };
    if assert_fence.as_ref() == Some(&to) {
        return Err(invalid(
            "assert_fence_region",
            format!("{to} is where you move to; name the old primary's region"),
        ));
    }
    Ok((group, to, assert_fence))
}

/// The order's word in the table of roles.
pub(super) fn order_word(order: Order) -> &'static str {
    match order {
        Order::Unspecified => "",
        Order::Retry => "retry",
        Order::Skip => "skip",
        Order::Abort => "abort",
        Order::AssertFence => "assert_fence",
        Order::AcceptLoss => "accept_loss",
    }
}

/// The order, and whether it must be confirmed by the group's name.
pub(super) fn order(ask: &OrderRunRequest) -> Result<(RunId, RunOrder, bool), Status> {
    let run = RunId::from(name("run_id", &ask.run_id)?);
    let step = || name("step", &ask.step).map(StepId::from);
    let order = match ask.order() {
        Order::Unspecified => {
            let known = "retry, skip, abort, assert_fence or accept_loss";
            return Err(invalid("order", format!("{} is none of {known}", ask.order)));
        }
        Order::Retry => RunOrder::Retry { step: step()? },
        Order::Skip => RunOrder::Skip { step: step()? },
        Order::Abort => RunOrder::Abort,
        Order::AssertFence => RunOrder::AssertFence { region: RegionName::from(name("region", &ask.region)?) },
        Order::AcceptLoss => RunOrder::AcceptLoss,
    };
    let is_retry = matches!(order, RunOrder::Retry { .. });
    Ok((run, order, !is_retry))
}

/// A limit with its default and ceiling.
pub(super) fn limit(asked: u32, default: usize, max: usize) -> Result<usize, Status> {
    match usize::try_from(asked).unwrap_or(usize::MAX) {
        0 => Ok(default),
        n if n <= max => Ok(n),
        n => Err(invalid("limit", format!("{n} is more than {max}; ask for pages"))),
    }
}
