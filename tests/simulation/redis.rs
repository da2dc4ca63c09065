//! The Redis server of a model host, what goes wrong with it, and what is promised of it. Positions are the world's
//! milliseconds at the last write, as the database's are.

use watchdog::domain::ids::{RunId, StepId};
use watchdog::domain::plan::{REDIS_FENCE, REDIS_HAND_OVER, REDIS_PROMOTE, REDIS_REJOIN, REDIS_RELEASE, Step};
use watchdog::domain::run::{Run, RunKind, RunOutcome, StepPhase};
use watchdog::guard::protocol::{InFlight, LatchMark};

use crate::chance::Chance;
use crate::host::{Host, Kind};
use crate::moves;
use crate::schedule::{Fault, Order, Planned, Who};
use crate::shapes::Draft;
use crate::site::RedisSettings;
use crate::world::{MS, World};

/// A replica is in step so long after it can reach its primary.
const LINKS_WITHIN: u64 = 300 * MS;

/// A command that a server which stands still has got and not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    FollowNobody(InFlight),
    Follow,
}

#[derive(Debug, Clone)]
pub struct Redis {
    pub running: bool,
    /// Its configuration file says so too: a restart changes nothing.
    pub follows: bool,
    /// Nobody gets an answer, and it listens.
    pub hung: bool,
    /// Its clients' writes wait.
    pub paused: bool,
    /// In step with the other host's since then.
    pub linked: bool,
    reached: Option<u64>,
    /// Equal on a primary and on what is in step with it.
    pub history: u64,
    /// The last write it has.
    pub offset: u64,
    /// The last write it acknowledged.
    pub acknowledged: u64,
    /// Durable, and its own.
    pub latch: Option<LatchMark>,
    pub cleared_by: Option<(RunId, StepId)>,
    pub unread: Vec<Unread>,
}

impl Redis {
    pub fn new(kind: Kind) -> Self {
        Self {
            running: true,
            follows: kind == Kind::Standby,
            hung: false,
            paused: false,
            linked: kind == Kind::Standby,
            reached: Some(0),
            history: 0,
            offset: 0,
            acknowledged: 0,
            latch: None,
            cleared_by: None,
            unread: Vec::new(),
        }
    }

    /// Takes writes, or will.
    pub fn is_primary(&self) -> bool {
        self.running && !self.follows
    }

    pub fn stop(&mut self) {
        self.running = false;
        self.hung = false;
        self.paused = false;
        self.linked = false;
        self.reached = None;
        self.unread.clear();
    }

    /// Past the boot gate, or by the guard.
    pub fn start(&mut self, history: u64) {
        self.running = true;
        if !self.follows {
            self.history = history;
        }
    }

    pub fn follow(&mut self) {
        self.follows = true;
        self.linked = false;
        self.reached = None;
    }

    pub fn follow_nobody(&mut self, history: u64) {
        if std::mem::take(&mut self.follows) {
            self.history = history;
            self.linked = false;
        }
    }
}

/// A history that no server had before.
pub fn next_history(world: &World) -> u64 {
    world.hosts.iter().filter_map(|host| host.redis.as_ref()).map(|redis| redis.history).max().unwrap_or(0) + 1
}

fn answers(host: &Host) -> bool {
    host.on && !host.frozen && host.redis.as_ref().is_some_and(|redis| redis.running && !redis.hung)
}

/// The primary writes, what follows it receives.
pub fn tick(world: &mut World) {
    let now = world.now();
    for host in world.hosts.iter_mut().filter(|host| answers(host)) {
        if let Some(redis) = host.redis.as_mut().filter(|redis| redis.is_primary() && !redis.paused) {
            redis.offset = now / MS;
            redis.acknowledged = redis.offset;
        }
    }
    for at in 0..world.hosts.len() {
        let (here, there) = (&world.hosts[at], &world.hosts[1 - at]);
        let primary = there.redis.as_ref().filter(|redis| answers(there) && redis.is_primary());
        let upstream = primary.map(|redis| (redis.history, redis.offset)).filter(|_| !here.database.is_cut_off);
        let is_well = answers(here);
        let late = 50 + here.database.lag_ms;
        let Some(redis) = world.hosts[at].redis.as_mut().filter(|redis| redis.follows && is_well) else { continue };
        let Some((history, end)) = upstream else {
            redis.linked = false;
            redis.reached = None;
            continue;
        };
        let received = end.min((now / MS).saturating_sub(late));
        if redis.linked {
            redis.offset = redis.offset.max(received);
        } else if now >= *redis.reached.get_or_insert(now) + LINKS_WITHIN {
            // Whatever else it had is dropped.
            (redis.linked, redis.history, redis.offset) = (true, history, received);
        }
    }
}

