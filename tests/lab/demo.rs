//! The demo: a region dies, its group fails over, and everything is told as it happens.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use watchdog::guard::egress::Kind;
use watchdog::proto::RunPhase;

use super::client::Balance;
use super::crowd::{Crowd, Late, WRITERS};
use super::frozen::until_fenced;
use super::homeward::go_home;
use super::measure::Times;
use super::parts::{Lab, Options, Pace, Zone};
use super::story::{Story, cut};
use super::trip::{self, Point};
use super::{DR, HOME, PUBLIC_NAME, lease, pki, wait, watch};

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
    /// Freeze the primary's whole host instead of killing it, thaw it after the failover, and count what it acknowledges then.
    #[arg(long, conflicts_with = "kill_leader")]
    pub freeze: bool,
    /// How the old primary is proved silent; else lease, where this machine can.
    #[arg(long, value_enum)]
    pub fencing: Option<Fencing>,
    /// After the failover the old primary rejoins and the group goes home, with the client's rows counted.
    #[arg(long, conflicts_with_all = ["kill_leader", "freeze"])]
    pub round_trip: bool,
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

/// The group's fencing mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fencing {
    /// Its guard shows it stopped; or its lease has run out.
    Lease,
    /// Its guard shows it stopped.
    Confirm,
}

/// What becomes of the region at home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL of its database and its service.
    Kill,
    /// SIGSTOP of everything on its host.
    Freeze,
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
    let lease = is_leased(wish)?;
    println!("\nTwo regions and a witness, each on a loopback address of its own. Starting the parts:");
    let options = Options {
        zone: wish.dns,
        folder: wish.folder.clone(),
        pace,
        speak: true,
        trips: wish.kill_leader.is_some(),
        lease,
        ..Options::default()
    };
    let mut lab = Lab::start(options).await?;
    println!("\nThree nodes, one vote each, that prove to each other who they are (mutual TLS):");
    lab.start_nodes().await?;
    println!("  the leader is {}; everything in {} and {} is seen up by all", lab.leader().await?, HOME, DR);
    tell_fencing(&lab).await?;
    if wish.freeze {
        lab.start_impatient_client().await?;
    } else {
        lab.start_client().await?;
    }
    println!("\nA client inserts a row every 10 ms at {PUBLIC_NAME}, and resolves the name anew for each connection.");
    wait::pause(Duration::from_secs(2)).await;
    println!("  {} rows acknowledged by {HOME}", lab.client()?.acknowledged().len());
    println!("  dig: {}", lab.dig()?);

    if wish.freeze {
        freeze(&mut lab).await?;
    } else {
        let ending = fail_over(&mut lab, wish.kill_leader.as_deref(), true).await?;
        tell_the_end(&lab, &ending, "kill")?;
        if wish.round_trip {
            go_home(&mut lab).await?;
        }
    }
    if wish.keep {
        stay(&lab).await?;
    }
    Ok(())
}

/// Mode `lease` where it is asked for, or where nothing else is and this machine can.
fn is_leased(wish: &Wish) -> Result<bool> {
    let obstacle = lease::obstacle(Kind::Bpf);
    match (wish.fencing, obstacle) {
        (Some(Fencing::Confirm), _) if wish.freeze => {
            bail!("a frozen host confirms nothing: --freeze needs --fencing lease")
        }
        (Some(Fencing::Confirm), _) => Ok(false),
        (_, None) => Ok(true),
        (Some(Fencing::Lease), Some(why)) => bail!("mode lease is not to be had on this machine:\n{why}"),
        (None, Some(why)) if wish.freeze => {
            bail!("--freeze needs mode lease, which is not to be had on this machine:\n{why}")
        }
        (None, Some(why)) => {
            println!("Fencing mode confirm, not lease: this machine cannot gate a database.\n{why}");
            Ok(false)
        }
    }
}

