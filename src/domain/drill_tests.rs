//! Drills in the log: begun once, skipped aloud, carried on from phase to phase.

use super::command::{Change, RejectionCode};
use super::drill::due::{Dues, Fire, fire};
use super::drill::scenario::{Next, next};
use super::drill::{
    Blackout, Drill, DrillChange, DrillKind, DrillOpening, DrillOutcome, DrillPhase, DrillPlan, DrillSettings, Finding,
    Found, Measured,
};
use super::fixtures::{World, group, policy, region};
use super::ids::UnixMs;
use super::policy::GroupPolicy;
use super::readiness::Holds;
use super::readiness::mark::{JudgedItem, Judgement};
use super::run::{RunKind, RunOutcome};

fn about(about: DrillChange) -> Change {
    Change::Drill { group: group(), about }
}

fn plan(kind: DrillKind) -> DrillPlan {
    DrillPlan {
        name: "monthly".into(),
        kind,
        cron: "0 2 1 * *".to_owned(),
        blackouts: vec![Blackout { from: UnixMs(5_000_000), until: UnixMs(6_000_000) }],
        announce_before_ms: 60_000,
        late_max_ms: 30_000,
        settings: DrillSettings {
            zone: "UTC".to_owned(),
            rto_ms: 60_000,
            rpo_ms: 1000,
            limit_ms: 3_600_000,
            ..Default::default()
        },
    }
}

fn rules() -> GroupPolicy {
    policy().groups[&group()].clone()
}

fn know(world: &mut World, after: u64) {
    let rule = plan(DrillKind::Live).rule();
    world.must(about(DrillChange::Know { schedule: "monthly".into(), rule, after: UnixMs(after) }));
}

fn opening(id: &str, kind: DrillKind, due: Option<u64>) -> DrillOpening {
    DrillOpening {
        id: id.into(),
        kind,
        schedule: due.map(|_| "monthly".into()),
        due_at: UnixMs(due.unwrap_or(0)),
        to: region("hanoi"),
        settings: plan(kind).settings,
        reason: "rehearsal".to_owned(),
    }
}

fn open(id: &str, kind: DrillKind, due: Option<u64>) -> Change {
    about(DrillChange::Open(opening(id, kind, due)))
}

fn close(id: &str, from: DrillPhase) -> Change {
    about(DrillChange::Close { id: id.into(), from, outcome: DrillOutcome::Passed, why: String::new() })
}

fn judged(world: &mut World, holds: Holds) {
    let item = JudgedItem { name: "quorum".to_owned(), holds, reason: "it is so".to_owned() };
    let judgement = Judgement {
        serving_epoch: world.group().serving.epoch,
        from: region("hcmc"),
        to: region("hanoi"),
        items: vec![item],
    };
    world.must(Change::Readiness { group: group(), judgement });
}

fn the_open(world: &World) -> &Drill {
    world.group().drills.open.as_deref().expect("a drill is open")
}

