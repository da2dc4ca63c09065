//! Leaders killed or frozen in the middle of a run, by real signals.

use std::time::Duration;

use anyhow::{Result, ensure};
use watchdog::proto::RunPhase;

use crate::lab::parts::{Lab, Options};
use crate::lab::process::tail;
use crate::lab::trip::{self, Point};
use crate::lab::{DR, wait};
use crate::scene::{each_effect_once, fast, play, points_at};

/// Kills the leader while `step` is held at `point`; the next one brings the run to its end, and nothing twice.
async fn killed_at(step: &'static str, point: Point) -> Result<()> {
    play(Options { trips: true, ..fast() }, async |lab: &mut Lab| {
        trip::arm(&lab.folder.path, step, point)?;
        lab.kill_home()?;
        trip::reached(&lab.folder.path, step, point, Duration::from_secs(30)).await?;
        let leader = lab.leader().await?;
        lab.node_mut(&leader)?.kill()?;
        trip::release(&lab.folder.path, step, point)?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        lab.client()?.first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
        ensure!(run.claims.len() >= 2, "nobody took over: {:?}", run.claims);
        ensure!(run.claims.iter().any(|claim| claim.node == leader), "{leader} never claimed: {:?}", run.claims);
        ensure!(lab.runs().await?.len() == 1, "a second run: {:?}", lab.runs().await?);
        ensure!(lab.standby.timeline().await? == 2, "promoted more than once");
        points_at(lab, DR)?;
        each_effect_once(lab)
    })
    .await
}

macro_rules! killed {
    ($($name:ident: $step:literal, $point:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> Result<()> {
            killed_at($step, Point::$point).await
        }
    )+};
}

killed! {
    p6_leader_killed_before_the_fence: "fence", Before;
    p6_leader_killed_after_the_fence: "fence", After;
    p6_leader_killed_before_dns: "dns", Before;
    p6_leader_killed_after_dns: "dns", After;
    p6_leader_killed_before_promote: "promote", Before;
    p6_leader_killed_after_promote: "promote", After;
    p6_leader_killed_before_services: "services", Before;
    p6_leader_killed_after_services: "services", After;
    p6_leader_killed_before_verify: "verify", Before;
    p6_leader_killed_after_verify: "verify", After;
}

/// Frozen with its updates on the way, thawed after another finished: everything stays as the other left it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_leader_frozen_and_thawed_changes_nothing() -> Result<()> {
    play(Options { trips: true, ..fast() }, async |lab: &mut Lab| {
        let folder = lab.folder.path.clone();
        for step in ["dns", "promote"] {
            trip::arm(&folder, step, Point::Before)?;
        }
        lab.kill_home()?;
        for step in ["dns", "promote"] {
            trip::reached(&folder, step, Point::Before, Duration::from_secs(30)).await?;
        }
        let frozen = lab.leader().await?;
        lab.node(&frozen)?.freeze()?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        let last = run.claims.last().map(|claim| claim.token.clone()).unwrap_or_default();
        ensure!(run.claims.len() >= 2, "nobody took over: {:?}", run.claims);
        let zone = lab.zone_token().await?;
        ensure!(zone.contains(&last), "the zone holds {zone}, the last claim is {last}");

        // What the frozen leader had sent arrives now, and so does its own mind.
        for step in ["dns", "promote"] {
            trip::release(&folder, step, Point::Before)?;
        }
        lab.node(&frozen)?.thaw()?;
        wait::until_true("the thawed node to follow", Duration::from_secs(30), async || {
            let leader = lab.leader().await.unwrap_or_default();
            !leader.is_empty() && lab.node(&frozen).is_ok_and(|node| node.part().is_ok())
        })
        .await?;
        let log = lab.node(&frozen)?.part()?.log.clone();
        // Refused by name, or, where its own deadline had passed by then, unknown: but told, never silent.
        wait::until("the thawed node to say how its attempt ended", Duration::from_secs(30), async || {
            let text = std::fs::read_to_string(&log)?;
            let first = run.claims.first().map(|claim| claim.token.clone()).unwrap_or_default();
            let told = text.lines().find(|line| line.contains("not done") && line.contains(&format!("token={first}")));
            ensure!(told.is_some(), "its log ends with:\n{}", tail(&log));
            Ok(())
        })
        .await?;
        let guard = lab.folder.log(&format!("guard-{DR}"));
        wait::until("the guard to refuse the late promote by name", Duration::from_secs(30), async || {
            let text = std::fs::read_to_string(&guard)?;
            let refused =
                text.lines().any(|line| line.contains("\"action\":\"promote\"") && line.contains("lower_token"));
            ensure!(refused, "the guard's log ends with:\n{}", tail(&guard));
            Ok(())
        })
        .await?;

        ensure!(lab.zone_token().await? == zone, "the zone's token moved: {}", lab.zone_token().await?);
        points_at(lab, DR)?;
        // The thawed node may be asked before it has caught up.
        wait::until("every node to show the run as it ended", Duration::from_secs(20), async || {
            let after = lab.run(&run.summary.clone().unwrap_or_default().id).await?;
            ensure!(after == run, "the run changed after its end, from {run:?} to {after:?}");
            Ok(())
        })
        .await?;
        ensure!(lab.runs().await?.len() == 1 && lab.standby.timeline().await? == 2, "something came twice");
        each_effect_once(lab)
    })
    .await
}
