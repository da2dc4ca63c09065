//! Plans: for every ordered pair of serving regions, each step resolved to what exactly it does.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::check::{Item, Place};
use crate::config::raw::{RawGroup, RawGroupTables, RawStep, RawVerify};
use crate::domain::ids::{HostName, ProviderName, RegionName, StepId};
use crate::domain::plan::{
    Action, Check, DnsRecord, GuardEndpoint, Plan, REDIS_FENCE, REDIS_HAND_OVER, REDIS_PROMOTE, REDIS_REJOIN,
    REDIS_RELEASE, Retry, Stage, Step,
};
use crate::domain::policy::{Fencing, RejoinPlan};
use crate::domain::service::ServiceRule;

use super::Judge;
use super::fields::{HOUR_MS, cut};
use super::group::Side;
use super::record::Record;
use super::service::Recovered;

/// A guard's built-in action.
const REJOIN: &str = "rejoin";

/// The kinds of step, in the order of the card.
const KINDS: &[&str] = &["fence", "dns", "promote", "services", "verify"];

/// A named action of a guard.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub host: HostName,
    pub action: String,
    pub params: BTreeMap<String, String>,
}

/// A `[[group.verify]]` before the records are put in.
#[derive(Debug, Clone)]
pub(super) enum Look {
    Check(Check),
    DnsAnswers { server: String },
}

/// Everything that plans are made of.
pub(super) struct Recipe<'a> {
    pub group: &'a Item<RawGroup>,
    pub regions: &'a [RegionName],
    pub fencing: &'a Fencing,
    /// An old Redis primary is fenced before another is promoted.
    pub fences_redis: bool,
    pub sides: &'a BTreeMap<RegionName, Side>,
    /// Both sorts: a region's loss takes its load balancer with it.
    pub records: &'a [Record],
    pub traffic_records: &'a [Record],
    pub token_records: &'a BTreeMap<ProviderName, String>,
    pub checks: &'a BTreeMap<RegionName, Vec<Look>>,
    pub steps: &'a [Item<RawStep>],
}

/// Every plan of a group, by what it is for.
#[derive(Debug, Default)]
pub(super) struct Plans {
    pub failover: Vec<Plan>,
    pub switchover: Vec<Plan>,
    pub rejoin: Vec<RejoinPlan>,
    pub traffic: Vec<Plan>,
    pub services: Vec<ServiceRule>,
}

/// The stages of a planned move, each of one kind of step. Names are repointed after the promotion: before it everything
/// must be able to turn back.
const PLANNED: [&str; 9] =
    ["fence", "catch-up", REDIS_HAND_OVER, "promote", REDIS_PROMOTE, "dns", "services", "rejoin", "verify"];

impl Recipe<'_> {
    fn has_database(&self) -> bool {
        self.sides.values().any(|side| side.database_host.is_some())
    }

    fn has_services(&self) -> bool {
        self.sides.values().any(|side| !side.services.is_empty())
    }
}

