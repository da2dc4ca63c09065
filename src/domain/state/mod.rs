//! The replicated state: what every node holds after applying the same log.
//!
//! [`ClusterState::apply`] is deterministic and total. `groups` holds what concerns a group as such, `runs` the life of a
//! run, `outbox` the pages, `audit` who did what.

mod audit;
mod drills;
mod groups;
mod incidents;
mod lease;
mod monitor;
mod nodes;
mod orders;
mod outbox;
mod readiness;
#[cfg(test)]
mod redis_tests;
mod restore;
#[cfg(test)]
mod restore_tests;
mod runs;
#[cfg(test)]
mod tests;
mod timeline;
mod turning;
#[cfg(test)]
mod turning_tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::audit::{AuditEntry, AuditHash, Link};
use super::command::{Applied, Change, Command, Rejection, RejectionCode, RunOrder};
use super::ids::{
    ClusterName, ConfigDigest, GroupName, NodeId, Principal, ReceiverName, RegionName, RequestId, ResourceName, RunId,
    TargetName, Token, UnixMs,
};
use super::incident::Incident;
use super::lease::LeaseBinding;
use super::on_call::OnCall;
use super::page::OutboxEntry;
use super::plan::Action;
use super::policy::Fencing;
use super::readiness::mark::Mark;
use super::run::Run;
use super::sealed::{Sealed, digest_of};

pub use drills::{DRILLS_KEPT, GroupDrills};
pub use nodes::{NODES_MAX, NodePhase, NodeRecord, NodeRecords, NodeSpec, NodeStep};
pub use restore::{BackupOrigin, BackupPart, GroupRestored, PARTS_MAX, Restoring, parts};

/// Which region may accept writes now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// `None`: nobody, between the fence's start and the promotion's.
    pub region: Option<RegionName>,
    /// The last region that served: what a run moves away from.
    pub last: RegionName,
    /// Counts changes of `region`.
    pub epoch: u64,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who.
    pub by: Principal,
    /// Since when.
    pub at: UnixMs,
    /// Why.
    pub reason: String,
    /// When it ends by itself.
    pub until: Option<UnixMs>,
}

/// A resource where an aborted or skipped step may still have an effect under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    /// The run that left it.
    pub run: RunId,
    /// The token it was started under: only a higher one keeps out what may still be on its way.
    pub token: Token,
    /// Since when.
    pub since: UnixMs,
    /// The action to read back by.
    pub action: Action,
    /// It is still to be carried out: a fence whose proof was an expired lease.
    #[serde(default)]
    pub is_due: bool,
}

impl GroupState {
    /// What an action must wait for at its resource. A fence does not wait for a service's action that was left under way, and
    /// that a dead host answers nothing about: its own request raises a later token there before anything else, and ends or
    /// waits for what is at work.
    pub fn left_in_the_way(&self, action: &Action) -> Option<(&ResourceName, &Unsettled)> {
        let left = self.unsettled.get_key_value(&action.resource()?);
        let is_fence = matches!(action, Action::Fence { .. });
        left.filter(|(_, left)| left.is_due || !is_fence || !matches!(left.action, Action::Guarded { .. }))
    }
}

