//! One entry of the audit, and the chain that binds each entry to the one before it: a SHA-256 over which command it was, as
//! the log holds it, what came of it, and the predecessor's hash. What is removed, altered, moved or put in later shows.
//!
//! The words that people read are not in it: each version of the program may word a command in its own way, and all of them
//! keep one chain. In a node's files the words have a hash of their own ([`AuditEntry::said`], `audit_line`).

use std::fmt;

use ring::digest::{SHA256, digest};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ids::{GroupName, NodeId, Principal, UnixMs};

/// Before everything that is hashed: bytes of another kind, or of another version of the encoding, give another hash.
const ENCODING: &[u8] = b"watchdog audit entry 2\n";
/// The same before an entry's words.
const WORDS_ENCODING: &[u8] = b"watchdog audit words 1\n";
/// And where words are bound to the words before them.
const BOUND_ENCODING: &[u8] = b"watchdog audit bound words 1\n";

/// SHA-256, written in hexadecimal.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditHash([u8; 32]);

impl AuditHash {
    /// No entry's: what the first follows, and what entries have that are older than the chain.
    pub const NONE: Self = Self([0; 32]);

    /// The SHA-256 of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = Self::NONE;
        hash.0.copy_from_slice(digest(&SHA256, bytes).as_ref());
        hash
    }

    /// The hash of an entry's words in a file, which follow words with this hash there.
    pub fn bind_words(&self, entry: &AuditEntry) -> Self {
        let mut bytes = BOUND_ENCODING.to_vec();
        for hash in [self, &entry.hash, &entry.said()] {
            bytes.extend_from_slice(&hash.0);
        }
        Self::of(&bytes)
    }

    /// From 64 hexadecimal digits.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a hash: 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for AuditHash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AuditHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

/// A place in the chain: an entry's number and hash. Number 0 is before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The entry's number.
    pub seq: u64,
    /// Its hash.
    pub hash: AuditHash,
}

/// One entry of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Consecutive from 1; 0 in entries that are older than the chain.
    #[serde(default)]
    pub seq: u64,
    /// Position in the log; more than one entry may have the same.
    pub index: u64,
    /// By the proposer's clock.
    pub at: UnixMs,
    /// The proposing node; of a refused call the node that refused it.
    pub node: NodeId,
    /// Who asked.
    pub by: Principal,
    /// From where, as the first node saw the caller (`10.1.0.7:52114`); empty for what a node does by itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// The group.
    pub group: Option<GroupName>,
    /// The change's name, which stays.
    #[serde(default)]
    pub change: String,
    /// SHA-256 of the command's bytes in the log: of the one that caused the entry, where the entry is about something else.
    #[serde(default)]
    pub command: AuditHash,
    /// What came of it, in a word that stays: `done`, `done:TOKEN`, `noted`, or a rejection's.
    #[serde(default)]
    pub code: String,
    /// The change, with what matters of it, in words. These and all words below are made by the node that applied it.
    pub what: String,
    /// Why.
    pub reason: String,
    /// What it was decided on, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// `done`, or why it was rejected.
    pub outcome: String,
    /// Over all of the above but the words, and the hash of the entry before.
    #[serde(default)]
    pub hash: AuditHash,
}

impl AuditEntry {
    /// The hash that it must have, where the entry before has hash `prev`.
    pub fn hash_after(&self, prev: &AuditHash) -> AuditHash {
        let mut bytes = ENCODING.to_vec();
        bytes.extend_from_slice(&prev.0);
        for value in [self.seq, self.index, self.at.0, self.node.0] {
            number(&mut bytes, value);
        }
        text(&mut bytes, self.by.as_str());
        text(&mut bytes, &self.from);
        number(&mut bytes, u64::from(self.group.is_some()));
        text(&mut bytes, self.group.as_ref().map_or("", GroupName::as_str));
        text(&mut bytes, &self.change);
        bytes.extend_from_slice(&self.command.0);
        text(&mut bytes, &self.code);
        AuditHash::of(&bytes)
    }

    /// The hash of its words alone.
    pub fn said(&self) -> AuditHash {
        let mut bytes = WORDS_ENCODING.to_vec();
        text(&mut bytes, &self.what);
        text(&mut bytes, &self.reason);
        number(&mut bytes, self.evidence.len() as u64);
        for line in &self.evidence {
            text(&mut bytes, line);
        }
        text(&mut bytes, &self.outcome);
        AuditHash::of(&bytes)
    }

