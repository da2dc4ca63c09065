//! Reports as golden files, and with hostile texts everywhere.

use std::path::Path;

use super::*;
use crate::domain::chapters::{Chapter, ChapterKind, Progress};
use crate::domain::drill::spans::Span;
use crate::domain::drill::{Closing, DrillEvent, DrillKind, DrillPhase, DrillRun, DrillSettings, Lesson, Measured};
use crate::domain::run::{RunKind, RunOutcome};

/// 2026-11-01 02:00 in Ho Chi Minh City.
const BEGIN: u64 = 1_793_473_200_000;
const MONTH_MS: u64 = 30 * 86_400_000;

fn span(name: &str, from: u64, ms: u64) -> Span {
    Span { name: name.to_owned(), from: UnixMs(from), until: UnixMs(from + ms) }
}

fn run(kind: RunKind, from: &str, to: &str, at: u64, fence_ms: u64) -> DrillRun {
    let spans = vec![
        span("decide", at, 40),
        span("fence", at + 60, fence_ms),
        span("catch-up", at + 80 + fence_ms, 95),
        span("dns", at + 190 + fence_ms, 310),
        span("promote", at + 190 + fence_ms, 120),
        span("services", at + 520 + fence_ms, 640),
        span("verify", at + 1180 + fence_ms, 205),
    ];
    DrillRun {
        run: format!("{kind}-{at}").as_str().into(),
        kind,
        from: from.into(),
        to: to.into(),
        opened_at: UnixMs(at),
        outcome: Some(RunOutcome::Succeeded),
        closed_at: Some(UnixMs(at + 1400 + fence_ms)),
        spans,
        chapters: chapters(at, fence_ms),
    }
}

fn chapters(at: u64, fence_ms: u64) -> Vec<Chapter> {
    let one = |kind, progress, from: u64, ms: u64, detail: &str| Chapter {
        kind,
        progress,
        from: Some(UnixMs(at + from)),
        until: Some(UnixMs(at + from + ms)),
        detail: detail.to_owned(),
    };
    vec![
        one(ChapterKind::Execute, Progress::Done, 60, 1100 + fence_ms, "6 of 6 steps"),
        one(ChapterKind::Monitor, Progress::Amiss, 1400 + fence_ms, 9000, "cut short: failback begins"),
    ]
}

fn drill(id: &str, at: u64, fence_ms: u64, rows_found: u64) -> Drill {
    let outcome = if rows_found == 20 { DrillOutcome::Passed } else { DrillOutcome::Failed };
    let why = if rows_found == 20 { "" } else { "not as it should be: marker rows" };
    let finding = |what: &str, found, detail: &str| Finding {
        phase: DrillPhase::Checking,
        what: what.to_owned(),
        found,
        detail: detail.to_owned(),
    };
    let event = |at: u64, phase, what: &str| DrillEvent { at: UnixMs(at), phase, what: what.to_owned() };
    Drill {
        id: id.into(),
        kind: DrillKind::Live,
        schedule: Some("monthly".into()),
        due_at: UnixMs(at),
        by: "node:danang-1".into(),
        reason: "schedule monthly".to_owned(),
        opened_at: UnixMs(at),
        from: "hcmc".into(),
        to: "hanoi".into(),
        settings: DrillSettings {
            zone: "Asia/Ho_Chi_Minh".to_owned(),
            rto_ms: 5000,
            rpo_ms: 900_000,
            limit_ms: 3_600_000,
            ..DrillSettings::default()
        },
        phase: DrillPhase::Closed,
        phase_since: UnixMs(at + 60_000),
        runs: vec![
            run(RunKind::Switchover, "hcmc", "hanoi", at + 4000, fence_ms),
            run(RunKind::Failback, "hanoi", "hcmc", at + 30_000, fence_ms),
        ],
        findings: vec![
            finding("gate quorum", Found::Ok, "a majority confirms this leader"),
            finding("step promote", Found::Ok, "not so yet: in recovery"),
            finding("marker rows", if rows_found == 20 { Found::Ok } else { Found::Bad }, "20 written"),
        ],
        measured: Measured {
            expected_recovery_ms: Some(4100),
            expected_loss_ms: Some(180),
            recovery_ms: Some(1400 + fence_ms),
            rows_written: Some(20),
            rows_found: Some(rows_found),
            lsn_before: Some(0x5000_0110),
            lsn_after: (rows_found == 20).then_some(0x5000_0180),
        },
        abort: None,
        closing: Some(Closing { outcome, at: UnixMs(at + 60_000), why: why.to_owned() }),
        lessons: vec![Lesson {
            by: "user:linh".into(),
            at: UnixMs(at + 3_600_000),
            text: "The standby's services need 0.6 s; warm them".to_owned(),
        }],
        events: vec![
            event(at, DrillPhase::Checking, "begun by node:danang-1: schedule monthly"),
            event(at + 4000, DrillPhase::Moving, "everything that was looked at is well"),
            event(at + 60_000, DrillPhase::Closed, outcome.word()),
        ],
    }
}

