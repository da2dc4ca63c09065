//! From the file as typed to a configuration that is sound in itself. Faults are collected, never thrown: one bad field hides no other.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::ids::{ClusterName, ConfigDigest, GroupName, HostName, ProviderName, RegionName};
use crate::domain::on_call::OnCall;
use crate::domain::plan::DnsProvider;

use super::check::{Item, Report};
use super::raw::RawConfig;
use super::types::{Config, GroupConfig, HostConfig, NamedFile, RegionConfig, Schedule};

mod backup;
mod cluster;
mod drill;
mod fields;
mod group;
mod heartbeat;
mod layout;
mod lease;
mod on_call;
mod parts;
mod plan;
mod record;
mod redis;
mod service;
mod shared;
mod target;
mod tls;

/// Judges the file. `None` when something is missing without which there is no configuration at all.
pub fn validate(raw: &RawConfig, report: &mut Report) -> Option<Config> {
    let mut judge = Judge::new(raw, report);
    let (cluster, epoch) = judge.cluster(&raw.cluster);
    let timing = judge.timing(&raw.timing);
    let audit_retention = judge.audit(&raw.audit);
    let traces = judge.traces(&raw.traces);
    let heartbeat = judge.heartbeat(&raw.heartbeat, &raw.nodes);
    let tls = judge.tls(&raw.tls, &raw.nodes);
    judge.is_plaintext = tls == Some(super::types::TlsConfig::PlaintextOnLoopback);
    judge.defaults = judge.schedule_defaults(&raw.probe_defaults);
    judge.regions = judge.regions(&raw.regions);
    let nodes = judge.nodes(&raw.nodes);
    let references = judge.references(&raw.references);
    let receivers = judge.receivers(&raw.receivers);
    let on_call = judge.on_call(raw);
    judge.on_call.clone_from(&on_call);
    judge.hosts = judge.hosts(&raw.hosts);
    judge.dns = judge.providers(&raw.dns);
    let roles = judge.roles(&raw.roles, tls.as_ref());
    let groups = judge.groups(raw, &timing);
    judge.shared(raw, &groups);
    let no_automatic_failover_from = judge.layout(raw, &nodes);
    judge.leases(raw, &groups, &no_automatic_failover_from);
    let accepted = raw.cluster.value.accept_no_automatic_failover_from.as_ref();
    Some(Config {
        cluster: ClusterName(cluster?),
        epoch,
        no_automatic_failover_from,
        accepted_losses: accepted.into_iter().flatten().map(|name| RegionName(name.clone())).collect(),
        tls: tls?,
        roles,
        timing,
        audit_retention,
        heartbeat,
        traces,
        regions: judge.regions,
        nodes,
        references,
        receivers,
        on_call,
        hosts: judge.hosts,
        dns: judge.dns,
        groups,
        digest: ConfigDigest(String::new()),
        warnings: Vec::new(),
        files: judge.files,
    })
}

/// What is being judged, and what is known so far.
struct Judge<'r> {
    report: &'r mut Report,
    known: Known,
    defaults: Schedule,
    regions: BTreeMap<RegionName, RegionConfig>,
    hosts: BTreeMap<HostName, HostConfig>,
    dns: BTreeMap<ProviderName, DnsProvider>,
    on_call: OnCall,
    /// The zone of a provider, where the file tells it.
    zones: BTreeMap<ProviderName, String>,
    /// Names of targets and references so far, with the line of each.
    target_names: BTreeMap<String, Option<usize>>,
    /// Every record of the group being judged could be read: only then is one that is not found a fault of its own.
    records_are_whole: bool,
    files: Vec<NamedFile>,
    /// Nodes prove nothing to each other.
    is_plaintext: bool,
}

/// Names that the file defines, whether or not the rest of their table is sound: so that a bad host is not also reported as
/// an unknown one wherever it is referred to.
struct Known {
    regions: BTreeSet<String>,
    nodes: BTreeSet<String>,
    hosts: BTreeSet<String>,
    dns: BTreeSet<String>,
    receivers: BTreeSet<String>,
    contacts: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl<'r> Judge<'r> {
    fn new(raw: &RawConfig, report: &'r mut Report) -> Self {
        let known = Known {
            regions: names(&raw.regions, |region| &region.name),
            nodes: names(&raw.nodes, |node| &node.name),
            hosts: names(&raw.hosts, |host| &host.name),
            dns: names(&raw.dns, |dns| &dns.name),
            receivers: names(&raw.receivers, |receiver| &receiver.name),
            contacts: names(&raw.contacts, |contact| &contact.name),
            groups: raw.groups.iter().filter_map(|tables| tables.group.value.name.clone()).collect(),
        };
        Self {
            report,
            known,
            defaults: cluster::schedule(500, 100, 1000, 3, 2),
            regions: BTreeMap::new(),
            hosts: BTreeMap::new(),
            dns: BTreeMap::new(),
            on_call: OnCall::default(),
            zones: BTreeMap::new(),
            target_names: BTreeMap::new(),
            records_are_whole: true,
            files: Vec::new(),
            is_plaintext: false,
        }
    }

    fn groups(&mut self, raw: &RawConfig, timing: &super::types::Timing) -> BTreeMap<GroupName, GroupConfig> {
        let mut groups = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for tables in &raw.groups {
            let place = &tables.group.place;
            let name = self.name(place, "name", &tables.group.value.name);
            if let Some(name) = &name {
                self.unique(&mut seen, place, "name", name, "group");
            }
            let name = GroupName(name.unwrap_or_default());
            let group = self.group(&name, tables, timing);
            groups.insert(name, group);
        }
        if raw.groups.is_empty() {
            self.report.warn(
                &raw.cluster.place,
                "",
                "no [[group]]: the nodes will watch nothing",
                "describe what fails over together in a [[group]]",
            );
        }
        groups
    }
}

fn names<T>(items: &[Item<T>], name: fn(&T) -> &Option<String>) -> BTreeSet<String> {
    items.iter().filter_map(|item| name(&item.value).clone()).collect()
}
