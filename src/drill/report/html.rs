//! The report as one HTML file: no script, nothing fetched, its style and pictures inside.

use std::fmt::Write as _;

use super::{Subject, begun_by, beside, not_well, objectives, outcome, parts_beside, picture, stamp, took};
use crate::domain::chapters::Progress;
use crate::domain::drill::Drill;

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1b1f24;--dim:#5b6570;--bg:#fff;--card:#f5f7f9;--line:#d9dfe5;--good:#1a7f45;--bad:#b42318;--warn:#8a5a00;--bar:#2f6fbf}\
@media(prefers-color-scheme:dark){:root{--fg:#e4e9ee;--dim:#9aa6b2;--bg:#14181d;--card:#1d232a;--line:#333c46;--good:#57c98a;--bad:#ff7b6e;--warn:#e2b340;--bar:#6aa5ee}}\
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}\
main{max-width:940px;margin:0 auto;padding:28px 20px 60px}h1{font-size:25px;margin:0 0 2px}h2{font-size:18px;margin:32px 0 10px}\
.dim,.sub{color:var(--dim)}.badge{display:inline-block;padding:1px 11px;border-radius:11px;border:1px solid currentColor;font-size:15px;vertical-align:3px;margin-left:8px}\
.passed,.ok,.yes{color:var(--good)}.failed,.bad,.no{color:var(--bad)}.aborted,.unknown,.open{color:var(--warn)}\
.why{background:var(--card);border-left:3px solid var(--bad);padding:8px 14px;margin:14px 0}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}\
th{color:var(--dim);font-weight:500}td.n{white-space:nowrap;font-variant-numeric:tabular-nums}\
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font-size:12.5px;font-family:inherit}svg .head{fill:var(--fg);font-weight:600}svg .value{fill:var(--fg)}\
.track{fill:var(--card)}.bar{fill:var(--bar)}.axis{stroke:var(--line)}.col.passed{fill:var(--good)}.col.failed{fill:var(--bad)}.col.aborted,.col.open{fill:var(--warn)}\
.limit{stroke:var(--bad);stroke-dasharray:5 4}svg .limit-word{fill:var(--bad)}\
.room{border:1px dashed var(--line);border-radius:6px;min-height:84px;padding:10px 14px;color:var(--dim)}@media print{body{background:#fff}}";

pub(super) fn render(subject: &Subject<'_>) -> String {
    let Subject { cluster, group, drill, earlier } = subject;
    let last = earlier.last().copied();
    let closing = drill.closing.as_ref();
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>Drill of {0}: {1}</title><style>{STYLE}</style></head><body><main>\
         <h1>Drill of {0}<span class=\"badge {1}\">{1}</span></h1>\
         <p class=\"sub\">{2}, {3} → {4}, cluster {5}<br>{6}{7}<br>begun by {8}<br>{9}</p>",
        text(group.as_str()),
        outcome(drill),
        drill.kind.word(),
        text(drill.from.as_str()),
        text(drill.to.as_str()),
        text(cluster.as_str()),
        text(&stamp(drill, drill.opened_at)),
        closing.map_or_else(String::new, |closing| format!(" to {}", text(&stamp(drill, closing.at)))),
        text(&begun_by(drill)),
        text(drill.id.as_str()),
    );
    if let Some(why) = closing.map(|closing| &closing.why).filter(|why| !why.is_empty()) {
        let _ = write!(out, "<div class=\"why\">{}</div>", text(why));
    }
    reached(&mut out, drill, last);
    parts(&mut out, drill, last);
    findings(&mut out, drill);
    procedure(&mut out, drill);
    past(&mut out, drill, earlier);
    events(&mut out, drill);
    lessons(&mut out, drill);
    out.push_str("</main></body></html>\n");
    out
}

fn reached(out: &mut String, drill: &Drill, last: Option<&Drill>) {
    let _ = write!(
        out,
        "<h2>Objectives</h2><div class=\"wide\"><table><tr><th></th><th>objective</th><th>reached</th><th>met</th><th>last {} drill</th></tr>",
        drill.kind.word()
    );
    let before = last.map(objectives);
    for (n, one) in objectives(drill).iter().enumerate() {
        let met = one.met.map_or("unknown", |met| if met { "yes" } else { "no" });
        let before = before.as_ref().map_or("–", |before| before[n].reached.as_str());
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"{met}\">{met}</td><td class=\"dim\">{}</td></tr>",
            one.name,
            text(&one.objective),
            text(&one.reached),
            text(before)
        );
    }
    out.push_str("</table></div>");
}

