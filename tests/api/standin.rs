//! A stand-in for a node: a real `ClusterState` behind a lock instead of a replicated log, and facts that a test sets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use watchdog::api::access::AccessLayer;
use watchdog::api::backend::{
    AdminBackend, DryRun, Gate, GroupSight, Leader, NodeSight, NodeStanding, OpenFailover, ProposeError,
    ReplicationSight, Sight, VoteSight,
};
use watchdog::api::origin::{origin, recorded};
use watchdog::api::refusals::Refusals;
use watchdog::clock::unix_now;
use watchdog::config::{Config, judge};
use watchdog::domain::attempt::{Outcome, ReadBack};
use watchdog::domain::command::{Applied, Change, Command, FenceProof, Rejection, RejectionCode, RunOrder};
use watchdog::domain::decide::specs;
use watchdog::domain::ids::{GroupName, NodeId, RegionName, RunId, StepId, Token, UnixMs};
use watchdog::domain::observation::{Failure, FailureKind, Verdict};
use watchdog::domain::policy::ClusterPolicy;
use watchdog::domain::readiness::Readiness;
use watchdog::domain::run::{Assertion, Cause, RunKind, RunOutcome};
use watchdog::domain::state::ClusterState;
use watchdog::proto::WriteContext;
use watchdog::proto::admin_client::AdminClient;
use watchdog::tls::{Dialer, Material, incoming};

/// The group of the test's configuration.
pub const GROUP: &str = "aicamera";
/// A run's id.
pub const RUN: &str = "01955555-0000-7000-8000-000000000001";

/// How the stand-in takes proposals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As a healthy leader.
    Healthy,
    /// Lost leadership between the question and the proposal.
    Deposed,
    /// No quorum to be had; nothing is appended.
    NoQuorum,
    /// Applies, and then its own answer is lost.
    ForgetsToAnswer,
    /// Applies, and never answers.
    Hangs,
}

/// What several stand-ins share instead of a log.
pub struct Log(watch::Sender<Arc<ClusterState>>);

impl Log {
    /// A state under the test's configuration, adopted as command 1.
    pub fn new() -> Arc<Self> {
        let policy = policy();
        let log = Arc::new(Self(watch::Sender::new(Arc::new(ClusterState::default()))));
        log.done(Change::AdoptConfig {
            cluster: policy.cluster.clone(),
            epoch: policy.epoch,
            digest: policy.digest.clone(),
            groups: specs(&policy),
            receivers: policy.receivers.clone(),
            on_call: policy.on_call.clone(),
        });
        log
    }

    pub fn state(&self) -> Arc<ClusterState> {
        self.0.borrow().clone()
    }

    pub fn apply(&self, command: &Command) -> Applied {
        let mut applied = Applied::Nothing;
        self.0.send_modify(|state| {
            let state = Arc::make_mut(state);
            applied = state.apply(state.applied_index + 1, command);
        });
        applied
    }

    /// A command by the leading node that must take effect.
    pub fn done(&self, change: Change) -> Option<Token> {
        self.done_at(unix_now(), change)
    }

    pub fn done_at(&self, at: UnixMs, change: Change) -> Option<Token> {
        let command = Command { node: NodeId(3), at, by: "node:danang-1".into(), from: None, request_id: None, change };
        match self.apply(&command) {
            Applied::Done { token, .. } => token,
            other => panic!("{command}: {other:?}"),
        }
    }

    /// A failover that opened at `at`, was claimed, and has its fence under way.
    pub fn fencing_at(&self, at: UnixMs) -> Token {
        self.open_at(at, RUN);
        let token = self.claim(at.plus(12), RUN);
        self.start(at.plus(20), RUN, "fence", token);
        token
    }

