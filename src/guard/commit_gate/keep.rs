//! Keeps the stream: connects while the database is a primary, confirms what [`super::flow`] says, looks now and then
//! whether the server waits for it at all, and lets a server go that stops in an orderly way.

use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::message::backend::Message;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::flow::{Flow, FromServer, Lsn};
use super::judge::{self, ServerSays};
use super::wire::{self, Frame, Place, Session, Target, WireError};
use super::{Shared, Stands};
use crate::clock::unix_now;
use crate::guard::config::{Config, Postgres};
use crate::guard::host::boottime_ns;
use crate::guard::lease::gate::GateError;
use crate::guard::postgres::{self, ControlState, Role};

/// Between two tries to connect, and between two looks at a server that needs no gate.
const AGAIN: Duration = Duration::from_millis(100);
/// Connecting, authenticating and beginning the stream may take this long.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);
/// A reply that may have been ignored is sent again.
const REPEAT_EVERY: Duration = Duration::from_millis(10);
/// The server is asked how it stands: while something is amiss, and while nothing is.
const LOOK_EVERY_AMISS: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The question may take this long, milliseconds.
const LOOK_MS: u64 = 3000;

/// Why a stream ended.
enum Ended {
    /// The server stops in an orderly way, and was let go.
    Planned,
    /// The server ended it.
    ByServer,
    Wire(WireError),
}

impl From<WireError> for Ended {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// The second layer's own part.
pub struct CommitGate {
    pg: Postgres,
    target: Target,
    shared: Arc<Shared>,
}

impl CommitGate {
    /// # Errors
    /// The configuration lacks a part.
    pub fn new(config: &Config, shared: Arc<Shared>) -> Result<Self, GateError> {
        let lease = config.lease.as_ref().ok_or(GateError::Nothing("[lease]"))?;
        let pg = config.postgres.clone().ok_or(GateError::Nothing("[postgres]"))?;
        let by = &lease.replication;
        let host = by.host.clone().unwrap_or_else(|| pg.socket_dir.display().to_string());
        let place = Place::of(&host, pg.port, &pg.user).ok_or(GateError::Nothing("lease.replication.host"))?;
        let role = by.user.clone().unwrap_or_else(|| pg.user.clone());
        let target = Target { place, role, name: by.application_name.clone(), password_file: by.password_file.clone() };
        Ok(Self { pg, target, shared })
    }

    /// Until told to stop. Ends by closing the stream: commits wait from then on.
    pub async fn keep(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                stands = self.once() => self.shared.stand(stands),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(AGAIN) => {}
            }
        }
    }

    /// One stream, if there is a server to stream from. Answers why there is none any more.
    async fn once(&self) -> Stands {
        let pg = self.pg.clone();
        let looked = spawn_blocking(move || (postgres::look(&pg).role, postgres::control_state(&pg.data_dir)));
        let cause = match looked.await {
            Ok((Role::Stopped, _)) => Some("no server runs"),
            Ok((_, Ok(ControlState::SHUT_DOWN))) => Some("the server is shut down, or starts"),
            Ok((Role::InRecovery, _)) => Some("the database is a standby"),
            Ok(_) | Err(_) => None,
        };
        if let Some(cause) = cause {
            return Stands::NotNeeded(cause.to_owned());
        }
        let begun = timeout(BEGIN_WITHIN, async {
            let mut session = Session::open(&self.target).await?;
            let at = session.start().await?;
            Ok((session, Flow::begin(at)))
        });
        let (session, flow) = match begun.await {
            Ok(Ok(begun)) => begun,
            Ok(Err(e @ WireError::Connect { .. })) if self.shared.stands() == let_go() => {
                tracing::debug!("{e}");
                return let_go();
            }
            Ok(Err(e)) => return Stands::NotInForce(e.to_string()),
            Err(_) => {
                let why = format!("{} does not let it begin within {} s", self.target.place, BEGIN_WITHIN.as_secs());
                return Stands::NotInForce(why);
            }
        };
        let (blocked, had_confirmed, look_at) = (false, false, Instant::now());
        let mut stream = Stream { gate: self, session, flow, blocked, look: None, had_confirmed, look_at };
        match stream.run().await {
            Ended::Planned => let_go(),
            Ended::ByServer => Stands::NotInForce("the server ended the stream".to_owned()),
            Ended::Wire(e) => Stands::NotInForce(e.to_string()),
        }
    }
}

fn let_go() -> Stands {
    Stands::NotNeeded("the server was let go: it is shut down".to_owned())
}

struct Stream<'a> {
    gate: &'a CommitGate,
    session: Session,
    flow: Flow,
    /// The socket had no room for a reply.
    blocked: bool,
    look: Option<JoinHandle<Result<String, String>>>,
    /// Something was confirmed before the look began.
    had_confirmed: bool,
    look_at: Instant,
}

