//! `[lease]` in the guard's configuration: whom to ask, for whom to hold, and which gate.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::domain::ids::{HostName, RegionName};
use crate::guard::config::is_name;
use crate::guard::egress::probe::hides_a_pause;
use crate::guard::egress::{EXEMPT_MAX, Net};
use crate::tls::Files;

/// Shorter, and an ordinary pause of a host ends the lease; milliseconds.
pub const TTL_MS_MIN: u64 = 500;
/// Longer, and a failover waits for it too long; also the longest hold anybody can ask for. Milliseconds.
pub const TTL_MS_MAX: u64 = 60_000;
/// Renewals are not sent more often, milliseconds.
const RENEW_EVERY_MS_MIN: u64 = 50;

/// What a guard in fencing mode `lease` knows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// This host, as the cluster's configuration names it.
    pub host: HostName,
    /// Its region, as the cluster's configuration names it.
    pub region: RegionName,
    /// The gate shuts this long after the request that was granted was sent, milliseconds; the group's own counts where
    /// it is shorter.
    pub ttl_ms: u64,
    /// How often a renewal is asked for, milliseconds; a fifth of the TTL where left out.
    renew_every_ms: Option<u64>,
    /// Where this guard grants promotion holds: `address:port`.
    pub listen: String,
    /// The cluster's nodes: `address:port`.
    pub nodes: Vec<String>,
    /// Hosts whose guards are asked for promotion holds: the cluster's name for each, and its guard's `address:port`.
    #[serde(default)]
    pub holders: BTreeMap<String, String>,
    /// What the kernel enforces the lease by.
    #[serde(default)]
    pub gate: GateKind,
    /// How this guard proves who it is, to the nodes and to other guards.
    pub tls: Option<Tls>,
    /// Peers that are never gated (the standbys): addresses or networks (`10.2.0.0/16`).
    #[serde(default, deserialize_with = "nets")]
    pub exempt: Vec<Net>,
    /// Who answers for it that no hypervisor pauses this host unseen, where its clock source would hide that
    /// (`kvm-clock`). Left out, such a host attests nothing, and its group stays in mode `confirm`.
    pub clock_trusted_by: Option<String>,
    /// The database's cgroup (version 2), for kind `bpf`: one that outlives the server's stop. Where left out it is the
    /// running server's.
    pub cgroup: Option<PathBuf>,
    /// Commits wait for the lease too: the second layer, behind the kernel's gate (docs/adr/0010). Off where left out.
    #[serde(default)]
    pub commit_gate: bool,
    /// How the commit gate connects to the database.
    #[serde(default)]
    pub replication: Replication,
}

/// How the commit gate connects to the database, as a client of replication.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replication {
    /// What `synchronous_standby_names` names, alone.
    #[serde(default = "application_name")]
    pub application_name: String,
    /// The folder of the Unix socket, or an address of this host; `postgres.socket_dir` where left out.
    pub host: Option<String>,
    /// The role, with the attribute REPLICATION; `postgres.user` where left out.
    pub user: Option<String>,
    /// Holds the role's password, if it needs one.
    pub password_file: Option<PathBuf>,
}

impl Default for Replication {
    fn default() -> Self {
        Self { application_name: application_name(), host: None, user: None, password_file: None }
    }
}

fn application_name() -> String {
    "watchdog_gate".to_owned()
}

/// This guard's certificate; or the word that says that there is none.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the cluster's certificate authority.
    pub ca: Option<PathBuf>,
    /// PEM file of this guard's certificate.
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
    /// `loopback`: plain text, between programs of one machine.
    pub plaintext: Option<String>,
}

impl Tls {
    /// The three files; `None` for plain text.
    pub fn files(&self) -> Option<Files> {
        let (ca, certificate, key) = (self.ca.clone()?, self.certificate.clone()?, self.key.clone()?);
        Some(Files { ca, certificate, key })
    }

