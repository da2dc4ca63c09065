//! Planned moves: what goes wrong in their schedules, drawn from a stream of its own so that other seeds stay as they were,
//! and what is promised of them.

use watchdog::domain::command::Change;
use watchdog::domain::ids::{Principal, ResourceName, RunId};
use watchdog::domain::policy::ClusterPolicy;
use watchdog::domain::run::{Cause, RunKind};
use watchdog::domain::state::{ClusterState, GroupState};
use watchdog::guard::protocol::{FENCE, InFlight, PROMOTE, REDIS_HAND_OVER, REJOIN, RELEASE};

use crate::chance::Chance;
use crate::host::Kind;
use crate::schedule::{Fault, Order, Planned, Who};
use crate::shapes::Draft;
use crate::site;
use crate::world::{MS, World};

/// Every fourth seed's, where it was not made for something else.
pub fn is_for(seed: u64) -> bool {
    seed % 4 == 2
}

const LANDMARKS: [&str; 14] = [
    "OpenRun",
    "StepStarted fence",
    "StepFinished fence",
    "StepStarted catch-up",
    "StepFinished catch-up",
    "StepStarted promote",
    "StepFinished promote",
    "StepStarted dns",
    "StepStarted services",
    "StepStarted rejoin",
    "StepFinished rejoin",
    "TurnBack",
    "StepStarted release",
    "StepFinished release",
];

/// What goes wrong beside an operator's planned move.
pub fn draw(seed: u64, one: impl Fn(&mut Chance) -> Fault) -> Vec<Planned> {
    let mut chance = Chance::new(seed, "moves");
    let mut draft = Draft { chance: &mut chance, planned: Vec::new() };
    let at = draft.ms(0, 1500);
    draft.at(at, Fault::Operator(Order::Move), None);
    match draft.chance.below(100) {
        0..20 => lagging(&mut draft, at),
        20..35 => asleep(&mut draft),
        35..50 => dying_between(&mut draft, at),
        50..62 => called_back(&mut draft),
        62..80 => there_and_back(&mut draft),
        80..90 => struck(&mut draft),
        _ => {}
    }
    for _ in 0..draft.chance.below(5) {
        let fault = one(draft.chance);
        let lasts = match fault {
            Fault::Operator(_) | Fault::ClockJump { .. } | Fault::Rejoin { .. } | Fault::Unlatch { .. } => None,
            Fault::Crash { .. } => draft.some(50, 4000),
            _ => draft.some(100, 8000),
        };
        let line = *draft.chance.pick(&LANDMARKS);
        let after = draft.ms(0, 600);
        draft.after(line, after, fault, lasts);
    }
    draft.planned
}

/// The standby lags, for a while or until people mend it: it does not catch up in time.
fn lagging(draft: &mut Draft<'_>, at: u64) {
    let lag_ms = *draft.chance.pick(&[0, 0, 3000, 10_000]);
    let lasts = if draft.chance.percent(40) { None } else { draft.some(1000, 9000) };
    let since = at.saturating_sub(draft.ms(0, 800));
    draft.at(since, Fault::CutReplication { lag_ms }, lasts);
}

/// The leader sleeps with an attempt in hand, while another goes on, or turns back.
fn asleep(draft: &mut Draft<'_>) {
    let verb = *draft.chance.pick(&["fence", "fence", "catch-up", "promote", "release", "rejoin"]);
    let (counts, lasts) = (draft.chance.percent(50), draft.some(2500, 9000));
    draft.at(0, Fault::Catch { verb, counts }, lasts);
    if verb == "release" || draft.chance.percent(40) {
        draft.at(0, Fault::CutReplication { lag_ms: 0 }, None);
    }
}

/// The old primary's host dies, or its guard, as it is given back the right to write.
fn dying_between(draft: &mut Draft<'_>, at: u64) {
    draft.at(at, Fault::CutReplication { lag_ms: 0 }, None);
    let (after, lasts) = (draft.ms(0, 900), draft.some(500, 9000));
    let fault = match draft.chance.below(5) {
        0 | 1 => Fault::PowerOff { host: 0 },
        2 => Fault::FreezeHost { host: 0 },
        3 => Fault::GuardMute { host: 0 },
        _ => Fault::Crash { who: Who::Leader, tears: true },
    };
    draft.after("StepStarted release", after, fault, lasts);
}

/// People change their mind, at any point.
fn called_back(draft: &mut Draft<'_>) {
    let line = *draft.chance.pick(&LANDMARKS);
    let after = draft.ms(0, 700);
    if draft.chance.percent(40) {
        // The promotion fails, and nobody knows better than to go back.
        draft.after("StepStarted catch-up", 0, Fault::GuardFails { host: 1 }, Some(4000 * MS));
        let after = draft.ms(300, 2500);
        draft.after("StepFinished promote", after, Fault::Operator(Order::Abort), None);
        return;
    }
    draft.after(line, after, Fault::Operator(Order::Abort), None);
    if draft.chance.percent(30) {
        let again = draft.ms(100, 3000);
        draft.after(line, after + again, Fault::Operator(Order::Abort), None);
    }
    if draft.chance.percent(30) {
        let (paused, resumed) = (draft.ms(0, 500), draft.ms(600, 5000));
        draft.after(line, after + paused, Fault::Operator(Order::Pause { for_ms: None }), None);
        draft.after(line, after + resumed, Fault::Operator(Order::Resume), None);
    }
}