fn three() -> [Drill; 3] {
    [
        drill("0193-a", BEGIN - 2 * MONTH_MS, 1900, 20),
        drill("0193-b", BEGIN - MONTH_MS, 800, 18),
        drill("0193-c", BEGIN, 420, 20),
    ]
}

fn subject<'a>(drills: &'a [Drill; 3], cluster: &'a ClusterName, group: &'a GroupName) -> Subject<'a> {
    Subject { cluster, group, drill: &drills[2], earlier: drills[..2].iter().collect() }
}

fn golden(name: &str, written: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/drill/report/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, written).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, wanted, "{name}: run with UPDATE_GOLDEN=1 and look at what changed");
}

#[test]
fn reports_are_as_written_down() {
    let (drills, cluster, group) = (three(), "vn".into(), "aicamera".into());
    let subject = subject(&drills, &cluster, &group);
    golden("live.md", &render(&subject, Format::Markdown));
    golden("live.json", &render(&subject, Format::Json));
    golden("live.html", &render(&subject, Format::Html));
    let first = Subject { drill: &drills[0], earlier: Vec::new(), ..subject };
    assert!(!render(&first, Format::Html).contains("Past live drills"));
}

#[test]
fn what_was_not_measured_is_said_to_be_so_and_is_no_success() {
    let mut drill = drill("0193-d", BEGIN, 420, 20);
    drill.measured = Measured::default();
    let [recovery, loss] = objectives(&drill);
    assert_eq!((recovery.reached.as_str(), recovery.met), ("not measured", None));
    assert_eq!((loss.reached.as_str(), loss.met), ("rows not counted, bytes not measured", None));
    drill.measured = Measured { rows_written: Some(20), rows_found: Some(19), ..Measured::default() };
    assert_eq!(objectives(&drill)[1].met, None, "whether a row is within so many seconds is for a person");
    drill.measured = Measured { lsn_before: Some(9), lsn_after: Some(9), ..Measured::default() };
    assert_eq!(objectives(&drill)[1].reached, "rows not counted, 0 bytes of log");
    drill.measured = Measured { recovery_ms: Some(5001), ..Measured::default() };
    assert_eq!(objectives(&drill)[0].met, Some(false));
}

/// Whatever stands in the log, a report is a report.
#[test]
fn hostile_texts_stay_texts() {
    let evil = "<script>alert(1)</script>\"'&|`[x](javascript:y)\u{1b}[2J\n# head";
    let mut drills = three();
    let last = &mut drills[2];
    (last.reason, last.schedule) = (evil.to_owned(), None);
    (last.id, last.from, last.by) = (evil.into(), evil.into(), evil.into());
    last.settings.zone = evil.to_owned();
    last.findings[0].what = evil.to_owned();
    last.findings[0].detail = evil.to_owned();
    last.events[0].what = evil.to_owned();
    last.lessons[0].text = evil.to_owned();
    last.runs[0].spans[0].name = evil.to_owned();
    last.runs[0].spans[1] = span("far", 0, u64::MAX);
    last.measured.recovery_ms = Some(u64::MAX);
    last.closing.as_mut().unwrap().why = evil.to_owned();
    let (cluster, group) = (evil.into(), evil.into());
    let subject = subject(&drills, &cluster, &group);
    let html = render(&subject, Format::Html);
    assert!(!html.contains("<script") && !html.contains('\u{1b}') && html.contains("&lt;script&gt;"));
    let markdown = render(&subject, Format::Markdown);
    assert!(!markdown.contains("<script") && !markdown.contains("\n# head\n") && !markdown.contains("[x]("));
    let json: serde_json::Value = serde_json::from_str(&render(&subject, Format::Json)).unwrap();
    assert_eq!(json["group"], evil);
}
