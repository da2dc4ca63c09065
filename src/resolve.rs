//! Asking one name server one question, by UDP with TCP where the answer does not fit. No cache, no search path, no
//! following of other servers: what is wanted is what *that* server says *now*.
//!
//! An answer counts only from the address asked, with the id sent and for the question put; anything else is discarded
//! and named in the error if nothing better comes before the time-out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

/// Largest datagram we say we take: what passes every usual path unfragmented (DNS Flag Day 2020).
const UDP_PAYLOAD_BYTES: u16 = 1232;
/// A datagram without an answer is sent again this often within the time-out: datagrams are lost without a fault.
const UDP_SENDS: u32 = 3;
/// CNAMEs followed inside one answer.
const MAX_ALIASES: usize = 8;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name this one stands for.
    Cname,
    /// Texts.
    Txt,
}

impl Question {
    /// The type in the library's words.
    pub fn record_type(self) -> RecordType {
        match self {
            Question::A => RecordType::A,
            Question::Aaaa => RecordType::AAAA,
            Question::Cname => RecordType::CNAME,
            Question::Txt => RecordType::TXT,
        }
    }
}

impl From<crate::domain::plan::RecordKind> for Question {
    fn from(kind: crate::domain::plan::RecordKind) -> Self {
        use crate::domain::plan::RecordKind;
        match kind {
            RecordKind::A => Question::A,
            RecordKind::Aaaa => Question::Aaaa,
            RecordKind::Cname => Question::Cname,
        }
    }
}

/// Why there is no answer. An empty answer (no such name, or none of that type) is not an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name asked for is none.
    #[error("{name:?} is not a name that can be asked for: {detail}")]
    BadName {
        /// As given.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The server's address is none.
    #[error("name server {server:?} is not of the form address:port: {detail}")]
    BadServer {
        /// As given.
        server: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Nothing usable came in time.
    #[error("name server {server} gave no answer within {timeout_ms} ms{discarded}")]
    TimedOut {
        /// Who was asked.
        server: SocketAddr,
        /// How long, milliseconds.
        timeout_ms: u64,
        /// What came instead, if anything: `; discarded: …`.
        discarded: String,
    },
    /// Nobody listens there.
    #[error("name server {server} refused the connection: nothing listens there")]
    ConnectionRefused {
        /// Who was asked.
        server: SocketAddr,
    },
    /// The network failed otherwise.
    #[error("name server {server} cannot be asked: {detail}")]
    Network {
        /// Who was asked.
        server: SocketAddr,
        /// The system's words.
        detail: String,
    },
    /// It answered what is no answer (over TCP, where nobody else could have).
    #[error("name server {server} answered something malformed: {detail}")]
    Malformed {
        /// Who was asked.
        server: SocketAddr,
        /// What is wrong with it.
        detail: String,
    },
    /// It answered that it cannot or will not say.
    #[error("name server {server} answered {code}")]
    ServerSays {
        /// Who was asked.
        server: SocketAddr,
        /// `SERVFAIL`, `REFUSED` … in the library's words.
        code: String,
    },
}

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRecord {
    /// Whose record, lower case with its final dot.
    pub name: String,
    /// Its type.
    pub question: Question,
    /// Time to live as told, seconds.
    pub ttl_s: u32,
    /// An address; a name in lower case with its final dot; a text with its strings joined (what is not UTF-8 is
    /// replaced).
    pub value: String,
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The records of the asked type, aliases within the answer followed. Sorted by value. Empty where there are none.
    pub records: Vec<AnswerRecord>,
    /// The server says the name does not exist at all (NXDOMAIN).
    pub no_such_name: bool,
}

impl Answer {
    /// The values alone, sorted.
    pub fn values(&self) -> Vec<String> {
        self.records.iter().map(|record| record.value.clone()).collect()
    }

    /// The addresses among the values.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.records.iter().filter_map(|record| record.value.parse().ok()).collect()
    }
}

/// A name in the one spelling used for comparing: lower case, with its final dot.
pub fn canonical_name(name: &str) -> String {
    let mut name = name.to_ascii_lowercase();
    if !name.ends_with('.') {
        name.push('.');
    }
    name
}

/// Asks `server` (`address:port`; `[…]:port` for IPv6) for `name` and gives what it says, within `limit`.
pub async fn query(server: &str, name: &str, question: Question, limit: Duration) -> Result<Answer, ResolveError> {
    let server: SocketAddr = server.parse().map_err(|e| ResolveError::BadServer {
        server: server.to_owned(),
        detail: format!("{e}, for example 192.0.2.1:53"),
    })?;
    let asked = parse_name(name)?;
    let message = question_message(&asked, question.record_type());
    let response = match timeout(limit, ask(server, &message, limit)).await {
        Ok(response) => response?,
        Err(_) => return Err(timed_out(server, limit, None)),
    };
    read_answer(server, &response, &asked, question)
}

