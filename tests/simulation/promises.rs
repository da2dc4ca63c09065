//! What is promised (README), checked from outside: against the committed log, the resources as they are, and what every
//! node knows. A broken promise is named, and ends the schedule.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use watchdog::domain::attempt::{Outcome, Warrant};
use watchdog::domain::command::{Applied, Change, Command, FenceProof};
use watchdog::domain::ids::{NodeId, RunId, StepId, Token};
use watchdog::domain::invariants::{violations, violations_between};
use watchdog::domain::observation::{Report, Verdict};
use watchdog::domain::plan::{Action, REDIS_FENCE};
use watchdog::domain::policy::{ClusterPolicy, Fencing};
use watchdog::domain::run::{Run, RunKind, RunOutcome, StepPhase};
use watchdog::domain::state::{ClusterState, GroupState};
use watchdog::guard::protocol::{FENCE, InFlight, PROMOTE, REJOIN, RELEASE};

use crate::site;
use crate::world::{MS, SECOND, World, of_unix};

/// The reference's states of so many entries back are kept, to compare nodes that lag with.
const STATES_KEPT: usize = 400;

/// A `down` of the serving region's trigger that a node reported: when, and since when it said so.
#[derive(Debug, Clone, Copy)]
struct Down {
    reported: u64,
    since: u64,
}

/// What is known from outside.
pub struct Promises {
    policy: Arc<ClusterPolicy>,
    pub broken: Vec<(u64, String)>,
    /// What applying the committed commands gives.
    pub reference: Arc<ClusterState>,
    states: VecDeque<Arc<ClusterState>>,
    /// P1: runs that moved the right to write, by the serving epoch they were opened in.
    completed: BTreeMap<u64, RunId>,
    last_completed: Option<u64>,
    /// When a planned move last gave the writing back that it had stopped.
    turned_back: Option<u64>,
    /// P1: the open run.
    open: Option<RunId>,
    /// P3: the last token that was issued.
    issued: Token,
    /// P9: paused, as the log has it, and until when by true time.
    paused: Option<Option<u64>>,
    /// When each attempt's start was committed: P8.
    started: BTreeMap<(RunId, StepId, u32), u64>,
    /// Promotions that ended, by run: P6.
    promoted: BTreeMap<RunId, u32>,
    /// Runs whose operator said that the old primary is silent, or who need no proof.
    pub asserted: BTreeSet<RunId>,
    /// Some run's operator went on without the fence of Redis.
    pub redis_fence_skipped: bool,
    /// Runs whose operator took the loss.
    accepted: BTreeSet<RunId>,
    downs: BTreeMap<(NodeId, String), VecDeque<Down>>,
    /// How wrong each node's wall clock is: true times are told from what they wrote.
    pub wall_ms: BTreeMap<u64, i64>,
    /// Commands so far, for figures.
    pub commands: u64,
    pub runs_opened: u64,
}

impl Promises {
    pub fn new(policy: Arc<ClusterPolicy>) -> Self {
        Self {
            policy,
            broken: Vec::new(),
            reference: Arc::default(),
            states: VecDeque::new(),
            completed: BTreeMap::new(),
            last_completed: None,
            turned_back: None,
            open: None,
            issued: Token::default(),
            paused: None,
            started: BTreeMap::new(),
            promoted: BTreeMap::new(),
            asserted: BTreeSet::new(),
            redis_fence_skipped: false,
            accepted: BTreeSet::new(),
            downs: BTreeMap::new(),
            wall_ms: BTreeMap::new(),
            commands: 0,
            runs_opened: 0,
        }
    }

    pub fn group(&self) -> Option<&GroupState> {
        self.reference.group(&site::group())
    }

    fn true_time(&self, command: &Command) -> u64 {
        of_unix(command.at, self.wall_ms.get(&command.node.0).copied().unwrap_or(0))
    }
}

/// A node's newest report, as it made it.
pub fn reported(world: &mut World, report: &Report) {
    let now = world.now();
    for seen in &report.observations {
        if seen.verdict == Verdict::Down && !report.isolated {
            let downs = world.promises.downs.entry((report.node, seen.target.0.clone())).or_default();
            downs.push_back(Down { reported: now, since: now.saturating_sub(seen.held_ms * MS) });
            while downs.len() > 200 {
                downs.pop_front();
            }
        }
    }
}

