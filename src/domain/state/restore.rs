//! Putting a backup back into a cluster that was formed anew, whose every node was lost.
//!
//! The new cluster has a higher epoch, so that every token it issues is above whatever any resource remembers (tokens
//! compare by their epoch first), and guards take nothing from it before they were enrolled with it by hand. What may have
//! changed since the backup was made is not believed:
//!
//! * **Serving.** A run may have moved it. An operator says, by name, where each group serves; nothing is guessed.
//! * **An open run** is not resumed: nobody knows how far it came. Its started steps are left unsettled, to be read back
//!   under a higher token; its record goes to the history as aborted, and its incident is closed.
//! * **Leases** are unbound: the silence of a guard that is not enrolled with this cluster proves nothing.
//! * **A fence that was still due** is not carried out: its host may be the one that serves by now.
//! * **Every group is paused** until a person has looked.
//! * **Request ids** are kept, so that a call which is repeated from before is answered as it was and not done again.
//! * **Alarms** and incidents are kept, so that they are resolved when they are over, where they were told; those that were
//!   never delivered are told anew.
//! * **Pages** of the outbox are not: what the old cluster still had to say is old. The audit shows them.
//! * **Node numbers** begin anew: they belong to the old cluster's log, and no node of it can speak with the new.
//!
//! It comes in parts that fit into a command each, and takes effect in one: whoever dies before leaves a cluster that is as
//! empty as it was.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::orders::leave_unsettled;
use super::timeline::note;
use super::{
    ANSWERED_KEPT, Alarm, Answered, AuditEntry, ClusterState, Effect, Entry, GroupState, HISTORY_KEPT, Link, Pause,
    Serving, bound, reject,
};
use crate::domain::command::{Applied, Rejection, RejectionCode};
use crate::domain::ids::{ClusterName, GroupName, Principal, RegionName, Token, UnixMs};
use crate::domain::incident::Incident;
use crate::domain::page::Delivery;
use crate::domain::run::{Run, RunOutcome, RunPhase};

/// A backup has no more parts: each closed run is one of its own.
pub const PARTS_MAX: u32 = 2048;
/// Entries are put into one part until their texts have so many bytes: with everything around them a command stays well
/// below what is proposed.
const PART_BYTES: usize = 64 << 10;
/// Of a run's timeline at most so many lines are put back, the newest, and fewer where they are long.
const EVENTS_PUT_BACK: usize = 200;
/// Of their texts, bytes.
const EVENTS_BYTES: usize = 64 << 10;

/// One part of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "part")]
pub enum BackupPart {
    /// The first.
    Head {
        /// The old cluster.
        cluster: ClusterName,
        /// Its epoch.
        epoch: u64,
        /// How far it had come.
        applied_index: u64,
        /// Its pages were numbered so far.
        next_page: u64,
        /// What its oldest audit entry follows.
        audit_base: Link,
    },
    /// A group without its history.
    Group {
        /// Its name.
        name: GroupName,
        /// How it stood.
        state: Box<GroupState>,
    },
    /// A closed run; in order.
    Run {
        /// Its group.
        group: GroupName,
        /// It.
        run: Box<Run>,
    },
    /// Alarms.
    Alarms {
        /// By key.
        alarms: BTreeMap<String, Alarm>,
    },
    /// What was told and is not over.
    Incidents {
        /// They.
        incidents: Vec<Incident>,
    },
    /// Audit entries; in order.
    Audit {
        /// They.
        entries: Vec<AuditEntry>,
    },
    /// Answers to admin calls; in order.
    Answers {
        /// They.
        answers: Vec<Answered>,
    },
}

/// A backup that is being handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// Which: the SHA-256 of its state.
    pub id: String,
    /// The next part's number.
    pub next: u32,
    /// What came of it.
    pub whole: ClusterState,
}

/// When and by whom a backup was made; for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOrigin {
    /// Its id.
    pub id: String,
    /// When.
    pub at: UnixMs,
    /// By whom.
    pub by: Principal,
}

