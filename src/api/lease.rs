//! The lease's service, for primaries' guards (docs/adr/0008): checked, answered here by the leader, or carried to it once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};

use super::access::caller;
use super::backend::{AdminBackend, Leader};
use super::refuse::{FORBIDDEN, invalid, nothing_done, refused_caller, signed};
use crate::domain::identity::Caller;
use crate::domain::ids::{ClusterName, HostName, Token};
use crate::domain::lease::{GateSeen, HoldTold, LeaseRequest};
use crate::proto::lease_client::LeaseClient;
use crate::proto::lease_server::Lease;
use crate::proto::{GateState, HoldGround, LeaseWord, RenewReply, RenewRequest};
use crate::tls::dial::why;
use crate::tls::{Dialer, Expect};

/// A request carried to the leader waits no longer: the guard asks again anyway.
const FORWARD: Duration = Duration::from_millis(800);
/// No word of a request is longer, bytes.
const WORD_BYTES_MAX: usize = 1024;
/// No request names more holders.
const HOLDERS_MAX: usize = 16;

/// What the leader said to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Granted, open-ended or denied.
    pub word: LeaseWord,
    /// Why.
    pub why: String,
    /// The lease is bound.
    pub bound: bool,
    /// The binding's holders.
    pub holders: Vec<HostName>,
    /// The ground for holds, while no run is open.
    pub ground: Option<Token>,
    /// The group's TTL, milliseconds; 0 where it has none.
    pub ttl_ms: u64,
    /// To be echoed by the next request.
    pub challenge: u64,
}

/// What a leader must be able to do for the service.
#[async_trait]
pub trait LeaseDesk: Send + Sync + 'static {
    /// The cluster served, and its epoch.
    fn cluster(&self) -> (ClusterName, u64);

    /// Answers as the leader, after a quorum round that begins now. An error: this node cannot, nothing was granted.
    ///
    /// `challenge`: that which the request echoes; the desk says by it whether the request may bind.
    async fn renew(&self, request: LeaseRequest, challenge: u64, told: Told) -> Result<Word, String>;
}

/// What a guard tells besides: shown in the status, and nothing else comes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// How much longer its gate stands open, milliseconds.
    pub open_for_ms: u64,
    /// The holds it counts on.
    pub holds: Vec<HoldTold>,
}

/// The service over one node.
pub struct LeaseService {
    backend: Arc<dyn AdminBackend>,
    dialer: Dialer,
    desk: Arc<dyn LeaseDesk>,
}

impl LeaseService {
    /// `backend` says who leads, `dialer` reaches it.
    pub fn new(backend: Arc<dyn AdminBackend>, dialer: Dialer, desk: Arc<dyn LeaseDesk>) -> Self {
        Self { backend, dialer, desk }
    }

    async fn answer(&self, request: RenewRequest, caller: &Caller) -> Result<RenewReply, Status> {
        let asked = check(&request, self.desk.cluster())?;
        is_of(&request, caller)?;
        let standing = self.backend.standing().borrow().clone();
        if standing.is_leader() {
            let word = self.desk.renew(asked, request.challenge, told(&request)).await.map_err(nothing_done)?;
            return Ok(reply(request.nonce, word));
        }
        match standing.leader {
            Some(leader) if !request.forwarded => carry(&self.dialer, &self.desk.cluster().0, &leader, request).await,
            Some(_) => Err(nothing_done(format!("{} does not lead", standing.name))),
            None => Err(nothing_done(format!("{} knows no leader ({})", standing.name, standing.note))),
        }
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let name = self.backend.standing().borrow().name.clone();
        let answered = match caller(&request) {
            Ok(caller) => self.answer(request.into_inner(), &caller).await,
            Err(status) => Err(status),
        };
        answered.map(Response::new).map_err(|status| signed(status, name.as_str()))
    }
}

/// A guard asks for its own host only; a node carries what it judged so itself.
fn is_of(request: &RenewRequest, caller: &Caller) -> Result<(), Status> {
    let Caller::Proven { identity, held } = caller else { return Ok(()) };
    let own = held.guard.as_ref().is_some_and(|host| host.as_str() == request.host);
    if own || (held.node.is_some() && request.forwarded) {
        return Ok(());
    }
    let why = format!(
        "host: {identity} ({}) may not ask for the lease of {}; give each guard the certificate of its own host",
        held.in_words(),
        request.host
    );
    Err(refused_caller(Code::PermissionDenied, FORBIDDEN, why))
}

