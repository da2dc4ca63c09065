//! The replicated log: commands applied by the real `ClusterState::apply`. Equal states are kept once and called by number,
//! and so are the answers of `apply` and `advance`: the search asks the same again and again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use watchdog::domain::advance::{Hand, Move, Patience, advance};
use watchdog::domain::audit::Link;
use watchdog::domain::command::{Applied, Command};
use watchdog::domain::ids::{NodeId, Principal, ResourceName, Token, UnixMs};
use watchdog::domain::invariants::{violations, violations_between};
use watchdog::domain::mutation::take_out;
use watchdog::domain::run::{RunPhase, StepPhase};
use watchdog::domain::state::{ClusterState, Unsettled};

use super::cluster;
use super::command::{Cmd, bits_of};
use super::rules::{Mutation, Rules};
use super::steps::{ALL, Place, Step};

/// A state's number.
pub type StateId = u32;

/// What applying answered.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The state after it.
    pub state: StateId,
    /// `Applied::Done`, not a rejection.
    pub done: bool,
    /// The token issued.
    pub token: u8,
    /// `domain::invariants` found nothing wrong.
    pub is_sound: bool,
}

/// One step as the log has it.
#[derive(Debug, Clone, Copy)]
pub struct StepSeen {
    pub phase: StepPhase,
    pub attempts: u8,
    pub token: u8,
}

/// What the model's rules look at in a state.
#[derive(Debug, Clone)]
pub struct Brief {
    /// Number of the open run, 0 where none is.
    pub run: u8,
    /// The group's last token.
    pub token: u8,
    /// The open run's token.
    pub run_token: u8,
    pub steps: BTreeMap<Step, StepSeen>,
    pub serving_epoch: u8,
    pub serving: Option<String>,
    pub served_last: String,
    pub is_paused: bool,
    pub is_asserted: bool,
    pub went_past_fence: bool,
    /// Places left unsettled, with the token that the step there was started under.
    pub unsettled: BTreeMap<Place, u8>,
    /// The serving epoch the open run was opened in.
    pub opened_in: u8,
    /// The holders of the bound lease, in bits.
    pub bound: Option<u8>,
    /// The old primary's silence took the fence's place.
    pub is_lapsed: bool,
    /// The open run is a planned move.
    pub is_planned: bool,
    /// It has turned back.
    pub has_turned_back: bool,
    /// It turns back by itself where it cannot go on.
    pub turns_back: bool,
    /// It is stuck: a person is called.
    pub is_stuck: bool,
}

impl Brief {
    /// The step's record; pending where the plan has none.
    pub fn step(&self, step: Step) -> StepSeen {
        self.steps.get(&step).copied().unwrap_or(StepSeen { phase: StepPhase::Pending, attempts: 0, token: 0 })
    }
}

type Question = (StateId, u8, BTreeSet<Step>, bool);

#[derive(Default)]
struct Kept {
    numbers: HashMap<String, StateId>,
    states: Vec<Arc<ClusterState>>,
    briefs: Vec<Arc<Brief>>,
}

/// All states met so far.
pub struct Log {
    rules: Rules,
    kept: RwLock<Kept>,
    applied: RwLock<HashMap<(StateId, Cmd), Answer>>,
    moves: RwLock<HashMap<Question, Arc<Vec<Move>>>>,
    /// What `domain::invariants` found.
    broken: Mutex<BTreeSet<String>>,
}

fn small(n: u64) -> u8 {
    u8::try_from(n).expect("numbers stay small within the bound")
}

/// A token of the model's one epoch.
pub fn token(n: u8) -> Token {
    Token { epoch: 1, n: n.into() }
}

/// The number in a run's id, `r1`.
fn run_number(id: &str) -> u8 {
    id.trim_start_matches('r').parse().expect("runs are named r1, r2")
}

impl Log {
    pub fn new(rules: Rules) -> (Self, StateId) {
        let log = Self {
            rules,
            kept: RwLock::default(),
            applied: RwLock::default(),
            moves: RwLock::default(),
            broken: Mutex::default(),
        };
        let first = log.keep(cluster::fresh_state(log.rules));
        (log, first)
    }

