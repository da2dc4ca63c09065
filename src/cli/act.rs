//! The verbs that change something. Each shows what it is about, asks for the group's name where it destroys something,
//! and keeps one request id.

use std::io::{BufRead, IsTerminal, Write};

use super::args::{Cli, FailoverWish, Output, Say};
use super::call::{Cluster, Kind};
use super::error::{CliError, Exit};
use super::text::{Page, Span, bold, good, print, tell};
use super::{Screen, find_run, follow, plan_page, run_id, run_page};
use crate::proto::{self, WriteContext};

/// Who asks, why, and the one id of this request.
pub(super) fn context(cli: &Cli, reason: &str) -> Result<WriteContext, CliError> {
    let by = cli.by.clone().filter(|by| !by.is_empty());
    // A shell without USER (a container, a systemd unit) still has somebody behind it.
    let by = by.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    if reason.trim().is_empty() {
        return Err(CliError::Usage("--reason is empty; say why, it goes into the audit".to_owned()));
    }
    let request_id = cli.request_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    Ok(WriteContext { request_id, by, reason: reason.trim().to_owned() })
}

/// `failover`: a dry run first, its result shown, then the group's name typed, then the run, followed.
pub async fn failover(cluster: &Cluster, cli: &Cli, wish: &FailoverWish, screen: Screen) -> Result<Exit, CliError> {
    let context = context(cli, wish.reason.as_deref().unwrap_or_default())?;
    confirmable(&wish.group, wish.yes.as_deref(), wish.dry_run)?;
    let cluster = cluster.for_request(&context.request_id);
    let to_region = match &wish.to {
        Some(to) => to.clone(),
        None => only_other_region(&cluster, &wish.group).await?,
    };
    let mut ask = proto::FailoverRequest {
        context: Some(context),
        group: wish.group.clone(),
        to_region,
        confirm_group: String::new(),
        expected_token: String::new(),
        accept_loss: wish.accept_loss,
        assert_fence_region: wish.assert_fence.clone().unwrap_or_default(),
        dry_run: true,
    };
    let call = |mut node: super::call::Node, ask| async move { node.failover(ask).await };
    let repeated = cli.request_id.is_some();
    if !repeated || wish.dry_run {
        let plan = cluster.ask(Kind::Patient, ask.clone(), call).await?;
        if wish.dry_run || !plan.would_open || screen.output == Output::Table {
            screen.show(&plan, || plan_page::page("failover", &wish.group, &plan))?;
        }
        if let Some(end) = plan_page::ends_here(&plan, wish.dry_run)? {
            return Ok(end);
        }
        ask.expected_token.clone_from(&plan.token);
    }
    confirm(&cluster, &wish.group, wish.yes.as_deref())?;
    ask.dry_run = false;
    ask.confirm_group.clone_from(&wish.group);
    let opened = cluster.ask(Kind::Write, ask, call).await?;
    screen.show(&opened, || opened_page(&opened.run_id))?;
    follow_unless(wish.detach, &cluster, &opened.run_id, screen).await
}

/// A run was opened.
pub(super) fn opened_page(run_id: &str) -> Page {
    let mut page = Page::default();
    page.gap();
    page.line([good("opened "), bold(run_id)]);
    page
}

/// The run that was opened, as it goes; programs follow by a call of their own.
pub(super) async fn follow_unless(
    detached: bool,
    cluster: &Cluster,
    run_id: &str,
    screen: Screen,
) -> Result<Exit, CliError> {
    if detached || screen.output == Output::Json {
        return Ok(Exit::Ok);
    }
    follow::follow(cluster, run_id, screen).await
}

/// Where a group can only move to.
pub(super) async fn only_other_region(cluster: &Cluster, group: &str) -> Result<String, CliError> {
    let group = group_status(cluster, group).await?;
    let last = group.serving.as_ref().map(|serving| serving.last.as_str()).unwrap_or_default();
    let others: Vec<&str> = group.regions.iter().map(String::as_str).filter(|region| *region != last).collect();
    match others.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ => Err(CliError::Usage(format!(
            "where to? {} can move to {}: give --to REGION",
            group.name,
            others.join(", ")
        ))),
    }
}

