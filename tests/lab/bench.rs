//! What is measured: the floor, failovers with both settings, and nodes at rest.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde::Serialize;

use super::client::{Client, Route};
use super::demo::{Ending, fail_over};
use super::folder::Folder;
use super::measure::Times;
use super::parts::{Lab, Options, Pace, Zone};
use super::postgres::Postgres;
use super::{DR, HOME, address_of, cost, rest, wait};

/// What the bench is asked to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Wish {
    /// How many failovers of each kind.
    #[arg(long, default_value_t = 5)]
    pub times: u32,
    /// How long the nodes rest while they are watched, seconds.
    #[arg(long, default_value_t = 20)]
    pub rest_s: u64,
    /// What answers for the zone.
    #[arg(long, value_enum, default_value_t = Zone::Bind)]
    pub dns: Zone,
    /// Instead: what the lease costs commits, by pgbench, in so many pairs. Wants a machine that does nothing else.
    #[arg(long, value_name = "PAIRS", num_args = 0..=1, default_missing_value = "6")]
    pub lease_cost: Option<u32>,
    /// How long pgbench runs each time, seconds.
    #[arg(long, default_value_t = 5)]
    pub pgbench_s: u32,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench.json")]
    pub json: PathBuf,
}

/// Everything measured.
#[derive(Debug, Serialize)]
struct Figures {
    floor_s: Vec<f64>,
    default: Vec<Times>,
    fast: Vec<Times>,
    leader_killed_fast: Vec<Times>,
    rest: rest::Figures,
}

/// Measures and prints.
pub async fn bench(wish: &Wish) -> Result<()> {
    if let Some(pairs) = wish.lease_cost {
        return write(wish, &cost::lease_cost(pairs, wish.pgbench_s).await?);
    }
    let mut figures =
        Figures { floor_s: vec![], default: vec![], fast: vec![], leader_killed_fast: vec![], rest: <_>::default() };
    for n in 1..=wish.times {
        eprintln!("round {n} of {}", wish.times);
        figures.floor_s.push(floor_once().await?.as_secs_f64());
        figures.default.push(once(wish, Pace::Default, None).await?);
        figures.fast.push(once(wish, Pace::Fast, None).await?);
        figures.leader_killed_fast.push(once(wish, Pace::Fast, Some("promote")).await?);
    }
    eprintln!("nodes at rest for {} s", wish.rest_s);
    figures.rest = rest::at_rest(wish.dns, wish.rest_s, wish.times).await?;
    print_table(&figures);
    write(wish, &figures)
}

fn write(wish: &Wish, figures: &impl Serialize) -> Result<()> {
    if let Some(parent) = wish.json.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&wish.json, serde_json::to_string_pretty(figures)?)?;
    println!("\nas JSON: {}", wish.json.display());
    Ok(())
}

async fn once(wish: &Wish, pace: Pace, kill_leader: Option<&str>) -> Result<Times> {
    let trips = kill_leader.is_some();
    let mut lab = Lab::start(Options { zone: wish.dns, pace, trips, ..Options::default() }).await?;
    lab.start_nodes().await?;
    lab.start_client().await?;
    wait::pause(Duration::from_secs(2)).await;
    let Ending { times, balance, timeline } = fail_over(&mut lab, kill_leader, false).await?;
    eprintln!(
        "  {pace:?}{}: recovery {:.3} s, {} rows acknowledged, {} lost, timeline {timeline}",
        kill_leader.map(|step| format!(", leader killed in {step}")).unwrap_or_default(),
        times.recovery_s,
        balance.acknowledged,
        balance.lost
    );
    Ok(times)
}

fn print_table(figures: &Figures) {
    println!("\n{:<44} {:>9} {:>9} {:>9}", "seconds (over all rounds)", "median", "least", "most");
    row("floor: pg_ctl promote by hand to 1st insert", figures.floor_s.clone());
    for (name, runs) in [
        ("default", &figures.default),
        ("fast", &figures.fast),
        ("fast, leader killed in promote", &figures.leader_killed_fast),
    ] {
        println!("{name}");
        let of = |field: fn(&Times) -> f64| runs.iter().map(field).collect::<Vec<_>>();
        row("  fault to first failure that counted", of(|times| times.detection_s));
        row("  fault to decision (hold-down included)", of(|times| times.decision_s));
        row("  decision to first effect", of(|times| times.first_effect_s));
        for step in runs.first().map(|times| times.steps.clone()).unwrap_or_default() {
            let took = runs.iter().flat_map(|times| &times.steps).filter(|other| other.id == step.id);
            row(&format!("  step {}", step.id), took.map(|other| other.took_s).collect());
        }
        row("  recovery time: fault to 1st insert there", of(|times| times.recovery_s));
        row("  fault to the run's end", of(|times| times.closed_s));
    }
    rest::print(&figures.rest);
}

fn row(name: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (values.first(), values.last()) {
        println!("{name:<44} {:>9.3} {least:>9.3} {most:>9.3}", values[values.len() / 2]);
    }
}

/// Kills the primary and promotes at once by hand: the time to the first insert on the standby's side.
pub async fn floor_once() -> Result<Duration> {
    let mut folder = Folder::create(None)?;
    let port = folder.port(&[address_of(HOME), address_of(DR)])?;
    let mut primary = Postgres::primary(&folder, HOME, port, None).await?;
    let standby = Postgres::standby(&folder, DR, &primary, None).await?;
    let (home, dr) = (address_of(HOME).to_string(), address_of(DR).to_string());
    let client = Client::start(Route::Addresses(vec![home.clone(), dr.clone()]), port, Duration::from_millis(10));
    client.first_from(&home, Duration::from_secs(10)).await?;
    wait::pause(Duration::from_secs(2)).await;
    let fault = SystemTime::now();
    primary.kill()?;
    standby.promote().await?;
    let first = client.first_from(&dr, Duration::from_secs(30)).await?;
    Ok(first.at.duration_since(fault)?)
}

/// The floor, several times.
pub async fn floor(times: u32) -> Result<()> {
    for _ in 0..times {
        println!("floor: {:.3} s", floor_once().await?.as_secs_f64());
    }
    Ok(())
}
