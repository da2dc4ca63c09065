//! Every node of the watchdog is lost in the middle of a run; a cluster formed anew is given the backup. It acts under a
//! higher token, and what the old cluster could still say is refused.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use watchdog::proto::RunPhase;

use crate::lab::folder::binaries;
use crate::lab::parts::{Lab, Options};
use crate::lab::process::run_async;
use crate::lab::watch::group;
use crate::lab::{CLUSTER, DR, GROUP, HOME, wait};
use crate::scene::{fast, play};

/// What a host's guard answers to a `raise` of this token, asked as its forced command is.
fn raise(lab: &Lab, site: &str, epoch: u64, n: u64) -> Result<Value> {
    let request = serde_json::json!({
        "cluster": CLUSTER, "epoch": epoch, "action": "raise", "group": GROUP, "run": "an-old-run", "step": "fence", "attempt": 1,
        "token": { "epoch": epoch, "n": n },
    });
    let config = lab.folder.path.join(site).join("guard.toml");
    let mut child = Command::new(binaries()?.guard)
        .arg("--config")
        .arg(config)
        .arg("ssh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdin.take().context("its stdin")?.write_all(format!("{request}\n").as_bytes())?;
    let said = child.wait_with_output()?.stdout;
    serde_json::from_slice(&said).with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&said)))
}

/// By hand, on the host.
async fn enrol(lab: &Lab, site: &str, epoch: &str) -> Result<()> {
    let mut enrol = Command::new(binaries()?.guard);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    enrol.arg("--config").arg(lab.folder.path.join(site).join("guard.toml"));
    enrol.args(["enroll", "--cluster", CLUSTER, "--epoch", epoch, "--group", GROUP, "--confirm", host.trim()]);
    run_async(enrol).await.map(drop)
}

/// Every node killed, its data gone, the epoch raised; then formed anew.
async fn form_anew(lab: &mut Lab) -> Result<()> {
    for node in &mut lab.nodes {
        node.kill()?;
    }
    std::fs::remove_dir_all(lab.folder.path.join("nodes"))?;
    let file = lab.folder.path.join("etc/watchdog.toml");
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains("epoch = 1\n"), "no epoch in {}", file.display());
    std::fs::write(&file, text.replace("epoch = 1\n", "epoch = 2\n"))?;
    let Lab { nodes, folder, .. } = lab;
    for node in nodes {
        node.start_again(folder)?;
    }
    wait::until("the new cluster to adopt its configuration", Duration::from_secs(60), async || {
        ensure!(lab.status().await?.epoch == 2, "not yet");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_restored_cluster_acts_above_every_token_of_the_old_one() -> Result<()> {
    let changes = vec![("fence_patience_s = 10".to_owned(), "fence_patience_s = 2".to_owned())];
    play(Options { changes, ..fast() }, async |lab: &mut Lab| {
        // The old primary's host cannot be reached: the run is stuck at its fence, under token 1.1.
        lab.hosts.get_mut(HOME).map(|host| host.kill()).transpose()?;
        lab.kill_home()?;
        lab.until_run(&[RunPhase::Stuck], Duration::from_secs(60)).await?;
        let backup = lab.folder.path.join("state.backup");
        let file = backup.display().to_string();
        lab.node("witness-1")?.ctl(&["cluster", "backup", &file]).await?;
        form_anew(lab).await?;

        // It knows nothing, and so does nothing.
        let status = lab.status().await?;
        let paused = group(&status)?.pause.clone().context("it is not paused")?;
        ensure!(paused.reason.contains("was formed anew"), "{}", paused.reason);
        restored(lab, &backup).await?;

        let status = lab.status().await?;
        let seen = group(&status)?;
        ensure!(seen.token == "2.1" && seen.open_run.is_none(), "{seen:?}");
        ensure!(
            seen.pause.as_ref().is_some_and(|pause| pause.reason.starts_with("restored from the backup")),
            "{seen:?}"
        );
        let runs = lab.runs().await?;
        ensure!(runs.len() == 1 && runs[0].phase() == RunPhase::Aborted, "runs: {runs:?}");

        // The host is back, and its guard enrolled: what was left there is settled under the new token, and the old
        // cluster is heard no more.
        for site in [HOME, DR] {
            enrol(lab, site, "2").await?;
        }
        let Lab { hosts, folder, .. } = lab;
        hosts.get_mut(HOME).context("the host")?.start(folder).await?;
        wait::until("what was left unsettled to be settled", Duration::from_secs(60), async || {
            ensure!(group(&lab.status().await?)?.unsettled.is_empty(), "not yet");
            Ok(())
        })
        .await?;
        let old = raise(lab, HOME, 1, 99)?;
        ensure!(old["answer"] != "raised" && old.to_string().contains("refus"), "{old}");

        // And it can still do what it is for.
        lab.node("witness-1")?.ctl(&["resume", GROUP, "--reason", "looked at"]).await?;
        let words = [
            "failover",
            GROUP,
            "--to",
            DR,
            "--reason",
            "its primary is dead",
            "--accept-loss",
            "--yes",
            GROUP,
            "--detach",
        ];
        lab.node("witness-1")?.ctl(&words).await?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        let token = run.summary.clone().unwrap_or_default().token;
        ensure!(token == "2.2", "{token}");
        ensure!(lab.zone_token().await?.contains("2.2"), "{}", lab.zone_token().await?);
        let old = raise(lab, DR, 1, 99)?;
        ensure!(old.to_string().contains("refus"), "{old}");
        lab.client()?.first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
        let audit = lab.node("witness-1")?.ctl(&["audit", "--limit", "500"]).await?.to_string();
        for what in ["the backup's audit ends with entry", "restore the backup", "resume"] {
            ensure!(audit.contains(what), "the audit has no {what:?}");
        }
        Ok(())
    })
    .await
}

/// Side by side first, and refused where it cannot be.
async fn restored(lab: &Lab, backup: &Path) -> Result<()> {
    let node = lab.node("witness-1")?;
    let file = backup.display().to_string();
    let unsaid = node.ctl(&["cluster", "restore", &file, "--dry-run"]).await;
    let told = unsaid.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(told.contains("when the backup was made nobody served, hcmc the last"), "{told}");
    let serving = format!("{GROUP}={HOME}");
    let words = ["cluster", "restore", &file, "--serving", &serving, "--reason", "all nodes were lost"];
    let judged = node.ctl(&[&words[..], &["--dry-run"]].concat()).await?;
    ensure!(judged["restored"] == false && judged["groups"][0]["token_before"] == "1.1", "{judged}");
    let done = node.ctl(&[&words[..], &["--yes", CLUSTER]].concat()).await?;
    ensure!(done["restored"] == true, "{done}");
    let again = node.ctl(&[&words[..], &["--yes", CLUSTER]].concat()).await;
    let told = again.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(told.contains("a backup goes into a new, unused one only"), "{told}");
    Ok(())
}
