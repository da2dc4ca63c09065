//! Deciding (design section 8): from the replicated state, the rules and what is seen, what the leader should propose, and
//! for each group why it does not open a run. Pure: the same code in production, tests and simulation.

use std::collections::BTreeMap;

use super::alarms;
use super::command::{GroupSpec, IncidentRef};
use super::ids::{GroupName, RegionName, RunId, TargetName, Token, UnixMs};
use super::incident::{self, Due, over};
use super::loss::{self, Loss};
use super::monitor::{self, MonitorDue};
use super::mutation::{Mutation, is_out};
use super::page::Page;
use super::plan::Plan;
use super::policy::{ClusterPolicy, GroupPolicy, LagAction, Need, Trigger};
use super::quorum::{Count, Vote, count};
use super::run::{Run, RunKind, RunOutcome, RunPhase};
use super::state::{ClusterState, GroupState};
use super::view::View;

/// A run that should be opened; the coordinator adds an id and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIntent {
    /// Whose.
    pub group: GroupName,
    /// What for.
    pub kind: RunKind,
    /// The resolved plan.
    pub plan: Plan,
    /// What the state was.
    pub expected_token: Token,
    /// What the state was.
    pub expected_serving_epoch: u64,
    /// In one line.
    pub reason: String,
    /// Votes and measurements.
    pub evidence: Vec<String>,
    /// How long ago the trigger's majority began to agree, milliseconds.
    pub fault_age_ms: u64,
    /// What it is expected to lose, milliseconds.
    pub expected_loss_ms: Option<u64>,
}

/// What the leader should do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A majority runs under this configuration: take it into force.
    AdoptConfig {
        /// What the state needs to know of each group.
        groups: BTreeMap<GroupName, GroupSpec>,
    },
    /// Targets seen up for the first time under the digest.
    MarkSeenUp {
        /// The group.
        group: GroupName,
        /// Which.
        targets: Vec<TargetName>,
    },
    /// Open a run.
    Open(OpenIntent),
    /// End a recovery that stands in the way of a failover.
    GiveWay {
        /// The group.
        group: GroupName,
        /// Its open run.
        run: RunId,
        /// The run's token as seen.
        expected_token: Option<Token>,
        /// What the failover would be opened for.
        reason: String,
    },
    /// A pause has run out.
    ExpirePause {
        /// The group.
        group: GroupName,
        /// Its `until`.
        until: UnixMs,
    },
    /// Open or end an alarm.
    Tell(Page),
    /// Something changed in the watch after a move.
    Monitor {
        /// The group.
        group: GroupName,
        /// What.
        due: MonitorDue,
    },
    /// Nobody acknowledged in time: tell the next.
    Escalate(Due),
    /// This incident told of something that is over, and has stood long enough.
    EndEvent {
        /// The group it concerns.
        group: Option<GroupName>,
        /// Which.
        page: IncidentRef,
    },
}

/// Why a group is at rest, or what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is wrong.
    Quiet,
    /// Something is down, but not enough, or not for long enough.
    Counting,
    /// It would open a run, were it not for what the lines say.
    Blocked,
    /// A run is open, or opens now.
    Running,
    /// This node may not decide: another configuration is in force.
    NotMine,
}

/// One group, explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// In a word.
    pub standing: Standing,
    /// In words, most important first.
    pub lines: Vec<String>,
    /// The votes on the serving region's trigger.
    pub count: Option<Count>,
    /// What moving now would lose.
    pub loss: Option<Loss>,
    /// Replication lag now, milliseconds.
    pub lag_ms: Option<u64>,
}

/// Everything decided in one look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// What to propose, in order.
    pub propose: Vec<Decision>,
    /// Each group, explained.
    pub explain: BTreeMap<GroupName, Explanation>,
}

