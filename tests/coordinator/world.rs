//! A model of the world in one process: a log that one or two coordinators share, and resources that keep tokens and
//! refuse lower ones, as zones and guards do. Stand-ins, for order and judgement only; `tests/e2e` has the real parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use watchdog::actuator::Actuator;
use watchdog::clock::unix_now;
use watchdog::coordinator::{Coordinator, Journal, JournalError, Leadership, News, Sightings};
use watchdog::domain::attempt::{Outcome, Prospect, Raised, ReadBack, Warrant};
use watchdog::domain::command::{Applied, Change, Command};
use watchdog::domain::decide::specs;
use watchdog::domain::ids::{GroupName, NodeId, Principal, ResourceName, RunId, Token, UnixMs};
use watchdog::domain::invariants::{violations, violations_between};
use watchdog::domain::observation::{Measure, Observation, ReplicationMeasure, Report, Verdict};
use watchdog::domain::plan::Action;
use watchdog::domain::policy::ClusterPolicy;
use watchdog::domain::state::{ClusterState, GroupState};

/// How long a test waits for a state before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The log of a cluster whose majority answers until told otherwise. Every change is checked against the invariants.
pub struct ModelLog {
    state: watch::Sender<Arc<ClusterState>>,
    leader: Mutex<(NodeId, u64)>,
    leaderships: Mutex<BTreeMap<NodeId, watch::Sender<Leadership>>>,
    pub broken: Mutex<Vec<String>>,
    /// No majority answers.
    pub is_cut_off: AtomicBool,
    /// Proposals that no majority answered.
    pub unanswered: AtomicUsize,
}

impl ModelLog {
    pub fn new(policy: &ClusterPolicy) -> Arc<Self> {
        let log = Arc::new(Self {
            state: watch::Sender::new(Arc::default()),
            leader: Mutex::new((NodeId(0), 0)),
            leaderships: Mutex::default(),
            broken: Mutex::default(),
            is_cut_off: AtomicBool::default(),
            unanswered: AtomicUsize::default(),
        });
        let adopt = Change::AdoptConfig {
            cluster: policy.cluster.clone(),
            epoch: policy.epoch,
            digest: policy.digest.clone(),
            groups: specs(policy),
            receivers: policy.receivers.clone(),
            on_call: policy.on_call.clone(),
        };
        log.write("node:test", adopt);
        log
    }

    /// Applies without asking who leads: what an operator's call through the leader does.
    pub fn write(&self, by: &str, change: Change) -> Applied {
        let command = Command {
            node: NodeId(0),
            at: unix_now(),
            by: Principal(by.to_owned()),
            from: None,
            request_id: None,
            change,
        };
        self.apply(&command)
    }

    fn apply(&self, command: &Command) -> Applied {
        let mut applied = Applied::Nothing;
        self.state.send_modify(|state| {
            let before = state.clone();
            let mut next = (**state).clone();
            applied = next.apply(before.applied_index + 1, command);
            let mut wrong = violations(&next);
            wrong.extend(violations_between(&before, &next));
            self.broken.lock().unwrap().extend(wrong);
            *state = Arc::new(next);
        });
        applied
    }

    /// Another node leads from now on, in a new term.
    pub fn elect(&self, node: u64) {
        let mut leader = self.leader.lock().unwrap();
        *leader = (NodeId(node), leader.1 + 1);
        for (id, sender) in self.leaderships.lock().unwrap().iter() {
            sender.send_replace(Leadership { leads: *id == leader.0, term: leader.1, voters: voters() });
        }
    }

    pub fn state(&self) -> Arc<ClusterState> {
        self.state.borrow().clone()
    }

    pub fn group(&self) -> GroupState {
        self.state().groups.values().next().unwrap().clone()
    }

    /// Waits until the group is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&GroupState) -> bool) -> GroupState {
        let mut state = self.state.subscribe();
        let found = tokio::time::timeout(PATIENCE, state.wait_for(|now| now.groups.values().any(&wanted))).await;
        match found {
            Ok(state) => state.unwrap().groups.values().next().unwrap().clone(),
            Err(_) => panic!("not reached: {what}\n{:#?}", self.group().open_run),
        }
    }

    /// Names of the events put into the outbox so far.
    pub fn pages(&self) -> Vec<String> {
        self.state().outbox.iter().map(|entry| entry.page.event.clone()).collect()
    }
}

