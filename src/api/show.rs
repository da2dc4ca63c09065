//! Domain values as messages. Nothing is decided here.

use super::backend::Gate;
use crate::domain::attempt::ReadBack;
use crate::domain::chapters::{Chapter, ChapterKind, Progress, chapters};
use crate::domain::ids::{GroupName, NodeId, RunId, Token, UnixMs};
use crate::domain::observation::{FailureKind, Verdict};
use crate::domain::plan::{Action, Check, Plan};
use crate::domain::policy::{ClusterPolicy, Fencing};
use crate::domain::readiness::mark::Mark;
use crate::domain::readiness::{Holds, Readiness};
use crate::domain::run::{Assertion, Run, RunKind, RunOutcome, RunPhase, StepPhase};
use crate::domain::state::{ClusterState, GroupState, Pause};
use crate::domain::stuck::{Way, ways_on};
use crate::proto;

/// Milliseconds on the wire.
pub fn ms(at: UnixMs) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A node's name by the configuration, else `node-ID`.
pub fn node_name(policy: &ClusterPolicy, node: NodeId) -> String {
    policy.members.get(&node).map_or_else(|| format!("node-{node}"), |member| member.name.0.clone())
}

fn token_text(token: Option<Token>) -> String {
    token.map(|token| token.to_string()).unwrap_or_default()
}

/// A gate.
pub fn gate(gate: &Gate) -> proto::Gate {
    proto::Gate {
        name: gate.name.clone(),
        open: gate.is_open,
        detail: gate.detail.clone(),
        before_promote: gate.before_promote,
    }
}

/// A pause.
pub fn pause(pause: &Pause) -> proto::Pause {
    proto::Pause {
        by: pause.by.0.clone(),
        at_ms: ms(pause.at),
        reason: pause.reason.clone(),
        until_ms: pause.until.map(ms),
    }
}

/// A fencing mode.
pub fn fencing(fencing: &Fencing) -> proto::Fencing {
    match fencing {
        Fencing::Confirm => proto::Fencing::Confirm,
        Fencing::Lease { .. } => proto::Fencing::Lease,
        Fencing::None { .. } => proto::Fencing::None,
    }
}

/// A verdict.
pub fn verdict(verdict: Verdict) -> proto::Verdict {
    match verdict {
        Verdict::Up => proto::Verdict::Up,
        Verdict::Suspect => proto::Verdict::Suspect,
        Verdict::Down => proto::Verdict::Down,
    }
}

/// A kind of failure.
pub fn failure_kind(kind: FailureKind) -> proto::FailureKind {
    match kind {
        FailureKind::Refused => proto::FailureKind::Refused,
        FailureKind::TimedOut => proto::FailureKind::TimedOut,
        FailureKind::Unreachable => proto::FailureKind::Unreachable,
        FailureKind::WrongAnswer => proto::FailureKind::WrongAnswer,
        FailureKind::Unusable => proto::FailureKind::Unusable,
        FailureKind::OurFault => proto::FailureKind::OurFault,
        FailureKind::NotLooked => proto::FailureKind::NotLooked,
    }
}

fn run_kind(kind: RunKind) -> proto::RunKind {
    match kind {
        RunKind::Failover => proto::RunKind::Failover,
        RunKind::Switchover => proto::RunKind::Switchover,
        RunKind::Failback => proto::RunKind::Failback,
        RunKind::Traffic => proto::RunKind::Traffic,
        RunKind::Recovery => proto::RunKind::Recovery,
    }
}

fn run_phase(phase: &RunPhase) -> proto::RunPhase {
    match phase {
        RunPhase::Open => proto::RunPhase::Open,
        RunPhase::Stuck { .. } => proto::RunPhase::Stuck,
        RunPhase::Reverting => proto::RunPhase::Reverting,
        RunPhase::Aborting { .. } => proto::RunPhase::Aborting,
        RunPhase::Closed { outcome: RunOutcome::Succeeded, .. } => proto::RunPhase::Succeeded,
        RunPhase::Closed { outcome: RunOutcome::Withdrawn, .. } => proto::RunPhase::Withdrawn,
        RunPhase::Closed { outcome: RunOutcome::Aborted, .. } => proto::RunPhase::Aborted,
        RunPhase::Closed { outcome: RunOutcome::Reverted, .. } => proto::RunPhase::Reverted,
    }
}