fn check(request: &RenewRequest, (cluster, epoch): (ClusterName, u64)) -> Result<LeaseRequest, Status> {
    if request.cluster != cluster.as_str() {
        return Err(invalid("cluster", format!("this is cluster {cluster}")));
    }
    if request.epoch != epoch {
        return Err(invalid("epoch", format!("this cluster's epoch is {epoch}, the guard's is {}", request.epoch)));
    }
    let words = [
        ("group", &request.group),
        ("host", &request.host),
        ("region", &request.region),
        ("gate_detail", &request.gate_detail),
    ];
    for (field, word) in words {
        if word.len() > WORD_BYTES_MAX || (word.is_empty() && field != "gate_detail") {
            return Err(invalid(field, format!("must have 1 to {WORD_BYTES_MAX} bytes, has {}", word.len())));
        }
        if field != "gate_detail" && has_control(word) {
            return Err(invalid(field, "has control characters"));
        }
    }
    if request.holders.len() > HOLDERS_MAX
        || request.holders.iter().any(|name| name.len() > WORD_BYTES_MAX || has_control(name))
    {
        return Err(invalid("holders", format!("at most {HOLDERS_MAX} names of at most {WORD_BYTES_MAX} bytes")));
    }
    if request.ttl_ms == 0 {
        return Err(invalid("ttl_ms", "must be above 0"));
    }
    // It reaches the audit and people's terminals.
    let detail: String = request.gate_detail.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let gate = match request.gate() {
        GateState::Bounded => GateSeen::Bounded { evidence: detail },
        GateState::OpenEnded => GateSeen::OpenEnded,
        GateState::Absent => GateSeen::Absent { why: detail },
        GateState::Unspecified => return Err(invalid("gate", "say bounded, open-ended or absent")),
    };
    Ok(LeaseRequest {
        group: request.group.as_str().into(),
        host: request.host.as_str().into(),
        region: request.region.as_str().into(),
        ttl_ms: request.ttl_ms,
        gate,
        holders: request.holders.iter().map(|name| name.as_str().into()).collect(),
        may_bind: false,
    })
}

/// Cut to what a guard of ours can have: its holders' names were checked with the request.
fn told(request: &RenewRequest) -> Told {
    let known = |hold: &&HoldTold| request.holders.contains(&hold.host.0);
    let holds = request.holds.iter().take(HOLDERS_MAX).map(|hold| HoldTold {
        host: hold.host.as_str().into(),
        for_ms: hold.for_ms,
        ground: hold.ground.as_ref().map(|ground| Token { epoch: ground.epoch, n: ground.n }).unwrap_or_default(),
    });
    let holds: Vec<HoldTold> = holds.collect();
    Told { open_for_ms: request.open_for_ms, holds: holds.iter().filter(known).cloned().collect() }
}

fn has_control(word: &str) -> bool {
    word.chars().any(char::is_control)
}

fn reply(nonce: u64, word: Word) -> RenewReply {
    RenewReply {
        nonce,
        word: word.word.into(),
        why: word.why,
        bound: word.bound,
        holders: word.holders.into_iter().map(|host| host.0).collect(),
        ground: word.ground.map(|token| HoldGround { epoch: token.epoch, n: token.n }),
        ttl_ms: word.ttl_ms,
        challenge: word.challenge,
    }
}

async fn carry(
    dialer: &Dialer,
    cluster: &ClusterName,
    leader: &Leader,
    request: RenewRequest,
) -> Result<RenewReply, Status> {
    let lost = |error: &(dyn std::error::Error + 'static)| {
        let error = why(error);
        nothing_done(format!("the leader {} at {} did not answer: {error}", leader.name, leader.address))
    };
    let endpoint = Endpoint::from_shared(format!("http://{}", leader.address)).map_err(|error| lost(&error))?;
    let endpoint = endpoint.connect_timeout(FORWARD).timeout(FORWARD);
    let connector = dialer.to(Expect::node(Some(cluster), Some(&leader.name)));
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| lost(&error))?;
    let mut client = LeaseClient::new(channel);
    Ok(client.renew(RenewRequest { forwarded: true, ..request }).await?.into_inner())
}
