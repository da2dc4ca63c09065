//! The admin service: each call is checked, done here or carried to the leader, and answered with the node's standing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::access::{self, FAILOVER, ORDER_RUN};
use super::audit;
use super::backend::{AdminBackend, Leader, NodeStanding, OpenFailover};
use super::backups::BackupStream;
use super::check::{self, Asked};
use super::deadline;
use super::drills::Answer;
use super::follow::follow;
use super::forward::{self, FORWARDED_BY, Place};
use super::origin::origin;
use super::refuse::{about, failed, invalid, rejected, signed_by, too_many};
use super::show::{self, NoSuchRun};
use super::status;
use super::watch::{WATCHERS_MAX, WatchStream};
use crate::clock::unix_now;
use crate::domain::command::{Applied, Change, Command};
use crate::domain::identity::Caller;
use crate::domain::ids::{GroupName, Principal, RegionName, RequestId};
use crate::domain::run::Run;
use crate::domain::state::ClusterState;
use crate::proto::admin_client::AdminClient;
use crate::proto::{self, admin_server::Admin};
use crate::tls::Dialer;

/// How long a forwarded write may take.
pub(super) const FORWARD: Duration = Duration::from_secs(8);
/// How long a forwarded dry run may take: it reads every resource.
pub(super) const FORWARD_DRY_RUN: Duration = Duration::from_secs(50);
/// How long a status waits for the leader's votes before it goes without.
pub(super) const FORWARD_STATUS: Duration = Duration::from_millis(1_500);
/// At most so many followers of runs at once on one node.
const FOLLOWERS_MAX: usize = 64;

/// The service over one node.
pub struct AdminService {
    pub(super) backend: Arc<dyn AdminBackend>,
    pub(super) dialer: Dialer,
    followers: Arc<Semaphore>,
    pub(super) watchers: Arc<Semaphore>,
    pub(super) shutdown: CancellationToken,
}

impl AdminService {
    /// `dialer` reaches the leader. Streams end when `shutdown` is cancelled.
    pub fn new(backend: Arc<dyn AdminBackend>, dialer: Dialer, shutdown: CancellationToken) -> Self {
        let (followers, watchers) = (Semaphore::new(FOLLOWERS_MAX), Semaphore::new(WATCHERS_MAX));
        Self { backend, dialer, followers: Arc::new(followers), watchers: Arc::new(watchers), shutdown }
    }

    pub(super) fn standing(&self) -> NodeStanding {
        self.backend.standing().borrow().clone()
    }

    pub(super) fn state(&self) -> Arc<ClusterState> {
        self.backend.state().borrow().clone()
    }

    pub(super) fn standing_of(&self, state: &ClusterState) -> Option<proto::Standing> {
        Some(status::standing(&self.standing(), state))
    }

    pub(super) fn asked(&self, context: Option<&proto::WriteContext>, caller: &Caller) -> Result<Asked, Status> {
        check::context(context, caller, &self.backend.policy().cluster)
    }

    /// Who follows a run or takes a backup has a place.
    pub(super) fn streams(&self) -> Arc<Semaphore> {
        Arc::clone(&self.followers)
    }

    pub(super) async fn reach(&self, leader: &Leader, limit: Duration) -> Result<AdminClient<Channel>, Status> {
        forward::connect(&self.dialer, &self.backend.policy().cluster, leader, limit).await
    }

    /// Signs refusals with the node's name and leaves a line in the node's own log for each (P10).
    fn answer<T>(&self, call: &str, result: Result<Response<T>, Status>) -> Result<Response<T>, Status> {
        result.map_err(|status| {
            warn!(call, code = ?status.code(), message = status.message(), "admin call refused");
            signed_by(status, &self.standing())
        })
    }

