//! The primary without its watchdog, without its guard, without the other region.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::{a_stall_at_most, leased, longest_stall, patient, play_bound, rows_after};
use crate::lab::parts::Lab;
use crate::lab::watch::group;
use crate::lab::{DR, HOME, lease, wait};
use crate::scene::nothing_happened;

/// P7: with every node dead the primary serves on, as long as its guard reaches the standby's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_primary_outlives_the_watchdog_by_its_standbys_hold() -> Result<()> {
    play_bound(leased(), async |lab: &mut Lab| {
        // Holds begin with the first grant that tells their ground.
        wait::pause(Duration::from_secs(1)).await;
        for node in &mut lab.nodes {
            node.kill()?;
        }
        wait::pause(Duration::from_millis(lease::TTL_MS * 4)).await;
        rows_after(lab, SystemTime::now(), Duration::from_secs(5)).await.context("long after the watchdog's end")?;

        // Without its standby's guard too nobody renews it: it falls silent, which is what it is for.
        lab.guards[DR].kill()?;
        wait::until("the primary to fall silent", Duration::from_secs(20), async || {
            let row = lab.client()?.newest().context("no row")?;
            let quiet = row.at.elapsed().unwrap_or_default();
            ensure!(quiet > Duration::from_millis(lease::TTL_MS), "a row {quiet:?} ago");
            Ok(())
        })
        .await
    })
    .await
}

/// The other region is dead whole (standby, guard, sshd, service, node), the two nodes left are a quorum: the leader's grants alone keep
/// the primary serving, and nothing is done about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_primary_serves_on_when_the_other_region_is_dead() -> Result<()> {
    play_bound(leased(), async |lab: &mut Lab| {
        lab.standby.kill()?;
        lab.guards[DR].kill()?;
        lab.hosts.get_mut(DR).map(|host| host.kill()).transpose()?;
        lab.node_mut("hanoi-1")?.kill()?;
        let dead = SystemTime::now();
        wait::pause(Duration::from_millis(lease::TTL_MS * 5)).await;
        rows_after(lab, SystemTime::now(), Duration::from_secs(5))
            .await
            .context("long after the other region's end")?;
        println!("the client's longest wait {:?}", longest_stall(lab, dead)?);
        let status = lab.status().await?;
        ensure!(group(&status)?.lease.is_some(), "the lease is not bound any more: {:?}", group(&status)?);
        ensure!(lab.runs().await?.is_empty(), "{:?}", lab.runs().await?);
        ensure!(lab.primary.timeline().await? == 1, "timeline {}", lab.primary.timeline().await?);
        nothing_happened(lab)
    })
    .await
}

/// The resident guard alone dies: clients stall for as long as it is gone, nothing is failed over, and they go on after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_guard_costs_a_stall_and_no_failover() -> Result<()> {
    play_bound(patient(20_000), async |lab: &mut Lab| {
        lab.guards[HOME].kill()?;
        wait::pause(Duration::from_millis(lease::TTL_MS * 2)).await;
        let config = lab.folder.path.join(HOME).join("guard.toml");
        let back = SystemTime::now();
        let guard = lease::serve(&lab.folder, HOME, &config)?;
        lab.guards.insert(HOME.to_owned(), guard);
        rows_after(lab, back, Duration::from_secs(20)).await?;
        a_stall_at_most(lab).await
    })
    .await
}

/// The resident guard alone is frozen for longer than its TTL, the hold-down above that: a stall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_guard_under_a_longer_hold_down_costs_a_stall() -> Result<()> {
    play_bound(patient(20_000), async |lab: &mut Lab| {
        let frozen = SystemTime::now();
        lab.guards[HOME].freeze();
        wait::pause(Duration::from_millis(lease::TTL_MS * 3)).await;
        let newest = lab.client()?.newest().context("no row")?;
        ensure!(newest.at.elapsed()? > Duration::from_millis(lease::TTL_MS), "a row {:?} ago", newest.at.elapsed()?);
        lab.guards[HOME].thaw();
        rows_after(lab, SystemTime::now(), Duration::from_secs(20)).await?;
        println!("the client's longest wait {:?}", longest_stall(lab, frozen)?);
        lab.until_ready().await?;
        a_stall_at_most(lab).await
    })
    .await
}