pub fn voters() -> BTreeSet<NodeId> {
    [1, 2, 3].map(NodeId).into()
}

/// One node's end of the log.
struct NodeLog {
    log: Arc<ModelLog>,
    node: NodeId,
    leadership: watch::Receiver<Leadership>,
    /// Frozen: it has not heard that somebody else leads.
    deaf: Arc<Mutex<bool>>,
}

#[async_trait]
impl Journal for NodeLog {
    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.log.state.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    async fn propose(&self, command: Command) -> Result<Applied, JournalError> {
        tokio::task::yield_now().await;
        if self.log.is_cut_off.load(Ordering::Relaxed) {
            self.log.unanswered.fetch_add(1, Ordering::Relaxed);
            return Err(JournalError::Unavailable("no majority answers".to_owned()));
        }
        self.confirm().await?;
        Ok(self.log.apply(&command))
    }

    async fn confirm(&self) -> Result<(), JournalError> {
        tokio::task::yield_now().await;
        let leads = self.log.leader.lock().unwrap().0 == self.node;
        if leads || *self.deaf.lock().unwrap() { Ok(()) } else { Err(JournalError::NotLeader) }
    }

    async fn transfer(&self, _to: NodeId) -> Result<(), JournalError> {
        Ok(())
    }
}

/// How a resource behaves at its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Does as asked.
    Good,
    /// Cannot be reached at all.
    Unreachable,
    /// Does as asked, but the answer is lost.
    AnswerLost,
    /// Shows beforehand that it cannot be done.
    Hopeless,
    /// Fails for good, though nothing showed it beforehand.
    Fails,
    /// Takes the request and does nothing until told otherwise; nothing is answered.
    Hangs,
    /// As `Hangs`, and whoever looks is shown that it is at work.
    AtWork,
}

#[derive(Debug, Default)]
struct Resource {
    token: Token,
    done: BTreeSet<String>,
    effects: Vec<(String, Token)>,
    refused: Vec<Token>,
    /// A fence's: a rejoin under a later token clears it, or one of the run that set it.
    latch: Option<(Token, RunId)>,
}

/// Every resource of the plan, by name; each remembers its token.
#[derive(Default)]
pub struct ModelWorld {
    resources: Mutex<BTreeMap<ResourceName, Resource>>,
    moods: watch::Sender<BTreeMap<String, Mood>>,
}

impl ModelWorld {
    /// Of an action, by its verb; or of everything that is asked of a resource, by its name.
    pub fn mood(&self, verb: &str, mood: Mood) {
        self.moods.send_modify(|moods| {
            moods.insert(verb.to_owned(), mood);
        });
    }

    fn mood_of(&self, action: &Action) -> Mood {
        let moods = self.moods.borrow();
        let of_resource = action.resource().and_then(|resource| moods.get(&resource.0).copied());
        of_resource.or_else(|| moods.get(action.verb()).copied()).unwrap_or(Mood::Good)
    }

    /// How often the action took effect, and under which tokens.
    pub fn effects(&self, verb: &str) -> Vec<Token> {
        let resources = self.resources.lock().unwrap();
        let all = resources.values().flat_map(|resource| &resource.effects);
        all.filter(|(done, _)| done == verb).map(|(_, token)| *token).collect()
    }

    /// What the action did is there no more.
    pub fn undo(&self, verb: &str) {
        for resource in self.resources.lock().unwrap().values_mut() {
            resource.done.remove(verb);
        }
    }

    /// Tokens that some resource refused.
    pub fn refusals(&self) -> Vec<Token> {
        self.resources.lock().unwrap().values().flat_map(|resource| resource.refused.clone()).collect()
    }

    /// Resources that remember a token.
    pub fn tokens_raised(&self) -> Vec<ResourceName> {
        self.resources.lock().unwrap().keys().cloned().collect()
    }

    /// Somebody else raised a token there.
    pub fn raise_by_hand(&self, action: &Action, token: Token) {
        let Some(name) = action.resource() else { return };
        self.resources.lock().unwrap().entry(name).or_default().token = token;
    }

