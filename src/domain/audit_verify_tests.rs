//! What is done to files of the audit, and what is said of it.

use super::*;
use crate::domain::audit::AuditEntry;
use crate::domain::audit_line::EntryLine;
use crate::domain::ids::{NodeId, UnixMs};

fn chain(count: u64) -> Vec<EntryLine> {
    let mut head = Link::default();
    let mut lines: Vec<EntryLine> = Vec::new();
    for n in 1..=count {
        let entry = AuditEntry {
            seq: 0,
            index: n + 100,
            at: UnixMs(1_000 * n),
            node: NodeId(1),
            by: "user:linh".into(),
            from: String::new(),
            group: None,
            change: "Note".to_owned(),
            command: AuditHash::of(format!("note {n}").as_bytes()),
            code: "noted".to_owned(),
            what: format!("note {n}"),
            reason: String::new(),
            evidence: Vec::new(),
            outcome: "done".to_owned(),
            hash: AuditHash::NONE,
        };
        let entry = entry.chained(&head);
        let words_prev = lines.last().map(|line| line.words).unwrap_or_default();
        lines.push(EntryLine::of(&entry, head.hash, words_prev));
        head = entry.link();
    }
    lines
}

fn gap(lines: &[EntryLine], after: usize, next: usize) -> Line {
    Line::Gap(GapLine {
        after_seq: after as u64,
        after_hash: lines[after - 1].hash,
        next_seq: next as u64,
        next_prev: lines[next - 1].prev,
    })
}

fn all(lines: &[EntryLine]) -> Vec<Line> {
    lines.iter().cloned().map(Line::Entry).collect()
}

fn judged(books: &[(&str, Vec<Line>)]) -> Findings {
    let mut verifier = Verifier::default();
    for (book, lines) in books {
        verifier.begin_file(book, &format!("{book}/a.jsonl"));
        for (at, line) in lines.iter().enumerate() {
            verifier.line(at + 1, line.to_text().unwrap().trim_end().as_bytes());
        }
    }
    verifier.finish()
}

fn told(findings: &Findings) -> Vec<(Kind, u64, u64, Vec<&str>)> {
    let mut all = Vec::new();
    for fault in &findings.faults {
        let places = fault.places.iter().map(String::as_str).collect();
        all.push((fault.kind, fault.first_seq, fault.last_seq, places));
    }
    all
}

/// The entry as somebody would leave it who knows how hashes are made.
fn rewritten(line: &EntryLine) -> EntryLine {
    hashed(EntryLine { by: "user:somebody".to_owned(), ..line.clone() })
}

fn hashed(mut line: EntryLine) -> EntryLine {
    line.hash = line.entry().hash_after(&line.prev);
    line.words = line.words_prev.bind_words(&line.entry());
    line
}

/// In other words, and all that follows in the file bound to them.
fn reworded(lines: &[EntryLine], from: usize) -> Vec<EntryLine> {
    let mut lines = lines.to_vec();
    lines[from].reason = "nothing happened".to_owned();
    for at in from..lines.len() {
        lines[at].words_prev = at.checked_sub(1).map_or(AuditHash::NONE, |before| lines[before].words);
        lines[at] = hashed(lines[at].clone());
    }
    lines
}

#[test]
fn whole_files_are_whole_wherever_they_begin() {
    let lines = chain(9);
    let findings = judged(&[("a", all(&lines)), ("b", all(&lines))]);
    assert!(findings.ok && findings.notes.is_empty(), "{findings:?}");
    assert_eq!((findings.entries, findings.first_seq, findings.head), (9, 1, lines[8].link()));
    let later = judged(&[("a", all(&lines[4..]))]);
    assert!(later.ok && later.notes[0].contains("begins with entry 5"), "{later:?}");
    let behind = judged(&[("a", all(&lines)), ("b", all(&lines[..7]))]);
    assert!(behind.ok && behind.notes[0].starts_with("b ends with entry 7, others go on to 9"), "{behind:?}");
    assert!(judged(&[]).ok);
}

