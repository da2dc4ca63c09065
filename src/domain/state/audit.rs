//! The audit within the state: what is entered, in which words, and how the entries hang together.

use super::runs;
use super::{AUDIT_KEPT, ClusterState, Entry, NodeStep};
use crate::domain::audit::{AuditEntry, AuditHash, Link};
use crate::domain::command::{Applied, Change, RunOrder};
use crate::domain::ids::{GroupName, ReceiverName};
use crate::domain::monitor::MonitorChange;
use crate::domain::mutation::{Mutation, is_out};

/// What an entry says, besides who, when and where.
pub(super) struct Words {
    pub(super) group: Option<GroupName>,
    /// The change's name: never another for the same thing.
    pub(super) change: &'static str,
    /// The outcome's word: as above.
    pub(super) code: String,
    pub(super) what: String,
    pub(super) reason: String,
    pub(super) evidence: Vec<String>,
    pub(super) outcome: String,
}

impl ClusterState {
    /// The newest entry's place in the chain; number 0 where there is none.
    pub fn audit_head(&self) -> Link {
        // An entry of before there was a chain has no place in it.
        self.audit.back().filter(|entry| entry.seq > 0).map_or(self.audit_base, AuditEntry::link)
    }

    /// The kept entries of the chain, oldest first, each with the hash of the one before it.
    pub fn audit_chain(&self) -> impl DoubleEndedIterator<Item = (AuditHash, &AuditEntry)> {
        let before = |at: usize| match at.checked_sub(1).and_then(|at| self.audit.get(at)) {
            Some(entry) if entry.seq > 0 => entry.hash,
            _ => self.audit_base.hash,
        };
        let chained = self.audit.iter().enumerate().filter(|(_, entry)| entry.seq > 0);
        chained.map(move |(at, entry)| (before(at), entry))
    }

    /// Adds to the audit. What is pure bookkeeping and succeeded is left out.
    pub(super) fn record(&mut self, entry: Entry<'_>, change: &Change, applied: &Applied) {
        let done = !matches!(applied, Applied::Rejected(_));
        let is_bookkeeping = matches!(
            change,
            Change::MarkSeenUp { .. } | Change::Told { refused: None, .. } | Change::RestorePart { .. }
        );
        if done && is_bookkeeping {
            return;
        }
        if matches!(change, Change::Order { .. } | Change::Pause { .. }) && is_out(Mutation::OrdersNotAudited) {
            return;
        }
        let outcome = match (change, applied) {
            (Change::Note { outcome, .. }, _) => outcome.clone(),
            (_, Applied::Done { token: Some(token), .. }) => format!("done, token {token}"),
            (_, Applied::Done { .. } | Applied::Nothing) => "done".to_owned(),
            (_, Applied::Rejected(rejection)) => format!("rejected: {}", rejection.message),
        };
        let code = match (change, applied) {
            (_, Applied::Rejected(rejection)) => rejection.code.word().to_owned(),
            (Change::Note { .. }, _) => "noted".to_owned(),
            (_, Applied::Done { token: Some(token), .. }) => format!("done:{token}"),
            (_, Applied::Done { .. } | Applied::Nothing) => "done".to_owned(),
        };
        let mut evidence = evidence_of(change);
        if let (true, Change::Restore { .. }, Some(before)) = (done, change, &self.audit_before) {
            evidence.push(format!("the backup's audit ends with entry {}, {}", before.seq, before.hash));
        }
        let words = Words {
            group: change.group().cloned(),
            change: change.name(),
            code,
            what: describe(change),
            reason: reason_of(change),
            evidence,
            outcome,
        };
        self.enter(entry, words);
    }

    /// Adds an entry, bound to the one before.
    pub(super) fn enter(&mut self, entry: Entry<'_>, words: Words) {
        let Words { group, change, code, what, reason, evidence, outcome } = words;
        let entry = AuditEntry {
            seq: 0,
            index: entry.index,
            at: entry.at,
            node: entry.node,
            by: entry.by.clone(),
            from: entry.from.unwrap_or_default().to_owned(),
            group,
            change: change.to_owned(),
            command: entry.command,
            code,
            what,
            reason,
            evidence,
            outcome,
            hash: AuditHash::NONE,
        };
        self.audit.push_back(entry.chained(&self.audit_head()));
        self.bound_audit();
    }

