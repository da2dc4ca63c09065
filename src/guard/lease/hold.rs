//! The promotion hold: a standby guard's durable, time-bounded word to a primary that nothing here is promoted (ADR 8).
//!
//! Between a hold and a promotion stands the token lock. A hold is granted under it, where nothing above its ground was
//! raised and no promotion is in flight; a promotion enters itself in flight under it and only then looks for a hold. So
//! either the hold sees the promotion, or the promotion sees the hold.

use serde::{Deserialize, Serialize};

use super::config::TTL_MS_MAX;
use crate::domain::ids::{ClusterName, GroupName, HostName, Token};
use crate::domain::lease::silence_ms;
use crate::guard::config::{Config, Postgres};
use crate::guard::host::{self, boottime_ms};
use crate::guard::in_flight;
use crate::guard::locks;
use crate::guard::postgres::{self, Role, Seen};
use crate::guard::protocol::{HoldShown, PROMOTE};
use crate::guard::records::{self, RecordError};
use crate::guard::token_store::{self, GroupFiles};

/// `hold.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRecord {
    /// The boot in which it was granted.
    pub boot_nonce: String,
    /// It stands until here, on that boot's `CLOCK_BOOTTIME`, milliseconds.
    pub until_boottime_ms: u64,
    /// How long a whole one lasts, milliseconds: counted from the start of a later boot, whose clock tells nothing of the
    /// one before.
    pub lasts_ms: u64,
    /// The primary's host it was granted to.
    pub host: HostName,
    /// Nothing above this token was raised here when it was granted.
    pub ground: Token,
}

impl HoldRecord {
    /// How much longer it stands, seen in boot `boot_nonce` at `now_ms` of its `CLOCK_BOOTTIME`.
    pub fn remaining_ms(&self, boot_nonce: &str, now_ms: u64) -> u64 {
        // Without a nonce one boot cannot be told from another: whichever is longer.
        let of_earlier_boot = self.lasts_ms.saturating_sub(now_ms);
        let of_this_boot = self.until_boottime_ms.saturating_sub(now_ms);
        match (boot_nonce.is_empty(), self.boot_nonce == boot_nonce) {
            (true, _) => of_this_boot.max(of_earlier_boot),
            (false, true) => of_this_boot,
            (false, false) => of_earlier_boot,
        }
    }
}

/// The hold that stands here now.
///
/// # Errors
/// Its record cannot be read: it must be taken for one that stands.
pub fn standing(files: &GroupFiles) -> Result<Option<HoldShown>, RecordError> {
    let record: HoldRecord = match records::read(&files.hold()) {
        Ok(record) => record,
        Err(RecordError::Missing(_)) => return Ok(None),
        Err(e) => return Err(e),
    };
    let remaining_ms = record.remaining_ms(&host::boot_nonce(), boottime_ms());
    Ok((remaining_ms > 0).then_some(HoldShown { host: record.host, remaining_ms }))
}

/// Why nothing may be promoted here now, if so. A hold for `fenced` keeps nothing safe any more: the host it was given to
/// is stopped and latched, as its own guard showed.
pub fn forbids_promotion(files: &GroupFiles, group: &GroupName, fenced: Option<&HostName>) -> Option<String> {
    match standing(files) {
        Ok(hold) => hold.filter(|hold| fenced != Some(&hold.host)).map(|hold| hold.to_string()),
        Err(e) => Some(format!(
            "{e}: a promotion hold that cannot be read is taken for one that stands; type on this host: watchdog-guard \
             enroll --group {group} (see --help)"
        )),
    }
}

/// What a primary's guard asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The cluster it serves.
    pub cluster: ClusterName,
    /// That cluster's epoch.
    pub epoch: u64,
    /// The group.
    pub group: GroupName,
    /// Its host.
    pub host: HostName,
    /// How long its gate will stand open after asking, milliseconds.
    pub ttl_ms: u64,
    /// The group's last token, as the leader told it.
    pub ground: Token,
}

