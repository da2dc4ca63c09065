//! What name servers and Route 53 answer.

use std::cell::RefCell;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::LocalSet;
use tokio::time::Instant;
use watchdog::actuator::Actuator;
use watchdog::actuator::dns::DnsActuator;
use watchdog::actuator::dns::token_record::{Standing, TokenRecord, TokenRecordError, judge};
use watchdog::domain::attempt::{Raised, ReadBack, Warrant};
use watchdog::domain::ids::Token;
use watchdog::domain::plan::{Action, DnsProvider, DnsRecord, RecordKind};
use watchdog::resolve::{Answer, Question, ResolveError, answer_in, canonical_name, query};

use crate::corpus;
use crate::http::serve;
use crate::runner::{Target, Trial, holds, printable, runtime};

fn warrant() -> Warrant {
    Warrant {
        cluster: "demo".into(),
        group: "aicamera".into(),
        run: "r1".into(),
        step: "dns".into(),
        attempt: 1,
        token: Token { epoch: 1, n: 7 },
        fenced_host: None,
    }
}

pub fn any_text_is_a_token_record_as_printed_or_somebody_elses() -> Trial {
    Target::new("token-records", corpus::of("token-record")).cases(2000).judged_by(move |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        match TokenRecord::parse(&text) {
            Ok(record) => {
                holds(record.to_string() == text && record.strings().concat() == text, || {
                    format!("{text:?} is {record:?}")
                })?;
            }
            Err(TokenRecordError::BadValue { .. }) => return Err("reading blames a warrant".to_owned()),
            Err(why) => {
                holds(why.to_string().len() < 1000, || format!("{} bytes of error", why.to_string().len()))?;
                printable(&why.to_string())?;
            }
        }
        match judge(std::slice::from_ref(&text), &warrant(), "_watchdog.demo.test.") {
            Standing::Held(held) => holds(held > warrant().token && text.contains(&held.to_string()), || text),
            Standing::Ours => holds(text.contains("group=aicamera token=1.7 "), || text),
            Standing::Alien(why) => printable(&why),
            Standing::Lower { was, .. } => printable(&was),
        }
    })
}

/// A name server on loopback, over UDP and TCP, that answers everybody with what is set, under the id asked with.
async fn name_server(answer: Rc<RefCell<Vec<u8>>>) -> String {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    // Where the port is taken for TCP, cut answers are refused there, which is an answer too.
    let tcp = TcpListener::bind(address).await;
    let over_udp = answer.clone();
    tokio::task::spawn_local(async move {
        let mut question = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut question).await {
            let mut bytes = over_udp.borrow().clone();
            bytes.iter_mut().zip(&question[..length.min(2)]).for_each(|(to, from)| *to = *from);
            bytes.truncate(60_000);
            let _ = udp.send_to(&bytes, from).await;
        }
    });
    tokio::task::spawn_local(async move {
        let Ok(tcp) = tcp else { return };
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut question = [0; 2048];
            let _ = stream.read(&mut question).await;
            let mut bytes = answer.borrow().clone();
            bytes.iter_mut().zip(&question[2..4]).for_each(|(to, from)| *to = *from);
            // Not more than the length that fits, and now and then less than is announced.
            let announced = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            let _ = stream.write_all(&[announced.to_be_bytes().to_vec(), bytes].concat()).await;
        }
    });
    address.to_string()
}

pub fn any_dns_answer_is_records_of_the_name_or_an_error_with_the_server() -> Trial {
    let (runtime, local) = (runtime(), LocalSet::new());
    let answer = Rc::new(RefCell::new(Vec::new()));
    let server = local.block_on(&runtime, name_server(answer.clone()));
    Target::new("dns-answers", corpus::of("dns-answer")).cases(80).judged_by(move |bytes| {
        answer.replace(bytes.to_vec());
        for question in [Question::A, Question::Txt] {
            // What is no answer is waited out: the time-out bounds it.
            let limit = Duration::from_millis(12);
            match local.block_on(&runtime, query(&server, "api.demo.test.", question, limit)) {
                Ok(found) => sound(&found, question, bytes)?,
                Err(ResolveError::BadName { .. } | ResolveError::BadServer { .. }) => {
                    return Err("blames us".to_owned());
                }
                Err(why) => {
                    let why = why.to_string();
                    holds(why.contains(&server) && why.len() < 1000, || why.clone())?;
                    printable(&why)?;
                }
            }
        }
        Ok(())
    })
}

