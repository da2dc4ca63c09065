//! Readiness by table: one thing wrong at a time, and what is said of it.

use super::*;
use crate::domain::command::Change;
use crate::domain::fixtures::{World, digest, group, plan, policy};
use crate::domain::ids::Token;
use crate::domain::lease::LeaseBinding;

const NOTICE: (u64, u64) = (1500, 3500);

/// All is well: mode `lease`, bound, everything answers.
struct Scene {
    world: World,
    policy: ClusterPolicy,
    plan: Plan,
    leader: NodeId,
    voters: BTreeSet<NodeId>,
    answering: BTreeSet<NodeId>,
    other_config: BTreeSet<NodeId>,
    present: BTreeMap<StepId, ReadBack>,
    prospect: Prospect,
    is_streaming: bool,
    loss: Loss,
    unbound: String,
    obstacle: Option<String>,
}

impl Scene {
    fn new() -> Self {
        let mut policy = policy();
        let rules = policy.groups.get_mut(&group()).expect("the group");
        rules.fencing = Fencing::Lease { ttl_ms: 2000 };
        let mut world = World::new();
        world.must(Change::AdoptConfig {
            cluster: policy.cluster.clone(),
            epoch: 1,
            digest: digest(),
            groups: crate::domain::decide::specs(&policy),
            receivers: policy.receivers.clone(),
            on_call: policy.on_call.clone(),
        });
        world.must(Change::BindLease {
            group: group(),
            binding: LeaseBinding {
                region: "hcmc".into(),
                host: "db-hcmc".into(),
                ttl_ms: 2000,
                holders: vec!["db-hanoi".into()],
                since: crate::domain::ids::UnixMs(0),
                attestation: "model".to_owned(),
            },
        });
        let seen = |what: &str| ReadBack::NotDone { evidence: what.to_owned() };
        let present = BTreeMap::from([
            ("fence".into(), seen("writable")),
            ("dns".into(), seen("10.1.0.30")),
            ("services".into(), seen("stopped")),
        ]);
        let all: BTreeSet<NodeId> = [1, 2, 3].map(NodeId).into();
        Self {
            world,
            policy,
            plan: plan("hcmc", "hanoi"),
            leader: NodeId(3),
            voters: all.clone(),
            answering: all,
            other_config: BTreeSet::new(),
            present,
            prospect: Prospect::Good { evidence: "in recovery".to_owned() },
            is_streaming: true,
            loss: Loss::AtMost { ms: 180, bytes: Some(0) },
            unbound: String::new(),
            obstacle: None,
        }
    }

    fn judge(&self) -> Readiness {
        let facts = Facts {
            name: &group(),
            policy: &self.policy,
            group: self.world.group(),
            plan: &self.plan,
            leader: self.leader,
            voters: &self.voters,
            answering: &self.answering,
            other_config: &self.other_config,
            present: &self.present,
            prospect: Some(self.prospect.clone()),
            is_streaming: self.is_streaming,
            loss: self.loss.clone(),
            unbound: &self.unbound,
            notice: Some(NOTICE),
            obstacle: self.obstacle.clone(),
        };
        judge(&facts, &self.policy.groups[&group()])
    }

    fn fencing(&mut self, fencing: Fencing) {
        self.policy.groups.get_mut(&group()).expect("the group").fencing = fencing;
        self.world.must(Change::UnbindLease { group: group(), reason: "the test".to_owned() });
        self.world.must(Change::AdoptConfig {
            cluster: self.policy.cluster.clone(),
            epoch: 1,
            digest: digest(),
            groups: crate::domain::decide::specs(&self.policy),
            receivers: self.policy.receivers.clone(),
            on_call: self.policy.on_call.clone(),
        });
    }
}

#[test]
fn when_all_is_well_it_says_how_soon() {
    let readiness = Scene::new().judge();
    let worst: Vec<_> = readiness.items.iter().filter(|item| item.holds != Holds::Yes).collect();
    assert!(worst.is_empty(), "{worst:?}");
    let names: Vec<&str> = readiness.items.iter().map(|item| item.name).collect();
    assert_eq!(names, ["quorum", "decision", "fence", "standby", "loss", "dns", "services"]);
    // The first failure after 1.5 s and the hold-down of 3 s; the lease's silence of 2.4 s runs beside them.
    assert_eq!(readiness.recovery_ms, Some(5000), "{:?}", readiness.recovery);
}

