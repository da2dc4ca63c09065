//! What all nodes share: one time, the ways between places, and what happens at them. Everything that travels takes at
//! least [`LEAST_DELAY`], so each node may run that far ahead by itself before it must hear of the others.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::BoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use watchdog::domain::ids::UnixMs;

use crate::asking::Desks;
use crate::chance::Chance;
use crate::host::Host;
use crate::leases::Watch;
use crate::pager::Pager;
use crate::promises::Promises;
use crate::site::RedisSettings;
use crate::zone::NameServer;

/// Microseconds.
pub const MS: u64 = 1000;
pub const SECOND: u64 = 1000 * MS;
pub const LEAST_DELAY: u64 = 15 * MS;
/// When every schedule begins, for those who ask what time it is.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// Somewhere that something can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Node(u64),
    /// A host by its region's number: 0 is home.
    Host(usize),
    /// The name server.
    Zone,
    /// The pagers' receiver.
    Pager,
    /// Something in the world that has nothing to do with us.
    Reference,
}

/// What one node's clocks show, while it runs.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// The world's time when the slice began.
    pub world: u64,
    /// The node's own then.
    pub local: Instant,
    /// When the node's program started, by its own clock.
    pub born: Instant,
    /// Its machine ran for so long before that.
    pub booted_ms: u64,
    /// How much faster its clock runs than it should, in parts per million.
    pub fast_ppm: i64,
    /// How wrong its wall clock is.
    pub wall_ms: i64,
}

thread_local! {
    static SLICE: Cell<Option<Slice>> = const { Cell::new(None) };
}

impl Slice {
    fn world_now(&self) -> u64 {
        let local = Instant::now().saturating_duration_since(self.local).as_micros();
        self.world + to_world(u64::try_from(local).unwrap_or(0), self.fast_ppm)
    }
}

/// How far the world goes on while a node's clock does by `local`.
pub fn to_world(local: u64, fast_ppm: i64) -> u64 {
    let million = 1_000_000_i128;
    u64::try_from(i128::from(local) * million / (million + i128::from(fast_ppm))).unwrap_or(0)
}

/// How far a node's clock goes on while the world does by `world`.
pub fn to_local(world: u64, fast_ppm: i64) -> u64 {
    let million = 1_000_000_i128;
    u64::try_from(i128::from(world) * (million + i128::from(fast_ppm)) / million).unwrap_or(0)
}

/// Runs something as that node, with its clocks.
pub fn within<T>(slice: Slice, work: impl FnOnce() -> T) -> T {
    SLICE.set(Some(slice));
    let done = work();
    SLICE.set(None);
    done
}

fn node_unix() -> UnixMs {
    let Some(slice) = SLICE.get() else { return UnixMs(EPOCH_MS) };
    let true_ms = i64::try_from(EPOCH_MS + slice.world_now() / MS).unwrap_or(0);
    UnixMs(u64::try_from(true_ms + slice.wall_ms).unwrap_or(0))
}

fn node_boot_ms() -> u64 {
    let Some(slice) = SLICE.get() else { return 0 };
    let ran = Instant::now().saturating_duration_since(slice.born).as_millis();
    slice.booted_ms + u64::try_from(ran).unwrap_or(0)
}

/// The product's clocks on this thread are the simulation's.
pub fn set_clocks() {
    watchdog::clock::simulated::NOW.set(Some(node_unix));
    watchdog::clock::simulated::BOOT_MS.set(Some(node_boot_ms));
}

/// A wall clock's time as the world's, microseconds.
pub fn of_unix(at: UnixMs, wall_ms: i64) -> u64 {
    let true_ms = i64::try_from(at.0).unwrap_or(0) - wall_ms - i64::try_from(EPOCH_MS).unwrap_or(0);
    u64::try_from(true_ms).unwrap_or(0) * MS
}

pub fn unix_of(world: u64) -> UnixMs {
    UnixMs(EPOCH_MS + world / MS)
}

