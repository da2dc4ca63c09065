//! Past runs: recovery times against objectives as a plot, and the same as a table, which says it to everybody.

use super::drills::against;
use super::html::Html;
use super::parts::sign;
use super::words::Words;
use super::{Picture, end_table, moment, run, scrolled, table};
use crate::api::when::span;
use crate::proto::RunSummary;

/// So many runs at most, the newest.
const RUNS_MAX: usize = 30;
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 70.0;
const BASE: f64 = 190.0;
const TOP: f64 = 15.0;

pub(super) fn past(picture: &Picture, words: &Words) -> Html {
    let mut html = Html::default();
    html.el("h2", "", words.past);
    let runs: Vec<&RunSummary> = picture.runs.iter().take(RUNS_MAX).collect();
    if runs.is_empty() {
        html.el("p", "dim", words.no_past);
        return html;
    }
    for (group, objective) in &picture.objectives {
        let mut timed: Vec<(&RunSummary, u64)> = runs
            .iter()
            .filter(|run| &run.group == group)
            .filter_map(|run| Some((*run, run.recovery_time_ms?)))
            .collect();
        timed.reverse();
        if !timed.is_empty() {
            html.el("h3", "", group);
            plot(&mut html, &timed, *objective, words);
        }
    }
    let columns = [words.ended, words.group, words.kind, words.state, words.recovery_time, words.why];
    table(&mut html, words.past, columns);
    for one in &runs {
        row(&mut html, one, picture, words);
    }
    end_table(&mut html);
    html
}

fn row(html: &mut Html, one: &RunSummary, picture: &Picture, words: &Words) {
    html.raw("<tr><td>");
    moment(html, one.closed_at_ms.unwrap_or(one.opened_at_ms));
    html.raw("</td><td>").text(&one.group).raw("</td><th scope=\"row\">").text(run::kind(one.kind(), words));
    if one.drill {
        html.text(format!(" ({})", words.drill));
    }
    html.el("small", "", format!("{} → {}", one.from_region, one.to_region)).raw("</th><td>");
    let (class, word) = run::phase(one.phase(), words);
    sign(html, class, word);
    html.raw("</td><td>");
    if let Some(ms) = one.recovery_time_ms {
        html.text(span(ms));
        if let Some(goal) = picture.objectives.get(&one.group) {
            against(html, ms <= *goal, *goal, words);
        }
    }
    html.raw("</td><td>").text(&one.reason).el("small", "", format!("{} {}", words.by, one.by)).raw("</td></tr>");
}

/// By the logarithm: a failover takes a second, and its objective is an hour.
fn height_of(ms: u64, low: f64, high: f64) -> f64 {
    let share = ((log(ms) - low) / (high - low)).clamp(0.0, 1.0);
    BASE - share * (BASE - TOP)
}

#[expect(clippy::cast_precision_loss, reason = "a place on paper")]
fn log(ms: u64) -> f64 {
    (ms.max(1) as f64).log10()
}

#[expect(clippy::cast_precision_loss, reason = "a place on paper, of at most 30")]
fn plot(html: &mut Html, timed: &[(&RunSummary, u64)], objective: u64, words: &Words) {
    let all = || timed.iter().map(|(_, ms)| *ms).chain([objective.max(1)]);
    let low = all().map(log).fold(f64::MAX, f64::min).floor();
    let high = all().map(log).fold(0.0, f64::max).ceil().max(low + 1.0);
    scrolled(html, words.recovery_times);
    html.raw("<svg role=\"img\"").attr("viewBox", format!("0 0 {WIDTH} {HEIGHT}"));
    html.attr("aria-label", words.recovery_times).raw("><title>").text(words.recovery_times).raw("</title>");
    let mut exponent = low;
    while exponent <= high {
        let (y, ms) = (BASE - (exponent - low) / (high - low) * (BASE - TOP), 10f64.powf(exponent));
        html.raw("<line class=\"axis\"").attr("x1", LEFT).attr("x2", WIDTH).attr("y1", format!("{y:.1}"));
        html.attr("y2", format!("{y:.1}")).raw("/><text text-anchor=\"end\"").attr("x", LEFT - 6.0);
        html.attr("y", format!("{:.1}", y + 4.0)).raw(">").text(decade(ms)).raw("</text>");
        exponent += 1.0;
    }
    let y = height_of(objective, low, high);
    html.raw("<line class=\"goal\"").attr("x1", LEFT).attr("x2", WIDTH).attr("y1", format!("{y:.1}"));
    html.attr("y2", format!("{y:.1}")).raw("/><text text-anchor=\"end\"").attr("x", WIDTH);
    html.attr("y", format!("{:.1}", if y < TOP + 16.0 { y + 14.0 } else { y - 5.0 })).raw(">");
    html.text(format!("{}: {}", words.objective, span(objective))).raw("</text>");
    let apart = (WIDTH - LEFT - 60.0) / timed.len().max(1) as f64;
    for (n, (one, ms)) in timed.iter().enumerate() {
        let (x, y) = (LEFT + 30.0 + apart * n as f64, height_of(*ms, low, high));
        let class = if *ms <= objective { "dot" } else { "dot-bad" };
        // Drills are squares, the real ones are round.
        if one.drill {
            html.raw("<rect width=\"12\" height=\"12\"").attr("class", class).attr("x", format!("{:.1}", x - 6.0));
            html.attr("y", format!("{:.1}", y - 6.0)).raw(">");
        } else {
            html.raw("<circle r=\"6\"").attr("class", class).attr("cx", format!("{x:.1}"));
            html.attr("cy", format!("{y:.1}")).raw(">");
        }
        let what = if one.drill { words.drill } else { words.real_run };
        html.raw("<title>").text(format!("{what} {}: {}", one.id, span(*ms))).raw("</title>");
        html.raw(if one.drill { "</rect>" } else { "</circle>" });
        if timed.len() <= 12 {
            html.raw("<text").attr("x", format!("{:.1}", x + 10.0)).attr("y", format!("{:.1}", y + 4.0)).raw(">");
            html.text(span(*ms)).raw("</text>");
        }
    }
    html.raw("<text").attr("x", LEFT).attr("y", HEIGHT - 8.0).raw(">");
    html.text(format!("● {}   ■ {}", words.real_run, words.drill)).raw("</text></svg></div>");
}

fn decade(ms: f64) -> String {
    match ms {
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.0} s", ms / 1000.0),
    }
}
