//! The observer: verdicts of real servers over time, isolation, and looks that hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use watchdog::domain::ids::{ConfigDigest, NodeId, UnixMs};
use watchdog::domain::observation::{Failure, FailureKind, Measure, Observation, Report, Verdict};
use watchdog::domain::verdict::WindowParameters;
use watchdog::probe::{Observer, ObserverOptions, Peer, Probe, ProbeSpec, Reference, Role, Target};

use crate::parts::*;
use crate::postgres::{endpoint, postgres};

const WINDOW: WindowParameters =
    WindowParameters { interval_ms: 100, fastinter_ms: 20, timeout_ms: 1000, fall: 3, rise: 2 };

fn target(name: &str, probe: Arc<dyn Probe>) -> Target {
    Target { group: "shop".into(), name: name.into(), window: WINDOW, probe }
}

fn observer(targets: Vec<Target>, references: Vec<Reference>, peers: Vec<Peer>) -> Observer {
    Observer::start(ObserverOptions {
        node: NodeId(1),
        incarnation: UnixMs(7),
        digest: ConfigDigest("d".to_owned()),
        report_interval_ms: 200,
        targets,
        references,
        peers,
        closely: None,
    })
}

async fn until(observer: &Observer, what: &str, good: impl Fn(&Report) -> bool) -> Arc<Report> {
    let mut reports = observer.reports();
    let found = tokio::time::timeout(PATIENCE, reports.wait_for(|report| good(report))).await;
    match found {
        Ok(report) => report.unwrap().clone(),
        Err(_) => panic!("waited for: {what}; newest {:?}", observer.reports().borrow()),
    }
}

fn seen<'a>(report: &'a Report, name: &str) -> &'a Observation {
    report.observations.iter().find(|observation| observation.target.as_str() == name).unwrap()
}

#[tokio::test]
async fn a_killed_server_is_down_and_comes_back() {
    let mut server = Postgres::primary().await;
    let probe = probe_within(&postgres(endpoint(&server), Role::Primary, false), WINDOW.timeout_ms);
    let observer = observer(vec![target("db", probe)], vec![], vec![]);
    let first = observer.reports().borrow().clone();
    assert_eq!((seen(&first, "db").verdict, seen(&first, "db").seen_up), (Verdict::Suspect, false));
    let up = until(&observer, "up", |report| seen(report, "db").verdict == Verdict::Up).await;
    assert!(seen(&up, "db").seen_up && matches!(seen(&up, "db").measure, Some(Measure::Postgres { .. })));
    assert_eq!((up.node, up.incarnation, up.isolated), (NodeId(1), UnixMs(7), false));

    server.kill();
    let down = until(&observer, "down", |report| seen(report, "db").verdict == Verdict::Down).await;
    assert_eq!(seen(&down, "db").failure.as_ref().unwrap().kind, FailureKind::Refused, "{down:?}");
    assert!(down.seq > up.seq && seen(&down, "db").seen_up);
    let later = until(&observer, "a later report", |report| seen(report, "db").held_ms > 500).await;
    assert_eq!(seen(&later, "db").verdict, Verdict::Down);

    server.start().await;
    until(&observer, "up again", |report| seen(report, "db").verdict == Verdict::Up).await;
}

#[tokio::test]
async fn a_frozen_server_times_out_beside_a_healthy_one() {
    let server = Postgres::primary().await;
    let healthy = stand_in(Reply::Silence).await;
    let tcp = ProbeSpec::Tcp { address: format!("127.0.0.1:{healthy}") };
    let db = probe_within(&postgres(endpoint(&server), Role::Primary, true), WINDOW.timeout_ms);
    let observer = observer(vec![target("db", db), target("tcp", probe_of(&tcp))], vec![], vec![]);
    let both_up = |report: &Report| ["db", "tcp"].iter().all(|name| seen(report, name).verdict == Verdict::Up);
    until(&observer, "both up", both_up).await;
    server.signal(rustix::process::Signal::STOP);
    let down = until(&observer, "down", |report| seen(report, "db").verdict == Verdict::Down).await;
    let failure = seen(&down, "db").failure.as_ref().unwrap();
    assert_eq!(failure.kind, FailureKind::TimedOut, "{failure:?}");
    assert_eq!(seen(&down, "tcp").verdict, Verdict::Up);
    server.signal(rustix::process::Signal::CONT);
    until(&observer, "both up again", both_up).await;
}

