//! `watchdogctl readiness [GROUP]`: judged now by the leader; where it cannot, or of all groups at once, as it was last judged.

use serde::Serialize;

use super::call::{Cluster, Kind, Node, can_decide};
use super::error::{CliError, Exit};
use super::{Screen, readiness_page, seen_by};
use crate::proto::{self, ReadinessMark, ReadinessState};

/// One group, judged now.
pub async fn of_group(cluster: &Cluster, group: &str, to: Option<&str>, screen: Screen) -> Result<Exit, CliError> {
    let ask = proto::GetReadinessRequest { group: group.to_owned(), to_region: to.unwrap_or_default().to_owned() };
    let call = |mut node: Node, request| async move { node.get_readiness(request).await };
    let answer = match cluster.ask(Kind::Patient, ask, call).await {
        Ok(answer) => answer,
        Err(error @ (CliError::NoQuorum(_) | CliError::Unreachable(_))) => {
            return remembered(cluster, group, screen, error).await;
        }
        Err(error) => return Err(error),
    };
    screen.show(&answer, || readiness_page::page(&answer))?;
    Ok(if answer.ready { Exit::Ok } else { Exit::Failure })
}

/// Nobody can judge now: what a node remembers, said to be that.
async fn remembered(cluster: &Cluster, group: &str, screen: Screen, error: CliError) -> Result<Exit, CliError> {
    let ask = proto::GetStatusRequest { group: group.to_owned(), local: true };
    let Ok(status) = cluster.best_status(ask).await else { return Err(error) };
    let Some(mark) = status.groups.into_iter().find_map(|found| found.readiness) else { return Err(error) };
    let answer = proto::GetReadinessResponse {
        standing: status.standing,
        group: group.to_owned(),
        from_region: mark.from_region.clone(),
        to_region: mark.to_region.clone(),
        items: mark.items.clone(),
        ready: is_ready(&mark),
        remembered: Some(mark),
        ..proto::GetReadinessResponse::default()
    };
    screen.show(&answer, || readiness_page::page(&answer))?;
    super::text::tell(&format!("{error}; so nobody can judge now, and this is what was judged last"));
    Ok(Exit::Unreachable)
}

/// It would come up elsewhere, as far as is remembered.
pub(super) fn is_ready(mark: &ReadinessMark) -> bool {
    matches!(mark.verdict(), ReadinessState::Yes | ReadinessState::Weak) && !mark.is_of_earlier_epoch
}

/// Every group as it was last judged, for programs.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// How the node stood that told it.
    pub standing: Option<proto::Standing>,
    /// The groups, by name.
    pub groups: Vec<OverviewRow>,
}

/// One group.
#[derive(Debug, Serialize)]
pub struct OverviewRow {
    /// Its name.
    pub group: String,
    /// The region that serves; empty while none does.
    pub serving_region: String,
    /// `None` before the first judgement.
    pub readiness: Option<ReadinessMark>,
}

/// Every group, as it was last judged.
pub async fn of_all(cluster: &Cluster, screen: Screen) -> Result<Exit, CliError> {
    let status = cluster.best_status(proto::GetStatusRequest::default()).await?;
    let row = |group: proto::GroupStatus| OverviewRow {
        group: group.name,
        serving_region: group.serving.map(|serving| serving.region).unwrap_or_default(),
        readiness: group.readiness,
    };
    let overview = Overview { standing: status.standing, groups: status.groups.into_iter().map(row).collect() };
    screen.show(&overview, || readiness_page::overview(&overview))?;
    if !can_decide(overview.standing.as_ref()) {
        return Ok(seen_by(overview.standing.as_ref()));
    }
    let all_ready = overview.groups.iter().all(|row| row.readiness.as_ref().is_some_and(is_ready));
    Ok(if all_ready { Exit::Ok } else { Exit::Failure })
}