    /// `Err` holds the higher token.
    fn raised(&self, warrant: &Warrant, action: &Action) -> Result<(), Token> {
        let Some(name) = action.resource() else { return Ok(()) };
        let mut resources = self.resources.lock().unwrap();
        let resource = resources.entry(name).or_default();
        if warrant.token < resource.token {
            resource.refused.push(warrant.token);
            return Err(resource.token);
        }
        resource.token = warrant.token;
        Ok(())
    }

    fn act(&self, warrant: &Warrant, action: &Action) {
        let name = action.resource().unwrap_or_else(|| ResourceName("verify".to_owned()));
        let mut resources = self.resources.lock().unwrap();
        let resource = resources.entry(name).or_default();
        resource.done.insert(action.verb().to_owned());
        // What is released is fenced no more.
        match action {
            Action::Fence { .. } => {
                resource.latch = Some((warrant.token, warrant.run.clone()));
                resource.done.remove("release");
            }
            Action::Guarded { name, .. } if name == "rejoin" => resource.latch = None,
            Action::Release { .. } => drop(resource.done.remove("fence")),
            _ => {}
        }
        resource.effects.push((action.verb().to_owned(), warrant.token));
    }

    fn is_latched_against(&self, warrant: &Warrant, action: &Action) -> bool {
        let resources = self.resources.lock().unwrap();
        let resource = action.resource().and_then(|name| resources.get(&name));
        let may_clear =
            |(token, run): &(Token, RunId)| warrant.token > *token || warrant.token == *token && warrant.run == *run;
        action.is_named("rejoin")
            && resource.and_then(|resource| resource.latch.as_ref()).is_some_and(|l| !may_clear(l))
    }

    fn is_done(&self, action: &Action) -> bool {
        let Some(name) = action.resource() else { return false };
        self.resources.lock().unwrap().get(&name).is_some_and(|resource| resource.done.contains(action.verb()))
    }
}

#[async_trait]
impl Actuator for ModelWorld {
    async fn raise(&self, warrant: &Warrant, action: &Action, _deadline: Instant) -> Raised {
        if self.mood_of(action) == Mood::Unreachable {
            return Raised::Unknown { reason: "no route to host".to_owned() };
        }
        match self.raised(warrant, action) {
            Ok(()) if self.mood_of(action) == Mood::AtWork => {
                Raised::Done { in_flight: Some(action.verb().to_owned()) }
            }
            Ok(()) => Raised::Done { in_flight: None },
            Err(held) => Raised::Refused { held },
        }
    }

    async fn can_succeed(&self, _warrant: &Warrant, action: &Action, _deadline: Instant) -> Prospect {
        match self.mood_of(action) {
            Mood::Unreachable => Prospect::Unknown { reason: "no route to host".to_owned() },
            Mood::Hopeless => Prospect::Bad { reason: "latched".to_owned() },
            _ => Prospect::Good { evidence: "model".to_owned() },
        }
    }

    async fn end_holds(&self, _warrant: &Warrant, _action: &Action, _deadline: Instant) -> Prospect {
        match self.moods.borrow().get("hold") {
            Some(Mood::Unreachable) => Prospect::Unknown { reason: "no route to host".to_owned() },
            Some(Mood::Hopeless) => Prospect::Bad { reason: "held".to_owned() },
            _ => Prospect::Good { evidence: "model".to_owned() },
        }
    }

    async fn execute(&self, warrant: &Warrant, action: &Action, _deadline: Instant) -> Outcome {
        let mood = self.mood_of(action);
        if mood == Mood::Unreachable {
            return Outcome::Failed { retryable: true, reason: "no route to host".to_owned() };
        }
        if matches!(mood, Mood::Hangs | Mood::AtWork) {
            let mut moods = self.moods.subscribe();
            let verb = action.verb().to_owned();
            let _ = moods.wait_for(|moods| moods.get(&verb) != Some(&mood)).await;
        }
        if let Err(held) = self.raised(warrant, action) {
            return Outcome::Refused { held };
        }
        if matches!(mood, Mood::Fails | Mood::Hopeless) || self.is_latched_against(warrant, action) {
            return Outcome::Failed { retryable: false, reason: "latched".to_owned() };
        }
        let is_held = self.moods.borrow().get("hold").is_some_and(|mood| *mood != Mood::Good);
        if is_held && matches!(action, Action::Promote { .. }) && warrant.fenced_host != Some("db-hcmc".into()) {
            return Outcome::Failed { retryable: true, reason: "held".to_owned() };
        }
        self.act(warrant, action);
        match mood {
            Mood::AnswerLost => Outcome::Unknown { reason: "no answer".to_owned() },
            _ => Outcome::Done { evidence: "model".to_owned() },
        }
    }

