//! Votes: a minority never acts.

use std::time::Duration;

use anyhow::{Result, ensure};
use watchdog::proto::RunPhase;

use crate::lab::nodes::ctl;
use crate::lab::parts::{Lab, Options};
use crate::lab::watch::status_of;
use crate::lab::{DR, GROUP, wait};
use crate::scene::{each_effect_once, fast, nothing_happened, play, points_at};

/// The leader cut off from both others: it starts nothing, they do, and it accepts their history when healed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_leader_cut_off_starts_nothing() -> Result<()> {
    play(Options { links: true, ..fast() }, async |lab: &mut Lab| {
        let alone = lab.leader().await?;
        let names: Vec<String> = lab.nodes.iter().map(|node| node.name.clone()).collect();
        for other in names.iter().filter(|name| **name != alone) {
            lab.links.cut(&alone, other);
        }
        lab.kill_home()?;
        let listen = lab.node(&alone)?.listen;
        let says_so = wait::until("the node alone to say that it has no quorum", Duration::from_secs(20), async || {
            let standing = status_of(listen).await?.standing.unwrap_or_default();
            ensure!(!standing.has_quorum, "{standing:?}");
            Ok(())
        });
        says_so.await?;
        // What it says then are words, with the exit code for them.
        for words in [&["failover", GROUP, "--to", DR, "--dry-run"][..], &["pause", GROUP, "--reason", "a test"]] {
            let said = ctl(listen, &[words, &["--timeout", "2s"]].concat())
                .await
                .expect_err("alone it can do nothing")
                .to_string();
            ensure!(said.contains("exit status: 4") && said.contains("no quorum: "), "{words:?}: {said}");
            ensure!(!said.contains("NodeId(") && !said.contains("got:"), "raw text of a library: {said}");
        }
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        ensure!(run.claims.iter().all(|claim| claim.node != alone), "{alone} acted: {:?}", run.claims);
        each_effect_once(lab)?;
        points_at(lab, DR)?;

        lab.links.heal();
        wait::until("the healed node to have quorum", Duration::from_secs(30), async || {
            let status = status_of(listen).await?;
            let standing = status.standing.clone().unwrap_or_default();
            ensure!(standing.has_quorum && !standing.leader.is_empty(), "{standing:?}");
            Ok(())
        })
        .await?;
        // It may know its leader before it has caught up.
        wait::until("the healed node to show the one run", Duration::from_secs(20), async || {
            let runs = lab.runs().await?;
            ensure!(runs.len() == 1, "{runs:?}");
            Ok(())
        })
        .await?;
        each_effect_once(lab)
    })
    .await
}

/// One node left of three, the region dead: nothing happens, until a second one is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_one_node_of_three_starts_nothing() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        lab.node_mut("hcmc-1")?.kill()?;
        lab.node_mut("hanoi-1")?.kill()?;
        lab.kill_home()?;
        // Many times the hold-down.
        wait::pause(Duration::from_secs(6)).await;
        nothing_happened(lab)?;
        ensure!(lab.standby.in_recovery().await?, "promoted by a minority");

        let Lab { nodes, folder, .. } = lab;
        for node in nodes.iter_mut().filter(|node| node.name == "hanoi-1") {
            node.start_again(folder)?;
        }
        lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        each_effect_once(lab)
    })
    .await
}
