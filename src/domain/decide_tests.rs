//! The judgement, case by case.

use super::command::Change;
use super::decide::{Decision, Decisions, Holds, Standing, decide, trigger_holds};
use super::fixtures::{Says, UP, World, down_for, group, policy, region, view};
use super::ids::{NodeId, UnixMs};
use super::observation::Verdict;
use super::page::{Delivery, OutboxEntry, Page, PageAction, Severity};
use super::policy::{ClusterPolicy, LagAction};
use super::view::{Heartbeat, View};

fn look(world: &World, says: &[Option<Says>]) -> Decisions {
    decide(&world.state, &policy(), &view(says), world.now)
}

fn opens(decisions: &Decisions) -> usize {
    decisions.propose.iter().filter(|d| matches!(d, Decision::Open(_))).count()
}

fn pages(decisions: &Decisions) -> Vec<String> {
    decisions
        .propose
        .iter()
        .filter_map(|d| if let Decision::Tell(page) = d { Some(page.event.clone()) } else { None })
        .collect()
}

#[test]
fn who_sees_what_for_how_long_decides() {
    let up = Some(UP);
    let down = |held_ms| Some(down_for(held_ms));
    let isolated = Some(Says { isolated: true, ..down_for(9000) });
    let suspect = Some(Says { hcmc: Verdict::Suspect, ..down_for(9000) });
    // Nodes 1 to 3 are in hcmc, hanoi and at the witness.
    let table: &[(&str, [Option<Says>; 3], usize, Standing)] = &[
        ("all is well", [up, up, up], 0, Standing::Quiet),
        ("one of three is no majority", [up, down(9000), up], 0, Standing::Counting),
        ("two of three for long enough", [up, down(9000), down(3000)], 1, Standing::Running),
        ("the majority has not lasted", [up, down(9000), down(2999)], 0, Standing::Counting),
        ("the region's own node is dead with it", [None, down(9000), down(9000)], 1, Standing::Running),
        ("an absent node votes neither way", [None, None, down(9000)], 0, Standing::Counting),
        ("an isolated node's down does not count", [None, isolated, down(9000)], 0, Standing::Counting),
        ("a suspect is not down", [up, suspect, down(9000)], 0, Standing::Counting),
        ("nobody reports", [None, None, None], 0, Standing::Quiet),
    ];
    for (name, says, opened, standing) in table {
        let decisions = look(&World::new(), says);
        assert_eq!(opens(&decisions), *opened, "{name}");
        assert_eq!(decisions.explain[&group()].standing, *standing, "{name}");
        assert!(!decisions.explain[&group()].lines.is_empty(), "{name}: it says why");
    }
}

#[test]
fn a_majority_within_the_region_alone_is_not_enough() {
    let mut policy = policy();
    policy.members.get_mut(&NodeId(2)).expect("node 2").region = region("hcmc");
    let world = World::new();
    let says = [Some(down_for(9000)), Some(down_for(9000)), Some(UP)];
    let decisions = decide(&world.state, &policy, &view(&says), world.now);
    assert_eq!(opens(&decisions), 0);
}

#[test]
fn what_was_never_seen_up_triggers_nothing() {
    let mut world = World::new();
    world.state.groups.get_mut(&group()).expect("the group").seen_up.clear();
    let says = [None, Some(down_for(9000)), Some(down_for(9000))];
    let mut seen = view(&says);
    for sight in seen.sights.values_mut() {
        sight.report.observations.iter_mut().for_each(|o| o.seen_up = false);
    }
    let decisions = decide(&world.state, &policy(), &seen, world.now);
    assert_eq!(opens(&decisions), 0);
}

#[test]
fn an_old_report_is_no_evidence() {
    let says = [None, Some(down_for(9000)), Some(down_for(9000))];
    let mut old = view(&says);
    old.sights.get_mut(&NodeId(2)).expect("node 2").age_ms = 5001;
    let world = World::new();
    assert_eq!(opens(&decide(&world.state, &policy(), &old, world.now)), 0);
}

