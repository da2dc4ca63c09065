//! A service's recovery: the call, its refusals, and the verbs.

use tonic::Code;
use tonic_types::StatusExt;
use watchdog::domain::plan::Action;
use watchdog::domain::run::RunKind;
use watchdog::proto::{RecoverServiceRequest, ServiceAction};

use crate::ctl::ctl;
use crate::standin::{GROUP, Log, Mood, RUN, StandInNode, client, context, leader, serve};

fn ask() -> RecoverServiceRequest {
    RecoverServiceRequest {
        context: context(RUN),
        group: GROUP.into(),
        service: "api".into(),
        region: "hcmc".into(),
        action: ServiceAction::Scale.into(),
        replicas: Some(3),
        confirm_group: GROUP.into(),
        expected_token: "1.0".into(),
        dry_run: false,
    }
}

#[tokio::test]
async fn c2_it_opens_once_and_moves_nothing() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    let dry = RecoverServiceRequest { dry_run: true, confirm_group: String::new(), ..ask() };
    let plan = client.recover_service(dry).await.unwrap().into_inner();
    let steps: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!((steps, plan.would_open, plan.run_id.as_str()), (vec!["scale", "verify"], true, ""));
    assert!(log.state().audit.back().unwrap().what.starts_with("dry run of a scale of api to 3"));
    assert!(log.state().groups[&GROUP.into()].open_run.is_none());

    let before = log.state().groups[&GROUP.into()].clone();
    let first = client.recover_service(ask()).await.unwrap().into_inner();
    let again = client.recover_service(ask()).await.unwrap().into_inner();
    assert_eq!((first.run_id.as_str(), again.run_id.as_str(), first.region.as_str()), (RUN, RUN, "hcmc"));
    let state = log.state();
    let group = &state.groups[&GROUP.into()];
    let run = group.open_run.as_ref().unwrap();
    assert_eq!((run.kind, run.cause.by.as_str(), run.cause.automatic), (RunKind::Recovery, "operator:linh", false));
    assert_eq!((&group.serving, &group.traffic), (&before.serving, &before.traffic));
    let (_, step) = run.plan.steps().next().unwrap();
    let Action::Guarded { guard, name, params } = &step.action else { panic!("{step:?}") };
    assert_eq!((guard.host.as_str(), name.as_str(), params.len()), ("db-hcmc", "scale", 2));
    assert_eq!((params["name"].as_str(), params["replicas"].as_str()), ("api", "3"));
}

#[tokio::test]
async fn c2_it_is_refused_with_what_is_wrong() {
    let (log, node, served) = leader().await;
    let mut client = client(&served.address).await;
    type Wrong = fn(&mut RecoverServiceRequest);
    let table: [(Wrong, Code, &str, &[&str]); 12] = [
        (|s| s.context = None, Code::InvalidArgument, "invalid", &["context"]),
        (|s| s.service.clear(), Code::InvalidArgument, "invalid", &["service"]),
        (|s| s.service = "db".into(), Code::InvalidArgument, "invalid", &["service"]),
        (|s| s.region.clear(), Code::InvalidArgument, "invalid", &["region"]),
        (|s| s.region = "danang".into(), Code::InvalidArgument, "invalid", &["region"]),
        (|s| s.action = 0, Code::InvalidArgument, "invalid", &["action"]),
        (|s| s.region = "hanoi".into(), Code::InvalidArgument, "invalid", &["action"]),
        (|s| s.replicas = Some(9), Code::InvalidArgument, "invalid", &["replicas"]),
        (|s| s.replicas = None, Code::InvalidArgument, "invalid", &["replicas"]),
        (|s| s.confirm_group = "other".into(), Code::InvalidArgument, "invalid", &["confirm_group"]),
        (|s| s.expected_token = "1.9".into(), Code::Aborted, "stale", &[]),
        (|s| (s.group, s.confirm_group) = ("nobody".into(), "nobody".into()), Code::NotFound, "not_found", &[]),
    ];
    for (change, code, reason, fields) in table {
        let mut ask = ask();
        change(&mut ask);
        let refused = client.recover_service(ask).await.unwrap_err();
        assert_eq!(refused.code(), code, "{}", refused.message());
        assert_eq!(refused.get_details_error_info().unwrap().reason, reason);
        let bad = refused.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        assert_eq!(bad.iter().map(|wrong| wrong.field.as_str()).collect::<Vec<_>>(), fields, "{}", refused.message());
    }
    node.set_mood(Mood::ForgetsToAnswer);
    let ask = RecoverServiceRequest { context: context("service-02"), ..ask() };
    let unknown = client.recover_service(ask).await.unwrap_err();
    assert_eq!(unknown.get_details_error_info().unwrap().metadata["outcome"], "unknown");
    assert!(log.state().groups[&GROUP.into()].open_run.is_some());
}

#[tokio::test]
async fn c2_not_while_paused_or_a_run_is_open() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    log.done(watchdog::domain::command::Change::Pause {
        group: GROUP.into(),
        reason: "maintenance".to_owned(),
        until: None,
    });
    let refused = client.recover_service(ask()).await.unwrap_err();
    assert_eq!(refused.get_details_error_info().unwrap().reason, "paused");
    let resume =
        watchdog::domain::command::Change::Resume { group: GROUP.into(), reason: "over".into(), expired: None };
    log.done(resume);
    // The same request keeps its answer; a new one opens.
    let later = RecoverServiceRequest { context: context("service-02"), expected_token: String::new(), ..ask() };
    client.recover_service(later).await.unwrap();
    let other = RecoverServiceRequest { context: context("service-03"), expected_token: String::new(), ..ask() };
    let refused = client.recover_service(other).await.unwrap_err();
    assert_eq!(refused.get_details_error_info().unwrap().reason, "run_open");
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
    let answer = client(&follower.address).await.recover_service(ask()).await.unwrap().into_inner();
    assert_eq!(answer.standing.unwrap().node, "danang-1");
}

#[tokio::test]
async fn the_verbs_show_the_plan_want_the_name_and_open() {
    let (log, _node, served) = leader().await;
    let said = ctl(&served.address, &["service", "restart", GROUP, "worker", "--dry-run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.starts_with("restart worker of aicamera in hcmc   token"), "{}", said.stdout);
    assert!(said.stdout.contains("would open and go through"), "{}", said.stdout);
    let said = ctl(&served.address, &["service", "restart", GROUP, "api", "--dry-run"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("--region: api runs in hcmc and hanoi: say where"), "{}", said.stderr);
    let said = ctl(&served.address, &["service", "rollback", GROUP, "worker", "--reason", "the new one leaks"]);
    assert!(said.code == 2 && said.stderr.contains("give --yes aicamera"), "{}{}", said.stdout, said.stderr);
    let words = ["service", "scale", GROUP, "api", "--region", "hcmc", "--replicas", "5", "--reason", "more cameras"];
    let said = ctl(&served.address, &[&words[..], &["--yes", GROUP, "--detach"]].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.starts_with("scale api to 5 of aicamera in hcmc"), "{}", said.stdout);
    assert!(said.stdout.contains("\nopened 0"), "{}", said.stdout);
    assert_eq!(log.state().groups[&GROUP.into()].open_run.as_ref().unwrap().kind, RunKind::Recovery);
    let said = ctl(&served.address, &[&words[..], &["--yes", GROUP]].concat());
    assert!(said.code == 3 && said.stderr.starts_with("refused: no open run: one is open"), "{}", said.stderr);
}
