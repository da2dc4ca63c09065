//! The configuration file: as typed ([`raw`]), then judged and resolved ([`types`]). Every fault is named with its line and field.
//!
//! One file, the same on every node; `docs/CONFIGURATION.md` explains it key by key. [`Config::load`] either gives a
//! configuration that is sound in itself or every fault at once. Its digest is what nodes compare.

use std::path::{Path, PathBuf};

mod digest;
mod files;
mod read;
mod validate;

pub mod check;
pub mod raw;
pub mod template;
pub mod types;

pub use check::{Fault, Report, render};
pub use types::*;

use crate::domain::identity::Roles;
use crate::domain::ids::{NodeName, ReceiverName};
use crate::domain::policy::{ClusterPolicy, Member};
use crate::tls::Files;

/// Why a configuration was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("configuration {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It was read and is wrong.
    #[error("{}", render(report, &path.display().to_string()).trim_end())]
    Faults {
        /// Which file.
        path: PathBuf,
        /// Every fault.
        report: Report,
    },
    /// No such node.
    #[error("no node {name:?} in the configuration; --node is one of: {}", known.join(", "))]
    NoSuchNode {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
}

/// Judges a file's bytes: the report always, and the configuration where there are no errors.
pub fn judge(bytes: &[u8]) -> (Option<Config>, Report) {
    let mut report = Report::default();
    let config = match std::str::from_utf8(bytes) {
        Ok(text) => read::read(text, &mut report).and_then(|raw| validate::validate(&raw, &mut report)),
        Err(error) => {
            let before = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
            let place = check::Place { line: Some(before + 1), ..check::Place::default() };
            report.error(&place, "", "a byte that is not UTF-8", "save the file as UTF-8 text");
            None
        }
    };
    report.sort();
    match config {
        Some(mut config) if report.passes() => {
            config.warnings = report.warnings.clone();
            config.digest = digest::of(&config);
            (Some(config), report)
        }
        _ => (None, report),
    }
}

/// What `check` asks: everything about a file, and with `files` also about those it names, on this machine, as `node` finds
/// them, or each node that has a certificate here.
///
/// # Errors
/// The file cannot be read, or there is no such node. Faults are no error: they are in the report.
pub fn check_file(path: &Path, files: bool, node: Option<&str>) -> Result<Report, ConfigError> {
    let bytes = read_bounded(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let (config, mut report) = judge(&bytes);
    if let Some(config) = config.filter(|_| files) {
        let node = node.map(|name| config.node(name)).transpose()?.map(|node| &node.name);
        let named = config.check_files(node);
        report.errors.extend(named.errors);
        report.warnings.extend(named.warnings);
        report.sort();
    }
    Ok(report)
}

impl Config {
    /// Reads and judges a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let bytes = read_bounded(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        match judge(&bytes) {
            (Some(config), _) => Ok(config),
            (None, report) => Err(ConfigError::Faults { path: path.to_owned(), report }),
        }
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Result<&NodeConfig, ConfigError> {
        let known = || self.nodes.values().map(|node| node.name.to_string()).collect();
        let found = self.nodes.values().find(|node| node.name.as_str() == name);
        found.ok_or_else(|| ConfigError::NoSuchNode { name: name.to_owned(), known: known() })
    }

    /// Where a node's certificate lies; `None` where it speaks plain text, on loopback.
    pub fn tls_files(&self, node: &NodeName) -> Option<Files> {
        let TlsConfig::Files { ca, certificate, key } = &self.tls else { return None };
        let own = |path: &str| PathBuf::from(path.replace("{node}", node.as_str()));
        Some(Files { ca: own(ca), certificate: own(certificate), key: own(key) })
    }

    /// Who holds which role.
    pub fn roles(&self) -> Roles {
        let nodes = self.nodes.values().map(|node| &node.name);
        Roles::new(&self.cluster, nodes, self.hosts.keys(), &self.roles)
    }

    /// Every target that a node probes: those of all groups, then the references.
    pub fn targets(&self) -> impl Iterator<Item = &TargetConfig> {
        self.groups.values().flat_map(|group| group.targets.values()).chain(self.references.values())
    }

    /// What `decide` needs of all this.
    pub fn policy(&self) -> ClusterPolicy {
        let member = |node: &NodeConfig| Member { name: NodeName(node.name.0.clone()), region: node.region.clone() };
        ClusterPolicy {
            cluster: self.cluster.clone(),
            epoch: self.epoch,
            digest: self.digest.clone(),
            members: self.nodes.iter().map(|(id, node)| (*id, member(node))).collect(),
            accepted_losses: self.accepted_losses.clone(),
            receivers: self.receivers.keys().cloned().collect::<Vec<ReceiverName>>(),
            on_call: self.on_call.clone(),
            groups: self.groups.iter().map(|(name, group)| (name.clone(), group.policy.clone())).collect(),
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the reader can tell "too large" from "just large enough".
    std::fs::File::open(path)?.take(read::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
