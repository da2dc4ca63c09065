//! Drills: the calls, their refusals, and the verbs.

use tonic::Code;
use tonic_types::StatusExt;
use watchdog::domain::command::{Applied, Change, Command};
use watchdog::domain::drill::{DrillChange, DrillOutcome, DrillPhase, Finding, Found, Measured};
use watchdog::domain::ids::{NodeId, UnixMs};
use watchdog::proto::{
    AbortDrillRequest, DrillKind, DrillState, GetDrillRequest, ListDrillsRequest, NoteLessonRequest,
    ReportDrillRequest, ReportFormat, StartDrillRequest,
};

use crate::ctl::ctl;
use crate::standin::{GROUP, Log, RUN, StandInNode, client, context, leader, serve};

const OTHER: &str = "01955555-0000-7000-8000-0000000000aa";

fn start() -> StartDrillRequest {
    StartDrillRequest {
        context: context(RUN),
        group: GROUP.into(),
        kind: DrillKind::Tabletop.into(),
        schedule: String::new(),
        confirm_group: String::new(),
    }
}

async fn put(node: &StandInNode, about: DrillChange) {
    let change = Change::Drill { group: GROUP.into(), about };
    let (at, by) = (UnixMs(1_795_231_060_000), "node:danang-1".into());
    let command = Command { node: NodeId(3), at, by, from: None, request_id: None, change };
    assert!(matches!(node.take(command).await.unwrap(), Applied::Done { .. }));
}

/// What the leader's driver puts into the log of a tabletop drill.
async fn held(node: &StandInNode, id: &str) {
    let (phase, found) = (DrillPhase::Checking, Found::Bad);
    let finding = Finding { phase, what: "step promote".to_owned(), found, detail: "no answer".to_owned() };
    let measured = Measured { expected_recovery_ms: Some(4100), ..Measured::default() };
    put(node, DrillChange::Find { id: id.into(), phase, findings: vec![finding], measured }).await;
    let (outcome, why) = (DrillOutcome::Failed, "not as it should be: step promote".to_owned());
    put(node, DrillChange::Close { id: id.into(), from: phase, outcome, why }).await;
}

#[tokio::test]
async fn it_begins_once_is_listed_reported_and_learned_from() {
    let (log, node, served) = leader().await;
    let mut client = client(&served.address).await;
    let first = client.start_drill(start()).await.unwrap().into_inner().drill.unwrap().summary.unwrap();
    let again = client.start_drill(start()).await.unwrap().into_inner().drill.unwrap().summary.unwrap();
    assert_eq!((first.id.as_str(), again.id.as_str()), (RUN, RUN));
    assert_eq!(
        (first.by.as_str(), first.state(), first.phase.as_str()),
        ("operator:linh", DrillState::Open, "checking")
    );
    assert!(log.state().groups[&GROUP.into()].open_run.is_none(), "a tabletop drill opens nothing");
    held(&node, RUN).await;
    let list = client.list_drills(ListDrillsRequest::default()).await.unwrap().into_inner();
    assert_eq!((list.drills[0].state(), list.months[0].failed), (DrillState::Failed, 1));
    assert_eq!(list.months[0].success_percent, Some(0));

    let lesson = |text: &str, id: &str| NoteLessonRequest {
        context: context(id),
        drill_id: RUN[..13].to_owned(),
        text: text.to_owned(),
    };
    client.note_lesson(lesson("label the standby", "lesson-01")).await.unwrap();
    client.note_lesson(lesson("label the standby", "lesson-01")).await.unwrap();
    let drill =
        client.get_drill(GetDrillRequest { drill_id: RUN.to_owned() }).await.unwrap().into_inner().drill.unwrap();
    assert_eq!((drill.lessons.len(), drill.lessons[0].by.as_str()), (1, "operator:linh"));
    assert_eq!(drill.findings[0].what, "step promote");
    for (format, begins) in [
        (ReportFormat::Unspecified, "# Drill of aicamera"),
        (ReportFormat::Markdown, "# Drill of aicamera"),
        (ReportFormat::Json, "{"),
        (ReportFormat::Html, "<!doctype html>"),
    ] {
        let ask = ReportDrillRequest { drill_id: RUN.to_owned(), format: format.into() };
        let report = client.report_drill(ask).await.unwrap().into_inner().report;
        assert!(report.starts_with(begins) && report.contains("label the standby"), "{report}");
    }
}

