//! The nodes, and the operators' command that asks them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::folder::{Folder, binaries};
use super::parts::Lab;
use super::process::{Part, run_async};
use super::{GROUP, HOME, wait};

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
    config: PathBuf,
    part: Option<Part>,
}

/// The name of the node at a site.
pub fn name_at(site: &str) -> String {
    format!("{site}-1")
}

impl Node {
    /// Starts the node of `site`.
    pub fn start(folder: &Folder, site: &str, config: &Path, listen: SocketAddr, http: SocketAddr) -> Result<Self> {
        let name = name_at(site);
        let mut node = Self { name, site: site.to_owned(), listen, http, config: config.to_path_buf(), part: None };
        node.start_again(folder)?;
        Ok(node)
    }

    /// Starts it on the data it left.
    pub fn start_again(&mut self, folder: &Folder) -> Result<()> {
        let mut command = Command::new(binaries()?.watchdogd);
        command.arg("--config").arg(&self.config).args(["--node", &self.name]);
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

    /// Runs and is not frozen by us.
    pub fn is_running(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.ended().is_none())
    }

    /// Asks it with `watchdogctl … --output json`.
    pub async fn ctl(&self, words: &[&str]) -> Result<Value> {
        ctl(self.listen, words).await
    }
}

/// `watchdogctl --endpoint … WORDS --output json`, parsed.
pub async fn ctl(endpoint: SocketAddr, words: &[&str]) -> Result<Value> {
    let mut command = Command::new(binaries()?.watchdogctl);
    command.args(["--endpoint", &endpoint.to_string()]).args(words).args(["--output", "json"]);
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

    /// Waits until every running node knows one leader and every target of home is up in the leader's eyes.
    pub async fn until_ready(&self) -> Result<()> {
        wait::until("the nodes to have a leader and to see everything up", Duration::from_secs(30), async || {
            for node in &self.nodes {
                node.part()?.check_running()?;
            }
            let status = self.status().await?;
            let votes = votes(&status);
            let home = votes.iter().filter(|vote| vote["region"] == HOME);
            let up =
                home.filter(|vote| vote["verdict"].as_str().is_some_and(|word| word.to_lowercase().ends_with("up")));
            let wanted = 2 * self.nodes.len();
            let seen = up.count();
            ensure!(seen >= wanted, "{seen} of {wanted} votes are up: {status}");
            Ok(())
        })
        .await
    }

    /// The status as the first node that answers with quorum tells it.
    pub async fn status(&self) -> Result<Value> {
        let mut refusal = anyhow::anyhow!("no node runs");
        for node in self.nodes.iter().rev().filter(|node| node.is_running()) {
            match node.ctl(&["status"]).await {
                Ok(status) => return Ok(status),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// The leader's name.
    pub async fn leader(&self) -> Result<String> {
        let status = self.status().await?;
        let leader = status["standing"]["leader"].as_str().unwrap_or_default();
        ensure!(!leader.is_empty(), "no leader yet");
        Ok(leader.to_owned())
    }
}

/// The demo's group in a status.
pub fn group(status: &Value) -> &Value {
    let groups = status["groups"].as_array();
    groups.and_then(|groups| groups.iter().find(|group| group["name"] == GROUP)).unwrap_or(&Value::Null)
}

/// Its votes.
pub fn votes(status: &Value) -> Vec<Value> {
    group(status)["votes"].as_array().cloned().unwrap_or_default()
}
