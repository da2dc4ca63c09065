//! Schedules that pass one gate at the wrong moment for another: what falls together by chance too seldom.

use crate::chance::Chance;
use crate::schedule::{FORMED, Fault, Order, Planned, When};
use crate::site::Settings;
use crate::world::{MS, SECOND};

/// What a schedule was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Asleep,
    LateAtAHost,
    TwoDisasters,
    Hermit,
    Frozen,
    Unbound,
    LateAnswers,
    WatchdogsGone,
    RegionCut,
    Unseen,
    /// Drawn by [`crate::moves`].
    Moved,
}

const ALL: [Shape; 10] = [
    Shape::Asleep,
    Shape::LateAtAHost,
    Shape::TwoDisasters,
    Shape::Hermit,
    Shape::Frozen,
    Shape::Unbound,
    Shape::LateAnswers,
    Shape::WatchdogsGone,
    Shape::RegionCut,
    Shape::Unseen,
];

/// One of them now and then; those of mode `lease` only there.
pub fn pick(chance: &mut Chance, settings: &Settings) -> Option<Shape> {
    let count = if settings.lease.is_some() { ALL.len() } else { 3 };
    chance.percent(35).then(|| *chance.pick(&ALL[..count]))
}

/// A list of faults that begins so long after the cluster is formed.
pub struct Draft<'a> {
    pub chance: &'a mut Chance,
    pub planned: Vec<Planned>,
}

impl Draft<'_> {
    pub fn at(&mut self, when: u64, fault: Fault, lasts: Option<u64>) {
        self.planned.push(Planned { when: When::At(FORMED + when), fault, lasts });
    }

    pub fn after(&mut self, line: &'static str, after: u64, fault: Fault, lasts: Option<u64>) {
        self.planned.push(Planned { when: When::After(line, after), fault, lasts });
    }

    pub fn ms(&mut self, least: u64, most: u64) -> u64 {
        self.chance.between(least, most) * MS
    }

    pub fn some(&mut self, least: u64, most: u64) -> Option<u64> {
        Some(self.ms(least, most))
    }

    fn seconds(&mut self, least: u64, most: u64) -> Option<u64> {
        self.some(least * 1000, most * 1000)
    }

    /// The old primary is gone for good.
    fn disaster(&mut self) {
        let fault = if self.chance.percent(60) { Fault::KillDatabase { host: 0 } } else { Fault::PowerOff { host: 0 } };
        self.at(0, fault, None);
    }
}

/// What goes wrong in it.
pub fn draw(chance: &mut Chance, shape: Shape) -> Vec<Planned> {
    let mut draft = Draft { chance, planned: Vec::new() };
    let fill = match shape {
        Shape::Asleep => asleep,
        Shape::LateAtAHost => late_at_a_host,
        Shape::TwoDisasters => two_disasters,
        Shape::Hermit => hermit,
        Shape::Frozen => frozen,
        Shape::Unbound => unbound,
        Shape::LateAnswers => late_answers,
        Shape::WatchdogsGone => watchdogs_gone,
        Shape::RegionCut => region_cut,
        Shape::Unseen => unseen,
        Shape::Moved => return Vec::new(),
    };
    fill(&mut draft);
    draft.planned
}

/// A node sleeps between reading the zone and changing it, or with an attempt in hand, and another has acted when it wakes.
fn asleep(draft: &mut Draft<'_>) {
    draft.disaster();
    let counts = draft.chance.percent(50);
    if draft.chance.percent(50) {
        let lasts = draft.seconds(5, 8);
        draft.at(0, Fault::Catch { verb: "swap", counts }, lasts);
    } else {
        let verb = *draft.chance.pick(&["fence", "promote", "start-services"]);
        let lasts = Some(draft.ms(3500, 4800));
        draft.at(0, Fault::Catch { verb, counts }, lasts);
    }
}

/// A request waits at a host until it is too late, and nobody raised a token there meanwhile.
fn late_at_a_host(draft: &mut Draft<'_>) {
    draft.at(0, Fault::KillDatabase { host: 0 }, None);
    let lasts = draft.seconds(7, 9);
    if draft.chance.percent(50) {
        draft.after("StepStarted promote", 0, Fault::GuardHangs { host: 1 }, lasts);
    } else {
        draft.after("StepStarted fence", 0, Fault::GuardHangs { host: 0 }, lasts);
    }
}

