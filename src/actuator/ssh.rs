//! How guards are reached: warm SSH sessions, each owned by one thread, under one overall deadline for each request.
//!
//! A request is known to be *not sent* until its first byte left; from then on its outcome is unknown unless an answer
//! comes. Abandoned is not cancelled: what a guard was told to do it goes on doing. The thread is never left blocked: at
//! the deadline, or when the caller drops the future, the socket is shut down under it.

mod host_key;
mod link;
mod ticket;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::domain::plan::GuardEndpoint;
use ticket::Ticket;
use worker::{Job, Worker};

pub use host_key::{HostKey, HostKeyError};
pub(super) use link::excerpt;

/// So many sessions to one host at most: a long action does not keep another request from being made.
const SESSIONS_MAX: usize = 4;

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The request certainly did not leave this node.
    #[error("{reason}")]
    NotSent {
        /// Trying again may help without anybody changing anything.
        retryable: bool,
        /// Host, what was being done, and what to do next.
        reason: String,
    },
    /// The request was sent, at least in part, and nothing usable came back.
    #[error("{reason}")]
    Lost {
        /// Host, and what came instead of an answer.
        reason: String,
    },
}

/// How sessions are kept.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A keepalive is sent, and the socket looked at, so often while a session is idle.
    pub keepalive: Duration,
    /// A session not used for so long is closed.
    pub idle_close: Duration,
    /// An answer longer than this is refused, bytes.
    pub answer_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keepalive: Duration::from_secs(5),
            idle_close: Duration::from_secs(120),
            answer_bytes_max: crate::guard::protocol::ANSWER_BYTES_MAX,
        }
    }
}

/// One line to a host's guard, one line back.
#[async_trait]
pub trait Ask: std::fmt::Debug + Send + Sync {
    /// Sends one line and reads one back, without its newline.
    ///
    /// # Errors
    /// Tells whether the request may have been sent. Dropping the future abandons it at once.
    async fn ask(&self, endpoint: &GuardEndpoint, line: String, deadline: Instant) -> Result<Vec<u8>, AskError>;
}

#[async_trait]
impl Ask for GuardChannels {
    async fn ask(&self, endpoint: &GuardEndpoint, line: String, deadline: Instant) -> Result<Vec<u8>, AskError> {
        GuardChannels::ask(self, endpoint, line, deadline).await
    }
}

/// Everything that makes two endpoints the same session.
type Key = (String, String, String, String);

/// The sessions of this node, by endpoint. Threads end when it is dropped.
#[derive(Debug, Default)]
pub struct GuardChannels {
    settings: Settings,
    workers: Mutex<BTreeMap<Key, Vec<Worker>>>,
}

impl GuardChannels {
    /// No session yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, workers: Mutex::default() }
    }

    /// Sends one line to the host's guard and reads one line back, without its newline.
    ///
    /// # Errors
    /// Tells whether the request may have been sent. Dropping the future abandons it at once.
    pub async fn ask(&self, endpoint: &GuardEndpoint, line: String, deadline: Instant) -> Result<Vec<u8>, AskError> {
        self.give(endpoint, Some(line), deadline).await
    }

    /// Connects ahead of time, or does nothing where a session is open. Either way the session counts as used.
    ///
    /// # Errors
    /// As [`GuardChannels::ask`]; always `NotSent`.
    pub async fn warm(&self, endpoint: &GuardEndpoint, deadline: Instant) -> Result<(), AskError> {
        self.give(endpoint, None, deadline).await.map(drop)
    }

    async fn give(
        &self,
        endpoint: &GuardEndpoint,
        line: Option<String>,
        deadline: Instant,
    ) -> Result<Vec<u8>, AskError> {
        let ticket = Arc::new(Ticket::default());
        // Also on drop: what was abandoned must not keep the thread, nor be sent later.
        let abandon = Abandon(ticket.clone());
        let (answer, answered) = oneshot::channel();
        let job = Job { ticket: ticket.clone(), line, deadline: deadline.into_std(), answer };
        self.hand_over(endpoint, job)?;
        let lost = match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(result)) => return result,
            Ok(Err(_)) => "the session's thread ended",
            Err(_) => "the deadline passed",
        };
        let (sent, stage) = ticket.cancel();
        drop(abandon);
        let reason = format!("{}: {lost} while {stage}", shown(endpoint));
        Err(if sent { AskError::Lost { reason } } else { AskError::NotSent { retryable: true, reason } })
    }

    /// To an idle session's thread, else to a new one, else to the one with the least to do.
    fn hand_over(&self, endpoint: &GuardEndpoint, job: Job) -> Result<(), AskError> {
        let not_sent = |reason| AskError::NotSent { retryable: true, reason };
        let key = (
            endpoint.address.clone(),
            endpoint.user.clone(),
            endpoint.host_key.clone(),
            endpoint.identity_file.clone(),
        );
        let mut all = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = all.entry(key).or_default();
        workers.retain(Worker::is_alive);
        // The first idle one: the others grow cold and close.
        if let Some(idle) = workers.iter().find(|worker| worker.load() == 0) {
            return idle.give(job).map_err(|why| not_sent(format!("{}: {why}", shown(endpoint))));
        }
        if workers.len() < SESSIONS_MAX {
            let started = Worker::start(endpoint.clone(), self.settings);
            let worker = started.map_err(|e| not_sent(format!("{}: cannot start a thread: {e}", shown(endpoint))))?;
            workers.push(worker);
        }
        let least = workers.iter().min_by_key(|worker| worker.load());
        let given = least.map_or(Err("no session"), |worker| worker.give(job));
        given.map_err(|why| not_sent(format!("{}: {why}", shown(endpoint))))
    }
}

struct Abandon(Arc<Ticket>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How errors begin.
fn shown(endpoint: &GuardEndpoint) -> String {
    format!("guard of host {} ({}@{})", endpoint.host, endpoint.user, endpoint.address)
}