    pub fn open_at(&self, at: UnixMs, run: &str) {
        let policy = policy();
        let group = self.state().groups[&GroupName::from(GROUP)].clone();
        let plan = policy.groups[&GroupName::from(GROUP)].failover_plan(&"hcmc".into(), &"hanoi".into());
        self.done_at(
            at,
            Change::OpenRun {
                run: run.into(),
                group: GROUP.into(),
                kind: RunKind::Failover,
                drill: false,
                plan: plan.expect("the test's configuration has it").clone(),
                digest: policy.digest.clone(),
                expected_token: group.token,
                expected_serving_epoch: group.serving.epoch,
                cause: Cause {
                    by: "node:danang-1".into(),
                    automatic: true,
                    reason: "hcmc is down: 2 of 3 voters agree for 3.1 s".to_owned(),
                    evidence: vec![
                        "hanoi-1 (hanoi): down 3.2 s".to_owned(),
                        "danang-1 (danang): down 3.1 s".to_owned(),
                    ],
                    fault_at: Some(UnixMs(at.0 - 3_200)),
                    expected_loss_ms: Some(180),
                },
                loss_acceptance: None,
                fence_assertion: None,
            },
        );
    }

    pub fn claim(&self, at: UnixMs, run: &str) -> Token {
        let expected_token = self.state().groups[&GroupName::from(GROUP)].token;
        let change = Change::ClaimRun { group: GROUP.into(), run: run.into(), expected_token, floor: None };
        self.done_at(at, change).expect("a claim issues a token")
    }

    pub fn start(&self, at: UnixMs, run: &str, step: &str, token: Token) {
        let attempt = self.attempts(run, step) + 1;
        let is_promote = step == "promote";
        self.done_at(
            at,
            Change::StepStarted {
                group: GROUP.into(),
                run: run.into(),
                step: step.into(),
                token,
                attempt,
                fence_proof: is_promote
                    .then(|| FenceProof::Guard { token, evidence: "stopped and latched".to_owned() }),
                expected_loss_ms: is_promote.then_some(180),
                loss_limit_ms: is_promote.then_some(900_000),
            },
        );
    }

    pub fn finish(&self, at: UnixMs, run: &str, step: &str, token: Token, outcome: Outcome) {
        let attempt = self.attempts(run, step);
        let (group, run, step) = (GROUP.into(), run.into(), step.into());
        self.done_at(at, Change::StepFinished { group, run, step, token, attempt, outcome });
    }

    pub fn stuck(&self, at: UnixMs, run: &str, step: &str, token: Token, reason: &str) {
        let (group, run, step) = (GROUP.into(), run.into(), step.into());
        self.done_at(at, Change::MarkStuck { group, run, token, step, reason: reason.to_owned() });
    }

    /// An abort that nothing stands in the way of.
    pub fn abort(&self, at: UnixMs, run: &str, token: Token) {
        let (group, reason) = (GroupName::from(GROUP), "enough".to_owned());
        let order = RunOrder::Abort;
        self.done_at(at, Change::Order { group: group.clone(), run: run.into(), expected_token: None, order, reason });
        self.done_at(
            at.plus(100),
            Change::CloseRun {
                group,
                run: run.into(),
                token,
                outcome: RunOutcome::Aborted,
                settled: BTreeMap::new(),
                old_primary_untouched: false,
                reason: "ordered".to_owned(),
                monitor_ms: 0,
            },
        );
    }

    fn attempts(&self, run: &str, step: &str) -> u32 {
        let state = self.state();
        let open = state.groups[&GroupName::from(GROUP)].open_run.as_ref().expect("a run is open");
        assert_eq!(open.id.as_str(), run);
        open.steps[&StepId::from(step)].attempts
    }
}

/// The test's configuration, through the real reader.
pub fn config() -> Config {
    let (config, report) = judge(include_bytes!("watchdog.toml"));
    config.unwrap_or_else(|| panic!("{}", watchdog::config::render(&report, "watchdog.toml")))
}

pub fn policy() -> ClusterPolicy {
    config().policy()
}

