//! One-way cuts: one side hears the other, and not the reverse. By TCP, which is what
//! nodes speak, so that a connection goes on one way for as long as it lives and no new one comes about.

use std::time::Duration;

use anyhow::{Result, ensure};
use watchdog::proto::RunPhase;

use crate::calm::at_rest;
use crate::lab::links::Links;
use crate::lab::nodes::name_at;
use crate::lab::parts::{Lab, Options};
use crate::lab::{DR, HOME, WITNESS, wait};
use crate::scene::{each_effect_once, fast, nothing_happened, play, points_at};

/// Cuts something between the leader and each other node and kills home: it fails over once, nobody who lacks a majority
/// takes part, and once healed all is at rest.
async fn leader_cut(cut: fn(&Links, &str, &str), leader_may_act: bool) -> Result<()> {
    play(Options { links: true, ..fast() }, async |lab: &mut Lab| {
        let leader = lab.leader().await?;
        let names: Vec<String> = lab.nodes.iter().map(|node| node.name.clone()).collect();
        for other in names.iter().filter(|name| **name != leader) {
            cut(&lab.links, &leader, other);
        }
        lab.kill_home()?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        let acted = run.claims.iter().any(|claim| claim.node == leader);
        ensure!(leader_may_act || !acted, "{leader} acted: {:?}", run.claims);
        each_effect_once(lab)?;
        lab.links.heal();
        at_rest(lab, 1).await?;
        ensure!(lab.standby.timeline().await? == 2, "promoted more than once");
        points_at(lab, DR)?;
        each_effect_once(lab)
    })
    .await
}

/// It hears everybody's reports and answers, and nobody hears it: the others elect another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p8_a_leader_that_nobody_hears() -> Result<()> {
    leader_cut(|links, leader, other| links.mute(leader, other), false).await
}

/// Everybody hears its heartbeats, and it hears nobody's answers: it commits nothing, and holds nobody up for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p8_a_leader_that_hears_nobody() -> Result<()> {
    leader_cut(|links, leader, other| links.mute(other, leader), false).await
}

/// Its firewall lets nothing out that it begins itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p8_a_leader_that_can_dial_nobody() -> Result<()> {
    leader_cut(|links, leader, other| links.cut_one_way(leader, other), false).await
}

/// Its firewall lets nothing in that others begin: it leads with a majority, and gets no reports. Whoever acts in the end,
/// what it sees alone is not enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p8_a_leader_that_nobody_can_dial() -> Result<()> {
    leader_cut(|links, leader, other| links.cut_one_way(other, leader), true).await
}

/// The serving region's node hears the others and is not heard: that is no vote for anything. The region's real end is
/// still answered, by the two that are left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_node_that_is_not_heard_is_no_vote() -> Result<()> {
    play(Options { links: true, ..fast() }, async |lab: &mut Lab| {
        let mute = name_at(HOME);
        for other in [name_at(DR), name_at(WITNESS)] {
            lab.links.mute(&mute, &other);
        }
        // Many times the hold-down.
        wait::pause(Duration::from_secs(4)).await;
        ensure!(lab.runs().await?.is_empty(), "{:?}", lab.runs().await?);
        nothing_happened(lab)?;
        lab.kill_home()?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        ensure!(run.claims.iter().all(|claim| claim.node != mute), "{mute} acted: {:?}", run.claims);
        lab.links.heal();
        at_rest(lab, 1).await?;
        each_effect_once(lab)
    })
    .await
}
