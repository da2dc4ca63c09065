//! One node, put together: store and Raft, probes, coordinator, pages, and the listeners. Started in order; on shutdown
//! leadership is handed on, what acts is dropped first, and the store is closed last.

mod actuators;
mod audit;
mod audit_files;
mod backend;
mod drills;
mod dry_run;
mod heartbeat;
mod http;
pub mod journal;
pub mod leases;
mod manager;
mod metrics;
mod moving;
mod nodes;
mod page;
pub mod pager;
mod readiness;
mod refusals;
mod services;
mod traces;
mod traffic;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::actuator::Actuator;
use crate::api;
use crate::api::access::AccessLayer;
use crate::api::lease::LeaseService;
use crate::api::refusals::Refusals;
use crate::api::service::AdminService;
use crate::clock::unix_now;
use crate::config::{Config, ConfigError, NodeConfig, TargetConfig, TargetKind};
use crate::consensus::{self, Consensus};
use crate::coordinator::{Coordinator, Journal as _, Leases, ReadinessWatch, Sightings};
use crate::domain::ids::{GroupName, NodeId, Principal, ReceiverName, RegionName, TargetName};
use crate::domain::observation::Report;
use crate::domain::verdict::WindowParameters;
use crate::drill::DrillDriver;
use crate::metrics::events;
use crate::notify::{Dispatcher, NotifyError};
use crate::probe::observer::Closely;
use crate::probe::simulated::Faults;
use crate::probe::{Observer, Peer, PingProbe, Serving, TargetError};
use crate::proto::lease_server::LeaseServer;
use crate::systemd;
use crate::tls::material::{TlsError, Use};
use crate::tls::{Dialer, Material, incoming};

