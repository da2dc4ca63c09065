//! The whole host of the old primary stops at once and goes on after its failover: what it acknowledges then, and what
//! becomes of it.

use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use super::client::{Client, Route};
use super::folder::binaries;
use super::parts::Lab;
use super::postgres::{DATABASE, Postgres};
use super::process::run_async;
use super::{DR, HOME, lease, wait};

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

/// Those who go on speaking to the old primary whatever the name says: one connection kept for ever, and one client that
/// connects anew.
pub struct Loyal {
    old: Arc<Mutex<Vec<SystemTime>>>,
    task: JoinHandle<()>,
    new: Client,
    home: String,
}

impl Drop for Loyal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Rows that the old primary acknowledged too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// On the connection that was open before.
    pub old: usize,
    /// On connections made since.
    pub new: usize,
}

impl Loyal {
    /// Starts both, and waits for the first row of each.
    pub async fn start(primary: &Postgres) -> Result<Self> {
        let home = primary.address.to_string();
        let new = Client::start(Route::Addresses(vec![home.clone()]), primary.port, Duration::from_millis(10));
        new.first_from(&home, Duration::from_secs(10)).await?;
        let session = primary.connect("app", DATABASE).await?;
        let old = Arc::new(Mutex::new(Vec::new()));
        let acknowledged = Arc::clone(&old);
        let task = tokio::spawn(async move {
            // Far below what the other clients count up from.
            for id in 1_i64.. {
                // It waits for each answer however long that takes: a row that was held up must not be given up.
                if session.execute("insert into rows (id) values ($1)", &[&id]).await.is_err() {
                    return;
                }
                acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(SystemTime::now());
                wait::pause(Duration::from_millis(10)).await;
            }
        });
        let loyal = Self { old, task, new, home };
        wait::until_true("a row on the old connection", Duration::from_secs(10), async || {
            !loyal.old.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
        })
        .await?;
        Ok(loyal)
    }

    /// What the old primary acknowledged after `moment`.
    pub fn late(&self, moment: SystemTime) -> Late {
        let old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.new.acknowledged();
        Late {
            old: old.iter().filter(|at| **at > moment).count(),
            new: new.iter().filter(|row| row.by == self.home && row.at > moment).count(),
        }
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
        let said = run_async(command).await?;
        let status: serde_json::Value = serde_json::from_str(&said)?;
        let (role, latch) = (&status["postgres"]["role"], &status["groups"][0]["latch"]);
        ensure!(!latch.is_null() && role == "stopped", "its server is {role}, its latch {latch}");
        let token = format!("{}.{}", latch["token"]["epoch"], latch["token"]["n"]);
        let words = format!("stopped, latched under {token}: up again only on a person's word, or as {DR}'s standby");
        Ok(Fenced { at: SystemTime::now(), words })
    })
    .await?;
    wait::pause(Duration::from_millis(lease::ttl_ms(lab.options.pace) * TTLS_AWAKE)).await;
    Ok(fenced)
}
