//! What two groups must not share: a PostgreSQL instance, the host that fences it, a record, a token's record.

use std::collections::BTreeMap;

use crate::config::check::{Item, Place};
use crate::config::raw::{RawConfig, RawGroupTables};
use crate::config::types::GroupConfig;
use crate::domain::ids::GroupName;
use crate::domain::plan::Action;

use super::Judge;
use super::target::instances;

/// Who used a thing first.
type Owners = BTreeMap<String, String>;

impl Judge<'_> {
    pub(super) fn shared(&mut self, raw: &RawConfig, groups: &BTreeMap<GroupName, GroupConfig>) {
        let mut owners: [Owners; 5] = Default::default();
        for tables in &raw.groups {
            let Some(group) = &tables.group.value.name else { continue };
            let [databases, hosts, redis, records, tokens] = &mut owners;
            self.databases(group, tables, databases);
            for Item { place, value } in &tables.regions {
                if let Some(host) = &value.database_host {
                    let todo = "give each group a [[host]] of its own, with a guard for its own instance";
                    self.owned(hosts, group, place, "database_host", host, "database_host", todo);
                }
                if let Some(host) = &value.redis_host {
                    let todo = "give each group a Redis server of its own";
                    self.owned(redis, group, place, "redis_host", host, "redis_host", todo);
                }
            }
            for Item { place, value } in tables.records.iter().chain(&tables.traffic_records) {
                if let (Some(name), Some(kind)) = (&value.name, &value.r#type) {
                    let record = format!("{} {kind}", name.to_ascii_lowercase());
                    self.owned(records, group, place, "name", &record, "record", "let one group repoint it");
                }
            }
            let used = groups.get(&GroupName(group.clone())).map(token_records).unwrap_or_default();
            for token in used {
                let todo = "give each group a token_record of its own, or leave it out";
                self.owned(tokens, group, &tables.group.place, "token_record", &token, "token_record", todo);
            }
        }
    }

    fn databases(&mut self, group: &str, tables: &RawGroupTables, owners: &mut Owners) {
        let todo = "one PostgreSQL instance fails over as a whole: put what it serves into one group";
        for Item { place, value } in &tables.targets {
            let texts = [("conninfo", &value.conninfo), ("primary", &value.primary), ("standby", &value.standby)];
            for (key, text) in texts {
                for instance in text.iter().flat_map(|text| instances(text)) {
                    self.owned(owners, group, place, key, &instance, "PostgreSQL instance", todo);
                }
            }
        }
        for Item { place, value } in &tables.verify {
            for instance in value.conninfo.iter().flat_map(|text| instances(text)) {
                self.owned(owners, group, place, "conninfo", &instance, "PostgreSQL instance", todo);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a fault's parts; a struct would only rename them")]
    fn owned(
        &mut self,
        owners: &mut Owners,
        group: &str,
        place: &Place,
        key: &str,
        thing: &str,
        what: &str,
        todo: &str,
    ) {
        let owner = owners.entry(thing.to_owned()).or_insert_with(|| group.to_owned());
        if owner != group {
            self.report.error(place, key, format!("{what} {thing} already belongs to group {owner}"), todo);
        }
    }
}

fn token_records(group: &GroupConfig) -> Vec<String> {
    let plans = group.policy.plans();
    let tokens = plans.flat_map(|plan| plan.steps()).filter_map(|(_, step)| match &step.action {
        Action::UpsertDns { provider, token_record, .. } => {
            Some(format!("{}/{}", provider.name(), token_record.to_ascii_lowercase()))
        }
        _ => None,
    });
    let mut tokens: Vec<String> = tokens.collect();
    tokens.sort();
    tokens.dedup();
    tokens
}
