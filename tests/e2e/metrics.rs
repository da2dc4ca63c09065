//! What Prometheus reads from each node, at rest and after a failover.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::demo::fail_over;
use crate::lab::parts::{Lab, Options};
use crate::lab::{DR, GROUP, HOME, wait};
use crate::scene::{fast, play};

/// `name{labels}` and the value.
type Samples = BTreeMap<String, f64>;

async fn scrape(lab: &Lab, node: &str) -> Result<(String, Samples)> {
    let answer = reqwest::get(format!("http://{}/metrics", lab.node(node)?.http)).await?.error_for_status()?;
    let kind = answer.headers().get("content-type").context("no content type")?.to_str()?.to_owned();
    ensure!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = answer.text().await?;
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let samples = lines.map(|(name, value)| Ok((name.to_owned(), value.parse()?))).collect::<Result<_>>()?;
    Ok((text, samples))
}

fn value(samples: &Samples, name: &str) -> Result<f64> {
    samples.get(name).copied().with_context(|| {
        let family = name.split('{').next().unwrap_or(name);
        let near: Vec<_> = samples.keys().filter(|key| key.starts_with(family)).collect();
        format!("no {name} among {near:?}")
    })
}

/// Prometheus' own judgement of the text: conventions, help, types.
fn lint(text: &str) -> Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool: scripts/install")?;
    promtool.stdin.take().context("a pipe")?.write_all(text.as_bytes())?;
    let ended = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    ensure!(ended.status.success() && said.trim().is_empty(), "promtool: {said}");
    Ok(())
}

async fn at_rest(lab: &Lab) -> Result<()> {
    let mut leaders = 0.0;
    for node in ["hcmc-1", "hanoi-1", "witness-1"] {
        let (text, samples) = scrape(lab, node).await?;
        lint(&text).with_context(|| node.to_owned())?;
        ensure!(value(&samples, "watchdog_raft_has_quorum")? == 1.0, "{node}");
        ensure!(value(&samples, "watchdog_raft_voters")? == 3.0, "{node}");
        ensure!(value(&samples, "watchdog_config_in_force")? == 1.0, "{node}");
        leaders += value(&samples, "watchdog_raft_is_leader")?;
        let serving = |region: &str| format!("watchdog_group_serving{{group=\"{GROUP}\",region=\"{region}\"}}");
        ensure!(value(&samples, &serving(HOME))? == 1.0 && value(&samples, &serving(DR))? == 0.0, "{node}");
        let lag =
            format!("pg_replication_lag_seconds{{group=\"{GROUP}\",region=\"{DR}\",target=\"hanoi-replication\"}}");
        ensure!(value(&samples, &lag)? < 60.0, "{node}: {}", value(&samples, &lag)?);
        let up =
            format!("watchdog_target_verdict{{group=\"{GROUP}\",region=\"{HOME}\",target=\"hcmc-db\",verdict=\"up\"}}");
        ensure!(value(&samples, &up)? == 1.0, "{node}");
        let good = format!("watchdog_probes_total{{group=\"{GROUP}\",result=\"good\",target=\"hcmc-db\"}}");
        let timed = format!("watchdog_probe_duration_seconds_count{{group=\"{GROUP}\",target=\"hcmc-db\"}}");
        ensure!(value(&samples, &good)? >= 1.0 && value(&samples, &timed)? >= 1.0, "{node}");
        ensure!(value(&samples, "process_resident_memory_bytes")? > 1e6, "{node}");
        ensure!(value(&samples, "watchdog_certificate_expiry_timestamp_seconds")? > 1.7e9, "{node}");
        ensure!(!text.contains("/run/") && !text.contains("password"), "{node}: more than names in labels");
    }
    ensure!(leaders == 1.0, "{leaders} leaders");
    let backup = |name: &str| format!("backup_{name}{{group=\"{GROUP}\",region=\"{HOME}\",target=\"backup\"}}");
    let (_, samples) = scrape(lab, "hcmc-1").await?;
    // The newest by its end, which is not the last one in the list.
    ensure!(value(&samples, &backup("last_success_timestamp"))? == 1_795_290_769.0, "{samples:?}");
    ensure!(value(&samples, &backup("is_ok"))? == 1.0 && value(&samples, &backup("is_known"))? == 1.0, "{samples:?}");
    ensure!(value(&samples, &backup("max_age_seconds"))? == 90_000.0, "{samples:?}");
    let (_, elsewhere) = scrape(lab, "hanoi-1").await?;
    ensure!(value(&elsewhere, &backup("is_known")).is_err(), "it lies on one machine only");
    Ok(())
}

