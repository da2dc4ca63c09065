//! Files that an operator hands to `watchdogctl`: lines of a node's audit, and a backup.

use watchdog::api::backups::sha256;
use watchdog::cli::backup_file::{Backup, Header, decode, encode};
use watchdog::domain::audit::{AuditEntry, AuditHash, Link};
use watchdog::domain::audit_line::{EntryLine, GapLine, Line};
use watchdog::domain::audit_verify::Verifier;
use watchdog::domain::ids::{NodeId, UnixMs};

use crate::runner::{Target, Trial, holds, printable};

/// Three entries of one node's file.
fn chain() -> Vec<EntryLine> {
    let (mut head, mut words, mut lines) = (Link::default(), AuditHash::NONE, Vec::new());
    for n in 1..=3 {
        let entry = AuditEntry {
            seq: 0,
            index: n + 100,
            at: UnixMs(1_795_231_050_123 + n),
            node: NodeId(1),
            by: "user:linh".into(),
            from: "10.1.0.7:52114".to_owned(),
            group: Some("aicamera".into()),
            change: "Pause".to_owned(),
            command: AuditHash::of(format!("command {n}").as_bytes()),
            code: "done".to_owned(),
            what: "pause".to_owned(),
            reason: "việc \"định kỳ\"\n".to_owned(),
            evidence: vec!["one line".to_owned()],
            outcome: "done".to_owned(),
            hash: AuditHash::NONE,
        };
        let entry = entry.chained(&head);
        let line = EntryLine::of(&entry, head.hash, words);
        (head, words) = (entry.link(), line.words);
        lines.push(line);
    }
    lines
}

fn text(line: &Line) -> Vec<u8> {
    line.to_text().unwrap().trim_end().as_bytes().to_vec()
}

/// In the middle of a file, whatever the line says: it is the one that was written, or the file is not whole.
pub fn any_line_of_an_audit_is_the_one_that_was_written_or_the_file_is_not_whole() -> Trial {
    let lines = chain();
    let gap = GapLine { after_seq: 1, after_hash: lines[0].hash, next_seq: 3, next_prev: lines[2].prev };
    let whole: Vec<Vec<u8>> = lines.iter().cloned().map(|line| text(&Line::Entry(line))).collect();
    Target::new("audit-lines", vec![whole[1].clone(), text(&Line::Gap(gap))]).judged_by(move |bytes| {
        let read = Line::parse(bytes);
        match &read {
            Ok(line) => {
                let again = Line::parse(&text(line));
                holds(again.as_ref() == Ok(line), || format!("{line:?} comes back as {again:?}"))?;
            }
            Err(why) => holds(!why.is_empty(), || "refused without a word".to_owned())?,
        }
        let mut verifier = Verifier::default();
        verifier.begin_file("node", "audit-2026-11.jsonl");
        for (number, line) in [&whole[0][..], bytes, &whole[2][..]].into_iter().enumerate() {
            verifier.line(number + 1, line);
        }
        let found = verifier.finish();
        let is_written = read == Ok(Line::Entry(lines[1].clone()));
        holds(found.ok == is_written, || format!("{found:?} of {read:?}"))?;
        holds(found.faults.iter().all(|fault| !fault.text.is_empty()), || format!("{found:?}"))
    })
}

/// With the checksum that they have, and with the one that they should have.
pub fn any_bytes_in_a_backup_are_what_was_written_or_damage() -> Trial {
    let state = br#"{"cluster":"demo","epoch":1}"#.to_vec();
    let header = Header {
        cluster: "demo".to_owned(),
        epoch: 1,
        applied_index: 7,
        version: "0.1.0".to_owned(),
        taken_at_ms: 1_795_231_050_123,
        by: "user:linh".to_owned(),
        bytes: state.len() as u64,
        sha256: sha256(&state),
    };
    let written = Backup { header, state };
    Target::new("backup-files", vec![encode(&written).unwrap()]).judged_by(move |bytes| {
        let end = bytes.len().saturating_sub("sha256:".len() + 64 + 1);
        let mut summed = bytes[..end].to_vec();
        summed.extend_from_slice(format!("sha256:{}\n", sha256(&bytes[..end])).as_bytes());
        for bytes in [bytes, &summed] {
            match decode(bytes) {
                Ok(read) => {
                    holds(sha256(&read.state) == read.header.sha256, || "another state than its header's".to_owned())?;
                    let again = decode(&encode(&read).unwrap());
                    holds(again.as_ref() == Ok(&read), || format!("{read:?} comes back as {again:?}"))?;
                }
                Err(why) => {
                    holds(!why.is_empty() && why.len() < 1000, || format!("{} bytes of words", why.len()))?;
                    printable(&why)?;
                }
            }
        }
        Ok(())
    })
}
