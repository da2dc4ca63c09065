//! Planned moves on real servers: nothing acknowledged is lost, the old primary follows the new one, and what cannot go on
//! before its promotion turns back by itself.

use anyhow::{Context, Result, ensure};
use watchdog::proto::{Chapter, ChapterKind, ChapterProgress, RunKind, RunPhase};

use crate::lab::demo::fail_over;
use crate::lab::homeward::{LONG, order, until_closed, until_it_follows, until_open, writes_at};
use crate::lab::parts::{Lab, Options};
use crate::lab::watch::group;
use crate::lab::{DR, GROUP, HOME, wait};
use crate::scene::{effects, fast, play, points_at};

async fn serves(lab: &Lab, site: &str) -> Result<()> {
    let status = lab.status().await?;
    let serving = group(&status)?.serving.clone().unwrap_or_default();
    ensure!(serving.region == site, "{serving:?}");
    points_at(lab, site)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_switchover_and_a_failback_lose_no_acknowledged_row_and_the_old_primary_follows() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        until_open(lab, "switchover").await?;
        order(lab, &["switchover", GROUP]).await?;
        let run = until_closed(lab, RunKind::Switchover, RunPhase::Succeeded).await?;
        ensure!(run.steps.iter().all(|step| !step.undo), "{:?}", run.steps);
        serves(lab, DR).await?;
        writes_at(lab, DR).await?;
        until_it_follows(&lab.primary, &lab.standby).await?;
        ensure!(lab.standby.timeline().await? == 2, "timeline {}", lab.standby.timeline().await?);

        until_open(lab, "failback").await?;
        order(lab, &["failback", GROUP]).await?;
        until_closed(lab, RunKind::Failback, RunPhase::Succeeded).await?;
        serves(lab, HOME).await?;
        writes_at(lab, HOME).await?;
        until_it_follows(&lab.standby, &lab.primary).await
    })
    .await
}

/// C4: after a switchover the other side is watched; a second fault there is paged under the run's name, and the record tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_trouble_after_a_move_is_paged_with_its_run_and_stands_in_its_record() -> Result<()> {
    let watch = ("fence_patience_s = 10".to_owned(), "fence_patience_s = 10\nmonitor_for_s = 600".to_owned());
    play(Options { changes: vec![watch], ..fast() }, async |lab: &mut Lab| {
        until_open(lab, "switchover").await?;
        order(lab, &["switchover", GROUP]).await?;
        let run = until_closed(lab, RunKind::Switchover, RunPhase::Succeeded).await?;
        let id = run.summary.clone().unwrap_or_default().id;
        let chapter = async |lab: &Lab, kind: ChapterKind| -> Result<Chapter> {
            let run = lab.run(&id).await?;
            run.chapters.into_iter().find(|chapter| chapter.kind() == kind).context("no such chapter")
        };
        wait::until("the watch to see it well", LONG, async || {
            let monitor = chapter(lab, ChapterKind::Monitor).await?;
            ensure!(monitor.progress() == ChapterProgress::Going, "{monitor:?}");
            let run = lab.run(&id).await?;
            ensure!(
                chapter(lab, ChapterKind::Communicate).await?.progress() == ChapterProgress::Done,
                "{:?}",
                run.chapters
            );
            Ok(())
        })
        .await?;
        // The new primary dies. Whether or not the group fails over from there, it was told of under the run that brought it there.
        lab.standby.kill()?;
        let told = |event: &str| lab.receivers.received().into_iter().find(|page| page.says(event) && page.says(&id));
        wait::until("the page of it", LONG, async || told("DR_MONITOR_TROUBLE").map(drop).context("not told")).await?;
        wait::until("the record to tell it", LONG, async || {
            let monitor = chapter(lab, ChapterKind::Monitor).await?;
            ensure!(monitor.detail.contains("hanoi-db"), "{monitor:?}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_whose_standby_does_not_catch_up_turns_back_and_the_client_writes_at_home_again() -> Result<()> {
    let changes =
        vec![("fence_patience_s = 10".to_owned(), "fence_patience_s = 10\nswitchover_timeout_s = 5".to_owned())];
    play(Options { changes, ..fast() }, async |lab: &mut Lab| {
        until_open(lab, "switchover").await?;
        let standby = lab.standby.connect("postgres", "postgres").await?;
        standby.batch_execute("select pg_wal_replay_pause()").await?;
        order(lab, &["switchover", GROUP]).await?;
        let run = until_closed(lab, RunKind::Switchover, RunPhase::Reverted).await?;
        let back = run.turned_back.clone().context("it does not say why")?;
        ensure!(back.reason.contains("catch-up") || back.reason.contains("writing was stopped"), "{back:?}");
        standby.batch_execute("select pg_wal_replay_resume()").await?;
        serves(lab, HOME).await?;
        writes_at(lab, HOME).await?;
        ensure!(lab.standby.in_recovery().await?, "the standby was promoted");
        let done = effects(lab)?;
        ensure!(done.get("hcmc/fence") == Some(&1) && done.get("hcmc/release") == Some(&1), "{done:?}");
        ensure!(!done.contains_key("hanoi/promote"), "{done:?}");
        let told = |event: &str| lab.receivers.received().iter().any(|page| page.says(event));
        wait::until("the page of it", LONG, async || {
            ensure!(told("DR_SWITCHOVER_REVERTED"), "{:?}", lab.receivers.received());
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_after_a_failover_the_old_primary_rejoins_and_the_group_goes_home() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        fail_over(lab, None, false).await?;
        // The client of the failover has stopped.
        lab.start_client_anywhere().await?;
        let refused = order(lab, &["failback", GROUP]).await;
        let said = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(said.contains(&format!("watchdogctl rejoin {GROUP}")), "{said}");

        order(lab, &["rejoin", GROUP]).await?;
        until_closed(lab, RunKind::Recovery, RunPhase::Succeeded).await?;
        until_it_follows(&lab.primary, &lab.standby).await?;
        serves(lab, DR).await?;

        until_open(lab, "failback").await?;
        order(lab, &["failback", GROUP]).await?;
        until_closed(lab, RunKind::Failback, RunPhase::Succeeded).await?;
        serves(lab, HOME).await?;
        let counted = writes_at(lab, HOME).await?;
        println!("{counted} rows were acknowledged on the way home");
        until_it_follows(&lab.standby, &lab.primary).await
    })
    .await
}
