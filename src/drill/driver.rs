//! While this node leads: begins the drills that are due, and carries the open one on. Everything it decides is put into the
//! log before anything follows from it, carrying the state that it was decided on; a leader that dies is followed by one that
//! finds the phase and goes on from there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Examiner;
use crate::calendar::{self, Schedule};
use crate::clock::{unique_id, unix_now};
use crate::coordinator::Coordinator;
use crate::domain::command::Change;
use crate::domain::drill::alarm::alarm;
use crate::domain::drill::due::{Dues, Fire, fire, is_near};
use crate::domain::drill::scenario::{self, Next};
use crate::domain::drill::{Drill, DrillChange, DrillOpening, DrillPhase, DrillPlan, Finding, Found, Measured};
use crate::domain::ids::{DrillId, DrillName, GroupName, RegionName, RunId, UnixMs};
use crate::domain::plan::Plan;
use crate::domain::policy::GroupPolicy;
use crate::domain::run::{Cause, RunKind};
use crate::domain::state::{ClusterState, GroupState};

/// Schedules and the open drill are looked at this often; every entry of the log wakes the driver too.
const EVERY: Duration = Duration::from_secs(1);
/// A new leader has no reports yet, and cannot tell whether its clock is right.
const FIRST_AFTER: Duration = Duration::from_secs(3);
/// A look that takes longer is given up, and what it would have found is not known.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// Drives every group's drills.
pub struct DrillDriver {
    coordinator: Arc<Coordinator>,
    examiner: Arc<dyn Examiner>,
    schedules: BTreeMap<(GroupName, DrillName), Schedule>,
}

impl DrillDriver {
    /// Of the groups of the coordinator's configuration.
    pub fn new(coordinator: Arc<Coordinator>, examiner: Arc<dyn Examiner>) -> Self {
        let mut schedules = BTreeMap::new();
        for (group, rules) in &coordinator.policy.groups {
            for plan in &rules.drills.plans {
                // Judged with the configuration: what cannot be read does not get here.
                if let Ok(schedule) = Schedule::parse(&plan.cron, &plan.settings.zone) {
                    schedules.insert((group.clone(), plan.name.clone()), schedule);
                }
            }
        }
        Self { coordinator, examiner, schedules }
    }

