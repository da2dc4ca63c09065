//! A region cut off from the others, both ways and one way, while everybody's clients reach it.
//!
//! Cut one way, a region whole (database, guard, SSH server, node) goes on in the other direction: what is on its way there
//! arrives, and its answer does not, or the other way round. No connection comes about in either.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use watchdog::proto::RunPhase;

use super::{a_stall_at_most, at_new_side, bound, crowd_of, leased, longest_stall, play_bound, rows_after};
use crate::calm::at_rest;
use crate::lab::crowd::Late;
use crate::lab::frozen::until_fenced;
use crate::lab::hub::{Hub, Way};
use crate::lab::parts::Lab;
use crate::lab::watch::{brief, group, status_of};
use crate::lab::{DR, HOME, hub, lease, wait};
use crate::scene::{each_effect_once, points_at};

/// How long a healthy group bears with a region that is cut one way: several hold-downs.
const BEARS: Duration = Duration::from_secs(10);

/// What passed between a region and the others, by the bridge's own count.
struct Passed<'a> {
    hub: &'a Hub,
    region: &'a str,
    before: [u64; 2],
}

impl<'a> Passed<'a> {
    fn since_now(hub: &'a Hub, region: &'a str) -> Result<Self> {
        Ok(Self { hub, region, before: [hub.passed(region, Way::Out)?, hub.passed(region, Way::In)?] })
    }

    /// Packets out of the region and into it.
    fn packets(&self) -> Result<[u64; 2]> {
        let now = [self.hub.passed(self.region, Way::Out)?, self.hub.passed(self.region, Way::In)?];
        Ok([now[0] - self.before[0], now[1] - self.before[1]])
    }

    /// Nothing passed the way that is cut, and something did the other way.
    fn only_against(&self, cut: Way) -> Result<()> {
        let [out, into] = self.packets()?;
        println!("while it was cut {} packets left {} and {} came in", out, self.region, into);
        let (silent, heard) = if cut == Way::Out { (out, into) } else { (into, out) };
        ensure!(silent == 0 && heard > 0, "cut {cut:?}: {out} packets out, {into} in");
        Ok(())
    }
}

/// The others, two of three votes, see the primary's region down and fail over by the lease's end, since no fence can be shown to
/// them. The old side acknowledges nothing and answers no read after the new one's first row, although every client of it is heard;
/// healed, it is fenced in earnest, its node learns who serves, each effect is once in the ledgers, and all is at rest.
async fn failed_over_while(lab: &mut Lab, cut: impl Fn(&Hub) -> Result<()>, way: Option<Way>) -> Result<()> {
    let crowd = crowd_of(lab).await?;
    let fault = SystemTime::now();
    cut(lab.hub()?)?;
    let passed = Passed::since_now(lab.hub()?, HOME)?;
    let eager = at_new_side(lab);
    let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
    ensure!(brief(&run).contains("lease expired"), "by what proof? {}", brief(&run));
    ensure!(run.claims.iter().all(|claim| claim.node != "hcmc-1"), "{:?}", run.claims);
    let first = eager.first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
    let (silence, before) = (first.at.duration_since(fault)?, crowd.rows());
    // Long enough for the cut side to do harm, if it could.
    wait::pause(Duration::from_millis(lease::TTL_MS * 5)).await;
    let late_cut = crowd.late(first.at, fault);
    lab.services[HOME].health().await.context("the region's clients must reach it all the while")?;
    if let Some(way) = way {
        passed.only_against(way)?;
    }
    let while_cut = if lab.primary.is_running() { "runs" } else { "is stopped" };
    lab.hub()?.heal()?;
    until_fenced(lab).await?;
    let late = crowd.late(first.at, fault);
    println!(
        "{before} rows before; the new side's first after {silence:?}; from then on {late_cut:?}, the old server {while_cut}; \
         healed {late:?}"
    );
    ensure!(late_cut == Late::default() && late == Late::default(), "cut: {late_cut:?}, healed: {late:?}");
    ensure!(lab.standby.timeline().await? == 2, "timeline {}", lab.standby.timeline().await?);
    let listen = lab.node("hcmc-1")?.listen;
    wait::until("the region's own node to follow", Duration::from_secs(30), async || {
        let status = status_of(listen).await?;
        let serving = status.groups.first().and_then(|group| group.serving.clone()).context("no group")?;
        ensure!(serving.region != HOME, "{serving:?}");
        Ok(())
    })
    .await?;
    at_rest(lab, 1).await?;
    points_at(lab, DR)?;
    each_effect_once(lab)
}

