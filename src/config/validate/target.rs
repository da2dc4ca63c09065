//! `[[group.target]]` and `[[reference]]`: what is probed, and how.

use std::collections::BTreeMap;

use crate::config::check::{Item, Place};
use crate::config::raw::{RawProbe, RawTarget};
use crate::config::types::{DatabaseRole, TargetConfig, TargetKind};
use crate::domain::ids::{GroupName, RegionName, TargetName};
use crate::domain::plan::{DatabaseEndpoint, RedisEndpoint};

use super::Judge;
use super::cluster::schedule;
use super::record::{KINDS, Record};

pub(super) const COMMON: &[&str] =
    &["name", "region", "kind", "interval_ms", "fastinter_ms", "timeout_ms", "fall", "rise"];

impl Judge<'_> {
    pub(super) fn references(&mut self, items: &[Item<RawTarget>]) -> BTreeMap<TargetName, TargetConfig> {
        let mut references = BTreeMap::new();
        for item in items {
            let place = &item.place;
            if item.value.region.is_some() {
                self.report.error(place, "region", "a reference belongs to no region", "remove it");
            }
            if let Some(kind) = item.value.kind.as_deref()
                && ["postgres", "replication", "redis", "backup", "dns"].contains(&kind)
            {
                let what = format!("a reference cannot be of kind {kind:?}");
                self.report.error(place, "kind", what, "choose \"tcp\" or \"http\", at something that is never down");
                continue;
            }
            if let Some(target) = self.target(item, None, &[]) {
                references.insert(target.name.clone(), target);
            }
        }
        if items.is_empty() {
            let what = "no [[reference]]: a node that lost its own network can only tell by its peers";
            let todo = "add one or two things that have nothing to do with any group, such as a public name server";
            self.report.warn(&Place::default(), "reference", what, todo);
        }
        references
    }

    /// One target; `group` is `None` for a reference.
    pub(super) fn target(
        &mut self,
        item: &Item<RawTarget>,
        group: Option<&GroupName>,
        records: &[Record],
    ) -> Option<TargetConfig> {
        let Item { place, value } = item;
        let name = self.name(place, "name", &value.name);
        if let Some(name) = &name {
            let mut seen = std::mem::take(&mut self.target_names);
            self.unique(&mut seen, place, "name", name, "target or reference");
            self.target_names = seen;
        }
        let region = match group {
            None => None,
            Some(_) => {
                let regions = self.known.regions.clone();
                self.refers(place, "region", &value.region, &regions, "region").map(RegionName)
            }
        };
        let kind = self.target_kind(item, records);
        let probe = RawProbe {
            interval_ms: value.interval_ms,
            fastinter_ms: value.fastinter_ms,
            timeout_ms: value.timeout_ms,
            fall: value.fall,
            rise: value.rise,
        };
        // Nobody makes a backup every half second.
        let defaults = match kind {
            Some(TargetKind::Backup { .. }) => schedule(60_000, 10_000, 10_000, 3, 1),
            _ => self.defaults.clone(),
        };
        let schedule = self.schedule(place, &probe, &defaults);
        Some(TargetConfig { name: TargetName(name?), group: group.cloned(), region, kind: kind?, schedule })
    }

    fn target_kind(&mut self, item: &Item<RawTarget>, records: &[Record]) -> Option<TargetKind> {
        let Item { place, value } = item;
        let kinds = ["http", "tcp", "postgres", "replication", "redis", "backup", "dns"].map(|word| (word, word));
        match self.choice(place, "kind", &value.kind, None, &kinds)? {
            "http" => {
                let own = ["url", "expect_status", "body_contains", "ca_file", "follow_redirects"];
                self.only(place, "http", COMMON, &own);
                let expect_status = self.number(place, "expect_status", value.expect_status, 200, 100..=599);
                let ca_file = self.file(place, "ca_file", &value.ca_file, false);
                let body_contains = value.body_contains.clone();
                let follow_redirects = value.follow_redirects.unwrap_or(false);
                let url = self.url(place, "url", &value.url)?;
                Some(TargetKind::Http { url, expect_status, body_contains, ca_file, follow_redirects })
            }
            "tcp" => {
                self.only(place, "tcp", COMMON, &["address"]);
                self.host_port(place, "address", &value.address).map(|address| TargetKind::Tcp { address })
            }
            "postgres" => {
                let own = ["conninfo", "password_file", "tls_ca_file", "expect_role", "canary"];
                self.only(place, "postgres", COMMON, &own);
                let roles = [
                    ("primary", DatabaseRole::Primary),
                    ("standby", DatabaseRole::Standby),
                    ("any", DatabaseRole::Any),
                ];
                let expect_role =
                    self.choice(place, "expect_role", &value.expect_role, Some(DatabaseRole::Any), &roles);
                let database =
                    self.database(place, "conninfo", &value.conninfo, &value.password_file, &value.tls_ca_file);
                let canary = value.canary.unwrap_or(false);
                Some(TargetKind::Postgres { database: database?, expect_role: expect_role?, canary })
            }
            "replication" => {
                self.only(place, "replication", COMMON, &["primary", "standby", "password_file", "tls_ca_file"]);
                let (password, ca) = (&value.password_file, &value.tls_ca_file);
                let primary = self.database(place, "primary", &value.primary, password, ca);
                // The files stand once in the table: noted once.
                let noted = self.files.len();
                let standby = self.database(place, "standby", &value.standby, password, ca);
                self.files.truncate(noted);
                let (primary, standby) = (primary?, standby?);
                if instances(&primary.conninfo) == instances(&standby.conninfo) {
                    let what = "primary and standby are the same server";
                    self.report.error(place, "standby", what, "name the standby in this target's region");
                }
                Some(TargetKind::Replication { primary, standby })
            }
            "redis" => self.redis_target(item),
            "backup" => self.backup_target(item),
            _ => self.dns_target(item, records),
        }
    }

    fn redis_target(&mut self, item: &Item<RawTarget>) -> Option<TargetKind> {
        let Item { place, value } = item;
        self.only(place, "redis", COMMON, &["address", "user", "password_file", "primary", "expect_role"]);
        let roles =
            [("primary", DatabaseRole::Primary), ("replica", DatabaseRole::Standby), ("any", DatabaseRole::Any)];
        let expect_role = self.choice(place, "expect_role", &value.expect_role, Some(DatabaseRole::Any), &roles);
        let server = self.redis(place, &value.address, &value.user, &value.password_file);
        let primary = value.primary.as_ref().and_then(|_| self.host_port(place, "primary", &value.primary));
        let server = server?;
        if primary.as_ref() == Some(&server.address) {
            let todo = "name the other region's server, or leave it out";
            self.report.error(place, "primary", "address and primary are the same server", todo);
        }
        let primary = primary.map(|address| RedisEndpoint { address, ..server.clone() });
        Some(TargetKind::Redis { server, primary, expect_role: expect_role? })
    }

    /// A Redis server without its password.
    pub(super) fn redis(
        &mut self,
        place: &Place,
        address: &Option<String>,
        user: &Option<String>,
        password_file: &Option<String>,
    ) -> Option<RedisEndpoint> {
        let password_file = self.file(place, "password_file", password_file, true);
        if user.is_some() && password_file.is_none() {
            let what = "user without password_file: Redis knows nobody without a password";
            self.report.error(place, "user", what, "add password_file = \"/…\", or remove user");
        }
        let address = self.host_port(place, "address", address)?;
        Some(RedisEndpoint { address, user: user.clone(), password_file })
    }

    fn dns_target(&mut self, item: &Item<RawTarget>, records: &[Record]) -> Option<TargetKind> {
        let Item { place, value } = item;
        self.only(place, "dns", COMMON, &["server", "record_name", "record_type"]);
        let server = self.socket(place, "server", &value.server).map(|server| server.to_string());
        let record_name = self.fqdn(place, "record_name", &value.record_name)?;
        let record_type = self.choice(place, "record_type", &value.record_type, None, KINDS)?;
        let same = |record: &&Record| record.name == record_name && record.kind == record_type;
        let Some(record) = records.iter().find(same) else {
            let what = format!("the group has no record {record_name} {record_type}");
            let todo = "name one of the group's [[group.record]] or [[group.traffic_record]]";
            if self.records_are_whole {
                self.report.error(place, "record_name", what, todo);
            }
            return None;
        };
        Some(TargetKind::Dns { server: server?, record_name, record_type, expected: record.values.clone() })
    }

    /// A database without its password.
    pub(super) fn database(
        &mut self,
        place: &Place,
        key: &str,
        conninfo: &Option<String>,
        password_file: &Option<String>,
        tls_ca_file: &Option<String>,
    ) -> Option<DatabaseEndpoint> {
        let password_file = self.file(place, "password_file", password_file, true);
        let tls_ca_file = self.file(place, "tls_ca_file", tls_ca_file, false);
        let text = self.required(place, key, conninfo)?;
        let todo = "write it as \"host=10.1.0.5 port=5432 user=watchdog dbname=aicamera\"";
        // The text is never repeated in a message: it might hold a password that should not be there.
        let parsed: tokio_postgres::Config = match text.parse() {
            Ok(parsed) => parsed,
            Err(error) => {
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                self.report.error(place, key, format!("not a connection string ({why})"), todo);
                return None;
            }
        };
        if text.contains("://") {
            self.report.error(place, key, "a URL instead of key=value words", todo);
        } else if parsed.get_password().is_some() {
            let todo = "take the password out and write password_file = \"/…\" beside it";
            self.report.error(place, key, "a password stands in the connection string", todo);
        } else if parsed.get_hosts().len() != 1 {
            let what = format!("names {} hosts: what is probed or checked is one server", parsed.get_hosts().len());
            self.report.error(place, key, what, todo);
        } else if parsed.get_user().is_none() {
            self.report.error(place, key, "has no user", todo);
        } else if parsed.get_ssl_mode() == tokio_postgres::config::SslMode::Require && tls_ca_file.is_none() {
            let todo = "add tls_ca_file = \"/…\": the authority to trust; TLS is then required";
            self.report.error(place, key, "sslmode=require without tls_ca_file", todo);
        }
        Some(DatabaseEndpoint { conninfo: text, password_file, tls_ca_file })
    }
}

/// `host:port` of every server in a connection string.
pub(super) fn instances(conninfo: &str) -> Vec<String> {
    let Ok(parsed) = conninfo.parse::<tokio_postgres::Config>() else { return Vec::new() };
    let ports = parsed.get_ports();
    let port = |n: usize| ports.get(n).or_else(|| ports.first()).copied().unwrap_or(5432);
    let host = |host: &tokio_postgres::config::Host| match host {
        tokio_postgres::config::Host::Tcp(name) => name.to_ascii_lowercase(),
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
    };
    parsed.get_hosts().iter().enumerate().map(|(n, name)| format!("{}:{}", host(name), port(n))).collect()
}
