//! `cluster`: the replicated state to a file, and back into a cluster that was formed anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use tonic::Request;

use super::act::{confirm_name, confirmable_name, context};
use super::args::{Cli, Output};
use super::call::{Cluster, Kind, Node};
use super::error::{CliError, Exit};
use super::{Screen, backup_file, cluster_page};
use crate::api::backups::{BACKUP_BYTES_MAX, Wish, sha256};
use crate::domain::state::ClusterState;
use crate::proto;

/// The next message of a backup is waited for so long.
const CHUNK_WAIT: Duration = Duration::from_secs(30);

const DISASTER: &str = "\
When every node is lost, or a majority for good:
  1. Stop what is left of the old cluster, and see that it stays stopped.
  2. Give all nodes a configuration with a higher [cluster] epoch and empty data folders, and start them. Every group of a \
cluster that begins so is paused.
  3. Look at the databases: which region serves each group now? Then restore, saying so.
  4. Enrol every guard with the new epoch (watchdog-guard enroll --epoch …).
  5. watchdogctl status; settle what is unsettled; then watchdogctl resume GROUP.";

/// Verbs about the cluster as a whole.
#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Write the replicated state, as a majority confirms it, to a file that only you may read.
    Backup {
        /// The file; must not be there yet.
        file: PathBuf,
        /// Why; goes into the audit.
        #[arg(long, default_value = "backup")]
        reason: String,
        /// Replace the file if it is there.
        #[arg(long)]
        replace: bool,
    },
    /// What a backup holds; needs no node.
    Show {
        /// The file.
        file: PathBuf,
    },
    /// Put a backup back into a cluster that was formed anew with a higher epoch.
    #[command(after_help = DISASTER)]
    Restore(RestoreWish),
}

/// A restoration by an operator's word.
#[derive(Debug, Args)]
pub struct RestoreWish {
    /// The backup.
    pub file: PathBuf,
    /// Where a group is served now, as you have seen; once for each group.
    #[arg(long, value_name = "GROUP=REGION", value_parser = group_and_region)]
    pub serving: Vec<(String, String)>,
    /// Why; goes into the audit.
    #[arg(long, required_unless_present = "dry_run", default_value_if("dry_run", "true", "dry run"))]
    pub reason: Option<String>,
    /// Change nothing: print the backup and what becomes of it side by side.
    #[arg(long)]
    pub dry_run: bool,
    /// The cluster's name typed again instead of being asked for it.
    #[arg(long, value_name = "CLUSTER")]
    pub yes: Option<String>,
}

fn group_and_region(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((group, region)) if !group.is_empty() && !region.is_empty() => Ok((group.to_owned(), region.to_owned())),
        _ => Err(format!("{text:?} is not GROUP=REGION")),
    }
}

/// `cluster show`.
pub fn show(file: &std::path::Path, screen: Screen) -> Result<Exit, CliError> {
    let backup = backup_file::read(file).map_err(CliError::File)?;
    let held = cluster_page::Held::of(&backup.header, &state_of(&backup.state)?);
    screen.show(&held, || cluster_page::held(&held))?;
    Ok(Exit::Ok)
}

fn state_of(json: &[u8]) -> Result<ClusterState, CliError> {
    serde_json::from_slice(json)
        .map_err(|error| CliError::File(format!("the backup's state is not of this program's version: {error}")))
}

/// Does what the verb says.
pub async fn run(cluster: &Cluster, cli: &Cli, verb: &ClusterVerb, screen: Screen) -> Result<Exit, CliError> {
    match verb {
        ClusterVerb::Backup { file, reason, replace } => {
            backup_file::may_write(file, *replace).map_err(CliError::File)?;
            let backup = fetch(cluster, cli, reason).await?;
            backup_file::write(file, &backup, *replace).map_err(CliError::File)?;
            let held = cluster_page::Held::of(&backup.header, &state_of(&backup.state)?);
            screen.show(&held, || cluster_page::written(file, &held))?;
            Ok(Exit::Ok)
        }
        ClusterVerb::Show { file } => show(file, screen),
        ClusterVerb::Restore(wish) => restore(cluster, cli, wish, screen).await,
    }
}

async fn fetch(cluster: &Cluster, cli: &Cli, reason: &str) -> Result<backup_file::Backup, CliError> {
    let ask = proto::BackUpRequest { context: Some(context(cli, reason)?) };
    // A deadline on the request would end the stream with it.
    let call = |mut node: Node, ask: Request<proto::BackUpRequest>| async move { node.back_up(ask.into_inner()).await };
    let mut stream = cluster.ask(Kind::Patient, ask, call).await?;
    let broke = |why: String| CliError::Failed(format!("the backup broke off, and no file was written: {why}"));
    let (mut header, mut state) = (None, Vec::new());
    loop {
        let message = tokio::time::timeout(CHUNK_WAIT, stream.message()).await;
        let message = message.map_err(|_| broke(format!("nothing came for {} s", CHUNK_WAIT.as_secs())))?;
        let Some(message) = message.map_err(|status| broke(status.message().to_owned()))? else { break };
        header = header.or(message.header);
        if state.len() + message.data.len() > BACKUP_BYTES_MAX {
            return Err(broke(format!("it is more than {BACKUP_BYTES_MAX} bytes")));
        }
        state.extend_from_slice(&message.data);
    }
    let header = header.ok_or_else(|| broke("it has no header".to_owned()))?;
    if state.len() as u64 != header.bytes || sha256(&state) != header.sha256 {
        return Err(broke(format!("{} of {} bytes came, or other ones than were sent", state.len(), header.bytes)));
    }
    Ok(backup_file::Backup { header: backup_file::Header::of(&header), state })
}

async fn restore(cluster: &Cluster, cli: &Cli, wish: &RestoreWish, screen: Screen) -> Result<Exit, CliError> {
    let backup = backup_file::read(&wish.file).map_err(CliError::File)?;
    let name = backup.header.cluster.clone();
    let context = context(cli, wish.reason.as_deref().unwrap_or_default())?;
    if !wish.dry_run {
        confirmable_name(&name, wish.yes.as_deref(), "cluster")?;
    }
    let cluster = cluster.for_request(&context.request_id);
    let mut serving: BTreeMap<String, String> = BTreeMap::new();
    for (group, region) in &wish.serving {
        if let Some(other) = serving.insert(group.clone(), region.clone()) {
            return Err(CliError::Usage(format!("--serving {group}={other} and {group}={region}: which of them?")));
        }
    }
    let head = proto::RestoreRequest {
        context: Some(context),
        header: Some(backup.header.to_wire()),
        serving,
        confirm_cluster: String::new(),
        dry_run: true,
        data: Vec::new(),
    };
    let mut ask = Wish { head, data: Arc::new(backup.state) };
    let call = |mut node: Node, ask: Request<Wish>| async move { node.restore(ask.map(Wish::messages)).await };
    let is_repeated = cli.request_id.is_some();
    if !is_repeated || wish.dry_run {
        let judged = cluster.ask(Kind::Patient, ask.clone(), call).await?;
        if wish.dry_run || screen.output == Output::Table {
            screen.show(&judged, || cluster_page::side_by_side(&backup.header, &judged))?;
        }
        if wish.dry_run {
            return Ok(Exit::Ok);
        }
    }
    confirm_name(&cluster, &name, wish.yes.as_deref(), "cluster")?;
    ask.head.dry_run = false;
    ask.head.confirm_cluster.clone_from(&name);
    let done = cluster.ask(Kind::Write, ask, call).await?;
    screen.show(&done, || cluster_page::restored(&name, &done))?;
    Ok(Exit::Ok)
}