    async fn read_back(&self, warrant: &Warrant, action: &Action, _deadline: Instant) -> ReadBack {
        if self.mood_of(action) == Mood::Unreachable {
            return ReadBack::Unknown { reason: "no route to host".to_owned() };
        }
        if let Err(held) = self.raised(warrant, action) {
            return ReadBack::Refused { held };
        }
        let evidence = "model".to_owned();
        if self.mood_of(action) == Mood::AtWork {
            return ReadBack::InFlight { evidence };
        }
        if self.is_done(action) { ReadBack::Done { evidence } } else { ReadBack::Untouched { evidence } }
    }
}

/// A running coordinator; dropping it kills it in the middle of whatever it does.
pub struct Node {
    task: JoinHandle<()>,
    pub coordinator: Arc<Coordinator>,
    pub sightings: Arc<Sightings>,
    /// It goes on believing that it leads.
    pub deaf: Arc<Mutex<bool>>,
    _stop: watch::Sender<bool>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    pub fn start(id: u64, policy: &Arc<ClusterPolicy>, log: &Arc<ModelLog>, world: &Arc<ModelWorld>) -> Self {
        let (sender, leadership) = watch::channel(Leadership { leads: false, term: 0, voters: voters() });
        log.leaderships.lock().unwrap().insert(NodeId(id), sender);
        let deaf = Arc::new(Mutex::new(false));
        let journal = NodeLog { log: log.clone(), node: NodeId(id), leadership, deaf: deaf.clone() };
        let sightings = Arc::new(Sightings::default());
        let coordinator = Arc::new(Coordinator {
            node: NodeId(id),
            name: Principal(format!("node:{id}")),
            policy: policy.clone(),
            journal: Arc::new(journal),
            actuator: world.clone(),
            sightings: sightings.clone(),
            leases: Arc::default(),
            looks: watch::Sender::default(),
            last_rejection: Mutex::default(),
            news: News::default(),
        });
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(coordinator.clone().run(stopping));
        Self { task, coordinator, sightings, deaf, _stop: stop }
    }

    /// All three nodes report the same of the primary region.
    pub fn report(&self, seq: u64, verdict: Verdict, held_ms: u64, policy: &ClusterPolicy) {
        self.report_changed(seq, verdict, held_ms, policy, |_| {});
    }

    /// The same, with something else said of some targets.
    pub fn report_changed(
        &self,
        seq: u64,
        verdict: Verdict,
        held_ms: u64,
        policy: &ClusterPolicy,
        change: impl Fn(&mut Observation),
    ) {
        for node in voters() {
            let mut report = report_of(node, seq, verdict, held_ms, policy);
            report.observations.iter_mut().for_each(&change);
            self.sightings.receive(report);
        }
    }
}

fn report_of(node: NodeId, seq: u64, verdict: Verdict, held_ms: u64, policy: &ClusterPolicy) -> Report {
    let group = policy.groups.keys().next().unwrap().clone();
    let seen = |target: &str, verdict, measure| Observation {
        group: group.clone(),
        target: target.into(),
        verdict,
        held_ms,
        seen_up: true,
        failure: None,
        measure,
    };
    let replication = ReplicationMeasure {
        in_recovery: true,
        received_lsn: Some(9),
        primary_lsn: Some(9),
        covered_age_ms: Some(100),
        ..ReplicationMeasure::default()
    };
    Report {
        node,
        incarnation: UnixMs(1),
        seq,
        digest: policy.digest.clone(),
        isolated: false,
        clock: unix_now(),
        observations: vec![
            seen("hcmc-db", verdict, None),
            seen("hanoi-db", Verdict::Up, None),
            seen("replication", Verdict::Up, Some(Measure::Replication(replication))),
        ],
    }
}

/// The group of the policy.
pub fn group(policy: &ClusterPolicy) -> GroupName {
    policy.groups.keys().next().unwrap().clone()
}

/// The open run's id.
pub fn open_run(group: &GroupState) -> RunId {
    group.open_run.as_ref().expect("a run is open").id.clone()
}
