//! Refusals as programs read them: the code, the stable reason, the fields, the precondition, when to ask again.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;
use watchdog::api::details::DOMAIN;
use watchdog::api::refuse::{REJECTION_CODES, about, invalid, not_now, outcome_unknown, rejected, too_many};
use watchdog::clock::unix_now;
use watchdog::domain::command::{Rejection, RejectionCode};
use watchdog::proto::{self, Order};

use crate::ctl::ctl;
use crate::standin::{GROUP, Log, Mood, RUN, StandInNode, client, context, leader, serve};

/// What a refusal must say beside its words.
struct Wanted {
    code: Code,
    reason: &'static str,
    fields: &'static [&'static str],
    /// Type and subject.
    precondition: Option<(&'static str, &'static str)>,
    retry: bool,
    outcome: &'static str,
}

const PLAIN: Wanted =
    Wanted { code: Code::Internal, reason: "", fields: &[], precondition: None, retry: false, outcome: "none" };

fn check(what: &str, status: &Status, wanted: &Wanted) {
    let details = status.check_error_details().unwrap();
    assert_eq!(status.code(), wanted.code, "{what}: {}", status.message());
    let info = details.error_info().unwrap_or_else(|| panic!("{what}: no ErrorInfo: {status:?}"));
    assert_eq!((info.domain.as_str(), info.reason.as_str()), (DOMAIN, wanted.reason), "{what}");
    assert_eq!(info.metadata["outcome"], wanted.outcome, "{what}");
    assert_eq!(info.metadata["node"], "danang-1", "{what}");
    let bad = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    let fields: Vec<&str> = bad.iter().map(|wrong| wrong.field.as_str()).collect();
    assert_eq!(fields, wanted.fields, "{what}");
    for wrong in &bad {
        assert!(!wrong.description.is_empty() && status.message().ends_with(&wrong.description), "{what}");
    }
    let failed = details.precondition_failure().map(|failed| failed.violations.clone()).unwrap_or_default();
    let failed: Vec<_> = failed.iter().map(|v| (v.r#type.as_str(), v.subject.as_str())).collect();
    assert_eq!(failed, wanted.precondition.into_iter().collect::<Vec<_>>(), "{what}");
    assert_eq!(details.retry_info().is_some(), wanted.retry, "{what}");
}

fn pause() -> proto::PauseRequest {
    proto::PauseRequest { context: context("request-01"), group: GROUP.into(), until_ms: None }
}

#[tokio::test]
async fn each_wrong_field_is_named() {
    let (_log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    type Change = fn(&mut proto::PauseRequest);
    let table: [(&str, Change); 6] = [
        ("context", |p| p.context = None),
        ("context.request_id", |p| p.context.as_mut().unwrap().request_id.clear()),
        ("context.by", |p| p.context.as_mut().unwrap().by.clear()),
        ("context.reason", |p| p.context.as_mut().unwrap().reason.clear()),
        ("group", |p| p.group.clear()),
        ("until_ms", |p| p.until_ms = Some(1)),
    ];
    for (field, change) in table {
        let mut ask = pause();
        change(&mut ask);
        let refused = client.pause(ask).await.unwrap_err();
        let fields: &[&str] = &[field];
        let wanted = Wanted { code: Code::InvalidArgument, reason: "invalid", ..PLAIN };
        let found = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!(found.iter().map(|wrong| wrong.field.as_str()).collect::<Vec<_>>(), fields);
        check(field, &refused, &Wanted { fields: Box::leak(Box::new([field])), ..wanted });
    }
    let ask = proto::FailoverRequest {
        context: context("request-02"),
        group: GROUP.into(),
        to_region: "danang".into(),
        dry_run: true,
        ..Default::default()
    };
    let refused = client.failover(ask).await.unwrap_err();
    let wanted = Wanted { code: Code::InvalidArgument, reason: "invalid", fields: &["to_region"], ..PLAIN };
    check("a region without a plan", &refused, &wanted);
}

#[tokio::test]
async fn what_the_replicated_state_refuses_says_about_which_group() {
    let (log, node, served) = leader().await;
    let mut client = client(&served.address).await;
    let refused = client.resume(proto::ResumeRequest { context: context("request-01"), group: GROUP.into() }).await;
    let about = Some(("not_paused", "group/aicamera"));
    let wanted = Wanted { code: Code::FailedPrecondition, reason: "not_paused", precondition: about, ..PLAIN };
    check("not paused", &refused.unwrap_err(), &wanted);

    let refused = client.pause(proto::PauseRequest { group: "nobody".into(), ..pause() }).await.unwrap_err();
    check("no such group", &refused, &Wanted { code: Code::NotFound, reason: "not_found", ..PLAIN });
    let refused = client.get_run(proto::GetRunRequest { run_id: "ffffffff".into() }).await.unwrap_err();
    check("no such run", &refused, &Wanted { code: Code::NotFound, reason: "not_found", ..PLAIN });

    let seen = log.fencing_at(unix_now());
    log.claim(unix_now(), RUN);
    let ask = proto::OrderRunRequest {
        context: context("order-0001"),
        run_id: RUN.into(),
        order: Order::Abort.into(),
        confirm_group: GROUP.into(),
        expected_token: seen.to_string(),
        ..Default::default()
    };
    let refused = client.order_run(ask).await.unwrap_err();
    let about = Some(("stale", "group/aicamera"));
    check("stale", &refused, &Wanted { code: Code::Aborted, reason: "stale", precondition: about, ..PLAIN });

    let ask = proto::FailoverRequest {
        context: context("request-03"),
        group: GROUP.into(),
        to_region: "hanoi".into(),
        confirm_group: GROUP.into(),
        ..Default::default()
    };
    let refused = client.failover(ask).await.unwrap_err();
    let about = Some(("run_open", "group/aicamera"));
    let wanted = Wanted { code: Code::FailedPrecondition, reason: "run_open", precondition: about, ..PLAIN };
    check("a run is open", &refused, &wanted);

    node.set_mood(Mood::Deposed);
    let refused = client.pause(pause()).await.unwrap_err();
    check("deposed", &refused, &Wanted { code: Code::Unavailable, reason: "unavailable", retry: true, ..PLAIN });
    node.set_mood(Mood::ForgetsToAnswer);
    let wanted = Wanted { code: Code::DeadlineExceeded, reason: "outcome_unknown", retry: true, ..PLAIN };
    let refused = client.pause(pause()).await.unwrap_err();
    check("no answer", &refused, &Wanted { outcome: "unknown", ..wanted });
    node.lead_alone();
    let refused = client.pause(pause()).await.unwrap_err();
    check("alone", &refused, &Wanted { code: Code::Unavailable, reason: "no_quorum", retry: true, ..PLAIN });
}

#[tokio::test]
async fn the_leader_is_a_hint_and_its_own_word_comes_back_as_it_was() {
    let log = Log::new();
    let leading = StandInNode::new(3, &log);
    leading.lead();
    let leader = serve(&leading).await;
    let following = StandInNode::new(2, &log);
    following.follow(3, &leader.address);
    let follower = serve(&following).await;
    let mut client = client(&follower.address).await;

    // Refused by the follower itself, which knows where the leader is.
    let refused = client.get_run(proto::GetRunRequest { run_id: "ffffffff".into() }).await.unwrap_err();
    let metadata = refused.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["node"], "hanoi-1");
    assert_eq!((&metadata["leader"], &metadata["leader_address"]), (&"danang-1".to_owned(), &leader.address));

    // Refused by the leader, behind it.
    let ask = proto::ResumeRequest { context: context("request-01"), group: GROUP.into() };
    let refused = client.resume(ask).await.unwrap_err();
    let about = Some(("not_paused", "group/aicamera"));
    let wanted = Wanted { code: Code::FailedPrecondition, reason: "not_paused", precondition: about, ..PLAIN };
    check("behind the follower", &refused, &wanted);
}

#[test]
fn every_code_has_a_reason_and_the_details_that_go_with_it() {
    for (code, grpc) in REJECTION_CODES {
        let word = code.word();
        let message = if *code == RejectionCode::Invalid { "to: there is no plan" } else { "why" };
        let status = about(rejected(&Rejection { code: *code, message: message.to_owned() }), &GROUP.into());
        let details = status.check_error_details().unwrap();
        let has = (details.bad_request().is_some(), details.precondition_failure().is_some());
        let wanted = match grpc {
            Code::InvalidArgument => (true, false),
            Code::FailedPrecondition | Code::Aborted => (false, true),
            _ => (false, false),
        };
        assert_eq!(has, wanted, "{word}");
        assert_eq!(watchdog::api::details::reason(&status), word);
    }
    let delay = |status: &Status| status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(delay(&too_many("full")), Some(Duration::from_secs(10)));
    assert_eq!(delay(&not_now("no_leader", "none")), Some(Duration::from_millis(500)));
    assert_eq!(delay(&outcome_unknown(Code::Unknown, "silence")), Some(Duration::from_millis(500)));
    assert_eq!(delay(&invalid("group", "empty")), None);
}

/// What an operator typed is what is named, not the field that it became.
#[tokio::test]
async fn the_command_line_names_what_was_typed() {
    let (log, _node, served) = leader().await;
    log.fencing_at(unix_now());
    for (args, wanted) in [
        (&["pause", "two words", "--reason", "why"][..], "error: GROUP: must be a name"),
        (&["pause", GROUP, "--reason", "why", "--for", "100d"], "error: --for: more than 90 days ahead"),
        (&["resume", GROUP, "--reason", "why", "--request-id", "short"], "error: --request-id: must be 8 to 64"),
        (&["resume", GROUP, "--reason", "why", "--by", "the boss"], "error: --by: must be who asks"),
        (&["failover", GROUP, "--to", "danang", "--dry-run"], "error: --to: aicamera cannot move"),
        (&["run", "retry", RUN, "a b", "--reason", "why"], "error: STEP: must be a name"),
    ] {
        let said = ctl(&served.address, args);
        assert_eq!(said.code, 2, "{args:?}: {}", said.stderr);
        // A pause shows first how the group stands.
        assert!(said.stderr.lines().any(|line| line.starts_with(wanted)), "{args:?}: {}", said.stderr);
    }
}
