//! Each call at a leading node.

use tonic::Code;
use watchdog::api::refuse::{REJECTION, REJECTION_CODES, rejected};
use watchdog::clock::unix_now;
use watchdog::domain::attempt::Outcome;
use watchdog::domain::command::{Change, Rejection};
use watchdog::domain::run::RunOutcome;
use watchdog::proto::{self, Mode, Order, Present, RunPhase, StepPhase};

use crate::standin::{GROUP, Mood, RUN, client, context, failing_sight, leader};

#[tokio::test]
async fn status_shows_group_votes_and_standing() {
    let (_log, node, served) = leader().await;
    *node.sight.lock().unwrap() = failing_sight();
    let ask = proto::GetStatusRequest::default();
    let status = client(&served.address).await.get_status(ask).await.unwrap().into_inner();

    let standing = status.standing.unwrap();
    assert_eq!((standing.node.as_str(), standing.leader.as_str()), ("danang-1", "danang-1"));
    assert!(standing.has_quorum && status.has_sight);
    assert_eq!((standing.as_of_index, standing.term), (1, 7));
    let group = &status.groups[0];
    assert_eq!(group.serving.as_ref().unwrap().region, "hcmc");
    assert_eq!(group.mode(), Mode::Automatic);
    assert_eq!(group.votes.len(), 6);
    assert_eq!(group.votes[0].not_counted, "isolated");
    assert_eq!(group.replication[0].limit_ms, 900_000);
    let leads: Vec<bool> = status.nodes.iter().map(|node| node.is_leader).collect();
    assert_eq!(leads, [false, false, true]);
}

#[tokio::test]
async fn pause_and_resume_are_done_once_and_audited() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    let until = i64::try_from(unix_now().plus(7_200_000).0).unwrap();
    let ask = proto::PauseRequest { context: context("pause-0001"), group: GROUP.into(), until_ms: Some(until) };
    let pause = client.pause(ask.clone()).await.unwrap().into_inner().pause.unwrap();
    assert_eq!((pause.by.as_str(), pause.until_ms), ("operator:linh", Some(until)));
    let once = log.state().audit.len();
    client.pause(ask).await.unwrap();
    assert_eq!(log.state().audit.len(), once, "the same request id is not done twice");

    let status = client.get_status(proto::GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.groups[0].mode(), Mode::Paused);

    let ask = proto::ResumeRequest { context: context("resume-001"), group: GROUP.into() };
    client.resume(ask).await.unwrap();
    let again = proto::ResumeRequest { context: context("resume-002"), group: GROUP.into() };
    let refused = client.resume(again).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.metadata().get(REJECTION).unwrap(), "not_paused");

    let audit = client.list_audit(proto::ListAuditRequest::default()).await.unwrap().into_inner();
    let lines: Vec<(&str, &str)> = audit.entries.iter().map(|e| (e.by.as_str(), e.what.as_str())).collect();
    assert_eq!(lines[0], ("operator:linh", "resume"));
    assert!(audit.entries[0].outcome.starts_with("rejected: "), "{}", audit.entries[0].outcome);
    assert_eq!(audit.entries[2].reason, "planned work on the power supply");
}

#[tokio::test]
async fn a_dry_run_shows_plan_gates_and_what_is_there_and_opens_nothing() {
    let (log, _node, served) = leader().await;
    let ask = proto::FailoverRequest {
        context: context("dry-run-01"),
        group: GROUP.into(),
        to_region: "hanoi".into(),
        dry_run: true,
        ..Default::default()
    };
    let plan = client(&served.address).await.failover(ask).await.unwrap().into_inner();
    let steps: Vec<(&str, u32, Present)> =
        plan.steps.iter().map(|step| (step.id.as_str(), step.stage, step.present())).collect();
    assert_eq!(steps[0], ("fence", 1, Present::Unknown));
    assert!(steps.contains(&("promote", 2, Present::NotDone)), "{steps:?}");
    assert!(plan.would_open && plan.gates.iter().any(|gate| !gate.open && gate.before_promote));
    assert_eq!((plan.token.as_str(), plan.run_id.as_str()), ("1.0", ""));
    assert!(log.state().groups[&GROUP.into()].open_run.is_none());
    assert!(log.state().audit.back().unwrap().what.starts_with("dry run of a failover to hanoi"));
}