/// Reads a name as typed: fully qualified, with or without its final dot.
pub(crate) fn parse_name(name: &str) -> Result<Name, ResolveError> {
    let wrong = |detail: String| ResolveError::BadName { name: name.to_owned(), detail };
    let mut parsed = Name::from_ascii(name).map_err(|e| wrong(e.to_string()))?;
    if parsed.is_root() || name.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    parsed.set_fqdn(true);
    Ok(parsed)
}

/// A query for one name and type, with a fresh random id.
pub(crate) fn question_message(name: &Name, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), record_type));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_BYTES).set_version(0);
    message.set_edns(edns);
    message
}

/// What is wrong with `response` as an answer to `request`; `None` where it is one.
pub(crate) fn mismatch(request: &Message, response: &Message) -> Option<String> {
    if response.metadata.message_type != MessageType::Response {
        return Some("a question instead of an answer".to_owned());
    }
    if response.metadata.id != request.metadata.id {
        return Some(format!("id {} instead of {}", response.metadata.id, request.metadata.id));
    }
    if response.metadata.op_code != request.metadata.op_code {
        return Some(format!("operation {:?} instead of {:?}", response.metadata.op_code, request.metadata.op_code));
    }
    // A server that could not read the question, or an update's, need not repeat it.
    let may_omit =
        request.metadata.op_code == OpCode::Update || response.metadata.response_code != ResponseCode::NoError;
    if !(response.queries.is_empty() && may_omit) && response.queries != request.queries {
        return Some("an answer to another question".to_owned());
    }
    None
}

/// Sends `bytes` over a connected stream and reads one answer, both with their length in front (RFC 1035, 4.2.2).
pub(crate) async fn exchange_tcp(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(bytes.len()).map_err(|_| io::Error::other("the message is longer than 65535 bytes"))?;
    let mut framed = Vec::with_capacity(bytes.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await?;
    let mut response = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut response).await?;
    Ok(response)
}

async fn ask(server: SocketAddr, message: &Message, limit: Duration) -> Result<Message, ResolveError> {
    let malformed = |detail: String| ResolveError::Malformed { server, detail };
    let bytes = message.to_vec().map_err(|e| malformed(format!("the question cannot be written: {e}")))?;
    let response = ask_udp(server, message, &bytes, limit).await?;
    if !response.metadata.truncation {
        return Ok(response);
    }
    let failed = |e: io::Error| io_error(server, &e);
    let mut stream = TcpStream::connect(server).await.map_err(failed)?;
    let answer = exchange_tcp(&mut stream, &bytes).await.map_err(failed)?;
    read_whole(message, &answer).map_err(malformed)
}

/// What came over TCP, as an answer to `message`; else what is wrong with it.
fn read_whole(message: &Message, bytes: &[u8]) -> Result<Message, String> {
    let response = Message::from_vec(bytes).map_err(|e| e.to_string())?;
    match mismatch(message, &response) {
        Some(detail) => Err(detail),
        None if response.metadata.truncation => Err("cut short although over TCP".to_owned()),
        None => Ok(response),
    }
}

/// What `bytes`, whole and without their length in front, answer to the question for `name`; their id is not compared.
/// [`query`] without its sockets.
///
/// # Errors
/// As [`query`], of `server`.
pub fn answer_in(server: SocketAddr, name: &str, question: Question, bytes: &[u8]) -> Result<Answer, ResolveError> {
    let asked = parse_name(name)?;
    let mut message = question_message(&asked, question.record_type());
    if let Some(&[high, low]) = bytes.get(..2) {
        message.metadata.id = u16::from_be_bytes([high, low]);
    }
    let response = read_whole(&message, bytes).map_err(|detail| ResolveError::Malformed { server, detail })?;
    read_answer(server, &response, &asked, question)
}

async fn ask_udp(
    server: SocketAddr,
    message: &Message,
    bytes: &[u8],
    limit: Duration,
) -> Result<Message, ResolveError> {
    let failed = |e: io::Error| io_error(server, &e);
    let local: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0)).await.map_err(failed)?;
    // Connected: the kernel lets through only what comes from the address asked, and reports a closed port at once.
    socket.connect(server).await.map_err(failed)?;
    let started = Instant::now();
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut discarded = None;
    for nth in 1..=UDP_SENDS {
        socket.send(bytes).await.map_err(failed)?;
        // The last wait ends a little before the limit, so that the error can say what was discarded.
        let until = started + limit.mul_f64(0.98 * f64::from(nth) / f64::from(UDP_SENDS));
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            let length = received.map_err(failed)?;
            match Message::from_vec(&buffer[..length]) {
                Ok(response) => match mismatch(message, &response) {
                    None => return Ok(response),
                    Some(detail) => discarded = Some(detail),
                },
                // The header alone says "too long for a datagram" even where the rest was cut in the middle.
                Err(_) if truncated_header(&buffer[..length], message.metadata.id) => {
                    let mut response = Message::response(message.metadata.id, OpCode::Query);
                    response.metadata.truncation = true;
                    return Ok(response);
                }
                Err(e) => discarded = Some(format!("{length} bytes that are no DNS message ({e})")),
            }
        }
    }
    Err(timed_out(server, limit, discarded))
}

