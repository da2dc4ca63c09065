//! A primary name server taking signed updates (RFC 2136, RFC 8945): BIND, Knot, PowerDNS.
//!
//! Reading and writing go to the primary itself, so there is nothing to wait for: what it answers is what it serves.
//! Its secondaries follow by NOTIFY; that is the zone's own business.

use std::net::SocketAddr;
use std::path::Path;

use async_trait::async_trait;
use base64::Engine;
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigner};
use tokio::time::Instant;

use super::TOKEN_TTL_S;
use super::wire::{CallTrouble, Session};
use super::zone::{Present, Seen, Settled, SwapTrouble, Trouble, Wanted, Zone, canonical_value, conflict, differences};
use crate::domain::ids::UnixMs;
use crate::domain::plan::{DnsProvider, DnsRecord, RecordKind};
use crate::resolve::{Question, canonical_name, parse_name, question_message, value_of};

/// How far the server's clock may be from ours, seconds (RFC 8945, 10).
const FUDGE_S: u16 = 300;
/// A key file larger than this is not one.
const KEY_FILE_BYTES: u64 = 4096;

/// One attempt's view of the zone.
pub(super) struct Rfc2136 {
    server: SocketAddr,
    zone: Name,
    key_name: String,
    signer: TSigner,
    now: fn() -> UnixMs,
    session: Option<Session>,
}

impl Rfc2136 {
    /// Reads the key, connects to nothing yet. The key is read for each attempt, so that it can be exchanged.
    pub async fn new(provider: &DnsProvider, now: fn() -> UnixMs) -> Result<Self, Trouble> {
        let DnsProvider::Rfc2136 { name, server, zone, key_name, key_file } = provider else {
            return Err(permanent("this provider does not take RFC 2136 updates: a fault of the program".to_owned()));
        };
        let wrong = |what: &str, detail: String| permanent(format!("DNS provider {name}: {what}: {detail}"));
        let address = server.parse().map_err(|e| wrong("server", format!("{server:?} is not address:port: {e}")))?;
        let zone = parse_name(zone).map_err(|e| wrong("zone", e.to_string()))?;
        let key_label = parse_name(key_name).map_err(|e| wrong("key_name", e.to_string()))?;
        let key = read_key(Path::new(key_file)).await.map_err(|e| wrong("key_file", format!("{key_file}: {e}")))?;
        let signer = TSigner::new(key, TsigAlgorithm::HmacSha256, key_label, FUDGE_S)
            .map_err(|e| wrong("key", e.to_string()))?;
        Ok(Self { server: address, zone, key_name: canonical_name(key_name), signer, now, session: None })
    }

