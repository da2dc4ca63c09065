//! Runs of their own beside the moves: an old primary that is rejoined by an operator's order, and a service that is started
//! anew; what goes wrong in them, drawn from a stream of its own, and what is promised of them.

use watchdog::domain::command::Change;
use watchdog::domain::ids::{Principal, RunId};
use watchdog::domain::policy::ClusterPolicy;
use watchdog::domain::run::{Cause, Run, RunKind, RunOutcome, StepPhase};
use watchdog::domain::service::ServiceAction;
use watchdog::domain::state::{ClusterState, GroupState};
use watchdog::guard::protocol::{REJOIN, Request};

use crate::chance::Chance;
use crate::guard::may_clear;
use crate::host::Kind;
use crate::schedule::{Fault, Order, Planned, Who};
use crate::shapes::Draft;
use crate::site;
use crate::world::{MS, World};

/// Three seeds of ten: some of those with Redis are among them.
pub fn is_for(seed: u64) -> bool {
    matches!(seed % 10, 1 | 3 | 9)
}

const LANDMARKS: [&str; 6] = [
    "OpenRun recovery",
    "StepStarted rejoin",
    "StepFinished rejoin",
    "StepStarted redis-rejoin",
    "StepStarted restart",
    "StepFinished restart",
];

/// What goes wrong in them, beside all else.
pub fn draw(seed: u64) -> Vec<Planned> {
    let mut chance = Chance::new(seed, "recoveries");
    let mut draft = Draft { chance: &mut chance, planned: Vec::new() };
    if draft.chance.percent(75) {
        rejoined(&mut draft);
    }
    if draft.chance.percent(40) {
        restarted(&mut draft);
    }
    for _ in 0..draft.chance.below(3) {
        let fault = one(draft.chance);
        let line = *draft.chance.pick(&LANDMARKS);
        let after = draft.ms(0, 800);
        let lasts = match fault {
            Fault::Operator(_) => None,
            Fault::Crash { .. } => draft.some(50, 4000),
            _ => draft.some(100, 7000),
        };
        draft.after(line, after, fault, lasts);
    }
    draft.planned
}

/// Once its successor serves. In the middle of it the successor is lost, or the leader sleeps with it in hand, or the group
/// is ordered home.
fn rejoined(draft: &mut Draft<'_>) {
    let after = draft.ms(100, 3000);
    draft.after("CloseRun succeeded", after, Fault::Operator(Order::Rejoin), None);
    let (soon, lasts) = (draft.ms(0, 1200), draft.some(500, 8000));
    match draft.chance.below(8) {
        0 | 1 => draft.after("StepStarted rejoin", soon, Fault::KillDatabase { host: 1 }, None),
        2 => draft.after("StepStarted rejoin", soon, Fault::PowerOff { host: 1 }, None),
        3 => draft.after("StepStarted rejoin", soon, Fault::PowerOff { host: 0 }, lasts),
        4 => {
            let counts = draft.chance.percent(50);
            draft.at(0, Fault::Catch { verb: "rejoin", counts }, lasts);
            if draft.chance.percent(50) {
                draft.after("StepStarted rejoin", soon, Fault::KillDatabase { host: 1 }, None);
            }
        }
        5 => draft.after("StepFinished rejoin", soon, Fault::Operator(Order::Move), None),
        6 => {
            // It hangs at the host while the other is lost: what comes late must not undo the next failover.
            draft.after("StepStarted rejoin", 0, Fault::FreezeHost { host: 0 }, lasts);
            draft.after("StepStarted rejoin", soon, Fault::KillDatabase { host: 1 }, None);
        }
        _ => {}
    }
}

/// A service is started anew: at rest, beside a disaster, or as one begins.
fn restarted(draft: &mut Draft<'_>) {
    let host = if draft.chance.percent(70) { 0 } else { 1 };
    let order = Fault::Operator(Order::Restart { host });
    match draft.chance.below(4) {
        0 => {
            let at = draft.ms(0, 1500);
            draft.at(at, order, None);
        }
        1 => {
            let (at, soon) = (draft.ms(0, 1500), draft.ms(0, 600));
            draft.at(at, order, None);
            draft.after("StepStarted restart", soon, Fault::KillDatabase { host: 0 }, None);
        }
        2 => {
            let (counts, lasts) = (draft.chance.percent(50), draft.some(2500, 8000));
            draft.at(0, order, None);
            draft.at(0, Fault::Catch { verb: "restart", counts }, lasts);
        }
        _ => {
            let after = draft.ms(0, 2500);
            draft.after("CloseRun", after, order, None);
        }
    }
}

