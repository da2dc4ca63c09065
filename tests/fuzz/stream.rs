//! What a server says to the commit gate, from the first byte to the log that it streams.

use std::cell::RefCell;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use postgres_protocol::message::backend::Message;
use tokio::task::LocalSet;
use tokio::time::timeout;
use watchdog::guard::commit_gate::flow::{Flow, FromServer, Lsn};
use watchdog::guard::commit_gate::wire::{Frame, Place, Session, Target as Connection, WireError, ended_by};

use crate::postgres::{TURN, message, row, server};
use crate::runner::{Target, Trial, holds, printable, runtime};

/// The lease runs until here; the clock goes on by one with every message.
const UNTIL_NS: u64 = 2;

fn sessions() -> Vec<Vec<u8>> {
    let trust = [message(b'R', &[0; 4]), message(b'K', &[0, 0, 0, 9, 0, 0, 0, 7]), message(b'Z', b"I")].concat();
    let where_it_is =
        row(&[("systemid", Some("7312345678901234567")), ("timeline", Some("1")), ("xlogpos", Some("0/3000148"))]);
    let keepalive = [b"k".as_slice(), &0x300_0148u64.to_be_bytes(), &[0; 8], &[1]].concat();
    let log = [b"w".as_slice(), &0x300_0148u64.to_be_bytes(), &[0; 16], b"log"].concat();
    let streamed = [message(b'd', &keepalive), message(b'd', &log), message(b'c', b"")].concat();
    let begun = [message(b'W', &[0, 0, 0]), streamed].concat();
    let scram = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let go_on = message(b'R', b"\0\0\0\x0br=abc,s=QSXCR+Q6sek8bf92,i=4096");
    let refusal = message(b'E', b"SFATAL\0C28P01\0Mpassword authentication failed\0\0");
    vec![
        [trust.clone(), where_it_is.clone(), begun].join(TURN),
        [scram, go_on].join(TURN),
        [message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]), refusal.clone()].join(TURN),
        [trust, where_it_is, refusal].join(TURN),
    ]
}

fn told(why: &WireError) -> Result<(), String> {
    let text = why.to_string();
    holds(text.len() < 1000 && !text.contains("S3CRETWORD"), || text.clone())?;
    printable(&text)
}

/// Reads until the server has no more to say; what is confirmed never rises without a lease.
async fn follow(connection: &Connection) -> Result<Result<(), String>, WireError> {
    let mut session = Session::open(connection).await?;
    let mut flow = Flow::begin(session.start().await?);
    let mut now_ns = 0;
    loop {
        let Some(frame) = session.frame()? else {
            session.readable().await?;
            session.fill()?;
            continue;
        };
        match frame {
            Frame::Message(Message::CopyData(body)) => {
                let Ok(message) = FromServer::parse(body.data()) else { continue };
                flow.take(message);
            }
            Frame::Message(Message::ErrorResponse(error)) => return Err(ended_by(&error)),
            Frame::Message(_) | Frame::CopyBoth => {}
        }
        now_ns += 1;
        let (before, reply) = (flow.confirmed(), flow.reply(now_ns, UNTIL_NS, true));
        let Some(reply) = reply else { continue };
        if now_ns >= UNTIL_NS && reply.confirms > before {
            return Ok(Err(format!("{} is confirmed without a lease, after {before}", reply.confirms)));
        }
        let _frame = reply.bytes(u64::MAX);
        flow.sent(reply);
    }
}

pub fn any_replication_stream_confirms_nothing_without_a_lease_and_ends_in_words() -> Trial {
    let (runtime, local) = (runtime(), LocalSet::new());
    let session = Rc::new(RefCell::new(Vec::new()));
    let port = local.block_on(&runtime, server(session.clone()));
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    fs::write(&password_file, "S3CRETWORD\n").unwrap();
    let connection = Connection {
        place: Place::Tcp(([127, 0, 0, 1], port).into()),
        role: "watchdog".to_owned(),
        name: "watchdog".to_owned(),
        password_file: Some(password_file),
    };
    let judged = move |bytes: &[u8]| {
        session.replace(bytes.to_vec());
        let looked = async { timeout(Duration::from_millis(60), follow(&connection)).await };
        match local.block_on(&runtime, looked) {
            // The gate waits as long as the server is silent, and is dropped with its host's lease.
            Err(_) => Ok(()),
            Ok(Ok(verdict)) => verdict,
            Ok(Err(why)) => told(&why),
        }
    };
    Target::new("replication-streams", sessions()).cases(200).judged_by(judged).keeping(folder)
}

pub fn any_position_is_read_as_it_is_printed() -> Trial {
    let corpus = ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"].map(|text| text.as_bytes().to_vec());
    Target::new("positions", corpus.to_vec()).judged_by(|bytes| {
        let Some(at) = Lsn::parse(&String::from_utf8_lossy(bytes)) else { return Ok(()) };
        holds(Lsn::parse(&at.to_string()) == Some(at), || format!("{at} comes back as another"))
    })
}
