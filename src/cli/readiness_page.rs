//! `watchdogctl readiness`: what would become of a group, or of each, if its serving region vanished now.

use super::readiness::Overview;
use super::text::{Page, Span, bad, bold, dim, good, warn};
use super::when::{ago, span};
use crate::proto::{GetReadinessResponse, PastRecovery, ReadinessItem, ReadinessMark, ReadinessState};

/// The page.
pub fn page(answer: &GetReadinessResponse) -> Page {
    let mut page = Page::default();
    let GetReadinessResponse { group, from_region, to_region, .. } = answer;
    let is_weak = answer.items.iter().any(|item| item.state() == ReadinessState::Weak);
    let unknown = answer.items.iter().any(|item| item.state() == ReadinessState::Unknown);
    let by_itself = answer.expected_recovery_ms.is_some() || answer.remembered.is_some();
    let verdict = match (answer.ready, is_weak) {
        (true, _) if !by_itself => warn(format!("{to_region} would take over after a person's word")),
        (true, false) => good(format!("{to_region} would take over by itself")),
        (true, true) if answer.remembered.is_some() => {
            warn(format!("{to_region} would take over, with the weaknesses below"))
        }
        (true, true) => warn(format!("{to_region} would take over by itself, with the weaknesses below")),
        (false, _) if unknown && answer.items.iter().all(|item| item.state() != ReadinessState::No) => {
            bad("whether anybody would take over is not known")
        }
        (false, _) => bad("nobody would take over by itself"),
    };
    page.line([bold(group), "   if ".into(), bold(from_region), " vanished now: ".into(), verdict]);
    if let Some(mark) = &answer.remembered {
        let now_ms = answer.standing.as_ref().map(|standing| standing.at_ms).unwrap_or_default();
        let moved = if mark.is_of_earlier_epoch { "; the group has moved since" } else { "" };
        let text =
            format!("not judged now: no leader. As last judged, unchanged since {}", ago(mark.changed_at_ms, now_ms));
        page.line([warn("! "), warn(text + moved)]);
    }
    page.gap();
    page.table(2, answer.items.iter().map(row).collect());
    if answer.remembered.is_some() {
        return page;
    }
    page.gap();
    let mut rows = vec![recovery(answer)];
    rows.extend(answer.recovery.iter().map(|line| vec![Span::default(), dim(line)]));
    rows.extend(answer.past.as_ref().map(past));
    rows.push(loss(answer));
    page.table(2, rows);
    page
}

fn past(past: &PastRecovery) -> Vec<Span> {
    let runs = if past.runs == 1 { "1 failover".to_owned() } else { format!("{} failovers", past.runs) };
    let text =
        format!("{} in the middle, {} at worst, of {runs} that succeeded", span(past.median_ms), span(past.worst_ms));
    vec![dim("so far"), dim(text)]
}

/// Every group in a line.
pub fn overview(overview: &Overview) -> Page {
    let mut page = Page::default();
    let now_ms = overview.standing.as_ref().map(|standing| standing.at_ms).unwrap_or_default();
    let rows = overview.groups.iter().map(|row| {
        let from = row.readiness.as_ref().map_or(row.serving_region.as_str(), |mark| mark.from_region.as_str());
        vec![bold(&row.group), dim(format!("if {from} vanished")), in_a_line(row.readiness.as_ref(), now_ms)]
    });
    page.table(0, rows.collect());
    if overview.groups.is_empty() {
        page.line([dim("no groups: no configuration was adopted yet, or its file names none")]);
    }
    page
}

/// What is remembered, in a line.
pub(super) fn in_a_line(mark: Option<&ReadinessMark>, now_ms: i64) -> Span {
    let Some(mark) = mark else { return dim("not judged yet") };
    let since = ago(mark.since_ms, now_ms);
    match mark.verdict() {
        _ if mark.is_of_earlier_epoch => warn("not judged yet since the group moved"),
        ReadinessState::Yes => good(format!("ready, since {since}")),
        ReadinessState::Weak => warn(format!("ready since {since}, but weak: {}", mark.why)),
        ReadinessState::No => bad(format!("NOT READY since {since}: {}", mark.why)),
        ReadinessState::Unknown | ReadinessState::Unspecified => bad(format!("unknown since {since}: {}", mark.why)),
    }
}

fn row(item: &ReadinessItem) -> Vec<Span> {
    let (mark, style): (Span, fn(&str) -> Span) = match item.state() {
        ReadinessState::Yes => (good("yes"), |text| text.into()),
        ReadinessState::Weak => (warn("weak"), |text| warn(text)),
        ReadinessState::Unknown => (bad("unknown"), |text| bad(text)),
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
