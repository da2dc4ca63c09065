//! The caller's deadline: nothing is begun once it has passed, nobody is waited for beyond it, and the answer says which.
//!
//! The calls are made within the process: tonic's own client stops listening when its deadline passes, and so would never
//! see what the node says.

use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http::Request as HttpRequest;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use tower::{Layer, ServiceExt};
use watchdog::api::access::AccessLayer;
use watchdog::api::backups::{RESTORE_CHUNK_BYTES, sha256};
use watchdog::api::refusals::Refusals;
use watchdog::clock::unix_now;
use watchdog::domain::identity::Identity;
use watchdog::domain::ids::NodeId;
use watchdog::proto::admin_client::AdminClient;
use watchdog::proto::{self, WatchRequest};
use watchdog::tls::{Dialer, Peer};

use crate::standin::{GROUP, Log, Mood, RUN, StandInNode, config, context, leader, serve};

/// The node's own services behind the table of roles, without a wire between.
fn within(
    node: &std::sync::Arc<StandInNode>,
) -> AdminClient<impl GrpcService<Body, ResponseBody = Body, Error: Into<tonic::codegen::StdError>> + Clone> {
    within_as(node, Peer::Plain { from: None })
}

fn within_as(
    node: &std::sync::Arc<StandInNode>,
    peer: Peer,
) -> AdminClient<impl GrpcService<Body, ResponseBody = Body, Error: Into<tonic::codegen::StdError>> + Clone> {
    let routes = watchdog::api::routes(node.clone(), Dialer::Plain, CancellationToken::new()).unwrap();
    let refusals = Refusals::new(NodeId(3), "danang-1".into());
    let served = AccessLayer::new(config().roles(), "danang-1".into(), refusals).layer(routes);
    AdminClient::new(served.map_request(move |mut request: HttpRequest<Body>| {
        request.extensions_mut().insert(peer.clone());
        request
    }))
}

