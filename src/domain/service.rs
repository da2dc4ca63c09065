//! Recovery of one service (C2): which services there are, and the small plan of each thing that may be done to one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::RegionName;
use super::plan::{Action, Plan};

/// What may be done to a service. The words are the guard's actions'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceAction {
    /// Start every instance anew.
    Restart,
    /// Run so many instances.
    Scale,
    /// Go back to the version before.
    Rollback,
}

impl ServiceAction {
    /// All of them.
    pub const ALL: [ServiceAction; 3] = [ServiceAction::Restart, ServiceAction::Scale, ServiceAction::Rollback];

    /// The action's word.
    pub fn word(self) -> &'static str {
        match self {
            ServiceAction::Restart => "restart",
            ServiceAction::Scale => "scale",
            ServiceAction::Rollback => "rollback",
        }
    }
}

/// A service in one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRule {
    /// Its name: the parameter `name` of the guard's action.
    pub name: String,
    /// Where it runs.
    pub region: RegionName,
    /// It is never scaled to more.
    pub replicas_max: u32,
    /// What may be done to it, and how; that of `scale` without its number.
    pub plans: BTreeMap<ServiceAction, Plan>,
}

impl ServiceRule {
    /// The plan of an action; `replicas` for `scale` and nothing else.
    ///
    /// # Errors
    /// Which word is wrong, as `FIELD: why`.
    pub fn plan(&self, action: ServiceAction, replicas: Option<u32>) -> Result<Plan, String> {
        let Some(plan) = self.plans.get(&action) else {
            let known: Vec<_> = self.plans.keys().map(|known| known.word()).collect();
            let (word, known) = (action.word(), known.join(", "));
            return Err(format!("action: service {} in {} has no {word}; it has: {known}", self.name, self.region));
        };
        let mut plan = plan.clone();
        match (action, replicas) {
            (ServiceAction::Scale, None) => return Err("replicas: missing; say to how many".to_owned()),
            (ServiceAction::Scale, Some(n)) if n > self.replicas_max => {
                let (name, max) = (&self.name, self.replicas_max);
                return Err(format!("replicas: {n} is more than the {max} that {name} may have (replicas_max)"));
            }
            (ServiceAction::Scale, Some(n)) => {
                for step in plan.stages.iter_mut().flat_map(|stage| stage.steps.iter_mut()) {
                    if let Action::Guarded { params, .. } = &mut step.action {
                        params.insert("replicas".to_owned(), n.to_string());
                    }
                }
            }
            (_, Some(_)) => return Err(format!("replicas: a {} takes no number", action.word())),
            (_, None) => {}
        }
        Ok(plan)
    }
}

/// The service of that name; `region` where it runs in several.
///
/// # Errors
/// Which word is wrong, as `FIELD: why`.
pub fn find<'a>(
    services: &'a [ServiceRule],
    name: &str,
    region: Option<&RegionName>,
) -> Result<&'a ServiceRule, String> {
    let named: Vec<&ServiceRule> = services.iter().filter(|service| service.name == name).collect();
    if named.is_empty() {
        let mut known: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        known.dedup();
        return Err(match known.is_empty() {
            true => "service: the group has no [[group.service]]".to_owned(),
            false => format!("service: there is no {name:?} in the group; there are: {}", known.join(", ")),
        });
    }
    let regions: Vec<&str> = named.iter().map(|service| service.region.as_str()).collect();
    match (region, named.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("region: {name} runs in {}: say where", regions.join(" and "))),
        (Some(region), named) => {
            let found = named.iter().find(|service| &service.region == region).copied();
            found.ok_or_else(|| format!("region: {name} does not run in {region}, but in {}", regions.join(" and ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::plan;

    fn rule(name: &str, region: &str, actions: &[ServiceAction]) -> ServiceRule {
        let of = |_: &ServiceAction| Plan { from: region.into(), to: region.into(), ..plan("hcmc", "hanoi") };
        let plans = actions.iter().map(|action| (*action, of(action))).collect();
        ServiceRule { name: name.to_owned(), region: region.into(), replicas_max: 8, plans }
    }

    #[test]
    fn a_service_is_found_by_its_name_and_where_needed_its_region() {
        let services = [
            rule("api", "hcmc", &ServiceAction::ALL),
            rule("api", "hanoi", &ServiceAction::ALL),
            rule("worker", "hcmc", &[ServiceAction::Restart]),
        ];
        let region = |name: &str, region: Option<&str>| {
            find(&services, name, region.map(RegionName::from).as_ref()).map(|found| found.region.0.clone())
        };
        assert_eq!(region("worker", None).as_deref(), Ok("hcmc"));
        assert_eq!(region("api", Some("hanoi")).as_deref(), Ok("hanoi"));
        for (name, at, why) in [
            ("api", None, "region: api runs in hcmc and hanoi: say where"),
            ("worker", Some("hanoi"), "region: worker does not run in hanoi, but in hcmc"),
            ("db", None, "service: there is no \"db\" in the group; there are: api, worker"),
        ] {
            assert_eq!(region(name, at), Err(why.to_owned()));
        }
        assert!(find(&[], "api", None).unwrap_err().contains("no [[group.service]]"));
    }

    #[test]
    fn only_scale_takes_a_number_and_within_its_bound() {
        let api = rule("api", "hcmc", &ServiceAction::ALL);
        let scaled = api.plan(ServiceAction::Scale, Some(8)).unwrap();
        let params = scaled.steps().find_map(|(_, step)| match &step.action {
            Action::Guarded { params, .. } => Some(params.clone()),
            _ => None,
        });
        assert_eq!(params.unwrap()["replicas"], "8");
        let worker = rule("worker", "hcmc", &[ServiceAction::Restart]);
        for (rule, action, replicas, why) in [
            (&api, ServiceAction::Scale, None, "replicas: missing"),
            (&api, ServiceAction::Scale, Some(9), "replicas: 9 is more than the 8"),
            (&api, ServiceAction::Restart, Some(1), "replicas: a restart takes no number"),
            (&worker, ServiceAction::Rollback, None, "action: service worker in hcmc has no rollback; it has: restart"),
        ] {
            assert!(rule.plan(action, replicas).unwrap_err().starts_with(why), "{why}");
        }
    }
}
