//! Readiness by table: one thing wrong at a time, and what is said of it.

use super::*;
use crate::domain::command::Change;
use crate::domain::drill::{Drill, DrillChange, DrillKind, DrillOpening, DrillOutcome, DrillPhase, DrillSettings};
use crate::domain::fixtures::{World, digest, group, plan, policy};
use crate::domain::ids::{DrillId, Token};
use crate::domain::lease::LeaseBinding;
use crate::domain::plan::{Action, REDIS_PROMOTE, Step};
use crate::domain::policy::Member;
use crate::domain::run::{Run, RunKind, RunOutcome, RunPhase};

const DAY_MS: u64 = 86_400_000;
/// When the scene plays.
const NOW: UnixMs = UnixMs(100 * DAY_MS);

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
    guards: BTreeMap<HostName, GuardSeen>,
    zones: BTreeMap<StepId, ZoneSeen>,
    prospect: Prospect,
    is_streaming: bool,
    redis: Option<Option<RedisMeasure>>,
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
            ("promote".into(), seen("in recovery")),
            ("services".into(), seen("the guard of db-hanoi answers")),
        ]);
        let could = |names: &[&str]| GuardSeen::Answers {
            fault: None,
            actions: Some(names.iter().map(|name| ((*name).to_owned(), ActionSeen::default())).collect()),
            redis_latch: None,
        };
        let guards = BTreeMap::from([
            ("db-hcmc".into(), could(&["fence", "promote"])),
            ("db-hanoi".into(), could(&["fence", "promote", "start-services"])),
        ]);
        let zones = BTreeMap::from([("dns".into(), ZoneSeen::Readable { token: Some(Token { epoch: 1, n: 4 }) })]);
        past(&mut world, "drill", |run| run.drill = true, 20_000, NOW.0 - 12 * DAY_MS);
        rehearsed(&mut world, UnixMs(NOW.0 - 12 * DAY_MS));
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
            guards,
            zones,
            prospect: Prospect::Good { evidence: "in recovery".to_owned() },
            is_streaming: true,
            redis: None,
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
            guards: &self.guards,
            zones: &self.zones,
            prospect: Some(self.prospect.clone()),
            is_streaming: self.is_streaming,
            redis: self.redis.clone(),
            loss: self.loss.clone(),
            unbound: &self.unbound,
            notice: Some(NOTICE),
            obstacle: self.obstacle.clone(),
            now: NOW,
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
    let wanted = "quorum decision fence standby loss dns dns-token guards services drill";
    assert_eq!(names.join(" "), wanted);
    assert!(readiness.items.iter().all(|item| item.reason.is_empty()), "{:?}", readiness.items);
    assert!(readiness.items[0].detail.contains("2 of 3 voters answer outside hcmc, 2 are needed, none to spare"));
    assert!(readiness.items[9].detail.contains("12 days ago"), "{:?}", readiness.items[9]);
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

/// A run that succeeded, `took_ms` after its fault.
fn past(world: &mut World, id: &str, change: impl Fn(&mut Run), took_ms: u64, at_ms: u64) {
    let open = world.open_change(id);
    world.must(open);
    let state = world.state.groups.get_mut(&group()).expect("the group");
    let mut run = state.open_run.take().expect("just opened");
    run.cause.fault_at = Some(UnixMs(at_ms - took_ms));
    run.phase = RunPhase::Closed { outcome: RunOutcome::Succeeded, at: UnixMs(at_ms) };
    change(&mut run);
    state.history.push_back(run);
}

/// A live drill that passed then.
fn rehearsed(world: &mut World, at: UnixMs) {
    let id = DrillId::from("d");
    let opening = DrillOpening {
        id: id.clone(),
        kind: DrillKind::Live,
        schedule: None,
        due_at: at,
        to: "hanoi".into(),
        settings: DrillSettings::default(),
        reason: "rehearsal".to_owned(),
    };
    world.must(Change::Drill { group: group(), about: DrillChange::Open(opening) });
    let (from, outcome) = (DrillPhase::Checking, DrillOutcome::Passed);
    let closing = DrillChange::Close { id, from, outcome, why: String::new() };
    world.must(Change::Drill { group: group(), about: closing });
    let drills = &mut world.state.groups.get_mut(&group()).expect("the group").drills;
    drills.past[0].closing.as_mut().expect("just closed").at = at;
}

