//! A line of a node's audit file: an entry with the hash of the one before it, or a gap where entries went by while the
//! node was away. The names of the fields are what programs of other people read: none is ever renamed.
//!
//! A line's words are bound to the words of the line before it in the same node's files, over gaps too. Words belong to the
//! node that made them, so that this chain is the files' own: another node's may word the same entry in another way.

use serde::{Deserialize, Serialize};

use super::audit::{AuditEntry, AuditHash, Link};
use super::ids::{GroupName, NodeId, Principal, UnixMs};

/// No line is longer, bytes: a command is a quarter of this at most, and each of its bytes may be written as six.
pub const LINE_BYTES_MAX: usize = 2 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one line lives at a time")]
pub enum Line {
    /// An entry.
    Entry(EntryLine),
    /// Entries that this file does not have.
    Gap(GapLine),
}

/// An entry, as a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryLine {
    /// Consecutive from 1.
    pub seq: u64,
    /// Milliseconds since 1970 by the proposer's clock.
    pub at_ms: u64,
    /// Position in the log.
    pub index: u64,
    /// The proposing node's number.
    pub node: u64,
    /// Who asked.
    pub by: String,
    /// From where.
    pub from: String,
    /// The group, or nothing.
    pub group: Option<String>,
    /// The change's name.
    pub change: String,
    /// SHA-256 of the command's bytes in the log.
    pub command: AuditHash,
    /// What came of it, in a word that stays.
    pub code: String,
    /// Of the entry before.
    pub prev: AuditHash,
    /// Of this one: all of the above.
    pub hash: AuditHash,
    /// What, in words.
    pub what: String,
    /// Why.
    pub reason: String,
    /// On what evidence.
    pub evidence: Vec<String>,
    /// What came of it, in words.
    pub outcome: String,
    /// The words' hash of the entry before it in the same node's files.
    pub words_prev: AuditHash,
    /// Of this one's words, its own hash and the one before.
    pub words: AuditHash,
}

/// A gap, with what is known of the entries on both sides of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GapLine {
    /// The last entry before it.
    pub after_seq: u64,
    /// Its hash.
    pub after_hash: AuditHash,
    /// The first entry after it.
    pub next_seq: u64,
    /// The hash of the entry before that one: the last that is missing.
    pub next_prev: AuditHash,
}

impl EntryLine {
    /// The entry, which follows one with hash `prev`, in files whose last words have hash `words_prev`.
    pub fn of(entry: &AuditEntry, prev: AuditHash, words_prev: AuditHash) -> Self {
        Self {
            seq: entry.seq,
            at_ms: entry.at.0,
            index: entry.index,
            node: entry.node.0,
            by: entry.by.0.clone(),
            from: entry.from.clone(),
            group: entry.group.as_ref().map(|group| group.0.clone()),
            change: entry.change.clone(),
            command: entry.command,
            code: entry.code.clone(),
            prev,
            hash: entry.hash,
            what: entry.what.clone(),
            reason: entry.reason.clone(),
            evidence: entry.evidence.clone(),
            outcome: entry.outcome.clone(),
            words_prev,
            words: words_prev.bind_words(entry),
        }
    }

    /// The entry that the line says.
    pub fn entry(&self) -> AuditEntry {
        AuditEntry {
            seq: self.seq,
            index: self.index,
            at: UnixMs(self.at_ms),
            node: NodeId(self.node),
            by: Principal(self.by.clone()),
            from: self.from.clone(),
            group: self.group.clone().map(GroupName),
            change: self.change.clone(),
            command: self.command,
            code: self.code.clone(),
            what: self.what.clone(),
            reason: self.reason.clone(),
            evidence: self.evidence.clone(),
            outcome: self.outcome.clone(),
            hash: self.hash,
        }
    }

    /// Its place in the chain.
    pub fn link(&self) -> Link {
        Link { seq: self.seq, hash: self.hash }
    }
}

