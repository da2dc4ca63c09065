//! Does what the [`keeper`](super::keeper) says: looks at the host, asks nodes and standbys' guards, writes the record,
//! moves the gate. Ends without touching the gate: the kernel shuts it when the lease runs out.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::ServeError;
use super::config::{Lease, Tls};
use super::files::{self, Now};
use super::gate::{Gate, GateError};
use super::keeper::{Action, Keeper, LeaseRecord, Look, Said, Settings};
use super::wire;
use crate::clock::unix_now;
use crate::domain::identity::Kind;
use crate::domain::ids::{ClusterName, GroupName, HostName, Token};
use crate::domain::lease::{GateSeen, HoldTold};
use crate::guard::config::{Config, Postgres};
use crate::guard::host::{self, boottime_ms};
use crate::guard::latch;
use crate::guard::postgres;
use crate::guard::records::{self, RecordError};
use crate::guard::token_store::{self, GroupFiles};
use crate::proto::hold_client::HoldClient;
use crate::proto::lease_client::LeaseClient;
use crate::proto::{GateState, HoldGround, HoldRequest, RenewRequest};
use crate::tls::dial::{Connector, why};
use crate::tls::material::{TlsError, Use};
use crate::tls::{Dialer, Expect, Material};

/// Answers that wait to be read.
const ANSWERS_MAX: usize = 64;
/// No answer is longer, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Evidence is cut to this on the wire, bytes.
const DETAIL_BYTES_MAX: usize = 1000;

/// One host's lease: what it is made of.
pub struct Site {
    /// The guard's configuration.
    pub config: Config,
    lease: Lease,
    pg: Postgres,
    group: GroupName,
    files: GroupFiles,
    gate: Arc<dyn Gate>,
    tls: Option<Arc<Material>>,
}

impl Site {
    /// # Errors
    /// The configuration lacks a part.
    pub fn new(config: Config, gate: Arc<dyn Gate>) -> Result<Self, ServeError> {
        let lease = config.lease.clone().ok_or(GateError::Nothing("[lease]"))?;
        let pg = config.postgres.clone().ok_or(GateError::Nothing("[postgres]"))?;
        let group = config.postgres_group().cloned().ok_or(GateError::Nothing("group of [postgres]"))?;
        let files = GroupFiles::new(&config.state_dir, &group);
        let own = lease.tls.as_ref().and_then(Tls::files);
        let tls = own.map(|own| Material::open(own, Use::Both)).transpose()?;
        if let Some(tls) = &tls {
            is_of_this_host(tls, &config.cluster, &lease.host)?;
        }
        Ok(Self { config, lease, pg, group, files, gate, tls })
    }

    /// The group's files.
    pub fn files(&self) -> &GroupFiles {
        &self.files
    }

    /// This guard's certificate; `None` in plain text.
    pub fn tls(&self) -> Option<Arc<Material>> {
        self.tls.clone()
    }

    /// `[lease]`.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    fn look(&self) -> (Look, Option<u64>) {
        let now_ms = boottime_ms();
        let may_serve = postgres::may_serve(&self.pg);
        let latched = latch::load(&self.files).map_or(true, |latch| latch.mark.is_some());
        let epoch = token_store::load(&self.files, &self.group).ok().map(|record| record.epoch);
        let glass = files::glass(&self.files);
        (Look { now_ms, may_serve, latched, gate: self.gate.seen(), glass }, epoch)
    }

    fn record(&self) -> Option<LeaseRecord> {
        match records::read(&self.files.lease()) {
            Ok(record) => Some(record),
            Err(RecordError::Missing(_)) => None,
            Err(e) => {
                tracing::error!("{e}: the gate is taken for bounded; the cluster will tell the rest again");
                None
            }
        }
    }
}

enum Came {
    Answer { nonce: u64, said: Result<(Said, u64), String>, from: String },
    Held { nonce: u64, granted: Result<(), String>, from: String },
}