    /// The next entry after `head`: numbered and hashed.
    pub fn chained(mut self, head: &Link) -> Self {
        self.seq = head.seq.saturating_add(1);
        self.hash = self.hash_after(&head.hash);
        self
    }

    /// Its place.
    pub fn link(&self) -> Link {
        Link { seq: self.seq, hash: self.hash }
    }
}

/// Numbers have eight bytes, and texts their length before them, so that no two entries are encoded alike.
fn number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_be_bytes());
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> AuditEntry {
        AuditEntry {
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
            reason: "planned work".to_owned(),
            evidence: vec!["a".to_owned(), "b".to_owned()],
            outcome: "done".to_owned(),
            hash: AuditHash::NONE,
        }
    }

    /// Pinned: files that were written years ago are verified by this.
    #[test]
    fn the_encoding_does_not_change() {
        let first = entry().chained(&Link::default());
        assert_eq!(first.seq, 1);
        assert_eq!(first.hash.to_string(), "96df8fd126175b039a28efdefbeb9dbf9b8c40a89aed9d5f3850ed6e7d1c1534");
        let second = AuditEntry { group: None, from: String::new(), evidence: Vec::new(), ..entry() };
        let second = second.chained(&first.link());
        assert_eq!(second.hash.to_string(), "6d4c202bb15602c41d7b2ff8f61b971a69fcc602623a0c777306ac9388a695d5");
    }

    /// No field can be changed, and nothing can be moved from one to the next, without another hash.
    #[test]
    fn every_field_is_in_the_hash() {
        let whole = entry().chained(&Link::default());
        let other = |change: fn(&mut AuditEntry)| {
            let mut other = whole.clone();
            change(&mut other);
            other
        };
        let changed = [
            other(|e| e.seq += 1),
            other(|e| e.index += 1),
            other(|e| e.at.0 += 1),
            other(|e| e.node.0 += 1),
            other(|e| e.by.0.push('x')),
            other(|e| e.from.clear()),
            other(|e| e.group = None),
            other(|e| e.group = Some("".into())),
            other(|e| e.change = "Resume".to_owned()),
            other(|e| e.command = AuditHash::of(b"another command")),
            other(|e| e.code = "stale".to_owned()),
            other(|e| {
                e.by = "user:linh1".into();
                e.from = "0.1.0.7:52114".to_owned();
            }),
        ];
        let mut hashes: Vec<_> = changed.iter().map(|entry| entry.hash_after(&AuditHash::NONE)).collect();
        hashes.push(whole.hash);
        hashes.push(whole.hash_after(&whole.hash));
        assert_all_differ(hashes);
        let worded = [
            other(|e| e.what.push(' ')),
            other(|e| e.reason.clear()),
            other(|e| e.evidence = vec!["ab".to_owned()]),
            other(|e| e.evidence = vec!["a".to_owned(), "b".to_owned(), String::new()]),
            other(|e| e.outcome = "rejected: no".to_owned()),
            other(|e| {
                e.what = "pausepl".to_owned();
                e.reason = "anned work".to_owned();
            }),
        ];
        assert!(
            worded.iter().all(|entry| entry.hash_after(&AuditHash::NONE) == whole.hash),
            "words are not the chain's"
        );
        let mut said: Vec<_> = worded.iter().map(|entry| AuditHash::NONE.bind_words(entry)).collect();
        said.push(AuditHash::NONE.bind_words(&whole));
        said.push(whole.hash.bind_words(&whole));
        said.push(AuditHash::NONE.bind_words(&other(|e| e.hash = AuditHash::NONE)));
        assert_all_differ(said);
    }

    fn assert_all_differ(mut hashes: Vec<AuditHash>) {
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }

    #[test]
    fn a_hash_is_read_as_it_is_written_or_refused() {
        let hash = entry().chained(&Link::default()).hash;
        assert_eq!(AuditHash::parse(&hash.to_string()), Ok(hash));
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<AuditHash>(&text).unwrap(), hash);
        for bad in ["", "00", &"g".repeat(64), &"A".repeat(64), &"0".repeat(65), &"é".repeat(32)] {
            assert!(AuditHash::parse(bad).unwrap_err().contains("64 hexadecimal"), "{bad}");
        }
    }
}