#[test]
fn what_is_due_begins_once_whoever_leads() {
    let mut world = World::new();
    assert_eq!(world.rejected(open("d0", DrillKind::Tabletop, Some(2_000_000))), RejectionCode::NotFound);
    know(&mut world, 1_500_000);
    world.must(open("d1", DrillKind::Tabletop, Some(2_000_000)));
    // A second leader, or the first after a sleep, with the same due moment.
    assert_eq!(world.rejected(open("d2", DrillKind::Tabletop, Some(2_000_000))), RejectionCode::Stale);
    world.must(close("d1", DrillPhase::Checking));
    for due in [1_500_000, 2_000_000] {
        assert_eq!(world.rejected(open("d3", DrillKind::Tabletop, Some(due))), RejectionCode::Stale);
        let schedule = || "monthly".into();
        let reason = "late".to_owned();
        let skip = DrillChange::Skip { schedule: schedule(), due_at: UnixMs(due), missed: 1, reason };
        assert_eq!(world.rejected(about(skip)), RejectionCode::Stale);
    }
    // What was skipped is not begun after all, and the other way round.
    let reason = "late".to_owned();
    world.must(about(DrillChange::Skip { schedule: "monthly".into(), due_at: UnixMs(3_000_000), missed: 2, reason }));
    assert_eq!(world.rejected(open("d4", DrillKind::Tabletop, Some(2_500_000))), RejectionCode::Stale);
    world.must(open("d5", DrillKind::Tabletop, Some(4_000_000)));
    assert_eq!(world.rejected(open("d1", DrillKind::Tabletop, None)), RejectionCode::Illegal, "one at a time");
    world.must(close("d5", DrillPhase::Checking));
    assert_eq!(world.rejected(open("d1", DrillKind::Tabletop, None)), RejectionCode::Illegal, "an id is used once");
    // Another rule never brings back what took place.
    let rule = "0 3 * * * UTC".to_owned();
    world.must(about(DrillChange::Know { schedule: "monthly".into(), rule, after: UnixMs(1) }));
    assert_eq!(world.group().drills.known[&"monthly".into()].after, UnixMs(4_000_000));
}

#[test]
fn a_skip_is_paged_and_the_next_drill_ends_its_incident() {
    let mut world = World::new();
    know(&mut world, 1_500_000);
    let (schedule, when) = ("monthly".into(), "soon".to_owned());
    let announce = DrillChange::Announce { schedule, due_at: UnixMs(2_000_000), kind: DrillKind::Live, when };
    world.must(about(announce));
    assert_eq!(world.state.incidents["test/shop/drill-due/monthly"].page.event, "DRILL_ANNOUNCED");
    let reason = "paused by linh".to_owned();
    world.must(about(DrillChange::Skip { schedule: "monthly".into(), due_at: UnixMs(2_000_000), missed: 1, reason }));
    assert!(!world.state.incidents.contains_key("test/shop/drill-due/monthly"), "it does not begin any more");
    let told = &world.state.incidents["test/shop/drill-skipped/monthly"].page;
    assert!(told.event == "DRILL_SKIPPED" && told.summary.contains("paused by linh"), "{told:?}");
    world.must(open("d1", DrillKind::Tabletop, Some(3_000_000)));
    assert!(!world.state.incidents.contains_key("test/shop/drill-skipped/monthly"));
    world.must(close("d1", DrillPhase::Checking));
    assert!(world.state.incidents.is_empty(), "{:?}", world.state.incidents.keys());
    assert_eq!(world.group().drills.skipped.len(), 1);
}