#[test]
fn the_leaders_own_loss_costs_an_election_and_a_fresh_silence() {
    let mut scene = Scene::new();
    scene.leader = NodeId(1);
    let readiness = scene.judge();
    assert_eq!(readiness.items[0].holds, Holds::Weak, "{:?}", readiness.items[0]);
    // The election, two TTLs in which the want of a lease is no evidence, and the acts.
    assert_eq!(readiness.recovery_ms, Some(7500), "{:?}", readiness.recovery);
}

type Wrong = fn(&mut Scene);

#[test]
fn each_thing_that_is_wrong_is_named() {
    let table: [(Wrong, &str, Holds, &str); 16] = [
        (
            |s| s.answering = [1, 3].map(NodeId).into(),
            "quorum",
            Holds::No,
            "1 of 3 voters outside hcmc answer, 2 are needed: start hanoi-1",
        ),
        (|s| s.voters = [1, 2].map(NodeId).into(), "quorum", Holds::No, "1 of 2 voters stand outside hcmc"),
        (|s| s.other_config = [2, 3].map(NodeId).into(), "quorum", Holds::No, "another configuration"),
        (|s| s.obstacle = Some("shadow mode".to_owned()), "decision", Holds::No, "shadow mode"),
        (|s| s.open("r1"), "decision", Holds::No, "run r1 is open"),
        (|s| s.plan.from = "hue".into(), "decision", Holds::No, "hue has no trigger"),
        (|s| s.fencing(Fencing::Confirm), "fence", Holds::No, "with hcmc gone nobody proves db-hcmc silent"),
        (|s| s.fencing(Fencing::None { asserted_by: "linh".to_owned() }), "fence", Holds::Weak, "linh asserts"),
        (
            |s| {
                s.fencing(Fencing::Lease { ttl_ms: 2000 });
                s.unbound = "the gate of db-hcmc is not in force".to_owned();
            },
            "fence",
            Holds::No,
            "the lease is not bound: the gate of db-hcmc is not in force",
        ),
        (|s| s.prospect = Prospect::Bad { reason: "latched since".to_owned() }, "standby", Holds::No, "latched since"),
        (|s| s.prospect = Prospect::Unknown { reason: "no route".to_owned() }, "standby", Holds::No, "no route"),
        (|s| s.is_streaming = false, "standby", Holds::Weak, "does NOT stream"),
        (
            |s| s.loss = Loss::Unknown { why: "nobody reports".to_owned() },
            "loss",
            Holds::No,
            "unknown (nobody reports)",
        ),
        (|s| s.silent("dns"), "dns", Holds::Weak, "dns: no answer"),
        (|s| s.silent("services"), "services", Holds::No, "services: no answer"),
        (
            |s| {
                s.present.insert("services".into(), ReadBack::Refused { held: Token { epoch: 1, n: 9 } });
            },
            "services",
            Holds::No,
            "higher token 1.9",
        ),
    ];
    for (wrong, name, holds, words) in table {
        let mut scene = Scene::new();
        wrong(&mut scene);
        let readiness = scene.judge();
        let item = readiness.items.iter().find(|item| item.name == name).expect("every item is there");
        assert_eq!(item.holds, holds, "{item:?}");
        assert!(item.detail.contains(words), "{:?} does not say {words:?}", item.detail);
        assert_eq!(readiness.is_ready(), holds != Holds::No, "{item:?}");
        assert_eq!(readiness.recovery_ms.is_some(), holds != Holds::No, "no time is promised for what nobody does");
    }
}

impl Scene {
    fn open(&mut self, run: &str) {
        let change = self.world.open_change(run);
        self.world.must(change);
    }

    fn silent(&mut self, step: &str) {
        self.present.insert(step.into(), ReadBack::Unknown { reason: "no answer".to_owned() });
    }
}
