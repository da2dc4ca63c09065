//! `watchdogctl readiness GROUP`: what would become of the group if its serving region vanished now.

use super::text::{Page, Span, bad, bold, dim, good, warn};
use super::when::span;
use crate::proto::{GetReadinessResponse, ReadinessItem, ReadinessState};

/// The page.
pub fn page(answer: &GetReadinessResponse) -> Page {
    let mut page = Page::default();
    let GetReadinessResponse { group, from_region, to_region, .. } = answer;
    let verdict = match (answer.ready, answer.items.iter().any(|item| item.state() == ReadinessState::Weak)) {
        (true, false) => good(format!("{to_region} would take over by itself")),
        (true, true) => warn(format!("{to_region} would take over by itself, with the weaknesses below")),
        (false, _) => bad("nobody would take over by itself"),
    };
    page.line([bold(group), "   if ".into(), bold(from_region), " vanished now: ".into(), verdict]);
    page.gap();
    page.table(2, answer.items.iter().map(row).collect());
    page.gap();
    let mut rows = vec![recovery(answer)];
    rows.extend(answer.recovery.iter().map(|line| vec![Span::default(), dim(line)]));
    rows.push(loss(answer));
    page.table(2, rows);
    page
}

fn row(item: &ReadinessItem) -> Vec<Span> {
    let (mark, style): (Span, fn(&str) -> Span) = match item.state() {
        ReadinessState::Yes => (good("yes"), |text| text.into()),
        ReadinessState::Weak => (warn("weak"), |text| warn(text)),
        ReadinessState::No | ReadinessState::Unspecified => (bad("NO"), |text| bad(text)),
    };
    vec![dim(&item.name), mark, style(&item.detail)]
}

fn recovery(answer: &GetReadinessResponse) -> Vec<Span> {
    let objective = answer.recovery_objective_ms.map(|ms| format!(" (objective {})", span(ms))).unwrap_or_default();
    let found = match answer.expected_recovery_ms {
        Some(ms) if answer.recovery_objective_ms.is_none_or(|objective| ms <= objective) => {
            good(format!("about {}{objective}", span(ms)))
        }
        Some(ms) => bad(format!("about {}{objective}", span(ms))),
        None => bad(format!("none by itself: a person must act{objective}")),
    };
    vec![dim("recovery time"), found]
}

fn loss(answer: &GetReadinessResponse) -> Vec<Span> {
    let limit = span(answer.loss_limit_ms);
    let found = match answer.expected_loss_ms {
        Some(ms) if ms <= answer.loss_limit_ms => good(format!("at most {} of writes (limit {limit})", span(ms))),
        Some(ms) => bad(format!("{} of writes (limit {limit})", span(ms))),
        None => bad(format!("unknown, which exceeds the limit of {limit}")),
    };
    vec![dim("data loss"), found]
}
