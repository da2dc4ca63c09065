//! Traffic by hand: the call, its refusals, and the verb.

use tonic::Code;
use tonic_types::StatusExt;
use watchdog::domain::run::RunKind;
use watchdog::proto::TrafficRequest;

use crate::ctl::ctl;
use crate::standin::{GROUP, Log, Mood, RUN, StandInNode, client, context, leader, serve};

fn ask() -> TrafficRequest {
    TrafficRequest {
        context: context(RUN),
        group: GROUP.into(),
        to_region: "hanoi".into(),
        confirm_group: GROUP.into(),
        expected_token: "1.0".into(),
        dry_run: false,
    }
}

#[tokio::test]
async fn it_opens_once_and_leaves_serving_alone() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    let dry = TrafficRequest { dry_run: true, confirm_group: String::new(), ..ask() };
    let plan = client.traffic(dry).await.unwrap().into_inner();
    let steps: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!((steps, plan.would_open, plan.run_id.as_str()), (vec!["dns", "verify"], true, ""));
    assert!(log.state().audit.back().unwrap().what.starts_with("dry run of moving traffic to hanoi"));
    assert!(log.state().groups[&GROUP.into()].open_run.is_none());

    let first = client.traffic(ask()).await.unwrap().into_inner();
    let again = client.traffic(ask()).await.unwrap().into_inner();
    assert_eq!((first.run_id.as_str(), again.run_id.as_str()), (RUN, RUN));
    let state = log.state();
    let group = &state.groups[&GROUP.into()];
    let run = group.open_run.as_ref().unwrap();
    assert_eq!((run.kind, run.cause.by.as_str(), run.cause.automatic), (RunKind::Traffic, "operator:linh", false));
    assert_eq!(group.serving.region.as_ref().unwrap().as_str(), "hcmc");
}

#[tokio::test]
async fn it_is_refused_with_what_is_wrong() {
    let (log, node, served) = leader().await;
    let mut client = client(&served.address).await;
    type Wrong = fn(&mut TrafficRequest);
    let table: [(Wrong, Code, &str, &[&str]); 6] = [
        (|t| t.context = None, Code::InvalidArgument, "invalid", &["context"]),
        (|t| t.to_region.clear(), Code::InvalidArgument, "invalid", &["to_region"]),
        (|t| t.to_region = "danang".into(), Code::InvalidArgument, "invalid", &["to_region"]),
        (|t| t.confirm_group = "other".into(), Code::InvalidArgument, "invalid", &["confirm_group"]),
        (|t| t.expected_token = "1.9".into(), Code::Aborted, "stale", &[]),
        (|t| (t.group, t.confirm_group) = ("nobody".into(), "nobody".into()), Code::NotFound, "not_found", &[]),
    ];
    for (change, code, reason, fields) in table {
        let mut ask = ask();
        change(&mut ask);
        let refused = client.traffic(ask).await.unwrap_err();
        assert_eq!(refused.code(), code, "{}", refused.message());
        assert_eq!(refused.get_details_error_info().unwrap().reason, reason);
        let bad = refused.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        assert_eq!(bad.iter().map(|wrong| wrong.field.as_str()).collect::<Vec<_>>(), fields);
    }
    node.set_mood(Mood::ForgetsToAnswer);
    let ask = TrafficRequest { context: context("traffic-02"), ..ask() };
    let unknown = client.traffic(ask).await.unwrap_err();
    assert_eq!(unknown.get_details_error_info().unwrap().metadata["outcome"], "unknown");
    assert!(log.state().groups[&GROUP.into()].open_run.is_some());
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
    let answer = client(&follower.address).await.traffic(ask()).await.unwrap().into_inner();
    assert_eq!(answer.standing.unwrap().node, "danang-1");
}

#[tokio::test]
async fn the_verb_shows_the_plan_wants_the_name_and_opens() {
    let (log, _node, served) = leader().await;
    let said = ctl(&served.address, &["traffic", GROUP, "--dry-run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.starts_with("traffic of aicamera from hcmc to hanoi"), "{}", said.stdout);
    assert!(said.stdout.contains("would open and go through"), "{}", said.stdout);
    let said = ctl(&served.address, &["traffic", GROUP, "--reason", "their load balancer is being replaced"]);
    assert_eq!(said.code, 2, "{}", said.stdout);
    assert!(said.stderr.contains("give --yes aicamera"), "{}", said.stderr);
    let words = ["traffic", GROUP, "--to", "hanoi", "--reason", "their load balancer is being replaced"];
    let said = ctl(&served.address, &[&words[..], &["--yes", GROUP, "--detach"]].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("not so yet") && said.stdout.contains("\nopened 0"), "{}", said.stdout);
    assert_eq!(log.state().groups[&GROUP.into()].open_run.as_ref().unwrap().kind, RunKind::Traffic);
    let said = ctl(&served.address, &[&words[..], &["--yes", GROUP]].concat());
    assert!(said.code == 3 && said.stderr.starts_with("refused: no open run: one is open"), "{}", said.stderr);
}
