//! Nodes at rest: what they keep in memory, what they compute, and how long after a start they are ready.

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::nodes::Node;
use super::parts::{Lab, Options, Zone};
use super::{DR, HOME, wait};

/// The unit of `/proc/PID/stat` on Linux, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;
/// The aim for CPU is said of so many targets.
const TARGETS: usize = 20;
/// Those of the lab's own configuration.
const TARGETS_OF_LAB: usize = 5;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    nodes: Vec<Rest>,
    /// A node that did not lead, killed and started again, each time.
    follower_ready_ms: Vec<u64>,
    /// The leader, killed and started again: an election is within.
    leader_ready_ms: Vec<u64>,
    /// All nodes killed, and started together.
    cluster_ready_ms: Vec<u64>,
}

/// A node at rest.
#[derive(Debug, Serialize)]
struct Rest {
    node: String,
    leads: bool,
    resident_mb: f64,
    /// The process's own part of it.
    own_mb: f64,
    /// Pages of the program's file and its libraries; other processes of the program share them.
    file_mb: f64,
    /// Percent of one core.
    cpu_percent: f64,
}

/// Watches nodes for `rest_s`, then starts them again `times` times.
pub async fn at_rest(zone: Zone, rest_s: u64, times: u32) -> Result<Figures> {
    let mut lab = Lab::start(Options { zone, ..Options::default() }).await?;
    let more = more_targets(&lab);
    lab.options.changes.push(("[[group.record]]".to_owned(), more + "[[group.record]]"));
    lab.start_nodes().await?;
    // The first seconds are not rest.
    wait::pause(Duration::from_secs(5)).await;
    let leader = lab.leader().await?;
    let before = lab.nodes.iter().map(cpu_ticks).collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    wait::pause(Duration::from_secs(rest_s)).await;
    let mut figures = Figures::default();
    for (node, before) in lab.nodes.iter().zip(before) {
        let seconds = cpu_ticks(node)?.saturating_sub(before) as f64 / TICKS_PER_SECOND;
        let memory = fs::read_to_string(format!("/proc/{}/status", node.part()?.pid))?;
        figures.nodes.push(Rest {
            node: node.name.clone(),
            leads: node.name == leader,
            resident_mb: megabytes(&memory, "VmRSS:")?,
            own_mb: megabytes(&memory, "RssAnon:")?,
            file_mb: megabytes(&memory, "RssFile:")?,
            cpu_percent: 100.0 * seconds / begun.elapsed().as_secs_f64(),
        });
    }
    for _ in 0..times {
        for at in 0..lab.nodes.len() {
            settled(&lab).await?;
            let led = lab.leader().await? == lab.nodes[at].name;
            let took = start_to_ready(&mut lab, &[at]).await?;
            if led { &mut figures.leader_ready_ms } else { &mut figures.follower_ready_ms }.push(took);
        }
        settled(&lab).await?;
        figures.cluster_ready_ms.push(start_to_ready(&mut lab, &[0, 1, 2]).await?);
    }
    Ok(figures)
}

/// Nobody is measured in the wake of the start before.
async fn settled(lab: &Lab) -> Result<()> {
    lab.until_ready().await?;
    lab.until_witness_leads().await;
    wait::pause(Duration::from_secs(2)).await;
    Ok(())
}

fn more_targets(lab: &Lab) -> String {
    let mut text = String::new();
    for n in TARGETS_OF_LAB..TARGETS {
        let region = if n % 2 == 0 { HOME } else { DR };
        let _ = write!(
            text,
            "[[group.target]]\nname = \"more-{n}\"\nregion = \"{region}\"\nkind = \"http\"\n\
             url = \"http://{}/health\"\ninterval_ms = 500\n\n",
            lab.services[HOME].listen
        );
    }
    text
}

/// Kills nodes, starts them together, and waits until each answers that it is ready.
async fn start_to_ready(lab: &mut Lab, which: &[usize]) -> Result<u64> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build()?;
    let Lab { nodes, folder, .. } = lab;
    for at in which {
        nodes[*at].kill()?;
    }
    let begun = Instant::now();
    for at in which {
        nodes[*at].start_again(folder)?;
    }
    for at in which {
        let url = format!("http://{}/readyz", nodes[*at].http);
        wait::until_true("the node to be ready", Duration::from_secs(20), async || {
            client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await?;
    }
    Ok(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// User and system time so far, in ticks.
fn cpu_ticks(node: &Node) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/stat", node.part()?.pid))?;
    let (_, after) = text.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    Ok(ticks(11) + ticks(12))
}

fn megabytes(status: &str, key: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0)
}

/// As tables.
pub fn print(figures: &Figures) {
    println!(
        "\n{:<44} {:>9} {:>9} {:>9} {:>9}",
        format!("node at rest, {TARGETS} targets"),
        "MB",
        "its own",
        "file",
        "CPU, %"
    );
    for rest in &figures.nodes {
        println!(
            "{:<44} {:>9.1} {:>9.1} {:>9.1} {:>9.2}",
            format!("{}{}", rest.node, if rest.leads { " (leads)" } else { "" }),
            rest.resident_mb,
            rest.own_mb,
            rest.file_mb,
            rest.cpu_percent
        );
    }
    println!("\n{:<44} {:>9} {:>9} {:>9}", "start to ready, ms", "median", "least", "most");
    for (name, values) in [
        ("a follower again", &figures.follower_ready_ms),
        ("the leader again (an election)", &figures.leader_ready_ms),
        ("all three together", &figures.cluster_ready_ms),
    ] {
        let mut sorted = values.clone();
        sorted.sort_unstable();
        if let (Some(least), Some(most)) = (sorted.first(), sorted.last()) {
            println!("{name:<44} {:>9} {least:>9} {most:>9}", sorted[sorted.len() / 2]);
        }
    }
}
