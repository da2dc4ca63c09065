//! What an old primary wrote past the fork, as `pg_waldump` tells: for people, bounded. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::way::Fork;
use crate::guard::protocol::Lsn;

/// No more relations are listed.
const RELATIONS_MAX: usize = 500;
/// No more transactions are listed.
const TRANSACTIONS_MAX: usize = 500;

/// Files below are those of the catalogue, as `initdb` made it.
const FIRST_OWN_FILE: u32 = 16_384;

/// The log past the fork.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diverged {
    /// Behind its last record, where that can be told.
    pub end: Option<Lsn>,
    /// Relations touched, by number (`tablespace/database/file`), with how many records.
    pub relations: BTreeMap<String, u64>,
    /// Transactions that were committed: number and when.
    pub committed: Vec<(String, String)>,
    /// All transactions that wrote.
    pub transactions: BTreeSet<u64>,
    /// There were more of one of these than are kept.
    pub is_cut: bool,
}

/// Where `pg_waldump --stats` says that the log ends.
pub fn end_in(stats: &str) -> Option<Lsn> {
    let line = stats.lines().find(|line| line.starts_with("WAL statistics between"))?;
    Lsn::parse(line.rsplit_once(' ')?.1.trim_end_matches(':'))
}

impl Diverged {
    /// One line of `pg_waldump`.
    pub fn take(&mut self, line: &str) {
        let Some((head, desc)) = line.split_once(", desc: ") else { return };
        let field = |name: &str| {
            let at = head.find(name)? + name.len();
            head[at..].split(',').next().map(str::trim)
        };
        let transaction = field("tx:").and_then(|word| word.parse::<u64>().ok()).filter(|number| *number > 0);
        if let Some(number) = transaction {
            if self.transactions.len() < TRANSACTIONS_MAX || self.transactions.contains(&number) {
                self.transactions.insert(number);
            } else {
                self.is_cut = true;
            }
        }
        if let (Some(number), Some(when)) = (transaction, desc.strip_prefix("COMMIT ")) {
            if self.committed.len() < TRANSACTIONS_MAX {
                let when = when.split(';').next().unwrap_or(when).chars().take(40).collect();
                self.committed.push((number.to_string(), when));
            } else {
                self.is_cut = true;
            }
        }
        let mut rest = desc;
        while let Some((_, after)) = rest.split_once(": rel ") {
            let name = after.split([' ', ',']).next().unwrap_or("");
            self.touched(name);
            rest = after;
        }
    }

    fn touched(&mut self, relation: &str) {
        let is_one = relation.len() <= 40 && relation.split('/').all(|word| word.parse::<u32>().is_ok());
        if !is_one {
            return;
        }
        if self.relations.len() >= RELATIONS_MAX && !self.relations.contains_key(relation) {
            self.is_cut = true;
            return;
        }
        *self.relations.entry(relation.to_owned()).or_default() += 1;
    }
}

/// What a report tells besides.
pub struct About<'a> {
    pub fork: Fork,
    /// The old primary's timeline, and the new one's.
    pub timelines: (u32, u32),
    pub data_dir: &'a str,
    pub diverged: &'a Diverged,
    /// `pg_waldump --stats`, or why there is none.
    pub stats: &'a str,
    /// Which part of the log was listed, in words.
    pub listed: &'a str,
    /// What is kept beside the report, in words.
    pub kept: &'a str,
}

/// How much log lies past the fork, in words.
pub fn bytes_past(fork: Fork, end: Option<Lsn>) -> String {
    match end {
        Some(end) => format!("{} bytes, up to {end}", end.0.saturating_sub(fork.lsn.0)),
        None => "of a length that could not be told".to_owned(),
    }
}