struct Primary {
    site: Arc<Site>,
    keeper: Keeper,
    epoch: Option<u64>,
    nodes: Vec<(String, Channel)>,
    holders: BTreeMap<String, Channel>,
    send: mpsc::Sender<Came>,
    calls: JoinSet<()>,
    /// What each source last failed with.
    faults: BTreeMap<String, String>,
    /// The newest answered request and its answer's challenge. Echoed by requests whose gate is looked at afterwards.
    challenge: (u64, u64),
    /// The gate's or disk's last fault, so that it is logged once.
    last_fault: String,
    installed: bool,
}

/// A certificate of ours says whose it is; what another's may do, the nodes' configuration says.
fn is_of_this_host(tls: &Material, cluster: &ClusterName, host: &HostName) -> Result<(), TlsError> {
    let identity = tls.current().identity.clone();
    if identity.parts().is_none_or(|parts| parts == (cluster.as_str(), Kind::Guard, host.as_str())) {
        return Ok(());
    }
    Err(TlsError {
        file: tls.files().certificate.clone(),
        what: format!("is the certificate of {identity}, and this is the guard of {host} in cluster {cluster}"),
        todo: format!("issue one: watchdogctl cert issue guard {host}"),
    })
}

/// A connection that is made when it is needed.
fn channel(address: &str, ttl_ms: u64, connector: Connector) -> Result<Channel, ServeError> {
    let wait = Duration::from_millis(ttl_ms);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|source| ServeError::Address { address: address.to_owned(), source })?;
    let endpoint = endpoint.connect_timeout(wait).timeout(wait);
    let endpoint = endpoint.http2_keep_alive_interval(wait).keep_alive_timeout(wait).keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// Keeps the lease until told to stop.
///
/// # Errors
/// An address of the configuration is none.
pub async fn keep(site: Arc<Site>, stop: CancellationToken) -> Result<(), ServeError> {
    let lease = &site.lease;
    let (cluster, dialer) = (&site.config.cluster, Dialer::of(site.tls()));
    let to_node = || dialer.to(Expect::node(Some(cluster), None));
    let nodes = lease.nodes.iter().map(|node| Ok((node.clone(), channel(node, lease.ttl_ms, to_node())?)));
    let nodes = nodes.collect::<Result<Vec<_>, ServeError>>()?;
    let to_guard = |name: &str| dialer.to(Expect::guard(cluster, &HostName::from(name)));
    let holders = lease.holders.iter().map(|(name, at)| Ok((name.clone(), channel(at, lease.ttl_ms, to_guard(name))?)));
    let holders = holders.collect::<Result<BTreeMap<_, _>, ServeError>>()?;
    let settings = Settings {
        ttl_ms: lease.ttl_ms,
        nodes: nodes.len(),
        holders: lease.holder_names(),
        boot_nonce: host::boot_nonce(),
        unix_ms: unix_now().0,
    };
    let (keeper, first) = Keeper::start(settings, site.record());
    let (send, mut came) = mpsc::channel(ANSWERS_MAX);
    let (calls, faults, last_fault) = (JoinSet::new(), BTreeMap::new(), String::new());
    let every = Duration::from_millis(lease.renew_every_ms());
    let mut primary = Primary {
        site,
        keeper,
        epoch: None,
        nodes,
        holders,
        send,
        calls,
        faults,
        challenge: (0, 0),
        last_fault,
        installed: false,
    };
    primary.act(first).await;
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = tick.tick() => primary.look().await,
            // Never closed: this function keeps a sender.
            Some(came) = came.recv() => primary.take(came).await,
        }
    }
}

impl Primary {
    async fn look(&mut self) {
        while self.calls.try_join_next().is_some() {}
        let site = self.site.clone();
        let Ok((look, epoch)) = spawn_blocking(move || site.look()).await else { return };
        self.epoch = epoch;
        let actions = self.keeper.looked(&look);
        self.act(actions).await;
        self.tell(&look).await;
    }

