//! Reaching a node, then another, then all again: a request is safe to repeat because it keeps its `request_id`.

use std::error::Error as _;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::args::Cli;
use super::error::{CliError, is_undecided};
use crate::api::refuse::{NODE, OUTCOME, is_certain};
use crate::api::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES};
use crate::domain::ids::ClusterName;
use crate::proto::admin_client::AdminClient;
use crate::proto::{self, GetStatusRequest, GetStatusResponse};
use crate::tls::dial::why as why_not;
use crate::tls::material::Use;
use crate::tls::{Dialer, Expect, Files, Material};

/// Asked where nobody says otherwise: a node on this machine.
pub const DEFAULT_ENDPOINT: &str = "127.0.0.1:7101";

const CONNECT: Duration = Duration::from_secs(2);
/// One attempt to change something takes no longer than this: what one node does not answer, another may.
const ATTEMPT: Duration = Duration::from_secs(10);
/// One attempt at a dry run: reading every resource of a plan may take long when a host is dead.
const PATIENT_ATTEMPT: Duration = Duration::from_secs(60);
/// One attempt to read, where there is another node to ask.
const READ_ATTEMPT: Duration = Duration::from_secs(4);
/// A node that does not say within this how it stands is not the first to be watched.
const PROBE: Duration = Duration::from_secs(2);
const BETWEEN_ROUNDS: Duration = Duration::from_millis(300);

/// A node's admin service.
pub type Node = AdminClient<Channel>;

/// Whether a call may change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asked once of each node until one answers.
    Read,
    /// Changes nothing but needs the leader, and may take long: asked again and again, as an election may be under way.
    Patient,
    /// Asked of every node again and again until one answers for certain or the time is up.
    Write,
}

/// The nodes that may be asked.
pub struct Cluster {
    endpoints: Vec<String>,
    dialer: Dialer,
    timeout: Duration,
    request_id: Option<String>,
    context: Option<String>,
}

/// By TLS where the three files are named, else in plain text.
pub fn dialer(cli: &Cli) -> Result<Dialer, CliError> {
    let (ca, certificate, key) = match (&cli.ca, &cli.certificate, &cli.key) {
        (None, None, None) => return Ok(Dialer::Plain),
        (Some(ca), Some(certificate), Some(key)) => (ca.clone(), certificate.clone(), key.clone()),
        (ca, certificate, _) => {
            let missing = match (ca, certificate) {
                (None, _) => "--ca (WATCHDOG_CA)",
                (_, None) => "--certificate (WATCHDOG_CERTIFICATE)",
                _ => "--key (WATCHDOG_KEY)",
            };
            return Err(CliError::Usage(format!("{missing} is missing: the three go together")));
        }
    };
    let material = Material::open(Files { ca, certificate, key }, Use::Call);
    Ok(Dialer::Tls(material.map_err(|error| CliError::Certificate(error.to_string()))?))
}

/// Plain text does not leave the machine, and is not spoken by mistake.
fn may_dial(scheme: &str, address: &str, dialer: &Dialer) -> Result<(), CliError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match (scheme, dialer) {
        ("http", Dialer::Tls(_)) => Err(CliError::Usage(format!(
            "endpoint http://{address} means plain text, but a certificate is given: write {address}, or drop --ca, \
             --certificate and --key, or name a context without them"
        ))),
        ("https", Dialer::Plain) => Err(CliError::Usage(format!(
            "endpoint https://{address} needs --ca, --certificate and --key (WATCHDOG_CA, WATCHDOG_CERTIFICATE, WATCHDOG_KEY), \
             or a context that has them"
        ))),
        (_, Dialer::Plain) if !is_loopback => Err(CliError::Usage(format!(
            "endpoint {address} is not on loopback, and plain text is for loopback only: give --ca, --certificate and --key \
             (WATCHDOG_CA, WATCHDOG_CERTIFICATE, WATCHDOG_KEY), or a context that has them"
        ))),
        _ => Ok(()),
    }
}