fn truncated_header(bytes: &[u8], id: u16) -> bool {
    const RESPONSE: u8 = 0x80;
    const TRUNCATED: u8 = 0x02;
    bytes.len() >= 12 && bytes[..2] == id.to_be_bytes() && bytes[2] & RESPONSE != 0 && bytes[2] & TRUNCATED != 0
}

fn timed_out(server: SocketAddr, limit: Duration, discarded: Option<String>) -> ResolveError {
    ResolveError::TimedOut {
        server,
        timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        discarded: discarded.map(|what| format!("; discarded: {what}")).unwrap_or_default(),
    }
}

fn io_error(server: SocketAddr, error: &io::Error) -> ResolveError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ResolveError::ConnectionRefused { server },
        _ => ResolveError::Network { server, detail: error.to_string() },
    }
}

fn read_answer(
    server: SocketAddr,
    response: &Message,
    asked: &Name,
    question: Question,
) -> Result<Answer, ResolveError> {
    let no_such_name = response.metadata.response_code == ResponseCode::NXDomain;
    if response.metadata.response_code != ResponseCode::NoError && !no_such_name {
        return Err(ResolveError::ServerSays { server, code: format!("{:?}", response.metadata.response_code) });
    }
    let mut name = asked.clone();
    if question != Question::Cname {
        for _ in 0..MAX_ALIASES {
            let alias =
                response.answers.iter().filter(|record| record.name == name).find_map(|record| match &record.data {
                    RData::CNAME(target) => Some(target.0.clone()),
                    _ => None,
                });
            match alias {
                Some(target) => name = target,
                None => break,
            }
        }
    }
    let mut records: Vec<AnswerRecord> = response
        .answers
        .iter()
        .filter(|record| record.name == name)
        .filter_map(|record| {
            let (kind, value) = value_of(&record.data)?;
            (kind == question).then(|| AnswerRecord {
                name: canonical_name(&record.name.to_ascii()),
                question,
                ttl_s: record.ttl,
                value,
            })
        })
        .collect();
    records.sort_by(|a, b| a.value.cmp(&b.value));
    Ok(Answer { records, no_such_name })
}

/// A record's data as text, for the types we know.
pub(crate) fn value_of(data: &RData) -> Option<(Question, String)> {
    match data {
        RData::A(address) => Some((Question::A, address.0.to_string())),
        RData::AAAA(address) => Some((Question::Aaaa, address.0.to_string())),
        RData::CNAME(target) => Some((Question::Cname, canonical_name(&target.0.to_ascii()))),
        RData::TXT(text) => Some((Question::Txt, String::from_utf8_lossy(&text.txt_data.concat()).into_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bad_input_is_named() {
        let limit = Duration::from_millis(50);
        for server in ["", "127.0.0.1", "ns.example.com:53", "127.0.0.1:99999"] {
            let error = query(server, "a.test", Question::A, limit).await.unwrap_err();
            assert!(matches!(error, ResolveError::BadServer { .. }), "{server}: {error}");
            assert!(error.to_string().contains("address:port"), "{error}");
        }
        for name in ["", ".", "a..b", &"x".repeat(64), &"a.".repeat(140)] {
            let error = query("127.0.0.1:1", name, Question::A, limit).await.unwrap_err();
            assert!(matches!(error, ResolveError::BadName { .. }), "{name}: {error}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_told_apart_from_silence() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let limit = Duration::from_millis(60);
        let error = query(&address.to_string(), "a.test", Question::A, limit).await.unwrap_err();
        assert!(matches!(error, ResolveError::TimedOut { .. }), "{error}");
        drop(silent);
        let error = query(&address.to_string(), "a.test", Question::A, limit).await.unwrap_err();
        assert_eq!(error, ResolveError::ConnectionRefused { server: address });
    }

    #[test]
    fn names_with_underscores_are_names() {
        assert_eq!(canonical_name(&parse_name("_watchdog-A.Demo.test").unwrap().to_ascii()), "_watchdog-a.demo.test.");
    }
}