#[test]
fn time_since_the_report_counts_towards_the_hold_down() {
    let says = [None, Some(down_for(2000)), Some(down_for(2000))];
    let mut aged = view(&says);
    aged.sights.values_mut().for_each(|sight| sight.age_ms = 1000);
    let world = World::new();
    assert_eq!(opens(&decide(&world.state, &policy(), &aged, world.now)), 1);
}

#[test]
fn p5_a_standby_too_far_behind_or_unknown_blocks_and_pages_by_how_much() {
    for (covered, word) in [(Some(120_000), "120.0 s"), (None, "unknown")] {
        let says = Some(Says { covered_age_ms: covered, ..down_for(9000) });
        let decisions = look(&World::new(), &[None, says, says]);
        assert_eq!(opens(&decisions), 0);
        assert_eq!(pages(&decisions), ["DR_FAILOVER_BLOCKED"]);
        let line = &decisions.explain[&group()].lines[0];
        assert!(line.contains(word) && line.contains("--accept-loss"), "{line}");
    }
}

#[test]
fn p5_the_best_informed_node_sets_the_bound() {
    let far = Some(Says { covered_age_ms: Some(120_000), ..down_for(9000) });
    let decisions = look(&World::new(), &[None, far, Some(down_for(9000))]);
    assert_eq!(opens(&decisions), 1);
}

#[test]
fn p9_paused_shadow_and_cooldown_block_and_page() {
    let says = [None, Some(down_for(9000)), Some(down_for(9000))];
    let mut paused = World::new();
    paused.must(Change::Pause { group: group(), reason: "maintenance".to_owned(), until: None });
    let decisions = look(&paused, &says);
    assert_eq!((opens(&decisions), pages(&decisions)), (0, vec!["DR_FAILOVER_BLOCKED".to_owned()]));
    assert!(decisions.explain[&group()].lines[0].contains("maintenance"));

    let mut shadow = policy();
    shadow.groups.get_mut(&group()).expect("the group").shadow = true;
    let world = World::new();
    let decisions = decide(&world.state, &shadow, &view(&says), world.now);
    assert_eq!((opens(&decisions), pages(&decisions).len()), (0, 1));

    let mut recent = World::new();
    let now = recent.now;
    recent.state.groups.get_mut(&group()).expect("the group").last_failover =
        Some(super::state::LastFailover { run: "r0".into(), at: now, automatic: true, serving_epoch: 0 });
    assert_eq!(opens(&look(&recent, &says)), 0);
    recent.now = now.plus(3_600_000);
    assert_eq!(opens(&look(&recent, &says)), 1, "the cooldown is over");
}

#[test]
fn p9_a_pause_runs_out_only_by_a_clock_that_agrees() {
    let mut world = World::new();
    let until = world.now.plus(500);
    world.must(Change::Pause { group: group(), reason: "x".to_owned(), until: Some(until) });
    let expires = |world: &World, agrees: bool, now: UnixMs| {
        let mut seen = view(&[Some(UP), Some(UP), Some(UP)]);
        seen.clock_agrees = agrees;
        decide(&world.state, &policy(), &seen, now).propose.iter().any(|d| matches!(d, Decision::ExpirePause { .. }))
    };
    assert!(!expires(&world, true, UnixMs(until.0 - 1)));
    assert!(!expires(&world, false, until));
    assert!(expires(&world, true, until));
}

#[test]
fn an_alarm_ends_only_when_a_majority_reports() {
    let mut world = World::new();
    let says = [None, Some(down_for(9000)), Some(down_for(9000))];
    world.must(Change::Pause { group: group(), reason: "x".to_owned(), until: None });
    for decision in look(&world, &says).propose {
        if let Decision::Tell(page) = decision {
            world.must(Change::Tell { page });
        }
    }
    assert!(pages(&look(&world, &says)).is_empty(), "told once");
    assert!(
        pages(&look(&world, &[None, None, Some(UP)])).is_empty(),
        "a new leader that has seen nothing ends nothing"
    );
    assert_eq!(pages(&look(&world, &[Some(UP), Some(UP), Some(UP)])), ["DR_FAILOVER_BLOCKED"]);
}