impl Judge<'_> {
    /// For every ordered pair of regions, and for what may be done to each service.
    pub(super) fn plans(&mut self, recipe: &Recipe<'_>, services: Vec<Recovered>) -> Plans {
        let stages = self.stages(recipe);
        let overrides = self.overrides(recipe);
        let traffic_stages = vec![vec!["dns".to_owned()], vec!["verify".to_owned()]];
        let planned_stages = PLANNED.map(|kind| vec![kind.to_owned()]);
        let mut plans = Plans::default();
        for from in recipe.regions {
            for to in recipe.regions.iter().filter(|to| *to != from) {
                let pair = Pair { recipe, from, to, hosts: &self.hosts, dns: &self.dns };
                let dns = |records: &[Record]| pair.dns_steps(records);
                plans.failover.push(pair.plan(&stages, &overrides, |kind| match kind {
                    "dns" => dns(recipe.records),
                    other => pair.steps(other),
                }));
                let planned = pair.plan(&planned_stages, &overrides, |kind| match kind {
                    "dns" => dns(recipe.records),
                    other => pair.planned_steps(other),
                });
                plans.switchover.push(Plan { undo: pair.undo(&overrides), ..planned });
                plans.rejoin.extend(pair.rejoin_plan(&overrides));
                if !recipe.traffic_records.is_empty() {
                    plans.traffic.push(pair.plan(&traffic_stages, &overrides, |kind| match kind {
                        "dns" => dns(recipe.traffic_records),
                        _ => pair.traffic_verify(),
                    }));
                }
            }
        }
        plans.services = services.into_iter().map(|service| service.rule(&overrides)).collect();
        let rejoin = plans.rejoin.iter().map(|known| &known.plan);
        let of_services = plans.services.iter().flat_map(|service| service.plans.values());
        let all = plans.failover.iter().chain(&plans.switchover).chain(&plans.traffic).chain(rejoin).chain(of_services);
        self.overrides_are_used(recipe, all);
        plans
    }

    fn stages(&mut self, recipe: &Recipe<'_>) -> Vec<Vec<String>> {
        let place = &recipe.group.place;
        let default = [&["fence"][..], &["dns", "promote"], &["services"], &["verify"]];
        let Some(stages) = &recipe.group.value.stages else {
            return default.iter().map(|stage| stage.iter().map(|kind| (*kind).to_owned()).collect()).collect();
        };
        let mut at: BTreeMap<&str, usize> = BTreeMap::new();
        for (n, kind) in stages.iter().enumerate().flat_map(|(n, stage)| stage.iter().map(move |kind| (n, kind))) {
            if !KINDS.contains(&kind.as_str()) {
                let what = format!("{:?} is not a kind of step", cut(kind));
                self.report.error(place, "stages", what, format!("use {}", KINDS.join(", ")));
            } else if at.insert(kind, n).is_some() {
                self.report.error(place, "stages", format!("{kind:?} stands twice"), "name each kind once");
            }
        }
        self.order_of(recipe, place, &at);
        stages.clone()
    }

    fn order_of(&mut self, recipe: &Recipe<'_>, place: &Place, at: &BTreeMap<&str, usize>) {
        let confirm = !matches!(recipe.fencing, Fencing::None { .. });
        let needed = [
            ("fence", recipe.has_database() && confirm, "the old primary must be fenced before another is promoted"),
            ("promote", recipe.has_database(), "the group has a database"),
            ("dns", !recipe.records.is_empty(), "the group has records"),
            ("services", recipe.has_services(), "the group has services"),
            ("verify", !recipe.checks.is_empty(), "the group has [[group.verify]]"),
        ];
        for (kind, needed, why) in needed {
            if needed && !at.contains_key(kind) {
                self.report.error(
                    place,
                    "stages",
                    format!("no {kind:?}, and {why}"),
                    format!("add \"{kind}\" to a stage"),
                );
            }
        }
        let before = |a: &str, b: &str| match (at.get(a), at.get(b)) {
            (Some(a), Some(b)) => a < b,
            _ => true,
        };
        if confirm && !before("fence", "promote") {
            let what = "\"fence\" does not come in a stage before \"promote\"";
            self.report.error(
                place,
                "stages",
                what,
                "[[\"fence\"], [\"dns\", \"promote\"], [\"services\"], [\"verify\"]] is the usual order",
            );
        }
        if !before("promote", "services") {
            let what = "\"services\" do not come after \"promote\": they would start on a database in recovery";
            self.report.error(place, "stages", what, "move \"services\" to a later stage");
        }
        let last = at.values().max();
        if at.contains_key("verify") && at.get("verify") != last {
            let todo = "move \"verify\" to the last stage";
            self.report.error(place, "stages", "\"verify\" is not in the last stage: it would not see the whole", todo);
        }
    }

    fn overrides(&mut self, recipe: &Recipe<'_>) -> BTreeMap<String, RawStep> {
        let mut overrides = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for Item { place, value } in recipe.steps {
            let Some(id) = self.required(place, "id", &value.id) else { continue };
            self.unique(&mut seen, place, "id", &id, "a step");
            if value.deadline_s.is_some() && value.deadline_ms.is_some() {
                let what = "deadline_s and deadline_ms both stand";
                self.report.error(place, "deadline_ms", what, "keep one");
            }
            let mut step = value.clone();
            let deadline = value.deadline_s.map(|s| self.number(place, "deadline_s", Some(s), 10, 1..=HOUR_MS / 1000));
            step.deadline_ms = deadline.map(|s| s * 1000).or(value.deadline_ms);
            step.deadline_ms =
                step.deadline_ms.map(|ms| self.number(place, "deadline_ms", Some(ms), 10_000, 100..=HOUR_MS));
            step.max_attempts = value.max_attempts.map(|n| self.number(place, "max_attempts", Some(n), 5, 1..=1000));
            step.backoff_ms = value.backoff_ms.map(|ms| self.number(place, "backoff_ms", Some(ms), 500, 10..=600_000));
            step.backoff_max_ms =
                value.backoff_max_ms.map(|ms| self.number(place, "backoff_max_ms", Some(ms), 10_000, 10..=600_000));
            if let (Some(first), Some(max)) = (step.backoff_ms, step.backoff_max_ms)
                && first > max
            {
                let what = format!("backoff_ms {first} is longer than backoff_max_ms {max}");
                self.report.error(place, "backoff_max_ms", what, "make it the longer one");
            }
            overrides.insert(id, step);
        }
        overrides
    }

    fn overrides_are_used<'p>(&mut self, recipe: &Recipe<'_>, plans: impl Iterator<Item = &'p Plan>) {
        let mut known: BTreeSet<String> = BTreeSet::new();
        for step in plans.flat_map(Plan::all_steps) {
            known.insert(step.id.0.clone());
            known.insert(kind_of(&step.id).to_owned());
        }
        for Item { place, value } in recipe.steps {
            if let Some(id) = value.id.as_ref().filter(|id| !known.contains(*id)) {
                let there = known.iter().cloned().collect::<Vec<_>>().join(", ");
                let what = format!("no plan of this group has a step {:?}", cut(id));
                self.report.error(place, "id", what, format!("there are: {there}"));
            }
        }
    }

    /// What is looked at after moving to each region.
    pub(super) fn checks(
        &mut self,
        tables: &RawGroupTables,
        regions: &[RegionName],
        records: &[Record],
    ) -> BTreeMap<RegionName, Vec<Look>> {
        let mut checks: BTreeMap<RegionName, Vec<Look>> = BTreeMap::new();
        let known: BTreeSet<String> = regions.iter().map(|region| region.0.clone()).collect();
        for item in &tables.verify {
            let region = self.refers(&item.place, "region", &item.value.region, &known, "group.region");
            let look = self.look(item, records);
            if let (Some(region), Some(look)) = (region, look) {
                checks.entry(RegionName(region)).or_default().push(look);
            }
        }
        for region in
            regions.iter().filter(|region| !tables.verify.iter().any(|v| v.value.region.as_ref() == Some(&region.0)))
        {
            let what = format!("nothing is verified after moving to {region}");
            self.report.warn(
                &tables.group.place,
                "",
                what,
                format!("add a [[group.verify]] with region = \"{region}\""),
            );
        }
        checks
    }

    fn look(&mut self, item: &Item<RawVerify>, records: &[Record]) -> Option<Look> {
        let Item { place, value } = item;
        let common = ["region", "kind"];
        let kinds = ["http", "database_writable", "redis_writable", "dns_answers"].map(|word| (word, word));
        match self.choice(place, "kind", &value.kind, None, &kinds)? {
            "http" => {
                self.only(place, "http", &common, &["url", "expect_status", "connect_to", "resolve_at"]);
                let expect_status = self.number(place, "expect_status", value.expect_status, 200, 100..=599);
                if value.connect_to.is_some() && value.resolve_at.is_some() {
                    let what = "connect_to and resolve_at both stand";
                    self.report.error(
                        place,
                        "connect_to",
                        what,
                        "keep connect_to (a known address) or resolve_at (the public name)",
                    );
                }
                let connect_to =
                    value.connect_to.as_ref().and_then(|_| self.host_port(place, "connect_to", &value.connect_to));
                let resolve_at =
                    value.resolve_at.as_ref().and_then(|_| self.socket(place, "resolve_at", &value.resolve_at));
                let url = self.url(place, "url", &value.url)?;
                let resolve_at = resolve_at.map(|server| server.to_string());
                Some(Look::Check(Check::Http { url, expect_status, connect_to, resolve_at }))
            }
            "database_writable" => {
                self.only(place, "database_writable", &common, &["conninfo", "password_file", "tls_ca_file"]);
                let (password, ca) = (&value.password_file, &value.tls_ca_file);
                let database = self.database(place, "conninfo", &value.conninfo, password, ca)?;
                Some(Look::Check(Check::DatabaseWritable { database }))
            }
            "redis_writable" => {
                self.only(place, "redis_writable", &common, &["address", "user", "password_file"]);
                let server = self.redis(place, &value.address, &value.user, &value.password_file)?;
                Some(Look::Check(Check::RedisWritable { server }))
            }
            _ => {
                self.only(place, "dns_answers", &common, &["server"]);
                if records.is_empty() && self.records_are_whole {
                    let what = "dns_answers in a group without records";
                    self.report.error(place, "kind", what, "add a [[group.record]], or remove this check");
                }
                let server = self.socket(place, "server", &value.server)?;
                Some(Look::DnsAnswers { server: server.to_string() })
            }
        }
    }
}

