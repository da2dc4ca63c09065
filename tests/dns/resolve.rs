//! `resolve::query` against BIND and against stand-ins that answer wrongly.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use watchdog::resolve::{Question, ResolveError, query};

use crate::parts::{Named, free_port};

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn bind_answers_are_read() {
    let named = Named::start().await;
    let ask = |name: &'static str, question| query(&named.address, name, question, LIMIT);
    assert_eq!(ask("NS.demo.test", Question::A).await.unwrap().values(), ["127.0.0.1"]);
    assert_eq!(ask("alias.demo.test.", Question::A).await.unwrap().values(), ["127.0.0.1"]);
    assert_eq!(ask("alias.demo.test.", Question::Cname).await.unwrap().values(), ["ns.demo.test."]);
    let none = ask("ns.demo.test.", Question::Txt).await.unwrap();
    assert!(none.records.is_empty() && !none.no_such_name, "{none:?}");
    assert!(ask("nobody.demo.test.", Question::A).await.unwrap().no_such_name);
    // 95 addresses do not fit a datagram: asked again over TCP.
    assert_eq!(ask("many.demo.test.", Question::A).await.unwrap().records.len(), 95);
    let refused = ask("elsewhere.example.", Question::A).await.unwrap_err();
    assert!(matches!(&refused, ResolveError::ServerSays { code, .. } if code == "Refused"), "{refused}");
}

/// Answers each datagram with `reply(question)`.
async fn wrong_server(reply: fn(&[u8]) -> Vec<Vec<u8>>) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            for answer in reply(&buffer[..length]) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    address
}

fn as_answer(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer
}

#[tokio::test]
async fn wrong_answers_are_discarded_and_named() {
    type Reply = fn(&[u8]) -> Vec<Vec<u8>>;
    let cases: [(Reply, &str); 5] = [
        (|_| vec![b"garbage".to_vec()], "no DNS message"),
        (|q| vec![q.to_vec()], "a question instead"),
        (
            |q| {
                vec![{
                    let mut a = as_answer(q);
                    a[0] ^= 1;
                    a
                }]
            },
            "instead of",
        ),
        (
            |q| {
                vec![{
                    let mut a = as_answer(q);
                    a[13] = b'x';
                    a
                }]
            },
            "another question",
        ),
        (|q| vec![as_answer(&q[..14])], "no DNS message"),
    ];
    for (reply, word) in cases {
        let server = wrong_server(reply).await;
        let error = query(&server, "api.demo.test.", Question::A, Duration::from_millis(90)).await.unwrap_err();
        assert!(matches!(error, ResolveError::TimedOut { .. }) && error.to_string().contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn a_right_answer_after_wrong_ones_counts() {
    let server = wrong_server(|q| {
        let mut wrong_id = as_answer(q);
        wrong_id[0] ^= 1;
        vec![b"garbage".to_vec(), wrong_id, as_answer(q)]
    })
    .await;
    let answer = query(&server, "api.demo.test.", Question::A, LIMIT).await.unwrap();
    assert!(answer.records.is_empty() && !answer.no_such_name);
}

#[tokio::test]
async fn a_datagram_lost_on_the_way_is_asked_again() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static ASKED: AtomicBool = AtomicBool::new(false);
    let server =
        wrong_server(|q| if ASKED.swap(true, Ordering::SeqCst) { vec![as_answer(q)] } else { Vec::new() }).await;
    assert!(query(&server, "api.demo.test.", Question::A, Duration::from_millis(600)).await.is_ok());
}

#[tokio::test]
async fn a_cut_answer_is_asked_for_over_tcp_and_checked_there_too() {
    type Reply = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(Reply, &str); 4] = [
        (|q| as_answer(&q), ""),
        (
            |mut q| {
                q[1] ^= 1;
                as_answer(&q)
            },
            "malformed",
        ),
        (
            |q| {
                let mut a = as_answer(&q);
                a[2] |= 2;
                a
            },
            "although over TCP",
        ),
        (|_| vec![0xff; 40], "malformed"),
    ];
    for (reply, word) in cases {
        let port = free_port();
        let udp = UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
        let tcp = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                // Cut in the middle of the question; only the header says so.
                let mut answer = as_answer(&buffer[..length.min(14)]);
                answer[2] |= 2;
                let _ = udp.send_to(&answer, from).await;
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut question).await.unwrap();
                let answer = reply(question);
                stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        let result = query(&format!("127.0.0.1:{port}"), "api.demo.test.", Question::A, LIMIT).await;
        match word {
            "" => assert!(result.is_ok(), "{result:?}"),
            _ => assert!(result.as_ref().is_err_and(|e| e.to_string().contains(word)), "{word}: {result:?}"),
        }
    }
}
