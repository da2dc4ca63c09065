//! Faults as they strike and as they pass, and what people do at bad moments.

use std::time::Duration;

use watchdog::domain::command::{Change, Command, RunOrder};
use watchdog::domain::ids::{NodeId, Principal, RunId, UnixMs};
use watchdog::domain::policy::ClusterPolicy;
use watchdog::domain::run::{Assertion, Cause, RunKind, RunPhase};
use watchdog::domain::state::GroupState;

use crate::drive::{Due, Simulation};
use crate::host::{self, Mood};
use crate::schedule::{Fault, Order, Who};
use crate::site;
use crate::world::{MS, Place, SECOND, World};
use crate::{guard, keeping, redis, world};

pub fn begin(simulation: &mut Simulation, nth: usize) {
    let planned = simulation.planned[nth].clone();
    let struck = machine_of(simulation, planned.fault);
    simulation.struck[nth] = struck;
    let whom = struck.map_or(String::new(), |at| format!(" (node {})", at + 1));
    simulation.kit.shared.lock().note(format!("--- {:?}{whom}", planned.fault));
    strike(simulation, planned.fault, struck, planned.lasts);
    if let Some(lasts) = planned.lasts
        && !matches!(planned.fault, Fault::Catch { .. })
    {
        simulation.due.push((simulation.now + lasts, Due::End(nth)));
    }
}

fn machine_of(simulation: &Simulation, fault: Fault) -> Option<usize> {
    let who = match fault {
        Fault::Crash { who, .. }
        | Fault::Freeze { who, .. }
        | Fault::CutNode { who, .. }
        | Fault::CutHost { who, .. }
        | Fault::SlowDisk { who, .. }
        | Fault::BrokenDisk { who }
        | Fault::ClockJump { who, .. }
        | Fault::ClockRate { who, .. } => who,
        _ => return None,
    };
    Some(match who {
        Who::Node(id) => usize::try_from(id).unwrap_or(1) - 1,
        Who::Leader => leader(simulation).unwrap_or(0),
    })
}

/// Who leads, or believes so.
pub fn leader(simulation: &Simulation) -> Option<usize> {
    let leads = |machine: &crate::node::Machine| {
        machine.handles().is_some_and(|handles| handles.consensus.leadership().borrow().is_self)
    };
    simulation.machines.iter().position(leads)
}

fn strike(simulation: &mut Simulation, fault: Fault, struck: Option<usize>, lasts: Option<u64>) {
    let now = simulation.now;
    let at = struck.unwrap_or(0);
    match fault {
        Fault::Crash { tears, .. } => {
            let mut chance = simulation.chance.clone();
            simulation.machines[at].crash(&simulation.kit, tears.then_some(&mut chance));
            simulation.chance = chance;
            simulation.machines[at].restart_at = Some(now + lasts.unwrap_or(SECOND));
        }
        Fault::Freeze { .. } => simulation.machines[at].frozen_at = simulation.machines[at].frozen_at.or(Some(now)),
        Fault::SlowDisk { slow, .. } => simulation.machines[at].pace.lock().expect("whole").0 = slow,
        Fault::BrokenDisk { .. } => simulation.machines[at].disk.set_broken(true),
        Fault::ClockJump { by_ms, .. } => {
            // Only one clock is wrong at a time: a majority that agrees on a wrong time is believed.
            let is_other_wrong = simulation.machines.iter().enumerate().any(|(n, m)| n != at && m.wall_ms != 0);
            if !is_other_wrong {
                set_wall(simulation, at, by_ms);
            }
        }
        Fault::ClockRate { ppm, .. } => simulation.machines[at].fast_ppm = ppm,
        Fault::Operator(order) => operate(simulation, order),
        Fault::Catch { verb, counts } => {
            let catch = (verb.to_owned(), lasts.unwrap_or(3 * SECOND), counts);
            simulation.kit.shared.lock().catches.push(catch);
        }
        Fault::AllDown => {
            for at in 0..simulation.machines.len() {
                simulation.machines[at].crash(&simulation.kit, None);
                simulation.machines[at].restart_at = Some(now + lasts.unwrap_or(SECOND));
            }
        }
        _ => strike_world(simulation, fault, struck),
    }
}

