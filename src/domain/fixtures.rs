//! Small worlds for the tests of `domain`: three nodes in three regions, one group, one plan.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{Applied, Change, Command, FenceProof};
use super::decide::specs;
use super::ids::{ConfigDigest, GroupName, NodeId, Principal, RegionName, RunId, StepId, Token, UnixMs};
use super::observation::{Measure, Observation, ReplicationMeasure, Report, Verdict};
use super::plan::{Action, DnsProvider, GuardEndpoint, Plan, Retry, Stage, Step};
use super::policy::{ClusterPolicy, Fencing, GroupPolicy, LagAction, Member, Need, Trigger};
use super::run::{Cause, RunKind};
use super::state::ClusterState;
use super::view::{Heartbeat, Sight, View};

pub fn group() -> GroupName {
    GroupName::from("shop")
}

pub fn region(name: &str) -> RegionName {
    RegionName::from(name)
}

fn guard(region: &str) -> GuardEndpoint {
    GuardEndpoint {
        host: super::ids::HostName(format!("db-{region}")),
        address: "127.0.0.1:22".to_owned(),
        user: "watchdog".to_owned(),
        host_key: "ssh-ed25519 AAAA".to_owned(),
        identity_file: "/etc/watchdog/id".to_owned(),
    }
}

fn step(id: &str, action: Action, blocking: bool) -> Step {
    let retry = Retry { max_attempts: 3, backoff_ms: 100, backoff_max_ms: 1000 };
    Step { id: StepId::from(id), action, deadline_ms: 1000, retry, blocking }
}

pub fn plan(from: &str, to: &str) -> Plan {
    let provider = DnsProvider::Rfc2136 {
        name: "zone".into(),
        server: "127.0.0.1:53".to_owned(),
        zone: "shop.test.".to_owned(),
        key_name: "k.".to_owned(),
        key_file: "/k".to_owned(),
    };
    let dns = Action::UpsertDns { provider, token_record: "_t.shop.test.".to_owned(), records: Vec::new() };
    let services = Action::Guarded { guard: guard(to), name: "start-services".to_owned(), params: BTreeMap::new() };
    Plan {
        from: region(from),
        to: region(to),
        stages: vec![
            Stage { steps: vec![step("fence", Action::Fence { guard: guard(from) }, true)] },
            Stage { steps: vec![step("dns", dns, false), step("promote", Action::Promote { guard: guard(to) }, true)] },
            Stage { steps: vec![step("services", services, true)] },
            Stage { steps: vec![step("verify", Action::Verify { checks: Vec::new() }, true)] },
        ],
        undo: Vec::new(),
    }
}

/// The plan of a planned move.
pub fn planned(from: &str, to: &str) -> Plan {
    let one = |step| Stage { steps: vec![step] };
    let fence = step("fence", Action::Fence { guard: guard(from) }, true);
    let catch_up = step("catch-up", Action::CatchUp { from: guard(from), to: guard(to) }, true);
    let promote = step("promote", Action::Promote { guard: guard(to) }, true);
    let params = BTreeMap::from([("upstream".to_owned(), to.to_owned())]);
    let rejoin = step("rejoin", Action::Guarded { guard: guard(from), name: "rejoin".to_owned(), params }, false);
    let mut stages = plan(from, to).stages;
    let last = stages.split_off(2);
    let dns = stages.remove(1).steps.remove(0);
    let ahead = [fence, catch_up, promote, dns, rejoin].map(one);
    let release = step("release", Action::Release { guard: guard(from) }, true);
    Plan {
        from: region(from),
        to: region(to),
        stages: ahead.into_iter().chain(last).collect(),
        undo: vec![one(release)],
    }
}

