//! Mode `lease`: who holds what until when.

use super::text::{Page, Span, bad, dim, good, warn};
use super::when::{ago, between, span, time_of_day};
use crate::proto::{GroupStatus, HoldStatus, LeaseAsked, LeaseGrant};

/// Longer evidence is cut.
const DETAIL: usize = 90;

/// Below the group's head, under the label `lease`.
pub(super) fn part(page: &mut Page, group: &GroupStatus, now_ms: i64) {
    super::status_page::labelled_rows(page, "lease", rows(group, now_ms));
}

/// Each with its word at the left.
fn rows(group: &GroupStatus, now_ms: i64) -> Vec<(&'static str, Span)> {
    let mut rows = vec![bound(group, now_ms)];
    let Some(status) = &group.lease_status else { return rows };
    if let Some(asked) = &status.asked {
        rows.push(("gate", gate(asked, now_ms)));
    }
    rows.push(("grant", grant(status.grant.as_ref(), status.asked.as_ref(), now_ms)));
    let holds = status.asked.iter().flat_map(|asked| &asked.holds);
    rows.extend(holds.map(|held| ("hold", hold(held, now_ms))));
    let silent = group
        .lease
        .iter()
        .flat_map(|lease| &lease.holders)
        .filter(|holder| !status.asked.iter().flat_map(|asked| &asked.holds).any(|hold| &hold.host == *holder));
    rows.extend(
        silent
            .map(|host| ("hold", warn(format!("none by {host} now: without a leader nothing would renew the lease")))),
    );
    rows
}

fn bound(group: &GroupStatus, now_ms: i64) -> (&'static str, Span) {
    match &group.lease {
        Some(lease) => {
            let (ttl, since) = (span(lease.ttl_ms), ago(lease.since_ms, now_ms));
            (
                "bound",
                good(format!("{} falls silent by itself {ttl} after its last renewal; bound {since}", lease.host)),
            )
        }
        None => {
            let why =
                group.lease_status.as_ref().map_or("the leader did not say why", |status| &status.unbound_because);
            ("unbound", bad(format!("its silence would prove nothing, its guard must confirm: {why}")))
        }
    }
}

fn gate(asked: &LeaseAsked, now_ms: i64) -> Span {
    let detail = if asked.gate_detail.is_empty() { String::new() } else { format!(" ({})", short(&asked.gate_detail)) };
    match (asked.gate.as_str(), asked.gate_until_ms) {
        ("bounded", Some(until)) if until > now_ms => good(format!("open until {}{detail}", time_of_day(until))),
        ("bounded", Some(until)) => bad(format!("shut since {}: its clients wait{detail}", time_of_day(until))),
        ("bounded", None) => bad(format!("shut: its clients wait{detail}")),
        ("open-ended", _) => warn("stands open: nothing counts on it"),
        (word, _) => bad(format!("{word}{detail}")),
    }
}

/// The whole evidence is in the JSON.
fn short(detail: &str) -> String {
    if detail.chars().count() <= DETAIL {
        return detail.to_owned();
    }
    detail.chars().take(DETAIL - 1).chain(['…']).collect()
}

fn grant(last: Option<&LeaseGrant>, asked: Option<&LeaseAsked>, now_ms: i64) -> Span {
    let refused = asked.filter(|asked| asked.answer != "granted").map(|asked| {
        let at = time_of_day(asked.at_ms);
        format!("{} was told \"{}\" at {at}: {}", asked.host, asked.answer, asked.why)
    });
    match (last, refused) {
        (_, Some(refused)) => warn(refused),
        (Some(last), None) => {
            let (node, at, until) = (&last.node, time_of_day(last.at_ms), time_of_day(last.until_ms));
            let text = format!("by {node} at {at}, until {until} at most");
            if last.until_ms > now_ms { good(text) } else { warn(text) }
        }
        (None, None) => warn("none by this leader yet"),
    }
}

fn hold(hold: &HoldStatus, now_ms: i64) -> Span {
    let HoldStatus { host, until_ms, ground } = hold;
    if between(now_ms, *until_ms) == 0 {
        return dim(format!("by {host} until {}, over: not renewed since", time_of_day(*until_ms)));
    }
    good(format!("by {host} until {}: it is not promoted before (ground {ground})", time_of_day(*until_ms)))
}

/// The same lines as plain text.
pub fn in_words(group: &GroupStatus, now_ms: i64) -> Vec<String> {
    rows(group, now_ms).into_iter().map(|(word, line)| format!("{word:<7}  {}", line.into_text())).collect()
}
