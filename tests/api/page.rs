//! The status page: pure, escaped, in two languages, with and without scripts; looked at by a real browser.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::header;
use axum::routing::get;
use watchdog::api::page::{Lang, Picture, SCRIPT, STYLE, page, parts};
use watchdog::proto::{
    AuditEntry, DrillKind, DrillState, DrillSummary, Fencing, GetStatusResponse, GroupStatus, Incident, Mode,
    NodeStatus, PageStatus, Reach, ReadinessMark, ReadinessState, Replication, Run, RunEvent, RunKind, RunPhase,
    RunSummary, Serving, Standing, StepPhase, StepStatus, Stuck, Unsettled, Verdict, Vote, Way,
};

use crate::browser::{self, Look};

/// 2026-11-21 03:20:00 UTC.
const NOW: i64 = 1_795_231_200_000;

fn summary(say: &dyn Fn(&str) -> String, n: i64, drill: bool, took_ms: u64) -> RunSummary {
    RunSummary {
        id: say(&format!("019a0000-0000-7000-8000-00000000000{n}")),
        group: say("aicamera"),
        kind: RunKind::Failover.into(),
        drill,
        phase: RunPhase::Succeeded.into(),
        from_region: say("hcmc"),
        to_region: say("hanoi"),
        opened_at_ms: NOW - n * 86_400_000,
        closed_at_ms: Some(NOW - n * 86_400_000 + 4000),
        by: say("node:witness-1"),
        automatic: true,
        reason: say("region hcmc is lost"),
        token: say("1.3"),
        steps_settled: 5,
        steps_total: 5,
        recovery_time_ms: Some(took_ms),
    }
}

/// One that passed, one that took too long and lost rows, one that is going on.
fn drills(say: &dyn Fn(&str) -> String) -> Vec<DrillSummary> {
    let one = |n: i64, kind: DrillKind, state: DrillState, took_ms: Option<u64>| DrillSummary {
        id: say("019a"),
        group: say("aicamera"),
        kind: kind.into(),
        state: state.into(),
        opened_at_ms: NOW - n * 86_400_000,
        closed_at_ms: (state != DrillState::Open).then_some(NOW - n * 86_400_000 + 60_000),
        by: say("schedule:monthly"),
        reason: say("the month's"),
        why: if state == DrillState::Failed { say("check orders: no row") } else { String::new() },
        from_region: say("hcmc"),
        to_region: say("hanoi"),
        recovery_ms: took_ms,
        rto_objective_ms: 3_600_000,
        rows_lost: took_ms.map(|ms| u64::from(ms > 3_600_000) * 3),
        bytes_lost: took_ms.map(|_| 0),
        rpo_objective_ms: 900_000,
        ..DrillSummary::default()
    };
    vec![
        one(0, DrillKind::Tabletop, DrillState::Open, None),
        one(1, DrillKind::Live, DrillState::Passed, Some(961)),
        one(31, DrillKind::Simulated, DrillState::Failed, Some(4_000_000)),
    ]
}

fn step(say: &dyn Fn(&str) -> String, id: &str, stage: u32, phase: StepPhase, times: Option<(i64, i64)>) -> StepStatus {
    StepStatus {
        id: say(id),
        stage,
        action: say("fence"),
        resource: say("guard:db-hcmc"),
        phase: phase.into(),
        attempts: u32::from(times.is_some()),
        max_attempts: 3,
        token: say("1.4"),
        first_started_at_ms: times.map(|(from, _)| NOW + from),
        finished_at_ms: times.map(|(_, to)| NOW + to),
        detail: say("no route to host"),
        undo: false,
    }
}

fn stuck_run(say: &dyn Fn(&str) -> String) -> Run {
    let about = RunSummary {
        phase: RunPhase::Stuck.into(),
        opened_at_ms: NOW - 90_000,
        closed_at_ms: None,
        recovery_time_ms: None,
        ..summary(say, 9, false, 0)
    };
    let way = Way {
        meaning: say("you have looked: it is silent"),
        command: say("watchdogctl run retry 019a --assert-fence hcmc"),
    };
    let event = RunEvent {
        index: 7,
        at_ms: NOW - 89_000,
        node_id: 3,
        node: say("witness-1"),
        step: say("fence"),
        token: say("1.4"),
        what: say("fence: no answer"),
    };
    Run {
        summary: Some(about),
        stuck: Some(Stuck {
            step: say("fence"),
            reason: say("no fence proof: no route to host"),
            since_ms: NOW - 60_000,
            ways: vec![way],
        }),
        steps: vec![
            step(say, "fence-db-hcmc", 1, StepPhase::Unknown, Some((-90_000, -60_000))),
            step(say, "dns-api", 2, StepPhase::Done, Some((-58_000, -55_000))),
            step(say, "promote-hanoi", 2, StepPhase::Pending, None),
        ],
        events: vec![event],
        ..Run::default()
    }
}