#[tokio::test]
async fn a_failover_opens_once_whatever_is_repeated() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    let ask = proto::FailoverRequest {
        context: context(RUN),
        group: GROUP.into(),
        to_region: "hanoi".into(),
        confirm_group: GROUP.into(),
        expected_token: "1.0".into(),
        accept_loss: true,
        assert_fence_region: "hcmc".into(),
        dry_run: false,
    };
    let first = client.failover(ask.clone()).await.unwrap().into_inner();
    let again = client.failover(ask.clone()).await.unwrap().into_inner();
    assert_eq!((first.run_id.as_str(), again.run_id.as_str()), (RUN, RUN));
    let state = log.state();
    let run = state.groups[&GROUP.into()].open_run.as_ref().unwrap();
    assert_eq!(run.fence_assertion.as_ref().unwrap().by.as_str(), "operator:linh");
    assert!(run.loss_acceptance.is_some() && !run.cause.automatic);

    let other = proto::FailoverRequest { context: context("another-id"), ..ask };
    let refused = client.failover(other).await.unwrap_err();
    assert_eq!(refused.metadata().get(REJECTION).unwrap(), "run_open");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn runs_are_found_listed_and_paged() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    for n in 1..=3 {
        let id = format!("0195555{n}-0000-7000-8000-000000000001");
        let at = unix_now();
        log.open_at(at, &id);
        let token = log.claim(at, &id);
        log.done(Change::CloseRun {
            group: GROUP.into(),
            run: id.as_str().into(),
            token,
            outcome: RunOutcome::Withdrawn,
            settled: [].into(),
            old_primary_untouched: true,
            reason: "hcmc came back".to_owned(),
            monitor_ms: 0,
        });
    }
    let ask = proto::ListRunsRequest { limit: 2, ..Default::default() };
    let page = client.list_runs(ask).await.unwrap().into_inner();
    assert!(page.more);
    let ids: Vec<&str> = page.runs.iter().map(|run| &run.id[..8]).collect();
    assert_eq!(ids, ["01955553", "01955552"]);
    assert_eq!(page.runs[0].phase(), RunPhase::Withdrawn);
    let ask = proto::ListRunsRequest { before_run_id: page.runs[1].id.clone(), ..Default::default() };
    let page = client.list_runs(ask).await.unwrap().into_inner();
    assert_eq!((page.runs.len(), page.more), (1, false));

    let by_prefix = client.get_run(proto::GetRunRequest { run_id: "01955552".into() }).await.unwrap().into_inner();
    assert_eq!(by_prefix.run.unwrap().claims[0].node, "danang-1");
    for (asked, code) in [("0195555", Code::NotFound), ("ffffffff", Code::NotFound), ("", Code::InvalidArgument)] {
        let refused = client.get_run(proto::GetRunRequest { run_id: asked.into() }).await.unwrap_err();
        assert_eq!(refused.code(), code, "{asked:?}");
    }
}

#[tokio::test]
async fn following_gives_each_change_and_ends_with_the_run() {
    let (log, node, served) = leader().await;
    let at = unix_now();
    let token = log.fencing_at(at);
    let mut stream = client(&served.address)
        .await
        .follow_run(proto::FollowRunRequest { run_id: RUN.into() })
        .await
        .unwrap()
        .into_inner();
    let first = stream.message().await.unwrap().unwrap().run.unwrap();
    assert_eq!(first.steps[0].phase(), StepPhase::Started);

    log.finish(at.plus(300), RUN, "fence", token, Outcome::Done { evidence: "stopped and latched".to_owned() });
    let second = stream.message().await.unwrap().unwrap().run.unwrap();
    assert_eq!(second.steps[0].phase(), StepPhase::Done);

    node.lose_quorum();
    let third = stream.message().await.unwrap().unwrap().standing.unwrap();
    assert!(!third.has_quorum && third.note.contains("1 of 3 voters"));

    log.abort(at.plus(400), RUN, token);
    let mut last = RunPhase::Open;
    while let Some(message) = stream.message().await.unwrap() {
        last = message.run.unwrap().summary.unwrap().phase();
    }
    assert_eq!(last, RunPhase::Aborted);
}

#[tokio::test]
async fn every_order_reaches_the_run() {
    let table = [
        (Order::Retry, "fence", "", RunPhase::Open),
        (Order::AssertFence, "", "hcmc", RunPhase::Open),
        (Order::AcceptLoss, "", "", RunPhase::Stuck),
        (Order::Skip, "services", "", RunPhase::Stuck),
        (Order::Abort, "", "", RunPhase::Aborting),
    ];
    for (order, step, region, phase) in table {
        let (log, _node, served) = leader().await;
        let at = unix_now();
        let token = log.fencing_at(at);
        let lost = Outcome::Unknown { reason: "no answer from db-hcmc within 10 s".to_owned() };
        log.finish(at, RUN, "fence", token, lost);
        log.stuck(at, RUN, "fence", token, "no fence proof");
        // The default plan's third stage starts the services, one step each.
        let step = if step == "services" {
            log.state().groups[&GROUP.into()].open_run.as_ref().unwrap().plan.stages[2].steps[0].id.0.clone()
        } else {
            step.to_owned()
        };
        let ask = proto::OrderRunRequest {
            context: context("order-0001"),
            run_id: RUN.into(),
            order: order.into(),
            step,
            region: region.into(),
            confirm_group: GROUP.into(),
            expected_token: token.to_string(),
        };
        let run = client(&served.address).await.order_run(ask).await.unwrap().into_inner().run.unwrap();
        assert_eq!(run.summary.unwrap().phase(), phase, "{order:?}");
    }
}

