//! `node`: who is in the cluster. Each change is judged first, shown, and then repeated a step at a time until it is done;
//! whatever breaks off in between, the same command goes on where it stopped.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::Instant;

use super::act::{confirm_name, confirmable_name, context};
use super::args::{Cli, Output};
use super::call::{Cluster, Kind, Node};
use super::error::{CliError, Exit};
use super::text::tell;
use super::when::parse_duration_ms;
use super::{Screen, nodes_page};
use crate::proto::{self, ChangeNodesRequest, NodeAction, NodeProgress};

/// Between two looks at a learner that catches up.
const EVERY: Duration = Duration::from_millis(500);

const ORDER: &str = "\
The order of steps:
  1. Give every node a file with the new [[node]], restart them one by one, the leader last. (To replace a node, put the \
new one in the old one's place in the file.)
  2. Start watchdogd on the new machine with the same file. It waits to be added.
  3. watchdogctl node add (or replace). It is a learner until it has the whole log, then it votes.
Where a region would be left without a majority by one node more, add two: the first with --learner, then its \
counterpart; both become voters together.";

/// Verbs about nodes. NODE is a name or a number.
#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// Every node that is, was or is to be in the cluster, asked just now by the leader.
    List,
    /// A new node joins: as a learner, and once it has caught up as a voter.
    #[command(after_help = ORDER)]
    Add {
        /// Its number, never used before.
        id: u64,
        /// Its name.
        name: String,
        /// Where it stands, and how its peers dial it.
        #[command(flatten)]
        place: Place,
        /// It stays a learner until it is added again without this.
        #[arg(long)]
        learner: bool,
        /// Why, and how long.
        #[command(flatten)]
        how: How,
    },
    /// A node leaves for good: its number is not used again.
    Remove {
        /// Which.
        node: String,
        /// Why, and how long.
        #[command(flatten)]
        how: How,
        /// The node's name typed again instead of being asked for it.
        #[arg(long, value_name = "NAME")]
        yes: Option<String>,
    },
    /// A new node takes a dead one's place, by one change of the voters.
    #[command(after_help = ORDER)]
    Replace {
        /// The old one.
        node: String,
        /// The new one's number, never used before, and its name.
        #[arg(long, num_args = 2, value_names = ["ID", "NAME"], required = true)]
        with: Vec<String>,
        /// Where it stands, and how its peers dial it.
        #[command(flatten)]
        place: Place,
        /// Why, and how long.
        #[command(flatten)]
        how: How,
        /// The old node's name typed again instead of being asked for it.
        #[arg(long, value_name = "NAME")]
        yes: Option<String>,
    },
    /// Another voter leads: the named one, or the best besides the present leader.
    Transfer {
        /// Which.
        node: Option<String>,
        /// Why; goes into the audit.
        #[arg(long)]
        reason: String,
    },
}

/// Where a new node stands.
#[derive(Debug, Args)]
pub struct Place {
    /// Its region or witness site, as the configuration has it.
    #[arg(long)]
    pub region: String,
    /// HOST:PORT that its peers dial.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: String,
}

/// How a change is made.
#[derive(Debug, Args)]
pub struct How {
    /// Why; goes into the audit.
    #[arg(long, required_unless_present = "dry_run", default_value_if("dry_run", "true", "dry run"))]
    pub reason: Option<String>,
    /// Change nothing: print what stands in the way, and the layout before and after. Exits 3 where something does.
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait until it has caught up.
    #[arg(long, default_value = "5m", value_parser = parse_duration_ms, value_name = "DURATION")]
    pub wait: u64,
}

/// Does what the verb says.
pub async fn run(cluster: &Cluster, cli: &Cli, verb: &NodeVerb, screen: Screen) -> Result<Exit, CliError> {
    match verb {
        NodeVerb::List => list(cluster, screen).await,
        NodeVerb::Add { id, name, place, learner, how } => {
            let ask = ChangeNodesRequest { learner: *learner, ..newcomer(NodeAction::Add, *id, name, place) };
            change(cluster, cli, ask, how, None, screen).await
        }
        NodeVerb::Remove { node, how, yes } => {
            let ask =
                ChangeNodesRequest { action: NodeAction::Remove.into(), node: node.clone(), ..Default::default() };
            change(cluster, cli, ask, how, yes.as_deref(), screen).await
        }
        NodeVerb::Replace { node, with, place, how, yes } => {
            let [id, name] = with.as_slice() else {
                return Err(CliError::Usage("--with wants the new node's number and its name".to_owned()));
            };
            let id = id.parse().map_err(|_| CliError::Usage(format!("--with {id} {name}: {id:?} is no number")))?;
            let ask = ChangeNodesRequest { node: node.clone(), ..newcomer(NodeAction::Replace, id, name, place) };
            change(cluster, cli, ask, how, yes.as_deref(), screen).await
        }
        NodeVerb::Transfer { node, reason } => transfer(cluster, cli, node.as_deref(), reason, screen).await,
    }
}

