//! The old primary's host sleeps through its own failover, and wakes.

use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use watchdog::guard::egress::{Egress, Kind, Scope};
use watchdog::proto::RunPhase;

use super::table::{Round, print};
use super::{at_new_side, crowd_of, leased, leased_by_nftables, play_bound};
use crate::lab::client::Acknowledged;
use crate::lab::crowd::Late;
use crate::lab::frozen::until_fenced;
use crate::lab::parts::{Lab, Options};
use crate::lab::process::run;
use crate::lab::watch::brief;
use crate::lab::{GROUP, HOME, hub, lease, wait};

/// How long after the failover the old host wakes.
const ASLEEP: Duration = Duration::from_secs(10);

/// How many rounds are played: `WATCHDOG_LEASE_ROUNDS`, or few.
fn rounds(few: u32) -> Result<u32> {
    std::env::var("WATCHDOG_LEASE_ROUNDS").map_or(Ok(few), |text| Ok(text.parse()?))
}

/// Freezes the host, waits for the failover, and gives the new primary's first row.
async fn sleep_through(lab: &Lab) -> Result<(SystemTime, Acknowledged)> {
    let fault = SystemTime::now();
    lab.freeze_home()?;
    let eager = at_new_side(lab);
    let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
    ensure!(brief(&run).contains("lease expired"), "by what proof? {}", brief(&run));
    let first = eager.first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
    Ok((fault, first))
}

async fn round(lab: &mut Lab) -> Result<Round> {
    let crowd = crowd_of(lab).await?;
    let (fault, first) = sleep_through(lab).await?;
    let before = crowd.rows();
    wait::pause(ASLEEP).await;
    lab.thaw_home()?;
    until_fenced(lab).await?;
    let silence = first.at.duration_since(fault)?;
    Ok(Round { silence, before, late: crowd.late(first.at, fault) })
}

/// Awake again the old primary acknowledges nothing and answers no read, on old connections and on new ones, and is fenced
/// for good. `scripts/lease-proof` plays more rounds and shows the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_frozen_primary_acknowledges_nothing_after_its_successor() -> Result<()> {
    play_rounds(&leased(), rounds(2)?).await
}

/// The same behind nftables, which needs no BPF and no cgroup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_frozen_primary_behind_nftables_acknowledges_nothing_after_its_successor() -> Result<()> {
    let name = "lease::frozen::p4_a_frozen_primary_behind_nftables_acknowledges_nothing_after_its_successor";
    hub::alone(name, async || play_rounds(&leased_by_nftables(), rounds(1)?).await).await
}

async fn play_rounds(options: &Options, rounds: u32) -> Result<()> {
    let mut played = Vec::new();
    for _ in 0..rounds {
        play_bound(options.clone(), async |lab: &mut Lab| {
            let round = round(lab).await?;
            println!("{round:?}");
            played.push(round);
            Ok(())
        })
        .await?;
    }
    print(&played);
    let harm: Vec<&Round> = played.iter().filter(|round| round.late != Late::default()).collect();
    ensure!(harm.is_empty(), "answers after the new primary's first row: {harm:?}");
    Ok(())
}

/// Freezes only a part of the host under a hold-down that is shorter than the freeze: whatever proof the failover rests on, no row is
/// acknowledged on both sides.
async fn one_part(lab: &mut Lab, freeze: impl Fn(&Lab) -> Result<()>, thaw: impl Fn(&Lab) -> Result<()>) -> Result<()> {
    let crowd = crowd_of(lab).await?;
    let fault = SystemTime::now();
    freeze(lab)?;
    let eager = at_new_side(lab);
    let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
    let first = eager.first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
    let silence = first.at.duration_since(fault)?;
    // The fence may have ended what sleeps.
    thaw(lab)?;
    until_fenced(lab).await?;
    wait::pause(Duration::from_millis(lease::TTL_MS * 2)).await;
    let late = crowd.late(first.at, fault);
    println!("{} rows before, the new side's first after {silence:?}, {late:?}; {}", crowd.rows(), brief(&run));
    ensure!(late == Late::default(), "answers after the new primary's first row: {late:?}");
    ensure!(lab.standby.timeline().await? == 2, "timeline {}", lab.standby.timeline().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_only_the_guard_frozen_acknowledges_nothing_twice() -> Result<()> {
    play_bound(leased(), async |lab: &mut Lab| {
        let freeze = |lab: &Lab| {
            lab.guards[HOME].freeze();
            Ok(())
        };
        let thaw = |lab: &Lab| {
            lab.guards[HOME].thaw();
            Ok(())
        };
        one_part(lab, freeze, thaw).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_only_the_database_frozen_acknowledges_nothing_twice() -> Result<()> {
    play_bound(leased(), async |lab: &mut Lab| {
        one_part(lab, |lab| lab.primary.freeze(), |lab| lab.primary.thaw()).await
    })
    .await
}

/// The same with the gate taken away before the host wakes: the clients above do notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_gate_a_thawed_primary_acknowledges() -> Result<()> {
    thaw_without_gate(leased()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_table_a_thawed_primary_acknowledges() -> Result<()> {
    let name = "lease::frozen::without_its_table_a_thawed_primary_acknowledges";
    hub::alone(name, async || thaw_without_gate(leased_by_nftables()).await).await
}

/// Away with the gate at home, as nobody should.
fn remove_gate(lab: &Lab) -> Result<()> {
    if lab.options.nftables {
        let mut delete = Command::new("nft");
        delete.args(["delete", "table", "inet", &format!("watchdog_{GROUP}")]);
        return run(&mut hub::at(&lab.folder, HOME, delete)).map(drop);
    }
    let cgroup = lab.primary.cgroup().map(lease::Cgroup::path);
    let scope = Scope { group: GROUP.into(), port: lab.primary.port, exempt: vec![], cgroup };
    Ok(Egress::install(scope, Some(Kind::Bpf))?.remove()?)
}

async fn thaw_without_gate(options: Options) -> Result<()> {
    play_bound(options, async |lab: &mut Lab| {
        let crowd = crowd_of(lab).await?;
        let (fault, first) = sleep_through(lab).await?;
        remove_gate(lab)?;
        // Its guard sleeps on: awake, it would put the gate back.
        lab.primary.thaw()?;
        wait::until("rows and reads that should not be, on old connections", Duration::from_secs(20), async || {
            let late = crowd.late(first.at, fault);
            ensure!(late.rows_old > 0 && late.reads_old > 0 && late.rows_new > 0 && late.reads_new > 0, "{late:?}");
            Ok(())
        })
        .await?;
        lab.guards[HOME].thaw();
        lab.hosts[HOME].thaw();
        lab.services[HOME].thaw()
    })
    .await
}
