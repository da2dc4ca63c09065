//! The group that the model protects: hcmc serves, hanoi stands by.

use std::collections::BTreeMap;

use watchdog::domain::command::{Applied, Change, Command, GroupSpec};
use watchdog::domain::ids::{ConfigDigest, GroupName, HostName, NodeId, RegionName};
use watchdog::domain::plan::{Action, DnsProvider, GuardEndpoint, Plan, Retry, Stage, Step as PlannedStep};
use watchdog::domain::policy::Fencing;
use watchdog::domain::state::{ClusterState, GroupState};

use super::log::NOW;
use super::rules::{Mode, Rules};
use super::steps::Step;

/// Where it serves from at first.
pub const HOME: &str = "hcmc";
/// Its database's host.
pub const OLD_HOST: &str = "db-hcmc";
/// Where it moves to.
pub const AWAY: &str = "hanoi";

pub fn group_name() -> GroupName {
    GroupName::from("shop")
}

pub fn digest() -> ConfigDigest {
    ConfigDigest::from("d")
}

/// The one group.
pub fn group_of(state: &ClusterState) -> &GroupState {
    state.groups.get(&group_name()).expect("the model has one group")
}

/// The one group, to be broken on purpose.
pub fn group_mut(state: &mut ClusterState) -> &mut GroupState {
    state.groups.get_mut(&group_name()).expect("the model has one group")
}

fn guard(region: &str) -> GuardEndpoint {
    GuardEndpoint {
        host: HostName(format!("db-{region}")),
        address: String::new(),
        user: String::new(),
        host_key: String::new(),
        identity_file: String::new(),
    }
}

fn action(step: Step) -> Action {
    match step {
        Step::Fence => Action::Fence { guard: guard(HOME) },
        Step::CatchUp => Action::CatchUp { from: guard(HOME), to: guard(AWAY) },
        Step::Release => Action::Release { guard: guard(HOME) },
        Step::Promote => Action::Promote { guard: guard(AWAY) },
        Step::Services => {
            Action::Guarded { guard: guard(AWAY), name: "start-services".to_owned(), params: BTreeMap::new() }
        }
        Step::Verify => Action::Verify { checks: Vec::new() },
        Step::Dns => Action::UpsertDns {
            provider: DnsProvider::Rfc2136 {
                name: "zone".into(),
                server: String::new(),
                zone: String::new(),
                key_name: String::new(),
                key_file: String::new(),
            },
            token_record: "_t.shop.test.".to_owned(),
            records: Vec::new(),
        },
    }
}

/// Fence; DNS beside promotion; services; verify: those of them that the rules ask for. A planned move's names follow its
/// promotion, and it can turn back.
pub fn plan(rules: Rules, is_planned: bool) -> Plan {
    let stages: &[&[Step]] = match is_planned {
        true => &[&[Step::Fence], &[Step::CatchUp], &[Step::Promote], &[Step::Dns], &[Step::Services], &[Step::Verify]],
        false => &[&[Step::Fence], &[Step::Dns, Step::Promote], &[Step::Services], &[Step::Verify]],
    };
    let planned = |step: &Step| PlannedStep {
        id: step.id(),
        action: action(*step),
        deadline_ms: 0,
        retry: Retry { max_attempts: rules.max_attempts, backoff_ms: 0, backoff_max_ms: 0 },
        blocking: *step != Step::Dns,
    };
    let undo = if is_planned { vec![Stage { steps: vec![planned(&Step::Release)] }] } else { Vec::new() };
    let stages = stages
        .iter()
        .map(|steps| Stage { steps: steps.iter().filter(|step| rules.steps.contains(step)).map(planned).collect() });
    let stages = stages.filter(|stage| !stage.steps.is_empty()).collect();
    Plan { from: HOME.into(), to: AWAY.into(), stages, undo }
}

/// The configuration is adopted, nothing else has happened.
pub fn fresh_state(rules: Rules) -> ClusterState {
    let mut state = ClusterState::default();
    let regions: Vec<RegionName> = vec![HOME.into(), AWAY.into()];
    let fencing = match rules.mode {
        Mode::Confirm => Fencing::Confirm,
        Mode::None => Fencing::None { asserted_by: "us".to_owned() },
        Mode::Lease(ttl_ms) => Fencing::Lease { ttl_ms },
    };
    let change = Change::AdoptConfig {
        cluster: "model".into(),
        epoch: 1,
        digest: digest(),
        groups: BTreeMap::from([(group_name(), GroupSpec { home: HOME.into(), regions, fencing })]),
        receivers: Vec::new(),
        on_call: Default::default(),
    };
    let command = Command { node: NodeId(1), at: NOW, by: "node:model".into(), from: None, request_id: None, change };
    assert!(matches!(state.apply(1, &command), Applied::Done { .. }), "the configuration is taken");
    state
}