    fn faults(&self, lease: &Lease, fault: &mut impl FnMut(&str, String)) {
        let files = [("tls.ca", &self.ca), ("tls.certificate", &self.certificate), ("tls.key", &self.key)];
        let Some(word) = &self.plaintext else {
            for (key, file) in files {
                match file {
                    None => fault(key, "is missing: ca, certificate and key go together".to_owned()),
                    Some(path) if !path.is_absolute() => fault(key, "is not an absolute path".to_owned()),
                    Some(_) => {}
                }
            }
            return;
        };
        if word != "loopback" {
            fault("tls.plaintext", format!("{word:?} is not \"loopback\": name ca, certificate and key instead"));
        }
        if files.iter().any(|(_, file)| file.is_some()) {
            fault("tls.plaintext", "plain text and certificates at once: remove one of them".to_owned());
        }
        let others = lease.nodes.iter().chain(lease.holders.values());
        for address in std::iter::once(&lease.listen).chain(others) {
            let is_loopback = address.parse::<std::net::SocketAddr>().is_ok_and(|at| at.ip().is_loopback());
            if !is_loopback {
                let why = format!("is for loopback only, and {address:?} is not: name ca, certificate and key instead");
                fault("tls.plaintext", why);
            }
        }
    }
}

/// What the kernel enforces the lease by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    /// BPF where the kernel lets it, else nftables.
    #[default]
    Auto,
    /// A BPF program on the database's cgroup.
    Bpf,
    /// An nftables table with a timeout.
    Nftables,
}

impl Lease {
    /// How often a renewal is asked for, milliseconds.
    pub fn renew_every_ms(&self) -> u64 {
        self.renew_every_ms.unwrap_or(self.ttl_ms / 5).max(1)
    }

    /// Where the database must run to be gated, as far as the configuration says.
    pub fn gated_cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref().filter(|_| self.gate != GateKind::Nftables)
    }

    /// The hosts asked for holds.
    pub fn holder_names(&self) -> Vec<HostName> {
        self.holders.keys().map(|name| HostName(name.clone())).collect()
    }

    /// Why waiting proves nothing on a host with this clock source, if so.
    pub fn clock_fault(&self, clock_source: &str) -> Option<String> {
        if self.clock_trusted_by.is_some() || !hides_a_pause(clock_source) {
            return None;
        }
        let which = if clock_source.is_empty() { "that the kernel does not tell" } else { clock_source };
        Some(format!(
            "the clock source {which} may hide a pause of this host from it, so that its lease would prove nothing: use \
             fencing = \"confirm\", another clock source (tsc), or say by name that nobody pauses it: lease.clock_trusted_by"
        ))
    }

    pub(in crate::guard) fn faults(&self, has_postgres: bool, faults: &mut Vec<String>) {
        let mut fault = |key: &str, why: String| faults.push(format!("lease.{key}: {why}"));
        if !has_postgres {
            fault("host", "there is no [postgres] with a group of its own, so there is nothing to lease".to_owned());
        }
        for (key, name) in [("host", self.host.as_str()), ("region", self.region.as_str())] {
            if !is_name(name) {
                fault(key, format!("{name:?} is not a name (letters, digits, . _ -)"));
            }
        }
        if !(TTL_MS_MIN..=TTL_MS_MAX).contains(&self.ttl_ms) {
            fault("ttl_ms", format!("{} is not within {TTL_MS_MIN} to {TTL_MS_MAX}", self.ttl_ms));
        } else if !(RENEW_EVERY_MS_MIN..=self.ttl_ms / 3).contains(&self.renew_every_ms()) {
            let (is, third) = (self.renew_every_ms(), self.ttl_ms / 3);
            fault("renew_every_ms", format!("{is} is not within {RENEW_EVERY_MS_MIN} and a third of ttl_ms ({third})"));
        }
        if let Err(why) = self.listen.parse::<std::net::SocketAddr>() {
            fault("listen", format!("{:?} is not address:port ({why})", self.listen));
        }
        if self.nodes.is_empty() {
            fault("nodes", "names no node: nobody could ever grant the lease".to_owned());
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if let Err(why) = check_address(node) {
                fault("nodes", why);
            }
            if self.nodes[..at].contains(node) {
                fault("nodes", format!("{node:?} is there twice"));
            }
        }
        for (name, address) in &self.holders {
            if !is_name(name) {
                fault("holders", format!("{name:?} is not a name (letters, digits, . _ -)"));
            }
            if name == self.host.as_str() {
                fault("holders", format!("{name:?} is this host: it cannot hold for itself"));
            }
            if let Err(why) = check_address(address) {
                fault(&format!("holders.{name}"), why);
            }
        }
        if self.exempt.len() > EXEMPT_MAX {
            fault("exempt", format!("names more than {EXEMPT_MAX} networks"));
        }
        if self.clock_trusted_by.as_ref().is_some_and(|who| who.trim().is_empty()) {
            fault("clock_trusted_by", "must say who, and when: it is a person's word".to_owned());
        }
        if self.cgroup.as_ref().is_some_and(|path| !path.is_absolute()) {
            fault("cgroup", "is not an absolute path".to_owned());
        }
        self.replication.faults(&mut fault);
        match &self.tls {
            Some(tls) => tls.faults(self, &mut fault),
            None => fault("tls", "is missing: tls = { ca = …, certificate = …, key = … }; `watchdogctl cert issue guard HOST` makes them".to_owned()),
        }
    }
}

