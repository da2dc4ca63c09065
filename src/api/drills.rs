//! Drills over gRPC: begun and ended by an operator's word, listed with their figures, shown, reported, learned from.

use std::collections::BTreeMap;

use tonic::{Request, Response, Status};

use super::access;
use super::check;
use super::forward::{self, Place};
use super::refuse::{about, invalid, rejected};
use super::service::{AdminService, FORWARD};
use super::show::ms;
use crate::calendar::{self, DEFAULT_ZONE};
use crate::domain::command::{Change, Rejection, RejectionCode};
use crate::domain::drill::due::obstacle;
use crate::domain::drill::figures::{Month, monthly};
use crate::domain::drill::{Drill, DrillChange, DrillKind, DrillOpening, DrillOutcome, DrillRun, DrillSettings};
use crate::domain::ids::{DrillId, GroupName, UnixMs};
use crate::domain::on_call::OnCall;
use crate::domain::policy::GroupPolicy;
use crate::domain::state::{ClusterState, GroupState};
use crate::drill::driver::away_from;
use crate::drill::next_after;
use crate::drill::report::{self, Format, Subject};
use crate::proto;

/// How long a drill may take that no schedule says anything of, milliseconds.
const LIMIT_MS: u64 = 3_600_000;
/// An id is recognised by its beginning from this on.
const ID_CHARS_MIN: usize = 8;

/// The drills of these groups, newest first.
pub(super) fn newest_first<'a>(
    groups: impl Iterator<Item = (&'a GroupName, &'a GroupState)>,
) -> Vec<proto::DrillSummary> {
    let mut drills: Vec<(&GroupName, &Drill)> =
        groups.flat_map(|(name, group)| group.drills.newest_first().map(move |drill| (name, drill))).collect();
    drills.sort_by_key(|(name, drill)| (std::cmp::Reverse(drill.opened_at), *name));
    drills.into_iter().map(|(name, drill)| summary(name, drill)).collect()
}

/// What a call answers.
pub(super) type Answer<T> = Result<Response<T>, Status>;

