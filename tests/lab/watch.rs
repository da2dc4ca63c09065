//! Looking at the nodes from outside, over their admin service.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::proto::admin_client::AdminClient;
use watchdog::proto::{
    GetRunRequest, GetStatusRequest, GetStatusResponse, GroupStatus, ListRunsRequest, Run, RunPhase, RunSummary,
    Standing, Verdict, Vote,
};

use super::nodes::name_at;
use super::parts::Lab;
use super::{GROUP, HOME, WITNESS, pki, wait};

/// A node that does not answer within this is passed over.
const PATIENCE: Duration = Duration::from_millis(800);

async fn dial(node: SocketAddr) -> Result<AdminClient<tonic::transport::Channel>> {
    Ok(AdminClient::new(pki::connect(node, PATIENCE).await?))
}

/// The status as one node tells it.
pub async fn status_of(node: SocketAddr) -> Result<GetStatusResponse> {
    let ask = GetStatusRequest { group: GROUP.to_owned(), local: false };
    Ok(dial(node).await?.get_status(ask).await?.into_inner())
}

/// The demo's group.
pub fn group(status: &GetStatusResponse) -> Result<&GroupStatus> {
    status.groups.iter().find(|group| group.name == GROUP).context("the status has no such group")
}

/// A node cut off from the others tells an old story.
fn knows(standing: Option<&Standing>) -> Result<()> {
    ensure!(standing.is_some_and(|it| it.has_quorum && !it.leader.is_empty()), "no quorum or leader: {standing:?}");
    Ok(())
}

/// A vote's verdict.
pub fn verdict(vote: &Vote) -> Verdict {
    Verdict::try_from(vote.verdict).unwrap_or_default()
}

/// Where a run stands.
pub fn phase(run: &Run) -> RunPhase {
    run.summary.as_ref().and_then(|summary| RunPhase::try_from(summary.phase).ok()).unwrap_or_default()
}

impl Lab {
    /// The status as the first running node that knows a leader and has quorum tells it.
    pub async fn status(&self) -> Result<GetStatusResponse> {
        let mut refusal = anyhow::anyhow!("no node runs");
        for node in self.nodes.iter().rev().filter(|node| node.is_running()) {
            match status_of(node.listen).await {
                Ok(status) => match knows(status.standing.as_ref()) {
                    Ok(()) => return Ok(status),
                    Err(error) => refusal = error.context(node.name.clone()),
                },
                Err(error) => refusal = error.context(node.name.clone()),
            }
        }
        Err(refusal)
    }

    /// The leader's name.
    pub async fn leader(&self) -> Result<String> {
        Ok(self.status().await?.standing.map(|standing| standing.leader).unwrap_or_default())
    }

    /// All runs of the group, newest first.
    pub async fn runs(&self) -> Result<Vec<RunSummary>> {
        let mut refusal = anyhow::anyhow!("no node runs");
        for node in self.nodes.iter().rev().filter(|node| node.is_running()) {
            let ask = ListRunsRequest { group: GROUP.to_owned(), limit: 100, before_run_id: String::new() };
            let answer = async {
                let answer = dial(node.listen).await?.list_runs(ask).await?.into_inner();
                knows(answer.standing.as_ref())?;
                Ok(answer.runs)
            };
            match answer.await {
                Ok(runs) => return Ok(runs),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// One run in full.
    pub async fn run(&self, id: &str) -> Result<Run> {
        let mut refusal = anyhow::anyhow!("no node runs");
        for node in self.nodes.iter().rev().filter(|node| node.is_running()) {
            let ask = GetRunRequest { run_id: id.to_owned() };
            let answer = async {
                let answer = dial(node.listen).await?.get_run(ask).await?.into_inner();
                knows(answer.standing.as_ref())?;
                answer.run.context("an answer without a run")
            };
            match answer.await {
                Ok(run) => return Ok(run),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// The newest run in full, waited for.
    pub async fn newest_run(&self, within: Duration) -> Result<Run> {
        wait::until("a run to be opened", within, async || {
            let runs = self.runs().await?;
            self.run(&runs.first().context("no run")?.id).await
        })
        .await
    }

    /// Waits until the newest run is in one of these phases.
    pub async fn until_run(&self, phases: &[RunPhase], within: Duration) -> Result<Run> {
        let what = format!("the run to be {phases:?}");
        wait::until(&what, within, async || {
            let runs = self.runs().await?;
            let run = self.run(&runs.first().context("no run")?.id).await?;
            ensure!(phases.contains(&phase(&run)), "it is {:?}: {}", phase(&run), brief(&run));
            Ok(run)
        })
        .await
    }

    /// Waits until the witness leads, as it shall when it can; goes on when it does not.
    pub async fn until_witness_leads(&self) {
        let wish = wait::until("the witness to lead", Duration::from_secs(15), async || {
            let leader = self.leader().await?;
            ensure!(leader == name_at(WITNESS), "{leader} leads");
            Ok(())
        });
        if let Err(error) = wish.await {
            println!("  note: {error:#}");
        }
    }

    /// Waits until the nodes have a leader, and every node sees every trigger target of home up.
    pub async fn until_ready(&self) -> Result<()> {
        let wanted = self.nodes.iter().filter(|node| node.is_running()).count();
        wait::until("the nodes to have a leader and to see everything up", Duration::from_secs(60), async || {
            for node in self.nodes.iter().filter(|node| node.is_running()) {
                node.part()?.check_running()?;
            }
            let status = self.status().await?;
            for target in ["hcmc-db", "hcmc-api", "hanoi-db"] {
                let votes = group(&status)?.votes.iter().filter(|vote| vote.target == target);
                let up = votes.filter(|vote| verdict(vote) == Verdict::Up).count();
                ensure!(up >= wanted, "{target}: {up} of {wanted} see it up: {:?}", group(&status)?.votes);
            }
            let streaming = group(&status)?.replication.iter().any(|it| it.streaming && it.expected_loss_ms.is_some());
            ensure!(streaming, "the standby's state is not known yet: {:?}", group(&status)?.replication);
            ensure!(group(&status)?.serving.as_ref().is_some_and(|it| it.region == HOME), "{HOME} does not serve yet");
            Ok(())
        })
        .await
    }
}

/// A run's steps and their phases, for an error.
pub fn brief(run: &Run) -> String {
    let stuck =
        run.stuck.as_ref().map(|stuck| format!("stuck at {}: {}; ", stuck.step, stuck.reason)).unwrap_or_default();
    let steps = run.steps.iter().map(|step| {
        let word = watchdog::proto::StepPhase::try_from(step.phase).unwrap_or_default();
        format!("{} {word:?} ({})", step.id, step.detail)
    });
    stuck + &steps.collect::<Vec<_>>().join(", ")
}