/// Grants a hold that lasts the TTL and its margin from `arrived_ms`, and has made it durable; or says why not. What the
/// database may do is asked by `look`: [`postgres::look_closely`], or the same by a session that is kept.
///
/// # Errors
/// Why not, in words; nothing new is held then.
pub fn grant(
    config: &Config,
    ask: &Ask,
    arrived_ms: u64,
    look: impl FnOnce(&Postgres) -> Seen,
) -> Result<HoldRecord, String> {
    let pg = allowed(config, ask)?;
    // A promotion that the server has taken up shows to a question only, and the token lock is not held for that long.
    let seen = look(pg);
    if seen.role != Role::InRecovery {
        return Err(format!("the database here is no standby that stays one: {}", seen.how));
    }
    let files = GroupFiles::new(&config.state_dir, &ask.group);
    let give_up_ms = arrived_ms.saturating_add(ask.ttl_ms);
    let taken = locks::take(&files.token_lock(), give_up_ms).map_err(|e| e.to_string())?;
    let _comparing = taken.ok_or_else(|| format!("{} was held for the whole TTL", files.token_lock().display()))?;
    let record = token_store::load(&files, &ask.group).map_err(|e| e.to_string())?;
    if record.cluster != ask.cluster || record.epoch != ask.epoch {
        return Err(format!("enrolled with cluster {:?} epoch {}", record.cluster.as_str(), record.epoch));
    }
    if record.token > ask.ground {
        return Err(format!("token {} was raised here, above the ground {}", record.token, ask.ground));
    }
    if let Some(at_work) = in_flight::look(&files).map_err(|e| e.to_string())?.filter(|at| at.action == PROMOTE) {
        return Err(format!("a promotion is in flight: {at_work}"));
    }
    // Whatever a promotion did since the question was answered, its end shows in the files.
    let again = postgres::look(pg);
    if again.role != Role::InRecovery {
        return Err(format!("the database here is no standby any more: {}", again.how));
    }
    if boottime_ms() >= give_up_ms {
        return Err(format!("looking took longer than the TTL of {} ms", ask.ttl_ms));
    }
    write_down(&files, ask, arrived_ms)
}

/// What needs no lock.
fn allowed<'a>(config: &'a Config, ask: &Ask) -> Result<&'a Postgres, String> {
    if ask.cluster != config.cluster {
        return Err(format!("this guard serves cluster {:?}", config.cluster.as_str()));
    }
    if !(1..=TTL_MS_MAX).contains(&ask.ttl_ms) {
        return Err(format!("ttl_ms: {} is not within 1 to {TTL_MS_MAX}", ask.ttl_ms));
    }
    config
        .postgres_of(&ask.group)
        .ok_or_else(|| format!("no database of group {:?} is guarded here", ask.group.as_str()))
}

/// In place of a hold that cannot be read: the longest that can have been granted. Some primary may count on it.
///
/// # Errors
/// It could not be written.
pub fn begin_longest(files: &GroupFiles, ground: Token) -> Result<HoldShown, RecordError> {
    let lasts_ms = silence_ms(TTL_MS_MAX);
    let host = HostName("an unknown host".to_owned());
    let until_boottime_ms = boottime_ms().saturating_add(lasts_ms);
    let hold = HoldRecord { boot_nonce: host::boot_nonce(), until_boottime_ms, lasts_ms, host: host.clone(), ground };
    records::write_durably(&files.hold(), &hold)?;
    Ok(HoldShown { host, remaining_ms: lasts_ms })
}

fn write_down(files: &GroupFiles, ask: &Ask, arrived_ms: u64) -> Result<HoldRecord, String> {
    let (boot_nonce, lasts_ms) = (host::boot_nonce(), silence_ms(ask.ttl_ms));
    let before_ms = match records::read::<HoldRecord>(&files.hold()) {
        // A word once given is not shortened by the next.
        Ok(before) => boottime_ms().saturating_add(before.remaining_ms(&boot_nonce, boottime_ms())),
        Err(RecordError::Missing(_)) => 0,
        Err(e) => return Err(e.to_string()),
    };
    let hold = HoldRecord {
        boot_nonce,
        until_boottime_ms: arrived_ms.saturating_add(lasts_ms).max(before_ms),
        lasts_ms,
        host: ask.host.clone(),
        ground: ask.ground,
    };
    records::write_durably(&files.hold(), &hold).map_err(|e| e.to_string())?;
    Ok(hold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_of_an_earlier_boot_counts_from_this_boots_start() {
        let hold = |boot: &str| HoldRecord {
            boot_nonce: boot.to_owned(),
            until_boottime_ms: 100_000,
            lasts_ms: 2400,
            host: "db-hcmc".into(),
            ground: Token { epoch: 1, n: 3 },
        };
        for (granted_in, seen_in, now_ms, remaining_ms) in [
            ("a", "a", 99_000, 1000),
            ("a", "a", 100_000, 0),
            ("a", "a", 100_001, 0),
            ("a", "b", 0, 2400),
            ("a", "b", 2399, 1),
            ("a", "b", 2400, 0),
            ("a", "b", 99_000, 0),
            // Where the kernel tells no boots apart, the longer of the two counts.
            ("", "", 1000, 99_000),
            ("", "", 99_999, 1),
        ] {
            let said = hold(granted_in).remaining_ms(seen_in, now_ms);
            assert_eq!(said, remaining_ms, "{granted_in:?} seen in {seen_in:?} at {now_ms}");
        }
    }
}