/// What becomes of one group, the backup and the present side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRestored {
    /// The group.
    pub group: GroupName,
    /// Who served when the backup was made (`None`: nobody did); the outer `None` where the backup does not know the group.
    pub served: Option<Option<RegionName>>,
    /// Who serves from now on.
    pub serves: RegionName,
    /// The last token of the old cluster.
    pub token_before: Option<Token>,
    /// The first of this one.
    pub token: Token,
    /// The run that was open and is not resumed, with its phase.
    pub open_run: Option<String>,
    /// Resources that are left unsettled.
    pub unsettled: Vec<String>,
    /// Closed runs.
    pub runs: usize,
}

/// A state as the parts that it is handed over in.
pub fn parts(state: &ClusterState) -> Vec<BackupPart> {
    let mut parts = vec![BackupPart::Head {
        cluster: state.cluster.clone().unwrap_or_else(|| ClusterName(String::new())),
        epoch: state.epoch,
        applied_index: state.applied_index,
        next_page: state.next_page,
        audit_base: state.audit_base,
    }];
    let shorten = |run: &Run| {
        let mut run = run.clone();
        let mut bytes = 0_usize;
        let fits = run.events.iter().rev().take(EVENTS_PUT_BACK).take_while(|event| {
            bytes = bytes.saturating_add(event.what.len() + 200);
            bytes <= EVENTS_BYTES
        });
        let excess = run.events.len().saturating_sub(fits.count());
        run.events.drain(..excess);
        run
    };
    for (name, group) in &state.groups {
        let open_run = group.open_run.as_ref().map(shorten);
        let bare = GroupState { history: VecDeque::new(), open_run, ..group.clone() };
        parts.push(BackupPart::Group { name: name.clone(), state: Box::new(bare) });
        let runs = group.history.iter().map(|run| (name.clone(), Box::new(shorten(run))));
        parts.extend(runs.map(|(group, run)| BackupPart::Run { group, run }));
    }
    let untold: BTreeSet<&str> = untold(state).collect();
    let alarms = state.alarms.iter().filter(|(key, _)| !untold.contains(key.as_str()));
    let alarms = alarms.map(|(key, alarm)| (key.clone(), alarm.clone()));
    let sized = |one: &(String, Alarm)| one.0.len() + one.1.summary.len();
    parts.extend(packed(alarms, sized).map(|alarms| BackupPart::Alarms { alarms: alarms.into_iter().collect() }));
    let incidents = state.incidents.values().filter(|one| !untold.contains(one.key())).cloned();
    let sized = |one: &Incident| {
        let details = one.page.details.iter().map(|(key, value)| key.len() + value.len() + 8).sum::<usize>();
        one.page.summary.len() + details + one.tellings.len() * 200
    };
    parts.extend(packed(incidents, sized).map(|incidents| BackupPart::Incidents { incidents }));
    let sized = |one: &AuditEntry| {
        one.what.len() + one.reason.len() + one.outcome.len() + one.evidence.iter().map(String::len).sum::<usize>()
    };
    parts.extend(packed(state.audit.iter().cloned(), sized).map(|entries| BackupPart::Audit { entries }));
    let sized = |one: &Answered| match &one.applied {
        Applied::Rejected(rejection) => one.change.len() + rejection.message.len(),
        _ => one.change.len(),
    };
    parts.extend(packed(state.answered.iter().cloned(), sized).map(|answers| BackupPart::Answers { answers }));
    parts
}

/// Alarms whose page nobody has taken yet.
fn untold(state: &ClusterState) -> impl Iterator<Item = &str> {
    let is_pending = |delivery: &Delivery| matches!(delivery, Delivery::Pending);
    let untold = state.outbox.iter().filter(move |waiting| waiting.deliveries.values().all(is_pending));
    let took = |key: &str| {
        let of_key = state.outbox.iter().filter(|waiting| waiting.page.key == key);
        of_key.flat_map(|waiting| waiting.deliveries.values()).any(|one| matches!(one, Delivery::Delivered { .. }))
    };
    untold.map(|waiting| waiting.page.key.as_str()).filter(move |key| !took(key))
}

