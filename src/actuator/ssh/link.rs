//! One SSH session to one guard: connecting, proving who is who, one exchange at a time.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use ssh2::{Channel, DisconnectCode, MethodType, Session};

use super::host_key::{HostKey, fingerprint};
use super::ticket::{Cancelled, Stage, Ticket};
use super::{AskError, shown};
use crate::domain::plan::GuardEndpoint;

/// Sent but not acknowledged for so long, the connection is given up by the kernel, milliseconds.
const TCP_USER_TIMEOUT_MS: u32 = 10_000;
/// A private key's file may be so long, bytes.
const IDENTITY_BYTES_MAX: u64 = 64 * 1024;
/// So much of what is no answer is shown, bytes.
const SHOWN_BYTES_MAX: usize = 80;
/// Tidying up after an answer takes no longer; a session that cannot be tidied up is not used again.
const TIDY_TIMEOUT_MS: u32 = 500;
/// A warm session whose server does not answer so long is given up for a fresh one.
const PROBE_TIMEOUT_MS: u32 = 2_000;

/// libssh2's own time-outs come so much after the deadline.
const BELT_MS: u32 = 1_000;

/// Why an exchange failed.
pub(super) enum Fault {
    /// The caller has given up: nobody listens.
    Cancelled,
    /// Told to the caller.
    Told(AskError),
}

impl From<Cancelled> for Fault {
    fn from(_: Cancelled) -> Self {
        Fault::Cancelled
    }
}

/// A session. Cut, not waited for, when dropped: libssh2 would talk to a host that may be frozen.
pub(super) struct Link {
    session: Session,
    socket: TcpStream,
    endpoint: GuardEndpoint,
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// What is left of the request's time.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// For each call's own time-out: the belt beside `Ticket::cancel`, a little wider so that the deadline is what is told.
fn belt_ms(deadline: Instant) -> u32 {
    u32::try_from(left(deadline).as_millis()).unwrap_or(u32::MAX).saturating_add(BELT_MS)
}

impl Link {
    /// Connects, checks the host's key, authenticates.
    pub(super) fn connect(endpoint: &GuardEndpoint, ticket: &Ticket, deadline: Instant) -> Result<Self, Fault> {
        let not_sent = |retryable, text: String| {
            Fault::Told(AskError::NotSent { retryable, reason: format!("{}: {text}", shown(endpoint)) })
        };
        let host_key = HostKey::parse(&endpoint.host_key).map_err(|e| not_sent(false, e.to_string()))?;
        ticket.enter(Stage::Connecting)?;
        let socket = dial(&endpoint.address, deadline).map_err(|e| not_sent(true, format!("cannot connect: {e}")))?;
        let prepared = prepare(&socket).and_then(|()| Ok((socket.try_clone()?, socket.try_clone()?)));
        let (for_ticket, for_session) =
            prepared.map_err(|e| not_sent(true, format!("cannot prepare the socket: {e}")))?;
        ticket.attach(for_ticket)?;
        ticket.enter(Stage::Handshake)?;
        let session = Session::new().map_err(|e| not_sent(true, format!("cannot begin a session: {e}")))?;
        let mut link = Self { session, socket, endpoint: endpoint.clone() };
        link.session.set_tcp_stream(for_session);
        link.session.set_timeout(belt_ms(deadline));
        let asked = link.session.method_pref(MethodType::HostKey, host_key.algorithms());
        asked.map_err(|e| not_sent(false, format!("cannot ask for a key of the type of host_key: {e}")))?;
        link.session.handshake().map_err(|e| {
            let hint = "is it an SSH server, and has it a host key of that type?";
            not_sent(true, format!("cannot agree on keys ({}): {e}; {hint}", host_key.algorithms()))
        })?;
        let theirs = link.session.host_key().map(|(blob, _)| blob.to_vec()).unwrap_or_default();
        if !host_key.is(&theirs) {
            let (theirs, ours) = (fingerprint(&theirs), host_key.fingerprint());
            let text = format!("the host's key is {theirs}, but host_key says {ours}: not trusted, nothing was sent");
            return Err(not_sent(false, format!("{text}; compare on the host with `ssh-keygen -lf` and correct one")));
        }
        ticket.enter(Stage::Authenticating)?;
        link.authenticate(deadline).map_err(|(retryable, text)| not_sent(retryable, text))?;
        Ok(link)
    }

