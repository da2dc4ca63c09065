//! When a drill begins: from what a schedule made due, and how the group stands. Pure; the calendar itself comes in as a
//! function, because it needs the time zones' rules.

use serde::{Deserialize, Serialize};

use super::{DrillKind, DrillPlan};
use crate::domain::ids::UnixMs;
use crate::domain::policy::GroupPolicy;
use crate::domain::readiness::Holds;
use crate::domain::state::GroupState;

/// What is remembered of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its [rule](DrillPlan::rule).
    pub rule: String,
    /// Whatever was due up to here took place or was skipped.
    pub after: UnixMs,
    /// The last moment that was announced.
    pub announced: Option<UnixMs>,
}

/// What a schedule made due since something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dues {
    /// So many are too late to begin.
    pub missed: u32,
    /// The last of them.
    pub last_missed: Option<UnixMs>,
    /// Due now.
    pub due: Option<UnixMs>,
    /// Due next.
    pub next: Option<UnixMs>,
}

/// Nobody counts further: what was missed in years by the minute is "many".
const MISSED_MAX: u32 = 10_000;

impl Dues {
    /// Since `after`. Where several are due and not too late, the last of them; the earlier ones count as missed.
    pub fn between(
        after: UnixMs,
        now: UnixMs,
        late_max_ms: u64,
        next_after: impl Fn(UnixMs) -> Option<UnixMs>,
    ) -> Self {
        let mut dues = Self::default();
        let mut at = after;
        while let Some(due) = next_after(at).filter(|due| *due > at) {
            if due > now {
                dues.next = Some(due);
                break;
            }
            if let Some(earlier) = dues.due.replace(due) {
                dues.miss(earlier);
            }
            if now.since(due) > late_max_ms {
                dues.due = None;
                dues.miss(due);
            }
            at = due;
            if dues.missed >= MISSED_MAX {
                at = UnixMs(now.0.saturating_sub(late_max_ms).max(at.0));
                dues.missed = MISSED_MAX;
            }
        }
        dues
    }

    fn miss(&mut self, due: UnixMs) {
        self.missed = self.missed.saturating_add(1);
        self.last_missed = Some(due);
    }
}

/// What becomes of a schedule now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fire {
    /// Nothing.
    Wait,
    /// It is new, or has another rule: it counts from now on.
    Know,
    /// It comes soon.
    Announce {
        /// When.
        due_at: UnixMs,
    },
    /// What was due does not take place.
    Skip {
        /// When it was due.
        due_at: UnixMs,
        /// So many, this one among them.
        missed: u32,
        /// Why.
        reason: String,
    },
    /// It begins.
    Open {
        /// When it was due.
        due_at: UnixMs,
    },
}

/// Judges one schedule. Asked only of a leader whose clock agrees with a majority's.
pub fn fire(plan: &DrillPlan, rules: &GroupPolicy, group: &GroupState, dues: &Dues) -> Fire {
    let Some(known) = group.drills.known.get(&plan.name).filter(|known| known.rule == plan.rule()) else {
        return Fire::Know;
    };
    if let (1.., Some(due_at)) = (dues.missed, dues.last_missed) {
        let late_min = plan.late_max_ms / 60_000;
        let reason = format!("nobody could begin it within {late_min} min: no leader, or its clock disagreed");
        return Fire::Skip { due_at, missed: dues.missed, reason };
    }
    if let Some(due_at) = dues.due {
        return match is_blacked_out(plan, due_at).or_else(|| obstacle(plan.kind, rules, group)) {
            Some(reason) => Fire::Skip { due_at, missed: 1, reason },
            None => Fire::Open { due_at },
        };
    }
    Fire::Wait.or_announce(plan, known, dues)
}

impl Fire {
    fn or_announce(self, plan: &DrillPlan, known: &Known, dues: &Dues) -> Self {
        let Some(due_at) = dues.next.filter(|_| plan.announce_before_ms > 0) else { return self };
        let told = known.announced.is_some_and(|announced| announced >= due_at);
        if told || is_blacked_out(plan, due_at).is_some() { self } else { Fire::Announce { due_at } }
    }
}

/// Whether what is due is announced by now.
pub fn is_near(plan: &DrillPlan, due_at: UnixMs, now: UnixMs) -> bool {
    due_at.since(now) <= plan.announce_before_ms
}

fn is_blacked_out(plan: &DrillPlan, due_at: UnixMs) -> Option<String> {
    let inside = plan.blackouts.iter().any(|blackout| (blackout.from..blackout.until).contains(&due_at));
    inside.then(|| "it falls into a blackout".to_owned())
}

/// What keeps a drill of that kind from beginning, by a schedule or by an operator's word. A tabletop drill changes nothing,
/// so that it asks for less: what is not ready is what it finds.
pub fn obstacle(kind: DrillKind, rules: &GroupPolicy, group: &GroupState) -> Option<String> {
    if let Some(drill) = &group.drills.open {
        return Some(format!("drill {} is open", drill.id));
    }
    if let Some(run) = &group.open_run {
        return Some(format!("run {} ({}) is open", run.id, run.kind));
    }
    if let Some(pause) = &group.pause {
        return Some(format!("paused by {}: {}", pause.by, pause.reason));
    }
    if !kind.acts() {
        return None;
    }
    if kind == DrillKind::Simulated && !rules.drills.is_resource {
        return Some(
            "the group is no drill group: its faults are not simulated (drill_resources = true in its [[group]])"
                .to_owned(),
        );
    }
    if rules.shadow {
        return Some("shadow mode: nothing would be done".to_owned());
    }
    if group.serving.region.as_ref() != Some(&group.home) {
        return Some(format!("the group does not serve from home, {}: fail back first", group.home));
    }
    if let Some((resource, left)) = group.unsettled.first_key_value() {
        return Some(format!("{resource} is unsettled since run {}", left.run));
    }
    match &group.readiness {
        None => Some("its readiness was not judged yet; the leader judges it within a minute".to_owned()),
        Some(mark) if mark.judgement.serving_epoch != group.serving.epoch => Some(
            "its readiness was not judged yet since the group moved; the leader judges it within a minute".to_owned(),
        ),
        Some(mark) if mark.judgement.verdict() > Holds::Weak => Some(format!("not ready: {}", mark.judgement.why())),
        Some(_) => None,
    }
}
