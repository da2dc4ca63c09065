//! `[cluster]`, `[timing]`, `[probe_defaults]`, `[[region]]` and `[[node]]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::check::{Item, Place};
use crate::config::raw::{RawAudit, RawCluster, RawNode, RawProbe, RawRegion, RawTiming};
use crate::config::types::{NodeConfig, RegionConfig, Schedule, Timing};
use crate::domain::ids::{NodeId, NodeName, RegionName};

use super::Judge;
use super::fields::HOUR_MS;

impl Judge<'_> {
    pub(super) fn cluster(&mut self, item: &Item<RawCluster>) -> (Option<String>, u64) {
        let Item { place, value } = item;
        let name = self.name(place, "name", &value.name);
        let epoch = self.number(place, "epoch", value.epoch, 1, 1..=u64::from(u32::MAX));
        (name, epoch)
    }

    pub(super) fn timing(&mut self, item: &Item<RawTiming>) -> Timing {
        let Item { place, value } = item;
        let heartbeat = self.number(place, "heartbeat_ms", value.heartbeat_ms, 250, 10..=60_000);
        let min = self.number(place, "election_min_ms", value.election_min_ms, 1000, 20..=600_000);
        let max = self.number(place, "election_max_ms", value.election_max_ms, 1500, 20..=600_000);
        let report = self.number(place, "report_interval_ms", value.report_interval_ms, 1000, 50..=60_000);
        let snapshot = value.install_snapshot_timeout_ms;
        let snapshot = self.number(place, "install_snapshot_timeout_ms", snapshot, 10_000, 200..=HOUR_MS);
        let readiness = self.number(place, "readiness_interval_s", value.readiness_interval_s, 60, 1..=86_400);
        if min <= heartbeat {
            let what =
                format!("election_min_ms {min} is not longer than heartbeat_ms {heartbeat}: no leader would last");
            self.report.error(place, "election_min_ms", what, "make it at least 4 heartbeats");
        } else if min < heartbeat.saturating_mul(4) {
            let what = format!(
                "election_min_ms {min} is less than 4 heartbeats of {heartbeat} ms: one late heartbeat may cost a leader"
            );
            self.report.warn(place, "election_min_ms", what, "250/1000/1500 (heartbeat/min/max) held between regions");
        }
        if max <= min {
            let what = format!("election_max_ms {max} is not longer than election_min_ms {min}: candidates would tie");
            self.report.error(place, "election_max_ms", what, "make it about 1.5 × election_min_ms");
        }
        if heartbeat < 200 {
            let what =
                format!("heartbeat_ms {heartbeat} leaves little for the way between regions and a follower's fsync");
            self.report.warn(place, "heartbeat_ms", what, "keep 250 unless all nodes are within a few milliseconds");
        }
        if snapshot < 5000 {
            let what =
                format!("install_snapshot_timeout_ms {snapshot} may be too short for a snapshot between regions");
            self.report.warn(place, "install_snapshot_timeout_ms", what, "keep it at 5000 or more");
        }
        Timing {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(min),
            election_max: Duration::from_millis(max),
            report_interval: Duration::from_millis(report),
            install_snapshot_timeout: Duration::from_millis(snapshot),
            readiness_interval: Duration::from_secs(readiness),
        }
    }

    pub(super) fn audit(&mut self, item: &Item<RawAudit>) -> Duration {
        let Item { place, value } = item;
        let days = self.number(place, "retention_days", value.retention_days, 2555, 1..=36_500);
        if days < 365 {
            let what = format!("retention_days {days} is less than a year");
            self.report.warn(place, "retention_days", what, "7 years are 2555; copy the files elsewhere before");
        }
        Duration::from_secs(u64::from(days) * 24 * 3600)
    }

    pub(super) fn schedule_defaults(&mut self, item: &Item<RawProbe>) -> Schedule {
        let defaults = schedule(500, 100, 1000, 3, 2);
        self.schedule(&item.place, &item.value, &defaults)
    }

    /// A schedule with what is not written taken from `defaults`.
    pub(super) fn schedule(&mut self, place: &Place, raw: &RawProbe, defaults: &Schedule) -> Schedule {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(HOUR_MS);
        let interval = self.number(place, "interval_ms", raw.interval_ms, ms(defaults.interval), 10..=HOUR_MS);
        let fastinter = self.number(place, "fastinter_ms", raw.fastinter_ms, ms(defaults.fastinter), 10..=HOUR_MS);
        let timeout = self.number(place, "timeout_ms", raw.timeout_ms, ms(defaults.timeout), 10..=HOUR_MS);
        let fall = self.number(place, "fall", raw.fall, defaults.fall, 1..=100);
        let rise = self.number(place, "rise", raw.rise, defaults.rise, 1..=100);
        let written = |key: &str| place.has(key);
        if fastinter > interval && (written("fastinter_ms") || written("interval_ms")) {
            let what =
                format!("fastinter_ms {fastinter} is longer than interval_ms {interval}: doubt would last longer");
            self.report.error(place, "fastinter_ms", what, "make it a fifth of interval_ms or so");
        }
        if fall == 1 && written("fall") {
            let what = "fall = 1: a single lost probe counts as down";
            self.report.warn(place, "fall", what, "use 2 or 3, with a short fastinter_ms");
        }
        schedule(interval, fastinter, timeout, fall, rise)
    }

    pub(super) fn regions(&mut self, items: &[Item<RawRegion>]) -> BTreeMap<RegionName, RegionConfig> {
        let mut regions = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for Item { place, value } in items {
            let Some(name) = self.name(place, "name", &value.name) else { continue };
            self.unique(&mut seen, place, "name", &name, "region");
            regions.insert(RegionName(name), RegionConfig { witness: value.witness.unwrap_or(false) });
        }
        regions
    }

    pub(super) fn nodes(&mut self, items: &[Item<RawNode>]) -> BTreeMap<NodeId, NodeConfig> {
        let mut nodes = BTreeMap::new();
        let mut seen = Seen::default();
        for item in items {
            if let Some(node) = self.node(item, &mut seen) {
                nodes.insert(node.id, node);
            }
        }
        nodes
    }

    fn node(&mut self, item: &Item<RawNode>, seen: &mut Seen) -> Option<NodeConfig> {
        let Item { place, value } = item;
        let id = self.required(place, "id", &value.id);
        if let Some(id) = id {
            self.number(place, "id", Some(id), 1, 1..=u64::from(u32::MAX));
            self.unique(&mut seen.ids, place, "id", &id.to_string(), "node id");
        }
        let name = self.name(place, "name", &value.name);
        if let Some(name) = &name {
            self.unique(&mut seen.names, place, "name", name, "node name");
        }
        let regions = self.known.regions.clone();
        let region = self.refers(place, "region", &value.region, &regions, "region");
        let listen = self.socket(place, "listen", &value.listen);
        let address = match (&value.address, &listen) {
            (None, Some(listen)) if listen.ip().is_unspecified() => {
                let what = format!("listen is {listen}, every interface: peers cannot dial that");
                self.report.error(place, "address", what, "add address = \"HOST:PORT\" as the peers reach it");
                None
            }
            (None, Some(listen)) => Some(listen.to_string()),
            (None, None) => None,
            (address, _) => self.host_port(place, "address", address),
        };
        if let Some(address) = &address {
            let key = if place.has("address") { "address" } else { "listen" };
            self.unique(&mut seen.addresses, place, key, address, "node address");
        }
        let http = value.http.as_ref().and_then(|_| self.socket(place, "http", &value.http));
        if let (Some(http), Some(listen)) = (http, listen)
            && http.port() == listen.port()
        {
            let what = format!("http and listen both use port {}", http.port());
            self.report.error(place, "http", what, "give http a port of its own");
        }
        let page = value.page.as_ref().and_then(|_| self.socket(place, "page", &value.page));
        for (other, taken) in [("listen", listen), ("http", http)] {
            if page.is_some_and(|page| taken.is_some_and(|taken| taken.port() == page.port())) {
                let what = format!("page and {other} both use one port");
                self.report.error(place, "page", what, "give page a port of its own");
            }
        }
        if self.is_plaintext && page.is_some_and(|page| !page.ip().is_loopback()) {
            let what = "the status page would be shown in plain text to everybody who reaches it";
            self.report.error(place, "page", what, "bind it to 127.0.0.1, or write [tls] ca, certificate and key");
        }
        let data_dir = self.required(place, "data_dir", &value.data_dir);
        let data_dir = data_dir.and_then(|dir| self.path(place, "data_dir", &dir));
        if let (Some(dir), Some(address)) = (&data_dir, &address) {
            let machine = address.rsplit_once(':').map_or("", |(host, _)| host);
            let on_machine = format!("{machine}:{}", dir.display());
            self.unique(&mut seen.data_dirs, place, "data_dir", &on_machine, "data_dir on one machine");
        }
        let audit_dir = match &value.audit_dir {
            Some(dir) => self.path(place, "audit_dir", dir),
            None => data_dir.as_ref().map(|dir| dir.join("audit")),
        };
        if let (Some(dir), Some(address), true) = (&audit_dir, &address, place.has("audit_dir")) {
            let machine = address.rsplit_once(':').map_or("", |(host, _)| host);
            let on_machine = format!("{machine}:{}", dir.display());
            self.unique(&mut seen.audit_dirs, place, "audit_dir", &on_machine, "audit_dir on one machine");
        }
        let data_dir: PathBuf = data_dir?;
        Some(NodeConfig {
            id: NodeId(id?),
            name: NodeName(name?),
            region: RegionName(region?),
            listen: listen?,
            address: address?,
            http,
            page,
            data_dir,
            audit_dir: audit_dir?,
        })
    }
}

#[derive(Default)]
struct Seen {
    ids: BTreeMap<String, Option<usize>>,
    names: BTreeMap<String, Option<usize>>,
    addresses: BTreeMap<String, Option<usize>>,
    data_dirs: BTreeMap<String, Option<usize>>,
    audit_dirs: BTreeMap<String, Option<usize>>,
}

/// A schedule out of milliseconds.
pub(super) fn schedule(interval: u64, fastinter: u64, timeout: u64, fall: u32, rise: u32) -> Schedule {
    Schedule {
        interval: Duration::from_millis(interval),
        fastinter: Duration::from_millis(fastinter),
        timeout: Duration::from_millis(timeout),
        fall,
        rise,
    }
}