    /// What `domain::invariants` found wrong so far.
    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub fn brief(&self, id: StateId) -> Arc<Brief> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).briefs[id as usize].clone()
    }

    pub fn state(&self, id: StateId) -> Arc<ClusterState> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).states[id as usize].clone()
    }

    /// Applies a command. A rejection leaves the state as it was: its audit line is not part of the model.
    pub fn apply(&self, id: StateId, cmd: Cmd) -> Answer {
        if let Some(answer) = self.applied.read().unwrap_or_else(PoisonError::into_inner).get(&(id, cmd)) {
            return *answer;
        }
        take_out(self.rules.product());
        let before = self.state(id);
        let mut after = (*before).clone();
        let cmd_in_log = self.mutated(&mut after, id, cmd);
        let by = Principal("node:model".to_owned());
        let change = cmd_in_log.change(self.rules);
        let command = Command { node: NodeId(1), at: NOW, by, from: None, request_id: None, change };
        let answer = match after.apply(before.applied_index + 1, &command) {
            Applied::Done { token, .. } => {
                self.mutated_after(&mut after, &before, cmd);
                let mut wrong = violations(&after);
                wrong.extend(violations_between(&before, &after));
                let is_sound = wrong.is_empty();
                self.broken.lock().unwrap_or_else(PoisonError::into_inner).extend(wrong);
                let issued = token.map_or(0, |_| small(cluster::group_of(&after).token.n));
                Answer { state: self.keep(after), done: true, token: issued, is_sound }
            }
            _ => Answer { state: id, done: false, token: 0, is_sound: true },
        };
        self.applied.write().unwrap_or_else(PoisonError::into_inner).insert((id, cmd), answer);
        answer
    }

    /// Breaks a rule of the log before a command is applied, where this model is told to.
    fn mutated(&self, state: &mut ClusterState, id: StateId, cmd: Cmd) -> Cmd {
        match (self.rules.mutation, cmd) {
            (Some(Mutation::LogTakesStaleTokens), _) => cmd.under(self.brief(id).run_token),
            (Some(Mutation::LogIgnoresPause), Cmd::Start { .. }) => {
                cluster::group_mut(state).pause = None;
                cmd
            }
            (Some(Mutation::LogStartsOnUnsettled), Cmd::Start { .. }) => {
                cluster::group_mut(state).unsettled.clear();
                cmd
            }
            (Some(Mutation::LogOpensBesideOpenRun), Cmd::Open { .. }) => {
                let group = cluster::group_mut(state);
                group.open_run = None;
                Cmd::Open { token: small(group.token.n), epoch: small(group.serving.epoch), run: cmd.run() }
            }
            _ => cmd,
        }
    }

    fn mutated_after(&self, after: &mut ClusterState, before: &ClusterState, cmd: Cmd) {
        let is_claim = matches!(cmd, Cmd::Claim { .. });
        if self.rules.mutation == Some(Mutation::ClaimIssuesNoToken) && is_claim {
            let group = cluster::group_mut(after);
            let old = cluster::group_of(before).token;
            if old.n > 0 {
                group.token = old;
                if let Some(claim) = group.open_run.as_mut().and_then(|run| run.claims.last_mut()) {
                    claim.token = old;
                }
            }
        }
        if self.rules.mutation == Some(Mutation::LogIgnoresPause) && matches!(cmd, Cmd::Start { .. }) {
            cluster::group_mut(after).pause.clone_from(&cluster::group_of(before).pause);
        }
    }

    /// Forgets what nothing in the model reads (audit, pages, timelines), and numbers what is left.
    fn keep(&self, mut state: ClusterState) -> StateId {
        state.audit.clear();
        state.audit_base = Link::default();
        state.outbox.clear();
        state.alarms.clear();
        state.incidents.clear();
        state.past_incidents.clear();
        state.next_page = 0;
        state.applied_index = 0;
        for group in state.groups.values_mut() {
            group.history.clear();
            if let Some(run) = &mut group.open_run {
                run.events.clear();
                if let Some(back) = &mut run.turned_back {
                    back.reason.clear();
                }
                let newest = run.claims.pop();
                run.claims = newest.into_iter().collect();
                for record in run.steps.values_mut() {
                    record.detail.clear();
                }
            }
        }
        let key = format!("{state:?}");
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = kept.numbers.get(&key) {
            return *id;
        }
        let id = StateId::try_from(kept.states.len()).expect("fewer states than that");
        kept.briefs.push(Arc::new(brief(&state)));
        kept.states.push(Arc::new(state));
        kept.numbers.insert(key, id);
        id
    }

    /// The real `advance`. `is_patient` false: every patience has run out.
    pub fn moves(&self, view: StateId, hand: u8, busy: &BTreeSet<Step>, is_patient: bool) -> Arc<Vec<Move>> {
        let question = (view, hand, busy.clone(), is_patient);
        if let Some(moves) = self.moves.read().unwrap_or_else(PoisonError::into_inner).get(&question) {
            return moves.clone();
        }
        take_out(self.rules.product());
        let state = self.state(view);
        let group = cluster::group_of(&state);
        let limit = if is_patient { u64::MAX } else { 0 };
        let patience = Patience { fence_ms: limit, unknown_ms: limit, stopped_ms: limit };
        let hand = Hand {
            token: (hand > 0).then(|| token(hand)),
            busy: busy.iter().map(|step| step.id()).collect(),
            resting: BTreeSet::new(),
        };
        let moves = group.open_run.as_ref().map_or(Vec::new(), |run| advance(group, run, &hand, patience, NOW));
        let moves = Arc::new(moves);
        self.moves.write().unwrap_or_else(PoisonError::into_inner).insert(question, moves.clone());
        moves
    }
}

