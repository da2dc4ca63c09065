//! Planned moves in the log: what their plan must hold, what promoting demands, where they may turn back and what may
//! happen on the way back.

use crate::domain::attempt::Outcome;
use crate::domain::command::{Change, FenceProof, RejectionCode, RunOrder};
use crate::domain::fixtures::{World, done, group, plan, planned, region};
use crate::domain::ids::{RunId, StepId, Token};
use crate::domain::invariants::violations;
use crate::domain::plan::{Plan, Stage};
use crate::domain::run::{Assertion, RunKind, RunOutcome, RunPhase, StepPhase};

fn turn_back(token: Token) -> Change {
    Change::TurnBack { group: group(), run: RunId::from("r1"), token, reason: "the standby lags".to_owned() }
}

fn order(order: RunOrder) -> Change {
    let (run, reason) = (RunId::from("r1"), "I have looked".to_owned());
    Change::Order { group: group(), run, expected_token: None, order, reason }
}

fn close(token: Token, outcome: RunOutcome) -> Change {
    let (group, run, reason) = (group(), RunId::from("r1"), String::new());
    Change::CloseRun {
        group,
        run,
        token,
        outcome,
        settled: Default::default(),
        old_primary_untouched: false,
        reason,
        monitor_ms: 0,
    }
}

fn failed(retryable: bool) -> Outcome {
    Outcome::Failed { retryable, reason: "no luck".to_owned() }
}

fn unknown() -> Outcome {
    Outcome::Unknown { reason: "no answer".to_owned() }
}

/// A switchover whose fence and catch-up are done.
fn ready() -> (World, Token) {
    let (mut world, token) = World::switching("r1");
    world.do_step("fence", token);
    world.do_step("catch-up", token);
    (world, token)
}

fn serving(world: &World) -> Option<&str> {
    world.group().serving.region.as_ref().map(|region| region.as_str())
}

#[test]
fn a_switchover_moves_serving_and_asks_for_no_word_on_the_loss() {
    let (mut world, token) = ready();
    assert_eq!(serving(&world), None);
    let Change::StepStarted { group, run, step, token, attempt, fence_proof, .. } =
        world.start_change("promote", token)
    else {
        unreachable!()
    };
    let (expected_loss_ms, loss_limit_ms) = (None, None);
    world.must(Change::StepStarted { group, run, step, token, attempt, fence_proof, expected_loss_ms, loss_limit_ms });
    world.must(world.finish_change("promote", token, done()));
    for step in ["dns", "rejoin", "services", "verify"] {
        world.do_step(step, token);
    }
    world.must(close(token, RunOutcome::Succeeded));
    assert_eq!(serving(&world), Some("hanoi"));
    let told: Vec<_> = world.state.outbox.iter().map(|entry| entry.page.event.as_str()).collect();
    assert_eq!(told, ["DR_SWITCHOVER_STARTED", "DR_SWITCHOVER_SUCCESS", "DR_SWITCHOVER_ENDED"]);
    assert_eq!(violations(&world.state), Vec::<String>::new());
}

#[test]
fn p4_and_p5_a_planned_promotion_needs_the_guards_proof_and_the_catch_up() {
    let with = |world: &World, proof: Option<FenceProof>, token| {
        let Change::StepStarted { group, run, step, attempt, .. } = world.start_change("promote", token) else {
            unreachable!()
        };
        let (expected_loss_ms, loss_limit_ms) = (Some(0), Some(60_000));
        Change::StepStarted { group, run, step, token, attempt, fence_proof: proof, expected_loss_ms, loss_limit_ms }
    };
    let (mut world, token) = ready();
    let evidence = || "seen".to_owned();
    let stale = Token { epoch: 1, n: 0 };
    for proof in [
        None,
        Some(FenceProof::Guard { token: stale, evidence: evidence() }),
        Some(FenceProof::LeaseExpired { token, evidence: evidence() }),
        Some(FenceProof::Asserted),
        Some(FenceProof::Standing),
    ] {
        let change = with(&world, proof.clone(), token);
        assert_eq!(world.rejected(change), RejectionCode::NoFenceProof, "{proof:?}");
    }
    // The catch-up is not done: the stage is not due; nobody can skip it.
    for outcome in [failed(true), failed(false)] {
        let (mut world, token) = World::switching("r1");
        world.do_step("fence", token);
        world.must(world.start_change("catch-up", token));
        world.must(world.finish_change("catch-up", token, outcome));
        assert_eq!(world.rejected(world.start_change("promote", token)), RejectionCode::Illegal);
        assert_eq!(serving(&world), None);
    }
}

