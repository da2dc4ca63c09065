//! Rehearsals on real parts: nothing is changed by reading; a simulated fault is failed over from and mended; a group moves and
//! comes back twice in a row, and its two reports are compared.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use watchdog::proto::Verdict;

use crate::lab::homeward::{LONG, until_it_follows, until_open, writes_at};
use crate::lab::parts::{Lab, Options};
use crate::lab::process::kill_all;
use crate::lab::{GROUP, HOME, browser, wait};
use crate::scene::{effects, fast, nothing_happened, play, points_at};

/// A lab for drills: readiness is judged each second, and what serves after a move is watched for a short while.
fn rehearsing(group: &str) -> Options {
    let changes = [
        ("[timing]\n", "[timing]\nreadiness_interval_s = 1\n"),
        ("fence_patience_s = 10\n", &format!("fence_patience_s = 10\nmonitor_for_s = 2\n{group}")),
    ];
    Options { changes: changes.map(|(old, new)| (old.to_owned(), new.to_owned())).to_vec(), ..fast() }
}

/// Begun as soon as the cluster lets it begin.
async fn start(lab: &Lab, kind: &str) -> Result<String> {
    wait::until(&format!("a {kind} drill to begin"), LONG, async || {
        let words = ["drill", "start", GROUP, "--kind", kind, "--yes", GROUP, "--reason", "the test says so"];
        let begun = lab.node("witness-1")?.ctl(&words).await?;
        begun["drill"]["summary"]["id"].as_str().map(str::to_owned).with_context(|| format!("{begun:#}"))
    })
    .await
}

/// Its report once it is over.
async fn until_over(lab: &Lab, id: &str) -> Result<Value> {
    wait::until("the drill to be over", LONG, async || {
        let report = lab.node("witness-1")?.ctl(&["drill", "report", id, "--format", "json"]).await?;
        ensure!(!report["drill"]["closing"].is_null(), "it is {}", report["drill"]["phase"]);
        Ok(report)
    })
    .await
}

/// As [`until_over`]; it must have passed.
async fn until_passed(lab: &Lab, id: &str) -> Result<Value> {
    let report = until_over(lab, id).await?;
    let closing = &report["drill"]["closing"];
    ensure!(closing["outcome"] == "passed", "{closing:#}\n{:#}", report["drill"]["findings"]);
    Ok(report)
}

fn found(report: &Value, what: &str) -> Result<()> {
    let all = report["drill"]["findings"].as_array().context("no findings")?;
    let found = all.iter().find(|finding| finding["what"] == what);
    ensure!(found.is_some_and(|finding| finding["found"] == "ok"), "{what}: {found:?} in {all:#?}");
    Ok(())
}

/// Every marker row that was acknowledged is there, in rows and in bytes of log.
fn nothing_lost(report: &Value) -> Result<()> {
    let measured = &report["drill"]["measured"];
    ensure!(measured["rows_written"] == 20 && measured["rows_found"] == 20, "{measured:#}");
    ensure!(report["rows_lost"] == 0 && report["bytes_lost"] == 0, "{report:#}");
    ensure!(measured["recovery_ms"].as_u64().is_some_and(|ms| ms > 0), "{measured:#}");
    Ok(())
}

async fn status(lab: &Lab) -> Result<(String, u64)> {
    let status = lab.status().await?;
    let group = crate::lab::watch::group(&status)?;
    Ok((group.token.clone(), group.serving.as_ref().context("nobody serves")?.epoch))
}

/// Written where the test's folder is: `--file` makes a new one.
async fn html(lab: &Lab, id: &str) -> Result<String> {
    let file = lab.folder.path.join(format!("{id}.html"));
    let words = ["drill", "report", id, "--format", "html", "--file", &file.display().to_string()];
    // It prints nothing for programs.
    let _no_json = lab.node("witness-1")?.ctl(&words).await;
    looks_right(&file)
}

