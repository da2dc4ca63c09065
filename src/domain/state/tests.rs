//! Every check of `apply`, provoked; and random histories, in which what must hold always does.

use proptest::prelude::*;

use crate::domain::attempt::Outcome;
use crate::domain::command::{Applied, Change, FenceProof, RejectionCode, RunOrder};
use crate::domain::fixtures::{World, done, group, plan, policy, region};
use crate::domain::ids::{RunId, StepId, Token, UnixMs};
use crate::domain::invariants::{violations, violations_between};
use crate::domain::page::{Page, PageAction, Severity};
use crate::domain::plan::{Action, GuardEndpoint};
use crate::domain::run::{RunKind, RunOutcome, RunPhase, StepPhase};
use crate::domain::state::Unsettled;

fn close(world: &World, token: Token, outcome: RunOutcome, untouched: bool) -> Change {
    Change::CloseRun {
        group: group(),
        run: world.run().id.clone(),
        token,
        outcome,
        settled: Default::default(),
        old_primary_untouched: untouched,
        reason: String::new(),
        monitor_ms: 0,
    }
}

fn order(world: &World, order: RunOrder) -> Change {
    let run = world.run();
    Change::Order {
        group: group(),
        run: run.id.clone(),
        expected_token: run.token(),
        order,
        reason: "I have looked".to_owned(),
    }
}

fn stuck(world: &World, token: Token, step: &str) -> Change {
    Change::MarkStuck {
        group: group(),
        run: world.run().id.clone(),
        token,
        step: StepId::from(step),
        reason: "no fence proof".to_owned(),
    }
}

fn events(world: &World) -> Vec<String> {
    world.state.outbox.iter().map(|entry| entry.page.event.clone()).collect()
}

#[test]
fn a_failover_moves_serving_only_at_its_fence_and_its_promotion() {
    let (mut world, token) = World::opened("r1");
    assert_eq!(world.group().serving.region, Some(region("hcmc")));
    world.must(world.start_change("fence", token));
    assert_eq!(world.group().serving.region, None);
    assert_eq!(world.group().serving.epoch, 2);
    world.must(world.finish_change("fence", token, done()));
    world.must(world.start_change("promote", token));
    assert_eq!(world.group().serving.region, Some(region("hanoi")), "a started promotion counts");
    world.must(world.finish_change("promote", token, done()));
    world.do_step("services", token);
    world.do_step("dns", token);
    world.do_step("verify", token);
    world.must(close(&world, token, RunOutcome::Succeeded, false));
    let group = world.group();
    assert_eq!((group.serving.epoch, group.traffic.as_str()), (3, "hanoi"));
    assert!(group.open_run.is_none() && group.history.len() == 1);
    assert_eq!(events(&world), ["DR_FAILOVER_STARTED", "DR_FAILOVER_SUCCESS", "DR_FAILOVER_ENDED"]);
}

#[test]
fn p1_one_run_at_a_time_and_none_on_an_old_view() {
    let mut world = World::new();
    let second = world.open_change("r2");
    world.must(world.open_change("r1"));
    assert_eq!(world.rejected(second.clone()), RejectionCode::RunOpen);
    let token = world.claim("r1");
    world.must(order(&world, RunOrder::Abort));
    world.must(close(&world, token, RunOutcome::Aborted, false));
    assert_eq!(world.rejected(second), RejectionCode::Stale, "decided before the first run's token was issued");
}

#[test]
fn p1_a_second_automatic_failover_decided_before_the_first_ended_is_stale() {
    let (mut world, token) = World::opened("r1");
    let mut old = world.open_change("r2");
    for step in ["fence", "promote", "services", "dns", "verify"] {
        world.do_step(step, token);
    }
    world.must(close(&world, token, RunOutcome::Succeeded, false));
    if let Change::OpenRun { expected_token, .. } = &mut old {
        *expected_token = world.group().token;
    }
    assert_eq!(world.rejected(old), RejectionCode::Stale, "its serving epoch is over");
}