/// The next committed command, in the log's order.
pub fn committed(world: &mut World, index: u64, command: &Command) {
    let before = world.promises.reference.clone();
    let mut after = (*before).clone();
    let applied = after.apply(index, command);
    world.promises.commands += 1;
    for wrong in violations(&after).into_iter().chain(violations_between(&before, &after)) {
        world.broken("invariants", wrong);
    }
    if let Some(missing) = not_in_audit(&after, index, command, &applied) {
        world.broken("P10", missing);
    }
    world.note(format!("log {index}: {}", in_words(command, &applied)));
    crate::recoveries::changes(world, &before, &after);
    world.promises.reference = Arc::new(after);
    let latest = world.promises.reference.clone();
    world.promises.states.push_back(latest);
    if world.promises.states.len() > STATES_KEPT {
        world.promises.states.pop_front();
    }
    if matches!(applied, Applied::Done { .. }) {
        judge(world, command, &applied, &before);
    }
}

/// P10: who decided or ordered what, when, why, and what came of it.
fn not_in_audit(after: &ClusterState, index: u64, command: &Command, applied: &Applied) -> Option<String> {
    let what = command.change.name();
    if matches!(command.change, Change::MarkSeenUp { .. } | Change::Told { .. }) {
        return None;
    }
    let line = after.audit.back().filter(|line| line.index == index);
    let Some(line) = line else { return Some(format!("{what} by {} is not in the audit", command.by)) };
    let is_whose = line.by == command.by && line.node == command.node && line.at == command.at;
    let is_refused = matches!(applied, Applied::Rejected(_));
    let is_order = command.by.0.starts_with("operator:");
    let is_whole = is_whose && line.outcome.starts_with("rejected") == is_refused && !line.what.is_empty();
    (!is_whole || is_order && line.reason.is_empty())
        .then(|| format!("{what} by {}: the audit has {line:?}", command.by))
}

fn in_words(command: &Command, applied: &Applied) -> String {
    let what = match &command.change {
        Change::StepStarted { step, token, attempt, .. } => format!("StepStarted {step} {token} #{attempt}"),
        Change::StepFinished { step, token, attempt, outcome, .. } => {
            format!("StepFinished {step} {token} #{attempt} {outcome:?}")
        }
        Change::MarkStuck { step, reason, .. } => format!("MarkStuck {step}: {reason}"),
        Change::TurnBack { reason, .. } => format!("TurnBack {reason}"),
        Change::CloseRun { outcome, reason, .. } => format!("CloseRun {outcome} {reason}"),
        Change::Order { order, .. } => format!("Order {order:?}"),
        Change::Pause { until, .. } => format!("Pause until {until:?}"),
        Change::Resume { expired, .. } => format!("Resume expired {expired:?}"),
        Change::Tell { page } => format!("Tell {}", page.key),
        Change::Told { seq, .. } => format!("Told {seq}"),
        Change::OpenRun { cause, kind, .. } => format!("OpenRun {kind}: {}", cause.reason),
        other => other.name().to_owned(),
    };
    let outcome = match applied {
        Applied::Done { token: Some(token), .. } => format!("done, token {token}"),
        Applied::Rejected(rejection) => format!("rejected: {}", rejection.message),
        _ => "done".to_owned(),
    };
    format!("{what} by {} -> {outcome}", command.by)
}

