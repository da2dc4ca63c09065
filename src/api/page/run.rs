//! The open run as a timeline: bars over time, the steps as a table, and every line that was entered.

use super::html::Html;
use super::parts::sign;
use super::words::Words;
use super::{end_table, moment, scrolled, table};
use crate::api::when::{between, span};
use crate::proto::{ChapterKind, ChapterProgress, Run, RunKind, RunPhase, StepPhase, StepStatus};

/// Lines of the timeline, the newest.
const EVENTS_MAX: usize = 60;
/// Width of the drawing and of the names at its left.
const WIDTH: u64 = 900;
const LEFT: u64 = 190;
const ROW: u64 = 26;
/// Room for a bar's words.
const RIGHT: u64 = 95;

pub(super) fn kind(kind: RunKind, words: &Words) -> &'static str {
    match kind {
        RunKind::Failover => words.failover,
        RunKind::Switchover => words.switchover,
        RunKind::Failback => words.failback,
        RunKind::Traffic => words.traffic_run,
        RunKind::Recovery => words.recovery,
        RunKind::Unspecified => words.unknown,
    }
}

/// A phase's word and colour.
pub(super) fn phase(phase: RunPhase, words: &Words) -> (&'static str, &'static str) {
    match phase {
        RunPhase::Open => ("warn", words.phase_open),
        RunPhase::Stuck => ("bad", words.phase_stuck),
        RunPhase::Aborting => ("bad", words.phase_aborting),
        RunPhase::Reverting => ("warn", words.phase_reverting),
        RunPhase::Reverted => ("warn", words.phase_reverted),
        RunPhase::Succeeded => ("good", words.phase_succeeded),
        RunPhase::Withdrawn => ("", words.phase_withdrawn),
        RunPhase::Aborted => ("bad", words.phase_aborted),
        RunPhase::Unspecified => ("warn", words.unknown),
    }
}

fn step_phase(phase: StepPhase, words: &Words) -> (&'static str, &'static str) {
    match phase {
        StepPhase::Pending => ("", words.pending),
        StepPhase::Started => ("warn", words.started),
        StepPhase::Done => ("good", words.done),
        StepPhase::Failed => ("bad", words.failed),
        StepPhase::Unknown => ("bad", words.step_unknown),
        StepPhase::Skipped => ("warn", words.skipped),
        StepPhase::Unspecified => ("warn", words.unknown),
    }
}

pub(super) fn open(html: &mut Html, run: &Run, now_ms: i64, words: &Words) {
    let about = run.summary.clone().unwrap_or_default();
    html.el("h3", "", words.open_run).open("p", "");
    let (class, word) = phase(about.phase(), words);
    sign(html, class, word);
    let drill = if about.drill { format!(" ({})", words.drill) } else { String::new() };
    html.text(format!(
        " · {}{drill} {} {} {} {} · {} ",
        kind(about.kind(), words),
        words.from,
        about.from_region,
        words.to,
        about.to_region,
        words.opened
    ));
    moment(html, about.opened_at_ms);
    html.text(format!(" {} {}: {} · ", words.by, about.by, about.reason)).el("code", "", &about.id).close("p");
    if let Some(stuck) = &run.stuck {
        html.raw("<div class=\"alarm\"><p>");
        sign(html, "bad", words.stuck);
        html.text(format!(": {}: {} ({} ", stuck.step, stuck.reason, words.since));
        moment(html, stuck.since_ms);
        html.raw(")</p>").el("p", "", words.what_to_do).raw("<ul>");
        for way in &stuck.ways {
            html.raw("<li>").text(&way.meaning).raw("<br>").el("code", "", &way.command).raw("</li>");
        }
        html.raw("</ul></div>");
    }
    chapters(html, run, words);
    drawing(html, run, now_ms, words);
    steps(html, run, now_ms, words);
    html.raw("<details><summary>").text(words.timeline).raw("</summary>");
    table(html, words.timeline, [words.when, words.node, words.step, words.what]);
    let hidden = run.events.len().saturating_sub(EVENTS_MAX);
    for event in run.events.iter().skip(hidden) {
        html.raw("<tr><td>");
        moment(html, event.at_ms);
        html.raw("</td><td>").text(&event.node).raw("</td><td>").text(&event.step).raw("</td><td>");
        html.text(&event.what).raw("</td></tr>");
    }
    end_table(html);
    html.raw("</details>");
}

