//! What a guard is asked and what it answers: one JSON object each way, one line, over the forced command's stdin and
//! stdout. Both sides parse strictly: an unknown key is an error, never ignored.
//!
//! Every answer carries the guard's boot nonce and its `CLOCK_BOOTTIME`, refusals too, so that a client can always state
//! its next deadline in the guard's own time.

mod wal;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::attempt::{Outcome, Raised, ReadBack, Warrant};
use crate::domain::ids::{ClusterName, GroupName, HostName, RunId, StepId, Token, UnixMs};
pub use crate::domain::plan::{REDIS_FENCE, REDIS_HAND_OVER, REDIS_PROMOTE, REDIS_REJOIN, REDIS_RELEASE};
pub use wal::{Lsn, WalRunning, WalShown, WalState};

/// A request is at most this long, bytes, its final newline included. Longer ones are refused unread.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// An answer is never longer than this, bytes. A client refuses longer ones.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// What is told of how far an action is, bytes.
pub const PHASE_BYTES_MAX: usize = 160;
/// The action that only looks, and needs no token.
pub const STATUS: &str = "status";
/// The action that looks like [`STATUS`] and also tells what the host can do. A guard that does not know it yet refuses it
/// as a bad request, and then `status` is asked.
pub const DESCRIBE: &str = "describe";
/// The action that only raises the token.
pub const RAISE: &str = "raise";
/// The action that stops an old primary and latches it.
pub const FENCE: &str = "fence";
/// The action that makes a standby the primary. Never killed.
pub const PROMOTE: &str = "promote";
/// A built-in action: make a fenced, cleanly stopped old primary the primary again.
pub const RELEASE: &str = "release";
/// The action that makes a fenced primary a standby again.
pub const REJOIN: &str = "rejoin";

/// One request, as on the wire. Build it with [`Request::status`], [`Request::raise`], [`Request::act`] or
/// [`Request::read_back`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The asking cluster's name.
    pub cluster: ClusterName,
    /// The asking cluster's epoch. Equal to the token's.
    pub epoch: u64,
    /// What to do: `status`, `raise`, or an action's name.
    pub action: String,
    /// The group. Needed by all but `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// The run. Needed by all but `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The step. Needed by all but `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// The attempt, from 1. Needed by all but `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The token. Needed by all but `status`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict_token")]
    pub token: Option<Token>,
    /// With `promote`: the old primary's host, where its own guard showed it stopped and latched under this token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced_host: Option<HostName>,
    /// Declared parameters of the action.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Raise the token and look whether the effect is there; do not act.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_back: bool,
    /// With `raise`: end what an earlier token has in flight (never `promote`), even of the same run and step.
    #[serde(default, skip_serializing_if = "is_false")]
    pub abort: bool,
    /// Nothing is begun after this moment of the guard's `CLOCK_BOOTTIME`, milliseconds. Needed to act; checked
    /// wherever given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after_boottime_ms: Option<u64>,
    /// The boot in which that moment was stated. Needed to act; checked wherever given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_nonce: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictToken {
    epoch: u64,
    n: u64,
}

fn strict_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Token>, D::Error> {
    let token = Option::<StrictToken>::deserialize(deserializer)?;
    Ok(token.map(|StrictToken { epoch, n }| Token { epoch, n }))
}

/// Where a token must be there.
fn strict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
    StrictToken::deserialize(deserializer).map(|StrictToken { epoch, n }| Token { epoch, n })
}

impl Request {
    /// Looks only. `epoch` is told for the guard's log; a guard enrolled with another epoch answers too.
    pub fn status(cluster: ClusterName, epoch: u64) -> Self {
        Self {
            cluster,
            epoch,
            action: STATUS.to_owned(),
            group: None,
            run: None,
            step: None,
            attempt: None,
            token: None,
            fenced_host: None,
            params: BTreeMap::new(),
            read_back: false,
            abort: false,
            not_after_boottime_ms: None,
            boot_nonce: None,
        }
    }

    /// Looks only, as [`Request::status`], and asks what the host can do.
    pub fn describe(cluster: ClusterName, epoch: u64) -> Self {
        Self { action: DESCRIBE.to_owned(), ..Self::status(cluster, epoch) }
    }

