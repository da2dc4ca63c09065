//! `[[group.service]]`: which services can be recovered by themselves, and what may be done to each.

use std::collections::BTreeMap;

use super::Judge;
use super::fields::cut;
use super::plan::step;
use crate::config::check::Item;
use crate::config::raw::{RawGroupService, RawGroupTables, RawStep};
use crate::domain::ids::{HostName, RegionName};
use crate::domain::plan::{Action, Check, GuardEndpoint, Plan, Stage};
use crate::domain::service::{ServiceAction, ServiceRule};

/// A service before the steps' limits are put in.
pub(super) struct Recovered {
    name: String,
    region: RegionName,
    guard: GuardEndpoint,
    actions: Vec<ServiceAction>,
    replicas_max: u32,
    check: Option<Check>,
}

impl Recovered {
    pub(super) fn rule(self, overrides: &BTreeMap<String, RawStep>) -> ServiceRule {
        let plan = |action: &ServiceAction| {
            let params = BTreeMap::from([("name".to_owned(), self.name.clone())]);
            let word = action.word().to_owned();
            let act = Action::Guarded { guard: self.guard.clone(), name: word.clone(), params };
            let mut stages = vec![Stage { steps: vec![step(word, act, overrides)] }];
            if let Some(check) = &self.check {
                let verify = Action::Verify { checks: vec![check.clone()] };
                stages.push(Stage { steps: vec![step("verify".to_owned(), verify, overrides)] });
            }
            (*action, Plan { from: self.region.clone(), to: self.region.clone(), stages, undo: Vec::new() })
        };
        let plans = self.actions.iter().map(plan).collect();
        ServiceRule { name: self.name, region: self.region, replicas_max: self.replicas_max, plans }
    }
}

impl Judge<'_> {
    pub(super) fn services(&mut self, tables: &RawGroupTables, regions: &[RegionName]) -> Vec<Recovered> {
        let (mut seen, mut found) = (BTreeMap::new(), Vec::new());
        for item in &tables.services {
            let Some(service) = self.service(item, regions) else { continue };
            let both = format!("{} in {}", service.name, service.region);
            if self.unique(&mut seen, &item.place, "name", &both, "a service") {
                found.push(service);
            }
        }
        found
    }

    fn service(&mut self, item: &Item<RawGroupService>, regions: &[RegionName]) -> Option<Recovered> {
        let Item { place, value } = item;
        let name = self.name(place, "name", &value.name);
        let known = regions.iter().map(|region| region.0.clone()).collect();
        let region = self.refers(place, "region", &value.region, &known, "group.region").map(RegionName);
        let known = self.known.hosts.clone();
        let host = self.refers(place, "host", &value.host, &known, "host").map(HostName);
        let actions = self.actions(item);
        let replicas_max = self.number(place, "replicas_max", value.replicas_max, 20, 1..=1000);
        if value.replicas_max.is_some() && !actions.contains(&ServiceAction::Scale) {
            let what = "replicas_max means nothing without \"scale\" among the actions";
            self.report.error(place, "replicas_max", what, "remove it, or add \"scale\"");
        }
        let url = value.health_url.as_ref().and_then(|_| self.url(place, "health_url", &value.health_url));
        let expect_status = self.number(place, "expect_status", value.expect_status, 200, 100..=599);
        if value.health_url.is_none() {
            let what = "nothing is looked at after the guard's action";
            self.report.warn(place, "", what, "add health_url = \"http://…\": what answers once the service is well");
        }
        let check = url.map(|url| Check::Http { url, expect_status, connect_to: None, resolve_at: None });
        let (name, region, host) = (name?, region?, self.hosts.get(&host?)?);
        let (guard, at) = (host.guard.clone(), host.region.clone());
        if at != region {
            let what = format!("{name} in {region} is acted upon through {}, which stands in {at}", guard.host);
            self.report.warn(place, "host", what, "name a host of the region where it runs");
        }
        Some(Recovered { name, region, guard, actions, replicas_max, check })
    }

    fn actions(&mut self, item: &Item<RawGroupService>) -> Vec<ServiceAction> {
        let Some(words) = &item.value.actions else { return ServiceAction::ALL.to_vec() };
        let mut actions = Vec::new();
        for word in words {
            match ServiceAction::ALL.into_iter().find(|action| action.word() == word) {
                Some(action) if actions.contains(&action) => {
                    let what = format!("{word:?} stands twice");
                    self.report.error(&item.place, "actions", what, "name each action once");
                }
                Some(action) => actions.push(action),
                None => {
                    let what = format!("{:?} is nothing that can be done to a service", cut(word));
                    self.report.error(&item.place, "actions", what, "use restart, scale, rollback");
                }
            }
        }
        if words.is_empty() {
            self.report.error(&item.place, "actions", "no action", "name one at least, or leave actions out");
        }
        actions
    }
}
