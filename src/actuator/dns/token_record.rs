//! The token as kept in a zone: one line of text in a TXT record beside the records it protects.
//!
//! `v=watchdog1 cluster=demo group=aicamera token=1.7 run=0192…`: these keys, once each, in this order, one space
//! between. Anything else is not ours, and is treated as text that somebody else wrote.

use std::fmt;

use crate::domain::attempt::Warrant;
use crate::domain::ids::{ClusterName, GroupName, RunId, Token};

/// The format's name. Raised only for a format this one cannot be read as.
const VERSION: &str = "v=watchdog1";
/// What every version of the format begins with.
const FAMILY: &str = "v=watchdog";
/// Longest text written or read. Providers allow more; our names never need it.
const MAX_BYTES: usize = 1000;
/// One string within a TXT record holds at most this much (RFC 1035, 3.3).
pub const STRING_BYTES: usize = 255;

/// A token in a zone, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Which cluster wrote it.
    pub cluster: ClusterName,
    /// For which group. Tokens are comparable only within one.
    pub group: GroupName,
    /// The token.
    pub token: Token,
    /// The run that raised it.
    pub run: RunId,
}

/// A text is no token record, or a warrant cannot be written as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRecordError {
    /// Somebody else's text.
    #[error("{text:?} is not a token record: {detail}")]
    Foreign {
        /// What was read, shortened.
        text: String,
        /// The first thing wrong with it.
        detail: String,
    },
    /// Ours, but of a version this program does not know: its token cannot be compared.
    #[error("{text:?} was written by another version of this program; use that version, or delete the record by hand")]
    OtherVersion {
        /// What was read, shortened.
        text: String,
    },
    /// A name that cannot be written into the record.
    #[error("{key} {value:?} cannot be kept in a token record: {detail}")]
    BadValue {
        /// Which one.
        key: &'static str,
        /// As given.
        value: String,
        /// What is wrong with it.
        detail: &'static str,
    },
}

impl TokenRecord {
    /// What `warrant` writes.
    pub fn new(warrant: &Warrant) -> Result<Self, TokenRecordError> {
        let record = Self {
            cluster: warrant.cluster.clone(),
            group: warrant.group.clone(),
            token: warrant.token,
            run: warrant.run.clone(),
        };
        let values =
            [("cluster", record.cluster.as_str()), ("group", record.group.as_str()), ("run", record.run.as_str())];
        for (key, value) in values {
            let wrong = |detail| TokenRecordError::BadValue { key, value: shortened(value), detail };
            if value.is_empty() {
                return Err(wrong("it is empty"));
            }
            if !value.bytes().all(is_plain) {
                return Err(wrong("only printable ASCII without space, quote and backslash is allowed"));
            }
        }
        if record.to_string().len() > MAX_BYTES {
            return Err(TokenRecordError::BadValue {
                key: "the record",
                value: shortened(&record.to_string()),
                detail: "longer than 1000 bytes; use shorter names",
            });
        }
        Ok(record)
    }

    /// Reads a text back, strictly.
    pub fn parse(text: &str) -> Result<Self, TokenRecordError> {
        let foreign = |detail: &str| TokenRecordError::Foreign { text: shortened(text), detail: detail.to_owned() };
        if text.len() > MAX_BYTES {
            return Err(foreign("longer than 1000 bytes"));
        }
        let mut parts = text.split(' ');
        let version = parts.next().unwrap_or_default();
        if version != VERSION {
            let other =
                version.strip_prefix(FAMILY).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            let text = shortened(text);
            return Err(if other {
                TokenRecordError::OtherVersion { text }
            } else {
                foreign("it does not begin with v=watchdog1")
            });
        }
        let mut value = |key: &str| {
            let part = parts.next().ok_or_else(|| foreign(&format!("{key}= is missing")))?;
            let value = part.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
            value
                .filter(|value| !value.is_empty() && value.bytes().all(is_plain))
                .ok_or_else(|| foreign(&format!("{key}= is missing, misplaced or empty")))
        };
        let record = Self {
            cluster: ClusterName::from(value("cluster")?),
            group: GroupName::from(value("group")?),
            token: value("token")?
                .parse()
                .map_err(|e: crate::domain::ids::TokenParseError| foreign(&shortened(&e.to_string())))?,
            run: RunId::from(value("run")?),
        };
        match parts.next() {
            Some(_) => Err(foreign("there is more after run=")),
            None => Ok(record),
        }
    }