    /// Runs until `stop` becomes true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut leadership = self.coordinator.journal.leadership();
        loop {
            let current = leadership.borrow_and_update().clone();
            if *stop.borrow() {
                return;
            }
            if !current.leads {
                tokio::select! {
                    changed = leadership.changed() => if changed.is_err() { return },
                    _ = stop.changed() => return,
                }
                continue;
            }
            tokio::select! {
                () = self.attend_all() => return,
                () = crate::coordinator::lost(&mut leadership, current.term) => {}
                _ = stop.changed() => return,
            }
        }
    }

    async fn attend_all(&self) {
        tokio::time::sleep(FIRST_AFTER).await;
        join_all(self.coordinator.policy.groups.iter().map(|(name, rules)| self.attend(name, rules))).await;
        // Without groups there is nothing to do for as long as this node leads.
        std::future::pending::<()>().await;
    }

    async fn attend(&self, name: &GroupName, rules: &GroupPolicy) {
        let mut state = self.coordinator.journal.state();
        loop {
            let now = state.borrow_and_update().clone();
            self.look(&now, name, rules).await;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                changed = state.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn look(&self, state: &ClusterState, name: &GroupName, rules: &GroupPolicy) {
        if state.digest.as_ref() != Some(&self.coordinator.policy.digest) {
            return;
        }
        let Some(group) = state.group(name) else { return };
        if let Some(drill) = &group.drills.open {
            return self.carry_on(state, (name, rules), group, drill).await;
        }
        if !self.coordinator.view_now().clock_agrees {
            return;
        }
        for plan in &rules.drills.plans {
            if let Some(about) = self.due(name, rules, group, plan) {
                self.propose(name, about).await;
                // What follows is decided on the state that this leaves.
                return;
            }
        }
    }

    fn due(&self, name: &GroupName, rules: &GroupPolicy, group: &GroupState, plan: &DrillPlan) -> Option<DrillChange> {
        let schedule = self.schedules.get(&(name.clone(), plan.name.clone()))?;
        change_due(rules, group, plan, unix_now(), |after| schedule.next_after(after))
    }

    async fn carry_on(
        &self,
        state: &ClusterState,
        (name, rules): (&GroupName, &GroupPolicy),
        group: &GroupState,
        drill: &Drill,
    ) {
        let (id, from) = (drill.id.clone(), drill.phase);
        let view = self.coordinator.view_now();
        let alarm = alarm(state, &self.coordinator.policy, (name, rules), group, drill, &view);
        let about = match scenario::next(rules, group, drill, alarm.as_deref(), unix_now()) {
            Next::Wait => return,
            Next::Open { kind, plan } => return self.open_run(name, group, drill, kind, *plan).await,
            Next::Advance { to, why } => DrillChange::Advance { id, from, to, why },
            Next::Abort { reason } => DrillChange::Abort { id, reason },
            Next::Look => {
                let (findings, measured) = match timeout(LOOK_MAX, self.examiner.look(name, drill)).await {
                    Ok(found) => found,
                    Err(_) => (vec![unlooked(drill.phase)], Measured::default()),
                };
                DrillChange::Find { id, phase: drill.phase, findings, measured }
            }
            Next::Close { outcome, why } => DrillChange::Close { id, from, outcome, why },
        };
        self.propose(name, about).await;
    }

    /// Once its gates are open; until then they are looked at again and again. The log takes one run of each kind for a drill,
    /// decided on the token and epoch that were seen before the gates were: what changed meanwhile makes it stale.
    async fn open_run(&self, name: &GroupName, group: &GroupState, drill: &Drill, kind: RunKind, plan: Plan) {
        let matter = format!("{} {kind}", drill.id);
        let asked = timeout(LOOK_MAX, self.examiner.gates(name, drill, kind, &plan)).await;
        let evidence = match asked.unwrap_or_else(|_| Err("the gates could not be looked at in time".to_owned())) {
            Ok(evidence) => evidence,
            Err(shut) => {
                if self.coordinator.news.is_news(&matter, &shut) {
                    tracing::warn!(group = %name, drill = %drill.id, %kind, "a drill's run waits: {shut}");
                }
                return;
            }
        };
        let now = unix_now();
        let change = Change::OpenRun {
            run: RunId(unique_id(now)),
            group: name.clone(),
            kind,
            drill: true,
            plan,
            digest: self.coordinator.policy.digest.clone(),
            expected_token: group.token,
            expected_serving_epoch: group.serving.epoch,
            cause: Cause {
                by: drill.by.clone(),
                automatic: false,
                reason: format!("{} drill {}", drill.kind.word(), drill.id),
                evidence,
                fault_at: None,
                expected_loss_ms: Some(0),
            },
            loss_acceptance: None,
            fence_assertion: None,
        };
        self.coordinator.propose(change).await;
    }

    async fn propose(&self, group: &GroupName, about: DrillChange) {
        self.coordinator.propose(Change::Drill { group: group.clone(), about }).await;
    }
}

/// What a schedule asks of the log now. Asked only by a leader whose clock agrees with a majority's.
pub fn change_due(
    rules: &GroupPolicy,
    group: &GroupState,
    plan: &DrillPlan,
    now: UnixMs,
    next_after: impl Fn(UnixMs) -> Option<UnixMs>,
) -> Option<DrillChange> {
    let schedule = plan.name.clone();
    let known = group.drills.known.get(&plan.name).filter(|known| known.rule == plan.rule());
    let dues = known.map(|known| Dues::between(known.after, now, plan.late_max_ms, next_after)).unwrap_or_default();
    Some(match fire(plan, rules, group, &dues) {
        Fire::Wait => return None,
        Fire::Know => DrillChange::Know { schedule, rule: plan.rule(), after: now },
        Fire::Announce { due_at } if !is_near(plan, due_at, now) => return None,
        Fire::Announce { due_at } => {
            let when = calendar::stamp(due_at, &plan.settings.zone);
            DrillChange::Announce { schedule, due_at, kind: plan.kind, when }
        }
        Fire::Skip { due_at, missed, reason } => DrillChange::Skip { schedule, due_at, missed, reason },
        Fire::Open { due_at } => DrillChange::Open(DrillOpening {
            id: DrillId(unique_id(now)),
            kind: plan.kind,
            schedule: Some(schedule),
            due_at,
            to: away_from(rules, group)?,
            settings: plan.settings.clone(),
            reason: format!("schedule {}", plan.name),
        }),
    })
}

/// Where a drill of the group moves to: the first region that a plan leads to.
pub fn away_from(rules: &GroupPolicy, group: &GroupState) -> Option<RegionName> {
    let here = &group.serving.last;
    rules.failover_plans.iter().find(|plan| &plan.from == here).map(|plan| plan.to.clone())
}

fn unlooked(phase: DrillPhase) -> Finding {
    let detail = format!("nothing was found within {} s", LOOK_MAX.as_secs());
    Finding { phase, what: "look".to_owned(), found: Found::Unknown, detail }
}