fn one(chance: &mut Chance) -> Fault {
    let host = if chance.percent(60) { 0 } else { 1 };
    match chance.below(100) {
        0..25 => Fault::Crash { who: Who::Leader, tears: chance.percent(50) },
        25..35 => Fault::PowerOff { host },
        35..45 => Fault::FreezeHost { host },
        45..55 => Fault::GuardMute { host },
        55..62 => Fault::GuardFails { host },
        62..70 => Fault::GuardHangs { host },
        70..76 => Fault::KillDatabase { host },
        76..82 => Fault::Operator(Order::Abort),
        82..86 => Fault::Operator(Order::Skip),
        86..90 => Fault::Operator(Order::Pause { for_ms: None }),
        90..95 => Fault::Operator(Order::Rejoin),
        _ => Fault::Operator(Order::Restart { host }),
    }
}

fn ordered(policy: &ClusterPolicy, group: &GroupState, id: String, plan: watchdog::domain::plan::Plan) -> Change {
    let by = Principal("operator:linh".to_owned());
    let reason = "it is to be whole again".to_owned();
    Change::OpenRun {
        run: RunId(id),
        group: site::group(),
        kind: RunKind::Recovery,
        drill: false,
        plan,
        digest: policy.digest.clone(),
        expected_token: group.token,
        expected_serving_epoch: group.serving.epoch,
        cause: Cause { by, automatic: false, reason, evidence: Vec::new(), fault_at: None, expected_loss_ms: Some(0) },
        loss_acceptance: None,
        fence_assertion: None,
    }
}

/// An operator's order to make the other region's database a standby of the one that serves.
pub fn rejoin(policy: &ClusterPolicy, group: &GroupState, now: u64) -> Option<Change> {
    let rules = policy.groups.get(&site::group())?;
    let here = &group.serving.last;
    let other = rules.regions.iter().find(|region| *region != here)?;
    let plan = rules.rejoin_plan(other, here)?.clone();
    Some(ordered(policy, group, format!("rejoin-{}", now / MS), plan))
}

/// An operator's order to start a region's service anew.
pub fn restart(policy: &ClusterPolicy, group: &GroupState, host: usize, now: u64) -> Option<Change> {
    let services = &policy.groups.get(&site::group())?.services;
    let service = services.iter().find(|service| service.region == site::region(host))?;
    let plan = service.plan(ServiceAction::Restart, None).ok()?;
    Some(ordered(policy, group, format!("restart-{}", now / MS), plan))
}

/// What a recovery does moves the right to write nowhere.
pub fn changes(world: &mut World, before: &ClusterState, after: &ClusterState) {
    let group = |state: &ClusterState| state.group(&site::group()).cloned();
    let (Some(before), Some(after)) = (group(before), group(after)) else { return };
    let is_recovery = |run: &Run| run.kind == RunKind::Recovery;
    if before.open_run.as_ref().is_some_and(is_recovery) && before.serving != after.serving {
        let (was, is) = (before.serving.region, after.serving.region);
        world.broken("recoveries", format!("serving goes from {was:?} to {is:?} in a recovery"));
    }
}

/// A database is about to start as a standby, whatever it was.
pub fn demotes(world: &mut World, at: usize) {
    let serving = world.promises.group().and_then(|group| group.serving.region.clone());
    let host = &world.hosts[at];
    let name = host.name.clone();
    if host.takes_writes() {
        world.broken("recoveries", format!("{name} is made a standby while it takes writes"));
    } else if serving.as_ref().is_some_and(|region| region.as_str() == host.region) {
        world.broken("recoveries", format!("{name} is made a standby, and its region serves"));
    }
}

/// A rejoin comes to its latch: nobody can do better than under the newest token.
pub fn is_refused(world: &mut World, at: usize, request: &Request) {
    let newest = world.promises.group().map(|group| group.token);
    let host = &world.hosts[at];
    if request.action == REJOIN && request.token == newest && !may_clear(host.latch.as_ref(), request) {
        let mark = host.latch.as_ref().map(|mark| format!("{} by {}", mark.token, mark.run)).unwrap_or_default();
        let name = host.name.clone();
        world.broken("recoveries", format!("the newest token's rejoin may not clear {name}'s latch, set under {mark}"));
    }
}

/// A rejoin is over: what it says is so, unless its host failed since.
pub fn closes(world: &mut World, run: &Run, outcome: RunOutcome) {
    let is_done = run.phase_of(&"rejoin".into()) == StepPhase::Done;
    if run.kind != RunKind::Recovery || outcome != RunOutcome::Succeeded || !is_done {
        return;
    }
    let host = world.hosts.iter().find(|host| host.region == run.to().as_str());
    let wrong = host.filter(|host| host.database.kind == Kind::Primary && !host.is_unlatched);
    if let Some(name) = wrong.map(|host| host.name.clone()) {
        world.broken("recoveries", format!("{name} was rejoined, and is a primary"));
    }
}