/// What the log may and may not take.
fn judge(world: &mut World, command: &Command, applied: &Applied, before: &ClusterState) {
    let promises = &mut world.promises;
    match &command.change {
        Change::OpenRun { .. } => judge_opening(world, command, before),
        Change::ClaimRun { .. } => {
            if let Applied::Done { token: Some(token), .. } = applied {
                let last = std::mem::replace(&mut promises.issued, *token);
                if *token <= last {
                    world.broken("P3", format!("token {token} was issued after {last}"));
                }
            }
        }
        Change::StepStarted { .. } => judge_start(world, command, before),
        Change::StepFinished { run, step, outcome: Outcome::Failed { .. }, .. } => judge_failure(world, run, step),
        Change::CloseRun { run, outcome, settled, .. } => {
            promises.open = None;
            settled.keys().for_each(|resource| crate::moves::is_settled(world, resource, run));
            judge_closing(world, run, *outcome, before);
            if let Some(run) = open_run(before) {
                crate::redis::closes(world, run, *outcome);
                crate::recoveries::closes(world, run, *outcome);
            }
        }
        Change::Settle { resource, .. } => {
            let left = before.group(&site::group()).and_then(|group| group.unsettled.get(resource));
            if let Some(left) = left {
                crate::moves::is_settled(world, resource, &left.run);
            }
        }
        Change::MarkStuck { token, .. } | Change::Unstick { token, .. } if *token != promises.issued => {
            let newest = promises.issued;
            world.broken(
                "P3",
                format!("{} under {token} was taken, the newest token is {newest}", command.change.name()),
            );
        }
        Change::MarkStuck { step, .. } => {
            if let Some(run) = open_run(before) {
                crate::redis::calls(world, run, step);
            }
        }
        Change::Pause { until, .. } => {
            let wrong = promises.wall_ms.get(&command.node.0).copied().unwrap_or(0);
            promises.paused = Some(until.map(|until| of_unix(until, wrong)));
        }
        Change::Resume { expired, .. } => {
            let was = promises.paused.take().flatten();
            let now = world.now();
            if let (Some(_), Some(until)) = (expired, was)
                && now + 6 * SECOND < until
            {
                world.broken("P9", format!("a pause expired {} ms early", (until - now) / MS));
            }
        }
        Change::Order { run, order, .. } => {
            use watchdog::domain::command::RunOrder;
            match order {
                RunOrder::Skip { step } if step.as_str() == REDIS_FENCE => promises.redis_fence_skipped = true,
                RunOrder::AssertFence { .. } => drop(promises.asserted.insert(run.clone())),
                RunOrder::AcceptLoss => drop(promises.accepted.insert(run.clone())),
                _ => {}
            }
        }
        _ => {}
    }
}

/// P6: nothing is called failed that is there.
fn judge_failure(world: &mut World, run: &RunId, step: &StepId) {
    let there = |host: &crate::host::Host| {
        let is_sticky = matches!(step.as_str(), "fence" | "promote") || crate::redis::is_there(host, step);
        let mut ledger = host.ledger.iter().filter(|line| &line.run == run && &line.step == step);
        is_sticky && ledger.any(|line| line.event == "done")
    };
    let found = world.hosts.iter().find(|host| there(host) && !host.is_unlatched);
    if let Some(host) = found {
        let text = format!("{step} is called failed, but its effect is there at {}", host.name);
        world.broken("P6", text);
    }
}

fn open_run(state: &ClusterState) -> Option<&Run> {
    state.group(&site::group())?.open_run.as_ref()
}

/// P1: no two runs move the right to write out of one serving epoch, whoever opened them.
fn judge_closing(world: &mut World, run: &RunId, outcome: RunOutcome, before: &ClusterState) {
    if outcome == RunOutcome::Reverted {
        world.promises.turned_back = Some(world.now());
        crate::moves::has_turned_back(world, before);
    }
    if outcome != RunOutcome::Succeeded {
        return;
    }
    let closed = before.group(&site::group()).and_then(|group| group.open_run.as_ref());
    let Some(closed) = closed.filter(|closed| closed.moves_serving()) else { return };
    let epoch = closed.serving_epoch;
    let now = world.now();
    if closed.cause.automatic {
        world.promises.last_completed = Some(now);
    }
    if let Some(earlier) = world.promises.completed.insert(epoch, run.clone()) {
        world.broken("P1", format!("{earlier} and {run} both completed in serving epoch {epoch}"));
    }
}

