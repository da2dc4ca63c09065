//! One scrape of a node: what it knows now, as gauges.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backend::Backend;
use crate::api::backend::{AdminBackend as _, GroupSight, VoteSight};
use crate::calendar;
use crate::clock::{boot_ms, unix_now};
use crate::domain::decide::Standing;
use crate::domain::drill::figures::monthly;
use crate::domain::drill::{Drill, DrillKind, DrillOutcome};
use crate::domain::ids::{GroupName, RegionName, TargetName, UnixMs};
use crate::domain::observation::{Measure, RedisMeasure, Verdict};
use crate::domain::page::{Delivery, Severity};
use crate::domain::policy::{Fencing, GroupPolicy};
use crate::domain::readiness::Holds;
use crate::domain::run::{RunPhase, StepPhase};
use crate::domain::state::{ClusterState, GroupState};
use crate::domain::verdict::Standing as Looked;
use crate::metrics::events::seconds;
use crate::metrics::{Sheet, families as f, process};
use crate::probe::SightKind;

const VERDICTS: [Verdict; 3] = [Verdict::Up, Verdict::Suspect, Verdict::Down];
const STEP_PHASES: [StepPhase; 6] = [
    StepPhase::Pending,
    StepPhase::Started,
    StepPhase::Done,
    StepPhase::Failed,
    StepPhase::Unknown,
    StepPhase::Skipped,
];

const READINESS: [Holds; 4] = [Holds::Yes, Holds::Weak, Holds::Unknown, Holds::No];
/// Everything this node can say.
pub fn sheet(backend: &Backend) -> Sheet {
    let mut sheet = Sheet::default();
    let state = backend.state().borrow().clone();
    process::fill(&mut sheet);
    node(&mut sheet, backend, &state);
    raft(&mut sheet, backend, &state);
    heartbeat(&mut sheet, backend);
    seen(&mut sheet, backend);
    let sight = backend.sight();
    for (name, group) in &state.groups {
        let rules = backend.parts.policy.groups.get(name);
        group_gauges(&mut sheet, name, group, rules);
        run_gauges(&mut sheet, name, group);
        drill_gauges(
            &mut sheet,
            name,
            group,
            rules.is_some_and(|rules| rules.drills.plans.iter().any(|plan| plan.kind.acts())),
        );
        drill_months(&mut sheet, name, group, unix_now());
        lease_gauges(&mut sheet, name, group);
        if let Some(found) = sight.groups.as_ref().and_then(|groups| groups.get(name)) {
            led(&mut sheet, backend, name, found);
        }
    }
    told(&mut sheet, &state);
    incidents(&mut sheet, &state);
    sheet.count(&f::AUDIT_SEQ, &[], state.audit_head().seq);
    sheet
}

