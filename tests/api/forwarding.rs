//! Writes at a follower reach the leader, once; what cannot be known is said to be unknown.

use std::sync::Arc;

use tonic::{Code, Request};
use watchdog::proto;

use crate::standin::{GROUP, Log, Mood, RUN, Served, StandInNode, client, context, failing_sight, serve, wait_until};

/// A leader (node 3) and a follower (node 2).
async fn pair() -> (Arc<Log>, Arc<StandInNode>, Served, Arc<StandInNode>, Served) {
    let log = Log::new();
    let leader = StandInNode::new(3, &log);
    leader.lead();
    let leading = serve(&leader).await;
    let follower = StandInNode::new(2, &log);
    follower.follow(3, &leading.address);
    let following = serve(&follower).await;
    (log, leader, leading, follower, following)
}

fn pause() -> proto::PauseRequest {
    proto::PauseRequest { context: context("pause-0001"), group: GROUP.into(), until_ms: None }
}

#[tokio::test]
async fn every_write_reaches_the_leader() {
    let (log, _leader, _leading, _follower, following) = pair().await;
    let mut client = client(&following.address).await;
    let answer = client.pause(pause()).await.unwrap().into_inner();
    assert_eq!(answer.standing.unwrap().node, "danang-1", "the leader answered");
    client.resume(proto::ResumeRequest { context: context("resume-001"), group: GROUP.into() }).await.unwrap();
    let ask = proto::FailoverRequest {
        context: context(RUN),
        group: GROUP.into(),
        to_region: "hanoi".into(),
        confirm_group: GROUP.into(),
        ..Default::default()
    };
    client.failover(proto::FailoverRequest { dry_run: true, ..ask.clone() }).await.unwrap();
    client.failover(ask).await.unwrap();
    let ask = proto::OrderRunRequest {
        context: context("order-0001"),
        run_id: RUN.into(),
        order: proto::Order::Abort.into(),
        confirm_group: GROUP.into(),
        ..Default::default()
    };
    client.order_run(ask).await.unwrap();
    let state = log.state();
    let by_node: Vec<u64> = state.audit.iter().filter(|e| e.by.as_str() == "operator:linh").map(|e| e.node.0).collect();
    assert_eq!(by_node, [3, 3, 3, 3, 3]);
}

#[tokio::test]
async fn a_refusal_by_the_leader_comes_back_as_it_is() {
    let (_log, _leader, _leading, _follower, following) = pair().await;
    let ask = proto::ResumeRequest { context: context("resume-001"), group: GROUP.into() };
    let refused = client(&following.address).await.resume(ask).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.metadata().get("watchdog-rejection").unwrap(), "not_paused");
    assert_eq!(refused.metadata().get("watchdog-node").unwrap(), "danang-1");
}

#[tokio::test]
async fn a_follower_shows_the_votes_of_the_leader_and_does_without() {
    let (_log, leader, leading, _follower, following) = pair().await;
    *leader.sight.lock().unwrap() = failing_sight();
    let mut client = client(&following.address).await;
    let status = client.get_status(proto::GetStatusRequest::default()).await.unwrap().into_inner();
    assert!(status.has_sight);
    assert_eq!(status.standing.unwrap().node, "danang-1");

    let ask = proto::GetStatusRequest { local: true, ..Default::default() };
    let local = client.get_status(ask).await.unwrap().into_inner();
    assert_eq!((local.standing.unwrap().node.as_str(), local.has_sight), ("hanoi-1", false));

    leading.kill();
    wait_until("the follower answers by itself", || async {
        let answer = client.clone().get_status(proto::GetStatusRequest::default()).await.unwrap().into_inner();
        answer.standing.unwrap().node == "hanoi-1"
    })
    .await;
}

#[tokio::test]
async fn without_a_leader_nothing_is_changed() {
    let log = Log::new();
    let node = StandInNode::new(2, &log);
    let served = serve(&node).await;
    let status = client(&served.address).await.pause(pause()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("watchdog-rejection").unwrap(), "no_quorum");
    assert!(status.message().contains("hanoi-1 has no quorum (1 of 3 voters answer it"), "{}", status.message());
    assert!(log.state().groups[&GROUP.into()].pause.is_none());
}

#[tokio::test]
async fn an_unreachable_leader_means_nothing_was_sent() {
    let log = Log::new();
    let node = StandInNode::new(2, &log);
    // Bound and dropped: nothing listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    node.follow(3, &gone.to_string());
    let served = serve(&node).await;
    let status = client(&served.address).await.pause(pause()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("watchdog-outcome").unwrap(), "none");
    assert!(status.message().contains("cannot be reached from here"), "{}", status.message());
}

#[tokio::test]
async fn two_nodes_that_take_each_other_for_the_leader_do_not_pass_it_on() {
    let log = Log::new();
    let (one, two) = (StandInNode::new(1, &log), StandInNode::new(2, &log));
    let (first, second) = (serve(&one).await, serve(&two).await);
    one.follow(2, &second.address);
    two.follow(1, &first.address);
    let status = client(&first.address).await.pause(pause()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("hcmc-1 took hanoi-1 for the leader"), "{}", status.message());
    assert!(log.state().groups[&GROUP.into()].pause.is_none());
}

#[tokio::test]
async fn a_leader_that_dies_in_the_call_leaves_the_outcome_unknown() {
    let (log, leader, leading, _follower, following) = pair().await;
    leader.set_mood(Mood::Hangs);
    let mut client = client(&following.address).await;
    let call = tokio::spawn(async move { client.pause(pause()).await });
    wait_until("the leader applied it", || async { log.state().groups[&GROUP.into()].pause.is_some() }).await;
    leading.kill();
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unknown, "{}", status.message());
    assert_eq!(status.metadata().get("watchdog-outcome").unwrap(), "unknown");
    assert!(status.message().contains("ask again with the same request_id"));
}

#[tokio::test]
async fn a_call_may_say_by_whom_it_was_forwarded_only_once() {
    let (_log, _leader, leading, _follower, following) = pair().await;
    let mut request = Request::new(pause());
    request.metadata_mut().insert("watchdog-forwarded-by", "hcmc-1".parse().unwrap());
    assert_eq!(client(&following.address).await.pause(request).await.unwrap_err().code(), Code::Unavailable);
    let mut request = Request::new(pause());
    request.metadata_mut().insert("watchdog-forwarded-by", "hcmc-1".parse().unwrap());
    client(&leading.address).await.pause(request).await.unwrap();
}