    fn under(warrant: &Warrant, action: &str) -> Self {
        Self {
            group: Some(warrant.group.clone()),
            run: Some(warrant.run.clone()),
            step: Some(warrant.step.clone()),
            attempt: Some(warrant.attempt),
            token: Some(warrant.token),
            action: action.to_owned(),
            ..Self::status(warrant.cluster.clone(), warrant.token.epoch)
        }
    }

    /// Raises the warrant's token without acting; instant. Its answer tells the boot nonce and the guard's time.
    /// With `abort` what an earlier token has in flight is ended, even if of the same run and step.
    pub fn raise(warrant: &Warrant, abort: bool) -> Self {
        Self { abort, ..Self::under(warrant, RAISE) }
    }

    /// Raises the token, then acts, unless `not_after_boottime_ms` has passed or the guard's host was booted since
    /// `boot_nonce` was learned.
    pub fn act(
        warrant: &Warrant,
        action: &str,
        params: BTreeMap<String, String>,
        boot_nonce: &str,
        not_after_boottime_ms: u64,
    ) -> Self {
        Self {
            params,
            fenced_host: warrant.fenced_host.clone().filter(|_| action == PROMOTE),
            boot_nonce: Some(boot_nonce.to_owned()),
            not_after_boottime_ms: Some(not_after_boottime_ms),
            ..Self::under(warrant, action)
        }
    }

    /// Raises the token, then looks whether the effect is there.
    pub fn read_back(warrant: &Warrant, action: &str, params: BTreeMap<String, String>) -> Self {
        Self { params, read_back: true, ..Self::under(warrant, action) }
    }
}

/// One answer, as on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The guard's version.
    pub guard_version: String,
    /// The kernel's boot id: another after each boot.
    pub boot_nonce: String,
    /// The guard's `CLOCK_BOOTTIME` when it answered, milliseconds.
    pub boottime_ms: u64,
    /// What came of it.
    pub reply: Reply,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Reply {
    /// To `status`.
    Status(Status),
    /// To `describe`.
    Described {
        /// As to `status`.
        status: Status,
        /// What the guard knows to do, by name.
        actions: BTreeMap<String, ActionShown>,
        /// The host's Redis server, where it is latched or that cannot be told. Left out otherwise: nodes of before do not
        /// know it, and guards of before do not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        redis: Option<RedisShown>,
    },
    /// To `raise`: the store now remembers at least the request's token, durably.
    Raised {
        /// The token held.
        #[serde(deserialize_with = "strict")]
        held: Token,
        /// What is at work there now.
        in_flight: Option<InFlight>,
    },
    /// The effect is there.
    Done {
        /// What was read.
        evidence: String,
        /// This very request brought it; otherwise it was found.
        acted: bool,
    },
    /// To a read-back: the effect is not there and nothing that could bring it is under way.
    NotDone {
        /// What was read.
        evidence: String,
    },
    /// The same run and step, or something that may not be ended, is still at work.
    InFlight {
        /// What it is.
        in_flight: InFlight,
    },
    /// The effect is certainly not there, or the action itself said that it failed.
    Failed {
        /// Trying again may help.
        retryable: bool,
        /// What went wrong and what to do next.
        reason: String,
    },
    /// It may or may not be there.
    Unknown {
        /// What was being done, and what to do next.
        reason: String,
    },
    /// Nothing was done.
    Refused {
        /// Why, for programs.
        refusal: Refusal,
        /// Why, for people: names the thing, the value and what to do next.
        reason: String,
        /// The token held, where that is why.
        #[serde(default, deserialize_with = "strict_token")]
        held: Option<Token>,
    },
}

/// Why a guard refuses. Each has an exit code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Not one line of JSON of the known shape within the size allowed.
    BadRequest,
    /// Another cluster's name, or an epoch it is not enrolled with.
    AnotherCluster,
    /// The store remembers a higher token.
    LowerToken,
    /// The deadline had passed before anything was begun.
    Expired,
    /// The host was booted since the nonce was learned.
    AnotherBoot,
    /// Not in the guard's configuration.
    UnknownAction,
    /// Undeclared, missing, or not as its pattern asks.
    BadParameter,
    /// Not a group of this host.
    UnknownGroup,
    /// No token store yet, or it was lost: it must be enrolled by name.
    NotEnrolled,
    /// The token store or the latch cannot be trusted: it must be enrolled again by name.
    DamagedStore,
    /// The ledger cannot be trusted: it must be set aside by name.
    DamagedLedger,
    /// The host is latched, and what was asked needs it not to be.
    Latched,
}

