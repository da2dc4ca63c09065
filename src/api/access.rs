//! Who may call what: one table of methods and roles, asked before any service sees a call, and again by the service where
//! what is asked for needs more than the method.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::deadline;
use super::details::missing_role;
use super::forward::FORWARDED_BY;
use super::origin::{self, CALLED_FROM, Call};
use super::refusals::{RECORDED, Refusals, Refused, is_told};
use super::refuse::{FORBIDDEN, UNPROVEN, invalid, refused_caller, signed};
use crate::clock::unix_now;
use crate::domain::identity::{Caller, Held, Identity, Role, Roles};
use crate::domain::ids::{NodeName, Principal};
use crate::metrics::events;
use crate::tls::Peer;

/// Header of a forwarded call: the identity that its first node proved.
pub(super) const ON_BEHALF_OF: &str = "watchdog-on-behalf-of-bin";

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Any certificate of the cluster's authority.
    Certificate,
    /// A person of that role or a higher one.
    Person(Role),
    /// A node of the cluster.
    Node,
    /// A host's guard, or a node that carries its request.
    Guard,
}

impl Need {
    fn is_met(self, held: &Held) -> bool {
        match self {
            Need::Certificate => true,
            Need::Person(role) => held.person >= Some(role),
            Need::Node => held.node.is_some(),
            Need::Guard => held.guard.is_some() || held.node.is_some(),
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Need::Certificate => "a certificate",
            Need::Person(role) => role.word(),
            Need::Node => "node",
            Need::Guard => "guard",
        }
    }
}

/// One row: a method, in which use of it (empty: any use that has no row of its own), and what that needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// The field or word that makes the difference.
    pub with: &'static str,
    /// What it needs.
    pub need: Need,
}

const fn row(path: &'static str, with: &'static str, need: Need) -> Row {
    Row { path, with, need }
}

const VIEWER: Need = Need::Person(Role::Viewer);
const OPERATOR: Need = Need::Person(Role::Operator);
const ADMIN: Need = Need::Person(Role::Admin);

/// Failing over, for the service's own question.
pub const FAILOVER: &str = "/watchdog.v1.Admin/Failover";
/// An order on a run, likewise.
pub const ORDER_RUN: &str = "/watchdog.v1.Admin/OrderRun";

/// A change of the membership, likewise.
pub const CHANGE_NODES: &str = "/watchdog.v1.Admin/ChangeNodes";
/// Moving traffic, likewise.
pub const TRAFFIC: &str = "/watchdog.v1.Admin/Traffic";
/// A planned move or a rejoin, likewise.
pub const MOVE: &str = "/watchdog.v1.Admin/Move";

/// Recovering a service, likewise.
pub const RECOVER_SERVICE: &str = "/watchdog.v1.Admin/RecoverService";

/// A restoration, likewise.
pub const RESTORE: &str = "/watchdog.v1.Admin/Restore";