fn step_phase(phase: StepPhase) -> proto::StepPhase {
    match phase {
        StepPhase::Pending => proto::StepPhase::Pending,
        StepPhase::Started => proto::StepPhase::Started,
        StepPhase::Done => proto::StepPhase::Done,
        StepPhase::Failed => proto::StepPhase::Failed,
        StepPhase::Unknown => proto::StepPhase::Unknown,
        StepPhase::Skipped => proto::StepPhase::Skipped,
    }
}

fn assertion(word: &Assertion) -> proto::Assertion {
    proto::Assertion { by: word.by.0.clone(), at_ms: ms(word.at), reason: word.reason.clone() }
}

/// A run in one line.
pub fn summary(run: &Run) -> proto::RunSummary {
    let closed_at = match &run.phase {
        RunPhase::Closed { at, .. } => Some(*at),
        _ => None,
    };
    // What counts is the way it goes.
    let leg = || match run.turned_back {
        None => run.plan.steps().map(|(_, step)| step).collect::<Vec<_>>().into_iter(),
        Some(_) => run.plan.undo_steps().map(|(_, step)| step).collect::<Vec<_>>().into_iter(),
    };
    proto::RunSummary {
        id: run.id.0.clone(),
        group: run.group.0.clone(),
        kind: run_kind(run.kind).into(),
        drill: run.drill,
        phase: run_phase(&run.phase).into(),
        from_region: run.from().0.clone(),
        to_region: run.to().0.clone(),
        opened_at_ms: ms(run.opened_at),
        closed_at_ms: closed_at.map(ms),
        by: run.cause.by.0.clone(),
        automatic: run.cause.automatic,
        reason: run.cause.reason.clone(),
        token: token_text(run.token()),
        steps_settled: count(leg().filter(|step| run.phase_of(&step.id).is_settled()).count()),
        steps_total: count(leg().count()),
        recovery_time_ms: run.recovery_time_ms(),
    }
}

/// A whole run. Of its group: the runs after it.
pub fn run(run: &Run, group: Option<&GroupState>, policy: &ClusterPolicy) -> proto::Run {
    let later = group.into_iter().flat_map(|group| group.history.iter().chain(&group.open_run));
    let stuck = match &run.phase {
        RunPhase::Stuck { step, reason, since } => Some(proto::Stuck {
            step: step.0.clone(),
            reason: reason.clone(),
            since_ms: ms(*since),
            ways: ways_on(run).into_iter().map(|Way { meaning, command }| proto::Way { meaning, command }).collect(),
        }),
        _ => None,
    };
    let abort = match &run.phase {
        RunPhase::Aborting { order } => Some(assertion(order)),
        _ => None,
    };
    let claims = run.claims.iter().map(|claim| proto::Claim {
        token: claim.token.to_string(),
        node_id: claim.node.0,
        node: node_name(policy, claim.node),
        at_ms: ms(claim.at),
    });
    let events = run.events.iter().map(|event| proto::RunEvent {
        index: event.index,
        at_ms: ms(event.at),
        node_id: event.node.0,
        node: node_name(policy, event.node),
        step: event.step.as_ref().map(|step| step.0.clone()).unwrap_or_default(),
        token: token_text(event.token),
        what: event.what.clone(),
    });
    proto::Run {
        summary: Some(summary(run)),
        evidence: run.cause.evidence.clone(),
        fault_at_ms: run.cause.fault_at.map(ms),
        expected_loss_ms: run.cause.expected_loss_ms,
        stuck,
        abort,
        turned_back: run
            .turned_back
            .as_ref()
            .map(|back| proto::TurnedBack { reason: back.reason.clone(), at_ms: ms(back.at) }),
        fence_assertion: run.fence_assertion.as_ref().map(assertion),
        loss_acceptance: run.loss_acceptance.as_ref().map(assertion),
        claims: claims.collect(),
        steps: steps(run),
        events: events.collect(),
        config_digest: run.digest.0.clone(),
        chapters: chapters(run, later).iter().map(chapter).collect(),
    }
}