/// `report.txt`.
pub fn report(about: &About<'_>) -> String {
    let About { fork, timelines: (ours, theirs), diverged, .. } = about;
    let mut text = format!(
        "What this host's database wrote and the new primary has not\n\n\
         data directory   {}\n\
         fork             {} on timeline {}: up to there both have the same\n\
         timelines        {ours} here, {theirs} on the new primary\n\
         past the fork    {}\n\
         kept here        {}\n\n",
        about.data_dir,
        fork.lsn,
        fork.timeline,
        bytes_past(*fork, diverged.end),
        about.kept
    );
    let mut line = |words: String| {
        // Writing to a string does not fail.
        let _infallible = writeln!(text, "{words}");
    };
    line(format!("Transactions committed here only ({}):", about.listed));
    for (number, when) in &diverged.committed {
        line(format!("  {number}  {when}"));
    }
    line(format!(
        "  {} committed of {} that wrote\n\nRelations touched, tablespace/database/file, with records:",
        diverged.committed.len(),
        diverged.transactions.len()
    ));
    for (relation, records) in &diverged.relations {
        let file = relation.rsplit('/').next().and_then(|file| file.parse::<u32>().ok());
        let whose = if file.is_some_and(|file| file < FIRST_OWN_FILE) { "  (PostgreSQL's own)" } else { "" };
        line(format!("  {relation:<24} {records}{whose}"));
    }
    if diverged.is_cut {
        line("  … and more: only so many are listed".to_owned());
    }
    line(
        "  Names: SELECT oid, datname FROM pg_database; then, in that database of the new primary,\n  \
         SELECT pg_filenode_relation(0, FILE) (a file that was made after the fork has no name there).\n\n\
         To read the log that is kept: pg_waldump -p THIS_FOLDER/pg_wal -t TIMELINE -s FORK. To look at the rows themselves,\n\
         restore a backup of before the fork elsewhere and let it recover with these segments. When all that counts is\n\
         entered again, remove this folder: nothing needs it.\n\nWhat kinds of records:"
            .to_owned(),
    );
    line(about.stats.to_owned());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
rmgr: Heap        len (rec/tot):     59/    59, tx:        725, lsn: 0/03027AC0, prev 0/03027928, desc: INSERT off 97 flags 0x00, blkref #0: rel 1663/5/16384 blk 4
rmgr: Heap        len (rec/tot):     54/   154, tx:        725, lsn: 0/03027B00, prev 0/03027AC0, desc: UPDATE off 9, blkref #0: rel 1663/5/16384 blk 4 FPW, blkref #1: rel 1663/5/2619 fork vm blk 0
rmgr: Transaction len (rec/tot):    405/   405, tx:        725, lsn: 0/030307E0, prev 0/030307A0, desc: COMMIT 2026-11-21 20:04:38.467734 UTC; inval msgs: catcache 80
rmgr: Transaction len (rec/tot):     34/    34, tx:        726, lsn: 0/030309E8, prev 0/030309B0, desc: ABORT 2026-11-21 20:04:38.507087 UTC
rmgr: Standby     len (rec/tot):     50/    50, tx:          0, lsn: 0/03030A20, prev 0/030309E8, desc: RUNNING_XACTS nextXid 728
pg_waldump: error: error in WAL record at 0/30309E8: invalid record length at 0/3030A10: wanted 24, got 0";

    #[test]
    fn relations_and_commits_are_counted() {
        let mut diverged = Diverged::default();
        LIST.lines().for_each(|line| diverged.take(line));
        assert_eq!(diverged.relations, BTreeMap::from([("1663/5/16384".to_owned(), 2), ("1663/5/2619".to_owned(), 1)]));
        assert_eq!(diverged.committed, [("725".to_owned(), "2026-11-21 20:04:38.467734 UTC".to_owned())]);
        assert_eq!((diverged.transactions, diverged.is_cut), (BTreeSet::from([725, 726]), false));
    }

    #[test]
    fn the_lists_are_bounded_and_odd_lines_tell_nothing() {
        let mut diverged = Diverged::default();
        for n in 0..2000 {
            diverged.take(&format!("x, tx: {n}, lsn: 0/1, desc: COMMIT 2026, blkref #0: rel 1/2/{n} blk 0"));
        }
        assert_eq!((diverged.relations.len(), diverged.committed.len(), diverged.is_cut), (500, 500, true));
        let mut none = Diverged::default();
        for line in ["", "tx: 5", "a, desc: COMMIT x", "tx: -1, desc: INSERT: rel ../../etc blk", "tx:9, desc: : rel "]
        {
            none.take(line);
        }
        assert!(none.relations.is_empty() && none.committed.is_empty(), "{none:?}");
    }

    #[test]
    fn the_end_is_where_the_statistics_end() {
        let stats = "pg_waldump: hm\nWAL statistics between 0/3027AC0 and 0/3030A10:\nType  N\n";
        assert_eq!(end_in(stats), Some(Lsn(0x303_0A10)));
        assert_eq!(end_in("WAL statistics between"), None);
        assert_eq!(end_in("pg_waldump: error: could not find a valid record after 0/3027AC0"), None);
        let fork = Fork { timeline: 1, lsn: Lsn(0x302_7AC0) };
        assert_eq!(bytes_past(fork, Some(Lsn(0x303_0A10))), "36688 bytes, up to 0/3030A10");
    }
}
