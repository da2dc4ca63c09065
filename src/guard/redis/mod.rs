//! The Redis server of this host: what it says of itself, and who listens on its port, which is also known of one that is
//! frozen and says nothing.

pub mod config;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout;

use self::config::Redis;
use super::host::{self, Process};
use super::listeners;
use crate::domain::plan::RedisEndpoint;
use crate::redis::{Connection, Role, Shown, Trouble};

/// A server of this host that works answers within this, milliseconds.
pub const ANSWER_MS: u64 = 2000;

/// What the server may do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody listens on its port.
    Stopped,
    /// It follows another, and takes no writes.
    Replica {
        /// `host:port` of that one.
        of: String,
        /// In step with it.
        linked: bool,
    },
    /// It follows another, and takes writes all the same (`replica-read-only no`): nobody else has those.
    WritableReplica,
    /// It takes writes, or will, and follows nobody.
    Primary,
    /// Cannot be told.
    Unknown,
}

impl State {
    /// Nobody's writes are taken by it as it is.
    pub fn is_silent(&self) -> bool {
        matches!(self, State::Stopped | State::Replica { .. })
    }
}

/// A state and how it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it may do.
    pub state: State,
    /// How that was seen, for people and the evidence.
    pub how: String,
    /// It works with another file than the configured one, in words: what is read in that or written to it counts for nothing.
    pub other_file: Option<String>,
}

/// How this host's own server is reached.
pub fn endpoint(redis: &Redis) -> RedisEndpoint {
    at(redis, &redis.address.to_string())
}

/// Another server that takes the same user and password.
pub fn at(redis: &Redis, address: &str) -> RedisEndpoint {
    RedisEndpoint {
        address: address.to_owned(),
        user: redis.user.clone(),
        password_file: redis.password_file.as_ref().map(|file| file.display().to_string()),
    }
}

/// One conversation with one process: it ends with that, so nothing that was said to it is taken for said to another.
#[derive(Debug)]
pub struct Talk {
    place: String,
    runtime: Runtime,
    /// None after anything but an answer: what comes next on it may be the answer to an earlier question.
    connection: Option<Connection>,
}

impl Talk {
    /// Begins it.
    ///
    /// # Errors
    /// Why it cannot be, in words.
    pub fn open(server: &RedisEndpoint, limit_ms: u64) -> Result<Self, String> {
        let place = server.address.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("redis {place}: cannot be asked: {e}"))?;
        let connection = within(&runtime, &place, limit_ms, Connection::open(server))?;
        let connection = Some(connection.map_err(|e| format!("redis {place}: {e}"))?);
        Ok(Self { place, runtime, connection })
    }

    /// Sends one command.
    ///
    /// # Errors
    /// Why there is no good answer, in words.
    pub fn command(&mut self, words: &[&str], limit_ms: u64) -> Result<String, String> {
        self.say(limit_ms, async |connection| connection.ask(words).await)
    }

    /// What the server says of itself.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn info(&mut self, limit_ms: u64) -> Result<Shown, String> {
        self.say(limit_ms, async |connection| connection.look().await)
    }

    fn say<T>(
        &mut self,
        limit_ms: u64,
        work: impl AsyncFnOnce(&mut Connection) -> Result<T, Trouble>,
    ) -> Result<T, String> {
        let place = &self.place;
        let mut connection = self.connection.take().ok_or_else(|| format!("redis {place}: the connection is lost"))?;
        let answer = within(&self.runtime, place, limit_ms, work(&mut connection))?;
        if matches!(answer, Ok(_) | Err(Trouble::Said(_))) {
            self.connection = Some(connection);
        }
        answer.map_err(|e| format!("redis {place}: {e}"))
    }
}

fn within<T>(runtime: &Runtime, place: &str, limit_ms: u64, work: impl Future<Output = T>) -> Result<T, String> {
    let limited = runtime.block_on(async { timeout(Duration::from_millis(limit_ms), work).await });
    limited.map_err(|_| format!("redis {place}: no answer within {limit_ms} ms"))
}

/// Sends one command.
///
/// # Errors
/// Why there is no good answer, in words.
pub fn command(server: &RedisEndpoint, words: &[&str], limit_ms: u64) -> Result<String, String> {
    Talk::open(server, limit_ms)?.command(words, limit_ms)
}