/// Looks at everything once.
pub fn decide(state: &ClusterState, policy: &ClusterPolicy, view: &View, now: UnixMs) -> Decisions {
    let mut out = Decisions::default();
    let ours = state.digest.as_ref() == Some(&policy.digest);
    if !ours {
        let agreeing = view.fresh(REPORT_TTL_MS).filter(|(_, sight)| sight.report.digest == policy.digest).count();
        if agreeing >= view.majority() {
            let groups = specs(policy);
            match state.would_adopt(&policy.cluster, policy.epoch, &policy.digest, &groups) {
                Ok(()) => out.propose.push(Decision::AdoptConfig { groups }),
                // Nobody acts under the old configuration any more, and nobody may under the new: a person must hear of it.
                Err(why) => out.propose.extend(alarms::not_adopted(state, policy, &why).map(Decision::Tell)),
            }
        }
    }
    let mut wanted = alarms::of_cluster(state, policy, view, now);
    for (name, rules) in &policy.groups {
        let Some(group) = state.groups.get(name) else { continue };
        if !ours {
            let lines = vec!["this node runs under another configuration than the one in force".to_owned()];
            let explanation = Explanation { standing: Standing::NotMine, lines, count: None, loss: None, lag_ms: None };
            out.explain.insert(name.clone(), explanation);
            continue;
        }
        let explanation = decide_group(&mut out.propose, policy, name, rules, group, view, now);
        wanted.extend(alarms::of_group(policy, name, rules, group, view, &explanation));
        wanted.extend(alarms::not_ready(state, policy, name, rules, group, now));
        out.explain.insert(name.clone(), explanation);
    }
    // Whose ladder it is, the state says: also a node under another configuration tells the next while it leads.
    let due = incident::due(&state.on_call, state.incidents.values(), view.clock_agrees, now);
    out.propose.extend(due.map(Decision::Escalate));
    out.propose.extend(over(state.incidents.values(), view.clock_agrees, now).map(|incident| {
        let page = IncidentRef { key: incident.key().to_owned(), opened: incident.opened };
        Decision::EndEvent { group: incident.group().cloned(), page }
    }));
    if ours {
        out.propose.extend(alarms::changes(state, policy, wanted, view).into_iter().map(Decision::Tell));
    }
    out
}

/// Reports older than this say nothing about a node's configuration, milliseconds.
const REPORT_TTL_MS: u64 = 5000;

/// What the replicated state keeps of each group.
pub fn specs(policy: &ClusterPolicy) -> BTreeMap<GroupName, GroupSpec> {
    policy
        .groups
        .iter()
        .map(|(name, rules)| {
            let spec =
                GroupSpec { home: rules.home.clone(), regions: rules.regions.clone(), fencing: rules.fencing.clone() };
            (name.clone(), spec)
        })
        .collect()
}

/// What keeps an automatic failover to `to` from opening however lost the serving region were; the loss (P5) is not looked at.
pub fn standing_obstacle(
    policy: &ClusterPolicy,
    (name, rules): (&GroupName, &GroupPolicy),
    group: &GroupState,
    to: &RegionName,
    view: &View,
    now: UnixMs,
) -> Option<String> {
    let lag_ms = loss::lag_ms(name, rules, to, view);
    Look { policy, name, rules, group, view, now, count: None, to: Some(to.clone()), loss: None, lag_ms }.obstacle()
}

fn decide_group(
    propose: &mut Vec<Decision>,
    policy: &ClusterPolicy,
    name: &GroupName,
    rules: &GroupPolicy,
    group: &GroupState,
    view: &View,
    now: UnixMs,
) -> Explanation {
    propose.extend(newly_seen_up(policy, name, group, view));
    let monitor = monitor::due(policy, (name, rules), group, view, now);
    propose.extend(monitor.map(|due| Decision::Monitor { group: name.clone(), due }));
    if let Some(pause) = &group.pause
        && let Some(until) = pause.until
        && until <= now
        && view.clock_agrees
    {
        propose.push(Decision::ExpirePause { group: name.clone(), until });
    }
    let here = &group.serving.last;
    let found = rules.triggers.get(here).map(|trigger| count(policy, name, rules, trigger, here, &group.seen_up, view));
    let to = target_region(policy, name, rules, group, view);
    let loss =
        to.as_ref().filter(|to| rules.replication.contains_key(*to)).map(|to| loss::expected(name, rules, to, view));
    let lag_ms = to.as_ref().and_then(|to| loss::lag_ms(name, rules, to, view));
    let mut look = Look { policy, name, rules, group, view, now, count: found, to, loss, lag_ms };
    if let Some(run) = &group.open_run {
        let mut lines = vec![format!("run {} ({}) is {}", run.id, run.kind, run.phase.word())];
        if let Some(decision) = look.gives_way(run) {
            lines.push("it gives way to a failover".to_owned());
            propose.push(decision);
        }
        return look.explain(Standing::Running, lines);
    }
    let (standing, mut lines, intent) = look.failover();
    lines.extend(watched(group));
    if let Some(intent) = intent {
        propose.push(Decision::Open(intent));
        return look.explain(standing, lines);
    }
    // Short of a quorum on the region itself, its load balancer is judged on its own.
    let is_lost = look.count.as_ref().is_some_and(Count::is_down);
    if !is_lost
        && standing != Standing::Blocked
        && let Some((standing, traffic_lines, intent)) = look.traffic()
    {
        lines.splice(0..0, traffic_lines);
        propose.extend(intent.map(Decision::Open));
        return look.explain(standing, lines);
    }
    look.explain(standing, lines)
}

