//! Mode `lease`: the old primary falls silent by itself. Not tried where the machine has no BPF on cgroups.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use watchdog::proto::RunPhase;

use crate::lab::client::{Client, Route};
use crate::lab::parts::{Lab, Options};
use crate::lab::postgres::DATABASE;
use crate::lab::watch::{brief, group};
use crate::lab::{DR, HOME, lease, wait};
use crate::scene::{effects, fast, nothing_happened, play};

/// Waits until the lease is bound and held by both sources' guards.
async fn bound(lab: &Lab) -> Result<()> {
    wait::until("the lease to be bound", Duration::from_secs(30), async || {
        let status = lab.status().await?;
        let lease = group(&status)?.lease.clone().context("it is not bound")?;
        ensure!(lease.holders == ["db-hanoi"], "{lease:?}");
        Ok(())
    })
    .await
}

/// A client that keeps one connection to the old primary for ever and waits for each answer however long it takes.
struct Stubborn {
    acknowledged: Arc<Mutex<Vec<SystemTime>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Stubborn {
    async fn start(lab: &Lab, first_id: i64) -> Result<Self> {
        let session = lab.primary.connect("app", DATABASE).await?;
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let log = acknowledged.clone();
        let task = tokio::spawn(async move {
            for id in first_id.. {
                if session.execute("insert into rows (id) values ($1)", &[&id]).await.is_err() {
                    return;
                }
                log.lock().expect("nobody panics with it").push(SystemTime::now());
                wait::pause(Duration::from_millis(10)).await;
            }
        });
        Ok(Self { acknowledged, task })
    }

    fn after(&self, moment: SystemTime) -> usize {
        self.acknowledged.lock().expect("nobody panics with it").iter().filter(|at| **at > moment).count()
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Everything on the old primary's host stops at once, and goes on as if nothing had been.
fn freeze_host(lab: &Lab) -> Result<()> {
    lab.primary.freeze()?;
    lab.guards[HOME].freeze();
    lab.hosts[HOME].freeze();
    lab.services[HOME].freeze()
}

fn thaw_host(lab: &Lab) -> Result<()> {
    lab.guards[HOME].thaw();
    lab.hosts[HOME].thaw();
    lab.services[HOME].thaw()?;
    lab.primary.thaw()
}

/// The old primary's host sleeps through its own failover. Awake again it acknowledges nothing, on old connections and on
/// new ones, and is fenced for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_frozen_primary_acknowledges_nothing_after_its_successor() -> Result<()> {
    if !lease::can() {
        return Ok(());
    }
    play(Options { lease: true, ..fast() }, async |lab: &mut Lab| {
        bound(lab).await?;
        let old = Stubborn::start(lab, 1).await?;
        let home = lab.primary.address.to_string();
        let new = Client::start(Route::Addresses(vec![home.clone()]), lab.primary.port, Duration::from_millis(10));
        new.first_from(&home, Duration::from_secs(10)).await?;
        freeze_host(lab)?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        ensure!(brief(&run).contains("lease expired"), "by what proof? {}", brief(&run));
        let first = lab.client()?.first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
        thaw_host(lab)?;
        wait::until("the old primary to be fenced for good", Duration::from_secs(60), async || {
            ensure!(effects(lab)?.contains_key("hcmc/fence"), "{:?}", effects(lab)?);
            Ok(())
        })
        .await?;
        let late = new.acknowledged().into_iter().filter(|row| row.by == home && row.at > first.at).count();
        ensure!(old.after(first.at) == 0, "{} rows on the old connection", old.after(first.at));
        ensure!(late == 0, "{late} rows on new connections");
        Ok(())
    })
    .await
}

/// P7: with every node dead the primary serves on, as long as its guard reaches the standby's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_primary_outlives_the_watchdog_by_its_standbys_hold() -> Result<()> {
    if !lease::can() {
        return Ok(());
    }
    play(Options { lease: true, ..fast() }, async |lab: &mut Lab| {
        bound(lab).await?;
        // Holds begin with the first grant that tells their ground.
        wait::pause(Duration::from_secs(1)).await;
        for node in &mut lab.nodes {
            node.kill()?;
        }
        wait::pause(Duration::from_millis(lease::TTL_MS * 4)).await;
        let home = lab.primary.address.to_string();
        let now = SystemTime::now();
        wait::until("rows long after the watchdog's end", Duration::from_secs(5), async || {
            let row = lab.client()?.newest().context("no row")?;
            ensure!(row.by == home && row.at > now, "{row:?}; {}", lab.client()?.last_error());
            Ok(())
        })
        .await?;

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

/// The resident guard alone dies: clients stall for as long as it is gone, nothing is failed over, and they go on after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_guard_costs_a_stall_and_no_failover() -> Result<()> {
    if !lease::can() {
        return Ok(());
    }
    let changes = vec![("hold_down_ms = 200".to_owned(), "hold_down_ms = 10000".to_owned())];
    play(Options { lease: true, changes, ..fast() }, async |lab: &mut Lab| {
        bound(lab).await?;
        lab.guards[HOME].kill()?;
        wait::pause(Duration::from_millis(lease::TTL_MS * 2)).await;
        let config = lab.folder.path.join(HOME).join("guard.toml");
        let back = SystemTime::now();
        let guard = lease::serve(&lab.folder, HOME, &config)?;
        lab.guards.insert(HOME.to_owned(), guard);
        let home = lab.primary.address.to_string();
        wait::until("rows again", Duration::from_secs(20), async || {
            let row = lab.client()?.newest().context("no row")?;
            ensure!(row.by == home && row.at > back, "{row:?}; {}", lab.client()?.last_error());
            Ok(())
        })
        .await?;
        ensure!(lab.runs().await?.is_empty(), "{:?}", lab.runs().await?);
        nothing_happened(lab)
    })
    .await
}
