//! What is made of a guard's answers. The guard is a stand-in that answers what the test wrote.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use watchdog::actuator::Actuator;
use watchdog::actuator::guarded::GuardedActuator;
use watchdog::domain::attempt::{Outcome, Raised, ReadBack, Warrant};
use watchdog::domain::ids::{Token, UnixMs};
use watchdog::domain::plan::{Action, Check};
use watchdog::guard::protocol::{
    Answer, GroupStatus, InFlight, LatchMark, PostgresRole, PostgresStatus, Refusal, Reply, Request, Status,
};

use crate::rig::Sshd;
use crate::{ample, soon};

const STAND_IN: &str = r#"read -r line; echo "$line" >>requests
case "$line" in *'"action":"status"'*) cat status;; *) cat answer;; esac"#;

pub fn warrant(n: u64) -> Warrant {
    let token = Token { epoch: 1, n };
    let (cluster, group) = ("demo".into(), "aicamera".into());
    Warrant { cluster, group, run: "r1".into(), step: "step".into(), attempt: 1, token, fenced_host: None }
}

struct StandIn {
    sshd: Sshd,
    actuator: GuardedActuator,
}

impl StandIn {
    async fn start() -> Self {
        let rig = Self { sshd: Sshd::with_stand_in(STAND_IN).await, actuator: GuardedActuator::default() };
        rig.says("status", "boot-1", 1_000, status(PostgresRole::Writable, None, None));
        rig
    }

    fn says(&self, to: &str, boot_nonce: &str, boottime_ms: u64, reply: Reply) {
        let (guard_version, boot_nonce) = ("0.1.0".to_owned(), boot_nonce.to_owned());
        let answer = Answer { guard_version, boot_nonce, boottime_ms, reply };
        self.says_text(to, &serde_json::to_string(&answer).unwrap());
    }

    fn says_text(&self, to: &str, text: &str) {
        fs::write(self.sshd.path(to), format!("{text}\n")).unwrap();
    }

    fn fence(&self) -> Action {
        Action::Fence { guard: self.sshd.endpoint() }
    }

    fn promote(&self) -> Action {
        Action::Promote { guard: self.sshd.endpoint() }
    }

    fn requests(&self) -> Vec<Request> {
        self.sshd.lines("requests").iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn actions(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.action).collect()
    }
}

fn latch(n: u64) -> LatchMark {
    LatchMark { token: Token { epoch: 1, n }, run: "r1".into(), step: "fence".into(), at: UnixMs(0) }
}

fn at_work() -> InFlight {
    InFlight {
        run: "r0".into(),
        step: "promote".into(),
        attempt: 1,
        action: "promote".to_owned(),
        token: Token { epoch: 1, n: 1 },
        guard_pid: 77,
        process_group: None,
        since_boottime_ms: 0,
        orphaned: false,
        phase: None,
    }
}

fn status(role: PostgresRole, latch: Option<LatchMark>, in_flight: Option<InFlight>) -> Reply {
    let group = "aicamera";
    Reply::Status(Status {
        host: "db-hanoi".to_owned(),
        cluster: "demo".into(),
        groups: vec![GroupStatus {
            group: group.into(),
            token: Some(Token { epoch: 1, n: 1 }),
            epoch: Some(1),
            latch,
            hold: None,
            in_flight,
            last: Vec::new(),
            fault: None,
        }],
        postgres: Some(PostgresStatus { group: group.into(), role, seen_by: "looked".to_owned(), wal: None }),
    })
}

fn done() -> Reply {
    Reply::Done { evidence: "so says the guard".to_owned(), acted: false }
}

fn not_done() -> Reply {
    Reply::NotDone { evidence: "so says the guard".to_owned() }
}

#[tokio::test]
async fn deadlines_are_stated_in_the_guards_own_time() {
    let rig = StandIn::start().await;
    rig.says("answer", "boot-1", 2_000, done());
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(20);
    let name = "start-services".to_owned();
    let params = BTreeMap::from([("replicas".to_owned(), "3".to_owned())]);
    let action = Action::Guarded { guard: rig.sshd.endpoint(), name, params: params.clone() };
    for _ in 0..2 {
        let outcome = rig.actuator.execute(&warrant(7), &action, deadline).await;
        assert_eq!(outcome, Outcome::Done { evidence: "so says the guard".to_owned() });
    }
    let requests = rig.requests();
    assert_eq!(rig.actions(), ["status", "start-services", "start-services"], "its time is asked for once");
    for (request, boottime_ms) in [(&requests[1], 1_000), (&requests[2], 2_000)] {
        assert_eq!(request.boot_nonce.as_deref(), Some("boot-1"));
        assert_eq!((request.token, &request.params), (Some(Token { epoch: 1, n: 7 }), &params));
        let not_after = request.not_after_boottime_ms.unwrap();
        assert!(not_after > boottime_ms && not_after <= boottime_ms + 20_000, "{not_after}");
    }
}