impl Line {
    /// From a line's bytes, without its end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(format!("{} bytes are more than a line ever has", bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        if text.contains('\0') {
            return Err("it has zero bytes: the machine lost power while it was written".to_owned());
        }
        let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match &line {
            Line::Gap(gap) if gap.next_seq <= gap.after_seq.saturating_add(1) => {
                Err(format!("a gap from {} to {} leaves nothing out", gap.after_seq, gap.next_seq))
            }
            Line::Entry(entry) if entry.seq == 0 => Err("seq: entries are numbered from 1".to_owned()),
            _ => Ok(line),
        }
    }

    /// As it is written, with its end.
    ///
    /// # Errors
    /// That it cannot be JSON: a fault of this program.
    pub fn to_text(&self) -> Result<String, String> {
        let mut text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        text.push('\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pinned: other people's programs read these names.
    #[test]
    fn lines_are_read_as_they_are_written_under_names_that_stay() {
        let entry = AuditEntry {
            seq: 0,
            index: 7,
            at: UnixMs(1_795_231_050_123),
            node: NodeId(3),
            by: "user:linh".into(),
            from: "10.1.0.7:52114".to_owned(),
            group: Some("aicamera".into()),
            change: "Pause".to_owned(),
            command: AuditHash::of(b"the command"),
            code: "done".to_owned(),
            what: "pause".to_owned(),
            reason: "việc \"định kỳ\"\n".to_owned(),
            evidence: vec!["a".to_owned()],
            outcome: "done".to_owned(),
            hash: AuditHash::NONE,
        };
        let first = entry.chained(&Link::default());
        let line = Line::Entry(EntryLine::of(&first, AuditHash::NONE, AuditHash::NONE));
        let text = line.to_text().unwrap();
        let (zero, hash, command) = (AuditHash::NONE, first.hash, first.command);
        let words = zero.bind_words(&first);
        assert_eq!(
            text,
            format!(
                "{{\"line\":\"entry\",\"seq\":1,\"at_ms\":1795231050123,\"index\":7,\"node\":3,\"by\":\"user:linh\",\
                 \"from\":\"10.1.0.7:52114\",\"group\":\"aicamera\",\"change\":\"Pause\",\
                 \"command\":\"{command}\",\"code\":\"done\",\"prev\":\"{zero}\",\"hash\":\"{hash}\",\
                 \"what\":\"pause\",\"reason\":\"việc \\\"định kỳ\\\"\\n\",\"evidence\":[\"a\"],\
                 \"outcome\":\"done\",\"words_prev\":\"{zero}\",\"words\":\"{words}\"}}\n"
            )
        );
        let read = Line::parse(text.trim_end().as_bytes()).unwrap();
        assert_eq!(read, line);
        let Line::Entry(read) = read else { panic!("an entry") };
        assert_eq!(read.entry(), first);
        let gap = Line::Gap(GapLine { after_seq: 4, after_hash: hash, next_seq: 9, next_prev: zero });
        let text = gap.to_text().unwrap();
        assert_eq!(
            text,
            format!(
                "{{\"line\":\"gap\",\"after_seq\":4,\"after_hash\":\"{hash}\",\"next_seq\":9,\"next_prev\":\"{zero}\"}}\n"
            )
        );
        assert_eq!(Line::parse(text.trim_end().as_bytes()), Ok(gap));
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        let entry = |rest: &str| {
            let zero = AuditHash::NONE;
            format!(
                "{{\"line\":\"entry\",\"at_ms\":1,\"index\":7,\"node\":3,\"by\":\"b\",\"from\":\"\",\"group\":null,\
                 \"change\":\"\",\"command\":\"{zero}\",\"code\":\"\",\"prev\":\"{zero}\",\"hash\":\"{zero}\",\
                 \"what\":\"\",\"reason\":\"\",\"evidence\":[],\"outcome\":\"\",\"words_prev\":\"{zero}\",\
                 \"words\":\"{zero}\"{rest}}}"
            )
        };
        assert!(Line::parse(entry(",\"seq\":1").as_bytes()).is_ok());
        for (bytes, why) in [
            (entry(""), "missing field `seq`"),
            (entry(",\"seq\":0"), "numbered from 1"),
            (entry(",\"seq\":1,\"seq\":2"), "duplicate field"),
            (entry(",\"seq\":1,\"note\":\"x\""), "unknown field"),
            (entry(",\"seq\":-1"), "invalid value"),
            ("{}".to_owned(), "missing field `line`"),
            ("{\"line\":\"other\"}".to_owned(), "unknown variant"),
            (String::new(), "EOF"),
            ("\0\0\0\0".to_owned(), "lost power"),
            (
                format!(
                    "{{\"line\":\"gap\",\"after_seq\":4,\"after_hash\":\"{0}\",\"next_seq\":5,\"next_prev\":\"{0}\"}}",
                    AuditHash::NONE
                ),
                "leaves nothing out",
            ),
        ] {
            let told = Line::parse(bytes.as_bytes()).unwrap_err();
            assert!(told.contains(why), "{bytes}: {told}");
        }
        assert!(Line::parse(b"\xff").unwrap_err().contains("UTF-8"));
        assert!(Line::parse(&vec![b' '; LINE_BYTES_MAX + 1]).unwrap_err().contains("more than a line"));
    }
}