fn chapter(chapter: &Chapter) -> proto::Chapter {
    let kind = match chapter.kind {
        ChapterKind::Detect => proto::ChapterKind::Detect,
        ChapterKind::Assess => proto::ChapterKind::Assess,
        ChapterKind::Decide => proto::ChapterKind::Decide,
        ChapterKind::Execute => proto::ChapterKind::Execute,
        ChapterKind::Verify => proto::ChapterKind::Verify,
        ChapterKind::Communicate => proto::ChapterKind::Communicate,
        ChapterKind::Monitor => proto::ChapterKind::Monitor,
        ChapterKind::Failback => proto::ChapterKind::Failback,
    };
    let progress = match chapter.progress {
        Progress::None => proto::ChapterProgress::None,
        Progress::Ahead => proto::ChapterProgress::Ahead,
        Progress::Going => proto::ChapterProgress::Going,
        Progress::Done => proto::ChapterProgress::Done,
        Progress::Amiss => proto::ChapterProgress::Amiss,
    };
    proto::Chapter {
        kind: kind.into(),
        progress: progress.into(),
        from_ms: chapter.from.map(ms),
        until_ms: chapter.until.map(ms),
        detail: chapter.detail.clone(),
    }
}

fn steps(run: &Run) -> Vec<proto::StepStatus> {
    let forward = run.plan.stages.len();
    let one = |(stage, step): (usize, &crate::domain::plan::Step), undo: bool| {
        let record = run.steps.get(&step.id).cloned().unwrap_or_default();
        proto::StepStatus {
            id: step.id.0.clone(),
            stage: count(if undo { forward + stage + 1 } else { stage + 1 }),
            undo,
            action: step.action.verb().to_owned(),
            resource: resource(&step.action),
            phase: step_phase(record.phase).into(),
            attempts: record.attempts,
            max_attempts: step.retry.max_attempts,
            token: token_text(record.token),
            first_started_at_ms: record.first_started_at.map(ms),
            finished_at_ms: record.finished_at.map(ms),
            detail: record.detail,
        }
    };
    // The way back is nobody's business before it is taken.
    let back = run.plan.undo_steps().filter(|_| run.turned_back.is_some());
    run.plan.steps().map(|step| one(step, false)).chain(back.map(|step| one(step, true))).collect()
}

fn resource(action: &Action) -> String {
    action.resource().map(|resource| resource.0).unwrap_or_default()
}

/// What an action is to bring about, in words.
pub fn describe(action: &Action) -> String {
    match action {
        Action::Fence { guard } => format!("stop and latch the database on {} ({})", guard.host, guard.address),
        Action::Promote { guard } => format!("make {} the primary ({})", guard.host, guard.address),
        Action::CatchUp { from, to } => {
            format!("see that {} has all that {} wrote ({})", to.host, from.host, to.address)
        }
        Action::Release { guard } => format!("make {} the primary again ({})", guard.host, guard.address),
        Action::Guarded { guard, name, params } => {
            let params: Vec<String> = params.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            format!("{name}{} on {} ({})", params.concat(), guard.host, guard.address)
        }
        Action::UpsertDns { provider, records, .. } => {
            let each = |r: &crate::domain::plan::DnsRecord| format!("{} {} {}", r.name, r.kind, r.value);
            format!("{}: {}", provider.name(), records.iter().map(each).collect::<Vec<_>>().join(", "))
        }
        Action::Verify { checks } => checks.iter().map(describe_check).collect::<Vec<_>>().join(", "),
    }
}

fn describe_check(check: &Check) -> String {
    match check {
        Check::Http { url, expect_status, .. } => format!("{url} answers {expect_status}"),
        Check::DnsAnswers { server, record } => format!("{server} answers {} with {}", record.name, record.value),
        Check::DatabaseWritable { .. } => "the database takes a write".to_owned(),
        Check::RedisWritable { server } => format!("Redis at {} is a primary and takes a write", server.address),
    }
}

/// A plan's steps with what each resource shows, where it was read.
pub fn planned(
    plan: &Plan,
    present: &std::collections::BTreeMap<crate::domain::ids::StepId, ReadBack>,
) -> Vec<proto::PlannedStep> {
    let one = |(stage, step): (usize, &crate::domain::plan::Step)| {
        let (shows, present_detail) = read_back(present.get(&step.id));
        proto::PlannedStep {
            id: step.id.0.clone(),
            stage: count(stage + 1),
            action: step.action.verb().to_owned(),
            resource: resource(&step.action),
            detail: describe(&step.action),
            deadline_ms: step.deadline_ms,
            max_attempts: step.retry.max_attempts,
            blocking: step.blocking,
            present: shows.into(),
            present_detail,
        }
    };
    plan.steps().map(one).collect()
}

