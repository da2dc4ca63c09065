//! Drills: rehearsals by plan or by an operator's word. What a group's configuration says of them, what is remembered of one,
//! and the changes that the log knows. [`due`] says when one begins, [`alarm`] what ends one at once, [`scenario`] what it does next, [`spans`] reads recovery times off a run, [`figures`]
//! counts them up by month.

pub mod alarm;
pub mod change;
pub mod due;
pub mod figures;
pub mod scenario;
pub mod spans;

use serde::{Deserialize, Serialize};

use super::chapters::Chapter;
use super::ids::{DrillId, DrillName, Principal, RegionName, RunId, TargetName, UnixMs};
use super::plan::DatabaseEndpoint;
use super::run::{Assertion, RunKind, RunOutcome};
use spans::Span;

pub use change::{DrillChange, DrillOpening};

/// How much of it is real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillKind {
    /// Every gate and every step's present state is read; nothing is changed.
    Tabletop,
    /// The drill group's trigger is reported as failed, and everything that follows is real, on the drill's resources.
    Simulated,
    /// The group is switched over and back.
    Live,
}

impl DrillKind {
    /// All of them.
    pub const ALL: [DrillKind; 3] = [DrillKind::Tabletop, DrillKind::Simulated, DrillKind::Live];

    /// `tabletop`, `simulated`, `live`.
    pub fn word(self) -> &'static str {
        match self {
            DrillKind::Tabletop => "tabletop",
            DrillKind::Simulated => "simulated",
            DrillKind::Live => "live",
        }
    }

    /// Something is done, so that it rehearses more than reading.
    pub fn acts(self) -> bool {
        self != DrillKind::Tabletop
    }
}

/// What a functional check looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CheckKind {
    /// `GET url` answers with the status.
    Http {
        /// Absolute URL.
        url: String,
        /// The status wanted.
        expect_status: u16,
        /// Connect to this `address:port` instead of resolving the URL's host.
        connect_to: Option<String>,
        /// Resolve the URL's host at this name server instead of the system's resolver.
        resolve_at: Option<String>,
    },
    /// A query, in a transaction that only reads, gives a value.
    Sql {
        /// Where.
        database: DatabaseEndpoint,
        /// One statement.
        query: String,
        /// The first column of the first row, as text; `None`: any row will do.
        expect: Option<String>,
    },
}

/// One functional check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillCheck {
    /// Its name.
    pub name: String,
    /// Looked at while this region serves.
    pub region: RegionName,
    /// What.
    #[serde(flatten)]
    pub what: CheckKind,
}

/// What a drill goes by: taken into the drill when it opens, so that whoever continues it uses only that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillSettings {
    /// The time zone of what people read.
    pub zone: String,
    /// Objective: it serves again within, milliseconds.
    pub rto_ms: u64,
    /// Objective: at most so much is lost, milliseconds of writes.
    pub rpo_ms: u64,
    /// A drill that takes longer is brought home and has failed, milliseconds.
    pub limit_ms: u64,
    /// What must work on the other side.
    #[serde(default)]
    pub checks: Vec<DrillCheck>,
    /// Targets that end it at once when a quorum sees them down.
    #[serde(default)]
    pub abort_targets: Vec<TargetName>,
    /// Events that end it at once when they are told of the group.
    #[serde(default)]
    pub abort_events: Vec<String>,
}

/// A time in which no drill begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blackout {
    /// From.
    pub from: UnixMs,
    /// Until, itself outside.
    pub until: UnixMs,
}

/// One schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillPlan {
    /// Its name.
    pub name: DrillName,
    /// How much of it is real.
    pub kind: DrillKind,
    /// When: a cron expression.
    pub cron: String,
    /// When it is not.
    pub blackouts: Vec<Blackout>,
    /// Told so long before, milliseconds; 0: not told.
    pub announce_before_ms: u64,
    /// Begun so much later it is skipped, milliseconds.
    pub late_max_ms: u64,
    /// What it goes by.
    pub settings: DrillSettings,
}

impl DrillPlan {
    /// What makes another schedule of it: what was due by the old one is not due by the new.
    pub fn rule(&self) -> String {
        format!("{} {}", self.cron, self.settings.zone)
    }
}

/// What a group's configuration says of drills.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillRules {
    /// Everything of the group is there for drills: its faults may be simulated.
    pub is_resource: bool,
    /// By name in the file's order.
    pub plans: Vec<DrillPlan>,
    /// For drills that no schedule names.
    pub checks: Vec<DrillCheck>,
}

