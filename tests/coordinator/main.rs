//! The leader's loop against model resources: what it commits in which order, what it does after a crash, a freeze, a
//! lost answer, and what it leaves to people.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod planned;
mod ready;
mod recovery;
mod redis;
mod told;
mod watched;
mod world;

use std::path::Path;
use std::sync::Arc;

use watchdog::config::Config;
use watchdog::domain::command::{Applied, Change, RunOrder};
use watchdog::domain::ids::{Token, UnixMs};
use watchdog::domain::lease::LeaseBinding;
use watchdog::domain::observation::Verdict;
use watchdog::domain::policy::{ClusterPolicy, Fencing};
use watchdog::domain::run::{RunOutcome, RunPhase, StepPhase};
use watchdog::domain::state::GroupState;
use world::{ModelLog, ModelWorld, Mood, Node, group, open_run};

const FILE: &str = r#"
[cluster]
name = "model"
epoch = 1
[tls]
plaintext = "loopback"
[[region]]
name = "hcmc"
[[region]]
name = "hanoi"
[[region]]
name = "witness"
witness = true
"#;

/// One group from hcmc to hanoi, with no hold-down to wait for and short retries.
fn policy() -> Arc<ClusterPolicy> {
    let mut text = FILE.to_owned();
    for (id, (name, region)) in [("hcmc-1", "hcmc"), ("hanoi-1", "hanoi"), ("witness-1", "witness")].iter().enumerate()
    {
        text.push_str(&format!(
            "[[node]]\nid = {0}\nname = \"{name}\"\nregion = \"{region}\"\nlisten = \"127.0.0.1:{1}\"\ndata_dir = \"/nowhere/{name}\"\n",
            id + 1,
            7101 + id,
        ));
    }
    for region in ["hcmc", "hanoi"] {
        text.push_str(&format!(
            "[[host]]\nname = \"db-{region}\"\nregion = \"{region}\"\nssh = \"127.0.0.1:{}\"\nuser = \"watchdog\"\n\
             host_key = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{}\"\nidentity_file = \"/nowhere/id\"\n",
            if region == "hcmc" { 2201 } else { 2202 },
            "A".repeat(43),
        ));
    }
    text.push_str(include_str!("group.toml"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watchdog.toml");
    std::fs::write(&file, text).unwrap();
    let config = Config::load(Path::new(&file)).unwrap_or_else(|error| panic!("{error}"));
    let mut policy = config.policy();
    for rules in policy.groups.values_mut() {
        for step in rules.failover_plans.iter_mut().flat_map(|plan| &mut plan.stages).flat_map(|s| &mut s.steps) {
            step.retry.backoff_ms = 20;
            step.retry.backoff_max_ms = 50;
        }
    }
    Arc::new(policy)
}

struct Stage {
    policy: Arc<ClusterPolicy>,
    log: Arc<ModelLog>,
    world: Arc<ModelWorld>,
}

impl Stage {
    fn new() -> Self {
        let policy = policy();
        let log = ModelLog::new(&policy);
        Self { policy, log, world: Arc::default() }
    }

    /// With the group in another fencing mode.
    fn of(fencing: Fencing) -> Self {
        let mut policy = (*policy()).clone();
        policy.groups.values_mut().for_each(|rules| rules.fencing = fencing.clone());
        let policy = Arc::new(policy);
        let log = ModelLog::new(&policy);
        Self { policy, log, world: Arc::default() }
    }

    /// Node `id` leads, and every node sees the primary region so.
    fn lead(&self, id: u64, verdict: Verdict) -> Node {
        let node = Node::start(id, &self.policy, &self.log, &self.world);
        node.report(1, Verdict::Up, 60_000, &self.policy);
        node.report(2, verdict, 60_000, &self.policy);
        self.log.elect(id);
        node
    }

    async fn until_closed(&self) -> GroupState {
        self.log.until("the run is closed", |group| group.open_run.is_none() && !group.history.is_empty()).await
    }

    fn order(&self, order: RunOrder) {
        let now = self.log.group();
        let change = Change::Order {
            group: group(&self.policy),
            run: open_run(&now),
            expected_token: None,
            order,
            reason: "the test says so".to_owned(),
        };
        let applied = self.log.write("operator:linh", change);
        assert!(matches!(applied, Applied::Done { .. }), "{applied:?}");
    }

    fn end(&self) {
        assert_eq!(*self.log.broken.lock().unwrap(), Vec::<String>::new(), "invariants");
    }
}

fn outcome(group: &GroupState) -> RunOutcome {
    match group.history.back().expect("a run in the history").phase {
        RunPhase::Closed { outcome, .. } => outcome,
        ref other => panic!("{other:?}"),
    }
}

fn phase(group: &GroupState, step: &str) -> Option<StepPhase> {
    group.open_run.as_ref().map(|run| run.phase_of(&step.into()))
}

fn is_stuck_at(group: &GroupState, at: &str) -> bool {
    let run = group.open_run.as_ref();
    run.is_some_and(|run| matches!(&run.phase, RunPhase::Stuck { step, .. } if step.as_str() == at))
}

const REPORT_EVERY: std::time::Duration = std::time::Duration::from_millis(200);
const EFFECTS: [&str; 4] = ["fence", "dns", "promote", "start-services"];

#[tokio::test]
async fn p1_a_lost_region_fails_over_once_and_no_more() {
    let stage = Stage::new();
    let _leader = stage.lead(3, Verdict::Down);
    let group = stage.until_closed().await;
    assert_eq!(outcome(&group), RunOutcome::Succeeded);
    assert_eq!(group.serving.region, Some("hanoi".into()));
    for effect in EFFECTS {
        assert_eq!(stage.world.effects(effect), [Token { epoch: 1, n: 1 }], "{effect}");
    }
    assert_eq!(stage.log.pages(), ["DR_FAILOVER_STARTED", "DR_FAILOVER_SUCCESS", "DR_FAILOVER_ENDED"]);
    stage.end();
}

#[tokio::test]
async fn p6_a_leader_that_dies_while_an_effect_hangs_is_followed_by_one_that_reads_back() {
    for effect in EFFECTS {
        let stage = Stage::new();
        stage.world.mood(effect, Mood::Hangs);
        let first = stage.lead(3, Verdict::Down);
        let step = if effect == "start-services" { "services" } else { effect };
        stage.log.until("the step has begun", |group| phase(group, step) == Some(StepPhase::Started)).await;
        drop(first);
        stage.world.mood(effect, Mood::Good);
        let _second = stage.lead(2, Verdict::Down);
        let group = stage.until_closed().await;
        assert_eq!(outcome(&group), RunOutcome::Succeeded, "{effect}");
        for done in EFFECTS {
            assert_eq!(stage.world.effects(done).len(), 1, "{done} after a crash in {effect}");
        }
        assert_eq!(group.token, Token { epoch: 1, n: 2 }, "{effect}");
        stage.end();
    }
}

#[tokio::test]
async fn p3_a_leader_that_slept_through_its_succession_changes_nothing() {
    let stage = Stage::new();
    stage.world.mood("promote", Mood::Hangs);
    let sleeper = stage.lead(3, Verdict::Down);
    stage.log.until("the promotion has begun", |group| phase(group, "promote") == Some(StepPhase::Started)).await;
    // It is not told that another leads, and its request is still on the way.
    *sleeper.deaf.lock().unwrap() = true;
    let second = Node::start(2, &stage.policy, &stage.log, &stage.world);
    second.report(1, Verdict::Down, 60_000, &stage.policy);
    stage.world.mood("verify", Mood::Hangs);
    stage.log.elect(2);
    stage.log.until("the second read it back", |group| phase(group, "promote") == Some(StepPhase::Failed)).await;
    stage.world.mood("promote", Mood::Good);
    stage.world.mood("verify", Mood::Good);
    let group = stage.until_closed().await;
    assert_eq!(outcome(&group), RunOutcome::Succeeded);
    assert_eq!(stage.world.effects("promote"), [Token { epoch: 1, n: 2 }]);
    stage.end();
}

#[tokio::test]
async fn p6_a_lost_answer_is_read_back_and_never_repeated() {
    for effect in EFFECTS {
        let stage = Stage::new();
        stage.world.mood(effect, Mood::AnswerLost);
        let _leader = stage.lead(3, Verdict::Down);
        let group = stage.until_closed().await;
        assert_eq!(outcome(&group), RunOutcome::Succeeded, "{effect}");
        assert_eq!(stage.world.effects(effect).len(), 1, "{effect}");
        stage.end();
    }
}

#[tokio::test]
async fn p4_an_unreachable_old_primary_is_stuck_until_a_person_asserts_it() {
    let stage = Stage::new();
    stage.world.mood("fence", Mood::Unreachable);
    let _leader = stage.lead(3, Verdict::Down);
    let group = stage.log.until("stuck at the fence", |group| is_stuck_at(group, "fence")).await;
    let RunPhase::Stuck { reason, .. } = &group.open_run.as_ref().unwrap().phase else { panic!() };
    assert!(reason.starts_with("no fence proof"), "{reason}");
    assert!(stage.log.pages().contains(&"DR_FAILOVER_FAILED".to_owned()));
    assert!(stage.world.effects("promote").is_empty());
    stage.order(RunOrder::AssertFence { region: "hcmc".into() });
    let group = stage.until_closed().await;
    assert_eq!(outcome(&group), RunOutcome::Succeeded);
    assert_eq!(group.unsettled.len(), 1, "the old primary's host is still to be settled");
    stage.world.mood("fence", Mood::Good);
    stage.log.until("it is settled when it answers", |group| group.unsettled.is_empty()).await;
    stage.end();
}

#[tokio::test]
async fn p4_a_stuck_fence_goes_on_by_itself_when_its_host_answers() {
    let stage = Stage::new();
    stage.world.mood("fence", Mood::Unreachable);
    let leader = stage.lead(3, Verdict::Down);
    stage.log.until("stuck at the fence", |group| is_stuck_at(group, "fence")).await;
    stage.world.mood("fence", Mood::Good);
    keep_reporting(&stage, &leader).await;
    assert_eq!(outcome(&stage.log.group()), RunOutcome::Succeeded);
    stage.end();
}

fn unique() -> u64 {
    u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap()
}

async fn keep_reporting(stage: &Stage, leader: &Node) {
    let reporting = async {
        loop {
            leader.report(unique(), Verdict::Down, 60_000, &stage.policy);
            tokio::time::sleep(REPORT_EVERY).await;
        }
    };
    tokio::select! {
        _ = stage.until_closed() => {}
        () = reporting => {}
    }
}

#[tokio::test]
async fn a_dns_outage_keeps_neither_promotion_nor_services_waiting() {
    let stage = Stage::new();
    stage.world.mood("dns", Mood::Unreachable);
    let _leader = stage.lead(3, Verdict::Down);
    stage.log.until("services run", |group| phase(group, "services") == Some(StepPhase::Done)).await;
    assert_eq!(phase(&stage.log.group(), "verify"), Some(StepPhase::Pending), "verification waits for the name");
    stage.world.mood("dns", Mood::Good);
    let group = stage.until_closed().await;
    assert_eq!(outcome(&group), RunOutcome::Succeeded);
    stage.end();
}

#[tokio::test]
async fn nothing_is_stopped_for_a_standby_that_cannot_be_promoted() {
    for mood in [Mood::Hopeless, Mood::Unreachable] {
        let stage = Stage::new();
        stage.world.mood("promote", mood);
        let leader = stage.lead(3, Verdict::Down);
        let group = stage.log.until("stuck before the fence", |group| is_stuck_at(group, "fence")).await;
        let RunPhase::Stuck { reason, .. } = &group.open_run.as_ref().unwrap().phase else { panic!() };
        assert!(reason.starts_with("no standby to promote in hanoi: "), "{reason}");
        assert_eq!(group.serving.region, Some("hcmc".into()), "the old primary keeps the right to write");
        for verb in ["fence", "dns", "promote"] {
            assert!(stage.world.effects(verb).is_empty(), "{verb}");
        }
        assert!(stage.world.tokens_raised().is_empty(), "no token is raised before something is acted upon");
        stage.world.mood("promote", Mood::Good);
        keep_reporting(&stage, &leader).await;
        assert_eq!(outcome(&stage.log.group()), RunOutcome::Succeeded, "it goes on by itself once there is one");
        stage.end();
    }
}

#[tokio::test]
async fn a_run_stuck_for_want_of_a_standby_is_withdrawn_when_the_region_lives_again() {
    let stage = Stage::new();
    stage.world.mood("promote", Mood::Hopeless);
    let leader = stage.lead(3, Verdict::Down);
    stage.log.until("stuck before the fence", |group| is_stuck_at(group, "fence")).await;
    leader.report(9, Verdict::Up, 60_000, &stage.policy);
    let group = stage.until_closed().await;
    assert_eq!((outcome(&group), group.serving.epoch), (RunOutcome::Withdrawn, 1));
    stage.end();
}

#[tokio::test]
async fn an_asserted_fence_repoints_nothing_for_a_standby_that_cannot_be_promoted() {
    let stage = Stage::new();
    stage.world.mood("fence", Mood::Unreachable);
    let leader = stage.lead(3, Verdict::Down);
    stage.log.until("stuck at the fence", |group| is_stuck_at(group, "fence")).await;
    stage.world.mood("promote", Mood::Hopeless);
    stage.order(RunOrder::AssertFence { region: "hcmc".into() });
    stage.log.until("stuck for want of a standby", |g| is_stuck_at(g, "promote") || is_stuck_at(g, "dns")).await;
    assert!(stage.world.effects("dns").is_empty(), "the name is not given to a region that cannot serve");
    stage.world.mood("promote", Mood::Good);
    keep_reporting(&stage, &leader).await;
    assert_eq!(outcome(&stage.log.group()), RunOutcome::Succeeded);
    stage.end();
}

#[tokio::test]
async fn withdrawn_when_the_trigger_goes_away_before_anything_is_touched() {
    let stage = Stage::new();
    stage.world.mood("fence", Mood::Unreachable);
    let leader = stage.lead(3, Verdict::Down);
    stage.log.until("the fence was tried", |group| phase(group, "fence") == Some(StepPhase::Failed)).await;
    leader.report(9, Verdict::Up, 60_000, &stage.policy);
    stage.world.mood("fence", Mood::Good);
    let group = stage.until_closed().await;
    assert_eq!(outcome(&group), RunOutcome::Withdrawn);
    assert_eq!(group.serving.region, Some("hcmc".into()), "the right to write is given back");
    assert!(stage.world.effects("fence").is_empty());
    stage.end();
}

#[tokio::test]
async fn p9_a_pause_stops_at_the_next_boundary_and_resuming_goes_on() {
    let stage = Stage::new();
    stage.world.mood("fence", Mood::Hangs);
    let leader = stage.lead(3, Verdict::Down);
    stage.log.until("the fence has begun", |group| phase(group, "fence") == Some(StepPhase::Started)).await;
    let of = group(&stage.policy);
    stage.log.write("operator:linh", Change::Pause { group: of.clone(), reason: "wait".to_owned(), until: None });
    stage.world.mood("fence", Mood::Good);
    stage.log.until("the fence's result is taken", |group| phase(group, "fence") == Some(StepPhase::Done)).await;
    leader.report(3, Verdict::Down, 60_000, &stage.policy);
    assert_eq!(phase(&stage.log.group(), "promote"), Some(StepPhase::Pending));
    stage.log.write("operator:linh", Change::Resume { group: of, reason: "go".to_owned(), expired: None });
    let group = stage.until_closed().await;
    assert_eq!(outcome(&group), RunOutcome::Succeeded);
    stage.end();
}

#[tokio::test]
async fn a_higher_token_at_a_resource_stops_the_run_until_a_person_lets_it_claim_above() {
    let stage = Stage::new();
    let rules = stage.policy.groups.values().next().unwrap();
    let plan = rules.failover_plan(&"hcmc".into(), &"hanoi".into()).unwrap();
    let promote = plan.step(&"promote".into()).unwrap().action.clone();
    stage.world.raise_by_hand(&promote, Token { epoch: 1, n: 40 });
    let _leader = stage.lead(3, Verdict::Down);
    let group = stage.log.until("stuck at promote", |group| is_stuck_at(group, "promote")).await;
    assert!(stage.world.effects("promote").is_empty());
    assert_eq!(group.serving.region, None);
    stage.order(RunOrder::Retry { step: "promote".into() });
    let group = stage.until_closed().await;
    assert_eq!(outcome(&group), RunOutcome::Succeeded);
    assert_eq!(stage.world.effects("promote"), [Token { epoch: 1, n: 41 }]);
    assert!(!stage.world.refusals().is_empty());
    stage.end();
}

#[tokio::test]
async fn a_run_stuck_on_a_higher_token_can_be_aborted() {
    let stage = Stage::new();
    let rules = stage.policy.groups.values().next().unwrap();
    let plan = rules.failover_plan(&"hcmc".into(), &"hanoi".into()).unwrap();
    let promote = plan.step(&"promote".into()).unwrap().action.clone();
    stage.world.raise_by_hand(&promote, Token { epoch: 1, n: 40 });
    let _leader = stage.lead(3, Verdict::Down);
    stage.log.until("stuck at promote", |group| is_stuck_at(group, "promote")).await;
    stage.order(RunOrder::Abort);
    assert_eq!(outcome(&stage.until_closed().await), RunOutcome::Aborted);
    stage.end();
}

#[tokio::test]
async fn a_token_of_a_later_epoch_is_told_again_at_every_retry() {
    let stage = Stage::new();
    let rules = stage.policy.groups.values().next().unwrap();
    let plan = rules.failover_plan(&"hcmc".into(), &"hanoi".into()).unwrap();
    let promote = plan.step(&"promote".into()).unwrap().action.clone();
    stage.world.raise_by_hand(&promote, Token { epoch: 2, n: 5 });
    let _leader = stage.lead(3, Verdict::Down);
    stage.log.until("stuck at promote", |group| is_stuck_at(group, "promote")).await;
    stage.order(RunOrder::Retry { step: "promote".into() });
    let stuck_twice = |group: &GroupState| {
        let run = group.open_run.as_ref();
        run.is_some_and(|run| run.events.iter().filter(|event| event.what.starts_with("stuck")).count() == 2)
    };
    let group = stage.log.until("stuck again", stuck_twice).await;
    let RunPhase::Stuck { reason, .. } = &group.open_run.as_ref().unwrap().phase else { panic!() };
    assert!(reason.contains("raise the cluster's epoch"), "{reason}");
    stage.end();
}

#[tokio::test]
async fn an_abort_settles_what_it_reaches_and_remembers_what_it_does_not() {
    let stage = Stage::new();
    stage.world.mood("promote", Mood::Fails);
    stage.world.mood("dns", Mood::AnswerLost);
    let _leader = stage.lead(3, Verdict::Down);
    stage.log.until("stuck at promote", |group| is_stuck_at(group, "promote")).await;
    stage.order(RunOrder::Abort);
    let group = stage.until_closed().await;
    assert_eq!(outcome(&group), RunOutcome::Aborted);
    assert_eq!(group.serving.region, None, "the old primary is fenced, nobody was promoted");
    assert_eq!(group.serving.last.as_str(), "hcmc", "a promotion that failed never served");
    assert!(stage.log.pages().contains(&"DR_FAILOVER_FAILED".to_owned()));
    stage.end();
}

/// Mode `lease` with a short TTL; bound where `is_bound`.
fn leased(is_bound: bool) -> Stage {
    let stage = Stage::of(Fencing::Lease { ttl_ms: 200 });
    if is_bound {
        let binding = LeaseBinding {
            region: "hcmc".into(),
            host: "db-hcmc".into(),
            ttl_ms: 200,
            holders: vec!["db-hanoi".into()],
            since: UnixMs(0),
            attestation: "model".to_owned(),
        };
        let applied = stage.log.write("node:3", Change::BindLease { group: group(&stage.policy), binding });
        assert!(matches!(applied, Applied::Done { .. }), "{applied:?}");
    }
    stage
}

#[tokio::test]
async fn p4_an_unreachable_primary_whose_lease_ran_out_is_passed_over_and_fenced_for_good_later() {
    let stage = leased(true);
    stage.world.mood("fence", Mood::Unreachable);
    let _leader = stage.lead(3, Verdict::Down);
    let group = stage.until_closed().await;
    assert_eq!(outcome(&group), RunOutcome::Succeeded);
    assert!(stage.world.effects("fence").is_empty());
    assert_eq!(group.unsettled.values().filter(|left| left.is_due).count(), 1);
    stage.world.mood("fence", Mood::Good);
    stage.log.until("it is settled when it answers", |group| group.unsettled.is_empty()).await;
    assert_eq!(stage.world.effects("fence").len(), 1, "fenced for good");
    stage.end();
}

#[tokio::test]
async fn p4_a_lease_that_was_never_bound_proves_nothing() {
    let stage = leased(false);
    stage.world.mood("fence", Mood::Unreachable);
    let _leader = stage.lead(3, Verdict::Down);
    stage.log.until("stuck at the fence", |group| is_stuck_at(group, "fence")).await;
    assert!(stage.world.effects("promote").is_empty());
    stage.end();
}

#[tokio::test]
async fn p4_a_standing_hold_keeps_silence_from_being_proved() {
    for mood in [Mood::Hopeless, Mood::Unreachable] {
        let stage = leased(true);
        stage.world.mood("fence", Mood::Unreachable);
        stage.world.mood("hold", mood);
        let leader = stage.lead(3, Verdict::Down);
        stage.log.until("stuck at the fence", |group| is_stuck_at(group, "fence")).await;
        assert!(stage.world.effects("promote").is_empty());
        stage.world.mood("hold", Mood::Good);
        keep_reporting(&stage, &leader).await;
        assert_eq!(outcome(&stage.log.group()), RunOutcome::Succeeded);
        stage.end();
    }
}

fn attempts(group: &GroupState, step: &str) -> u32 {
    let run = group.history.back().expect("a run in the history");
    run.record(&step.into()).map_or(0, |record| record.attempts)
}

/// The old primary's own guard is the better proof: its standby's hold protects nothing then.
#[tokio::test]
async fn p4_a_hold_for_a_host_that_is_fenced_is_not_waited_for() {
    let stage = leased(true);
    stage.world.mood("hold", Mood::Hopeless);
    let leader = stage.lead(3, Verdict::Down);
    keep_reporting(&stage, &leader).await;
    assert_eq!(outcome(&stage.log.group()), RunOutcome::Succeeded);
    assert_eq!(attempts(&stage.log.group(), "promote"), 1);
    stage.end();
}

/// A person's word is none about the hold: it is waited for, and no attempt is spent meanwhile.
#[tokio::test]
async fn p4_an_assertion_waits_for_the_hold() {
    let stage = leased(false);
    stage.world.mood("fence", Mood::Unreachable);
    stage.world.mood("hold", Mood::Hopeless);
    let leader = stage.lead(3, Verdict::Down);
    stage.log.until("stuck at the fence", |group| is_stuck_at(group, "fence")).await;
    stage.order(RunOrder::AssertFence { region: "hcmc".into() });
    let free_it = async {
        stage.log.until("dns is done beside it", |group| phase(group, "dns") == Some(StepPhase::Done)).await;
        tokio::time::sleep(REPORT_EVERY * 10).await;
        assert_eq!(phase(&stage.log.group(), "promote"), Some(StepPhase::Pending));
        stage.world.mood("hold", Mood::Good);
    };
    tokio::join!(keep_reporting(&stage, &leader), free_it);
    assert_eq!(outcome(&stage.log.group()), RunOutcome::Succeeded);
    assert_eq!(attempts(&stage.log.group(), "promote"), 1);
    stage.end();
}
