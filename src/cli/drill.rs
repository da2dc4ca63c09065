//! `watchdogctl drill`: begin one, list them with their figures, show one, write its report, end it, note what was learned.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::act::{confirm, confirmable, context, only_other_region};
use super::args::{Cli, Output};
use super::call::{Cluster, Kind};
use super::error::{CliError, Exit};
use super::moving::as_plan;
use super::text::{Paint, tell};
use super::{Screen, drill_page, plan_page, seen_by, text};
use crate::proto;

/// Verbs about drills. DRILL is an id or its beginning (8 characters at least), or a group's name: its open or newest drill.
#[derive(Debug, Subcommand)]
pub enum DrillVerb {
    /// Begin a drill now. A simulated or live one really moves the group, and asks for its name.
    Start {
        /// The group.
        group: String,
        /// How much of it is real.
        #[arg(long, value_enum)]
        kind: KindWord,
        /// Whose objectives and checks; else the first schedule of that kind, else level 1 and every check.
        #[arg(long, value_name = "NAME")]
        schedule: Option<String>,
        /// Why; goes into the audit and the report.
        #[arg(long, default_value = "by hand")]
        reason: String,
        /// The group's name typed again instead of being asked for it.
        #[arg(long, value_name = "GROUP")]
        yes: Option<String>,
    },
    /// Schedules, drills open and past, and the figures of each month.
    List {
        /// Only this group.
        group: Option<String>,
    },
    /// One drill: its runs, findings, timeline and lessons.
    Show {
        /// Id, its beginning, or a group's name.
        drill: String,
    },
    /// A drill's report, to stdout or into a file.
    Report {
        /// Id, its beginning, or a group's name.
        drill: String,
        /// How it is written.
        #[arg(long, value_enum, default_value_t = FormatWord::Markdown)]
        format: FormatWord,
        /// Into this file, which must not be there yet.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// End a drill: where the group has moved, it is brought home first.
    Abort {
        /// Id, its beginning, or a group's name.
        drill: String,
        /// Why; goes into the audit and the report.
        #[arg(long)]
        reason: String,
    },
    /// Note what was learned from a drill; it stands in its report.
    Lessons {
        /// Id, its beginning, or a group's name.
        drill: String,
        /// One line.
        text: String,
    },
}

/// How much of a drill is real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindWord {
    /// Every gate and every step's present state is read; nothing is changed.
    Tabletop,
    /// The drill group's trigger is reported as failed; what follows is real, on the drill's resources.
    Simulated,
    /// The group is switched over and back.
    Live,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatWord {
    /// For people, as text.
    Markdown,
    /// For programs.
    Json,
    /// For people, one file with its pictures in it.
    Html,
}

/// Does it.
pub async fn run(cluster: &Cluster, cli: &Cli, verb: &DrillVerb, screen: Screen) -> Result<Exit, CliError> {
    match verb {
        DrillVerb::Start { group, kind, schedule, reason, yes } => {
            start(cluster, cli, (group, *kind, schedule.as_deref()), (reason, yes.as_deref()), screen).await
        }
        DrillVerb::List { group } => list(cluster, group.as_deref(), screen).await,
        DrillVerb::Show { drill } => {
            let drill_id = drill_id(cluster, drill).await?;
            let ask = proto::GetDrillRequest { drill_id };
            let answer = cluster.read(ask, |mut node, ask| async move { node.get_drill(ask).await }).await?;
            screen.show(&answer, || drill_page::page(answer.drill.as_ref()))?;
            Ok(seen_by(answer.standing.as_ref()))
        }
        DrillVerb::Report { drill, format, file } => report(cluster, drill, *format, file.as_ref()).await,
        DrillVerb::Abort { drill, reason } => {
            let context = context(cli, reason)?;
            let drill_id = drill_id(cluster, drill).await?;
            let cluster = cluster.for_request(&context.request_id);
            let ask = proto::AbortDrillRequest { context: Some(context), drill_id };
            let call = |mut node: super::call::Node, ask| async move { node.abort_drill(ask).await };
            let answer = cluster.ask(Kind::Write, ask, call).await?;
            screen.show(&answer, || drill_page::page(answer.drill.as_ref()))?;
            Ok(Exit::Ok)
        }
        DrillVerb::Lessons { drill, text } => {
            let context = context(cli, "lesson")?;
            let drill_id = drill_id(cluster, drill).await?;
            let cluster = cluster.for_request(&context.request_id);
            let ask = proto::NoteLessonRequest { context: Some(context), drill_id, text: text.clone() };
            let call = |mut node: super::call::Node, ask| async move { node.note_lesson(ask).await };
            let answer = cluster.ask(Kind::Write, ask, call).await?;
            screen.show(&answer, || drill_page::page(answer.drill.as_ref()))?;
            Ok(Exit::Ok)
        }
    }
}

async fn start(
    cluster: &Cluster,
    cli: &Cli,
    (group, kind, schedule): (&str, KindWord, Option<&str>),
    (reason, yes): (&str, Option<&str>),
    screen: Screen,
) -> Result<Exit, CliError> {
    let context = context(cli, reason)?;
    let mut confirm_group = String::new();
    if kind != KindWord::Tabletop {
        confirmable(group, yes, false)?;
        if screen.output == Output::Table && cli.request_id.is_none() {
            show_move(cluster, cli, group, kind, reason).await?;
        }
        confirm(cluster, group, yes)?;
        group.clone_into(&mut confirm_group);
    }
    let cluster = cluster.for_request(&context.request_id);
    let kind = match kind {
        KindWord::Tabletop => proto::DrillKind::Tabletop,
        KindWord::Simulated => proto::DrillKind::Simulated,
        KindWord::Live => proto::DrillKind::Live,
    };
    let ask = proto::StartDrillRequest {
        context: Some(context),
        group: group.to_owned(),
        kind: kind.into(),
        schedule: schedule.unwrap_or_default().to_owned(),
        confirm_group,
    };
    let call = |mut node: super::call::Node, ask| async move { node.start_drill(ask).await };
    let answer = cluster.ask(Kind::Write, ask, call).await?;
    screen.show(&answer, || drill_page::begun(answer.drill.as_ref()))?;
    Ok(Exit::Ok)
}

/// What the drill begins with: plan, gates and what is there now. Where that cannot be shown the drill's own answer says why.
async fn show_move(cluster: &Cluster, cli: &Cli, group: &str, kind: KindWord, reason: &str) -> Result<(), CliError> {
    let context = Some(context(cli, reason)?);
    let plan = if kind == KindWord::Simulated {
        let to_region = only_other_region(cluster, group).await.unwrap_or_default();
        let group = group.to_owned();
        let ask = proto::FailoverRequest { context, group, to_region, dry_run: true, ..Default::default() };
        cluster.ask(Kind::Patient, ask, |mut node, ask| async move { node.failover(ask).await }).await
    } else {
        let (kind, group) = (proto::MoveKind::Switchover.into(), group.to_owned());
        let ask = proto::MoveRequest { context, group, kind, dry_run: true, ..Default::default() };
        let plan = cluster.ask(Kind::Patient, ask, |mut node, ask| async move { node.r#move(ask).await }).await;
        plan.map(|plan| as_plan(&plan))
    };
    match plan {
        Ok(plan) => tell(&plan_page::page("a drill's move", group, &plan).render(Paint(false))),
        Err(CliError::Refused { .. } | CliError::Wrong { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn list(cluster: &Cluster, group: Option<&str>, screen: Screen) -> Result<Exit, CliError> {
    let ask = proto::ListDrillsRequest { group: group.unwrap_or_default().to_owned() };
    let answer = cluster.read(ask, |mut node, ask| async move { node.list_drills(ask).await }).await?;
    screen.show(&answer, || drill_page::list(&answer))?;
    Ok(seen_by(answer.standing.as_ref()))
}

async fn report(cluster: &Cluster, drill: &str, format: FormatWord, file: Option<&PathBuf>) -> Result<Exit, CliError> {
    let drill_id = drill_id(cluster, drill).await?;
    let format = match format {
        FormatWord::Markdown => proto::ReportFormat::Markdown,
        FormatWord::Json => proto::ReportFormat::Json,
        FormatWord::Html => proto::ReportFormat::Html,
    };
    let ask = proto::ReportDrillRequest { drill_id, format: format.into() };
    let answer = cluster.read(ask, |mut node, ask| async move { node.report_drill(ask).await }).await?;
    match file {
        None => text::print(&answer.report)?,
        Some(path) => {
            let failed = |error: std::io::Error| CliError::Failed(format!("{}: {error}", path.display()));
            let mut made = std::fs::File::create_new(path).map_err(failed)?;
            std::io::Write::write_all(&mut made, answer.report.as_bytes()).map_err(failed)?;
            text::tell(&format!("written: {}", path.display()));
        }
    }
    Ok(seen_by(answer.standing.as_ref()))
}

/// The drill meant by an id, the beginning of one, or a group's name (its open or newest drill).
async fn drill_id(cluster: &Cluster, asked: &str) -> Result<String, CliError> {
    if asked.len() >= 8 && asked.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Ok(asked.to_owned());
    }
    let ask = proto::ListDrillsRequest { group: asked.to_owned() };
    let list = cluster.read(ask, |mut node, ask| async move { node.list_drills(ask).await }).await?;
    match list.drills.into_iter().next() {
        Some(newest) => Ok(newest.id),
        None => Err(CliError::Refused {
            message: format!("group {asked} has had no drill; watchdogctl drill start {asked} --kind tabletop"),
            code: "not_found".to_owned(),
        }),
    }
}