/// Reports of other nodes waiting to be taken in; past this they are refused, and sent again a moment later.
const REPORTS_MAX: usize = 256;
/// A report that the leader does not take within this is dropped: the next one is on its way.
const PUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// A guard's request for its lease is small, bytes.
const LEASE_BYTES_MAX: usize = 64 * 1024;
/// A connection is closed in good order after this, so that what its certificate proved is proved anew.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);
/// Handing leadership on at shutdown takes no longer than this.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Why a node does not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node's certificate.
    #[error("[tls]: {0}")]
    Tls(#[from] TlsError),
    /// A listener.
    #[error("{what} {address}: {source}; is another process using it, or is the address not this machine's?")]
    Listen {
        /// Which setting.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store or Raft.
    #[error(transparent)]
    Consensus(#[from] consensus::StartError),
    /// The cluster could not be formed.
    #[error(transparent)]
    Bootstrap(#[from] consensus::BootstrapError),
    /// A target's probe.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A receiver of pages.
    #[error("receiver {receiver}: {source}")]
    Receiver {
        /// Which.
        receiver: ReceiverName,
        /// What is wrong.
        source: NotifyError,
    },
    /// The embedded protocol descriptors.
    #[error(transparent)]
    Reflection(#[from] api::ReflectionError),
    /// Raft stopped while the node ran.
    #[error("the node had to stop: {0}; it must be started again, and rejoins from its store")]
    Stopped(String),
    /// A listener broke while the node ran.
    #[error("the gRPC listener broke: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Runs a node until `shutdown`. Returns early only with an error.
pub async fn run(config: Config, node: &str, shutdown: CancellationToken) -> Result<(), ServerError> {
    let own = config.node(node)?.clone();
    let tls = config.tls_files(&own.name).map(|files| Material::open(files, Use::Both)).transpose()?;
    match &tls {
        Some(tls) => tracing::info!(identity = %tls.current().identity, "mutual TLS"),
        None => tracing::warn!("plain text on loopback: whoever has a login on this machine may do everything"),
    }
    let listener = bind("listen", own.listen).await?;
    let http = match own.http {
        Some(address) => Some(bind("http", address).await?),
        None => None,
    };
    let page = match own.page {
        Some(address) => Some(bind("page", address).await?),
        None => None,
    };
    let (reports, received) = mpsc::channel(REPORTS_MAX);
    let consensus = Consensus::start(consensus_options(&config, &own, tls.clone(), reports)).await?;
    let ended = serve(&config, &own, &consensus, received, (listener, tls), (http, page), &shutdown).await;
    systemd::stopping();
    hand_over(&consensus, own.id).await;
    if let Err(error) = consensus.shutdown().await {
        tracing::error!(%error, "the store did not close cleanly");
    }
    ended
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { what, address, source })
}

fn consensus_options(
    config: &Config,
    own: &NodeConfig,
    tls: Option<Arc<Material>>,
    reports: mpsc::Sender<Report>,
) -> consensus::Options {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let member = |node: &NodeConfig| consensus::Node {
        name: node.name.clone(),
        region: node.region.clone(),
        address: node.address.clone(),
    };
    consensus::Options {
        identity: consensus::Identity { cluster: config.cluster.clone(), epoch: config.epoch, node: own.id },
        members: config.nodes.iter().map(|(id, node)| (*id, member(node))).collect::<BTreeMap<_, _>>(),
        data_dir: own.data_dir.clone(),
        timing: consensus::Timing {
            heartbeat_ms: ms(config.timing.heartbeat),
            election_min_ms: ms(config.timing.election_min),
            election_max_ms: ms(config.timing.election_max),
            install_snapshot_timeout_ms: ms(config.timing.install_snapshot_timeout),
        },
        retention: consensus::Retention::default(),
        reports,
        client_tls: tls,
    }
}

async fn serve(
    config: &Config,
    own: &NodeConfig,
    consensus: &Consensus,
    received: mpsc::Receiver<Report>,
    (listener, tls): (TcpListener, Option<Arc<Material>>),
    (http, page): (Option<TcpListener>, Option<TcpListener>),
    shutdown: &CancellationToken,
) -> Result<(), ServerError> {
    let policy = Arc::new(config.policy());
    events::expect(&policy.groups);
    let sightings = Arc::new(Sightings::default());
    let observer = Arc::new(observer(config, own, consensus)?);
    let journal = Arc::new(journal::RaftJournal::start(consensus.clone()));
    let actuators = Arc::new(actuators::ActuatorSet::new());
    let actuator: Arc<dyn Actuator> = actuators.clone();
    let (looks, look) = watch::channel(Arc::default());
    let leases = Arc::new(Leases::default());
    let coordinator = Arc::new(Coordinator {
        node: own.id,
        name: Principal(format!("node:{}", own.name)),
        policy: policy.clone(),
        journal: journal.clone(),
        actuator,
        sightings: sightings.clone(),
        leases: leases.clone(),
        looks,
        last_rejection: std::sync::Mutex::default(),
        news: crate::coordinator::News::default(),
    });
    let name = Principal(format!("node:{}", own.name));
    let book = Arc::new(leases::AskedBook::default());
    let desk = leases::Desk::new(consensus.clone(), policy.clone(), own.id, name.clone(), leases.clone(), book.clone());
    let receivers = pager::receivers(config)?;
    let dispatcher = Dispatcher::new(&config.cluster, &receivers)
        .map_err(|(receiver, source)| ServerError::Receiver { receiver, source })?;
    let dispatcher = Arc::new(dispatcher);
    let heart = heartbeat::Heart::new(config, own)?;
    let collector = traces::collector(config, own)?;
    let (stop, stopping) = watch::channel(false);
    let audit_trouble = Arc::new(audit::AuditTrouble::default());
    let backend = Arc::new(backend::Backend::new(backend::Parts {
        consensus: consensus.clone(),
        policy: policy.clone(),
        own: own.clone(),
        sightings: sightings.clone(),
        look,
        actuators: actuators.clone(),
        observer: observer.clone(),
        leases,
        book,
        notices: readiness::notices(config),
        tls: tls.clone(),
        audit_trouble: audit_trouble.clone(),
        backups: backups(config),
        beats: heart.as_ref().map(|heart| heart.beats.clone()),
        warnings: config.warnings.iter().map(|fault| format!("{}: {}", fault.path, fault.what)).collect(),
    }));
    // Everything below is dropped, and so ends, when this function returns.
    let mut tasks = JoinSet::new();
    tasks.spawn(take_in(received, sightings.clone()));
    if let Some(collector) = collector {
        tasks.spawn(traces::export(collector, consensus.clone(), policy.clone()));
    }
    if let Some(heart) = heart {
        tasks.spawn(heart.keep_beating(consensus.clone(), sightings.clone()));
    }
    tasks.spawn(push(consensus.clone(), own.id, observer.reports(), sightings));
    let every = config.timing.readiness_interval;
    tasks.spawn(ReadinessWatch::new(coordinator.clone(), backend.clone(), every).run(stopping.clone()));
    tasks.spawn(DrillDriver::new(coordinator.clone(), backend.clone()).run(stopping.clone()));
    tasks.spawn(coordinator.run(stopping));
    tasks.spawn(actuators::keep_warm(actuators, policy, journal.leadership()));
    tasks.spawn(pager::deliver(dispatcher.clone(), consensus.clone(), journal, own.id, name));
    tasks.spawn(pager::page_lost_quorum(dispatcher, backend.clone(), config.cluster.clone(), own.name.clone()));
    tasks.spawn(backend::keep_standing(backend.clone()));
    let refused = Refusals::new(own.id, own.name.clone());
    tasks.spawn(refusals::carry(refused.clone(), consensus.clone()));
    tasks.spawn(audit::keep_files(consensus.state(), own.audit_dir.clone(), config.audit_retention, audit_trouble));
    if let Some(http) = http {
        tasks.spawn(http::serve(http, backend.clone()));
    }
    if let Some(tls) = &tls {
        tasks.spawn(tls.clone().keep_fresh());
    }
    let (desk, dialer) = (Arc::new(desk), Dialer::of(tls.clone()));
    if let Some(page) = page {
        let service = AdminService::new(backend.clone(), dialer.clone(), shutdown.clone());
        let shown = page::StatusPage::new(service, config.roles(), shutdown.clone());
        // On loopback whoever has a login on this machine may look; the configuration binds it elsewhere with TLS only.
        let tls = tls.clone().filter(|_| own.page.is_some_and(|page| !page.ip().is_loopback()));
        tasks.spawn(page::serve(page, tls, shown));
    }
    let lease = LeaseService::new(backend.clone(), dialer.clone(), desk);
    let lease = LeaseServer::new(lease).max_decoding_message_size(LEASE_BYTES_MAX);
    let told = manager::keep_told(backend.clone());
    let routes = api::routes(backend, dialer, shutdown.clone())?
        .add_service(consensus.service().into_server())
        .add_service(lease);
    let closing = shutdown.clone();
    let grpc = tonic::transport::Server::builder()
        .layer(AccessLayer::new(config.roles(), own.name.clone(), refused))
        .max_connection_age(CONNECTION_AGE_MAX)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming(listener, tls), async move { closing.cancelled().await });
    tracing::info!(node = %own.name, listen = %own.listen, digest = %config.digest, "serving");
    tasks.spawn(told);
    let serving = async {
        consensus.bootstrap().await?;
        std::future::pending::<Result<(), ServerError>>().await
    };
    let ended = tokio::select! {
        served = grpc => served.map_err(ServerError::from),
        failed = serving => failed,
        why = stopped(consensus) => Err(ServerError::Stopped(why)),
        () = shutdown.cancelled() => Ok(()),
    };
    let _ = stop.send(true);
    ended
}

fn backups(config: &Config) -> BTreeMap<(GroupName, TargetName), (RegionName, u64)> {
    let of = |target: &TargetConfig| match &target.kind {
        TargetKind::Backup { max_age, .. } => {
            let late_ms = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
            Some(((target.group.clone()?, target.name.clone()), (target.region.clone()?, late_ms)))
        }
        _ => None,
    };
    config.targets().filter_map(of).collect()
}

/// Peers are asked this often; a ping is small, and Raft's own heartbeats are not counted.
const PEER_WINDOW: WindowParameters =
    WindowParameters { interval_ms: 1000, fastinter_ms: 300, timeout_ms: 1000, fall: 3, rise: 1 };

fn observer(config: &Config, own: &NodeConfig, consensus: &Consensus) -> Result<Observer, TargetError> {
    let state = consensus.state();
    let serving: Serving = Arc::new(move |group| state.borrow().group(group)?.serving.region.clone());
    let state = consensus.state();
    let faults: Faults = Arc::new(move |group| {
        let state = state.borrow();
        Some(state.group(group)?.drills.injecting()?.id.0.clone())
    });
    let (state, policies) = (consensus.state(), config.policy().groups);
    let closely: Closely = Arc::new(move |group, target| {
        let state = state.borrow();
        let rules = policies.get(group);
        rules.is_some_and(|rules| state.group(group).is_some_and(|group| group.is_watched_closely(rules, target)))
    });
    let peer = |node: NodeId| {
        let consensus = consensus.clone();
        let ping = move || {
            let consensus = consensus.clone();
            async move {
                let pong = consensus.ping(node, Duration::from_millis(PEER_WINDOW.timeout_ms)).await;
                pong.map(drop).map_err(|error| error.to_string())
            }
        };
        Peer { node, window: PEER_WINDOW, probe: Arc::new(PingProbe(ping)) }
    };
    let peers = config.nodes.keys().filter(|id| **id != own.id).map(|id| peer(*id)).collect();
    Observer::of_config(config, own, unix_now(), (&serving, &faults, closely), peers)
}

/// Takes in what other nodes push.
pub async fn take_in(mut received: mpsc::Receiver<Report>, sightings: Arc<Sightings>) {
    while let Some(report) = received.recv().await {
        sightings.receive(report);
    }
}

/// Every report goes to the leader, and a new leader gets the newest at once.
pub async fn push(
    consensus: Consensus,
    own: NodeId,
    mut reports: watch::Receiver<Arc<Report>>,
    sightings: Arc<Sightings>,
) {
    let mut leadership = consensus.leadership();
    loop {
        let report = reports.borrow_and_update().clone();
        let leader = leadership.borrow_and_update().leader;
        sightings.receive((*report).clone());
        if let Some(leader) = leader.filter(|leader| *leader != own) {
            tokio::select! {
                pushed = consensus.push_report(leader, &report, PUSH_TIMEOUT) => if let Err(error) = pushed {
                    tracing::debug!(%leader, %error, "the report did not reach the leader");
                },
                // A dead leader must not keep the report from its successor.
                changed = leadership.changed() => match changed {
                    Ok(()) => {
                        leadership.mark_changed();
                    }
                    Err(_) => return,
                },
            }
        }
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

async fn stopped(consensus: &Consensus) -> String {
    let mut leadership = consensus.leadership();
    let found = leadership.wait_for(|now| now.stopped.is_some()).await;
    match found {
        Ok(now) => now.stopped.clone().unwrap_or_default(),
        Err(_) => "raft ended".to_owned(),
    }
}

/// A leader that is told to stop hands leadership on first, so that nobody has to miss it.
async fn hand_over(consensus: &Consensus, own: NodeId) {
    let now = consensus.leadership().borrow().clone();
    if !now.is_self {
        return;
    }
    for to in now.voters.keys().filter(|id| **id != own) {
        if consensus.ping(*to, Duration::from_millis(500)).await.is_err() {
            continue;
        }
        match consensus.transfer_leadership(*to, HAND_OVER).await {
            Ok(()) => tracing::info!(%to, "leadership handed over"),
            Err(error) => tracing::warn!(%to, %error, "leadership was not handed over"),
        }
        return;
    }
}
