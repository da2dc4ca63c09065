//! One schedule, from its seed to its end: the loop that lets the nodes run, does what was planned, and looks whether
//! every promise is kept.

use std::sync::Arc;

use futures::FutureExt;
use openraft::{EntryPayload, RaftLogReader};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::chance::{Chance, seed_the_system};
use crate::faults;
use crate::host::{self, Host, Kind};
use crate::keeping::{self, Side};
use crate::mutation::{self, Mutant};
use crate::node::{Kit, Machine};
use crate::promises::{self, Promises};
use crate::recoveries;
use crate::redis::{self, Redis};
use crate::rest;
use crate::schedule::{self, MENDED, Planned, When};
use crate::site::{self, Settings};
use crate::wire::Doors;
use crate::world::{Event, LEAST_DELAY, SECOND, Shared, World, set_clocks};
use crate::zone::NameServer;

/// So long after everything is mended the system must have come to rest.
pub const REST_WITHIN: u64 = 120 * SECOND;
/// And it must stay at rest for so long.
const RESTS_FOR: u64 = 2 * SECOND;

/// A fault that is due, or its end.
pub enum Due {
    Begin(usize),
    End(usize),
    /// A machine wakes, and goes on with the attempt it had in hand.
    Wake {
        machine: usize,
        counts: bool,
        waking: Arc<Notify>,
    },
}

pub struct Simulation {
    pub kit: Kit,
    pub machines: Vec<Machine>,
    pub planned: Vec<Planned>,
    /// Of each planned fault with a landmark: not yet seen.
    waiting: Vec<bool>,
    pub due: Vec<(u64, Due)>,
    pub chance: Chance,
    pub now: u64,
    /// How far each node's log was read.
    read: Vec<u64>,
    pub is_mended: bool,
    /// Which machine each planned fault struck.
    pub struck: Vec<Option<usize>>,
    pub rest: rest::Watcher,
}

/// What came of a schedule.
pub struct Ended {
    pub seed: u64,
    pub hash: String,
    pub virtual_ms: u64,
    pub commands: u64,
    pub runs: u64,
    pub state: String,
    pub broken: Vec<(u64, String)>,
    pub planned: Vec<Planned>,
    pub trace: Vec<(u64, String)>,
}

