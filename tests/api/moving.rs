//! Planned moves: the call, its refusals, who may, and the verbs.

use tonic::Code;
use tonic_types::StatusExt;
use watchdog::domain::run::RunKind;
use watchdog::proto::{MoveKind, MoveRequest};

use crate::ctl::ctl;
use crate::standin::{GROUP, RUN, client, context, leader};

fn ask() -> MoveRequest {
    MoveRequest {
        context: context(RUN),
        group: GROUP.into(),
        kind: MoveKind::Switchover.into(),
        region: "hanoi".into(),
        confirm_group: GROUP.into(),
        expected_token: "1.0".into(),
        dry_run: false,
    }
}

#[tokio::test]
async fn it_opens_once() {
    let (log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    let dry = MoveRequest { dry_run: true, confirm_group: String::new(), ..ask() };
    let plan = client.r#move(dry).await.unwrap().into_inner();
    let steps: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(steps[..3], ["fence", "catch-up", "promote"]);
    assert!(plan.would_open && plan.run_id.is_empty());
    assert!(log.state().audit.back().unwrap().what.starts_with("dry run of a switchover to hanoi"));
    assert!(log.state().groups[&GROUP.into()].open_run.is_none());

    let first = client.r#move(ask()).await.unwrap().into_inner();
    let again = client.r#move(ask()).await.unwrap().into_inner();
    assert_eq!((first.run_id.as_str(), again.run_id.as_str()), (RUN, RUN));
    let state = log.state();
    let run = state.groups[&GROUP.into()].open_run.as_ref().unwrap();
    assert_eq!((run.kind, run.cause.by.as_str(), run.cause.automatic), (RunKind::Switchover, "operator:linh", false));
}

#[tokio::test]
async fn it_is_refused_with_what_is_wrong() {
    let (_log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    type Wrong = fn(&mut MoveRequest);
    let table: [(Wrong, Code, &[&str]); 8] = [
        (|m| m.context = None, Code::InvalidArgument, &["context"]),
        (|m| m.kind = 0, Code::InvalidArgument, &["kind"]),
        (|m| m.kind = 77, Code::InvalidArgument, &["kind"]),
        (|m| m.region = "danang".into(), Code::InvalidArgument, &["region"]),
        (|m| m.kind = MoveKind::Failback.into(), Code::InvalidArgument, &["region"]),
        (|m| m.confirm_group = "other".into(), Code::InvalidArgument, &["confirm_group"]),
        (|m| m.expected_token = "1.9".into(), Code::Aborted, &[]),
        (|m| (m.group, m.confirm_group) = ("nobody".into(), "nobody".into()), Code::NotFound, &[]),
    ];
    for (change, code, fields) in table {
        let mut ask = ask();
        change(&mut ask);
        let refused = client.r#move(ask).await.unwrap_err();
        assert_eq!(refused.code(), code, "{}", refused.message());
        let bad = refused.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        assert_eq!(bad.iter().map(|wrong| wrong.field.as_str()).collect::<Vec<_>>(), fields);
    }
}

#[tokio::test]
async fn the_verbs_show_the_plan_want_the_name_and_open() {
    let (log, _node, served) = leader().await;
    let said = ctl(&served.address, &["switchover", GROUP, "--dry-run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.starts_with("switchover of aicamera from hcmc to hanoi"), "{}", said.stdout);
    let said = ctl(&served.address, &["switchover", GROUP, "--reason", "maintenance"]);
    assert!(said.code == 2 && said.stderr.contains("give --yes aicamera"), "{}", said.stderr);
    let said =
        ctl(&served.address, &["rejoin", GROUP, "--region", "hanoi", "--reason", "x", "--yes", GROUP, "--detach"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.starts_with("rejoin of aicamera in hanoi "), "{}", said.stdout);
    let list = ctl(&served.address, &["run", "list"]).stdout;
    assert!(list.contains(" recovery  in hanoi "), "{list}");
    assert_eq!(log.state().groups[&GROUP.into()].open_run.as_ref().unwrap().kind, RunKind::Recovery);
    let said = ctl(&served.address, &["switchover", GROUP, "--to", "hanoi", "--reason", "x", "--yes", GROUP]);
    assert!(said.code == 3 && said.stderr.starts_with("refused: no open run: one is open"), "{}", said.stderr);
}
