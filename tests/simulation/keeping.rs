//! The resident guard of a host: the real keeper, and around it what `guard::lease::primary` does for it, in steps between
//! which the host or the guard alone may freeze, die, or lose its power.

use std::collections::{BTreeSet, VecDeque};

use watchdog::domain::ids::HostName;
use watchdog::guard::lease::hold::HoldRecord;
use watchdog::guard::lease::keeper::{Action, Glass, Keeper, LeaseRecord, Look, Said, Settings};

use crate::chance::Chance;
use crate::gate::Gate;
use crate::holding::{self, Ask};
use crate::host::{Host, Kind};
use crate::world::{MS, Place, World, to_world, unix_of};
use crate::{asking, leases};

/// A host's part in mode `lease`.
pub struct Side {
    pub ttl_ms: u64,
    /// The nodes it asks, in its order.
    pub nodes: Vec<u64>,
    /// In the kernel: gone with the power.
    pub gate: Gate,
    /// Durable.
    pub record: Option<LeaseRecord>,
    /// Durable.
    pub hold: Option<HoldRecord>,
    pub resident: Option<Resident>,
    /// The resident guard alone stands still.
    pub is_guard_frozen: bool,
    /// Holds asked for while it stood still: not even read yet.
    pub unread: Vec<Ask>,
    /// Holds being looked into then, and when they had come.
    pub unanswered: Vec<(Ask, u64)>,
    started: u64,
}

impl Side {
    pub fn new(ttl_ms: u64, nodes: Vec<u64>) -> Self {
        Self {
            ttl_ms,
            nodes,
            gate: Gate::default(),
            record: None,
            hold: None,
            resident: None,
            is_guard_frozen: false,
            unread: Vec::new(),
            unanswered: Vec::new(),
            started: 0,
        }
    }

    /// What a release asks: the gate stands in the kernel, and the resident guard knows.
    pub fn is_gated(&self) -> bool {
        self.gate != Gate::Missing && self.resident.as_ref().is_some_and(|resident| resident.is_installed)
    }

    /// What the boot gate asks: a lease lets the database answer.
    pub fn lets_start(&self, now_ms: u64) -> bool {
        let lets = |resident: &Resident| {
            resident.is_installed && (resident.keeper.is_open_ended() || resident.keeper.deadline_ms() > now_ms)
        };
        !self.is_guard_frozen && self.resident.as_ref().is_some_and(lets)
    }
}

enum Came {
    Answer { nonce: u64, said: Option<(Said, u64)> },
    Held { nonce: u64, granted: bool },
}

/// A running `watchdog-guard serve`.
pub struct Resident {
    pub generation: u64,
    keeper: Keeper,
    /// The newest answered request and its answer's challenge.
    challenge: (u64, u64),
    mail: VecDeque<Came>,
    left: VecDeque<Action>,
    looked: Option<Look>,
    is_due: bool,
    is_turning: bool,
    is_stalled: bool,
    is_installed: bool,
    /// Requests without an answer so far.
    asked: BTreeSet<u64>,
    chance: Chance,
}

fn side(world: &mut World, at: usize) -> Option<&mut Side> {
    world.hosts[at].lease.as_mut()
}

fn running(world: &mut World, at: usize, generation: u64) -> Option<&mut Resident> {
    side(world, at)?.resident.as_mut().filter(|resident| resident.generation == generation)
}

/// Its program starts, where it does not run.
pub fn start(world: &mut World, at: usize) {
    let (seed, now) = (world.seed, world.now());
    let other = world.hosts[1 - at].name.clone();
    let host = &mut world.hosts[at];
    let (boot_nonce, is_on) = (host.boot_nonce(), host.on);
    let Some(side) = host.lease.as_mut().filter(|side| side.resident.is_none() && is_on) else { return };
    side.started += 1;
    let generation = side.started;
    let settings = Settings {
        ttl_ms: side.ttl_ms,
        nodes: side.nodes.len(),
        holders: vec![HostName(other)],
        boot_nonce,
        unix_ms: unix_of(now).0,
    };
    let (keeper, first) = Keeper::start(settings, side.record.clone());
    side.resident = Some(Resident {
        generation,
        keeper,
        challenge: (0, 0),
        mail: VecDeque::new(),
        left: first.into(),
        looked: None,
        is_due: false,
        is_turning: false,
        is_stalled: false,
        is_installed: false,
        asked: BTreeSet::new(),
        chance: Chance::new(seed, &format!("resident-{at}-{generation}")),
    });
    let text = format!("{}: the resident guard starts", host.name);
    world.note(text);
    tick(world, at, generation);
}

