//! `watchdog-guard break-glass`: an operator's word that the gate shall stand open, for the rest of this boot. The resident
//! guard does it: it first tells the cluster that the gate is not to be counted on, and opens when the cluster has
//! unbound the lease; or at once, where the operator owns the fence.

use super::files::{self, GlassRecord};
use crate::clock::unix_now;
use crate::domain::ids::GroupName;
use crate::guard::config::Config;
use crate::guard::enroll::{EnrollError, confirmed, record};
use crate::guard::host::{self, boottime_ms, pause};
use crate::guard::records;
use crate::guard::token_store::{self, GroupFiles};

/// How long the cluster is waited for, milliseconds.
const PATIENCE_MS: u64 = 10_000;

/// What is typed.
#[derive(Debug, Clone)]
pub struct Typed {
    /// The group.
    pub group: GroupName,
    /// The host's name.
    pub confirm: String,
    /// Why.
    pub reason: String,
    /// Open although the cluster may count on the gate.
    pub own_the_fence: bool,
    /// Take the word back.
    pub mend: bool,
}

/// Gives the word, or takes it back, and waits for what comes of it.
///
/// # Errors
/// What was typed is not so, a file could not be written, or the gate does not stand open: then says what to do.
pub fn break_glass(config: &Config, typed: &Typed) -> Result<String, EnrollError> {
    confirmed(config, &typed.group, &typed.confirm)?;
    let refused = |why: String| Err(EnrollError::Refused(why));
    if typed.reason.trim().is_empty() {
        return refused("--reason must say why".to_owned());
    }
    if config.lease.is_none() || config.postgres_of(&typed.group).is_none() {
        return refused(format!("no lease is kept for group {} here: there is no gate to open", typed.group));
    }
    let files = GroupFiles::new(&config.state_dir, &typed.group);
    let token = token_store::load(&files, &typed.group)?.token;
    let _acting = crate::guard::enroll::lock(&files.action_lock())?;
    if typed.mend {
        match std::fs::remove_file(files.glass()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                let doing = format!("cannot remove {}", files.glass().display());
                return Err(EnrollError::Io { doing, source: e });
            }
            _ => records::sync_dir_of(&files.glass())?,
        }
        record(&files, token, "break-glass", &format!("mended: {}", typed.reason))?;
        return Ok("the word is taken back: the gate is bounded again as soon as the cluster grants".to_owned());
    }
    // Written before the gate can open: what was done by whose word outlives the host.
    let owner = if typed.own_the_fence { "the operator owns the fence" } else { "once the cluster has unbound" };
    record(&files, token, "break-glass", &format!("{owner}: {}", typed.reason))?;
    let word = GlassRecord {
        boot_nonce: host::boot_nonce(),
        own_the_fence: typed.own_the_fence,
        reason: crate::guard::ledger::cut(&typed.reason, 500).to_owned(),
        at: unix_now(),
    };
    records::write_durably(&files.glass(), &word)?;
    wait(&files, typed)
}

fn wait(files: &GroupFiles, typed: &Typed) -> Result<String, EnrollError> {
    let until_ms = boottime_ms().saturating_add(PATIENCE_MS);
    let why = loop {
        match files::now(files) {
            Ok(now) if now.open_ended && now.installed => {
                let owner = if typed.own_the_fence {
                    "The cluster may count on this host's silence: from here on you own the fence. Make sure that nothing \
                     else is promoted while this database answers."
                } else {
                    "The cluster has unbound the lease: it promotes nothing on this host's silence."
                };
                return Ok(format!(
                    "the gate of group {} stands open until this host boots, or until --mend. {owner}",
                    typed.group
                ));
            }
            Ok(now) if boottime_ms() >= until_ms => break now.in_words(),
            Err(why) if boottime_ms() >= until_ms => break why,
            _ => pause(50),
        }
    };
    let own = "where you answer for it that nothing else is the primary, type it again with --i-own-the-fence: then the \
               operator, not the cluster, owns the fence";
    Err(EnrollError::Refused(format!("the gate does not stand open: {why}. Your word stays given; {own}")))
}