fn node(sheet: &mut Sheet, backend: &Backend, state: &ClusterState) {
    let (policy, own) = (&backend.parts.policy, &backend.parts.own);
    sheet.set(&f::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    sheet.set(&f::NODE_INFO, &[policy.cluster.as_str(), own.name.as_str(), own.region.as_str()], 1.0);
    sheet.flag(&f::CONFIG_IN_FORCE, &[], state.digest.as_ref() == Some(&policy.digest));
    if let Some(tls) = &backend.parts.tls {
        sheet.set(&f::CERTIFICATE_EXPIRY, &[], unix_seconds(tls.current().not_after));
    }
}

fn heartbeat(sheet: &mut Sheet, backend: &Backend) {
    let Some(beats) = &backend.parts.beats else { return };
    if let Some(ms) = beats.interval_ms() {
        sheet.set(&f::HEARTBEAT_INTERVAL, &[], seconds(ms));
    }
    if let Some(at) = beats.last() {
        sheet.set(&f::HEARTBEAT_LAST, &[], unix_seconds(at));
    }
}

fn raft(sheet: &mut Sheet, backend: &Backend, state: &ClusterState) {
    let standing = backend.standing().borrow().clone();
    let consensus = &backend.parts.consensus;
    sheet.count(&f::RAFT_TERM, &[], standing.term);
    sheet.flag(&f::RAFT_IS_LEADER, &[], standing.is_leader() && standing.has_quorum);
    sheet.flag(&f::RAFT_HAS_QUORUM, &[], standing.has_quorum);
    if let Some(age) = consensus.quorum_age() {
        sheet.set(&f::RAFT_QUORUM_AGE, &[], age.as_secs_f64());
    }
    sheet.count(&f::RAFT_VOTERS, &[], consensus.leadership().borrow().voters.len() as u64);
    let log = consensus.log_position();
    sheet.count(&f::RAFT_LAST_LOG_INDEX, &[], log.last);
    sheet.count(&f::RAFT_COMMIT_INDEX, &[], log.committed);
    sheet.count(&f::RAFT_APPLIED_INDEX, &[], state.applied_index.max(log.applied));
}

/// What this node itself sees.
fn seen(sheet: &mut Sheet, backend: &Backend) {
    let (regions, replication) = places(&backend.parts.policy.groups);
    for sight in backend.parts.observer.sights() {
        let is_up = sight.standing.verdict == Verdict::Up;
        match &sight.kind {
            SightKind::Peer { node } => {
                let name = backend.parts.policy.members.get(node).map(|member| member.name.to_string());
                sheet.flag(&f::PEER_UP, &[&name.unwrap_or_else(|| node.to_string())], is_up);
            }
            SightKind::Reference { name } => sheet.flag(&f::REFERENCE_UP, &[name], is_up),
            SightKind::Target { group, name } => {
                let backup = backend.parts.backups.get(&(group.clone(), name.clone()));
                let region = regions.get(&(group, name)).copied().or(backup.map(|(region, _)| region));
                let region = region.map_or("", |region| region.as_str());
                let labels = [group.as_str(), name.as_str(), region];
                for verdict in VERDICTS {
                    let [group, target, region] = labels;
                    let word = verdict.to_string();
                    sheet.flag(&f::TARGET_VERDICT, &[group, target, region, &word], sight.standing.verdict == verdict);
                }
                let age_ms = boot_ms().saturating_sub(sight.standing.since_ms);
                sheet.set(&f::TARGET_VERDICT_SINCE, &labels, seconds(age_ms));
                if let Some((_, late_ms)) = backup {
                    backup_gauges(sheet, &[group.as_str(), region, name.as_str()], &sight.standing, *late_ms);
                }
                if let Some(region) = replication.get(&(group, name)) {
                    let labels = [group.as_str(), region.as_str(), name.as_str()];
                    replication_gauges(sheet, &labels, sight.standing.measure.as_ref());
                }
                if let Some(Measure::Redis(measure)) = &sight.standing.measure {
                    redis_gauges(sheet, &[group.as_str(), region, name.as_str()], measure);
                }
            }
        }
    }
}

fn backup_gauges(sheet: &mut Sheet, labels: &[&str], standing: &Looked, late_ms: u64) {
    sheet.set(&f::BACKUP_MAX_AGE, labels, seconds(late_ms));
    sheet.flag(&f::BACKUP_KNOWN, labels, standing.verdict == Verdict::Up);
    let Some(Measure::Backup(measure)) = &standing.measure else { return };
    sheet.flag(&f::BACKUP_OK, labels, measure.is_ok);
    if let Some(at) = measure.last_success {
        sheet.set(&f::BACKUP_LAST_SUCCESS, labels, unix_seconds(at));
    }
    if let Some(ms) = measure.took_ms {
        sheet.set(&f::BACKUP_DURATION, labels, seconds(ms));
    }
    if let Some(bytes) = measure.size_bytes {
        sheet.count(&f::BACKUP_SIZE, labels, bytes);
    }
}

fn replication_gauges(sheet: &mut Sheet, labels: &[&str], measure: Option<&Measure>) {
    let Some(Measure::Replication(measure)) = measure else { return };
    sheet.flag(&f::REPLICATION_STREAMING, labels, measure.streaming);
    if let Some(ms) = measure.covered_age_ms {
        sheet.set(&f::REPLICATION_LAG, labels, seconds(ms));
    }
    if let (Some(primary), Some(reached)) = (measure.primary_lsn, crate::domain::loss::reached(measure)) {
        sheet.count(&f::REPLICATION_LAG_BYTES, labels, primary.saturating_sub(reached));
    }
    if let Some(ms) = measure.replay_age_ms {
        sheet.set(&f::REPLICATION_REPLAY_AGE, labels, seconds(ms));
    }
}

fn redis_gauges(sheet: &mut Sheet, labels: &[&str], measure: &RedisMeasure) {
    sheet.flag(&f::REDIS_IS_PRIMARY, labels, measure.is_primary);
    if measure.is_primary {
        return;
    }
    sheet.flag(&f::REDIS_REPLICATION_LINKED, labels, measure.linked);
    if let Some(bytes) = measure.behind_bytes() {
        sheet.count(&f::REDIS_REPLICATION_LAG_BYTES, labels, bytes);
    }
    if let Some(ms) = measure.last_io_age_ms {
        sheet.set(&f::REDIS_REPLICATION_LAST_IO_AGE, labels, seconds(ms));
    }
}

type Places<'a> = BTreeMap<(&'a GroupName, &'a TargetName), &'a RegionName>;

/// Which region each target of a trigger, load balancer or Redis server stands for, and into which each replication target measures.
fn places(groups: &BTreeMap<GroupName, GroupPolicy>) -> (Places<'_>, Places<'_>) {
    let (mut regions, mut replication) = (Places::new(), Places::new());
    for (name, rules) in groups {
        let triggers =
            rules.triggers.iter().flat_map(|(region, trigger)| trigger.targets.iter().map(move |it| (it, region)));
        let others = rules.load_balancers.iter().chain(&rules.replication).chain(&rules.redis);
        let others = others.map(|(region, target)| (target, region));
        regions.extend(others.chain(triggers).map(|(target, region)| ((name, target), region)));
        replication.extend(rules.replication.iter().map(|(region, target)| ((name, target), region)));
    }
    (regions, replication)
}

fn group_gauges(sheet: &mut Sheet, name: &GroupName, group: &GroupState, rules: Option<&GroupPolicy>) {
    let name = name.as_str();
    let mode = match (&group.pause, rules.is_some_and(|rules| rules.shadow)) {
        (Some(_), _) => "paused",
        (None, true) => "shadow",
        (None, false) => "automatic",
    };
    sheet.set(&f::GROUP_INFO, &[name, group.home.as_str(), group.fencing.word(), mode], 1.0);
    for region in &group.regions {
        sheet.flag(&f::GROUP_SERVING, &[name, region.as_str()], group.serving.region.as_ref() == Some(region));
        sheet.flag(&f::GROUP_TRAFFIC, &[name, region.as_str()], &group.traffic == region);
    }
    sheet.count(&f::GROUP_SERVING_EPOCH, &[name], group.serving.epoch);
    sheet.flag(&f::GROUP_PAUSED, &[name], group.pause.is_some());
    sheet.count(&f::GROUP_TOKEN_EPOCH, &[name], group.token.epoch);
    sheet.count(&f::GROUP_TOKEN, &[name], group.token.n);
    sheet.count(&f::GROUP_UNSETTLED, &[name], group.unsettled.len() as u64);
    if let Some(mark) = &group.readiness {
        for verdict in READINESS {
            sheet.flag(&f::READINESS, &[name, verdict.word()], mark.judgement.verdict() == verdict);
        }
        sheet.set(&f::READINESS_SINCE, &[name], unix_seconds(mark.since));
    }
    if let Some(rules) = rules {
        if let Some(ms) = rules.rto_objective_ms {
            sheet.set(&f::GROUP_RTO, &[name], seconds(ms));
        }
        sheet.set(&f::GROUP_RPO, &[name], seconds(rules.rpo_limit_ms));
    }
}

fn run_gauges(sheet: &mut Sheet, name: &GroupName, group: &GroupState) {
    let name = name.as_str();
    let open = group.open_run.as_ref();
    sheet.flag(&f::RUN_STUCK, &[name], open.is_some_and(|run| matches!(run.phase, RunPhase::Stuck { .. })));
    if let Some(run) = open {
        sheet.set(&f::RUN_OPEN, &[name, &run.kind.to_string()], 1.0);
        sheet.set(&f::RUN_OPEN_SINCE, &[name], unix_seconds(run.opened_at));
        for phase in STEP_PHASES {
            let n = run.steps.values().filter(|step| step.phase == phase).count();
            sheet.count(&f::RUN_STEPS, &[name, &phase.to_string()], n as u64);
        }
    }
    // Oldest first, so that the newest of a kind has the last word.
    let mut closed: BTreeMap<(String, String), UnixMs> = BTreeMap::new();
    let mut recovered: BTreeMap<String, u64> = BTreeMap::new();
    // What was rehearsed has gauges of its own.
    for run in group.history.iter().filter(|run| !run.drill) {
        let RunPhase::Closed { outcome, at } = &run.phase else { continue };
        closed.insert((run.kind.to_string(), outcome.to_string()), *at);
        recovered.extend(run.recovery_time_ms().map(|ms| (run.kind.to_string(), ms)));
    }
    for ((kind, outcome), at) in &closed {
        sheet.set(&f::LAST_RUN_CLOSED, &[name, kind, outcome], unix_seconds(*at));
    }
    for (kind, ms) in &recovered {
        sheet.set(&f::LAST_RECOVERY, &[name, kind], seconds(*ms));
    }
}

fn drill_gauges(sheet: &mut Sheet, name: &GroupName, group: &GroupState, is_planned: bool) {
    let name = name.as_str();
    let last = group.drills.past.iter().filter_map(Drill::rehearsed_at).max();
    if is_planned || last.is_some() {
        sheet.set(&f::DRILL_LAST_SUCCESS, &[name], unix_seconds(last.unwrap_or_default()));
    }
    for kind in DrillKind::ALL {
        let of_kind = || group.drills.past.iter().filter(move |drill| drill.kind == kind);
        for outcome in DrillOutcome::ALL {
            let ended = |drill: &&Drill| drill.closing.as_ref().is_some_and(|closing| closing.outcome == outcome);
            match of_kind().filter(ended).count() {
                0 => {}
                n => sheet.count(&f::DRILLS, &[name, kind.word(), outcome.word()], n as u64),
            }
        }
        if let Some(ms) = of_kind().filter_map(|drill| drill.measured.recovery_ms).next_back() {
            sheet.set(&f::DRILL_LAST_RECOVERY, &[name, kind.word()], seconds(ms));
        }
    }
}

/// D3: the figures of this month and of the one before. Months by name would be ever more of them.
fn drill_months(sheet: &mut Sheet, name: &GroupName, group: &GroupState, now: UnixMs) {
    let (name, drills) = (name.as_str(), &group.drills);
    let Some(last) = drills.past.back() else { return };
    sheet.set(&f::DRILL_RTO, &[name], seconds(last.settings.rto_ms));
    sheet.set(&f::DRILL_RPO, &[name], seconds(last.settings.rpo_ms));
    let zone = last.settings.zone.as_str();
    let counted = monthly(&drills.past, &drills.skipped, |at| calendar::month(at, zone));
    let current = calendar::month(now, zone);
    let ratio = |part: u32, of: u32| f64::from(part) / f64::from(of.max(1));
    for (word, month) in [("current", current.clone()), ("previous", month_before(&current))] {
        let it = counted.get(&month).cloned().unwrap_or_default();
        let ended = [("passed", it.passed), ("failed", it.failed), ("aborted", it.aborted), ("skipped", it.skipped)];
        for (outcome, n) in ended {
            sheet.count(&f::DRILL_MONTH, &[name, word, outcome], n.into());
        }
        if it.passed + it.failed > 0 {
            sheet.set(&f::DRILL_MONTH_SUCCESS, &[name, word], ratio(it.passed, it.passed + it.failed));
        }
        for (stat, ms) in [("mean", it.recovery_mean_ms), ("worst", it.recovery_worst_ms)] {
            ms.into_iter().for_each(|ms| sheet.set(&f::DRILL_MONTH_RECOVERY, &[name, word, stat], seconds(ms)));
        }
        if it.recoveries > 0 {
            sheet.set(&f::DRILL_MONTH_RTO_MET, &[name, word], ratio(it.recoveries_met, it.recoveries));
        }
        if it.losses > 0 {
            sheet.set(&f::DRILL_MONTH_NO_LOSS, &[name, word], ratio(it.losses_none, it.losses));
        }
        for (family, worst) in
            [(&f::DRILL_MONTH_ROWS_LOST, it.rows_lost_worst), (&f::DRILL_MONTH_BYTES_LOST, it.bytes_lost_worst)]
        {
            worst.into_iter().for_each(|worst| sheet.count(family, &[name, word], worst));
        }
    }
}

/// `2026-01` follows `2025-12`.
fn month_before(month: &str) -> String {
    let mut parts = month.splitn(2, '-').map(|part| part.parse::<u32>().unwrap_or(1));
    let (year, month) = (parts.next().unwrap_or(1), parts.next().unwrap_or(1));
    if month <= 1 { format!("{:04}-12", year.saturating_sub(1)) } else { format!("{year:04}-{:02}", month - 1) }
}

fn lease_gauges(sheet: &mut Sheet, name: &GroupName, group: &GroupState) {
    let Fencing::Lease { ttl_ms } = &group.fencing else { return };
    let name = name.as_str();
    sheet.flag(&f::LEASE_BOUND, &[name], group.lease.is_some());
    sheet.set(&f::LEASE_TTL, &[name], seconds(*ttl_ms));
    if let Some(binding) = &group.lease {
        sheet.count(&f::LEASE_HOLDERS, &[name], binding.holders.len() as u64);
    }
}

/// What only the leader counts.
fn led(sheet: &mut Sheet, backend: &Backend, name: &GroupName, found: &GroupSight) {
    let look = backend.parts.look.borrow().clone();
    let is_blocked = look.explain.get(name).is_some_and(|explained| explained.standing == Standing::Blocked);
    sheet.flag(&f::GROUP_BLOCKED, &[name.as_str()], is_blocked);
    let mut votes: BTreeMap<(&TargetName, &RegionName, Verdict), u64> = BTreeMap::new();
    for VoteSight { target, region, .. } in &found.votes {
        for verdict in VERDICTS {
            votes.entry((target, region, verdict)).or_default();
        }
    }
    for vote in found.votes.iter().filter(|vote| vote.not_counted.is_none()) {
        *votes.entry((&vote.target, &vote.region, vote.verdict)).or_default() += 1;
    }
    for ((target, region, verdict), n) in votes {
        let labels = [name.as_str(), target.as_str(), region.as_str(), &verdict.to_string()];
        sheet.count(&f::TARGET_VOTES, &labels, n);
    }
    for into in &found.replication {
        if let Some(ms) = into.expected_loss_ms {
            sheet.set(&f::EXPECTED_LOSS, &[name.as_str(), into.region.as_str()], seconds(ms));
        }
    }
    if let Some(ms) = found.lease.as_ref().and_then(|lease| lease.granted_ms) {
        sheet.set(&f::LEASE_GRANT_AGE, &[name.as_str()], seconds(ms));
    }
}

/// Alarms and the outbox.
fn told(sheet: &mut Sheet, state: &ClusterState) {
    let mut alarms: BTreeMap<&str, u64> = BTreeMap::new();
    for alarm in state.alarms.values() {
        *alarms.entry(alarm.event.as_str()).or_default() += 1;
    }
    for (event, n) in alarms {
        sheet.count(&f::ALARMS, &[event], n);
    }
    let now = unix_now();
    for receiver in &state.receivers {
        let of = |wanted: fn(&Delivery) -> bool| {
            state.outbox.iter().filter(move |entry| entry.deliveries.get(receiver).is_some_and(wanted))
        };
        let pending = |delivery: &Delivery| matches!(delivery, Delivery::Pending);
        let name = [receiver.as_str()];
        sheet.count(&f::OUTBOX_PENDING, &name, of(pending).count() as u64);
        let oldest = of(pending).next().map_or(0, |entry| now.since(entry.at));
        sheet.set(&f::OUTBOX_OLDEST, &name, seconds(oldest));
        let refused = of(|delivery| matches!(delivery, Delivery::Refused { .. })).count();
        sheet.count(&f::OUTBOX_REFUSED, &name, refused as u64);
    }
}

/// What people should have in hand, and whether somebody has.
fn incidents(sheet: &mut Sheet, state: &ClusterState) {
    let now = unix_now();
    for severity in Severity::ALL {
        let word = severity.word();
        let open = || state.incidents.values().filter(|incident| incident.severity() == severity);
        let (had, free): (Vec<_>, Vec<_>) = open().partition(|incident| incident.acknowledged.is_some());
        sheet.count(&f::INCIDENTS, &[word, "true"], had.len() as u64);
        sheet.count(&f::INCIDENTS, &[word, "false"], free.len() as u64);
        let oldest = free.iter().map(|incident| now.since(incident.at)).max().unwrap_or(0);
        sheet.set(&f::OLDEST_INCIDENT, &[word], seconds(oldest));
    }
}

fn unix_seconds(at: UnixMs) -> f64 {
    Duration::from_millis(at.0).as_secs_f64()
}