/// One way to move.
struct Pair<'a> {
    recipe: &'a Recipe<'a>,
    from: &'a RegionName,
    to: &'a RegionName,
    hosts: &'a BTreeMap<HostName, crate::config::types::HostConfig>,
    dns: &'a BTreeMap<ProviderName, crate::domain::plan::DnsProvider>,
}

type Named = Vec<(String, Action)>;

impl Pair<'_> {
    fn plan(
        &self,
        stages: &[Vec<String>],
        overrides: &BTreeMap<String, RawStep>,
        steps: impl Fn(&str) -> Named,
    ) -> Plan {
        let mut resolved = Vec::new();
        for stage in stages {
            let named = stage.iter().flat_map(|kind| steps(kind));
            let steps: Vec<Step> = named.map(|(id, action)| step(id, action, overrides)).collect();
            // Redis has a stage of its own behind the database's promotion: while that waits for a person's word no Redis that
            // serves is stopped.
            let promotes = steps.iter().any(|step| matches!(step.action, Action::Promote { .. }));
            let (redis, steps): (Vec<Step>, Vec<Step>) =
                steps.into_iter().partition(|step| promotes && step.action.is_redis());
            resolved.extend([steps, redis].into_iter().filter(|steps| !steps.is_empty()).map(|steps| Stage { steps }));
        }
        Plan { from: self.from.clone(), to: self.to.clone(), stages: resolved, undo: Vec::new() }
    }

    fn steps(&self, kind: &str) -> Named {
        let confirm = !matches!(self.recipe.fencing, Fencing::None { .. });
        match kind {
            "fence" if confirm => self
                .database(self.from)
                .map(|guard| ("fence".to_owned(), Action::Fence { guard }))
                .into_iter()
                .collect(),
            "promote" => {
                let promote = self.database(self.to).map(|guard| ("promote".to_owned(), Action::Promote { guard }));
                promote.into_iter().chain(self.redis_steps()).collect()
            }
            "services" => self.services(),
            "verify" => verify(self.looks(self.recipe.records)),
            _ => Named::new(),
        }
    }

    /// The steps of a planned move. Its fence is there in mode `none` too: what the old primary wrote last must be shipped.
    fn planned_steps(&self, kind: &str) -> Named {
        let action = match kind {
            "fence" => self.database(self.from).map(|guard| Action::Fence { guard }),
            "catch-up" => {
                let hosts = self.database(self.from).zip(self.database(self.to));
                hosts.map(|(from, to)| Action::CatchUp { from, to })
            }
            "rejoin" => {
                let database = self.rejoin(self.from, self.to).map(|action| (kind.to_owned(), action));
                return database.into_iter().chain(self.redis(self.from, REDIS_REJOIN, Some(self.to))).collect();
            }
            // Redis has stages of its own: it is promoted when nothing can turn back any more.
            "promote" => self.database(self.to).map(|guard| Action::Promote { guard }),
            REDIS_HAND_OVER => return self.redis(self.from, REDIS_HAND_OVER, Some(self.to)).into_iter().collect(),
            REDIS_PROMOTE => return self.redis(self.to, REDIS_PROMOTE, None).into_iter().collect(),
            other => return self.steps(other),
        };
        action.map(|action| (kind.to_owned(), action)).into_iter().collect()
    }

    fn undo(&self, overrides: &BTreeMap<String, RawStep>) -> Vec<Stage> {
        let release = self.database(self.to).and(self.database(self.from)).map(|guard| Action::Release { guard });
        let release = release.map(|action| ("release".to_owned(), action)).into_iter();
        let steps: Vec<Step> = release
            .chain(self.redis(self.from, REDIS_RELEASE, None))
            .map(|(id, action)| step(id, action, overrides))
            .collect();
        if steps.is_empty() { Vec::new() } else { vec![Stage { steps }] }
    }

    /// Its promotion waits for its fence, the next stage for neither.
    fn redis_steps(&self) -> Named {
        let fence = self.recipe.fences_redis.then(|| self.redis(self.from, REDIS_FENCE, None)).flatten();
        fence.into_iter().chain(self.redis(self.to, REDIS_PROMOTE, None)).collect()
    }

    /// A step at a region's Redis server, where both have one; with the other's name where it needs that.
    fn redis(&self, region: &RegionName, name: &str, other: Option<&RegionName>) -> Option<(String, Action)> {
        let host = |region: &RegionName| self.side(region)?.redis_host.clone();
        let guard = self.guard(&host(self.to).and(host(self.from)).and(host(region))?)?;
        let upstream = other.and_then(|other| Some(("upstream".to_owned(), self.side(other)?.upstream.clone())));
        let action = Action::Guarded { guard, name: name.to_owned(), params: upstream.into_iter().collect() };
        Some((name.to_owned(), action))
    }

    /// Makes `region`'s database a standby of `of`'s.
    fn rejoin(&self, region: &RegionName, of: &RegionName) -> Option<Action> {
        let (guard, upstream) = (self.database(region)?, self.database(of).and(self.side(of))?.upstream.clone());
        let params = BTreeMap::from([("upstream".to_owned(), upstream)]);
        Some(Action::Guarded { guard, name: REJOIN.to_owned(), params })
    }

    /// The old primary in `from` follows the primary in `to`.
    fn rejoin_plan(&self, overrides: &BTreeMap<String, RawStep>) -> Option<RejoinPlan> {
        let action = self.rejoin(self.from, self.to)?;
        // Nothing else is in the run: its step is what it waits for.
        let step_of = step;
        let step = Step { blocking: true, ..step_of("rejoin".to_owned(), action, overrides) };
        let (from, to) = (self.from.clone(), self.from.clone());
        let mut stages = vec![Stage { steps: vec![step] }];
        // One that nobody fenced may still serve somebody.
        let redis = [(REDIS_FENCE, None), (REDIS_REJOIN, Some(self.to))].into_iter();
        stages.extend(redis.filter_map(|(name, other)| self.redis(self.from, name, other)).map(|(id, action)| {
            let step = Step { blocking: true, ..step_of(id, action, overrides) };
            Stage { steps: vec![step] }
        }));
        let plan = Plan { from, to, stages, undo: Vec::new() };
        Some(RejoinPlan { upstream: self.to.clone(), plan })
    }

    fn side(&self, region: &RegionName) -> Option<&Side> {
        self.recipe.sides.get(region)
    }

    fn guard(&self, host: &HostName) -> Option<GuardEndpoint> {
        self.hosts.get(host).map(|host| host.guard.clone())
    }

    fn database(&self, region: &RegionName) -> Option<GuardEndpoint> {
        self.guard(self.side(region)?.database_host.as_ref()?)
    }

    fn services(&self) -> Named {
        let services = self.side(self.to).map(|side| side.services.as_slice()).unwrap_or_default();
        let mut named = Named::new();
        for service in services {
            let Some(guard) = self.guard(&service.host) else { continue };
            let mut id = match services.len() {
                1 => "services".to_owned(),
                _ => format!("services-{}-{}", service.host, service.action),
            };
            // The same action twice on one host, with other parameters.
            let same = named.iter().filter(|(other, _): &&(String, Action)| other.starts_with(&id)).count();
            if same > 0 {
                id = format!("{id}-{}", same + 1);
            }
            let action = Action::Guarded { guard, name: service.action.clone(), params: service.params.clone() };
            named.push((id, action));
        }
        named
    }

    fn dns_steps(&self, records: &[Record]) -> Named {
        let providers: BTreeSet<&ProviderName> = records.iter().map(|record| &record.provider).collect();
        let mut named = Named::new();
        for name in &providers {
            let (Some(provider), Some(token)) = (self.dns.get(*name), self.recipe.token_records.get(*name)) else {
                continue;
            };
            let records = records.iter().filter(|record| record.provider == **name);
            let records = records.filter_map(|record| self.record(record)).collect();
            let action = Action::UpsertDns { provider: provider.clone(), token_record: token.clone(), records };
            let id = if providers.len() == 1 { "dns".to_owned() } else { format!("dns-{name}") };
            named.push((id, action));
        }
        named
    }

    fn record(&self, record: &Record) -> Option<DnsRecord> {
        let value = record.values.get(self.to)?.clone();
        Some(DnsRecord { name: record.name.clone(), kind: record.kind, ttl_s: record.ttl_s, value })
    }

    fn looks(&self, records: &[Record]) -> Vec<Check> {
        let looks = self.recipe.checks.get(self.to).map(Vec::as_slice).unwrap_or_default();
        let expand = |look: &Look| match look {
            Look::Check(check) => vec![check.clone()],
            Look::DnsAnswers { server } => records
                .iter()
                .filter_map(|record| self.record(record))
                .map(|record| Check::DnsAnswers { server: server.clone(), record })
                .collect(),
        };
        looks.iter().flat_map(expand).collect()
    }

    /// A traffic run promotes nothing, so that the other side's database need not take writes.
    fn traffic_verify(&self) -> Named {
        let looks = self.looks(self.recipe.traffic_records);
        verify(
            looks
                .into_iter()
                .filter(|check| !matches!(check, Check::DatabaseWritable { .. } | Check::RedisWritable { .. }))
                .collect(),
        )
    }
}