fn set_wall(simulation: &mut Simulation, at: usize, by_ms: i64) {
    simulation.machines[at].wall_ms = by_ms;
    let id = simulation.machines[at].id;
    simulation.kit.shared.lock().promises.wall_ms.insert(id, by_ms);
}

fn strike_world(simulation: &mut Simulation, fault: Fault, struck: Option<usize>) {
    let ways = ways_of(simulation, fault, struck);
    let mut world = simulation.kit.shared.lock();
    let world = &mut *world;
    world.cut.extend(ways);
    match fault {
        Fault::Weather { loss_percent, twice_percent, slower } => {
            world.weather = world::Weather { loss_percent, twice_percent, slower };
        }
        Fault::PowerOff { host } => host::power_off(world, host),
        Fault::KillDatabase { host } => host::kill_database(world, host),
        Fault::CutReplication { lag_ms } => {
            for host in &mut world.hosts {
                host.database.is_cut_off = lag_ms == 0;
                host.database.lag_ms = lag_ms;
            }
        }
        Fault::CutSites { a: 0, b: 1 } => world.hosts.iter_mut().for_each(|host| host.database.is_cut_off = true),
        Fault::GuardSlow { host, slow } => world.hosts[host].mood.slow = slow,
        Fault::GuardMute { host } => world.hosts[host].mood.is_mute = true,
        Fault::GuardFails { host } => world.hosts[host].mood.fails = true,
        Fault::GuardHangs { host } => world.hosts[host].mood.hangs = true,
        Fault::ProviderDown => world.provider_down = true,
        Fault::FreezeHost { host } => host::freeze(world, host),
        Fault::FreezeGuard { host } => set_guard_frozen(world, host, true),
        Fault::KillGuard { host } => keeping::kill(world, host),
        Fault::LeaseLate { most } => world.late = most,
        Fault::KillRedis { host } => redis::kill(world, host),
        Fault::HangRedis { host } => redis::hang(world, host),
        Fault::KillRedisAction { host } => redis::kill_action(world, host),
        Fault::Rejoin { host } => host::rejoin(world, host),
        Fault::Unlatch { host } => host::unlatch(world, host),
        _ => {}
    }
}

/// The ways on which a fault lets nothing through.
fn ways_of(simulation: &Simulation, fault: Fault, struck: Option<usize>) -> Vec<(Place, Place)> {
    let place = |at: usize| Place::Node(simulation.machines[at].id);
    let all = |besides: Place| {
        let nodes = simulation.machines.iter().map(|machine| Place::Node(machine.id));
        let others = [Place::Host(0), Place::Host(1), Place::Zone, Place::Pager, Place::Reference];
        nodes.chain(others).filter(move |other| *other != besides)
    };
    match (fault, struck) {
        (Fault::CutNode { hears, speaks, .. }, Some(at)) => {
            let here = place(at);
            let out = all(here).map(|other| (here, other)).filter(|_| !speaks);
            let back = all(here).map(|other| (other, here)).filter(|_| !hears);
            out.chain(back).collect()
        }
        (Fault::CutHost { host, .. }, Some(at)) => {
            vec![(place(at), Place::Host(host)), (Place::Host(host), place(at))]
        }
        (Fault::Hermit { host }, _) => {
            let nodes = simulation.machines.iter().map(|machine| Place::Node(machine.id));
            nodes.flat_map(|node| [(node, Place::Host(host)), (Place::Host(host), node)]).collect()
        }
        (Fault::CutSites { a, b }, _) => {
            let within = |site: usize| {
                let nodes = simulation.kit.policy.members.iter();
                let nodes = nodes.filter(move |(_, member)| member.region == site::region(site));
                let hosts = (site < 2).then_some(Place::Host(site));
                nodes.map(|(id, _)| Place::Node(id.0)).chain(hosts).collect::<Vec<_>>()
            };
            let (left, right) = (within(a), within(b));
            let pairs = left.iter().flat_map(|one| right.iter().map(move |other| (*one, *other)));
            pairs.flat_map(|(one, other)| [(one, other), (other, one)]).collect()
        }
        _ => Vec::new(),
    }
}

