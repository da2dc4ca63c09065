//! Runs: one in full, the open one within a status, and the list.

use super::status_page::{LABEL, labelled};
use super::text::{Page, Span, Style, bad, bold, dim, good, warn};
use super::when::{ago, between, span, stamp, time_of_day};
use crate::proto::{
    Chapter, ChapterKind, ChapterProgress, GetRunResponse, ListRunsResponse, Run, RunEvent, RunKind, RunPhase,
    RunSummary, StepPhase, StepStatus, Word,
};

/// The last part of a UUIDv7 tells runs apart, the first 8 characters only their minute: 13 do both well enough.
pub fn short(id: &str) -> &str {
    id.get(..13).unwrap_or(id)
}

/// `run show`.
pub fn page(answer: &GetRunResponse) -> Page {
    let mut page = Page::default();
    let Some(run) = &answer.run else { return page };
    let now_ms = answer.standing.as_ref().map(|standing| standing.at_ms).unwrap_or_default();
    let summary = run.summary.clone().unwrap_or_default();
    page.line([bold("run "), bold(&summary.id)]);
    page.line([dim("  "), phase(&summary), Span::from(format!("   {}", what(&summary)))]);
    page.gap();
    page.table(2, facts(run, &summary, now_ms));
    if run.stuck.is_some() || run.abort.is_some() || run.turned_back.is_some() {
        page.gap();
    }
    trouble(&mut page, run, now_ms);
    if !run.chapters.is_empty() {
        page.gap();
        page.line([dim("procedure")]);
        page.table(2, run.chapters.iter().map(chapter_row).collect());
    }
    page.gap();
    page.line([dim("steps")]);
    page.table(2, run.steps.iter().map(|step| step_row(step, "")).collect());
    if !run.events.is_empty() {
        page.gap();
        page.line([dim("timeline")]);
        let zero = run.fault_at_ms.unwrap_or(summary.opened_at_ms);
        page.table(2, run.events.iter().map(|event| event_row(event, zero)).collect());
    }
    page
}

/// One part of the procedure.
fn chapter_row(chapter: &Chapter) -> Vec<Span> {
    let (mark, style) = match chapter.progress() {
        ChapterProgress::Done => (good("✓"), Style::Plain),
        ChapterProgress::Going => (bold("●"), Style::Plain),
        ChapterProgress::Amiss => (bad("✗"), Style::Plain),
        ChapterProgress::Ahead => (dim("○"), Style::Dim),
        _ => (dim("–"), Style::Dim),
    };
    let took = match (chapter.from_ms, chapter.until_ms) {
        (Some(from), Some(until)) => span(between(from, until)),
        _ => String::new(),
    };
    vec![
        mark,
        Span::new(ChapterKind::word(chapter.kind), style),
        dim(chapter.from_ms.map_or_else(String::new, time_of_day)),
        Span::from(took),
        Span::new(chapter.detail.as_str(), style),
    ]
}

fn what(run: &RunSummary) -> String {
    let drill = if run.drill { "drill: " } else { "" };
    let place = match run.from_region == run.to_region {
        true => format!("in {}", run.to_region),
        false => format!("from {} to {}", run.from_region, run.to_region),
    };
    format!("{drill}{} of {} {place}", RunKind::word(run.kind), run.group)
}

fn phase(run: &RunSummary) -> Span {
    let word = RunPhase::word(run.phase);
    match run.phase() {
        RunPhase::Succeeded => good(word),
        RunPhase::Stuck => bad(word),
        RunPhase::Open => Span::new(word, Style::Bold),
        _ => warn(word),
    }
}

fn facts(run: &Run, summary: &RunSummary, now_ms: i64) -> Vec<Vec<Span>> {
    let mut rows = Vec::new();
    let mut add = |label: &str, text: String| rows.push(vec![dim(label), Span::from(text)]);
    let how = if summary.automatic { ", automatic" } else { "" };
    let opened = summary.opened_at_ms;
    add("opened", format!("{} ({}) by {}{how}", stamp(opened), ago(opened, now_ms), summary.by));
    add("because", summary.reason.clone());
    for (n, line) in run.evidence.iter().enumerate() {
        add(if n == 0 { "evidence" } else { "" }, line.clone());
    }
    if let Some(fault) = run.fault_at_ms {
        add("fault seen", format!("{}, {} before it opened", stamp(fault), span(between(fault, opened))));
    }
    let loss = run.expected_loss_ms.map_or_else(|| "not known when it opened".to_owned(), span);
    add("expected loss", loss);
    for (label, word) in [("fence asserted", &run.fence_assertion), ("loss accepted", &run.loss_acceptance)] {
        if let Some(word) = word {
            add(label, format!("by {} at {}: {}", word.by, stamp(word.at_ms), word.reason));
        }
    }
    for (n, claim) in run.claims.iter().enumerate() {
        let label = if n == 0 { "claims" } else { "" };
        add(label, format!("token {} by {} at {}", claim.token, claim.node, time_of_day(claim.at_ms)));
    }
    if let Some(closed) = summary.closed_at_ms {
        add(
            "closed",
            format!("{} ({}), {} after it opened", stamp(closed), ago(closed, now_ms), span(between(opened, closed))),
        );
    }
    if let Some(recovery) = summary.recovery_time_ms {
        add("recovery time", span(recovery));
    }
    rows
}

