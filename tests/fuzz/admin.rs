//! Bytes where an admin message should be, through a real server and the service's checks, before a stand-in for the log.

use prost::Message;
use prost::bytes::{Buf, BufMut};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use watchdog::clock::unix_now;
use watchdog::domain::state::ClusterState;
use watchdog::proto::{self, Order};

use crate::runner::{Target, Trial, holds, printable, runtime};
use crate::standin::{GROUP, Mood, RUN, context, leader};

/// Hands bytes through as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// One genuine request of each kind. The first byte of an input says which method it is for.
fn requests() -> Vec<Vec<u8>> {
    let text = |words: &str| words.to_owned();
    let context = || context("request-01");
    let failover = proto::FailoverRequest {
        context: context(),
        group: text(GROUP),
        to_region: text("hanoi"),
        confirm_group: text(GROUP),
        dry_run: true,
        ..Default::default()
    };
    let order = proto::OrderRunRequest {
        context: context(),
        run_id: text(RUN),
        order: Order::Skip.into(),
        step: text("fence"),
        confirm_group: text(GROUP),
        expected_token: text("1.1"),
        ..Default::default()
    };
    let in_an_hour = i64::try_from(unix_now().0 + 3_600_000).unwrap();
    let all = [
        proto::GetStatusRequest { group: text(GROUP), local: true }.encode_to_vec(),
        proto::PauseRequest { context: context(), group: text(GROUP), until_ms: Some(in_an_hour) }.encode_to_vec(),
        proto::ResumeRequest { context: context(), group: text(GROUP) }.encode_to_vec(),
        failover.encode_to_vec(),
        proto::ListRunsRequest { group: text(GROUP), limit: 20, ..Default::default() }.encode_to_vec(),
        proto::GetRunRequest { run_id: text(RUN) }.encode_to_vec(),
        order.encode_to_vec(),
        proto::ListAuditRequest { group: text(GROUP), limit: 20, before_index: 7, before_seq: 0 }.encode_to_vec(),
        proto::FollowRunRequest { run_id: text(RUN) }.encode_to_vec(),
    ];
    (0..).zip(all).map(|(method, bytes)| [vec![method], bytes].concat()).collect()
}

const METHODS: &[&str] =
    &["GetStatus", "Pause", "Resume", "Failover", "ListRuns", "GetRun", "OrderRun", "ListAudit", "FollowRun"];

/// A refused call is entered in the audit, and changes nothing else.
fn but_for_the_audit(state: &ClusterState) -> ClusterState {
    let (audit, answered) = Default::default();
    ClusterState { audit, answered, audit_base: Default::default(), applied_index: 0, ..state.clone() }
}

pub fn any_admin_message_is_answered_or_refused_precisely_and_a_refused_one_changes_nothing() -> Trial {
    let runtime = runtime();
    let (log, node, served) = runtime.block_on(leader());
    log.fencing_at(unix_now());
    // Taken as a healthy leader takes it, but not appended: every case begins with the same state.
    node.set_mood(Mood::NoQuorum);
    let channel = runtime.block_on(async {
        let channel = tonic::transport::Channel::from_shared(format!("http://{}", served.address)).unwrap();
        channel.connect().await.unwrap()
    });
    let before = but_for_the_audit(&log.state());
    Target::new("admin-messages", requests())
        .judged_by(move |bytes| {
            let Some((method, message)) = bytes.split_first() else { return Ok(()) };
            let method = METHODS[usize::from(*method) % METHODS.len()];
            let path = PathAndQuery::from_maybe_shared(format!("/watchdog.v1.Admin/{method}")).unwrap();
            let answer = runtime.block_on(async {
                let mut grpc = tonic::client::Grpc::new(channel.clone());
                grpc.ready().await.unwrap();
                let ask = Request::new(message.to_vec());
                match method {
                    // Its first message, or why there is none.
                    "FollowRun" => grpc.server_streaming(ask, path, Raw).await.map(|_| ()),
                    _ => grpc.unary(ask, path, Raw).await.map(|_| ()),
                }
            });
            holds(but_for_the_audit(&log.state()) == before, || format!("{method} changed the state"))?;
            let Err(refused) = answer else { return Ok(()) };
            let known = [
                Code::InvalidArgument,
                Code::NotFound,
                Code::OutOfRange,
                Code::Aborted,
                Code::FailedPrecondition,
                Code::Unavailable,
                Code::AlreadyExists,
                // What tonic says of bytes that are no message, naming message and field.
                Code::Internal,
            ];
            holds(known.contains(&refused.code()), || format!("{method}: {refused}"))?;
            let text = refused.message();
            holds(!text.is_empty() && text.len() < 4000, || format!("{method}: {} bytes of reason", text.len()))?;
            let decoding = refused.code() != Code::Internal || text.contains("decode") || text.contains("buffer");
            holds(decoding, || format!("{method}: {refused}"))?;
            printable(text)
        })
        .keeping((node, served))
}
