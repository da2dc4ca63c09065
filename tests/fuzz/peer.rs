//! What another node may send: every kind of call with any payload. It is refused, or taken; the node goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::entry::RaftEntry as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use watchdog::consensus::{Consensus, Node, Options, Reached, Retention, wire};
use watchdog::domain::ids::NodeId;
use watchdog::domain::observation::Report;
use watchdog::proto::peer_client::PeerClient;
use watchdog::proto::{Header, PeerRequest, SnapshotChunk};

use crate::corpus;
use crate::runner::{Target, Trial, holds, printable, runtime};
use crate::support::{identity, members, timing};

/// The kinds of call; the first byte of an input says which it is for.
const CALLS: &[&str] = &["append", "vote", "pre-vote", "transfer-leader", "push-report", "snapshot"];

fn payloads() -> Vec<Vec<u8>> {
    let of = |(kind, name): (u8, &&str)| {
        corpus::of(&format!("peer-{name}")).into_iter().map(move |bytes| [vec![kind], bytes].concat())
    };
    (0..).zip(CALLS).flat_map(of).collect()
}

/// Node 1 of three, whose cluster was never formed: whatever it learns, it learns from these calls.
struct Listening {
    consensus: Consensus,
    client: PeerClient<Channel>,
    _reports: tokio::sync::mpsc::Receiver<Report>,
    _folder: tempfile::TempDir,
}

impl Listening {
    async fn start(members: &BTreeMap<NodeId, Node>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (reports, received) = tokio::sync::mpsc::channel(4);
        let options = Options {
            identity: identity(1),
            members: members.clone(),
            data_dir: folder.path().to_owned(),
            timing: timing(),
            retention: Retention::default(),
            reports,
            client_tls: None,
        };
        let consensus = Consensus::start(options).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = tonic::transport::Server::builder().add_service(consensus.service().into_server());
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        let client = PeerClient::connect(format!("http://{address}")).await.unwrap();
        Self { consensus, client, _reports: received, _folder: folder }
    }

    async fn call(&mut self, kind: &str, payload: &[u8]) -> Result<(), Status> {
        let request = request(payload);
        let client = &mut self.client;
        match kind {
            "append" => client.append(request).await.map(drop),
            "vote" => client.vote(request).await.map(drop),
            "pre-vote" => client.pre_vote(request).await.map(drop),
            "transfer-leader" => client.transfer_leader(request).await.map(drop),
            "push-report" => client.push_report(request).await.map(drop),
            _ => client.snapshot(futures::stream::iter(chunks(payload))).await.map(drop),
        }
    }
}

fn header() -> Header {
    let (cluster, store, to_store) = ("demo".to_owned(), "another".to_owned(), String::new());
    let reached = Reached { node: NodeId(2), start: "first".to_owned(), began: 1, position: 1 };
    Header { cluster, epoch: 1, from: 2, to: 1, store, to_store, reached: vec![reached.to_wire()] }
}

fn request(payload: &[u8]) -> PeerRequest {
    PeerRequest { header: Some(header()), payload: payload.to_vec(), quorum_age_ms: Some(3) }
}

/// A snapshot's beginning up to the first newline, then its data, whose length and checksum are made right where they
/// stand as `BYTES` and `SUM`.
fn chunks(payload: &[u8]) -> Vec<SnapshotChunk> {
    let end = payload.iter().position(|byte| *byte == b'\n').unwrap_or(payload.len());
    let data = payload.get(end + 1..).unwrap_or_default().to_vec();
    let begin = String::from_utf8_lossy(&payload[..end])
        .replace("BYTES", &data.len().to_string())
        .replace("SUM", &crc32c::crc32c(&data).to_string());
    let first = SnapshotChunk { header: Some(header()), begin: begin.into_bytes(), data: Vec::new() };
    vec![first, SnapshotChunk { header: None, begin: Vec::new(), data }]
}