/// Each thing that may be done to one node's file, and what is said of it, by kind, entries and places.
#[test]
fn p10_whatever_is_done_to_a_file_is_named_with_its_place() {
    let whole = chain(9);
    let edit = |change: &dyn Fn(&mut Vec<Line>)| {
        let mut lines = all(&whole);
        change(&mut lines);
        told(&judged(&[("a", lines)])).into_iter().map(|(k, f, l, p)| (k, f, l, p.join(" "))).collect::<Vec<_>>()
    };
    let place = |text: &str| text.to_owned();
    assert_eq!(edit(&|lines| drop(lines.drain(3..5))), [(Kind::Missing, 4, 5, place("a/a.jsonl:3 a/a.jsonl:4"))]);
    let altered = |line: &EntryLine| Line::Entry(EntryLine { code: "stale".to_owned(), ..line.clone() });
    let altered_word = |line: &EntryLine| Line::Entry(EntryLine { outcome: "rejected".to_owned(), ..line.clone() });
    let altered_command =
        |line: &EntryLine| Line::Entry(EntryLine { command: AuditHash::of(b"another"), ..line.clone() });
    for altered in [altered_word, altered_command] {
        assert_eq!(edit(&|lines| lines[3] = altered(&whole[3])), [(Kind::Changed, 4, 4, place("a/a.jsonl:4"))]);
    }
    assert_eq!(edit(&|lines| lines[3] = altered(&whole[3])), [(Kind::Changed, 4, 4, place("a/a.jsonl:4"))]);
    assert_eq!(
        edit(&|lines| lines[3] = Line::Entry(rewritten(&whole[3]))),
        [(Kind::Changed, 4, 5, place("a/a.jsonl:4 a/a.jsonl:5"))]
    );
    assert_eq!(edit(&|lines| lines.swap(3, 4)), [(Kind::Moved, 4, 4, place("a/a.jsonl:5"))]);
    assert_eq!(edit(&|lines| lines.insert(4, lines[3].clone())), [(Kind::Inserted, 4, 4, place("a/a.jsonl:5"))]);
    // One put in under the next number, with the right hash for its place.
    let put_in = {
        let (prev, words_prev) = (whole[3].hash, whole[3].words);
        let command = AuditHash::of(b"never happened");
        Line::Entry(hashed(EntryLine { seq: 5, prev, words_prev, command, ..whole[3].clone() }))
    };
    assert_eq!(
        edit(&|lines| lines.insert(4, put_in.clone())),
        [(Kind::Inserted, 5, 5, place("a/a.jsonl:6")), (Kind::Changed, 5, 5, place("a/a.jsonl:5 a/a.jsonl:6")),]
    );
    assert_eq!(
        edit(&|lines| {
            lines[0] = Line::Entry(hashed(EntryLine { prev: whole[4].hash, ..whole[0].clone() }));
            lines.truncate(1);
        }),
        [(Kind::Changed, 1, 1, place("a/a.jsonl:1"))]
    );
}

#[test]
fn p10_what_another_node_has_shows_what_was_done() {
    let whole = chain(9);
    // Removed here, there it is.
    let mut less = all(&whole);
    less.drain(3..5);
    let findings = judged(&[("a", less), ("b", all(&whole))]);
    assert_eq!(told(&findings), [(Kind::Missing, 4, 5, vec!["a/a.jsonl:3", "a/a.jsonl:4", "b/a.jsonl:4"])]);
    // Rewritten here, and everything after it too.
    let mut other = chain(9);
    other[3] = rewritten(&other[3]);
    for at in 4..9 {
        other[at].prev = other[at - 1].hash;
        other[at].words_prev = other[at - 1].words;
        other[at] = hashed(other[at].clone());
    }
    let findings = judged(&[("a", all(&other)), ("b", all(&whole)), ("c", all(&whole))]);
    assert!(!findings.ok);
    assert_eq!(findings.faults[0].first_seq, 4, "{findings:?}");
}

