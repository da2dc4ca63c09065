//! `pause` and `resume`: how the group stands and what that changes goes before, to stderr; nobody is asked, since a pause
//! is wanted at once.

use std::time::Duration;

use super::act::context;
use super::args::{Cli, Output};
use super::call::{Cluster, Kind, can_decide};
use super::error::{CliError, Exit};
use super::text::{Page, Paint, Span, bold, dim, good, tell, warn};
use super::when::{ago, stamp};
use super::{Screen, run_page, status_page};
use crate::clock::unix_now;
use crate::proto::{self, Fencing, GroupStatus, RunKind, Word};

/// A look that takes longer holds up a pause for too long.
const LOOK: Duration = Duration::from_secs(4);

/// `pause`.
pub async fn pause(
    cluster: &Cluster,
    cli: &Cli,
    group: &str,
    reason: &str,
    lasting_ms: Option<u64>,
    screen: Screen,
) -> Result<Exit, CliError> {
    let context = context(cli, reason)?;
    let cluster = cluster.for_request(&context.request_id);
    let until = lasting_ms.map(|ms| crate::api::show::ms(unix_now().plus(ms)));
    show_before(&cluster, cli, group, |seen, now_ms| paused(seen, until, now_ms)).await?;
    let ask = proto::PauseRequest { context: Some(context), group: group.to_owned(), until_ms: until };
    let answer = cluster.ask(Kind::Write, ask, |mut node, ask| async move { node.pause(ask).await }).await?;
    screen.show(&answer, || {
        let mut page = Page::default();
        let now_ms = answer.standing.as_ref().map(|standing| standing.at_ms).unwrap_or_default();
        let until = answer.pause.as_ref().and_then(|pause| pause.until_ms);
        page.line([bold(group), good(" paused "), end_of(until, now_ms).into()]);
        page.line([dim(
            "nothing automatic starts; an open run stops at its next step boundary; you are paged as before",
        )]);
        page
    })?;
    Ok(Exit::Ok)
}

/// `resume`.
pub async fn resume(cluster: &Cluster, cli: &Cli, group: &str, reason: &str, screen: Screen) -> Result<Exit, CliError> {
    let context = context(cli, reason)?;
    let cluster = cluster.for_request(&context.request_id);
    show_before(&cluster, cli, group, |seen, _| resumed(seen)).await?;
    let ask = proto::ResumeRequest { context: Some(context), group: group.to_owned() };
    let answer = cluster.ask(Kind::Write, ask, |mut node, ask| async move { node.resume(ask).await }).await?;
    screen.show(&answer, || {
        let mut page = Page::default();
        page.line([bold(group), good(" resumed")]);
        page
    })?;
    Ok(Exit::Ok)
}

fn end_of(until_ms: Option<i64>, now_ms: i64) -> String {
    until_ms
        .map_or_else(|| "until resumed".to_owned(), |until| format!("until {} ({})", stamp(until), ago(until, now_ms)))
}

/// How the group stands, and what is about to become of it. Programs, and whoever repeats a request, are told nothing.
///
/// A group that nobody can show is no obstacle: what it says of the order itself is the answer.
async fn show_before(
    cluster: &Cluster,
    cli: &Cli,
    group: &str,
    changes: impl FnOnce(&GroupStatus, i64) -> Vec<Span>,
) -> Result<(), CliError> {
    if cli.output == Output::Json || cli.request_id.is_some() {
        return Ok(());
    }
    let ask = proto::GetStatusRequest { group: group.to_owned(), local: false };
    let status = match cluster.within(LOOK).best_status(ask).await {
        Ok(status) => status,
        Err(error @ (CliError::Refused { .. } | CliError::Wrong { .. })) => return Err(error),
        // Why, the order's own answer says.
        Err(_) => {
            tell(&format!("how {group} stands could not be read"));
            return Ok(());
        }
    };
    let Some(seen) = status.groups.first() else { return Ok(()) };
    let now_ms = status.standing.as_ref().map(|standing| standing.at_ms).unwrap_or_default();
    let mut page = Page::default();
    if !can_decide(status.standing.as_ref()) {
        page.line([warn("no leader or no quorum: what follows may be old")]);
    }
    status_page::group_head(&mut page, seen, now_ms);
    if let Some(run) = &seen.open_run {
        run_page::in_status(&mut page, run, now_ms);
    }
    status_page::labelled(&mut page, "why", seen.explanation.iter().map(|line| line.as_str().into()).collect());
    status_page::labelled(&mut page, "changes", changes(seen, now_ms));
    tell(&page.render(Paint(false)));
    Ok(())
}

/// What a pause makes different.
fn paused(group: &GroupStatus, until_ms: Option<i64>, now_ms: i64) -> Vec<Span> {
    let end = end_of(until_ms, now_ms);
    let first = match &group.pause {
        Some(_) => format!("it is paused already: its end and reason become yours, {end}"),
        None => format!("nothing automatic starts any more, {end}"),
    };
    let mut lines = vec![Span::from(first)];
    if let Some(run) = open(group) {
        lines.push(Span::from(format!("{} stops at its next step boundary, never inside a promotion", words(run))));
        if is_planned(run) {
            lines.push(warn(
                "where it has stopped the writing, nobody writes meanwhile: its limit for that waits for the resume too",
            ));
        }
    }
    if group.fencing() == Fencing::Lease && group.pause.is_none() {
        lines.push(Span::from(
            "the lease becomes open-ended: an old primary's silence proves nothing until it is bound again",
        ));
    }
    lines
}

/// What the end of a pause makes different.
fn resumed(group: &GroupStatus) -> Vec<Span> {
    if group.pause.is_none() {
        return vec![Span::from("nothing: it is not paused")];
    }
    let mut lines = vec![Span::from("what its mode lets begin by itself may begin at once, where its trigger holds")];
    if let Some(run) = open(group) {
        lines.push(Span::from(format!("{} goes on", words(run))));
        if is_planned(run) {
            lines.push(warn("where its limit for stopped writing is over by now, it turns back at once"));
        }
    }
    lines
}

fn open(group: &GroupStatus) -> Option<&proto::RunSummary> {
    group.open_run.as_ref().and_then(|run| run.summary.as_ref())
}

fn words(run: &proto::RunSummary) -> String {
    format!("run {} ({} to {})", run_page::short(&run.id), RunKind::word(run.kind), run.to_region)
}

fn is_planned(run: &proto::RunSummary) -> bool {
    matches!(run.kind(), RunKind::Switchover | RunKind::Failback)
}
