//! What is foretold: in mode `lease`, where the old primary can still be asked and its own guard is the proof; and where a
//! program is missing that a failover would need.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::guard::egress::Kind;
use watchdog::proto::StepPhase;

use crate::lab::demo::{fail_over, until_held};
use crate::lab::parts::{Lab, Options};
use crate::lab::receiver::Received;
use crate::lab::wait::until;
use crate::lab::{DR, GROUP, lease};
use crate::scene::{each_effect_once, fast, play, points_at};

/// Whichever proof comes first: a fence by the guard waits neither for the lease nor for the standby's hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_the_guards_own_proof_waits_for_no_lease() -> Result<()> {
    if !lease::can(Kind::Bpf) {
        return Ok(());
    }
    play(Options { lease: true, ..fast() }, async |lab: &mut Lab| {
        until_held(lab).await?;
        // It exits with 1 where the group would not fail over by itself.
        let ready = lab.nodes[0].ctl(&["readiness", GROUP]).await?;
        let items = ready["items"].as_array().context("no items")?;
        // Nothing was rehearsed yet.
        let is_well = |item: &serde_json::Value| item["state"] == "yes" || item["name"] == "drill";
        ensure!(ready["ready"] == true && items.iter().all(is_well), "{ready:#}");
        ensure!(ready["expected_recovery_ms"].is_u64() && ready["expected_loss_ms"].is_u64(), "{ready:#}");

        fail_over(lab, None, false).await?;
        let run = lab.run(&lab.runs().await?.first().context("no run")?.id).await?;
        let step = |id: &str| run.steps.iter().find(|step| step.id == id).context("no such step");
        ensure!(step("fence")?.phase() == StepPhase::Done, "{:?}", step("fence")?);
        ensure!(step("promote")?.attempts == 1, "the hold was waited for: {:?}", step("promote")?);
        points_at(lab, DR)?;
        each_effect_once(lab)
    })
    .await
}

/// The lab's nodes judge readiness each second instead of each minute.
fn judged_often() -> Options {
    let (old, new) = ("[timing]\n", "[timing]\nreadiness_interval_s = 1\n");
    Options { changes: vec![(old.to_owned(), new.to_owned())], ..fast() }
}

fn is_about_programs(page: &Received) -> bool {
    page.by == "pagerduty" && page.says("NOT_READY") && page.says("start-services")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_taken_away_makes_the_group_not_ready_and_pages() -> Result<()> {
    play(judged_often(), async |lab: &mut Lab| {
        let within = Duration::from_secs(60);
        // It exits with 1 where the group would not fail over by itself: then there is no JSON to be had that way.
        let ask = async |lab: &Lab| {
            let asked = lab.node("witness-1")?.ctl_whatever(&["readiness", GROUP]).await?;
            Ok::<_, anyhow::Error>(asked)
        };
        until("readiness", within, async || {
            let ready = ask(lab).await?;
            ensure!(ready["ready"] == true, "{ready:#}");
            Ok(())
        })
        .await?;
        ensure!(!lab.receivers.received().iter().any(|page| page.says("NOT_READY")), "paged while it was ready");

        let script = lab.services[DR].start_script.clone();
        let aside = script.with_extension("aside");
        std::fs::rename(&script, &aside)?;
        until("the answer no", within, async || {
            let ready = ask(lab).await?;
            let items = ready["items"].as_array().context("no items")?;
            let bad: Vec<_> = items.iter().filter(|item| item["state"] == "no").collect();
            ensure!(ready["ready"] == false && bad.len() == 1, "{ready:#}");
            ensure!(bad[0].to_string().contains(&script.display().to_string()), "{:#}", bad[0]);
            Ok(())
        })
        .await?;
        until("the page", within, async || {
            let told = lab.receivers.received();
            ensure!(
                told.iter().any(is_about_programs),
                "{:?}",
                told.iter().map(Received::headline).collect::<Vec<_>>()
            );
            Ok(())
        })
        .await?;
        let key = {
            let told = lab.receivers.received();
            let page = told.iter().find(|page| is_about_programs(page)).context("no page")?;
            page.body["dedup_key"].as_str().context("no key")?.to_owned()
        };
        ensure!(std::fs::metadata(&aside)?.permissions().mode() & 0o111 != 0, "it was no program before");
        std::fs::rename(&aside, &script)?;
        until("the end of the incident", within, async || {
            let told = lab.receivers.received();
            let ends =
                |page: &&Received| page.body["event_action"] == "resolve" && page.body["dedup_key"] == key.as_str();
            ensure!(told.iter().any(|page| ends(&page)), "not yet");
            Ok(())
        })
        .await?;
        ensure!(ask(lab).await?["ready"] == true, "ready again");
        Ok(())
    })
    .await
}
