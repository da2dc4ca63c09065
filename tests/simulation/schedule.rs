//! What goes wrong in a schedule, and when: drawn from the seed before anything runs.

use std::fmt;

use crate::chance::Chance;
use crate::moves;
use crate::shapes::{self, Shape};
use crate::site::Settings;
use crate::world::{MS, SECOND};

/// Which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Node(u64),
    /// Whoever leads then, or believes so.
    Leader,
}

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Pause {
        for_ms: Option<u64>,
    },
    Resume,
    Abort,
    AssertFence,
    Retry,
    Skip,
    AcceptLoss,
    Failover {
        accept_loss: bool,
    },
    /// A switchover, or a failback where the group is away.
    Move,
    /// The region that does not serve becomes the standby of the one that does.
    Rejoin,
    /// A host's service is started anew.
    Restart {
        host: usize,
    },
    /// Nobody's order: a command of the claim before the present one comes late, past every check but the log's own.
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Crash {
        who: Who,
        tears: bool,
    },
    Freeze {
        who: Who,
        counts: bool,
    },
    /// Whoever is about to send an attempt of that kind is frozen with it in hand.
    Catch {
        verb: &'static str,
        counts: bool,
    },
    /// Nothing gets to it or from it; or only one of the two.
    CutNode {
        who: Who,
        hears: bool,
        speaks: bool,
    },
    /// A node and a host do not reach each other.
    CutHost {
        who: Who,
        host: usize,
    },
    /// Two sites do not reach each other, nodes and hosts alike.
    CutSites {
        a: usize,
        b: usize,
    },
    Weather {
        loss_percent: u64,
        twice_percent: u64,
        slower: u64,
    },
    SlowDisk {
        who: Who,
        slow: u64,
    },
    BrokenDisk {
        who: Who,
    },
    ClockJump {
        who: Who,
        by_ms: i64,
    },
    ClockRate {
        who: Who,
        ppm: i64,
    },
    PowerOff {
        host: usize,
    },
    KillDatabase {
        host: usize,
    },
    CutReplication {
        lag_ms: u64,
    },
    GuardSlow {
        host: usize,
        slow: u64,
    },
    GuardMute {
        host: usize,
    },
    GuardFails {
        host: usize,
    },
    GuardHangs {
        host: usize,
    },
    ProviderDown,
    /// All programs of a host stand still, its kernel does not.
    FreezeHost {
        host: usize,
    },
    /// Its resident guard alone stands still.
    FreezeGuard {
        host: usize,
    },
    /// Its resident guard dies, and is started again.
    KillGuard {
        host: usize,
    },
    /// No node and that host reach each other; the other host does.
    Hermit {
        host: usize,
    },
    /// Every node dies.
    AllDown,
    /// What guards ask about leases, and what they are answered, is held up for that long at most.
    LeaseLate {
        most: u64,
    },
    /// Redis' process dies, and is started again.
    KillRedis {
        host: usize,
    },
    /// It stands still, and listens.
    HangRedis {
        host: usize,
    },
    /// The guard of what is being done to Redis dies.
    KillRedisAction {
        host: usize,
    },
    /// People make a standby of the old primary.
    Rejoin {
        host: usize,
    },
    /// People clear the latch of the old primary and start it.
    Unlatch {
        host: usize,
    },
    Operator(Order),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    At(u64),
    /// So long after the log first shows a line that begins so.
    After(&'static str, u64),
}

/// A fault, and how long it lasts; `None` is until people mend it.
#[derive(Debug, Clone)]
pub struct Planned {
    pub when: When,
    pub fault: Fault,
    pub lasts: Option<u64>,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            When::At(at) => write!(f, "at {:.3} s: ", at as f64 / SECOND as f64)?,
            When::After(what, after) => write!(f, "{} ms after the log's first {what:?}: ", after / MS)?,
        }
        write!(f, "{:?}", self.fault)?;
        match self.lasts {
            Some(lasts) => write!(f, " for {:.3} s", lasts as f64 / SECOND as f64),
            None => Ok(()),
        }
    }
}

/// When the cluster is formed and everything was seen up.
pub const FORMED: u64 = 5 * SECOND;
/// When the last fault ends and everything that people can mend is mended.
pub const MENDED: u64 = 22 * SECOND;

