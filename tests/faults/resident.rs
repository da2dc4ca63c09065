//! Mode `lease`: the resident guards killed and frozen in each step of a run. Not tried where the machine has no BPF on
//! cgroups.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::guard::egress::Kind;
use watchdog::proto::RunPhase;

use crate::lab::parts::{Lab, Options};
use crate::lab::trip::{self, Point};
use crate::lab::watch::{brief, group};
use crate::lab::{DR, HOME, lease, wait};
use crate::scene::{effects, play};
use crate::struck::{REACHED_WITHIN, Toll, client_of_the_old_side, living_database};
use crate::table::What;
use crate::upheld::untouched_by_it;

/// Whose resident guard is struck while which step is asked for: the old side's at the fence, the new side's from then on.
const STOPS: [(&str, &str); 4] = [("fence", HOME), ("promote", DR), ("services", DR), ("verify", DR)];

/// The resident guard is away for longer than a lease lasts.
async fn strike(lab: &mut Lab, site: &str, what: What) -> Result<()> {
    let away = Duration::from_millis(lease::TTL_MS * 2);
    let guard = lab.guards.get(site).with_context(|| format!("no resident guard in {site}"))?;
    match what {
        What::Frozen => {
            guard.freeze();
            wait::pause(away).await;
            lab.guards[site].thaw();
        }
        What::Killed => {
            guard.kill()?;
            wait::pause(away).await;
            let config = lab.folder.path.join(site).join("guard.toml");
            let guard = lease::serve(&lab.folder, site, &config)?;
            lab.guards.insert(site.to_owned(), guard);
        }
    }
    Ok(())
}

/// A node says that it is: where the step's own fence was called off as its effect came through, that is found, and nothing is
/// entered as done.
fn told_for_good(lab: &Lab) -> Result<bool> {
    for node in &lab.nodes {
        if std::fs::read_to_string(&node.part()?.log)?.contains("the old primary is fenced for good") {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn struck_in_each_step(what: What) -> Result<()> {
    if !lease::can(Kind::Bpf) {
        return Ok(());
    }
    play(Options { lease: true, ..living_database(40) }, async |lab: &mut Lab| {
        wait::until("the lease to be bound", Duration::from_secs(30), async || {
            let status = lab.status().await?;
            ensure!(group(&status)?.lease.is_some(), "it is not bound");
            Ok(())
        })
        .await?;
        let old = client_of_the_old_side(lab).await?;
        for (step, _) in STOPS {
            trip::arm(&lab.folder.path, step, Point::Before)?;
        }
        lab.services[HOME].kill()?;
        for (step, site) in STOPS {
            trip::reached(&lab.folder.path, step, Point::Before, REACHED_WITHIN).await?;
            strike(lab, site, what).await.with_context(|| format!("at {step}"))?;
            trip::release(&lab.folder.path, step, Point::Before)?;
        }
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(90)).await?;
        // Where the run went on by the lease's end, the old primary is fenced for good afterwards.
        wait::until("the old primary to be fenced for good", REACHED_WITHIN, async || {
            let is_entered = effects(lab)?.contains_key("hcmc/fence");
            ensure!(is_entered || told_for_good(lab)?, "{:?}", effects(lab)?);
            Ok(())
        })
        .await?;
        let nodes: Vec<&str> = run.claims.iter().map(|claim| claim.node.as_str()).collect();
        ensure!(nodes.iter().all(|node| *node == nodes[0]), "a guard's end cost the leader its run: {nodes:?}");
        let fence_may_be_cut_short = brief(&run).contains("lease expired");
        let toll = Toll { fence_may_be_cut_short, ..Toll::default() };
        untouched_by_it(lab, &run, &toll, &old).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_resident_guards_killed_in_each_step() -> Result<()> {
    struck_in_each_step(What::Killed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_resident_guards_frozen_in_each_step() -> Result<()> {
    struck_in_each_step(What::Frozen).await
}
