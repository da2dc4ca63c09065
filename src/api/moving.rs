//! Planned moves by an operator's word: a switchover, the failback home, and the rejoin of an old primary as a standby.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tonic::{Request, Response, Status};
use tracing::info;

use super::access::{self, MOVE};
use super::backend::{DryRun, ProposeError};
use super::check;
use super::deadline;
use super::forward::{self, Place};
use super::refuse::{about, failed, invalid};
use super::service::{AdminService, FORWARD, FORWARD_DRY_RUN};
use super::show;
use crate::domain::ids::{GroupName, Principal, RegionName, RequestId, RunId, Token};
use crate::proto::{self, MoveRequest, MoveResponse};

/// What is wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveKind {
    /// The group moves to another region.
    Switchover,
    /// The group moves home.
    Failback,
    /// A region's old primary becomes a standby of the one that serves.
    Rejoin,
}

impl std::fmt::Display for MoveKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MoveKind::Switchover => "switchover",
            MoveKind::Failback => "failback",
            MoveKind::Rejoin => "rejoin",
        })
    }
}

/// An operator's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanMove {
    /// What.
    pub kind: MoveKind,
    /// The group.
    pub group: GroupName,
    /// Where to, or which region rejoins. `None`: the only one it can be.
    pub region: Option<RegionName>,
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
pub trait MovingBackend {
    /// What `open_move` would do: reads every resource of the plan under no token and changes nothing.
    async fn dry_run_move(&self, ask: &PlanMove) -> Result<DryRun, ProposeError>;

    /// Judges the gates, resolves the plan and proposes `OpenRun`. Called only while this node leads. The same `request_id`
    /// again must answer the run that the first opened.
    async fn open_move(&self, ask: PlanMove) -> Result<RunId, ProposeError>;
}

fn kind_of(ask: &MoveRequest) -> Result<MoveKind, Status> {
    match ask.kind() {
        proto::MoveKind::Switchover => Ok(MoveKind::Switchover),
        proto::MoveKind::Failback => Ok(MoveKind::Failback),
        proto::MoveKind::Rejoin => Ok(MoveKind::Rejoin),
        proto::MoveKind::Unspecified => Err(invalid("kind", format!("{} is not a kind of move", ask.kind))),
    }
}

impl AdminService {
    /// The call.
    pub(super) async fn planned_move(&self, request: Request<MoveRequest>) -> Result<Response<MoveResponse>, Status> {
        let caller = access::caller(&request)?;
        let ask = request.get_ref();
        access::require(&caller, MOVE, if ask.dry_run { "dry_run" } else { "" })?;
        let asked = self.asked(ask.context.as_ref(), &caller)?;
        let group = check::group(&ask.group)?;
        let kind = kind_of(ask)?;
        let region = match ask.region.as_str() {
            "" => None,
            _ if kind == MoveKind::Failback => {
                return Err(invalid("region", "a failback goes to the group's home; leave it empty".to_owned()));
            }
            region => Some(RegionName::from(check::name("region", region)?)),
        };
        if !ask.dry_run {
            check::confirmed(&ask.confirm_group, &group)?;
        }
        let expected_token = check::token("expected_token", &ask.expected_token)?;
        let dry_run = ask.dry_run;
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let limit = if dry_run { FORWARD_DRY_RUN } else { FORWARD };
            let mut client = self.reach(&leader, limit).await?;
            let answer = client.r#move(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        self.known_group(&self.state(), &group)?;
        let (by, reason, request_id) = (asked.by, asked.reason, asked.request_id);
        let wish = PlanMove { kind, group, region, by, reason, expected_token, request_id };
        if dry_run { self.dry_run_move(&wish).await } else { self.open_move(wish).await }
    }

    async fn dry_run_move(&self, wish: &PlanMove) -> Result<Response<MoveResponse>, Status> {
        let PlanMove { kind, group, by, reason, .. } = wish;
        info!(%kind, %group, %by, reason, "admin call: dry run of a planned move");
        let dry = self.backend.dry_run_move(wish).await.map_err(|error| about(failed(error), group))?;
        self.note_dry_run(group, by, &wish.request_id, format!("dry run of a {kind} to {}: {reason}", dry.plan.to))
            .await;
        let state = self.state();
        Ok(Response::new(MoveResponse {
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

    async fn open_move(&self, wish: PlanMove) -> Result<Response<MoveResponse>, Status> {
        let PlanMove { kind, group, by, reason, request_id, .. } = &wish;
        info!(%kind, %group, %by, reason, %request_id, "admin call: planned move");
        let group = group.clone();
        let opened = deadline::write(async { self.backend.open_move(wish).await.map_err(failed) });
        let run_id = opened.await.map_err(|refused| about(refused, &group))?;
        let state = self.state();
        let run = show::find_run(&state, run_id.as_str()).ok();
        Ok(Response::new(MoveResponse {
            standing: self.standing_of(&state),
            from_region: run.map(|run| run.from().0.clone()).unwrap_or_default(),
            to_region: run.map(|run| run.to().0.clone()).unwrap_or_default(),
            steps: run.map(|run| show::planned(&run.plan, &BTreeMap::new())).unwrap_or_default(),
            gates: Vec::new(),
            would_open: true,
            token: state.groups.get(&group).map(|group| group.token.to_string()).unwrap_or_default(),
            run_id: run_id.0,
        }))
    }
}