/// The table. What is not in it is not served.
pub const ACCESS: &[Row] = &[
    row("/watchdog.v1.Admin/GetStatus", "", VIEWER),
    // For its status page: a node has every word of the state already, and only the leader counts votes.
    row("/watchdog.v1.Admin/GetStatus", "", Need::Node),
    row("/watchdog.v1.Admin/GetReadiness", "", VIEWER),
    row("/watchdog.v1.Admin/ListRuns", "", VIEWER),
    row("/watchdog.v1.Admin/GetRun", "", VIEWER),
    row("/watchdog.v1.Admin/FollowRun", "", VIEWER),
    row("/watchdog.v1.Admin/ListAudit", "", VIEWER),
    row("/watchdog.v1.Admin/ListNodes", "", VIEWER),
    row(CHANGE_NODES, "dry_run", VIEWER),
    row(CHANGE_NODES, "", ADMIN),
    row("/watchdog.v1.Admin/TransferLeadership", "", ADMIN),
    row("/watchdog.v1.Admin/ListPages", "", VIEWER),
    row("/watchdog.v1.Admin/GetPage", "", VIEWER),
    row("/watchdog.v1.Admin/ListContacts", "", VIEWER),
    row("/watchdog.v1.Admin/AcknowledgePages", "", OPERATOR),
    row("/watchdog.v1.Admin/ResolvePage", "", OPERATOR),
    row("/watchdog.v1.Admin/TestPage", "", OPERATOR),
    row("/watchdog.v1.Admin/BackUp", "", OPERATOR),
    row(RESTORE, "dry_run", OPERATOR),
    row(RESTORE, "", ADMIN),
    row("/watchdog.v1.Admin/Watch", "", VIEWER),
    row("/watchdog.v1.Admin/Pause", "", OPERATOR),
    row("/watchdog.v1.Admin/Resume", "", OPERATOR),
    row(FAILOVER, "dry_run", VIEWER),
    row(FAILOVER, "", OPERATOR),
    row(FAILOVER, "accept_loss", ADMIN),
    row(FAILOVER, "assert_fence_region", ADMIN),
    row(TRAFFIC, "dry_run", VIEWER),
    row(TRAFFIC, "", OPERATOR),
    row(RECOVER_SERVICE, "dry_run", VIEWER),
    row(RECOVER_SERVICE, "", OPERATOR),
    row(MOVE, "dry_run", VIEWER),
    row(MOVE, "", OPERATOR),
    row("/watchdog.v1.Admin/ListDrills", "", VIEWER),
    row("/watchdog.v1.Admin/GetDrill", "", VIEWER),
    row("/watchdog.v1.Admin/ReportDrill", "", VIEWER),
    row("/watchdog.v1.Admin/StartDrill", "", OPERATOR),
    row("/watchdog.v1.Admin/AbortDrill", "", OPERATOR),
    row("/watchdog.v1.Admin/NoteLesson", "", OPERATOR),
    row(ORDER_RUN, "retry", OPERATOR),
    row(ORDER_RUN, "abort", OPERATOR),
    row(ORDER_RUN, "skip", ADMIN),
    row(ORDER_RUN, "assert_fence", ADMIN),
    row(ORDER_RUN, "accept_loss", ADMIN),
    row("/watchdog.v1.Lease/Renew", "", Need::Guard),
    row("/watchdog.v1.Peer/Append", "", Need::Node),
    row("/watchdog.v1.Peer/Vote", "", Need::Node),
    row("/watchdog.v1.Peer/PreVote", "", Need::Node),
    row("/watchdog.v1.Peer/Snapshot", "", Need::Node),
    row("/watchdog.v1.Peer/TransferLeader", "", Need::Node),
    row("/watchdog.v1.Peer/PushReport", "", Need::Node),
    row("/watchdog.v1.Peer/Ping", "", Need::Node),
    row("/watchdog.v1.Peer/Note", "", Need::Node),
    row("/grpc.health.v1.Health/Check", "", Need::Certificate),
    row("/grpc.health.v1.Health/List", "", Need::Certificate),
    row("/grpc.health.v1.Health/Watch", "", Need::Certificate),
    row("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "", VIEWER),
];

/// Whether the caller may use the method so. Asked by the service, for uses that have rows of their own.
pub(super) fn require(caller: &Caller, path: &str, with: &str) -> Result<(), Status> {
    let Caller::Proven { identity, held } = caller else { return Ok(()) };
    let of_path = || ACCESS.iter().filter(|row| row.path == path);
    let Some(found) = of_path().find(|row| row.with == with).or_else(|| of_path().find(|row| row.with.is_empty()))
    else {
        return Err(Status::internal(format!("{path} {with} is not in the table of roles: report this")));
    };
    if found.need.is_met(held) { Ok(()) } else { Err(forbidden(path, with, found.need, identity, held)) }
}

fn forbidden(path: &str, with: &str, need: Need, identity: &Identity, held: &Held) -> Status {
    let method = path.rsplit('/').next().unwrap_or(path);
    let with = if with.is_empty() { String::new() } else { format!(" with {with}") };
    let why = format!(
        "{method}{with} needs role {}; {identity} has {}; nothing was changed",
        need.in_words(),
        held.in_words()
    );
    missing_role(&refused_caller(Code::PermissionDenied, FORBIDDEN, why), need.in_words())
}

/// Who made a call. A call that did not pass the table of roles is an error of this program, and nobody's.
pub(super) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    let found = request.extensions().get::<Caller>().cloned();
    found.ok_or_else(|| Status::internal("the call did not pass the table of roles: report this"))
}

/// Whom a forwarded call is made for, as its first node proved it.
pub(super) fn carry_identity(metadata: &mut MetadataMap, caller: &Caller) {
    if let Some(identity) = caller.identity() {
        metadata.insert_bin(ON_BEHALF_OF, BinaryMetadataValue::from_bytes(identity.as_str().as_bytes()));
    }
}

