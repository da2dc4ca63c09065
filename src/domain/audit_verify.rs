//! Whether audit files are whole: every hash, every number, every link, over any number of nodes' files at once. What one
//! node was away for another's file fills; what was removed, changed, moved or put in is named with its place.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::audit::{AuditEntry, AuditHash, Link};
use super::audit_line::{GapLine, Line};

/// So many findings are told; further ones are counted.
const FOUND_MAX: usize = 200;

/// What was done to the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Entries are not there.
    Missing,
    /// An entry is not what it was.
    Changed,
    /// There is one too many.
    Inserted,
    /// It stands elsewhere than it was written.
    Moved,
    /// A line says nothing at all.
    Unreadable,
}

impl Kind {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Missing => "missing",
            Kind::Changed => "changed",
            Kind::Inserted => "inserted",
            Kind::Moved => "moved",
            Kind::Unreadable => "unreadable",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// The entries it is about; 0 where that cannot be told.
    pub first_seq: u64,
    /// The last of them.
    pub last_seq: u64,
    /// Where, `FILE:LINE`.
    pub places: Vec<String>,
    /// In words.
    pub text: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Nothing is wrong.
    pub ok: bool,
    /// Different entries read.
    pub entries: u64,
    /// The first of them; 0 where there is none.
    pub first_seq: u64,
    /// The last one: whoever has an entry of that number with another hash disagrees.
    pub head: Link,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Faults that are not listed.
    pub more_faults: u64,
    /// What is no fault, and should be known.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: usize,
    line: usize,
}

/// One line with an entry.
#[derive(Debug, Clone, Copy)]
struct Seen {
    seq: u64,
    prev: AuditHash,
    hash: AuditHash,
    is_sound: bool,
    place: Place,
    /// None where it is not a line of a file: what a node keeps in memory binds no words.
    words: Option<Words>,
}

/// The words of a line.
#[derive(Debug, Clone, Copy)]
struct Words {
    /// Their hash in the line before.
    prev: AuditHash,
    hash: AuditHash,
    /// Of themselves alone.
    said: AuditHash,
    is_sound: bool,
}

struct File {
    name: String,
    book: usize,
    last_seq: u64,
}

/// Reads lines, then judges.
#[derive(Default)]
pub struct Verifier {
    /// Whose files: a folder each.
    books: Vec<String>,
    files: Vec<File>,
    seen: Vec<Seen>,
    gaps: Vec<(Place, GapLine)>,
    faults: Vec<Fault>,
    more_faults: u64,
    notes: Vec<String>,
}

impl Verifier {
    /// The next lines are of this file; `book` is what it belongs to with others: a node's folder.
    pub fn begin_file(&mut self, book: &str, name: &str) {
        let known = self.books.iter().position(|known| known == book);
        let book = known.unwrap_or_else(|| {
            self.books.push(book.to_owned());
            self.books.len() - 1
        });
        self.files.push(File { name: name.to_owned(), book, last_seq: 0 });
    }

    /// A line of the file, without its end; `number` counts from 1.
    pub fn line(&mut self, number: usize, bytes: &[u8]) {
        let place = self.place(number);
        match Line::parse(bytes) {
            Ok(Line::Gap(gap)) => self.gaps.push((place, gap)),
            Ok(Line::Entry(line)) => {
                let entry = line.entry();
                let is_sound = line.words_prev.bind_words(&entry) == line.words;
                let words = Words { prev: line.words_prev, hash: line.words, said: entry.said(), is_sound };
                self.see(place, &entry, line.prev, Some(words));
            }
            Err(why) => {
                let place = self.shown(place);
                let text = format!("{place} is no line of an audit ({why})");
                self.fault(Kind::Unreadable, (0, 0), vec![place], text);
            }
        }
    }

    /// An entry that is in no file, which follows one with hash `prev`: its words are not judged.
    pub fn kept(&mut self, entry: &AuditEntry, prev: AuditHash) {
        self.see(self.place(0), entry, prev, None);
    }