#[tokio::test]
async fn after_another_boot_nothing_is_sent_again_by_itself() {
    let rig = StandIn::start().await;
    rig.actuator.warm(&"demo".into(), 1, &rig.sshd.endpoint(), ample()).await.unwrap();
    let refused = Reply::Refused { refusal: Refusal::AnotherBoot, reason: "booted".to_owned(), held: None };
    rig.says("answer", "boot-2", 50, refused);
    let outcome = rig.actuator.execute(&warrant(7), &rig.fence(), ample()).await;
    assert!(
        matches!(&outcome, Outcome::Failed { retryable: true, reason } if reason.contains("booted")),
        "{outcome:?}"
    );
    rig.says("answer", "boot-2", 60, done());
    rig.actuator.execute(&warrant(7), &rig.fence(), ample()).await;
    let requests = rig.requests();
    assert_eq!(rig.actions(), ["status", "fence", "fence"]);
    assert_eq!(requests[1].boot_nonce.as_deref(), Some("boot-1"));
    assert_eq!(requests[2].boot_nonce.as_deref(), Some("boot-2"), "the refusal told it");
}

#[tokio::test]
async fn a_fence_is_proved_by_role_and_latch_never_by_words() {
    let rig = StandIn::start().await;
    use PostgresRole::{InRecovery, Stopped, Unknown, Writable};
    for (said, shown, want) in [
        (done(), status(Stopped, Some(latch(7)), None), "Done: server stopped (looked), latched under 1.7 by run r1"),
        (done(), status(InRecovery, Some(latch(3)), None), "Done: server in recovery (looked), latched under 1.3"),
        (done(), status(Stopped, None, None), "Unknown: shows no latch"),
        (done(), status(Writable, Some(latch(7)), None), "Unknown: shows its server writable"),
        (done(), status(Unknown, Some(latch(7)), None), "Unknown: shows its server unknown"),
        (done(), status(Stopped, Some(latch(8)), None), "Refused: 8"),
        (done(), done(), "Unknown: answered status with"),
        (not_done(), status(Writable, None, None), "Untouched: server writable"),
        (not_done(), status(Writable, Some(latch(7)), None), "NotDone: so says"),
        (not_done(), status(Writable, None, Some(at_work())), "NotDone: so says"),
        (not_done(), status(Stopped, None, None), "NotDone: so says"),
        (Reply::InFlight { in_flight: at_work() }, done(), "InFlight: r0/promote"),
        (Reply::Unknown { reason: "look again".to_owned() }, done(), "Unknown: look again"),
    ] {
        rig.says("answer", "boot-1", 1, said.clone());
        rig.says("status", "boot-1", 1, shown.clone());
        let seen = rig.actuator.read_back(&warrant(7), &rig.fence(), ample()).await;
        let (word, part) = want.split_once(": ").unwrap();
        let text = format!("{seen:?}");
        assert!(text.starts_with(word) && text.contains(part), "{said:?} with {shown:?}: {text}");
    }
    assert!(rig.requests().iter().all(|request| request.action == "status" || request.read_back));
}

#[tokio::test]
async fn not_promoted_only_in_recovery_with_nothing_pending() {
    let rig = StandIn::start().await;
    use PostgresRole::{InRecovery, Stopped, Writable};
    for (said, shown, want) in [
        (not_done(), status(InRecovery, None, None), "NotDone"),
        (not_done(), status(InRecovery, None, Some(at_work())), "InFlight"),
        (not_done(), status(Stopped, None, None), "Unknown"),
        (not_done(), status(Writable, None, None), "Unknown"),
        (done(), status(InRecovery, None, None), "Done"),
    ] {
        rig.says("answer", "boot-1", 1, said.clone());
        rig.says("status", "boot-1", 1, shown.clone());
        let seen = rig.actuator.read_back(&warrant(7), &rig.promote(), ample()).await;
        assert!(format!("{seen:?}").starts_with(want), "{said:?} with {shown:?}: {seen:?}");
    }
}

