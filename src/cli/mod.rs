//! What `watchdogctl` does and prints. Data goes to stdout, words about it to stderr.
//!
//! [`args`] is the command line, [`contexts`] which nodes it means, [`call`] reaches one, [`error`] says what went wrong
//! and what to do next ([`advice`] after a refusal), [`cert`] makes certificates, [`manual`] completions and man pages; [`act`] holds the verbs that change something,
//! [`nodes`] those about who is in the cluster, [`cluster`] those about the whole of it
//! ([`backup_file`] is its file), [`drill`] those about rehearsals, [`follow`] a run as it goes, [`readiness`] what would become of a group; the
//! `*_page` modules are what people read.

pub mod act;
pub mod advice;
pub mod args;
pub mod audit_page;
pub mod audit_verify;
pub mod backup_file;
pub mod call;
pub mod cert;
pub mod check;
pub mod cluster;
pub mod cluster_page;
pub mod contexts;
pub mod drill;
pub mod drill_page;
pub mod error;
pub mod fields;
pub mod follow;
pub mod lease_page;
pub mod live;
pub mod manual;
pub mod moving;
pub mod nodes;
pub mod nodes_page;
pub mod pages;
pub mod pause;
pub mod plan_page;
pub mod readiness;
pub mod readiness_page;
pub mod run_page;
pub mod service;
pub mod status_page;
pub mod text;
pub mod traffic;
pub mod watch;
pub mod wishes;

use std::io::IsTerminal;

use args::{AuditVerb, Cli, Colour, Output, RunVerb, Verb};
use call::{Cluster, can_decide};
use error::{CliError, Exit};
use text::{Page, Paint};

pub use crate::api::when;
use crate::proto;

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Tables or JSON.
    pub output: Output,
    /// Colours on stdout.
    pub paint: Paint,
    /// Stdout is a terminal: progress may be redrawn.
    pub is_terminal: bool,
}

impl Screen {
    fn of(cli: &Cli) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let on = match cli.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => is_terminal && !no_colour,
        };
        Self { output: cli.output, paint: Paint(on), is_terminal }
    }

    /// Prints the page, or the answer it was made from.
    pub fn show<T: serde::Serialize>(&self, answer: &T, page: impl FnOnce() -> Page) -> Result<(), CliError> {
        match self.output {
            Output::Json => text::print(&(to_json(answer)? + "\n")),
            Output::Table => text::print(&page().render(self.paint)),
        }
    }
}

fn to_json<T: serde::Serialize>(answer: &T) -> Result<String, CliError> {
    serde_json::to_string_pretty(answer).map_err(|error| CliError::Failed(format!("the answer is no JSON: {error}")))
}

/// Does what the command line says. Errors are the caller's to print.
pub async fn run(cli: Cli) -> Result<Exit, CliError> {
    let screen = Screen::of(&cli);
    match &cli.verb {
        Verb::Check { config, files } => return check::run(config, *files, screen),
        Verb::Cert { verb } => return cert::run(verb, screen),
        Verb::Completions { shell } => return manual::completions(*shell),
        Verb::Man { dir } => return manual::run(dir.as_deref(), screen),
        Verb::Contexts => return contexts::list(&cli, screen),
        Verb::Audit { verb: Some(AuditVerb::Verify { files }), .. } if !files.is_empty() => {
            return audit_verify::files(files, screen);
        }
        Verb::Cluster { verb: cluster::ClusterVerb::Show { file } } => return cluster::show(file, screen),
        _ => {}
    }
    let cli = contexts::settle(cli)?;
    let cluster = Cluster::new(&cli.endpoint, call::dialer(&cli)?, cli.timeout)?.named(cli.settled.as_deref());
    match &cli.verb {
        Verb::Check { .. } | Verb::Cert { .. } | Verb::Completions { .. } | Verb::Man { .. } | Verb::Contexts => {
            Ok(Exit::Ok)
        }
        Verb::Readiness { group: Some(group), to, watch: true } => {
            watch::readiness(&cluster, group, to.as_deref(), screen).await
        }
        Verb::Readiness { group: Some(group), to, .. } => {
            readiness::of_group(&cluster, group, to.as_deref(), screen).await
        }
        Verb::Readiness { group: None, .. } => readiness::of_all(&cluster, screen).await,
        Verb::Status { group, watch: true, .. } => watch::status(&cluster, group.as_deref(), screen).await,
        Verb::Status { group, local, .. } => status(&cluster, group.as_deref(), *local, screen).await,
        Verb::Pause { group, reason, lasting } => pause::pause(&cluster, &cli, group, reason, *lasting, screen).await,
        Verb::Resume { group, reason } => pause::resume(&cluster, &cli, group, reason, screen).await,
        Verb::Cluster { verb } => cluster::run(&cluster, &cli, verb, screen).await,
        Verb::Drill { verb } => drill::run(&cluster, &cli, verb, screen).await,
        Verb::Node { verb } => nodes::run(&cluster, &cli, verb, screen).await,
        Verb::Traffic(wish) => traffic::traffic(&cluster, &cli, wish, screen).await,
        Verb::Service { verb } => service::service(&cluster, &cli, verb, screen).await,
        Verb::Switchover { to, wish } => {
            let what = (proto::MoveKind::Switchover, to.as_deref());
            moving::planned(&cluster, &cli, what, wish, screen).await
        }
        Verb::Failback(wish) => moving::planned(&cluster, &cli, (proto::MoveKind::Failback, None), wish, screen).await,
        Verb::Rejoin { region, wish } => {
            let what = (proto::MoveKind::Rejoin, region.as_deref());
            moving::planned(&cluster, &cli, what, wish, screen).await
        }
        Verb::Failover(wish) => act::failover(&cluster, &cli, wish, screen).await,
        Verb::Audit { verb: Some(AuditVerb::Verify { .. }), .. } => audit_verify::nodes(&cluster, screen).await,
        Verb::Page { verb } => pages::page(&cluster, &cli, verb, screen).await,
        Verb::Contact { verb } => pages::contact(&cluster, verb, screen).await,
        Verb::Audit { group, limit, watch: true, .. } => watch::audit(&cluster, group.as_deref(), *limit, screen).await,
        Verb::Audit { group, limit, before, .. } => audit(&cluster, group.as_deref(), *limit, *before, screen).await,
        Verb::Run { verb } => match verb {
            RunVerb::List { group, limit, watch: true } => {
                watch::runs(&cluster, group.as_deref(), *limit, screen).await
            }
            RunVerb::List { group, limit, .. } => list_runs(&cluster, group.as_deref(), *limit, screen).await,
            RunVerb::Show { run } => {
                let answer = find_run(&cluster, run).await?;
                screen.show(&answer, || run_page::page(&answer))?;
                Ok(seen_by(answer.standing.as_ref()))
            }
            RunVerb::Follow { run } => {
                let id = run_id(&find_run(&cluster, run).await?);
                follow::follow(&cluster, &id, screen).await
            }
            RunVerb::Retry { run, step, say } => {
                act::order(&cluster, &cli, run, proto::Order::Retry, step, "", say, screen).await
            }
            RunVerb::Skip { run, step, say } => {
                act::order(&cluster, &cli, run, proto::Order::Skip, step, "", say, screen).await
            }
            RunVerb::Abort { run, say } => {
                act::order(&cluster, &cli, run, proto::Order::Abort, "", "", say, screen).await
            }
            RunVerb::AssertFence { run, region, say } => {
                act::order(&cluster, &cli, run, proto::Order::AssertFence, "", region, say, screen).await
            }
            RunVerb::AcceptLoss { run, say } => {
                act::order(&cluster, &cli, run, proto::Order::AcceptLoss, "", "", say, screen).await
            }
        },
    }
}

