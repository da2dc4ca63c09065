//! Bad input: each a precise answer naming the field, and nothing is changed.

use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use watchdog::clock::unix_now;
use watchdog::proto::{self, Order, WriteContext};

use crate::standin::{GROUP, Log, RUN, client, context, leader};

fn with(change: impl FnOnce(&mut WriteContext)) -> Option<WriteContext> {
    let mut context = context("request-01").unwrap();
    change(&mut context);
    Some(context)
}

/// Entries of what was proposed for callers and by nodes: that a call was refused is an entry too.
fn proposed(log: &Log) -> usize {
    log.state().audit.iter().filter(|entry| !entry.what.starts_with("refused ")).count()
}

#[tokio::test]
async fn contexts() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    let table: [(Option<WriteContext>, &str); 12] = [
        (None, "context: missing"),
        (with(|c| c.request_id.clear()), "context.request_id: "),
        (with(|c| c.request_id = "short".into()), "context.request_id: "),
        (with(|c| c.request_id = "x".repeat(65)), "context.request_id: "),
        (with(|c| c.request_id = "with space".into()), "context.request_id: "),
        (with(|c| c.by.clear()), "context.by: "),
        (with(|c| c.by = "linh; rm -rf".into()), "context.by: "),
        (with(|c| c.by = "x".repeat(65)), "context.by: "),
        (with(|c| c.reason.clear()), "context.reason: empty"),
        (with(|c| c.reason = "   ".into()), "context.reason: empty"),
        (with(|c| c.reason = "ă".repeat(501)), "context.reason: longer than 500"),
        (with(|c| c.reason = "two\nlines \u{1b}[31m".into()), "context.reason: must be one line"),
    ];
    for (context, wanted) in table {
        let ask = proto::PauseRequest { context, group: GROUP.into(), until_ms: None };
        let refused = client.pause(ask).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wanted}");
        assert!(refused.message().starts_with(wanted), "{} for {wanted}", refused.message());
    }
    assert_eq!(proposed(&log), 1, "nothing was proposed");
}

#[tokio::test]
async fn pauses() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    let now = i64::try_from(unix_now().0).unwrap();
    let table = [
        ("", None, Code::InvalidArgument, "group: empty"),
        ("two words", None, Code::InvalidArgument, "group: "),
        ("nobody", None, Code::NotFound, "no group nobody; known: aicamera"),
        (GROUP, Some(-1), Code::InvalidArgument, "until_ms: "),
        (GROUP, Some(now - 1), Code::InvalidArgument, "until_ms: "),
        (GROUP, Some(now + 91 * 86_400_000), Code::InvalidArgument, "until_ms: more than 90 days"),
        (GROUP, Some(i64::MAX), Code::InvalidArgument, "until_ms: more than 90 days"),
    ];
    for (group, until_ms, code, wanted) in table {
        let ask = proto::PauseRequest { context: context("request-01"), group: group.into(), until_ms };
        let refused = client.pause(ask).await.unwrap_err();
        assert_eq!(refused.code(), code, "{group} {until_ms:?}");
        assert!(refused.message().starts_with(wanted), "{} for {wanted}", refused.message());
    }
    assert_eq!(proposed(&log), 1, "nothing was proposed");
}

#[tokio::test]
async fn failovers() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    let sound = proto::FailoverRequest {
        context: context("request-01"),
        group: GROUP.into(),
        to_region: "hanoi".into(),
        confirm_group: GROUP.into(),
        ..Default::default()
    };
    type Change = fn(&mut proto::FailoverRequest);
    let table: [(Change, Code, &str); 6] = [
        (|f| f.confirm_group = "aicamerA".into(), Code::InvalidArgument, "confirm_group: is \"aicamerA\""),
        (|f| f.confirm_group.clear(), Code::InvalidArgument, "confirm_group: is \"\""),
        (|f| f.to_region.clear(), Code::InvalidArgument, "to_region: empty"),
        (|f| f.expected_token = "7".into(), Code::InvalidArgument, "expected_token: token \"7\" is not of the form"),
        (|f| f.assert_fence_region = "hanoi".into(), Code::InvalidArgument, "assert_fence_region: hanoi is where"),
        (|f| f.expected_token = "1.9".into(), Code::Aborted, ""),
    ];
    for (change, code, wanted) in table {
        let mut ask = sound.clone();
        change(&mut ask);
        let refused = client.failover(ask).await.unwrap_err();
        assert_eq!(refused.code(), code, "{}", refused.message());
        assert!(refused.message().starts_with(wanted), "{} for {wanted}", refused.message());
    }
    let mut ask = sound;
    ask.to_region = "danang".into();
    ask.dry_run = true;
    assert_eq!(client.failover(ask).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(log.state().groups[&GROUP.into()].open_run.is_none());
}

