//! The primary's host: `guard/lease/primary.rs` retold around the real `Keeper`, its kernel and disk, its death and boot;
//! and the standbys' guards.

use super::bounds::Mutation;
use super::keepers::{Event, Todo};
use super::model::{LeaseModel, Luck};
use super::world::{Gate, Kernel, Message, Pane, Reply, Request, TTL_MS, World, moment_ms};

/// Takes in what the keeper came to.
fn after(model: &LeaseModel, world: &mut World, event: Event) {
    let (keeper, todo) = model.keepers.tell(world.host.keeper, event);
    world.host.keeper = keeper;
    let now_ms = world.host_ms();
    world.host.todo.extend(todo.iter().map(|todo| match todo {
        // Guards that get it wrong: the grant counts from now on, or from when the gate is moved.
        Todo::Extend(_) if model.bound.breaks(Mutation::CountsFromAnswer) => Todo::Extend(now_ms + TTL_MS),
        Todo::Extend(until_ms) if model.bound.breaks(Mutation::RelativeDeadline) => {
            Todo::Extend(until_ms.saturating_sub(now_ms))
        }
        todo => *todo,
    }));
    run(model, world);
}

/// Does what may as well happen at once: what is sent may stay on its way for ever, and an extension to an absolute
/// deadline is worth most when it comes first.
fn run(model: &LeaseModel, world: &mut World) {
    while let Some(todo) = world.host.todo.first().copied() {
        match todo {
            Todo::Ask { nonce, gate, holders } => {
                let challenge = world.host.challenge.1;
                world.host.newest = nonce;
                let sent = world.moment;
                world.net.insert(Message::Renew(Request { nonce, gate, holders, challenge, sent }));
            }
            Todo::AskHolder { nonce, holder, ground } => {
                let sent = world.moment;
                world.net.insert(Message::Hold { nonce, holder, ground, sent });
            }
            Todo::Extend(until_ms) if !model.bound.breaks(Mutation::RelativeDeadline) => extend(world, until_ms),
            _ => return,
        }
        world.host.todo.remove(0);
    }
}

fn extend(world: &mut World, until_ms: u64) {
    // `Egress::extend`: what is past extends nothing.
    if let (Kernel::Until(before_ms), true) = (world.host.kernel, until_ms > world.host_ms()) {
        world.host.kernel = Kernel::Until(before_ms.max(until_ms));
    }
}

/// Looks at the host and asks everybody.
pub fn look(model: &LeaseModel, world: &mut World) {
    world.spent.looks += 1;
    world.host.looked_at = Some(world.moment);
    let gate = if model.bound.breaks(Mutation::AttestsUnseen) { Gate::Bounded } else { world.gate() };
    let event = Event::Looked { now_ms: world.host_ms(), gate, pane: world.host.pane };
    after(model, world, event);
}

/// The guard of a server that still follows another has begun, and looked once.
pub fn follow(model: &LeaseModel, world: &mut World) {
    while !world.host.todo.is_empty() {
        go_on(model, world, Luck::Good);
    }
    let now_ms = world.host_ms();
    after(model, world, Event::Follows { now_ms });
}

/// Does the next thing that the keeper wants.
pub fn go_on(model: &LeaseModel, world: &mut World, luck: Luck) -> Option<()> {
    let todo = *world.host.todo.first()?;
    world.host.todo.remove(0);
    let fails = luck == Luck::Unheard;
    world.spent.faults += u8::from(fails);
    match todo {
        Todo::Save(_) if fails => after(model, world, Event::NotSaved),
        Todo::Save(record) => {
            let is_lost = model.bound.breaks(Mutation::BoundIsNotSaved) && model.keepers.record(record).bounded;
            if !is_lost {
                world.host.disk = Some(record);
            }
            after(model, world, Event::Saved);
        }
        _ if fails => {}
        Todo::Install if world.host.kernel == Kernel::Absent => world.host.kernel = Kernel::Until(0),
        Todo::Install => {}
        Todo::Begin(until_ms) if world.host.kernel == Kernel::Absent => world.host.kernel = Kernel::Until(until_ms),
        Todo::Begin(until_ms) => extend(world, until_ms),
        Todo::Bound(until_ms) => match world.host.kernel {
            Kernel::Until(before_ms) => world.host.kernel = Kernel::Until(before_ms.min(until_ms)),
            Kernel::Open => world.host.kernel = Kernel::Until(until_ms),
            Kernel::Absent => {}
        },
        Todo::Open if world.host.kernel != Kernel::Absent => world.host.kernel = Kernel::Open,
        Todo::Open => {}
        // Only where the deadline is relative: so much more from now on.
        Todo::Extend(more_ms) => {
            let until_ms = world.host_ms() + more_ms;
            extend(world, until_ms);
        }
        Todo::Ask { .. } | Todo::AskHolder { .. } => return None,
    }
    run(model, world);
    Some(())
}