    fn see(&mut self, place: Place, entry: &AuditEntry, prev: AuditHash, words: Option<Words>) {
        let is_sound = entry.seq > 0 && entry.hash_after(&prev) == entry.hash;
        let seen = Seen { seq: entry.seq, prev, hash: entry.hash, is_sound, place, words };
        let shown = self.shown(place);
        let last = self.files.get(place.file).map_or(0, |file| file.last_seq);
        if seen.seq <= last {
            let (kind, text) = if seen.seq == last {
                (Kind::Inserted, format!("entry {last} is there again at {shown}"))
            } else {
                (Kind::Moved, format!("entry {} stands behind entry {last} at {shown}", seen.seq))
            };
            self.fault(kind, (seen.seq, seen.seq), vec![shown.clone()], text);
        } else if let Some(file) = self.files.get_mut(place.file) {
            file.last_seq = seen.seq;
        }
        if !seen.is_sound {
            let text = format!("entry {} at {shown} was changed: its hash is not that of what it says", seen.seq);
            self.fault(Kind::Changed, (seen.seq, seen.seq), vec![shown], text);
        } else if words.is_some_and(|words| !words.is_sound) {
            let text = format!("the words of entry {} at {shown} were changed: their hash is another", seen.seq);
            self.fault(Kind::Changed, (seen.seq, seen.seq), vec![shown], text);
        }
        self.seen.push(seen);
    }

    /// What is no fault.
    pub fn note(&mut self, text: String) {
        if self.notes.len() < FOUND_MAX {
            self.notes.push(text);
        }
    }

    fn place(&self, line: usize) -> Place {
        Place { file: self.files.len().saturating_sub(1), line }
    }

    fn shown(&self, place: Place) -> String {
        let name = self.files.get(place.file).map_or("", |file| file.name.as_str());
        if place.line == 0 { name.to_owned() } else { format!("{name}:{}", place.line) }
    }

    fn book_of(&self, place: Place) -> usize {
        self.files.get(place.file).map_or(0, |file| file.book)
    }

    fn fault(&mut self, kind: Kind, (first_seq, last_seq): (u64, u64), places: Vec<String>, text: String) {
        if self.faults.len() < FOUND_MAX {
            self.faults.push(Fault { kind, first_seq, last_seq, places, text });
        } else {
            self.more_faults += 1;
        }
    }

    /// Judges all that was read.
    pub fn finish(mut self) -> Findings {
        let chain = self.walk();
        self.judge_books(&chain);
        self.judge_words();
        self.judge_gaps(&chain);
        self.judge_ends(&chain);
        let link = |seen: &Seen| Link { seq: seen.seq, hash: seen.hash };
        Findings {
            ok: self.faults.is_empty(),
            entries: chain.len() as u64,
            first_seq: chain.keys().next().copied().unwrap_or_default(),
            head: chain.values().next_back().map(link).unwrap_or_default(),
            faults: self.faults,
            more_faults: self.more_faults,
            notes: self.notes,
        }
    }

    /// One entry for each number: the one that the others bear out, where there are several.
    fn walk(&mut self) -> BTreeMap<u64, Seen> {
        let mut at: BTreeMap<u64, Vec<Seen>> = BTreeMap::new();
        for seen in &self.seen {
            at.entry(seen.seq).or_default().push(*seen);
        }
        let mut chain: BTreeMap<u64, Seen> = BTreeMap::new();
        for (seq, lines) in &at {
            let before = chain.values().next_back().copied();
            let followers = at.get(&seq.saturating_add(1)).map_or(&[][..], Vec::as_slice);
            let follows = |seen: &Seen| match before {
                Some(before) if before.seq + 1 == *seq => seen.prev == before.hash,
                _ => *seq > 1 || seen.prev == AuditHash::NONE,
            };
            let is_borne_out = |seen: &Seen| followers.iter().any(|next| next.is_sound && next.prev == seen.hash);
            let rank = |seen: &&Seen| (seen.is_sound, follows(seen), is_borne_out(seen));
            // The first of the best: `max_by_key` gives the last.
            let Some(best) = lines.iter().rev().max_by_key(rank).copied() else { continue };
            self.judge_entry(before, best, lines, follows(&best));
            chain.insert(*seq, best);
        }
        chain
    }

