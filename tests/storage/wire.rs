//! What a node answers to a peer that is not one, or sends what no peer sends. It goes on serving afterwards.

use tonic::{Code, Status};
use watchdog::consensus::{MAX_COMMAND_BYTES, MAX_MESSAGE_BYTES, ProposeError, Reached, Retention};
use watchdog::domain::ids::NodeId;
use watchdog::proto::peer_client::PeerClient;
use watchdog::proto::{self as wire, Header, PeerRequest, SnapshotChunk};

use crate::cluster::Cluster;
use crate::support::{CALL, note};

/// As node 2 calls node 1.
fn header(cluster: &Cluster) -> Header {
    let consensus = &cluster.nodes[&2].consensus;
    Header {
        cluster: "demo".to_owned(),
        epoch: 1,
        from: 2,
        to: 1,
        store: consensus.store_id().to_owned(),
        to_store: String::new(),
        reached: consensus.reached().iter().map(Reached::to_wire).collect(),
    }
}

fn request(header: Option<Header>, payload: &[u8]) -> PeerRequest {
    PeerRequest { header, payload: payload.to_vec(), quorum_age_ms: None }
}

const VOTE_OF_3: &str = r#"{"vote":{"leader_id":{"term":99,"voted_for":3},"committed":true},"prev_log_id":null,"entries":[],"leader_commit":null}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_no_peer_makes_is_refused_precisely() {
    let cluster = Cluster::form(Retention::default()).await;
    let leader = cluster.leader().await;
    let address = cluster.members[&NodeId(1)].address.clone();
    let mut client = PeerClient::connect(format!("http://{address}")).await.expect("connects");
    let large = vec![b'x'; MAX_MESSAGE_BYTES + 1];
    let deep = "[".repeat(100_000);
    let header = || header(&cluster);
    let reaching = |change: fn(Reached) -> Vec<wire::Reached>| {
        let own = cluster.nodes[&2].consensus.reached().remove(0);
        request(Some(Header { reached: change(own), ..header() }), b"{}")
    };
    let table: [(&str, PeerRequest, Code, &str); 18] = [
        ("no header", request(None, b"{}"), Code::InvalidArgument, "header"),
        (
            "cluster",
            request(Some(Header { cluster: "x".to_owned(), ..header() }), b"{}"),
            Code::FailedPrecondition,
            "\"x\"",
        ),
        ("epoch", request(Some(Header { epoch: 7, ..header() }), b"{}"), Code::FailedPrecondition, "epoch 7"),
        ("to", request(Some(Header { to: 3, ..header() }), b"{}"), Code::FailedPrecondition, "node 3"),
        ("from", request(Some(Header { from: 1, ..header() }), b"{}"), Code::FailedPrecondition, "calls itself"),
        ("unknown node", request(Some(Header { from: 77, ..header() }), b"{}"), Code::PermissionDenied, "node 77"),
        (
            "no store",
            request(Some(Header { store: String::new(), ..header() }), b"{}"),
            Code::FailedPrecondition,
            "header.store: missing",
        ),
        (
            "other store",
            request(Some(Header { store: "x".to_owned(), ..header() }), b"{}"),
            Code::FailedPrecondition,
            "another store",
        ),
        (
            "other store of its own",
            request(Some(Header { to_store: "x".to_owned(), ..header() }), b"{}"),
            Code::FailedPrecondition,
            "header.to_store",
        ),
        ("says nothing of itself", reaching(|_| Vec::new()), Code::InvalidArgument, "does not say how far it came"),
        (
            "other than was said",
            reaching(|own| vec![wire::Reached { position: own.position + 1, ..own.to_wire() }]),
            Code::InvalidArgument,
            "header.reached: of node 2: its checksum",
        ),
        (
            "before its start",
            reaching(|own| vec![Reached { began: own.position + 1, ..own }.to_wire()]),
            Code::InvalidArgument,
            "before its start",
        ),
        ("too many", reaching(|own| vec![own.to_wire(); 129]), Code::InvalidArgument, "129 stores are more than 128"),
        (
            "went back",
            reaching(|own| vec![Reached { start: "restored".to_owned(), began: own.position, ..own }.to_wire()]),
            Code::FailedPrecondition,
            "header.reached: the store of node 2 went back in time",
        ),
        ("garbage", request(Some(header()), b"\xff\x00garbage"), Code::InvalidArgument, "payload"),
        ("nested", request(Some(header()), deep.as_bytes()), Code::InvalidArgument, "payload"),
        ("another's vote", request(Some(header()), VOTE_OF_3.as_bytes()), Code::InvalidArgument, "payload.vote"),
        ("oversized", request(Some(header()), &large), Code::OutOfRange, "length"),
    ];
    for (what, request, code, words) in table {
        let refused = client.append(request).await.expect_err(what);
        assert_eq!((refused.code(), refused.message().contains(words)), (code, true), "{what}: {refused}");
    }
    cluster.nodes[&leader].consensus.propose(note("still"), CALL).await.expect("it goes on");
    assert_eq!(cluster.leader().await, leader, "nobody was deposed by it");
}

