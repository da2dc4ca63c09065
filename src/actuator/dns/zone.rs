//! What a provider must be able to do, and how what it shows is compared with what is wanted.

use std::net::{Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use tokio::time::Instant;

use super::token_record::TokenRecord;
use crate::domain::plan::{DnsRecord, RecordKind};
use crate::resolve::canonical_name;

/// What is to be changed or looked at.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The token record's name, canonical.
    pub token_record: String,
    /// The records as they shall be; none where only the token is raised.
    pub records: &'a [DnsRecord],
    /// What the token record shall say.
    pub token: TokenRecord,
}

/// A record set as the provider shows it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Canonical name.
    pub name: String,
    /// Type.
    pub kind: RecordKind,
    /// Time to live, seconds.
    pub ttl_s: u32,
    /// Canonical values, sorted.
    pub values: Vec<String>,
}

/// What the provider shows at one moment, with its own form of it for the compare-and-swap.
#[derive(Debug)]
pub struct Seen<R> {
    /// The token record's texts, each with its strings joined.
    pub texts: Vec<String>,
    /// The address and alias record sets at the wanted names.
    pub present: Vec<Present>,
    /// The provider's own form.
    pub raw: R,
}

/// Nothing was sent that could change anything.
#[derive(Debug)]
pub struct Trouble {
    /// Trying again may help.
    pub retryable: bool,
    /// What went wrong and what to do next.
    pub reason: String,
}

/// The swap did not happen, or nobody knows.
#[derive(Debug)]
pub enum SwapTrouble {
    /// What was read is no longer what is there: another was faster. Nothing was changed.
    Lost,
    /// Nothing was changed.
    Failed(Trouble),
    /// It may have been received.
    Unsure(String),
}

/// How far an accepted change has come.
#[derive(Debug)]
pub enum Settled {
    /// Every server of the provider answers it; the words say how that is known.
    Yes(String),
    /// Not everywhere yet.
    Pending(String),
}

/// A provider's side of one zone, for one attempt.
#[async_trait]
pub trait Zone: Send {
    /// The provider's own form of what it showed.
    type Raw: Send + Sync;