/// Everything that goes wrong.
pub fn draw(seed: u64, chance: &mut Chance, settings: &Settings) -> Vec<Planned> {
    if let Some(shape) = shapes::pick(chance, settings) {
        return shapes::draw(chance, shape);
    }
    if moves::is_for(seed) {
        let one = |chance: &mut Chance| match settings.lease {
            Some(_) if chance.percent(25) => of_lease(chance),
            _ => one(chance, settings),
        };
        return moves::draw(seed, one);
    }
    let mut planned = Vec::new();
    let disaster = FORMED + chance.below(2000) * MS;
    let mut lost = |fault, lasts| planned.push(Planned { when: When::At(disaster), fault, lasts });
    match chance.below(100) {
        0..45 => lost(Fault::KillDatabase { host: 0 }, chance.percent(25).then_some(chance.between(1, 12) * SECOND)),
        45..65 => lost(Fault::PowerOff { host: 0 }, chance.percent(60).then_some(chance.between(1, 14) * SECOND)),
        65..75 => lost(Fault::CutSites { a: 0, b: 1 }, Some(chance.between(2, 12) * SECOND)),
        75..85 => {
            let lasts = Some(chance.between(2, 12) * SECOND);
            lost(Fault::CutSites { a: 0, b: 1 }, lasts);
            lost(Fault::CutSites { a: 0, b: 2 }, lasts);
        }
        85..92 if settings.lease.is_some() => {
            lost(Fault::FreezeHost { host: 0 }, Some(chance.between(2, 14) * SECOND));
        }
        85..92 => lost(Fault::GuardHangs { host: 0 }, Some(chance.between(2, 14) * SECOND)),
        _ => {}
    }
    if chance.percent(30) {
        let verb = *chance.pick(&["fence", "dns", "swap", "promote", "start-services"]);
        let fault = Fault::Catch { verb, counts: chance.percent(50) };
        let lasts = Some(chance.between(2500, 4800) * MS);
        planned.push(Planned { when: When::At(FORMED), fault, lasts });
    }
    if chance.percent(15) {
        // A second disaster, once the first was survived and its victim made a standby.
        let mut then = |after, fault| {
            let when = When::After("CloseRun succeeded", after);
            planned.push(Planned { when, fault, lasts: None });
        };
        then(chance.between(500, 1500) * MS, Fault::Rejoin { host: 0 });
        then(chance.between(4000, 6000) * MS, Fault::KillDatabase { host: 1 });
    }
    for _ in 0..chance.below(8) {
        let fault = match settings.lease {
            Some(_) if chance.percent(30) => of_lease(chance),
            _ => one(chance, settings),
        };
        let when = if chance.percent(50) {
            When::At(chance.between(FORMED - SECOND, MENDED - 4 * SECOND))
        } else {
            let what = chance.pick(&LANDMARKS);
            When::After(what, chance.below(400) * MS)
        };
        let lasts = match fault {
            Fault::PowerOff { .. } | Fault::KillDatabase { .. } if chance.percent(30) => None,
            Fault::Operator(_) | Fault::ClockJump { .. } | Fault::Rejoin { .. } | Fault::Unlatch { .. } => None,
            Fault::Crash { .. } => Some(chance.between(50, 4000) * MS),
            _ => Some(chance.between(100, 8000) * MS),
        };
        planned.push(Planned { when, fault, lasts });
    }
    planned
}

/// What the seed's schedule was made for, where it was.
pub fn shape_of(seed: u64) -> Option<Shape> {
    let mut chance = Chance::new(seed, "schedule");
    let settings = Settings::draw(&mut chance);
    shapes::pick(&mut chance, &settings).or_else(|| moves::is_for(seed).then_some(Shape::Moved))
}

const LANDMARKS: [&str; 9] = [
    "OpenRun",
    "ClaimRun",
    "StepStarted fence",
    "StepFinished fence",
    "StepStarted dns",
    "StepStarted promote",
    "StepFinished promote",
    "StepStarted services",
    "StepStarted verify",
];

fn one(chance: &mut Chance, settings: &Settings) -> Fault {
    let nodes = settings.nodes.len() as u64;
    let who = if chance.percent(50) { Who::Leader } else { Who::Node(chance.between(1, nodes)) };
    let host = if chance.percent(50) { 0 } else { 1 };
    match chance.below(100) {
        0..14 => Fault::Crash { who, tears: chance.percent(50) },
        14..28 => Fault::Freeze { who, counts: chance.percent(70) },
        28..34 => Fault::CutNode { who, hears: false, speaks: false },
        34..40 => {
            let hears = chance.percent(50);
            Fault::CutNode { who, hears, speaks: !hears }
        }
        40..44 => Fault::CutHost { who, host },
        44..48 => {
            let (a, b) = *chance.pick(&[(0, 1), (0, 2), (1, 2)]);
            Fault::CutSites { a, b }
        }
        48..53 => Fault::Weather {
            loss_percent: chance.below(30),
            twice_percent: chance.below(20),
            slower: chance.below(150) * MS,
        },
        53..57 => Fault::SlowDisk { who, slow: chance.between(10, 300) * MS },
        57..59 => Fault::BrokenDisk { who },
        59..62 => {
            let far = i64::try_from(chance.between(1, 7_200_000)).unwrap_or(1);
            Fault::ClockJump { who, by_ms: if chance.percent(50) { far } else { -far } }
        }
        62..64 => Fault::ClockRate { who, ppm: *chance.pick(&[-5000, 5000, 10_000]) },
        64..67 => Fault::PowerOff { host },
        67..70 => Fault::KillDatabase { host },
        70..73 => Fault::CutReplication { lag_ms: *chance.pick(&[0, 3000, 10_000]) },
        73..77 => Fault::GuardSlow { host, slow: chance.between(500, 8000) * MS },
        77..81 => Fault::GuardMute { host },
        81..83 => Fault::GuardFails { host },
        83..86 => Fault::GuardHangs { host },
        86..88 => Fault::ProviderDown,
        88 => Fault::Unlatch { host: 0 },
        _ => Fault::Operator(order(chance)),
    }
}

fn of_lease(chance: &mut Chance) -> Fault {
    let host = if chance.percent(60) { 0 } else { 1 };
    match chance.below(100) {
        0..20 => Fault::FreezeHost { host },
        20..40 => Fault::FreezeGuard { host },
        40..60 => Fault::KillGuard { host },
        60..75 => Fault::Hermit { host },
        75..83 => Fault::AllDown,
        _ => Fault::LeaseLate { most: chance.between(300, 5000) * MS },
    }
}

fn order(chance: &mut Chance) -> Order {
    match chance.below(10) {
        0..3 => Order::Pause { for_ms: chance.percent(50).then_some(chance.between(1000, 60_000)) },
        3 => Order::Resume,
        4 => Order::Abort,
        5 => Order::AssertFence,
        6 => Order::Retry,
        7 => Order::Skip,
        8 => Order::AcceptLoss,
        _ => Order::Failover { accept_loss: chance.percent(50) },
    }
}