/// Items, as many together as fit.
fn packed<T>(items: impl Iterator<Item = T>, sized: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    /// What an item has besides its texts.
    const AROUND: usize = 400;
    let (mut packs, mut bytes) = (Vec::<Vec<T>>::new(), usize::MAX);
    for item in items {
        let size = sized(&item).saturating_add(AROUND);
        match packs.last_mut() {
            Some(pack) if bytes.saturating_add(size) <= PART_BYTES => {
                pack.push(item);
                bytes += size;
            }
            _ => {
                packs.push(vec![item]);
                bytes = size;
            }
        }
    }
    packs.into_iter()
}

impl ClusterState {
    /// Nothing was ever decided here: no run, no token.
    fn is_unused(&self) -> Result<(), Rejection> {
        for (name, group) in &self.groups {
            let is_used = group.token.n > 0 || group.open_run.is_some() || !group.history.is_empty();
            if is_used {
                let message = format!(
                    "group {name} has had runs or tokens in this cluster (token {}): a backup goes into a new, unused one only",
                    group.token
                );
                return reject(RejectionCode::Illegal, message);
            }
        }
        match self.cluster {
            Some(_) => Ok(()),
            None => reject(RejectionCode::OtherConfig, "no configuration is in force yet: ask again when one is"),
        }
    }

    /// A group that was registered by a cluster that was formed anew knows nothing of what happened before: nothing
    /// automatic starts in it until a person has restored a backup, or said that there is nothing to restore.
    pub(super) fn begin_paused(&mut self, entry: Entry<'_>, names: &[GroupName]) {
        let reason = format!(
            "epoch {}: this cluster was formed anew, and does not know what happened before; restore a backup (watchdogctl \
             cluster restore), or see that every group is served from its home region, then resume",
            self.epoch
        );
        for (_, group) in self.groups.iter_mut().filter(|(name, _)| names.contains(name)) {
            group.pause = Some(Pause { by: entry.by.clone(), at: entry.at, reason: reason.clone(), until: None });
            group.unconfirmed = true;
        }
    }

    /// Parts come in order; one that came before changes nothing, so that handing over can be repeated from the start.
    pub(super) fn restore_part(&mut self, id: &str, part: u32, content: &BackupPart) -> Effect {
        self.is_unused()?;
        if let BackupPart::Head { .. } = content {
            if part != 0 {
                return reject(RejectionCode::Invalid, format!("part {part}: a head is part 0"));
            }
            if self.restoring.as_ref().is_some_and(|restoring| restoring.id == id) {
                return Ok(None);
            }
            self.restoring = Some(Box::new(Restoring { id: id.to_owned(), ..Restoring::default() }));
        }
        let Some(restoring) = self.restoring.as_mut().filter(|restoring| restoring.id == id) else {
            return reject(RejectionCode::Stale, format!("part {part} of backup {id}, which is not being handed over"));
        };
        if part < restoring.next {
            return Ok(None);
        }
        if part > restoring.next || part >= PARTS_MAX {
            let message =
                format!("part {part} of backup {id}: part {} comes next, and {PARTS_MAX} is too many", restoring.next);
            return reject(RejectionCode::Stale, message);
        }
        restoring.next += 1;
        restoring.whole.take_part(content);
        Ok(None)
    }