/// The power is back, or whoever looks after it starts it: the boot gate decides.
pub fn start(world: &mut World, at: usize) {
    let history = next_history(world);
    let host = &mut world.hosts[at];
    let is_on = host.on;
    if let Some(redis) = host.redis.as_mut().filter(|redis| is_on && !redis.running && redis.latch.is_none()) {
        redis.start(history);
    }
}

pub fn kill(world: &mut World, at: usize) {
    tick(world);
    if let Some(redis) = &mut world.hosts[at].redis {
        redis.stop();
    }
}

pub fn hang(world: &mut World, at: usize) {
    tick(world);
    if let Some(redis) = world.hosts[at].redis.as_mut().filter(|redis| redis.running) {
        redis.hung = true;
    }
}

/// It runs again, and reads what came meanwhile.
pub fn thaw(world: &mut World, at: usize) {
    let Some(redis) = &mut world.hosts[at].redis else { return };
    redis.hung = false;
    for command in std::mem::take(&mut redis.unread) {
        match command {
            Unread::FollowNobody(what) => promoted(world, at, &what),
            Unread::Follow => world.hosts[at].redis.as_mut().into_iter().for_each(Redis::follow),
        }
    }
}

/// What is done to Redis here loses its guard, wherever it stands.
pub fn kill_action(world: &mut World, at: usize) {
    let host = &mut world.hosts[at];
    let Some(work) = host.work.take_if(|work| work.what.action.starts_with("redis-")) else { return };
    let text = format!("{}: the guard of {} is killed", host.name, work.what.action);
    world.note(text);
    crate::guard::begin_next(world, at);
}

/// As people make it follow where they rejoin its database by hand.
pub fn rejoin(host: &mut Host) {
    if let Some(redis) = &mut host.redis {
        redis.latch = None;
        redis.running = true;
        redis.follow();
    }
}

const LANDMARKS: [&str; 10] = [
    "OpenRun",
    "StepStarted promote",
    "StepStarted redis-fence",
    "StepFinished redis-fence",
    "StepStarted redis-promote",
    "StepStarted redis-hand-over",
    "StepFinished redis-hand-over",
    "TurnBack",
    "StepStarted redis-release",
    "StepStarted redis-rejoin",
];
const VERBS: [&str; 5] = [REDIS_FENCE, REDIS_PROMOTE, REDIS_HAND_OVER, REDIS_RELEASE, REDIS_REJOIN];

/// Three seeds of ten have Redis, of a stream of its own: the others stay as they were.
/// In mode `none` nothing of the group is fenced.
pub fn settings(seed: u64, is_fencing_none: bool) -> Option<RedisSettings> {
    let is_fenced = Chance::new(seed, "redis").percent(85) && !is_fencing_none;
    matches!(seed % 10, 2 | 6 | 9).then_some(RedisSettings { is_fenced })
}

/// What goes wrong around it, beside all else.
pub fn draw(seed: u64) -> Vec<Planned> {
    let mut chance = Chance::new(seed, "redis faults");
    let mut draft = Draft { chance: &mut chance, planned: Vec::new() };
    match (moves::is_for(seed), draft.chance.below(100)) {
        (true, 0..25) => left_in_the_middle(&mut draft),
        (true, 25..50) => taken_back(&mut draft),
        (false, 0..20) => asleep(&mut draft),
        (false, 20..35) => read_late(&mut draft),
        _ => {}
    }
    for _ in 0..draft.chance.below(4) {
        let fault = one(draft.chance);
        let line = *draft.chance.pick(&LANDMARKS);
        let after = draft.ms(0, 700);
        let lasts = match fault {
            Fault::KillRedis { .. } if draft.chance.percent(30) => None,
            Fault::KillRedisAction { .. } | Fault::Operator(_) => None,
            Fault::Crash { .. } => draft.some(50, 4000),
            _ => draft.some(100, 7000),
        };
        draft.after(line, after, fault, lasts);
    }
    draft.planned
}