/// What would prove the old primary silent; in mode `lease` who holds it, and until when.
async fn tell_fencing(lab: &Lab) -> Result<()> {
    if !lab.options.lease {
        println!(
            "\nFencing mode confirm: {DR} is promoted when {HOME}'s guard shows its database stopped, or a person vouches for it."
        );
        return Ok(());
    }
    let lines = until_held(lab).await?;
    println!(
        "\nFencing mode lease: the kernel of {HOME}'s host lets its database answer clients only while its lease is renewed."
    );
    for line in lines {
        println!("  {}", cut(&line));
    }
    Ok(())
}

/// Waits until the lease is bound and its standby's guard holds; who holds what until when, as `watchdogctl status` shows it.
pub async fn until_held(lab: &Lab) -> Result<Vec<String>> {
    wait::until("the lease to be bound and held", Duration::from_secs(30), async || {
        let status = lab.status().await?;
        let group = watch::group(&status)?;
        let asked = group.lease_status.as_ref().and_then(|lease| lease.asked.as_ref()).context("nobody asked yet")?;
        let lease = group.lease.as_ref().with_context(|| format!("it is not bound: {:?}", group.lease_status))?;
        ensure!(!lease.holders.is_empty() && lease.holders.len() == asked.holds.len(), "not held yet: {asked:?}");
        Ok(watchdog::cli::lease_page::in_words(group, status.standing.as_ref().map_or(0, |standing| standing.at_ms)))
    })
    .await
}

/// The other fault: nobody can ask the host anything, and it comes back as if nothing had been.
async fn freeze(lab: &mut Lab) -> Result<()> {
    let loyal = Crowd::start(&lab.primary, WRITERS);
    loyal.all_answered(SystemTime::UNIX_EPOCH).await?;
    println!(
        "\nTwo more clients stay with {HOME} whatever the name says: one on its old connection, one that connects anew."
    );
    let before = SystemTime::now();
    let (ending, mut story, first) = play(lab, Fault::Freeze, None, true).await?;
    lab.thaw_home()?;
    let thawed = SystemTime::now();
    story.line(
        "fault",
        &format!("the host in {HOME} thaws (SIGCONT): its programs go on as if nothing had been"),
        thawed,
    );
    let said = until_fenced(lab).await;
    if let Ok(said) = &said {
        story.line("fenced", &format!("{HOME} for good: {}", said.words), said.at);
    }
    story.end();
    tell_the_end(lab, &ending, "freeze")?;
    let late = loyal.late(first, before);
    println!("  rows acknowledged by {HOME} after {DR}'s first, asleep and awake again:");
    println!("    on the old connection  {}", late.rows_old);
    println!("    on new connections     {}", late.rows_new);
    said?;
    ensure!(late == Late::default(), "two primaries: {HOME} acknowledged rows after {DR} had begun");
    Ok(())
}

/// Kills home and follows what comes, until the run is closed and the client writes on the other side.
pub async fn fail_over(lab: &mut Lab, kill_leader: Option<&str>, aloud: bool) -> Result<Ending> {
    let (ending, mut story, _) = play(lab, Fault::Kill, kill_leader, aloud).await?;
    story.end();
    Ok(ending)
}

