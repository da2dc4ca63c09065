//! The promises of the lease, by name, as properties of every state.

use stateright::Property;

use super::bounds::{Begins, Bound};
use super::keepers::{Event, Todo};
use super::model::LeaseModel;
use super::world::{Kernel, Pane, TTL_MS, World, moment_ms};

const LAPSES: &str = "p4 the lease lapses and the standby is promoted";
const AFTER_A_LEADER: &str = "p4 so it does after its leader was replaced";
const OPENS: &str = "the gate stands open once it is unbound";
const REBOUND: &str = "a lease is bound again after a pause";
const BY_HOLD: &str = "p7 a promotion hold renews the lease";
const BOUND: &str = "a lease is bound";

/// What must be met somewhere within this bound.
pub fn possible(bound: &Bound) -> Vec<&'static str> {
    let mut wanted = Vec::new();
    let may_lapse = bound.runs > 0 && bound.moments >= 4;
    wanted.extend(may_lapse.then_some(LAPSES));
    wanted.extend((may_lapse && bound.elections > 0 && bound.moments >= 5).then_some(AFTER_A_LEADER));
    wanted.extend((bound.pauses > 0).then_some(OPENS));
    wanted.extend(matches!(bound.begins, Begins::Open | Begins::Bounded).then_some(REBOUND));
    wanted.extend((bound.holders > 0).then_some(BY_HOLD));
    wanted.extend((bound.begins != Begins::Bound).then_some(BOUND));
    wanted
}

/// All that must hold, and what must be possible.
pub fn properties() -> Vec<Property<LeaseModel>> {
    let always = Property::<LeaseModel>::always;
    let sometimes = Property::<LeaseModel>::sometimes;
    vec![
        always("p4 silence that counts is silence", |model, world| {
            !model.log.brief(world.head).is_lapsed || !world.passes() || world.seen.glass_broken
        }),
        always("p4 one database answers", |_, world| {
            !world.standbys[0].promoted || !world.passes() || world.seen.glass_broken
        }),
        always("a bound lease's gate shuts by itself", |model, world| {
            let shuts = matches!(world.host.kernel, Kernel::Until(until_ms) if until_ms <= world.host_ms() + TTL_MS);
            model.log.brief(world.head).bound.is_none() || shuts || !world.host.runs || world.seen.glass_broken
        }),
        always("p7 without the cluster the holds renew it", stays_alive),
        always("the state's invariants hold", |_, world| !world.seen.broken_invariant),
        sometimes(LAPSES, |_, world| world.standbys[0].promoted),
        sometimes(AFTER_A_LEADER, |_, world| world.standbys[0].promoted && world.spent.elections > 0),
        sometimes(OPENS, |_, world| world.host.kernel == Kernel::Open),
        sometimes(REBOUND, |_, world| world.seen.rebound),
        sometimes(BY_HOLD, |_, world| world.seen.renewed_by_hold),
        sometimes(BOUND, |model, world| model.log.brief(world.head).bound.is_some()),
    ]
}

/// P7: where no run has reached the standbys, and the guard has heard of its binding and of its ground, guards alone keep
/// the gate open for ever: every renewal within the next two TTLs is tried, without any node.
fn stays_alive(model: &LeaseModel, world: &World) -> bool {
    let host = &world.host;
    let Some(disk) = host.disk.filter(|_| host.runs && host.todo.is_empty() && host.pane == Pane::Whole) else {
        return true;
    };
    let record = model.keepers.record(disk);
    let holders = usize::from(model.bound.holders);
    let is_ground = |ground: u64| world.standbys[..holders].iter().all(|s| !s.promoted && u64::from(s.held) <= ground);
    let is_reachable = record.ground.is_some_and(|ground| is_ground(ground.n));
    let is_bound = record.bounded && record.bound && !record.holders.is_empty() && record.holders.len() <= holders;
    if !is_bound || !is_reachable || matches!(host.kernel, Kernel::Open) {
        return true;
    }
    let (mut keeper, mut kernel, base) = (host.keeper, host.kernel, host.booted_ms);
    for moment in world.moment..world.moment + 4 {
        let now_ms = moment_ms(moment) - base;
        let passes = |kernel| matches!(kernel, Kernel::Until(until_ms) if now_ms < until_ms);
        if moment > world.moment && !passes(kernel) {
            return false;
        }
        let event = Event::Looked { now_ms, gate: kernel.seen(now_ms), pane: Pane::Whole };
        let (looked, asked) = model.keepers.tell(keeper, event);
        keeper = looked;
        for todo in asked.iter() {
            match todo {
                Todo::AskHolder { nonce, .. } => {
                    let (held, moved) =
                        model.keepers.tell(keeper, Event::Held { now_ms, nonce: *nonce, granted: true });
                    keeper = held;
                    for todo in moved.iter() {
                        if let (Todo::Extend(until_ms), Kernel::Until(before_ms)) = (todo, kernel) {
                            kernel = Kernel::Until(before_ms.max(*until_ms));
                        }
                    }
                }
                Todo::Install if kernel == Kernel::Absent => kernel = Kernel::Until(0),
                _ => {}
            }
        }
    }
    true
}