    /// The oldest give way.
    pub(super) fn bound_audit(&mut self) {
        while self.audit.len() > AUDIT_KEPT {
            let oldest = self.audit.pop_front();
            self.audit_base = oldest.filter(|entry| entry.seq > 0).map_or(self.audit_base, |entry| entry.link());
        }
    }
}

/// A change in one line, for the audit.
fn describe(change: &Change) -> String {
    match change {
        Change::AdoptConfig { digest, epoch, .. } => format!("adopt configuration {digest} (epoch {epoch})"),
        Change::MarkSeenUp { targets, .. } => format!("{} targets seen up", targets.len()),
        Change::OpenRun { run, kind, plan, .. } => format!("open {kind} {run} from {} to {}", plan.from, plan.to),
        Change::ClaimRun { run, floor: Some(floor), .. } => format!("claim run {run} above {floor}"),
        Change::ClaimRun { run, .. } => format!("claim run {run}"),
        Change::StepStarted { step, token, attempt, fence_proof: Some(proof), .. } => {
            format!("start {step}, attempt {attempt}, token {token}, {}", runs::proof_text(proof))
        }
        Change::StepStarted { step, token, attempt, .. } => format!("start {step}, attempt {attempt}, token {token}"),
        Change::StepFinished { step, token, attempt, .. } => format!("finish {step}, attempt {attempt}, token {token}"),
        Change::MarkStuck { run, step, .. } => format!("run {run} is stuck at {step}"),
        Change::Unstick { run, .. } => format!("run {run} goes on"),
        Change::TurnBack { run, .. } => format!("run {run} turns back"),
        Change::CloseRun { run, outcome, .. } => format!("close run {run}: {outcome}"),
        Change::Settle { resource, .. } => format!("settle {resource}"),
        Change::Order { run, order: order @ (RunOrder::Retry { step } | RunOrder::Skip { step }), .. } => {
            format!("{} {step} of run {run}", order.word())
        }
        Change::Order { run, order, .. } => format!("{} run {run}", order.word()),
        Change::BindLease { binding, .. } => {
            format!("bind the lease of {} in {}, TTL {} ms", binding.host, binding.region, binding.ttl_ms)
        }
        Change::UnbindLease { .. } => "unbind the lease".to_owned(),
        Change::LeaseLapsed { step, token, .. } => format!("{step} is proved by an expired lease, token {token}"),
        Change::Pause { until: Some(until), .. } => {
            format!("pause, ending by itself at unix time {} s", until.0 / 1000)
        }
        Change::Pause { .. } => "pause".to_owned(),
        Change::Resume { expired: Some(_), .. } => "resume: the pause expired".to_owned(),
        Change::Resume { .. } => "resume".to_owned(),
        Change::Readiness { judgement, .. } => {
            format!("judge what would happen if {} vanished: {}", judgement.from, judgement.verdict().word())
        }
        Change::Tell { page } => format!("page {} ({})", page.event, page.key),
        Change::Told { seq, receiver, .. } => format!("page {seq} to {receiver}"),
        Change::Acknowledge { pages, .. } => {
            format!("acknowledge {}", pages.iter().map(|page| page.key.as_str()).collect::<Vec<_>>().join(", "))
        }
        Change::Escalate { page, lapsed: Some(_), .. } => format!("escalate {}: its acknowledgement lapsed", page.key),
        Change::Escalate { page, told, .. } => format!("escalate {}: telling {}", page.key, told.saturating_add(1)),
        Change::ResolvePage { page, .. } => format!("resolve {}", page.key),
        Change::TestPage { receivers, .. } => {
            format!("test page to {}", receivers.iter().map(ReceiverName::as_str).collect::<Vec<_>>().join(", "))
        }
        Change::ChangeNode { node, spec, step: NodeStep::Admit { replaces: Some(old), .. }, .. } => {
            format!("replace node {old} by node {node}, {spec}")
        }
        Change::ChangeNode { node, spec, step, .. } => format!("{} node {node}, {spec}", step.word()),
        Change::RestorePart { part, .. } => format!("take part {part} of a backup"),
        Change::Restore { origin, serving, .. } => {
            let serving: Vec<_> = serving.iter().map(|(group, region)| format!("{group}={region}")).collect();
            let (at_s, by) = (origin.at.0 / 1000, &origin.by);
            format!("restore the backup made by {by} at unix time {at_s} s, serving {}", serving.join(", "))
        }
        Change::Drill { about, .. } => about.describe(),
        Change::Monitor { run, about: MonitorChange::End, .. } => format!("end the watch after run {run}"),
        Change::Monitor { run, about: MonitorChange::Saw { trouble, .. }, .. } => {
            format!("watch after run {run}: {} amiss", trouble.len())
        }
        Change::Note { what, .. } => what.clone(),
    }
}