impl AdminService {
    pub(super) async fn start_one_drill(
        &self,
        request: Request<proto::StartDrillRequest>,
    ) -> Answer<proto::StartDrillResponse> {
        let caller = access::caller(&request)?;
        let ask = request.get_ref();
        let asked = self.asked(ask.context.as_ref(), &caller)?;
        let group = check::group(&ask.group)?;
        let kind = kind_of(ask.kind())?;
        if kind.acts() {
            check::confirmed(&ask.confirm_group, &group)?;
        }
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.start_drill(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let state = self.state();
        self.known_group(&state, &group)?;
        let id = DrillId(asked.request_id.0.clone());
        // The same request again: the first answer, also where the drill stands in its own way by now.
        if find(&state, id.as_str()).is_err() {
            let opening = self.opening(&state, &group, kind, request.get_ref(), &asked)?;
            self.propose(asked, Change::Drill { group, about: DrillChange::Open(opening) }).await?;
        }
        let state = self.state();
        let drill = find(&state, id.as_str()).ok().map(|(group, drill)| show(group, drill));
        Ok(Response::new(proto::StartDrillResponse { standing: self.standing_of(&state), drill }))
    }

    fn opening(
        &self,
        state: &ClusterState,
        name: &GroupName,
        kind: DrillKind,
        ask: &proto::StartDrillRequest,
        asked: &check::Asked,
    ) -> Result<DrillOpening, Status> {
        let policy = self.backend.policy();
        let refuse = |code, message: String| about(rejected(&Rejection { code, message }), name);
        let (Some(rules), Some(group)) = (policy.groups.get(name), state.group(name)) else {
            let message = format!("group {name} is not in this node's configuration");
            return Err(refuse(RejectionCode::NotFound, message));
        };
        if let Some(why) = obstacle(kind, rules, group) {
            let code = match (&group.drills.open, &group.open_run, &group.pause) {
                (None, Some(_), _) => RejectionCode::RunOpen,
                (None, None, Some(_)) => RejectionCode::Paused,
                _ => RejectionCode::Illegal,
            };
            return Err(refuse(code, format!("a {} drill cannot begin: {why}", kind.word())));
        }
        let to = away_from(rules, group)
            .ok_or_else(|| refuse(RejectionCode::Invalid, format!("no plan leads away from {}", group.serving.last)))?;
        let settings = settings(rules, &policy.on_call, name, kind, &ask.schedule)?;
        Ok(DrillOpening {
            id: DrillId(asked.request_id.0.clone()),
            kind,
            schedule: None,
            due_at: crate::clock::unix_now(),
            to,
            settings,
            reason: asked.reason.clone(),
        })
    }

    pub(super) fn list_all_drills(&self, ask: &proto::ListDrillsRequest) -> Answer<proto::ListDrillsResponse> {
        let only = check::group_or_all(&ask.group)?;
        let state = self.state();
        if let Some(group) = &only {
            self.known_group(&state, group)?;
        }
        let groups = || state.groups.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == *name));
        let policy = self.backend.policy();
        let schedules = groups().flat_map(|(name, group)| {
            policy.groups.get(name).map(|rules| schedules(name, rules, group)).unwrap_or_default()
        });
        Ok(Response::new(proto::ListDrillsResponse {
            standing: self.standing_of(&state),
            drills: newest_first(groups()),
            schedules: schedules.collect(),
            months: groups().flat_map(|(name, group)| months(name, group)).collect(),
        }))
    }

    pub(super) fn get_one_drill(&self, ask: &proto::GetDrillRequest) -> Answer<proto::GetDrillResponse> {
        let state = self.state();
        let (group, drill) = find(&state, &ask.drill_id)?;
        let drill = Some(show(group, drill));
        Ok(Response::new(proto::GetDrillResponse { standing: self.standing_of(&state), drill }))
    }

    pub(super) fn report_one_drill(&self, ask: &proto::ReportDrillRequest) -> Answer<proto::ReportDrillResponse> {
        let state = self.state();
        let (group, drill) = find(&state, &ask.drill_id)?;
        let format = match ask.format() {
            proto::ReportFormat::Unspecified | proto::ReportFormat::Markdown => Format::Markdown,
            proto::ReportFormat::Json => Format::Json,
            proto::ReportFormat::Html => Format::Html,
        };
        let cluster = self.backend.policy().cluster.clone();
        let past = state.groups.get(group).map(|group| &group.drills.past);
        let earlier =
            past.into_iter().flatten().filter(|past| past.opened_at < drill.opened_at && past.kind == drill.kind);
        let subject = Subject { cluster: &cluster, group, drill, earlier: earlier.collect() };
        let report = report::render(&subject, format);
        let drill_id = drill.id.0.clone();
        Ok(Response::new(proto::ReportDrillResponse { standing: self.standing_of(&state), report, drill_id }))
    }

    pub(super) async fn abort_one_drill(
        &self,
        request: Request<proto::AbortDrillRequest>,
    ) -> Answer<proto::AbortDrillResponse> {
        let caller = access::caller(&request)?;
        let asked = self.asked(request.get_ref().context.as_ref(), &caller)?;
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.abort_drill(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let state = self.state();
        let (group, drill) = find(&state, &request.get_ref().drill_id)?;
        let (group, id, reason) = (group.clone(), drill.id.clone(), asked.reason.clone());
        self.propose(asked, Change::Drill { group, about: DrillChange::Abort { id: id.clone(), reason } }).await?;
        let state = self.state();
        let drill = find(&state, id.as_str()).ok().map(|(group, drill)| show(group, drill));
        Ok(Response::new(proto::AbortDrillResponse { standing: self.standing_of(&state), drill }))
    }

    pub(super) async fn note_one_lesson(
        &self,
        request: Request<proto::NoteLessonRequest>,
    ) -> Answer<proto::NoteLessonResponse> {
        let caller = access::caller(&request)?;
        let asked = self.asked(request.get_ref().context.as_ref(), &caller)?;
        let text = request.get_ref().text.trim().to_owned();
        if text.is_empty() || text.chars().count() > 500 || text.chars().any(char::is_control) {
            return Err(invalid("text", "must be one line of 1 to 500 characters"));
        }
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.note_lesson(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let state = self.state();
        let (group, drill) = find(&state, &request.get_ref().drill_id)?;
        let (group, id) = (group.clone(), drill.id.clone());
        self.propose(asked, Change::Drill { group, about: DrillChange::Learn { id: id.clone(), text } }).await?;
        let state = self.state();
        let drill = find(&state, id.as_str()).ok().map(|(group, drill)| show(group, drill));
        Ok(Response::new(proto::NoteLessonResponse { standing: self.standing_of(&state), drill }))
    }
}

fn kind_of(kind: proto::DrillKind) -> Result<DrillKind, Status> {
    match kind {
        proto::DrillKind::Tabletop => Ok(DrillKind::Tabletop),
        proto::DrillKind::Simulated => Ok(DrillKind::Simulated),
        proto::DrillKind::Live => Ok(DrillKind::Live),
        proto::DrillKind::Unspecified => Err(invalid("kind", "is none of tabletop, simulated and live")),
    }
}

/// The schedule's that is named, or the first of that kind; else level 1's objectives and every check.
fn settings(
    rules: &GroupPolicy,
    on_call: &OnCall,
    group: &GroupName,
    kind: DrillKind,
    schedule: &str,
) -> Result<DrillSettings, Status> {
    let plans = &rules.drills.plans;
    let found = match schedule {
        "" => plans.iter().find(|plan| plan.kind == kind),
        name => Some(plans.iter().find(|plan| plan.name.as_str() == name).ok_or_else(|| {
            let known: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
            invalid("schedule", format!("group {group} has no drill {name:?}; there are: {}", known.join(", ")))
        })?),
    };
    if let Some(plan) = found {
        return Ok(plan.settings.clone());
    }
    let level = on_call.levels_of(Some(group)).into_values().next();
    Ok(DrillSettings {
        zone: DEFAULT_ZONE.to_owned(),
        rto_ms: rules.rto_objective_ms.or(level.as_ref().map(|level| level.rto_ms)).unwrap_or(LIMIT_MS),
        rpo_ms: level.map_or(rules.rpo_limit_ms, |level| level.rpo_ms),
        limit_ms: LIMIT_MS,
        checks: rules.drills.checks.clone(),
        abort_targets: Vec::new(),
        abort_events: Vec::new(),
    })
}

/// By its id, or the beginning of one.
fn find<'a>(state: &'a ClusterState, asked: &str) -> Result<(&'a GroupName, &'a Drill), Status> {
    let asked = check::name("drill_id", asked)?;
    let all = || state.groups.iter().flat_map(|(name, group)| group.drills.newest_first().map(move |it| (name, it)));
    if let Some(found) = all().find(|(_, drill)| drill.id.as_str() == asked) {
        return Ok(found);
    }
    let mut fitting = all().filter(|(_, drill)| asked.len() >= ID_CHARS_MIN && drill.id.as_str().starts_with(asked));
    match (fitting.next(), fitting.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(invalid("drill_id", format!("{asked} fits more than one drill"))),
        (None, _) => Err(Status::not_found(format!("no drill {asked}; only the newest of each group are remembered"))),
    }
}