#[test]
fn what_failovers_took_so_far_is_told_beside_what_is_computed() {
    let mut scene = Scene::new();
    for (id, took_ms) in [("a", 4000), ("b", 90_000), ("c", 6000)] {
        past(&mut scene.world, id, |_| {}, took_ms, NOW.0);
    }
    past(&mut scene.world, "d", |run| run.kind = RunKind::Traffic, 1, NOW.0);
    let aborted = |run: &mut Run| run.phase = RunPhase::Closed { outcome: RunOutcome::Aborted, at: NOW };
    past(&mut scene.world, "e", aborted, 2, NOW.0);
    // The drill took 20 s.
    assert_eq!(scene.judge().past, Some(Past { runs: 4, median_ms: 20_000, worst_ms: 90_000 }));
    scene.world.state.groups.get_mut(&group()).expect("the group").history.clear();
    assert_eq!(scene.judge().past, None);
}

#[test]
fn redis_is_spoken_of_where_there_is_one_and_keeps_nobody_from_failing_over() {
    let mut scene = Scene::new();
    let linked = RedisMeasure { linked: true, offset: 90, primary_offset: Some(100), ..RedisMeasure::default() };
    for (redis, holds, words) in [
        (None, Holds::Weak, "no node sees the Redis server in hanoi"),
        (Some(linked.clone()), Holds::Yes, "Redis replica linked, 10 bytes behind"),
        (Some(RedisMeasure { primary_offset: None, ..linked.clone() }), Holds::Yes, "its lag is not known"),
        (Some(RedisMeasure { linked: false, ..linked.clone() }), Holds::Weak, "is not linked"),
        (Some(RedisMeasure { is_primary: true, ..linked }), Holds::Weak, "follows nobody"),
    ] {
        scene.redis = Some(redis);
        let readiness = scene.judge();
        let item = readiness.items.last().expect("items");
        assert_eq!((item.name, item.holds), ("redis", holds), "{item:?}");
        assert!(item.detail.contains(words) && readiness.is_ready(), "{item:?}");
    }
}

#[test]
fn a_latched_redis_is_told_on_either_side_with_the_way_on() {
    let (unlatch, rejoin) =
        ("`watchdog-guard unlatch --redis --group shop --confirm HOSTNAME", "`watchdogctl rejoin shop`");
    let linked = RedisMeasure { linked: true, ..RedisMeasure::default() };
    for (host, seen, reason) in [
        (
            "db-hanoi",
            Some(Some(linked.clone())),
            "the Redis server of db-hanoi is latched: redis-promote would be refused",
        ),
        ("db-hanoi", None, "the Redis server of db-hanoi is latched: redis-promote would be refused"),
        ("db-hcmc", Some(Some(linked)), "the Redis server of db-hcmc is latched: once stopped it does not start again"),
    ] {
        let mut scene = Scene::new();
        let promote =
            scene.plan.stages[1].steps.iter().find(|step| step.id == "promote".into()).expect("a step").clone();
        let Action::Promote { guard } = promote.action.clone() else { panic!("{promote:?}") };
        let action = Action::Guarded { guard, name: REDIS_PROMOTE.to_owned(), params: BTreeMap::new() };
        scene.plan.stages[1].steps.push(Step { id: REDIS_PROMOTE.into(), action, blocking: false, ..promote });
        let could = GuardSeen::Answers {
            fault: None,
            actions: Some(
                ["promote", "start-services", REDIS_PROMOTE]
                    .map(|name| (name.to_owned(), ActionSeen::default()))
                    .into(),
            ),
            redis_latch: None,
        };
        scene.guard("db-hanoi", could);
        scene.redis = seen;
        let is_well =
            |scene: &Scene| scene.judge().items.iter().all(|item| item.name != "redis" || item.holds == Holds::Yes);
        assert!(is_well(&scene), "{:?}", scene.judge().items.last());
        let Some(GuardSeen::Answers { redis_latch, .. }) = scene.guards.get_mut(&HostName::from(host)) else {
            panic!("{host}")
        };
        *redis_latch = Some("fenced under token 1.5 by run r1".to_owned());
        let readiness = scene.judge();
        let item = readiness.items.last().expect("items");
        assert_eq!((item.name, item.holds, item.reason.as_str()), ("redis", Holds::Weak, reason));
        assert!(readiness.is_ready() && item.detail.contains("token 1.5 by run r1"), "{item:?}");
        assert!(item.detail.contains(unlatch) && item.detail.contains(rejoin), "{item:?}");
    }
}