/// Cut off whole: the others fail over by the lease's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_region_cut_off_is_silent_before_its_successor() -> Result<()> {
    let name = "lease::apart::p4_a_region_cut_off_is_silent_before_its_successor";
    hub::alone(name, async || {
        play_bound(leased(), async |lab: &mut Lab| failed_over_while(lab, |hub| hub.cut_off(HOME), None).await).await
    })
    .await
}

async fn failed_over_while_cut(way: Way) -> Result<()> {
    play_bound(leased(), async |lab: &mut Lab| {
        failed_over_while(lab, |hub| hub.cut_off_one_way(HOME, way), Some(way)).await
    })
    .await
}

/// Nothing leaves it: its guard's requests for the lease do not arrive. An order to fence may arrive, on a session that is open, and
/// its answer does not: who carried it out is stopped and latched all the sooner, and nobody relies on that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_region_that_nobody_hears_is_silent_before_its_successor() -> Result<()> {
    let name = "lease::apart::p4_a_region_that_nobody_hears_is_silent_before_its_successor";
    hub::alone(name, async || failed_over_while_cut(Way::Out).await).await
}

/// Nothing reaches it: its guard goes on asking, on connections that are open is even granted the lease and held for, and hears of
/// neither. What was granted last is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_region_that_hears_nobody_is_silent_before_its_successor() -> Result<()> {
    let name = "lease::apart::p4_a_region_that_hears_nobody_is_silent_before_its_successor";
    hub::alone(name, async || failed_over_while_cut(Way::In).await).await
}

/// The other region cut one way, home healthy: home and witness are two of three votes, so the leader's grants go on, the primary
/// serves on, its lease stays bound, and nothing is done, however sure the cut node may be that home is gone. Healed, its standby
/// streams and holds again.
async fn nothing_done_while_cut(way: Way) -> Result<()> {
    play_bound(leased(), async |lab: &mut Lab| {
        let crowd = crowd_of(lab).await?;
        let cut = SystemTime::now();
        lab.hub()?.cut_off_one_way(DR, way)?;
        let passed = Passed::since_now(lab.hub()?, DR)?;
        wait::pause(BEARS).await;
        let late = SystemTime::now();
        rows_after(lab, late, Duration::from_secs(5)).await.context("while the other region is cut one way")?;
        crowd.all_answered(late).await?;
        println!("{} rows in all; the client's longest wait {:?}", crowd.rows(), longest_stall(lab, cut)?);
        let status = lab.status().await?;
        ensure!(group(&status)?.lease.is_some(), "the lease is not bound any more: {:?}", group(&status)?);
        a_stall_at_most(lab).await?;
        passed.only_against(way)?;
        lab.hub()?.heal()?;
        lab.until_ready().await?;
        bound(lab).await?;
        at_rest(lab, 0).await?;
        a_stall_at_most(lab).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_p8_a_primary_serves_on_when_the_other_region_is_not_heard() -> Result<()> {
    let name = "lease::apart::p7_p8_a_primary_serves_on_when_the_other_region_is_not_heard";
    hub::alone(name, async || nothing_done_while_cut(Way::Out).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_p8_a_primary_serves_on_when_the_other_region_hears_nobody() -> Result<()> {
    let name = "lease::apart::p7_p8_a_primary_serves_on_when_the_other_region_hears_nobody";
    hub::alone(name, async || nothing_done_while_cut(Way::In).await).await
}