fn looks_right(file: &Path) -> Result<String> {
    let picture = file.with_extension("png");
    let look = browser::Look { size: (1000, 2600), ..browser::Look::default() };
    let url = format!("file://{}", file.display());
    browser::screenshot(&url, look, &picture)?;
    if let Some(kept) = std::env::var_os("KEEP_PICTURES") {
        std::fs::copy(&picture, Path::new(&kept).join(picture.file_name().unwrap_or_default()))?;
        std::fs::copy(file, Path::new(&kept).join(file.file_name().unwrap_or_default()))?;
    }
    browser::document(&url, look)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_two_live_drills_in_a_row_move_the_group_and_bring_it_home_and_are_compared() -> Result<()> {
    play(Options { drill_checks: true, ..rehearsing("") }, async |lab: &mut Lab| {
        until_open(lab, "switchover").await?;
        let first = start(lab, "live").await?;
        let one = until_passed(lab, &first).await?;
        nothing_lost(&one)?;
        // The gates of the planned move itself, and not a failover's.
        for what in ["gate streaming", "gate lag", "gate primary up", "marker rows", "check front", "check rows"] {
            found(&one, what)?;
        }
        points_at(lab, HOME)?;
        until_it_follows(&lab.standby, &lab.primary).await?;

        let second = start(lab, "live").await?;
        ensure!(second != first, "the same drill twice");
        let two = until_passed(lab, &second).await?;
        nothing_lost(&two)?;
        points_at(lab, HOME)?;
        writes_at(lab, HOME).await?;

        ensure!(one["last"].is_null() && two["last"]["id"] == first.as_str(), "{:#}", two["last"]);
        ensure!(two["last"]["recovery_ms"] == one["drill"]["measured"]["recovery_ms"], "{:#}", two["last"]);
        let parts = two["parts"].as_array().context("no parts")?;
        let promote = parts.iter().find(|part| part["name"] == "promote").context("no promotion")?;
        ensure!(promote["last_ms"].is_u64(), "{promote:#}");
        let chapters = two["drill"]["runs"][0]["chapters"].as_array().context("no chapters")?;
        let words: Vec<_> = chapters.iter().filter_map(|chapter| chapter["kind"].as_str()).collect();
        ensure!(words.first() == Some(&"detect") && words.last() == Some(&"failback"), "{words:?}");
        ensure!(chapters.last().is_some_and(|back| back["progress"] == "done"), "{chapters:#?}");
        let done = effects(lab)?;
        let promotions: usize = done.iter().filter(|(what, _)| what.ends_with("/promote")).map(|(_, n)| n).sum();
        ensure!(promotions == 4, "there and back, twice: {done:?}");

        let list = lab.node("witness-1")?.ctl(&["drill", "list", GROUP]).await?;
        ensure!(
            list["months"][0]["passed"] == 2 && list["months"][0]["success_percent"] == 100,
            "{:#}",
            list["months"]
        );
        let seen = html(lab, &second).await?;
        ensure!(seen.contains("Past live drills") && seen.contains("passed"), "{seen}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_tabletop_changes_nothing_and_a_simulated_fault_is_failed_over_from_and_mended() -> Result<()> {
    play(rehearsing("drill_resources = true\n"), async |lab: &mut Lab| {
        until_open(lab, "switchover").await?;
        let before = status(lab).await?;
        let tabletop = start(lab, "tabletop").await?;
        // In mode `confirm` a lost region waits for a person's word: what only reads says that it cannot promise a time, and passes.
        let report = until_passed(lab, &tabletop).await?;
        let findings = report["drill"]["findings"].as_array().context("no findings")?;
        let time = findings.iter().find(|one| one["what"] == "objective recovery time").context("no time")?;
        ensure!(time["detail"].as_str().is_some_and(|detail| detail.contains("a person must act")), "{time:#}");
        nothing_happened(lab)?;
        ensure!(status(lab).await? == before, "{before:?} became {:?}", status(lab).await?);
        ensure!(lab.runs().await?.is_empty(), "a run was opened");
        for what in ["gate quorum", "step fence", "step promote", "readiness standby", "objective recovery time"] {
            found(&report, what)?;
        }

        let simulated = start(lab, "simulated").await?;
        let report = until_passed(lab, &simulated).await?;
        nothing_lost(&report)?;
        points_at(lab, HOME)?;
        let kinds: Vec<_> =
            report["drill"]["runs"].as_array().context("no runs")?.iter().map(|run| run["kind"].clone()).collect();
        ensure!(kinds == ["failover", "recovery", "failback"], "{kinds:?}");
        writes_at(lab, HOME).await?;
        until_it_follows(&lab.standby, &lab.primary).await?;
        // What it did was told as a rehearsal, and nobody was woken by a failover that was none.
        let told = lab.receivers.received();
        ensure!(told.iter().any(|page| page.says("DRILL_DR_FAILOVER_STARTED")), "{told:?}");
        let is_real = |page: &&crate::lab::receiver::Received| page.says("\"DR_FAILOVER_");
        ensure!(told.iter().find(is_real).is_none(), "{:?}", told.iter().find(is_real));
        Ok(())
    })
    .await
}

/// D2: what its settings name as an alarm ends a drill at once, and before anything was touched it ends with nothing touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_an_alarm_ends_a_live_drill_and_the_group_stays_where_it_is() -> Result<()> {
    let region = "[[group.region]]\nname = \"hcmc\"\n";
    let schedule = "[[group.drill]]\nname = \"monthly\"\nkind = \"live\"\ncron = \"0 2 1 * *\"\nabort_targets = [\"hcmc-api\"]\n\n";
    let mut options = rehearsing("");
    options.changes.push((region.to_owned(), format!("{schedule}{region}")));
    play(options, async |lab: &mut Lab| {
        until_open(lab, "switchover").await?;
        let pid = std::fs::read_to_string(&lab.services[HOME].pid_file)?.trim().parse()?;
        kill_all(&[pid]);
        wait::until("its service to be seen down", LONG, async || {
            let status = lab.status().await?;
            let votes = &crate::lab::watch::group(&status)?.votes;
            let down = votes.iter().filter(|vote| vote.target == "hcmc-api" && vote.verdict() == Verdict::Down).count();
            ensure!(down == 3, "{votes:?}");
            Ok(())
        })
        .await?;
        let drill = start(lab, "live").await?;
        let report = until_over(lab, &drill).await?;
        let closing = &report["drill"]["closing"];
        ensure!(closing["outcome"] == "aborted", "{closing:#}");
        ensure!(closing.to_string().contains("a quorum sees hcmc-api down"), "{closing:#}");
        ensure!(lab.runs().await?.is_empty(), "{:?}", lab.runs().await?);
        nothing_happened(lab)?;
        points_at(lab, HOME)
    })
    .await
}