    async fn call(&mut self, request: Message, deadline: Instant) -> Result<Message, CallTrouble> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::open(self.server, self.signer.clone(), self.now, deadline)
                .await
                .map_err(CallTrouble::NotSent)?,
        };
        let response = session.call(request, deadline).await;
        if matches!(response, Ok(_) | Err(CallTrouble::Says { .. })) {
            self.session = Some(session);
        }
        response
    }

    async fn ask(&mut self, name: &Name, record_type: RecordType, deadline: Instant) -> Result<Vec<Record>, Trouble> {
        let mut question = question_message(name, record_type);
        question.metadata.recursion_desired = false;
        let response = self.call(question, deadline).await.map_err(|trouble| self.read_trouble(trouble))?;
        if !response.metadata.authoritative {
            let server = self.server;
            let reason = format!("name server {server} does not serve {name} itself: name the zone's primary server");
            return Err(permanent(reason));
        }
        // An alias's target may be answered too; only what stands at this very name counts.
        let matches = |record: &Record| record.name == *name && record.record_type() == record_type;
        Ok(response.answers.into_iter().filter(matches).collect())
    }

    fn in_zone(&self, name: &str) -> Result<Name, Trouble> {
        let parsed = parse_name(name).map_err(|e| permanent(e.to_string()))?;
        if self.zone.zone_of(&parsed) {
            Ok(parsed)
        } else {
            Err(permanent(format!("{name} is not in the zone {}: correct the record or the zone", self.zone)))
        }
    }

    /// While nothing but reading was asked for, every trouble leaves the zone as it was.
    fn read_trouble(&self, trouble: CallTrouble) -> Trouble {
        match trouble {
            CallTrouble::NotSent(reason) => Trouble { retryable: true, reason },
            CallTrouble::Unsure(reason) => {
                Trouble { retryable: true, reason: format!("{reason}; it was only a question") }
            }
            CallTrouble::Says { code, tsig, .. } => self.says(code, tsig),
        }
    }

    fn says(&self, code: ResponseCode, tsig: Option<TsigError>) -> Trouble {
        let Self { server, zone, key_name, .. } = self;
        let (retryable, detail) = match (code, tsig) {
            (_, Some(TsigError::BadTime)) => {
                (true, format!("BADTIME: the clocks differ by more than {FUDGE_S} s; correct ours or the server's"))
            }
            (_, Some(TsigError::BadKey)) => (false, format!("BADKEY: it does not know the key {key_name}")),
            (_, Some(TsigError::BadSig)) => {
                (false, format!("BADSIG: its key {key_name} is not the one in our key_file"))
            }
            (ResponseCode::NotAuth, _) => (false, format!("NOTAUTH: it is not the primary server of {zone}")),
            (ResponseCode::NotZone, _) => (false, format!("NOTZONE: a name is not in {zone}")),
            (ResponseCode::Refused, _) => {
                (false, format!("REFUSED: its policy does not allow it to the key {key_name}"))
            }
            (ResponseCode::FormErr | ResponseCode::NotImp, _) => {
                (false, format!("{code:?}: it does not take such messages"))
            }
            _ => (true, format!("{code:?}")),
        };
        Trouble { retryable, reason: format!("name server {server} answered {detail}") }
    }

    fn update(&self, seen: &[TXT], wanted: &Wanted<'_>) -> Result<Message, Trouble> {
        let token_name = self.in_zone(&wanted.token_record)?;
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.add_query(Query::query(self.zone.clone(), RecordType::SOA));
        // The prerequisites are the answer section of an update, the changes its authority section (RFC 2136, 2).
        if seen.is_empty() {
            message.add_answer(empty(token_name.clone(), DNSClass::NONE, RecordType::TXT));
        }
        for text in seen {
            message.add_answer(Record::from_rdata(token_name.clone(), 0, RData::TXT(text.clone())));
        }
        message.add_authority(empty(token_name.clone(), DNSClass::ANY, RecordType::TXT));
        message.add_authority(Record::from_rdata(
            token_name,
            TOKEN_TTL_S,
            RData::TXT(TXT::new(wanted.token.strings())),
        ));
        for record in wanted.records {
            let name = self.in_zone(&record.name)?;
            for kind in [RecordKind::A, RecordKind::Aaaa, RecordKind::Cname] {
                // A server silently ignores an alias added beside an address, and the other way round.
                if kind == record.kind || conflict(kind, record.kind) {
                    message.add_authority(empty(name.clone(), DNSClass::ANY, Question::from(kind).record_type()));
                }
            }
            message.add_authority(Record::from_rdata(name, record.ttl_s, data(record)?));
        }
        Ok(message)
    }
}

#[async_trait]
impl Zone for Rfc2136 {
    type Raw = Vec<TXT>;

    async fn read(&mut self, wanted: &Wanted<'_>, deadline: Instant) -> Result<Seen<Vec<TXT>>, Trouble> {
        let token_name = self.in_zone(&wanted.token_record)?;
        let mut raw = Vec::new();
        for record in self.ask(&token_name, RecordType::TXT, deadline).await? {
            if let RData::TXT(text) = record.data {
                raw.push(text);
            }
        }
        let text = |txt: &TXT| String::from_utf8_lossy(&txt.txt_data.concat()).into_owned();
        let texts = raw.iter().map(text).collect();
        let mut present = Vec::new();
        for record in wanted.records {
            let name = self.in_zone(&record.name)?;
            let answers = self.ask(&name, Question::from(record.kind).record_type(), deadline).await?;
            let mut values: Vec<String> =
                answers.iter().filter_map(|r| value_of(&r.data)).map(|(_, value)| value).collect();
            values.sort();
            if let Some(first) = answers.first() {
                let name = canonical_name(&record.name);
                present.push(Present { name, kind: record.kind, ttl_s: first.ttl, values });
            }
        }
        Ok(Seen { texts, present, raw })
    }

