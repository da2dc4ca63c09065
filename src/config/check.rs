//! Judging a configuration: what is wrong with it, where, and what to do. All faults are collected and told at once.
//!
//! `watchdogd check` prints a [`Report`]; start-up refuses the same errors and logs the same warnings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

/// Where a table of the file stands: its path for people, and the lines of its keys.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// As people would say it: `group[aicamera].target[hcmc-db]`. Empty for the top of the file.
    pub path: String,
    /// Line of the table's header, from 1. `None` where the table is not in the file.
    pub line: Option<usize>,
    /// Lines of its keys; those of inline tables as `key.inner`.
    pub keys: BTreeMap<String, usize>,
    /// Keys whose value could not be read, or that were misspelt: the fault is told already.
    pub faulty: BTreeSet<String>,
    /// The table itself could not be read: the fault is told already.
    pub unread: bool,
}

impl Place {
    /// The key is written in the file (well or badly).
    pub fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Path of one of its keys.
    pub fn path_of(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (_, true) => self.path.clone(),
            (true, false) => key.to_owned(),
            (false, false) => format!("{}.{key}", self.path),
        }
    }

    /// Line of one of its keys; the table's own where the key is not written.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        let outer = || key.split_once('.').and_then(|(outer, _)| self.keys.get(outer));
        self.keys.get(key).or_else(outer).copied().or(self.line)
    }
}

/// A table of the file with where it stands.
#[derive(Debug, Clone, Default)]
pub struct Item<T> {
    /// Where.
    pub place: Place,
    /// What it says.
    pub value: T,
}

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// The field: `group[aicamera].hold_down_ms`.
    pub path: String,
    /// Line in the file, from 1, where there is one to point at.
    pub line: Option<usize>,
    /// What was found and why it cannot be.
    pub what: String,
    /// What to do next.
    pub todo: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.what, self.todo)
    }
}

/// Everything found in one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// With any of these a node does not start.
    pub errors: Vec<Fault>,
    /// Allowed, but somebody should know.
    pub warnings: Vec<Fault>,
}

impl Report {
    /// Nothing keeps a node from starting.
    pub fn passes(&self) -> bool {
        self.errors.is_empty()
    }

    /// Adds an error at a key of a table (`""`: at the table itself), unless that could not be read in the first place.
    pub fn error(&mut self, place: &Place, key: &str, what: impl Into<String>, todo: impl Into<String>) {
        if !place.unread && !place.faulty.contains(key) {
            self.errors.push(fault(place, key, what.into(), todo.into()));
        }
    }

    /// Adds a warning.
    pub fn warn(&mut self, place: &Place, key: &str, what: impl Into<String>, todo: impl Into<String>) {
        self.warnings.push(fault(place, key, what.into(), todo.into()));
    }

    /// In the order of the file.
    pub fn sort(&mut self) {
        for faults in [&mut self.errors, &mut self.warnings] {
            faults.sort_by(|a, b| (a.line, &a.path, &a.what).cmp(&(b.line, &b.path, &b.what)));
            faults.dedup();
        }
    }
}

fn fault(place: &Place, key: &str, what: String, todo: String) -> Fault {
    Fault { path: place.path_of(key), line: place.line_of(key), what, todo }
}

/// The report as `watchdogd check` prints it: a line for the whole, then each fault with what to do.
pub fn render(report: &Report, file: &str) -> String {
    let mut out = String::new();
    let counted = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let total = match (report.errors.len(), report.warnings.len()) {
        (0, 0) => "no faults found".to_owned(),
        (0, w) => format!("no errors, {}", counted(w, "warning")),
        (e, 0) => counted(e, "error"),
        (e, w) => format!("{}, {}", counted(e, "error"), counted(w, "warning")),
    };
    let _ = writeln!(out, "{file}: {total}");
    let lines = report.errors.iter().chain(&report.warnings).filter_map(|fault| fault.line);
    let width = lines.map(|line| line.to_string().len()).max().unwrap_or(1);
    let words = report.errors.iter().map(|f| ("error", f)).chain(report.warnings.iter().map(|f| ("warning", f)));
    for (word, fault) in words {
        let line = match fault.line {
            Some(line) => format!("line {line:>width$}"),
            None => " ".repeat(width + 5),
        };
        let indent = " ".repeat(width + 16);
        let _ = writeln!(out, "\n  {word:<7}  {line}  {}", if fault.path.is_empty() { "file" } else { &fault.path });
        let _ = writeln!(out, "{indent}  {}", fault.what);
        let _ = writeln!(out, "{indent}→ {}", fault.todo);
    }
    out
}
