//! What the lease costs the database's commits: pgbench with it and without it, in pairs, on the same server.
//!
//! *With* is everything that the mode adds: the programs at the cgroup, both resident guards, the renewals and the holds.
//! *Without*, the guards are killed and the programs taken away. Nodes, probes and the standby go on in both.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use watchdog::guard::egress::{Egress, Kind, Scope};
use watchdog::guard::host::boottime_ms;
use watchdog::guard::lease::files;
use watchdog::guard::token_store::GroupFiles;

use super::lease::{self, Cgroup};
use super::parts::{Lab, Options, Pace};
use super::postgres::DATABASE;
use super::process::run_async;
use super::watch::group;
use super::{DR, GROUP, HOME, wait};

/// Rows of pgbench's smallest table: above the most clients, so that they do not wait for one another's rows alone.
const SCALE: u32 = 50;
/// How many clients at once.
const CLIENTS: [u32; 2] = [1, 16];

/// One run of pgbench.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Run {
    tps: f64,
    latency_ms: f64,
}

/// Two runs, one right after the other.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Pair {
    clients: u32,
    with: Run,
    without: Run,
}

impl Pair {
    /// How much less was done with the lease, percent of what was done without it.
    fn cost_percent(&self) -> f64 {
        100.0 * (1.0 - self.with.tps / self.without.tps)
    }
}

/// Measures `pairs` pairs for each number of clients, each run `seconds` long, and prints them.
pub async fn lease_cost(pairs: u32, seconds: u32) -> Result<Vec<Pair>> {
    ensure!(lease::can(Kind::Bpf), "this machine cannot gate a database");
    // Nothing shall be failed over while the guards are taken away.
    let changes = vec![("hold_down_ms = 3000".to_owned(), "hold_down_ms = 600000".to_owned())];
    let mut lab = Lab::start(Options { lease: true, pace: Pace::Default, changes, ..Options::default() }).await?;
    lab.start_nodes().await?;
    renewed(&lab, 0).await?;
    let mut fill = pgbench(&lab);
    fill.args(["--initialize", "--quiet", "--scale", &SCALE.to_string(), DATABASE]);
    run_async(fill).await?;
    let mut found = Vec::new();
    let mut is_on = true;
    for n in 0..pairs {
        for clients in CLIENTS {
            let mut runs = [None; 2];
            // The order alternates: whoever comes second finds a larger database.
            for with in [n % 2 == 0, n % 2 != 0] {
                if with != is_on {
                    if with {
                        put_on(&mut lab).await?
                    } else {
                        take_off(&mut lab)?
                    }
                    is_on = with;
                }
                runs[usize::from(with)] = Some(once(&lab, clients, seconds).await?);
            }
            let [Some(without), Some(with)] = runs else { continue };
            let pair = Pair { clients, with, without };
            eprintln!("{pair:?}: {:.1} %", pair.cost_percent());
            found.push(pair);
        }
    }
    print(&found, seconds);
    Ok(found)
}

fn pgbench(lab: &Lab) -> std::process::Command {
    let mut command = lab.primary.command("pgbench");
    command.args(["--host", &lab.primary.address.to_string(), "--port", &lab.primary.port.to_string()]);
    command.args(["--username", "postgres"]);
    command
}

async fn once(lab: &Lab, clients: u32, seconds: u32) -> Result<Run> {
    let checkpoint = lab.primary.connect("postgres", "postgres").await?;
    checkpoint.batch_execute("checkpoint").await?;
    let mut command = pgbench(lab);
    command.args(["--no-vacuum", "--client", &clients.to_string(), "--jobs", &clients.min(2).to_string()]);
    command.args(["--time", &seconds.to_string(), DATABASE]);
    let said = run_async(command).await?;
    let number = |key: &str| {
        let rest =
            said.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key:?}: {said}"))?;
        let word = rest.split_whitespace().next().unwrap_or_default();
        word.parse::<f64>().with_context(|| format!("{key:?} is followed by {word:?}"))
    };
    Ok(Run { tps: number("tps = ")?, latency_ms: number("latency average = ")? })
}

/// Waits until the guard that runs since `since_ms` (`CLOCK_BOOTTIME`) renews a lease that is bound.
async fn renewed(lab: &Lab, since_ms: u64) -> Result<()> {
    let files = GroupFiles::new(&lab.folder.path.join(HOME).join("guard"), &GROUP.into());
    wait::until("the lease to be bound and to be renewed", Duration::from_secs(30), async || {
        let now = files::now(&files).map_err(anyhow::Error::msg)?;
        let is_renewed = now.at_boottime_ms > since_ms && now.passes(boottime_ms()) && now.gate.starts_with("bounded");
        ensure!(is_renewed, "{}", now.in_words());
        let status = lab.status().await?;
        ensure!(group(&status)?.lease.is_some(), "it is not bound");
        Ok(())
    })
    .await
}

async fn put_on(lab: &mut Lab) -> Result<()> {
    let since_ms = boottime_ms();
    for site in [HOME, DR] {
        let config = lab.folder.path.join(site).join("guard.toml");
        let guard = lease::serve(&lab.folder, site, &config)?;
        lab.guards.insert(site.to_owned(), guard);
    }
    renewed(lab, since_ms).await
}

fn take_off(lab: &mut Lab) -> Result<()> {
    for guard in std::mem::take(&mut lab.guards).into_values() {
        guard.kill()?;
    }
    let cgroup = lab.primary.cgroup().map(Cgroup::path);
    let scope = Scope { group: GROUP.into(), port: lab.primary.port, exempt: vec![], cgroup };
    Ok(Egress::install(scope, Some(Kind::Bpf))?.remove()?)
}

fn print(pairs: &[Pair], seconds: u32) {
    println!("\npgbench (TPC-B-like, scale {SCALE}), {seconds} s each; transactions a second, median (least – most)");
    println!("{:<10} {:>24} {:>24} {:>28}", "clients", "without", "with", "cost of the pair, %");
    for clients in CLIENTS {
        let of = |field: fn(&Pair) -> f64, digits: usize| {
            let mut all: Vec<f64> = pairs.iter().filter(|pair| pair.clients == clients).map(field).collect();
            all.sort_by(f64::total_cmp);
            let at = |n: usize| all.get(n).copied().unwrap_or_default();
            format!(
                "{:.digits$} ({:.digits$} – {:.digits$})",
                at(all.len() / 2),
                at(0),
                at(all.len().saturating_sub(1))
            )
        };
        let (without, with) = (of(|pair| pair.without.tps, 0), of(|pair| pair.with.tps, 0));
        println!("{clients:<10} {without:>24} {with:>24} {:>28}", of(Pair::cost_percent, 1));
        let (without, with) = (of(|pair| pair.without.latency_ms, 2), of(|pair| pair.with.latency_ms, 2));
        println!("{:<10} {without:>24} {with:>24}   ms each", "");
    }
}
