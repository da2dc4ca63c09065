//! What must be so once everything is mended: every node tells the same story, and nothing is open.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::proto::admin_client::AdminClient;
use watchdog::proto::{GetStatusRequest, Run, Standing, StepPhase};

use super::nodes::Node;
use super::parts::Lab;
use super::watch::{brief, group, status_of};
use super::{pki, wait};

/// Every running node has a leader and quorum, all name the same leader, token and serving region, and there were so many
/// runs, none of them open.
pub async fn at_rest(lab: &Lab, runs: usize) -> Result<()> {
    wait::until("every node to tell the same story", Duration::from_secs(40), async || {
        let mut stories = BTreeSet::new();
        for node in lab.nodes.iter().filter(|node| node.is_running()) {
            let status = status_of(node.listen).await.with_context(|| node.name.clone())?;
            let standing = status.standing.clone().unwrap_or_default();
            ensure!(standing.has_quorum && !standing.leader.is_empty(), "{}: {standing:?}", node.name);
            let group = group(&status)?;
            ensure!(group.open_run.is_none(), "{}: a run is open", node.name);
            let serving = group.serving.clone().unwrap_or_default();
            stories.insert((standing.leader, group.token.clone(), serving.region, serving.epoch));
        }
        ensure!(stories.len() == 1, "they tell {stories:?}");
        let found = lab.runs().await?;
        ensure!(found.len() == runs, "{} runs instead of {runs}: {found:?}", found.len());
        Ok(())
    })
    .await
}

/// What a node says of itself, whether or not it knows the group.
pub async fn standing(node: &Node) -> Result<Standing> {
    let asked = async {
        let mut client = AdminClient::new(pki::connect(node.listen, Duration::from_secs(2)).await?);
        let answer = client.get_status(GetStatusRequest { group: String::new(), local: true }).await?;
        answer.into_inner().standing.context("an answer without a standing")
    };
    tokio::time::timeout(Duration::from_secs(2), asked).await?
}

/// The newest run, still open, once `step` is in one of these phases.
pub async fn until_step(lab: &Lab, step: &str, phases: &[StepPhase]) -> Result<Run> {
    wait::until(&format!("{step} to be {phases:?}"), Duration::from_secs(30), async || {
        let run = lab.newest_run(Duration::ZERO).await?;
        let found = run.steps.iter().find(|found| found.id == step).with_context(|| brief(&run))?;
        let is_there = phases.contains(&StepPhase::try_from(found.phase).unwrap_or_default());
        ensure!(is_there && run.summary.as_ref().is_some_and(|run| run.closed_at_ms.is_none()), "{}", brief(&run));
        Ok(run)
    })
    .await
}

/// The newest run, once its timeline says this of `step`.
pub async fn until_told(lab: &Lab, step: &str, words: &str) -> Result<Run> {
    wait::until(&format!("the run's timeline to say {words:?} of {step}"), Duration::from_secs(30), async || {
        let run = lab.newest_run(Duration::ZERO).await?;
        let told = run.events.iter().any(|event| event.step == step && event.what.contains(words));
        ensure!(told, "{:#?}", run.events);
        Ok(run)
    })
    .await
}

/// A step's own settings, to be put into the nodes' configuration.
pub fn step_settings(id: &str, settings: &str) -> (String, String) {
    let verify = "[[group.step]]\nid = \"verify\"";
    (verify.to_owned(), format!("[[group.step]]\nid = \"{id}\"\n{settings}\n\n{verify}"))
}
