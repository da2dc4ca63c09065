//! What the resident guard and the commands typed beside it tell each other by files, all of one boot.

use serde::{Deserialize, Serialize};

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
    /// The traffic may pass now.
    pub fn passes(&self) -> bool {
        self.installed && (self.open_ended || self.until_boottime_ms > boottime_ms())
    }

    /// For people.
    pub fn in_words(&self) -> String {
        let left_ms = self.until_boottime_ms.saturating_sub(boottime_ms());
        let stands = match (self.may_serve, self.open_ended, left_ms) {
            (false, ..) => "none is needed: the database is a standby".to_owned(),
            (true, true, _) => "open-ended: the gate stands open".to_owned(),
            (true, false, 0) => "none: the gate is shut".to_owned(),
            (true, false, left_ms) => format!("runs {left_ms} ms more"),
        };
        format!("{stands} ({}); gate: {}", self.said, self.gate)
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
    let age_ms = boottime_ms().saturating_sub(now.at_boottime_ms);
    if now.boot_nonce != host::boot_nonce() || age_ms > now.ttl_ms.saturating_mul(2) {
        return Err(missing.to_owned());
    }
    Ok(now)
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