/// The same without sockets.
pub fn any_dns_message_is_records_of_the_name_or_an_error() -> Trial {
    let server = "192.0.2.1:53".parse().unwrap();
    Target::new("dns-messages", corpus::of("dns-answer")).cases(1000).judged_by(move |bytes| {
        for question in [Question::A, Question::Aaaa, Question::Cname, Question::Txt] {
            match answer_in(server, "api.demo.test.", question, bytes) {
                Ok(found) => sound(&found, question, bytes)?,
                Err(ResolveError::Malformed { .. } | ResolveError::ServerSays { .. }) => {}
                Err(why) => return Err(format!("{why:?}")),
            }
        }
        Ok(())
    })
}

fn sound(found: &Answer, question: Question, bytes: &[u8]) -> Result<(), String> {
    holds(found.records.len() * 10 <= bytes.len(), || format!("{} records", found.records.len()))?;
    for record in &found.records {
        holds(record.question == question && canonical_name(&record.name) == record.name, || format!("{record:?}"))?;
    }
    holds(question != Question::A || found.addresses().len() == found.records.len(), || format!("{found:?}"))
}

pub fn any_answer_of_route_53_is_judged_or_told() -> Trial {
    let (runtime, local) = (runtime(), LocalSet::new());
    let answer = Rc::new(RefCell::new(Vec::new()));
    let port = local.block_on(&runtime, serve(answer.clone()));
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("credentials");
    fs::write(&credentials, "[default]\naws_access_key_id = a\naws_secret_access_key = S3CRETKEY\n").unwrap();
    let provider = DnsProvider::Route53 {
        name: "aws".into(),
        hosted_zone_id: "Z0123456789".into(),
        endpoint_url: Some(format!("http://127.0.0.1:{port}")),
        credentials_file: Some(credentials.display().to_string()),
    };
    let record =
        DnsRecord { name: "api.demo.test.".into(), kind: RecordKind::A, ttl_s: 60, value: "127.0.0.12".into() };
    let records = vec![record];
    let upsert = Action::UpsertDns { provider, token_record: "_watchdog.demo.test.".into(), records };
    let dns = DnsActuator::new();
    let target = Target::new("route-53-answers", corpus::of("route53")).cases(60);
    Target { memory_max: 64 << 20, ..target }
        .judged_by(move |bytes| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n", bytes.len());
            answer.replace([head.as_bytes(), bytes].concat());
            let soon = || Instant::now() + Duration::from_millis(400);
            let text = String::from_utf8_lossy(bytes);
            let seen = local.block_on(&runtime, dns.read_back(&warrant(), &upsert, soon()));
            let raised = local.block_on(&runtime, dns.raise(&warrant(), &upsert, soon()));
            let words = format!("{seen:?} {raised:?}");
            holds(!words.contains("S3CRETKEY"), || words.clone())?;
            match seen {
                ReadBack::Done { .. } => holds(text.contains("token=1.7") && text.contains("127.0.0.12"), || words)?,
                ReadBack::Refused { held } => holds(held > warrant().token, || words)?,
                ReadBack::Unknown { reason } => {
                    holds(reason.len() < 4000, || format!("{} bytes of reason", reason.len()))?;
                    printable(&reason)?;
                }
                _ => {}
            }
            match raised {
                Raised::Refused { held } => holds(held > warrant().token, || format!("{held}")),
                Raised::Unknown { reason } => {
                    holds(reason.len() < 4000, || format!("{} bytes of reason", reason.len()))
                }
                Raised::Done { .. } => Ok(()),
            }
        })
        .keeping(folder)
}