    async fn tell(&mut self, look: &Look) {
        let gate = match &look.gate {
            GateSeen::Bounded { evidence } => format!("bounded ({evidence})"),
            GateSeen::OpenEnded => "open-ended".to_owned(),
            GateSeen::Absent { why } => format!("not attested ({why})"),
        };
        let mut said = self.keeper.said().to_owned();
        for (from, why) in &self.faults {
            said.push_str(&format!("; {from}: {why}"));
        }
        if self.epoch.is_none() {
            said.push_str("; the group is not enrolled here, so nobody is asked");
        }
        let now = Now {
            boot_nonce: host::boot_nonce(),
            at_boottime_ms: look.now_ms,
            ttl_ms: self.site.lease.ttl_ms,
            may_serve: look.may_serve,
            open_ended: self.keeper.is_open_ended() && !look.latched,
            until_boottime_ms: self.keeper.deadline_ms(),
            gate,
            commit_gate: self.site.gate.second_layer(),
            installed: self.installed,
            said,
        };
        let path = self.site.files.lease_now();
        // Only the boot gate and status read it, and an old one says nothing to them.
        if let Ok(Err(e)) = spawn_blocking(move || records::write_quickly(&path, &now)).await {
            self.fault(e.to_string());
        }
    }

    /// A new fault is logged; the same one again is not.
    fn fault(&mut self, fault: String) {
        if self.last_fault != fault {
            tracing::error!(group = %self.site.group, "{fault}");
            self.last_fault = fault;
        }
    }

    async fn take(&mut self, came: Came) {
        let before = self.keeper.said().to_owned();
        let actions = match came {
            Came::Answer { nonce, said, from } => {
                let said = self.note(from, said);
                if let Some((_, challenge)) = &said {
                    self.challenge = self.challenge.max((nonce, *challenge));
                }
                self.keeper.answered(boottime_ms(), nonce, said.as_ref().map(|(said, _)| said))
            }
            Came::Held { nonce, granted, from } => {
                let granted = self.note(from, granted).is_some();
                self.keeper.held(boottime_ms(), nonce, granted)
            }
        };
        if self.keeper.said() != before {
            tracing::info!(group = %self.site.group, "the lease: {}", self.keeper.said());
        }
        self.act(actions).await;
    }

