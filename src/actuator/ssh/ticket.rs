//! What the caller and the session's thread share about one request: how far it got, and the socket to cut.

use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How far a request got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Queued,
    Connecting,
    Handshake,
    Authenticating,
    Opening,
    Sending,
    Answering,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Queued => "waiting for earlier requests",
            Stage::Connecting => "connecting",
            Stage::Handshake => "agreeing on keys with the SSH server",
            Stage::Authenticating => "authenticating",
            Stage::Opening => "starting the guard",
            Stage::Sending => "sending the request",
            Stage::Answering => "waiting for the guard's answer",
        })
    }
}

/// The caller has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cancelled;

#[derive(Debug, Default)]
struct Shared {
    cancelled: bool,
    sent: bool,
    stage: Stage,
    socket: Option<TcpStream>,
}

/// One request's.
#[derive(Debug, Default)]
pub(super) struct Ticket(Mutex<Shared>);

impl Ticket {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up: nothing is sent from here on that was not. Answers whether something was, and how far it got.
    pub(super) fn cancel(&self) -> (bool, Stage) {
        let mut shared = self.lock();
        shared.cancelled = true;
        if let Some(socket) = shared.socket.take() {
            // Whatever the thread waits for on it fails at once.
            let _ = socket.shutdown(Shutdown::Both);
        }
        (shared.sent, shared.stage)
    }

    /// The thread goes on to the next stage, unless the caller has given up.
    pub(super) fn enter(&self, stage: Stage) -> Result<(), Cancelled> {
        let mut shared = self.lock();
        if shared.cancelled {
            return Err(Cancelled);
        }
        shared.stage = stage;
        // Decided under the same lock as `cancel`: a request that was given up unsent is never sent.
        shared.sent |= stage == Stage::Sending;
        Ok(())
    }

    /// The socket to cut; the thread is about to wait on it.
    pub(super) fn attach(&self, socket: TcpStream) -> Result<(), Cancelled> {
        let mut shared = self.lock();
        if shared.cancelled {
            return Err(Cancelled);
        }
        shared.socket = Some(socket);
        Ok(())
    }

    /// The thread is done with this request: the socket is no longer this caller's to cut.
    pub(super) fn detach(&self) {
        self.lock().socket = None;
    }

    pub(super) fn was_sent(&self) -> bool {
        self.lock().sent
    }

    pub(super) fn stage(&self) -> Stage {
        self.lock().stage
    }
}
