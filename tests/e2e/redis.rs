//! Redis moves with its group, on real servers: in an automatic failover, back home after a rejoin, and in a planned move in
//! which nothing that was acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::proto::{Run, RunKind, RunPhase, StepPhase};

use crate::lab::demo::fail_over;
use crate::lab::homeward::{LONG, order, until_closed, until_open};
use crate::lab::parts::{Lab, Options};
use crate::lab::redis::Redis;
use crate::lab::watch::brief;
use crate::lab::{DR, GROUP, HOME, wait};
use crate::scene::{fast, play};

fn with_redis() -> Options {
    Options { redis: true, ..fast() }
}

fn is_primary(lab: &Lab, site: &str) -> Result<()> {
    let role = lab.redis[site].info("role").context("it does not answer")?;
    ensure!(role == "master", "Redis in {site} is a replica");
    Ok(())
}

async fn follows(lab: &Lab, site: &str) -> Result<()> {
    wait::until(&format!("Redis in {site} to follow"), LONG, async || {
        let server = &lab.redis[site];
        ensure!(server.info("master_link_status").as_deref() == Some("up"), "it is not linked");
        ensure!(
            server.try_ask(&["SET", "refused", "1"]).is_err_and(|said| said.contains("READONLY")),
            "it takes writes"
        );
        Ok(())
    })
    .await
}

fn is_done(run: &Run, step: &str) -> Result<()> {
    let found = run.steps.iter().find(|known| known.id == step).with_context(|| format!("no step {step}"))?;
    ensure!(found.phase() == StepPhase::Done, "{found:?}");
    Ok(())
}