    pub(super) async fn propose(&self, asked: Asked, change: Change) -> Result<(), Status> {
        let Asked { request_id, by, reason } = asked;
        info!(change = change.name(), group = ?change.group(), %by, reason, %request_id, "admin call");
        let node = self.standing().node;
        let group = change.group().cloned();
        let command = Command { node, at: unix_now(), by, from: origin(), request_id: Some(request_id), change };
        let proposed = deadline::write(async { self.backend.propose(command).await.map_err(failed) });
        match proposed.await? {
            Applied::Done { .. } | Applied::Nothing => Ok(()),
            Applied::Rejected(rejection) => {
                let refused = rejected(&rejection);
                Err(group.iter().fold(refused, about))
            }
        }
    }

    pub(super) fn known_group(&self, state: &ClusterState, group: &GroupName) -> Result<(), Status> {
        if state.groups.contains_key(group) {
            return Ok(());
        }
        let known: Vec<&str> = state.groups.keys().map(GroupName::as_str).collect();
        let known =
            if known.is_empty() { "none are known yet".to_owned() } else { format!("known: {}", known.join(", ")) };
        Err(Status::not_found(format!("no group {group}; {known}")))
    }

    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let (standing, caller) = (self.standing(), access::caller(&request)?);
        let forwarded = request.metadata().get(FORWARDED_BY).is_some();
        let ask = request.into_inner();
        let only = check::group_or_all(&ask.group)?;
        if let (false, false, false, Some(leader)) = (ask.local, forwarded, standing.is_leader(), &standing.leader)
            && let Ok(mut client) = self.reach(leader, FORWARD_STATUS).await
            && let Ok(answer) = client.get_status(forward::carried(ask, &standing, &caller)).await
        {
            return Ok(answer);
        }
        if let Some(group) = &only {
            self.known_group(&self.state(), group)?;
        }
        Ok(Response::new(status::status(self.backend.as_ref(), only.as_ref())))
    }

    async fn pause(&self, request: Request<proto::PauseRequest>) -> Result<Response<proto::PauseResponse>, Status> {
        let caller = access::caller(&request)?;
        let asked = self.asked(request.get_ref().context.as_ref(), &caller)?;
        let group = check::group(&request.get_ref().group)?;
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.pause(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let until = check::pause_until(request.get_ref(), unix_now())?;
        self.known_group(&self.state(), &group)?;
        let reason = asked.reason.clone();
        self.propose(asked, Change::Pause { group: group.clone(), reason, until }).await?;
        let state = self.state();
        let pause = state.groups.get(&group).and_then(|group| group.pause.as_ref()).map(show::pause);
        Ok(Response::new(proto::PauseResponse { standing: self.standing_of(&state), pause }))
    }

    async fn resume(&self, request: Request<proto::ResumeRequest>) -> Result<Response<proto::ResumeResponse>, Status> {
        let caller = access::caller(&request)?;
        let asked = self.asked(request.get_ref().context.as_ref(), &caller)?;
        let group = check::group(&request.get_ref().group)?;
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.resume(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        self.known_group(&self.state(), &group)?;
        let reason = asked.reason.clone();
        self.propose(asked, Change::Resume { group, reason, expired: None }).await?;
        Ok(Response::new(proto::ResumeResponse { standing: self.standing_of(&self.state()) }))
    }

    async fn failover(
        &self,
        request: Request<proto::FailoverRequest>,
    ) -> Result<Response<proto::FailoverResponse>, Status> {
        let caller = access::caller(&request)?;
        let ask = request.get_ref();
        may_fail_over(ask, &caller)?;
        let asked = self.asked(ask.context.as_ref(), &caller)?;
        let (group, to, assert_fence) = check::failover(ask)?;
        let expected_token = check::token("expected_token", &ask.expected_token)?;
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let limit = if request.get_ref().dry_run { FORWARD_DRY_RUN } else { FORWARD };
            let mut client = self.reach(&leader, limit).await?;
            let answer = client.failover(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let ask = request.into_inner();
        self.known_group(&self.state(), &group)?;
        let open = OpenFailover {
            group,
            to,
            by: asked.by,
            reason: asked.reason,
            accept_loss: ask.accept_loss,
            assert_fence,
            expected_token,
            request_id: asked.request_id,
        };
        if ask.dry_run { self.dry_run(open).await } else { self.open_failover(open).await }
    }

    async fn dry_run(&self, open: OpenFailover) -> Result<Response<proto::FailoverResponse>, Status> {
        let OpenFailover { group, to, by, reason, .. } = &open;
        info!(%group, %to, %by, reason, "admin call: dry run of a failover");
        let dry = self.backend.dry_run(&open).await.map_err(|error| about(failed(error), group))?;
        let what = format!("dry run of a failover to {to}: {reason}");
        self.note_dry_run(group, by, &open.request_id, what).await;
        let state = self.state();
        Ok(Response::new(proto::FailoverResponse {
            standing: self.standing_of(&state),
            run_id: String::new(),
            from_region: dry.plan.from.0.clone(),
            to_region: dry.plan.to.0.clone(),
            steps: show::planned(&dry.plan, &dry.present),
            gates: dry.gates.iter().map(show::gate).collect(),
            would_open: dry.gates.iter().all(|gate| gate.is_open || gate.before_promote),
            token: state.groups.get(&open.group).map(|group| group.token.to_string()).unwrap_or_default(),
        }))
    }

    /// A dry run changes nothing, so that a failure to record it in the audit is no reason to refuse its answer.
    pub(super) async fn note_dry_run(&self, group: &GroupName, by: &Principal, request_id: &RequestId, what: String) {
        let change = Change::Note { group: Some(group.clone()), what, outcome: "done".to_owned() };
        let (node, id) = (self.standing().node, RequestId(format!("{request_id}.dry")));
        let command = Command { node, at: unix_now(), by: by.clone(), from: origin(), request_id: Some(id), change };
        if let Err(error) = self.backend.propose(command).await {
            warn!(%error, "a dry run could not be recorded in the audit");
        }
    }

    async fn open_failover(&self, open: OpenFailover) -> Result<Response<proto::FailoverResponse>, Status> {
        let OpenFailover { group, to, by, reason, request_id, .. } = &open;
        info!(%group, %to, %by, reason, %request_id, "admin call: failover");
        let (group, to) = (group.clone(), to.clone());
        let opened = deadline::write(async { self.backend.open_failover(open).await.map_err(failed) });
        let run_id = opened.await.map_err(|refused| about(refused, &group))?;
        let state = self.state();
        let run = show::find_run(&state, run_id.as_str()).ok();
        Ok(Response::new(proto::FailoverResponse {
            standing: self.standing_of(&state),
            from_region: run.map(|run| run.from().0.clone()).unwrap_or_default(),
            to_region: to.0,
            steps: run.map(|run| show::planned(&run.plan, &std::collections::BTreeMap::new())).unwrap_or_default(),
            gates: Vec::new(),
            would_open: true,
            token: state.groups.get(&group).map(|group| group.token.to_string()).unwrap_or_default(),
            run_id: run_id.0,
        }))
    }

    fn find<'a>(&self, state: &'a ClusterState, asked: &str) -> Result<&'a Run, Status> {
        let id = check::name("run_id", asked)?;
        show::find_run(state, id).map_err(|none| match none {
            NoSuchRun::None => Status::not_found(format!(
                "no run {id}; only the newest of each group are remembered: list them, or give 8 characters at least"
            )),
            NoSuchRun::Ambiguous(ids) => {
                let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
                invalid("run_id", format!("{id} fits more than one run: {}", ids.join(", ")))
            }
        })
    }

    fn list_runs(&self, ask: &proto::ListRunsRequest) -> Result<Response<proto::ListRunsResponse>, Status> {
        let only = check::group_or_all(&ask.group)?;
        let limit = check::limit(ask.limit, 20, 200)?;
        let state = self.state();
        if let Some(group) = &only {
            self.known_group(&state, group)?;
        }
        let mut runs = show::runs(&state);
        if !ask.before_run_id.is_empty() {
            let before = self.find(&state, &ask.before_run_id)?.id.clone();
            let newer = runs.iter().take_while(|run| run.id != before).count();
            runs.drain(..=newer.min(runs.len().saturating_sub(1)));
        }
        runs.retain(|run| only.as_ref().is_none_or(|only| *only == run.group));
        Ok(Response::new(proto::ListRunsResponse {
            standing: self.standing_of(&state),
            more: runs.len() > limit,
            runs: runs.into_iter().take(limit).map(show::summary).collect(),
        }))
    }

    async fn order_run(
        &self,
        request: Request<proto::OrderRunRequest>,
    ) -> Result<Response<proto::OrderRunResponse>, Status> {
        let caller = access::caller(&request)?;
        let ask = request.get_ref();
        let (id, order, destructive) = check::order(ask)?;
        access::require(&caller, ORDER_RUN, check::order_word(ask.order()))?;
        let asked = self.asked(ask.context.as_ref(), &caller)?;
        let expected_token = check::token("expected_token", &ask.expected_token)?;
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.order_run(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let state = self.state();
        let run = self.find(&state, id.as_str())?;
        if destructive {
            check::confirmed(&request.get_ref().confirm_group, &run.group)?;
            if let (None, Some(token)) = (expected_token, run.token()) {
                return Err(invalid(
                    "expected_token",
                    format!("empty; give the run's token as you saw it (now {token})"),
                ));
            }
        }
        let (group, run) = (run.group.clone(), run.id.clone());
        let reason = asked.reason.clone();
        self.propose(asked, Change::Order { group, run: run.clone(), expected_token, order, reason }).await?;
        let state = self.state();
        let run = self
            .find(&state, run.as_str())
            .ok()
            .map(|run| show::run(run, state.group(&run.group), &self.backend.policy()));
        Ok(Response::new(proto::OrderRunResponse { standing: self.standing_of(&state), run }))
    }

    async fn get_readiness(
        &self,
        request: Request<proto::GetReadinessRequest>,
    ) -> Result<Response<proto::GetReadinessResponse>, Status> {
        let caller = access::caller(&request)?;
        let group = check::group(&request.get_ref().group)?;
        let to = match request.get_ref().to_region.as_str() {
            "" => None,
            to => Some(RegionName::from(check::name("to_region", to)?)),
        };
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD_DRY_RUN).await?;
            let answer = client.get_readiness(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        self.known_group(&self.state(), &group)?;
        let readiness = self.backend.readiness(&group, to.as_ref()).await.map_err(failed)?;
        let standing = self.standing_of(&self.state());
        Ok(Response::new(proto::GetReadinessResponse { standing, ..show::readiness(&group, &readiness) }))
    }

    fn list_audit(&self, ask: &proto::ListAuditRequest) -> Result<Response<proto::ListAuditResponse>, Status> {
        let state = self.state();
        let page = audit::list(&state, &self.backend.policy(), ask)?;
        Ok(Response::new(proto::ListAuditResponse { standing: self.standing_of(&state), ..page }))
    }

    fn follow_run(&self, ask: &proto::FollowRunRequest) -> Result<Response<RunStream>, Status> {
        let id = self.find(&self.state(), &ask.run_id)?.id.clone();
        let place = Arc::clone(&self.followers)
            .try_acquire_owned()
            .map_err(|_| too_many(format!("{FOLLOWERS_MAX} callers follow runs at this node already; ask another")))?;
        let (to, stream) = mpsc::channel(4);
        let (until, proved_until) = (deadline::current(), deadline::proved_until());
        let task = follow(Arc::clone(&self.backend), id, to, self.shutdown.clone(), until, proved_until);
        tokio::spawn(async move {
            task.await;
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Looking needs less than doing, and what may cost data more.
fn may_fail_over(ask: &proto::FailoverRequest, caller: &Caller) -> Result<(), Status> {
    if ask.dry_run {
        return access::require(caller, FAILOVER, "dry_run");
    }
    access::require(caller, FAILOVER, "")?;
    if ask.accept_loss {
        access::require(caller, FAILOVER, "accept_loss")?;
    }
    if !ask.assert_fence_region.is_empty() {
        access::require(caller, FAILOVER, "assert_fence_region")?;
    }
    Ok(())
}

type RunStream = ReceiverStream<Result<proto::FollowRunResponse, Status>>;

#[tonic::async_trait]
impl Admin for AdminService {
    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        self.answer("GetStatus", Self::get_status(self, request).await)
    }

    async fn pause(&self, request: Request<proto::PauseRequest>) -> Result<Response<proto::PauseResponse>, Status> {
        self.answer("Pause", Self::pause(self, request).await)
    }

    async fn resume(&self, request: Request<proto::ResumeRequest>) -> Result<Response<proto::ResumeResponse>, Status> {
        self.answer("Resume", Self::resume(self, request).await)
    }

    async fn failover(
        &self,
        request: Request<proto::FailoverRequest>,
    ) -> Result<Response<proto::FailoverResponse>, Status> {
        self.answer("Failover", Self::failover(self, request).await)
    }

    async fn traffic(
        &self,
        request: Request<proto::TrafficRequest>,
    ) -> Result<Response<proto::TrafficResponse>, Status> {
        self.answer("Traffic", self.move_traffic(request).await)
    }

    async fn recover_service(
        &self,
        request: Request<proto::RecoverServiceRequest>,
    ) -> Result<Response<proto::RecoverServiceResponse>, Status> {
        self.answer("RecoverService", Self::recover_service(self, request).await)
    }

    async fn r#move(&self, request: Request<proto::MoveRequest>) -> Result<Response<proto::MoveResponse>, Status> {
        self.answer("Move", self.planned_move(request).await)
    }

    async fn start_drill(&self, request: Request<proto::StartDrillRequest>) -> Answer<proto::StartDrillResponse> {
        self.answer("StartDrill", self.start_one_drill(request).await)
    }

    async fn list_drills(&self, request: Request<proto::ListDrillsRequest>) -> Answer<proto::ListDrillsResponse> {
        self.answer("ListDrills", self.list_all_drills(request.get_ref()))
    }

    async fn get_drill(&self, request: Request<proto::GetDrillRequest>) -> Answer<proto::GetDrillResponse> {
        self.answer("GetDrill", self.get_one_drill(request.get_ref()))
    }

    async fn report_drill(&self, request: Request<proto::ReportDrillRequest>) -> Answer<proto::ReportDrillResponse> {
        self.answer("ReportDrill", self.report_one_drill(request.get_ref()))
    }

    async fn abort_drill(&self, request: Request<proto::AbortDrillRequest>) -> Answer<proto::AbortDrillResponse> {
        self.answer("AbortDrill", self.abort_one_drill(request).await)
    }

    async fn note_lesson(&self, request: Request<proto::NoteLessonRequest>) -> Answer<proto::NoteLessonResponse> {
        self.answer("NoteLesson", self.note_one_lesson(request).await)
    }

    async fn list_runs(
        &self,
        request: Request<proto::ListRunsRequest>,
    ) -> Result<Response<proto::ListRunsResponse>, Status> {
        self.answer("ListRuns", Self::list_runs(self, request.get_ref()))
    }

    async fn get_run(&self, request: Request<proto::GetRunRequest>) -> Result<Response<proto::GetRunResponse>, Status> {
        let state = self.state();
        let found = self.find(&state, &request.get_ref().run_id).map(|run| {
            let run = Some(show::run(run, state.group(&run.group), &self.backend.policy()));
            Response::new(proto::GetRunResponse { standing: self.standing_of(&state), run })
        });
        self.answer("GetRun", found)
    }

    type FollowRunStream = RunStream;

    async fn follow_run(&self, request: Request<proto::FollowRunRequest>) -> Result<Response<RunStream>, Status> {
        self.answer("FollowRun", Self::follow_run(self, request.get_ref()))
    }

    type WatchStream = WatchStream;

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Result<Response<WatchStream>, Status> {
        self.answer("Watch", Self::watch(self, &request))
    }

    async fn order_run(
        &self,
        request: Request<proto::OrderRunRequest>,
    ) -> Result<Response<proto::OrderRunResponse>, Status> {
        self.answer("OrderRun", Self::order_run(self, request).await)
    }

    async fn get_readiness(
        &self,
        request: Request<proto::GetReadinessRequest>,
    ) -> Result<Response<proto::GetReadinessResponse>, Status> {
        self.answer("GetReadiness", Self::get_readiness(self, request).await)
    }

    type BackUpStream = BackupStream;

    async fn back_up(&self, request: Request<proto::BackUpRequest>) -> Result<Response<BackupStream>, Status> {
        self.answer("BackUp", self.take_backup(request).await)
    }

    async fn restore(
        &self,
        request: Request<Streaming<proto::RestoreRequest>>,
    ) -> Result<Response<proto::RestoreResponse>, Status> {
        self.answer("Restore", self.restore_backup(request).await)
    }

    async fn list_nodes(
        &self,
        request: Request<proto::ListNodesRequest>,
    ) -> Result<Response<proto::ListNodesResponse>, Status> {
        self.answer("ListNodes", self.nodes(request).await)
    }

    async fn change_nodes(
        &self,
        request: Request<proto::ChangeNodesRequest>,
    ) -> Result<Response<proto::ChangeNodesResponse>, Status> {
        self.answer("ChangeNodes", self.change(request).await)
    }

    async fn transfer_leadership(
        &self,
        request: Request<proto::TransferLeadershipRequest>,
    ) -> Result<Response<proto::TransferLeadershipResponse>, Status> {
        self.answer("TransferLeadership", self.transfer(request).await)
    }

    async fn list_audit(
        &self,
        request: Request<proto::ListAuditRequest>,
    ) -> Result<Response<proto::ListAuditResponse>, Status> {
        self.answer("ListAudit", Self::list_audit(self, request.get_ref()))
    }

    async fn list_pages(
        &self,
        request: Request<proto::ListPagesRequest>,
    ) -> Result<Response<proto::ListPagesResponse>, Status> {
        self.answer("ListPages", self.list_open_pages(request.get_ref()))
    }

    async fn get_page(
        &self,
        request: Request<proto::GetPageRequest>,
    ) -> Result<Response<proto::GetPageResponse>, Status> {
        self.answer("GetPage", self.get_one_page(request.get_ref()))
    }

    async fn acknowledge_pages(
        &self,
        request: Request<proto::AcknowledgePagesRequest>,
    ) -> Result<Response<proto::AcknowledgePagesResponse>, Status> {
        self.answer("AcknowledgePages", self.acknowledge(request).await)
    }

    async fn resolve_page(
        &self,
        request: Request<proto::ResolvePageRequest>,
    ) -> Result<Response<proto::ResolvePageResponse>, Status> {
        self.answer("ResolvePage", self.resolve_one_page(request).await)
    }

    async fn test_page(
        &self,
        request: Request<proto::TestPageRequest>,
    ) -> Result<Response<proto::TestPageResponse>, Status> {
        self.answer("TestPage", self.send_test_page(request).await)
    }

    async fn list_contacts(
        &self,
        request: Request<proto::ListContactsRequest>,
    ) -> Result<Response<proto::ListContactsResponse>, Status> {
        self.answer("ListContacts", self.list_all_contacts(request.get_ref()))
    }
}
