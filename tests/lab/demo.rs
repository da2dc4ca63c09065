//! The demo: a region dies, its group fails over, and everything is told as it happens.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use watchdog::proto::RunPhase;

use super::client::Balance;
use super::measure::Times;
use super::parts::{Lab, Options, Pace, Zone};
use super::story::Story;
use super::trip::{self, Point};
use super::{DR, HOME, PUBLIC_NAME, wait, watch};

/// The demo has reached its end and is only left running: to interrupt it is no failure.
pub static ENDED_WELL: AtomicBool = AtomicBool::new(false);

/// What the demo is asked to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Wish {
    /// What answers for the zone.
    #[arg(long, value_enum, default_value_t = Zone::Bind)]
    pub dns: Zone,
    /// Kill the leading node in the middle of this step.
    #[arg(long, value_name = "STEP", value_parser = ["fence", "dns", "promote", "services", "verify"])]
    pub kill_leader: Option<String>,
    /// The settings for those who would rather move at once: hold-down 200 ms instead of 3 s.
    #[arg(long)]
    pub fast: bool,
    /// Leave it all running at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Where everything lives; must be empty or not there. A fresh temporary folder by default.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// How one failover went.
pub struct Ending {
    /// What was acknowledged and what is there.
    pub balance: Balance,
    /// When what happened.
    pub times: Times,
    /// The new primary's timeline.
    pub timeline: i32,
}

/// Tells the whole story once.
pub async fn demo(wish: &Wish) -> Result<()> {
    let pace = if wish.fast { Pace::Fast } else { Pace::Default };
    println!("\nTwo regions and a witness, each on a loopback address of its own. Starting the parts:");
    let options = Options {
        zone: wish.dns,
        folder: wish.folder.clone(),
        pace,
        speak: true,
        trips: wish.kill_leader.is_some(),
        ..Options::default()
    };
    let mut lab = Lab::start(options).await?;
    println!("\nThree nodes, one vote each:");
    lab.start_nodes().await?;
    println!("  the leader is {}; everything in {} and {} is seen up by all", lab.leader().await?, HOME, DR);
    lab.start_client().await?;
    println!("\nA client inserts a row every 10 ms at {PUBLIC_NAME}, and resolves the name anew for each connection.");
    wait::pause(Duration::from_secs(2)).await;
    println!("  {} rows acknowledged by {HOME}", lab.client()?.acknowledged().len());
    println!("  dig: {}", lab.dig()?);

    let ending = fail_over(&mut lab, wish.kill_leader.as_deref(), true).await?;
    tell_the_end(&lab, &ending)?;
    if wish.keep {
        stay(&lab).await?;
    }
    Ok(())
}

/// Kills home and follows what comes, until the run is closed and the client writes on the other side.
pub async fn fail_over(lab: &mut Lab, kill_leader: Option<&str>, aloud: bool) -> Result<Ending> {
    if let Some(step) = kill_leader {
        trip::arm(&lab.folder.path, step, Point::Before)?;
    }
    if aloud {
        println!("\nNow PostgreSQL and the service in {HOME} are killed (SIGKILL):\n");
    }
    let fault = SystemTime::now();
    lab.kill_home()?;
    let mut story = Story::new(fault, aloud);
    story.line("fault", &format!("PostgreSQL and the service in {HOME} are dead"), fault);
    let dr = lab.standby.address.to_string();
    let deadline = fault + Duration::from_secs(120);
    let mut waiting_for_trip = kill_leader;
    let run = loop {
        let run = story.look(lab).await;
        if let Some(step) = waiting_for_trip
            && trip::reached(&lab.folder.path, step, Point::Before, Duration::ZERO).await.is_ok()
        {
            waiting_for_trip = None;
            kill_the_leader(lab, &mut story, step).await?;
        }
        let writes_again = lab.client()?.newest().is_some_and(|row| row.by == dr);
        if let Some(run) = run.filter(|run| writes_again && watch::phase(run) == RunPhase::Succeeded) {
            break run;
        }
        if SystemTime::now() > deadline {
            story.end();
            lab.folder.keep_files();
            bail!(
                "after 120 s the client does not write in {DR} (its last error: {}), or no run succeeded",
                lab.client()?.last_error()
            );
        }
        wait::pause(Duration::from_millis(20)).await;
    };
    let first = lab.client()?.first_from(&dr, Duration::from_secs(1)).await?;
    // The page about the success is on its way; the story ends with it.
    let told = wait::until_true("the page about the success", Duration::from_secs(10), async || {
        lab.receivers.received().iter().any(|page| page.says("DR_FAILOVER_SUCCESS"))
    });
    let told = told.await;
    story.look(lab).await;
    story.end();
    told?;
    lab.client()?.stop();
    let balance = lab.client()?.balance(&lab.standby.row_ids().await?);
    Ok(Ending { balance, times: Times::of(&run, fault, first.at), timeline: lab.standby.timeline().await? })
}

async fn kill_the_leader(lab: &mut Lab, story: &mut Story, step: &str) -> Result<()> {
    let leader = lab.leader().await?;
    lab.node_mut(&leader)?.kill()?;
    story.line("fault", &format!("SIGKILL to the leader {leader}, in the middle of {step}"), SystemTime::now());
    // What it asked for goes on without it, as it would on a real host.
    trip::release(&lab.folder.path, step, Point::Before)
}

fn tell_the_end(lab: &Lab, ending: &Ending) -> Result<()> {
    let Ending { balance, times, timeline } = ending;
    println!("\n  dig: {}", lab.dig()?);
    println!("\nIt is over: {DR} serves.");
    println!(
        "  recovery time            {:.3} s, from the kill to the first row acknowledged in {DR}",
        times.recovery_s
    );
    println!("    first failure counted  {:.3} s", times.detection_s);
    println!("    decided                {:.3} s (the hold-down included)", times.decision_s);
    println!("    decision to 1st effect {:.3} s", times.first_effect_s);
    for step in &times.steps {
        println!("    {:<22} {:.3} s, done at +{:.3} s", step.id, step.took_s, step.done_at_s);
    }
    println!("  rows acknowledged        {}", balance.acknowledged);
    println!("  of these lost            {} (acknowledged in {HOME} and not yet streamed when it died)", balance.lost);
    println!("  rows without an answer   {} (of these {} are there)", balance.unknown, balance.unknown_present);
    println!("  timeline                 {timeline} (it was 1)");
    Ok(())
}

async fn stay(lab: &Lab) -> Result<()> {
    let bin = super::folder::binaries()?;
    let endpoints: Vec<String> =
        lab.nodes.iter().filter(|node| node.is_running()).map(|node| node.listen.to_string()).collect();
    let ctl = format!("{} -e {}", bin.watchdogctl.display(), endpoints.join(","));
    println!("\nIt is left running in {}. Try:", lab.folder.path.display());
    println!("  {ctl} status");
    println!("  {ctl} run show {}", super::GROUP);
    println!("  {ctl} audit");
    println!("  {ctl} pause {} --reason 'trying it out'", super::GROUP);
    println!("  {} --config {}/{HOME}/guard.toml status", bin.guard.display(), lab.folder.path.display());
    println!("  dig @{} -p {} {PUBLIC_NAME}", lab.dns.server().ip(), lab.dns.server().port());
    println!("Ctrl-C ends it all.");
    ENDED_WELL.store(true, Ordering::SeqCst);
    std::future::pending().await
}