#[test]
fn p2_p3_a_stale_token_starts_and_finishes_nothing() {
    let (mut world, old) = World::opened("r1");
    world.must(world.start_change("fence", old));
    let new = world.claim("r1");
    assert!(new > old);
    assert_eq!(world.rejected(world.finish_change("fence", old, done())), RejectionCode::Stale);
    assert_eq!(world.rejected(stuck(&world, old, "fence")), RejectionCode::Stale);
    assert_eq!(world.rejected(close(&world, old, RunOutcome::Withdrawn, true)), RejectionCode::Stale);
    world.must(world.finish_change("fence", new, done()));
    assert_eq!(world.rejected(world.start_change("promote", old)), RejectionCode::Stale);
}

#[test]
fn p4_no_promotion_without_proof_under_the_promoting_token() {
    let (mut world, first) = World::opened("r1");
    world.do_step("fence", first);
    let token = world.claim("r1");
    let with = |world: &World, proof| match world.start_change("promote", token) {
        Change::StepStarted { group, run, step, token, attempt, expected_loss_ms, loss_limit_ms, .. } => {
            Change::StepStarted {
                group,
                run,
                step,
                token,
                attempt,
                fence_proof: proof,
                expected_loss_ms,
                loss_limit_ms,
            }
        }
        other => other,
    };
    let evidence = || "stopped".to_owned();
    let refused = [
        None,
        Some(FenceProof::Guard { token: first, evidence: evidence() }),
        Some(FenceProof::Asserted),
        Some(FenceProof::Standing),
        Some(FenceProof::LeaseExpired { token, evidence: evidence() }),
    ];
    for proof in refused {
        let change = with(&world, proof.clone());
        assert_eq!(world.rejected(change), RejectionCode::NoFenceProof, "{proof:?}");
    }
    assert_eq!(world.group().serving.region, None, "a refused promotion moves nothing");
    world.must(with(&world, Some(FenceProof::Guard { token, evidence: evidence() })));
}

#[test]
fn p4_an_operators_word_names_the_region_and_takes_the_fences_place() {
    let (mut world, token) = World::opened("r1");
    world.must(world.start_change("fence", token));
    let unknown = Outcome::Unknown { reason: "no route".to_owned() };
    world.must(world.finish_change("fence", token, unknown));
    world.must(stuck(&world, token, "fence"));
    assert_eq!(world.rejected(order(&world, RunOrder::Skip { step: "fence".into() })), RejectionCode::NoFenceProof);
    let wrong = RunOrder::AssertFence { region: region("hanoi") };
    assert_eq!(world.rejected(order(&world, wrong)), RejectionCode::Invalid);
    world.must(order(&world, RunOrder::AssertFence { region: region("hcmc") }));
    assert_eq!(world.run().phase, RunPhase::Open);
    assert_eq!(world.run().phase_of(&"fence".into()), StepPhase::Skipped);
    assert_eq!(world.group().unsettled.len(), 1, "what the fence may still do stays to be settled");
    let mut start = world.start_change("promote", token);
    if let Change::StepStarted { fence_proof, .. } = &mut start {
        *fence_proof = Some(FenceProof::Asserted);
    }
    world.must(start);
}

#[test]
fn p5_too_much_or_unknown_loss_is_refused_unless_accepted_by_name() {
    for (loss, limit) in [(Some(60_001), Some(60_000)), (None, Some(60_000)), (Some(1), None)] {
        let (mut world, token) = World::opened("r1");
        world.do_step("fence", token);
        let mut start = world.start_change("promote", token);
        if let Change::StepStarted { expected_loss_ms, loss_limit_ms, .. } = &mut start {
            (*expected_loss_ms, *loss_limit_ms) = (loss, limit);
        }
        assert_eq!(world.rejected(start.clone()), RejectionCode::LossTooGreat, "{loss:?} of {limit:?}");
        world.must(order(&world, RunOrder::AcceptLoss));
        world.must(start);
    }
}