fn parts(out: &mut String, drill: &Drill, last: Option<&Drill>) {
    let parts = parts_beside(drill, last);
    if parts.is_empty() {
        return;
    }
    let _ = write!(out, "<h2>Where the time went</h2>{}", picture::timeline(&parts));
    out.push_str("<div class=\"wide\"><table><tr><th>run</th><th>part</th><th>took</th><th>last time</th><th>difference</th></tr>");
    for part in &parts {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n dim\">{}</td><td class=\"n dim\">{}</td></tr>",
            text(&part.run),
            text(&part.name),
            took(part.ms),
            part.last_ms.map_or_else(|| "–".to_owned(), took),
            beside(part.ms, part.last_ms),
        );
    }
    out.push_str("</table></div>");
}

fn findings(out: &mut String, drill: &Drill) {
    let _ = write!(
        out,
        "<h2>Findings</h2><p class=\"dim\">{} looked at, {} not as they should be.</p>",
        drill.findings.len(),
        not_well(drill).count()
    );
    if drill.findings.is_empty() {
        return;
    }
    out.push_str("<div class=\"wide\"><table><tr><th>phase</th><th>what</th><th></th><th></th></tr>");
    let mut sorted: Vec<_> = drill.findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.found));
    for finding in sorted {
        let _ = write!(
            out,
            "<tr><td class=\"dim\">{}</td><td>{}</td><td class=\"{3}\">{3}</td><td>{2}</td></tr>",
            finding.phase.word(),
            text(&finding.what),
            text(&finding.detail),
            finding.found.word(),
        );
    }
    out.push_str("</table></div>");
}

/// Each run in the order of the procedure.
fn procedure(out: &mut String, drill: &Drill) {
    for run in drill.runs.iter().filter(|run| !run.chapters.is_empty()) {
        let _ = write!(
            out,
            "<h2>Procedure: {} from {} to {}</h2><div class=\"wide\"><table><tr><th>part</th><th></th><th>took</th><th></th></tr>",
            run.kind,
            text(run.from.as_str()),
            text(run.to.as_str())
        );
        for chapter in &run.chapters {
            let class = match chapter.progress {
                Progress::Done => "ok",
                Progress::Amiss => "bad",
                Progress::Going => "unknown",
                Progress::None | Progress::Ahead => "dim",
            };
            let _ = write!(
                out,
                "<tr><td>{}</td><td class=\"{class}\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                chapter.kind.word(),
                chapter.progress.word(),
                chapter.ms().map_or_else(String::new, took),
                text(&chapter.detail)
            );
        }
        out.push_str("</table></div>");
    }
}

fn past(out: &mut String, drill: &Drill, earlier: &[&Drill]) {
    if earlier.is_empty() {
        return;
    }
    let all: Vec<&Drill> = earlier.iter().copied().chain(std::iter::once(drill)).collect();
    let _ = write!(out, "<h2>Past {} drills</h2>{}", drill.kind.word(), picture::trend(&all));
    out.push_str("<div class=\"wide\"><table><tr><th>begun</th><th></th><th>recovery time</th><th>data loss</th></tr>");
    for one in all.iter().rev().take(12) {
        let [recovery, loss] = objectives(one);
        let _ = write!(
            out,
            "<tr><td class=\"n\">{}</td><td class=\"{1}\">{1}</td><td class=\"n\">{2}</td><td>{3}</td></tr>",
            text(&stamp(one, one.opened_at)),
            outcome(one),
            text(&recovery.reached),
            text(&loss.reached),
        );
    }
    out.push_str("</table></div>");
}

fn events(out: &mut String, drill: &Drill) {
    out.push_str("<h2>Timeline</h2><div class=\"wide\"><table>");
    for event in &drill.events {
        let _ = write!(
            out,
            "<tr><td class=\"n dim\">{}</td><td>{}</td><td>{}</td></tr>",
            text(&stamp(drill, event.at)),
            event.phase.word(),
            text(&event.what)
        );
    }
    out.push_str("</table></div>");
}

fn lessons(out: &mut String, drill: &Drill) {
    out.push_str("<h2>Lessons</h2>");
    if !drill.lessons.is_empty() {
        out.push_str("<ul>");
        for lesson in &drill.lessons {
            let (by, at) = (text(lesson.by.as_str()), text(&stamp(drill, lesson.at)));
            let _ = write!(out, "<li>{} <span class=\"dim\">({by}, {at})</span></li>", text(&lesson.text));
        }
        out.push_str("</ul>");
    }
    let id = text(drill.id.as_str());
    let _ = write!(out, "<div class=\"room\">watchdogctl drill lessons {id} \"what we learned\"</div>");
}

/// Text, never markup: also inside attributes.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