/// Its program dies. The gate stays as it is.
pub fn kill(world: &mut World, at: usize) {
    let Some(side) = side(world, at) else { return };
    side.resident = None;
    side.unread.clear();
    side.unanswered.clear();
}

/// The host loses its power: what the kernel held is gone too.
pub fn power_off(world: &mut World, at: usize) {
    kill(world, at);
    if let Some(side) = side(world, at) {
        side.gate = Gate::Missing;
        side.is_guard_frozen = false;
    }
}

/// Host or guard runs again: what it had in hand goes on.
pub fn thaw(world: &mut World, at: usize) {
    if world.hosts[at].stands_still() {
        return;
    }
    let Some(side) = side(world, at) else { return };
    let unread = std::mem::take(&mut side.unread);
    let unanswered = std::mem::take(&mut side.unanswered);
    if let Some(resident) = side.resident.as_mut().filter(|resident| resident.is_stalled) {
        resident.is_stalled = false;
        let generation = resident.generation;
        world.later(1, move |world| turn(world, at, generation));
    }
    for ask in unread {
        holding::asked(world, at, ask);
    }
    for (ask, arrived_ms) in unanswered {
        holding::look_into(world, at, ask, arrived_ms);
    }
}

fn tick(world: &mut World, at: usize, generation: u64) {
    let Some(resident) = running(world, at, generation) else { return };
    resident.is_due = true;
    kick(world, at, generation);
    let host = &world.hosts[at];
    let every_ms = host.lease.as_ref().map_or(1000, |side| side.ttl_ms / 5);
    let every = to_world(every_ms * MS, host.fast_ppm);
    world.later(every, move |world| tick(world, at, generation));
}

fn kick(world: &mut World, at: usize, generation: u64) {
    let Some(resident) = running(world, at, generation) else { return };
    if !std::mem::replace(&mut resident.is_turning, true) {
        let soon = resident.chance.between(1, 300);
        world.later(soon, move |world| turn(world, at, generation));
    }
}

/// One step of its program, and then the next.
fn turn(world: &mut World, at: usize, generation: u64) {
    let stands_still = world.hosts[at].stands_still();
    let Some(resident) = running(world, at, generation) else { return };
    if stands_still {
        resident.is_stalled = true;
        return;
    }
    if let Some(look) = resident.looked.take() {
        let actions = resident.keeper.looked(&look);
        resident.left.extend(actions);
        crate::host::try_start(world, at);
    } else if let Some(action) = resident.left.pop_front() {
        carry_out(world, at, generation, action);
    } else if std::mem::take(&mut resident.is_due) {
        let now_ms = world.hosts[at].boottime_ms(world.now());
        let look = look(&world.hosts[at], now_ms);
        if let Some(resident) = running(world, at, generation) {
            resident.looked = look;
        }
    } else if let Some(came) = resident.mail.pop_front() {
        take(world, at, generation, came);
    } else {
        resident.is_turning = false;
        return;
    }
    let Some(resident) = running(world, at, generation) else { return };
    let soon = resident.chance.between(20, 1500);
    world.later(soon, move |world| turn(world, at, generation));
}

fn look(host: &Host, now_ms: u64) -> Option<Look> {
    let side = host.lease.as_ref()?;
    let is_installed = side.resident.as_ref()?.is_installed;
    Some(Look {
        now_ms,
        may_serve: host.database.kind == Kind::Primary,
        latched: host.latch.is_some(),
        gate: side.gate.seen(now_ms, side.ttl_ms, is_installed, host.database.running),
        glass: Glass::Whole,
    })
}