/// A stand-in node.
pub struct StandInNode {
    log: Arc<Log>,
    pub policy: Arc<ClusterPolicy>,
    standing: watch::Sender<NodeStanding>,
    asked: AtomicU64,
    pub mood: Mutex<Mood>,
    pub sight: Mutex<Sight>,
    /// What it answers to be ready or not.
    pub readiness: Mutex<Option<Readiness>>,
}

impl StandInNode {
    /// Node `id` of the test's configuration; it knows no leader yet.
    pub fn new(id: u64, log: &Arc<Log>) -> Arc<Self> {
        Self::under(id, log, policy())
    }

    /// The same with another configuration of its own.
    pub fn under(id: u64, log: &Arc<Log>, policy: ClusterPolicy) -> Arc<Self> {
        let name = policy.members[&NodeId(id)].name.clone();
        let node = NodeId(id);
        let note = format!("1 of {} voters answer it; 2 are needed", policy.members.len());
        let standing = NodeStanding { node, name, leader: None, has_quorum: false, term: 7, note };
        Arc::new(Self {
            log: Arc::clone(log),
            policy: Arc::new(policy),
            standing: watch::Sender::new(standing),
            asked: AtomicU64::new(0),
            mood: Mutex::new(Mood::Healthy),
            sight: Mutex::new(Sight::default()),
            readiness: Mutex::new(None),
        })
    }

    /// It follows the node of that number, at that address.
    pub fn follow(&self, leader: u64, address: &str) {
        let name = self.policy.members[&NodeId(leader)].name.clone();
        self.standing.send_modify(|standing| {
            standing.leader = Some(Leader { node: NodeId(leader), name, address: address.to_owned() });
            standing.has_quorum = true;
            standing.note.clear();
        });
    }

    /// It leads.
    pub fn lead(&self) {
        let id = self.standing.borrow().node.0;
        self.follow(id, "127.0.0.1:1");
    }

    /// It lost everybody.
    pub fn lose_quorum(&self) {
        self.standing.send_modify(|standing| {
            standing.leader = None;
            standing.has_quorum = false;
            standing.note = "1 of 3 voters answer it; 2 are needed".to_owned();
        });
    }

    /// It lost everybody, and still takes itself for the leader.
    pub fn lead_alone(&self) {
        self.lead();
        self.standing.send_modify(|standing| {
            standing.has_quorum = false;
            standing.note = "1 of 3 voters answer it; 2 are needed".to_owned();
        });
    }

    /// Until somebody asked who leads, beyond the one that watches over its health.
    pub async fn wait_until_asked(&self) {
        let asked = &self.asked;
        let before = asked.load(Ordering::Relaxed);
        wait_until("a call", || async { asked.load(Ordering::Relaxed) > before }).await;
    }

    pub fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub async fn take(&self, command: Command) -> Result<Applied, ProposeError> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Healthy => {
                let applied = self.log.apply(&command);
                if matches!(applied, Applied::Rejected(_)) {
                    recorded();
                }
                Ok(applied)
            }
            Mood::Deposed => Err(ProposeError::NotLeader),
            Mood::NoQuorum => Err(ProposeError::Unavailable("no majority answers; nothing was changed".to_owned())),
            Mood::ForgetsToAnswer => {
                self.log.apply(&command);
                Err(ProposeError::Unknown("proposed, and no majority confirmed it within 5 s".to_owned()))
            }
            Mood::Hangs => {
                self.log.apply(&command);
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl AdminBackend for StandInNode {
    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.log.0.subscribe()
    }

    fn standing(&self) -> watch::Receiver<NodeStanding> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.standing.subscribe()
    }

    fn policy(&self) -> Arc<ClusterPolicy> {
        Arc::clone(&self.policy)
    }

    fn sight(&self) -> Sight {
        self.sight.lock().unwrap().clone()
    }

