//! Recovering one service by an operator's word (C2): restart, scale, rollback, as a small run of its own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tonic::{Request, Response, Status};
use tracing::info;

use super::access::{self, RECOVER_SERVICE};
use super::backend::{DryRun, ProposeError};
use super::check;
use super::deadline;
use super::forward::{self, Place};
use super::refuse::{about, failed, invalid};
use super::service::{AdminService, FORWARD, FORWARD_DRY_RUN};
use super::show;
use crate::domain::ids::{GroupName, Principal, RegionName, RequestId, RunId, Token};
use crate::domain::service::ServiceAction;
use crate::proto::{self, RecoverServiceRequest, RecoverServiceResponse};

/// An operator's wish to recover a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverService {
    /// The group.
    pub group: GroupName,
    /// Which service.
    pub service: String,
    /// Where; not needed where it runs in one region only.
    pub region: Option<RegionName>,
    /// What to do.
    pub action: ServiceAction,
    /// For scale.
    pub replicas: Option<u32>,
    /// Who.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// The group's token as the operator saw it.
    pub expected_token: Option<Token>,
    /// The caller's id.
    pub request_id: RequestId,
}

impl RecoverService {
    /// `scale of api to 3`.
    pub fn in_words(&self) -> String {
        let to = self.replicas.map(|n| format!(" to {n}")).unwrap_or_default();
        format!("{} of {}{to}", self.action.word(), self.service)
    }
}

/// What a node must be able to do for it.
#[async_trait]
pub trait ServiceBackend {
    /// What `open_recovery` would do: reads every resource of the plan under no token and changes nothing.
    async fn dry_run_recovery(&self, ask: &RecoverService) -> Result<DryRun, ProposeError>;

    /// Resolves the plan and proposes `OpenRun`. Called only while this node leads. The same `request_id` again must answer
    /// the run that the first opened.
    async fn open_recovery(&self, ask: RecoverService) -> Result<RunId, ProposeError>;
}

fn action(ask: &RecoverServiceRequest) -> Result<ServiceAction, Status> {
    match ask.action() {
        proto::ServiceAction::Unspecified => {
            Err(invalid("action", format!("{} is none of restart, scale or rollback", ask.action)))
        }
        proto::ServiceAction::Restart => Ok(ServiceAction::Restart),
        proto::ServiceAction::Scale => Ok(ServiceAction::Scale),
        proto::ServiceAction::Rollback => Ok(ServiceAction::Rollback),
    }
}

impl AdminService {
    /// The call.
    pub(super) async fn recover_service(
        &self,
        request: Request<RecoverServiceRequest>,
    ) -> Result<Response<RecoverServiceResponse>, Status> {
        let caller = access::caller(&request)?;
        let ask = request.get_ref();
        access::require(&caller, RECOVER_SERVICE, if ask.dry_run { "dry_run" } else { "" })?;
        let asked = self.asked(ask.context.as_ref(), &caller)?;
        let group = check::group(&ask.group)?;
        let service = check::name("service", &ask.service)?.to_owned();
        let region = match ask.region.as_str() {
            "" => None,
            region => Some(RegionName::from(check::name("region", region)?)),
        };
        let (action, replicas) = (action(ask)?, ask.replicas);
        if !ask.dry_run {
            check::confirmed(&ask.confirm_group, &group)?;
        }
        let expected_token = check::token("expected_token", &ask.expected_token)?;
        let dry_run = ask.dry_run;
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let limit = if dry_run { FORWARD_DRY_RUN } else { FORWARD };
            let mut client = self.reach(&leader, limit).await?;
            let answer = client.recover_service(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        self.known_group(&self.state(), &group)?;
        let (by, reason, request_id) = (asked.by, asked.reason, asked.request_id);
        let wish = RecoverService { group, service, region, action, replicas, by, reason, expected_token, request_id };
        if dry_run { self.dry_run_recovery(&wish).await } else { self.open_recovery(wish).await }
    }

    async fn dry_run_recovery(&self, wish: &RecoverService) -> Result<Response<RecoverServiceResponse>, Status> {
        let RecoverService { group, by, reason, .. } = wish;
        let what = wish.in_words();
        info!(%group, %by, reason, "admin call: dry run of a {what}");
        let dry = self.backend.dry_run_recovery(wish).await.map_err(|error| about(failed(error), group))?;
        self.note_dry_run(group, by, &wish.request_id, format!("dry run of a {what}: {reason}")).await;
        let state = self.state();
        Ok(Response::new(RecoverServiceResponse {
            standing: self.standing_of(&state),
            run_id: String::new(),
            region: dry.plan.to.0.clone(),
            steps: show::planned(&dry.plan, &dry.present),
            gates: dry.gates.iter().map(show::gate).collect(),
            would_open: dry.gates.iter().all(|gate| gate.is_open),
            token: state.groups.get(group).map(|group| group.token.to_string()).unwrap_or_default(),
        }))
    }

    async fn open_recovery(&self, wish: RecoverService) -> Result<Response<RecoverServiceResponse>, Status> {
        let RecoverService { group, by, reason, request_id, .. } = &wish;
        info!(%group, %by, reason, %request_id, "admin call: {}", wish.in_words());
        let group = group.clone();
        let opened = deadline::write(async { self.backend.open_recovery(wish).await.map_err(failed) });
        let run_id = opened.await.map_err(|refused| about(refused, &group))?;
        let state = self.state();
        let run = show::find_run(&state, run_id.as_str()).ok();
        Ok(Response::new(RecoverServiceResponse {
            standing: self.standing_of(&state),
            region: run.map(|run| run.to().0.clone()).unwrap_or_default(),
            steps: run.map(|run| show::planned(&run.plan, &BTreeMap::new())).unwrap_or_default(),
            gates: Vec::new(),
            would_open: true,
            token: state.groups.get(&group).map(|group| group.token.to_string()).unwrap_or_default(),
            run_id: run_id.0,
        }))
    }
}