fn take(world: &mut World, at: usize, generation: u64, came: Came) {
    let now_ms = world.hosts[at].boottime_ms(world.now());
    let Some(resident) = running(world, at, generation) else { return };
    let actions = match came {
        Came::Answer { nonce, said } => {
            if let Some((_, challenge)) = &said {
                resident.challenge = resident.challenge.max((nonce, *challenge));
            }
            resident.keeper.answered(now_ms, nonce, said.as_ref().map(|(said, _)| said))
        }
        Came::Held { nonce, granted } => resident.keeper.held(now_ms, nonce, granted),
    };
    resident.left.extend(actions);
}

fn carry_out(world: &mut World, at: usize, generation: u64, action: Action) {
    let now_ms = world.hosts[at].boottime_ms(world.now());
    let is_disk_full = world.hosts[at].mood.fails;
    let Some(side) = side(world, at) else { return };
    let Some(resident) = side.resident.as_mut() else { return };
    let before = side.gate;
    match action {
        Action::Save(_) if is_disk_full => resident.keeper.not_saved(),
        Action::Save(record) => {
            side.record = Some(record);
            resident.left.extend(resident.keeper.saved());
        }
        Action::Install => {
            side.gate.install();
            resident.is_installed = true;
        }
        Action::Begin(until_ms) => {
            side.gate.begin(now_ms, until_ms);
            resident.is_installed = true;
        }
        Action::ExtendUntil(until_ms) => side.gate.extend(now_ms, until_ms),
        Action::BoundAt(until_ms) => side.gate.bound(until_ms),
        Action::Open if resident.is_installed => side.gate.open(),
        Action::Open => {}
        Action::AskNode { nonce, node, gate, holders, ttl_ms } => {
            let challenge = resident.challenge.1;
            let Some(node) = side.nodes.get(node).copied() else { return };
            resident.asked.insert(nonce);
            give_up(world, at, generation, (nonce, ttl_ms));
            asking::send(world, (at, generation), node, asking::Renewal { nonce, gate, holders, ttl_ms, challenge });
        }
        Action::AskHolder { nonce, ttl_ms, ground, .. } => {
            resident.asked.insert(nonce);
            give_up(world, at, generation, (nonce, ttl_ms));
            send_for_hold(world, Ask { nonce, from: at, generation, ttl_ms, ground });
        }
    }
    let Some(side) = world.hosts[at].lease.as_ref() else { return };
    if (before == Gate::Open) != (side.gate == Gate::Open) || before.passes(now_ms) != side.gate.passes(now_ms) {
        let text = format!("{}: the gate is {:?} at {now_ms}", world.hosts[at].name, side.gate);
        world.note(text);
        leases::gate_moved(world, at);
    }
}

fn send_for_hold(world: &mut World, ask: Ask) {
    let (here, there) = (Place::Host(ask.from), Place::Host(1 - ask.from));
    if let Some(delay) = world.travel(here, there) {
        let late = world.lateness();
        world.later(delay + late, move |world| holding::asked(world, 1 - ask.from, ask));
    }
}

/// No answer is waited for longer than its request could be of use.
fn give_up(world: &mut World, at: usize, generation: u64, (nonce, ttl_ms): (u64, u64)) {
    let after = to_world(ttl_ms * MS, world.hosts[at].fast_ppm);
    world.later(after, move |world| answered(world, (at, generation), nonce, None));
}

/// A node's answer has come, or none will.
pub fn answered(world: &mut World, (at, generation): (usize, u64), nonce: u64, said: Option<(Said, u64)>) {
    let Some(resident) = running(world, at, generation) else { return };
    if resident.asked.remove(&nonce) {
        resident.mail.push_back(Came::Answer { nonce, said });
        kick(world, at, generation);
    }
}

/// A standby's guard's answer has come.
pub fn held(world: &mut World, ask: Ask, granted: bool) {
    let Some(resident) = running(world, ask.from, ask.generation) else { return };
    if resident.asked.remove(&ask.nonce) {
        resident.mail.push_back(Came::Held { nonce: ask.nonce, granted });
        kick(world, ask.from, ask.generation);
    }
}
