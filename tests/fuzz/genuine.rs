//! Writes the part of the corpus that follows from our own types, and shows that all of it is genuine: whatever is
//! committed there is accepted by its reader (`Target::run` begins with it as it is).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use openraft::Vote;
use openraft::entry::RaftEntry as _;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use openraft::type_config::alias::EntryOf;
use serde::Serialize;
use watchdog::consensus::TypeConfig;
use watchdog::domain::attempt::{Outcome, Warrant};
use watchdog::domain::command::{Change, Command, FenceProof, RunOrder};
use watchdog::domain::decide::specs;
use watchdog::domain::ids::{NodeId, Token, UnixMs};
use watchdog::domain::page::{Page, PageAction, Severity};
use watchdog::domain::run::{Cause, RunKind};
use watchdog::guard::protocol::{
    ActionShown, Answer, GroupStatus, InFlight, LatchMark, LedgerHint, Lsn, PostgresRole, PostgresStatus, RedisShown,
    Refusal, Reply, Request, Status, WalRunning, WalShown, WalState,
};

use crate::corpus::root;
use crate::standin::{GROUP, Log, RUN, policy};

const AT: UnixMs = UnixMs(1_795_231_050_123);

fn write(target: &str, name: &str, value: &impl Serialize) {
    let folder = root().join("tests/fuzz/corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{name}.json")), serde_json::to_vec(value).unwrap()).unwrap();
}

#[test]
fn genuine_inputs_are_written_where_asked() {
    if std::env::var_os("FUZZ_WRITE_CORPUS").is_some() {
        requests();
        answers();
        commands();
        calls();
    }
}

fn warrant() -> Warrant {
    Warrant {
        cluster: "demo".into(),
        group: GROUP.into(),
        run: RUN.into(),
        step: "fence".into(),
        attempt: 1,
        token: Token { epoch: 1, n: 7 },
        fenced_host: None,
    }
}

fn requests() {
    let late = u64::MAX / 2;
    let to_three = BTreeMap::from([("replicas".to_owned(), "3".to_owned())]);
    write("guard-request", "status", &Request::status("demo".into(), 1));
    write("guard-request", "describe", &Request::describe("demo".into(), 1));
    write("guard-request", "raise", &Request::raise(&warrant(), false));
    write("guard-request", "settle", &Request::raise(&warrant(), true));
    write("guard-request", "fence", &Request::act(&warrant(), "fence", BTreeMap::new(), "BOOT-NONCE", late));
    write("guard-request", "once", &Request::act(&warrant(), "once", BTreeMap::new(), "BOOT-NONCE", late));
    write("guard-request", "scale", &Request::act(&warrant(), "scale", to_three, "BOOT-NONCE", late));
    write("guard-request", "read-back", &Request::read_back(&warrant(), "once", BTreeMap::new()));
}

fn answers() {
    let token = Token { epoch: 1, n: 7 };
    let in_flight = InFlight {
        run: RUN.into(),
        step: "promote".into(),
        attempt: 1,
        action: "promote".to_owned(),
        token,
        guard_pid: 4711,
        process_group: Some(4712),
        since_boottime_ms: 123_456,
        orphaned: false,
        phase: Some("base backup 17 %".to_owned()),
    };
    let hint = LedgerHint {
        at: AT,
        run: RUN.into(),
        step: "fence".into(),
        attempt: 1,
        token,
        action: "fence".to_owned(),
        event: "done".to_owned(),
        detail: "đã dừng".to_owned(),
    };
    let group = GroupStatus {
        group: GROUP.into(),
        token: Some(token),
        epoch: Some(1),
        latch: Some(LatchMark { token, run: RUN.into(), step: "fence".into(), at: AT }),
        in_flight: None,
        hold: None,
        last: vec![hint],
        fault: None,
    };
    let redis = RedisShown { group: GROUP.into(), latch: group.latch.clone(), fault: Some("cut off".to_owned()) };
    let wal = WalShown {
        state: WalState::InArchiveRecovery,
        system_identifier: u64::MAX,
        timeline: 2,
        checkpoint_lsn: Lsn(0x363_7180),
        running: Some(WalRunning {
            received_lsn: Some(Lsn(0x363_71F8)),
            replayed_lsn: Some(Lsn(0x1_0000_0000)),
            current_lsn: None,
            timeline: Some(3),
            streams: true,
        }),
        unread: None,
    };
    let (role, seen_by) = (PostgresRole::Stopped, "pg_ctl".to_owned());
    let postgres = PostgresStatus { group: GROUP.into(), role, seen_by, wal: Some(wal) };
    let status =
        Status { host: "db-hcmc".to_owned(), cluster: "demo".into(), groups: vec![group], postgres: Some(postgres) };
    let text = |words: &str| words.to_owned();
    let gone = Some(text("/usr/local/sbin/start-services: no such program (as user root)"));
    let actions = BTreeMap::from([
        (text("start-services"), ActionShown { params: BTreeSet::new(), fault: gone }),
        (text("scale"), ActionShown { params: BTreeSet::from([text("replicas")]), fault: None }),
    ]);
    for (name, reply) in [
        ("described", Reply::Described { status: status.clone(), actions, redis: Some(redis) }),
        ("status", Reply::Status(status)),
        ("raised", Reply::Raised { held: token, in_flight: Some(in_flight.clone()) }),
        ("done", Reply::Done { evidence: text("stopped and latched"), acted: true }),
        ("not-done", Reply::NotDone { evidence: text("in recovery") }),
        ("in-flight", Reply::InFlight { in_flight }),
        ("failed", Reply::Failed { retryable: true, reason: text("exited with 5: no such service") }),
        ("unknown", Reply::Unknown { reason: text("did not end in its time") }),
        (
            "refused",
            Reply::Refused { refusal: Refusal::LowerToken, reason: text("1.4 is lower than 1.5"), held: Some(token) },
        ),
    ] {
        let boot_nonce = "3f0c1f2e-9a55-4f5e-8d55-0d8ff1c9a111".to_owned();
        write("guard-answer", name, &Answer { guard_version: text("0.1.0"), boot_nonce, boottime_ms: 987_654, reply });
    }
}

