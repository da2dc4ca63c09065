//! Liveness: once nothing goes wrong any more, the system comes to rest: its run closed, or stuck for a reason that is
//! true; the same state on every node; every page delivered.

use std::collections::BTreeMap;

use watchdog::domain::decide::Standing;
use watchdog::domain::ids::{RunId, StepId};
use watchdog::domain::page::Delivery;
use watchdog::domain::plan::{REDIS_FENCE, REDIS_PROMOTE};
use watchdog::domain::run::{Run, RunKind, RunOutcome, RunPhase};
use watchdog::domain::state::GroupState;
use watchdog::guard::protocol::PostgresRole;

use crate::drive::Simulation;
use crate::faults::{is_silent, leader, operate};
use crate::node::Handles;
use crate::schedule::Order;
use crate::site;
use crate::world::{SECOND, Shared};

/// A person who is called looks after so long, microseconds.
const CALLED: u64 = 6 * SECOND;

/// What was seen last.
#[derive(Default)]
pub struct Watcher {
    leads: BTreeMap<u64, u64>,
    reports: BTreeMap<u64, (u64, u64)>,
    /// How it ended, in a word.
    pub state: String,
    /// A person was called to this step, and when.
    called: Option<(StepId, u64)>,
    acted_at: u64,
    /// They had a step of this run tried again.
    retried: Option<RunId>,
}

impl Watcher {
    pub fn is_new_report(
        &mut self,
        node: u64,
        reports: &tokio::sync::watch::Receiver<std::sync::Arc<watchdog::domain::observation::Report>>,
    ) -> bool {
        let report = reports.borrow();
        let face = (report.incarnation.0, report.seq);
        self.reports.insert(node, face) != Some(face)
    }

    /// Notes every change of leadership.
    pub fn see_leadership(&mut self, shared: &Shared, node: u64, handles: &Handles) {
        let now = handles.consensus.leadership().borrow().clone();
        let term = if now.is_self { now.term } else { 0 };
        if self.leads.insert(node, term).unwrap_or(0) != term {
            let text = if term > 0 { format!("leads in term {term}") } else { "leads no more".to_owned() };
            shared.lock().note(format!("node {node}: {text}"));
        }
    }
}

/// Why the system is not at rest; `None` where it is.
pub fn look(simulation: &mut Simulation) -> Option<String> {
    let reference = simulation.kit.shared.lock().promises.reference.clone();
    let Some(group) = reference.group(&site::group()) else { return Some("no configuration is in force".to_owned()) };
    let Some(leads) = leader(simulation) else { return Some("nobody leads".to_owned()) };
    if group.pause.is_some() {
        act(simulation, Order::Resume);
        return Some("paused".to_owned());
    }
    let applied = |machine: &crate::node::Machine| {
        machine.handles().map(|handles| handles.consensus.state().borrow().applied_index)
    };
    let indexes: Vec<Option<u64>> = simulation.machines.iter().map(applied).collect();
    if indexes.iter().any(|index| *index != Some(reference.applied_index)) {
        return Some(format!("not all nodes have applied the same: {indexes:?}"));
    }
    let pending = |entry: &&watchdog::domain::page::OutboxEntry| {
        entry.deliveries.values().any(|delivery| *delivery == Delivery::Pending)
    };
    if let Some(page) = reference.outbox.iter().find(pending) {
        return Some(format!("page {} is not delivered", page.seq));
    }
    match &group.open_run {
        Some(run) => look_at_run(simulation, run),
        None => look_at_rest(simulation, group, leads),
    }
}

/// A person does something now and then, not at every look.
fn act(simulation: &mut Simulation, order: Order) {
    if simulation.now >= simulation.rest.acted_at + 2 * SECOND {
        simulation.rest.acted_at = simulation.now;
        operate(simulation, order);
    }
}