#[test]
fn p9_paused_starts_nothing_but_takes_results() {
    let (mut world, token) = World::opened("r1");
    world.must(world.start_change("fence", token));
    world.must(Change::Pause { group: group(), reason: "maintenance".to_owned(), until: None });
    world.must(world.finish_change("fence", token, done()));
    assert_eq!(world.rejected(world.start_change("promote", token)), RejectionCode::Paused);
    world.must(Change::Resume { group: group(), reason: "over".to_owned(), expired: None });
    world.must(world.start_change("promote", token));
}

#[test]
fn p9_a_paused_group_opens_nothing() {
    let mut world = World::new();
    let until = Some(world.now.plus(1000));
    world.must(Change::Pause { group: group(), reason: "maintenance".to_owned(), until });
    assert_eq!(world.rejected(world.open_change("r1")), RejectionCode::Paused);
    let other = Change::Resume { group: group(), reason: "expired".to_owned(), expired: Some(UnixMs(1)) };
    assert_eq!(world.rejected(other), RejectionCode::Stale, "the pause was renewed since");
    world.must(Change::Resume { group: group(), reason: "expired".to_owned(), expired: until });
}

#[test]
fn withdrawn_needs_an_untouched_old_primary_and_gives_serving_back() {
    let (mut world, token) = World::opened("r1");
    world.must(world.start_change("fence", token));
    assert_eq!(world.rejected(close(&world, token, RunOutcome::Withdrawn, false)), RejectionCode::Illegal);
    world.must(close(&world, token, RunOutcome::Withdrawn, true));
    assert_eq!(world.group().serving.region, Some(region("hcmc")));
    let (mut world, token) = World::opened("r1");
    world.do_step("fence", token);
    world.must(world.start_change("promote", token));
    assert_eq!(world.rejected(close(&world, token, RunOutcome::Withdrawn, true)), RejectionCode::Illegal);
}

#[test]
fn an_abort_leaves_open_questions_unsettled_and_the_next_run_waits_for_them() {
    let (mut world, token) = World::opened("r1");
    world.do_step("fence", token);
    world.must(world.start_change("dns", token));
    world.must(order(&world, RunOrder::Abort));
    assert_eq!(world.rejected(world.start_change("promote", token)), RejectionCode::Illegal);
    world.must(close(&world, token, RunOutcome::Aborted, false));
    assert_eq!(world.group().serving.region, None, "the old primary is fenced: nobody serves");
    let resource = world.group().unsettled.keys().next().expect("the zone is unsettled").clone();
    world.must(world.open_change("r2"));
    let token = world.claim("r2");
    world.do_step("fence", token);
    assert_eq!(world.rejected(world.start_change("dns", token)), RejectionCode::Unsettled);
    world.must(Change::Settle { group: group(), resource, evidence: "raised".to_owned(), untouched: false });
    world.must(world.start_change("dns", token));
}

#[test]
fn a_fence_waits_for_no_service_that_was_left_under_way_at_its_host() {
    let (mut world, token) = World::opened("r1");
    let plan = world.run().plan.clone();
    let action = |step: &str| plan.step(&step.into()).expect("a step").action.clone();
    let resource = action("fence").resource().expect("its host");
    for (step, is_due, waits) in
        [("fence", false, true), ("promote", false, true), ("services", true, true), ("services", false, false)]
    {
        let (run, since) = ("r0".into(), UnixMs(0));
        let left = Unsettled { run, token: Token::default(), since, action: action(step), is_due };
        world.state.groups.get_mut(&group()).expect("the group").unsettled.insert(resource.clone(), left);
        assert!(world.group().left_in_the_way(&Action::Release { guard: guard_of(&action("fence")) }).is_some());
        if waits {
            assert_eq!(world.rejected(world.start_change("fence", token)), RejectionCode::Unsettled, "{step}");
        } else {
            world.must(world.start_change("fence", token));
        }
    }
    assert!(world.group().unsettled.contains_key(&resource), "it is still to be settled");
}

