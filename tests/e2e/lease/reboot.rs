//! The primary's host reboots: before a failover its database comes up again, after one it does not.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use watchdog::proto::RunPhase;

use super::{a_stall_at_most, at_new_side, bound, patient, play_bound, rows_after};
use crate::lab::boot::{reboot, start_database};
use crate::lab::parts::Lab;
use crate::lab::watch::brief;
use crate::lab::{HOME, lease, wait};

/// The boot gate's exit codes (docs/GUARD.md).
const LATCHED: i32 = 40;
const NO_LEASE: i32 = 42;

/// The resident guard, as its unit starts it at boot.
fn start_guard(lab: &mut Lab) -> Result<()> {
    let config = lab.folder.path.join(HOME).join("guard.toml");
    let guard = lease::serve(&lab.folder, HOME, &config)?;
    lab.guards.insert(HOME.to_owned(), guard);
    Ok(())
}

/// What stands in for a reboot: tests/lab/boot.rs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_host_rebooted_by_stand_ins_serves_before_a_failover_and_not_after() -> Result<()> {
    play_bound(patient(15_000), async |lab: &mut Lab| {
        reboot(lab, HOME)?;
        start_guard(lab)?;
        let Lab { primary, folder, .. } = &mut *lab;
        let started = start_database(folder, primary, 30).await?;
        ensure!(started.is_ok(), "nobody else serves, and yet: {started:?}");
        rows_after(lab, SystemTime::now(), Duration::from_secs(20)).await?;
        let Lab { hosts, services, folder, .. } = &mut *lab;
        hosts.get_mut(HOME).context("a host there")?.start(folder).await?;
        services[HOME].start().await?;
        lab.until_ready().await?;
        bound(lab).await?;
        a_stall_at_most(lab).await?;

        reboot(lab, HOME)?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        ensure!(brief(&run).contains("lease expired"), "by what proof? {}", brief(&run));
        at_new_side(lab).first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
        start_guard(lab)?;
        let Lab { primary, folder, .. } = &mut *lab;
        let shut = start_database(folder, primary, 3).await?.err().context("it was let start beside its successor")?;
        println!("exit code {}: {}", shut.code, shut.why);
        ensure!(shut.code == NO_LEASE && shut.why.contains("hanoi serves, not hcmc"), "{shut:?}");
        ensure!(!primary.is_running(), "it runs");

        // Once it can be reached it is fenced in earnest: from then on it needs no guard to stay shut.
        let Lab { hosts, folder, .. } = &mut *lab;
        hosts.get_mut(HOME).context("a host there")?.start(folder).await?;
        wait::until("the boot gate to be latched", Duration::from_secs(60), async || {
            let Lab { primary, folder, .. } = &mut *lab;
            let shut = start_database(folder, primary, 0).await?.err().context("it was let start")?;
            ensure!(shut.code == LATCHED, "{shut:?}");
            Ok(())
        })
        .await?;
        ensure!(lab.standby.timeline().await? == 2, "timeline {}", lab.standby.timeline().await?);
        Ok(())
    })
    .await
}
