//! Mode `lease`: the old primary falls silent by itself. Not tried where the machine's kernel has no such gate.

mod alone;
mod apart;
mod blips;
mod frozen;
mod homeward;
mod promoted;
mod reboot;
mod table;

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use watchdog::guard::token_store::GroupFiles;

use crate::lab::client::{Client, Route};
use crate::lab::crowd::{Crowd, READERS_TOO};
use crate::lab::parts::{Lab, Options};
use crate::lab::watch::group;
use crate::lab::{GROUP, lease, wait};
use crate::scene::{fast, nothing_happened, play};

/// Fenced by lease; the fast settings but for the hold-down, which shall bear a busy machine's hiccups.
fn leased() -> Options {
    patient(3000)
}

/// The same with another hold-down.
fn patient(hold_down_ms: u64) -> Options {
    let changes = vec![("hold_down_ms = 200".to_owned(), format!("hold_down_ms = {hold_down_ms}"))];
    Options { lease: true, changes, ..fast() }
}

/// As [`leased`], behind nftables. Inside a hub only.
fn leased_by_nftables() -> Options {
    Options { nftables: true, ..leased() }
}

/// Plays once the lease is bound: from there on silence proves something. Says so where this machine cannot.
async fn play_bound(options: Options, body: impl AsyncFnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    if !options.gate().is_some_and(lease::can) {
        return Ok(());
    }
    play(options, async |lab: &mut Lab| {
        bound(lab).await?;
        body(lab).await
    })
    .await
}

/// Waits until the lease is bound, with the standby's guard as holder.
async fn bound(lab: &Lab) -> Result<()> {
    bound_to(lab, "db-hanoi").await
}

async fn bound_to(lab: &Lab, holder: &str) -> Result<()> {
    wait::until("the lease to be bound", Duration::from_secs(30), async || {
        let status = lab.status().await?;
        let lease = group(&status)?.lease.clone().context("it is not bound")?;
        ensure!(lease.holders == [holder], "{lease:?}");
        Ok(())
    })
    .await
}

/// Waits until the client has a row of the old primary's from after `moment`.
async fn rows_after(lab: &Lab, moment: SystemTime, within: Duration) -> Result<()> {
    let home = lab.primary.address.to_string();
    wait::until("rows again", within, async || {
        let row = lab.client()?.newest().context("no row")?;
        ensure!(row.by == home && row.at > moment, "{row:?}; {}", lab.client()?.last_error());
        Ok(())
    })
    .await
}

/// Between two rows of the client, the second of them after `since`.
fn longest_stall(lab: &Lab, since: SystemTime) -> Result<Duration> {
    let rows = lab.client()?.acknowledged();
    let pairs = rows.windows(2).filter(|pair| pair[1].at > since);
    let gaps = pairs.filter_map(|pair| pair[1].at.duration_since(pair[0].at).ok());
    gaps.max().context("no two rows")
}

/// No run was opened, nobody was demoted, the name points home, and the primary is on the timeline that it began with.
async fn a_stall_at_most(lab: &Lab) -> Result<()> {
    ensure!(lab.runs().await?.is_empty(), "{:?}", lab.runs().await?);
    nothing_happened(lab)?;
    wait::until("both databases to say what they are", Duration::from_secs(20), async || {
        ensure!(lab.primary.timeline().await? == 1 && !lab.primary.in_recovery().await?, "the primary was touched");
        ensure!(lab.standby.in_recovery().await?, "the standby was promoted");
        Ok(())
    })
    .await
}

/// What the guard of a region keeps for the group.
fn guard_files(lab: &Lab, site: &str) -> GroupFiles {
    GroupFiles::new(&lab.folder.path.join(site).join("guard"), &GROUP.into())
}

/// Five clients of the primary's, each busy.
async fn crowd_of(lab: &Lab) -> Result<Crowd> {
    let crowd = Crowd::start(&lab.primary, READERS_TOO);
    crowd.busy().await?;
    Ok(crowd)
}

/// Whoever takes rows on the new side, from the first moment on.
fn at_new_side(lab: &Lab) -> Client {
    let route = Route::Addresses(vec![lab.standby.address.to_string()]);
    Client::start(route, lab.standby.port, Duration::from_millis(10))
}