/// Stands before every service of a node's port.
#[derive(Clone)]
pub struct AccessLayer {
    inner: Arc<Inner>,
}

struct Inner {
    roles: Roles,
    node: NodeName,
    refusals: Arc<Refusals>,
}

impl AccessLayer {
    /// `node` signs what is refused; `refusals` takes it down for the audit.
    pub fn new(roles: Roles, node: NodeName, refusals: Arc<Refusals>) -> Self {
        Self { inner: Arc::new(Inner { roles, node, refusals }) }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Checked<S>;

    fn layer(&self, service: S) -> Checked<S> {
        Checked { desk: self.inner.clone(), service }
    }
}

/// The services behind it.
#[derive(Clone)]
pub struct Checked<S> {
    desk: Arc<Inner>,
    service: S,
}

impl<S> Service<Request<Body>> for Checked<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let admitted = self.desk.admit(&request).and_then(|caller| Ok((caller, deadline_of(&request)?)));
        match admitted {
            Ok((caller, deadline)) => {
                request.extensions_mut().insert(caller.clone());
                let peer = request.extensions().get::<Peer>();
                let made = Arc::new(Call::of(request.headers(), peer));
                let row = ACCESS.iter().find(|row| row.path == request.uri().path());
                let path = row.map_or("", |row| row.path);
                let proved_until = request.extensions().get::<Peer>().and_then(proved_until);
                let call = origin::within(made.clone(), self.service.call(request));
                let answer = deadline::within(deadline, proved_until, call);
                let desk = self.desk.clone();
                Box::pin(async move {
                    let mut answer = answer.await?;
                    desk.judge(path, &caller, &made, &mut answer);
                    Ok(answer)
                })
            }
            Err(status) => {
                let peer = request.extensions().get::<Peer>();
                let carried_for = self.desk.carried_for(&request);
                match &carried_for {
                    // Not the doing of the node that carried it, which is told that it need not enter it too.
                    Some(first) => {
                        let by = first.principal(self.desk.roles.cluster());
                        let call = Call::of(request.headers(), peer);
                        self.desk.take_down(request.uri().path(), by, &call, &status);
                    }
                    None => self.desk.turned_away(request.uri().path(), peer, &status),
                }
                let from = peer.and_then(Peer::from);
                let (path, code) = (request.uri().path(), status.code());
                tracing::warn!(path, ?from, ?code, message = status.message(), "call refused");
                events::call_refused(&format!("{code:?}"));
                let mut answer = signed(status, self.desk.node.as_str()).into_http();
                if carried_for.is_some() {
                    answer.headers_mut().insert(RECORDED, HeaderValue::from_static("1"));
                }
                Box::pin(std::future::ready(Ok(answer)))
            }
        }
    }
}

/// When a certificate ends, on this process's clock; `None` where nothing was shown, or not within a lifetime.
fn proved_until(peer: &Peer) -> Option<tokio::time::Instant> {
    let Peer::Known { until, .. } = peer else { return None };
    let left = std::time::Duration::from_millis(until.since(unix_now()));
    tokio::time::Instant::now().checked_add(left)
}

fn deadline_of(request: &Request<Body>) -> Result<Option<tokio::time::Instant>, Status> {
    deadline::of(request.headers()).map_err(|why| invalid("grpc-timeout", why))
}

impl Inner {
    /// A call that no service saw.
    fn turned_away(&self, path: &str, peer: Option<&Peer>, status: &Status) {
        let call = Call::of_connection(peer);
        let by = match peer {
            Some(Peer::Known { identity, .. }) => identity.principal(self.roles.cluster()),
            _ => Principal("nobody".to_owned()),
        };
        self.take_down(path, by, &call, status);
    }

    /// Whom a node makes the call for, where it may.
    fn carried_for(&self, request: &Request<Body>) -> Option<Identity> {
        let Some(Peer::Known { identity, .. }) = request.extensions().get::<Peer>() else { return None };
        let (first, _) = self.first_caller(request, identity.clone(), self.roles.of(identity)).ok()?;
        (&first != identity).then_some(first)
    }

