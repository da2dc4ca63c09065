//! Conditions that people must hear of: which should be told now, and what changed since they were last told.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Rejection;
use super::decide::{Explanation, Standing, ballot_lines};
use super::ids::{GroupName, NodeId, NodeName, ReceiverName, UnixMs};
use super::loss::Loss;
use super::observation::{FailureKind, Verdict};
use super::page::{Delivery, Page, PageAction, Severity};
use super::policy::{ClusterPolicy, GroupPolicy, LagAction};
use super::readiness::Holds;
use super::state::{ClusterState, GroupState, Pause};
use super::view::{Heartbeat, View};

/// Reports older than this leave a node out, milliseconds.
const REPORT_TTL_MS: u64 = 5000;

/// A voter that has not reported for so long is told of, milliseconds.
const SILENT_AFTER_MS: u64 = 30_000;

/// A page that a receiver has not taken for so long is told of through the others, milliseconds.
const UNDELIVERED_AFTER_MS: u64 = 120_000;

/// Conditions by key.
pub type Wanted = BTreeMap<String, Page>;

fn condition(
    key: String,
    event: &str,
    severity: Severity,
    group: Option<&GroupName>,
    summary: String,
) -> (String, Page) {
    let page = Page {
        key: key.clone(),
        event: event.to_owned(),
        action: PageAction::Trigger,
        severity,
        summary,
        group: group.cloned(),
        run: None,
        details: BTreeMap::new(),
    };
    (key, page)
}

/// Conditions of the cluster as such.
pub fn of_cluster(state: &ClusterState, policy: &ClusterPolicy, view: &View, now: UnixMs) -> Wanted {
    let mut wanted = Wanted::new();
    let Some(digest) = &state.digest else { return wanted };
    for (id, sight) in view.fresh(REPORT_TTL_MS) {
        let name = policy.members.get(&id).map_or_else(|| id.to_string(), |member| member.name.to_string());
        if &sight.report.digest != digest {
            let summary =
                format!("node {name} runs under another configuration than the one in force: it votes, but never acts");
            let key = node_key(policy, "config-differs", id);
            wanted.extend([condition(key, "CONFIG_DIFFERS", Severity::Warning, None, summary)]);
        }
        if sight.report.isolated {
            let summary = format!("node {name} sees neither its references nor a majority of its peers");
            let key = node_key(policy, "isolated", id);
            wanted.extend([condition(key, "NODE_ISOLATED", Severity::Warning, None, summary)]);
        }
    }
    wanted.extend(silent_voters(policy, view));
    wanted.extend(unheard(policy, view));
    wanted.extend(deaf_receivers(state, policy, view, now));
    wanted
}

fn heartbeat_key(policy: &ClusterPolicy) -> String {
    format!("{}/heartbeat", policy.cluster)
}

/// The outside receiver misses beats: were the cluster to fall silent now, nobody could tell.
fn unheard(policy: &ClusterPolicy, view: &View) -> Option<(String, Page)> {
    let Heartbeat::Unheard { why } = &view.heartbeat else { return None };
    let summary = format!("the watchdog's heartbeat does not get through to its outside receiver: {why}");
    let (key, mut page) = condition(heartbeat_key(policy), "HEARTBEAT_UNHEARD", Severity::Error, None, summary);
    page.details.insert("next".to_owned(), "look at [heartbeat] in the configuration, and at the receiver".to_owned());
    Some((key, page))
}

/// Receivers of pages that refuse them, or have not taken one for a while: told through the others. The page about a
/// receiver goes to that one, too, and so shows by itself when it takes pages again.
fn deaf_receivers(state: &ClusterState, policy: &ClusterPolicy, view: &View, now: UnixMs) -> Wanted {
    let of = |receiver: &ReceiverName| {
        let given = || state.outbox.iter().filter_map(|entry| Some((entry, entry.deliveries.get(receiver)?)));
        let oldest = given().find(|(_, delivery)| matches!(delivery, Delivery::Pending));
        let waited_ms = oldest.map_or(0, |(entry, _)| now.since(entry.at));
        let last = given().rfind(|(_, delivery)| !matches!(delivery, Delivery::Pending));
        let refused = last.and_then(|(_, delivery)| match delivery {
            Delivery::Refused { reason, .. } => Some(reason),
            _ => None,
        });
        let summary = match refused {
            Some(_) => format!("receiver {receiver} refuses pages for good: it is told nothing"),
            None if view.clock_agrees && waited_ms >= UNDELIVERED_AFTER_MS => {
                let s = UNDELIVERED_AFTER_MS / 1000;
                format!("receiver {receiver} has not taken a page for more than {s} s; it is tried again and again")
            }
            None => return None,
        };
        let key = format!("{}/receiver/{receiver}", policy.cluster);
        let (key, mut page) = condition(key, "RECEIVER_FAILING", Severity::Error, None, summary);
        page.details.extend(refused.map(|reason| ("answer".to_owned(), reason.clone())));
        page.details.insert("next".to_owned(), format!("mend it, then: watchdogctl page test --receiver {receiver}"));
        Some((key, page))
    };
    state.receivers.iter().filter_map(of).collect()
}

