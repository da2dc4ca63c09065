//! One row of the table, played: the service at home dies while its database goes on taking writes, the run is held at
//! each stop, somebody is struck there, and the run is brought to its end without them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::proto::{Run, RunPhase};

use crate::lab::client::{Client, Route};
use crate::lab::parts::{Lab, Options};
use crate::lab::trip::{self, Point};
use crate::lab::{HOME, wait};
use crate::scene::{fast, play};
use crate::strike::{follower, follows, freeze_guard, holder, kill_guard, looked_at_anew, revive, taken_over};
use crate::table::{At, Case, What, Who};
use crate::upheld::upheld;

/// A stop is reached within this, an election and several attempts included.
pub const REACHED_WITHIN: Duration = Duration::from_secs(40);

/// What happened to whom, for those who judge the end.
#[derive(Debug, Default)]
pub struct Toll {
    /// The nodes struck while they held the run, in order.
    pub holders: Vec<String>,
    /// Those of them that were frozen, with the length of their log at that moment.
    pub frozen: Vec<(String, u64)>,
    /// `SITE/ACTION` whose guard was killed: its end is not in the ledger.
    pub guards_killed: BTreeSet<String>,
    /// `SITE/ACTION` whose guard was frozen past its deadline.
    pub guards_frozen: BTreeSet<String>,
    /// The run may go on by the lease's end and settle the fence that is under way: its effect is found, not entered as done.
    pub fence_may_be_cut_short: bool,
    /// Steps whose request of a struck holder arrives when everything is over.
    pub late: BTreeSet<String>,
}

/// The region's service alone will die, so that the fence has a living database to stop.
pub fn living_database(deadline_s: u64) -> Options {
    let steps = ["fence", "promote", "services"];
    let steps = steps.map(|id| format!("[[group.step]]\nid = \"{id}\"\ndeadline_s = {deadline_s}\n\n")).concat();
    let verify = "[[group.step]]\nid = \"verify\"";
    let changes = [
        ("need = \"all\"", "need = \"any\"".to_owned()),
        // A stall of a loaded machine while the lab starts is no fault of this table.
        ("hold_down_ms = 200", "hold_down_ms = 1000".to_owned()),
        ("fence_patience_s = 10", "fence_patience_s = 120".to_owned()),
        (verify, steps + verify),
    ];
    let changes = changes.map(|(old, new)| (old.to_owned(), new)).to_vec();
    Options { trips: true, changes, ..fast() }
}

/// Knows no name: it stays with the old primary for as long as that takes a row.
pub async fn client_of_the_old_side(lab: &Lab) -> Result<Client> {
    let home = lab.primary.address.to_string();
    let old = Client::start(Route::Addresses(vec![home.clone()]), lab.primary.port, Duration::from_millis(20));
    old.first_from(&home, Duration::from_secs(10)).await?;
    Ok(old)
}

/// Plays a row to its end, and judges.
pub async fn play_case(case: Case) -> Result<()> {
    // A frozen guard shall be given up soon; everybody else shall have time to be held.
    let deadline_s = if case.who == Who::Guard && case.what == What::Frozen { 4 } else { 40 };
    play(living_database(deadline_s), async |lab: &mut Lab| {
        let old = client_of_the_old_side(lab).await?;
        let mut toll = Toll::default();
        let point = case.point();
        for step in case.stops.concat() {
            trip::arm(&lab.folder.path, step, point)?;
        }
        lab.services[HOME].kill()?;
        let mut asleep = None;
        for (number, stop) in case.stops.iter().enumerate() {
            for step in *stop {
                trip::reached(&lab.folder.path, step, point, REACHED_WITHIN).await?;
            }
            let struck = match case.who {
                Who::Leader => strike_leader(lab, &case, stop, &mut asleep, &mut toll).await,
                Who::Follower => strike_follower(lab, &case, stop, &mut asleep, number).await,
                Who::Guard => strike_guard(lab, &case, stop[0], &mut toll).await,
            };
            struck.with_context(|| format!("{case:?}, at {stop:?}"))?;
        }
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(90)).await?;
        lab.client()?.first_from(&lab.standby.address.to_string(), Duration::from_secs(20)).await?;
        for step in &toll.late {
            trip::release(&lab.folder.path, step, point)?;
        }
        if let Some(node) = asleep {
            revive(lab, &node).await?;
        }
        upheld(lab, &case, &run, &toll, &old).await
    })
    .await
}

impl Case {
    /// Where its trip wires are armed.
    pub fn point(&self) -> Point {
        match self.at {
            At::Held(point) => point,
            At::Reporting => Point::After,
        }
    }
}