/// What happens at a moment.
pub enum Event {
    /// Somewhere in the world.
    World(Box<dyn FnOnce(&mut World) + Send>),
    /// At a node, if it still is the same program.
    Node { node: u64, incarnation: u64, job: BoxFuture<'static, ()> },
}

/// Shared by the loop and all nodes; never held across an await.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn new(world: World) -> Self {
        let shared = Self(Arc::new(Mutex::new(world)));
        shared.lock().own = Some(shared.clone());
        shared
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

/// How a way between two places is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// Of a hundred messages so many vanish.
    pub loss_percent: u64,
    /// And so many come twice.
    pub twice_percent: u64,
    /// Added to every delay.
    pub slower: u64,
}

pub struct World {
    pub seed: u64,
    /// The present, while no node runs.
    pub at: u64,
    queue: BTreeMap<(u64, u64), Event>,
    serial: u64,
    ways: BTreeMap<(Place, Place), (u64, Chance)>,
    /// Ways on which nothing gets through.
    pub cut: BTreeSet<(Place, Place)>,
    pub weather: Weather,
    /// The incarnation of each node's running program.
    pub running: BTreeMap<u64, u64>,
    pub hosts: Vec<Host>,
    pub redis: Option<RedisSettings>,
    pub zone: NameServer,
    pub pager: Pager,
    pub promises: Promises,
    pub leases: Watch,
    /// Who answers guards.
    pub desks: Desks,
    /// For what happens in the world and goes on at a node.
    pub own: Option<Shared>,
    /// What guards ask and are answered is held up for as long as this, at most.
    pub late: u64,
    lateness: Chance,
    /// What happened, in order.
    pub trace: Vec<(u64, String)>,
    /// Who is about to send such an attempt is to be frozen: what, for how long, and whether its clock counts that.
    pub catches: Vec<(String, u64, bool)>,
    /// Who was caught so, and what wakes the attempt again.
    pub caught: Vec<(u64, u64, bool, Arc<Notify>)>,
    /// What happens is printed as it happens.
    pub is_loud: bool,
    /// The name server and receivers answer nobody.
    pub provider_down: bool,
}

impl World {
    pub fn new(seed: u64, hosts: Vec<Host>, zone: NameServer, promises: Promises) -> Self {
        Self {
            seed,
            at: 0,
            queue: BTreeMap::new(),
            serial: 0,
            ways: BTreeMap::new(),
            cut: BTreeSet::new(),
            weather: Weather::default(),
            running: BTreeMap::new(),
            hosts,
            redis: None,
            zone,
            pager: Pager::default(),
            promises,
            leases: Watch::default(),
            desks: Desks::default(),
            own: None,
            late: 0,
            lateness: Chance::new(seed, "late"),
            trace: Vec::new(),
            catches: Vec::new(),
            caught: Vec::new(),
            is_loud: std::env::var_os("LOUD").is_some(),
            provider_down: false,
        }
    }

    /// Now: the running node's moment, or the loop's.
    pub fn now(&self) -> u64 {
        SLICE.get().map_or(self.at, |slice| slice.world_now())
    }

    pub fn note(&mut self, what: impl Into<String>) {
        let (now, what) = (self.now(), what.into());
        if self.is_loud {
            eprintln!("{:>9.3} s  {what}", now as f64 / SECOND as f64);
        }
        self.trace.push((now, what));
    }

    /// A promise is broken.
    pub fn broken(&mut self, promise: &str, how: impl std::fmt::Display) {
        let now = self.now();
        let text = format!("{promise}: {how}");
        self.trace.push((now, format!("!!! {text}")));
        self.promises.broken.push((now, text));
    }

    pub fn schedule(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.queue.insert((at, self.serial), event);
    }

    pub fn later(&mut self, after: u64, what: impl FnOnce(&mut World) + Send + 'static) {
        let at = self.now() + after;
        self.schedule(at, Event::World(Box::new(what)));
    }