/// Words are their node's own: they are bound to one another in its files, and nodes of several versions may differ.
#[test]
fn p10_words_are_bound_within_a_nodes_files_and_compared_with_others() {
    let whole = chain(9);
    // One line's words, with the right hash for them.
    let mut one = whole.clone();
    one[3] = hashed(EntryLine { what: "another thing".to_owned(), ..whole[3].clone() });
    assert_eq!(
        told(&judged(&[("a", all(&one))])),
        [(Kind::Changed, 4, 5, vec!["a/a.jsonl:4", "a/a.jsonl:5"])],
        "the next line's are bound to the old ones"
    );
    // With all that follows: by itself it is whole, beside another node's it is told.
    let other = reworded(&whole, 3);
    assert!(judged(&[("a", all(&other))]).notes.is_empty());
    let findings = judged(&[("a", all(&whole)), ("b", all(&other))]);
    assert!(findings.ok, "{findings:?}");
    assert_eq!(findings.notes.len(), 1, "{findings:?}");
    assert!(
        findings.notes[0].starts_with("entry 4 is worded in one way at a/a.jsonl:4 and in another at b/a.jsonl:4: the"),
        "{findings:?}"
    );
    assert_eq!(findings.head, whole[8].link(), "one chain");
    // A gap that was put where entries were taken out.
    let mut hidden = all(&whole);
    hidden.splice(3..5, [gap(&whole, 3, 6)]);
    let findings = judged(&[("a", hidden), ("b", all(&whole))]);
    assert_eq!(told(&findings), [(Kind::Changed, 3, 6, vec!["a/a.jsonl:3", "a/a.jsonl:5"])]);
    // What is in memory has no words to judge.
    let mut verifier = Verifier::default();
    verifier.begin_file("node", "node");
    for line in &other {
        verifier.kept(&line.entry(), line.prev);
    }
    assert!(verifier.finish().ok);
}

#[test]
fn p10_a_gap_is_filled_by_another_or_told() {
    let whole = chain(9);
    let away = || {
        let mut lines = all(&whole[..3]);
        lines.push(gap(&whole, 3, 7));
        // As that node writes them: bound to the last that it wrote.
        let mut after = whole[6..].to_vec();
        after[0].words_prev = whole[2].words;
        for at in 0..after.len() {
            after[at].words_prev = if at == 0 { whole[2].words } else { after[at - 1].words };
            after[at] = hashed(after[at].clone());
        }
        lines.extend(all(&after));
        lines
    };
    let filled = judged(&[("a", away()), ("b", all(&whole))]);
    assert!(filled.ok && filled.notes[0].starts_with("entries 4 to 6 are away in a/a.jsonl:4, filled"), "{filled:?}");
    let alone = judged(&[("a", away())]);
    assert_eq!(told(&alone), [(Kind::Missing, 4, 6, vec!["a/a.jsonl:3", "a/a.jsonl:5"])]);
    assert!(alone.faults[0].text.contains("the node was away (a/a.jsonl:4)"), "{alone:?}");
    // A gap that says what the others do not.
    let mut lying = away();
    lying[3] = Line::Gap(GapLine { after_seq: 3, after_hash: whole[0].hash, next_seq: 7, next_prev: whole[5].hash });
    let findings = judged(&[("a", lying), ("b", all(&whole))]);
    assert_eq!(told(&findings), [(Kind::Changed, 3, 3, vec!["a/a.jsonl:4", "a/a.jsonl:3"])]);
    // Between the end of one node's files and the beginning of another's.
    let apart = judged(&[("a", all(&whole[..3])), ("b", all(&whole[5..]))]);
    assert_eq!(told(&apart), [(Kind::Missing, 4, 5, vec!["a/a.jsonl:3", "b/a.jsonl:1"])]);
}

#[test]
fn a_line_that_says_nothing_is_named() {
    let mut verifier = Verifier::default();
    verifier.begin_file("a", "a.jsonl");
    verifier.line(1, b"hello");
    let findings = verifier.finish();
    assert_eq!(told(&findings), [(Kind::Unreadable, 0, 0, vec!["a.jsonl:1"])]);
    let mut verifier = Verifier::default();
    verifier.begin_file("a", "a.jsonl");
    for number in 1..1000 {
        verifier.line(number, b"{}");
    }
    let findings = verifier.finish();
    assert_eq!((findings.faults.len() as u64, findings.more_faults), (200, 799), "told within bounds");
}