    /// Reads the token record and the records at the provider itself.
    async fn read(&mut self, wanted: &Wanted<'_>, deadline: Instant) -> Result<Seen<Self::Raw>, Trouble>;

    /// One atomic change, only if the token record is still exactly as `seen`: the new token, and the records.
    async fn swap(&mut self, seen: &Seen<Self::Raw>, wanted: &Wanted<'_>, deadline: Instant)
    -> Result<(), SwapTrouble>;

    /// Waits until the last accepted change is everywhere, or the deadline.
    async fn settled(&mut self, wanted: &Wanted<'_>, deadline: Instant) -> Settled;
}

/// What is wrong with the records themselves; nothing needs to be asked to know it.
pub(super) fn check(records: &[DnsRecord], token_record: &str) -> Result<(), String> {
    if records.is_empty() {
        return Err("there is no record to repoint: name at least one in the group's configuration".to_owned());
    }
    for (nth, record) in records.iter().enumerate() {
        let DnsRecord { name, kind, value, .. } = record;
        canonical_value(record).map_err(|detail| format!("record {name} {kind} {value:?}: {detail}"))?;
        let same = |other: &&DnsRecord| canonical_name(&other.name) == canonical_name(name);
        if records[..nth].iter().filter(same).any(|other| other.kind == *kind || conflict(other.kind, *kind)) {
            return Err(format!("record {name} {kind} is named twice or beside a CNAME of the same name"));
        }
        if canonical_name(token_record) == canonical_name(name) {
            return Err(format!("record {name} {kind} has the token record's name: give token_record another one"));
        }
    }
    Ok(())
}

/// The value in the one spelling used for comparing.
pub(in crate::actuator) fn canonical_value(record: &DnsRecord) -> Result<String, String> {
    let value = record.value.trim();
    match record.kind {
        RecordKind::A => value.parse::<Ipv4Addr>().map(|a| a.to_string()).map_err(|_| "not an IPv4 address".to_owned()),
        RecordKind::Aaaa => {
            value.parse::<Ipv6Addr>().map(|a| a.to_string()).map_err(|_| "not an IPv6 address".to_owned())
        }
        RecordKind::Cname => {
            crate::resolve::parse_name(value).map(|name| canonical_name(&name.to_ascii())).map_err(|e| e.to_string())
        }
    }
}

/// Types that cannot stand at the same name.
pub(super) fn conflict(a: RecordKind, b: RecordKind) -> bool {
    (a == RecordKind::Cname) != (b == RecordKind::Cname)
}

/// What differs between what is wanted and what is there; empty where nothing does.
pub(super) fn differences(records: &[DnsRecord], present: &[Present]) -> Vec<String> {
    let mut differences = Vec::new();
    for record in records {
        let name = canonical_name(&record.name);
        let Ok(value) = canonical_value(record) else {
            differences.push(format!("{name} {} cannot be {:?}", record.kind, record.value));
            continue;
        };
        let there = present.iter().find(|set| set.name == name && set.kind == record.kind);
        match there {
            None => differences.push(format!("{name} {} is not there", record.kind)),
            Some(set) if set.values != [value.clone()] => {
                differences.push(format!("{name} {} is {}, not {value}", record.kind, set.values.join(" ")));
            }
            Some(set) if set.ttl_s != record.ttl_s => {
                differences
                    .push(format!("{name} {} has a TTL of {} s, not {} s", record.kind, set.ttl_s, record.ttl_s));
            }
            Some(_) => {}
        }
    }
    differences
}

/// The records as one line for the evidence.
pub(super) fn describe(records: &[DnsRecord]) -> String {
    let one = |record: &DnsRecord| {
        format!("{} {} {} {}", canonical_name(&record.name), record.ttl_s, record.kind, record.value)
    };
    records.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, kind: RecordKind, value: &str) -> DnsRecord {
        DnsRecord { name: name.into(), kind, ttl_s: 300, value: value.into() }
    }

    #[test]
    fn bad_records_are_named() {
        use RecordKind::{A, Aaaa, Cname};
        for (records, word) in [
            (vec![], "no record"),
            (vec![record("a.test.", A, "::1")], "IPv4"),
            (vec![record("a.test.", A, "1.2.3")], "IPv4"),
            (vec![record("a.test.", Aaaa, "1.2.3.4")], "IPv6"),
            (vec![record("a.test.", Cname, "a..b")], "a..b"),
            (vec![record("a.test.", A, "1.2.3.4"), record("A.test", A, "1.2.3.5")], "twice"),
            (vec![record("a.test.", A, "1.2.3.4"), record("a.test.", Cname, "b.test.")], "CNAME"),
            (vec![record("_w.TEST", A, "1.2.3.4")], "token record"),
        ] {
            let error = check(&records, "_w.test.").unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(check(&[record("a.test", A, "1.2.3.4"), record("a.test", Aaaa, "::1")], "_w.test."), Ok(()));
    }

    #[test]
    fn every_difference_is_named() {
        let wanted = [record("A.test", RecordKind::A, "1.2.3.4")];
        let set = |values: &[&str], ttl_s| Present {
            name: "a.test.".into(),
            kind: RecordKind::A,
            ttl_s,
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        };
        assert!(differences(&wanted, &[set(&["1.2.3.4"], 300)]).is_empty());
        for (present, word) in [
            (vec![], "not there"),
            (vec![set(&["1.2.3.5"], 300)], "1.2.3.5"),
            (vec![set(&["1.2.3.4", "1.2.3.5"], 300)], "1.2.3.4 1.2.3.5"),
            (vec![set(&["1.2.3.4"], 60)], "60 s"),
        ] {
            let found = differences(&wanted, &present);
            assert!(found.len() == 1 && found[0].contains(word), "{found:?}");
        }
    }
}