#[test]
fn the_fire_rule() {
    let mut world = World::new();
    let plan = plan(DrillKind::Live);
    let fired = |world: &World, dues: &Dues| fire(&plan, &rules(), world.group(), dues);
    let due = |at: u64| Dues { due: Some(UnixMs(at)), ..Dues::default() };
    let skipped = |world: &World, dues: &Dues, word: &str| match fired(world, dues) {
        Fire::Skip { reason, .. } => assert!(reason.contains(word), "{reason}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(fired(&world, &due(2_000_000)), Fire::Know, "what is not known is not due");
    know(&mut world, 1_500_000);
    assert_eq!(fired(&world, &Dues::default()), Fire::Wait);
    skipped(&world, &due(2_000_000), "not judged yet");
    judged(&mut world, Holds::Weak);
    assert_eq!(fired(&world, &due(2_000_000)), Fire::Open { due_at: UnixMs(2_000_000) });
    skipped(&world, &due(5_000_000), "blackout");
    skipped(&world, &Dues { missed: 3, last_missed: Some(UnixMs(2_000_000)), ..due(3_000_000) }, "no leader");
    let next = Dues { next: Some(UnixMs(3_000_000)), ..Dues::default() };
    assert_eq!(fired(&world, &next), Fire::Announce { due_at: UnixMs(3_000_000) });
    let (schedule, when) = ("monthly".into(), "soon".to_owned());
    let announce = DrillChange::Announce { schedule, due_at: UnixMs(3_000_000), kind: DrillKind::Live, when };
    world.must(about(announce));
    assert_eq!(fired(&world, &next), Fire::Wait, "told once, whoever leads");
    let inside = Dues { next: Some(UnixMs(5_999_999)), ..Dues::default() };
    assert_eq!(fired(&world, &inside), Fire::Wait, "what will be skipped is not announced");
    judged(&mut world, Holds::No);
    skipped(&world, &due(2_000_000), "not ready: quorum: it is so");
    judged(&mut world, Holds::Yes);
    world.must(Change::Pause { group: group(), reason: "work".to_owned(), until: None });
    skipped(&world, &due(2_000_000), "paused by");
    world.must(Change::Resume { group: group(), reason: "done".to_owned(), expired: None });
    let simulated = DrillPlan { kind: DrillKind::Simulated, ..plan.clone() };
    let other = fire(&simulated, &rules(), world.group(), &due(2_000_000));
    assert!(matches!(&other, Fire::Skip { reason, .. } if reason.contains("drill_resources")), "{other:?}");
    world.must(world.open_change("r1"));
    skipped(&world, &due(2_000_000), "run r1");
    let table = DrillPlan { kind: DrillKind::Tabletop, ..plan.clone() };
    assert!(matches!(fire(&table, &rules(), world.group(), &due(2_000_000)), Fire::Skip { .. }));
}

#[test]
fn dues_are_counted() {
    let hourly = |after: UnixMs| Some(UnixMs((after.0 / 3_600_000 + 1) * 3_600_000));
    let hours = |h: u64| UnixMs(h * 3_600_000);
    let late_max_ms = 900_000;
    let dues = |after, now: UnixMs| Dues::between(after, now, late_max_ms, hourly);
    let next = |h| Some(hours(h));
    assert_eq!(dues(hours(5), hours(5).plus(1)), Dues { next: next(6), ..Dues::default() });
    assert_eq!(dues(hours(5), hours(6)), Dues { due: next(6), next: next(7), ..Dues::default() });
    assert_eq!(dues(hours(5), hours(6).plus(900_000)), Dues { due: next(6), next: next(7), ..Dues::default() });
    let late = Dues { missed: 1, last_missed: next(6), due: None, next: next(7) };
    assert_eq!(dues(hours(5), hours(6).plus(900_001)), late);
    let several = Dues { missed: 3, last_missed: next(8), due: next(9), next: next(10) };
    assert_eq!(dues(hours(5), hours(9).plus(1)), several);
    assert_eq!(Dues::between(hours(5), hours(9), late_max_ms, |_| None), Dues::default(), "never");
    let far = dues(UnixMs(0), hours(1_000_000).plus(1));
    assert_eq!((far.missed, far.due, far.next), (10_000, next(1_000_000), next(1_000_001)));
}

#[test]
fn a_tabletop_drill_changes_nothing_and_says_what_it_found() {
    let mut world = World::new();
    let before = world.group().serving.clone();
    world.must(open("d1", DrillKind::Tabletop, None));
    assert_eq!(next(&rules(), world.group(), the_open(&world), None, world.now), Next::Look);
    let finding = |what: &str, found| Finding {
        phase: DrillPhase::Checking,
        what: what.to_owned(),
        found,
        detail: "two\nlines".to_owned(),
    };
    let find = |findings| {
        let measured = Measured { expected_recovery_ms: Some(4000), ..Measured::default() };
        about(DrillChange::Find { id: "d1".into(), phase: DrillPhase::Checking, findings, measured })
    };
    world.must(find(vec![finding("gate quorum", Found::Ok), finding("step promote", Found::Bad)]));
    assert_eq!(world.rejected(find(vec![finding("again", Found::Ok)])), RejectionCode::Stale);
    let Next::Close { outcome, why } = next(&rules(), world.group(), the_open(&world), None, world.now) else {
        panic!()
    };
    assert_eq!(outcome, DrillOutcome::Failed);
    assert!(why.contains("step promote") && !why.contains("quorum"), "{why}");
    world.must(about(DrillChange::Close { id: "d1".into(), from: DrillPhase::Checking, outcome, why }));
    let drill = &world.group().drills.past[0];
    assert_eq!(drill.findings[1].detail, "two lines");
    assert_eq!((drill.measured.expected_recovery_ms, drill.rehearsed_at()), (Some(4000), None));
    assert_eq!(world.group().serving, before);
    assert!(world.state.incidents["test/shop/drill/d1/result"].page.event == "DRILL_FAILED");
    assert_eq!(world.rejected(close("d1", DrillPhase::Checking)), RejectionCode::Illegal);
    world.must(about(DrillChange::Learn { id: "d1".into(), text: "label the standby".to_owned() }));
    assert_eq!(world.group().drills.past[0].lessons[0].text, "label the standby");
    assert_eq!(
        world.rejected(about(DrillChange::Learn { id: "d9".into(), text: "x".to_owned() })),
        RejectionCode::NotFound
    );
}

#[test]
fn a_phase_is_left_once_and_only_for_one_that_follows() {
    let mut world = World::new();
    world.must(open("d1", DrillKind::Live, None));
    let advance = |from, to| about(DrillChange::Advance { id: "d1".into(), from, to, why: "so".to_owned() });
    use DrillPhase::{Checking, Injecting, Moving, Returning, Testing};
    assert_eq!(world.rejected(advance(Checking, Injecting)), RejectionCode::Illegal);
    assert_eq!(world.rejected(advance(Checking, Testing)), RejectionCode::Illegal);
    world.must(advance(Checking, Moving));
    assert_eq!(world.rejected(advance(Checking, Moving)), RejectionCode::Stale);
    assert_eq!(world.rejected(close("d1", Checking)), RejectionCode::Stale);
    world.must(advance(Moving, Testing));
    world.must(advance(Testing, Returning));
    assert_eq!(world.rejected(advance(Returning, Moving)), RejectionCode::Illegal);
    let abort = || about(DrillChange::Abort { id: "d1".into(), reason: "orders fail".to_owned() });
    world.must(abort());
    assert_eq!(world.rejected(abort()), RejectionCode::Illegal);
    assert!(world.state.incidents.contains_key("test/shop/drill/d1/aborted"));
}

#[test]
fn a_run_belongs_to_the_drill_in_its_phase_and_once() {
    let mut world = World::new();
    let drill_run = |world: &World, id: &str| match world.open_change(id) {
        Change::OpenRun { run, group, plan, digest, expected_token, expected_serving_epoch, cause, .. } => {
            Change::OpenRun {
                run,
                group,
                kind: RunKind::Failover,
                drill: true,
                plan,
                digest,
                expected_token,
                expected_serving_epoch,
                cause,
                loss_acceptance: None,
                fence_assertion: None,
            }
        }
        other => other,
    };
    assert_eq!(
        world.rejected(drill_run(&world, "r1")),
        RejectionCode::Illegal,
        "without a drill there is no drill's run"
    );
    world.must(open("d1", DrillKind::Simulated, None));
    assert_eq!(world.rejected(drill_run(&world, "r1")), RejectionCode::Illegal, "not while checking");
    let advance = |from, to| about(DrillChange::Advance { id: "d1".into(), from, to, why: "so".to_owned() });
    world.must(advance(DrillPhase::Checking, DrillPhase::Injecting));
    assert!(world.group().drills.injecting().is_some());
    world.must(drill_run(&world, "r1"));
    assert_eq!(the_open(&world).runs[0].run, "r1".into());
    let message = close("d1", DrillPhase::Injecting);
    assert_eq!(world.rejected(message), RejectionCode::RunOpen, "a drill is not closed over its run");
    let token = world.claim("r1");
    for step in ["fence", "dns", "promote", "services", "verify"] {
        world.do_step(step, token);
    }
    world.must(Change::CloseRun {
        group: group(),
        run: "r1".into(),
        token,
        outcome: super::run::RunOutcome::Succeeded,
        settled: Default::default(),
        old_primary_untouched: false,
        reason: String::new(),
        monitor_ms: 0,
    });
    let drill = the_open(&world);
    let names: Vec<&str> = drill.runs[0].spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["decide", "fence", "dns", "promote", "services", "verify"]);
    assert!(drill.measured.recovery_ms.is_some_and(|ms| ms > 0), "{:?}", drill.measured);
    assert_eq!(world.rejected(drill_run(&world, "r2")), RejectionCode::Illegal, "one of each kind");
}

/// A drill as the log holds it in a phase, and what comes next.
struct Scene {
    world: World,
    drill: Drill,
}

impl Scene {
    fn of(kind: DrillKind, phase: DrillPhase) -> Self {
        let mut world = World::new();
        world.must(open("d1", kind, None));
        let mut drill = the_open(&world).clone();
        let checking = DrillPhase::Checking;
        let detail = String::new();
        drill.findings.push(Finding { phase: checking, what: "gate quorum".to_owned(), found: Found::Ok, detail });
        drill.phase = phase;
        Self { world, drill }
    }

    /// A run of the drill that is over.
    fn ran(mut self, kind: RunKind, outcome: RunOutcome) -> Self {
        self.drill.runs.push(super::drill::DrillRun {
            run: "r1".into(),
            kind,
            from: region("hcmc"),
            to: region("hanoi"),
            opened_at: self.world.now,
            outcome: Some(outcome),
            closed_at: Some(self.world.now),
            spans: Vec::new(),
            chapters: Vec::new(),
        });
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn away(self) -> Self {
        self.with(|scene| {
            let group = scene.world.state.groups.get_mut(&group()).expect("the group");
            group.serving.region = Some(region("hanoi"));
            group.serving.last = region("hanoi");
        })
    }

    fn aborted(self) -> Self {
        self.with(|scene| {
            let (by, at, reason) = ("user:linh".into(), scene.world.now, "orders fail".to_owned());
            scene.drill.abort = Some(super::run::Assertion { by, at, reason });
        })
    }

    /// In a few words.
    fn next(&self, alarm: Option<&str>) -> String {
        match next(&rules(), self.world.group(), &self.drill, alarm, self.world.now) {
            Next::Wait => "wait".to_owned(),
            Next::Look => "look".to_owned(),
            Next::Advance { to, .. } => to.word().to_owned(),
            Next::Open { kind, plan } => format!("open {kind} to {}", plan.to),
            Next::Abort { reason } => format!("abort: {reason}"),
            Next::Close { outcome, why } => format!("{}: {why}", outcome.word()),
        }
    }
}

#[test]
fn a_live_drill_goes_away_is_tried_and_comes_home() {
    use DrillKind::{Live, Simulated};
    use DrillPhase::{Checking, Injecting, Moving, Rejoining, Returning, Testing};
    use RunOutcome::{Reverted, Succeeded, Withdrawn};
    let scene = Scene::of;
    let tested = |scene: Scene| {
        scene.with(|scene| {
            let detail = String::new();
            let what = "check orders".to_owned();
            scene.drill.findings.push(Finding { phase: Testing, what, found: Found::Ok, detail });
        })
    };
    let table: Vec<(&str, Scene, &str)> = vec![
        ("checked", scene(Live, Checking), "moving"),
        ("checked, simulated", scene(Simulated, Checking), "injecting"),
        ("moving", scene(Live, Moving), "open switchover to hanoi"),
        ("injecting", scene(Simulated, Injecting), "wait"),
        ("moved", scene(Live, Moving).ran(RunKind::Switchover, Succeeded).away(), "testing"),
        ("turned back", scene(Live, Moving).ran(RunKind::Switchover, Reverted), "failed: the switchover was reverted"),
        (
            "no fault",
            scene(Simulated, Injecting).ran(RunKind::Failover, Withdrawn),
            "failed: the failover was withdrawn",
        ),
        ("failed over", scene(Simulated, Injecting).ran(RunKind::Failover, Succeeded).away(), "testing"),
        ("testing", scene(Live, Testing).away(), "look"),
        ("tested", tested(scene(Live, Testing).away()), "returning"),
        ("tested, simulated", tested(scene(Simulated, Testing).away()), "rejoining"),
        ("rejoined", scene(Simulated, Rejoining).away().ran(RunKind::Recovery, Succeeded), "returning"),
        ("returning", scene(Live, Returning).away(), "open failback to hcmc"),
        ("home", scene(Live, Returning).ran(RunKind::Failback, Succeeded), "passed: "),
        (
            "stays away",
            scene(Live, Returning).away().ran(RunKind::Failback, Reverted),
            "failed: the failback was reverted; the group stays in hanoi: `watchdogctl failback` brings it home",
        ),
        (
            "rows lost",
            scene(Live, Returning).with(|scene| {
                scene.drill.measured.rows_written = Some(20);
                scene.drill.measured.rows_found = Some(19);
            }),
            "failed: not as it should be: rows lost",
        ),
        (
            "too slow",
            scene(Live, Returning).with(|scene| scene.drill.measured.recovery_ms = Some(60_001)),
            "failed: not as it should be: recovery time",
        ),
        ("aborted before", scene(Live, Moving).aborted(), "aborted: by user:linh: orders fail"),
        ("aborted away", scene(Live, Testing).away().aborted(), "returning"),
        ("aborted on the way", scene(Live, Moving).ran(RunKind::Switchover, Succeeded).away().aborted(), "returning"),
        ("aborted and home", scene(Live, Returning).aborted(), "aborted: by user:linh: orders fail"),
    ];
    for (name, scene, wanted) in table {
        // The settings' own limit is none here: it is in a test of its own.
        let scene = scene.with(|scene| scene.drill.settings.limit_ms = u64::MAX);
        assert_eq!(scene.next(None), wanted, "{name}");
    }
}

#[test]
fn what_ends_a_drill_early_ends_it_by_an_abort() {
    use DrillPhase::{Checking, Moving, Returning, Testing};
    let live = |phase| Scene::of(DrillKind::Live, phase).with(|scene| scene.drill.settings.limit_ms = 1_000_000);
    assert_eq!(live(Testing).away().next(Some("hanoi-db is down")), "abort: alarm: hanoi-db is down");
    assert_eq!(live(Checking).next(Some("hanoi-db is down")), "moving", "an alarm counts while it is away");
    assert_eq!(live(Returning).away().next(Some("x")), "open failback to hcmc", "and not on the way home");
    let late = live(Moving).with(|scene| scene.world.now = scene.world.now.plus(1_000_001));
    assert_eq!(late.next(None), "abort: it takes longer than 1000 s");
    let stuck_home = late.away().aborted().with(|scene| scene.drill.phase = Returning);
    assert!(stuck_home.next(None).starts_with("failed: the gates home stayed shut"), "{}", stuck_home.next(None));
    let real = live(Testing).with(|scene| {
        let change = scene.world.open_change("real");
        scene.world.must(change);
    });
    assert_eq!(real.next(None), "abort: run real (failover) was opened beside it");
    assert_eq!(real.aborted().next(None), "wait", "nothing is decided while a run is open");
    let paused = live(Moving).with(|scene| {
        scene.world.must(Change::Pause { group: group(), reason: "work".to_owned(), until: None });
    });
    assert_eq!(paused.next(None), "wait");
}
