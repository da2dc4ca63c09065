//! A stand-in for the nodes that a resident guard asks for its lease.

use std::sync::{Arc, Mutex};

use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request as Call, Response, Status};
use watchdog::proto::lease_server::{Lease, LeaseServer};
use watchdog::proto::{GateState, HoldGround, LeaseWord, RenewReply, RenewRequest};

/// Long enough that a busy machine renews in time.
pub const TTL_MS: u64 = 4000;

/// Stands in for a node: says what it is told to, or nothing; binds and unbinds as a leader does.
#[derive(Default)]
pub struct StandInNode {
    word: Mutex<Option<LeaseWord>>,
    holders: Mutex<Option<Vec<String>>>,
    /// The last token it tells of, above the first three.
    above: Mutex<u64>,
    pub last: Mutex<Option<RenewRequest>>,
    /// How often a gate was attested that nothing counts on: not bounded.
    loose: Mutex<u64>,
}

impl StandInNode {
    pub fn say(&self, word: Option<LeaseWord>) {
        *self.word.lock().unwrap() = word;
    }
    pub fn holders(&self) -> Option<Vec<String>> {
        self.holders.lock().unwrap().clone()
    }
    /// Tells `n` as the group's last token; 3 without it.
    pub fn tell_token(&self, n: u64) {
        *self.above.lock().unwrap() = n - 3;
    }
    pub fn loose(&self) -> u64 {
        *self.loose.lock().unwrap()
    }

    /// Answers at `at` for as long as the runtime lives.
    pub fn serve(self: &Arc<Self>, runtime: &tokio::runtime::Runtime, at: &str) {
        let (served, at) = (LeaseServer::new(Served(self.clone())), at.to_owned());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::bind(&at).await.unwrap();
            let server = tonic::transport::Server::builder().add_service(served);
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
    }
}

struct Served(Arc<StandInNode>);

#[tonic::async_trait]
impl Lease for Served {
    async fn renew(&self, call: Call<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let request = call.into_inner();
        *self.0.last.lock().unwrap() = Some(request.clone());
        if request.gate() != GateState::Bounded {
            *self.0.loose.lock().unwrap() += 1;
        }
        let word = self.0.word.lock().unwrap().ok_or_else(|| Status::unavailable("no quorum, says the stand-in"))?;
        let mut holders = self.0.holders.lock().unwrap();
        let mut answered = word;
        match (word, request.gate()) {
            (LeaseWord::Granted, GateState::Bounded) => {
                let bound = holders.get_or_insert_default();
                bound.extend(request.holders.iter().filter(|host| !bound.contains(host)).cloned().collect::<Vec<_>>());
            }
            (LeaseWord::Granted, _) if holders.take().is_some() => answered = LeaseWord::Denied,
            (LeaseWord::OpenEnded, _) => *holders = None,
            _ => {}
        }
        let reply = RenewReply {
            nonce: request.nonce,
            word: answered.into(),
            why: "says the stand-in".to_owned(),
            bound: holders.is_some(),
            holders: holders.clone().unwrap_or_default(),
            ground: Some(HoldGround { epoch: 1, n: 3 + *self.0.above.lock().unwrap() }),
            ttl_ms: TTL_MS,
            challenge: 0,
        };
        Ok(Response::new(reply))
    }
}

pub fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// `[lease]`, and what follows in it.
pub fn leased(host: &str, listen: &str, node: &str, holders: &str) -> String {
    format!(
        "[lease]\nhost = \"{host}\"\nregion = \"{host}-region\"\ntls = {{ plaintext = \"loopback\" }}\nttl_ms = {TTL_MS}\nrenew_every_ms = 200\n\
         clock_trusted_by = \"the test\"\n\
         listen = \"{listen}\"\nnodes = [\"{node}\"]\n{holders}"
    )
}
