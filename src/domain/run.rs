//! A run: one replicated, resumable failover. Its phases, its steps' phases, and the one table of legal transitions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{ConfigDigest, GroupName, NodeId, Principal, RegionName, RunId, StepId, Token, UnixMs};
use super::monitor::Monitor;
use super::mutation::{Mutation, is_out};
use super::plan::{Action, Plan, Stage, Step};
use super::policy::Fencing;

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// Unplanned: the serving region is lost.
    Failover,
    /// Planned, with a healthy primary.
    Switchover,
    /// Planned return to the home region.
    Failback,
    /// Load balancer only; no database is promoted.
    Traffic,
    /// Recovery of a service.
    Recovery,
}

impl RunKind {
    /// `switchover` or `failback`: moves a group whose primary is healthy.
    pub fn is_planned(self) -> bool {
        matches!(self, RunKind::Switchover | RunKind::Failback)
    }
}

impl std::fmt::Display for RunKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            RunKind::Failover => "failover",
            RunKind::Switchover => "switchover",
            RunKind::Failback => "failback",
            RunKind::Traffic => "traffic",
            RunKind::Recovery => "recovery",
        })
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepPhase {
    /// Not begun.
    Pending,
    /// `StepStarted` is committed; nothing is known of its effect until a result is.
    Started,
    /// The effect was seen.
    Done,
    /// The effect is certainly not there; may be tried again.
    Failed,
    /// It may or may not have happened.
    Unknown,
    /// An operator said to go on without it.
    Skipped,
}

/// What can happen to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepEvent {
    /// `StepStarted`.
    Start,
    /// `StepFinished{done}`.
    FinishDone,
    /// `StepFinished{failed}`.
    FinishFailed,
    /// `StepFinished{unknown}`.
    FinishUnknown,
    /// An operator's `skip`.
    Skip,
}

/// The one table: every legal transition of a step. Whatever is not here is rejected by `apply`.
///
/// `Unknown` has no way to `Started`: what may have happened is read back before it may be tried again.
pub const STEP_TRANSITIONS: &[(StepPhase, StepEvent, StepPhase)] = &[
    (StepPhase::Pending, StepEvent::Start, StepPhase::Started),
    (StepPhase::Pending, StepEvent::Skip, StepPhase::Skipped),
    (StepPhase::Started, StepEvent::FinishDone, StepPhase::Done),
    (StepPhase::Started, StepEvent::FinishFailed, StepPhase::Failed),
    (StepPhase::Started, StepEvent::FinishUnknown, StepPhase::Unknown),
    (StepPhase::Started, StepEvent::Skip, StepPhase::Skipped),
    (StepPhase::Unknown, StepEvent::FinishDone, StepPhase::Done),
    (StepPhase::Unknown, StepEvent::FinishFailed, StepPhase::Failed),
    (StepPhase::Unknown, StepEvent::FinishUnknown, StepPhase::Unknown),
    (StepPhase::Unknown, StepEvent::Skip, StepPhase::Skipped),
    (StepPhase::Failed, StepEvent::Start, StepPhase::Started),
    (StepPhase::Failed, StepEvent::FinishDone, StepPhase::Done),
    (StepPhase::Failed, StepEvent::Skip, StepPhase::Skipped),
];

impl StepPhase {
    /// The phase after `event`, or `None` where the table has no such transition.
    pub fn after(self, event: StepEvent) -> Option<StepPhase> {
        STEP_TRANSITIONS.iter().find(|(from, on, _)| *from == self && *on == event).map(|(_, _, to)| *to)
    }

    /// Nothing more is to be done for it.
    pub fn is_settled(self) -> bool {
        matches!(self, StepPhase::Done | StepPhase::Skipped)
    }

    /// Its effect may or may not be there.
    pub fn is_open_question(self) -> bool {
        matches!(self, StepPhase::Started | StepPhase::Unknown)
    }
}

impl std::fmt::Display for StepPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            StepPhase::Pending => "pending",
            StepPhase::Started => "started",
            StepPhase::Done => "done",
            StepPhase::Failed => "failed",
            StepPhase::Unknown => "unknown",
            StepPhase::Skipped => "skipped",
        })
    }
}