fn judge_opening(world: &mut World, command: &Command, before: &ClusterState) {
    let Change::OpenRun { run, kind, cause, fence_assertion, loss_acceptance, .. } = &command.change else { return };
    let promises = &mut world.promises;
    promises.runs_opened += 1;
    let policy = promises.policy.clone();
    let Some(rules) = policy.groups.get(&site::group()) else { return };
    let Some(group) = before.group(&site::group()) else { return };
    let is_standing = matches!(group.fencing, Fencing::None { .. }) && !kind.is_planned();
    if fence_assertion.is_some() || is_standing {
        promises.asserted.insert(run.clone());
    }
    if loss_acceptance.is_some() {
        promises.accepted.insert(run.clone());
    }
    if let Some(open) = promises.open.replace(run.clone()) {
        world.broken("P1", format!("{run} was opened while {open} was open"));
    }
    if world.promises.paused.is_some() {
        world.broken("P9", format!("{run} was opened while paused"));
    }
    if !cause.automatic || *kind != RunKind::Failover {
        return;
    }
    let decided = world.promises.true_time(command);
    let here = &group.serving.last;
    let trigger = format!("{here}-db");
    let since = |downs: &VecDeque<Down>| {
        // Evidence is what had been reported by then, and not too long before.
        let fresh = |down: &&Down| {
            down.reported <= decided + SECOND && down.reported + rules.observation_ttl_ms * MS + SECOND >= decided
        };
        downs.iter().filter(fresh).map(|down| down.since).min()
    };
    let mut votes = 0;
    let mut outside = false;
    let hold_down = rules.hold_down_ms * MS;
    for (node, member) in &policy.members {
        let downs = world.promises.downs.get(&(*node, trigger.clone()));
        let Some(since) = downs.and_then(since) else { continue };
        // A clock may be wrong by some parts in a thousand.
        if since + hold_down - hold_down / 50 <= decided + 50 * MS {
            votes += 1;
            outside |= &member.region != here;
        }
    }
    if let Some(back) = world.promises.turned_back
        && decided < back + hold_down
    {
        let after_ms = decided.saturating_sub(back) / MS;
        world.broken("P8", format!("{run} was opened {after_ms} ms after a planned move gave the writing back"));
    }
    let needed = policy.members.len() / 2 + 1;
    if votes < needed || !outside {
        let how = if outside { "" } else { ", none outside" };
        let text = format!("{run} was opened with {votes} of {needed} votes that had lasted{how}");
        world.broken("P8 votes and hold-down", text);
    }
    if let Some(last) = world.promises.last_completed
        && decided + 6 * SECOND < last + rules.cooldown_ms * MS
    {
        let text = format!("{run} was opened {} ms after the last failover", decided.saturating_sub(last) / MS);
        world.broken("P1 cooldown", text);
    }
}

fn judge_start(world: &mut World, command: &Command, before: &ClusterState) {
    let Change::StepStarted { run: id, step, attempt, token, fence_proof, expected_loss_ms, loss_limit_ms, .. } =
        &command.change
    else {
        return;
    };
    let now = world.now();
    world.promises.started.insert((id.clone(), step.clone(), *attempt), now);
    if world.promises.paused.is_some() {
        world.broken("P9", format!("{step} was started while paused"));
    }
    if *token != world.promises.issued {
        let newest = world.promises.issued;
        world.broken("P3", format!("{step} was started under {token}, the newest token is {newest}"));
    }
    let run = before.group(&site::group()).and_then(|group| group.open_run.as_ref());
    let Some(planned) = run.and_then(|run| run.plan.step(step)) else { return };
    let turned_back =
        run.is_some_and(|run| run.turned_back.is_some() && run.plan.steps().any(|(_, one)| &one.id == step));
    if turned_back {
        world.broken("P6", format!("{step} was started after the run had turned back"));
    }
    if !matches!(planned.action, Action::Promote { .. }) {
        return;
    }
    let is_proved = match fence_proof {
        Some(FenceProof::Guard { token: read, .. }) => read == token,
        Some(FenceProof::Asserted | FenceProof::Standing) => world.promises.asserted.contains(id),
        Some(FenceProof::LeaseExpired { token: read, .. }) => read == token && run.is_some_and(|run| run.lease_lapsed),
        None => false,
    };
    if !is_proved {
        world.broken("P4", format!("{step} was started with {fence_proof:?}"));
    }
    let is_small = matches!((expected_loss_ms, loss_limit_ms), (Some(loss), Some(limit)) if loss <= limit);
    let is_planned = run.is_some_and(|run| run.is_planned());
    if !is_small && !is_planned && !world.promises.accepted.contains(id) {
        world.broken("P5", format!("{step} was started with an expected loss of {expected_loss_ms:?} ms"));
    }
}

/// A node shows a state: it must be the one that the same commands give everywhere.
pub fn agrees(world: &mut World, node: u64, state: &ClusterState) {
    let index = state.applied_index;
    let same = world.promises.states.iter().rev().find(|known| known.applied_index == index).cloned();
    match same {
        Some(known) if *known == *state => {}
        Some(_) => world.broken("agreement", format!("node {node} has another state at {index}")),
        // Older than what is kept, or nothing applied yet.
        None => {}
    }
}

