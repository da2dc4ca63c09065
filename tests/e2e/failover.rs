//! A region dies: its group fails over, once, and the right people are told.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::demo::fail_over;
use crate::lab::parts::{Lab, Options, Zone};
use crate::lab::wait;
use crate::lab::{DR, HOME};
use crate::scene::{each_effect_once, fast, nothing_happened, play, points_at};

async fn everything_moves_once(lab: &mut Lab) -> Result<()> {
    let ending = fail_over(lab, None, false).await?;
    ensure!(ending.timeline == 2, "timeline {}", ending.timeline);
    ensure!(ending.balance.acknowledged > 0, "{:?}", ending.balance);
    points_at(lab, DR)?;
    each_effect_once(lab)?;
    ensure!(lab.services[DR].health().await?.0 == 200, "the service in {DR} is not well");
    ensure!(lab.runs().await?.len() == 1, "{:?}", lab.runs().await?);
    wait::until("both receivers to be told", Duration::from_secs(20), async || {
        for by in ["webhook", "pagerduty"] {
            let pages = lab.receivers.received();
            let told = pages.iter().any(|page| page.by == by && page.says("DR_FAILOVER_SUCCESS"));
            ensure!(told, "{by} was not told: {pages:?}");
        }
        Ok(())
    })
    .await?;
    let signed =
        lab.receivers.received().iter().filter(|page| page.by == "webhook").all(|page| page.signature.is_some());
    ensure!(signed, "a webhook came without its signature");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_dead_region_fails_over_once() -> Result<()> {
    play(fast(), everything_moves_once).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_dead_region_fails_over_once_on_route53() -> Result<()> {
    play(Options { zone: Zone::Route53, ..fast() }, everything_moves_once).await
}

/// A primary that restarts within the hold-down (3 s) causes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_shorter_than_the_hold_down_causes_nothing() -> Result<()> {
    play(Options::default(), async |lab: &mut Lab| {
        lab.kill_home()?;
        let Lab { primary, folder, .. } = lab;
        primary.start(folder).await?;
        lab.services[HOME].start().await?;
        lab.until_ready().await?;
        // Longer than the hold-down, so that what might begin late would have begun.
        wait::pause(Duration::from_secs(5)).await;
        ensure!(lab.runs().await?.is_empty(), "{:?}", lab.runs().await?);
        nothing_happened(lab)
    })
    .await
}