/// A step's record within a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Where it stands.
    pub phase: StepPhase,
    /// Attempts so far, over all claims. Only grows.
    pub attempts: u32,
    /// Attempts since the last `retry` by an operator: what the plan's limit is held against.
    pub attempts_since_retry: u32,
    /// Token of the last `StepStarted`. Never above the run's current token.
    pub token: Option<Token>,
    /// When it was first started, since the last `retry`.
    pub first_started_at: Option<UnixMs>,
    /// When it was last started.
    pub started_at: Option<UnixMs>,
    /// When its last result was committed.
    pub finished_at: Option<UnixMs>,
    /// Evidence or reason of the last result.
    pub detail: String,
    /// The last failure said that trying again is of no use.
    #[serde(default)]
    pub is_permanent: bool,
}

impl Default for StepRecord {
    fn default() -> Self {
        Self {
            phase: StepPhase::Pending,
            attempts: 0,
            attempts_since_retry: 0,
            token: None,
            first_started_at: None,
            started_at: None,
            finished_at: None,
            detail: String::new(),
            is_permanent: false,
        }
    }
}

impl StepRecord {
    /// Gives the step its full number of attempts and its patience again. What is an open question is not started, but read back:
    /// its patience runs from now, or nobody would ever be called again.
    pub fn refresh(&mut self, now: UnixMs) {
        self.attempts_since_retry = 0;
        self.first_started_at = self.phase.is_open_question().then_some(now);
        self.is_permanent = false;
    }
}

/// One executor's claim of the run. Every take-over claims anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The token it was issued.
    pub token: Token,
    /// Who claimed.
    pub node: NodeId,
    /// When.
    pub at: UnixMs,
}

/// A person's word, by name, with their reason; or the configuration's standing one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// Who.
    pub by: Principal,
    /// When.
    pub at: UnixMs,
    /// What they wrote.
    pub reason: String,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// Every step done or skipped.
    Succeeded,
    /// The trigger went away before anything irreversible.
    Withdrawn,
    /// An operator ended it.
    Aborted,
    /// A planned move turned back before its promotion: the old primary takes writes again.
    Reverted,
}

impl std::fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            RunOutcome::Succeeded => "succeeded",
            RunOutcome::Withdrawn => "withdrawn",
            RunOutcome::Aborted => "aborted",
            RunOutcome::Reverted => "reverted",
        })
    }
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum RunPhase {
    /// Going on.
    Open,
    /// A step cannot succeed; an operator is awaited.
    Stuck {
        /// Which step.
        step: StepId,
        /// Why, and what the operator may do.
        reason: String,
        /// Since when.
        since: UnixMs,
    },
    /// A planned move has turned back: only the plan's `undo` is carried out, and writing goes back to the old primary.
    /// [`Run::turned_back`] says why and since when.
    Reverting,
    /// An operator said abort; resources with unfinished steps are being settled.
    Aborting {
        /// Who and why.
        order: Assertion,
    },
    /// Over.
    Closed {
        /// How it ended.
        outcome: RunOutcome,
        /// When.
        at: UnixMs,
    },
}

impl RunPhase {
    /// `open`, `stuck`, `reverting`, `aborting`, or the outcome.
    pub fn word(&self) -> String {
        match self {
            RunPhase::Open => "open".to_owned(),
            RunPhase::Stuck { .. } => "stuck".to_owned(),
            RunPhase::Reverting => "reverting".to_owned(),
            RunPhase::Aborting { .. } => "aborting".to_owned(),
            RunPhase::Closed { outcome, .. } => outcome.to_string(),
        }
    }
}

/// When and why a planned move turned back. It stays, whatever becomes of the way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnedBack {
    /// What kept it from going on, or who aborted it.
    pub reason: String,
    /// When, by the proposer's clock.
    pub at: UnixMs,
}

/// What a run's opener knew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `node:…` for an automatic opening, `operator:…` otherwise.
    pub by: Principal,
    /// No person was involved: counts for P1 and the cooldown.
    pub automatic: bool,
    /// In words for people: what was seen, or the operator's reason.
    pub reason: String,
    /// Votes and measurements, a line each.
    pub evidence: Vec<String>,
    /// When the first of the failures that led here was seen, by the opener's clock.
    pub fault_at: Option<UnixMs>,
    /// Expected loss when it was decided, milliseconds of writes; `None` is unknown.
    pub expected_loss_ms: Option<u64>,
}

/// What a line of the timeline is to an attempt at its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptMark {
    /// The attempt of that number began.
    Began(u32),
    /// Its result is known, or that there is none.
    Ended(u32),
}

