//! The leader's loop: decide, commit, act, read back, commit.
//!
//! [`Coordinator::run`] waits until this node leads, confirms it with a quorum round, and then looks at the world again
//! and again until leadership is lost; whatever is under way then is dropped at once. All judgement is
//! [`crate::domain`]'s; all effects are an [`Actuator`]'s. [`steps`] carries out single moves of an open run, [`gates`] says what must hold
//! before one acts.

mod gates;
mod leases;
mod news;
mod readiness;
mod runs;
mod settle;
mod sightings;
mod steps;
mod steward;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actuator::Actuator;
use crate::clock::{unique_id, unix_now};
use crate::domain::command::{Applied, Change, Command, IncidentRef, RunOrder};
use crate::domain::decide::{Decision, Decisions, Explanation, OpenIntent, Standing, decide};
use crate::domain::ids::{NodeId, Principal, RunId, StepId, UnixMs};
use crate::domain::policy::ClusterPolicy;
use crate::domain::quorum::Count;
use crate::domain::run::{Cause, RunKind};
use crate::domain::state::ClusterState;
use crate::domain::view::View;

pub use leases::Leases;
pub use news::News;
pub use readiness::{Judge, ReadinessWatch};
pub use sightings::Sightings;

/// What the coordinator knows of Raft's leadership. `voters` are those of the membership in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// This node leads.
    pub leads: bool,
    /// In this term: every election is another leadership.
    pub term: u64,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
}

/// Why the log did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Certainly not written.
    #[error("this node does not lead")]
    NotLeader,
    /// It may or may not be written.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Certainly not written.
    #[error("{0}")]
    Unavailable(String),
}

/// The replicated log, as the coordinator needs it. Every wait in it is bounded.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// The state as applied here; changes with every entry.
    fn state(&self) -> watch::Receiver<Arc<ClusterState>>;
    /// Who leads.
    fn leadership(&self) -> watch::Receiver<Leadership>;
    /// Commits a command and answers what applying it gave.
    async fn propose(&self, command: Command) -> Result<Applied, JournalError>;
    /// Confirms leadership by a quorum round (ReadIndex, Raft thesis 6.4) and waits until this node has applied up to it.
    async fn confirm(&self) -> Result<(), JournalError>;
    /// Hands leadership to another voter.
    async fn transfer(&self, to: NodeId) -> Result<(), JournalError>;
}

/// Everything the coordinator works with.
pub struct Coordinator {
    /// This node.
    pub node: NodeId,
    /// In words, for the log and the audit: `node:hcmc-1`.
    pub name: Principal,
    /// The configuration this node runs under.
    pub policy: Arc<ClusterPolicy>,
    /// The replicated log.
    pub journal: Arc<dyn Journal>,
    /// What acts.
    pub actuator: Arc<dyn Actuator>,
    /// Reports of all nodes.
    pub sightings: Arc<Sightings>,
    /// Leases granted by this node.
    pub leases: Arc<Leases>,
    /// The last look, for the status; empty where this node does not lead.
    pub looks: watch::Sender<Arc<Decisions>>,
    /// The last rejection that was logged: the same again is not news.
    pub last_rejection: Mutex<Option<String>>,
    /// What was logged of failures: what repeats is not news either.
    pub news: News,
}

/// While a quorum's hold-down runs, the world is looked at this often; reports and results wake it too.
const ALERT_TICK: Duration = Duration::from_millis(20);
/// While a run is open: for back-offs that end.
const RUN_TICK: Duration = Duration::from_millis(50);
/// At rest.
const REST_TICK: Duration = Duration::from_millis(500);