#[test]
fn an_aborted_run_is_not_opened_again_by_itself() {
    let (mut world, token) = World::opened("r1");
    let run = world.run().id.clone();
    let order = super::command::RunOrder::Abort;
    let change =
        Change::Order { group: group(), run: run.clone(), expected_token: None, order, reason: "stop".to_owned() };
    world.must(change);
    world.must(Change::CloseRun {
        group: group(),
        run,
        token,
        outcome: super::run::RunOutcome::Aborted,
        settled: Default::default(),
        old_primary_untouched: false,
        reason: String::new(),
        monitor_ms: 0,
    });
    let says = [None, Some(down_for(9000)), Some(down_for(9000))];
    let decisions = look(&world, &says);
    assert_eq!((opens(&decisions), decisions.explain[&group()].standing.clone()), (0, Standing::Blocked));
    world.now = world.now.plus(3_600_000);
    assert_eq!(opens(&look(&world, &says)), 1, "after the cooldown it may");
}

/// Its own stop is not the fault of the primary that it was given back to.
#[test]
fn what_a_planned_move_had_stopped_is_no_evidence_right_after_it_turned_back() {
    let (mut world, token) = World::switching("r1");
    world.do_step("fence", token);
    let (run, reason) = (world.run().id.clone(), "the standby lags".to_owned());
    world.must(Change::TurnBack { group: group(), run: run.clone(), token, reason });
    let token = world.claim("r1");
    world.do_step("release", token);
    let outcome = super::run::RunOutcome::Reverted;
    let (settled, reason) = (Default::default(), String::new());
    let (name, monitor_ms, old_primary_untouched) = (group(), 0, false);
    world.must(Change::CloseRun {
        group: name,
        run,
        token,
        outcome,
        settled,
        old_primary_untouched,
        reason,
        monitor_ms,
    });
    let says = [None, Some(down_for(9000)), Some(down_for(9000))];
    let rules = &policy().groups[&group()];
    let closed_at = world.now;
    world.now = closed_at.plus(rules.observation_ttl_ms + rules.hold_down_ms - 1);
    let decisions = look(&world, &says);
    assert_eq!((opens(&decisions), decisions.explain[&group()].standing.clone()), (0, Standing::Counting));
    world.now = closed_at.plus(rules.observation_ttl_ms + rules.hold_down_ms);
    assert_eq!(opens(&look(&world, &says)), 1, "who is still down then is down");
    // Closed by a clock that was ahead: this node's own watch counts.
    world.now = UnixMs(1);
    let watched = |watched_ms| opens(&decide(&world.state, &policy(), &View { watched_ms, ..view(&says) }, world.now));
    assert_eq!((watched(1000), watched(60_000)), (0, 1));
}

#[test]
fn a_recovery_gives_way_to_a_failover_that_nothing_else_keeps_from_opening() {
    let given_way = |decisions: &Decisions| {
        let is_it = |decision: &&Decision| matches!(decision, Decision::GiveWay { .. });
        assert_eq!(opens(decisions), 0, "one run at a time");
        decisions.propose.iter().filter(is_it).count()
    };
    let lost = [None, Some(down_for(9000)), Some(down_for(9000))];
    let mut world = World::new();
    world.must(world.open_recovery("r1", "hanoi"));
    assert_eq!(given_way(&look(&world, &[Some(UP), Some(UP), Some(UP)])), 0, "nothing is lost");
    assert_eq!(given_way(&look(&world, &[None, Some(down_for(9000)), Some(UP)])), 0, "no majority");
    let decisions = look(&world, &lost);
    assert_eq!(given_way(&decisions), 1);
    let Some(Decision::GiveWay { group, run, expected_token, reason }) =
        decisions.propose.into_iter().find(|decision| matches!(decision, Decision::GiveWay { .. }))
    else {
        panic!("counted above")
    };
    let order = super::command::RunOrder::Abort;
    world.must(Change::Order { group: group.clone(), run, expected_token, order, reason });
    assert_eq!(given_way(&look(&world, &lost)), 0, "it is being ended");
    let token = world.claim("r1");
    world.must(Change::CloseRun {
        group,
        run: "r1".into(),
        token,
        outcome: super::run::RunOutcome::Aborted,
        settled: Default::default(),
        old_primary_untouched: false,
        reason: String::new(),
        monitor_ms: 0,
    });
    assert_eq!(opens(&look(&world, &lost)), 1, "no cooldown follows a recovery");

    let (moving, _) = World::opened("r1");
    assert_eq!(given_way(&look(&moving, &lost)), 0, "a failover is brought to its end");
    let mut paused = World::new();
    paused.must(paused.open_recovery("r1", "hanoi"));
    paused.must(Change::Pause { group: super::fixtures::group(), reason: "works".to_owned(), until: None });
    assert_eq!(given_way(&look(&paused, &lost)), 0, "nothing automatic while paused");
}