/// One line of a run's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEvent {
    /// Position in the log.
    pub index: u64,
    /// By the proposer's clock.
    pub at: UnixMs,
    /// The proposing node.
    pub node: NodeId,
    /// The step, where it concerns one.
    pub step: Option<StepId>,
    /// The token it was done under.
    pub token: Option<Token>,
    /// The attempt that begins or ends here; lines of before this was kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<AttemptMark>,
    /// In words.
    pub what: String,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// UUIDv7.
    pub id: RunId,
    /// Whose.
    pub group: GroupName,
    /// What for.
    pub kind: RunKind,
    /// A rehearsal on the drill's resources.
    #[serde(default)]
    pub drill: bool,
    /// When it was opened.
    pub opened_at: UnixMs,
    /// The group's serving epoch then.
    #[serde(default)]
    pub serving_epoch: u64,
    /// By whom and why.
    pub cause: Cause,
    /// The configuration it was resolved under.
    pub digest: ConfigDigest,
    /// How the old primary must be proved silent; fixed when the run opened.
    pub fencing: Fencing,
    /// Whoever continues uses only this.
    pub plan: Plan,
    /// Where it stands.
    pub phase: RunPhase,
    /// In the order of issue: strictly increasing tokens.
    pub claims: Vec<Claim>,
    /// Exactly the plan's steps, forward and back.
    pub steps: BTreeMap<StepId, StepRecord>,
    /// An operator's word that the old primary is silent.
    pub fence_assertion: Option<Assertion>,
    /// An operator's word that the loss is accepted.
    pub loss_acceptance: Option<Assertion>,
    /// The old primary's bound lease ran out during this run: it cannot answer anybody.
    #[serde(default)]
    pub lease_lapsed: bool,
    /// When this run's fence first stopped the writing, by the proposer's clock: a planned move does not keep it stopped for
    /// long without promoting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writing_stopped_at: Option<UnixMs>,
    /// Since when a planned move is on its way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turned_back: Option<TurnedBack>,
    /// Bounded timeline for people.
    #[serde(default)]
    pub events: Vec<RunEvent>,
    /// Who was told of it: the first page and the newest, bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<RunPage>,
    /// How what it brought about is watched, or was, after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Monitor>,
}

/// A page about a run. The outbox forgets what was told; the record does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPage {
    /// Its number in the outbox.
    pub seq: u64,
    /// The event's name.
    pub event: String,
    /// When it was put in.
    pub at: UnixMs,
    /// How many receivers it is for.
    pub receivers: u32,
    /// How many of them took it.
    pub delivered: u32,
    /// How many refused it for good.
    pub refused: u32,
    /// When the last that answered did.
    pub answered_at: Option<UnixMs>,
}

/// Pages kept of a run.
pub const RUN_PAGES_KEPT: usize = 40;

impl Run {
    /// The token of the newest claim.
    pub fn token(&self) -> Option<Token> {
        self.claims.last().map(|claim| claim.token)
    }

    /// From which region.
    pub fn from(&self) -> &RegionName {
        &self.plan.from
    }

    /// To which region.
    pub fn to(&self) -> &RegionName {
        &self.plan.to
    }

    /// From the fault, or where that is not known from its opening, to its end; `None` where it did not succeed.
    pub fn recovery_time_ms(&self) -> Option<u64> {
        match &self.phase {
            RunPhase::Closed { outcome: RunOutcome::Succeeded, at } => {
                Some(at.since(self.cause.fault_at.unwrap_or(self.opened_at)))
            }
            _ => None,
        }
    }