/// One look at one group.
struct Look<'a> {
    policy: &'a ClusterPolicy,
    name: &'a GroupName,
    rules: &'a GroupPolicy,
    group: &'a GroupState,
    view: &'a View,
    now: UnixMs,
    count: Option<Count>,
    to: Option<RegionName>,
    loss: Option<Loss>,
    lag_ms: Option<u64>,
}

impl Look<'_> {
    fn explain(&mut self, standing: Standing, lines: Vec<String>) -> Explanation {
        Explanation { standing, lines, count: self.count.take(), loss: self.loss.take(), lag_ms: self.lag_ms }
    }

    /// One run at a time (P1): a service's restart or a rejoin, stuck perhaps, is ended where nothing else keeps a failover from
    /// opening. Runs that move something are not: what they began must be brought to its end.
    fn gives_way(&self, run: &Run) -> Option<Decision> {
        if run.kind != RunKind::Recovery || !matches!(run.phase, RunPhase::Open | RunPhase::Stuck { .. }) {
            return None;
        }
        let (_, _, intent) = self.failover();
        let reason = format!("a failover goes before a recovery: {}", intent?.reason);
        Some(Decision::GiveWay { group: self.name.clone(), run: run.id.clone(), expected_token: run.token(), reason })
    }

    /// The failover's case: the trigger, or replication lag where the operators ask for that.
    fn failover(&self) -> (Standing, Vec<String>, Option<OpenIntent>) {
        let here = &self.group.serving.last;
        let Some(count) = &self.count else {
            return (Standing::Quiet, vec![format!("{here} has no trigger")], None);
        };
        let lagging = self.rules.lag_action == LagAction::Failover
            && self.lag_ms.is_some_and(|lag| lag > self.rules.lag_limit_ms.saturating_add(self.rules.hold_down_ms));
        if count.down == 0 && !lagging {
            return (Standing::Quiet, vec![format!("{here} serves; nobody sees it down")], None);
        }
        let tally = format!(
            "{} of {} voters see {here} down; need {}{}",
            count.down,
            count.ballots.len(),
            count.needed,
            if count.outside || count.down == 0 { "" } else { ", one of them outside it" },
        );
        if !count.is_down() && !lagging {
            let mut lines = vec![tally];
            if count.somebody_sees_it_up() {
                lines.push(format!("others still see {here} up: a cut link rather than a dead region"));
            }
            return (Standing::Counting, lines, None);
        }
        if !lagging && count.agreed_ms < self.rules.hold_down_ms && !is_out(Mutation::NoHoldDown) {
            let waited = count.agreed_ms as f64 / 1000.0;
            let hold_down = self.rules.hold_down_ms as f64 / 1000.0;
            return (Standing::Counting, vec![tally, format!("hold-down {waited:.1} s of {hold_down:.1} s")], None);
        }
        if let Some(line) = self.lease_comes_back().or_else(|| self.writing_comes_back()) {
            return (Standing::Counting, vec![tally, line], None);
        }
        let cause = if lagging { "replication lag is above its limit".to_owned() } else { tally };
        match self.obstacle() {
            Some(obstacle) => (Standing::Blocked, vec![obstacle, cause], None),
            None => self.open_failover(count, cause),
        }
    }

    /// A primary that is silent for want of a lease is no evidence: while nobody led, nobody renewed it. A new leader gives
    /// it one TTL to be renewed and another to be seen alive.
    fn lease_comes_back(&self) -> Option<String> {
        let lease = self.group.lease.as_ref().filter(|lease| lease.region == self.group.serving.last)?;
        let (watched_ms, needed_ms) = (self.view.watched_ms, lease.ttl_ms.saturating_mul(2));
        (watched_ms < needed_ms).then(|| {
            let seconds = |ms: u64| ms as f64 / 1000.0;
            let (watched, needed) = (seconds(watched_ms), seconds(needed_ms));
            format!("this leader has renewed the lease for {watched:.1} s of {needed:.1} s: its want is no evidence")
        })
    }

    /// A primary whose writing a planned move stopped is no evidence either: once that has turned back it is given the time to
    /// be seen alive, and then the whole hold-down.
    fn writing_comes_back(&self) -> Option<String> {
        let last = self.group.history.iter().rfind(|run| run.kind != RunKind::Recovery)?;
        let RunPhase::Closed { outcome: RunOutcome::Reverted, at } = &last.phase else { return None };
        // A moment that is still to come: whoever wrote it had a clock that was wrong. Ours tells how long this node watched.
        let since_ms = if *at > self.now { self.view.watched_ms } else { self.now.since(*at) };
        let needed_ms = self.rules.observation_ttl_ms.saturating_add(self.rules.hold_down_ms);
        (since_ms < needed_ms).then(|| {
            let seconds = |ms: u64| ms as f64 / 1000.0;
            let (since, needed) = (seconds(since_ms), seconds(needed_ms));
            format!("run {} had stopped the writing and turned back: its silence is no evidence for {needed:.1} s, {since:.1} s are over", last.id)
        })
    }

    fn open_failover(&self, count: &Count, cause: String) -> (Standing, Vec<String>, Option<OpenIntent>) {
        let here = &self.group.serving.last;
        let Some(plan) = self.to.as_ref().and_then(|to| self.rules.failover_plan(here, to)) else {
            return (Standing::Blocked, vec![format!("no living region to move to from {here}"), cause], None);
        };
        let link =
            if count.somebody_sees_it_up() { "link cut or partly dead" } else { "region dead as far as anyone sees" };
        let mut evidence = ballot_lines(count, self.policy);
        evidence.push(format!("held for {:.1} s; {link}", count.agreed_ms as f64 / 1000.0));
        if let Some(loss) = &self.loss {
            evidence.push(format!("expected loss {loss}"));
        }
        let intent = self.intent(RunKind::Failover, plan, cause, evidence, count.agreed_ms);
        (Standing::Running, vec!["opening a failover".to_owned()], Some(intent))
    }

    fn intent(
        &self,
        kind: RunKind,
        plan: &Plan,
        reason: String,
        evidence: Vec<String>,
        fault_age_ms: u64,
    ) -> OpenIntent {
        OpenIntent {
            group: self.name.clone(),
            kind,
            plan: plan.clone(),
            expected_token: self.group.token,
            expected_serving_epoch: self.group.serving.epoch,
            reason,
            evidence,
            fault_age_ms,
            expected_loss_ms: self.loss.as_ref().and_then(Loss::ms),
        }
    }

    /// What keeps a due failover from opening.
    fn obstacle(&self) -> Option<String> {
        if let Some(pause) = self.group.pause.as_ref().filter(|_| !is_out(Mutation::NoPauseGate)) {
            return Some(format!("paused by {}: {}", pause.by, pause.reason));
        }
        if self.rules.shadow {
            return Some("shadow mode: everything is decided, nothing is done".to_owned());
        }
        if let Some(obstacle) = self.past_obstacle() {
            return Some(obstacle);
        }
        let to = self.to.as_ref()?;
        if let Some(obstacle) = loss_obstacle(self.rules, self.loss.as_ref(), to) {
            return Some(format!("{obstacle}; `watchdogctl failover --accept-loss` overrides it by name"));
        }
        let lag = self.lag_ms.filter(|lag| *lag > self.rules.lag_limit_ms)?;
        (self.rules.lag_action == LagAction::Gate)
            .then(|| format!("replication into {to} lags {:.1} s, above its limit", lag as f64 / 1000.0))
    }

    /// What has been done lately, and must not be done or undone again by itself so soon.
    fn past_obstacle(&self) -> Option<String> {
        if is_out(Mutation::NoCooldown) {
            return None;
        }
        let cooldown_ms = self.rules.cooldown_ms;
        let left_ms = |since: UnixMs| since.plus(cooldown_ms).since(self.now);
        if let Some(last) = self.group.last_failover.as_ref().filter(|last| last.automatic) {
            if last.serving_epoch == self.group.serving.epoch {
                return Some(format!("a failover already completed in serving epoch {}", last.serving_epoch));
            }
            if !self.view.clock_agrees {
                return Some(
                    "cooldown: this node's clock disagrees with the others', so nobody can tell when it is over"
                        .to_owned(),
                );
            }
            if left_ms(last.at) > 0 {
                let left_s = left_ms(last.at) / 1000;
                return Some(format!("cooldown: the last automatic failover was too recent; {left_s} s to go"));
            }
        }
        // A service's recovery says nothing of where the group shall serve.
        let last = self.group.history.iter().rfind(|run| run.kind != RunKind::Recovery)?;
        let RunPhase::Closed { outcome: RunOutcome::Aborted, at } = &last.phase else {
            return None;
        };
        let left_s = left_ms(*at) / 1000;
        (left_s > 0 || !self.view.clock_agrees).then(|| {
            format!("the last run was aborted by an operator; none opens by itself for {left_s} s more; `watchdogctl failover` does")
        })
    }

    /// C1: the load balancer alone has failed. Answers only where its target is down for somebody.
    fn traffic(&self) -> Option<(Standing, Vec<String>, Option<OpenIntent>)> {
        let here = &self.group.traffic;
        let target = self.rules.load_balancers.get(here)?;
        let trigger = Trigger { targets: vec![target.clone()], need: Need::All };
        let count = count(self.policy, self.name, self.rules, &trigger, here, &self.group.seen_up, self.view);
        if count.down == 0 {
            return None;
        }
        let tally = format!("{} of {} voters see load balancer {target} down", count.down, count.ballots.len());
        let plan =
            self.rules.traffic_plans.iter().find(|plan| &plan.from == here && !self.load_balancer_is_down(&plan.to));
        let due = count.is_down() && count.agreed_ms >= self.rules.hold_down_ms;
        if !due {
            let need = format!("need {} for {} ms", count.needed, self.rules.hold_down_ms);
            return Some((Standing::Counting, vec![tally, need], None));
        }
        let obstacle = match (&self.group.pause, plan) {
            (Some(pause), _) => Some(format!("paused by {}: {}", pause.by, pause.reason)),
            (None, _) if self.rules.shadow => Some("shadow mode: everything is decided, nothing is done".to_owned()),
            (None, None) => Some(format!("no living load balancer to move to from {here}")),
            (None, Some(_)) => None,
        };
        let Some(plan) = plan.filter(|_| obstacle.is_none()) else {
            return Some((Standing::Blocked, vec![obstacle.unwrap_or_default(), tally], None));
        };
        let evidence = ballot_lines(&count, self.policy);
        let intent = self.intent(RunKind::Traffic, plan, tally.clone(), evidence, count.agreed_ms);
        Some((Standing::Running, vec![tally], Some(OpenIntent { expected_loss_ms: Some(0), ..intent })))
    }

    fn load_balancer_is_down(&self, region: &RegionName) -> bool {
        self.rules.load_balancers.get(region).is_some_and(|target| {
            let trigger = Trigger { targets: vec![target.clone()], need: Need::All };
            count(self.policy, self.name, self.rules, &trigger, region, &self.group.seen_up, self.view).is_down()
        })
    }
}