fn guard_of(fence: &Action) -> GuardEndpoint {
    let Action::Fence { guard } = fence else { panic!("{fence:?}") };
    guard.clone()
}

#[test]
fn a_promotion_certainly_not_done_takes_the_right_to_write_back() {
    let (mut world, token) = World::opened("r1");
    world.do_step("fence", token);
    world.must(world.start_change("promote", token));
    let failed = Outcome::Failed { retryable: true, reason: "in recovery, no promotion pending".to_owned() };
    world.must(world.finish_change("promote", token, failed));
    assert_eq!(world.group().serving.region, None);
    assert_eq!(world.group().serving.last, region("hcmc"), "what was never promoted never served");
}

#[test]
fn a_stage_waits_for_its_blocking_forerunners_and_the_last_for_all() {
    let (mut world, token) = World::opened("r1");
    assert_eq!(world.rejected(world.start_change("promote", token)), RejectionCode::Illegal);
    world.do_step("fence", token);
    world.do_step("promote", token);
    world.do_step("services", token);
    assert_eq!(world.rejected(world.start_change("verify", token)), RejectionCode::Illegal, "dns is not done");
    world.do_step("dns", token);
    world.must(world.start_change("verify", token));
}

#[test]
fn a_claim_can_rise_above_what_a_resource_holds_but_not_above_its_epoch() {
    let (mut world, token) = World::opened("r1");
    let claim =
        |floor| Change::ClaimRun { group: group(), run: RunId::from("r1"), expected_token: token, floor: Some(floor) };
    assert_eq!(world.rejected(claim(Token { epoch: 2, n: 1 })), RejectionCode::Invalid);
    assert_eq!(world.rejected(claim(Token { epoch: 1, n: u64::MAX })), RejectionCode::Invalid);
    assert_eq!(world.must(claim(Token { epoch: 1, n: 41 })), Some(Token { epoch: 1, n: 42 }));
}

#[test]
fn the_same_request_id_gets_the_first_answer_again() {
    let mut world = World::new();
    let ask = |change| crate::domain::command::Command {
        node: crate::domain::ids::NodeId(1),
        at: UnixMs(5_000_000),
        by: "operator:linh".into(),
        from: Some("10.1.0.7:52114".to_owned()),
        request_id: Some("q1".into()),
        change,
    };
    let pause = Change::Pause { group: group(), reason: "maintenance".to_owned(), until: None };
    let first = world.state.apply(100, &ask(pause.clone()));
    assert_eq!(first, Applied::Done { token: None, index: 100 });
    let resume = Change::Resume { group: group(), reason: "over".to_owned(), expired: None };
    world.must(resume.clone());
    assert_eq!(world.state.apply(200, &ask(pause)), first);
    assert!(world.group().pause.is_none(), "asked again, done once");
    assert!(matches!(world.state.apply(201, &ask(resume)), Applied::Rejected(r) if r.code == RejectionCode::Invalid));
}

#[test]
fn p11_a_page_stays_until_every_receiver_has_answered() {
    let mut world = World::new();
    let page = |action| Page {
        key: "test/lag".to_owned(),
        event: "REPLICATION_LAG".to_owned(),
        action,
        severity: Severity::Critical,
        summary: "lags".to_owned(),
        group: None,
        run: None,
        details: Default::default(),
    };
    world.must(Change::Tell { page: page(PageAction::Trigger) });
    world.must(Change::Tell { page: page(PageAction::Trigger) });
    assert_eq!(world.state.outbox.len(), 1, "the same key collapses while nobody took it");
    assert_eq!(world.state.alarms.len(), 1);
    let seq = world.state.outbox[0].seq;
    let told =
        |refused: Option<&str>| Change::Told { seq, receiver: "oncall".into(), refused: refused.map(str::to_owned) };
    world.must(told(None));
    assert_eq!(world.rejected(told(Some("late"))), RejectionCode::Stale);
    world.must(Change::Tell { page: page(PageAction::Resolve) });
    assert!(world.state.alarms.is_empty());
    assert_eq!(world.rejected(Change::Tell { page: page(PageAction::Resolve) }), RejectionCode::NotFound);
}

