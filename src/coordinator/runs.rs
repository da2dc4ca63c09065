//! Open runs in this leader's hands: which moves are due, what is under way, what rests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::Coordinator;
use super::steps::{Executor, Over};
use crate::clock::unix_now;
use crate::domain::advance::{Hand, Move, Patience, advance, lapse_step};
use crate::domain::ids::{GroupName, ResourceName, RunId, StepId, Token};
use crate::domain::run::{Run, RunKind, RunPhase, StepPhase};
use crate::domain::state::{ClusterState, GroupState};
use crate::domain::view::View;

/// An unsettled resource that did not answer is asked again after this long.
const SETTLE_AGAIN: Duration = Duration::from_secs(5);
/// Effects other than a fence may stay an open question this long beyond their deadline, milliseconds.
const UNKNOWN_PATIENCE_MS: u64 = 10_000;

/// What is held of one group's open run.
#[derive(Default)]
struct Held {
    run: Option<RunId>,
    token: Option<Token>,
    floor: Option<Token>,
    busy: BTreeMap<StepId, AbortHandle>,
    resting: BTreeMap<StepId, Instant>,
    /// A stuck step's resource did not answer when it was last looked at.
    silent: BTreeSet<StepId>,
}

/// Every group's open run.
pub struct Runs {
    coordinator: Arc<Coordinator>,
    held: BTreeMap<GroupName, Held>,
    settling: BTreeMap<(GroupName, ResourceName), Option<Instant>>,
    under_way: JoinSet<Over>,
    finished: Option<Over>,
}

/// The claim is under way as if it were a step of this name.
fn claim_step() -> StepId {
    StepId::from("(claim)")
}

/// The whole run is under way as if it were a step of this name: abort, close.
fn run_step() -> StepId {
    StepId::from("(run)")
}

impl Runs {
    pub(super) fn new(coordinator: Arc<Coordinator>) -> Self {
        Self {
            coordinator,
            held: BTreeMap::new(),
            settling: BTreeMap::new(),
            under_way: JoinSet::new(),
            finished: None,
        }
    }

    /// Nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Returns when something under way ended. Safe to drop: what ended is kept for the next look.
    pub(super) async fn finished(&mut self) {
        match self.under_way.join_next().await {
            Some(Ok(over)) => self.finished = Some(over),
            Some(Err(error)) if error.is_cancelled() => {}
            Some(Err(error)) => self.broke_off(&error),
            None => std::future::pending().await,
        }
    }

    /// Takes in what ended, and starts what is due.
    pub(super) fn look(&mut self, state: &ClusterState, view: &View) {
        if let Some(over) = self.finished.take() {
            self.take_in(over);
        }
        while let Some(over) = self.under_way.try_join_next() {
            match over {
                Ok(over) => self.take_in(over),
                Err(error) if error.is_cancelled() => {}
                Err(error) => self.broke_off(&error),
            }
        }
        if state.digest.as_ref() != Some(&self.coordinator.policy.digest) {
            return;
        }
        for (name, group) in &state.groups {
            match &group.open_run {
                Some(run) => {
                    // The way back has begun to give the right to write to the old primary: no fence of this run follows.
                    if run.turned_back.is_some() && group.serving.region.as_ref() == Some(run.from()) {
                        self.coordinator.leases.allow_in(name, run.from());
                    }
                    self.advance(name, group, run, view);
                }
                None => {
                    self.coordinator.leases.allow(name);
                    self.held.remove(name);
                }
            }
            self.settle(name, group);
        }
    }

    /// A task that panicked leaves its step marked busy: what was held is forgotten, so that the run is claimed anew and
    /// whatever was under way is read back under a higher token.
    fn broke_off(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(%error, "a step's task broke off; the run is claimed anew and its effects are read back");
        // A new set: what the old one still aborts is not heard of again.
        self.under_way = JoinSet::new();
        self.held.clear();
        self.settling.clear();
    }

    fn take_in(&mut self, over: Over) {
        match over {
            Over::Claimed { group, run, token } => {
                let held = self.held.entry(group).or_default();
                held.busy.remove(&claim_step());
                if held.run.as_ref() == Some(&run) {
                    held.token = token.or(held.token);
                    if token.is_none() {
                        held.resting.insert(claim_step(), Instant::now() + Duration::from_millis(200));
                    }
                }
            }
            Over::Step { group, step, rest, floor, silent } => {
                let held = self.held.entry(group).or_default();
                held.busy.remove(&step);
                held.floor = held.floor.max(floor);
                match silent {
                    Some(true) => held.silent.insert(step.clone()),
                    _ => held.silent.remove(&step),
                };
                if !rest.is_zero() {
                    held.resting.insert(step, Instant::now() + rest);
                }
            }
            Over::Run { group } => {
                let held = self.held.entry(group).or_default();
                held.busy.remove(&run_step());
                held.resting.insert(run_step(), Instant::now() + Duration::from_millis(500));
            }
            Over::Settled { group, resource } => {
                self.settling.insert((group, resource), Some(Instant::now() + SETTLE_AGAIN));
            }
        }
    }