/// That the group moved lately, and is watched for that.
fn watched(group: &GroupState) -> Option<String> {
    let run = group.monitored()?;
    let monitor = run.monitor.as_ref()?;
    let (s, since) = (monitor.for_ms / 1000, monitor.summary());
    Some(format!("{} is watched closely for {s} s after {} {}: {since}", run.to(), run.kind, run.id))
}

/// P5 in words, where it forbids promoting.
pub fn loss_obstacle(rules: &GroupPolicy, loss: Option<&Loss>, to: &RegionName) -> Option<String> {
    let loss = loss?;
    if loss.is_within(rules.rpo_limit_ms) || is_out(Mutation::NoLossGate) {
        return None;
    }
    let limit_s = rules.rpo_limit_ms as f64 / 1000.0;
    Some(match loss {
        Loss::AtMost { .. } => format!("promoting {to} would lose {loss}; the limit is {limit_s:.1} s"),
        Loss::Unknown { why } => {
            format!("what promoting {to} would lose is unknown ({why}); the limit is {limit_s:.1} s")
        }
    })
}

/// The first other region that has a plan and is not itself judged down.
fn target_region(
    policy: &ClusterPolicy,
    name: &GroupName,
    rules: &GroupPolicy,
    group: &GroupState,
    view: &View,
) -> Option<RegionName> {
    let here = &group.serving.last;
    let is_down = |region: &RegionName| {
        rules
            .triggers
            .get(region)
            .is_some_and(|trigger| count(policy, name, rules, trigger, region, &group.seen_up, view).is_down())
    };
    let candidates = || rules.regions.iter().filter(|to| *to != here && rules.failover_plan(here, to).is_some());
    candidates().find(|to| !is_down(to)).or_else(|| candidates().next()).cloned()
}

