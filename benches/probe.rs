//! What looking costs at rest (20 targets every 500 ms, kept connections), and how soon a killed server is `down`.
//!
//! `cargo bench --bench probe`. Prints figures; asserts none. Needs PostgreSQL 15 and BIND, as the tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use watchdog::domain::ids::{ConfigDigest, NodeId, UnixMs};
use watchdog::domain::observation::Verdict;
use watchdog::domain::verdict::WindowParameters;
use watchdog::probe::{Endpoint, Observer, ObserverOptions, Probe, ProbeBuilder, ProbeSpec, Role, Target};
use watchdog::probe::{ProbeSurroundings, spec};

#[allow(dead_code)]
#[path = "../tests/probe/parts.rs"]
mod parts;
use parts::{Postgres, Running, folder, free_port, wait_until};

const FAST: WindowParameters =
    WindowParameters { interval_ms: 100, fastinter_ms: 20, timeout_ms: 500, fall: 3, rise: 2 };

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match arguments.iter().position(|argument| argument == "--serve") {
        Some(at) => runtime.block_on(serve(arguments[at + 1].parse().unwrap())),
        None => runtime.block_on(measure()),
    }
}

/// An HTTP server with kept connections, in a process of its own so that its cost is not counted.
async fn serve(port: u16) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = [0; 4096];
            while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        });
    }
}

fn observer(targets: Vec<Target>) -> Observer {
    Observer::start(ObserverOptions {
        node: NodeId(1),
        incarnation: UnixMs(1),
        digest: ConfigDigest("bench".to_owned()),
        report_interval_ms: 1000,
        targets,
        references: vec![],
        peers: vec![],
        closely: None,
    })
}

fn all_up(observer: &Observer) -> Option<()> {
    observer.sights().iter().all(|sight| sight.standing.verdict == Verdict::Up).then_some(())
}

async fn measure() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut primary = Postgres::primary().await;
    let standby = Postgres::standby_of(&primary).await;
    let (place, port) = (folder(), free_port());
    let this = std::env::current_exe().unwrap();
    let arguments = ["--serve", &port.to_string()];
    let _server = Running::start(this.to_str().unwrap(), None, &arguments, place.path());
    // Without a password: deriving its key takes milliseconds (seconds in a debug build), but only when connecting.
    let endpoint = |server: &Postgres| Endpoint {
        conninfo: server.conninfo().replace("user=watchdog", "user=postgres"),
        ..Endpoint::default()
    };
    let specs = [
        ProbeSpec::Http {
            url: format!("http://127.0.0.1:{port}/health").parse().unwrap(),
            expect_status: 200,
            body_contains: None,
            ca_file: None,
            follow_redirects: false,
        },
        ProbeSpec::Tcp { address: format!("127.0.0.1:{port}") },
        ProbeSpec::Postgres { database: endpoint(&primary), expect_role: Role::Primary, canary: false },
        ProbeSpec::Postgres { database: endpoint(&primary), expect_role: Role::Primary, canary: true },
        ProbeSpec::Replication { primary: endpoint(&primary), standby: endpoint(&standby) },
    ];
    let mut builder = ProbeBuilder::default();
    let rest = WindowParameters::default();
    let mut target = |spec: &spec::ProbeSpec, number: usize, window: WindowParameters| {
        let around =
            ProbeSurroundings { who: format!("bench/{number}"), timeout_ms: window.timeout_ms, ..Default::default() };
        let probe: Arc<dyn Probe> = builder.build(spec, around).unwrap();
        Target { group: "bench".into(), name: format!("t{number}").as_str().into(), window, probe }
    };
    let targets = (0..20).map(|number| target(&specs[number % specs.len()], number, rest)).collect();
    let at_rest = observer(targets);
    wait_until("all 20 are up", || async { all_up(&at_rest) }).await;
    let (before, started) = (cpu(), Instant::now());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let share = (cpu() - before).as_secs_f64() / started.elapsed().as_secs_f64();
    println!("at rest, 20 targets (4 each: http, tcp, postgres, postgres with canary, replication) at 500 ms:");
    println!("  {:.2} % of a core, {} KiB resident", share * 100.0, resident_kib());
    drop(at_rest);

    for (name, window) in [("default", rest), ("fast", FAST)] {
        let mut spans = Vec::new();
        for round in 0..5 {
            let one = observer(vec![target(&specs[2], 100 + round, window)]);
            wait_until("it is up", || async { all_up(&one) }).await;
            let mut reports = one.reports();
            let killed = Instant::now();
            primary.kill();
            let down = |report: &Arc<_>| {
                let report: &watchdog::domain::observation::Report = report;
                report.observations.iter().all(|seen| seen.verdict == Verdict::Down)
            };
            reports.wait_for(down).await.unwrap();
            spans.push(killed.elapsed().as_millis());
            primary.start().await;
        }
        spans.sort_unstable();
        println!("killed until reported down, {name} window: {spans:?} ms");
    }
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the command, which stands in parentheses, fields 14 and 15 of the whole line: ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |field: usize| fields[field - 3].parse::<u64>().unwrap();
    Duration::from_millis((ticks(14) + ticks(15)) * 10)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