fn schedules(name: &GroupName, rules: &GroupPolicy, group: &GroupState) -> Vec<proto::DrillSchedule> {
    let shown = rules.drills.plans.iter().map(|plan| {
        let known = group.drills.known.get(&plan.name).filter(|known| known.rule == plan.rule());
        proto::DrillSchedule {
            group: name.0.clone(),
            name: plan.name.0.clone(),
            kind: shown_kind(plan.kind).into(),
            cron: plan.cron.clone(),
            time_zone: plan.settings.zone.clone(),
            next_ms: known.and_then(|known| next_after(plan, known.after)).map(ms),
        }
    });
    shown.collect()
}

/// In the time zone of the group's newest drill; newest month first.
fn months(name: &GroupName, group: &GroupState) -> Vec<proto::DrillMonth> {
    let drills = &group.drills;
    let zone = drills.past.back().map_or(DEFAULT_ZONE, |drill| drill.settings.zone.as_str());
    let counted: BTreeMap<String, Month> =
        monthly(&drills.past, &drills.skipped, |at: UnixMs| calendar::month(at, zone));
    let shown = counted.into_iter().rev().map(|(month, it)| proto::DrillMonth {
        group: name.0.clone(),
        month,
        passed: it.passed,
        failed: it.failed,
        aborted: it.aborted,
        skipped: it.skipped,
        success_percent: it.success_percent(),
        recovery_mean_ms: it.recovery_mean_ms,
        recovery_worst_ms: it.recovery_worst_ms,
        recoveries: it.recoveries,
        recoveries_met: it.recoveries_met,
        rows_lost_worst: it.rows_lost_worst,
        bytes_lost_worst: it.bytes_lost_worst,
        losses: it.losses,
        losses_none: it.losses_none,
    });
    shown.collect()
}