fn page(key: &str, action: PageAction) -> Page {
    Page {
        key: key.to_owned(),
        event: "REPLICATION_LAG".to_owned(),
        action,
        severity: Severity::Critical,
        summary: "lags".to_owned(),
        group: None,
        run: None,
        details: Default::default(),
    }
}

#[test]
fn p11_the_last_word_of_a_key_is_the_last_page_of_it() {
    let mut world = World::new();
    for action in [PageAction::Trigger, PageAction::Resolve, PageAction::Trigger] {
        world.must(Change::Tell { page: page("test/lag", action) });
    }
    let actions: Vec<_> = world.state.outbox.iter().map(|entry| entry.page.action).collect();
    assert_eq!(actions, [PageAction::Trigger, PageAction::Resolve, PageAction::Trigger]);
    let seqs: Vec<_> = world.state.outbox.iter().map(|entry| entry.seq).collect();
    assert!(seqs.is_sorted());
}

#[test]
fn p11_a_receiver_that_takes_nothing_silences_nobody() {
    let mut world = World::new();
    for n in 0..crate::domain::state::OUTBOX_MAX + 10 {
        world.must(Change::Tell { page: page(&format!("test/{n}"), PageAction::Trigger) });
    }
    assert_eq!(world.state.outbox.len(), crate::domain::state::OUTBOX_MAX);
    let last = world.state.outbox.back().expect("the newest page is there");
    assert_eq!(last.page.key, format!("test/{}", crate::domain::state::OUTBOX_MAX + 9));
}

#[test]
fn p1_a_later_epoch_may_fail_over_again_by_itself() {
    let (mut world, token) = World::opened("r1");
    for step in ["fence", "promote", "services", "dns", "verify"] {
        world.do_step(step, token);
    }
    world.must(close(&world, token, RunOutcome::Succeeded, false));
    assert_eq!(world.group().last_failover.as_ref().map(|last| last.serving_epoch), Some(1), "that of its opening");
    world.must(world.open_change("r2"));
}

#[test]
fn a_promotion_found_done_after_all_gives_the_right_to_write_again() {
    let (mut world, token) = World::opened("r1");
    world.do_step("fence", token);
    world.must(world.start_change("promote", token));
    let failed = Outcome::Failed { retryable: true, reason: "no answer from the server".to_owned() };
    world.must(world.finish_change("promote", token, failed));
    world.must(world.finish_change("promote", token, done()));
    assert_eq!(world.group().serving.region, Some(region("hanoi")));
}

#[test]
fn an_untouched_old_primary_found_after_an_abort_serves_again() {
    let (mut world, token) = World::opened("r1");
    world.must(world.start_change("fence", token));
    world.must(order(&world, RunOrder::Abort));
    world.must(close(&world, token, RunOutcome::Aborted, false));
    assert_eq!(world.group().serving.region, None);
    let resource = world.group().unsettled.keys().next().expect("the old primary's host").clone();
    world.must(Change::Settle { group: group(), resource, evidence: "writable".to_owned(), untouched: true });
    assert_eq!(world.group().serving.region, Some(region("hcmc")));
}