/// The last failover that completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailover {
    /// Which run.
    pub run: RunId,
    /// When it closed.
    pub at: UnixMs,
    /// Nobody asked for it.
    pub automatic: bool,
    /// The serving epoch it was opened in.
    pub serving_epoch: u64,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Where it serves from when all is well.
    pub home: RegionName,
    /// Every region that may serve it.
    pub regions: Vec<RegionName>,
    /// Which region may accept writes.
    pub serving: Serving,
    /// Where the load balancer's records point: moved by `traffic` runs, and by whatever moves `serving`.
    pub traffic: RegionName,
    /// The last token issued; n = 0 where none was.
    pub token: Token,
    /// Paused by whom, why, until when.
    pub pause: Option<Pause>,
    /// Registered by a cluster that was formed anew, and neither restored nor confirmed by an operator since: nobody knows
    /// who serves.
    #[serde(default)]
    pub unconfirmed: bool,
    /// When the last pause ended: patience does not run while paused.
    #[serde(default)]
    pub resumed_at: Option<UnixMs>,
    /// The fencing mode in force.
    pub fencing: Fencing,
    /// The lease that bounds the serving region's primary; while there is none, silence proves nothing.
    #[serde(default)]
    pub lease: Option<LeaseBinding>,
    /// The run that is not closed: at most one (P1).
    pub open_run: Option<Run>,
    /// Closed runs, newest last, bounded.
    #[serde(default)]
    pub history: VecDeque<Run>,
    /// The last failover that succeeded.
    pub last_failover: Option<LastFailover>,
    /// Targets seen up under the digest in force.
    #[serde(default)]
    pub seen_up: BTreeSet<TargetName>,
    /// What the leaders judged its readiness to be, last that it changed.
    #[serde(default)]
    pub readiness: Option<Mark>,
    /// Its drills.
    #[serde(default, skip_serializing_if = "GroupDrills::is_empty")]
    pub drills: GroupDrills,
    /// Resources to settle before anything else is done to them.
    #[serde(default)]
    pub unsettled: BTreeMap<ResourceName, Unsettled>,
}

/// Answers to admin calls, kept so that the same request id gets the first answer again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The request.
    pub id: RequestId,
    /// What it asked for: the same id for something else is refused.
    pub change: String,
    /// What was answered.
    pub applied: Applied,
}

/// A condition that was paged and is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Since when.
    pub since: UnixMs,
    /// The page that told of it.
    pub event: String,
    /// Its line.
    pub summary: String,
    /// The group it concerns.
    pub group: Option<GroupName>,
}

/// How many entries of the audit are kept; older ones are in the nodes' files.
pub const AUDIT_KEPT: usize = 1000;
/// Closed runs kept per group.
pub const HISTORY_KEPT: usize = 50;
/// Answers to admin calls kept.
pub const ANSWERED_KEPT: usize = 512;
/// Of these, answers to notes of refused calls.
const NOTES_ANSWERED_KEPT: usize = 128;
/// Pages kept after every receiver took them.
pub const TOLD_KEPT: usize = 50;
/// Pages waiting for a receiver: past this the oldest gives way, and the audit says so.
pub const OUTBOX_MAX: usize = 2000;
/// Open incidents: past this the oldest gives way, rather one that somebody has, and the audit says so.
pub const INCIDENTS_MAX: usize = 200;
/// Incidents kept after they were over.
pub const PAST_INCIDENTS_KEPT: usize = 50;
/// Lines of a run's timeline.
pub const EVENTS_KEPT: usize = 500;
/// Claims of a run kept.
pub const CLAIMS_KEPT: usize = 100;

/// Everything that is replicated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterState {
    /// The cluster's name, once a configuration was adopted.
    pub cluster: Option<ClusterName>,
    /// Its epoch.
    pub epoch: u64,
    /// The configuration in force.
    pub digest: Option<ConfigDigest>,
    /// Who is paged.
    pub receivers: Vec<ReceiverName>,
    /// The groups.
    pub groups: BTreeMap<GroupName, GroupState>,
    /// Pages not yet settled with every receiver, oldest first, and the newest that are.
    pub outbox: VecDeque<OutboxEntry>,
    /// The next page's number.
    pub next_page: u64,
    /// Conditions that were paged and are not over, by key.
    pub alarms: BTreeMap<String, Alarm>,
    /// Who of the receivers is told when, and how bad what is.
    pub on_call: OnCall,
    /// What was told and is not over, by key. Bounded.
    pub incidents: BTreeMap<String, Incident>,
    /// What is over, newest last, bounded.
    pub past_incidents: VecDeque<Incident>,
    /// Nodes that were ever added or removed, by number: numbers are used once.
    pub nodes: NodeRecords,
    /// Bounded: the newest.
    pub audit: VecDeque<AuditEntry>,
    /// What the oldest kept entry follows.
    pub audit_base: Link,
    /// Where the audit ended of the cluster whose backup was restored here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_before: Option<Link>,
    /// Bounded.
    pub answered: VecDeque<Answered>,
    /// A backup that is being handed over to a new cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restoring: Option<Box<Restoring>>,
    /// Position of the last command applied.
    pub applied_index: u64,
}