#[test]
fn in_mode_confirm_no_time_is_promised_for_what_waits_for_a_person() {
    let mut scene = Scene::new();
    scene.fencing(Fencing::Confirm);
    let readiness = scene.judge();
    assert!(readiness.is_ready() && readiness.recovery_ms.is_none(), "{readiness:?}");
}

type Wrong = fn(&mut Scene);

/// One thing wrong at a time: which item says so, how bad it is, words of its detail, and of the reason that is remembered.
#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn each_thing_that_is_wrong_is_named() {
    use Holds::{No, Unknown, Weak};
    let table: &[(Wrong, &str, Holds, &str, &str)] = &[
        (
            |s| s.answering = [1, 3].map(NodeId).into(),
            "quorum",
            No,
            "1 of 3 voters outside hcmc answer, 2 are needed: start hanoi-1",
            "1 of 3 voters outside hcmc answer, 2 are needed",
        ),
        (|s| s.voters = [1, 2].map(NodeId).into(), "quorum", No, "1 of 2 voters stand outside hcmc", "stand outside"),
        (
            |s| s.other_config = [2, 3].map(NodeId).into(),
            "quorum",
            No,
            "another configuration",
            "another configuration",
        ),
        (
            |s| {
                s.voters = [1, 2, 3, 4, 5].map(NodeId).into();
                s.answering = [1, 2, 3, 4].map(NodeId).into();
                for (id, name, region) in [(4, "hanoi-2", "hanoi"), (5, "witness-2", "witness")] {
                    s.policy.members.insert(NodeId(id), Member { name: name.into(), region: region.into() });
                }
            },
            "quorum",
            Weak,
            "3 of 5 voters answer outside hcmc, 3 are needed, none to spare; witness-2 does not answer",
            "witness-2 does not answer",
        ),
        (
            // A voter that the configuration does not know may stand in the region that is lost.
            |s| s.voters = [1, 2, 3, 4, 5].map(NodeId).into(),
            "quorum",
            No,
            "2 of 5 voters stand outside hcmc, 3 are needed",
            "stand outside",
        ),
        (|s| s.obstacle = Some("shadow mode".to_owned()), "decision", No, "shadow mode", "shadow mode"),
        (|s| s.obstacle = Some("cooldown: 31 s to go".to_owned()), "decision", No, "31 s to go", "cooldown: … s to go"),
        (|s| s.open("r1"), "decision", No, "run r1 is open", "run r1 is open"),
        (|s| s.plan.from = "hue".into(), "decision", No, "hue has no trigger", "hue has no trigger"),
        (
            |s| s.fencing(Fencing::Confirm),
            "fence",
            Weak,
            "its guard answers, and proves it at once where only the database dies",
            "with all of hcmc gone a person must assert that db-hcmc is silent",
        ),
        (
            |s| {
                s.fencing(Fencing::Confirm);
                s.silent("fence");
            },
            "fence",
            No,
            "its guard does not answer now: no answer",
            "the guard of db-hcmc proves nothing now",
        ),
        (
            |s| s.fencing(Fencing::None { asserted_by: "linh".to_owned() }),
            "fence",
            Weak,
            "linh asserts",
            "linh asserts",
        ),
        (
            |s| {
                s.fencing(Fencing::Lease { ttl_ms: 2000 });
                s.unbound = "the gate of db-hcmc is not in force".to_owned();
            },
            "fence",
            No,
            "the lease is not bound: the gate of db-hcmc is not in force",
            "the lease is not bound",
        ),
        (
            |s| s.prospect = Prospect::Bad { reason: "latched since".to_owned() },
            "standby",
            No,
            "latched since",
            "no standby to promote in hanoi",
        ),
        (
            |s| s.prospect = Prospect::Unknown { reason: "no route".to_owned() },
            "standby",
            No,
            "no route",
            "the standby in hanoi cannot be judged",
        ),
        (|s| s.is_streaming = false, "standby", Weak, "does NOT stream", "does not stream"),
        (
            |s| s.loss = Loss::Unknown { why: "nobody reports".to_owned() },
            "loss",
            No,
            "unknown (nobody reports)",
            "what would be lost is unknown",
        ),
        (|s| s.loss = Loss::AtMost { ms: 61_234, bytes: None }, "loss", No, "61.2 s", "more than the limit"),
        (
            |s| s.zone(ZoneSeen::Unreachable { reason: "no answer after 2 s".to_owned() }),
            "dns",
            Weak,
            "dns: no answer after 2 s",
            "the provider of dns cannot be reached",
        ),
        (
            |s| s.zone(ZoneSeen::Unreadable { reason: "REFUSED".to_owned() }),
            "dns-token",
            No,
            "dns: REFUSED",
            "the token record of dns cannot be read",
        ),
        (
            |s| s.zone(ZoneSeen::Alien { reason: "belongs to group x".to_owned() }),
            "dns-token",
            No,
            "belongs to group x",
            "is another group's",
        ),
        (
            |s| s.zone(ZoneSeen::Held { held: Token { epoch: 1, n: 9 } }),
            "dns-token",
            No,
            "higher token 1.9",
            "holds a higher token",
        ),
        (
            |s| s.guard("db-hanoi", GuardSeen::Silent { reason: "connecting: refused".to_owned() }),
            "guards",
            No,
            "connecting: refused",
            "the guard of db-hanoi does not answer",
        ),
        (
            |s| s.guard("db-hcmc", GuardSeen::Silent { reason: "connecting: refused".to_owned() }),
            "guards",
            Weak,
            "connecting: refused",
            "the guard of db-hcmc does not answer",
        ),
        (
            |s| {
                s.guards.remove(&HostName::from("db-hanoi"));
            },
            "guards",
            Unknown,
            "was not asked",
            "the guard of db-hanoi was not asked",
        ),
        (
            |s| {
                s.guard(
                    "db-hanoi",
                    GuardSeen::Answers { fault: Some("not enrolled".to_owned()), actions: None, redis_latch: None },
                )
            },
            "guards",
            No,
            "not enrolled",
            "refuses everything for shop",
        ),
        (
            |s| s.guard("db-hanoi", GuardSeen::Answers { fault: None, actions: None, redis_latch: None }),
            "guards",
            Weak,
            "too old to tell whether promote could be started: update it",
            "too old to tell",
        ),
        (
            |s| s.action("db-hanoi", "promote", |seen| seen.fault = Some("/b/pg_ctl: no such program".to_owned())),
            "guards",
            No,
            "promote on db-hanoi could not be started: /b/pg_ctl: no such program",
            "/b/pg_ctl: no such program",
        ),
        (
            |s| s.action("db-hanoi", "start-services", |seen| seen.fault = Some("/s: no such\nprogram".to_owned())),
            "services",
            No,
            "start-services on db-hanoi could not be started: /s: no such program",
            "start-services on db-hanoi could not be started",
        ),
        (
            |s| s.action("db-hanoi", "start-services", |seen| seen.params = ["replicas".to_owned()].into()),
            "services",
            No,
            "takes other parameters than the plan gives: replicas",
            "other parameters",
        ),
        (
            |s| {
                let GuardSeen::Answers { actions: Some(actions), .. } =
                    s.guards.get_mut(&HostName::from("db-hanoi")).expect("there")
                else {
                    panic!("it answers")
                };
                actions.remove("start-services");
            },
            "services",
            No,
            "knows no action start-services: configure it there",
            "knows no action start-services",
        ),
        (|s| s.drills().clear(), "drill", Weak, "rehearse it", "no drill has succeeded yet"),
        (
            |s| s.drills()[0].closing.as_mut().unwrap().at = UnixMs(64 * DAY_MS),
            "drill",
            Weak,
            "36 days ago",
            "no drill has succeeded in 35 days",
        ),
        (|s| s.drills()[0].kind = DrillKind::Tabletop, "drill", Weak, "rehearse it", "no drill has succeeded yet"),
    ];
    for (wrong, name, holds, words, reason) in table {
        let mut scene = Scene::new();
        wrong(&mut scene);
        let readiness = scene.judge();
        let item = readiness.items.iter().find(|item| &item.name == name).expect("every item is there");
        assert_eq!(item.holds, *holds, "{item:?}");
        assert!(item.detail.contains(words), "{:?} does not say {words:?}", item.detail);
        assert!(item.reason.contains(reason), "{:?} does not say {reason:?}", item.reason);
        assert_eq!(readiness.is_ready(), *holds <= Weak, "{readiness:?}");
        let is_promised = *holds <= Weak && scene.world.group().fencing != Fencing::Confirm;
        assert_eq!(readiness.recovery_ms.is_some(), is_promised, "no time is promised for what nobody does");
    }
}