    /// A call that a service answered: where it refused, that is taken down, unless the log or another node has it.
    fn judge(&self, path: &str, caller: &Caller, call: &Call, answer: &mut Response<Body>) {
        if !answer.headers().contains_key("grpc-status") || answer.headers().contains_key(RECORDED) {
            return;
        }
        let Some(status) = Status::from_header_map(answer.headers()) else { return };
        let said = call.said();
        if !said.is_recorded {
            if !is_told(path, status.code()) {
                return;
            }
            let unproven = || said.by.unwrap_or_else(|| Principal("unproven".to_owned()));
            let by = caller.identity().map_or_else(unproven, |identity| identity.principal(self.roles.cluster()));
            self.take_down(path, by, call, &status);
        }
        answer.headers_mut().insert(RECORDED, HeaderValue::from_static("1"));
    }

    fn take_down(&self, path: &str, by: Principal, call: &Call, status: &Status) {
        if !is_told(path, status.code()) {
            return;
        }
        // Whoever proved nothing is told apart by address.
        let is_proven = !["nobody", "unproven"].contains(&by.as_str()) && !by.as_str().starts_with("operator:");
        let host = call.from().and_then(|from| from.rsplit_once(':')).map_or("", |(host, _)| host);
        let who = if is_proven { by.0.clone() } else { format!("{by} {host}") };
        self.refusals.add(&Refused { by, who, call, path, status });
    }

    /// Who calls, once it is clear that they may.
    fn admit(&self, request: &Request<Body>) -> Result<Caller, Status> {
        let path = request.uri().path();
        let identity = match request.extensions().get::<Peer>() {
            Some(Peer::Known { identity, .. }) => identity.clone(),
            Some(Peer::Plain { .. }) => return Ok(Caller::Unproven),
            Some(Peer::Nobody { .. }) | None => {
                let message = "this call came without a certificate: show one of the cluster's authority (watchdogctl: \
                               --ca, --certificate and --key; `watchdogctl cert issue user NAME` makes one)";
                return Err(refused_caller(Code::Unauthenticated, UNPROVEN, message));
            }
        };
        let held = self.roles.of(&identity);
        let needs = || ACCESS.iter().filter(|row| row.path == path).map(|row| row.need);
        if needs().next().is_none() {
            return Err(Status::unimplemented(format!("{path}: this node has no such method")));
        }
        let (identity, held) = self.first_caller(request, identity, held)?;
        if needs().any(|need| need.is_met(&held)) {
            return Ok(Caller::Proven { identity, held });
        }
        // Met by none of its uses: the least of them is told.
        let least = needs().min_by_key(|need| if let Need::Person(role) = need { Some(*role) } else { None });
        let need = least.unwrap_or(Need::Certificate);
        let mut status = forbidden(path, "", need, &identity, &held);
        if let Some((cluster, _, _)) = identity.parts()
            && cluster != self.roles.cluster().as_str()
        {
            let message = format!("{}; it is of cluster {cluster}, this is {}", status.message(), self.roles.cluster());
            status = refused_caller(Code::PermissionDenied, FORBIDDEN, message);
        }
        Err(status)
    }

    /// A node that forwards a call makes it for whoever called it first. Only of a node is that believed, and what they may
    /// do is judged here again.
    fn first_caller(
        &self,
        request: &Request<Body>,
        identity: Identity,
        held: Held,
    ) -> Result<(Identity, Held), Status> {
        let headers = request.headers();
        let for_another = headers.contains_key(ON_BEHALF_OF);
        if ![ON_BEHALF_OF, FORWARDED_BY, CALLED_FROM].iter().any(|name| headers.contains_key(*name)) {
            return Ok((identity, held));
        }
        if held.node.is_none() {
            let message = format!("{identity} has {}, and only a node may forward another's call", held.in_words());
            return Err(refused_caller(Code::PermissionDenied, FORBIDDEN, message));
        }
        if !for_another {
            return Ok((identity, held));
        }
        let metadata = MetadataMap::from_headers(headers.clone());
        let bytes = metadata.get_bin(ON_BEHALF_OF).and_then(|value| value.to_bytes().ok()).unwrap_or_default();
        let first = std::str::from_utf8(&bytes).map_err(|error| error.to_string()).and_then(Identity::parse);
        let first = first.map_err(|why| Status::invalid_argument(format!("{ON_BEHALF_OF}: {why}")))?;
        let held = self.roles.of(&first);
        if held.node.is_some() {
            // Else one node's key would be every node's, for peer calls too.
            let message = format!("{identity} forwards a call of {first}, but a node calls for itself");
            return Err(refused_caller(Code::PermissionDenied, FORBIDDEN, message));
        }
        Ok((first, held))
    }
}