/// What is at work under the action lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InFlight {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt that began it.
    pub attempt: u32,
    /// The action's name.
    pub action: String,
    /// The token under which it was begun.
    #[serde(deserialize_with = "strict")]
    pub token: Token,
    /// The supervising guard's process id.
    pub guard_pid: u32,
    /// The process group of the command now at work, if any.
    pub process_group: Option<u32>,
    /// `CLOCK_BOOTTIME` of its begin, milliseconds.
    pub since_boottime_ms: u64,
    /// Its guard is gone, and the command goes on by itself.
    pub orphaned: bool,
    /// How far it is, in words, where it takes long: at most [`PHASE_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The host's own name.
    pub host: String,
    /// The cluster the guard serves.
    pub cluster: ClusterName,
    /// Each group of this host.
    pub groups: Vec<GroupStatus>,
    /// The database, where this host has one.
    pub postgres: Option<PostgresStatus>,
}

/// An action of this host's guard, as found just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionShown {
    /// The parameters it takes, by name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub params: BTreeSet<String>,
    /// What keeps it from being started at all: a program that is not there or that its user may not run, or no such user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A Redis server that may neither start nor be promoted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisShown {
    /// Its group.
    pub group: GroupName,
    /// Its latch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latch: Option<LatchMark>,
    /// Why its latch cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// One group on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupName,
    /// The highest token; `None` with a `fault`.
    #[serde(default, deserialize_with = "strict_token")]
    pub token: Option<Token>,
    /// The cluster epoch it is enrolled with.
    pub epoch: Option<u64>,
    /// The latch, where set.
    pub latch: Option<LatchMark>,
    /// What is at work.
    pub in_flight: Option<InFlight>,
    /// The promotion hold in force, if any: until it is over nothing here is promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldShown>,
    /// The newest ledger records, oldest first: a hint, never a proof.
    pub last: Vec<LedgerHint>,
    /// Not enrolled, or damaged: what it is and what to type.
    pub fault: Option<String>,
}

/// A promotion hold in force (docs/adr/0008).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldShown {
    /// The primary's host it was given to.
    pub host: HostName,
    /// It lasts so long yet at most, by this host's clock, milliseconds. `u64::MAX` where its record cannot be read.
    pub remaining_ms: u64,
}

/// The durable mark "fenced under token X".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatchMark {
    /// The token under which it was set.
    #[serde(deserialize_with = "strict")]
    pub token: Token,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// When, for people.
    pub at: UnixMs,
}

/// A ledger record in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerHint {
    /// When, for people.
    pub at: UnixMs,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt.
    pub attempt: u32,
    /// The token.
    #[serde(deserialize_with = "strict")]
    pub token: Token,
    /// The action's name.
    pub action: String,
    /// `started`, `done`, `failed`, `unknown` or `preempted`.
    pub event: String,
    /// What was read or went wrong.
    pub detail: String,
}

/// The database as this guard sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresStatus {
    /// Its group.
    pub group: GroupName,
    /// What it may do now.
    pub role: PostgresRole,
    /// How that was seen.
    pub seen_by: String,
    /// Where its log stands; `None` where that cannot be read, or of a guard that does not tell yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalShown>,
}

/// What the database on a host may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostgresRole {
    /// No server process, port refused, data directory free.
    Stopped,
    /// Runs and replays: takes no write.
    InRecovery,
    /// Runs and takes writes, or is about to.
    Writable,
    /// Could not be told.
    Unknown,
}

impl Reply {
    /// The guard's exit code. 0: answered as asked. 10–13: an attempt's other ends. 20 and more: refused, nothing done.
    pub fn exit_code(&self) -> u8 {
        match self {
            Reply::Status(_) | Reply::Described { .. } | Reply::Raised { .. } | Reply::Done { .. } => 0,
            Reply::Failed { .. } => 10,
            Reply::Unknown { .. } => 11,
            Reply::InFlight { .. } => 12,
            Reply::NotDone { .. } => 13,
            Reply::Refused { refusal, .. } => refusal.exit_code(),
        }
    }

