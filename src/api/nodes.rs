//! Who is in the cluster, over gRPC: listed, changed a step at a time, and who of them leads.

use std::time::Duration;

use async_trait::async_trait;
use tonic::{Request, Response, Status};
use tracing::info;

use super::access::{self, CHANGE_NODES};
use super::backend::ProposeError;
use super::check;
use super::deadline;
use super::forward::{self, Place};
use super::refuse::{failed, invalid};
use super::service::AdminService;
use super::show::ms;
use crate::domain::ids::{NodeId, NodeName, Principal, RegionName, RequestId, UnixMs};
use crate::domain::layout::Loss;
use crate::domain::membership::Gate;
use crate::domain::state::NodeSpec;
use crate::proto;

/// How long a forwarded call may take: every member is asked first, and a change is committed twice.
const FORWARD: Duration = Duration::from_secs(9);

/// What a node must be able to do about who is in the cluster. Called only while it leads.
#[async_trait]
pub trait MembershipBackend: Send + Sync + 'static {
    /// Asks a majority whether this node still leads: what it shows after that has all that was committed before.
    async fn confirm(&self) -> Result<(), ProposeError>;

    /// Every node that is, was or is to be in the cluster, each asked now.
    async fn nodes(&self) -> Result<Nodes, ProposeError>;

    /// Judges a change, and unless it is a dry run does its next step. Repeated until it says that it is done.
    async fn change_nodes(&self, ask: ChangeNodes) -> Result<NodesChanged, ProposeError>;

    /// Hands leadership over and waits until the other leads.
    async fn transfer(&self, ask: Transfer) -> Result<Transferred, ProposeError>;
}

/// What is wished of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A new node.
    Add {
        /// Its number.
        id: NodeId,
        /// What and where.
        spec: NodeSpec,
        /// It stays a learner.
        as_learner: bool,
    },
    /// A node leaves.
    Remove {
        /// By name or number.
        node: String,
    },
    /// A new node in an old one's place.
    Replace {
        /// The old one, by name or number.
        node: String,
        /// The new one's number.
        id: NodeId,
        /// What and where.
        spec: NodeSpec,
    },
}

/// A change, and who wishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeNodes {
    /// What.
    pub wish: Wish,
    /// The leaving node's name, typed again.
    pub confirm_name: String,
    /// Judge only.
    pub dry_run: bool,
    /// Who.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// The caller's id.
    pub request_id: RequestId,
}

/// How far a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Judged only.
    Judged,
    /// A learner that lacks so many entries, where known.
    CatchingUp(Option<u64>),
    /// A learner, as was wished.
    Learner,
    /// All of it.
    Done,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodesChanged {
    /// How far.
    pub progress: Progress,
    /// The node that joins or leaves.
    pub node: String,
    /// The node that leaves, whose name is typed again; empty where none does.
    pub leaving: String,
    /// Every condition.
    pub gates: Vec<Gate>,
    /// Names of the voters now.
    pub voters_before: Vec<String>,
    /// Names of the voters when it is done.
    pub voters_after: Vec<String>,
    /// Section 3 now.
    pub layout_before: Vec<Loss>,
    /// Section 3 when it is done.
    pub layout_after: Vec<Loss>,
}

/// Every node, and where the voters stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// By number.
    pub rows: Vec<NodeRow>,
    /// What is left when each region is lost.
    pub layout: Vec<Loss>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// By this node's configuration.
    pub region: Option<RegionName>,
    /// Where its peers dial it.
    pub address: String,
    /// As what.
    pub role: proto::NodeRole,
    /// It leads.
    pub is_leader: bool,
    /// It answered just now.
    pub answers: bool,
    /// Entries it lacks.
    pub behind: Option<u64>,
    /// It runs under the configuration in force; `None` where it has not reported.
    pub same_config: Option<bool>,
    /// Its program's.
    pub version: String,
    /// Who asked for what it is, and when; where it is on record.
    pub record: Option<(Principal, UnixMs)>,
    /// In words.
    pub note: String,
}

/// Who shall lead, and who wishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// By name or number; `None`: the best besides this one.
    pub node: Option<String>,
    /// Who.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// The caller's id.
    pub request_id: RequestId,
}

/// Who leads now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// Its name.
    pub leader: String,
    /// Who led before.
    pub from: String,
    /// Who is preferred to it, and takes over next.
    pub preferred: Option<String>,
    /// Why.
    pub note: String,
}

fn wish(ask: &proto::ChangeNodesRequest) -> Result<Wish, Status> {
    let node = || check::name("node", &ask.node).map(str::to_owned);
    let newcomer = || {
        if ask.id == 0 {
            return Err(invalid("id", "0; nodes are numbered from 1"));
        }
        let host = ask.address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        if !host.is_some_and(|(host, port)| !host.is_empty() && port > 0) {
            return Err(invalid("address", format!("{:?} is not HOST:PORT", ask.address)));
        }
        let spec = NodeSpec {
            name: NodeName::from(check::name("name", &ask.name)?),
            region: RegionName::from(check::name("region", &ask.region)?),
            address: check::name("address", &ask.address)?.to_owned(),
        };
        Ok((NodeId(ask.id), spec))
    };
    match ask.action() {
        proto::NodeAction::Add => {
            let (id, spec) = newcomer()?;
            Ok(Wish::Add { id, spec, as_learner: ask.learner })
        }
        proto::NodeAction::Remove => Ok(Wish::Remove { node: node()? }),
        proto::NodeAction::Replace => {
            let (id, spec) = newcomer()?;
            Ok(Wish::Replace { node: node()?, id, spec })
        }
        proto::NodeAction::Unspecified => Err(invalid("action", "unspecified; add, remove or replace")),
    }
}