fn by<T>(message: T, timeout: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

fn pause() -> proto::PauseRequest {
    proto::PauseRequest { context: context("pause-0001"), group: GROUP.into(), until_ms: None }
}

fn said(status: &Status) -> (Code, String, String) {
    let info = status.get_details_error_info().unwrap();
    (status.code(), info.reason, info.metadata["outcome"].clone())
}

#[tokio::test]
async fn nothing_is_begun_after_it() {
    let (log, node, _served) = leader().await;
    let mut client = within(&node);
    let before = log.state();
    let wanted = (Code::DeadlineExceeded, "deadline_exceeded".to_owned(), "none".to_owned());
    let refused = client.pause(by(pause(), "0n")).await.unwrap_err();
    assert_eq!(said(&refused), wanted, "{}", refused.message());
    assert!(refused.message().contains("nothing was changed"), "{}", refused.message());
    let ask = proto::FailoverRequest {
        context: context(RUN),
        group: GROUP.into(),
        to_region: "hanoi".into(),
        confirm_group: GROUP.into(),
        ..Default::default()
    };
    assert_eq!(said(&client.failover(by(ask, "0n")).await.unwrap_err()), wanted);
    let ask = proto::ChangeNodesRequest {
        context: context("nodes-0001"),
        action: proto::NodeAction::Remove.into(),
        node: "hanoi-1".into(),
        confirm_name: "hanoi-1".into(),
        ..Default::default()
    };
    assert_eq!(said(&client.change_nodes(by(ask, "0n")).await.unwrap_err()), wanted);
    let ask = proto::TransferLeadershipRequest { context: context("leader-001"), ..Default::default() };
    assert_eq!(said(&client.transfer_leadership(by(ask, "0n")).await.unwrap_err()), wanted);
    assert_eq!(log.state(), before);
    client.pause(by(pause(), "20S")).await.unwrap();
}

#[tokio::test]
async fn what_is_under_way_when_it_passes_has_an_unknown_outcome() {
    let (log, node, _served) = leader().await;
    node.set_mood(Mood::Hangs);
    let refused = within(&node).pause(by(pause(), "300m")).await.unwrap_err();
    assert_eq!(said(&refused), (Code::DeadlineExceeded, "outcome_unknown".to_owned(), "unknown".to_owned()));
    assert!(refused.message().contains("ask again with the same request_id"), "{}", refused.message());
    assert!(log.state().groups[&GROUP.into()].pause.is_some(), "and it was done");
}

/// A backup that the stand-in's cluster would take: its own state, of an epoch before.
fn restore(log: &Log) -> Vec<proto::RestoreRequest> {
    let mut state = serde_json::to_value(&*log.state()).unwrap();
    state["epoch"] = 0.into();
    let data = serde_json::to_vec(&state).unwrap();
    let bytes = u64::try_from(data.len()).unwrap();
    let header = proto::BackupHeader { bytes, sha256: sha256(&data), ..Default::default() };
    let head = proto::RestoreRequest {
        context: context("restore-01"),
        header: Some(header),
        serving: [(GROUP.to_owned(), "hcmc".to_owned())].into(),
        confirm_cluster: "demo".to_owned(),
        ..Default::default()
    };
    let chunks = data
        .chunks(RESTORE_CHUNK_BYTES)
        .map(|data| proto::RestoreRequest { data: data.to_vec(), ..Default::default() });
    std::iter::once(head).chain(chunks).collect()
}

#[tokio::test]
async fn a_restoration_heeds_it_too() {
    let (log, node, _served) = leader().await;
    let mut client = within(&node);
    let before = log.state();
    let late = client.restore(by(tokio_stream::iter(restore(&log)), "0n")).await.unwrap_err();
    assert_eq!(said(&late), (Code::DeadlineExceeded, "deadline_exceeded".to_owned(), "none".to_owned()));
    assert!(late.message().contains("nothing was changed"), "{}", late.message());
    // One whose messages stop coming is not waited for beyond it.
    let stops =
        tokio_stream::StreamExt::chain(tokio_stream::iter(restore(&log).into_iter().take(1)), tokio_stream::pending());
    let late = client.restore(by(stops, "300m")).await.unwrap_err();
    assert_eq!(said(&late).2, "none", "{}", late.message());
    assert_eq!(log.state(), before);

    node.set_mood(Mood::Hangs);
    let late = client.restore(by(tokio_stream::iter(restore(&log)), "400m")).await.unwrap_err();
    assert_eq!(said(&late), (Code::DeadlineExceeded, "outcome_unknown".to_owned(), "unknown".to_owned()));
    // Until the last part nothing of it takes effect; the same call again does it.
    node.set_mood(Mood::Healthy);
    assert!(!log.state().audit.iter().any(|entry| entry.what.starts_with("restore the backup")));
    let done = client.restore(by(tokio_stream::iter(restore(&log)), "20S")).await.unwrap().into_inner();
    assert!(done.restored);
}

#[tokio::test]
async fn what_is_handed_over_or_changed_when_it_passes_has_an_unknown_outcome() {
    let (_log, node, _served) = leader().await;
    node.set_mood(Mood::Hangs);
    let mut client = within(&node);
    let wanted = (Code::DeadlineExceeded, "outcome_unknown".to_owned(), "unknown".to_owned());
    let ask = proto::TransferLeadershipRequest { context: context("leader-001"), ..Default::default() };
    assert_eq!(said(&client.transfer_leadership(by(ask, "300m")).await.unwrap_err()), wanted);
    let ask = proto::ChangeNodesRequest {
        context: context("nodes-0001"),
        action: proto::NodeAction::Remove.into(),
        node: "hanoi-1".into(),
        confirm_name: "hanoi-1".into(),
        ..Default::default()
    };
    assert_eq!(said(&client.change_nodes(by(ask, "300m")).await.unwrap_err()), wanted);
}

#[tokio::test]
async fn it_goes_along_to_the_leader() {
    let log = Log::new();
    let leading = StandInNode::new(3, &log);
    leading.lead();
    leading.set_mood(Mood::Hangs);
    let leader = serve(&leading).await;
    let following = StandInNode::new(2, &log);
    following.follow(3, &leader.address);
    let refused = within(&following).pause(by(pause(), "400m")).await.unwrap_err();
    let (code, _, outcome) = said(&refused);
    assert_eq!((code, outcome.as_str()), (Code::DeadlineExceeded, "unknown"), "{}", refused.message());
    let refused = within(&following).pause(by(pause(), "0n")).await.unwrap_err();
    assert_eq!(said(&refused).2, "none", "{}", refused.message());
}

#[tokio::test]
async fn a_stream_ends_with_it() {
    let (log, node, _served) = leader().await;
    log.fencing_at(unix_now());
    let mut client = within(&node);
    let mut stream = client.watch(by(WatchRequest::default(), "300m")).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let ended = loop {
        if let Err(status) = stream.message().await {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    let follow = proto::FollowRunRequest { run_id: RUN.into() };
    let mut stream = client.follow_run(by(follow, "300m")).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert_eq!(stream.message().await.unwrap_err().code(), Code::DeadlineExceeded);
}

/// A certificate is looked at as a call begins; a stream that began before its end does not outlive it.
#[tokio::test]
async fn a_stream_ends_with_the_callers_certificate() {
    let (log, node, _served) = leader().await;
    log.fencing_at(unix_now());
    let shown = |for_ms| {
        let (identity, until) = (Identity::parse("watchdog://demo/user/vy").unwrap(), unix_now().plus(for_ms));
        Peer::Known { identity, from: None, until }
    };
    let mut client = within_as(&node, shown(400));
    let mut stream = client.watch(Request::new(WatchRequest::default())).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let ended = loop {
        if let Err(status) = stream.message().await {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    assert!(ended.message().contains("your certificate has expired meanwhile"), "{}", ended.message());
    let mut client = within_as(&node, shown(300));
    let mut stream =
        client.follow_run(Request::new(proto::FollowRunRequest { run_id: RUN.into() })).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn one_that_is_none_is_refused() {
    let (log, node, _served) = leader().await;
    for timeout in ["", "soon", "-1S", "1s", "123456789m"] {
        let refused = within(&node).pause(by(pause(), timeout)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{timeout:?}");
        assert!(refused.message().starts_with("grpc-timeout: "), "{}", refused.message());
    }
    assert_eq!(log.state().applied_index, 1);
}