    /// The next event up to `until`.
    pub fn next(&mut self, until: u64) -> Option<(u64, Event)> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= until)?;
        let ((at, _), event) = entry.remove_entry();
        Some((at, event))
    }

    pub fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cut.contains(&(from, to))
    }

    /// How long a message that leaves now takes; `None` where it never comes.
    pub fn travel(&mut self, from: Place, to: Place) -> Option<u64> {
        let (seed, weather) = (self.seed, self.weather);
        let (base, chance) = self.ways.entry((from, to)).or_insert_with(|| {
            let mut chance = Chance::new(seed, &format!("{from:?}-{to:?}"));
            (chance.between(0, 45) * MS, chance)
        });
        let delay = LEAST_DELAY + *base + chance.below(20 * MS) + weather.slower;
        let lost = chance.percent(weather.loss_percent);
        (!lost && !self.cut.contains(&(from, to))).then_some(delay)
    }

    /// How much longer a request or an answer about a lease is held up now.
    pub fn lateness(&mut self) -> u64 {
        let is_late = self.late > 0 && self.lateness.percent(50);
        if is_late { self.lateness.below(self.late) } else { 0 }
    }

    pub fn comes_twice(&mut self, from: Place, to: Place) -> bool {
        let percent = self.weather.twice_percent;
        self.ways.get_mut(&(from, to)).is_some_and(|(_, chance)| chance.percent(percent))
    }

    /// Hands a job to a node's program once a message from `from` has reached it. Answers whether it will.
    pub fn send_to_node(&mut self, from: Place, node: u64, job: BoxFuture<'static, ()>) -> bool {
        self.send_later(from, node, 0, job)
    }

    /// As `send_to_node`, held up on its way for `late` besides.
    pub fn send_later(&mut self, from: Place, node: u64, late: u64, job: BoxFuture<'static, ()>) -> bool {
        let Some(delay) = self.travel(from, Place::Node(node)) else { return false };
        let Some(incarnation) = self.running.get(&node).copied() else { return false };
        let at = self.now() + delay + late;
        self.schedule(at, Event::Node { node, incarnation, job });
        true
    }
}

/// Who waits for an answer, and where.
pub struct Asker<T> {
    node: u64,
    incarnation: u64,
    from: Place,
    slot: Option<oneshot::Sender<T>>,
}

impl<T: Send + 'static> Asker<T> {
    /// The answer sets out. One that is lost on its way leaves whoever waits waiting.
    pub fn answer(mut self, world: &mut World, value: T) {
        let Some(slot) = self.slot.take() else { return };
        let travel = world.travel(self.from, Place::Node(self.node));
        let Some(delay) = travel else {
            std::mem::forget(slot);
            return;
        };
        let job = Box::pin(async move { drop(slot.send(value)) });
        let at = world.now() + delay;
        world.schedule(at, Event::Node { node: self.node, incarnation: self.incarnation, job });
    }
}

impl<T> Drop for Asker<T> {
    fn drop(&mut self) {
        // Nobody is told that no answer will come.
        std::mem::forget(self.slot.take());
    }
}

/// A node asks something of a place: `there` is run when the question has come, and answers now or later. The receiver
/// waits for ever where either way was lost.
pub fn ask<T: Send + 'static>(
    shared: &Shared,
    node: u64,
    to: Place,
    there: impl FnOnce(&mut World, Asker<T>) + Clone + Send + 'static,
) -> oneshot::Receiver<T> {
    let (slot, answer) = oneshot::channel();
    let mut world = shared.lock();
    let world = &mut *world;
    let from = Place::Node(node);
    let Some(incarnation) = world.running.get(&node).copied() else {
        std::mem::forget(slot);
        return answer;
    };
    let twice = world.comes_twice(from, to);
    let asker = Asker { node, incarnation, from: to, slot: Some(slot) };
    let Some(delay) = world.travel(from, to) else { return answer };
    if twice && let Some(again) = world.travel(from, to) {
        let echo = Asker { node, incarnation, from: to, slot: None };
        let there = there.clone();
        world.later(again, move |world| there(world, echo));
    }
    world.later(delay, move |world| there(world, asker));
    answer
}