fn shown_kind(kind: DrillKind) -> proto::DrillKind {
    match kind {
        DrillKind::Tabletop => proto::DrillKind::Tabletop,
        DrillKind::Simulated => proto::DrillKind::Simulated,
        DrillKind::Live => proto::DrillKind::Live,
    }
}

fn summary(group: &GroupName, drill: &Drill) -> proto::DrillSummary {
    let closing = drill.closing.as_ref();
    let state = match closing.map(|closing| closing.outcome) {
        None => proto::DrillState::Open,
        Some(DrillOutcome::Passed) => proto::DrillState::Passed,
        Some(DrillOutcome::Failed) => proto::DrillState::Failed,
        Some(DrillOutcome::Aborted) => proto::DrillState::Aborted,
    };
    proto::DrillSummary {
        id: drill.id.0.clone(),
        group: group.0.clone(),
        kind: shown_kind(drill.kind).into(),
        schedule: drill.schedule.as_ref().map(|schedule| schedule.0.clone()).unwrap_or_default(),
        state: state.into(),
        phase: drill.phase.word().to_owned(),
        opened_at_ms: ms(drill.opened_at),
        closed_at_ms: closing.map(|closing| ms(closing.at)),
        by: drill.by.0.clone(),
        reason: drill.reason.clone(),
        why: closing.map(|closing| closing.why.clone()).unwrap_or_default(),
        from_region: drill.from.0.clone(),
        to_region: drill.to.0.clone(),
        recovery_ms: drill.measured.recovery_ms,
        rto_objective_ms: drill.settings.rto_ms,
        rows_lost: drill.measured.rows_lost(),
        bytes_lost: drill.measured.bytes_lost(),
        rpo_objective_ms: drill.settings.rpo_ms,
        expected_recovery_ms: drill.measured.expected_recovery_ms,
    }
}

fn show(group: &GroupName, drill: &Drill) -> proto::Drill {
    let findings = drill.findings.iter().map(|finding| proto::DrillFinding {
        phase: finding.phase.word().to_owned(),
        what: finding.what.clone(),
        found: finding.found.word().to_owned(),
        detail: finding.detail.clone(),
    });
    let events = drill.events.iter().map(|event| proto::DrillEvent {
        at_ms: ms(event.at),
        phase: event.phase.word().to_owned(),
        what: event.what.clone(),
    });
    let lessons = drill.lessons.iter().map(|lesson| proto::DrillLesson {
        by: lesson.by.0.clone(),
        at_ms: ms(lesson.at),
        text: lesson.text.clone(),
    });
    proto::Drill {
        summary: Some(summary(group, drill)),
        runs: drill.runs.iter().map(show_run).collect(),
        findings: findings.collect(),
        events: events.collect(),
        lessons: lessons.collect(),
    }
}

fn show_run(run: &DrillRun) -> proto::DrillRun {
    let spans = run.spans.iter().map(|span| proto::DrillSpan {
        name: span.name.clone(),
        from_ms: ms(span.from),
        until_ms: ms(span.until),
    });
    proto::DrillRun {
        run_id: run.run.0.clone(),
        kind: run.kind.to_string(),
        from_region: run.from.0.clone(),
        to_region: run.to.0.clone(),
        opened_at_ms: ms(run.opened_at),
        closed_at_ms: run.closed_at.map(ms),
        outcome: run.outcome.map(|outcome| outcome.to_string()).unwrap_or_default(),
        spans: spans.collect(),
    }
}