    async fn swap(&mut self, seen: &Seen<Vec<TXT>>, wanted: &Wanted<'_>, deadline: Instant) -> Result<(), SwapTrouble> {
        let update = self.update(&seen.raw, wanted).map_err(SwapTrouble::Failed)?;
        match self.call(update, deadline).await {
            Ok(_) => {}
            Err(CallTrouble::NotSent(reason)) => return Err(SwapTrouble::Failed(Trouble { retryable: true, reason })),
            Err(CallTrouble::Unsure(reason)) => return Err(SwapTrouble::Unsure(reason)),
            // The prerequisite did not hold. Only a signed answer proves it.
            Err(CallTrouble::Says { code: ResponseCode::NXRRSet | ResponseCode::YXRRSet, signed: true, .. }) => {
                return Err(SwapTrouble::Lost);
            }
            Err(CallTrouble::Says { code, tsig, signed }) => {
                let trouble = self.says(code, tsig);
                // A server that failed in the middle, or an answer that anybody could have written, proves nothing.
                let proves = signed && code != ResponseCode::ServFail;
                return Err(if proves { SwapTrouble::Failed(trouble) } else { SwapTrouble::Unsure(trouble.reason) });
            }
        }
        // Accepted is not done: some changes are ignored without a word (an alias at the zone's own name, for one).
        let after = self.read(wanted, deadline).await.map_err(|trouble| {
            SwapTrouble::Unsure(format!("the update was accepted but cannot be read back: {}", trouble.reason))
        })?;
        if after.texts != [wanted.token.to_string()] {
            return Err(SwapTrouble::Lost);
        }
        let missing = differences(wanted.records, &after.present);
        if missing.is_empty() {
            return Ok(());
        }
        let reason =
            format!("name server {} took the update and ignored part of it: {}", self.server, missing.join("; "));
        Err(SwapTrouble::Failed(permanent(reason)))
    }

    async fn settled(&mut self, _wanted: &Wanted<'_>, _deadline: Instant) -> Settled {
        Settled::Yes(format!("read at the zone's primary server {}", self.server))
    }
}

async fn read_key(path: &Path) -> Result<Vec<u8>, String> {
    use tokio::io::AsyncReadExt;
    let file = tokio::fs::File::open(path).await.map_err(|e| e.to_string())?;
    let mut text = String::new();
    file.take(KEY_FILE_BYTES).read_to_string(&mut text).await.map_err(|e| e.to_string())?;
    let line = text.lines().next().unwrap_or_default().trim();
    // The library's own words quote the byte it stumbled over: part of a secret.
    let decoded = base64::engine::general_purpose::STANDARD.decode(line);
    let key = decoded.map_err(|_| "its first line is not base64; put the secret alone there".to_owned())?;
    if key.is_empty() { Err("its first line is empty; put the secret there".to_owned()) } else { Ok(key) }
}

fn empty(name: Name, class: DNSClass, record_type: RecordType) -> Record {
    let mut record = Record::update0(name, 0, record_type);
    record.dns_class = class;
    record
}

fn data(record: &DnsRecord) -> Result<RData, Trouble> {
    let value = canonical_value(record).map_err(permanent)?;
    let wrong = || permanent(format!("record {} {} cannot be {value:?}", record.name, record.kind));
    Ok(match record.kind {
        RecordKind::A => RData::A(A(value.parse().map_err(|_| wrong())?)),
        RecordKind::Aaaa => RData::AAAA(AAAA(value.parse().map_err(|_| wrong())?)),
        RecordKind::Cname => RData::CNAME(CNAME(parse_name(&value).map_err(|_| wrong())?)),
    })
}

fn permanent(reason: String) -> Trouble {
    Trouble { retryable: false, reason }
}