/// The record in the order of the procedure.
fn chapters(html: &mut Html, run: &Run, words: &Words) {
    table(html, words.procedure, [words.procedure, words.state, words.began, words.took, words.detail]);
    for chapter in &run.chapters {
        let (class, word) = match chapter.progress() {
            ChapterProgress::Done => ("good", words.done),
            ChapterProgress::Going => ("warn", words.started),
            ChapterProgress::Amiss => ("bad", words.amiss),
            ChapterProgress::Ahead => ("", words.pending),
            ChapterProgress::None | ChapterProgress::Unspecified => ("", "–"),
        };
        html.raw("<tr><th scope=\"row\">").text(chapter_word(chapter.kind(), words)).raw("</th><td>");
        sign(html, class, word);
        html.raw("</td><td>");
        if let Some(from) = chapter.from_ms {
            moment(html, from);
        }
        html.raw("</td><td>");
        if let (Some(from), Some(until)) = (chapter.from_ms, chapter.until_ms) {
            html.text(span(between(from, until)));
        }
        html.raw("</td><td>").text(&chapter.detail).raw("</td></tr>");
    }
    end_table(html);
}

fn chapter_word(kind: ChapterKind, words: &Words) -> &'static str {
    match kind {
        ChapterKind::Detect => words.detect,
        ChapterKind::Assess => words.assess,
        ChapterKind::Decide => words.decide,
        ChapterKind::Execute => words.execute,
        ChapterKind::Verify => words.verify,
        ChapterKind::Communicate => words.communicate,
        ChapterKind::Monitor => words.monitor,
        ChapterKind::Failback => words.failback,
        ChapterKind::Unspecified => words.unknown,
    }
}

fn took(step: &StepStatus, now_ms: i64) -> Option<(i64, i64)> {
    let start = step.first_started_at_ms?;
    let is_over = matches!(step.phase(), StepPhase::Done | StepPhase::Skipped);
    Some((start, step.finished_at_ms.filter(|_| is_over).unwrap_or(now_ms).max(start)))
}

fn steps(html: &mut Html, run: &Run, now_ms: i64, words: &Words) {
    let columns = [words.stage, words.step, words.state, words.attempts, words.began, words.took, words.detail];
    table(html, words.step, columns);
    for step in &run.steps {
        html.raw("<tr><td>").text(step.stage).raw("</td><th scope=\"row\">").text(&step.id);
        html.el("small", "", format!("{} {}", step.action, step.resource)).raw("</th><td>");
        let (class, word) = step_phase(step.phase(), words);
        sign(html, class, word);
        html.raw("</td><td>").text(format!("{} / {}", step.attempts, step.max_attempts)).raw("</td><td>");
        if let Some((start, end)) = took(step, now_ms) {
            moment(html, start);
            html.raw("</td><td>").text(span(between(start, end)));
        } else {
            html.raw("</td><td>");
        }
        html.raw("</td><td>").text(&step.detail).raw("</td></tr>");
    }
    end_table(html);
}

fn drawing(html: &mut Html, run: &Run, now_ms: i64, words: &Words) {
    let opened = run.summary.as_ref().map_or(now_ms, |about| about.opened_at_ms);
    let all = between(opened, now_ms).max(1000);
    let place = |at_ms: i64| LEFT + between(opened, at_ms).min(all) * (WIDTH - LEFT - RIGHT) / all;
    let height = run.steps.len() as u64 * ROW + 30;
    scrolled(html, words.timeline_of);
    html.raw("<svg role=\"img\"").attr("viewBox", format!("0 0 {WIDTH} {height}"));
    html.attr("aria-label", words.timeline_of).raw("><title>").text(words.timeline_of).raw("</title>");
    for (n, step) in (0..).zip(&run.steps) {
        let y = n * ROW;
        html.raw("<text x=\"0\"").attr("y", y + 17).raw(">");
        // As much as has room; the table beneath has it all.
        html.text(step.id.chars().take(24).collect::<String>()).raw("</text><line class=\"axis\"").attr("x1", LEFT);
        html.attr("x2", WIDTH - RIGHT).attr("y1", y + 24).attr("y2", y + 24).raw("/>");
        if let Some((start, end)) = took(step, now_ms) {
            let (left, right) = (place(start), place(end));
            let class = if matches!(step.phase(), StepPhase::Failed | StepPhase::Unknown) { "bar-bad" } else { "bar" };
            html.raw("<rect").attr("class", class).attr("x", left).attr("y", y + 5);
            html.attr("width", (right - left).max(3)).raw(" height=\"15\" rx=\"3\"/><text").attr("x", right + 6);
            html.attr("y", y + 17).raw(">").text(span(between(start, end))).raw("</text>");
        }
    }
    let base = height - 8;
    html.raw("<text").attr("x", LEFT).attr("y", base).raw(">0 s</text><text text-anchor=\"end\"");
    html.attr("x", WIDTH - RIGHT).attr("y", base).raw(">").text(span(all)).raw("</text></svg></div>");
}
