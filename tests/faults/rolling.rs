//! Every node is stopped and started again, one after the other, while a run is open.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::proto::RunPhase;

use crate::calm::at_rest;
use crate::lab::parts::{Lab, Options};
use crate::lab::trip::{self, Point};
use crate::lab::watch::status_of;
use crate::lab::{DR, wait};
use crate::scene::{each_effect_once, fast, play, points_at};

/// As a service manager does it: SIGTERM, start, and on with the next one once this one is in contact again.
async fn restart(lab: &mut Lab, name: &str) -> Result<()> {
    let Lab { nodes, folder, .. } = lab;
    let node = nodes.iter_mut().find(|node| node.name == name).context("a node of that name")?;
    node.stop()?;
    node.start_again(folder)?;
    let listen = node.listen;
    wait::until(&format!("{name} to be in contact again"), Duration::from_secs(30), async || {
        let standing = status_of(listen).await?.standing.unwrap_or_default();
        ensure!(standing.has_quorum && !standing.leader.is_empty(), "{standing:?}");
        Ok(())
    })
    .await
}

/// The leader of the moment is the one that is restarted, three times over, each time with a step in hand: the run is
/// handed on each time, and completes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_every_node_is_restarted_during_a_run() -> Result<()> {
    play(Options { trips: true, ..fast() }, async |lab: &mut Lab| {
        let steps = ["fence", "promote", "services"];
        for step in steps {
            trip::arm(&lab.folder.path, step, Point::Before)?;
        }
        lab.kill_home()?;
        let mut restarted = Vec::new();
        for step in steps {
            trip::reached(&lab.folder.path, step, Point::Before, Duration::from_secs(40)).await?;
            let leader = lab.leader().await?;
            restart(lab, &leader).await?;
            restarted.push(leader);
            trip::release(&lab.folder.path, step, Point::Before)?;
        }
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        // Whoever of the three did not lead meanwhile has its turn too.
        let others: Vec<String> = lab.nodes.iter().map(|node| node.name.clone()).collect();
        for name in others.into_iter().filter(|name| !restarted.contains(name)) {
            restart(lab, &name).await?;
        }
        at_rest(lab, 1).await?;
        ensure!(run.claims.len() > steps.len(), "not handed on each time: {:?}", run.claims);
        ensure!(lab.standby.timeline().await? == 2, "promoted more than once");
        points_at(lab, DR)?;
        each_effect_once(lab)
    })
    .await
}