fn look_at_run(simulation: &mut Simulation, run: &Run) -> Option<String> {
    let RunPhase::Stuck { step, reason, .. } = &run.phase else {
        simulation.rest.called = None;
        return Some(format!("run {} is {}", run.id, run.phase.word()));
    };
    let now = simulation.now;
    let since = match &simulation.rest.called {
        Some((at, since)) if at == step => *since,
        _ => now,
    };
    simulation.rest.called = Some((step.clone(), since));
    if now < since + CALLED {
        return Some(format!("stuck at {step}, and nobody has come yet: {reason}"));
    }
    if reason.starts_with("no standby") {
        // True where the host that is to be promoted has none.
        let world = simulation.kit.shared.lock();
        let stands = |host: &crate::host::Host| {
            host.region == run.to().as_str()
                && host.on
                && host.role() == PostgresRole::InRecovery
                && host.latch.is_none()
        };
        if !world.hosts.iter().any(stands) {
            drop(world);
            simulation.rest.state = "stuck for want of a standby".to_owned();
            return None;
        }
    }
    if run.is_planned() && is_lost(simulation, run.from().as_str()) {
        // Whose host is gone for good cannot be given anything back: what then comes is a failover's business.
        act(simulation, Order::Abort);
        return Some(format!("a person gives the planned move up: {reason}"));
    }
    let is_unfenced = {
        let world = simulation.kit.shared.lock();
        world.hosts.iter().any(|host| host.region == run.from().as_str() && host.is_unlatched && host.latch.is_none())
    };
    if step.as_str() == "promote" && is_unfenced {
        simulation.rest.state = "stuck since people took the fence away".to_owned();
        return None;
    }
    if step.as_str() == "fence" && !run.is_planned() {
        if is_silent(simulation, run.from().as_str()) {
            if simulation.kit.shared.lock().seed.is_multiple_of(2) {
                act(simulation, Order::AssertFence);
                return Some("a person asserts the fence".to_owned());
            }
            simulation.rest.state = "stuck for want of a fence proof".to_owned();
            return None;
        }
        return Some(format!("stuck at the fence though the old primary's host answers: {reason}"));
    }
    if matches!(step.as_str(), REDIS_FENCE | REDIS_PROMOTE) && is_lost(simulation, run.from().as_str()) {
        if simulation.kit.shared.lock().seed.is_multiple_of(2) {
            act(simulation, Order::Skip);
            return Some(format!("a person goes on without {step}"));
        }
        simulation.rest.state = "stuck for want of Redis' fence".to_owned();
        return None;
    }
    if step.as_str() == "promote" && reason.contains("lose") {
        simulation.rest.state = "stuck for what promoting would lose".to_owned();
        return None;
    }
    try_again(simulation, run, now > since + 4 * CALLED);
    Some(format!("a person tries {step} again: {reason}"))
}

/// A recovery that tells them twice what is wrong is ordered again another day.
fn try_again(simulation: &mut Simulation, run: &Run, is_enough: bool) {
    let was_retried = run.kind == RunKind::Recovery && simulation.rest.retried.as_ref() == Some(&run.id);
    act(simulation, if was_retried || is_enough { Order::Abort } else { Order::Retry });
    simulation.rest.retried = Some(run.id.clone());
}

/// Its host is without power.
fn is_lost(simulation: &Simulation, region: &str) -> bool {
    let world = simulation.kit.shared.lock();
    world.hosts.iter().any(|host| host.region == region && !host.on)
}

/// The last run turned back, its old primary runs, and its clients hear nothing.
fn is_kept_silent(simulation: &Simulation, group: &GroupState) -> bool {
    let Some(last) = group.history.back() else { return false };
    let is_reverted = matches!(last.phase, RunPhase::Closed { outcome: RunOutcome::Reverted, .. });
    let world = simulation.kit.shared.lock();
    let runs = |host: &crate::host::Host| host.region == last.from().as_str() && host.takes_writes();
    is_reverted && world.hosts.iter().any(runs)
}

fn look_at_rest(simulation: &mut Simulation, group: &GroupState, leads: usize) -> Option<String> {
    if !group.unsettled.is_empty() {
        let reachable = {
            let world = simulation.kit.shared.lock();
            group
                .unsettled
                .keys()
                .any(|resource| world.hosts.iter().all(|host| resource.0 != format!("host:{}", host.name) || host.on))
        };
        if reachable {
            return Some(format!("unsettled: {:?}", group.unsettled.keys()));
        }
    }
    let serving = group.serving.last.clone();
    let serves = {
        let world = simulation.kit.shared.lock();
        world.hosts.iter().any(|host| host.region == serving.as_str() && host.acknowledges(world.at))
    };
    if serves {
        simulation.rest.state = format!("{serving} serves");
        return None;
    }
    if is_kept_silent(simulation, group) {
        return Some(format!("{serving} was given back the right to write, and answers nobody"));
    }
    let handles = simulation.machines[leads].handles()?;
    let looks = handles.looks.borrow().clone();
    let Some(explanation) = looks.explain.get(&site::group()) else { return Some("no look yet".to_owned()) };
    match explanation.standing {
        Standing::Blocked => {
            simulation.rest.state = format!("{serving} is down, blocked: {}", cut(&explanation.lines.join("; ")));
            None
        }
        _ => Some(format!("{serving} does not serve, yet: {:?} {:?}", explanation.standing, explanation.lines)),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

/// What must be true when all is over.
pub fn at_the_end(simulation: &mut Simulation) {
    let mut world = simulation.kit.shared.lock();
    let reference = world.promises.reference.clone();
    // P11: what was told went out, at least once.
    let missing: Vec<u64> = reference
        .outbox
        .iter()
        .filter(|entry| entry.deliveries.values().all(|delivery| matches!(delivery, Delivery::Delivered { .. })))
        .map(|entry| entry.seq)
        .filter(|seq| !world.pager.taken.contains_key(seq))
        .collect();
    if !missing.is_empty() {
        world.broken("P11", format!("pages {missing:?} count as delivered and never came"));
    }
}