/// Besides how it went: the story, to be told on, and when the first row was acknowledged on the other side.
async fn play(
    lab: &mut Lab,
    fault: Fault,
    kill_leader: Option<&str>,
    aloud: bool,
) -> Result<(Ending, Story, SystemTime)> {
    if let Some(step) = kill_leader {
        trip::arm(&lab.folder.path, step, Point::Before)?;
    }
    let (what, so) = match fault {
        Fault::Kill => (
            format!("PostgreSQL and the service in {HOME} are killed (SIGKILL)"),
            format!("PostgreSQL and the service in {HOME} are dead"),
        ),
        Fault::Freeze => (
            format!("the whole host in {HOME} freezes (SIGSTOP of PostgreSQL, guard, sshd and service)"),
            format!("the host in {HOME} is frozen: it accepts connections and says nothing"),
        ),
    };
    if aloud {
        println!("\nNow {what}:\n");
    }
    let at = SystemTime::now();
    match fault {
        Fault::Kill => lab.kill_home()?,
        Fault::Freeze => lab.freeze_home()?,
    }
    let fault = at;
    let mut story = Story::new(fault, aloud);
    story.line("fault", &so, fault);
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
    told.inspect_err(|_| story.end())?;
    lab.client()?.stop();
    // A connection made just as a new primary's gate is put in place is one that its client must make again.
    let (present, timeline) = wait::until("the new primary to be asked", Duration::from_secs(20), async || {
        Ok((lab.standby.row_ids().await?, lab.standby.timeline().await?))
    })
    .await?;
    let balance = lab.client()?.balance(&present);
    let ending = Ending { balance, times: Times::of(&run, fault, first.at), timeline };
    Ok((ending, story, first.at))
}

async fn kill_the_leader(lab: &mut Lab, story: &mut Story, step: &str) -> Result<()> {
    let leader = lab.leader().await?;
    lab.node_mut(&leader)?.kill()?;
    story.line("fault", &format!("SIGKILL to the leader {leader}, in the middle of {step}"), SystemTime::now());
    // What it asked for goes on without it, as it would on a real host.
    trip::release(&lab.folder.path, step, Point::Before)
}

fn tell_the_end(lab: &Lab, ending: &Ending, fault: &str) -> Result<()> {
    let Ending { balance, times, timeline } = ending;
    println!("\n  dig: {}", lab.dig()?);
    println!("\nIt is over: {DR} serves.");
    println!(
        "  recovery time            {:.3} s, from the {fault} to the first row acknowledged in {DR}",
        times.recovery_s
    );
    println!("    first failure counted  {:.3} s", times.detection_s);
    println!("    decided                {:.3} s (the hold-down included)", times.decision_s);
    println!("    decision to 1st effect {:.3} s", times.first_effect_s);
    for step in &times.steps {
        println!("    {:<22} {:.3} s, done at +{:.3} s", step.id, step.took_s, step.done_at_s);
    }
    println!("  rows acknowledged        {}", balance.acknowledged);
    println!(
        "  of these lost            {} (acknowledged in {HOME} and not yet streamed when it fell silent)",
        balance.lost
    );
    println!("  rows without an answer   {} (of these {} are there)", balance.unknown, balance.unknown_present);
    println!("  timeline                 {timeline} (it was 1)");
    Ok(())
}

async fn stay(lab: &Lab) -> Result<()> {
    let bin = super::folder::binaries()?;
    let endpoints: Vec<String> =
        lab.nodes.iter().filter(|node| node.is_running()).map(|node| node.listen.to_string()).collect();
    let ctl = bin.watchdogctl.display();
    let files = pki::files(lab.nodes.first().context("no node")?.listen)?;
    println!("\nIt is left running in {}. Try:", lab.folder.path.display());
    println!("  export WATCHDOG_ENDPOINTS={}", endpoints.join(","));
    println!(
        "  export WATCHDOG_CA={} WATCHDOG_CERTIFICATE={} WATCHDOG_KEY={}",
        files.ca.display(),
        files.certificate.display(),
        files.key.display()
    );
    println!("  {ctl} status");
    println!("  {ctl} run show {}", super::GROUP);
    println!("  {ctl} readiness {}", super::GROUP);
    println!("  {ctl} audit");
    println!("  {ctl} pause {} --reason 'trying it out'", super::GROUP);
    println!("  {} --config {}/{HOME}/guard.toml status", bin.guard.display(), lab.folder.path.display());
    println!("  dig @{} -p {} {PUBLIC_NAME}", lab.dns.server().ip(), lab.dns.server().port());
    println!("Ctrl-C ends it all.");
    ENDED_WELL.store(true, Ordering::SeqCst);
    std::future::pending().await
}
