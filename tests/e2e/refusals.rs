//! When not to act: paused, too much to lose, no fence proof. And what people are told then.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::proto::RunPhase;

use crate::lab::parts::{Lab, Options};
use crate::lab::watch::{brief, group};
use crate::lab::{DR, GROUP, HOME, wait};
use crate::scene::{each_effect_once, effects, fast, nothing_happened, play};

/// A page that says all of this, waited for.
async fn paged(lab: &Lab, words: &[&str]) -> Result<()> {
    wait::until(&format!("a page that says {words:?}"), Duration::from_secs(30), async || {
        let pages = lab.receivers.received();
        ensure!(pages.iter().any(|page| words.iter().all(|word| page.says(word))), "received so far: {pages:#?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_paused_a_dead_primary_pages_and_nothing_else() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        let node = lab.node("witness-1")?;
        node.ctl(&["pause", GROUP, "--reason", "maintenance of the power supply"]).await?;
        lab.kill_home()?;
        paged(lab, &[GROUP, "paused"]).await?;
        wait::pause(Duration::from_secs(3)).await;
        ensure!(lab.runs().await?.is_empty(), "{:?}", lab.runs().await?);
        nothing_happened(lab)?;

        lab.node("witness-1")?.ctl(&["resume", GROUP, "--reason", "it is done"]).await?;
        lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        each_effect_once(lab)
    })
    .await
}

/// The standby's server is stopped: there is nobody to promote, and the page says what would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_stopped_standby_is_not_promoted() -> Result<()> {
    let changes = vec![("rpo_limit_s = 900".to_owned(), "rpo_limit_s = 1".to_owned())];
    play(Options { changes, ..fast() }, async |lab: &mut Lab| {
        lab.standby.stop()?;
        wait::pause(Duration::from_secs(3)).await;
        lab.kill_home()?;
        paged(lab, &[GROUP, "loss"]).await?;
        nothing_happened(lab)
    })
    .await
}

/// The standby stopped receiving long before the end: no promotion; the page says by how much. An operator may accept
/// the loss, by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_standby_too_far_behind_is_not_promoted() -> Result<()> {
    let changes = vec![("rpo_limit_s = 900".to_owned(), "rpo_limit_s = 1".to_owned())];
    play(Options { changes, ..fast() }, async |lab: &mut Lab| {
        let session = lab.standby.connect("postgres", "postgres").await?;
        session.batch_execute("alter system set primary_conninfo = ''").await?;
        session.batch_execute("select pg_reload_conf()").await?;
        wait::pause(Duration::from_secs(4)).await;
        lab.kill_home()?;
        paged(lab, &[GROUP, "loss"]).await?;
        wait::pause(Duration::from_secs(2)).await;
        ensure!(lab.standby.in_recovery().await?, "promoted beyond the limit");
        nothing_happened(lab)?;
        let status = lab.status().await?;
        ensure!(!group(&status)?.explanation.is_empty(), "the status does not say why not");

        let words = [
            "failover",
            GROUP,
            "--to",
            "hanoi",
            "--reason",
            "the site is gone",
            "--accept-loss",
            "--yes",
            GROUP,
            "--detach",
        ];
        lab.node("witness-1")?.ctl(&words).await?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        ensure!(run.loss_acceptance.is_some(), "the acceptance is not on record: {}", brief(&run));
        each_effect_once(lab)
    })
    .await
}

/// The old primary's host cannot be reached: the run stops before promotion, and goes on by an operator's word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_without_fence_proof_the_run_is_stuck_until_it_is_asserted() -> Result<()> {
    let changes = vec![("fence_patience_s = 10".to_owned(), "fence_patience_s = 2".to_owned())];
    play(Options { changes, ..fast() }, async |lab: &mut Lab| {
        lab.hosts.get_mut(HOME).map(|host| host.kill()).transpose()?;
        lab.kill_home()?;
        let run = lab.until_run(&[RunPhase::Stuck], Duration::from_secs(60)).await?;
        let stuck = run.stuck.clone().unwrap_or_default();
        ensure!(stuck.step == "fence" && stuck.reason.contains("no fence proof"), "{stuck:?}");
        paged(lab, &["no fence proof"]).await?;
        ensure!(lab.standby.in_recovery().await?, "promoted without proof");
        ensure!(!effects(lab)?.contains_key("hanoi/promote"), "{:?}", effects(lab)?);

        let words = ["run", "assert-fence", GROUP, "--region", HOME, "--reason", "I pulled its plug", "--yes", GROUP];
        lab.node("witness-1")?.ctl(&words).await?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        ensure!(run.fence_assertion.is_some(), "the assertion is not on record: {}", brief(&run));
        lab.client()?.first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
        Ok(())
    })
    .await
}

/// Asked for by an operator who accepts every loss: with the standby stopped the healthy primary is not touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_primary_is_not_fenced_for_a_stopped_standby() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        lab.standby.stop()?;
        let words = ["failover", GROUP, "--to", "hanoi", "--reason", "a try", "--accept-loss"];
        let order = [&words[..], &["--yes", GROUP, "--detach"]].concat();
        let refused = lab.node("witness-1")?.ctl(&order).await;
        let told = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(told.contains("refused: standby: ") && told.contains("server stopped"), "{told}");
        // As when another call was the dry run: the node itself refuses.
        let again = [&order[..], &["--request-id", "018f2b7e-0000-7000-8000-000000000001"]].concat();
        let refused = lab.node("witness-1")?.ctl(&again).await;
        let told = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(told.contains("no standby to promote in hanoi") && told.contains("server stopped"), "{told}");
        ensure!(lab.runs().await?.is_empty(), "{:?}", lab.runs().await?);
        nothing_happened(lab)
    })
    .await
}

/// The standby streams, but nobody could promote it: its host's guard does not answer. The dead primary is left as it
/// is, the name too, until it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_fenced_while_the_standbys_guard_is_silent() -> Result<()> {
    let changes = vec![("fence_patience_s = 10".to_owned(), "fence_patience_s = 2".to_owned())];
    play(Options { changes, ..fast() }, async |lab: &mut Lab| {
        lab.hosts.get_mut(DR).map(|host| host.kill()).transpose()?;
        lab.kill_home()?;
        let run = lab.until_run(&[RunPhase::Stuck], Duration::from_secs(60)).await?;
        let stuck = run.stuck.clone().unwrap_or_default();
        ensure!(stuck.step == "fence" && stuck.reason.starts_with("no standby to promote"), "{stuck:?}");
        paged(lab, &["no standby to promote"]).await?;
        nothing_happened(lab)?;

        let (hosts, folder) = (&mut lab.hosts, &lab.folder);
        hosts.get_mut(DR).context("a host there")?.start(folder).await?;
        lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        each_effect_once(lab)
    })
    .await
}