fn newcomer(action: NodeAction, id: u64, name: &str, place: &Place) -> ChangeNodesRequest {
    ChangeNodesRequest {
        action: action.into(),
        id,
        name: name.to_owned(),
        region: place.region.clone(),
        address: place.address.clone(),
        ..Default::default()
    }
}

async fn list(cluster: &Cluster, screen: Screen) -> Result<Exit, CliError> {
    let ask = proto::ListNodesRequest {};
    let answer = cluster.ask(Kind::Patient, ask, |mut node, ask| async move { node.list_nodes(ask).await }).await?;
    screen.show(&answer, || nodes_page::list(&answer))?;
    Ok(Exit::Ok)
}

/// Judged first, shown, and confirmed; then step by step.
async fn change(
    cluster: &Cluster,
    cli: &Cli,
    mut ask: ChangeNodesRequest,
    how: &How,
    yes: Option<&str>,
    screen: Screen,
) -> Result<Exit, CliError> {
    let context = context(cli, how.reason.as_deref().unwrap_or_default())?;
    let cluster = cluster.for_request(&context.request_id);
    ask.context = Some(context);
    ask.dry_run = true;
    let call = |mut node: Node, ask| async move { node.change_nodes(ask).await };
    let judged = cluster.ask(Kind::Patient, ask.clone(), call).await?;
    let is_open = judged.gates.iter().all(|gate| gate.open);
    if how.dry_run || !is_open || screen.output == Output::Table {
        screen.show(&judged, || nodes_page::judged(&judged))?;
    }
    if how.dry_run {
        return Ok(if is_open { Exit::Ok } else { Exit::Refused });
    }
    ask.dry_run = false;
    if is_open && !judged.leaving.is_empty() {
        confirmable_name(&judged.leaving, yes, "node")?;
        confirm_name(&cluster, &judged.leaving, yes, "node")?;
    }
    // Where a gate is closed the cluster itself says no, and its audit that somebody tried.
    ask.confirm_name.clone_from(&judged.leaving);
    let end = Instant::now() + Duration::from_millis(how.wait);
    let mut progress = Progress::default();
    loop {
        let answer = cluster.ask(Kind::Write, ask.clone(), call).await?;
        if answer.progress() != NodeProgress::CatchingUp {
            progress.end(screen);
            screen.show(&answer, || nodes_page::changed(&answer))?;
            return Ok(Exit::Ok);
        }
        progress.show(&answer, screen);
        if Instant::now() + EVERY >= end {
            progress.end(screen);
            screen.show(&answer, || nodes_page::changed(&answer))?;
            tell(&format!(
                "not done yet: {name} stays a learner, and does not vote. The same command goes on from there; \
                 watchdogctl node remove {name} drops it",
                name = answer.node
            ));
            return Ok(Exit::Failure);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// How far a learner is, on one line of a terminal; else a line for each change.
#[derive(Default)]
struct Progress {
    said: String,
}

impl Progress {
    fn show(&mut self, answer: &proto::ChangeNodesResponse, screen: Screen) {
        let line = nodes_page::catching_up(answer);
        if line == self.said {
            return;
        }
        if screen.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
            let _ = std::io::stderr().flush();
        } else {
            tell(&line);
        }
        self.said = line;
    }

    fn end(&self, screen: Screen) {
        if screen.is_terminal && !self.said.is_empty() {
            tell("");
        }
    }
}

async fn transfer(
    cluster: &Cluster,
    cli: &Cli,
    node: Option<&str>,
    reason: &str,
    screen: Screen,
) -> Result<Exit, CliError> {
    let context = context(cli, reason)?;
    let cluster = cluster.for_request(&context.request_id);
    let node = node.unwrap_or_default().to_owned();
    let ask = proto::TransferLeadershipRequest { context: Some(context), node };
    let call = |mut node: Node, ask| async move { node.transfer_leadership(ask).await };
    let answer = cluster.ask(Kind::Write, ask, call).await?;
    screen.show(&answer, || nodes_page::transferred(&answer))?;
    Ok(Exit::Ok)
}