/// A fault passes.
pub fn end(simulation: &mut Simulation, nth: usize) {
    if simulation.is_mended {
        return;
    }
    let fault = simulation.planned[nth].fault;
    let struck = simulation.struck[nth];
    simulation.kit.shared.lock().note(format!("--- over: {fault:?}"));
    let ways = ways_of(simulation, fault, struck);
    let at = struck.unwrap_or(0);
    match fault {
        Fault::Freeze { counts, .. } => {
            let now = simulation.now;
            simulation.machines[at].thaw(now, counts);
        }
        Fault::SlowDisk { .. } => simulation.machines[at].pace.lock().expect("whole").0 = 0,
        Fault::BrokenDisk { .. } => simulation.machines[at].disk.set_broken(false),
        Fault::ClockRate { .. } => simulation.machines[at].fast_ppm = 0,
        _ => {}
    }
    let mut world = simulation.kit.shared.lock();
    let world = &mut *world;
    for way in ways {
        world.cut.remove(&way);
    }
    match fault {
        Fault::Weather { .. } => world.weather = world::Weather::default(),
        Fault::PowerOff { host } => host::power_on(world, host),
        Fault::KillDatabase { host } => host::start_database(world, host),
        Fault::CutReplication { .. } | Fault::CutSites { a: 0, b: 1 } => connect_databases(world),
        Fault::GuardSlow { host, .. } => world.hosts[host].mood.slow = 0,
        Fault::GuardMute { host } => world.hosts[host].mood.is_mute = false,
        Fault::GuardFails { host } => world.hosts[host].mood.fails = false,
        Fault::GuardHangs { host } => guard::recover(world, host),
        Fault::ProviderDown => world.provider_down = false,
        Fault::FreezeHost { host } => host::thaw(world, host),
        Fault::FreezeGuard { host } => set_guard_frozen(world, host, false),
        Fault::KillGuard { host } => keeping::start(world, host),
        Fault::LeaseLate { .. } => world.late = 0,
        Fault::KillRedis { host } => redis::start(world, host),
        Fault::HangRedis { host } => redis::thaw(world, host),
        _ => {}
    }
}

fn set_guard_frozen(world: &mut World, at: usize, is_frozen: bool) {
    if let Some(side) = &mut world.hosts[at].lease {
        side.is_guard_frozen = is_frozen;
    }
    keeping::thaw(world, at);
}

fn connect_databases(world: &mut World) {
    for host in &mut world.hosts {
        host.database.is_cut_off = false;
        host.database.lag_ms = 0;
    }
}

/// Everything but a lost primary is mended, and the pause is lifted.
pub fn mend(simulation: &mut Simulation) {
    simulation.kit.shared.lock().note("--- everything is mended");
    let now = simulation.now;
    for at in 0..simulation.machines.len() {
        simulation.machines[at].disk.set_broken(false);
        simulation.machines[at].pace.lock().expect("whole").0 = 0;
        simulation.machines[at].fast_ppm = 0;
        set_wall(simulation, at, 0);
        let machine = &mut simulation.machines[at];
        machine.thaw(now, true);
        // A program that never came up, for want of its disk, is started again.
        if machine.handles().is_none() {
            machine.crash(&simulation.kit, None);
            machine.start(&simulation.kit);
        }
    }
    let mut world = simulation.kit.shared.lock();
    let world = &mut *world;
    world.cut.clear();
    world.catches.clear();
    world.weather = world::Weather::default();
    world.provider_down = false;
    connect_databases(world);
    for at in 0..world.hosts.len() {
        guard::recover(world, at);
        world.hosts[at].mood = Mood::default();
        host::thaw(world, at);
        set_guard_frozen(world, at, false);
        keeping::start(world, at);
        redis::thaw(world, at);
        redis::start(world, at);
    }
    world.late = 0;
    // The standby's host is looked after; the lost primary may stay lost.
    host::power_on(world, 1);
    if !world.hosts[1].database.running && !world.hosts[1].wants_start {
        host::start_database(world, 1);
    }
}