    fn note<T>(&mut self, from: String, answer: Result<T, String>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.faults.remove(&from);
                Some(answer)
            }
            Err(why) => {
                tracing::debug!(%from, "{why}");
                self.faults.insert(from, why);
                None
            }
        }
    }

    async fn act(&mut self, actions: Vec<Action>) {
        let mut left: VecDeque<Action> = actions.into();
        while let Some(action) = left.pop_front() {
            match action {
                Action::Save(record) => {
                    let path = self.site.files.lease();
                    let saved = spawn_blocking(move || records::write_durably(&path, &record)).await;
                    match saved {
                        Ok(Ok(())) => left.extend(self.keeper.saved()),
                        Ok(Err(e)) => {
                            self.keeper.not_saved();
                            self.fault(format!("{e}: what is bounded stays bounded; make room"));
                        }
                        Err(e) => {
                            self.keeper.not_saved();
                            self.fault(e.to_string());
                        }
                    }
                }
                Action::AskNode { nonce, node, gate, holders, ttl_ms } => {
                    self.ask_node(nonce, node, &gate, holders, ttl_ms);
                }
                Action::AskHolder { nonce, host, ttl_ms, ground } => self.ask_holder(nonce, &host, ttl_ms, ground),
                gate_action => self.move_gate(gate_action).await,
            }
        }
    }

    async fn move_gate(&mut self, action: Action) {
        let gate = self.site.gate.clone();
        let is_install = matches!(action, Action::Install | Action::Begin(_));
        let moved = spawn_blocking(move || match action {
            Action::Install => gate.install(),
            Action::Begin(until_ms) => gate.begin(until_ms),
            Action::ExtendUntil(until_ms) => gate.extend_until(until_ms),
            Action::BoundAt(until_ms) => gate.bound_at(until_ms),
            Action::Open => gate.open(),
            Action::Save(_) | Action::AskNode { .. } | Action::AskHolder { .. } => Ok(()),
        });
        let moved = moved.await.map_err(|e| e.to_string()).and_then(|moved| moved.map_err(|e| e.to_string()));
        match moved {
            Ok(()) => self.installed = true,
            Err(why) => {
                self.installed &= !is_install;
                self.fault(why);
            }
        }
    }

    fn ask_node(&mut self, nonce: u64, node: usize, gate: &GateSeen, holders: Vec<HostName>, ttl_ms: u64) {
        let (Some((from, channel)), Some(epoch)) = (self.nodes.get(node).cloned(), self.epoch) else { return };
        let (gate, detail) = match gate {
            GateSeen::Bounded { evidence } => (GateState::Bounded, evidence.as_str()),
            GateSeen::OpenEnded => (GateState::OpenEnded, ""),
            GateSeen::Absent { why } => (GateState::Absent, why.as_str()),
        };
        let (site, now_ms) = (&self.site, boottime_ms());
        let request = RenewRequest {
            cluster: site.config.cluster.0.clone(),
            epoch,
            group: site.group.0.clone(),
            host: site.lease.host.0.clone(),
            region: site.lease.region.0.clone(),
            ttl_ms,
            gate: gate.into(),
            gate_detail: crate::guard::ledger::cut(detail, DETAIL_BYTES_MAX).to_owned(),
            holders: holders.into_iter().map(|host| host.0).collect(),
            nonce,
            forwarded: false,
            // Looks and answers are taken one at a time: this was known before the gate was looked at.
            challenge: self.challenge.1,
            open_for_ms: self.keeper.deadline_ms().saturating_sub(now_ms),
            holds: self.keeper.holds_at(now_ms).into_iter().map(told).collect(),
        };
        let send = self.send.clone();
        self.calls.spawn(async move {
            let mut client = LeaseClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            let said = match tokio::time::timeout(Duration::from_millis(ttl_ms), client.renew(request)).await {
                Ok(Ok(reply)) => wire::read_renewal(reply.into_inner(), nonce),
                Ok(Err(status)) => Err(why_not(&status)),
                Err(_) => Err("no answer within the TTL".to_owned()),
            };
            // Nobody listens any more: the guard ends.
            let _ended = send.send(Came::Answer { nonce, said, from: format!("node {from}") }).await;
        });
    }

    fn ask_holder(&mut self, nonce: u64, host: &HostName, ttl_ms: u64, ground: Token) {
        let (Some(channel), Some(epoch)) = (self.holders.get(host.as_str()).cloned(), self.epoch) else { return };
        let request = HoldRequest {
            cluster: self.site.config.cluster.0.clone(),
            epoch,
            group: self.site.group.0.clone(),
            host: self.site.lease.host.0.clone(),
            ttl_ms,
            ground: Some(HoldGround { epoch: ground.epoch, n: ground.n }),
            nonce,
        };
        let (send, from) = (self.send.clone(), format!("hold of {host}"));
        self.calls.spawn(async move {
            let mut client = HoldClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            let granted = match tokio::time::timeout(Duration::from_millis(ttl_ms), client.hold(request)).await {
                Ok(Ok(reply)) => wire::read_hold(reply.into_inner(), nonce),
                Ok(Err(status)) => Err(why_not(&status)),
                Err(_) => Err("no answer within the TTL".to_owned()),
            };
            let _ended = send.send(Came::Held { nonce, granted, from }).await;
        });
    }
}

/// A node's or guard's own words, else what the transport wraps.
fn why_not(status: &Status) -> String {
    wire::words(&status.source().map_or_else(|| status.message().to_owned(), why))
}

fn told(hold: HoldTold) -> crate::proto::HoldTold {
    let ground = Some(HoldGround { epoch: hold.ground.epoch, n: hold.ground.n });
    crate::proto::HoldTold { host: hold.host.0, for_ms: hold.for_ms, ground }
}
