//! What `watchdogctl drill` prints.

use super::text::{Page, Span, bad, bold, dim, good, warn};
use super::when::{ago, between, bytes, span, stamp, time_of_day};
use crate::proto::{Drill, DrillKind, DrillMonth, DrillState, DrillSummary, ListDrillsResponse, Word};

/// A drill that was begun.
pub fn begun(drill: Option<&Drill>) -> Page {
    let mut page = Page::default();
    let Some(summary) = drill.and_then(|drill| drill.summary.as_ref()) else { return page };
    page.line([good("begun "), bold(&summary.id)]);
    page.line([dim(format!("watchdogctl drill show {}", summary.id))]);
    page
}

/// One drill.
pub fn page(drill: Option<&Drill>) -> Page {
    let mut page = Page::default();
    let Some((drill, summary)) = drill.and_then(|drill| Some((drill, drill.summary.as_ref()?))) else { return page };
    let by = if summary.schedule.is_empty() { &summary.by } else { &summary.schedule };
    page.line([
        bold(&summary.group),
        format!("   {} drill from {} to {}: ", kind(summary), summary.from_region, summary.to_region).into(),
        state(summary),
    ]);
    page.line([dim(format!("{}   {}, by {by}: {}", summary.id, stamp(summary.opened_at_ms), summary.reason))]);
    if !summary.why.is_empty() {
        page.line([bad(&summary.why)]);
    }
    page.gap();
    page.table(2, vec![vec![dim("recovery time"), recovery(summary)], vec![dim("data loss"), loss(summary)]]);
    for run in &drill.runs {
        page.gap();
        let outcome = if run.outcome.is_empty() { "open" } else { &run.outcome };
        page.line([
            bold(&run.kind),
            format!("   {} → {}   {outcome}   ", run.from_region, run.to_region).into(),
            dim(&run.run_id),
        ]);
        let rows = run.spans.iter().map(|it| vec![dim(&it.name), span(between(it.from_ms, it.until_ms)).into()]);
        page.table(2, rows.collect());
    }
    page.gap();
    page.line([dim("findings")]);
    let found = drill.findings.iter().map(|finding| {
        let word = match finding.found.as_str() {
            "ok" => good("ok"),
            "bad" => bad("BAD"),
            other => warn(other),
        };
        vec![dim(&finding.phase), finding.what.as_str().into(), word, finding.detail.as_str().into()]
    });
    page.table(2, found.collect());
    page.gap();
    page.line([dim("timeline")]);
    let rows = drill
        .events
        .iter()
        .map(|event| vec![dim(time_of_day(event.at_ms)), dim(&event.phase), event.what.as_str().into()]);
    page.table(2, rows.collect());
    if !drill.lessons.is_empty() {
        page.gap();
        page.line([dim("lessons")]);
        let rows = drill.lessons.iter().map(|lesson| vec![Span::from(lesson.text.as_str()), dim(&lesson.by)]);
        page.table(2, rows.collect());
    }
    page
}

/// Schedules, drills, months.
pub fn list(answer: &ListDrillsResponse) -> Page {
    let mut page = Page::default();
    let now_ms = answer.standing.as_ref().map(|standing| standing.at_ms).unwrap_or_default();
    if !answer.schedules.is_empty() {
        page.line([dim("due")]);
        let rows = answer.schedules.iter().map(|it| {
            let next = it
                .next_ms
                .map_or_else(|| dim("not known yet"), |at| Span::from(format!("{} ({})", stamp(at), ago(at, now_ms))));
            let kind = DrillKind::word(it.kind);
            let cron = format!("{} {}", it.cron, it.time_zone);
            vec![bold(&it.group), it.name.as_str().into(), kind.into(), next, dim(cron)]
        });
        page.table(2, rows.collect());
        page.gap();
    }
    if answer.drills.is_empty() {
        page.line([dim("no drill was held yet: watchdogctl drill start GROUP --kind tabletop")]);
        return page;
    }
    page.line([dim("held")]);
    let rows = answer.drills.iter().map(|it| {
        let short: String = it.id.chars().take(13).collect();
        vec![
            dim(short),
            bold(&it.group),
            kind(it).into(),
            state(it),
            dim(stamp(it.opened_at_ms)),
            recovery(it),
            loss(it),
        ]
    });
    page.table(2, rows.collect());
    if !answer.months.is_empty() {
        page.gap();
        page.line([dim("by month: passed of held, skipped; recovery times within the objective; losses of nothing")]);
        page.table(2, answer.months.iter().map(month).collect());
    }
    page
}

fn month(it: &DrillMonth) -> Vec<Span> {
    let held = it.passed + it.failed + it.aborted;
    let passed = format!("{} of {held} passed", it.passed);
    let passed = if it.passed == held { good(passed) } else { bad(passed) };
    let percent = it.success_percent.map_or_else(String::new, |percent| format!("{percent} %"));
    let skipped = if it.skipped == 0 { Span::default() } else { warn(format!("{} skipped", it.skipped)) };
    let recovery = match (it.recovery_mean_ms, it.recovery_worst_ms) {
        (Some(mean), Some(worst)) => format!(
            "{} in the mean, {} at worst; {} of {} in time",
            span(mean),
            span(worst),
            it.recoveries_met,
            it.recoveries
        ),
        _ => "nothing measured".to_owned(),
    };
    let loss = match it.losses {
        0 => String::new(),
        losses => format!("{} of {losses} lost nothing", it.losses_none),
    };
    vec![bold(&it.group), it.month.as_str().into(), passed, dim(percent), skipped, recovery.into(), loss.into()]
}

fn kind(summary: &DrillSummary) -> String {
    DrillKind::word(summary.kind)
}

fn state(summary: &DrillSummary) -> Span {
    match summary.state() {
        DrillState::Passed => good("passed"),
        DrillState::Failed => bad("FAILED"),
        DrillState::Aborted => warn("aborted"),
        DrillState::Open | DrillState::Unspecified => warn(format!("open, {}", summary.phase)),
    }
}

fn recovery(summary: &DrillSummary) -> Span {
    let objective = span(summary.rto_objective_ms);
    match (summary.recovery_ms, summary.expected_recovery_ms) {
        (Some(ms), _) if ms <= summary.rto_objective_ms => good(format!("{} of {objective}", span(ms))),
        (Some(ms), _) => bad(format!("{}, the objective is {objective}", span(ms))),
        (None, Some(ms)) => dim(format!("about {} expected of {objective}", span(ms))),
        (None, None) => dim("not measured"),
    }
}

fn loss(summary: &DrillSummary) -> Span {
    match (summary.rows_lost, summary.bytes_lost) {
        (None, None) => dim("not measured"),
        (rows, Some(0)) if rows.unwrap_or(0) == 0 => good("nothing lost"),
        (Some(0), None) => good("no row lost"),
        (rows, lost) => {
            let rows = rows.map_or_else(|| "rows not counted".to_owned(), |rows| format!("{rows} rows"));
            let lost = lost.map_or_else(String::new, |lost| format!(", {}", bytes(lost)));
            bad(format!("{rows}{lost} lost"))
        }
    }
}
