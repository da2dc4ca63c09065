//! `watchdogctl audit`, oldest first as a log reads.

use super::text::{Page, Span, bold, dim, good, warn};
use super::when::stamp;
use crate::proto::{AuditEntry, ListAuditResponse};

/// Evidence may run to pages: a table shows its beginning, `--output json` all of it.
const SHOWN_CHARS: usize = 100;

/// The page.
pub fn page(answer: &ListAuditResponse) -> Page {
    let mut page = Page::default();
    if answer.entries.is_empty() {
        page.line([dim("no entries")]);
        return page;
    }
    if answer.next_before_index > 0 {
        page.line([dim(format!("older entries: --before {}", answer.next_before_index))]);
    }
    page.table(0, answer.entries.iter().rev().map(row).collect());
    let is_long = |entry: &AuditEntry| [&entry.what, &entry.outcome, &why(entry)].iter().any(|text| is_cut(text));
    if answer.entries.iter().any(is_long) {
        page.line([dim("… whole texts: --output json")]);
    }
    page
}

fn is_cut(text: &str) -> bool {
    text.chars().nth(SHOWN_CHARS).is_some()
}

fn shown(text: &str) -> String {
    if !is_cut(text) {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(SHOWN_CHARS - 1).collect();
    short.push('…');
    short
}

/// Why, and on what evidence.
fn why(entry: &AuditEntry) -> String {
    let reason = Some(&entry.reason).filter(|reason| !reason.is_empty());
    let lines: Vec<&str> = reason.into_iter().chain(&entry.evidence).map(String::as_str).collect();
    lines.join("; ")
}

/// One entry.
pub fn row(entry: &AuditEntry) -> Vec<Span> {
    let outcome = if entry.outcome == "done" { good("done") } else { warn(shown(&entry.outcome)) };
    vec![
        dim(entry.index.to_string()),
        dim(stamp(entry.at_ms)),
        dim(&entry.node),
        Span::from(entry.by.as_str()),
        bold(&entry.group),
        Span::from(shown(&entry.what).as_str()),
        outcome,
        Span::from(shown(&why(entry)).as_str()),
    ]
}