/// What a change's handler answers: a token where one was issued.
type Effect = Result<Option<Token>, Rejection>;

/// Where and by whom a command was proposed, handed to the handlers.
#[derive(Clone, Copy)]
struct Entry<'a> {
    index: u64,
    node: NodeId,
    at: UnixMs,
    by: &'a Principal,
    from: Option<&'a str>,
    /// Of the command's bytes.
    command: AuditHash,
}

fn reject<T>(code: RejectionCode, message: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection { code, message: message.into() })
}

/// Drops from the front until at most `max` are left.
fn bound<T>(queue: &mut VecDeque<T>, max: usize) {
    while queue.len() > max {
        queue.pop_front();
    }
}

impl ClusterState {
    /// Applies a command of the log. Deterministic and total: what is stale or illegal is a recorded rejection.
    pub fn apply_sealed(&mut self, index: u64, sealed: &Sealed) -> Applied {
        self.apply_as(index, sealed.command(), sealed.digest())
    }

    /// As [`apply_sealed`](Self::apply_sealed), of a command that is in no log: it is taken for the bytes that it would have.
    pub fn apply(&mut self, index: u64, command: &Command) -> Applied {
        self.apply_as(index, command, digest_of(command))
    }

    fn apply_as(&mut self, index: u64, command: &Command, digest: AuditHash) -> Applied {
        self.applied_index = index;
        let from = command.from.as_deref();
        let entry = Entry { index, node: command.node, at: command.at, by: &command.by, from, command: digest };
        let fingerprint = fingerprint(&command.change);
        if let Some(id) = &command.request_id
            && let Some(answered) = self.answered.iter().find(|answered| &answered.id == id)
        {
            if answered.change == fingerprint {
                return answered.applied.clone();
            }
            let rejected = Applied::Rejected(Rejection {
                code: RejectionCode::Invalid,
                message: format!("request_id: {id} was used for \"{}\" before; choose a new one", answered.change),
            });
            self.record(entry, &command.change, &rejected);
            return rejected;
        }
        let applied = match self.change(entry, &command.change) {
            Ok(token) => Applied::Done { token, index },
            Err(rejection) => Applied::Rejected(rejection),
        };
        self.record(entry, &command.change, &applied);
        if let Some(id) = &command.request_id {
            self.remember(Answered { id: id.clone(), change: fingerprint, applied: applied.clone() });
        }
        applied
    }

    /// Keeps an answer. Notes of refused calls have a share of their own: whoever is refused often must not push out the
    /// answers that make an operator's call safe to repeat.
    fn remember(&mut self, answer: Answered) {
        let is_note = |answer: &Answered| answer.change.starts_with("Note ");
        if is_note(&answer) && self.answered.iter().filter(|known| is_note(known)).count() >= NOTES_ANSWERED_KEPT {
            let oldest = self.answered.iter().position(is_note);
            oldest.and_then(|at| self.answered.remove(at));
        }
        self.answered.push_back(answer);
        bound(&mut self.answered, ANSWERED_KEPT);
    }

