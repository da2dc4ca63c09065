//! After a move: the region that serves now is watched closely for a while, and trouble there is told under the run's name. What
//! is watched, what of it is trouble, and when the watch is over. Pure: the leader proposes what changed, the log keeps it.
//!
//! A matter is trouble once it was seen well since the move and is not any more; a target besides where it never came up within
//! [`GRACE_MS`]. Nobody is paged for a replica that nobody has made yet.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ids::{GroupName, RunId, TargetName, UnixMs};
use super::loss;
use super::observation::Verdict;
use super::policy::{ClusterPolicy, GroupPolicy};
use super::readiness::Holds;
use super::run::Run;
use super::state::GroupState;
use super::text::one_line;
use super::view::View;

/// A target that never came up is trouble after so long; after a third of a shorter watch.
pub const GRACE_MS: u64 = 30_000;
/// What is well again is written down so long after the last change at the soonest: what comes and goes does not fill the log.
const SETTLES_MS: u64 = 5_000;
/// Matters kept of one watch.
pub const SEEN_MAX: usize = 40;
/// A reason, characters.
const REASON_CHARS_MAX: usize = 200;

/// The watch after a run, kept in the run's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// When the run ended.
    pub since: UnixMs,
    /// For so long, milliseconds.
    pub for_ms: u64,
    /// Counts what was written down: what was decided on an older state is rejected.
    #[serde(default)]
    pub revision: u32,
    /// When last.
    pub changed_at: UnixMs,
    /// What was seen well since.
    #[serde(default)]
    pub well: BTreeSet<String>,
    /// What was not, in the order of its first time; bounded.
    #[serde(default)]
    pub seen: Vec<Seen>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<MonitorEnd>,
}

/// One trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What: `target hanoi-db`, `replica in hcmc`, `readiness`.
    pub what: String,
    /// How it was last not well.
    pub detail: String,
    /// Since when, the first time.
    pub from: UnixMs,
    /// How often.
    pub times: u32,
    /// Well again since; `None`: it is not.
    pub until: Option<UnixMs>,
}

/// How a watch ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorEnd {
    /// When.
    pub at: UnixMs,
    /// How.
    pub how: MonitorOutcome,
    /// In words.
    pub why: String,
}

/// How a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MonitorOutcome {
    /// Its time is over, and nothing is amiss.
    Well,
    /// Its time is over, and something still is.
    Unwell,
    /// The group moved on before.
    CutShort,
}

impl MonitorOutcome {
    /// `well`, `unwell`, `cut short`.
    pub fn word(self) -> &'static str {
        match self {
            MonitorOutcome::Well => "well",
            MonitorOutcome::Unwell => "unwell",
            MonitorOutcome::CutShort => "cut short",
        }
    }
}

/// What the log is told of a watch. Each carries the revision that it was decided on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "monitor")]
pub enum MonitorChange {
    /// What is amiss now, all of it, with why; and what was seen well for the first time.
    Saw {
        /// By matter.
        trouble: BTreeMap<String, String>,
        /// Which.
        well: BTreeSet<String>,
    },
    /// Its time is over.
    End,
}

/// What should be written down now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorDue {
    /// After which run.
    pub run: RunId,
    /// The revision that this was decided on.
    pub revision: u32,
    /// What.
    pub about: MonitorChange,
}

impl Monitor {
    /// From now on.
    pub fn begin(at: UnixMs, for_ms: u64) -> Self {
        let (well, seen) = (BTreeSet::new(), Vec::new());
        Self { since: at, for_ms, revision: 0, changed_at: at, well, seen, ended: None }
    }

    /// What is amiss.
    pub fn trouble(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| seen.until.is_none())
    }

    /// Writes down what is amiss now; answers what is for the first time.
    pub fn take_in(&mut self, at: UnixMs, trouble: &BTreeMap<String, String>, well: &BTreeSet<String>) -> Vec<Seen> {
        let mut new = Vec::new();
        let mut room = SEEN_MAX.saturating_sub(self.seen.len());
        for (what, why) in trouble {
            let detail = one_line(why, REASON_CHARS_MAX);
            match self.seen.iter_mut().find(|seen| &seen.what == what) {
                Some(seen) if seen.until.is_none() => seen.detail = detail,
                Some(seen) => (seen.until, seen.times, seen.detail) = (None, seen.times.saturating_add(1), detail),
                None if room == 0 => {}
                None => {
                    room -= 1;
                    let what = one_line(what, REASON_CHARS_MAX);
                    let seen = Seen { what, detail, from: at, times: 1, until: None };
                    self.seen.push(seen.clone());
                    new.push(seen);
                }
            }
        }
        for seen in self.seen.iter_mut().filter(|seen| seen.until.is_none() && !trouble.contains_key(&seen.what)) {
            seen.until = Some(at);
        }
        let more = SEEN_MAX.saturating_sub(self.well.len());
        let fresh: Vec<String> = well.difference(&self.well).take(more).cloned().collect();
        self.well.extend(fresh);
        self.revision = self.revision.saturating_add(1);
        self.changed_at = at;
        new
    }

    /// In a line, for its end and its record.
    pub fn summary(&self) -> String {
        let still: Vec<&str> = self.trouble().map(|seen| seen.what.as_str()).collect();
        let over = self.seen.len() - still.len();
        match (still.is_empty(), over) {
            (true, 0) => "nothing was amiss".to_owned(),
            (true, n) => format!("{n} amiss for a while, well again"),
            (false, 0) => format!("still amiss: {}", still.join(", ")),
            (false, n) => format!("still amiss: {}; {n} well again", still.join(", ")),
        }
    }
}

