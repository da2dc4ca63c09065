//! A host that is acted upon: its database, its services, and what its guard keeps. Positions in the log are the
//! world's milliseconds at the last write, so that what is missing at the standby is counted in lost time at once.

use std::collections::VecDeque;

use watchdog::domain::ids::{RunId, StepId, Token};
use watchdog::guard::protocol::{InFlight, LatchMark, PostgresRole, Request};

use crate::keeping::{self, Side};
use crate::leases;
use crate::redis::{self, Redis};
use crate::world::{Asker, MS, SECOND, World, to_local};

/// What the data directory makes of the server that runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Primary,
    Standby,
}

#[derive(Debug, Clone)]
pub struct Database {
    pub kind: Kind,
    pub running: bool,
    /// The last write it has.
    pub lsn: u64,
    /// It was stopped in an orderly way, or runs.
    pub is_orderly: bool,
    /// A standby that got all of its stopped primary's log: how far that goes.
    pub shipped: Option<u64>,
    /// A standby that has fallen so far behind, milliseconds.
    pub lag_ms: u64,
    /// The way from the primary is cut.
    pub is_cut_off: bool,
    /// Tokens in the table `watchdog_token`.
    pub token: Token,
}

/// One line of the guard's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub run: RunId,
    pub step: StepId,
    pub event: &'static str,
    pub token: Token,
}

/// What is at work under the action lock.
pub struct Work {
    pub serial: u64,
    pub what: InFlight,
    /// It was told to end.
    pub preempted: bool,
    /// A release has cleared the latch, and waits for its server's start: nothing ends it any more.
    pub is_deaf: bool,
    /// How far what is done to Redis is.
    pub phase: u32,
    /// Until then, by the host's boot clock, it may be begun.
    pub not_after_ms: Option<u64>,
    pub asker: Option<Asker<Vec<u8>>>,
}

/// How the guard behaves now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mood {
    /// What it begins takes so much longer, microseconds.
    pub slow: u64,
    /// Its answers to actions do not arrive.
    pub is_mute: bool,
    /// Actions fail.
    pub fails: bool,
    /// Requests wait until it is well again.
    pub hangs: bool,
}

pub struct Host {
    pub name: String,
    pub region: String,
    pub on: bool,
    pub boots: u64,
    pub booted_at: u64,
    /// How much faster its boot clock runs than it should, in parts per million.
    pub fast_ppm: i64,
    /// None of its programs runs, its kernel does.
    pub frozen: bool,
    /// What came to its end meanwhile.
    pub stalled: Vec<u64>,
    /// Mode `lease`.
    pub lease: Option<Side>,
    /// The boot gate holds the database back.
    pub wants_start: bool,
    /// Which promotion made it the primary, in the order of all.
    pub reign: u64,
    /// The token store, durable.
    pub token: Token,
    /// Durable.
    pub latch: Option<LatchMark>,
    /// Durable.
    pub ledger: Vec<Line>,
    pub work: Option<Work>,
    /// Wait for the action lock.
    pub waiting: VecDeque<(Request, Asker<Vec<u8>>)>,
    /// Came while it hung.
    pub held_up: Vec<(String, Asker<Vec<u8>>)>,
    pub database: Database,
    pub redis: Option<Redis>,
    pub services: bool,
    pub mood: Mood,
    /// The last token under which the fence was read back and found to hold.
    pub fence_seen: Option<Token>,
    /// People cleared the latch, after that.
    pub is_unlatched: bool,
    /// The highest token that was ever made to be remembered here: what the promises are checked against.
    pub highest: Token,
    serial: u64,
}

impl Host {
    pub fn new(name: &str, region: &str, kind: Kind) -> Self {
        let database = Database {
            kind,
            running: true,
            lsn: 0,
            is_orderly: true,
            shipped: None,
            lag_ms: 0,
            is_cut_off: false,
            token: Token::default(),
        };
        Self {
            name: name.to_owned(),
            region: region.to_owned(),
            on: true,
            boots: 1,
            booted_at: 0,
            fast_ppm: 0,
            frozen: false,
            stalled: Vec::new(),
            lease: None,
            wants_start: false,
            reign: 0,
            token: Token { epoch: 1, n: 0 },
            latch: None,
            ledger: Vec::new(),
            work: None,
            waiting: VecDeque::new(),
            held_up: Vec::new(),
            database,
            redis: None,
            services: kind == Kind::Primary,
            mood: Mood::default(),
            fence_seen: None,
            is_unlatched: false,
            highest: Token::default(),
            serial: 0,
        }
    }