fn begin(header: Header, bytes: u64, crc32c: u32, term: u64) -> SnapshotChunk {
    let begin = format!(
        r#"{{"vote":{{"leader_id":{{"term":1,"voted_for":2}},"committed":true}},"meta":{{"last_log_id":{{"leader_id":{term},"index":5}},"last_membership":{{"log_id":null,"membership":{{"configs":[],"nodes":{{}}}}}},"snapshot_id":""}},"bytes":{bytes},"crc32c":{crc32c}}}"#
    );
    SnapshotChunk { header: Some(header), begin: begin.into_bytes(), data: Vec::new() }
}

fn data(bytes: &[u8]) -> SnapshotChunk {
    SnapshotChunk { header: None, begin: Vec::new(), data: bytes.to_vec() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_not_one_is_refused_precisely() {
    let cluster = Cluster::form(Retention::default()).await;
    let leader = cluster.leader().await;
    let address = cluster.members[&NodeId(1)].address.clone();
    let mut client = PeerClient::connect(format!("http://{address}")).await.expect("connects");
    let sum = crc32c::crc32c(b"{}x");
    let begin = |bytes, crc32c, term| begin(header(&cluster), bytes, crc32c, term);
    let table: [(&str, Vec<SnapshotChunk>, Code, &str); 7] = [
        ("empty", vec![], Code::InvalidArgument, "begin"),
        ("no header", vec![data(b"x")], Code::InvalidArgument, "header"),
        ("huge", vec![begin(u64::MAX, 0, 1)], Code::OutOfRange, "begin.bytes"),
        ("later term", vec![begin(3, sum, 9)], Code::InvalidArgument, "later term"),
        ("too much", vec![begin(3, sum, 1), data(b"{}xx")], Code::InvalidArgument, "more than"),
        ("cut short", vec![begin(3, sum, 1), data(b"{}")], Code::DataLoss, "2 of 3"),
        ("not a state", vec![begin(3, sum, 1), data(b"{}x")], Code::InvalidArgument, "payload"),
    ];
    for (what, chunks, code, words) in table {
        let refused: Status = client.snapshot(futures::stream::iter(chunks)).await.expect_err(what);
        assert_eq!((refused.code(), refused.message().contains(words)), (code, true), "{what}: {refused}");
    }
    cluster.nodes[&leader].consensus.propose(note("still"), CALL).await.expect("it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_commands_go_through_and_oversized_ones_are_refused() {
    let mut cluster = Cluster::form(Retention::default()).await;
    let leader = cluster.leader().await;
    let other = (1..=3).find(|id| *id != leader).expect("three nodes");
    cluster.stop(other).await;
    let consensus = cluster.nodes[&leader].consensus.clone();
    let refused = consensus.propose(note(&"x".repeat(MAX_COMMAND_BYTES)), CALL).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    let large = "y".repeat(MAX_COMMAND_BYTES - 1000);
    for _ in 0..MAX_MESSAGE_BYTES / MAX_COMMAND_BYTES + 2 {
        consensus.propose(note(&large), CALL).await.expect("two of three suffice");
    }
    // What it missed is more than one message may carry: it comes in several.
    cluster.start(other).await;
    cluster.agree().await;
}
