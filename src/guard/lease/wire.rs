//! What nodes and guards answer each other, read strictly: words are cut and escaped, names are names, numbers bounded.

use tonic::Status;

use super::hold::Ask;
use super::keeper::{Said, Word};
use crate::domain::ids::{HostName, Token};
use crate::guard::config::is_name;
use crate::guard::ledger::cut;
use crate::proto::{HoldReply, HoldRequest, LeaseWord, RenewReply};

/// Words of another's are cut to this before they reach a file or a log, bytes.
const WORDS_BYTES_MAX: usize = 500;
/// No binding has more holders.
const HOLDERS_MAX: usize = 16;

/// Somebody else's words, fit for a line of a log and for a record: control characters escaped, and cut.
pub fn words(text: &str) -> String {
    let mut escaped = String::new();
    for c in cut(text, WORDS_BYTES_MAX).chars() {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}

/// A leader's answer to the request of that nonce, and its challenge.
///
/// # Errors
/// Why it counts for nothing.
pub fn read_renewal(reply: RenewReply, nonce: u64) -> Result<(Said, u64), String> {
    if reply.nonce != nonce {
        return Err("the answer is not to this request".to_owned());
    }
    let word = match reply.word() {
        LeaseWord::Granted => Word::Granted,
        LeaseWord::OpenEnded => Word::OpenEnded,
        LeaseWord::Denied => Word::Denied,
        LeaseWord::Unspecified => return Err(format!("an answer this guard does not know ({})", reply.word)),
    };
    if reply.holders.len() > HOLDERS_MAX || !reply.holders.iter().all(|name| is_name(name)) {
        return Err(format!("holders: must be at most {HOLDERS_MAX} names of hosts"));
    }
    let said = Said {
        word,
        why: words(&reply.why),
        bound: reply.bound,
        holders: reply.holders.into_iter().map(HostName).collect(),
        ground: reply.ground.map(|ground| Token { epoch: ground.epoch, n: ground.n }),
        ttl_ms: reply.ttl_ms,
    };
    Ok((said, reply.challenge))
}

/// A standby's guard's answer to the request of that nonce: it holds.
///
/// # Errors
/// Why not.
pub fn read_hold(reply: HoldReply, nonce: u64) -> Result<(), String> {
    match reply {
        reply if reply.nonce != nonce => Err("the answer is not to this request".to_owned()),
        reply if reply.granted => Ok(()),
        reply => Err(words(&reply.why)),
    }
}

/// A primary's guard's request for a hold.
///
/// # Errors
/// The field that is not as it must be.
pub fn asked_for_hold(request: &HoldRequest) -> Result<Ask, Status> {
    let ground = request.ground.ok_or_else(|| Status::invalid_argument("ground: is missing"))?;
    for (field, name) in [("cluster", &request.cluster), ("group", &request.group), ("host", &request.host)] {
        if !is_name(name) {
            return Err(Status::invalid_argument(format!("{field}: is not a name (letters, digits, . _ -)")));
        }
    }
    Ok(Ask {
        cluster: request.cluster.as_str().into(),
        epoch: request.epoch,
        group: request.group.as_str().into(),
        host: request.host.as_str().into(),
        ttl_ms: request.ttl_ms,
        ground: Token { epoch: ground.epoch, n: ground.n },
    })
}