pub fn policy() -> ClusterPolicy {
    let trigger = |target: &str| Trigger { targets: vec![target.into()], need: Need::All };
    let rules = GroupPolicy {
        home: region("hcmc"),
        regions: vec![region("hcmc"), region("hanoi")],
        shadow: false,
        fencing: Fencing::Confirm,
        triggers: BTreeMap::from([(region("hcmc"), trigger("hcmc-db")), (region("hanoi"), trigger("hanoi-db"))]),
        hold_down_ms: 3000,
        cooldown_ms: 3_600_000,
        observation_ttl_ms: 5000,
        rpo_limit_ms: 60_000,
        replication: BTreeMap::from([(region("hanoi"), "replication".into())]),
        redis: BTreeMap::new(),
        lag_action: LagAction::Page,
        lag_limit_ms: 300_000,
        load_balancers: BTreeMap::from([(region("hcmc"), "hcmc-lb".into())]),
        fence_patience_ms: 10_000,
        switchover_max_lag_ms: 5000,
        switchover_timeout_ms: 60_000,
        switchover_plans: vec![planned("hcmc", "hanoi"), planned("hanoi", "hcmc")],
        rejoin_plans: Vec::new(),
        failover_plans: vec![plan("hcmc", "hanoi"), plan("hanoi", "hcmc")],
        traffic_plans: Vec::new(),
        services: Vec::new(),
        monitor_ms: 0,
        targets: BTreeMap::from([
            (region("hcmc"), BTreeSet::from(["hcmc-db".into()])),
            (region("hanoi"), BTreeSet::from(["hanoi-db".into()])),
        ]),
        rto_objective_ms: Some(3_600_000),
        drill_max_age_ms: 35 * 86_400_000,
        drills: Default::default(),
    };
    let member = |name: &str, of: &str| Member { name: name.into(), region: region(of) };
    ClusterPolicy {
        cluster: "test".into(),
        epoch: 1,
        digest: digest(),
        members: BTreeMap::from([
            (NodeId(1), member("hcmc-1", "hcmc")),
            (NodeId(2), member("hanoi-1", "hanoi")),
            (NodeId(3), member("witness-1", "witness")),
        ]),
        accepted_losses: BTreeSet::new(),
        receivers: vec!["oncall".into()],
        on_call: Default::default(),
        groups: BTreeMap::from([(group(), rules)]),
    }
}

pub fn digest() -> ConfigDigest {
    ConfigDigest::from("d1")
}

/// A state with a counter for the log's index.
pub struct World {
    pub state: ClusterState,
    pub index: u64,
    pub now: UnixMs,
}

impl World {
    /// The configuration is adopted, and every target was seen up.
    pub fn new() -> Self {
        let mut world = Self { state: ClusterState::default(), index: 0, now: UnixMs(1_000_000) };
        let policy = policy();
        world.must(Change::AdoptConfig {
            cluster: policy.cluster.clone(),
            epoch: 1,
            digest: digest(),
            groups: specs(&policy),
            receivers: policy.receivers.clone(),
            on_call: policy.on_call.clone(),
        });
        let targets = vec!["hcmc-db".into(), "hanoi-db".into(), "replication".into(), "hcmc-lb".into()];
        world.must(Change::MarkSeenUp { group: group(), digest: digest(), targets });
        world
    }

    pub fn apply_as(&mut self, node: u64, change: Change) -> Applied {
        self.index += 1;
        self.now = self.now.plus(10);
        let by = Principal(format!("node:{node}"));
        self.state
            .apply(self.index, &Command { node: NodeId(node), at: self.now, by, from: None, request_id: None, change })
    }

    pub fn apply(&mut self, change: Change) -> Applied {
        self.apply_as(3, change)
    }

    pub fn must(&mut self, change: Change) -> Option<Token> {
        match self.apply(change) {
            Applied::Done { token, .. } => token,
            other => panic!("{other:?}"),
        }
    }