#[test]
fn a_cooldown_is_not_over_by_a_clock_that_disagrees() {
    let mut world = World::new();
    let at = world.now;
    world.state.groups.get_mut(&group()).expect("the group").last_failover =
        Some(super::state::LastFailover { run: "r0".into(), at, automatic: true, serving_epoch: 0 });
    let mut seen = view(&[None, Some(down_for(9000)), Some(down_for(9000))]);
    seen.clock_agrees = false;
    assert_eq!(opens(&decide(&world.state, &policy(), &seen, at.plus(7_200_000))), 0);
}

#[test]
fn a_configuration_that_cannot_be_adopted_is_paged_once() {
    let mut world = World::new();
    let mut other = policy();
    other.digest = "d2".into();
    other.epoch = 0;
    let mut seen = view(&[Some(UP), Some(UP), Some(UP)]);
    seen.sights.values_mut().for_each(|sight| sight.report.digest = "d2".into());
    let decisions = decide(&world.state, &other, &seen, world.now);
    assert_eq!(pages(&decisions), ["CONFIG_NOT_ADOPTED"]);
    for decision in decisions.propose {
        if let Decision::Tell(page) = decision {
            world.must(Change::Tell { page });
        }
    }
    assert!(decide(&world.state, &other, &seen, world.now).propose.is_empty());
}

#[test]
fn a_silent_voter_is_paged_and_its_own_alarms_outlive_its_silence() {
    let mut world = World::new();
    let mut seen = view(&[None, Some(UP), Some(UP)]);
    assert!(pages(&decide(&world.state, &policy(), &seen, world.now)).is_empty(), "a new leader has heard few yet");
    seen.watched_ms = 60_000;
    assert_eq!(pages(&decide(&world.state, &policy(), &seen, world.now)), ["NODE_SILENT"]);
    let isolated = view(&[Some(Says { isolated: true, ..UP }), Some(UP), Some(UP)]);
    for decision in decide(&world.state, &policy(), &isolated, world.now).propose {
        if let Decision::Tell(page) = decision {
            world.must(Change::Tell { page });
        }
    }
    assert_eq!(world.state.alarms.len(), 1);
    assert!(pages(&look(&world, &[None, Some(UP), Some(UP)])).is_empty(), "it is silent now, not well");
    assert_eq!(pages(&look(&world, &[Some(UP), Some(UP), Some(UP)])), ["NODE_ISOLATED"]);
}