/// A leader's answer is read.
pub fn take(model: &LeaseModel, world: &mut World, mut reply: Reply) {
    world.net.remove(&Message::Reply(reply));
    world.host.challenge = world.host.challenge.max((reply.nonce, reply.challenge));
    if model.bound.breaks(Mutation::OlderAnswerOpens) {
        reply.nonce = world.host.newest;
    }
    let now_ms = world.host_ms();
    after(model, world, Event::Answered { now_ms, reply });
}

/// A standby's answer is read.
pub fn take_hold(model: &LeaseModel, world: &mut World, message: Message) {
    let Message::Held { nonce, granted, .. } = message else { return };
    world.net.remove(&message);
    let (now_ms, before) = (world.host_ms(), world.host.kernel);
    after(model, world, Event::Held { now_ms, nonce, granted });
    world.seen.renewed_by_hold |= world.host.kernel != before;
}

/// A hold is asked for, and granted or not.
pub fn hold(world: &mut World, message: Message) {
    let Message::Hold { nonce, holder, ground, sent } = message else { return };
    world.net.remove(&message);
    let moment = world.moment;
    let granted = world.standbys[usize::from(holder)].grants(ground, moment);
    // A refusal changes nothing at the primary.
    if granted {
        world.net.insert(Message::Held { nonce, granted, sent });
    }
}

/// A standby's guard dies and is started again. Its hold is durable.
pub fn restart_holder(world: &mut World, holder: u8) {
    world.standbys[usize::from(holder)].hold_until_ms = 0;
}

/// `guard::actions::promote`, before it: the token, then the hold.
pub fn promote(world: &mut World, token: u8) -> Option<()> {
    let moment = world.moment;
    let target = &mut world.standbys[0];
    if token < target.held || target.promoted || target.holds(moment) {
        return None;
    }
    target.held = token;
    target.promoted = true;
    world.net.remove(&Message::Promote { token });
    Some(())
}

/// The guard's process dies and another begins: what it sent is still on its way, nobody hears the answers.
pub fn restart(model: &LeaseModel, world: &mut World) {
    let starts = world.spent.kills + world.spent.boots;
    let (keeper, todo) = model.keepers.start(world.host.boots, starts, world.host.disk);
    world.host.keeper = keeper;
    world.host.todo = (*todo).clone();
    world.host.challenge = (0, 0);
    world.host.looked_at = None;
    world.net.retain(|message| !matches!(message, Message::Reply(_) | Message::Held { .. }));
}

/// The host boots: no gate, no database yet, a clock that begins anew.
pub fn boot(model: &LeaseModel, world: &mut World) {
    world.host.boots += 1;
    world.host.booted_ms = moment_ms(world.moment);
    world.host.kernel = Kernel::Absent;
    world.host.pane = Pane::Whole;
    world.host.runs = false;
    restart(model, world);
}

/// The boot gate (`guard::lease::boot`): a lease, and a gate in the kernel.
pub fn may_start(model: &LeaseModel, world: &World) -> bool {
    let is_installed = world.host.kernel != Kernel::Absent;
    !world.host.runs && is_installed && model.keepers.has_lease(world.host.keeper, world.host_ms())
}