    fn advance(&mut self, name: &GroupName, group: &GroupState, run: &Run, view: &View) {
        let now = Instant::now();
        let held = self.held.entry(name.clone()).or_default();
        if held.run.as_ref() != Some(&run.id) {
            *held = Held { run: Some(run.id.clone()), ..Held::default() };
        }
        held.resting.retain(|_, until| *until > now);
        // What was skipped is not waited for: its request is kept out by a new claim (`advance`).
        held.busy.retain(|step, task| {
            let is_skipped = run.phase_of(step) == StepPhase::Skipped;
            // Nor is a recovery that was ended: a rejoin may take an hour, and a failover may wait for it.
            let is_ended = run.kind == RunKind::Recovery
                && matches!(run.phase, RunPhase::Aborting { .. })
                && run.plan.step(step).is_some();
            let is_over = is_skipped || run.is_needless(step) || is_ended;
            if is_over {
                task.abort();
            }
            !is_over
        });
        let hand = Hand {
            token: held.token.filter(|token| held.floor.is_none_or(|floor| floor < *token)),
            busy: held.busy.keys().cloned().collect(),
            resting: held.resting.keys().cloned().collect(),
        };
        let rules = self.coordinator.policy.groups.get(name);
        let patience = Patience {
            fence_ms: rules.map_or(10_000, |rules| rules.fence_patience_ms),
            unknown_ms: UNKNOWN_PATIENCE_MS,
            stopped_ms: rules.map_or(60_000, |rules| rules.switchover_timeout_ms),
        };
        for due in advance(group, run, &hand, patience, unix_now()) {
            self.begin(name, group, run, view, due);
        }
    }

    fn begin(&mut self, name: &GroupName, group: &GroupState, run: &Run, view: &View, due: Move) {
        let Some(held) = self.held.get_mut(name) else { return };
        let step = match &due {
            Move::Claim => claim_step(),
            Move::TurnBack { .. } | Move::Abort | Move::Close { .. } => run_step(),
            Move::Lapse { .. } => lapse_step(),
            Move::Start { step, .. } | Move::Settle { step, .. } | Move::Watch { step } | Move::GiveUp { step, .. } => {
                step.clone()
            }
        };
        if held.busy.contains_key(&step) || held.resting.contains_key(&step) && !matches!(due, Move::GiveUp { .. }) {
            return;
        }
        // A claim waits until nothing is under way under the old token.
        if matches!(due, Move::Claim) && (!held.busy.is_empty() || is_stuck_for_floor(run, held.floor)) {
            return;
        }
        let was_silent = held.silent.contains(&step);
        let executor = Executor {
            coordinator: self.coordinator.clone(),
            group: group.clone(),
            run: run.clone(),
            token: held.token.unwrap_or_default(),
            floor: held.floor,
            view: view.clone(),
            was_silent,
        };
        let task = self.under_way.spawn(executor.carry_out(due));
        held.busy.insert(step, task);
    }

    /// Raises tokens where an aborted or skipped step may still take effect.
    fn settle(&mut self, name: &GroupName, group: &GroupState) {
        // A step that was skipped may still be on its way out of this node.
        if self.held.get(name).is_some_and(|held| !held.busy.is_empty()) {
            return;
        }
        self.settling.retain(|(of, resource), _| of != name || group.unsettled.contains_key(resource));
        for (resource, left) in &group.unsettled {
            // Under its own token nothing is kept out: the holder of the open run claims anew first (`advance`).
            if group.open_run.is_some() && left.token >= group.token {
                continue;
            }
            let key = (name.clone(), resource.clone());
            let is_waiting = match self.settling.get(&key) {
                Some(None) => true,
                Some(Some(again)) => *again > Instant::now(),
                None => false,
            };
            if is_waiting {
                continue;
            }
            self.settling.insert(key, None);
            let task = super::settle::settle_left(
                self.coordinator.clone(),
                name.clone(),
                resource.clone(),
                left.clone(),
                (group.open_run.as_ref().map_or_else(|| left.run.clone(), |run| run.id.clone()), group.token),
            );
            self.under_way.spawn(task);
        }
    }
}

/// A resource holds a higher token and the run is stuck over it: the claim above it waits for an operator's `retry`.
fn is_stuck_for_floor(run: &Run, floor: Option<Token>) -> bool {
    floor.is_some() && matches!(run.phase, crate::domain::run::RunPhase::Stuck { .. })
}