/// Why, for the audit.
fn reason_of(change: &Change) -> String {
    match change {
        Change::OpenRun { cause, .. } => cause.reason.clone(),
        Change::StepFinished { outcome, .. } => runs::outcome_text(outcome),
        Change::MarkStuck { reason, .. }
        | Change::Unstick { reason, .. }
        | Change::TurnBack { reason, .. }
        | Change::CloseRun { reason, .. }
        | Change::UnbindLease { reason, .. }
        | Change::Order { reason, .. }
        | Change::ChangeNode { reason, .. }
        | Change::Restore { reason, .. }
        | Change::Pause { reason, .. }
        | Change::Acknowledge { reason, .. }
        | Change::ResolvePage { reason, .. }
        | Change::TestPage { reason, .. }
        | Change::Resume { reason, .. } => reason.clone(),
        Change::Readiness { judgement, .. } => judgement.why(),
        Change::Drill { about, .. } => about.reason(),
        Change::Tell { page } => page.summary.clone(),
        Change::Monitor { about: MonitorChange::Saw { trouble, .. }, .. } => {
            trouble.iter().map(|(what, why)| format!("{what}: {why}")).collect::<Vec<_>>().join("; ")
        }
        Change::Told { refused: Some(reason), .. } => reason.clone(),
        _ => String::new(),
    }
}