fn opening() -> Change {
    let policy = policy();
    let plan = policy.groups[&GROUP.into()].failover_plan(&"hcmc".into(), &"hanoi".into()).unwrap().clone();
    Change::OpenRun {
        run: RUN.into(),
        group: GROUP.into(),
        kind: RunKind::Failover,
        drill: false,
        plan,
        digest: policy.digest.clone(),
        expected_token: Token::default(),
        expected_serving_epoch: 0,
        cause: Cause {
            by: "node:danang-1".into(),
            automatic: true,
            reason: "hcmc is down".to_owned(),
            evidence: vec!["hanoi-1 (hanoi): down 3.2 s".to_owned()],
            fault_at: Some(AT),
            expected_loss_ms: Some(180),
        },
        loss_acceptance: None,
        fence_assertion: None,
    }
}

fn commands() {
    let (group, run, token) = (|| GROUP.into(), || RUN.into(), Token { epoch: 1, n: 1 });
    let policy = policy();
    let page = Page {
        key: "demo/aicamera".to_owned(),
        event: "DR_FAILOVER_SUCCESS".to_owned(),
        action: PageAction::Trigger,
        severity: Severity::Critical,
        summary: "aicamera serves from hanoi".to_owned(),
        group: Some(group()),
        run: Some(run()),
        details: BTreeMap::new(),
    };
    let proof = FenceProof::Guard { token, evidence: "stopped and latched".to_owned() };
    let started = |step: &str, fence_proof| Change::StepStarted {
        group: group(),
        run: run(),
        step: step.into(),
        token,
        attempt: 1,
        fence_proof,
        expected_loss_ms: Some(180),
        loss_limit_ms: Some(900_000),
    };
    let adopt = Change::AdoptConfig {
        cluster: policy.cluster.clone(),
        epoch: policy.epoch,
        digest: policy.digest.clone(),
        groups: specs(&policy),
        receivers: policy.receivers.clone(),
        on_call: policy.on_call.clone(),
    };
    let done = Outcome::Done { evidence: "stopped and latched".to_owned() };
    let reason = || "planned work".to_owned();
    for (name, change) in [
        ("adopt", adopt),
        ("open", opening()),
        ("claim", Change::ClaimRun { group: group(), run: run(), expected_token: Token::default(), floor: None }),
        ("claim-above", Change::ClaimRun { group: group(), run: run(), expected_token: token, floor: Some(token) }),
        ("fence", started("fence", None)),
        ("promote", started("promote", Some(proof))),
        (
            "finished",
            Change::StepFinished { group: group(), run: run(), step: "fence".into(), token, attempt: 1, outcome: done },
        ),
        ("stuck", Change::MarkStuck { group: group(), run: run(), token, step: "fence".into(), reason: reason() }),
        (
            "order",
            Change::Order {
                group: group(),
                run: run(),
                expected_token: Some(token),
                order: RunOrder::Abort,
                reason: reason(),
            },
        ),
        ("pause", Change::Pause { group: group(), reason: reason(), until: Some(AT) }),
        ("resume", Change::Resume { group: group(), reason: reason(), expired: None }),
        ("tell", Change::Tell { page }),
        ("told", Change::Told { seq: 1, receiver: "pagerduty".into(), refused: None }),
        ("note", Change::Note { group: None, what: "started".to_owned(), outcome: "noted".to_owned() }),
    ] {
        let request_id = Some("request-01".into());
        write(
            "command",
            name,
            &Command { node: NodeId(3), at: AT, by: "node:danang-1".into(), from: None, request_id, change },
        );
    }
    let log = Log::new();
    write("state", "adopted", &*log.state());
    let token = log.fencing_at(AT);
    write("state", "fencing", &*log.state());
    log.finish(AT.plus(900), RUN, "fence", token, Outcome::Done { evidence: "stopped".to_owned() });
    log.start(AT.plus(950), RUN, "promote", token);
    write("state", "promoting", &*log.state());
}

/// As node 2 leads or wants to.
fn calls() {
    use crate::image::{entry, log_id};
    let first: Vec<EntryOf<TypeConfig>> = (0..4).map(entry).collect();
    let vote = Vote::new_committed(2, NodeId(2));
    let append = |prev_log_id, entries, leader_commit| AppendEntriesRequest::<TypeConfig> {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    };
    write("peer-append", "heartbeat", &append(None, Vec::new(), None));
    write("peer-append", "first", &append(None, first, Some(log_id(2, 2))));
    write("peer-append", "later", &append(Some(log_id(2, 3)), vec![entry(4), entry(5)], Some(log_id(2, 5))));
    for call in ["peer-vote", "peer-pre-vote"] {
        let ask = VoteRequest::<TypeConfig>::new(Vote::new(3, NodeId(2)), Some(log_id(2, 3)));
        write(call, "vote", &ask);
    }
    let transfer = TransferLeaderRequest::<TypeConfig>::new(vote, NodeId(1), Some(log_id(2, 3)));
    write("peer-transfer-leader", "transfer", &transfer);
    assert_eq!(entry(4).index(), 4);
}
