//! The monthly schedule over a year on a virtual clock, with leaders that die, sleep and disagree at the fire times: each drill
//! is held once, or skipped with a page.

use std::collections::BTreeMap;

use super::driver::change_due;
use crate::calendar::Schedule;
use crate::domain::command::{Applied, Change};
use crate::domain::drill::{DrillChange, DrillKind, DrillOutcome, DrillPhase, DrillPlan, DrillSettings};
use crate::domain::fixtures::{World, group, policy};
use crate::domain::ids::UnixMs;

/// 2026-01-01 in UTC.
const BEGIN: u64 = 1_767_225_600_000;
const MINUTE_MS: u64 = 60_000;
const LATE_MAX_MS: u64 = 15 * MINUTE_MS;
const SEEDS: u64 = 30;

/// SplitMix64: one seed, one history.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What happened to each due moment, as the log has it.
#[derive(Default)]
struct Record {
    opened: BTreeMap<UnixMs, u32>,
    skipped: BTreeMap<UnixMs, u32>,
    pages: u32,
}

struct Year {
    world: World,
    chance: Chance,
    plan: DrillPlan,
    schedule: Schedule,
    /// Decisions of leaders that were cut off or went to sleep, to arrive later or never.
    late: Vec<(u64, Change)>,
    record: Record,
}

impl Year {
    fn new(seed: u64) -> Self {
        let plan = DrillPlan {
            name: "monthly".into(),
            kind: DrillKind::Tabletop,
            cron: "0 2 1 * *".to_owned(),
            blackouts: Vec::new(),
            announce_before_ms: 60 * MINUTE_MS,
            late_max_ms: LATE_MAX_MS,
            settings: DrillSettings { zone: "Asia/Ho_Chi_Minh".to_owned(), ..DrillSettings::default() },
        };
        let schedule = Schedule::parse(&plan.cron, &plan.settings.zone).expect("sound");
        let mut world = World::new();
        world.now = UnixMs(BEGIN);
        Self { world, chance: Chance(seed), plan, schedule, late: Vec::new(), record: Record::default() }
    }

    fn decide(&self, clock: UnixMs) -> Option<Change> {
        let rules = &policy().groups[&group()];
        let about = change_due(rules, self.world.group(), &self.plan, clock, |at| self.schedule.next_after(at))?;
        Some(Change::Drill { group: group(), about })
    }

    /// As the log takes it, by whichever leader.
    fn take(&mut self, change: &Change) {
        let node = 1 + self.chance.below(3);
        let applied = self.world.apply_as(node, change.clone());
        let Change::Drill { about, .. } = change else { return };
        if matches!(applied, Applied::Rejected(_)) {
            return;
        }
        match about {
            DrillChange::Open(opening) => *self.record.opened.entry(opening.due_at).or_default() += 1,
            DrillChange::Skip { due_at, missed, .. } => {
                *self.record.skipped.entry(*due_at).or_default() += missed;
                let told = &self.world.state.incidents["test/shop/drill-skipped/monthly"].page;
                self.record.pages += u32::from(told.details["due_unix_ms"] == due_at.0.to_string());
            }
            _ => {}
        }
    }

    /// Half an hour around a due moment, by steps of seconds.
    fn around(&mut self, due: UnixMs) {
        // Sometimes nobody leads for long, sometimes for a moment, mostly at the fire time itself.
        let outage_ms = match self.chance.below(4) {
            0 => self.chance.below(40) * MINUTE_MS,
            1 => self.chance.below(60_000),
            _ => 0,
        };
        let outage = due.0.saturating_sub(self.chance.below(20_000))..due.0 + outage_ms;
        let mut at = due.0 - 10 * MINUTE_MS;
        while at < due.0 + 50 * MINUTE_MS {
            at += 1000 + self.chance.below(20_000);
            self.world.now = UnixMs(at);
            self.arrivals(at);
            if outage.contains(&at) {
                continue;
            }
            // Within what a majority's clocks agree to; leaders that are further off decide nothing.
            let clock = UnixMs(at - 2500 + self.chance.below(5000));
            let Some(change) = self.decide(clock) else {
                self.go_on(at);
                continue;
            };
            match self.chance.below(6) {
                // It dies before the log has it.
                0 => {}
                // It is cut off or asleep; another leads, and this arrives later.
                1 => self.late.push((at + self.chance.below(40 * MINUTE_MS), change)),
                // It dies after: the next leader decides on what is there.
                2 => {
                    self.take(&change);
                    self.take(&change);
                }
                _ => self.take(&change),
            }
        }
    }

    fn arrivals(&mut self, at: u64) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|(when, _)| *when <= at);
        self.late = later;
        for (_, change) in due {
            self.take(&change);
        }
    }

    /// The open drill ends sooner or later.
    fn go_on(&mut self, at: u64) {
        let open = self.world.group().drills.open.as_ref().map(|drill| (drill.id.clone(), drill.opened_at));
        if let Some((id, opened_at)) = open
            && UnixMs(at).since(opened_at) > MINUTE_MS
            && self.chance.one_in(3)
        {
            let (from, outcome) = (DrillPhase::Checking, DrillOutcome::Passed);
            let about = DrillChange::Close { id, from, outcome, why: String::new() };
            self.take(&Change::Drill { group: group(), about });
        }
    }
}

#[test]
fn twelve_drills_in_a_year_none_twice_and_none_lost_without_a_page() {
    let (mut held, mut skipped) = (0, 0);
    for seed in 0..SEEDS {
        let mut year = Year::new(seed);
        let known = year.decide(UnixMs(BEGIN)).expect("a schedule is known first");
        year.take(&known);
        let mut dues = Vec::new();
        while let Some(due) = year.schedule.next_after(dues.last().copied().unwrap_or(UnixMs(BEGIN))) {
            if dues.len() == 12 {
                break;
            }
            dues.push(due);
        }
        for due in &dues {
            // A month in which nobody ever led is made up for by the next month's skip.
            if year.chance.one_in(20) && Some(due) != dues.last() {
                continue;
            }
            year.around(*due);
        }
        let record = &year.record;
        let opened: u32 = record.opened.values().sum();
        let missed: u32 = record.skipped.values().sum();
        assert!(record.opened.values().all(|n| *n == 1), "seed {seed}: a drill was held twice: {:?}", record.opened);
        assert!(record.opened.keys().all(|due| dues.contains(due)), "seed {seed}: {:?}", record.opened);
        assert!(!record.opened.keys().any(|due| record.skipped.contains_key(due)), "seed {seed}: held and skipped");
        assert_eq!(opened + missed, 12, "seed {seed}: held {:?}, skipped {:?}", record.opened, record.skipped);
        assert_eq!(record.pages as usize, record.skipped.len(), "seed {seed}: a skip was not paged");
        held += opened;
        skipped += missed;
    }
    println!("{SEEDS} years: {held} drills held, {skipped} skipped with a page, none twice");
    assert!(held > 0 && skipped > 0, "the histories do not reach both");
}