    /// The text cut into strings that a TXT record can hold. Readers join them again.
    pub fn strings(&self) -> Vec<String> {
        // Only ASCII gets in, so every cut is between characters.
        let text = self.to_string();
        text.as_bytes().chunks(STRING_BYTES).map(|chunk| String::from_utf8_lossy(chunk).into_owned()).collect()
    }
}

impl fmt::Display for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, group, token, run } = self;
        write!(f, "{VERSION} cluster={cluster} group={group} token={token} run={run}")
    }
}

/// What the texts found mean for one who comes with a warrant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Lower, none, or nobody's: may be replaced. The words say what was found.
    Lower {
        /// The highest of ours, if any.
        found: Option<TokenRecord>,
        /// For the evidence.
        was: String,
    },
    /// The warrant's own token. The log issues each once; the run beside it may be another's whose unsettled step was
    /// settled under it.
    Ours,
    /// Higher.
    Held(Token),
    /// Another group's or version's: never to be replaced. Says what to do.
    Alien(String),
}

/// Compares what a zone holds with what `warrant` carries. Several texts (somebody added some) count as the highest.
pub fn judge(texts: &[String], warrant: &Warrant, token_record: &str) -> Standing {
    let mut found: Option<TokenRecord> = None;
    let mut foreign = Vec::new();
    for text in texts {
        match TokenRecord::parse(text) {
            Ok(record) if record.cluster != warrant.cluster || record.group != warrant.group => {
                let TokenRecord { cluster, group, .. } = record;
                return Standing::Alien(format!(
                    "token record {token_record} belongs to group {group} of cluster {cluster}: give this group another \
                     token_record, or delete that record by hand if nobody uses it"
                ));
            }
            Ok(record) => {
                if found.as_ref().is_none_or(|best| best.token < record.token) {
                    found = Some(record);
                }
            }
            Err(error @ TokenRecordError::OtherVersion { .. }) => {
                return Standing::Alien(format!("token record {token_record}: {error}"));
            }
            Err(_) => foreign.push(format!("{:?}", shortened(text))),
        }
    }
    if let Some(best) = &found {
        if best.token > warrant.token {
            return Standing::Held(best.token);
        }
        if best.token == warrant.token && texts.len() == 1 {
            return Standing::Ours;
        }
    }
    let mut was = match &found {
        Some(best) => format!("was token {} of run {}", best.token, best.run),
        None if foreign.is_empty() => "there was no token".to_owned(),
        None => "there was no token of ours".to_owned(),
    };
    if !foreign.is_empty() {
        was.push_str(&format!("; replaced text that somebody else wrote there: {}", foreign.join(", ")));
    }
    Standing::Lower { found, was }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::StepId;
    use proptest::prelude::*;

    fn warrant(token: (u64, u64), run: &str) -> Warrant {
        Warrant {
            cluster: "demo".into(),
            group: "aicamera".into(),
            run: run.into(),
            step: StepId::from("dns"),
            attempt: 1,
            token: Token { epoch: token.0, n: token.1 },
            fenced_host: None,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let record = TokenRecord::new(&warrant((1, 7), "r1")).unwrap();
        assert_eq!(record.to_string(), "v=watchdog1 cluster=demo group=aicamera token=1.7 run=r1");
        assert_eq!(TokenRecord::parse(&record.to_string()), Ok(record));
    }

    #[test]
    fn long_texts_are_cut_into_strings_of_255_bytes() {
        let record = TokenRecord::new(&warrant((1, 7), &"r".repeat(600))).unwrap();
        let strings = record.strings();
        assert_eq!(strings.iter().map(String::len).collect::<Vec<_>>(), vec![255, 255, record.to_string().len() - 510]);
        assert_eq!(TokenRecord::parse(&strings.concat()), Ok(record));
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        for (run, word) in
            [("", "empty"), ("a b", "space"), ("a\"b", "quote"), ("ü", "ASCII"), (&*"r".repeat(1000), "1000")]
        {
            let error = TokenRecord::new(&warrant((1, 7), run)).unwrap_err().to_string();
            assert!(error.contains(word), "{run:?}: {error}");
        }
    }

    #[test]
    fn bad_texts_are_foreign_and_say_why() {
        let good = "v=watchdog1 cluster=demo group=aicamera token=1.7 run=r1";
        let long = format!("{good}{}", "x".repeat(1000));
        for (text, why) in [
            ("", "begin with"),
            ("hello", "begin with"),
            ("v=spf1 -all", "begin with"),
            ("v=watchdog", "begin with"),
            ("v=watchdogs cluster=demo", "begin with"),
            ("v=watchdog1", "cluster= is missing"),
            ("v=watchdog1  cluster=demo group=aicamera token=1.7 run=r1", "cluster="),
            ("v=watchdog1 group=aicamera cluster=demo token=1.7 run=r1", "cluster="),
            ("v=watchdog1 cluster= group=aicamera token=1.7 run=r1", "cluster="),
            ("v=watchdog1 cluster=demo group=aicamera token=1 run=r1", "EPOCH.N"),
            ("v=watchdog1 cluster=demo group=aicamera token=01.7 run=r1", "EPOCH.N"),
            ("v=watchdog1 cluster=demo group=aicamera token=1.-7 run=r1", "EPOCH.N"),
            ("v=watchdog1 cluster=demo group=aicamera token=1.99999999999999999999 run=r1", "EPOCH.N"),
            ("v=watchdog1 cluster=demo group=aicamera token=1.7", "run= is missing"),
            ("v=watchdog1 cluster=demo group=aicamera token=1.7 run=r1 ", "more after"),
            ("v=watchdog1 cluster=demo group=aicamera token=1.7 run=r1 run=r2", "more after"),
            ("v=watchdog1 cluster=demo group=aicamera token=1.7 run=r\u{fffd}", "run="),
            (&long, "longer"),
        ] {
            let error = TokenRecord::parse(text).unwrap_err();
            assert!(matches!(error, TokenRecordError::Foreign { .. }), "{text}: {error:?}");
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
        assert!(matches!(TokenRecord::parse("v=watchdog2 x"), Err(TokenRecordError::OtherVersion { .. })));
    }

    #[test]
    fn the_highest_of_ours_counts() {
        let text = |token: &str, run: &str| format!("v=watchdog1 cluster=demo group=aicamera token={token} run={run}");
        let mine = warrant((1, 7), "r1");
        let judged = |texts: &[String]| judge(texts, &mine, "_w.test.");
        assert!(matches!(judged(&[]), Standing::Lower { found: None, .. }));
        assert!(matches!(judged(&[text("1.6", "r0")]), Standing::Lower { found: Some(_), .. }));
        assert_eq!(judged(&[text("1.7", "r1")]), Standing::Ours);
        assert_eq!(judged(&[text("1.7", "r2")]), Standing::Ours);
        assert_eq!(judged(&[text("1.8", "r1")]), Standing::Held(Token { epoch: 1, n: 8 }));
        assert_eq!(judged(&[text("2.1", "r9")]), Standing::Held(Token { epoch: 2, n: 1 }));
        assert_eq!(judged(&[text("1.6", "r0"), text("1.9", "r2")]), Standing::Held(Token { epoch: 1, n: 9 }));
        // Ours with a stranger's text beside it is written anew, alone.
        let Standing::Lower { found: Some(_), was } = judged(&[text("1.7", "r1"), "hello".into()]) else { panic!() };
        assert!(was.contains("hello"), "{was}");
        let Standing::Lower { found: None, was } = judged(&["hello".into()]) else { panic!() };
        assert!(was.contains("hello") && was.contains("somebody else"), "{was}");
        let other = text("1.1", "r1").replace("aicamera", "market");
        let Standing::Alien(why) = judged(&[other]) else { panic!() };
        assert!(why.contains("market") && why.contains("token_record"), "{why}");
        assert!(matches!(judged(&["v=watchdog9 x".into()]), Standing::Alien(_)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic_and_only_exactly(text in "\\PC*|(v=watchdog1 )?[a-z0-9=. ]{0,80}") {
            if let Ok(record) = TokenRecord::parse(&text) {
                prop_assert_eq!(record.to_string(), text);
            }
        }
    }
}
