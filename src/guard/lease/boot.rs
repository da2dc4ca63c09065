//! The boot gate's second question, in mode `lease`: does a lease let this database answer its clients?

use super::config::Lease;
use super::files;
use crate::guard::config::Config;
use crate::guard::host::{boottime_ms, pause};
use crate::guard::postgres;
use crate::guard::token_store::GroupFiles;

/// Between two looks, milliseconds.
const LOOK_EVERY_MS: u64 = 50;

/// Why the database may not start yet, if so: waits up to `wait_s` seconds for a lease. A standby needs none: it takes no
/// write, and is asked for its lease when it is promoted.
pub fn waits_for(config: &Config, wait_s: u64) -> Option<String> {
    let (Some(lease), Some(pg), Some(group)) = (&config.lease, &config.postgres, config.postgres_group()) else {
        return None;
    };
    if postgres::standby_marker(&pg.data_dir).is_some() {
        return None;
    }
    let files = GroupFiles::new(&config.state_dir, group);
    let until_ms = boottime_ms().saturating_add(wait_s.saturating_mul(1000));
    loop {
        let why = match files::now(&files) {
            Ok(now) if now.passes(boottime_ms()) => return None,
            Ok(now) if !now.installed => format!("the gate is not in the kernel: {}", now.in_words()),
            Ok(now) => now.in_words(),
            Err(why) => why,
        };
        if boottime_ms() >= until_ms {
            return Some(format!("no lease after {wait_s} s of waiting for {}: {why}", whom(lease)));
        }
        pause(LOOK_EVERY_MS);
    }
}

/// Why no gate keeps in what this host's primary would say, if so: a host that was booted since has none until its resident
/// guard has put one in place, and what is bound would go on counting on it.
pub fn ungated(config: &Config) -> Option<String> {
    let (Some(_), Some(group)) = (&config.lease, config.postgres_group()) else { return None };
    match files::now(&GroupFiles::new(&config.state_dir, group)) {
        Ok(now) if now.installed => None,
        Ok(now) => Some(format!("the gate is not in the kernel: {}", now.in_words())),
        Err(why) => Some(why),
    }
}

fn whom(lease: &Lease) -> String {
    let holders: Vec<&str> = lease.holders.keys().map(String::as_str).collect();
    let holds = if holders.is_empty() { String::new() } else { format!(", or the holds of {}", holders.join(", ")) };
    format!("a leader by way of {}{holds}", lease.nodes.join(", "))
}