#[tokio::test]
async fn it_is_refused_with_what_is_wrong() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    type Wrong = fn(&mut StartDrillRequest);
    let table: [(Wrong, Code, &[&str]); 6] = [
        (|t| t.context = None, Code::InvalidArgument, &["context"]),
        (|t| t.kind = 0, Code::InvalidArgument, &["kind"]),
        (|t| t.kind = 99, Code::InvalidArgument, &["kind"]),
        (|t| t.kind = DrillKind::Live.into(), Code::InvalidArgument, &["confirm_group"]),
        (|t| t.schedule = "yearly".into(), Code::InvalidArgument, &["schedule"]),
        (|t| t.group = "nobody".into(), Code::NotFound, &[]),
    ];
    for (change, code, fields) in table {
        let mut ask = start();
        change(&mut ask);
        let refused = client.start_drill(ask).await.unwrap_err();
        assert_eq!(refused.code(), code, "{}", refused.message());
        let bad = refused.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        assert_eq!(bad.iter().map(|wrong| wrong.field.as_str()).collect::<Vec<_>>(), fields);
    }
    // Its readiness was never judged here, and its faults may not be simulated.
    for (kind, words) in [(DrillKind::Live, "not judged yet"), (DrillKind::Simulated, "drill_resources")] {
        let ask = StartDrillRequest { kind: kind.into(), confirm_group: GROUP.into(), ..start() };
        let refused = client.start_drill(ask).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    assert!(log.state().groups[&GROUP.into()].drills.open.is_none());
    for id in ["0195", "01955555-0000", OTHER, " "] {
        let refused = client.get_drill(GetDrillRequest { drill_id: id.to_owned() }).await.unwrap_err();
        assert!([Code::NotFound, Code::InvalidArgument].contains(&refused.code()), "{id}: {refused}");
    }
    for text in ["", "two\nlines", &"x".repeat(501)] {
        let ask = NoteLessonRequest { context: context("lesson-02"), drill_id: RUN.into(), text: text.to_owned() };
        assert_eq!(client.note_lesson(ask).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let ask = AbortDrillRequest { context: context("abort-01"), drill_id: RUN.into() };
    assert_eq!(client.abort_drill(ask).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_follower_carries_it_to_the_leader() {
    let log = Log::new();
    let leading = StandInNode::new(3, &log);
    leading.lead();
    let leader = serve(&leading).await;
    let following = StandInNode::new(2, &log);
    following.follow(3, &leader.address);
    let follower = serve(&following).await;
    let mut client = client(&follower.address).await;
    let answer = client.start_drill(start()).await.unwrap().into_inner();
    assert_eq!(answer.standing.unwrap().node, "danang-1");
    let ask = AbortDrillRequest { context: context("abort-01"), drill_id: RUN.into() };
    let drill = client.abort_drill(ask).await.unwrap().into_inner().drill.unwrap();
    assert!(drill.events.last().unwrap().what.starts_with("aborted by operator:linh"));
}

#[tokio::test]
async fn the_verbs_begin_list_show_report_and_abort() {
    let (_log, node, served) = leader().await;
    let said = ctl(&served.address, &["drill", "list"]);
    assert!(said.code == 0 && said.stdout.contains("no drill was held yet"), "{}{}", said.stdout, said.stderr);
    let said = ctl(&served.address, &["drill", "start", GROUP, "--kind", "live"]);
    assert!(said.code == 2 && said.stderr.contains("give --yes aicamera"), "{}", said.stderr);
    // What it begins with goes before, and is no plan of the drill's own where that cannot begin.
    let said = ctl(&served.address, &["drill", "start", GROUP, "--kind", "live", "--yes", GROUP]);
    let shown =
        said.stderr.starts_with("a drill's move of aicamera from hcmc to hanoi") && said.stderr.contains("gates");
    assert!(
        shown && said.code == 3 && said.stderr.contains("a live drill cannot begin: its readiness was"),
        "{}",
        said.stderr
    );
    let said = ctl(&served.address, &["--request-id", RUN, "drill", "start", GROUP, "--kind", "tabletop"]);
    assert!(said.code == 0 && said.stdout.starts_with(&format!("begun {RUN}")), "{}{}", said.stdout, said.stderr);
    let said = ctl(&served.address, &["drill", "show", GROUP]);
    assert!(said.code == 0 && said.stdout.contains("open, checking"), "{}{}", said.stdout, said.stderr);
    let said = ctl(&served.address, &["drill", "abort", GROUP, "--reason", "a real incident"]);
    assert!(said.code == 0 && said.stdout.contains("a real incident"), "{}{}", said.stdout, said.stderr);
    held(&node, RUN).await;
    let said = ctl(&served.address, &["drill", "lessons", GROUP, "warm the services"]);
    assert!(said.code == 0 && said.stdout.contains("warm the services"), "{}{}", said.stdout, said.stderr);
    let said = ctl(&served.address, &["drill", "list", GROUP]);
    assert!(said.stdout.contains("FAILED") && said.stdout.contains("0 of 1 passed"), "{}", said.stdout);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    let words = ["drill", "report", GROUP, "--format", "html", "--file", file.to_str().unwrap()];
    let said = ctl(&served.address, &words);
    assert!(said.code == 0 && said.stdout.is_empty(), "{}{}", said.stdout, said.stderr);
    assert!(std::fs::read_to_string(&file).unwrap().contains("warm the services"));
    assert_eq!(ctl(&served.address, &words).code, 1, "what is there is not overwritten");
    let said = ctl(&served.address, &["drill", "report", GROUP, "-o", "json"]);
    assert!(said.stdout.starts_with("# Drill of aicamera"), "{}", said.stdout);
    let said = ctl(&served.address, &["drill", "show", "nobody"]);
    assert!(said.code == 3, "{}", said.stderr);
}
