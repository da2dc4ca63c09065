//! Drills, beside the past runs: how each came out, and what it reached against the objectives it was held by.

use super::html::Html;
use super::parts::sign;
use super::words::Words;
use super::{Picture, end_table, moment, table};
use crate::api::when::{bytes, span};
use crate::proto::{DrillKind, DrillState, DrillSummary};

pub(super) fn past(picture: &Picture, words: &Words) -> Html {
    let mut html = Html::default();
    html.el("h2", "", words.drills);
    if picture.drills.is_empty() {
        html.el("p", "dim", words.no_drills);
        return html;
    }
    let columns =
        [words.ended, words.group, words.kind, words.outcome, words.recovery_time, words.lost_in_it, words.why];
    table(&mut html, words.drills, columns);
    for one in &picture.drills {
        row(&mut html, one, words);
    }
    end_table(&mut html);
    html
}

fn row(html: &mut Html, one: &DrillSummary, words: &Words) {
    html.raw("<tr><td>");
    match one.closed_at_ms {
        Some(at) => moment(html, at),
        None => drop(html.text(words.drill_open)),
    }
    html.raw("</td><td>").text(&one.group).raw("</td><th scope=\"row\">").text(match one.kind() {
        DrillKind::Tabletop => words.tabletop,
        DrillKind::Simulated => words.simulated,
        DrillKind::Live => words.live_drill,
        DrillKind::Unspecified => words.unknown,
    });
    html.el("small", "", format!("{} → {}", one.from_region, one.to_region)).raw("</th><td>");
    let (class, word) = match one.state() {
        DrillState::Open => ("warn", words.phase_open),
        DrillState::Passed => ("good", words.passed),
        DrillState::Failed => ("bad", words.failed),
        DrillState::Aborted => ("warn", words.phase_aborted),
        DrillState::Unspecified => ("", words.unknown),
    };
    sign(html, class, word);
    html.raw("</td><td>");
    if let Some(ms) = one.recovery_ms {
        html.text(span(ms));
        against(html, ms <= one.rto_objective_ms, one.rto_objective_ms, words);
    }
    html.raw("</td><td>");
    lost(html, one, words);
    html.raw("</td><td>").text(&one.reason).el("small", "", format!("{} {}", words.by, one.by));
    if !one.why.is_empty() {
        html.el("small", "", &one.why);
    }
    html.raw("</td></tr>");
}

/// What was counted, which need not be both.
fn lost(html: &mut Html, one: &DrillSummary, words: &Words) {
    if let Some(rows) = one.rows_lost {
        let (class, text) =
            if rows == 0 { ("good", words.no_row_lost.to_owned()) } else { ("bad", rows_of(rows, words)) };
        sign(html, class, &text);
    }
    if let Some(lost) = one.bytes_lost {
        html.el("small", "", bytes(lost));
    }
}

fn rows_of(rows: u64, words: &Words) -> String {
    format!("{rows} {}", words.rows)
}

/// Within the objective, or over it.
pub(super) fn against(html: &mut Html, is_within: bool, objective_ms: u64, words: &Words) {
    html.open("small", "");
    let (class, word) = if is_within { ("good", words.within) } else { ("bad", words.over) };
    sign(html, class, &format!("{word} ({} {})", words.objective, span(objective_ms)));
    html.close("small");
}