fn verify(checks: Vec<Check>) -> Named {
    if checks.is_empty() { Named::new() } else { vec![("verify".to_owned(), Action::Verify { checks })] }
}

fn kind_of(id: &StepId) -> &str {
    if id.as_str() == "catch-up" || id.as_str().starts_with("redis-") {
        return id.as_str();
    }
    id.as_str().split_once('-').map_or(id.as_str(), |(kind, _)| kind)
}

pub(super) fn step(id: String, action: Action, overrides: &BTreeMap<String, RawStep>) -> Step {
    let id = StepId(id);
    let kind = kind_of(&id);
    // (deadline, attempts, first wait, longest wait); a DNS outage must hold up neither promotion nor services.
    let (deadline_ms, max_attempts, backoff_ms, backoff_max_ms) = match kind {
        "fence" => (10_000, 5, 500, 10_000),
        "dns" => (30_000, 10, 1000, 10_000),
        "promote" => (60_000, 3, 500, 10_000),
        "services" => (120_000, 5, 1000, 10_000),
        // It is asked until the move turns back.
        "catch-up" => (10_000, 1000, 50, 500),
        "release" => (60_000, 10, 500, 5000),
        // A base backup of everything may be needed.
        "rejoin" => (HOUR_MS, 3, 2000, 30_000),
        REDIS_FENCE | REDIS_PROMOTE | REDIS_HAND_OVER => (10_000, 10, 500, 5000),
        REDIS_RELEASE => (60_000, 10, 500, 5000),
        // A full copy may be needed.
        REDIS_REJOIN => (600_000, 3, 2000, 30_000),
        "restart" | "scale" => (120_000, 2, 2000, 10_000),
        // A second one would go back another version.
        "rollback" => (120_000, 1, 2000, 10_000),
        // 30 tries, 10 s apart as the procedures have it, except that the first looks come soon.
        _ => (10_000, 30, 200, 10_000),
    };
    let none = RawStep::default();
    let own = overrides.get(id.as_str()).unwrap_or(&none);
    let general = overrides.get(kind).unwrap_or(&none);
    let backoff_ms = own.backoff_ms.or(general.backoff_ms).unwrap_or(backoff_ms);
    let backoff_max_ms = own.backoff_max_ms.or(general.backoff_max_ms).unwrap_or(backoff_max_ms).max(backoff_ms);
    let retry = Retry {
        max_attempts: own.max_attempts.or(general.max_attempts).unwrap_or(max_attempts),
        backoff_ms,
        backoff_max_ms,
    };
    Step {
        deadline_ms: own.deadline_ms.or(general.deadline_ms).unwrap_or(deadline_ms),
        retry,
        blocking: own
            .blocking
            .or(general.blocking)
            .unwrap_or(!["dns", "rejoin", REDIS_FENCE, REDIS_PROMOTE, REDIS_REJOIN].contains(&kind)),
        id,
        action,
    }
}
