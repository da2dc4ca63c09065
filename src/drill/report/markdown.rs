//! The report as Markdown.

use std::fmt::Write as _;

use super::{Subject, begun_by, beside, not_well, objectives, outcome, parts_beside, stamp, took};
use crate::domain::drill::Drill;

pub(super) fn render(subject: &Subject<'_>) -> String {
    let Subject { cluster, group, drill, earlier } = subject;
    let last = earlier.last().copied();
    let mut out = String::new();
    let _ = writeln!(out, "# Drill of {} in {}: {}\n", plain(group.as_str()), plain(cluster.as_str()), outcome(drill));
    let closing = drill.closing.as_ref();
    if let Some(why) = closing.map(|closing| &closing.why).filter(|why| !why.is_empty()) {
        let _ = writeln!(out, "{}.\n", plain(why));
    }
    let _ = writeln!(out, "| | |\n|---|---|");
    let rows = [
        ("kind", drill.kind.word().to_owned()),
        ("from, to", format!("{} → {}", drill.from, drill.to)),
        ("begun", stamp(drill, drill.opened_at)),
        ("ended", closing.map_or_else(|| "open".to_owned(), |closing| stamp(drill, closing.at))),
        ("by", begun_by(drill)),
        ("id", drill.id.to_string()),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "| {name} | {} |", plain(&value));
    }
    let _ = writeln!(
        out,
        "\n## Objectives\n\n| | objective | reached | met | last {} drill |\n|---|---|---|---|---|",
        drill.kind.word()
    );
    let before = last.map(objectives);
    for (n, one) in objectives(drill).iter().enumerate() {
        let met = one.met.map_or("not known", |met| if met { "yes" } else { "**no**" });
        let before = before.as_ref().map_or("-", |before| before[n].reached.as_str());
        let _ = writeln!(out, "| {} | {} | {} | {met} | {before} |", one.name, one.objective, one.reached);
    }
    runs(&mut out, drill, last);
    findings(&mut out, drill);
    procedure(&mut out, drill);
    trend(&mut out, drill, earlier);
    let _ = writeln!(out, "\n## Timeline\n\n| when | phase | |\n|---|---|---|");
    for event in &drill.events {
        let _ = writeln!(out, "| {} | {} | {} |", stamp(drill, event.at), event.phase.word(), plain(&event.what));
    }
    let _ = writeln!(out, "\n## Lessons\n");
    for lesson in &drill.lessons {
        let _ = writeln!(out, "* {} ({}, {})", plain(&lesson.text), plain(lesson.by.as_str()), stamp(drill, lesson.at));
    }
    if drill.lessons.is_empty() {
        let _ = writeln!(out, "None noted yet: `watchdogctl drill lessons {} \"…\"`", plain(drill.id.as_str()));
    }
    out
}

fn runs(out: &mut String, drill: &Drill, last: Option<&Drill>) {
    if drill.runs.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n## Recovery time by part\n\n| run | part | took | last time | difference |\n|---|---|---|---|---|"
    );
    for part in parts_beside(drill, last) {
        let before = part.last_ms.map_or_else(|| "-".to_owned(), took);
        let _ = writeln!(
            out,
            "| {} | {} | {} | {before} | {} |",
            part.run,
            plain(&part.name),
            took(part.ms),
            beside(part.ms, part.last_ms)
        );
    }
}

/// Each run in the order of the procedure.
fn procedure(out: &mut String, drill: &Drill) {
    if drill.runs.iter().all(|run| run.chapters.is_empty()) {
        return;
    }
    let _ = writeln!(out, "\n## Procedure\n\n| run | part | | took | |\n|---|---|---|---|---|");
    for run in &drill.runs {
        for chapter in &run.chapters {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                run.kind,
                chapter.kind.word(),
                chapter.progress.word(),
                chapter.ms().map_or_else(String::new, took),
                plain(&chapter.detail)
            );
        }
    }
}

fn findings(out: &mut String, drill: &Drill) {
    let bad = not_well(drill).count();
    let _ = writeln!(out, "\n## Findings\n\n{} looked at, {bad} not as they should be.\n", drill.findings.len());
    if drill.findings.is_empty() {
        return;
    }
    let _ = writeln!(out, "| phase | what | | |\n|---|---|---|---|");
    let mut sorted: Vec<_> = drill.findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.found));
    for finding in sorted {
        let (phase, found) = (finding.phase.word(), finding.found.word());
        let _ = writeln!(out, "| {phase} | {} | {found} | {} |", plain(&finding.what), plain(&finding.detail));
    }
}

fn trend(out: &mut String, drill: &Drill, earlier: &[&Drill]) {
    if earlier.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n## Past {} drills\n\n| begun | | recovery time | data loss |\n|---|---|---|---|",
        drill.kind.word()
    );
    for one in std::iter::once(&drill).chain(earlier.iter().rev()).take(12) {
        let [recovery, loss] = objectives(one);
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            stamp(one, one.opened_at),
            outcome(one),
            recovery.reached,
            loss.reached
        );
    }
}

/// What Markdown or HTML would read as its own is taken for what it is.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '!' | '~' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