    fn authenticate(&self, deadline: Instant) -> Result<(), (bool, String)> {
        let file = &self.endpoint.identity_file;
        let key = read_identity(file).map_err(|e| (false, format!("cannot read identity_file {file}: {e}")))?;
        self.session.set_timeout(belt_ms(deadline));
        let entered = self.session.userauth_pubkey_memory(&self.endpoint.user, None, &key, None);
        if entered.is_ok() && self.session.authenticated() {
            return Ok(());
        }
        let said = entered.err().map_or_else(|| "not authenticated".to_owned(), |e| e.to_string());
        let hint = "is it an unencrypted private key, and its public half in that user's authorized_keys?";
        Err((true, format!("user {} is not let in with {file}: {said}; {hint}", self.endpoint.user)))
    }

    /// The same session for the next request's caller to cut.
    pub(super) fn attach_to(&self, ticket: &Ticket) -> Result<(), Fault> {
        let socket = self.socket.try_clone().map_err(|e| {
            let reason = format!("{}: cannot prepare the socket: {e}", shown(&self.endpoint));
            Fault::Told(AskError::NotSent { retryable: true, reason })
        })?;
        Ok(ticket.attach(socket)?)
    }

    /// Starts the guard, sends the line, reads the answer's line. The channel is returned to be tidied up afterwards.
    pub(super) fn exchange(
        &self,
        line: &str,
        ticket: &Ticket,
        deadline: Instant,
        answer_bytes_max: usize,
    ) -> Result<(Vec<u8>, Channel), Fault> {
        let not_sent = |text: String| {
            let reason = format!("{}: {text}", shown(&self.endpoint));
            Fault::Told(AskError::NotSent { retryable: true, reason })
        };
        let lost = |text: String| Fault::Told(AskError::Lost { reason: format!("{}: {text}", shown(&self.endpoint)) });
        ticket.enter(Stage::Opening)?;
        self.session.set_timeout(belt_ms(deadline));
        let opened = self.session.channel_session().and_then(|mut channel| {
            // The key's forced command runs whatever stands here; without one this is what should.
            channel.exec("watchdog-guard")?;
            Ok(channel)
        });
        let mut channel = opened.map_err(|e| not_sent(format!("cannot start the guard: {e}")))?;
        ticket.enter(Stage::Sending)?;
        let sent = channel.write_all(line.as_bytes()).and_then(|()| channel.write_all(b"\n"));
        // A guard that ended early reads no request, but what it printed says why.
        let sent = sent.and_then(|()| channel.send_eof().map_err(std::io::Error::from));
        ticket.enter(Stage::Answering)?;
        self.session.set_timeout(belt_ms(deadline));
        let read = read_line(&mut channel, answer_bytes_max);
        match (read, sent) {
            (Ok(Ok(answer)), _) => Ok((answer, channel)),
            (Ok(Err(fault)), _) => {
                self.session.set_timeout(TIDY_TIMEOUT_MS);
                let said = stderr_of(&mut channel);
                Err(lost(format!("{fault}{said}; what became of the request must be read back")))
            }
            (Err(e), Ok(())) => Err(lost(format!("contact was lost while {}: {e}", Stage::Answering))),
            (Err(_), Err(e)) => Err(lost(format!("contact was lost while {}: {e}", Stage::Sending))),
        }
    }

    /// Ends the channel of an answered request. `false`: the session is not fit for another.
    pub(super) fn tidy(&self, mut channel: Channel) -> bool {
        self.session.set_timeout(TIDY_TIMEOUT_MS);
        // Waits for the other side's close as well.
        channel.close().is_ok()
    }