/// Scheme and address of `HOST:PORT`, with `http://` or `https://` before it or nothing.
///
/// # Errors
/// That it is none.
pub(super) fn well_formed(endpoint: &str) -> Result<(&str, &str), String> {
    let (scheme, address) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let address = address.trim_end_matches('/');
    let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let known = ["", "http", "https"].contains(&scheme);
    if !known || !port.is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port > 0) {
        return Err(format!("endpoint {endpoint:?} is not HOST:PORT or http://HOST:PORT"));
    }
    Ok((scheme, address))
}

/// What one attempt brought.
enum Tried<A> {
    Answer(A),
    Final(CliError),
    Next { why: String, maybe_done: bool, is_undecided: bool, is_full: bool },
}

impl<A> Tried<A> {
    fn next(why: String, maybe_done: bool) -> Self {
        Tried::Next { why, maybe_done, is_undecided: false, is_full: false }
    }
}

impl Cluster {
    /// `HOST:PORT`, or the same with `https://` or, in plain text, `http://` before it; none means [`DEFAULT_ENDPOINT`].
    pub fn new(endpoints: &[String], dialer: Dialer, timeout_ms: u64) -> Result<Self, CliError> {
        let mut all = Vec::new();
        for text in endpoints.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            let (scheme, address) = well_formed(text).map_err(CliError::Usage)?;
            may_dial(scheme, address, &dialer)?;
            all.push(address.to_owned());
        }
        if all.is_empty() {
            all.push(DEFAULT_ENDPOINT.to_owned());
        }
        Ok(Self { endpoints: all, dialer, timeout: Duration::from_millis(timeout_ms), request_id: None, context: None })
    }

    /// The same nodes, by the name of the context that named them.
    pub fn named(self, context: Option<&str>) -> Self {
        Self { context: context.map(str::to_owned), ..self }
    }

    /// Where something would be done, for whoever is asked whether it shall be.
    pub fn label(&self) -> String {
        let at = self.endpoints.join(", ");
        let cluster = match &self.dialer {
            Dialer::Tls(own) => own.current().identity.parts().map(|(cluster, _, _)| format!("cluster {cluster}")),
            Dialer::Plain => None,
        };
        match (&self.context, cluster) {
            (Some(context), Some(cluster)) => format!("{cluster}, context {context} ({at})"),
            (Some(context), None) => format!("context {context} ({at})"),
            (None, Some(cluster)) => format!("{cluster} ({at})"),
            (None, None) => at,
        }
    }

    /// Each of the nodes by itself, with its address.
    pub fn each(&self) -> impl Iterator<Item = (&str, Self)> {
        let alone = |endpoint: &String| Self { endpoints: vec![endpoint.clone()], ..self.within(self.timeout) };
        self.endpoints.iter().map(move |endpoint| (endpoint.as_str(), alone(endpoint)))
    }

    /// The same nodes, with another limit in all.
    pub fn within(&self, timeout: Duration) -> Self {
        let (endpoints, dialer) = (self.endpoints.clone(), self.dialer.clone());
        let (request_id, context) = (self.request_id.clone(), self.context.clone());
        Self { endpoints, dialer, timeout, request_id, context }
    }

    /// The same nodes; where the outcome stays unknown the error says how to repeat the request.
    pub fn for_request(&self, request_id: &str) -> Self {
        Self { request_id: Some(request_id.to_owned()), ..self.within(self.timeout) }
    }

    /// Calls until a node answers for certain.
    pub async fn ask<Q: Clone, A, F>(
        &self,
        kind: Kind,
        message: Q,
        call: impl Fn(Node, Request<Q>) -> F,
    ) -> Result<A, CliError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut was_sent = false;
        loop {
            let (mut reasons, mut undecided, mut all_full) = (Vec::new(), false, true);
            for endpoint in &self.endpoints {
                match self.one(endpoint, kind, &message, &call, deadline).await {
                    Tried::Answer(answer) => return Ok(answer),
                    Tried::Final(error) => return Err(error),
                    Tried::Next { why, maybe_done, is_undecided, is_full } => {
                        was_sent |= maybe_done;
                        undecided |= is_undecided;
                        all_full &= is_full;
                        reasons.push(why);
                    }
                }
            }
            if kind == Kind::Read || Instant::now() + BETWEEN_ROUNDS >= deadline {
                let why = reasons.join("; ");
                return Err(if was_sent {
                    CliError::Unknown { why, request_id: self.request_id.clone() }
                } else if undecided {
                    CliError::NoQuorum(why)
                } else if all_full {
                    CliError::Full(why)
                } else {
                    CliError::Unreachable(why)
                });
            }
            tokio::time::sleep(BETWEEN_ROUNDS).await;
        }
    }

    async fn one<Q: Clone, A, F>(
        &self,
        endpoint: &str,
        kind: Kind,
        message: &Q,
        call: &impl Fn(Node, Request<Q>) -> F,
        deadline: Instant,
    ) -> Tried<A>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let node = match self.connect(endpoint).await {
            Ok(node) => node,
            Err(why) => return Tried::next(why, false),
        };
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(500));
        let left = match kind {
            Kind::Read if self.endpoints.last().is_some_and(|last| last != endpoint) => left.min(READ_ATTEMPT),
            Kind::Read => left,
            Kind::Patient => PATIENT_ATTEMPT,
            Kind::Write => left.min(ATTEMPT),
        };
        let mut request = Request::new(message.clone());
        request.set_timeout(left);
        let status = match tokio::time::timeout(left, call(node, request)).await {
            Ok(Ok(answer)) => return Tried::Answer(answer.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => {
                let why = format!("{endpoint} did not answer within {} s", left.as_secs_f32());
                return Tried::next(why, kind == Kind::Write);
            }
        };
        let outcome = status.metadata().get(OUTCOME).and_then(|word| word.to_str().ok());
        // What the transport wraps says more than its outermost words.
        let words = status.source().filter(|_| !is_certain(&status)).map(why_not);
        let words = words.unwrap_or_else(|| status.message().to_owned());
        let why = format!("{}: {words}{}", said_by(endpoint, &status), self.hint(&status));
        match outcome {
            Some("none") => Tried::Next { why, maybe_done: false, is_undecided: is_undecided(&status), is_full: false },
            Some(_) => Tried::next(why, kind == Kind::Write),
            // Another may have room.
            None if status.code() == Code::ResourceExhausted => {
                Tried::Next { why, maybe_done: false, is_undecided: false, is_full: true }
            }
            None if self.speaks_another_language(&words) => Tried::next(why, false),
            None if is_certain(&status) => Tried::Final(CliError::from_status(&status)),
            None => Tried::next(why, kind == Kind::Write),
        }
    }

    /// Plain text to a port that speaks TLS: nobody there read a word of it.
    fn speaks_another_language(&self, words: &str) -> bool {
        matches!(self.dialer, Dialer::Plain) && words.contains("frame with invalid size")
    }

    /// A port that speaks TLS ends a plain text connection without a word.
    fn hint(&self, status: &Status) -> &'static str {
        match self.dialer {
            Dialer::Plain if !is_certain(status) && status.source().is_some() => {
                " (in plain text: where the node has a certificate, give --ca, --certificate and --key)"
            }
            _ => "",
        }
    }

    async fn connect(&self, endpoint: &str) -> Result<Node, String> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))
            .map_err(|error| format!("{endpoint}: {error}"))?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5));
        let cluster = match &self.dialer {
            Dialer::Tls(own) => own.current().identity.parts().map(|(cluster, _, _)| ClusterName::from(cluster)),
            Dialer::Plain => None,
        };
        let connector = self.dialer.to(Expect::node(cluster.as_ref(), None));
        let channel = match tokio::time::timeout(CONNECT, channel.connect_with_connector(connector)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(format!("{endpoint}: {}", why_not(&error))),
            Err(_) => return Err(format!("{endpoint}: no connection within {} s", CONNECT.as_secs())),
        };
        Ok(AdminClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .max_encoding_message_size(MAX_REQUEST_BYTES))
    }

    /// What the first node says that knows a leader and has a quorum; else the first that answers at all.
    pub async fn read<Q: Clone, A: Stands, F>(
        &self,
        ask: Q,
        call: impl Fn(Node, Request<Q>) -> F,
    ) -> Result<A, CliError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut second_best = None;
        let mut last_error = None;
        for endpoint in &self.endpoints {
            // One that accepts and says nothing must not keep the others from being asked.
            let limit = if self.endpoints.len() > 1 { self.timeout.min(READ_ATTEMPT) } else { self.timeout };
            let alone = Self { endpoints: vec![endpoint.clone()], ..self.within(limit) };
            match alone.ask(Kind::Read, ask.clone(), &call).await {
                Ok(answer) if can_decide(answer.standing()) => return Ok(answer),
                Ok(answer) => second_best = second_best.or(Some(answer)),
                Err(CliError::Unreachable(why) | CliError::Full(why)) => {
                    last_error = Some(match last_error {
                        Some(CliError::Unreachable(earlier)) => CliError::Unreachable(format!("{earlier}; {why}")),
                        _ => CliError::Unreachable(why),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        let nobody = || CliError::Unreachable("no endpoint was given".to_owned());
        second_best.ok_or_else(|| last_error.unwrap_or_else(nobody))
    }

    /// [`Cluster::read`] of the status.
    pub async fn best_status(&self, ask: GetStatusRequest) -> Result<GetStatusResponse, CliError> {
        self.read(ask, |mut node, ask| async move { node.get_status(ask).await }).await
    }

    /// The same nodes and limits, for another task.
    pub fn again(&self) -> Self {
        self.within(self.timeout)
    }

    /// Everything as it goes, from the first node that knows a leader and has a quorum; else from the first that answers.
    pub async fn watch(&self, group: &str, after: &str) -> Result<tonic::Streaming<proto::WatchResponse>, CliError> {
        let ask = proto::WatchRequest { group: group.to_owned(), resume_after: after.to_owned() };
        // A deadline on the request would end the stream with it.
        let call =
            |mut node: Node, ask: Request<proto::WatchRequest>| async move { node.watch(ask.into_inner()).await };
        let status = GetStatusRequest { group: group.to_owned(), local: true };
        let mut first = Vec::new();
        for endpoint in self.endpoints.iter().filter(|_| self.endpoints.len() > 1) {
            let alone = Self { endpoints: vec![endpoint.clone()], ..self.within(PROBE) };
            let asked =
                alone.ask(Kind::Read, status.clone(), |mut node, ask| async move { node.get_status(ask).await });
            if asked.await.is_ok_and(|answer| can_decide(answer.standing.as_ref())) {
                first.push(endpoint.clone());
                break;
            }
        }
        let others = self.endpoints.iter().filter(|endpoint| !first.contains(*endpoint)).cloned();
        let endpoints = first.iter().cloned().chain(others).collect();
        Self { endpoints, ..self.within(self.timeout) }.ask(Kind::Read, ask, call).await
    }

    /// A stream from the first node that opens one.
    pub async fn follow(&self, run_id: &str) -> Result<tonic::Streaming<proto::FollowRunResponse>, CliError> {
        let ask = proto::FollowRunRequest { run_id: run_id.to_owned() };
        // A deadline on the request would end the stream with it.
        let call = |mut node: Node, ask: Request<proto::FollowRunRequest>| async move {
            node.follow_run(ask.into_inner()).await
        };
        self.ask(Kind::Read, ask, call).await
    }
}

/// Whether the node that answered knows a leader and has a quorum, so that what it says is not old.
pub fn can_decide(standing: Option<&proto::Standing>) -> bool {
    standing.is_some_and(|standing| standing.has_quorum && !standing.leader.is_empty())
}

/// An answer that comes with its node's standing.
pub trait Stands {
    /// How the node stood that gave it.
    fn standing(&self) -> Option<&proto::Standing>;
}

macro_rules! stands {
    ($($answer:ident)*) => {
        $(impl Stands for proto::$answer {
            fn standing(&self) -> Option<&proto::Standing> {
                self.standing.as_ref()
            }
        })*
    };
}

stands!(ListPagesResponse GetPageResponse ListContactsResponse GetReadinessResponse);
stands!(ListDrillsResponse GetDrillResponse ReportDrillResponse);
stands!(GetStatusResponse GetRunResponse ListRunsResponse ListAuditResponse);

fn said_by(endpoint: &str, status: &Status) -> String {
    match status.metadata().get(NODE).and_then(|node| node.to_str().ok()) {
        Some(node) => format!("{node} ({endpoint})"),
        None => endpoint.to_owned(),
    }
}
