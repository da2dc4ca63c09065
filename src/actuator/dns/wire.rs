//! Signed DNS messages over one TCP connection (RFC 8945). TCP, because only there is it known whether a message can
//! have been received: before the connection stands it cannot, afterwards it may.

use std::net::SocketAddr;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::TSigner;
use hickory_proto::rr::rdata::tsig::TsigError;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::domain::ids::UnixMs;
use crate::resolve::{exchange_tcp, mismatch};

/// Why a call has no authentic `NOERROR`.
#[derive(Debug)]
pub(super) enum CallTrouble {
    /// Nothing left this machine.
    NotSent(String),
    /// The server may have received it; there was no answer that can be trusted.
    Unsure(String),
    /// The server answered with an error.
    Says {
        /// Which.
        code: ResponseCode,
        /// The signature's own error, where that is why.
        tsig: Option<TsigError>,
        /// The answer itself was signed with our key.
        signed: bool,
    },
}

/// One connection to one server, every message signed both ways.
pub(super) struct Session {
    server: SocketAddr,
    stream: TcpStream,
    signer: TSigner,
    now: fn() -> UnixMs,
}

impl Session {
    /// Connects. Any error means that nothing was sent.
    pub async fn open(
        server: SocketAddr,
        signer: TSigner,
        now: fn() -> UnixMs,
        deadline: Instant,
    ) -> Result<Self, String> {
        let stream = match timeout_at(deadline, TcpStream::connect(server)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(format!("name server {server} cannot be reached over TCP: {e}")),
            Err(_) => return Err(format!("name server {server} did not take a TCP connection in time")),
        };
        // Without it a small second message may wait for the first one's acknowledgement; failing to set it only costs time.
        let _ = stream.set_nodelay(true);
        Ok(Self { server, stream, signer, now })
    }

    /// Signs `request`, sends it, and gives the answer once its id, its question and its signature are checked.
    /// `NXDOMAIN` to a query is an answer. After any trouble but `Says` the session is not to be used again.
    pub async fn call(&mut self, mut request: Message, deadline: Instant) -> Result<Message, CallTrouble> {
        let server = self.server;
        if Instant::now() >= deadline {
            return Err(CallTrouble::NotSent(format!("no time was left to ask name server {server}")));
        }
        let unwritable =
            |e: String| CallTrouble::NotSent(format!("the message for name server {server} cannot be written: {e}"));
        let unsigned = request.clone();
        let verifier = request.finalize(&self.signer, (self.now)().0 / 1000).map_err(|e| unwritable(e.to_string()))?;
        let mut verifier = verifier.ok_or_else(|| unwritable("it was not signed".to_owned()))?;
        let bytes = request.to_vec().map_err(|e| unwritable(e.to_string()))?;
        let unsure =
            |what: String| CallTrouble::Unsure(format!("name server {server} {what} after the message was sent"));
        let answer = match timeout_at(deadline, exchange_tcp(&mut self.stream, &bytes)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => return Err(unsure(format!("dropped the connection ({e})"))),
            Err(_) => return Err(unsure("gave no answer in time".to_owned())),
        };
        let response = Message::from_vec(&answer).map_err(|e| unsure(format!("answered no DNS message ({e})")))?;
        if let Some(detail) = mismatch(&unsigned, &response) {
            return Err(unsure(format!("answered {detail}")));
        }
        let code = response.metadata.response_code;
        let tsig = response.signature.as_ref().and_then(|signature| signature.data.error);
        let signed = match response.signature.as_ref().filter(|signature| !signature.data.mac.is_empty()) {
            Some(_) => {
                verifier.verify(&answer).map_err(|e| unsure(format!("answered with a wrong signature ({e})")))?;
                true
            }
            None => false,
        };
        let is_answer = code == ResponseCode::NoError
            || (code == ResponseCode::NXDomain && request.metadata.op_code == OpCode::Query);
        match (is_answer, signed) {
            (true, true) => Ok(response),
            (true, false) => Err(unsure("answered without a signature".to_owned())),
            (false, signed) => Err(CallTrouble::Says { code, tsig, signed }),
        }
    }
}