impl Coordinator {
    /// Runs until `stop` becomes true.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut leadership = self.journal.leadership();
        loop {
            let current = leadership.borrow_and_update().clone();
            if *stop.borrow() {
                return;
            }
            if !current.leads {
                tokio::select! {
                    changed = leadership.changed() => if changed.is_err() { return },
                    _ = stop.changed() => return,
                }
                continue;
            }
            tracing::info!(term = current.term, "this node leads");
            tokio::select! {
                () = self.clone().lead(current.clone()) => {}
                () = lost(&mut leadership, current.term) => {}
                _ = stop.changed() => return,
            }
            // Dropping `lead` dropped every step under way: a leader that is none any more starts nothing further.
            let _ = self.looks.send(Arc::default());
            tracing::info!(term = current.term, "this node no longer leads; what was under way is dropped");
        }
    }

    async fn lead(self: Arc<Self>, leadership: Leadership) {
        self.news.forget();
        let mut backoff = Duration::from_millis(20);
        while let Err(error) = self.journal.confirm().await {
            if self.news.is_news("leadership", &error.to_string()) {
                tracing::warn!(%error, "leadership is not confirmed yet");
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(Duration::from_secs(1));
        }
        let mut state = self.journal.state();
        let led_since = Instant::now();
        let mut runs = runs::Runs::new(self.clone());
        let mut steward = steward::Steward::new(self.clone());
        loop {
            let now = state.borrow_and_update().clone();
            let view = self.view(&leadership, led_since);
            let decisions = decide(&now, &self.policy, &view, unix_now());
            let is_alert = decisions.explain.values().any(is_urgent);
            let proposals = decisions.propose.clone();
            let _ = self.looks.send(Arc::new(decisions));
            for decision in proposals {
                self.carry_out(decision).await;
            }
            let now = self.journal.state().borrow().clone();
            runs.look(&now, &view);
            if steward.look(&now, &view, runs.is_idle()).await {
                return;
            }
            let tick = match (is_alert, runs.is_idle()) {
                (true, _) => ALERT_TICK,
                (false, false) => RUN_TICK,
                (false, true) if now.groups.values().any(|group| group.open_run.is_some()) => RUN_TICK,
                (false, true) => REST_TICK,
            };
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                () = self.sightings.changed() => {}
                () = runs.finished() => {}
                () = tokio::time::sleep(tick) => {}
            }
        }
    }

    fn view(&self, leadership: &Leadership, led_since: Instant) -> View {
        let voters = match self.journal.leadership().borrow() {
            now if now.voters.is_empty() => leadership.voters.clone(),
            now => now.voters.clone(),
        };
        let view = self.sightings.view(self.node, voters, Instant::now(), unix_now());
        View { watched_ms: u64::try_from(led_since.elapsed().as_millis()).unwrap_or(u64::MAX), ..view }
    }

    /// What this node knows now, for those who judge beside the loop; leases are none of theirs.
    pub fn view_now(&self) -> View {
        let voters = self.journal.leadership().borrow().voters.clone();
        self.sightings.view(self.node, voters, Instant::now(), unix_now())
    }

    async fn carry_out(&self, decision: Decision) {
        let change = match decision {
            Decision::AdoptConfig { groups } => Change::AdoptConfig {
                cluster: self.policy.cluster.clone(),
                epoch: self.policy.epoch,
                digest: self.policy.digest.clone(),
                groups,
                receivers: self.policy.receivers.clone(),
                on_call: self.policy.on_call.clone(),
            },
            Decision::MarkSeenUp { group, targets } => {
                Change::MarkSeenUp { group, digest: self.policy.digest.clone(), targets }
            }
            Decision::Open(intent) => self.open_run(intent),
            Decision::GiveWay { group, run, expected_token, reason } => {
                tracing::warn!(%group, %run, reason, "ending a recovery");
                Change::Order { group, run, expected_token, order: RunOrder::Abort, reason }
            }
            Decision::ExpirePause { group, until } => {
                Change::Resume { group, reason: "the pause has run out".to_owned(), expired: Some(until) }
            }
            Decision::Tell(page) => Change::Tell { page },
            Decision::Monitor { group, due } => {
                Change::Monitor { group, run: due.run, revision: due.revision, about: due.about }
            }
            Decision::EndEvent { group, page } => {
                Change::ResolvePage { group, page, reason: "it told of something that is over".to_owned() }
            }
            Decision::Escalate(due) => Change::Escalate {
                group: due.group,
                page: IncidentRef { key: due.key, opened: due.opened },
                told: due.told,
                round: due.round,
                lapsed: due.lapsed,
            },
        };
        self.propose(change).await;
    }

    fn open_run(&self, intent: OpenIntent) -> Change {
        let now = unix_now();
        // What opens while a drill simulates the fault is the drill's: the log takes it in that phase only.
        let state = self.journal.state().borrow().clone();
        let injecting = state.group(&intent.group).and_then(|group| group.drills.injecting());
        let drill = injecting.is_some() && intent.kind == RunKind::Failover;
        tracing::warn!(group = %intent.group, kind = %intent.kind, to = %intent.plan.to, reason = %intent.reason, "opening a run");
        Change::OpenRun {
            run: RunId(unique_id(now)),
            group: intent.group,
            kind: intent.kind,
            drill,
            digest: self.policy.digest.clone(),
            expected_token: intent.expected_token,
            expected_serving_epoch: intent.expected_serving_epoch,
            cause: Cause {
                by: self.name.clone(),
                automatic: true,
                reason: intent.reason,
                evidence: intent.evidence,
                fault_at: Some(UnixMs(now.0.saturating_sub(intent.fault_age_ms))),
                expected_loss_ms: intent.expected_loss_ms,
            },
            plan: intent.plan,
            loss_acceptance: None,
            fence_assertion: None,
        }
    }

    /// Proposes in this node's name. Answers the applied result, or `None` where it was rejected, refused or is unknown:
    /// the state tells, at the next look.
    pub async fn propose(&self, change: Change) -> Option<Applied> {
        let what = change.name();
        match self.answer(change).await {
            Ok(Applied::Rejected(_)) => None,
            Ok(applied) => {
                if let Some(untold) = self.news.goes_well(what) {
                    tracing::info!(what, untold, "proposed again");
                }
                Some(applied)
            }
            Err(error) => {
                if self.news.is_news(what, &error.to_string()) {
                    tracing::warn!(what, %error, "not proposed");
                }
                None
            }
        }
    }

    /// Confirms leadership before something is done for a step. `not_done` says what, where it cannot be.
    async fn confirm_for(&self, run: &RunId, step: &StepId, not_done: &'static str) -> bool {
        let matter = format!("{step}: {not_done}");
        match self.journal.confirm().await {
            Ok(()) => {
                if let Some(untold) = self.news.goes_well(&matter) {
                    tracing::info!(%run, %step, untold, "leadership is confirmed again, after: {not_done}");
                }
                true
            }
            Err(error) => {
                if self.news.is_news(&matter, &error.to_string()) {
                    tracing::warn!(%run, %step, %error, "{not_done}: leadership is not confirmed");
                }
                false
            }
        }
    }

    /// As [`propose`](Self::propose), telling what came of it.
    ///
    /// What the state at hand would reject is not written at all: looks repeat, and a rejection that is repeated for as
    /// long as its cause lasts would fill the log and the audit.
    async fn answer(&self, change: Change) -> Result<Applied, JournalError> {
        let what = change.name();
        let command =
            Command { node: self.node, at: unix_now(), by: self.name.clone(), from: None, request_id: None, change };
        let mut preview = (**self.journal.state().borrow()).clone();
        let index = preview.applied_index.saturating_add(1);
        let applied = match preview.apply(index, &command) {
            Applied::Rejected(rejection) => Applied::Rejected(rejection),
            _ => self.journal.propose(command).await?,
        };
        if let Applied::Rejected(rejection) = &applied {
            let mut last = self.last_rejection.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.as_ref() != Some(&rejection.message) {
                tracing::warn!(what, code = ?rejection.code, "rejected: {}", rejection.message);
                *last = Some(rejection.message.clone());
            }
        }
        Ok(applied)
    }
}

/// A quorum sees it down, and only time is missing.
fn is_urgent(explanation: &Explanation) -> bool {
    explanation.standing == Standing::Counting && explanation.count.as_ref().is_some_and(Count::is_down)
}

/// Returns when leadership of `term` is over.
pub async fn lost(leadership: &mut watch::Receiver<Leadership>, term: u64) {
    loop {
        {
            let now = leadership.borrow_and_update();
            if !now.leads || now.term != term {
                return;
            }
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