/// The guard dies while the writers wait for the other server, and the move is called off.
fn left_in_the_middle(draft: &mut Draft<'_>) {
    draft.after("StepFinished catch-up", 0, Fault::CutReplication { lag_ms: 0 }, None);
    let (killed, soon) = (draft.ms(300, 2500), draft.ms(0, 400));
    draft.after("StepStarted redis-hand-over", killed, Fault::KillRedisAction { host: 0 }, None);
    draft.after("StepStarted redis-hand-over", killed + soon, Fault::Operator(Order::Abort), None);
}

/// It was handed over, the database is not promoted, and all goes back; or its host or guard fails at that.
fn taken_back(draft: &mut Draft<'_>) {
    draft.after("StepStarted redis-hand-over", 0, Fault::GuardFails { host: 1 }, Some(4000 * MS));
    let after = draft.ms(300, 2500);
    draft.after("StepFinished redis-hand-over", after, Fault::Operator(Order::Abort), None);
    let fault = match draft.chance.below(6) {
        0 => Fault::KillRedis { host: 0 },
        1 => Fault::HangRedis { host: 0 },
        2 => Fault::KillRedisAction { host: 0 },
        3 => Fault::PowerOff { host: 0 },
        4 => Fault::Crash { who: Who::Leader, tears: true },
        _ => return,
    };
    let (after, lasts) = (draft.ms(0, 600), draft.some(500, 5000));
    draft.after("StepStarted redis-release", after, fault, lasts);
}

/// The leader sleeps with an attempt in hand.
fn asleep(draft: &mut Draft<'_>) {
    let verb = *draft.chance.pick(&VERBS[..2]);
    let (counts, lasts) = (draft.chance.percent(50), draft.some(2500, 9000));
    draft.at(0, Fault::Catch { verb, counts }, lasts);
}

/// The server that is to be promoted stands still, and reads later what it was told; or the old one's host is lost then.
fn read_late(draft: &mut Draft<'_>) {
    let lasts = draft.some(1500, 9000);
    draft.after("StepFinished redis-fence", 0, Fault::HangRedis { host: 1 }, lasts);
    let after = draft.ms(200, 4000);
    match draft.chance.below(3) {
        0 => draft.after("StepStarted redis-promote", after, Fault::Operator(Order::Abort), None),
        1 => draft.after("StepFinished redis-fence", after, Fault::PowerOff { host: 0 }, None),
        _ => {}
    }
}

fn one(chance: &mut Chance) -> Fault {
    let host = if chance.percent(60) { 0 } else { 1 };
    match chance.below(100) {
        0..22 => Fault::KillRedis { host },
        22..38 => Fault::HangRedis { host },
        38..60 => Fault::KillRedisAction { host },
        60..71 => Fault::Crash { who: Who::Leader, tears: chance.percent(50) },
        71..76 => Fault::PowerOff { host },
        76..82 => Fault::GuardMute { host },
        82..87 => Fault::CutReplication { lag_ms: *chance.pick(&[0, 0, 3000]) },
        87..91 => Fault::FreezeHost { host },
        91..96 => Fault::Operator(Order::Skip),
        _ => Fault::Operator(Order::Abort),
    }
}