    async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.take(command).await
    }

    async fn dry_run(&self, ask: &OpenFailover) -> Result<DryRun, ProposeError> {
        let state = self.log.state();
        let group = &state.groups[&ask.group];
        let plan = self.policy.groups[&ask.group].failover_plan(&group.serving.last, &ask.to).cloned();
        let plan = plan.ok_or_else(|| {
            let message = format!("to_region: {} cannot move from {} to {}", ask.group, group.serving.last, ask.to);
            ProposeError::Rejected(Rejection { code: RejectionCode::Invalid, message })
        })?;
        let gate = |name: &str, is_open: bool, detail: &str, before_promote: bool| Gate {
            name: name.to_owned(),
            is_open,
            detail: detail.to_owned(),
            before_promote,
        };
        let open = group.open_run.is_none();
        let run = if open { "none is open" } else { "one is open: watchdogctl run show aicamera" };
        let not_done = |evidence: &str| ReadBack::NotDone { evidence: evidence.to_owned() };
        Ok(DryRun {
            present: BTreeMap::from([
                ("fence".into(), ReadBack::Unknown { reason: "10.1.0.21:22: no route to host".to_owned() }),
                ("dns".into(), not_done("api.demo.test. A 10.1.0.30")),
                ("promote".into(), not_done("in recovery, streaming")),
            ]),
            plan,
            gates: vec![
                gate("run", open, run, false),
                gate("fence", ask.assert_fence.is_some(), "db-hcmc cannot be reached", true),
                gate("loss", true, "would lose 0.180 s, the limit is 15 min", true),
            ],
        })
    }

    async fn readiness(&self, group: &GroupName, _to: Option<&RegionName>) -> Result<Readiness, ProposeError> {
        let message = format!("group {group} has no plan that leads away from hcmc");
        let none = || ProposeError::Rejected(Rejection { code: RejectionCode::NotFound, message });
        self.readiness.lock().unwrap().clone().ok_or_else(none)
    }

    async fn open_failover(&self, ask: OpenFailover) -> Result<RunId, ProposeError> {
        let state = self.log.state();
        let group = &state.groups[&ask.group];
        let run = RunId(ask.request_id.0.clone());
        let plan = self.policy.groups[&ask.group].failover_plan(&"hcmc".into(), &ask.to).cloned();
        let word = || Assertion { by: ask.by.clone(), at: unix_now(), reason: ask.reason.clone() };
        let command = Command {
            node: self.standing.borrow().node,
            at: unix_now(),
            by: ask.by.clone(),
            from: origin(),
            request_id: Some(ask.request_id.clone()),
            change: Change::OpenRun {
                run: run.clone(),
                group: ask.group.clone(),
                kind: RunKind::Failover,
                drill: false,
                plan: plan.expect("the test's configuration has it"),
                digest: self.policy.digest.clone(),
                expected_token: ask.expected_token.unwrap_or(group.token),
                expected_serving_epoch: group.serving.epoch,
                cause: Cause {
                    by: ask.by.clone(),
                    automatic: false,
                    reason: ask.reason.clone(),
                    evidence: Vec::new(),
                    fault_at: None,
                    expected_loss_ms: None,
                },
                loss_acceptance: ask.accept_loss.then(word),
                fence_assertion: ask.assert_fence.as_ref().map(|_| word()),
            },
        };
        match self.take(command).await? {
            Applied::Rejected(rejection) => Err(ProposeError::Rejected(rejection)),
            _ => Ok(run),
        }
    }
}

/// A served stand-in, on a runtime of its own; stops when dropped.
pub struct Served {
    pub address: String,
    /// Tells the node to stop.
    pub shutdown: CancellationToken,
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
}