    /// Whether the SSH server itself still answers: opens a channel and closes it, running nothing.
    pub(super) fn answers(&self, deadline: Instant) -> bool {
        self.session.set_timeout(belt_ms(deadline).min(PROBE_TIMEOUT_MS));
        self.session.channel_session().is_ok_and(|channel| self.tidy(channel))
    }

    /// Sends a keepalive unless one was sent within `interval`, and looks whether the other side is still there.
    ///
    /// The interval is libssh2's only for this call: with one set, it calls any wait for an answer that outlasts it a
    /// time-out, however much later the call's own is.
    pub(super) fn is_alive(&self, interval: Duration) -> bool {
        self.session.set_timeout(TIDY_TIMEOUT_MS);
        let seconds = u32::try_from(interval.as_secs()).unwrap_or(u32::MAX).max(1);
        // Without replies: nobody reads them while the session is idle. That the bytes arrive, TCP itself sees.
        self.session.set_keepalive(false, seconds);
        let sent = self.session.keepalive_send().is_ok();
        self.session.set_keepalive(false, 0);
        let mut byte = [0u8; 1];
        // Does not wait: libssh2 has made the socket non-blocking.
        let open = match self.socket.peek(&mut byte) {
            Ok(bytes) => bytes > 0,
            Err(e) => e.kind() == std::io::ErrorKind::WouldBlock,
        };
        sent && open
    }

    /// Takes leave politely; cut by `drop` all the same.
    pub(super) fn leave(self) {
        self.session.set_timeout(TIDY_TIMEOUT_MS);
        let _ = self.session.disconnect(Some(DisconnectCode::ByApplication), "idle", None);
    }
}

fn dial(address: &str, deadline: Instant) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)) {
            Ok(socket) => return Ok(socket),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(socket, TCP_USER_TIMEOUT_MS)?;
    Ok(())
}

fn read_identity(path: &str) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(IDENTITY_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// One line, or in words what came instead. A guard's children may keep its output open: the newline ends the answer.
fn read_line(channel: &mut Channel, bytes_max: usize) -> std::io::Result<Result<Vec<u8>, String>> {
    let mut answer = Vec::new();
    let mut piece = [0u8; 8192];
    loop {
        let bytes = channel.read(&mut piece)?;
        if bytes == 0 {
            if answer.is_empty() {
                return Ok(Err("the guard ended without an answer".to_owned()));
            }
            return Ok(Err(format!("the answer breaks off after {} bytes: {}", answer.len(), excerpt(&answer))));
        }
        answer.extend_from_slice(&piece[..bytes]);
        let end = answer.iter().position(|byte| *byte == b'\n');
        if answer.len() > bytes_max {
            let start = excerpt(&answer);
            return Ok(Err(format!("the answer is longer than {bytes_max} bytes and begins {start}")));
        }
        match end {
            Some(end) if end + 1 == answer.len() => {
                answer.pop();
                return Ok(Ok(answer));
            }
            Some(_) => return Ok(Err(format!("the answer is more than one line: {}", excerpt(&answer)))),
            None => {}
        }
    }
}

/// The first bytes, escaped.
pub(in crate::actuator) fn excerpt(bytes: &[u8]) -> String {
    let shown = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
    let dots = if bytes.len() > SHOWN_BYTES_MAX { "…" } else { "" };
    format!("\"{}{dots}\"", shown.escape_ascii())
}

/// What the guard, its shell or the SSH server complained of, if anything was sent already.
fn stderr_of(channel: &mut Channel) -> String {
    let mut piece = [0u8; 1024];
    match channel.stderr().read(&mut piece) {
        Ok(bytes) if bytes > 0 => format!("; it complained: {}", excerpt(piece[..bytes].trim_ascii_end())),
        _ => String::new(),
    }
}
