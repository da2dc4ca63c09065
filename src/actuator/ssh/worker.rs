//! The thread that owns a session: libssh2 blocks, and a session is not to be shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use super::link::{Fault, Link};
use super::ticket::Ticket;
use super::{AskError, Settings};
use crate::domain::plan::GuardEndpoint;

/// So many requests wait for one session at most.
const QUEUE_MAX: usize = 8;

/// One request, or only a wish to be connected.
pub(super) struct Job {
    pub(super) ticket: Arc<Ticket>,
    pub(super) line: Option<String>,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Vec<u8>, AskError>>,
}

/// The handle of a session's thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: SyncSender<Job>,
    /// Requests given and not yet answered.
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Worker {
    pub(super) fn start(endpoint: GuardEndpoint, settings: Settings) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let load = Arc::new(AtomicUsize::new(0));
        let owner = Owner { endpoint, settings, load: load.clone(), link: None, used: Instant::now() };
        let thread = std::thread::Builder::new().name("guard-session".to_owned()).spawn(move || owner.run(&queue))?;
        Ok(Self { jobs, load, thread })
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Acquire)
    }

    pub(super) fn give(&self, job: Job) -> Result<(), &'static str> {
        self.load.fetch_add(1, Ordering::AcqRel);
        self.jobs.try_send(job).map_err(|refused| {
            self.load.fetch_sub(1, Ordering::AcqRel);
            match refused {
                TrySendError::Full(_) => "too many requests wait for it already",
                TrySendError::Disconnected(_) => "the session's thread ended",
            }
        })
    }
}

/// The thread's own.
struct Owner {
    endpoint: GuardEndpoint,
    settings: Settings,
    load: Arc<AtomicUsize>,
    link: Option<Link>,
    used: Instant,
}

impl Owner {
    fn run(mut self, queue: &Receiver<Job>) {
        loop {
            // Without a session there is nothing to keep alive, and the thread sleeps until it is asked.
            let job = match self.link {
                Some(_) => queue.recv_timeout(self.settings.keepalive),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match job {
                Ok(job) => self.serve(job),
                Err(RecvTimeoutError::Timeout) => self.look_after(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look_after(&mut self) {
        let Some(link) = self.link.take() else { return };
        if self.used.elapsed() >= self.settings.idle_close {
            tracing::debug!(host = %self.endpoint.host, "idle session closed");
            link.leave();
        } else if link.is_alive(self.settings.keepalive) {
            self.link = Some(link);
        } else {
            tracing::info!(host = %self.endpoint.host, "session lost while idle");
        }
    }

    fn serve(&mut self, job: Job) {
        let Job { ticket, line, deadline, answer } = job;
        let (result, channel) = match self.attempt(&ticket, line.as_deref(), deadline) {
            Ok((bytes, channel)) => (Ok(bytes), channel),
            Err(fault) => {
                self.link = None;
                let told = match fault {
                    Fault::Told(error) => error,
                    // Nobody listens any more; the text is for completeness.
                    Fault::Cancelled => {
                        AskError::NotSent { retryable: true, reason: format!("given up while {}", ticket.stage()) }
                    }
                };
                (Err(told), None)
            }
        };
        ticket.detach();
        self.used = Instant::now();
        // Before the answer: whoever asks again at once shall find this session, not start another.
        self.load.fetch_sub(1, Ordering::AcqRel);
        let _ = answer.send(result);
        if let Some(channel) = channel
            && !self.link.as_ref().is_some_and(|link| link.tidy(channel))
        {
            tracing::debug!(host = %self.endpoint.host, "session given up: the last channel does not close");
            self.link = None;
        }
    }

    fn attempt(
        &mut self,
        ticket: &Ticket,
        line: Option<&str>,
        deadline: Instant,
    ) -> Result<(Vec<u8>, Option<ssh2::Channel>), Fault> {
        // A warm session may have died unseen. Then, and only while nothing was sent, a fresh one is tried once.
        if let Some(link) = self.link.take() {
            let tried = link.attach_to(ticket).and_then(|()| match line {
                Some(line) => use_link(&link, line, ticket, deadline, self.settings),
                None if link.answers(deadline) => Ok((Vec::new(), None)),
                None => Err(gone()),
            });
            match tried {
                Ok(done) => {
                    self.link = Some(link);
                    return Ok(done);
                }
                Err(Fault::Told(AskError::NotSent { .. })) if !ticket.was_sent() => {
                    tracing::info!(host = %self.endpoint.host, "the warm session is gone; connecting anew");
                }
                Err(fault) => return Err(fault),
            }
        }
        let link = Link::connect(&self.endpoint, ticket, deadline)?;
        let done = match line {
            Some(line) => use_link(&link, line, ticket, deadline, self.settings)?,
            None => (Vec::new(), None),
        };
        self.link = Some(link);
        Ok(done)
    }
}

fn gone() -> Fault {
    Fault::Told(AskError::NotSent { retryable: true, reason: "the session is gone".to_owned() })
}

fn use_link(
    link: &Link,
    line: &str,
    ticket: &Ticket,
    deadline: Instant,
    settings: Settings,
) -> Result<(Vec<u8>, Option<ssh2::Channel>), Fault> {
    let (answer, channel) = link.exchange(line, ticket, deadline, settings.answer_bytes_max)?;
    Ok((answer, Some(channel)))
}
