//! Moving a group's traffic to another region's load balancer by an operator's word; the database stays where it is.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tonic::{Request, Response, Status};
use tracing::info;

use super::access::{self, TRAFFIC};
use super::backend::{DryRun, ProposeError};
use super::check;
use super::deadline;
use super::forward::{self, Place};
use super::refuse::{about, failed};
use super::service::{AdminService, FORWARD, FORWARD_DRY_RUN};
use super::show;
use crate::domain::ids::{GroupName, Principal, RegionName, RequestId, RunId, Token};
use crate::proto::{TrafficRequest, TrafficResponse};

/// An operator's wish to move traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveTraffic {
    /// The group.
    pub group: GroupName,
    /// Where to.
    pub to: RegionName,
    /// Who.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// The group's token as the operator saw it.
    pub expected_token: Option<Token>,
    /// The caller's id.
    pub request_id: RequestId,
}

/// What a node must be able to do for it.
#[async_trait]
pub trait TrafficBackend {
    /// What `open_traffic` would do: reads every resource of the plan under no token and changes nothing.
    async fn dry_run_traffic(&self, ask: &MoveTraffic) -> Result<DryRun, ProposeError>;

    /// Resolves the plan and proposes `OpenRun`. Called only while this node leads. The same `request_id` again must answer
    /// the run that the first opened.
    async fn open_traffic(&self, ask: MoveTraffic) -> Result<RunId, ProposeError>;
}

impl AdminService {
    /// The call.
    pub(super) async fn move_traffic(
        &self,
        request: Request<TrafficRequest>,
    ) -> Result<Response<TrafficResponse>, Status> {
        let caller = access::caller(&request)?;
        let ask = request.get_ref();
        access::require(&caller, TRAFFIC, if ask.dry_run { "dry_run" } else { "" })?;
        let asked = self.asked(ask.context.as_ref(), &caller)?;
        let group = check::group(&ask.group)?;
        let to = RegionName::from(check::name("to_region", &ask.to_region)?);
        if !ask.dry_run {
            check::confirmed(&ask.confirm_group, &group)?;
        }
        let expected_token = check::token("expected_token", &ask.expected_token)?;
        let dry_run = ask.dry_run;
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let limit = if dry_run { FORWARD_DRY_RUN } else { FORWARD };
            let mut client = self.reach(&leader, limit).await?;
            let answer = client.traffic(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        self.known_group(&self.state(), &group)?;
        let (by, reason, request_id) = (asked.by, asked.reason, asked.request_id);
        let wish = MoveTraffic { group, to, by, reason, expected_token, request_id };
        if dry_run { self.dry_run_traffic(&wish).await } else { self.open_traffic(wish).await }
    }

    async fn dry_run_traffic(&self, wish: &MoveTraffic) -> Result<Response<TrafficResponse>, Status> {
        let MoveTraffic { group, to, by, reason, .. } = wish;
        info!(%group, %to, %by, reason, "admin call: dry run of moving traffic");
        let dry = self.backend.dry_run_traffic(wish).await.map_err(|error| about(failed(error), group))?;
        self.note_dry_run(group, by, &wish.request_id, format!("dry run of moving traffic to {to}: {reason}")).await;
        let state = self.state();
        Ok(Response::new(TrafficResponse {
            standing: self.standing_of(&state),
            run_id: String::new(),
            from_region: dry.plan.from.0.clone(),
            to_region: dry.plan.to.0.clone(),
            steps: show::planned(&dry.plan, &dry.present),
            gates: dry.gates.iter().map(show::gate).collect(),
            would_open: dry.gates.iter().all(|gate| gate.is_open),
            token: state.groups.get(group).map(|group| group.token.to_string()).unwrap_or_default(),
        }))
    }

    async fn open_traffic(&self, wish: MoveTraffic) -> Result<Response<TrafficResponse>, Status> {
        let MoveTraffic { group, to, by, reason, request_id, .. } = &wish;
        info!(%group, %to, %by, reason, %request_id, "admin call: traffic");
        let (group, to) = (group.clone(), to.clone());
        let opened = deadline::write(async { self.backend.open_traffic(wish).await.map_err(failed) });
        let run_id = opened.await.map_err(|refused| about(refused, &group))?;
        let state = self.state();
        let run = show::find_run(&state, run_id.as_str()).ok();
        Ok(Response::new(TrafficResponse {
            standing: self.standing_of(&state),
            from_region: run.map(|run| run.from().0.clone()).unwrap_or_default(),
            to_region: to.0,
            steps: run.map(|run| show::planned(&run.plan, &BTreeMap::new())).unwrap_or_default(),
            gates: Vec::new(),
            would_open: true,
            token: state.groups.get(&group).map(|group| group.token.to_string()).unwrap_or_default(),
            run_id: run_id.0,
        }))
    }
}