    fn take_part(&mut self, part: &BackupPart) {
        match part {
            BackupPart::Head { cluster, epoch, applied_index, next_page, audit_base } => {
                self.cluster = Some(cluster.clone());
                self.epoch = *epoch;
                self.applied_index = *applied_index;
                self.next_page = *next_page;
                self.audit_base = *audit_base;
            }
            BackupPart::Group { name, state } => {
                self.groups.insert(name.clone(), (**state).clone());
            }
            BackupPart::Run { group, run } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.history.push_back((**run).clone());
                    bound(&mut group.history, HISTORY_KEPT);
                }
            }
            BackupPart::Alarms { alarms } => self.alarms.extend(alarms.clone()),
            BackupPart::Incidents { incidents } => {
                self.incidents.extend(incidents.iter().map(|one| (one.key().to_owned(), one.clone())));
            }
            BackupPart::Audit { entries } => self.audit.extend(entries.iter().cloned()),
            BackupPart::Answers { answers } => self.answered.extend(answers.iter().cloned()),
        }
    }

    /// What would become of each group, or why it cannot be. Asked by a dry run, and again when it is applied.
    ///
    /// # Errors
    /// The first thing that stands in the way.
    pub fn would_restore(
        &self,
        backup: &ClusterState,
        serving: &BTreeMap<GroupName, RegionName>,
    ) -> Result<Vec<GroupRestored>, Rejection> {
        let (Some(own), Some(old)) = (&self.cluster, &backup.cluster) else {
            self.is_unused()?;
            return reject(RejectionCode::Invalid, "backup: it is of a cluster that had adopted no configuration");
        };
        if own != old {
            return reject(RejectionCode::OtherConfig, format!("the backup is of cluster {old}, this is {own}"));
        }
        if self.epoch <= backup.epoch {
            let message = format!(
                "this cluster's epoch is {}, the backup's {}: give the nodes a configuration with epoch = {} or higher, and higher \
                 than any that this cluster ever had, so that every token is above what resources remember; form the cluster anew",
                self.epoch,
                backup.epoch,
                backup.epoch.saturating_add(1)
            );
            return reject(RejectionCode::OtherConfig, message);
        }
        self.is_unused()?;
        if let Some(missing) = backup.groups.keys().find(|name| !self.groups.contains_key(*name)) {
            let message = format!(
                "the backup has group {missing}, which the configuration in force has not: add it; it can be taken out later"
            );
            return reject(RejectionCode::OtherConfig, message);
        }
        if let Some(unknown) = serving.keys().find(|name| !self.groups.contains_key(*name)) {
            return reject(
                RejectionCode::NotFound,
                format!("serving: there is no group {unknown} in the configuration in force"),
            );
        }
        let of = |(name, group): (&GroupName, &GroupState)| self.group_restored(name, group, backup, serving);
        self.groups.iter().map(of).collect()
    }

    fn group_restored(
        &self,
        name: &GroupName,
        group: &GroupState,
        backup: &ClusterState,
        serving: &BTreeMap<GroupName, RegionName>,
    ) -> Result<GroupRestored, Rejection> {
        let old = backup.groups.get(name);
        let regions = group.regions.iter().map(RegionName::as_str).collect::<Vec<_>>().join(", ");
        let Some(serves) = serving.get(name) else {
            let then = old.map_or(String::new(), |old| match &old.serving.region {
                Some(region) => format!("; when the backup was made it was {region}"),
                None => format!("; when the backup was made nobody served, {} the last", old.serving.last),
            });
            let message = format!(
                "serving: which region serves {name} now, {regions}{then}? Look at its databases, then say --serving {name}=REGION"
            );
            return reject(RejectionCode::Invalid, message);
        };
        if !group.regions.contains(serves) {
            let message = format!("serving: {name} cannot be served from {serves}; its regions are {regions}");
            return reject(RejectionCode::Invalid, message);
        }
        let open = old.and_then(|old| old.open_run.as_ref());
        let mut unsettled: BTreeSet<String> =
            old.iter().flat_map(|old| old.unsettled.keys()).map(ToString::to_string).collect();
        unsettled.extend(open.into_iter().flat_map(open_questions).map(|resource| resource.to_string()));
        Ok(GroupRestored {
            group: name.clone(),
            served: old.map(|old| old.serving.region.clone()),
            serves: serves.clone(),
            token_before: old.map(|old| old.token),
            token: Token { epoch: self.epoch, n: 1 },
            open_run: open.map(|run| {
                format!("{} ({} from {} to {}, {})", run.id, run.kind, run.from(), run.to(), run.phase.word())
            }),
            unsettled: unsettled.into_iter().collect(),
            runs: old.map_or(0, |old| old.history.len()),
        })
    }

    pub(super) fn restore(
        &mut self,
        entry: Entry<'_>,
        origin: &BackupOrigin,
        parts: u32,
        serving: &BTreeMap<GroupName, RegionName>,
        reason: &str,
    ) -> Effect {
        if reason.trim().is_empty() {
            return reject(RejectionCode::Invalid, "reason: say why, for the audit");
        }
        let handed = self.restoring.as_ref().filter(|restoring| restoring.id == origin.id && restoring.next == parts);
        let Some(backup) = handed.map(|restoring| restoring.whole.clone()) else {
            let message = format!("backup {} was not handed over whole: hand it over again", origin.id);
            return reject(RejectionCode::Stale, message);
        };
        let restored = self.would_restore(&backup, serving)?;
        self.restoring = None;
        let why =
            format!("restored from the backup of log position {} by {}: {reason}", backup.applied_index, entry.by);
        let mut aborted = Vec::new();
        for one in restored {
            if let Some(group) = self.groups.get_mut(&one.group) {
                let old = backup.groups.get(&one.group);
                aborted.extend(put_back(group, old, &one, entry, &why));
            }
        }
        self.alarms = backup.alarms.clone().into_iter().chain(std::mem::take(&mut self.alarms)).collect();
        self.incidents = backup.incidents.clone().into_iter().chain(std::mem::take(&mut self.incidents)).collect();
        self.next_page = self.next_page.max(backup.next_page);
        self.answered = backup.answered.iter().cloned().chain(std::mem::take(&mut self.answered)).collect();
        bound(&mut self.answered, ANSWERED_KEPT);
        // The new cluster's own chain is on its nodes' disks already: it is never written anew, and names where the old ended.
        self.audit_before = Some(backup.audit_head());
        for (run, was_stuck) in aborted {
            if was_stuck {
                self.page_unstuck(entry, &run, "the run is over");
            }
            self.page_closed(entry, &run, RunOutcome::Aborted, &why);
        }
        Ok(None)
    }
}