#[test]
fn nobodys_word_takes_the_place_of_what_a_planned_move_proves() {
    for step in ["fence", "catch-up", "promote", "release"] {
        let (mut world, _) = World::switching("r1");
        assert_eq!(world.rejected(order(RunOrder::Skip { step: step.into() })), RejectionCode::Illegal, "{step}");
    }
    let (mut world, _) = World::switching("r1");
    for word in [RunOrder::AcceptLoss, RunOrder::AssertFence { region: region("hcmc") }] {
        assert_eq!(world.rejected(order(word)), RejectionCode::Illegal);
    }
    let mut world = World::new();
    let word = Some(Assertion { by: "operator:linh".into(), at: world.now, reason: "hurry".to_owned() });
    for (loss, fence) in [(word.clone(), None), (None, word)] {
        let Change::OpenRun {
            run,
            group,
            kind,
            drill,
            plan,
            digest,
            expected_token,
            expected_serving_epoch,
            cause,
            ..
        } = world.open_planned("r1")
        else {
            unreachable!()
        };
        let change = Change::OpenRun {
            run,
            group,
            kind,
            drill,
            plan,
            digest,
            expected_token,
            expected_serving_epoch,
            cause,
            loss_acceptance: loss,
            fence_assertion: fence,
        };
        assert_eq!(world.rejected(change), RejectionCode::Invalid);
    }
}

#[test]
fn only_a_plan_that_can_turn_back_is_opened() {
    type Edit = fn(&mut Plan);
    let spoil: [(&str, Edit); 8] = [
        ("no fence", |plan| drop(plan.stages.remove(0))),
        ("no catch-up", |plan| drop(plan.stages.remove(1))),
        ("catch-up before the fence", |plan| plan.stages.swap(0, 1)),
        ("promote before catch-up", |plan| plan.stages.swap(1, 2)),
        ("names before the promotion", |plan| plan.stages.swap(2, 3)),
        ("a fence that is not waited for", |plan| plan.stages[0].steps[0].blocking = false),
        ("no way back", |plan| plan.undo.clear()),
        ("a way back that promotes", |plan| plan.undo.push(Stage { steps: plan.stages[2].steps.clone() })),
    ];
    let open = |world: &World, plan: Plan| match world.open_planned("r1") {
        Change::OpenRun {
            run,
            group,
            drill,
            digest,
            expected_token,
            expected_serving_epoch,
            cause,
            loss_acceptance,
            fence_assertion,
            ..
        } => Change::OpenRun {
            run,
            group,
            kind: RunKind::Failback,
            drill,
            plan,
            digest,
            expected_token,
            expected_serving_epoch,
            cause,
            loss_acceptance,
            fence_assertion,
        },
        other => other,
    };
    for (what, edit) in spoil {
        let mut world = World::new();
        let mut spoilt = planned("hcmc", "hanoi");
        edit(&mut spoilt);
        let change = open(&world, spoilt);
        assert_eq!(world.rejected(change), RejectionCode::Invalid, "{what}");
    }
    let mut world = World::new();
    assert_eq!(world.rejected(open(&world, plan("hcmc", "hanoi"))), RejectionCode::Invalid, "a failover's plan");
    // A group without a database promotes nothing, and has nothing to undo.
    let mut bare = planned("hcmc", "hanoi");
    bare.stages.drain(..3);
    bare.undo.clear();
    world.must(open(&world, bare));
}

