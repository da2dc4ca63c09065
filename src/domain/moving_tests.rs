//! Every gate of a planned move and of a rejoin, shut one at a time, with the words that say what to do.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::domain::fixtures::{Says, UP, World, down_for, group, planned, policy, region, view};
use crate::domain::loss::Loss;
use crate::domain::plan::{REDIS_PROMOTE, Stage, Step};
use crate::domain::readiness::{ActionSeen, Item};

/// All that a gate looks at, as it is when everything is well.
struct Scene {
    world: World,
    policy: ClusterPolicy,
    says: Vec<Option<Says>>,
    streams: bool,
    plan: Plan,
    guards: BTreeMap<HostName, GuardSeen>,
    prospect: Option<Prospect>,
    bad: Option<&'static str>,
}

fn offers(actions: &[&str]) -> GuardSeen {
    let seen = ActionSeen { params: BTreeSet::new(), fault: None };
    let actions = actions.iter().map(|name| ((*name).to_owned(), seen.clone())).collect();
    GuardSeen::Answers { fault: None, actions: Some(actions), redis_latch: None }
}

impl Scene {
    fn new() -> Self {
        Self {
            world: World::new(),
            policy: policy(),
            says: vec![Some(UP), Some(UP), Some(UP)],
            streams: true,
            plan: planned("hcmc", "hanoi"),
            guards: BTreeMap::from([
                ("db-hcmc".into(), offers(&["fence", "release", "rejoin"])),
                ("db-hanoi".into(), offers(&["promote", "start-services"])),
            ]),
            prospect: Some(Prospect::Good { evidence: "in recovery, not latched".to_owned() }),
            bad: None,
        }
    }

    fn shut(&self, gates: fn(&Facts<'_>) -> Vec<Condition>) -> Vec<(&'static str, String)> {
        let mut view = view(&self.says);
        if !self.streams {
            let observed = view.sights.values_mut().flat_map(|sight| &mut sight.report.observations);
            for seen in observed {
                if let Some(Measure::Replication(measure)) = &mut seen.measure {
                    measure.streaming = false;
                }
            }
        }
        let item = |name| Item { name, holds: Holds::No, reason: "no".to_owned(), detail: "no use".to_owned() };
        let readiness = Readiness {
            from: region("hcmc"),
            to: region("hanoi"),
            items: self.bad.map(item).into_iter().collect(),
            loss: Loss::AtMost { ms: 0, bytes: None },
            loss_limit_ms: 0,
            recovery_ms: None,
            recovery: Vec::new(),
            past: None,
            objective_ms: None,
        };
        let name = group();
        let facts = Facts {
            name: &name,
            policy: &self.policy,
            rules: &self.policy.groups[&name],
            group: self.world.group(),
            view: &view,
            plan: &self.plan,
            guards: &self.guards,
            prospect: self.prospect.clone(),
            readiness: Some(&readiness),
        };
        gates(&facts).into_iter().filter(|gate| !gate.is_open).map(|gate| (gate.name, gate.detail)).collect()
    }
}

fn failback(facts: &Facts<'_>) -> Vec<Condition> {
    of_move(facts, RunKind::Failback)
}

fn switchover(facts: &Facts<'_>) -> Vec<Condition> {
    of_move(facts, RunKind::Switchover)
}

#[test]
fn all_is_open_where_all_is_well() {
    assert_eq!(Scene::new().shut(switchover), []);
    assert_eq!(
        Scene { bad: Some("decision"), ..Scene::new() }.shut(switchover),
        [],
        "whether it would begin by itself"
    );
}

#[test]
fn each_gate_shuts_by_itself_and_says_why() {
    let lagging = Says { covered_age_ms: Some(9000), ..UP };
    type Spoil = Box<dyn Fn(&mut Scene)>;
    let table: Vec<(&str, &str, Spoil)> = vec![
        (
            "primary up",
            "1 of 3 voters see hcmc up, 2",
            Box::new(|scene| scene.says = vec![Some(UP), None, Some(down_for(9))]),
        ),
        ("standby", "latched", Box::new(|scene| scene.prospect = Some(Prospect::Bad { reason: "latched".into() }))),
        (
            "standby",
            "no route",
            Box::new(|scene| scene.prospect = Some(Prospect::Unknown { reason: "no route".into() })),
        ),
        ("standby", "was not asked", Box::new(|scene| scene.prospect = None)),
        ("streaming", "nobody sees the standby in hanoi receiving", Box::new(|scene| scene.streams = false)),
        (
            "guard",
            "no answer",
            Box::new(|scene| {
                scene.guards.insert("db-hcmc".into(), GuardSeen::Silent { reason: "no answer".to_owned() });
            }),
        ),
        (
            "guard",
            "db-hcmc offers no release",
            Box::new(|scene| drop(scene.guards.insert("db-hcmc".into(), offers(&["rejoin"])))),
        ),
        (
            "guard",
            "add [postgres.upstream.NAME]",
            Box::new(|scene| drop(scene.guards.insert("db-hcmc".into(), offers(&["release"])))),
        ),
        (
            "guard",
            "renew it",
            Box::new(|scene| {
                let older = GuardSeen::Answers { fault: None, actions: None, redis_latch: None };
                scene.guards.insert("db-hanoi".into(), older);
            }),
        ),
        (
            "guard",
            "the Redis server of db-hanoi is latched (fenced under token 1.5)",
            Box::new(|scene| {
                let Some(promote) = scene.plan.steps().find_map(|(_, step)| match &step.action {
                    Action::Promote { guard } => Some(Step {
                        id: REDIS_PROMOTE.into(),
                        action: Action::Guarded {
                            guard: guard.clone(),
                            name: REDIS_PROMOTE.to_owned(),
                            params: Default::default(),
                        },
                        ..step.clone()
                    }),
                    _ => None,
                }) else {
                    panic!("it promotes")
                };
                scene.plan.stages.push(Stage { steps: vec![promote] });
                let mut seen = offers(&["promote", "start-services", REDIS_PROMOTE]);
                if let GuardSeen::Answers { redis_latch, .. } = &mut seen {
                    *redis_latch = Some("fenced under token 1.5".to_owned());
                }
                scene.guards.insert("db-hanoi".into(), seen);
            }),
        ),
        ("readiness", "dns: no use", Box::new(|scene| scene.bad = Some("dns"))),
    ];
    for (name, words, spoil) in &table {
        let mut scene = Scene::new();
        spoil(&mut scene);
        let shut = scene.shut(switchover);
        assert!(matches!(&shut[..], [(only, detail)] if only == name && detail.contains(words)), "{name}: {shut:?}");
    }
    let mut scene = Scene::new();
    scene.says = vec![Some(lagging); 3];
    scene.policy.groups.get_mut(&group()).unwrap().switchover_max_lag_ms = 0;
    let mut behind = scene.shut(switchover);
    // Equal positions are no lag, whatever the ages say.
    assert_eq!(behind, []);
    scene.says = vec![None; 3];
    behind = scene.shut(switchover);
    let names: Vec<_> = behind.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["primary up", "streaming", "lag"], "nobody reports");
}