/// Resources at which the run's started steps may still take effect.
fn open_questions(run: &Run) -> impl Iterator<Item = crate::domain::ids::ResourceName> {
    let open = run.plan.steps().filter(|(_, step)| run.phase_of(&step.id).is_open_question());
    open.filter_map(|(_, step)| step.action.resource()).collect::<Vec<_>>().into_iter()
}

/// One group from the backup. Gives the run that was open, as it is closed.
fn put_back(
    group: &mut GroupState,
    old: Option<&GroupState>,
    restored: &GroupRestored,
    entry: Entry<'_>,
    why: &str,
) -> Option<(Run, bool)> {
    let here = &restored.serves;
    let before = old.map_or(0, |old| old.serving.epoch);
    let was_here = old.is_some_and(|old| old.serving.region.as_ref() == Some(here));
    group.serving = Serving {
        region: Some(here.clone()),
        last: here.clone(),
        epoch: group.serving.epoch.max(before).saturating_add(1),
    };
    // Issued by this very command, and to nobody: what is left unsettled is settled under it.
    group.token = restored.token;
    group.pause = Some(Pause { by: entry.by.clone(), at: entry.at, reason: why.to_owned(), until: None });
    group.unconfirmed = false;
    group.resumed_at = None;
    group.lease = None;
    group.seen_up.clear();
    let traffic = old.filter(|old| was_here && group.regions.contains(&old.traffic)).map(|old| old.traffic.clone());
    group.traffic = traffic.unwrap_or_else(|| here.clone());
    let old = old?;
    group.history.clone_from(&old.history);
    group.last_failover.clone_from(&old.last_failover);
    group.unsettled.clone_from(&old.unsettled);
    let open = old.open_run.clone();
    if let Some(run) = &open {
        for (_, step) in run.plan.steps().filter(|(_, step)| run.phase_of(&step.id).is_open_question()) {
            leave_unsettled(group, run, step, entry);
        }
    }
    group.unsettled.values_mut().for_each(|left| left.is_due = false);
    let mut run = open?;
    let was_stuck = matches!(run.phase, RunPhase::Stuck { .. });
    note(&mut run, entry, None, format!("aborted: {why}"));
    run.phase = RunPhase::Closed { outcome: RunOutcome::Aborted, at: entry.at };
    group.history.push_back(run.clone());
    bound(&mut group.history, HISTORY_KEPT);
    Some((run, was_stuck))
}