fn read_back(seen: Option<&ReadBack>) -> (proto::Present, String) {
    match seen {
        None => (proto::Present::NotRead, String::new()),
        Some(ReadBack::Done { evidence }) => (proto::Present::Done, evidence.clone()),
        Some(ReadBack::NotDone { evidence } | ReadBack::Untouched { evidence }) => {
            (proto::Present::NotDone, evidence.clone())
        }
        Some(ReadBack::InFlight { evidence }) => (proto::Present::InFlight, evidence.clone()),
        Some(ReadBack::Unknown { reason }) => (proto::Present::Unknown, reason.clone()),
        Some(ReadBack::Refused { held }) => (proto::Present::Refused, format!("holds the higher token {held}")),
    }
}

fn readiness_state(holds: Holds) -> proto::ReadinessState {
    match holds {
        Holds::Yes => proto::ReadinessState::Yes,
        Holds::Weak => proto::ReadinessState::Weak,
        Holds::Unknown => proto::ReadinessState::Unknown,
        Holds::No => proto::ReadinessState::No,
    }
}

/// What is remembered of a group's readiness.
pub fn readiness_mark(mark: &Mark, serving_epoch: u64) -> proto::ReadinessMark {
    let judgement = &mark.judgement;
    let items = judgement.items.iter().map(|item| proto::ReadinessItem {
        name: item.name.clone(),
        state: readiness_state(item.holds).into(),
        detail: item.reason.clone(),
    });
    proto::ReadinessMark {
        verdict: readiness_state(judgement.verdict()).into(),
        since_ms: ms(mark.since),
        changed_at_ms: ms(mark.changed_at),
        from_region: judgement.from.0.clone(),
        to_region: judgement.to.0.clone(),
        items: items.collect(),
        is_of_earlier_epoch: judgement.serving_epoch != serving_epoch,
        why: judgement.why(),
    }
}

/// What would become of a group.
pub fn readiness(group: &GroupName, readiness: &Readiness) -> proto::GetReadinessResponse {
    let items = readiness.items.iter().map(|item| proto::ReadinessItem {
        name: item.name.to_owned(),
        state: readiness_state(item.holds).into(),
        detail: item.detail.clone(),
    });
    proto::GetReadinessResponse {
        standing: None,
        group: group.0.clone(),
        from_region: readiness.from.0.clone(),
        to_region: readiness.to.0.clone(),
        items: items.collect(),
        ready: readiness.is_ready(),
        expected_loss_ms: readiness.loss.ms(),
        loss_limit_ms: readiness.loss_limit_ms,
        expected_recovery_ms: readiness.recovery_ms,
        recovery: readiness.recovery.clone(),
        past: readiness.past.map(|past| proto::PastRecovery {
            runs: past.runs,
            median_ms: past.median_ms,
            worst_ms: past.worst_ms,
        }),
        recovery_objective_ms: readiness.objective_ms,
        remembered: None,
    }
}

/// Every run the state remembers, newest first.
pub fn runs(state: &ClusterState) -> Vec<&Run> {
    let mut runs: Vec<&Run> =
        state.groups.values().flat_map(|group| group.open_run.iter().chain(group.history.iter())).collect();
    runs.sort_by(|a, b| (b.opened_at, &b.id).cmp(&(a.opened_at, &a.id)));
    runs
}

/// Why a run was not found by what the caller wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoSuchRun {
    /// Nothing begins so.
    None,
    /// More than one does.
    Ambiguous(Vec<RunId>),
}

/// The run of that id, or the only one whose id begins so.
pub fn find_run<'a>(state: &'a ClusterState, asked: &str) -> Result<&'a Run, NoSuchRun> {
    let all = runs(state);
    if let Some(run) = all.iter().find(|run| run.id.as_str() == asked) {
        return Ok(run);
    }
    let matches: Vec<&Run> =
        all.into_iter().filter(|run| asked.len() >= 8 && run.id.as_str().starts_with(asked)).collect();
    match matches.as_slice() {
        [] => Err(NoSuchRun::None),
        [run] => Ok(run),
        many => Err(NoSuchRun::Ambiguous(many.iter().map(|run| run.id.clone()).collect())),
    }
}