    fn judge_entry(&mut self, before: Option<Seen>, best: Seen, lines: &[Seen], follows: bool) {
        let (seq, shown) = (best.seq, self.shown(best.place));
        match before {
            Some(before) if before.seq + 1 < seq => {
                let (first, last) = (before.seq + 1, seq - 1);
                let places = vec![self.shown(before.place), shown.clone()];
                let text = format!("{} between {} and {shown}", entries(first, last, "missing"), places[0]);
                let text = match self.gaps.iter().find(|(_, gap)| gap.after_seq < first && gap.next_seq > last) {
                    Some((place, _)) => {
                        format!("{text}: the node was away ({}), and no other file fills it", self.shown(*place))
                    }
                    None => text,
                };
                self.fault(Kind::Missing, (first, last), places, text);
            }
            Some(before) if !follows => {
                let places = vec![self.shown(before.place), shown.clone()];
                let text = format!(
                    "entry {seq} at {shown} does not follow entry {} at {}: one of the two was changed or put in",
                    before.seq, places[0]
                );
                self.fault(Kind::Changed, (before.seq, seq), places, text);
            }
            None if !follows => {
                let text = format!("entry {seq} at {shown} is the first, and follows another");
                self.fault(Kind::Changed, (seq, seq), vec![shown.clone()], text);
            }
            _ => {}
        }
        let mut told = BTreeSet::from([best.hash]);
        for other in lines.iter().filter(|other| other.is_sound) {
            if told.insert(other.hash) {
                let there = self.shown(other.place);
                let text = format!("entry {seq} at {there} is another than at {shown}, which its neighbours bear out");
                self.fault(Kind::Changed, (seq, seq), vec![there, shown.clone()], text);
            }
        }
    }

    /// What one node's files leave out without saying so, though another's have it.
    fn judge_books(&mut self, chain: &BTreeMap<u64, Seen>) {
        for book in 0..self.books.len() {
            let mut own: Vec<Seen> =
                self.seen.iter().filter(|seen| self.book_of(seen.place) == book).copied().collect();
            own.sort_by_key(|seen| (seen.seq, seen.place));
            for pair in own.windows(2) {
                let [before, after] = pair else { continue };
                let (first, last) = (before.seq.saturating_add(1), after.seq.saturating_sub(1));
                if first > last {
                    continue;
                }
                let filled = chain.range(first..=last).next().map(|(_, seen)| self.shown(seen.place));
                let is_told = |(place, gap): &&(Place, GapLine)| {
                    self.book_of(*place) == book && gap.after_seq == before.seq && gap.next_seq == after.seq
                };
                let gap = self.gaps.iter().find(is_told).map(|(place, _)| self.shown(*place));
                match (filled, gap) {
                    // All files lack it: that was told.
                    (None, _) => {}
                    (Some(there), Some(gap)) => {
                        self.note(format!("{} in {gap}, filled from {there} on", entries(first, last, "away")));
                    }
                    (Some(there), None) => {
                        let places = vec![self.shown(before.place), self.shown(after.place), there];
                        let text = format!(
                            "{} between {} and {}; {} has it",
                            entries(first, last, "missing"),
                            places[0],
                            places[1],
                            places[2]
                        );
                        self.fault(Kind::Missing, (first, last), places, text);
                    }
                }
            }
        }
    }