fn newly_seen_up(policy: &ClusterPolicy, name: &GroupName, group: &GroupState, view: &View) -> Option<Decision> {
    let mut targets: Vec<TargetName> = view
        .sights
        .values()
        .filter(|sight| sight.report.digest == policy.digest)
        .flat_map(|sight| &sight.report.observations)
        .filter(|seen| &seen.group == name && seen.seen_up && !group.seen_up.contains(&seen.target))
        .map(|seen| seen.target.clone())
        .collect();
    targets.sort();
    targets.dedup();
    (!targets.is_empty()).then(|| Decision::MarkSeenUp { group: name.clone(), targets })
}

/// The ballots, a line each, for evidence and status.
pub fn ballot_lines(count: &Count, policy: &ClusterPolicy) -> Vec<String> {
    count
        .ballots
        .iter()
        .map(|ballot| {
            let name = policy.members.get(&ballot.node).map_or_else(|| ballot.node.to_string(), |m| m.name.to_string());
            let region = ballot.region.as_ref().map_or("?", RegionName::as_str);
            let vote = match &ballot.vote {
                Vote::Down { .. } => "down",
                Vote::NotDown => "up",
                Vote::Unsure { .. } => "unsure",
                Vote::Isolated => "isolated, does not count",
                Vote::Absent => "absent",
            };
            format!("{name} ({region}): {vote}: {}", ballot.words)
        })
        .collect()
}

/// Whether an open automatic run's trigger still holds (asked before each attempt to fence).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A quorum still sees it down.
    Yes,
    /// A majority reports, and it is not down by quorum any more.
    No,
    /// Too few report to say.
    Unknown,
}

/// Looks at the trigger of the region an open run leaves again.
pub fn trigger_holds(
    policy: &ClusterPolicy,
    name: &GroupName,
    group: &GroupState,
    from: &RegionName,
    view: &View,
) -> Holds {
    let Some(rules) = policy.groups.get(name) else { return Holds::Unknown };
    let Some(trigger) = rules.triggers.get(from) else { return Holds::Unknown };
    let count = count(policy, name, rules, trigger, from, &group.seen_up, view);
    let lagging = rules.lag_action == LagAction::Failover
        && rules
            .regions
            .iter()
            .any(|to| loss::lag_ms(name, rules, to, view).is_some_and(|lag| lag > rules.lag_limit_ms));
    if count.is_down() || lagging {
        return Holds::Yes;
    }
    let firm = count.ballots.iter().filter(|ballot| matches!(ballot.vote, Vote::NotDown | Vote::Down { .. })).count();
    if firm >= count.needed { Holds::No } else { Holds::Unknown }
}