#[test]
fn another_configuration_is_refused_and_a_new_one_makes_targets_prove_themselves() {
    let mut world = World::new();
    let policy = policy();
    let adopt = |cluster: &str, epoch, digest: &str| Change::AdoptConfig {
        cluster: cluster.into(),
        epoch,
        digest: digest.into(),
        groups: crate::domain::decide::specs(&policy),
        receivers: Vec::new(),
        on_call: Default::default(),
    };
    assert_eq!(world.rejected(adopt("other", 1, "d2")), RejectionCode::OtherConfig);
    assert_eq!(world.rejected(adopt("test", 0, "d2")), RejectionCode::OtherConfig);
    world.must(adopt("test", 1, "d2"));
    assert!(world.group().seen_up.is_empty());
    assert_eq!(world.rejected(world.open_change("r1")), RejectionCode::OtherConfig);
}

#[test]
fn unknown_things_and_impossible_plans_are_refused_by_name() {
    let mut world = World::new();
    let mut to_itself = world.open_change("r1");
    if let Change::OpenRun { plan: bad, .. } = &mut to_itself {
        *bad = plan("hcmc", "hcmc");
    }
    assert_eq!(world.rejected(to_itself), RejectionCode::Invalid);
    let mut empty = world.open_change("r1");
    if let Change::OpenRun { plan: bad, .. } = &mut empty {
        bad.stages.clear();
    }
    assert_eq!(world.rejected(empty), RejectionCode::Invalid);
    let mut twice = world.open_change("r1");
    if let Change::OpenRun { plan: bad, .. } = &mut twice {
        let again = bad.stages[0].clone();
        bad.stages.push(again);
    }
    assert_eq!(world.rejected(twice), RejectionCode::Invalid);
    let nowhere = Change::Pause { group: "nowhere".into(), reason: "x".to_owned(), until: None };
    assert_eq!(world.rejected(nowhere), RejectionCode::NotFound);
    let speechless = Change::Pause { group: group(), reason: "  ".to_owned(), until: None };
    assert_eq!(world.rejected(speechless), RejectionCode::Invalid);
    let past = Change::Pause { group: group(), reason: "x".to_owned(), until: Some(UnixMs(1)) };
    assert_eq!(world.rejected(past), RejectionCode::Invalid);
}