#[tokio::test]
async fn each_refusal_and_each_silence_becomes_one_outcome() {
    let rig = StandIn::start().await;
    let refused = |refusal, held| Reply::Refused { refusal, reason: "for a reason".to_owned(), held };
    let higher = Some(Token { epoch: 1, n: 9 });
    for (reply, want) in [
        (refused(Refusal::LowerToken, higher), "Refused { held: Token { epoch: 1, n: 9 } }"),
        (refused(Refusal::Expired, None), "Failed { retryable: true"),
        (refused(Refusal::AnotherCluster, None), "Failed { retryable: false"),
        (refused(Refusal::DamagedStore, None), "Failed { retryable: false"),
        (Reply::Failed { retryable: true, reason: "busy".to_owned() }, "Failed { retryable: true, reason: \"busy\""),
        (Reply::Unknown { reason: "lost".to_owned() }, "Unknown { reason: \"lost\""),
        (Reply::InFlight { in_flight: at_work() }, "Unknown { reason: \"still in flight: r0/promote"),
        (status(PostgresRole::Stopped, None, None), "Unknown"),
    ] {
        rig.says("answer", "boot-1", 1, reply.clone());
        let outcome = format!("{:?}", rig.actuator.execute(&warrant(7), &rig.fence(), ample()).await);
        assert!(outcome.starts_with(want), "{reply:?}: {outcome}");
    }

    rig.says("answer", "boot-1", 1, refused(Refusal::LowerToken, higher));
    let held = Token { epoch: 1, n: 9 };
    assert_eq!(rig.actuator.raise(&warrant(7), &rig.fence(), ample()).await, Raised::Refused { held });
    assert_eq!(rig.actuator.read_back(&warrant(7), &rig.fence(), ample()).await, ReadBack::Refused { held });
}

/// Where the log goes in a test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_refusal_is_in_the_log_by_name() {
    let rig = StandIn::start().await;
    let log = Log::default();
    let writer = log.clone();
    // For the whole process: another test's thread without a subscriber would switch the line off for all of them.
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let asked = Warrant { run: "logged".into(), ..warrant(7) };
    let held = Some(Token { epoch: 1, n: 9 });
    let reason = "1.7 is lower than 1.9".to_owned();
    rig.says("answer", "boot-1", 1, Reply::Refused { refusal: Refusal::LowerToken, reason, held });
    rig.actuator.raise(&asked, &rig.fence(), ample()).await;
    rig.actuator.execute(&asked, &rig.fence(), ample()).await;
    rig.actuator.read_back(&asked, &rig.promote(), ample()).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let refusals: Vec<_> =
        text.lines().filter(|line| line.contains("guard refused") && line.contains("run=logged")).collect();
    assert_eq!(refusals.len(), 3, "{text}");
    for (line, action) in refusals.into_iter().zip(["raise", "fence", "promote"]) {
        let parts = ["host=db-hanoi", "group=aicamera", "run=logged", "token=1.7", "1.9", "LowerToken", action];
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
}

#[tokio::test]
async fn garbage_is_shown_escaped_and_leaves_the_outcome_unknown() {
    let rig = StandIn::start().await;
    rig.actuator.warm(&"demo".into(), 1, &rig.sshd.endpoint(), ample()).await.unwrap();
    for text in ["Welcome to db-hanoi!\u{1b}[2J", "{}", r#"{"guard_version":"9","sudo":true}"#, "[[[[[[[["] {
        rig.says_text("answer", text);
        let outcome = rig.actuator.execute(&warrant(7), &rig.fence(), ample()).await;
        let Outcome::Unknown { reason } = outcome else { panic!("{text}: {outcome:?}") };
        let start = text.get(..8).unwrap_or(text).escape_debug().to_string();
        assert!(reason.contains("db-hanoi") && reason.contains(&start), "{text}: {reason}");
        assert!(!reason.contains('\u{1b}'), "{reason}");
        let seen = rig.actuator.read_back(&warrant(7), &rig.fence(), ample()).await;
        assert!(matches!(seen, ReadBack::Unknown { .. }), "{seen:?}");
    }
    // Its time cannot be learned: nothing was begun.
    rig.says_text("status", "no status");
    let fresh = GuardedActuator::default();
    let outcome = fresh.execute(&warrant(7), &rig.fence(), ample()).await;
    assert!(matches!(outcome, Outcome::Failed { retryable: true, .. }), "{outcome:?}");
}

#[tokio::test]
async fn what_is_left_of_an_abort_is_ended_and_what_is_no_guards_is_refused() {
    let rig = StandIn::start().await;
    rig.says("answer", "boot-1", 1, Reply::Raised { held: Token { epoch: 1, n: 7 }, in_flight: Some(at_work()) });
    let settling = Warrant { attempt: 0, ..warrant(7) };
    for (warrant, abort) in [(warrant(7), false), (settling, true)] {
        let raised = rig.actuator.raise(&warrant, &rig.promote(), ample()).await;
        assert!(matches!(&raised, Raised::Done { in_flight: Some(what) } if what.contains("r0/promote")), "{raised:?}");
        let request = rig.requests().pop().unwrap();
        assert_eq!((request.action.as_str(), request.attempt, request.abort), ("raise", Some(1), abort));
    }
    let verify = Action::Verify { checks: Vec::<Check>::new() };
    let outcome = rig.actuator.execute(&warrant(7), &verify, soon()).await;
    assert!(matches!(outcome, Outcome::Failed { retryable: false, .. }), "{outcome:?}");
}