    /// Not closed.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, RunPhase::Closed { .. })
    }

    /// A step's record. Every step of the plan has one from the run's opening on.
    pub fn record(&self, id: &StepId) -> Option<&StepRecord> {
        self.steps.get(id)
    }

    /// The phase of a step; what the plan does not know counts as pending.
    pub fn phase_of(&self, id: &StepId) -> StepPhase {
        self.steps.get(id).map_or(StepPhase::Pending, |record| record.phase)
    }

    /// Whether `stage` waits for every step before it, blocking or not: the last one, where all it does is to look at the whole.
    pub fn waits_for_all(&self, stage: usize) -> bool {
        let looks = |last: &Stage| last.steps.iter().all(|step| step.action.is_repeatable());
        stage + 1 == self.plan.stages.len() && self.plan.stages.last().is_some_and(looks)
    }

    /// Whether `stage` may begin: every blocking step before it is settled, and for a last look at the whole every step.
    pub fn stage_is_due(&self, stage: usize) -> bool {
        let waits_for_all = self.waits_for_all(stage);
        if is_out(Mutation::NoFenceProof) {
            return true;
        }
        let is_needless = |step: &Step| is_out(Mutation::NoCatchUp) && matches!(step.action, Action::CatchUp { .. });
        self.plan
            .steps()
            .filter(|(n, step)| *n < stage && (step.blocking || waits_for_all) && !is_needless(step))
            .all(|(_, step)| self.phase_of(&step.id).is_settled())
    }

    /// Whether a step of the way forward may begin: its stage, and whatever else it waits for.
    pub fn is_due(&self, stage: usize, step: &Step) -> bool {
        let is_over = |other: &Step| self.phase_of(&other.id).is_settled() || is_out(Mutation::RedisBeforeFence);
        self.stage_is_due(stage) && self.plan.waited_for(step).all(is_over)
    }

    /// The plan's fence steps.
    pub fn fence_steps(&self) -> impl Iterator<Item = &Step> {
        self.plan.steps().map(|(_, step)| step).filter(|step| matches!(step.action, Action::Fence { .. }))
    }

    /// Something other than a fence was started: the run cannot be withdrawn any more.
    pub fn went_past_fence(&self) -> bool {
        self.plan
            .steps()
            .filter(|(_, step)| !matches!(step.action, Action::Fence { .. }) && !step.action.is_repeatable())
            .any(|(_, step)| self.steps.get(&step.id).is_some_and(|record| record.attempts > 0))
    }

    /// Whether this run moves the right to write (and so changes `serving`).
    pub fn moves_serving(&self) -> bool {
        matches!(self.kind, RunKind::Failover | RunKind::Switchover | RunKind::Failback)
    }

    /// Whether it moves a group whose primary is healthy, and so may not lose anything.
    pub fn is_planned(&self) -> bool {
        self.kind.is_planned()
    }

    /// The phase of a run that goes on, the way it goes.
    pub fn going(&self) -> RunPhase {
        if self.turned_back.is_some() { RunPhase::Reverting } else { RunPhase::Open }
    }

    /// The plan's promotions.
    pub fn promote_steps(&self) -> impl Iterator<Item = &Step> {
        self.plan.steps().map(|(_, step)| step).filter(|step| matches!(step.action, Action::Promote { .. }))
    }

    /// Whether it may turn back without anybody's word: a planned move that can, and whose promotion was never begun.
    pub fn turns_back_by_itself(&self) -> bool {
        self.can_turn_back()
            && (self.promote_steps().all(|step| self.attempts_at(&step.id) == 0)
                || is_out(Mutation::TurnBackAfterPromotion))
    }

    /// Whether it may turn back by an operator's word: also after a promotion that certainly did not happen.
    pub fn may_be_turned_back(&self) -> bool {
        let never_happened =
            |step: &Step| self.attempts_at(&step.id) == 0 || self.phase_of(&step.id) == StepPhase::Failed;
        self.can_turn_back() && self.promote_steps().all(never_happened)
    }

    fn can_turn_back(&self) -> bool {
        let is_under_way = matches!(self.phase, RunPhase::Open | RunPhase::Stuck { .. });
        self.is_planned() && is_under_way && self.turned_back.is_none() && !self.plan.undo.is_empty()
    }

    /// Something was tried on the way forward.
    pub fn was_begun(&self) -> bool {
        self.plan.steps().any(|(_, step)| self.attempts_at(&step.id) > 0)
    }

    /// Whether a step of the way back may begin: what the way forward did is known, and every step of the stages of the way
    /// back before it is settled. The database's way back does not wait for what became of Redis.
    pub fn undo_is_due(&self, stage: usize, step: &Step) -> bool {
        let mut questions = self.forward_questions().filter(|question| step.action.waits_for(&question.action));
        (questions.next().is_none() || is_out(Mutation::ReleaseOverOpenQuestion))
            && self.plan.undo_steps().filter(|(n, _)| *n < stage).all(|(_, step)| self.phase_of(&step.id).is_settled())
    }

    /// Steps of the way forward whose effect may or may not be there, besides those that have none.
    pub fn forward_questions(&self) -> impl Iterator<Item = &Step> {
        let is_open = |step: &&Step| self.phase_of(&step.id).is_open_question() && !step.action.is_repeatable();
        self.plan.steps().map(|(_, step)| step).filter(is_open)
    }

    /// A look on the way forward that nobody needs any more, since the run has turned back: it is neither waited for nor read
    /// back.
    pub fn is_needless(&self, id: &StepId) -> bool {
        self.turned_back.is_some() && self.plan.steps().any(|(_, step)| &step.id == id && step.action.is_repeatable())
    }

    fn attempts_at(&self, id: &StepId) -> u32 {
        self.record(id).map_or(0, |record| record.attempts)
    }
}
