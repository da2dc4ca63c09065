//! `watchdogctl audit`, oldest first as a log reads.

use super::text::{Page, Span, bold, dim, good, warn};
use super::when::stamp;
use crate::proto::{AuditEntry, ListAuditResponse};

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
    page
}

fn row(entry: &AuditEntry) -> Vec<Span> {
    let outcome = if entry.outcome == "done" { good("done") } else { warn(&entry.outcome) };
    vec![
        dim(entry.index.to_string()),
        dim(stamp(entry.at_ms)),
        dim(&entry.node),
        Span::from(entry.by.as_str()),
        bold(&entry.group),
        Span::from(entry.what.as_str()),
        outcome,
        Span::from(entry.reason.as_str()),
    ]
}