/// Where a planned move stands, and whether it may turn back there by itself and by an operator's word.
#[test]
fn it_turns_back_until_its_promotion_was_begun_and_by_order_after_one_that_never_happened() {
    type Go = fn(&mut World, Token);
    let table: [(&str, Go, bool, bool); 9] = [
        ("opened", |_, _| {}, true, true),
        ("fence started", |world, token| assert_eq!(world.must(world.start_change("fence", token)), None), true, true),
        (
            "fence unknown",
            |world, token| {
                world.must(world.start_change("fence", token));
                world.must(world.finish_change("fence", token, unknown()));
            },
            true,
            true,
        ),
        ("fence done", |world, token| world.do_step("fence", token), true, true),
        (
            "catch-up failed",
            |world, token| {
                world.do_step("fence", token);
                world.must(world.start_change("catch-up", token));
                world.must(world.finish_change("catch-up", token, failed(false)));
            },
            true,
            true,
        ),
        (
            "promote started",
            |world, token| {
                world.do_step("fence", token);
                world.do_step("catch-up", token);
                world.must(world.start_change("promote", token));
            },
            false,
            false,
        ),
        (
            "promote unknown",
            |world, token| {
                world.do_step("fence", token);
                world.do_step("catch-up", token);
                world.must(world.start_change("promote", token));
                world.must(world.finish_change("promote", token, unknown()));
            },
            false,
            false,
        ),
        (
            "promote failed for certain",
            |world, token| {
                world.do_step("fence", token);
                world.do_step("catch-up", token);
                world.must(world.start_change("promote", token));
                world.must(world.finish_change("promote", token, failed(true)));
            },
            false,
            true,
        ),
        (
            "promote done",
            |world, token| {
                world.do_step("fence", token);
                world.do_step("catch-up", token);
                world.do_step("promote", token);
            },
            false,
            false,
        ),
    ];
    for (what, go, by_itself, by_order) in table {
        let (mut world, token) = World::switching("r1");
        go(&mut world, token);
        if by_itself {
            world.must(turn_back(token));
            assert_eq!(world.run().phase, RunPhase::Reverting, "{what}");
            assert_eq!(world.rejected(turn_back(token)), RejectionCode::Illegal, "{what}: twice");
        } else {
            assert_eq!(world.rejected(turn_back(token)), RejectionCode::Illegal, "{what}");
        }
        let (mut world, token) = World::switching("r1");
        go(&mut world, token);
        world.must(order(RunOrder::Abort));
        let is_back = world.run().phase == RunPhase::Reverting;
        assert_eq!(is_back, by_order, "{what}: {:?}", world.run().phase);
        assert_eq!(violations(&world.state), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn only_a_planned_move_turns_back_and_only_under_its_token_and_not_while_paused() {
    let (mut world, token) = World::opened("r1");
    world.do_step("fence", token);
    assert_eq!(world.rejected(turn_back(token)), RejectionCode::Illegal, "a failover");
    let (mut world, old) = World::switching("r1");
    let token = world.claim("r1");
    assert_eq!(world.rejected(turn_back(old)), RejectionCode::Stale);
    world.must(Change::Pause { group: group(), reason: "wait".to_owned(), until: None });
    assert_eq!(world.rejected(turn_back(token)), RejectionCode::Paused);
    world.must(order(RunOrder::Abort));
    assert_eq!(world.run().phase, RunPhase::Reverting, "a person's word counts while paused");
    world.must(Change::Resume { group: group(), reason: "go".to_owned(), expired: None });
}

#[test]
fn on_the_way_back_nothing_goes_forward_and_the_old_primary_serves_again_when_it_is_released() {
    let (mut world, token) = ready();
    assert_eq!(world.rejected(world.start_change("release", token)), RejectionCode::Illegal, "not turned back yet");
    let epoch = world.group().serving.epoch;
    world.must(turn_back(token));
    for step in ["promote", "dns", "verify", "fence"] {
        assert_eq!(world.rejected(world.start_change(step, token)), RejectionCode::Illegal, "{step}");
    }
    for word in [RunOrder::Retry { step: "promote".into() }, RunOrder::Skip { step: "dns".into() }] {
        assert_eq!(world.rejected(order(word)), RejectionCode::Illegal);
    }
    for outcome in [RunOutcome::Succeeded, RunOutcome::Withdrawn, RunOutcome::Aborted, RunOutcome::Reverted] {
        assert_eq!(world.rejected(close(token, outcome)), RejectionCode::Illegal, "{outcome}");
    }
    assert_eq!(serving(&world), None);
    assert_eq!(world.rejected(world.start_change("release", token)), RejectionCode::Illegal, "the fence's own token");
    let token = world.claim("r1");
    world.must(world.start_change("release", token));
    assert_eq!((serving(&world), world.group().serving.epoch), (Some("hcmc"), epoch + 1), "for its lease");
    world.must(world.finish_change("release", token, failed(true)));
    let (group, run, step) = (group(), RunId::from("r1"), StepId::from("release"));
    world.must(Change::MarkStuck { group, run, token, step, reason: "no answer".to_owned() });
    world.must(order(RunOrder::Retry { step: "release".into() }));
    assert_eq!(world.run().phase, RunPhase::Reverting, "a retry goes on the way it goes");
    world.do_step("release", token);
    world.must(close(token, RunOutcome::Reverted));
    assert_eq!((serving(&world), world.group().traffic.as_str()), (Some("hcmc"), "hcmc"));
    assert_eq!(world.group().last_failover, None);
    let told = world.state.outbox.iter().map(|entry| entry.page.event.as_str());
    assert!(told.clone().any(|event| event == "DR_SWITCHOVER_REVERTED"), "{:?}", told.collect::<Vec<_>>());
    assert_eq!(violations(&world.state), Vec::<String>::new());
}

#[test]
fn a_fence_that_is_an_open_question_is_answered_before_the_release() {
    let (mut world, token) = World::switching("r1");
    world.must(world.start_change("fence", token));
    world.must(turn_back(token));
    assert_eq!(world.rejected(world.start_change("release", token)), RejectionCode::Illegal);
    let token = world.claim("r1");
    world.must(world.finish_change("fence", token, failed(true)));
    world.do_step("release", token);
    world.must(close(token, RunOutcome::Reverted));
}

#[test]
fn a_failed_promotion_is_kept_out_by_a_later_token_before_the_release() {
    let (mut world, token) = ready();
    world.must(world.start_change("promote", token));
    world.must(world.finish_change("promote", token, failed(true)));
    assert_eq!(serving(&world), None);
    world.must(order(RunOrder::Abort));
    assert_eq!(world.rejected(world.start_change("release", token)), RejectionCode::Illegal);
    let token = world.claim("r1");
    world.do_step("release", token);
    assert_eq!(world.rejected(world.finish_change("promote", token, done())), RejectionCode::Illegal, "too late");
    assert_eq!(serving(&world), Some("hcmc"));
    world.must(close(token, RunOutcome::Reverted));
}

#[test]
fn what_was_never_begun_is_withdrawn() {
    let (mut world, token) = World::switching("r1");
    let epoch = world.group().serving.epoch;
    world.must(turn_back(token));
    world.must(close(token, RunOutcome::Withdrawn));
    assert_eq!((serving(&world), world.group().serving.epoch), (Some("hcmc"), epoch));
}

#[test]
fn a_second_abort_ends_the_way_back_where_it_is() {
    let (mut world, token) = ready();
    world.must(turn_back(token));
    let token = world.claim("r1");
    world.must(world.start_change("release", token));
    world.must(order(RunOrder::Abort));
    assert!(matches!(world.run().phase, RunPhase::Aborting { .. }));
    world.must(close(token, RunOutcome::Aborted));
    let left: Vec<_> = world.group().unsettled.keys().map(|resource| resource.0.as_str()).collect();
    assert_eq!(left, ["host:db-hcmc"], "its release may still take effect");
}

#[test]
fn silence_is_no_proof_for_a_planned_move() {
    let (mut world, token) = World::switching("r1");
    world.must(world.start_change("fence", token));
    let (group, run, step, evidence) = (group(), RunId::from("r1"), StepId::from("fence"), "silent".to_owned());
    let change = Change::LeaseLapsed { group, run, token, step, evidence };
    assert_eq!(world.rejected(change), RejectionCode::Illegal);
    assert_eq!(world.run().phase_of(&"fence".into()), StepPhase::Started);
}