    fn change(&mut self, entry: Entry<'_>, change: &Change) -> Effect {
        match change {
            Change::AdoptConfig { cluster, epoch, digest, groups, receivers, on_call } => {
                let new = groups.keys().filter(|name| !self.groups.contains_key(*name)).cloned().collect::<Vec<_>>();
                let adopted = self.adopt_config(cluster, *epoch, digest, groups, (receivers, on_call))?;
                // Also what is added later, until a backup was restored: it may be in that backup.
                if *epoch > 1 && self.audit_before.is_none() {
                    self.begin_paused(entry, &new);
                }
                Ok(adopted)
            }
            Change::MarkSeenUp { group, digest, targets } => self.mark_seen_up(group, digest, targets),
            Change::OpenRun { .. } => {
                let opened = self.open_run(entry, change)?;
                // Nothing is restored into a cluster that is in use.
                self.restoring = None;
                Ok(opened)
            }
            Change::ClaimRun { group, run, expected_token, floor } => {
                self.claim_run(entry, group, run, *expected_token, *floor)
            }
            Change::StepStarted { .. } => self.step_started(entry, change),
            Change::StepFinished { group, run, step, token, attempt, outcome } => {
                self.step_finished(entry, (group, run, *token), step, *attempt, outcome)
            }
            Change::MarkStuck { group, run, token, step, reason } => {
                self.mark_stuck(entry, (group, run, *token), step, reason)
            }
            Change::Unstick { group, run, token, reason } => self.unstick(entry, (group, run, *token), reason),
            Change::TurnBack { group, run, token, reason } => self.turn_back(entry, (group, run, *token), reason),
            Change::CloseRun { .. } => self.close_run(entry, change),
            Change::Settle { group, resource, untouched, .. } => self.settle(group, resource, *untouched),
            Change::Order { group, run, expected_token, order, reason } => {
                self.order(entry, (group, run, *expected_token), order, reason)
            }
            Change::BindLease { group, binding } => self.bind_lease(group, binding),
            Change::UnbindLease { group, .. } => self.unbind_lease(group),
            Change::LeaseLapsed { group, run, token, step, evidence } => {
                self.lease_lapsed(entry, (group, run, *token), step, evidence)
            }
            Change::Pause { group, reason, until } => self.pause(entry, group, reason, *until),
            Change::Resume { group, expired, .. } => self.resume(entry, group, *expired),
            Change::Readiness { group, judgement } => self.mark_readiness(entry, group, judgement),
            Change::Tell { page } => self.tell(entry, page),
            Change::Told { seq, receiver, refused } => self.told(entry, *seq, receiver, refused.as_deref()),
            Change::Acknowledge { pages, reason, .. } => self.acknowledge(entry, pages, reason),
            Change::Escalate { page, told, round, lapsed, .. } => self.escalate(entry, page, (*told, *round), *lapsed),
            Change::ResolvePage { page, reason, .. } => self.resolve_page(entry, page, reason),
            Change::TestPage { key, receivers, reason } => self.test_page(entry, key, receivers, reason),
            Change::ChangeNode { node, spec, step, reason } => self.change_node(entry, *node, spec, step, reason),
            Change::RestorePart { backup, part, content } => self.restore_part(backup, *part, content),
            Change::Restore { origin, parts, serving, reason } => self.restore(entry, origin, *parts, serving, reason),
            Change::Drill { group, about } => self.change_drill(entry, group, about),
            Change::Monitor { group, run, revision, about } => {
                self.change_monitor(entry, group, (run, *revision), about)
            }
            Change::Note { .. } => Ok(None),
        }
    }

    /// The group of that name.
    pub fn group(&self, name: &GroupName) -> Option<&GroupState> {
        self.groups.get(name)
    }

    fn group_mut(&mut self, name: &GroupName) -> Result<&mut GroupState, Rejection> {
        match self.groups.get_mut(name) {
            Some(group) => Ok(group),
            None => {
                reject(RejectionCode::NotFound, format!("there is no group {name}; `watchdogctl status` lists them"))
            }
        }
    }
}

/// What makes two uses of a request id the same request.
fn fingerprint(change: &Change) -> String {
    let group = change.group().map_or("", GroupName::as_str);
    match change {
        Change::Order { run, order: order @ (RunOrder::Retry { step } | RunOrder::Skip { step }), .. } => {
            format!("{} {group} {run} {step}", order.word())
        }
        Change::Order { run, order, .. } => format!("{} {group} {run}", order.word()),
        Change::ChangeNode { node, step, .. } => format!("{} node {node}", step.word()),
        Change::Restore { origin, .. } => format!("Restore {}", origin.id),
        Change::OpenRun { kind, plan, .. } => format!("OpenRun {group} {kind} {} {}", plan.from, plan.to),
        Change::Acknowledge { pages, .. } => {
            format!("Acknowledge {}", pages.iter().map(|page| page.key.as_str()).collect::<Vec<_>>().join(" "))
        }
        Change::ResolvePage { page, .. } => format!("ResolvePage {}", page.key),
        Change::TestPage { receivers, .. } => format!("TestPage {receivers:?}"),
        Change::Drill { about, .. } => format!("Drill {group} {}", about.fingerprint()),
        other => format!("{} {group}", other.name()),
    }
}