    /// What a refused or unexpected reply means to somebody who asked for something else.
    fn in_words(&self) -> String {
        match self {
            Reply::Refused { refusal, reason, .. } => format!("guard refused ({refusal}): {reason}"),
            Reply::Failed { reason, .. } | Reply::Unknown { reason } => reason.clone(),
            other => format!("guard answered something that was not asked for: {other:?}"),
        }
    }

    /// As the outcome of [`Request::act`].
    pub fn into_outcome(self) -> Outcome {
        match self {
            Reply::Done { evidence, .. } => Outcome::Done { evidence },
            Reply::Failed { retryable, reason } => Outcome::Failed { retryable, reason },
            Reply::Unknown { reason } => Outcome::Unknown { reason },
            Reply::InFlight { in_flight } => Outcome::Unknown { reason: format!("still in flight: {in_flight}") },
            Reply::Refused { refusal: Refusal::LowerToken, held: Some(held), .. } => Outcome::Refused { held },
            Reply::Refused { refusal, .. } => {
                Outcome::Failed { retryable: refusal.is_retryable(), reason: self.in_words() }
            }
            other => Outcome::Unknown { reason: other.in_words() },
        }
    }

    /// As the answer to [`Request::read_back`].
    pub fn into_read_back(self) -> ReadBack {
        match self {
            Reply::Done { evidence, .. } => ReadBack::Done { evidence },
            Reply::NotDone { evidence } => ReadBack::NotDone { evidence },
            Reply::InFlight { in_flight } => ReadBack::InFlight { evidence: in_flight.to_string() },
            Reply::Refused { refusal: Refusal::LowerToken, held: Some(held), .. } => ReadBack::Refused { held },
            other => ReadBack::Unknown { reason: other.in_words() },
        }
    }

    /// As the answer to [`Request::raise`].
    pub fn into_raised(self) -> Raised {
        match self {
            Reply::Raised { in_flight, .. } => Raised::Done { in_flight: in_flight.map(|f| f.to_string()) },
            Reply::Refused { refusal: Refusal::LowerToken, held: Some(held), .. } => Raised::Refused { held },
            other => Raised::Unknown { reason: other.in_words() },
        }
    }
}

impl Refusal {
    /// The guard's exit code for it.
    pub fn exit_code(self) -> u8 {
        match self {
            Refusal::BadRequest => 20,
            Refusal::AnotherCluster => 21,
            Refusal::LowerToken => 22,
            Refusal::Expired => 23,
            Refusal::AnotherBoot => 24,
            Refusal::UnknownAction => 25,
            Refusal::BadParameter => 26,
            Refusal::UnknownGroup => 27,
            Refusal::NotEnrolled => 28,
            Refusal::DamagedStore => 29,
            Refusal::DamagedLedger => 30,
            Refusal::Latched => 31,
        }
    }

    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Refusal::BadRequest => "bad request",
            Refusal::AnotherCluster => "another cluster",
            Refusal::LowerToken => "lower token",
            Refusal::Expired => "deadline passed",
            Refusal::AnotherBoot => "another boot",
            Refusal::UnknownAction => "unknown action",
            Refusal::BadParameter => "bad parameter",
            Refusal::UnknownGroup => "unknown group",
            Refusal::NotEnrolled => "not enrolled",
            Refusal::DamagedStore => "damaged store",
            Refusal::DamagedLedger => "damaged ledger",
            Refusal::Latched => "latched",
        }
    }

    /// Asking again, with the time and nonce of this answer, may help without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Refusal::Expired | Refusal::AnotherBoot)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

impl std::fmt::Display for HoldShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.remaining_ms {
            u64::MAX => f.write_str("the promotion hold's record cannot be read, so it stands"),
            remaining_ms => write!(f, "the promotion hold for {} runs {remaining_ms} ms more", self.host),
        }
    }
}

impl std::fmt::Display for PostgresRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            PostgresRole::Stopped => "stopped",
            PostgresRole::InRecovery => "in recovery",
            PostgresRole::Writable => "writable",
            PostgresRole::Unknown => "unknown",
        })
    }
}

impl std::fmt::Display for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} ({}, token {}, guard pid {}", self.run, self.step, self.action, self.token, self.guard_pid)?;
        if let Some(group) = self.process_group {
            write!(f, ", process group {group}")?;
        }
        if let Some(phase) = &self.phase {
            write!(f, ": {phase}")?;
        }
        f.write_str(if self.orphaned { ", its guard is gone)" } else { ")" })
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
