//! `switchover`, `failback`, `rejoin`: a dry run first, its result shown, then the group's name typed, then the run, followed.

use super::act::{confirm, confirmable, context, follow_unless, opened_page};
use super::args::{Cli, MoveWish, Output};
use super::call::{Cluster, Kind, Node};
use super::error::{CliError, Exit};
use super::{Screen, plan_page};
use crate::proto::{FailoverResponse, MoveKind, MoveRequest, MoveResponse, Word};

/// One of the three; `region`: where to, or which one rejoins.
pub async fn planned(
    cluster: &Cluster,
    cli: &Cli,
    (kind, region): (MoveKind, Option<&str>),
    wish: &MoveWish,
    screen: Screen,
) -> Result<Exit, CliError> {
    let context = context(cli, wish.reason.as_deref().unwrap_or_default())?;
    confirmable(&wish.group, wish.yes.as_deref(), wish.dry_run)?;
    let cluster = cluster.for_request(&context.request_id);
    let mut ask = MoveRequest {
        context: Some(context),
        group: wish.group.clone(),
        kind: kind.into(),
        region: region.unwrap_or_default().to_owned(),
        confirm_group: String::new(),
        expected_token: String::new(),
        dry_run: true,
    };
    let call = |mut node: Node, ask| async move { node.r#move(ask).await };
    if cli.request_id.is_none() || wish.dry_run {
        let plan = cluster.ask(Kind::Patient, ask.clone(), call).await?;
        if wish.dry_run || !plan.would_open || screen.output == Output::Table {
            let what = MoveKind::word(kind.into());
            screen.show(&plan, || plan_page::page(&what, &wish.group, &as_plan(&plan)))?;
        }
        if let Some(end) = plan_page::ends_here(&as_plan(&plan), wish.dry_run)? {
            return Ok(end);
        }
        // What was shown is what is done: the leader's answer, not a guess of ours, names the region.
        if kind != MoveKind::Failback {
            ask.region.clone_from(&plan.to_region);
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

/// The two say the same of different runs.
pub(super) fn as_plan(plan: &MoveResponse) -> FailoverResponse {
    let MoveResponse { standing, run_id, from_region, to_region, steps, gates, would_open, token } = plan.clone();
    FailoverResponse { standing, run_id, from_region, to_region, steps, gates, would_open, token }
}
