//! `service restart|scale|rollback`: a dry run first, its result shown, then the group's name typed, then the run, followed.

use super::act::{confirm, confirmable, context, follow_unless, opened_page};
use super::args::{Cli, Output, ServiceVerb, ServiceWish};
use super::call::{Cluster, Kind, Node};
use super::error::{CliError, Exit};
use super::{Screen, plan_page};
use crate::proto::{FailoverResponse, RecoverServiceRequest, RecoverServiceResponse, ServiceAction, Word as _};

/// `service …`.
pub async fn service(cluster: &Cluster, cli: &Cli, verb: &ServiceVerb, screen: Screen) -> Result<Exit, CliError> {
    let (wish, action, replicas) = match verb {
        ServiceVerb::Restart(wish) => (wish, ServiceAction::Restart, None),
        ServiceVerb::Scale { wish, replicas } => (wish, ServiceAction::Scale, Some(*replicas)),
        ServiceVerb::Rollback(wish) => (wish, ServiceAction::Rollback, None),
    };
    let context = context(cli, wish.reason.as_deref().unwrap_or_default())?;
    confirmable(&wish.group, wish.yes.as_deref(), wish.dry_run)?;
    let cluster = cluster.for_request(&context.request_id);
    let mut ask = RecoverServiceRequest {
        context: Some(context),
        group: wish.group.clone(),
        service: wish.name.clone(),
        region: wish.region.clone().unwrap_or_default(),
        action: action.into(),
        replicas,
        confirm_group: String::new(),
        expected_token: String::new(),
        dry_run: true,
    };
    let call = |mut node: Node, ask| async move { node.recover_service(ask).await };
    if cli.request_id.is_none() || wish.dry_run {
        let plan = cluster.ask(Kind::Patient, ask.clone(), call).await?;
        if wish.dry_run || !plan.would_open || screen.output == Output::Table {
            screen.show(&plan, || plan_page::page(&title(wish, action, replicas), &wish.group, &as_plan(&plan)))?;
        }
        if let Some(end) = plan_page::ends_here(&as_plan(&plan), wish.dry_run)? {
            return Ok(end);
        }
        ask.expected_token = plan.token;
        ask.region = plan.region;
    }
    confirm(&cluster, &wish.group, wish.yes.as_deref())?;
    ask.dry_run = false;
    ask.confirm_group.clone_from(&wish.group);
    let opened = cluster.ask(Kind::Write, ask, call).await?;
    screen.show(&opened, || opened_page(&opened.run_id))?;
    follow_unless(wish.detach, &cluster, &opened.run_id, screen).await
}

fn title(wish: &ServiceWish, action: ServiceAction, replicas: Option<u32>) -> String {
    let word = ServiceAction::word(action.into());
    let to = replicas.map(|n| format!(" to {n}")).unwrap_or_default();
    format!("{word} {}{to}", wish.name)
}

/// The two say the same of different runs.
fn as_plan(plan: &RecoverServiceResponse) -> FailoverResponse {
    let RecoverServiceResponse { standing, run_id, region, steps, gates, would_open, token } = plan.clone();
    let (from_region, to_region) = (region, String::new());
    FailoverResponse { standing, run_id, from_region, to_region, steps, gates, would_open, token }
}