/// What keeps it, and what to type.
fn trouble(page: &mut Page, run: &Run, now_ms: i64) {
    if let Some(stuck) = &run.stuck {
        let since = span(between(stuck.since_ms, now_ms));
        let mut lines = vec![bad(format!("at {} for {since}: {}", stuck.step, stuck.reason))];
        for way in &stuck.ways {
            lines.push(dim(format!("→ {}:", way.meaning)));
            lines.push(Span::from(format!("    {}", way.command)));
        }
        labelled(page, "stuck", lines);
    }
    if let Some(back) = &run.turned_back {
        let text = format!("{}: {}", ago(back.at_ms, now_ms), back.reason);
        labelled(page, "went back", vec![warn(text)]);
    }
    if let Some(abort) = &run.abort {
        let text = format!("ordered by {} {}: {}", abort.by, ago(abort.at_ms, now_ms), abort.reason);
        labelled(page, "aborting", vec![warn(text)]);
    }
}

/// The open run within a status.
pub fn in_status(page: &mut Page, run: &Run, now_ms: i64) {
    let summary = run.summary.clone().unwrap_or_default();
    let opened = format!(
        "   {} to {}, opened {} by {}   ",
        RunKind::word(summary.kind),
        summary.to_region,
        ago(summary.opened_at_ms, now_ms),
        summary.by
    );
    page.line([dim(format!("  {:<LABEL$}", "run")), phase(&summary), Span::from(opened), dim(&summary.id)]);
    labelled(page, "", vec![Span::from(format!("because {}", summary.reason))]);
    page.table(LABEL + 2, run.steps.iter().map(|step| step_row(step, "")).collect());
    trouble(page, run, now_ms);
}

/// One step in a table. `spinner` stands for a started one's mark.
pub fn step_row(step: &StepStatus, spinner: &str) -> Vec<Span> {
    let word = StepPhase::word(step.phase);
    let (mark, word) = match step.phase() {
        StepPhase::Done => (good("✓"), good(word)),
        StepPhase::Started if !spinner.is_empty() => (bold(spinner), bold(word)),
        StepPhase::Started => (bold("●"), bold(word)),
        StepPhase::Failed => (bad("✗"), bad(word)),
        StepPhase::Unknown => (warn("?"), warn(word)),
        StepPhase::Skipped => (warn("»"), warn(word)),
        _ => (dim("○"), dim(word)),
    };
    let tries = match step.attempts {
        0 => String::new(),
        1 => "1 try".to_owned(),
        n => format!("{n} tries"),
    };
    let took = match (step.first_started_at_ms, step.finished_at_ms) {
        (Some(start), Some(end)) => span(between(start, end)),
        _ => String::new(),
    };
    vec![
        dim(step.stage.to_string()),
        mark,
        Span::from(step.id.as_str()),
        dim(&step.resource),
        word,
        dim(tries),
        Span::from(took),
        Span::from(step.detail.as_str()),
    ]
}

/// One line of the timeline, with the time since `zero_ms`.
pub fn event_row(event: &RunEvent, zero_ms: i64) -> Vec<Span> {
    let since = between(zero_ms, event.at_ms);
    vec![
        dim(time_of_day(event.at_ms)),
        dim(format!("+{}.{:03}", since / 1_000, since % 1_000)),
        dim(&event.node),
        dim(&event.token),
        bold(&event.step),
        Span::from(event.what.as_str()),
    ]
}

/// From where to where; what is recovered stays in its region.
pub(super) fn moved(run: &RunSummary) -> String {
    match run.from_region == run.to_region {
        true => format!("in {}", run.to_region),
        false => format!("{} → {}", run.from_region, run.to_region),
    }
}

/// `run list`.
pub fn list(answer: &ListRunsResponse) -> Page {
    let mut page = Page::default();
    if answer.runs.is_empty() {
        page.line([dim("no runs")]);
        return page;
    }
    let head = ["run", "group", "kind", "moved", "phase", "opened", "recovery", "by"];
    let mut rows = vec![head.into_iter().map(dim).collect()];
    for run in &answer.runs {
        let drill = if run.drill { " (drill)" } else { "" };
        rows.push(vec![
            Span::from(run.id.as_str()),
            bold(&run.group),
            Span::from(format!("{}{drill}", RunKind::word(run.kind))),
            Span::from(moved(run)),
            phase(run),
            dim(stamp(run.opened_at_ms)),
            Span::from(run.recovery_time_ms.map_or_else(|| "–".to_owned(), span)),
            dim(&run.by),
        ]);
    }
    page.table(0, rows);
    if answer.more {
        page.line([dim("there are older ones: --limit")]);
    }
    page
}