/// Writes to whichever of the two takes writes, until told to stop; every key that was acknowledged.
fn writer(lab: &Lab, go_on: Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    let ports = [HOME, DR].map(|site| lab.redis[site].port);
    std::thread::spawn(move || {
        let mut acknowledged = 0;
        while go_on.load(Ordering::Relaxed) {
            for port in ports {
                let Ok(mut client) = Redis::client_of(port, true) else { continue };
                while go_on.load(Ordering::Relaxed)
                    && client.ask(&["SET", &format!("key:{acknowledged}"), "x"]).is_ok_and(|said| said == "OK")
                {
                    acknowledged += 1;
                }
            }
        }
        acknowledged
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_redis_fails_over_with_its_group_rejoins_and_comes_home() -> Result<()> {
    play(with_redis(), async |lab: &mut Lab| {
        wait::until("readiness to speak of Redis", LONG, async || {
            let ready = lab.node("witness-1")?.ctl(&["readiness", GROUP]).await?.to_string();
            ensure!(ready.contains("Redis replica linked"), "{ready}");
            Ok(())
        })
        .await?;
        lab.redis[HOME].ask(&["SET", "before", "1"]);
        fail_over(lab, None, false).await?;
        let run = lab.newest_run(Duration::from_secs(5)).await?;
        for step in ["redis-fence", "redis-promote", "verify"] {
            is_done(&run, step)?;
        }
        is_primary(lab, DR)?;
        ensure!(lab.redis[DR].ask(&["GET", "before"]) == "1", "what was written before is gone");
        ensure!(lab.redis[HOME].try_ask(&["PING"]).is_err(), "the old primary still answers");

        lab.start_client_anywhere().await?;
        order(lab, &["rejoin", GROUP]).await?;
        is_done(&until_closed(lab, RunKind::Recovery, RunPhase::Succeeded).await?, "redis-rejoin")?;
        follows(lab, HOME).await?;
        until_open(lab, "failback").await?;
        order(lab, &["failback", GROUP]).await?;
        let run = until_closed(lab, RunKind::Failback, RunPhase::Succeeded).await?;
        is_done(&run, "redis-hand-over")?;
        is_primary(lab, HOME)?;
        follows(lab, DR).await
    })
    .await
}

/// The old host is gone with its guard: everything but Redis moves, and a person's word for Redis ends the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_an_old_redis_host_that_cannot_be_reached_holds_up_nothing_but_redis() -> Result<()> {
    let changes = vec![("fence_patience_s = 10".to_owned(), "fence_patience_s = 2".to_owned())];
    play(Options { changes, ..with_redis() }, async |lab: &mut Lab| {
        lab.redis[HOME].ask(&["SET", "before", "1"]);
        wait::until("the replica to have it", LONG, async || {
            ensure!(lab.redis[DR].try_ask(&["EXISTS", "before"]).as_deref() == Ok("1"), "not yet");
            Ok(())
        })
        .await?;
        lab.hosts.get_mut(HOME).map(|host| host.kill()).transpose()?;
        lab.redis.get_mut(HOME).context("a server")?.kill();
        lab.kill_home()?;
        let stuck_at = async |lab: &Lab, step: &str| {
            wait::until(&format!("the run to be stuck at {step}"), LONG, async || {
                let run = lab.newest_run(Duration::from_secs(5)).await?;
                let stuck = run.stuck.clone().with_context(|| format!("it is not: {}", brief(&run)))?;
                ensure!(stuck.step == step, "it is stuck at {}: {}", stuck.step, stuck.reason);
                Ok(run)
            })
            .await
        };
        stuck_at(lab, "fence").await?;
        let word = ["--reason", "I pulled its plug", "--yes", GROUP];
        let ctl = lab.node("witness-1")?;
        ctl.ctl(&[&["run", "assert-fence", GROUP, "--region", HOME][..], &word].concat()).await?;
        let run = stuck_at(lab, "redis-fence").await?;
        let ways = run.stuck.clone().unwrap_or_default().ways;
        let skip = format!("watchdogctl run skip {GROUP} redis-fence ");
        ensure!(ways.iter().any(|way| way.command.starts_with(&skip)), "{ways:?}");
        for step in run.steps.iter().filter(|step| !step.id.starts_with("redis-") && step.id != "verify") {
            ensure!(step.phase() == StepPhase::Done || step.id == "fence", "{step:?}");
        }
        lab.client()?.first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
        ensure!(lab.redis[DR].info("role").as_deref() != Some("master"), "promoted without proof");

        ctl.ctl(&[&["run", "skip", GROUP, "redis-fence"][..], &word].concat()).await?;
        let run = until_closed(lab, RunKind::Failover, RunPhase::Succeeded).await?;
        is_done(&run, "redis-promote")?;
        is_primary(lab, DR)?;
        ensure!(lab.redis[DR].ask(&["GET", "before"]) == "1", "what was written before is gone");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_a_planned_move_loses_no_key_that_redis_acknowledged() -> Result<()> {
    play(with_redis(), async |lab: &mut Lab| {
        until_open(lab, "switchover").await?;
        let go_on = Arc::new(AtomicBool::new(true));
        let writing = writer(lab, go_on.clone());
        order(lab, &["switchover", GROUP]).await?;
        until_closed(lab, RunKind::Switchover, RunPhase::Succeeded).await?;
        is_primary(lab, DR)?;
        go_on.store(false, Ordering::Relaxed);
        let acknowledged = writing.join().map_err(|_| anyhow::anyhow!("the writer ended badly"))?;
        ensure!(acknowledged > 100, "{acknowledged} keys");
        let mut client = lab.redis[DR].client()?;
        for n in 0..acknowledged {
            let found = client.ask(&["EXISTS", &format!("key:{n}")]).map_err(anyhow::Error::msg)?;
            ensure!(found == "1", "key {n} of {acknowledged} is missing");
        }
        println!("{acknowledged} keys were acknowledged on the way, of them missing: 0");
        follows(lab, HOME).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_a_move_that_turns_back_leaves_redis_writing_at_home() -> Result<()> {
    let changes =
        vec![("fence_patience_s = 10".to_owned(), "fence_patience_s = 10\nswitchover_timeout_s = 5".to_owned())];
    play(Options { changes, ..with_redis() }, async |lab: &mut Lab| {
        until_open(lab, "switchover").await?;
        // What the replica lacks from now on never comes.
        lab.redis[DR].ask(&["REPLICAOF", "127.0.0.1", "1"]);
        order(lab, &["switchover", GROUP]).await?;
        until_closed(lab, RunKind::Switchover, RunPhase::Reverted).await?;
        is_primary(lab, HOME)?;
        ensure!(lab.redis[HOME].ask(&["SET", "after", "1"]) == "OK", "it takes no writes");
        ensure!(lab.redis[DR].info("role").as_deref() != Some("master"), "the replica was promoted");
        Ok(())
    })
    .await
}
