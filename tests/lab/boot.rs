//! A host's reboot, by stand-ins: SIGKILL to everything on it; another boot id, mounted over the kernel's for whatever is started
//! there afterwards; the database's cgroup made anew, and with it a kernel that knows of no gate. `CLOCK_BOOTTIME` goes on, which a
//! real reboot begins anew.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::folder::{Folder, binaries};
use super::hub;
use super::parts::Lab;
use super::postgres::Postgres;
use super::process::MARK;

fn id_file(folder: &Folder, host: &str) -> PathBuf {
    folder.path.join("run").join(format!("boot-{host}.id"))
}

/// The words before a command that show it the host's own boot id; none where it was not rebooted.
pub fn words(folder: &Folder, host: &str) -> Vec<String> {
    let file = id_file(folder, host);
    if !file.exists() {
        return vec![];
    }
    let mount = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let words = ["unshare", "--mount", "--", "/bin/sh", "-c", mount, &file.display().to_string()];
    words.map(str::to_owned).to_vec()
}

/// Everything on the host of a region dies, and its kernel forgets.
pub fn reboot(lab: &mut Lab, site: &str) -> Result<()> {
    // The guard first: one that outlived its server would tell so, and have the lease unbound.
    lab.guards.remove(site).map(|guard| guard.kill()).transpose()?;
    let database = if lab.primary.site == site { &mut lab.primary } else { &mut lab.standby };
    if database.is_running() {
        database.kill()?;
    }
    if lab.services[site].is_running() {
        lab.services[site].kill()?;
    }
    let host = lab.hosts.get_mut(site).context("no such host")?;
    if host.is_running() {
        host.kill()?;
    }
    database.cgroup().context("the lab has no leases")?.renew()?;
    std::fs::write(id_file(&lab.folder, site), format!("{}\n", uuid::Uuid::now_v7()))?;
    Ok(())
}

/// Why the database was not started.
#[derive(Debug)]
pub struct Shut {
    /// The boot gate's exit code.
    pub code: i32,
    /// What it said.
    pub why: String,
}

/// As the database's unit does: asks the boot gate (`ExecStartPre`), and starts the server only where that lets it.
pub async fn start_database(folder: &Folder, database: &mut Postgres, wait_s: u32) -> Result<Result<(), Shut>> {
    let config = folder.path.join(&database.site).join("guard.toml");
    let mut gate = Command::new(binaries()?.guard);
    gate.arg("--config").arg(config).args(["gate", "--wait", &wait_s.to_string()]).env(MARK, &folder.path);
    let mut gate = hub::at(folder, &database.site, gate);
    let said = tokio::task::spawn_blocking(move || gate.output()).await??;
    if said.status.success() {
        return database.start(folder).await.map(Ok);
    }
    let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
    Ok(Err(Shut { code: said.status.code().context("the boot gate was killed")?, why }))
}
