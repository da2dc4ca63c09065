//! Calls that were refused are in the audit: who, from where, what and why; and nobody can fill it with them.

use tonic::{Code, Request};
use watchdog::domain::audit::AuditEntry;
use watchdog::proto;

use crate::identity::Pki;
use crate::standin::{GROUP, Log, RUN, StandInNode, client, context, leader, serve_by, wait_until};

fn refusals(log: &Log) -> Vec<AuditEntry> {
    log.state().audit.iter().filter(|entry| entry.what.starts_with("refused ")).cloned().collect()
}

/// Waits for so many, and answers the newest.
async fn newest(log: &Log, count: usize) -> AuditEntry {
    wait_until("the refusal in the audit", || async { refusals(log).len() >= count }).await;
    let all = refusals(log);
    assert_eq!(all.len(), count, "{all:#?}");
    all.last().unwrap().clone()
}

fn pause(id: &str) -> proto::PauseRequest {
    proto::PauseRequest { context: context(id), group: GROUP.into(), until_ms: None }
}

#[tokio::test]
async fn p10_each_kind_of_refusal_is_in_the_audit() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    // Before it is known who asks.
    let none = proto::PauseRequest { context: None, ..pause("") };
    assert_eq!(client.pause(none).await.unwrap_err().code(), Code::InvalidArgument);
    let entry = newest(&log, 1).await;
    assert_eq!((entry.by.as_str(), entry.what.as_str()), ("unproven", "refused Pause"));
    assert!(entry.outcome.starts_with("refused (invalid): context: missing"), "{entry:?}");
    assert!(entry.from.starts_with("127.0.0.1:") && entry.seq > 0 && entry.node.0 == 3, "{entry:?}");
    // A group that is not there.
    let other = proto::PauseRequest { group: "other".into(), ..pause("pause-0001") };
    assert_eq!(client.pause(other).await.unwrap_err().code(), Code::NotFound);
    let entry = newest(&log, 2).await;
    assert_eq!(entry.by.as_str(), "operator:linh");
    assert_eq!(entry.group.as_ref().unwrap().as_str(), "other");
    assert_eq!(entry.what, "refused Pause: planned work on the power supply");
    assert!(entry.outcome.starts_with("refused (not_found): no group other"), "{entry:?}");
    // A wrong value.
    let past = proto::PauseRequest { until_ms: Some(5), ..pause("pause-0002") };
    assert_eq!(client.pause(past).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(newest(&log, 3).await.outcome.contains("has already passed"));
    // A method that there is not.
    let mut grpc = tonic::client::Grpc::new(client_channel(&served.address).await);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = "/watchdog.v1.Admin/EraseAudit".parse().unwrap();
    assert_eq!(grpc.unary(Request::new(()), path, codec).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(newest(&log, 4).await.what, "refused an unknown method");
    // A question with a mistake in it is nobody's business.
    let ask = proto::ListAuditRequest { limit: 501, ..Default::default() };
    client.list_audit(ask).await.unwrap_err();
    // What the log itself refused is there as that, once.
    let ask = proto::ResumeRequest { context: context("resume-001"), group: GROUP.into() };
    assert_eq!(client.resume(ask).await.unwrap_err().code(), Code::FailedPrecondition);
    let order = proto::OrderRunRequest {
        context: context("order-0001"),
        run_id: RUN.into(),
        order: proto::Order::Abort.into(),
        confirm_group: GROUP.into(),
        ..Default::default()
    };
    assert_eq!(client.order_run(order).await.unwrap_err().code(), Code::NotFound);
    newest(&log, 5).await;
    let state = log.state();
    let by_log = state.audit.iter().filter(|entry| entry.outcome.starts_with("rejected: ")).collect::<Vec<_>>();
    assert_eq!(by_log.len(), 1, "{by_log:#?}");
    assert!(by_log[0].from.starts_with("127.0.0.1:"));
}

async fn client_channel(address: &str) -> tonic::transport::Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn p10_who_may_not_is_in_the_audit_once_through_a_follower_too() {
    let pki = Pki::new();
    let (log, _leader, leading) = pki.leader().await;
    let follower = StandInNode::new(2, &log);
    follower.follow(3, &leading.address);
    let following = serve_by(&follower, Some(pki.material("node-hanoi-1"))).await;
    // Refused by the first node.
    let mut viewer = pki.client("user-vy", &following.address).await;
    assert_eq!(viewer.pause(pause("pause-0001")).await.unwrap_err().code(), Code::PermissionDenied);
    let entry = newest(&log, 1).await;
    assert_eq!((entry.by.as_str(), entry.node.0), ("user:vy", 2));
    assert!(entry.outcome.contains("Pause needs role operator"), "{entry:?}");
    // Refused by the leader, for whom the follower carried it.
    let mut operator = pki.client("user-linh", &following.address).await;
    let other = proto::PauseRequest { group: "other".into(), ..pause("pause-0002") };
    assert_eq!(operator.pause(other).await.unwrap_err().code(), Code::NotFound);
    let entry = newest(&log, 2).await;
    assert_eq!((entry.by.as_str(), entry.node.0), ("user:linh", 3));
    // Somebody else's certificate, on the nodes' own service.
    let mut peer = proto::peer_client::PeerClient::new(pki.dial("user-an", &leading.address).await);
    assert_eq!(peer.note(proto::PeerRequest::default()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(newest(&log, 3).await.what, "refused Note");
}

#[tokio::test]
async fn p10_a_flood_of_refused_calls_is_bounded() {
    let pki = Pki::new();
    let (log, _leader, leading) = pki.leader().await;
    let mut viewer = pki.client("user-vy", &leading.address).await;
    for n in 0..300 {
        viewer.pause(pause(&format!("pause-{n:04}"))).await.unwrap_err();
    }
    let mut stranger = pki.client("user-stranger", &leading.address).await;
    stranger.pause(pause("pause-x001")).await.unwrap_err();
    let entry = newest(&log, 2).await;
    assert_eq!(entry.by.as_str(), "user:stranger");
}

/// A viewer reads all of it; whoever calls whatever, what was entered stays as it is.
#[tokio::test]
async fn p10_a_viewer_reads_the_audit_and_nobody_changes_it() {
    let pki = Pki::new();
    let (log, _leader, leading) = pki.leader().await;
    let mut admin = pki.client("user-an", &leading.address).await;
    admin.pause(pause("pause-0001")).await.unwrap();
    let before = log.state();
    let mut viewer = pki.client("user-vy", &leading.address).await;
    let page = viewer.list_audit(proto::ListAuditRequest::default()).await.unwrap().into_inner();
    assert_eq!(page.entries.len(), before.audit.len());
    let head = before.audit_head();
    assert_eq!((page.head_seq, page.head_hash), (head.seq, head.hash.to_string()));
    let newest = &page.entries[0];
    assert_eq!((newest.seq, &newest.hash), (head.seq, &head.hash.to_string()));
    assert_eq!((&newest.prev, newest.by.as_str()), (&page.entries[1].hash, "user:an"));
    let resume = proto::ResumeRequest { context: context("resume-001"), group: GROUP.into() };
    admin.resume(resume).await.unwrap();
    admin.pause(pause("pause-0001")).await.unwrap();
    let after = log.state();
    assert!(after.audit.iter().zip(&before.audit).all(|(after, before)| after == before));
    assert!(after.audit.len() > before.audit.len());
    // There is one method that speaks of the audit to people, and it only reads.
    let audit = |row: &&watchdog::api::access::Row| row.path.to_lowercase().contains("audit");
    let rows: Vec<_> = watchdog::api::access::ACCESS.iter().filter(audit).map(|row| row.path).collect();
    assert_eq!(rows, ["/watchdog.v1.Admin/ListAudit"]);
}
