//! A line of a node's audit file: an entry with the hash of the one before it, or a gap where entries went by while the
//! node was away. The names of the fields are what programs of other people read: none is ever renamed.

use serde::{Deserialize, Serialize};

use super::audit::{AuditEntry, AuditHash, Link};
use super::ids::{GroupName, NodeId, Principal, UnixMs};

/// No line is longer, bytes: a command is a quarter of this at most, and each of its bytes may be written as six.
pub const LINE_BYTES_MAX: usize = 2 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
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
    /// What.
    pub what: String,
    /// Why.
    pub reason: String,
    /// On what evidence.
    pub evidence: Vec<String>,
    /// What came of it.
    pub outcome: String,
    /// Of the entry before.
    pub prev: AuditHash,
    /// Of this one.
    pub hash: AuditHash,
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
    /// The entry, which follows one with hash `prev`.
    pub fn of(entry: &AuditEntry, prev: AuditHash) -> Self {
        Self {
            seq: entry.seq,
            at_ms: entry.at.0,
            index: entry.index,
            node: entry.node.0,
            by: entry.by.0.clone(),
            from: entry.from.clone(),
            group: entry.group.as_ref().map(|group| group.0.clone()),
            what: entry.what.clone(),
            reason: entry.reason.clone(),
            evidence: entry.evidence.clone(),
            outcome: entry.outcome.clone(),
            prev,
            hash: entry.hash,
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

    /// Its hash is that of what it says.
    pub fn is_sound(&self) -> bool {
        self.seq > 0 && self.entry().hash_after(&self.prev) == self.hash
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
            what: "pause".to_owned(),
            reason: "việc \"định kỳ\"\n".to_owned(),
            evidence: vec!["a".to_owned()],
            outcome: "done".to_owned(),
            hash: AuditHash::NONE,
        };
        let first = entry.chained(&Link::default());
        let line = Line::Entry(EntryLine::of(&first, AuditHash::NONE));
        let text = line.to_text().unwrap();
        let (zero, hash) = (AuditHash::NONE, first.hash);
        assert_eq!(
            text,
            format!(
                "{{\"line\":\"entry\",\"seq\":1,\"at_ms\":1795231050123,\"index\":7,\"node\":3,\"by\":\"user:linh\",\
                 \"from\":\"10.1.0.7:52114\",\"group\":\"aicamera\",\"what\":\"pause\",\
                 \"reason\":\"việc \\\"định kỳ\\\"\\n\",\"evidence\":[\"a\"],\"outcome\":\"done\",\
                 \"prev\":\"{zero}\",\"hash\":\"{hash}\"}}\n"
            )
        );
        let read = Line::parse(text.trim_end().as_bytes()).unwrap();
        assert_eq!(read, line);
        let Line::Entry(read) = read else { panic!("an entry") };
        assert!(read.is_sound() && read.entry() == first);
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
                 \"what\":\"\",\"reason\":\"\",\"evidence\":[],\"outcome\":\"\",\"prev\":\"{zero}\",\"hash\":\"{zero}\"{rest}}}"
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