#[tokio::test]
async fn an_order_on_an_old_view_is_aborted() {
    let (log, _node, served) = leader().await;
    let at = unix_now();
    let seen = log.fencing_at(at);
    log.claim(at, RUN);
    let ask = proto::OrderRunRequest {
        context: context("order-0001"),
        run_id: RUN.into(),
        order: Order::Abort.into(),
        confirm_group: GROUP.into(),
        expected_token: seen.to_string(),
        ..Default::default()
    };
    let refused = client(&served.address).await.order_run(ask).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert_eq!(refused.metadata().get(REJECTION).unwrap(), "stale");
}

#[tokio::test]
async fn audit_is_paged_without_gap_or_overlap() {
    let (log, _node, served) = leader().await;
    for n in 0..25 {
        log.done(Change::Note { group: None, what: format!("note {n}"), outcome: "done".to_owned() });
    }
    let mut client = client(&served.address).await;
    let (mut before_index, mut seen) = (0, Vec::new());
    loop {
        let ask = proto::ListAuditRequest { limit: 10, before_index, ..Default::default() };
        let page = client.list_audit(ask).await.unwrap().into_inner();
        seen.extend(page.entries.iter().map(|entry| entry.index));
        before_index = page.next_before_index;
        if before_index == 0 {
            break;
        }
    }
    assert_eq!(seen, (1..=26).rev().collect::<Vec<u64>>());
}

#[test]
fn every_rejection_has_its_code() {
    let wanted = [
        ("not_found", Code::NotFound),
        ("stale", Code::Aborted),
        ("run_open", Code::FailedPrecondition),
        ("paused", Code::FailedPrecondition),
        ("illegal", Code::FailedPrecondition),
        ("no_fence_proof", Code::FailedPrecondition),
        ("loss_too_great", Code::FailedPrecondition),
        ("no_standby", Code::FailedPrecondition),
        ("not_paused", Code::FailedPrecondition),
        ("run_closed", Code::FailedPrecondition),
        ("other_config", Code::FailedPrecondition),
        ("already_failed_over", Code::FailedPrecondition),
        ("unsettled", Code::FailedPrecondition),
        ("taken", Code::FailedPrecondition),
        ("change_under_way", Code::FailedPrecondition),
        ("is_leader", Code::FailedPrecondition),
        ("layout_broken", Code::FailedPrecondition),
        ("quorum_lost", Code::FailedPrecondition),
        ("not_reachable", Code::FailedPrecondition),
        ("invalid", Code::InvalidArgument),
    ];
    assert_eq!(REJECTION_CODES.len(), wanted.len());
    for ((code, _), (word, grpc)) in REJECTION_CODES.iter().zip(wanted) {
        let status = rejected(&Rejection { code: *code, message: "why".to_owned() });
        assert_eq!((status.code(), status.message()), (grpc, "why"));
        assert_eq!(status.metadata().get(REJECTION).unwrap(), word);
        // The word on the wire is the one that the log and its JSON use.
        assert_eq!(serde_json::to_value(code).unwrap(), word);
    }
}

#[tokio::test]
async fn proposals_that_fail_say_whether_anything_was_done() {
    let table = [
        (Mood::Deposed, Code::Unavailable, "none"),
        (Mood::NoQuorum, Code::Unavailable, "none"),
        (Mood::ForgetsToAnswer, Code::DeadlineExceeded, "unknown"),
    ];
    for (mood, code, outcome) in table {
        let (_log, node, served) = leader().await;
        node.set_mood(mood);
        let ask = proto::PauseRequest { context: context("pause-0001"), group: GROUP.into(), until_ms: None };
        let status = client(&served.address).await.pause(ask).await.unwrap_err();
        assert_eq!(status.code(), code, "{mood:?}");
        assert_eq!(status.metadata().get("watchdog-outcome").unwrap(), outcome, "{mood:?}");
        assert_eq!(status.metadata().get("watchdog-node").unwrap(), "danang-1");
        if outcome == "unknown" {
            assert!(status.message().contains("outcome unknown: ask again with the same request_id"));
        }
    }
}