/// By number: numbers are used once, names may be another node's later; and a leader whose file does not have the node
/// knows no name of it, and it is one condition under both.
fn node_key(policy: &ClusterPolicy, what: &str, id: NodeId) -> String {
    format!("{}/{what}/node-{id}", policy.cluster)
}

/// Voters that nobody hears: one more lost may cost the quorum. A leader judges by what it has watched itself: a report
/// kept from an earlier leadership is old because nobody sent this node any since.
fn silent_voters(policy: &ClusterPolicy, view: &View) -> Wanted {
    let is_silent = |id: &&NodeId| {
        let age_ms = view.sights.get(id).map_or(u64::MAX, |sight| sight.age_ms);
        age_ms.min(view.watched_ms) > SILENT_AFTER_MS
    };
    let one = |id: &NodeId| {
        let name = policy.members.get(id).map_or_else(|| id.to_string(), |member| member.name.to_string());
        let summary = format!("node {name} has not reported for more than {} s", SILENT_AFTER_MS / 1000);
        condition(node_key(policy, "silent", *id), "NODE_SILENT", Severity::Warning, None, summary)
    };
    view.voters.iter().filter(is_silent).map(one).collect()
}

/// Conditions of one group.
pub fn of_group(
    policy: &ClusterPolicy,
    name: &GroupName,
    rules: &GroupPolicy,
    group: &GroupState,
    view: &View,
    explanation: &Explanation,
) -> Wanted {
    let mut wanted = Wanted::new();
    let prefix = format!("{}/{name}", policy.cluster);
    if explanation.standing == Standing::Blocked {
        let why = explanation.lines.first().cloned().unwrap_or_default();
        let summary = format!("{name}: a move away from {} is due but does not start: {why}", group.serving.last);
        let (key, mut page) =
            condition(format!("{prefix}/blocked"), "DR_FAILOVER_BLOCKED", Severity::Critical, Some(name), summary);
        page.details.insert("why".to_owned(), why);
        page.details.insert("next".to_owned(), format!("watchdogctl status; watchdogctl failover {name} --dry-run"));
        if let Some(Loss::AtMost { ms, .. }) = &explanation.loss {
            page.details.insert("expected_loss_ms".to_owned(), ms.to_string());
        }
        if let Some(count) = &explanation.count {
            for (n, line) in ballot_lines(count, policy).into_iter().enumerate() {
                page.details.insert(format!("vote_{:02}", n + 1), line);
            }
        }
        wanted.insert(key, page);
    }
    wanted.extend(lag_condition(&prefix, name, rules, explanation));
    wanted.extend(our_faults(policy, &prefix, name, view));
    wanted.extend(group.unsettled.iter().map(|(resource, left)| {
        let summary =
            format!("{name}: {resource} is unsettled since run {}: a step may still take effect there", left.run);
        condition(format!("{prefix}/unsettled/{resource}"), "RESOURCE_UNSETTLED", Severity::Error, Some(name), summary)
    }));
    wanted
}

/// A pause is an operator's business for so long; whoever is not ready longer is told of, milliseconds.
const PAUSE_PATIENCE_MS: u64 = 4 * 3_600_000;

/// A group that would not come up elsewhere. What is remembered was judged twice already. While a run is open, and until the
/// region that serves now was judged, nothing new is said, and what was said stands.
pub fn not_ready(
    state: &ClusterState,
    policy: &ClusterPolicy,
    name: &GroupName,
    rules: &GroupPolicy,
    group: &GroupState,
    now: UnixMs,
) -> Option<(String, Page)> {
    let key = format!("{}/{name}/not-ready", policy.cluster);
    let is_told = state.alarms.contains_key(&key);
    let mark = group.readiness.as_ref()?;
    let judgement = &mark.judgement;
    let is_judged = group.open_run.is_none() && judgement.serving_epoch == group.serving.epoch;
    if is_judged && judgement.verdict() <= Holds::Weak {
        return None;
    }
    let is_paused = |pause: &Pause| now.since(pause.at.max(mark.since)) < PAUSE_PATIENCE_MS;
    let is_known = rules.shadow || group.pause.as_ref().is_some_and(is_paused);
    if !is_told && (!is_judged || is_known) {
        return None;
    }
    let (from, why) = (&judgement.from, judgement.why());
    let summary = match judgement.verdict() {
        Holds::Unknown => format!("{name}: whether it would survive the loss of {from} cannot be judged: {why}"),
        _ => format!("{name} is not ready: if {from} vanished now, nothing would take over by itself: {why}"),
    };
    let (key, mut page) = condition(key, "NOT_READY", Severity::Error, Some(name), summary);
    for item in judgement.items.iter().filter(|item| item.holds != Holds::Yes) {
        page.details.insert(item.name.clone(), format!("{}: {}", item.holds.word(), item.reason));
    }
    page.details.insert("next".to_owned(), format!("watchdogctl readiness {name}"));
    Some((key, page))
}

