//! The report's pictures, as SVG: where the time went, and how past drills of the kind came out. Colours come from the page's
//! style, so that both follow the reader's light or dark.

use std::fmt::Write as _;

use super::html::text;
use super::{Part, outcome, stamp, took};
use crate::domain::drill::Drill;

/// All pictures are as wide.
const WIDTH: u64 = 880;
const LABEL_WIDTH: u64 = 190;
const ROW: u64 = 26;
const BARS_MAX: usize = 12;

/// A bar for each part of each run, on one axis of time a run.
pub(super) fn timeline(parts: &[Part]) -> String {
    let mut out = String::new();
    let mut runs: Vec<&str> = parts.iter().map(|part| part.run.as_str()).collect();
    runs.dedup();
    let rows = parts.len() as u64 + runs.len() as u64;
    let height = rows * ROW + 10;
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"how long each part of each run took\">"
    );
    let mut y = 0;
    for run in runs {
        let of_run: Vec<&Part> = parts.iter().filter(|part| part.run == run).collect();
        let begin = of_run.iter().map(|part| part.from.0).min().unwrap_or(0);
        let end = of_run.iter().map(|part| part.from.0.saturating_add(part.ms)).max().unwrap_or(begin);
        let whole_ms = end.saturating_sub(begin).max(1);
        let _ = write!(
            out,
            "<text class=\"head\" x=\"0\" y=\"{}\">{} · {}</text>",
            y + 18,
            text(run),
            text(&took(whole_ms))
        );
        y += ROW;
        for part in of_run {
            bar(&mut out, part, y, begin, whole_ms);
            y += ROW;
        }
    }
    out.push_str("</svg>");
    out
}

fn bar(out: &mut String, part: &Part, y: u64, begin: u64, whole_ms: u64) {
    let room = WIDTH - LABEL_WIDTH - 90;
    let scaled =
        |ms: u64| u64::try_from(u128::from(ms) * u128::from(room) / u128::from(whole_ms)).unwrap_or(room).min(room);
    let x = LABEL_WIDTH + scaled(part.from.0.saturating_sub(begin));
    let width = scaled(part.ms).max(2);
    let _ = write!(
        out,
        "<text x=\"12\" y=\"{0}\">{1}</text><rect class=\"track\" x=\"{LABEL_WIDTH}\" y=\"{2}\" width=\"{room}\" height=\"14\" rx=\"3\"/>\
         <rect class=\"bar\" x=\"{x}\" y=\"{2}\" width=\"{width}\" height=\"14\" rx=\"3\"><title>{1}: {3}</title></rect>\
         <text class=\"value\" x=\"{WIDTH}\" y=\"{0}\" text-anchor=\"end\">{3}</text>",
        y + 17,
        text(&part.name),
        y + 6,
        text(&took(part.ms)),
    );
}

/// A column for each drill that measured its recovery time, oldest first, with the objective where it is near enough to draw.
pub(super) fn trend(drills: &[&Drill]) -> String {
    let measured: Vec<(&Drill, u64)> =
        drills.iter().filter_map(|drill| Some((*drill, drill.measured.recovery_ms?))).collect();
    let shown = &measured[measured.len().saturating_sub(BARS_MAX)..];
    let Some((newest, _)) = shown.last() else { return String::new() };
    let worst_ms = shown.iter().map(|(_, ms)| *ms).max().unwrap_or(1).max(1);
    let objective_ms = newest.settings.rto_ms;
    let is_near = objective_ms <= worst_ms.saturating_mul(3);
    let top_ms = if is_near { worst_ms.max(objective_ms) } else { worst_ms };
    let (height, base) = (190_u64, 150_u64);
    let rise = |ms: u64| u64::try_from(u128::from(ms) * 120 / u128::from(top_ms)).unwrap_or(120).clamp(2, 120);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"recovery time of past drills\">\
         <line class=\"axis\" x1=\"0\" y1=\"{base}\" x2=\"{WIDTH}\" y2=\"{base}\"/>"
    );
    let step = WIDTH / shown.len().max(4) as u64;
    for (n, (drill, ms)) in shown.iter().enumerate() {
        let (middle, tall) = (step * n as u64 + step / 2, rise(*ms));
        let when: String = stamp(drill, drill.opened_at).chars().take(10).collect();
        let _ = write!(
            out,
            "<rect class=\"col {}\" x=\"{}\" y=\"{}\" width=\"36\" height=\"{tall}\" rx=\"3\"><title>{}: {}, {}</title></rect>\
             <text class=\"value\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            outcome(drill),
            middle.saturating_sub(18),
            base - tall,
            text(&when),
            text(&took(*ms)),
            outcome(drill),
            base - tall - 6,
            text(&took(*ms)),
            base + 20,
            text(&when),
        );
    }
    if is_near {
        let y = base - rise(objective_ms);
        let _ = write!(
            out,
            "<line class=\"limit\" x1=\"0\" y1=\"{y}\" x2=\"{WIDTH}\" y2=\"{y}\"/>\
             <text class=\"limit-word\" x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\">objective {}</text>",
            y.saturating_sub(5).max(12),
            text(&took(objective_ms)),
        );
    }
    out.push_str("</svg>");
    out
}