/// Waits for the run to be as `is_so` wants it.
async fn until(lab: &Lab, what: &str, is_so: impl Fn(&Run) -> bool) -> Result<Run> {
    wait::until(what, REACHED_WITHIN, async || {
        let run = lab.newest_run(Duration::ZERO).await?;
        ensure!(is_so(&run), "it is {}", crate::lab::watch::brief(&run));
        Ok(run)
    })
    .await
}

async fn strike_leader(
    lab: &mut Lab,
    case: &Case,
    stop: &[&str],
    asleep: &mut Option<String>,
    toll: &mut Toll,
) -> Result<()> {
    // Whoever was struck last comes back in the middle of another's step.
    if let Some(node) = asleep.take() {
        revive(lab, &node).await?;
        follows(lab, &node).await?;
    }
    let victim = holder(lab).await?;
    let others: Vec<String> = lab.nodes.iter().map(|node| node.name.clone()).filter(|name| *name != victim).collect();
    let log = lab.node(&victim)?.part()?.log.clone();
    if case.at == At::Reporting {
        for other in &others {
            lab.node(other)?.freeze()?;
        }
        for step in stop {
            trip::release(&lab.folder.path, step, case.point())?;
            wait::until(&format!("{victim} to hold the result of {step}"), REACHED_WITHIN, async || {
                let text = std::fs::read_to_string(&log)?;
                let told = text.lines().any(|line| line.contains(&format!("step={step} ")) && line.contains("done: "));
                ensure!(told, "its log ends with:\n{}", crate::lab::process::tail(&log));
                Ok(())
            })
            .await?;
        }
    }
    match case.what {
        What::Killed => lab.node_mut(&victim)?.kill()?,
        What::Frozen => {
            lab.node(&victim)?.freeze()?;
            toll.frozen.push((victim.clone(), std::fs::metadata(&log)?.len()));
        }
    }
    for other in others.iter().filter(|_| case.at == At::Reporting) {
        lab.node(other)?.thaw()?;
    }
    taken_over(lab, &victim).await?;
    if matches!(case.at, At::Held(Point::Inside | Point::Through)) {
        for step in stop {
            looked_at_anew(lab, step).await?;
        }
    }
    toll.holders.push(victim.clone());
    for step in stop.iter().filter(|_| case.at != At::Reporting) {
        let is_request = matches!(*step, "fence" | "dns" | "promote" | "services");
        if case.at == At::Held(Point::Before) && is_request {
            // Its request arrives when everything is over.
            toll.late.insert((*step).to_owned());
        } else {
            trip::release(&lab.folder.path, step, case.point())?;
        }
    }
    *asleep = Some(victim);
    Ok(())
}

async fn strike_follower(
    lab: &mut Lab,
    case: &Case,
    stop: &[&str],
    asleep: &mut Option<String>,
    number: usize,
) -> Result<()> {
    if let Some(node) = asleep.take() {
        revive(lab, &node).await?;
        follows(lab, &node).await?;
    }
    let victim = follower(lab, number).await?;
    match case.what {
        What::Killed => lab.node_mut(&victim)?.kill()?,
        What::Frozen => lab.node(&victim)?.freeze()?,
    }
    for step in stop {
        trip::release(&lab.folder.path, step, case.point())?;
    }
    *asleep = Some(victim);
    Ok(())
}

async fn strike_guard(lab: &mut Lab, case: &Case, step: &str, toll: &mut Toll) -> Result<()> {
    let claims = holder_claims(lab).await?;
    // Its asker learns nothing, claims anew to keep the lost request out, and reads back.
    let given_up = async |lab: &Lab| until(lab, "the run to be claimed anew", |run| run.claims.len() > claims).await;
    match case.what {
        What::Killed => {
            toll.guards_killed.insert(kill_guard(lab, step)?);
            given_up(lab).await?;
            trip::release(&lab.folder.path, step, case.point())
        }
        What::Frozen => {
            let (effect, guard) = freeze_guard(lab, step)?;
            toll.guards_frozen.insert(effect);
            // The command ends; nobody is awake to write that down.
            trip::release(&lab.folder.path, step, case.point())?;
            given_up(lab).await?;
            crate::lab::process::send(guard, rustix::process::Signal::CONT);
            Ok(())
        }
    }
}

async fn holder_claims(lab: &Lab) -> Result<usize> {
    Ok(lab.newest_run(REACHED_WITHIN).await?.claims.len())
}