/// One random thing that somebody might propose, whether or not it makes sense now.
fn random_change(world: &World, dice: (u8, u8, u8)) -> Change {
    let steps = ["fence", "dns", "promote", "services", "verify"];
    let step = steps[usize::from(dice.1) % steps.len()];
    let now = world.group().token;
    // Now and then an executor acts under a token of the past.
    let token = if dice.2.is_multiple_of(4) { Token { n: now.n.saturating_sub(1), ..now } } else { now };
    let Some(run) = &world.group().open_run else {
        return match dice.0 % 4 {
            0 => Change::Pause { group: group(), reason: "x".to_owned(), until: None },
            1 => Change::Resume { group: group(), reason: "x".to_owned(), expired: None },
            _ => world.open_change(&format!("r{}", world.index)),
        };
    };
    let id = run.id.clone();
    let outcome = match dice.2 % 5 {
        0 => Outcome::Unknown { reason: "?".to_owned() },
        1 => Outcome::Failed { retryable: true, reason: "no".to_owned() },
        2 => Outcome::Refused { held: Token { epoch: 1, n: 99 } },
        _ => done(),
    };
    match dice.0 % 16 {
        0 => Change::ClaimRun { group: group(), run: id, expected_token: token, floor: None },
        1..=4 => world.start_change(step, token),
        5..=8 => world.finish_change(step, token, outcome),
        9 => stuck(world, token, step),
        10 => Change::Unstick { group: group(), run: id, token, reason: "x".to_owned() },
        11 => order(world, [RunOrder::Abort, RunOrder::AcceptLoss][usize::from(dice.2) % 2].clone()),
        12 => order(world, RunOrder::AssertFence { region: world.run().from().clone() }),
        13 => order(
            world,
            if dice.2.is_multiple_of(2) {
                RunOrder::Retry { step: step.into() }
            } else {
                RunOrder::Skip { step: step.into() }
            },
        ),
        14 => close(
            world,
            token,
            [RunOutcome::Succeeded, RunOutcome::Withdrawn, RunOutcome::Aborted][usize::from(dice.1) % 3],
            dice.2.is_multiple_of(2),
        ),
        _ => Change::Pause { group: group(), reason: "x".to_owned(), until: None },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is proposed in whatever order: nothing that may only grow shrinks, a rejection changes nothing but the
    /// audit, and a promotion starts only behind a fence.
    #[test]
    fn what_must_hold_holds_in_random_histories(rolls in prop::collection::vec(any::<(u8, u8, u8)>(), 1..120)) {
        let mut world = World::new();
        for dice in rolls {
            let before = world.state.clone();
            let change = random_change(&world, dice);
            let applied = world.apply(change.clone());
            prop_assert_eq!(violations(&world.state), Vec::<String>::new());
            prop_assert_eq!(violations_between(&before, &world.state), Vec::<String>::new());
            match applied {
                Applied::Rejected(_) => prop_assert_eq!(&before.groups, &world.state.groups),
                _ => if let Change::StepStarted { step, .. } = &change && step.as_str() == "promote" {
                    let run = world.run();
                    let fence = run.phase_of(&"fence".into());
                    prop_assert!(fence == StepPhase::Done || run.fence_assertion.is_some(), "fence is {fence}");
                },
            }
        }
    }

    /// Applying the same log again gives the same state: nothing but the log goes in.
    #[test]
    fn applying_is_deterministic(rolls in prop::collection::vec(any::<(u8, u8, u8)>(), 1..60)) {
        let (mut one, mut two) = (World::new(), World::new());
        for dice in rolls {
            let change = random_change(&one, dice);
            one.apply(change.clone());
            two.apply(change);
        }
        prop_assert_eq!(serde_json::to_string(&one.state).unwrap(), serde_json::to_string(&two.state).unwrap());
    }
}

#[test]
fn a_traffic_run_moves_traffic_and_leaves_serving_alone() {
    let mut world = World::new();
    let mut open = world.open_change("r1");
    if let Change::OpenRun { kind, plan, .. } = &mut open {
        *kind = RunKind::Traffic;
        plan.stages.retain(|stage| stage.steps.iter().any(|step| step.id.as_str() == "dns"));
        plan.stages[0].steps.retain(|step| step.id.as_str() == "dns");
    }
    world.must(open);
    let token = world.claim("r1");
    world.do_step("dns", token);
    world.must(close(&world, token, RunOutcome::Succeeded, false));
    let group = world.group();
    assert_eq!((group.traffic.as_str(), group.serving.epoch), ("hanoi", 1));
    assert_eq!(group.serving.region, Some(region("hcmc")));
    assert!(events(&world).contains(&"LB_FAILOVER".to_owned()));
}

#[test]
fn a_recovery_stays_in_its_region_and_moves_nothing() {
    let mut world = World::new();
    let opening = |world: &World, from: &str, to: &str| {
        let mut open = world.open_recovery("r1", to);
        if let Change::OpenRun { plan, .. } = &mut open {
            plan.from = region(from);
        }
        open
    };
    assert_eq!(world.rejected(opening(&world, "hcmc", "hanoi")), RejectionCode::Invalid);
    assert_eq!(world.rejected(opening(&world, "witness", "witness")), RejectionCode::Invalid);
    world.must(opening(&world, "hanoi", "hanoi"));
    let token = world.claim("r1");
    let serving = world.group().serving.clone();
    world.do_step("services", token);
    world.do_step("verify", token);
    world.must(close(&world, token, RunOutcome::Succeeded, false));
    let group = world.group();
    assert_eq!((&group.serving, &group.traffic, &group.last_failover), (&serving, &region("hcmc"), &None));
}