impl Stream<'_> {
    async fn run(&mut self) -> Ended {
        let mut extended = self.gate.shared.until_ns.subscribe();
        let mut repeat = interval(REPEAT_EVERY);
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let runs = boottime_ns() < self.gate.shared.until_ns();
            let mut repeats = false;
            let step = tokio::select! {
                ready = self.session.readable() => match ready {
                    Ok(()) => self.read().await,
                    Err(e) => Err(e.into()),
                },
                // Never closed: the gate itself keeps the sender.
                _ = extended.changed() => Ok(()),
                _ = repeat.tick(), if runs && self.flow.repeats() => { repeats = true; Ok(()) }
                ready = self.session.writable(), if self.blocked => ready.map_err(Ended::from),
                says = answer(&mut self.look) => { self.looked(says); Ok(()) }
                () = tokio::time::sleep_until(self.look_at), if self.look.is_none() => { self.look(); Ok(()) }
            };
            if let Err(ended) = step.and_then(|()| self.reply(repeats)) {
                return ended;
            }
        }
    }

    async fn read(&mut self) -> Result<(), Ended> {
        self.session.fill()?;
        let mut asked = false;
        while let Some(frame) = self.session.frame()? {
            match frame {
                Frame::Message(Message::CopyData(body)) => {
                    let message = FromServer::parse(body.data())
                        .map_err(|what| WireError::Format { to: self.gate.target.place.to_string(), what })?;
                    asked |= matches!(message, FromServer::Keepalive { asks: true, .. });
                    self.flow.take(message);
                }
                Frame::Message(Message::ErrorResponse(error)) => return Err(wire::ended_by(&error).into()),
                Frame::Message(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                Frame::Message(_) | Frame::CopyBoth => return Err(Ended::ByServer),
            }
        }
        // A server that stops waits until its last record is confirmed, and asks for that. Let go where no session is
        // left that anybody could hear from: confirmed it would be without a lease.
        if asked && self.flow.holds_back(boottime_ns(), self.gate.shared.until_ns()) {
            let data_dir = self.gate.pg.data_dir.clone();
            let state = spawn_blocking(move || postgres::control_state(&data_dir)).await;
            if matches!(state, Ok(Ok(ControlState::SHUT_DOWN))) {
                return Err(Ended::Planned);
            }
        }
        Ok(())
    }

    /// The clock and the deadline are read for this reply, and it goes out at once or never.
    fn reply(&mut self, repeat: bool) -> Result<(), Ended> {
        let unix_ms = unix_now().0;
        let until_ns = self.gate.shared.until_ns();
        if let Some(reply) = self.flow.reply(boottime_ns(), until_ns, repeat) {
            let sent = self.session.send_at_once(&reply.bytes(unix_ms))?;
            self.blocked = !sent;
            if sent {
                self.flow.sent(reply);
            }
        }
        Ok(())
    }

    fn look(&mut self) {
        let pg = self.gate.pg.clone();
        let question = judge::question(&self.gate.target.name, self.session.pid);
        self.had_confirmed = self.flow.confirmed() > Lsn(0);
        self.look = Some(spawn_blocking(move || postgres::query(&pg, &question, LOOK_MS)));
    }

    fn looked(&mut self, says: Result<String, String>) {
        let (name, pid) = (&self.gate.target.name, self.session.pid);
        let says = says.and_then(|says| serde_json::from_str::<ServerSays>(&says).map_err(|e| e.to_string()));
        let stands = match says.map(|says| judge::judge(&says, name, pid, self.had_confirmed)) {
            Err(why) => Stands::NotInForce(format!("whether commits wait for it cannot be told: {why}")),
            Ok(judged) => {
                if judged.streams {
                    self.flow.seen_streaming();
                }
                if judged.faults.is_empty() {
                    Stands::InForce(format!("commits wait for {name:?} alone, which server process {pid} serves"))
                } else {
                    Stands::NotInForce(judged.faults.join("; "))
                }
            }
        };
        let wait = if matches!(stands, Stands::InForce(_)) { LOOK_EVERY } else { LOOK_EVERY_AMISS };
        self.look_at = Instant::now() + wait;
        self.gate.shared.stand(stands);
    }
}

/// The answer to the look that is under way; never, where there is none.
async fn answer(look: &mut Option<JoinHandle<Result<String, String>>>) -> Result<String, String> {
    let Some(running) = look.as_mut() else { return std::future::pending().await };
    let says = running.await.unwrap_or_else(|e| Err(e.to_string()));
    *look = None;
    says
}