/// What it was decided on, for the audit.
fn evidence_of(change: &Change) -> Vec<String> {
    match change {
        Change::OpenRun { cause, .. } => cause.evidence.clone(),
        Change::Settle { evidence, .. } | Change::LeaseLapsed { evidence, .. } => vec![evidence.clone()],
        Change::BindLease { binding, .. } => vec![binding.attestation.clone()],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::{World, group};

    fn note(n: u64) -> Change {
        Change::Note { group: None, what: format!("note {n}"), outcome: "done".to_owned() }
    }

    /// Every kept entry is bound to the one before, and the head is the last.
    fn is_whole(state: &ClusterState) -> bool {
        let mut head = Link { seq: 0, ..state.audit_base };
        for (prev, entry) in state.audit_chain() {
            let follows = head.seq == 0 || entry.seq == head.seq + 1;
            if !follows || prev != head.hash || entry.hash != entry.hash_after(&prev) {
                return false;
            }
            head = entry.link();
        }
        head == state.audit_head()
    }

    #[test]
    fn p10_entries_are_numbered_and_bound_and_the_oldest_give_way() {
        let mut world = World::new();
        let begun = world.state.audit_head().seq;
        assert_eq!(begun, 1, "the configuration; what is mere bookkeeping has no entry");
        for n in 0..AUDIT_KEPT as u64 + 20 {
            world.must(note(n));
        }
        let state = &world.state;
        assert!(is_whole(state));
        assert_eq!(state.audit.len(), AUDIT_KEPT);
        assert_eq!(state.audit_head().seq, begun + AUDIT_KEPT as u64 + 20);
        assert_eq!(state.audit_base.seq + 1, state.audit[0].seq);
    }

    #[test]
    fn p10_whatever_is_done_to_the_kept_entries_shows() {
        let mut world = World::new();
        let pause = Change::Pause { group: group(), reason: "maintenance".to_owned(), until: None };
        world.must(pause);
        for n in 0..5 {
            world.must(note(n));
        }
        let whole = world.state.clone();
        assert!(is_whole(&whole));
        type Edit = fn(&mut ClusterState);
        let edits: [(&str, Edit); 6] = [
            ("removed", |state| drop(state.audit.remove(3))),
            ("altered", |state| state.audit[3].by = "user:somebody".into()),
            ("altered, and hashed anew", |state| {
                state.audit[3].code.push('!');
                state.audit[3].hash = state.audit[3].hash_after(&state.audit[2].hash);
            }),
            ("moved", |state| state.audit.swap(3, 4)),
            ("put in", |state| {
                let extra = state.audit[3].clone().chained(&state.audit[3].link());
                state.audit.insert(4, extra);
            }),
            ("taken from the beginning", |state| drop(state.audit.pop_front())),
        ];
        for (what, edit) in edits {
            let mut edited = whole.clone();
            edit(&mut edited);
            assert!(!is_whole(&edited), "{what}");
        }
    }

    /// Two versions of the program, one of which words everything in another way, keep one chain: what is hashed is the
    /// command as the log holds it, and a word for the outcome that stays.
    #[test]
    fn p10_versions_that_word_things_differently_keep_one_chain() {
        let mut world = World::new();
        let begun = world.state.clone();
        let pause = |reason: &str| Change::Pause { group: group(), reason: reason.to_owned(), until: None };
        world.must(pause("maintenance"));
        world.rejected(Change::Resume { group: "nobody".into(), reason: String::new(), expired: None });
        world.must(Change::Resume { group: group(), reason: "done".to_owned(), expired: None });
        let (whole, count) = (world.state.clone(), begun.audit.len());
        let mut other = begun.clone();
        for entry in whole.audit.iter().skip(count) {
            let worded = AuditEntry {
                what: format!("{} (in the words of another version)", entry.what),
                reason: String::new(),
                evidence: vec!["something".to_owned()],
                outcome: "went well, or not".to_owned(),
                ..entry.clone()
            };
            other.audit.push_back(worded.chained(&other.audit_head()));
        }
        assert_eq!(other.audit_head(), whole.audit_head());
        assert!(is_whole(&other));
        let codes: Vec<_> = whole.audit.iter().skip(count).map(|entry| (&*entry.change, &*entry.code)).collect();
        assert_eq!(codes, [("Pause", "done"), ("Resume", "not_found"), ("Resume", "done")]);
        // Another command under the same words is another entry.
        let mut third = World::new();
        third.must(pause("maintenance "));
        assert_ne!(third.state.audit[count].command, whole.audit[count].command);
        assert_ne!(third.state.audit[count].hash, whole.audit[count].hash);
    }

    /// A state of before there was a chain begins one with its next entry.
    #[test]
    fn p10_an_older_state_is_read_and_begins_a_chain() {
        let mut world = World::new();
        world.must(note(1));
        let mut json = serde_json::to_value(&world.state).unwrap();
        json.as_object_mut().unwrap().remove("audit_base");
        for entry in json["audit"].as_array_mut().unwrap() {
            let entry = entry.as_object_mut().unwrap();
            entry.remove("seq");
            entry.remove("hash");
        }
        world.state = serde_json::from_value(json).unwrap();
        assert_eq!(world.state.audit_head(), Link::default());
        for n in 0..AUDIT_KEPT as u64 {
            world.must(note(n));
            assert_eq!(world.state.audit_head().seq, n + 1);
            assert!(is_whole(&world.state));
        }
        assert_eq!((world.state.audit.len(), world.state.audit_base), (AUDIT_KEPT, Link::default()));
    }

    #[test]
    fn an_entry_says_from_where_and_on_what_evidence() {
        let (world, _) = World::opened("r1");
        let opened = world.state.audit.iter().find(|entry| entry.what.starts_with("open failover r1")).unwrap();
        assert!(!opened.reason.is_empty() && !opened.evidence.is_empty(), "{opened:?}");
        assert!(!opened.reason.contains(&opened.evidence[0]), "{opened:?}");
    }
}