impl Served {
    /// Ends at once as a killed process does: its connections break.
    pub fn kill(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Serves the node on a free loopback port, in plain text.
pub async fn serve(node: &Arc<StandInNode>) -> Served {
    serve_by(node, None).await
}

/// The same with a certificate.
pub async fn serve_by(node: &Arc<StandInNode>, tls: Option<Arc<Material>>) -> Served {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let backend: Arc<dyn AdminBackend> = Arc::clone(node) as Arc<dyn AdminBackend>;
    let standing = backend.standing().borrow().clone();
    let refusals = Refusals::new(standing.node, standing.name);
    let (refused, log) = (Arc::clone(&refusals), Arc::clone(&node.log));
    runtime.spawn(async move {
        loop {
            for note in refused.next().await {
                log.apply(&note);
            }
        }
    });
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let node = backend.standing().borrow().name.clone();
        let routes = watchdog::api::routes(backend, Dialer::of(tls.clone()), stop).unwrap();
        let server = tonic::transport::Server::builder()
            .layer(AccessLayer::new(config().roles(), node, refusals))
            .add_routes(routes);
        server.serve_with_incoming(incoming(listener, tls)).await.unwrap();
    });
    Served { address, shutdown, runtime: Mutex::new(Some(runtime)) }
}

pub async fn client(address: &str) -> AdminClient<tonic::transport::Channel> {
    AdminClient::connect(format!("http://{address}")).await.unwrap()
}

/// One leading node, served.
pub async fn leader() -> (Arc<Log>, Arc<StandInNode>, Served) {
    let log = Log::new();
    let node = StandInNode::new(3, &log);
    node.lead();
    let served = serve(&node).await;
    (log, node, served)
}

/// A write's context with an id of its own.
pub fn context(id: &str) -> Option<WriteContext> {
    let (by, reason) = ("linh".to_owned(), "planned work on the power supply".to_owned());
    Some(WriteContext { request_id: id.to_owned(), by, reason })
}

/// Polls until it is so.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < end, "waited too long: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a leader would see while hcmc is failing.
pub fn failing_sight() -> Sight {
    let vote = |target: &str, region: &str, node: u64, verdict: Verdict, held_ms: u64| VoteSight {
        target: target.into(),
        region: region.into(),
        node: NodeId(node),
        verdict,
        held_ms,
        age_ms: 200,
        not_counted: None,
        failure: (verdict != Verdict::Up)
            .then(|| Failure { kind: FailureKind::Refused, detail: "10.1.0.21:5432: connection refused".to_owned() }),
    };
    let mut isolated = vote("hcmc-db", "hcmc", 1, Verdict::Down, 1_200);
    isolated.not_counted = Some("isolated".to_owned());
    let node = |id: u64, age: Option<u64>, is_reachable: Option<bool>| NodeSight {
        node: NodeId(id),
        member: None,
        is_voter: true,
        is_reachable,
        last_report_age_ms: age,
        is_isolated: id == 1,
        other_config: false,
        behind_entries: Some(if id == 1 { 4 } else { 0 }),
    };
    let groups = BTreeMap::from([(
        GroupName::from(GROUP),
        GroupSight {
            explanation: vec!["1 of 3 voters say down, 2 are needed; hold-down 2.0 s of 3.0 s".to_owned()],
            votes: vec![
                isolated,
                vote("hcmc-db", "hcmc", 2, Verdict::Suspect, 400),
                vote("hcmc-db", "hcmc", 3, Verdict::Down, 2_050),
                vote("hanoi-db", "hanoi", 1, Verdict::Up, 273_600_000),
                vote("hanoi-db", "hanoi", 2, Verdict::Up, 273_600_000),
                vote("hanoi-db", "hanoi", 3, Verdict::Up, 7_500_000),
            ],
            replication: vec![ReplicationSight {
                region: "hanoi".into(),
                target: "hanoi-replication".into(),
                is_streaming: false,
                expected_loss_ms: Some(2_400),
                behind_bytes: Some(19_456),
            }],
            lease: None,
        },
    )]);
    Sight {
        nodes: vec![node(1, Some(8_000), Some(false)), node(2, Some(200), Some(true)), node(3, Some(0), Some(true))],
        groups: Some(groups),
        warnings: vec!["losing hcmc and danang together leaves no majority".to_owned()],
    }
}