impl DrillRules {
    /// Nothing is configured.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// Where a drill stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillPhase {
    /// Gates and present states are read.
    Checking,
    /// The trigger's targets are reported as failed, until the failover that this opens is over.
    Injecting,
    /// The group moves away from home.
    Moving,
    /// The other side is tried.
    Testing,
    /// The old primary becomes a standby again.
    Rejoining,
    /// The group moves home.
    Returning,
    /// Over.
    Closed,
}

impl DrillPhase {
    /// `checking`, `injecting`, `moving`, `testing`, `rejoining`, `returning`, `closed`.
    pub fn word(self) -> &'static str {
        match self {
            DrillPhase::Checking => "checking",
            DrillPhase::Injecting => "injecting",
            DrillPhase::Moving => "moving",
            DrillPhase::Testing => "testing",
            DrillPhase::Rejoining => "rejoining",
            DrillPhase::Returning => "returning",
            DrillPhase::Closed => "closed",
        }
    }

    /// What may follow; whatever is not here is rejected by `apply`. `Closed` is reached by closing only.
    pub fn may_go_to(self, next: DrillPhase, kind: DrillKind) -> bool {
        use DrillPhase::{Checking, Injecting, Moving, Rejoining, Returning, Testing};
        match kind {
            DrillKind::Tabletop => false,
            DrillKind::Simulated => matches!(
                (self, next),
                (Checking, Injecting)
                    | (Injecting, Testing | Rejoining)
                    | (Testing, Rejoining)
                    | (Rejoining, Returning)
            ),
            DrillKind::Live => {
                matches!((self, next), (Checking, Moving) | (Moving, Testing | Returning) | (Testing, Returning))
            }
        }
    }

    /// The kind of run that belongs to it.
    pub fn run_kind(self, kind: DrillKind) -> Option<RunKind> {
        match (self, kind) {
            (DrillPhase::Injecting, DrillKind::Simulated) => Some(RunKind::Failover),
            (DrillPhase::Moving, DrillKind::Live) => Some(RunKind::Switchover),
            (DrillPhase::Rejoining, DrillKind::Simulated) => Some(RunKind::Recovery),
            (DrillPhase::Returning, _) => Some(RunKind::Failback),
            _ => None,
        }
    }
}

/// How something that was looked at came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// As it should be.
    Ok,
    /// It could not be told.
    Unknown,
    /// Not as it should be.
    Bad,
}

impl Found {
    /// `ok`, `unknown`, `bad`.
    pub fn word(self) -> &'static str {
        match self {
            Found::Ok => "ok",
            Found::Unknown => "unknown",
            Found::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// In which phase.
    pub phase: DrillPhase,
    /// What: `gate quorum`, `step promote`, `check orders`.
    pub what: String,
    /// How it came out.
    pub found: Found,
    /// In words.
    pub detail: String,
}

/// A run of the drill, as far as its report needs it: runs themselves are forgotten sooner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillRun {
    /// Which.
    pub run: RunId,
    /// What for.
    pub kind: RunKind,
    /// From which region.
    pub from: RegionName,
    /// To which.
    pub to: RegionName,
    /// When it was opened.
    pub opened_at: UnixMs,
    /// How it ended.
    pub outcome: Option<RunOutcome>,
    /// When.
    pub closed_at: Option<UnixMs>,
    /// What took how long.
    pub spans: Vec<Span>,
    /// Its record in the order of the procedure (C4), as it stood when the drill ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chapters: Vec<Chapter>,
}

/// What was measured. `None` is not known, and never 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// What readiness expected beforehand, milliseconds.
    pub expected_recovery_ms: Option<u64>,
    /// What would have been lost, as expected beforehand, milliseconds of writes.
    pub expected_loss_ms: Option<u64>,
    /// From the fault, or the order to move, to the end of the move, milliseconds.
    pub recovery_ms: Option<u64>,
    /// Marker rows that the primary acknowledged before the move.
    pub rows_written: Option<u64>,
    /// Of these, found on the other side after it.
    pub rows_found: Option<u64>,
    /// The primary's position in its log after the last marker row.
    pub lsn_before: Option<u64>,
    /// The new primary has the old one's log up to here at least: to the end where every marker row is there, else to where the newest
    /// of those that are was written.
    pub lsn_after: Option<u64>,
}