/// The group, as the nodes' own state has it.
pub(super) async fn group_status(cluster: &Cluster, group: &str) -> Result<proto::GroupStatus, CliError> {
    let ask = proto::GetStatusRequest { group: group.to_owned(), local: true };
    let answer = cluster.best_status(ask).await?;
    let found = answer.groups.into_iter().next();
    found.ok_or_else(|| CliError::Failed("the node knows the group and does not show it".to_owned()))
}

/// An order on an open run, with the token as it was seen when it was shown.
#[expect(clippy::too_many_arguments, reason = "one call for five verbs, each argument is a word of the command line")]
pub async fn order(
    cluster: &Cluster,
    cli: &Cli,
    run: &str,
    order: proto::Order,
    step: &str,
    region: &str,
    say: &Say,
    screen: Screen,
) -> Result<Exit, CliError> {
    let context = context(cli, &say.reason)?;
    let seen = find_run(cluster, run).await?;
    let summary = seen.run.as_ref().and_then(|run| run.summary.clone()).unwrap_or_default();
    // Nobody is asked to type a name for what will be refused: there is nothing to order on a closed run.
    let is_asked = order != proto::Order::Retry && summary.closed_at_ms.is_none();
    if is_asked {
        confirmable(&summary.group, say.yes.as_deref(), false)?;
    }
    // What it is about, as it stands: also where --yes answers before anybody is asked.
    if is_asked && screen.output == Output::Table {
        tell(&run_page::page(&seen).render(super::text::Paint(false)));
    }
    if is_asked {
        confirm(cluster, &summary.group, say.yes.as_deref())?;
    }
    let cluster = cluster.for_request(&context.request_id);
    let ask = proto::OrderRunRequest {
        context: Some(context),
        run_id: run_id(&seen),
        order: order.into(),
        step: step.to_owned(),
        region: region.to_owned(),
        confirm_group: summary.group,
        expected_token: summary.token,
    };
    let answer = cluster.ask(Kind::Write, ask, |mut node, ask| async move { node.order_run(ask).await }).await?;
    screen.show(&answer, || {
        let shown = proto::GetRunResponse { standing: answer.standing.clone(), run: answer.run.clone() };
        run_page::page(&shown)
    })?;
    Ok(Exit::Ok)
}

/// Found out before anything is asked of the cluster: there is a way to confirm, and `--yes` names the group.
pub(super) fn confirmable(group: &str, yes: Option<&str>, dry_run: bool) -> Result<(), CliError> {
    if dry_run { Ok(()) } else { confirmable_name(group, yes, "group") }
}

/// There is a way to confirm, and `--yes` names the thing of that `kind`.
pub(super) fn confirmable_name(name: &str, yes: Option<&str>, kind: &str) -> Result<(), CliError> {
    match yes {
        Some(typed) if typed == name => Ok(()),
        Some(typed) => Err(CliError::Usage(format!("--yes {typed}: but this is about {name}; nothing was changed"))),
        None if std::io::stdin().is_terminal() => Ok(()),
        None => Err(CliError::Usage(format!(
            "this needs the {kind}'s name typed again and stdin is no terminal: give --yes {name}"
        ))),
    }
}

/// Asks for the group's name, and says where it would be done.
pub(super) fn confirm(cluster: &Cluster, group: &str, yes: Option<&str>) -> Result<(), CliError> {
    confirm_name(cluster, group, yes, "group")
}

/// Has the name typed again, where `--yes` did not give it.
pub(super) fn confirm_name(cluster: &Cluster, name: &str, yes: Option<&str>, kind: &str) -> Result<(), CliError> {
    if yes.is_some() {
        return Ok(());
    }
    print("")?;
    let place = Span::from(cluster.label()).into_text();
    let _ = write!(std::io::stderr(), "\nthis is {place}; type the {kind}'s name to go on: ");
    let mut typed = String::new();
    let read = std::io::stdin().lock().read_line(&mut typed);
    read.map_err(|error| CliError::Failed(format!("reading from the terminal: {error}")))?;
    if typed.trim() == name {
        return Ok(());
    }
    Err(CliError::Usage(format!("{:?} is not {name}; nothing was changed", typed.trim())))
}