#[tokio::test]
async fn our_own_fault_is_never_down() {
    let server = Postgres::primary().await;
    let wrong = server.folder.path().join("wrong");
    std::fs::write(&wrong, "guess").unwrap();
    let mut database = endpoint(&server);
    database.password_file = Some(wrong);
    let probe =
        Arc::new(Counted { inner: probe_of(&postgres(database, Role::Primary, false)), looks: AtomicU32::new(0) });
    let observer = observer(vec![target("db", probe.clone())], vec![], vec![]);
    wait_until("ten looks", || async { (probe.looks.load(Ordering::Relaxed) > 10).then_some(()) }).await;
    let report = observer.reports().borrow().clone();
    assert_eq!(seen(&report, "db").verdict, Verdict::Suspect);
    assert_eq!(seen(&report, "db").failure.as_ref().unwrap().kind, FailureKind::OurFault);
    assert!(!seen(&report, "db").seen_up);
}

struct Counted {
    inner: Arc<dyn Probe>,
    looks: AtomicU32,
}

#[async_trait]
impl Probe for Counted {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.inner.probe().await
    }
}

/// A stand-in that is told what to answer.
#[derive(Default)]
struct Told {
    fails: AtomicBool,
}

#[async_trait]
impl Probe for Told {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(Failure { kind: FailureKind::TimedOut, detail: "told".to_owned() });
        }
        Ok(None)
    }
}

/// A stand-in that misbehaves.
enum Bad {
    WaitsForEver,
    BlocksItsThread,
    Panics,
}

#[async_trait]
impl Probe for Bad {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        match self {
            Bad::WaitsForEver => std::future::pending().await,
            Bad::BlocksItsThread => {
                let (_keep, never) = std::sync::mpsc::channel::<()>();
                let _ = never.recv_timeout(Duration::from_secs(5));
                Ok(None)
            }
            Bad::Panics => panic!("planned"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_look_that_hangs_or_panics_blocks_nobody() {
    let window = WindowParameters { timeout_ms: 100, ..WINDOW };
    let bad = |name: &str, bad| Target { window, ..target(name, Arc::new(bad)) };
    let good = Arc::new(Counted { inner: Arc::new(Told::default()), looks: AtomicU32::new(0) });
    let targets = vec![
        bad("waits", Bad::WaitsForEver),
        bad("blocks", Bad::BlocksItsThread),
        bad("panics", Bad::Panics),
        target("good", good.clone()),
    ];
    let observer = observer(targets, vec![], vec![]);
    let kind = |report: &Report, name: &str| seen(report, name).failure.as_ref().map(|failure| failure.kind);
    until(&observer, "each as it should", |report| {
        seen(report, "good").verdict == Verdict::Up
            && seen(report, "waits").verdict == Verdict::Down
            && kind(report, "waits") == Some(FailureKind::TimedOut)
            && kind(report, "blocks") == Some(FailureKind::OurFault)
            && kind(report, "panics") == Some(FailureKind::OurFault)
            && seen(report, "panics").verdict == Verdict::Suspect
    })
    .await;
    let before = good.looks.load(Ordering::Relaxed);
    wait_until("the good one goes on", || async { (good.looks.load(Ordering::Relaxed) > before + 5).then_some(()) })
        .await;
}

#[tokio::test]
async fn isolated_is_who_sees_neither_references_nor_most_peers() {
    let told: Vec<Arc<Told>> = (0..6).map(|_| Arc::default()).collect();
    let probe = |index: usize| -> Arc<dyn Probe> { told[index].clone() };
    let reference = |index: usize| Reference { name: format!("r{index}"), window: WINDOW, probe: probe(index) };
    let peer = |index: usize| Peer { node: NodeId(index as u64), window: WINDOW, probe: probe(index) };
    let observer = observer(vec![], vec![reference(0), reference(1)], (2..6).map(peer).collect());
    // Which fail (two references, then four peers), and whether the node is isolated then.
    let table = [
        ([false, false, false, false, false, false], false),
        ([true, true, false, false, false, false], false),
        ([false, true, true, true, true, true], false),
        ([true, true, true, true, false, false], false),
        ([true, true, true, true, true, false], true),
        ([true, true, true, true, true, true], true),
        ([true, false, true, true, true, true], false),
    ];
    for (fails, isolated) in table {
        for (told, fails) in told.iter().zip(fails) {
            told.fails.store(fails, Ordering::Relaxed);
        }
        wait_until("all verdicts are settled", || async {
            let sights = observer.sights();
            let settled = sights
                .iter()
                .zip(fails)
                .all(|(sight, fails)| sight.standing.verdict == if fails { Verdict::Down } else { Verdict::Up });
            settled.then_some(())
        })
        .await;
        until(&observer, "isolated or not", |report| report.isolated == isolated).await;
    }
}