fn votes(say: &dyn Fn(&str) -> String) -> Vec<Vote> {
    let nodes = ["hcmc-1", "hanoi-1", "witness-1"];
    let targets = [("hcmc-db", "hcmc"), ("hanoi-db", "hanoi")];
    let vote = |node: &str, (target, region): (&str, &str)| {
        let is_bad = target == "hcmc-db" && node != "hcmc-1";
        Vote {
            target: say(target),
            region: say(region),
            node: say(node),
            verdict: if is_bad { Verdict::Down } else { Verdict::Up }.into(),
            held_for_ms: 95_000,
            age_ms: 300,
            counts: node != "hcmc-1",
            not_counted: if node == "hcmc-1" { say("isolated") } else { String::new() },
            failure: 0,
            failure_detail: if is_bad { say("10.1.0.21:5432: connection refused") } else { String::new() },
        }
    };
    targets.iter().flat_map(|target| nodes.iter().map(move |node| vote(node, *target))).collect()
}

/// A stuck run, an alarm, past runs and a drill; every text goes through `say`.
fn picture(say: &dyn Fn(&str) -> String) -> Picture {
    let group = GroupStatus {
        name: say("aicamera"),
        home: say("hcmc"),
        regions: vec![say("hcmc"), say("hanoi")],
        serving: Some(Serving { region: String::new(), last: say("hcmc"), epoch: 4 }),
        mode: Mode::Automatic.into(),
        fencing: Fencing::Confirm.into(),
        fencing_asserted_by: say("linh"),
        token: say("1.4"),
        open_run: Some(stuck_run(say)),
        explanation: vec![say("run 019a0000 is stuck")],
        votes: votes(say),
        replication: vec![Replication {
            region: say("hanoi"),
            target: say("hanoi-rep"),
            streaming: false,
            expected_loss_ms: Some(1400),
            behind_bytes: Some(70_000),
            limit_ms: 900_000,
        }],
        unsettled: vec![Unsettled { resource: say("guard:db-hcmc"), action: say("fence"), ..Unsettled::default() }],
        traffic_region: say("hanoi"),
        readiness: Some(ReadinessMark {
            verdict: ReadinessState::No.into(),
            since_ms: NOW - 3_600_000,
            to_region: say("hanoi"),
            why: say("the standby does not stream"),
            ..ReadinessMark::default()
        }),
        ..GroupStatus::default()
    };
    let node = |id: u64, name: &str, region: &str| NodeStatus {
        id,
        name: say(name),
        region: say(region),
        is_leader: id == 3,
        is_voter: true,
        reach: if id == 1 { Reach::Unreachable } else { Reach::Reachable }.into(),
        ..NodeStatus::default()
    };
    let incident = Incident {
        event: say("DR_FAILOVER_FAILED"),
        severity: say("critical"),
        summary: say("aicamera: the failover waits for an operator"),
        since_ms: NOW - 60_000,
        ..Incident::default()
    };
    let status = GetStatusResponse {
        standing: Some(Standing {
            node: say("witness-1"),
            leader: say("witness-1"),
            has_quorum: true,
            note: say(""),
            term: 7,
            as_of_index: 220,
            at_ms: NOW,
        }),
        cluster: say("aicamera-dr"),
        nodes: vec![node(1, "hcmc-1", "hcmc"), node(2, "hanoi-1", "hanoi"), node(3, "witness-1", "danang")],
        groups: vec![group],
        pages_undelivered: vec![PageStatus {
            event: say("DR_FAILOVER_FAILED"),
            summary: say("waits"),
            waiting_for: vec![say("chat")],
            refused_by: vec![say("oncall: 400")],
            ..PageStatus::default()
        }],
        warnings: vec![say("the loss of hanoi leaves no quorum")],
        has_sight: true,
        incidents: vec![incident],
        ..GetStatusResponse::default()
    };
    let runs =
        [(1, true, 2100), (3, false, 3_400), (5, true, 5_400_000)].map(|(n, drill, ms)| summary(say, n, drill, ms));
    let audit = vec![AuditEntry {
        at_ms: NOW - 60_000,
        by: say("user:linh"),
        group: say("aicamera"),
        what: say("pause aicamera"),
        reason: say("maintenance"),
        outcome: say("done"),
        ..AuditEntry::default()
    }];
    let drills = drills(say);
    Picture { status, runs: runs.into(), drills, audit, objectives: BTreeMap::from([(say("aicamera"), 3_600_000)]) }
}