async fn status(cluster: &Cluster, group: Option<&str>, local: bool, screen: Screen) -> Result<Exit, CliError> {
    let ask = proto::GetStatusRequest { group: group.unwrap_or_default().to_owned(), local };
    let answer = cluster.best_status(ask).await?;
    screen.show(&answer, || status_page::page(&answer))?;
    Ok(if can_decide(answer.standing.as_ref()) { Exit::Ok } else { Exit::Unreachable })
}

/// The exit code of what was shown, with a word where it may be old.
fn seen_by(standing: Option<&proto::Standing>) -> Exit {
    if can_decide(standing) {
        return Exit::Ok;
    }
    let standing = standing.cloned().unwrap_or_default();
    let missing = if standing.has_quorum { "no leader" } else { "no quorum" };
    let note = if standing.note.is_empty() { String::new() } else { format!(" ({})", standing.note) };
    text::tell(&format!("{missing}: {} has {missing}{note}; what it shows may be old", standing.node));
    Exit::Unreachable
}

async fn audit(
    cluster: &Cluster,
    group: Option<&str>,
    limit: u32,
    before: Option<u64>,
    screen: Screen,
) -> Result<Exit, CliError> {
    let group = group.unwrap_or_default().to_owned();
    let before_index = before.unwrap_or_default();
    let ask = proto::ListAuditRequest { group, limit, before_index, before_seq: 0 };
    let answer = cluster.read(ask, |mut node, ask| async move { node.list_audit(ask).await }).await?;
    screen.show(&answer, || audit_page::page(&answer))?;
    Ok(seen_by(answer.standing.as_ref()))
}

async fn list_runs(cluster: &Cluster, group: Option<&str>, limit: u32, screen: Screen) -> Result<Exit, CliError> {
    let group = group.unwrap_or_default().to_owned();
    let ask = proto::ListRunsRequest { group, limit, before_run_id: String::new() };
    let answer = cluster.read(ask, |mut node, ask| async move { node.list_runs(ask).await }).await?;
    screen.show(&answer, || run_page::list(&answer))?;
    Ok(seen_by(answer.standing.as_ref()))
}

/// The run meant by an id, the beginning of one, or a group's name (its open or newest run).
pub(crate) async fn find_run(cluster: &Cluster, asked: &str) -> Result<proto::GetRunResponse, CliError> {
    let looks_like_id = asked.len() >= 8 && asked.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let mut run_id = asked.to_owned();
    if !looks_like_id {
        let ask = proto::ListRunsRequest { group: asked.to_owned(), limit: 1, before_run_id: String::new() };
        let list = cluster.read(ask, |mut node, ask| async move { node.list_runs(ask).await }).await?;
        match list.runs.first() {
            Some(newest) => run_id.clone_from(&newest.id),
            None => {
                return Err(CliError::Refused {
                    message: format!("group {asked} has had no run"),
                    code: "not_found".to_owned(),
                });
            }
        }
    }
    let ask = proto::GetRunRequest { run_id };
    cluster.read(ask, |mut node, ask| async move { node.get_run(ask).await }).await
}

pub(crate) fn run_id(answer: &proto::GetRunResponse) -> String {
    answer.run.as_ref().and_then(|run| run.summary.as_ref()).map(|run| run.id.clone()).unwrap_or_default()
}