async fn a_failover_is_counted_once(lab: &mut Lab) -> Result<()> {
    at_rest(lab).await?;
    fail_over(lab, None, false).await?;
    wait::until("each node to tell of the failover", Duration::from_secs(20), async || {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for node in ["hcmc-1", "hanoi-1", "witness-1"] {
            let (text, samples) = scrape(lab, node).await?;
            lint(&text)?;
            let serving = format!("watchdog_group_serving{{group=\"{GROUP}\",region=\"{DR}\"}}");
            ensure!(value(&samples, &serving)? == 1.0, "{node}");
            ensure!(value(&samples, &format!("watchdog_group_token_number{{group=\"{GROUP}\"}}"))? >= 1.0, "{node}");
            let took = format!("watchdog_last_recovery_time_seconds{{group=\"{GROUP}\",kind=\"failover\"}}");
            ensure!(value(&samples, &took)? > 0.0, "{node}");
            let closed = format!(
                "watchdog_runs_total{{drill=\"false\",group=\"{GROUP}\",kind=\"failover\",outcome=\"succeeded\"}}"
            );
            *sums.entry("runs").or_default() += value(&samples, &closed)?;
            let promoted = format!("watchdog_steps_total{{action=\"promote\",group=\"{GROUP}\",outcome=\"done\"}}");
            *sums.entry("promotions").or_default() += value(&samples, &promoted)?;
            let sent =
                |name: &str| name.starts_with("watchdog_pages_total{") && name.ends_with(",result=\"delivered\"}");
            *sums.entry("pages").or_default() +=
                samples.iter().filter(|(name, _)| sent(name)).map(|it| it.1).sum::<f64>();
        }
        ensure!(sums["runs"] == 1.0 && sums["promotions"] == 1.0 && sums["pages"] >= 2.0, "{sums:?}");
        Ok(())
    })
    .await?;
    // Every gauge was told by somebody by now, but those of modes and moments that this group does not have.
    let elsewhere: BTreeSet<&str> = [
        "watchdog_run_open",
        "watchdog_run_opened_timestamp_seconds",
        "watchdog_run_steps",
        "watchdog_lease_bound",
        "watchdog_lease_ttl_seconds",
        "watchdog_lease_grant_age_seconds",
        "watchdog_lease_holders",
        "watchdog_alarms_active",
        "watchdog_group_readiness",
        "watchdog_group_readiness_since_timestamp_seconds",
        "watchdog_group_expected_loss_seconds",
        "watchdog_heartbeat_last_success_timestamp_seconds",
        "watchdog_heartbeat_interval_seconds",
        "watchdog_drill_last_success_timestamp_seconds",
        "watchdog_drill_last_recovery_time_seconds",
        "watchdog_drills",
        // Of groups with Redis.
        "redis_is_primary",
        "redis_replication_is_linked",
        "redis_replication_lag_bytes",
        "redis_replication_last_io_age_seconds",
        "watchdog_drill_month_drills",
        "watchdog_drill_month_success_ratio",
        "watchdog_drill_month_recovery_time_seconds",
        "watchdog_drill_month_recovery_objective_met_ratio",
        "watchdog_drill_month_without_loss_ratio",
        "watchdog_drill_month_rows_lost",
        "watchdog_drill_month_lost_bytes",
        "watchdog_drill_rto_objective_seconds",
        "watchdog_drill_rpo_objective_seconds",
    ]
    .into();
    let mut told = String::new();
    for node in ["hcmc-1", "hanoi-1", "witness-1"] {
        told += &scrape(lab, node).await?.0;
    }
    for family in watchdog::metrics::families::GAUGES {
        let is_told = told.contains(&format!("\n{}{{", family.name)) || told.contains(&format!("\n{} ", family.name));
        ensure!(is_told || elsewhere.contains(family.name), "nobody told {}", family.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_prometheus_reads_is_so_and_a_failover_is_counted_once() -> Result<()> {
    // What pgBackRest prints, as its schedule would leave it on one node's machine.
    let folder = tempfile::tempdir()?;
    let info = folder.path().join("info.json");
    std::fs::write(&info, include_str!("../probe/pgbackrest/two.json").replace("1795290772", "1600000000"))?;
    let target = "[[group.target]]\nname = \"hanoi-db\"".to_owned();
    let backup = format!(
        "[[group.target]]\nname = \"backup\"\nregion = \"{HOME}\"\nkind = \"backup\"\nfile = \"{}\"\nstanza = \"demo\"\n\
         nodes = [\"hcmc-1\"]\n\n{target}",
        info.display()
    );
    play(Options { changes: vec![(target, backup)], ..fast() }, a_failover_is_counted_once).await
}