    /// Words that one node wrote hang together; those of several nodes may differ, which is told.
    fn judge_words(&mut self) {
        for book in 0..self.books.len() {
            let mut own: Vec<Seen> =
                self.seen.iter().filter(|seen| self.book_of(seen.place) == book).copied().collect();
            own.sort_by_key(|seen| (seen.seq, seen.place));
            for pair in own.windows(2) {
                let [before, after] = pair else { continue };
                let (Some(words), Some(next)) = (before.words, after.words) else { continue };
                // What is missing without a word of it, or was changed by itself, was told.
                let is_next = before.seq.saturating_add(1) == after.seq && after.prev == before.hash
                    || self.gaps.iter().any(|(place, gap)| {
                        self.book_of(*place) == book && gap.after_seq == before.seq && gap.next_seq == after.seq
                    });
                let is_own = [before, after].iter().all(|seen| seen.is_sound) && words.is_sound && next.is_sound;
                if is_next && is_own && next.prev != words.hash {
                    let places = vec![self.shown(before.place), self.shown(after.place)];
                    let text = format!(
                        "the words of entry {} at {} do not follow those of entry {} at {}: words were changed up to \
                         there, or entries in between were taken out",
                        after.seq, places[1], before.seq, places[0]
                    );
                    self.fault(Kind::Changed, (before.seq, after.seq), places, text);
                }
            }
        }
        self.note_other_words();
    }

    /// The same entry in other words: of another version of the program, or rewritten with all that follows in its file.
    fn note_other_words(&mut self) {
        let mut known: BTreeMap<u64, (Place, AuditHash)> = BTreeMap::new();
        let (mut first, mut count) = (None, 0_u64);
        for seen in self.seen.iter().filter(|seen| seen.is_sound) {
            let Some(words) = seen.words.filter(|words| words.is_sound) else { continue };
            let (place, said) = *known.entry(seen.seq).or_insert((seen.place, words.said));
            if said != words.said {
                count += 1;
                first = first.or(Some((seen.seq, place, seen.place)));
            }
        }
        if let Some((seq, one, other)) = first {
            let more = if count > 1 { format!(", and {} more", count - 1) } else { String::new() };
            let (one, other) = (self.shown(one), self.shown(other));
            self.note(format!(
                "entry {seq} is worded in one way at {one} and in another at {other}{more}: the nodes ran other versions \
                 then, or one of the files was rewritten from there on"
            ));
        }
    }

    /// A gap says what it knows of both its sides.
    fn judge_gaps(&mut self, chain: &BTreeMap<u64, Seen>) {
        for (place, gap) in std::mem::take(&mut self.gaps) {
            let after = chain.get(&gap.after_seq).filter(|seen| seen.hash != gap.after_hash);
            let next = chain.get(&gap.next_seq).filter(|seen| seen.prev != gap.next_prev);
            for seen in after.into_iter().chain(next).copied().collect::<Vec<_>>() {
                let (shown, there) = (self.shown(place), self.shown(seen.place));
                let text = format!("the gap at {shown} and entry {} at {there} do not fit: one was changed", seen.seq);
                self.fault(Kind::Changed, (seen.seq, seen.seq), vec![shown, there], text);
            }
        }
    }

    /// Where the files begin and end.
    fn judge_ends(&mut self, chain: &BTreeMap<u64, Seen>) {
        let (Some(first), Some(last)) = (chain.keys().next().copied(), chain.keys().next_back().copied()) else {
            return;
        };
        if first > 1 {
            self.note(format!(
                "begins with entry {first}: what came before is not here (retention deletes the oldest months)"
            ));
        }
        for book in 0..self.books.len() {
            let own = self.seen.iter().filter(|seen| self.book_of(seen.place) == book).map(|seen| seen.seq);
            let end = own.max().unwrap_or_default();
            if end < last {
                let name = &self.books[book];
                self.note(format!(
                    "{name} ends with entry {end}, others go on to {last}: was that node down, or behind?"
                ));
            }
        }
    }
}

fn entries(first: u64, last: u64, word: &str) -> String {
    if first == last { format!("entry {first} is {word}") } else { format!("entries {first} to {last} are {word}") }
}

#[cfg(test)]
#[path = "audit_verify_tests.rs"]
mod tests;