/// P2, as an attempt leaves its node: the intent is committed under this token, as this node knows it.
pub fn attempt_is_sent(world: &mut World, node: u64, warrant: &Warrant, action: &Action, state: &ClusterState) {
    let verb = action.verb();
    world.note(format!("node {node}: sends {verb} #{} under {}", warrant.attempt, warrant.token));
    let run = state.group(&warrant.group).and_then(|group| group.open_run.as_ref());
    let record = run.filter(|run| run.id == warrant.run).and_then(|run| run.record(&warrant.step));
    let is_committed = record.is_some_and(|record| {
        record.attempts == warrant.attempt
            && record.token == Some(warrant.token)
            && matches!(record.phase, StepPhase::Started | StepPhase::Skipped)
    });
    // Whose silence was proof is fenced for good: that intent is the log's since it took the proof.
    let left = state.group(&warrant.group).map(|group| group.unsettled.values().any(|left| left.is_due));
    if left == Some(true) && warrant.step.as_str() == FOR_GOOD {
        return;
    }
    // A look that changes nothing is repeated right before a planned promotion, under an attempt that is over.
    if matches!(action, Action::CatchUp { .. }) {
        return;
    }
    let is_overtaken = run.is_none_or(|run| run.id != warrant.run || run.token() > Some(warrant.token));
    if !is_committed && !is_overtaken {
        world.broken("P2", format!("node {node} acts on {verb} #{} without a committed StepStarted", warrant.attempt));
    }
}

/// P2: a token that is raised was issued.
pub fn raise_is_sent(world: &mut World, node: u64, warrant: &Warrant, state: &ClusterState) {
    let last = state.group(&warrant.group).map_or(Token::default(), |group| group.token);
    if warrant.token > last || warrant.token.n == 0 {
        world.broken("P2", format!("node {node} raises {}, but {last} is the last it saw issued", warrant.token));
    }
}

/// P8: the intent to start a step is proposed only after a quorum round of its own, begun in this leadership.
pub fn start_is_proposed(world: &mut World, node: u64, rounds: u64, starts: u64) {
    if rounds <= starts {
        let text = format!("node {node} proposes its start no. {} after {rounds} quorum rounds", starts + 1);
        world.broken("P8", text);
    }
}

/// The step by which a host is fenced whose silence was proof enough.
const FOR_GOOD: &str = "fence-for-good";

/// An effect begins at a host.
pub fn effect_begins(world: &mut World, at: usize, what: &InFlight) {
    let (name, highest) = (world.hosts[at].name.clone(), world.hosts[at].highest);
    if what.token < highest {
        world.broken("P3", format!("{name}: {} begins under {}, {highest} was raised", what.action, what.token));
    }
    let group = world.promises.group();
    let run = group.and_then(|group| group.open_run.as_ref().filter(|run| run.id == what.run));
    let started = run.and_then(|run| run.record(&what.step)).is_some_and(|record| record.attempts >= what.attempt);
    let lapsed = run.filter(|run| run.lease_lapsed).is_some();
    let is_due = group.is_some_and(|group| group.unsettled.values().any(|left| left.is_due));
    let started = started || (lapsed || is_due) && what.step.as_str() == FOR_GOOD;
    let known = group.is_some_and(|group| group.history.iter().any(|run| run.id == what.run));
    if !started && !known {
        world.broken("P2", format!("{name}: {} #{} begins, but was never committed", what.action, what.attempt));
    }
    // An attempt never outlives its quorum check by more than its deadline: a leader that slept is late everywhere.
    let start = world.promises.started.get(&(what.run.clone(), what.step.clone(), what.attempt)).copied();
    // The deadline is told in the host's own time, as of an answer of at most a minute ago.
    let drift = 60 * SECOND / 1_000_000 * world.hosts[at].fast_ppm.min(0).unsigned_abs();
    let allowed = run_deadline(&world.promises, &what.run, &what.step).saturating_add(SECOND + drift);
    let now = world.now();
    if let Some(late) = start.map(|start| now - start).filter(|late| *late > allowed) {
        world.broken("P8", format!("{name}: {} begins {} ms after its start was committed", what.action, late / MS));
    }
    if what.action == PROMOTE {
        let old = &world.hosts[1 - at];
        let is_mute = lapsed && !(old.takes_writes() && old.lets_out(now));
        let is_silent = is_mute || !old.takes_writes() && old.latch.is_some() || old.is_unlatched;
        let is_seen = lapsed || old.fence_seen == Some(what.token);
        if !is_seen && !world.promises.asserted.contains(&what.run) {
            let text =
                format!("{name} is promoted under {}, the fence was last seen under {:?}", what.token, old.fence_seen);
            return world.broken("P4", text);
        }
        if !is_silent && !world.promises.asserted.contains(&what.run) {
            let text =
                format!("{name} is promoted while {} is {:?}, latch {:?}", old.name, old.role(), old.latch.is_some());
            world.broken("P4", text);
        }
        judge_loss(world, at, what);
    }
    crate::moves::effect_begins(world, at, what);
    let host = &world.hosts[at];
    let is_done = |line: &crate::host::Line| line.run == what.run && line.step == what.step && line.event == "done";
    let is_services =
        ![FENCE, PROMOTE, RELEASE, REJOIN].contains(&what.action.as_str()) && !what.action.starts_with("redis-");
    if is_services && host.services && host.ledger.iter().any(is_done) {
        world.broken("P6", format!("{name}: {} begins again though it was done and holds", what.action));
    }
}