fn lag_condition(
    prefix: &str,
    name: &GroupName,
    rules: &GroupPolicy,
    explanation: &Explanation,
) -> Option<(String, Page)> {
    let lag_ms = explanation.lag_ms.filter(|lag| *lag > rules.lag_limit_ms)?;
    let effect = match rules.lag_action {
        LagAction::Page => "for your information",
        LagAction::Gate => "no automatic failover while it lasts",
        LagAction::Failover => "a failover follows",
    };
    let (lag_s, limit_s) = (lag_ms / 1000, rules.lag_limit_ms / 1000);
    let summary = format!("{name}: the standby lags more than {limit_s} s ({lag_s} s when first seen); {effect}");
    Some(condition(format!("{prefix}/lag"), "REPLICATION_LAG", Severity::Critical, Some(name), summary))
}

/// Wrong passwords, certificates, names and paths: ours to mend, never a dead target.
fn our_faults(policy: &ClusterPolicy, prefix: &str, name: &GroupName, view: &View) -> Wanted {
    let mut wanted = Wanted::new();
    for (id, sight) in view.fresh(REPORT_TTL_MS) {
        for seen in
            sight.report.observations.iter().filter(|seen| &seen.group == name && seen.verdict == Verdict::Suspect)
        {
            let Some(failure) = seen.failure.as_ref().filter(|failure| failure.kind == FailureKind::OurFault) else {
                continue;
            };
            let node = policy.members.get(&id).map_or_else(|| id.to_string(), |member| member.name.to_string());
            let summary = format!("{name}: the probe of {} on {node} cannot work: {}", seen.target, failure.detail);
            let key = format!("{prefix}/probe/{}", seen.target);
            wanted.extend([condition(key, "PROBE_MISCONFIGURED", Severity::Error, Some(name), summary)]);
        }
    }
    wanted
}

/// What only one node can say of itself is not over because that node is silent now, and its silence ends by its word
/// alone: not because a new leader has not waited long enough to call it silent.
///
/// The first two were once told by the node's name: what is still open under one ends as the node is heard again.
fn is_of_a_missing_node(policy: &ClusterPolicy, key: &str, view: &View) -> bool {
    let fresh: BTreeSet<NodeId> = view.fresh(REPORT_TTL_MS).map(|(id, _)| id).collect();
    let known: BTreeSet<NodeId> = policy.members.keys().chain(&view.voters).copied().collect();
    let is_own = |id: &NodeId| ["config-differs", "isolated"].iter().any(|what| node_key(policy, what, *id) == key);
    let by_name = |name: &NodeName| {
        ["config-differs", "isolated"].iter().any(|what| format!("{}/{what}/{name}", policy.cluster) == key)
    };
    let was_own = |id: &NodeId| policy.members.get(id).is_some_and(|member| by_name(&member.name));
    let is_silence = |id: &NodeId| view.voters.contains(id) && node_key(policy, "silent", *id) == key;
    known.difference(&fresh).any(|id| is_own(id) || was_own(id) || is_silence(id))
}

/// A majority runs under a configuration that cannot be taken into force.
pub fn not_adopted(state: &ClusterState, policy: &ClusterPolicy, why: &Rejection) -> Option<Page> {
    let summary = format!("the configuration that most nodes run under is not taken into force: {}", why.message);
    let key = format!("{}/config-not-adopted", policy.cluster);
    let (key, page) = condition(key, "CONFIG_NOT_ADOPTED", Severity::Critical, None, summary);
    (!state.alarms.contains_key(&key)).then_some(page)
}

/// What to tell: conditions that are new, and alarms that are over. Nothing is called over until a majority reports, so
/// that a new leader that has seen nothing yet ends no alarm.
pub fn changes(state: &ClusterState, policy: &ClusterPolicy, wanted: Wanted, view: &View) -> Vec<Page> {
    let mut pages = Vec::new();
    if view.is_settled(REPORT_TTL_MS) {
        for (key, alarm) in &state.alarms {
            // A new leader's first beats may still be under way.
            let is_unsure = view.heartbeat == Heartbeat::Unknown && *key == heartbeat_key(policy);
            if !wanted.contains_key(key) && !is_unsure && !is_of_a_missing_node(policy, key, view) {
                pages.push(Page {
                    key: key.clone(),
                    event: alarm.event.clone(),
                    action: PageAction::Resolve,
                    severity: Severity::Info,
                    summary: format!("over: {}", alarm.summary),
                    group: alarm.group.clone(),
                    run: None,
                    details: BTreeMap::new(),
                });
            }
        }
    }
    pages.extend(wanted.into_iter().filter(|(key, _)| !state.alarms.contains_key(key)).map(|(_, page)| page));
    pages
}