fn plain(text: &str) -> String {
    text.to_owned()
}

const HOSTILE: &str =
    "\"'><img src=x onerror=document.title='pwned'><script>document.title='pwned'</script>&lt;\u{202e}\u{0}";

fn hostile(text: &str) -> String {
    format!("{text}{HOSTILE}")
}

fn golden(name: &str, html: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/golden").join(name);
    // A line an element, so that a change can be read.
    let printed = html.replace("><", ">\n<");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(printed == wanted, "{} differs", path.display());
}

#[test]
fn a_stuck_run_in_both_languages() {
    let picture = picture(&plain);
    golden("page-stuck.en.html", &page(&picture, Lang::En));
    golden("page-stuck.vi.html", &page(&picture, Lang::Vi));
}

#[test]
fn nothing_known_is_a_page_too() {
    let html = page(&Picture::default(), Lang::En);
    golden("page-empty.en.html", &html);
    assert!(html.contains("No leader or no quorum") && html.contains("No groups"), "{html}");
}

#[test]
fn no_text_becomes_markup() {
    let (calm, attacked) = (page(&picture(&plain), Lang::En), page(&picture(&hostile), Lang::En));
    for bad in ["<img", "<script>", "onerror='", "'pwned'", "\u{202e}", "\u{0}"] {
        assert!(!attacked.contains(bad), "{bad:?} got through");
    }
    // The same elements, one for one: whatever was said, the page is built alike.
    let tags = |html: &str| html.matches('<').count();
    assert_eq!(tags(&calm), tags(&attacked));
    // In JSON for the live page too.
    for (id, html) in parts(&picture(&hostile), Lang::Vi) {
        assert!(!html.contains("<img") && !html.contains("<script"), "{id}");
    }
}

#[test]
fn what_is_sent_is_bounded_and_only_changes_differ() {
    let before = picture(&plain);
    let mut after = before.clone();
    after.status.incidents.clear();
    let parts = |picture: &Picture| parts(picture, Lang::En);
    let changed: Vec<&str> =
        parts(&after).iter().filter(|part| !parts(&before).contains(part)).map(|(id, _)| *id).collect();
    assert_eq!(changed, ["incidents"]);
    let mut flood = before.clone();
    let vote = flood.status.groups[0].votes[0].clone();
    flood.status.groups[0].votes =
        (0..20_000).map(|n| watchdog::proto::Vote { target: format!("t{n}"), ..vote.clone() }).collect();
    let size: usize = parts(&flood).iter().map(|(_, html)| html.len()).sum();
    assert!(size < 2 << 20, "{size}");
}

/// WCAG 2.2, 1.4.3: text has a contrast of 4.5 to 1 at least, in both schemes.
#[test]
fn colours_have_contrast() {
    let luminance = |hex: &str| {
        let part = |at: usize| {
            let c = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
    };
    let (light, dark) = STYLE.split_once("@media (prefers-color-scheme: dark)").unwrap();
    for scheme in [light, dark.split_once("} }").unwrap().0] {
        let colour = |name: &str| {
            let from = scheme.find(&format!("--{name}: #")).unwrap_or_else(|| panic!("no --{name}")) + name.len() + 5;
            luminance(&scheme[from..from + 6])
        };
        for ground in ["bg", "card"] {
            for ink in ["fg", "dim", "good", "warn", "bad", "link"] {
                let (a, b) = (colour(ground), colour(ink));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= 4.5, "--{ink} on --{ground}: {contrast:.2}");
            }
        }
    }
}

