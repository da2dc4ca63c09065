//! Processes killed in the middle of a run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::proto::RunPhase;

use crate::lab::parts::{Lab, Options};
use crate::lab::trip::{self, Point};
use crate::scene::{each_effect_once, fast, play};

/// A follower more or less: two of three go on, and its end is no reason to claim anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_follower_killed_while_the_promotion_is_asked_for() -> Result<()> {
    play(Options { trips: true, ..fast() }, async |lab: &mut Lab| {
        trip::arm(&lab.folder.path, "promote", Point::Before)?;
        lab.kill_home()?;
        trip::reached(&lab.folder.path, "promote", Point::Before, Duration::from_secs(30)).await?;
        let leader = lab.leader().await?;
        let follower = lab.nodes.iter_mut().find(|node| node.name != leader).context("a follower")?;
        follower.kill()?;
        trip::release(&lab.folder.path, "promote", Point::Before)?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        ensure!(run.claims.len() == 1, "claimed anew: {:?}", run.claims);
        each_effect_once(lab)
    })
    .await
}
