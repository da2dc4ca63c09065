//! The nodes, and the operators' command that asks them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;

use super::folder::{Folder, binaries};
use super::hub;
use super::parts::Lab;
use super::pki;
use super::process::{Part, run_async};

/// Where a node is.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// The region's or the witness's name.
    pub name: &'static str,
    /// Where the node listens.
    pub listen: SocketAddr,
    /// Where its peers dial it: there, or a relay.
    pub dialled: SocketAddr,
    /// Where it tells its metrics.
    pub http: SocketAddr,
    /// Where it shows its status page.
    pub page: SocketAddr,
}

/// One node.
pub struct Node {
    /// `hcmc-1`.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Where peers and operators reach it.
    pub listen: SocketAddr,
    /// Where it tells its metrics.
    pub http: SocketAddr,
    /// Where it shows its status page.
    pub page: SocketAddr,
    /// What its process finds in its environment, besides.
    pub environment: BTreeMap<String, String>,
    config: PathBuf,
    part: Option<Part>,
    frozen: AtomicBool,
}

/// The name of the node at a site.
pub fn name_at(site: &str) -> String {
    format!("{site}-1")
}

impl Node {
    /// Starts the node of `site`.
    pub fn start(folder: &Folder, site: &Site, config: &Path, environment: BTreeMap<String, String>) -> Result<Self> {
        let (name, region) = (name_at(site.name), site.name.to_owned());
        let config = config.to_path_buf();
        let mut node = Self {
            name,
            site: region,
            listen: site.listen,
            http: site.http,
            page: site.page,
            environment,
            config,
            part: None,
            frozen: AtomicBool::new(false),
        };
        node.start_again(folder)?;
        Ok(node)
    }

    /// Starts it on the data it left.
    pub fn start_again(&mut self, folder: &Folder) -> Result<()> {
        let mut command = Command::new(binaries()?.watchdogd);
        command.arg("--config").arg(&self.config).args(["--node", &self.name]).envs(&self.environment);
        let command = hub::at(folder, &self.name, command);
        self.part = Some(Part::start(folder, &format!("node-{}", self.name), command)?);
        Ok(())
    }

    /// Its process.
    pub fn part(&self) -> Result<&Part> {
        self.part.as_ref().with_context(|| format!("{} does not run", self.name))
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.part.take().with_context(|| format!("{} does not run", self.name))?.kill()
    }

    /// SIGTERM, as a service manager stops it.
    pub fn stop(&mut self) -> Result<()> {
        self.part.take().with_context(|| format!("{} does not run", self.name))?.stop()
    }

    /// SIGSTOP.
    pub fn freeze(&self) -> Result<()> {
        self.part()?.freeze();
        self.frozen.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.part()?.thaw();
        self.frozen.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Runs, and is not frozen.
    pub fn is_running(&self) -> bool {
        !self.frozen.load(Ordering::SeqCst) && self.part.as_ref().is_some_and(|part| part.ended().is_none())
    }

    /// Asks it with `watchdogctl … --output json`.
    pub async fn ctl(&self, words: &[&str]) -> Result<Value> {
        ctl(self.listen, words).await
    }

    /// As [`ctl`](Self::ctl), whatever the exit code says.
    pub async fn ctl_whatever(&self, words: &[&str]) -> Result<Value> {
        let mut command = Command::new(binaries()?.watchdogctl);
        pki::with_certificate(&mut command, self.listen)?;
        command.args(["--endpoint", &self.listen.to_string()]).args(words).args(["--output", "json", "--by", "lab"]);
        let said = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let also = String::from_utf8_lossy(&said.stderr).into_owned();
        serde_json::from_str(&text).with_context(|| format!("watchdogctl {words:?} printed no JSON: {text}{also}"))
    }
}

/// `watchdogctl --endpoint … WORDS --output json`, parsed.
pub async fn ctl(endpoint: SocketAddr, words: &[&str]) -> Result<Value> {
    let mut command = Command::new(binaries()?.watchdogctl);
    pki::with_certificate(&mut command, endpoint)?;
    command.args(["--endpoint", &endpoint.to_string()]).args(words).args(["--output", "json", "--by", "lab"]);
    let said = run_async(command).await?;
    serde_json::from_str(&said).with_context(|| format!("watchdogctl {words:?} printed no JSON: {said}"))
}

impl Lab {
    /// The node of that name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("no node {name}"))
    }

    /// The same, to be changed.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.name == name).with_context(|| format!("no node {name}"))
    }
}
