//! `watchdogctl audit verify`: files of the audit, or what the nodes keep in memory, read and judged entry by entry.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Screen;
use super::call::{Cluster, Kind};
use super::error::{CliError, Exit};
use super::text::{Page, Span, bad, bold, dim, good};
use crate::domain::audit::{AuditEntry, AuditHash};
use crate::domain::audit_line::LINE_BYTES_MAX;
use crate::domain::audit_verify::{Fault, Findings, Verifier};
use crate::domain::ids::{GroupName, NodeId, Principal, UnixMs};
use crate::proto;

/// Entries asked for at once.
const PAGE: u32 = 200;
/// A node keeps fewer entries in memory than so many pages hold.
const PAGES_MAX: usize = 50;

/// What is printed as JSON.
#[derive(Serialize)]
struct Judged {
    /// Files, or nodes.
    sources: Vec<String>,
    #[serde(flatten)]
    findings: Findings,
}

/// Judges files, and every file of the audit in folders; needs no node.
pub fn files(paths: &[PathBuf], screen: Screen) -> Result<Exit, CliError> {
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = in_folder(path)?;
            if found.is_empty() {
                let text = format!("{}: there is no audit-YYYY-MM.jsonl in it", path.display());
                return Err(CliError::File(text));
            }
            all.extend(found);
        } else {
            all.push(path.clone());
        }
    }
    let mut verifier = Verifier::default();
    for path in &all {
        let folder = path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        verifier.begin_file(&folder, &path.display().to_string());
        read(path, &mut verifier).map_err(|error| CliError::File(format!("{}: {error}", path.display())))?;
    }
    let sources = all.iter().map(|path| path.display().to_string()).collect();
    show(Judged { sources, findings: verifier.finish() }, "file", screen)
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let wrong = |error: std::io::Error| CliError::File(format!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("audit-") && name.ends_with(".jsonl") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path, verifier: &mut Verifier) -> std::io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        // A line that is too long is read in pieces, each of which is told as unreadable.
        if file.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
            verifier.line(number, &line);
        } else if line.len() > LINE_BYTES_MAX {
            verifier.line(number, &line);
        } else {
            verifier.note(format!(
                "{}:{number} has no end: its node is writing it, or stopped while it did and repairs it when it starts",
                path.display()
            ));
        }
    }
}

/// Judges what every node that was named keeps in memory, and compares them.
pub async fn nodes(cluster: &Cluster, screen: Screen) -> Result<Exit, CliError> {
    let mut verifier = Verifier::default();
    let (mut sources, mut silent) = (Vec::new(), Vec::new());
    for (endpoint, node) in cluster.each() {
        match kept(&node).await {
            Ok((name, entries, older)) => {
                verifier.begin_file(&name, &name);
                if older > 0 {
                    verifier.note(format!("{name}: {older} entries are older than the chain, and not judged"));
                }
                entries.iter().for_each(|(entry, prev)| verifier.kept(entry, *prev));
                sources.push(name);
            }
            Err(error @ (CliError::Unreachable(_) | CliError::NoQuorum(_) | CliError::Full(_))) => {
                verifier.note(format!("{endpoint} did not answer, and was not compared"));
                silent.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    match silent.pop() {
        Some(error) if sources.is_empty() => Err(error),
        _ => show(Judged { sources, findings: verifier.finish() }, "node", screen),
    }
}

/// An entry with the hash of the one before it.
type Kept = (AuditEntry, AuditHash);

/// A node's name, its entries, oldest first, and how many are older than the chain.
async fn kept(node: &Cluster) -> Result<(String, Vec<Kept>, usize), CliError> {
    let (mut name, mut entries, mut older, mut before_seq) = (String::new(), Vec::new(), 0, 0);
    for _ in 0..PAGES_MAX {
        let ask = proto::ListAuditRequest { group: String::new(), limit: PAGE, before_index: 0, before_seq };
        let call = |mut node: super::call::Node, ask| async move { node.list_audit(ask).await };
        let page: proto::ListAuditResponse = node.ask(Kind::Read, ask, call).await?;
        name = page.standing.map(|standing| standing.node).unwrap_or_default();
        for entry in page.entries {
            match entry.seq {
                0 => older += 1,
                _ => entries.push(read_entry(entry)?),
            }
        }
        before_seq = page.next_before_seq;
        if before_seq == 0 {
            break;
        }
    }
    entries.reverse();
    Ok((name, entries, older))
}

fn read_entry(entry: proto::AuditEntry) -> Result<Kept, CliError> {
    let hash = |text: &str| {
        AuditHash::parse(text).map_err(|why| CliError::Failed(format!("entry {} of {}: {why}", entry.seq, entry.node)))
    };
    let (command, prev, own) = (hash(&entry.command)?, hash(&entry.prev)?, hash(&entry.hash)?);
    let read = AuditEntry {
        seq: entry.seq,
        at: UnixMs(u64::try_from(entry.at_ms).unwrap_or_default()),
        index: entry.index,
        node: NodeId(entry.node_id),
        by: Principal(entry.by),
        from: entry.from,
        group: Some(entry.group).filter(|group| !group.is_empty()).map(GroupName),
        change: entry.change,
        command,
        code: entry.code,
        what: entry.what,
        reason: entry.reason,
        evidence: entry.evidence,
        outcome: entry.outcome,
        hash: own,
    };
    Ok((read, prev))
}

fn show(judged: Judged, source: &str, screen: Screen) -> Result<Exit, CliError> {
    screen.show(&judged, || page(&judged, source))?;
    Ok(if judged.findings.ok { Exit::Ok } else { Exit::Failure })
}

fn page(judged: &Judged, source: &str) -> Page {
    let Judged { sources, findings } = judged;
    let mut page = Page::default();
    let many = if sources.len() == 1 { "" } else { "s" };
    let range = format!("{} entries, {} to {}", findings.entries, findings.first_seq, findings.head.seq);
    page.line([bold(format!("{} {source}{many}", sources.len())), Span::from(format!(": {range}"))]);
    page.line([dim(format!("head {} {}", findings.head.seq, findings.head.hash))]);
    let row = |fault: &Fault| vec![bad(fault.kind.word()), Span::from(fault.text.as_str())];
    page.table(0, findings.faults.iter().map(row).collect());
    if findings.more_faults > 0 {
        page.line([bad(format!("and {} more", findings.more_faults))]);
    }
    for note in &findings.notes {
        page.line([dim(format!("note: {note}"))]);
    }
    page.line([match (findings.ok, findings.entries) {
        (true, 0) => dim("no entries"),
        (true, _) => good("whole: every entry is as it was written, and where it was written"),
        (false, _) => bad("not whole"),
    }]);
    page
}
