//! `traffic`: a dry run first, its result shown, then the group's name typed, then the run, followed.

use super::act::{confirm, confirmable, context, follow_unless, group_status, opened_page};
use super::args::{Cli, Output, TrafficWish};
use super::call::{Cluster, Kind, Node};
use super::error::{CliError, Exit};
use super::{Screen, plan_page};
use crate::proto::{FailoverResponse, TrafficRequest, TrafficResponse};

/// `traffic GROUP --to REGION`.
pub async fn traffic(cluster: &Cluster, cli: &Cli, wish: &TrafficWish, screen: Screen) -> Result<Exit, CliError> {
    let context = context(cli, wish.reason.as_deref().unwrap_or_default())?;
    confirmable(&wish.group, wish.yes.as_deref(), wish.dry_run)?;
    let cluster = cluster.for_request(&context.request_id);
    let to_region = match &wish.to {
        Some(to) => to.clone(),
        None => only_other_region(&cluster, &wish.group).await?,
    };
    let mut ask = TrafficRequest {
        context: Some(context),
        group: wish.group.clone(),
        to_region,
        confirm_group: String::new(),
        expected_token: String::new(),
        dry_run: true,
    };
    let call = |mut node: Node, ask| async move { node.traffic(ask).await };
    if cli.request_id.is_none() || wish.dry_run {
        let plan = cluster.ask(Kind::Patient, ask.clone(), call).await?;
        if wish.dry_run || !plan.would_open || screen.output == Output::Table {
            screen.show(&plan, || plan_page::page("traffic", &wish.group, &as_plan(&plan)))?;
        }
        if let Some(end) = plan_page::ends_here(&as_plan(&plan), wish.dry_run)? {
            return Ok(end);
        }
        ask.expected_token = plan.token;
    }
    confirm(&cluster, &wish.group, wish.yes.as_deref())?;
    ask.dry_run = false;
    ask.confirm_group.clone_from(&wish.group);
    let opened = cluster.ask(Kind::Write, ask, call).await?;
    screen.show(&opened, || opened_page(&opened.run_id))?;
    follow_unless(wish.detach, &cluster, &opened.run_id, screen).await
}

/// Where a group's traffic can only go.
async fn only_other_region(cluster: &Cluster, group: &str) -> Result<String, CliError> {
    let group = group_status(cluster, group).await?;
    let others: Vec<&str> =
        group.regions.iter().map(String::as_str).filter(|region| *region != group.traffic_region).collect();
    match others.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ => Err(CliError::Usage(format!(
            "where to? the traffic of {} can go to {}: give --to REGION",
            group.name,
            others.join(", ")
        ))),
    }
}

/// The two say the same of different runs.
fn as_plan(plan: &TrafficResponse) -> FailoverResponse {
    let TrafficResponse { standing, run_id, from_region, to_region, steps, gates, would_open, token } = plan.clone();
    FailoverResponse { standing, run_id, from_region, to_region, steps, gates, would_open, token }
}