/// What a server says of itself.
///
/// # Errors
/// As [`command`].
pub fn info(server: &RedisEndpoint, limit_ms: u64) -> Result<Shown, String> {
    Talk::open(server, limit_ms)?.info(limit_ms)
}

/// What it may do. One that listens and does not say what it is may take writes.
pub fn look(redis: &Redis) -> Seen {
    let seen = |state, how: String| Seen { state, how, other_file: None };
    match gone(redis) {
        Ok(how) => return seen(State::Stopped, how),
        Err(Listens::Unknown(why)) => return seen(State::Unknown, why),
        Err(Listens::Processes(_)) => {}
    }
    let answer = info(&endpoint(redis), ANSWER_MS);
    let other_file = answer.as_ref().ok().and_then(|shown| other_file(redis, &shown.config_file));
    let seen = |state, how: String| Seen { state, how, other_file: other_file.clone() };
    match answer {
        Err(why) => seen(State::Unknown, why),
        Ok(shown) if shown.loading => seen(State::Unknown, format!("redis process {} loads its data", shown.pid)),
        Ok(Shown { role: Role::Primary, offset, pid, .. }) => {
            seen(State::Primary, format!("redis process {pid} is a primary at offset {offset}"))
        }
        Ok(Shown { role: Role::Replica { of, read_only: false, .. }, pid, .. }) => {
            let how = format!("redis process {pid} follows {of}, but takes writes (replica-read-only no)");
            seen(State::WritableReplica, how)
        }
        Ok(Shown { role: Role::Replica { of, linked, .. }, offset, pid, .. }) => {
            let link = if linked { "in step" } else { "not in step" };
            let how = format!("redis process {pid} is a replica of {of}, {link}, at offset {offset}");
            seen(State::Replica { of, linked }, how)
        }
    }
}

fn other_file(redis: &Redis, named: &str) -> Option<String> {
    let (configured, named) = (&redis.config_file, Path::new(named));
    let is_same = configured == named
        || matches!((configured.canonicalize(), named.canonicalize()), (Ok(one), Ok(other)) if one == other);
    let named = if named.as_os_str().is_empty() { "no file".to_owned() } else { named.display().to_string() };
    (!is_same).then(|| {
        let configured = configured.display();
        format!("the server works with {named}, but config_file of [redis] is {configured}: make them the same")
    })
}

/// What shows that it is not gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listens {
    /// These processes hold its port.
    Processes(BTreeSet<Process>),
    /// Somebody does, or may; in words.
    Unknown(String),
}

/// Is it gone for certain: nobody listens on its port? A frozen server still does.
///
/// # Errors
/// Who does, or why that cannot be told.
pub fn gone(redis: &Redis) -> Result<String, Listens> {
    let unknown = Listens::Unknown;
    let inodes = listeners::on(Some(redis.address.ip()), redis.address.port()).map_err(unknown)?;
    if inodes.is_empty() {
        return Ok(format!("nobody listens on {}", redis.address));
    }
    match holders(&inodes) {
        Ok(pids) if !pids.is_empty() => Err(Listens::Processes(pids)),
        // It may have ended in between; the next look tells.
        Ok(_) => Err(unknown(format!("somebody listens on {}, and no process is seen to", redis.address))),
        Err(why) => Err(unknown(why)),
    }
}

/// Who holds these sockets. A process that may not be looked at hides nothing: the guard runs as root or as the server's user.
fn holders(inodes: &BTreeSet<u64>) -> Result<BTreeSet<Process>, String> {
    let wanted: BTreeSet<PathBuf> = inodes.iter().map(|inode| PathBuf::from(format!("socket:[{inode}]"))).collect();
    let pids = host::pids().map_err(|e| format!("cannot read /proc: {e}"))?;
    let holds = |process: &Process| {
        let Ok(open) = fs::read_dir(format!("/proc/{}/fd", process.pid())) else { return false };
        open.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|to| wanted.contains(&to)))
    };
    // Who it is comes first: what is seen afterwards of another with its number is then said of nobody.
    Ok(pids.filter_map(Process::of).filter(holds).collect())
}