#[test]
fn a_failback_names_the_rejoin_where_home_is_no_standby() {
    let scene = Scene { prospect: Some(Prospect::Bad { reason: "stopped".into() }), streams: false, ..Scene::new() };
    for (name, detail) in scene.shut(failback) {
        assert!(detail.contains("`watchdogctl rejoin shop`"), "{name}: {detail}");
    }
    assert!(scene.shut(switchover).iter().all(|(_, detail)| !detail.contains("rejoin")));
}

#[test]
fn nobody_moves_a_group_that_serves_nowhere() {
    let (mut world, token) = World::switching("r1");
    world.must(world.start_change("fence", token));
    let mut scene = Scene { world, ..Scene::new() };
    let shut = scene.shut(switchover);
    assert!(matches!(&shut[..], [("serving", detail)] if detail.contains("while run r1 is between")), "{shut:?}");
    assert_eq!(scene.shut(of_rejoin)[0].0, "serving");
    scene.world.state.groups.values_mut().for_each(|group| group.open_run = None);
    let shut = scene.shut(switchover);
    assert!(matches!(&shut[..], [("serving", detail)] if detail.contains("watchdogctl failover shop")), "{shut:?}");
}

#[test]
fn a_rejoin_is_of_a_region_that_does_not_serve_and_whose_guard_knows_the_way() {
    let rejoin = |of: &str| {
        let stages = planned(of, "hanoi").stages.into_iter().filter(|stage| stage.steps[0].id.as_str() == "rejoin");
        let stages: Vec<Stage> = stages.collect();
        Plan { from: region(of), to: region(of), stages, undo: Vec::new() }
    };
    let scene = Scene { plan: rejoin("hcmc"), ..Scene::new() };
    let shut = scene.shut(of_rejoin);
    assert!(matches!(&shut[..], [("serving", detail)] if detail.contains("follows nobody")), "{shut:?}");
    let mut scene = Scene { plan: rejoin("hanoi"), ..Scene::new() };
    scene.guards = BTreeMap::from([("db-hanoi".into(), offers(&["rejoin"]))]);
    assert_eq!(scene.shut(of_rejoin), []);
    scene.guards = BTreeMap::from([("db-hanoi".into(), offers(&["promote"]))]);
    assert_eq!(scene.shut(of_rejoin)[0].0, "guard");
}