/// What the newest applied state says, through whoever leads.
pub fn operate(simulation: &mut Simulation, order: Order) {
    let reference = simulation.kit.shared.lock().promises.reference.clone();
    let Some(group) = reference.group(&site::group()) else { return };
    let at = leader(simulation).unwrap_or(0);
    let Some(handles) = simulation.machines[at].handles() else { return };
    let id = simulation.machines[at].id;
    let wall_ms = simulation.machines[at].wall_ms;
    let Some(change) = change_of(simulation, group, order, wall_ms) else { return };
    let shared = simulation.kit.shared.clone();
    let text = format!("operator: {order:?} through node {id}");
    shared.lock().note(text);
    let work = async move {
        let command = Command {
            node: NodeId(id),
            at: watchdog::clock::unix_now(),
            by: Principal("operator:linh".to_owned()),
            from: None,
            request_id: None,
            change,
        };
        let answer = handles.consensus.propose(command, Duration::from_secs(3)).await;
        let said = match answer {
            Ok(_) => "taken".to_owned(),
            Err(error) => error.to_string(),
        };
        shared.lock().note(format!("operator is told: {said}"));
    };
    simulation.machines[at].spawn(work);
}

fn change_of(simulation: &Simulation, group: &GroupState, order: Order, wall_ms: i64) -> Option<Change> {
    let reason = "it seemed right".to_owned();
    let name = site::group();
    let run = group.open_run.as_ref();
    let now = simulation.now;
    let of_run = |order| {
        let run = run?.id.clone();
        Some(Change::Order { group: name.clone(), run, expected_token: None, order, reason: reason.clone() })
    };
    let stuck = run.and_then(|run| match &run.phase {
        RunPhase::Stuck { step, .. } => Some(step.clone()),
        _ => None,
    });
    match order {
        Order::Pause { for_ms } => {
            let now_ms = world::unix_of(now).0.saturating_add_signed(wall_ms);
            let until = for_ms.map(|for_ms| UnixMs(now_ms + for_ms));
            Some(Change::Pause { group: name, reason, until })
        }
        Order::Resume => Some(Change::Resume { group: name, reason, expired: None }),
        Order::Abort => of_run(RunOrder::Abort),
        Order::AssertFence => {
            let from = run?.from().clone();
            // People who assert a fence have looked.
            let is_silent = is_silent(simulation, from.as_str());
            is_silent.then(|| of_run(RunOrder::AssertFence { region: from }))?
        }
        Order::Retry => of_run(RunOrder::Retry { step: stuck? }),
        Order::Skip => {
            let step = stuck.filter(|step| !matches!(step.as_str(), "fence" | "promote"))?;
            of_run(RunOrder::Skip { step })
        }
        Order::AcceptLoss => of_run(RunOrder::AcceptLoss),
        Order::Late => {
            let run = run?;
            let token = run.claims.iter().rev().nth(1)?.token;
            let (_, step) = run.plan.steps().next()?;
            let reason = "this comes late".to_owned();
            Some(Change::MarkStuck { group: name, run: run.id.clone(), token, step: step.id.clone(), reason })
        }
        Order::Move => crate::moves::ordered(&simulation.kit.policy, group, now),
        Order::Rejoin => crate::recoveries::rejoin(&simulation.kit.policy, group, now),
        Order::Restart { host } => crate::recoveries::restart(&simulation.kit.policy, group, host, now),
        Order::Failover { accept_loss } => forced(&simulation.kit.policy, group, now, accept_loss),
    }
}

/// The host is without power, or its database is stopped and will not start by itself.
pub fn is_silent(simulation: &Simulation, region: &str) -> bool {
    let world = simulation.kit.shared.lock();
    world.hosts.iter().any(|host| host.region == region && (!host.on || host.latch.is_some() && !host.takes_writes()))
}

fn forced(policy: &ClusterPolicy, group: &GroupState, now: u64, accept_loss: bool) -> Option<Change> {
    let rules = policy.groups.get(&site::group())?;
    let here = &group.serving.last;
    let to = rules.regions.iter().find(|region| *region != here)?;
    let by = Principal("operator:linh".to_owned());
    let reason = "the customer asked for it".to_owned();
    let assertion = Assertion { by: by.clone(), at: world::unix_of(now), reason: reason.clone() };
    Some(Change::OpenRun {
        run: RunId(format!("by-hand-{}", now / MS)),
        group: site::group(),
        kind: RunKind::Failover,
        drill: false,
        plan: rules.failover_plan(here, to)?.clone(),
        digest: policy.digest.clone(),
        expected_token: group.token,
        expected_serving_epoch: group.serving.epoch,
        cause: Cause { by, automatic: false, reason, evidence: Vec::new(), fault_at: None, expected_loss_ms: None },
        loss_acceptance: accept_loss.then_some(assertion),
        fence_assertion: None,
    })
}