fn run_deadline(promises: &Promises, run: &RunId, step: &StepId) -> u64 {
    let group = promises.group();
    let open = group.and_then(|group| group.open_run.as_ref()).filter(|open| &open.id == run);
    open.and_then(|open| open.plan.step(step)).map_or(u64::MAX, |step| step.deadline_ms * MS)
}

/// P5 against the truth: what the standby lacks of what the old primary took.
fn judge_loss(world: &mut World, at: usize, what: &InFlight) {
    let group = world.promises.group();
    let run = group.and_then(|group| group.open_run.as_ref()).filter(|run| run.id == what.run);
    if run.is_none_or(|run| run.kind != RunKind::Failover || !run.cause.automatic)
        || world.promises.accepted.contains(&what.run)
    {
        return;
    }
    let limit_ms = world.promises.policy.groups.get(&site::group()).map_or(0, |rules| rules.rpo_limit_ms);
    let lost_ms = world.hosts[1 - at].database.lsn.saturating_sub(world.hosts[at].database.lsn);
    if lost_ms > limit_ms + limit_ms / 50 {
        world.broken("P5", format!("a promotion loses {lost_ms} ms of writes, the limit is {limit_ms} ms"));
    }
}

/// An effect has come to its end at a host.
pub fn effect_ends(world: &mut World, at: usize, what: &InFlight, took_effect: bool) {
    if what.action != PROMOTE || !took_effect {
        return;
    }
    let count = world.promises.promoted.entry(what.run.clone()).or_default();
    *count += 1;
    if *count > 1 {
        let text = format!("{} was promoted {count} times in one run", world.hosts[at].name);
        world.broken("P6", text);
    }
}

/// The zone takes a change.
pub fn zone_changes(world: &mut World, token: Token, run: &RunId, value: Option<&str>) {
    let highest = world.zone.highest;
    if token < highest {
        world.broken("P3", format!("the zone takes a change under {token}, {highest} was raised"));
    }
    let again = world.zone.changes.iter().filter(|(of, to)| *of == run.0 && Some(to.as_str()) == value).count();
    if value.is_some_and(|value| value != world.zone.value) && again > 0 {
        world.broken("P6", format!("the name was moved again by {run}"));
    }
}

/// What is true at every moment, whoever did what.
pub fn always(world: &mut World) {
    let writing: Vec<String> =
        world.hosts.iter().filter(|host| host.takes_writes()).map(|host| host.name.clone()).collect();
    // What people start by hand, beside what they were told, is theirs to answer for.
    let by_hand = world.hosts.iter().any(|host| host.is_unlatched) || !world.promises.asserted.is_empty();
    // In mode `lease` one of them may be silent all the same.
    let is_lease = world.hosts.iter().any(|host| host.lease.is_some());
    crate::leases::always(world);
    crate::redis::always(world);
    if writing.len() > 1 && !by_hand && !is_lease {
        world.broken("P4", format!("{} take writes side by side", writing.join(" and ")));
    }
}