/// `REPLICAOF NO ONE` takes effect.
pub fn promoted(world: &mut World, at: usize, what: &InFlight) {
    tick(world);
    let history = next_history(world);
    let Some(redis) = world.hosts[at].redis.as_mut().filter(|redis| redis.running) else { return };
    redis.follow_nobody(history);
    let has = redis.offset;
    let (here, old) = (world.hosts[at].name.clone(), &world.hosts[1 - at]);
    let Some(theirs) = old.redis.as_ref() else { return };
    let (name, is_there) = (old.name.clone(), old.on && theirs.is_primary());
    let (is_latched, acknowledged) = (theirs.latch.is_some(), theirs.acknowledged);
    if is_excused(world) {
        return;
    }
    if is_there || !is_latched {
        let how = if is_there { "takes writes still" } else { "is not latched" };
        world.broken("Redis", format!("that of {here} is promoted while {name}'s {how}"));
    }
    let is_planned = run_of(world, &what.run).is_some_and(Run::is_planned);
    if is_planned && acknowledged > has {
        let lost_ms = acknowledged - has;
        world.broken("Redis", format!("a planned move loses {lost_ms} ms of what {name}'s acknowledged"));
    }
}

fn run_of<'a>(world: &'a World, id: &RunId) -> Option<&'a Run> {
    let group = world.promises.group()?;
    group.open_run.as_ref().into_iter().chain(&group.history).find(|run| &run.id == id)
}

/// Two of them are what the configuration or a person asked for.
fn is_excused(world: &World) -> bool {
    let is_fenced = world.redis.is_some_and(|settings| settings.is_fenced);
    !is_fenced || world.promises.redis_fence_skipped
}

/// What is true at every moment.
pub fn always(world: &mut World) {
    let is_primary = |host: &&Host| host.on && host.redis.as_ref().is_some_and(Redis::is_primary);
    if world.hosts.iter().filter(is_primary).count() > 1 && !is_excused(world) {
        world.broken("Redis", "two servers take writes side by side");
    }
}

/// A step's effect is there, whatever its result says.
pub fn is_there(host: &Host, step: &StepId) -> bool {
    let Some(redis) = &host.redis else { return false };
    match step.as_str() {
        REDIS_FENCE => redis.latch.is_some() && !redis.is_primary(),
        REDIS_PROMOTE => redis.is_primary(),
        _ => false,
    }
}

/// A person is called to Redis: nothing else waits for that.
pub fn calls(world: &mut World, run: &Run, step: &StepId) {
    if run.kind != RunKind::Failover || !VERBS.contains(&step.as_str()) {
        return;
    }
    let last = run.plan.stages.len().saturating_sub(1);
    let is_held_up = |(stage, other): &(usize, &Step)| {
        let record = run.record(&other.id).cloned().unwrap_or_default();
        let is_hopeless = record.is_permanent || record.attempts_since_retry >= other.retry.max_attempts;
        *stage < last && !other.action.is_redis() && !record.phase.is_settled() && !is_hopeless
    };
    if let Some((_, other)) = run.plan.steps().find(is_held_up) {
        let (other, phase) = (other.id.clone(), run.phase_of(&other.id));
        world.broken("Redis", format!("the run is stuck at {step}, and {other} is {phase}"));
    }
}

/// A run is closed: its Redis is where it says.
pub fn closes(world: &mut World, run: &Run, outcome: RunOutcome) {
    let host = |region: &str| world.hosts.iter().find(|host| host.region == region);
    let wrong = match outcome {
        RunOutcome::Succeeded if run.phase_of(&REDIS_PROMOTE.into()) == StepPhase::Done => {
            let to = host(run.to().as_str()).and_then(|host| host.redis.as_ref());
            to.filter(|redis| redis.follows).map(|_| format!("that of {} follows another", run.to()))
        }
        RunOutcome::Reverted if run.phase_of(&REDIS_RELEASE.into()) == StepPhase::Done => {
            let from = host(run.from().as_str()).and_then(|host| host.redis.as_ref());
            let keeps = from.and_then(|redis| match (redis.follows, redis.latch.is_some(), redis.paused) {
                (true, _, _) => Some("follows another"),
                (_, true, _) => Some("is latched"),
                (_, _, true) => Some("makes its writers wait"),
                _ => None,
            });
            keeps.map(|how| format!("that of {} {how}", run.from()))
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        world.broken("Redis", format!("the run is closed as {outcome}, but {wrong}"));
    }
}