/// Runs one schedule, on this thread alone.
pub fn run(seed: u64, mutant: Option<Mutant>) -> Ended {
    seed_the_system(seed);
    set_clocks();
    mutation::set(mutant);
    let mut simulation = Simulation::new(seed);
    simulation.until_its_end()
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed, "schedule");
        let mut settings = Settings::draw(&mut chance);
        settings.redis = redis::settings(seed, settings.is_fencing_none);
        let mut planned = schedule::draw(seed, &mut chance, &settings);
        if settings.redis.is_some() {
            planned.extend(redis::draw(seed));
        }
        if recoveries::is_for(seed) {
            planned.extend(recoveries::draw(seed));
        }
        let policy = site::policy(&settings);
        let mut hosts = vec![
            Host::new("db-hcmc", site::REGIONS[0], Kind::Primary),
            Host::new("db-hanoi", site::REGIONS[1], Kind::Standby),
        ];
        for (host, at) in hosts.iter_mut().zip(0..) {
            host.redis = settings.redis.map(|_| Redis::new(host.database.kind));
            if let Some(lease) = settings.lease.filter(|_| !settings.is_fencing_none) {
                let mut nodes: Vec<u64> = (1..).take(settings.nodes.len()).collect();
                nodes.rotate_left(at);
                host.fast_ppm = lease.fast_ppm[at];
                host.lease = Some(Side::new(lease.ttl_ms, nodes));
            }
        }
        let mut world = World::new(seed, hosts, NameServer::new(site::VALUES[0]), Promises::new(policy.clone()));
        world.redis = settings.redis;
        let desks = world.desks.clone();
        let kit = Kit { shared: Shared::new(world), doors: Doors::default(), desks, policy };
        let machines: Vec<Machine> = (1..).zip(&settings.nodes).map(|(id, _)| Machine::new(id, seed)).collect();
        kit.shared.lock().note(format!("{settings:?}"));
        let mut due = Vec::new();
        let mut waiting = Vec::new();
        for (at, one) in planned.iter().enumerate() {
            waiting.push(matches!(one.when, When::After(..)));
            if let When::At(when) = one.when {
                due.push((when, Due::Begin(at)));
            }
        }
        let count = machines.len();
        Self {
            kit,
            machines,
            struck: vec![None; planned.len()],
            planned,
            waiting,
            due,
            chance,
            now: 0,
            read: vec![0; count],
            is_mended: false,
            rest: rest::Watcher::default(),
        }
    }

    fn until_its_end(&mut self) -> Ended {
        for machine in &mut self.machines {
            machine.start(&self.kit);
        }
        for at in 0..2 {
            keeping::start(&mut self.kit.shared.lock(), at);
        }
        let mut rested = None;
        while self.is_whole() {
            if !self.is_mended && self.now >= MENDED {
                faults::mend(self);
                self.is_mended = true;
            }
            self.step();
            if !self.is_mended {
                continue;
            }
            let unrest = rest::look(self);
            match (unrest, rested) {
                (None, None) => rested = Some(self.now),
                (None, Some(since)) if self.now >= since + RESTS_FOR => break,
                (None, Some(_)) => {}
                (Some(why), _) => {
                    rested = None;
                    if self.now > MENDED + REST_WITHIN {
                        self.kit.shared.lock().broken("liveness", why);
                    }
                }
            }
        }
        rest::at_the_end(self);
        self.end()
    }

    fn is_whole(&self) -> bool {
        self.kit.shared.lock().promises.broken.is_empty()
    }

    /// Lets everything go on until the next moment at which something must be done from outside.
    fn step(&mut self) {
        self.begin_what_is_due();
        let next_due = self.due.iter().map(|(at, _)| *at).filter(|at| *at > self.now).min();
        let until = next_due.unwrap_or(u64::MAX).min(self.now + LEAST_DELAY);
        self.let_the_world_go(until);
        for machine in &mut self.machines {
            machine.run(self.now, until);
        }
        self.now = until;
        self.kit.shared.lock().at = until;
        self.freeze_who_is_caught();
        self.look_at_everything();
    }

    fn freeze_who_is_caught(&mut self) {
        let caught = std::mem::take(&mut self.kit.shared.lock().caught);
        for (node, lasts, counts, waking) in caught {
            let machine = usize::try_from(node).unwrap_or(1) - 1;
            self.kit.shared.lock().note(format!("--- node {node} freezes with an attempt in hand"));
            let now = self.now;
            self.machines[machine].frozen_at.get_or_insert(now);
            self.due.push((now + lasts, Due::Wake { machine, counts, waking }));
        }
    }

    fn begin_what_is_due(&mut self) {
        let now = self.now;
        let mut ready: Vec<(u64, Due)> = Vec::new();
        let mut left = Vec::new();
        for (at, due) in std::mem::take(&mut self.due) {
            if at <= now { ready.push((at, due)) } else { left.push((at, due)) }
        }
        self.due = left;
        ready.sort_by_key(|(at, _)| *at);
        for (_, due) in ready {
            match due {
                Due::Begin(at) if !self.is_mended => faults::begin(self, at),
                Due::Begin(_) => {}
                Due::End(at) => faults::end(self, at),
                Due::Wake { machine, counts, waking } => {
                    let world = &self.kit.shared;
                    world.lock().note(format!("--- node {} wakes", machine + 1));
                    self.machines[machine].thaw(now, counts);
                    waking.notify_one();
                }
            }
        }
        for machine in &mut self.machines {
            if machine.restart_at.is_some_and(|at| at <= now) {
                machine.start(&self.kit);
            }
        }
    }

    fn let_the_world_go(&mut self, until: u64) {
        loop {
            let mut world = self.kit.shared.lock();
            let Some((at, event)) = world.next(until) else { break };
            match event {
                Event::World(what) => {
                    world.at = at;
                    what(&mut world);
                }
                Event::Node { node, incarnation, job } => {
                    drop(world);
                    let machine = self.machines.iter_mut().find(|machine| machine.id == node);
                    if let Some(machine) = machine {
                        machine.receive(at, incarnation, job);
                    }
                }
            }
        }
        self.kit.shared.lock().at = self.now;
    }

    fn look_at_everything(&mut self) {
        host::tick(&mut self.kit.shared.lock());
        promises::always(&mut self.kit.shared.lock());
        for at in 0..self.machines.len() {
            let Some(mut handles) = self.machines[at].handles() else { continue };
            let id = self.machines[at].id;
            if handles.reports.has_changed().unwrap_or(false) && self.rest.is_new_report(id, &handles.reports) {
                let report = handles.reports.borrow_and_update().clone();
                promises::reported(&mut self.kit.shared.lock(), &report);
            }
            let state = handles.consensus.state().borrow().clone();
            let known = self.kit.shared.lock().promises.reference.applied_index;
            if state.applied_index > known {
                self.read_log(at, known, state.applied_index);
            }
            if state.applied_index != self.read[at] {
                self.read[at] = state.applied_index;
                promises::agrees(&mut self.kit.shared.lock(), id, &state);
            }
            self.rest.see_leadership(&self.kit.shared, id, &handles);
            if let Some(why) = self.machines[at].stopped() {
                self.kit.shared.lock().note(format!("node {id}: raft has stopped: {why}"));
                // No disk here forgets what it synced.
                if why.contains("went back in time") {
                    self.kit.shared.lock().broken("storage", format!("node {id} is falsely accused: {why}"));
                }
                self.machines[at].crash(&self.kit, None);
                self.machines[at].restart_at = Some(self.now + SECOND);
            }
        }
    }

    /// The commands that a node has applied and nobody else had before.
    fn read_log(&mut self, at: usize, known: u64, applied: u64) {
        let Some(mut handles) = self.machines[at].handles() else { return };
        let entries = handles.store.try_get_log_entries(known + 1..=applied).now_or_never();
        let entries = entries.expect("the log is in memory").expect("the log is whole");
        for entry in entries {
            let index = openraft::entry::RaftEntry::index(&entry);
            let EntryPayload::Normal(sealed) = &entry.payload else { continue };
            let line = {
                let mut world = self.kit.shared.lock();
                promises::committed(&mut world, index, sealed.command());
                world.trace.last().map(|(_, line)| line.clone()).unwrap_or_default()
            };
            self.see_landmark(index, &line);
        }
        let reached = self.kit.shared.lock().promises.reference.applied_index;
        if reached < applied {
            let text = format!("the log is known to {reached}, node {} applied up to {applied}", at + 1);
            self.kit.shared.lock().broken("agreement", text);
        }
    }

    fn see_landmark(&mut self, index: u64, line: &str) {
        let prefix = format!("log {index}: ");
        let Some(what) = line.strip_prefix(&prefix) else { return };
        if what.starts_with("ClaimRun") {
            faults::operate(self, schedule::Order::Late);
        }
        for (at, one) in self.planned.iter().enumerate() {
            if let When::After(landmark, after) = one.when
                && self.waiting[at]
                && what.starts_with(landmark)
            {
                self.waiting[at] = false;
                self.due.push((self.now + after.max(1), Due::Begin(at)));
            }
        }
    }

    fn end(&mut self) -> Ended {
        let mut world = self.kit.shared.lock();
        let mut digest = Sha256::new();
        for (at, what) in &world.trace {
            digest.update(at.to_be_bytes());
            digest.update(what.as_bytes());
        }
        let hash: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let state = self.rest.state.clone();
        Ended {
            seed: world.seed,
            hash,
            virtual_ms: self.now / 1000,
            commands: world.promises.commands,
            runs: world.promises.runs_opened,
            state,
            broken: std::mem::take(&mut world.promises.broken),
            planned: std::mem::take(&mut self.planned),
            trace: std::mem::take(&mut world.trace),
        }
    }
}
