//! `[[group]]`: its rules, its regions and what makes one of them count as lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::check::{Item, Place};
use crate::config::raw::{RawGroup, RawGroupRegion, RawGroupTables, RawNeed, RawTrigger};
use crate::config::types::{DatabaseRole, GroupConfig, TargetConfig, TargetKind, Timing};
use crate::domain::drill::DrillRules;
use crate::domain::ids::{GroupName, HostName, RegionName, TargetName};
use crate::domain::policy::{Fencing, GroupPolicy, LagAction, Need, Trigger};

use super::Judge;
use super::fields::{HOUR_MS, cut};
use super::plan::{Plans, Recipe, Service};

type Targets = BTreeMap<TargetName, TargetConfig>;

/// One region of a group, as far as plans need it.
#[derive(Debug, Clone, Default)]
pub(super) struct Side {
    pub database_host: Option<HostName>,
    pub redis_host: Option<HostName>,
    pub services: Vec<Service>,
    /// What other regions' guards call its primary.
    pub upstream: String,
}

const DAY_S: u64 = 86_400;

impl Judge<'_> {
    pub(super) fn group(&mut self, name: &GroupName, tables: &RawGroupTables, timing: &Timing) -> GroupConfig {
        let item = &tables.group;
        let regions = self.serving_regions(tables);
        let mut seen = BTreeMap::new();
        let records = self.records(&tables.records, &regions, &mut seen);
        let traffic_records = self.records(&tables.traffic_records, &regions, &mut seen);
        let all_records = [records, traffic_records.clone()].concat();
        self.records_are_whole = all_records.len() == tables.records.len() + tables.traffic_records.len();
        let token_records = self.token_records(name, item, &all_records);
        let mut targets = Targets::new();
        for target in &tables.targets {
            if let Some(target) = self.target(target, Some(name), &all_records) {
                // Of two of one name the first counts; the second is told.
                targets.entry(target.name.clone()).or_insert(target);
            }
        }
        let names = tables.targets.iter().filter_map(|target| target.value.name.clone()).collect::<Vec<_>>();
        let fencing = self.fencing(item);
        let mut policy = self.rules(item, timing, fencing.unwrap_or(Fencing::Confirm), &regions);
        let mut sides = BTreeMap::new();
        for region in &tables.regions {
            let Some(side_name) = region.value.name.clone().map(RegionName) else { continue };
            sides.insert(side_name.clone(), self.side(region, &side_name));
            let trigger = self.trigger(region, &side_name, &targets, &names, policy.hold_down_ms);
            policy.triggers.extend(trigger.map(|trigger| (side_name.clone(), trigger)));
            let replication =
                self.special(region, "replication", &region.value.replication, &side_name, &targets, &names);
            policy.replication.extend(replication.map(|target| (side_name.clone(), target)));
            let balancer =
                self.special(region, "load_balancer", &region.value.load_balancer, &side_name, &targets, &names);
            policy.load_balancers.extend(balancer.map(|target| (side_name.clone(), target)));
            let redis = self.special(region, "redis", &region.value.redis, &side_name, &targets, &names);
            policy.redis.extend(redis.map(|target| (side_name, target)));
        }
        policy.targets = well_while_serving(&targets);
        self.group_as_a_whole(tables, &policy, &sides, traffic_records.is_empty());
        self.redis_as_a_whole(tables, &sides);
        let checks = self.checks(tables, &regions, &all_records);
        let recipe = Recipe {
            group: item,
            regions: &regions,
            fencing: &policy.fencing,
            fences_redis: self.fences_redis(item, &policy.fencing, &sides),
            sides: &sides,
            records: &all_records,
            traffic_records: &traffic_records,
            token_records: &token_records,
            checks: &checks,
            steps: &tables.steps,
        };
        policy.drills = self.drills(name, tables, &regions, &names);
        let recovered = self.services(tables, &regions);
        let Plans { failover, switchover, rejoin, traffic, services } = self.plans(&recipe, recovered);
        (policy.failover_plans, policy.traffic_plans, policy.services) = (failover, traffic, services);
        (policy.switchover_plans, policy.rejoin_plans) = (switchover, rejoin);
        GroupConfig { name: name.clone(), policy, targets }
    }

    /// The group's regions, home first.
    fn serving_regions(&mut self, tables: &RawGroupTables) -> Vec<RegionName> {
        let known = self.known.regions.clone();
        let mut seen = BTreeMap::new();
        let mut regions: Vec<RegionName> = Vec::new();
        for Item { place, value } in &tables.regions {
            let Some(name) = self.refers(place, "name", &value.name, &known, "region") else { continue };
            let region = RegionName(name.clone());
            if self.regions.get(&region).is_some_and(|region| region.witness) {
                let what = format!("{name} is a witness: it cannot serve");
                self.report.error(place, "name", what, "name a region without witness = true");
            }
            if self.unique(&mut seen, place, "name", &name, "a region of this group") {
                regions.push(region);
            }
        }
        let place = &tables.group.place;
        if regions.len() < 2 {
            let what = format!("{} [[group.region]]: there is nowhere to fail over to", regions.len());
            self.report.error(place, "", what, "add a [[group.region]] for each region that can serve, two at least");
        }
        if let Some(home) = self.required(place, "home", &tables.group.value.home) {
            let home = RegionName(home);
            match regions.iter().position(|region| *region == home) {
                Some(at) => regions[..=at].rotate_right(1),
                None => {
                    let what = format!("home {:?} is not among the group's regions", cut(home.as_str()));
                    self.report.error(
                        place,
                        "home",
                        what,
                        format!("add [[group.region]] name = \"{}\"", cut(home.as_str())),
                    );
                }
            }
        }
        regions
    }

    fn fencing(&mut self, item: &Item<RawGroup>) -> Option<Fencing> {
        let Item { place, value } = item;
        let asserted = value.fencing_none_asserted_by.as_deref().map(str::trim).filter(|who| !who.is_empty());
        match value.fencing.as_deref() {
            Some("lease") => {
                let ttl_ms = self.number(place, "lease_ttl_ms", value.lease_ttl_ms, 2000, 500..=30_000);
                Some(Fencing::Lease { ttl_ms })
            }
            Some("none") => {
                let Some(asserted_by) = asserted else {
                    let what = "fencing \"none\" needs a person's word that two primaries do no harm here";
                    let todo = "add fencing_none_asserted_by = \"NAME, DATE\", or use fencing = \"confirm\"";
                    self.report.error(place, "fencing", what, todo);
                    return None;
                };
                let what = format!(
                    "fencing \"none\": the old primary is not stopped before promotion, on the word of {}",
                    cut(asserted_by)
                );
                self.report.warn(place, "fencing", what, "use \"confirm\" unless two primaries do no harm");
                Some(Fencing::None { asserted_by: asserted_by.to_owned() })
            }
            _ => {
                let modes = [("confirm", Fencing::Confirm), ("none", Fencing::Confirm)];
                if value.fencing_none_asserted_by.is_some() {
                    let what = "fencing_none_asserted_by means nothing without fencing = \"none\"";
                    self.report.error(place, "fencing_none_asserted_by", what, "remove it");
                }
                self.choice(place, "fencing", &value.fencing, Some(Fencing::Confirm), &modes)
            }
        }
    }

    fn rules(
        &mut self,
        item: &Item<RawGroup>,
        timing: &Timing,
        fencing: Fencing,
        regions: &[RegionName],
    ) -> GroupPolicy {
        let Item { place, value } = item;
        let hold_down_ms = self.number(place, "hold_down_ms", value.hold_down_ms, 3000, 0..=HOUR_MS);
        let cooldown_s = self.number(place, "cooldown_s", value.cooldown_s, 3600, 0..=30 * DAY_S);
        let rpo_limit_s = self.number(place, "rpo_limit_s", value.rpo_limit_s, 900, 1..=7 * DAY_S);
        let rto_objective_s =
            value.rto_objective_s.map(|rto| self.number(place, "rto_objective_s", Some(rto), 3600, 1..=7 * DAY_S));
        let drill_days = self.number(place, "drill_max_age_days", value.drill_max_age_days, 35, 1..=3660);
        let lag_limit_s = self.number(place, "lag_limit_s", value.lag_limit_s, 300, 1..=7 * DAY_S);
        let ttl = self.number(place, "observation_ttl_ms", value.observation_ttl_ms, 5000, 100..=HOUR_MS);
        let patience_s = self.number(place, "fence_patience_s", value.fence_patience_s, 10, 1..=3600);
        let max_lag = self.number(place, "switchover_max_lag_ms", value.switchover_max_lag_ms, 5000, 0..=HOUR_MS);
        let timeout_s = self.number(place, "switchover_timeout_s", value.switchover_timeout_s, 60, 5..=3600);
        let monitor_s = self.number(place, "monitor_for_s", value.monitor_for_s, 900, 0..=7 * DAY_S);
        let actions = [("page", LagAction::Page), ("gate", LagAction::Gate), ("failover", LagAction::Failover)];
        let lag_action = self.choice(place, "lag_action", &value.lag_action, Some(LagAction::Page), &actions);
        if Duration::from_millis(ttl) < timing.report_interval * 2 {
            let what = format!(
                "observation_ttl_ms {ttl} is less than two report intervals: evidence would expire between reports"
            );
            self.report.error(place, "observation_ttl_ms", what, "make it 3 to 5 × timing.report_interval_ms");
        }
        if lag_action == Some(LagAction::Failover) {
            let what = "lag_action \"failover\" promotes a standby because it lags, which loses what it lags by";
            self.report.warn(place, "lag_action", what, "\"page\" or \"gate\" are what most want");
        }
        if lag_limit_s > rpo_limit_s {
            let what = format!(
                "lag_limit_s {lag_limit_s} is above rpo_limit_s {rpo_limit_s}: automatic failover is blocked before anybody hears of lag"
            );
            self.report.warn(place, "lag_limit_s", what, "make it the smaller one");
        }
        if cooldown_s < 60 {
            let what = format!("cooldown_s {cooldown_s}: a fault in both regions may move the group to and fro");
            self.report.warn(place, "cooldown_s", what, "keep it at some minutes at least");
        }
        GroupPolicy {
            home: regions.first().cloned().unwrap_or_else(|| RegionName(String::new())),
            regions: regions.to_vec(),
            shadow: value.shadow.unwrap_or(false),
            fencing,
            triggers: BTreeMap::new(),
            hold_down_ms,
            cooldown_ms: cooldown_s * 1000,
            observation_ttl_ms: ttl,
            rpo_limit_ms: rpo_limit_s * 1000,
            replication: BTreeMap::new(),
            redis: BTreeMap::new(),
            lag_action: lag_action.unwrap_or(LagAction::Page),
            lag_limit_ms: lag_limit_s * 1000,
            load_balancers: BTreeMap::new(),
            fence_patience_ms: patience_s * 1000,
            switchover_max_lag_ms: max_lag,
            switchover_timeout_ms: timeout_s * 1000,
            switchover_plans: Vec::new(),
            rejoin_plans: Vec::new(),
            failover_plans: Vec::new(),
            traffic_plans: Vec::new(),
            services: Vec::new(),
            monitor_ms: monitor_s * 1000,
            targets: BTreeMap::new(),
            rto_objective_ms: rto_objective_s.map(|s| s * 1000),
            drill_max_age_ms: drill_days * DAY_S * 1000,
            drills: DrillRules::default(),
        }
    }

    fn side(&mut self, item: &Item<RawGroupRegion>, region: &RegionName) -> Side {
        let Item { place, value } = item;
        let known = self.known.hosts.clone();
        let database_host = value
            .database_host
            .as_ref()
            .and_then(|_| self.refers(place, "database_host", &value.database_host, &known, "host").map(HostName));
        if let Some(host) = database_host.as_ref().and_then(|name| self.hosts.get(name))
            && host.region != *region
        {
            let what = format!("host {} stands in {}, not in {region}", host.guard.host, host.region);
            self.report.error(place, "database_host", what, "name the host of this region's database");
        }
        let mut services = Vec::new();
        for service in value.services.iter().flatten() {
            let host = self.refers(place, "services", &service.host, &known, "host");
            let action = self.name(place, "services", &service.action);
            if let Some(host) = host.clone().map(HostName).and_then(|name| self.hosts.get(&name))
                && host.region != *region
            {
                let what =
                    format!("services of {region} are started on {}, which stands in {}", host.guard.host, host.region);
                self.report.warn(place, "services", what, "is that host alive when the other region is lost?");
            }
            if let (Some(host), Some(action)) = (host, action) {
                let params = service.params.clone().unwrap_or_default();
                services.push(Service { host: HostName(host), action, params });
            }
        }
        let upstream = match &value.upstream {
            Some(name) => self.name(place, "upstream", &Some(name.clone())).unwrap_or_default(),
            None => region.0.clone(),
        };
        let redis_host = self.redis_host(item, region);
        Side { database_host, redis_host, services, upstream }
    }

    fn trigger(
        &mut self,
        item: &Item<RawGroupRegion>,
        region: &RegionName,
        targets: &Targets,
        names: &[String],
        hold_down_ms: u64,
    ) -> Option<Trigger> {
        let Item { place, value } = item;
        let RawTrigger { targets: wanted, need } = value.trigger.as_ref()?;
        let wanted = wanted.clone().unwrap_or_default();
        if wanted.is_empty() {
            let todo = "name the targets that must be down, or remove trigger";
            self.report.error(place, "trigger", "a trigger without targets", todo);
            return None;
        }
        let mut seen = BTreeMap::new();
        for name in &wanted {
            self.unique(&mut seen, place, "trigger.targets", name, "a target of the trigger");
            if !self.own_target(place, "trigger.targets", name, names) {
                continue;
            }
            let Some(target) = targets.get(&TargetName(name.clone())) else { continue };
            self.trigger_target(place, region, target, hold_down_ms);
        }
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        let need = match need {
            None => Need::All,
            Some(RawNeed::Word(word)) if word == "all" => Need::All,
            Some(RawNeed::Word(word)) if word == "any" => Need::Any,
            Some(RawNeed::Number(n)) if (1..=count).contains(n) => Need::AtLeast(*n),
            Some(RawNeed::Number(n)) => {
                let what = format!("need {n} of {count} targets");
                self.report.error(
                    place,
                    "trigger.need",
                    what,
                    format!("write a number from 1 to {count}, \"all\" or \"any\""),
                );
                return None;
            }
            Some(RawNeed::Word(word)) => {
                let what = format!("{:?} is not a choice here", cut(word));
                self.report.error(place, "trigger.need", what, "choose \"all\", \"any\" or a number");
                return None;
            }
        };
        Some(Trigger { targets: wanted.into_iter().map(TargetName).collect(), need })
    }

    fn trigger_target(&mut self, place: &Place, region: &RegionName, target: &TargetConfig, hold_down_ms: u64) {
        let name = &target.name;
        if let Some(stands) = target.region.as_ref().filter(|stands| *stands != region) {
            let what = format!("target {name} stands in {stands}: it tells nothing about {region}");
            self.report.error(place, "trigger.targets", what, format!("name targets of region {region}"));
        }
        if matches!(target.kind, TargetKind::Replication { .. }) {
            let what = format!("target {name} measures replication: lag is no evidence that a region is lost");
            self.report.error(place, "trigger.targets", what, "use lag_action for lag");
        }
        let fault = match &target.kind {
            TargetKind::Postgres { expect_role: DatabaseRole::Standby, .. } => Some((
                "expects a standby: once its region serves it would count as down",
                "expect_role = \"any\" or \"primary\"",
            )),
            TargetKind::Redis { expect_role: DatabaseRole::Standby, .. } => Some((
                "expects a replica: once its region serves it would count as down",
                "expect_role = \"any\" or \"primary\"",
            )),
            TargetKind::Backup { .. } => Some((
                "looks at backups: a late backup is no evidence that a region is lost",
                "name targets of kind postgres, http or tcp; alerts tell of backups",
            )),
            TargetKind::Dns { .. } => Some((
                "looks at a name: that is no evidence that a region is lost",
                "name targets of kind postgres, http or tcp",
            )),
            _ => None,
        };
        if let Some((what, todo)) = fault {
            self.report.error(place, "trigger.targets", format!("target {name} {what}"), todo);
        }
        let schedule = &target.schedule;
        let doubt_ms = schedule.fastinter.as_millis() * u128::from(schedule.fall.saturating_sub(1));
        if u128::from(hold_down_ms) < doubt_ms {
            let what = format!(
                "hold_down_ms {hold_down_ms} is over before target {name} is down at all ({} × fastinter = {doubt_ms} ms): it adds nothing",
                schedule.fall.saturating_sub(1)
            );
            self.report.warn(place, "trigger.targets", what, "lengthen hold_down_ms, or shorten fastinter_ms or fall");
        }
    }

    /// `replication`, `load_balancer` and `redis`: one target each.
    fn special(
        &mut self,
        item: &Item<RawGroupRegion>,
        key: &str,
        value: &Option<String>,
        region: &RegionName,
        targets: &Targets,
        names: &[String],
    ) -> Option<TargetName> {
        let name = value.as_ref()?;
        if !self.own_target(&item.place, key, name, names) {
            return None;
        }
        let target = targets.get(&TargetName(name.clone()))?;
        if target.region.as_ref().is_some_and(|stands| stands != region) {
            let what = format!("target {name} does not stand in {region}");
            self.report.error(&item.place, key, what, format!("name a target with region = \"{region}\""));
        }
        let (fits, todo) = match (key, &target.kind) {
            ("replication", kind) => (matches!(kind, TargetKind::Replication { .. }), "a target of kind replication"),
            ("redis", kind) => (matches!(kind, TargetKind::Redis { .. }), "a target of kind redis"),
            (_, TargetKind::Replication { .. } | TargetKind::Backup { .. } | TargetKind::Redis { .. }) => {
                (false, "a target of kind http or tcp")
            }
            _ => (true, ""),
        };
        if !fits {
            let what = format!("target {name} is of kind {}", target.kind.word());
            self.report.error(&item.place, key, what, format!("name {todo}"));
        }
        Some(target.name.clone())
    }

    fn own_target(&mut self, place: &Place, key: &str, name: &str, names: &[String]) -> bool {
        let known = names.iter().any(|known| known == name);
        if !known {
            let what = format!("the group has no target {:?}", cut(name));
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            self.report.error(place, key, what, format!("there are: {there}"));
        }
        known
    }

    fn group_as_a_whole(
        &mut self,
        tables: &RawGroupTables,
        policy: &GroupPolicy,
        sides: &BTreeMap<RegionName, Side>,
        no_traffic_records: bool,
    ) {
        let place = &tables.group.place;
        let with_database = sides.values().filter(|side| side.database_host.is_some()).count();
        for region in &tables.regions {
            let Some(name) = region.value.name.clone().map(RegionName) else { continue };
            let here = &region.place;
            if !here.has("trigger") && !here.has("load_balancer") {
                let what = format!("nothing tells that {name} is lost: no trigger");
                let todo = "add trigger = { targets = [\"…\"], need = \"all\" }";
                match name == policy.home {
                    true => self.report.error(here, "", what, todo),
                    false => self.report.warn(here, "", format!("{what}; only an operator moves the group away"), todo),
                }
            }
            if with_database > 0 && !here.has("database_host") {
                let what = format!(
                    "no database_host, while another region of the group has one: {name} can neither be fenced nor promoted"
                );
                self.report.error(here, "", what, "add database_host = \"…\"");
            }
            if with_database > 0 && !here.has("replication") {
                let what = format!(
                    "replication into {name} is not measured: the loss stays unknown, and no automatic failover promotes it"
                );
                self.report.warn(here, "", what, "add a target of kind replication and replication = \"…\"");
            }
            if region.value.load_balancer.is_some() && no_traffic_records {
                let todo = "add a [[group.traffic_record]], or remove load_balancer";
                self.report.error(here, "load_balancer", "there is no record that a traffic run could repoint", todo);
            }
        }
        if policy.lag_action != LagAction::Page && policy.replication.is_empty() {
            let todo = "name a target of kind replication in a [[group.region]]";
            self.report.error(place, "lag_action", "no region of the group measures replication", todo);
        }
        let mut hosts = BTreeMap::new();
        for region in &tables.regions {
            if let Some(host) = &region.value.database_host {
                self.unique(&mut hosts, &region.place, "database_host", host, "a database_host of this group");
            }
        }
    }
}

/// By region, what is to be well while the region serves: not a database that is expected to be a standby there, nor what
/// measures something else than the region.
fn well_while_serving(targets: &Targets) -> BTreeMap<RegionName, BTreeSet<TargetName>> {
    let mut by_region: BTreeMap<RegionName, BTreeSet<TargetName>> = BTreeMap::new();
    for target in targets.values() {
        let is_one = match &target.kind {
            TargetKind::Postgres { expect_role, .. } | TargetKind::Redis { expect_role, .. } => {
                *expect_role != DatabaseRole::Standby
            }
            TargetKind::Http { .. } | TargetKind::Tcp { .. } => true,
            TargetKind::Replication { .. } | TargetKind::Backup { .. } | TargetKind::Dns { .. } => false,
        };
        if let Some(region) = target.region.as_ref().filter(|_| is_one) {
            by_region.entry(region.clone()).or_default().insert(target.name.clone());
        }
    }
    by_region
}