/// The group goes back home once the old primary is a standby; or its new primary is lost then.
fn there_and_back(draft: &mut Draft<'_>) {
    let after = draft.ms(200, 3000);
    if draft.chance.percent(70) {
        draft.after("CloseRun succeeded", after, Fault::Operator(Order::Move), None);
    } else {
        draft.after("CloseRun succeeded", after, Fault::KillDatabase { host: 1 }, None);
    }
}

/// A real disaster in the middle.
fn struck(draft: &mut Draft<'_>) {
    let line = *draft.chance.pick(&LANDMARKS[..7]);
    let (after, lasts) = (draft.ms(0, 600), draft.some(1000, 8000));
    let fault = match draft.chance.below(5) {
        0 => Fault::PowerOff { host: 1 },
        1 => Fault::KillDatabase { host: 1 },
        2 => Fault::KillDatabase { host: 0 },
        3 => Fault::CutSites { a: 0, b: 1 },
        _ => Fault::PowerOff { host: 0 },
    };
    draft.after(line, after, fault, lasts);
}

/// An operator's order to move to the other region: home again, where it is away.
pub fn ordered(policy: &ClusterPolicy, group: &GroupState, now: u64) -> Option<Change> {
    let rules = policy.groups.get(&site::group())?;
    let here = &group.serving.last;
    let to = rules.regions.iter().find(|region| *region != here)?;
    let by = Principal("operator:linh".to_owned());
    let reason = "the other side is to be used".to_owned();
    Some(Change::OpenRun {
        run: RunId(format!("moved-{}", now / MS)),
        group: site::group(),
        kind: if to == &rules.home { RunKind::Failback } else { RunKind::Switchover },
        drill: false,
        plan: rules.switchover_plan(here, to)?.clone(),
        digest: policy.digest.clone(),
        expected_token: group.token,
        expected_serving_epoch: group.serving.epoch,
        cause: Cause { by, automatic: false, reason, evidence: Vec::new(), fault_at: None, expected_loss_ms: None },
        loss_acceptance: None,
        fence_assertion: None,
    })
}

/// An effect of a planned move begins at a host.
pub fn effect_begins(world: &mut World, at: usize, what: &InFlight) {
    let open = world.promises.group().and_then(|group| group.open_run.as_ref());
    let Some(run) = open.filter(|run| run.id == what.run && run.is_planned()) else { return };
    let is_forward = run.plan.steps().any(|(_, step)| step.id == what.step);
    let attempted = |id| run.record(id).is_some_and(|record| record.attempts > 0);
    let is_released = run.plan.undo_steps().any(|(_, step)| attempted(&step.id));
    let has_turned = run.turned_back.is_some();
    let name = world.hosts[at].name.clone();
    // A fence that was under way may still come before its release; nothing else may.
    if has_turned && is_forward && (![FENCE, REDIS_HAND_OVER].contains(&what.action.as_str()) || is_released) {
        world.broken("P6", format!("{name}: {} begins though the run has turned back", what.action));
    }
    let (old, new) = (&world.hosts[1 - at], &world.hosts[at]);
    if what.action == PROMOTE && old.database.lsn > new.database.lsn && !old.is_unlatched {
        let lost_ms = old.database.lsn - new.database.lsn;
        world.broken("P5", format!("a planned move loses {lost_ms} ms of writes"));
    }
    let other = &world.hosts[1 - at];
    // Who said that two may take writes was believed: mode `none`, or an assertion.
    let is_said = !world.promises.asserted.is_empty();
    if what.action == RELEASE && other.takes_writes() && !other.is_unlatched && !is_said {
        let text = format!("{name} is released while {} takes writes", other.name);
        world.broken("P4", text);
    }
    if what.action == REJOIN && !world.hosts[1 - at].takes_writes() {
        world.broken("P6", format!("{name} is to follow a server that is no primary"));
    }
}

/// A host is called settled: no release or rejoin of that run is at work there, and nothing of Redis.
pub fn is_settled(world: &mut World, resource: &ResourceName, run: &RunId) {
    let at_work = |host: &&crate::host::Host| {
        let is_here = resource.0 == format!("host:{}", host.name);
        let undoes = |action: &str| [RELEASE, REJOIN].contains(&action) || action.starts_with("redis-");
        is_here && host.work.as_ref().is_some_and(|work| undoes(&work.what.action) && &work.what.run == run)
    };
    if let Some(host) = world.hosts.iter().find(at_work) {
        let what = host.work.as_ref().map_or("", |work| work.what.action.as_str());
        let text = format!("{} is called settled while the {what} of {run} is at work there", host.name);
        world.broken("P6", text);
    }
}

/// A run is closed as reverted: its old primary takes writes, or nothing of ours keeps it from that, and serving says so.
pub fn has_turned_back(world: &mut World, before: &ClusterState) {
    let Some(group) = before.group(&site::group()) else { return };
    let Some(from) = group.open_run.as_ref().map(|run| run.from().clone()) else { return };
    let serving = group.serving.region.clone();
    let Some(host) = world.hosts.iter().find(|host| host.region == from.as_str()) else { return };
    let is_lost = !host.on || !host.database.is_orderly || host.boots > 1 || host.wants_start;
    let is_primary = host.database.kind == Kind::Primary && host.latch.is_none();
    let wrong = match serving {
        Some(region) if region == from && is_primary && (host.database.running || is_lost) => return,
        Some(region) if region == from => format!("{}: {:?}, latch {:?}", host.name, host.role(), host.latch.is_some()),
        other => format!("serving is {other:?}, not {from}"),
    };
    world.broken("P6", format!("the run is closed as reverted, but {wrong}"));
}