#[tokio::test]
async fn orders() {
    let (log, _node, served) = leader().await;
    let token = log.fencing_at(unix_now()).to_string();
    let mut client = client(&served.address).await;
    let sound = proto::OrderRunRequest {
        context: context("request-01"),
        run_id: RUN.into(),
        order: Order::Abort.into(),
        confirm_group: GROUP.into(),
        expected_token: token,
        ..Default::default()
    };
    type Change = fn(&mut proto::OrderRunRequest);
    let table: [(Change, Code, &str); 8] = [
        (|o| o.order = 0, Code::InvalidArgument, "order: 0 is none of"),
        (|o| o.order = 99, Code::InvalidArgument, "order: 99 is none of"),
        (|o| o.order = Order::Skip.into(), Code::InvalidArgument, "step: empty"),
        (|o| o.order = Order::AssertFence.into(), Code::InvalidArgument, "region: empty"),
        (|o| o.confirm_group = "other".into(), Code::InvalidArgument, "confirm_group: is \"other\""),
        (|o| o.expected_token.clear(), Code::InvalidArgument, "expected_token: empty"),
        (|o| o.run_id.clear(), Code::InvalidArgument, "run_id: empty"),
        (|o| o.run_id = "01955555-0000-7000-8000-00000000dead".into(), Code::NotFound, "no run "),
    ];
    let before = proposed(&log);
    for (change, code, wanted) in table {
        let mut ask = sound.clone();
        change(&mut ask);
        let refused = client.order_run(ask).await.unwrap_err();
        assert_eq!(refused.code(), code, "{}", refused.message());
        assert!(refused.message().starts_with(wanted), "{} for {wanted}", refused.message());
    }
    assert_eq!(proposed(&log), before, "nothing was proposed");
}

#[tokio::test]
async fn limits_and_names_of_reads() {
    let (_log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    let ask = proto::ListRunsRequest { limit: 201, ..Default::default() };
    assert!(client.list_runs(ask).await.unwrap_err().message().starts_with("limit: 201 is more than 200"));
    let ask = proto::ListAuditRequest { limit: 501, ..Default::default() };
    assert!(client.list_audit(ask).await.unwrap_err().message().starts_with("limit: 501 is more than 500"));
    let ask = proto::GetStatusRequest { group: "nobody".into(), local: false };
    assert_eq!(client.get_status(ask).await.unwrap_err().code(), Code::NotFound);
    let ask = proto::FollowRunRequest { run_id: "ffffffff".into() };
    assert_eq!(client.follow_run(ask).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_oversized_message_is_refused_unread() {
    let (log, _node, served) = leader().await;
    let mut context = context("request-01").unwrap();
    context.reason = "x".repeat(100_000);
    let ask = proto::PauseRequest { context: Some(context), group: GROUP.into(), until_ms: None };
    let refused = client(&served.address).await.pause(ask).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{}", refused.message());
    assert_eq!(proposed(&log), 1);
}

#[tokio::test]
async fn an_unknown_method_and_garbage_are_refused() {
    let (_log, _node, served) = leader().await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", served.address)).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
    let table = [
        ("/watchdog.v1.Admin/Explode", Code::Unimplemented),
        ("/watchdog.v9.Admin/Pause", Code::Unimplemented),
        ("/watchdog.v1.Admin/Pause", Code::Internal),
    ];
    for (path, code) in table {
        grpc.ready().await.unwrap();
        // As a PauseRequest this is garbage: field 1 is a message there, and a number here.
        let garbage = proto::Standing { term: 7, as_of_index: 9, node: "\u{1}".into(), ..Default::default() };
        let codec = tonic_prost::ProstCodec::<proto::Standing, proto::PauseResponse>::default();
        let refused = grpc.unary(Request::new(garbage), PathAndQuery::from_static(path), codec).await.unwrap_err();
        assert_eq!(refused.code(), code, "{path}: {}", refused.message());
    }
}
