//! The primary's region cut off from the others, while its clients reach it.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use watchdog::proto::RunPhase;

use super::{at_new_side, crowd_of, leased, play_bound};
use crate::lab::crowd::Late;
use crate::lab::frozen::until_fenced;
use crate::lab::parts::Lab;
use crate::lab::watch::{brief, status_of};
use crate::lab::{HOME, hub, lease, wait};

/// Cut off whole, PostgreSQL, guard and node together: the others fail over by the lease's end. The old side acknowledges nothing
/// after the new one's first row, although every client of it is heard; healed, it is fenced in earnest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_region_cut_off_is_silent_before_its_successor() -> Result<()> {
    let name = "lease::apart::p4_a_region_cut_off_is_silent_before_its_successor";
    hub::alone(name, async || {
        play_bound(leased(), async |lab: &mut Lab| {
            let crowd = crowd_of(lab).await?;
            let fault = SystemTime::now();
            lab.hub()?.cut_off(HOME)?;
            let eager = at_new_side(lab);
            let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
            ensure!(brief(&run).contains("lease expired"), "by what proof? {}", brief(&run));
            ensure!(run.claims.iter().all(|claim| claim.node != "hcmc-1"), "{:?}", run.claims);
            let first = eager.first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
            let (silence, before) = (first.at.duration_since(fault)?, crowd.rows());
            // Long enough for the cut side to do harm, if it could.
            wait::pause(Duration::from_millis(lease::TTL_MS * 5)).await;
            let cut = crowd.late(first.at, fault);
            lab.services[HOME].health().await.context("the region's clients must reach it all the while")?;
            lab.hub()?.heal()?;
            until_fenced(lab).await?;
            let late = crowd.late(first.at, fault);
            println!(
                "{before} rows before; the new side's first after {silence:?}; from then on {cut:?}, healed {late:?}"
            );
            ensure!(cut == Late::default() && late == Late::default(), "cut: {cut:?}, healed: {late:?}");
            ensure!(lab.standby.timeline().await? == 2, "timeline {}", lab.standby.timeline().await?);
            let listen = lab.node("hcmc-1")?.listen;
            wait::until("the region's own node to follow", Duration::from_secs(30), async || {
                let status = status_of(listen).await?;
                let serving = status.groups.first().and_then(|group| group.serving.clone()).context("no group")?;
                ensure!(serving.region != HOME, "{serving:?}");
                Ok(())
            })
            .await
        })
        .await
    })
    .await
}
