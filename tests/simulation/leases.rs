//! What mode `lease` promises, checked from outside: who acknowledges in truth, how the gate stands in truth, and what the
//! log says of both.

use std::collections::BTreeMap;

use watchdog::domain::ids::RunId;
use watchdog::guard::protocol::PostgresRole;

use crate::host::Host;
use crate::site;
use crate::world::{MS, Place, Weather, World};

/// So many grants in a row have told a guard all that holds need: the binding, its holders, and the ground.
const GRANTS: u32 = 15;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// The newest reign in which a write was acknowledged.
    reign: u64,
    /// Fences that were proposed: by which node's program, in which run, against which region's primary.
    proposed: BTreeMap<(u64, u64), (RunId, usize)>,
    /// Since when nothing has kept the primary's lease from being renewed by its standby's hold, and how often leaders
    /// granted it since.
    calm: Option<(u64, u32)>,
}

/// Once a newer primary has acknowledged, an older one never does again.
pub fn acknowledged(world: &mut World) {
    let now = world.now();
    let by_hand =
        world.hosts.iter().any(|host| host.is_unlatched) || (!is_on(world) && !world.promises.asserted.is_empty());
    let speaking = |host: &&Host| host.acknowledges(now);
    let newest = world.hosts.iter().filter(speaking).map(|host| host.reign).max().unwrap_or(0);
    world.leases.reign = world.leases.reign.max(newest);
    let newest = world.leases.reign;
    let old = world.hosts.iter().filter(speaking).find(|host| host.reign < newest).map(|host| host.name.clone());
    if let Some(old) = old.filter(|_| !by_hand) {
        world.broken("P4", format!("{old} acknowledges writes after its successor did"));
    }
}

fn is_on(world: &World) -> bool {
    world.hosts.iter().any(|host| host.lease.is_some())
}

/// What is true at every moment.
pub fn always(world: &mut World) {
    if !is_on(world) || !world.promises.broken.is_empty() {
        return;
    }
    bound_is_bounded(world);
    lapsed_is_silent(world);
    holds_are_enough(world);
}

/// A gate was opened or shut.
pub fn gate_moved(world: &mut World, at: usize) {
    acknowledged(world);
    if world.hosts[at].lets_out(world.now()) {
        bound_is_bounded(world);
        lapsed_is_silent(world);
    }
}

/// While the log says that the lease is bound, the gate shuts by itself.
fn bound_is_bounded(world: &mut World) {
    let Some(binding) = world.promises.group().and_then(|group| group.lease.clone()) else { return };
    let is_loose = |host: &&Host| {
        let shuts = host.lease.as_ref().is_some_and(|side| matches!(side.gate, crate::gate::Gate::Until(_)));
        host.name == binding.host.as_str() && host.takes_writes() && !shuts
    };
    let loose = world.hosts.iter().find(is_loose).map(|host| host.name.clone());
    if let Some(name) = loose {
        world.broken("P4", format!("the lease of {name} is bound, and its gate does not shut by itself"));
    }
}

/// Since silence was taken for proof, the old primary is silent.
fn lapsed_is_silent(world: &mut World) {
    let run = world.promises.group().and_then(|group| group.open_run.as_ref()).filter(|run| run.lease_lapsed);
    let Some(from) = run.map(|run| run.from().as_str().to_owned()) else { return };
    let now = world.now();
    let speaks = |host: &&Host| host.region == from && !host.is_unlatched && host.takes_writes() && host.lets_out(now);
    let speaking = world.hosts.iter().find(speaks).map(|host| host.name.clone());
    if let Some(name) = speaking {
        world.broken("P4", format!("the lease of {name} counts as run out, and its gate lets answers out"));
    }
}

/// P7: the primary goes on serving for as long as its guard lives and reaches its standby's, whatever becomes of the nodes.
fn holds_are_enough(world: &mut World) {
    let now = world.now();
    let Some(at) = who_is_calm(world) else {
        world.leases.calm = None;
        return;
    };
    let (since, grants) = *world.leases.calm.get_or_insert((now, 0));
    let host = &world.hosts[at];
    if grants > GRANTS && !host.lets_out(now) {
        let (name, held) = (host.name.clone(), (now - since) / MS);
        world.broken("P7", format!("{name} fell silent, though its standby could hold for it for {held} ms"));
    }
}

/// Whose bound lease its standby's hold can keep alive by itself, if all goes on as it is.
fn who_is_calm(world: &World) -> Option<usize> {
    let group = world.promises.group()?;
    group.lease.as_ref()?;
    let serving = group.serving.region.as_ref()?;
    let at = world.hosts.iter().position(|host| host.region == serving.as_str())?;
    let (primary, standby) = (&world.hosts[at], &world.hosts[1 - at]);
    let runs = |host: &Host| {
        host.on
            && !host.stands_still()
            && !host.mood.fails
            && host.lease.as_ref().is_some_and(|side| side.resident.is_some())
    };
    let (here, there) = (Place::Host(at), Place::Host(1 - at));
    let is_clear = world.late == 0 && world.weather == Weather::default();
    let is_calm = group.open_run.is_none()
        && runs(primary)
        && runs(standby)
        && primary.takes_writes()
        && primary.latch.is_none()
        && standby.role() == PostgresRole::InRecovery
        && standby.work.is_none()
        && is_clear
        && !world.is_cut(here, there)
        && !world.is_cut(there, here);
    is_calm.then_some(at)
}

/// A node is about to propose that a fence, or what comes after it, be started.
pub fn fence_is_proposed(world: &mut World, node: u64, run: &RunId, from: &str) {
    let Some(at) = site::REGIONS.iter().position(|region| *region == from) else { return };
    let Some(incarnation) = world.running.get(&node).copied() else { return };
    world.leases.proposed.insert((node, incarnation), (run.clone(), at));
}

/// A leader granted a lease to the guard of that host.
pub fn granted(world: &mut World, node: u64, at: usize) {
    if let Some((_, grants)) = &mut world.leases.calm {
        *grants += 1;
    }
    let Some(incarnation) = world.running.get(&node).copied() else { return };
    let Some((run, from)) = world.leases.proposed.get(&(node, incarnation)).cloned() else { return };
    let group = world.promises.group();
    let open = group.and_then(|group| group.open_run.as_ref());
    // A run that turned back gives it the right to write again.
    let serves = group.and_then(|group| group.serving.region.as_ref()).map(|region| region.as_str());
    if open.is_some_and(|open| open.turned_back.is_some()) && serves == Some(site::REGIONS[at]) {
        return;
    }
    if from == at && open.is_some_and(|open| open.id == run) {
        let name = world.hosts[at].name.clone();
        world.broken("P4", format!("node {node} granted {name} a lease after it had proposed to fence it"));
    }
}
