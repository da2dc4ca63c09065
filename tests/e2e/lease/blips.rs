//! What is shorter than the hold-down: a stall at most.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use watchdog::guard::host::boottime_ms;
use watchdog::guard::lease::files;

use super::{a_stall_at_most, bound, guard_files, longest_stall, patient, play_bound, rows_after};
use crate::lab::parts::{Lab, Options, Pace};
use crate::lab::{HOME, hub, wait};

/// The region is cut off for so long; once all is seen up again nothing must have happened.
async fn blip(lab: &Lab, lasts: Duration) -> Result<()> {
    let (hub, cut) = (lab.hub()?, SystemTime::now());
    hub.cut_off(HOME)?;
    wait::pause(lasts).await;
    hub.heal()?;
    let healed = SystemTime::now();
    wait::until("the lease to be renewed again", Duration::from_secs(20), async || {
        let now = files::now(&guard_files(lab, HOME)).map_err(anyhow::Error::msg)?;
        ensure!(now.passes(boottime_ms()), "{}", now.in_words());
        Ok(())
    })
    .await?;
    println!("cut off for {lasts:?}: the lease is back {:?} after it was healed", healed.elapsed()?);
    rows_after(lab, healed, Duration::from_secs(20)).await?;
    let stalled = longest_stall(lab, cut)?;
    println!("  the client's longest wait {stalled:?}");
    lab.until_ready().await?;
    bound(lab).await?;
    a_stall_at_most(lab).await.with_context(|| format!("after a blip of {lasts:?}"))
}

/// Under a hold-down of ten seconds, the other settings as shipped: 1.5 s and 2.5 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blips_within_the_hold_down_cost_a_stall() -> Result<()> {
    let changes = vec![("hold_down_ms = 3000".to_owned(), "hold_down_ms = 10000".to_owned())];
    let options = Options { lease: true, pace: Pace::Default, changes, ..Options::default() };
    hub::alone("lease::blips::blips_within_the_hold_down_cost_a_stall", async || {
        play_bound(options, async |lab: &mut Lab| {
            blip(lab, Duration::from_millis(1500)).await?;
            blip(lab, Duration::from_millis(2500)).await
        })
        .await
    })
    .await
}

/// Under a hold-down of twenty seconds: a cut of five, and a primary that crashes and starts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_cut_and_a_restart_under_a_longer_hold_down_cost_a_stall() -> Result<()> {
    hub::alone("lease::blips::a_longer_cut_and_a_restart_under_a_longer_hold_down_cost_a_stall", async || {
        play_bound(patient(20_000), async |lab: &mut Lab| {
            blip(lab, Duration::from_secs(5)).await?;
            let Lab { primary, folder, .. } = &mut *lab;
            let crash = SystemTime::now();
            primary.kill()?;
            primary.start(folder).await?;
            rows_after(lab, SystemTime::now(), Duration::from_secs(20)).await?;
            println!("a crash and a start: the client's longest wait {:?}", longest_stall(lab, crash)?);
            lab.until_ready().await?;
            bound(lab).await?;
            a_stall_at_most(lab).await
        })
        .await
    })
    .await
}
