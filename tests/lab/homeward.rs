//! Planned moves as an operator orders them, and the way home after a failover: what the tests wait for, and the demo's
//! round trip.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use watchdog::proto::{Run, RunKind, RunPhase};

use super::parts::Lab;
use super::postgres::Postgres;
use super::{DR, GROUP, HOME, address_of, wait};

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(90);

/// An operator's verb, opened and not followed.
pub async fn order(lab: &Lab, words: &[&str]) -> Result<()> {
    let rest = ["--reason", "the test says so", "--yes", GROUP, "--detach"];
    lab.node("witness-1")?.ctl(&[words, &rest].concat()).await.map(drop)
}

/// Every gate is open.
pub async fn until_open(lab: &Lab, verb: &str) -> Result<()> {
    wait::until(&format!("the gates of a {verb} to open"), LONG, async || {
        let plan = lab.node("witness-1")?.ctl(&[verb, GROUP, "--dry-run"]).await?;
        ensure!(plan["would_open"] == true, "{:#}", plan["gates"]);
        Ok(())
    })
    .await
}

/// The newest run is of that kind and has ended so.
pub async fn until_closed(lab: &Lab, kind: RunKind, phase: RunPhase) -> Result<Run> {
    let run = wait::until(&format!("the {kind:?} to be over"), LONG, async || {
        let run = lab.newest_run(Duration::from_secs(5)).await?;
        let summary = run.summary.clone().unwrap_or_default();
        ensure!(summary.kind() == kind, "the newest is a {:?}", summary.kind());
        ensure!(summary.closed_at_ms.is_some(), "{:?}: {:?}", summary.phase(), run.stuck);
        Ok(run)
    })
    .await?;
    let summary = run.summary.clone().unwrap_or_default();
    ensure!(summary.phase() == phase, "it ended as {:?}: {:#?}", summary.phase(), run.events);
    Ok(run)
}

/// `server` streams from the other one, on its timeline.
pub async fn until_it_follows(server: &Postgres, primary: &Postgres) -> Result<()> {
    wait::until(&format!("{} to stream from {}", server.site, primary.site), LONG, async || {
        ensure!(server.in_recovery().await?, "it is no standby");
        let client = primary.connect("postgres", "postgres").await?;
        let sql = "select count(*) from pg_stat_replication where state = 'streaming'";
        ensure!(client.query_one(sql, &[]).await?.get::<_, i64>(0) > 0, "nobody streams");
        Ok(())
    })
    .await
}

/// The client's rows go there now, and of those that were acknowledged before none is missing; answers how many those are.
pub async fn writes_at(lab: &Lab, site: &str) -> Result<usize> {
    let server = if site == HOME { &lab.primary } else { &lab.standby };
    let address = address_of(site).to_string();
    let before = lab.client()?.acknowledged().len();
    wait::until(&format!("the client to write in {site}"), LONG, async || {
        let rows = lab.client()?.acknowledged();
        let newest = rows.get(before..).and_then(|new| new.last()).context("nothing new is acknowledged")?;
        ensure!(newest.by == address, "{} acknowledges", newest.by);
        Ok(())
    })
    .await?;
    // The client goes on while its rows are read: those of before count.
    let seen: BTreeSet<i64> = server.row_ids().await?.into_iter().collect();
    let missing = lab.client()?.acknowledged().into_iter().take(before).filter(|row| !seen.contains(&row.id)).count();
    ensure!(before > 0, "nothing was acknowledged");
    ensure!(missing == 0, "{missing} acknowledged rows are missing in {site}");
    Ok(before)
}

/// After a failover: the old primary rejoins, the group goes home, and the client's rows are counted.
pub async fn go_home(lab: &mut Lab) -> Result<()> {
    println!("\nNow home again. A client writes in {DR}; `watchdogctl rejoin {GROUP}` makes {HOME} a standby:");
    lab.start_client_anywhere().await?;
    let began = SystemTime::now();
    let after = |began: SystemTime| began.elapsed().unwrap_or_default().as_secs_f64();
    order(lab, &["rejoin", GROUP]).await?;
    tell(&until_closed(lab, RunKind::Recovery, RunPhase::Succeeded).await?);
    until_it_follows(&lab.primary, &lab.standby).await?;
    println!("  {HOME} streams from {DR} after {:.1} s", after(began));
    until_open(lab, "failback").await?;
    println!("\nEvery gate is open: `watchdogctl failback {GROUP}`:");
    let began = SystemTime::now();
    order(lab, &["failback", GROUP]).await?;
    tell(&until_closed(lab, RunKind::Failback, RunPhase::Succeeded).await?);
    println!("  {HOME} serves again after {:.1} s", after(began));
    until_it_follows(&lab.standby, &lab.primary).await?;
    let counted = writes_at(lab, HOME).await?;
    println!("  {DR} streams from {HOME}; dig: {}", lab.dig()?);
    println!("  {counted} rows were acknowledged on the way home, of them missing: 0");
    until_open(lab, "switchover").await?;
    println!("  `watchdogctl switchover {GROUP} --dry-run`: every gate is open again");
    Ok(())
}

/// The run's timeline.
fn tell(run: &Run) {
    let zero = run.summary.as_ref().map(|summary| summary.opened_at_ms).unwrap_or_default();
    for event in &run.events {
        println!("  {:+7.3} s  {}", (event.at_ms - zero) as f64 / 1000.0, super::story::cut(&event.what));
    }
}
