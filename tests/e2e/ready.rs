//! Mode `lease` where the old primary can still be asked: what is foretold, and that its own guard is the proof.

use anyhow::{Context, Result, ensure};
use watchdog::guard::egress::Kind;
use watchdog::proto::StepPhase;

use crate::lab::demo::{fail_over, until_held};
use crate::lab::parts::{Lab, Options};
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