/// Whether a leader's file knows the voter must not open and end the condition with each leader.
#[test]
fn a_silent_voter_is_one_condition_under_every_leaders_file() {
    let mut world = World::new();
    let known = policy();
    let mut without = policy();
    without.members.remove(&NodeId(1));
    let look = |world: &World, policy: &ClusterPolicy| {
        let view = View { watched_ms: 600_000, ..view(&[None, Some(UP), Some(UP)]) };
        let decided = decide(&world.state, policy, &view, world.now);
        decided
            .propose
            .into_iter()
            .filter_map(|one| match one {
                Decision::Tell(page) if page.key.contains("/silent/") => Some(page),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let told = look(&world, &known);
    assert_eq!((told.len(), told[0].key.as_str()), (1, "test/silent/node-1"));
    assert_eq!(look(&world, &without)[0].key, told[0].key);
    world.must(Change::Tell { page: told[0].clone() });
    assert!(look(&world, &without).is_empty() && look(&world, &known).is_empty(), "one condition under both");
}

/// A name may be another node's later, a number never.
#[test]
fn what_a_node_says_of_itself_is_told_by_its_number() {
    let told_by = |world: &World, says: &[Option<Says>], policy: &ClusterPolicy| {
        let decided = decide(&world.state, policy, &view(says), world.now);
        let pages = decided
            .propose
            .into_iter()
            .filter_map(|one| if let Decision::Tell(page) = one { Some(page) } else { None });
        pages.map(|page| (page.key.clone(), page.action, page)).collect::<Vec<_>>()
    };
    let mut world = World::new();
    let isolated = [Some(Says { isolated: true, ..UP }), Some(UP), Some(UP)];
    let told = told_by(&world, &isolated, &policy());
    assert_eq!((told.len(), told[0].0.as_str()), (1, "test/isolated/node-1"));
    world.must(Change::Tell { page: told[0].2.clone() });
    let mut renamed = policy();
    renamed.members.get_mut(&NodeId(1)).expect("it is there").name = "other".into();
    assert!(told_by(&world, &isolated, &renamed).is_empty(), "the same node under another name is no news");
    let mut without = policy();
    without.members.remove(&NodeId(1));
    assert!(
        told_by(&world, &[None, Some(UP), Some(UP)], &without).is_empty(),
        "silent, under a file without it: not over"
    );

    let mut differs = view(&[Some(UP), Some(UP), Some(UP)]);
    differs.sights.get_mut(&NodeId(2)).expect("it is there").report.digest = "d2".into();
    let decided = decide(&World::new().state, &policy(), &differs, world.now);
    let keys = decided
        .propose
        .iter()
        .filter_map(|one| if let Decision::Tell(page) = one { Some(page.key.as_str()) } else { None });
    assert_eq!(keys.collect::<Vec<_>>(), ["test/config-differs/node-2"]);
}

#[test]
fn an_alarm_under_a_nodes_name_is_over_once_the_node_is_heard() {
    let mut world = World::new();
    let name = policy().members[&NodeId(1)].name.clone();
    let isolated = [Some(Says { isolated: true, ..UP }), Some(UP), Some(UP)];
    let mut page = decide(&world.state, &policy(), &view(&isolated), world.now)
        .propose
        .into_iter()
        .find_map(|one| if let Decision::Tell(page) = one { Some(page) } else { None })
        .expect("it is told");
    page.key = format!("test/isolated/{name}");
    world.must(Change::Tell { page });
    assert!(pages(&look(&world, &[None, Some(UP), Some(UP)])).is_empty(), "it is silent, not well");
    for decision in look(&world, &isolated).propose {
        if let Decision::Tell(page) = decision {
            world.must(Change::Tell { page });
        }
    }
    let open: Vec<&str> = world.state.alarms.keys().map(String::as_str).collect();
    assert_eq!(open, ["test/isolated/node-1"], "it goes on under its number, and not under both");
    assert!(world.state.incidents.values().filter(|one| one.resolved.is_none()).count() == 1);
}

#[test]
fn a_leader_calls_a_voter_silent_only_after_waiting_for_it_itself() {
    // What the node of hcmc last said is so old, and so long has this leader watched.
    let table: &[(&str, Option<u64>, u64, bool)] = &[
        ("new leader, report of an earlier leadership", Some(600_000), 100, false),
        ("new leader, nothing ever heard", None, 30_000, false),
        ("waited long enough, report of an earlier leadership", Some(600_000), 30_001, true),
        ("waited long enough, nothing ever heard", None, 30_001, true),
        ("fell silent lately", Some(30_000), 600_000, false),
        ("fell silent under this leader", Some(30_001), 600_000, true),
    ];
    for (name, age_ms, watched_ms, is_told) in table {
        let mut seen = view(&[age_ms.map(|_| UP), Some(UP), Some(UP)]);
        seen.watched_ms = *watched_ms;
        if let (Some(age_ms), Some(sight)) = (age_ms, seen.sights.get_mut(&NodeId(1))) {
            sight.age_ms = *age_ms;
        }
        let told = pages(&decide(&World::new().state, &policy(), &seen, World::new().now));
        assert_eq!(told.contains(&"NODE_SILENT".to_owned()), *is_told, "{name}");
    }
}

#[test]
fn a_silence_ends_by_the_nodes_own_word_and_not_with_a_new_leader() {
    let mut world = World::new();
    let mut seen = view(&[None, Some(UP), Some(UP)]);
    seen.watched_ms = 60_000;
    for decision in decide(&world.state, &policy(), &seen, world.now).propose {
        if let Decision::Tell(page) = decision {
            world.must(Change::Tell { page });
        }
    }
    assert_eq!(world.state.alarms.len(), 1);
    assert!(pages(&look(&world, &[None, Some(UP), Some(UP)])).is_empty(), "the new leader has not waited yet");
    seen.voters.remove(&NodeId(1));
    assert_eq!(pages(&decide(&world.state, &policy(), &seen, world.now)), ["NODE_SILENT"], "no voter, no loss");
    assert_eq!(pages(&look(&world, &[Some(UP), Some(UP), Some(UP)])), ["NODE_SILENT"], "it speaks");
}

#[test]
fn lag_pages_gates_or_triggers_as_configured() {
    let lagging = |held: Says| Some(Says { covered_age_ms: Some(50_000), ..held });
    let seen = |says: Option<Says>| {
        let mut seen = view(&[says, says, says]);
        for sight in seen.sights.values_mut() {
            for observation in &mut sight.report.observations {
                if let Some(super::observation::Measure::Replication(measure)) = &mut observation.measure {
                    measure.primary_lsn = Some(200);
                }
            }
        }
        seen
    };
    let with = |action, says| {
        let mut policy = policy();
        let rules = policy.groups.get_mut(&group()).expect("the group");
        rules.lag_action = action;
        rules.lag_limit_ms = 30_000;
        let world = World::new();
        let decisions = decide(&world.state, &policy, &seen(says), world.now);
        (opens(&decisions), pages(&decisions))
    };
    assert_eq!(with(LagAction::Page, lagging(UP)), (0, vec!["REPLICATION_LAG".to_owned()]));
    assert_eq!(with(LagAction::Page, lagging(down_for(9000))).0, 1);
    assert_eq!(with(LagAction::Gate, lagging(down_for(9000))).0, 0);
    assert_eq!(with(LagAction::Failover, lagging(UP)).0, 1);
}

#[test]
fn a_node_under_another_configuration_decides_nothing_but_its_adoption() {
    let world = World::new();
    let mut other = policy();
    other.digest = "d2".into();
    let says = [None, Some(down_for(9000)), Some(down_for(9000))];
    let decisions = decide(&world.state, &other, &view(&says), world.now);
    assert!(decisions.propose.is_empty());
    assert_eq!(decisions.explain[&group()].standing, Standing::NotMine);
    let mut seen = view(&says);
    seen.sights.values_mut().for_each(|sight| sight.report.digest = "d2".into());
    let decisions = decide(&world.state, &other, &seen, world.now);
    assert!(matches!(decisions.propose[..], [Decision::AdoptConfig { .. }]));
}

#[test]
fn a_trigger_that_few_report_on_neither_holds_nor_is_gone() {
    let world = World::new();
    let ask = |says: &[Option<Says>]| trigger_holds(&policy(), &group(), world.group(), &region("hcmc"), &view(says));
    assert_eq!(ask(&[None, Some(down_for(1)), Some(down_for(1))]), Holds::Yes);
    assert_eq!(ask(&[Some(UP), Some(UP), Some(down_for(1))]), Holds::No);
    assert_eq!(ask(&[None, None, Some(UP)]), Holds::Unknown);
}

#[test]
fn a_heartbeat_that_is_not_heard_is_paged_until_a_leader_is_heard() {
    let mut world = World::new();
    let tell = |world: &mut World, heartbeat: Heartbeat| {
        let view = View { heartbeat, ..view(&[Some(UP), Some(UP), Some(UP)]) };
        let told = pages(&decide(&world.state, &policy(), &view, UnixMs(0)));
        for decision in decide(&world.state, &policy(), &view, UnixMs(0)).propose {
            if let Decision::Tell(page) = decision {
                world.must(Change::Tell { page });
            }
        }
        told
    };
    assert_eq!(tell(&mut world, Heartbeat::Unknown), Vec::<String>::new());
    let unheard = || Heartbeat::Unheard { why: "answered 503".to_owned() };
    assert_eq!(tell(&mut world, unheard()), ["HEARTBEAT_UNHEARD"]);
    assert_eq!(tell(&mut world, unheard()), Vec::<String>::new(), "told once");
    assert_eq!(tell(&mut world, Heartbeat::Unknown), Vec::<String>::new(), "a new leader has not tried yet");
    assert_eq!(world.state.alarms.len(), 1);
    tell(&mut world, Heartbeat::Heard);
    assert!(world.state.alarms.is_empty(), "{:?}", world.state.alarms);
}

#[test]
fn a_receiver_that_takes_nothing_is_told_of_through_the_others_until_it_does() {
    let mut world = World::new();
    let receiver = world.state.receivers[0].clone();
    let tell = |world: &mut World, at: u64| {
        let view = view(&[Some(UP), Some(UP), Some(UP)]);
        let told = pages(&decide(&world.state, &policy(), &view, UnixMs(at)));
        for decision in decide(&world.state, &policy(), &view, UnixMs(at)).propose {
            if let Decision::Tell(page) = decision {
                world.must(Change::Tell { page });
            }
        }
        told
    };
    let answer = |world: &mut World, refused: Option<&str>| {
        let pending = |it: &&OutboxEntry| it.deliveries.get(&receiver) == Some(&Delivery::Pending);
        let waiting: Vec<u64> = world.state.outbox.iter().filter(pending).map(|it| it.seq).collect();
        for seq in waiting {
            let refused = refused.map(str::to_owned);
            world.must(Change::Told { seq, receiver: receiver.clone(), refused });
        }
    };
    let lags = Page {
        key: "test/shop/blocked".to_owned(),
        event: "TEST".to_owned(),
        action: PageAction::Trigger,
        severity: Severity::Info,
        summary: "a page".to_owned(),
        group: None,
        run: None,
        details: Default::default(),
    };
    world.must(Change::Tell { page: lags });
    let at = world.state.outbox[0].at.0;
    answer(&mut world, Some("400 Bad Request"));
    assert!(tell(&mut world, at + 1).contains(&"RECEIVER_FAILING".to_owned()), "refused");
    assert!(!tell(&mut world, at + 2).contains(&"RECEIVER_FAILING".to_owned()), "told once");
    answer(&mut world, Some("400 Bad Request"));
    tell(&mut world, at + 3);
    assert!(world.state.alarms.values().any(|alarm| alarm.event == "RECEIVER_FAILING"), "still refused");
    let again = Page { key: "test/again".to_owned(), ..world.state.outbox[0].page.clone() };
    world.must(Change::Tell { page: again });
    answer(&mut world, None);
    tell(&mut world, at + 4);
    assert!(!world.state.alarms.values().any(|alarm| alarm.event == "RECEIVER_FAILING"), "{:?}", world.state.alarms);

    // Nothing but silence: told of after a while, by a clock that agrees.
    let newest = world.state.outbox.iter().map(|it| it.at.0).max().unwrap_or_default();
    assert!(!tell(&mut world, newest + 100_000).contains(&"RECEIVER_FAILING".to_owned()));
    assert!(tell(&mut world, newest + 130_000).contains(&"RECEIVER_FAILING".to_owned()), "pending for long");
}
