//! What the resident guard and the commands typed beside it tell each other by files, all of one boot.

use serde::{Deserialize, Serialize};

use super::config::TTL_MS_MAX;
use super::keeper::Glass;
use crate::domain::ids::UnixMs;
use crate::guard::host::{self, boottime_ms};
use crate::guard::records::{self, RecordError};
use crate::guard::token_store::GroupFiles;

/// `lease-now.json`: how the lease stands, written at every look; means nothing after a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Now {
    /// Of this boot only.
    pub boot_nonce: String,
    /// When, `CLOCK_BOOTTIME`, milliseconds.
    pub at_boottime_ms: u64,
    /// How often it is written at most, milliseconds.
    pub ttl_ms: u64,
    /// The database is the primary, or could start as one.
    pub may_serve: bool,
    /// The cluster, or an operator, lets the gate stand open.
    pub open_ended: bool,
    /// Else until when it may, `CLOCK_BOOTTIME`, milliseconds.
    pub until_boottime_ms: u64,
    /// The gate in the kernel, in words.
    pub gate: String,
    /// How the commit gate stands, in words, where one is configured.
    #[serde(default)]
    pub commit_gate: Option<String>,
    /// The gate could be put into the kernel.
    pub installed: bool,
    /// What the cluster said last, and who was silent.
    pub said: String,
}

impl Now {
    /// The traffic may pass at this moment.
    pub fn passes(&self, boottime_ms: u64) -> bool {
        self.installed && (self.open_ended || self.until_boottime_ms > boottime_ms)
    }

    /// How the lease stands, for people.
    pub fn stands(&self) -> String {
        let left_ms = self.until_boottime_ms.saturating_sub(boottime_ms());
        match (self.may_serve, self.open_ended, left_ms) {
            (false, ..) => "none is needed: the database is a standby".to_owned(),
            (true, true, _) => "open-ended: the gate stands open".to_owned(),
            (true, false, 0) => "none: the gate is shut".to_owned(),
            (true, false, left_ms) => format!("runs {left_ms} ms more"),
        }
    }

    /// All of it, for people.
    pub fn in_words(&self) -> String {
        format!("{} ({}); gate: {}", self.stands(), self.said, self.gate)
    }

    /// Whether it tells of this boot (`boot_nonce`) and of this moment. What it says of another opens nothing: boot time
    /// begins anew with each boot, and a process that is gone or frozen writes nothing.
    pub fn is_of(&self, boot_nonce: &str, boottime_ms: u64) -> bool {
        // Where the kernel tells no boots apart, no record can be of this one.
        let is_of_this_boot = !boot_nonce.is_empty() && self.boot_nonce == boot_nonce;
        let is_of_now = self.at_boottime_ms <= boottime_ms
            && boottime_ms - self.at_boottime_ms <= self.ttl_ms.min(TTL_MS_MAX).saturating_mul(2);
        // No lease is longer than its TTL: a later moment was never granted.
        let is_grantable = self.until_boottime_ms <= self.at_boottime_ms.saturating_add(self.ttl_ms.min(TTL_MS_MAX));
        is_of_this_boot && is_of_now && is_grantable
    }
}

/// What the resident guard wrote last.
///
/// # Errors
/// Why nothing is known: it does not run, or is stuck; in words.
pub fn now(files: &GroupFiles) -> Result<Now, String> {
    let missing = "the resident guard does not run: start `watchdog-guard serve`";
    let now: Now = match records::read(&files.lease_now()) {
        Ok(now) => now,
        Err(RecordError::Missing(_)) => return Err(missing.to_owned()),
        Err(e) => return Err(format!("{e}; {missing}")),
    };
    if now.is_of(&host::boot_nonce(), boottime_ms()) { Ok(now) } else { Err(missing.to_owned()) }
}

/// `break-glass.json`: an operator's word that the gate shall stand open. Durable; of one boot only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlassRecord {
    /// Of this boot only: a host that boots asks for its lease again.
    pub boot_nonce: String,
    /// Even though the cluster may count on the gate.
    pub own_the_fence: bool,
    /// Why.
    pub reason: String,
    /// When, for people.
    pub at: UnixMs,
}

/// The operator's word that counts now. One that cannot be read is none.
pub fn glass(files: &GroupFiles) -> Glass {
    match records::read::<GlassRecord>(&files.glass()) {
        Ok(word) if word.boot_nonce != host::boot_nonce() => Glass::Whole,
        Ok(word) if word.own_the_fence => Glass::Broken,
        Ok(_) => Glass::Asked,
        Err(RecordError::Missing(_)) => Glass::Whole,
        Err(e) => {
            tracing::warn!("{e}: taken for no word");
            Glass::Whole
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now {
            boot_nonce: "b".to_owned(),
            at_boottime_ms: 100_000,
            ttl_ms: 2000,
            may_serve: true,
            open_ended: false,
            until_boottime_ms: 101_900,
            gate: "bounded".to_owned(),
            commit_gate: None,
            installed: true,
            said: "granted by the cluster".to_owned(),
        }
    }

    /// What the boot gate makes of a record, seen in a boot at a moment of it.
    #[test]
    fn only_this_boots_fresh_word_opens_the_boot_gate() {
        type Change = fn(&mut Now);
        let table: [(&str, Change, &str, u64, bool); 14] = [
            ("as written", |_| {}, "b", 100_100, true),
            ("its last moment", |_| {}, "b", 101_899, true),
            ("its deadline", |_| {}, "b", 101_900, false),
            ("past its deadline", |_| {}, "b", 103_000, false),
            ("another boot, whose clock is where it was", |_| {}, "c", 100_100, false),
            ("an earlier boot that ran longer", |n| n.boot_nonce = "a".to_owned(), "b", 5_000, false),
            ("a moment that has not come", |_| {}, "b", 99_999, false),
            ("no boots told apart", |n| n.boot_nonce.clear(), "", 100_100, false),
            ("a deadline nobody can have granted", |n| n.until_boottime_ms = 9_000_000, "b", 100_100, false),
            (
                "the same, with a TTL to match",
                |n| (n.ttl_ms, n.until_boottime_ms) = (u64::MAX, u64::MAX),
                "b",
                100_100,
                false,
            ),
            ("open-ended, fresh", |n| n.open_ended = true, "b", 102_000, true),
            ("open-ended, by a guard that is gone", |n| n.open_ended = true, "b", 104_001, false),
            ("open-ended, of another boot", |n| n.open_ended = true, "c", 100_100, false),
            ("no gate in the kernel", |n| n.installed = false, "b", 100_100, false),
        ];
        for (what, change, boot_nonce, boottime_ms, opens) in table {
            let mut record = now();
            change(&mut record);
            let said = record.is_of(boot_nonce, boottime_ms) && record.passes(boottime_ms);
            assert_eq!(said, opens, "{what}");
        }
    }
}