/// Time stands still: what it decides is chosen freely instead.
pub const NOW: UnixMs = UnixMs(1_000_000);

fn brief(state: &ClusterState) -> Brief {
    let group = cluster::group_of(state);
    let run = group.open_run.as_ref();
    let n_of = |token: Option<Token>| token.map_or(0, |token| small(token.n));
    let steps = run.map_or_else(BTreeMap::new, |run| {
        let seen = |step: &Step| {
            run.record(&step.id()).map(|record| {
                let attempts = small(record.attempts.into());
                (*step, StepSeen { phase: record.phase, attempts, token: n_of(record.token) })
            })
        };
        ALL.iter().filter_map(seen).collect()
    });
    let unsettled =
        |(name, left): (&ResourceName, &Unsettled)| Place::of(name).map(|place| (place, small(left.token.n)));
    Brief {
        run: run.map_or(0, |run| run_number(run.id.as_str())),
        token: small(group.token.n),
        run_token: n_of(run.and_then(|run| run.token())),
        steps,
        serving_epoch: small(group.serving.epoch),
        serving: group.serving.region.as_ref().map(ToString::to_string),
        served_last: group.serving.last.to_string(),
        is_paused: group.pause.is_some(),
        is_asserted: run.is_some_and(|run| run.fence_assertion.is_some()),
        went_past_fence: run.is_some_and(|run| run.went_past_fence()),
        unsettled: group.unsettled.iter().filter_map(unsettled).collect(),
        opened_in: run.map_or(0, |run| small(run.serving_epoch)),
        bound: group.lease.as_ref().map(|lease| bits_of(&lease.holders)),
        is_lapsed: run.is_some_and(|run| run.lease_lapsed),
        is_planned: run.is_some_and(|run| run.is_planned()),
        has_turned_back: run.is_some_and(|run| run.turned_back.is_some()),
        turns_back: run.is_some_and(|run| run.turns_back_by_itself()),
        is_stuck: run.is_some_and(|run| matches!(run.phase, RunPhase::Stuck { .. })),
    }
}