    /// By its own clock since it was booted, milliseconds; never 0.
    pub fn boottime_ms(&self, now: u64) -> u64 {
        to_local(now - self.booted_at, self.fast_ppm) / MS + 1
    }

    pub fn boot_nonce(&self) -> String {
        format!("boot-{}", self.boots)
    }

    pub fn takes_writes(&self) -> bool {
        self.on && self.database.running && self.database.kind == Kind::Primary
    }

    /// A client's write is answered now.
    pub fn acknowledges(&self, now: u64) -> bool {
        self.takes_writes() && !self.frozen && self.lets_out(now)
    }

    /// What its database says gets to clients.
    pub fn lets_out(&self, now: u64) -> bool {
        self.lease.as_ref().is_none_or(|side| side.gate.passes(self.boottime_ms(now)))
    }

    /// The resident guard does not run.
    pub fn stands_still(&self) -> bool {
        self.frozen || self.lease.as_ref().is_some_and(|side| side.is_guard_frozen)
    }

    pub fn role(&self) -> PostgresRole {
        match (self.database.running, self.database.kind) {
            (false, _) => PostgresRole::Stopped,
            (true, Kind::Standby) => PostgresRole::InRecovery,
            (true, Kind::Primary) => PostgresRole::Writable,
        }
    }

    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// The server starts, unless the boot gate finds the latch or, for a primary, no lease; and with a primary its services.
    fn start_database(&mut self, now: u64) {
        let now_ms = self.boottime_ms(now);
        let lets =
            self.database.kind == Kind::Standby || self.lease.as_ref().is_none_or(|side| side.lets_start(now_ms));
        self.wants_start = self.on && !(lets && self.latch.is_none());
        if self.on && self.latch.is_none() && lets {
            self.run_database();
        }
    }

    /// The server is started, whoever asked for it.
    pub fn run_database(&mut self) {
        self.database.running = true;
        self.database.is_orderly = true;
        self.services = self.database.kind == Kind::Primary;
    }

    /// It is stopped as `pg_ctl stop -m fast` does.
    pub fn stop_database(&mut self) {
        self.database.running = false;
    }

    fn crash_database(&mut self) {
        self.database.is_orderly &= !self.database.running;
        self.database.running = false;
    }
}

/// What a primary wrote last goes to its standby before it ends, where that is there; to be replayed in its own time.
pub fn ship_the_last(world: &mut World, at: usize) {
    let end = world.hosts[at].database.lsn;
    let standby = &mut world.hosts[1 - at];
    let is_there = standby.on && !standby.frozen && standby.database.running && !standby.database.is_cut_off;
    if is_there && standby.database.kind == Kind::Standby {
        standby.database.shipped = Some(end);
    }
}

/// The databases as of now: the primary writes, its standby receives.
pub fn tick(world: &mut World) {
    let now = world.now();
    for host in &mut world.hosts {
        if host.acknowledges(now) {
            host.database.lsn = now / MS;
        }
    }
    leases::acknowledged(world);
    redis::tick(world);
    let position = |host: &Host| (host.takes_writes() && !host.frozen).then_some(host.database.lsn);
    let primary = world.hosts.iter().filter_map(position).max();
    for host in &mut world.hosts {
        let standby = &mut host.database;
        if !host.on || host.frozen || !standby.running || standby.kind != Kind::Standby {
            continue;
        }
        let late = 50 + standby.lag_ms;
        match primary {
            Some(primary) if !standby.is_cut_off => {
                standby.lsn = standby.lsn.max(primary.saturating_sub(late));
                standby.shipped = None;
            }
            Some(_) => {}
            None => {
                let replayed = standby.shipped.map_or(0, |end| end.min((now / MS).saturating_sub(late)));
                standby.lsn = standby.lsn.max(replayed);
            }
        }
    }
}

/// Power fails: nothing of what was at work is left, or a promotion that had got far enough.
pub fn power_off(world: &mut World, at: usize) {
    tick(world);
    let host = &mut world.hosts[at];
    host.on = false;
    host.frozen = false;
    host.wants_start = false;
    host.stalled.clear();
    host.crash_database();
    host.redis.iter_mut().for_each(Redis::stop);
    host.services = false;
    host.waiting.clear();
    host.held_up.clear();
    host.work = None;
    let name = host.name.clone();
    keeping::power_off(world, at);
    world.note(format!("{name}: power fails"));
}