impl Replication {
    fn faults(&self, fault: &mut impl FnMut(&str, String)) {
        // PostgreSQL cuts longer names.
        if !is_name(&self.application_name) || self.application_name.len() > 63 {
            let is = &self.application_name;
            fault("replication.application_name", format!("{is:?} is not a name (letters, digits, . _ -; at most 63)"));
        }
        let is_place = |host: &str| Path::new(host).is_absolute() || host.parse::<IpAddr>().is_ok();
        if let Some(host) = self.host.as_ref().filter(|host| !is_place(host)) {
            fault("replication.host", format!("{host:?} is neither an absolute path nor an address"));
        }
        if self.user.as_ref().is_some_and(|user| user.is_empty() || user.contains('\0')) {
            fault("replication.user", "is no role".to_owned());
        }
        if self.password_file.as_ref().is_some_and(|path| !path.is_absolute()) {
            fault("replication.password_file", "is not an absolute path".to_owned());
        }
    }
}

/// `address:port` or `name:port`, as a channel can be made to it.
fn check_address(text: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("{text:?} {why}"));
    let Some((host, port)) = text.rsplit_once(':') else { return bad("has no port") };
    if host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return bad("is not address:port");
    }
    match tonic::transport::Endpoint::from_shared(format!("http://{text}")) {
        Ok(endpoint) if endpoint.uri().host().is_some() && endpoint.uri().path() == "/" => Ok(()),
        Ok(_) => bad("is not address:port"),
        Err(why) => bad(&format!("is not address:port ({why})")),
    }
}

fn nets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Net>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(|why| D::Error::custom(format!("lease.exempt: {why}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_may_hide_a_pause_is_trusted_by_name_only() {
        let lease = |more: &str| -> Lease {
            let text = "host = \"db-a\"\nregion = \"a\"\nttl_ms = 2000\nlisten = \"10.0.0.1:7110\"\nnodes = [\"10.0.0.1:7101\"]\n";
            toml::from_str(&format!("{text}{more}")).expect("a sound table")
        };
        let trusted = "clock_trusted_by = \"Linh, 2026-11-01: nobody pauses this guest\"\n";
        for (source, by_itself) in
            [("tsc", true), ("arch_sys_counter", true), ("kvm-clock", false), ("xen", false), ("", false)]
        {
            assert_eq!(lease("").clock_fault(source).is_none(), by_itself, "{source}");
            assert_eq!(lease(trusted).clock_fault(source), None, "{source}");
        }
        let fault = lease("").clock_fault("kvm-clock").expect("refused");
        assert!(fault.contains("kvm-clock") && fault.contains("lease.clock_trusted_by"), "{fault}");
    }
}