impl Scene {
    fn open(&mut self, run: &str) {
        let change = self.world.open_change(run);
        self.world.must(change);
    }

    fn drills(&mut self) -> &mut std::collections::VecDeque<Drill> {
        &mut self.world.state.groups.get_mut(&group()).expect("the group").drills.past
    }

    fn silent(&mut self, step: &str) {
        self.present.insert(step.into(), ReadBack::Unknown { reason: "no answer".to_owned() });
    }

    fn zone(&mut self, seen: ZoneSeen) {
        self.zones.insert("dns".into(), seen);
    }

    fn guard(&mut self, host: &str, seen: GuardSeen) {
        self.guards.insert(host.into(), seen);
    }

    fn action(&mut self, host: &str, name: &str, change: fn(&mut ActionSeen)) {
        let Some(GuardSeen::Answers { actions: Some(actions), .. }) = self.guards.get_mut(&HostName::from(host)) else {
            panic!("{host} answers")
        };
        change(actions.get_mut(name).expect("known"));
    }
}

/// Nothing that changes from one look to the next may be in what is remembered.
#[test]
fn the_same_cause_has_the_same_words() {
    type Change = fn(&mut Scene, u64);
    let judged = |change: Change, n: u64| {
        let mut scene = Scene::new();
        change(&mut scene, n);
        mark::Judgement::of(&scene.judge(), 1)
    };
    let changes: [Change; 5] = [
        |s, n| s.loss = Loss::AtMost { ms: 60_001 + n, bytes: Some(n) },
        |s, n| s.obstacle = Some(format!("replication into hanoi lags {n}.3 s, above its limit")),
        |s, n| s.guard("db-hanoi", GuardSeen::Silent { reason: format!("no answer after {n} ms") }),
        |s, n| s.zone(ZoneSeen::Unreachable { reason: format!("id {n}") }),
        |s, n| s.prospect = Prospect::Bad { reason: format!("pid {n}") },
    ];
    for change in changes {
        assert_eq!(judged(change, 1), judged(change, 77));
        assert_ne!(judged(change, 1), mark::Judgement::of(&Scene::new().judge(), 1));
    }
}
