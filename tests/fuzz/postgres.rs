//! What a PostgreSQL server says to the probes, message by message.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::timeout;
use watchdog::domain::observation::Measure;
use watchdog::probe::{Endpoint, ProbeBuilder, ProbeSpec, ProbeSurroundings, Role};

use crate::runner::{Target, Trial, holds, printable, runtime};

/// Between what answers one message of the client and what answers the next.
pub const TURN: &[u8] = b"\n--turn--\n";

pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], length.as_slice(), body].concat()
}

pub fn row(columns: &[(&str, Option<&str>)]) -> Vec<u8> {
    let count = i16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    let (mut head, mut data) = (count.clone(), count);
    for (name, value) in columns {
        head.extend(
            [
                name.as_bytes(),
                b"\0",
                &[0; 6],
                &25i32.to_be_bytes(),
                &(-1i16).to_be_bytes(),
                &(-1i32).to_be_bytes(),
                &[0; 2],
            ]
            .concat(),
        );
        match value {
            Some(text) => data.extend([&i32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()),
            None => data.extend((-1i32).to_be_bytes()),
        }
    }
    [message(b'T', &head), message(b'D', &data), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

/// A server's whole side of one look: let in, settings taken, one row.
fn session(columns: &[(&str, Option<&str>)]) -> Vec<u8> {
    let let_in = [
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0015.4\0"),
        message(b'K', &[0, 0, 0, 9, 0, 0, 0, 7]),
        message(b'Z', b"I"),
    ];
    let set = [message(b'C', b"SET\0"), message(b'C', b"SET\0"), message(b'Z', b"I")].concat();
    [let_in.concat(), set, row(columns)].join(TURN)
}

fn sessions() -> Vec<Vec<u8>> {
    let look = [("in_recovery", Some("f")), ("lsn", Some("16/B374D848")), ("timeline", Some("00000001"))];
    let standby = [
        ("in_recovery", Some("t")),
        ("received", Some("0/3000148")),
        ("replayed", Some("0/3000148")),
        ("receiving", Some("t")),
        ("status", Some("streaming")),
        ("replay_age_ms", Some("-17")),
        ("system", Some("7312345678901234567")),
        ("lsn", None),
    ];
    let refusal = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0";
    vec![session(&look), session(&standby), message(b'E', refusal), session(&[])]
}

pub async fn server(session: Rc<RefCell<Vec<u8>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let session = session.borrow().clone();
            tokio::task::spawn_local(async move {
                let mut heard = [0; 4096];
                let mut rest = session.as_slice();
                while !rest.is_empty() && stream.read(&mut heard).await.is_ok_and(|length| length > 0) {
                    let end = rest.windows(TURN.len()).position(|piece| piece == TURN);
                    let (now, then) = end.map_or((rest, &[][..]), |end| (&rest[..end], &rest[end + TURN.len()..]));
                    let _ = stream.write_all(now).await;
                    rest = then;
                }
            });
        }
    });
    port
}

pub fn any_answer_of_a_database_is_a_measure_or_a_failure() -> Trial {
    let (runtime, local) = (runtime(), LocalSet::new());
    let session = Rc::new(RefCell::new(Vec::new()));
    let port = local.block_on(&runtime, server(session.clone()));
    let database = Endpoint {
        conninfo: format!("host=127.0.0.1 port={port} user=watchdog dbname=postgres"),
        ..Endpoint::default()
    };
    let specs = [
        ProbeSpec::Postgres { database: database.clone(), expect_role: Role::Any, canary: false },
        ProbeSpec::Replication { primary: database.clone(), standby: database },
    ];
    let target = Target::new("postgresql-answers", sessions()).cases(100);
    // An announced length is taken at its word before it is there; the system gives no memory that is not written.
    Target { memory_max: usize::MAX, ..target }.judged_by(move |bytes| {
        session.replace(bytes.to_vec());
        for spec in &specs {
            let looked = local.block_on(&runtime, async {
                let around = ProbeSurroundings { who: "test".to_owned(), timeout_ms: 1000, expected: None };
                // A new one each time: no connection is held from the case before.
                let probe = ProbeBuilder::default().build(spec, around).unwrap();
                timeout(Duration::from_millis(60), probe.probe()).await
            });
            // A schedule drops a look at its time-out; nothing may keep it from being dropped.
            let Ok(looked) = looked else { continue };
            match looked {
                Ok(measure) => {
                    let known = matches!(measure, Some(Measure::Postgres { .. } | Measure::Replication(_)));
                    holds(known, || format!("{measure:?}"))?;
                }
                Err(failure) => {
                    holds(failure.detail.chars().count() <= 301, || failure.detail.clone())?;
                    printable(&failure.detail)?;
                }
            }
        }
        Ok(())
    })
}