impl Measured {
    /// What is known by either, this one's word first.
    pub fn or(self, earlier: &Measured) -> Measured {
        Measured {
            expected_recovery_ms: self.expected_recovery_ms.or(earlier.expected_recovery_ms),
            expected_loss_ms: self.expected_loss_ms.or(earlier.expected_loss_ms),
            recovery_ms: self.recovery_ms.or(earlier.recovery_ms),
            rows_written: self.rows_written.or(earlier.rows_written),
            rows_found: self.rows_found.or(earlier.rows_found),
            lsn_before: self.lsn_before.or(earlier.lsn_before),
            lsn_after: self.lsn_after.or(earlier.lsn_after),
        }
    }

    /// Marker rows that were acknowledged and are gone.
    pub fn rows_lost(&self) -> Option<u64> {
        Some(self.rows_written?.saturating_sub(self.rows_found?))
    }

    /// Bytes of log, up to the last marker row, that the new primary does not have: at most.
    pub fn bytes_lost(&self) -> Option<u64> {
        Some(self.lsn_before?.saturating_sub(self.lsn_after?))
    }
}

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillOutcome {
    /// Everything that was looked at is as it should be.
    Passed,
    /// Something is not.
    Failed,
    /// It was ended before its end.
    Aborted,
}

impl DrillOutcome {
    /// All of them.
    pub const ALL: [DrillOutcome; 3] = [DrillOutcome::Passed, DrillOutcome::Failed, DrillOutcome::Aborted];

    /// `passed`, `failed`, `aborted`.
    pub fn word(self) -> &'static str {
        match self {
            DrillOutcome::Passed => "passed",
            DrillOutcome::Failed => "failed",
            DrillOutcome::Aborted => "aborted",
        }
    }
}

/// What somebody learned from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lesson {
    /// Who.
    pub by: Principal,
    /// When.
    pub at: UnixMs,
    /// What.
    pub text: String,
}

/// One line of a drill's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillEvent {
    /// By the proposer's clock.
    pub at: UnixMs,
    /// The phase from then on.
    pub phase: DrillPhase,
    /// In words.
    pub what: String,
}

/// How it ended, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// How.
    pub outcome: DrillOutcome,
    /// When.
    pub at: UnixMs,
    /// Why; empty where it passed.
    pub why: String,
}

/// One drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// Unique.
    pub id: DrillId,
    /// How much of it is real.
    pub kind: DrillKind,
    /// The schedule that it is by; `None`: an operator began it.
    pub schedule: Option<DrillName>,
    /// When it was to begin.
    pub due_at: UnixMs,
    /// Who began it.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// When it was opened.
    pub opened_at: UnixMs,
    /// From which region.
    pub from: RegionName,
    /// To which.
    pub to: RegionName,
    /// What it goes by.
    pub settings: DrillSettings,
    /// Where it stands.
    pub phase: DrillPhase,
    /// Since when.
    pub phase_since: UnixMs,
    /// Its runs, in the order of their opening.
    pub runs: Vec<DrillRun>,
    /// What was looked at, bounded.
    pub findings: Vec<Finding>,
    /// What was measured.
    pub measured: Measured,
    /// It is to end, and the group to be brought home.
    pub abort: Option<Assertion>,
    /// How it ended.
    pub closing: Option<Closing>,
    /// What was learned, bounded.
    pub lessons: Vec<Lesson>,
    /// Bounded timeline.
    pub events: Vec<DrillEvent>,
}

impl Drill {
    /// Not closed.
    pub fn is_open(&self) -> bool {
        self.closing.is_none()
    }

    /// The nodes report its group's trigger as failed.
    pub fn injects(&self) -> bool {
        self.is_open() && self.phase == DrillPhase::Injecting && self.abort.is_none()
    }

    /// Its run of that kind.
    pub fn run_of(&self, kind: RunKind) -> Option<&DrillRun> {
        self.runs.iter().find(|run| run.kind == kind)
    }

    /// It passed, and more was rehearsed than reading.
    pub fn rehearsed_at(&self) -> Option<UnixMs> {
        let closing = self.closing.as_ref()?;
        (self.kind.acts() && closing.outcome == DrillOutcome::Passed).then_some(closing.at)
    }

    /// The worst of what was found.
    pub fn worst(&self) -> Found {
        self.findings.iter().map(|finding| finding.found).max().unwrap_or(Found::Unknown)
    }
}