#[test]
fn the_page_can_be_walked_without_seeing_it() {
    let html = page(&picture(&plain), Lang::Vi);
    assert!(html.starts_with("<!DOCTYPE html>\n<html lang=\"vi\">") && html.contains("hreflang=\"en\""));
    assert!(html.contains("class=\"skip\" href=\"#main\"") && html.contains("<main id=\"main\">"));
    assert_eq!(
        html.matches("<svg role=\"img\"").count(),
        html.matches("aria-label=\"").count()
            - html.matches("role=\"region\"").count()
            - html.matches("<article").count()
    );
    assert_eq!(html.matches("<table>").count(), html.matches("<caption>").count());
    let ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    // Nothing inline, nothing from elsewhere.
    for bad in [" style=\"", " onclick", "javascript:", "http://", "https://", "<iframe", "<form"] {
        assert!(!html.contains(bad), "{bad}");
    }
}

/// The page as a node would serve it, of a fixed picture.
async fn served(html: String) -> String {
    served_counted(html).await.0
}

/// The same, and how often it was loaded.
async fn served_counted(html: String) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let loaded = Arc::<AtomicUsize>::default();
    let count = loaded.clone();
    let whole = move || async move {
        count.fetch_add(1, Ordering::SeqCst);
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html)
    };
    let app = Router::new()
        .route("/", get(whole))
        .route("/status.css", get(async || ([(header::CONTENT_TYPE, "text/css")], STYLE)))
        .route("/status.js", get(async || ([(header::CONTENT_TYPE, "text/javascript")], SCRIPT)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, loaded)
}

async fn in_browser<T: Send + 'static>(look: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> T {
    tokio::task::spawn_blocking(look).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_runs_nothing_that_a_name_says() {
    let url = served(page(&picture(&hostile), Lang::En)).await;
    let document = in_browser(move || browser::document(&url, Look::default())).await;
    assert!(!document.contains("<title>pwned") && !document.contains("<img"), "{document}");
    assert!(document.contains("Failover watchdog"), "{document}");
}

/// A person who lets no page run scripts reads all of it, and it is loaded anew by itself; with scripts it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_everything_is_there_and_it_is_loaded_anew() {
    let html = page(&picture(&plain), Lang::En);
    let look = Look { scripts: false, ..Look::default() };
    let (url, loaded) = served_counted(html.clone()).await;
    let document = in_browser(move || browser::document(&url, look)).await;
    for id in ["head", "groups", "incidents", "past", "drills", "nodes", "audit", "pages"] {
        let text =
            document.split(&format!("<section id=\"{id}\">")).nth(1).and_then(|it| it.split("</section>").next());
        assert!(text.is_some_and(|text| text.len() > 100), "{id} is empty: {text:?}");
    }
    assert!(
        document.contains(">As of when it was loaded.</span>") && document.contains("href=\"?lang=en\""),
        "{document}"
    );
    assert_eq!(loaded.load(Ordering::SeqCst), 1);
    let (url, loaded) = served_counted(html.clone()).await;
    in_browser(move || browser::stay(&url, look, || loaded.load(Ordering::SeqCst) > 2)).await;
    let (url, loaded) = served_counted(html).await;
    let document = in_browser(move || browser::document_after(&url, Look::default(), 100_000)).await;
    assert!(document.contains("</footer>") && loaded.load(Ordering::SeqCst) == 1);
}

/// `SCREENSHOTS=FOLDER` keeps what people should look at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_draws_it_light_dark_narrow_and_in_vietnamese() {
    let kept = std::env::var_os("SCREENSHOTS").map(std::path::PathBuf::from);
    let folder = tempfile::tempdir().unwrap();
    let folder = kept.unwrap_or_else(|| folder.path().to_owned());
    std::fs::create_dir_all(&folder).unwrap();
    let en = served(page(&picture(&plain), Lang::En)).await;
    let vi = served(page(&picture(&plain), Lang::Vi)).await;
    for (name, url, look) in [
        ("light", &en, Look::default()),
        ("dark", &en, Look { dark: true, ..Look::default() }),
        ("vietnamese", &vi, Look { language: "vi", ..Look::default() }),
        ("without-scripts", &en, Look { scripts: false, ..Look::default() }),
        ("narrow", &vi, Look { size: (500, 3600), dark: true, ..Look::default() }),
    ] {
        let (url, file) = (url.clone(), folder.join(format!("{name}.png")));
        in_browser(move || browser::screenshot(&url, look, &file)).await;
    }
}
