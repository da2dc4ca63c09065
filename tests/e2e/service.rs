//! One service recovered by an operator's word, through its host's real guard.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::proto::{RunKind, RunPhase};

use crate::lab::parts::Lab;
use crate::lab::wait::until;
use crate::lab::watch::group;
use crate::lab::{GROUP, HOME};
use crate::scene::{effects, fast, play, points_at};

const WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_a_service_is_restarted_by_its_guard_and_nothing_moves() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        let pid_file = lab.services[HOME].pid_file.clone();
        let pid = || std::fs::read_to_string(&pid_file).map(|text| text.trim().to_owned());
        let before = pid()?;
        let words = ["service", "restart", GROUP, "api", "--region", HOME];
        let plan = lab.node("witness-1")?.ctl(&[&words[..], &["--dry-run"]].concat()).await?;
        ensure!(plan["would_open"] == true && plan["steps"][0]["id"] == "restart", "{plan:#}");
        ensure!(lab.runs().await?.is_empty() && pid()? == before, "a dry run did something");

        let now = ["--reason", "it leaks", "--yes", GROUP, "--detach"];
        lab.node("witness-1")?.ctl(&[&words[..], &now[..]].concat()).await?;
        let run = lab.until_run(&[RunPhase::Succeeded], WITHIN).await?;
        let summary = run.summary.clone().unwrap_or_default();
        ensure!(summary.kind() == RunKind::Recovery && !summary.automatic, "{summary:?}");
        ensure!(pid()? != before, "the process is the old one");
        let (status, body) = lab.services[HOME].health().await?;
        ensure!(status == 200, "{status} {body}");
        let found = effects(lab)?;
        ensure!(found.len() == 1 && found.get("hcmc/restart") == Some(&1), "{found:?}");
        let status = lab.status().await?;
        let serving = group(&status)?.serving.clone().unwrap_or_default();
        ensure!(serving.region == HOME && serving.last == HOME, "{serving:?}");
        points_at(lab, HOME)?;
        ensure!(lab.standby.in_recovery().await?, "the standby was promoted");
        until("the page of its success", WITHIN, async || {
            let told = lab.receivers.received();
            ensure!(
                told.iter().any(|page| page.says("SERVICE_RECOVERY_SUCCESS") && page.says("restart of api")),
                "not yet"
            );
            Ok(())
        })
        .await?;
        let audit = lab.node("witness-1")?.ctl(&["audit", GROUP]).await?;
        let entries = audit["entries"].as_array().context("no entries")?;
        ensure!(entries.iter().any(|entry| entry["change"] == "OpenRun" && entry["reason"] == "it leaks"), "{audit:#}");
        Ok(())
    })
    .await
}

/// A rollout that fails is told to a person, who ends the run; meanwhile the group takes no other run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_a_restart_that_fails_is_paged_and_ended_by_a_person() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        let script = lab.services[HOME].restart_script.clone();
        let well = std::fs::read_to_string(&script)?;
        std::fs::write(&script, "#!/bin/sh\necho 'deployment exceeded its progress deadline' >&2\nexit 1\n")?;
        let words =
            ["service", "restart", GROUP, "api", "--region", HOME, "--yes", GROUP, "--detach", "--reason", "it leaks"];
        lab.node("witness-1")?.ctl(&words).await?;
        let run = lab.until_run(&[RunPhase::Stuck], WITHIN).await?;
        let id = run.summary.clone().unwrap_or_default().id;
        until("the page of its failure", WITHIN, async || {
            let told = lab.receivers.received();
            let says =
                |page: &crate::lab::receiver::Received| page.says("SERVICE_RECOVERY_FAILED") && page.says("is stuck");
            ensure!(told.iter().any(says), "not yet");
            Ok(())
        })
        .await?;
        let refused =
            lab.node("witness-1")?.ctl(&words).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains("no open run"), "{refused}");
        lab.node("witness-1")?.ctl(&["run", "abort", &id, "--reason", "mended by hand", "--yes", GROUP]).await?;
        lab.until_run(&[RunPhase::Aborted], WITHIN).await?;
        std::fs::write(&script, well)?;
        lab.node("witness-1")?.ctl(&words).await?;
        lab.until_run(&[RunPhase::Succeeded], WITHIN).await?;
        Ok(())
    })
    .await
}