pub fn power_on(world: &mut World, at: usize) {
    let now = world.now();
    let host = &mut world.hosts[at];
    if host.on {
        return;
    }
    host.on = true;
    host.boots += 1;
    host.booted_at = now;
    host.start_database(now);
    redis::start(world, at);
    let host = &world.hosts[at];
    let text = format!("{}: powered on, database {:?}", host.name, host.role());
    world.note(text);
    world.later(200 * MS, move |world| keeping::start(world, at));
}

/// All its programs stand still; its kernel goes on.
pub fn freeze(world: &mut World, at: usize) {
    tick(world);
    world.hosts[at].frozen = world.hosts[at].on;
}

/// They go on where they stood.
pub fn thaw(world: &mut World, at: usize) {
    if !std::mem::take(&mut world.hosts[at].frozen) {
        return;
    }
    // The database needs nobody for its next answer.
    tick(world);
    for serial in std::mem::take(&mut world.hosts[at].stalled) {
        crate::guard::end(world, at, serial);
    }
    crate::guard::read_held_up(world, at);
    keeping::thaw(world, at);
}

/// The boot gate asks again.
pub fn try_start(world: &mut World, at: usize) {
    let now = world.now();
    if world.hosts[at].wants_start {
        world.hosts[at].start_database(now);
    }
}

/// The database's processes die.
pub fn kill_database(world: &mut World, at: usize) {
    tick(world);
    let host = &mut world.hosts[at];
    host.crash_database();
    host.wants_start = false;
    host.services = false;
    let text = format!("{}: the database is killed", host.name);
    world.note(text);
}

/// Whoever looks after the host starts it again; the boot gate decides.
pub fn start_database(world: &mut World, at: usize) {
    let now = world.now();
    let host = &mut world.hosts[at];
    host.start_database(now);
    let text = format!("{}: the database is told to start: {:?}", host.name, host.role());
    world.note(text);
}

/// People make a standby of a fenced old primary, once the other side serves.
pub fn rejoin(world: &mut World, at: usize) {
    tick(world);
    let serves = world.hosts[1 - at].takes_writes();
    let host = &world.hosts[at];
    if !serves || !host.on || host.latch.is_none() || host.takes_writes() {
        return;
    }
    let text = format!("{}: rejoined by hand, as a standby", host.name);
    make_a_standby(world, at);
    world.hosts[at].run_database();
    redis::rejoin(&mut world.hosts[at]);
    world.note(text);
}

/// Its data is brought in line with the primary's; it follows from there as soon as it is started.
pub fn make_a_standby(world: &mut World, at: usize) {
    crate::recoveries::demotes(world, at);
    let primary = world.hosts[1 - at].database.lsn;
    let host = &mut world.hosts[at];
    host.latch = None;
    host.database.lsn = host.database.lsn.min(primary);
    // As `rejoin` does: a standby has no gate.
    if let Some(side) = &mut host.lease {
        side.gate = Default::default();
    }
    host.database.kind = Kind::Standby;
    host.database.shipped = None;
    host.services = false;
    host.database.running = false;
    host.database.is_orderly = true;
    host.wants_start = false;
}

/// People clear the latch and start the old primary again, whatever is under way.
pub fn unlatch(world: &mut World, at: usize) {
    let now = world.now();
    let host = &mut world.hosts[at];
    if !host.on || host.latch.is_none() {
        return;
    }
    host.latch = None;
    host.is_unlatched = true;
    host.start_database(now);
    let text = format!("{}: unlatched and started by hand", host.name);
    world.note(text);
}

/// How long an action takes, microseconds.
pub fn duration(world: &mut World, at: usize, action: &str) -> u64 {
    let slow = world.hosts[at].mood.slow;
    let mut chance = crate::chance::Chance::new(world.seed, &format!("{at}-{action}-{}", world.now()));
    slow + match action {
        "fence" => chance.between(50 * MS, 500 * MS),
        "promote" => chance.between(80 * MS, SECOND),
        _ => chance.between(50 * MS, 800 * MS),
    }
}
