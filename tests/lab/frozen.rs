//! The whole host of the old primary stops at once and goes on after its failover: what becomes of it.

use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::folder::binaries;
use super::parts::Lab;
use super::process::run_async;
use super::{DR, HOME, hub, lease, wait};

/// After this many TTLs awake nothing that was held up anywhere on the host is still on its way.
const TTLS_AWAKE: u64 = 3;

impl Lab {
    /// SIGSTOP to everything on the primary's host: PostgreSQL, guard, SSH server, service.
    pub fn freeze_home(&self) -> Result<()> {
        self.primary.freeze()?;
        self.guards.get(HOME).context("no resident guard runs: freezing needs mode lease")?.freeze();
        self.hosts[HOME].freeze();
        self.services[HOME].freeze()
    }

    /// SIGCONT: it goes on as if nothing had been.
    pub fn thaw_home(&self) -> Result<()> {
        self.primary.thaw()?;
        self.guards.get(HOME).context("no resident guard runs")?.thaw();
        self.hosts[HOME].thaw();
        self.services[HOME].thaw()
    }
}

/// The end of an old primary.
pub struct Fenced {
    /// When it was seen.
    pub at: SystemTime,
    /// What its guard says then.
    pub words: String,
}

/// Waits until the old primary is fenced for good, and a few TTLs longer.
pub async fn until_fenced(lab: &Lab) -> Result<Fenced> {
    let config = lab.folder.path.join(HOME).join("guard.toml");
    let fenced = wait::until(&format!("{HOME} to be fenced for good"), Duration::from_secs(60), async || {
        let mut command = Command::new(binaries()?.guard);
        command.arg("--config").arg(&config).args(["status", "--output", "json"]);
        let said = run_async(hub::at(&lab.folder, HOME, command)).await?;
        let status: serde_json::Value = serde_json::from_str(&said)?;
        let (role, latch) = (&status["postgres"]["role"], &status["groups"][0]["latch"]);
        ensure!(!latch.is_null() && role == "stopped", "its server is {role}, its latch {latch}");
        let token = format!("{}.{}", latch["token"]["epoch"], latch["token"]["n"]);
        let words = format!("stopped, latched under {token}: up again only on a person's word, or as {DR}'s standby");
        Ok(Fenced { at: SystemTime::now(), words })
    })
    .await?;
    wait::pause(Duration::from_millis(lease::ttl_ms(&lab.options) * TTLS_AWAKE)).await;
    Ok(fenced)
}