    /// The code of the rejection that the change must meet.
    pub fn rejected(&mut self, change: Change) -> super::command::RejectionCode {
        match self.apply(change) {
            Applied::Rejected(rejection) => {
                assert!(!rejection.message.is_empty());
                rejection.code
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn group(&self) -> &super::state::GroupState {
        &self.state.groups[&group()]
    }

    pub fn run(&self) -> &super::run::Run {
        self.group().open_run.as_ref().expect("a run is open")
    }

    pub fn open_change(&self, run: &str) -> Change {
        let here = self.group().serving.last.as_str();
        let to = if here == "hcmc" { "hanoi" } else { "hcmc" };
        Change::OpenRun {
            run: RunId::from(run),
            group: group(),
            kind: RunKind::Failover,
            drill: false,
            plan: plan(here, to),
            digest: digest(),
            expected_token: self.group().token,
            expected_serving_epoch: self.group().serving.epoch,
            cause: Cause {
                by: "node:3".into(),
                automatic: true,
                reason: "2 of 3 see hcmc down".to_owned(),
                evidence: vec!["votes".to_owned()],
                fault_at: None,
                expected_loss_ms: Some(100),
            },
            loss_acceptance: None,
            fence_assertion: None,
        }
    }

    /// As [`open_change`](Self::open_change), for a recovery in that region: its services are started and looked at.
    pub fn open_recovery(&self, run: &str, at: &str) -> Change {
        let mut open = self.open_change(run);
        if let Change::OpenRun { kind, plan: steps, .. } = &mut open {
            let stages = plan("hcmc", "hanoi").stages.into_iter().skip(2).collect();
            *kind = RunKind::Recovery;
            *steps = Plan { from: region(at), to: region(at), stages, undo: Vec::new() };
        }
        open
    }

    /// As [`open_change`](Self::open_change), for a switchover.
    pub fn open_planned(&self, run: &str) -> Change {
        let here = self.group().serving.last.as_str();
        let to = if here == "hcmc" { "hanoi" } else { "hcmc" };
        match self.open_change(run) {
            Change::OpenRun {
                run,
                group,
                drill,
                digest,
                expected_token,
                expected_serving_epoch,
                cause,
                loss_acceptance,
                fence_assertion,
                ..
            } => Change::OpenRun {
                run,
                group,
                kind: RunKind::Switchover,
                drill,
                plan: planned(here, to),
                digest,
                expected_token,
                expected_serving_epoch,
                cause: Cause { automatic: false, by: "operator:linh".into(), ..cause },
                loss_acceptance,
                fence_assertion,
            },
            other => other,
        }
    }

    /// Opens a switchover and claims it.
    pub fn switching(run: &str) -> (Self, Token) {
        let mut world = Self::new();
        world.must(world.open_planned(run));
        let token = world.claim(run);
        (world, token)
    }

    /// Opens a run and claims it.
    pub fn opened(run: &str) -> (Self, Token) {
        let mut world = Self::new();
        world.must(world.open_change(run));
        let token = world.claim(run);
        (world, token)
    }

    pub fn claim(&mut self, run: &str) -> Token {
        let expected_token = self.group().token;
        let change = Change::ClaimRun { group: group(), run: RunId::from(run), expected_token, floor: None };
        self.must(change).expect("a claim issues a token")
    }

    pub fn start_change(&self, step: &str, token: Token) -> Change {
        let run = self.run();
        let id = StepId::from(step);
        let attempt = run.record(&id).map_or(1, |record| record.attempts + 1);
        let is_promote = step == "promote";
        Change::StepStarted {
            group: group(),
            run: run.id.clone(),
            step: id,
            token,
            attempt,
            fence_proof: is_promote.then(|| FenceProof::Guard { token, evidence: "stopped, latched".to_owned() }),
            expected_loss_ms: is_promote.then_some(100),
            loss_limit_ms: is_promote.then_some(60_000),
        }
    }

    pub fn finish_change(&self, step: &str, token: Token, outcome: super::attempt::Outcome) -> Change {
        let run = self.run();
        let id = StepId::from(step);
        let attempt = run.record(&id).map_or(0, |record| record.attempts);
        Change::StepFinished { group: group(), run: run.id.clone(), step: id, token, attempt, outcome }
    }

    pub fn do_step(&mut self, step: &str, token: Token) {
        self.must(self.start_change(step, token));
        self.must(self.finish_change(step, token, done()));
    }
}

pub fn done() -> super::attempt::Outcome {
    super::attempt::Outcome::Done { evidence: "seen".to_owned() }
}

/// What one node says in a test.
#[derive(Clone, Copy)]
pub struct Says {
    pub hcmc: Verdict,
    pub held_ms: u64,
    pub covered_age_ms: Option<u64>,
    pub isolated: bool,
}

pub const UP: Says = Says { hcmc: Verdict::Up, held_ms: 60_000, covered_age_ms: Some(400), isolated: false };

pub fn down_for(held_ms: u64) -> Says {
    Says { hcmc: Verdict::Down, held_ms, covered_age_ms: Some(held_ms + 200), isolated: false }
}

/// A view in which node N says the N-th thing.
pub fn view(says: &[Option<Says>]) -> View {
    let mut sights = BTreeMap::new();
    for (n, says) in says.iter().enumerate() {
        let node = NodeId(n as u64 + 1);
        let Some(says) = says else { continue };
        let seen = |target: &str, verdict, held_ms, measure| Observation {
            group: group(),
            target: target.into(),
            verdict,
            held_ms,
            seen_up: true,
            failure: None,
            measure,
        };
        let replication = ReplicationMeasure {
            in_recovery: true,
            received_lsn: Some(100),
            replayed_lsn: Some(100),
            streaming: true,
            primary_lsn: Some(100),
            primary_lsn_age_ms: Some(100),
            covered_age_ms: says.covered_age_ms,
            replay_age_ms: None,
        };
        let observations = vec![
            seen("hcmc-db", says.hcmc, says.held_ms, None),
            seen("hanoi-db", Verdict::Up, 60_000, None),
            seen("replication", Verdict::Up, 60_000, Some(Measure::Replication(replication))),
        ];
        let report = Report {
            node,
            incarnation: UnixMs(1),
            seq: 1,
            digest: digest(),
            isolated: says.isolated,
            clock: UnixMs(0),
            observations,
        };
        sights.insert(node, Sight { age_ms: 0, report });
    }
    let voters: BTreeSet<_> = (1..=says.len() as u64).map(NodeId).collect();
    View { self_id: NodeId(3), voters, sights, watched_ms: 0, clock_agrees: true, heartbeat: Heartbeat::Off }
}