fn layout_line(loss: &Loss) -> proto::LayoutLine {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    proto::LayoutLine {
        region: loss.region.0.clone(),
        outside: count(loss.outside),
        voters: count(loss.voters),
        needed: count(loss.needed()),
        accepted: loss.is_accepted,
        text: loss.to_string(),
    }
}

fn info_of(row: NodeRow) -> proto::NodeInfo {
    let configuration = match row.same_config {
        None => proto::NodeConfiguration::Unspecified,
        Some(true) => proto::NodeConfiguration::Same,
        Some(false) => proto::NodeConfiguration::Other,
    };
    let (by, since) = row.record.unwrap_or((Principal(String::new()), UnixMs(0)));
    proto::NodeInfo {
        id: row.id.0,
        name: row.name.0,
        region: row.region.map(|region| region.0).unwrap_or_default(),
        address: row.address,
        role: row.role.into(),
        is_leader: row.is_leader,
        reachable: row.answers,
        behind_entries: row.behind,
        configuration: configuration.into(),
        version: row.version,
        by: by.0,
        since_ms: ms(since),
        note: row.note,
    }
}

fn changed(done: NodesChanged) -> proto::ChangeNodesResponse {
    let (progress, behind_entries) = match done.progress {
        Progress::Judged => (proto::NodeProgress::Judged, None),
        Progress::CatchingUp(behind) => (proto::NodeProgress::CatchingUp, behind),
        Progress::Learner => (proto::NodeProgress::Learner, None),
        Progress::Done => (proto::NodeProgress::Done, None),
    };
    let gates = done.gates.into_iter().map(|gate| proto::NodeGate {
        name: gate.name.to_owned(),
        open: gate.closed.is_none(),
        detail: gate.detail,
    });
    proto::ChangeNodesResponse {
        standing: None,
        progress: progress.into(),
        node: done.node,
        behind_entries,
        gates: gates.collect(),
        voters_before: done.voters_before,
        voters_after: done.voters_after,
        layout_before: done.layout_before.iter().map(layout_line).collect(),
        layout_after: done.layout_after.iter().map(layout_line).collect(),
        leaving: done.leaving,
    }
}

impl AdminService {
    pub(super) async fn nodes(
        &self,
        request: Request<proto::ListNodesRequest>,
    ) -> Result<Response<proto::ListNodesResponse>, Status> {
        let (caller, standing) = (access::caller(&request)?, self.standing());
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.list_nodes(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let nodes = self.backend.nodes().await.map_err(failed)?;
        let state = self.state();
        Ok(Response::new(proto::ListNodesResponse {
            standing: self.standing_of(&state),
            config_digest: state.digest.as_ref().map(|digest| digest.0.clone()).unwrap_or_default(),
            nodes: nodes.rows.into_iter().map(info_of).collect(),
            layout: nodes.layout.iter().map(layout_line).collect(),
        }))
    }

    pub(super) async fn change(
        &self,
        request: Request<proto::ChangeNodesRequest>,
    ) -> Result<Response<proto::ChangeNodesResponse>, Status> {
        let caller = access::caller(&request)?;
        let ask = request.get_ref();
        access::require(&caller, CHANGE_NODES, if ask.dry_run { "dry_run" } else { "" })?;
        let asked = self.asked(ask.context.as_ref(), &caller)?;
        let wish = wish(ask)?;
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.change_nodes(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let ask = request.into_inner();
        let change = ChangeNodes {
            wish,
            confirm_name: ask.confirm_name,
            dry_run: ask.dry_run,
            by: asked.by,
            reason: asked.reason,
            request_id: asked.request_id,
        };
        info!(wish = ?change.wish, by = %change.by, reason = change.reason, dry_run = change.dry_run, "admin call: nodes");
        // Each step of a change is on record before the next: a call that is cut off in the middle is repeated.
        let done = match change.dry_run {
            true => self.backend.change_nodes(change).await.map_err(failed)?,
            false => deadline::write(async { self.backend.change_nodes(change).await.map_err(failed) }).await?,
        };
        let standing = self.standing_of(&self.state());
        Ok(Response::new(proto::ChangeNodesResponse { standing, ..changed(done) }))
    }

    pub(super) async fn transfer(
        &self,
        request: Request<proto::TransferLeadershipRequest>,
    ) -> Result<Response<proto::TransferLeadershipResponse>, Status> {
        let caller = access::caller(&request)?;
        let asked = self.asked(request.get_ref().context.as_ref(), &caller)?;
        let node = match request.get_ref().node.as_str() {
            "" => None,
            node => Some(check::name("node", node)?.to_owned()),
        };
        let standing = self.standing();
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.transfer_leadership(forward::carried(request.into_inner(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        let transfer = Transfer { node, by: asked.by, reason: asked.reason, request_id: asked.request_id };
        info!(to = ?transfer.node, by = %transfer.by, reason = transfer.reason, "admin call: transfer of leadership");
        let done = deadline::write(async { self.backend.transfer(transfer).await.map_err(failed) }).await?;
        Ok(Response::new(proto::TransferLeadershipResponse {
            standing: self.standing_of(&self.state()),
            leader: done.leader,
            from: done.from,
            preferred: done.preferred.unwrap_or_default(),
            note: done.note,
        }))
    }
}