/// The first victim is a standby again when its successor goes down too.
fn two_disasters(draft: &mut Draft<'_>) {
    draft.at(0, Fault::KillDatabase { host: 0 }, None);
    let (rejoined, killed) = (draft.ms(100, 500), draft.ms(3000, 4500));
    draft.after("CloseRun succeeded", rejoined, Fault::Rejoin { host: 0 }, None);
    draft.after("CloseRun succeeded", killed, Fault::KillDatabase { host: 1 }, None);
}

/// No node reaches the primary, whose guard still reaches its standby's.
fn hermit(draft: &mut Draft<'_>) {
    let (at, lasts) = (draft.ms(0, 2000), draft.seconds(5, 13));
    draft.at(at, Fault::Hermit { host: 0 }, lasts);
    if draft.chance.percent(50) {
        // The standby's hold runs out, and is asked for again when silence was proved.
        let (after, lasts) = (draft.ms(0, 500), draft.seconds(2, 6));
        draft.after("StepStarted fence", after, Fault::KillGuard { host: 1 }, lasts);
    }
}

/// The whole host stands still, and wakes when its successor serves.
fn frozen(draft: &mut Draft<'_>) {
    let (at, lasts) = (draft.ms(0, 2000), draft.seconds(3, 13));
    draft.at(at, Fault::FreezeHost { host: 0 }, lasts);
    if draft.chance.percent(30) {
        let lasts = draft.seconds(1, 6);
        draft.at(at, Fault::FreezeHost { host: 1 }, lasts);
    }
}

/// The gate stands open for a pause, and nobody can bound it again when that is over.
fn unbound(draft: &mut Draft<'_>) {
    let cut = draft.ms(1200, 2500);
    let resumed = cut + draft.ms(20, 300);
    let lasts = draft.seconds(7, 12);
    draft.at(0, Fault::Operator(Order::Pause { for_ms: None }), None);
    draft.at(cut, Fault::Hermit { host: 0 }, lasts);
    draft.at(resumed, Fault::Operator(Order::Resume), None);
}

/// Requests and answers are held up, while the lease is unbound and bound again.
fn late_answers(draft: &mut Draft<'_>) {
    let most = draft.ms(500, 4000);
    let lasts = draft.seconds(6, 10);
    draft.at(0, Fault::LeaseLate { most }, lasts);
    let mut at = 0;
    for _ in 0..3 {
        at += draft.ms(700, 1500);
        draft.at(at, Fault::Operator(Order::Pause { for_ms: None }), None);
        at += draft.ms(200, 1200);
        draft.at(at, Fault::Operator(Order::Resume), None);
    }
    if draft.chance.percent(50) {
        let (at, lasts) = (draft.ms(1000, 5000), draft.seconds(4, 9));
        draft.at(at, Fault::Hermit { host: 0 }, lasts);
    }
}

/// Every node is down, and nothing else is wrong.
fn watchdogs_gone(draft: &mut Draft<'_>) {
    let (at, lasts) = (draft.ms(0, 2000), draft.seconds(4, 10));
    draft.at(at, Fault::AllDown, lasts);
    if draft.chance.percent(40) {
        let (after, lasts) = (at + draft.ms(500, 4000), draft.seconds(1, 4));
        draft.at(after, Fault::KillGuard { host: 1 }, lasts);
    }
}

/// The primary's region is cut off, its clients still reach it; or the other one is lost.
fn region_cut(draft: &mut Draft<'_>) {
    let (at, lasts) = (draft.ms(0, 2000), Some(draft.chance.between(3, 13) * SECOND));
    draft.at(at, Fault::CutSites { a: 0, b: 1 }, lasts);
    if draft.chance.percent(70) {
        draft.at(at, Fault::CutSites { a: 0, b: 2 }, lasts);
    } else {
        draft.at(at, Fault::CutSites { a: 1, b: 2 }, lasts);
        draft.at(at, Fault::PowerOff { host: 1 }, lasts);
    }
}

/// No probe gets an answer and no action, but clients do, and the guard goes on asking for the lease: until it is refused.
fn unseen(draft: &mut Draft<'_>) {
    let (at, lasts) = (draft.ms(0, 2000), draft.seconds(7, 13));
    draft.at(at, Fault::GuardHangs { host: 0 }, lasts);
    if draft.chance.percent(50) {
        let most = draft.ms(200, 1500);
        draft.at(0, Fault::LeaseLate { most }, Some(14 * SECOND));
    }
}