pub fn any_call_of_a_peer_is_taken_or_refused_and_the_node_goes_on() -> Trial {
    let runtime = runtime();
    let members = members(3);
    let target = Target::new("peer-messages", payloads()).cases(50);
    Target { memory_max: 64 << 20, ..target }.judged_by(move |bytes| {
        let Some((kind, payload)) = bytes.split_first() else { return Ok(()) };
        let kind = CALLS[usize::from(*kind) % CALLS.len()];
        runtime.block_on(async {
            let mut node = Listening::start(&members).await;
            // Twice: what the first left behind meets the second.
            for _ in 0..2 {
                let called = tokio::time::timeout(Duration::from_secs(10), node.call(kind, payload)).await;
                let Err(refused) = called.map_err(|_| format!("{kind}: no answer within 10 s"))? else { continue };
                let known = [Code::InvalidArgument, Code::OutOfRange, Code::DataLoss, Code::ResourceExhausted];
                holds(known.contains(&refused.code()), || format!("{kind}: {refused}"))?;
                let field =
                    ["payload", "begin", "data", "header", "too many"].iter().any(|f| refused.message().contains(f));
                holds(field && refused.message().len() < 1500, || format!("{kind}: {refused}"))?;
                printable(refused.message())?;
            }
            let alive = node.client.ping(request(b"")).await;
            alive.map_err(|gone| format!("{kind}: the node is gone: {gone}"))?;
            node.consensus.shutdown().await.map_err(|e| e.to_string())
        })
    })
}

/// The same payloads, read and checked without a node behind.
pub fn any_payload_of_a_peer_is_sound_or_refused_by_field() -> Trial {
    let peer = NodeId(2);
    Target::new("peer-payloads", payloads()).cases(1000).judged_by(move |bytes| {
        let Some((kind, payload)) = bytes.split_first() else { return Ok(()) };
        let kind = CALLS[usize::from(*kind) % CALLS.len()];
        let verdict = match kind {
            "append" => wire::read_append(peer, payload).map(|request| {
                let positions = request.entries.iter().map(|entry| entry.log_id().index);
                let begins = request.prev_log_id.map_or(0, |before| before.index + 1);
                assert!(positions.eq((begins..).take(request.entries.len())), "{request:?}");
            }),
            "vote" | "pre-vote" => wire::read_vote(peer, payload).map(drop),
            "transfer-leader" => wire::read_transfer(peer, payload).map(drop),
            "push-report" => wire::read_report(peer, payload).map(drop),
            _ => {
                let chunks = chunks(payload);
                wire::read_begin(peer, &chunks[0].begin)
                    .and_then(|(begin, _)| wire::check_data(&begin, &chunks[1].data))
            }
        };
        let Err(refused) = verdict else { return Ok(()) };
        let known = [Code::InvalidArgument, Code::OutOfRange, Code::DataLoss];
        holds(known.contains(&refused.code()), || format!("{kind}: {refused}"))?;
        let field = ["payload", "begin", "data"].iter().any(|field| refused.message().contains(field));
        holds(field && refused.message().len() < 1500, || format!("{kind}: {refused}"))?;
        printable(refused.message())
    })
}

#[test]
fn what_a_payload_says_is_repeated_short_and_without_control_characters() {
    let long = format!(r#"{{"vote":{{"leader_id":3}},"\u001b[2J{}":null}}"#, "x".repeat(100_000));
    let odd = format!(
        r#"{{"vote":{{"leader_id":{{"term":2,"voted_for":2}},"committed":true}},"prev_log_id":null,"leader_commit":null,
        "entries":[{{"log_id":{{"leader_id":2,"index":0}},"payload":{{"\u001b[2J{}":1}}}}]}}"#,
        "x".repeat(100_000)
    );
    for payload in [long, odd] {
        let refused = wire::read_append(NodeId(2), payload.as_bytes()).unwrap_err();
        assert!(refused.message().len() < 1500, "{} bytes", refused.message().len());
        printable(refused.message()).unwrap();
    }
}