impl GroupState {
    /// The run whose watch goes on: one at most.
    pub fn monitored(&self) -> Option<&Run> {
        self.history.iter().rfind(|run| run.monitor.as_ref().is_some_and(|monitor| monitor.ended.is_none()))
    }

    /// Whether the group's targets there, and what replicates from there, are looked at closely now.
    pub fn is_watched_closely(&self, rules: &GroupPolicy, target: &TargetName) -> bool {
        self.monitored().is_some_and(|run| {
            let there = rules.targets.get(run.to()).is_some_and(|targets| targets.contains(target));
            there || rules.replication.values().any(|replica| replica == target)
        })
    }
}

/// What should be written down of the group's watch now; nothing while too few nodes report to tell.
pub fn due(
    policy: &ClusterPolicy,
    (name, rules): (&GroupName, &GroupPolicy),
    group: &GroupState,
    view: &View,
    now: UnixMs,
) -> Option<MonitorDue> {
    let run = group.monitored()?;
    let monitor = run.monitor.as_ref()?;
    let due = |about| Some(MonitorDue { run: run.id.clone(), revision: monitor.revision, about });
    let moved_on = group.open_run.is_none() && group.serving.region.as_ref() != Some(run.to());
    if moved_on || view.clock_agrees && now >= monitor.since.plus(monitor.for_ms) {
        return due(MonitorChange::End);
    }
    if !view.is_settled(rules.observation_ttl_ms) {
        return None;
    }
    let matters = matters(policy, (name, rules), group, run, view);
    let grace_over = now.since(monitor.since) >= GRACE_MS.min(monitor.for_ms / 3);
    let counts = |what: &str| monitor.well.contains(what) || grace_over && what.starts_with(TARGET);
    let (mut trouble, mut well) = (BTreeMap::new(), BTreeSet::new());
    for (what, why) in matters {
        match why {
            None if !monitor.well.contains(&what) => drop(well.insert(what)),
            Some(why) if counts(&what) => drop(trouble.insert(what, why)),
            _ => {}
        }
    }
    let known: BTreeSet<&String> = monitor.trouble().map(|seen| &seen.what).collect();
    let room = monitor.seen.len() < SEEN_MAX;
    let is_new = |what: &&String| room || monitor.seen.iter().any(|seen| &&seen.what == what);
    let came = trouble.keys().filter(is_new).any(|what| !known.contains(what));
    let went = known.iter().any(|what| !trouble.contains_key(*what));
    let settled = now.since(monitor.changed_at) >= SETTLES_MS;
    let first_well = !well.is_empty() && monitor.well.len() < SEEN_MAX && (settled || monitor.well.is_empty());
    if came || first_well || went && settled {
        return due(MonitorChange::Saw { trouble, well });
    }
    None
}

const TARGET: &str = "target ";

/// Everything that is watched: `None` where it is well, why not where it is not. What cannot be told is left out.
fn matters(
    policy: &ClusterPolicy,
    (name, rules): (&GroupName, &GroupPolicy),
    group: &GroupState,
    run: &Run,
    view: &View,
) -> BTreeMap<String, Option<String>> {
    let mut matters = BTreeMap::new();
    for target in rules.targets.get(run.to()).into_iter().flatten() {
        matters.extend(of_target(policy, (name, rules), target, view).map(|why| (format!("{TARGET}{target}"), why)));
    }
    for region in rules.replication.keys().filter(|region| *region != run.to()) {
        let what = format!("replica in {region}");
        match loss::lag_ms(name, rules, region, view) {
            Some(ms) if ms <= rules.switchover_max_lag_ms => drop(matters.insert(what, None)),
            Some(ms) => {
                let (s, limit_s) = (ms as f64 / 1000.0, rules.switchover_max_lag_ms as f64 / 1000.0);
                matters.insert(what, Some(format!("lags {s:.1} s; the limit of a planned move is {limit_s:.1} s")));
            }
            None => drop(matters.insert(what, Some("does not follow, or cannot be asked".to_owned()))),
        }
    }
    if let Some(mark) = group.readiness.as_ref().filter(|mark| mark.judgement.serving_epoch == group.serving.epoch) {
        let why = (mark.judgement.verdict() > Holds::Weak).then(|| mark.judgement.why());
        matters.insert("readiness".to_owned(), why);
    }
    matters
}

/// A majority of all voters sees it well, or a majority sees it amiss, suspect or down; `None`: neither.
fn of_target(
    policy: &ClusterPolicy,
    (name, rules): (&GroupName, &GroupPolicy),
    target: &TargetName,
    view: &View,
) -> Option<Option<String>> {
    let (mut up, mut amiss) = (0, Vec::new());
    for (id, sight) in view.fresh(rules.observation_ttl_ms).filter(|(_, sight)| !sight.report.isolated) {
        let Some((seen, _)) = sight.of(name, target) else { continue };
        let who = || policy.members.get(&id).map_or_else(|| id.to_string(), |member| member.name.to_string());
        let why = seen.failure.as_ref().map_or(String::new(), |failure| format!(" ({})", failure.detail));
        match seen.verdict {
            Verdict::Up => up += 1,
            verdict => amiss.push(format!("{} sees it {verdict}{why}", who())),
        }
    }
    if amiss.len() >= view.majority() {
        return Some(Some(amiss.join("; ")));
    }
    (up >= view.majority()).then_some(None)
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
