//! The handle that the rest of a node uses.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ReadPolicy;
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::error::{ConfirmError, LeaderHint, ProposeError, StartError, TransferError};
use super::network::{Contact, Dial, NetworkFactory, PeerError, PeerService, Peers, Pong, dial_tcp};
use super::options::{Options, Timing};
use super::state_machine::StateMachine;
use super::store::{Reached, Store, StoreError};
use super::types::{Identity, MAX_COMMAND_BYTES, Node, Raft, TypeConfig};
use crate::domain::command::{Applied, Command};
use crate::domain::ids::NodeId;
use crate::domain::observation::Report;
use crate::domain::sealed::Sealed;
use crate::domain::state::ClusterState;

/// How long `shutdown` waits for each of Raft and the store.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// Who leads, and who may vote. Changes rarely: wait on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader this node follows, or is. Known does not mean reachable: see [`Consensus::has_quorum`].
    pub leader: Option<NodeId>,
    /// This node leads, as far as it knows. Before acting, [`Consensus::confirm_leadership`].
    pub is_self: bool,
    /// Raft's term.
    pub term: u64,
    /// Who votes.
    pub voters: BTreeMap<NodeId, Node>,
    /// Who only receives the log.
    pub learners: BTreeMap<NodeId, Node>,
    /// Why Raft stopped, when it did: the node must end.
    pub stopped: Option<String>,
}

/// How far a node's log goes; 0 where there is nothing yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The newest entry.
    pub last: u64,
    /// The newest entry known to be committed.
    pub committed: u64,
    /// The newest entry applied.
    pub applied: u64,
}

/// One node's part in the cluster: proposes commands, shows the replicated state and who leads. Clones share it.
///
/// ```no_run
/// # use std::{collections::BTreeMap, time::Duration};
/// # use watchdog::consensus::{Consensus, Identity, Options, Retention, Timing};
/// # use watchdog::domain::{command::Command, ids::NodeId};
/// # async fn example(command: Command) -> anyhow::Result<()> {
/// let (reports, mut _received) = tokio::sync::mpsc::channel(256);
/// let consensus = Consensus::start(Options {
///     identity: Identity { cluster: "demo".into(), epoch: 1, node: NodeId(1) },
///     members: BTreeMap::new(), // every configured node, this one too
///     data_dir: "/var/lib/watchdog/hcmc-1".into(),
///     timing: Timing::default(),
///     retention: Retention::default(),
///     reports,
///     client_tls: None,
/// })
/// .await?;
/// // One port: the admin service goes into the same router.
/// let router = tonic::transport::Server::builder().add_service(consensus.service().into_server());
/// # drop(router);
/// consensus.bootstrap().await?; // does nothing where the cluster was formed before
///
/// // The leader's loop.
/// let term = consensus.confirm_leadership(Duration::from_secs(2)).await?; // a majority says so, now
/// let state = consensus.state().borrow().clone(); // at least as new as that answer
/// # drop(state);
/// let applied = consensus.propose_in_term(term, command, Duration::from_secs(5)).await?;
/// # drop(applied);
/// consensus.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Consensus {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) identity: Identity,
    pub(super) members: BTreeMap<NodeId, Node>,
    timing: Timing,
    pub(super) raft: Raft,
    pub(super) store: Store,
    pub(super) peers: Arc<Peers>,
    service: PeerService,
    contact: Arc<Contact>,
    state: watch::Receiver<Arc<ClusterState>>,
    leadership: watch::Receiver<Leadership>,
    watcher: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.watcher.abort();
        self.keeper.abort();
    }
}

impl Consensus {
    /// Opens the store and starts Raft. Calls nobody before there is a membership.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        check(&options)?;
        let (folder, identity) = (options.data_dir.clone(), options.identity.clone());
        let store = tokio::task::spawn_blocking(move || Store::open(&folder, &identity))
            .await
            .map_err(|error| StartError::Raft(error.to_string()))??;
        let dial = dial_tcp(options.client_tls.clone(), options.identity.cluster.clone(), &options.members);
        Self::start_on(options, store, dial).await
    }

    /// As [`start`](Self::start), on a store that is open and over lines of the caller's.
    pub async fn start_on(options: Options, store: Store, dial: Dial) -> Result<Self, StartError> {
        let config = check(&options)?;
        let id = options.identity.node;
        let machine = StateMachine::open(store.clone()).await?;
        let state = machine.subscribe();
        let peers = Arc::new(Peers::new(options.identity.clone(), store.clone(), dial));
        let shared = Arc::new(OnceLock::new());
        let network = NetworkFactory { peers: peers.clone(), raft: shared.clone() };
        let raft = Raft::new(id, Arc::new(config), network, store.clone(), machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        // Set once, here: it cannot be taken.
        drop(shared.set(raft.clone()));
        let contact = Arc::new(Contact::default());
        let (publish, leadership) = watch::channel(Leadership::default());
        let watcher = tokio::spawn(watch_leadership(raft.clone(), store.clone(), publish));
        let keeper = tokio::spawn(store.clone().keep_reached());
        let service = PeerService {
            identity: options.identity.clone(),
            store: store.clone(),
            raft: raft.clone(),
            members: Arc::new(options.members.iter().map(|(id, member)| (*id, member.name.clone())).collect()),
            must_prove: options.client_tls.is_some(),
            contact: contact.clone(),
            reports: options.reports.clone(),
            quorum_limit: options.timing.quorum_limit(),
        };
        let inner = Inner {
            identity: options.identity,
            members: options.members,
            timing: options.timing,
            raft,
            store,
            peers,
            service,
            contact,
            state,
            leadership,
            watcher,
            keeper,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The peer service, for the router that also carries the admin service.
    pub fn service(&self) -> PeerService {
        self.inner.service.clone()
    }

    /// This node.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// The id of this node's store: its peers accept no other from it.
    pub fn store_id(&self) -> &str {
        self.inner.store.id()
    }

    /// How far the stores came as far as this node knows, its own first: what a node says of them in every message.
    pub fn reached(&self) -> Vec<Reached> {
        self.inner.store.reached()
    }

    /// The replicated state as this node has applied it, whenever it changes.
    pub fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.inner.state.clone()
    }

    /// Who leads, whenever that changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Writes a command to the log and waits until it is committed and applied here. Leader only.
    pub async fn propose(&self, command: Command, wait: Duration) -> Result<Applied, ProposeError> {
        self.write(None, command, wait).await
    }

    /// As [`propose`](Self::propose), but only if this node still leads in `term`: a command decided on in one term is
    /// never written in another.
    pub async fn propose_in_term(&self, term: u64, command: Command, wait: Duration) -> Result<Applied, ProposeError> {
        self.write(Some(term), command, wait).await
    }

    async fn write(&self, term: Option<u64>, command: Command, wait: Duration) -> Result<Applied, ProposeError> {
        let deadline = Instant::now() + wait;
        let too_large = |bytes| ProposeError::TooLarge { bytes, limit: MAX_COMMAND_BYTES };
        let command = Sealed::new(command).map_err(|_| too_large(usize::MAX))?;
        let bytes = serde_json::to_vec(&command).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_COMMAND_BYTES {
            return Err(too_large(bytes));
        }
        let (responder, answer) = ProgressResponder::complete_only();
        let mut request = self.inner.raft.write(command).responder(responder);
        if let Some(term) = term {
            request = request.with_leader(term);
        }
        let sent = async {
            request.await?;
            Ok(answer.await)
        };
        let answered = timeout_at(deadline, sent)
            .await
            .map_err(|_| ProposeError::Unknown { reason: format!("no answer within {} ms", wait.as_millis()) })?;
        match answered {
            Err(fatal) => Err(self.stopped(&fatal)),
            Ok(Ok(Ok(response))) => Ok(response.data),
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(to)))) => Err(ProposeError::NotLeader(hint(to))),
            Ok(Ok(Err(error @ ClientWriteError::LogEntryDiscarded(_)))) => {
                Err(ProposeError::Unknown { reason: error.to_string() })
            }
            Ok(Ok(Err(error))) => Err(ProposeError::Unknown { reason: error.to_string() }),
            // Raft went away with the command in hand.
            Ok(Err(_)) => Err(ProposeError::Unknown {
                reason: stop_reason(&self.inner.raft).unwrap_or_else(|| "raft dropped the command".to_owned()),
            }),
        }
    }

    fn stopped(&self, fatal: &Fatal<TypeConfig>) -> ProposeError {
        let reason = stop_reason(&self.inner.raft).unwrap_or_else(|| fatal.to_string());
        ProposeError::Stopped { reason }
    }

    /// Asks a majority whether this node still leads, and waits until everything committed before is applied here.
    /// Returns the term.
    pub async fn confirm_leadership(&self, wait: Duration) -> Result<u64, ConfirmError> {
        let answer =
            timeout_at(Instant::now() + wait, self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
        match answer {
            Err(_) => {
                Err(ConfirmError::NoQuorum { reason: format!("no majority answered within {} ms", wait.as_millis()) })
            }
            Ok(Ok(read)) => Ok(read.log_id().committed_leader_id().term),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                Err(ConfirmError::NotLeader(hint(to)))
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(few)))) => {
                let voters = self.inner.leadership.borrow().voters.len();
                Err(ConfirmError::NoQuorum { reason: format!("{} of {voters} voters answered", few.got.len()) })
            }
            Ok(Err(RaftError::Fatal(error))) => Err(ConfirmError::Stopped {
                reason: stop_reason(&self.inner.raft).unwrap_or_else(|| error.to_string()),
            }),
        }
    }

    /// A majority answered the leader within an election's time-out, as far as this node knows.
    pub fn has_quorum(&self) -> bool {
        has_quorum(&self.inner.raft, &self.inner.contact, self.inner.timing.quorum_limit())
    }

    /// How long ago a majority is known to have answered the leader; `None` where it never did.
    pub fn quorum_age(&self) -> Option<Duration> {
        if is_leader(&self.inner.raft) { quorum_age(&self.inner.raft) } else { self.inner.contact.quorum_age() }
    }

    /// How far this node's log goes.
    pub fn log_position(&self) -> LogPosition {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: Option<super::types::LogId>| id.map_or(0, |id| id.index);
        LogPosition {
            last: metrics.last_log_index.unwrap_or(0),
            committed: index(metrics.cluster_committed.or(metrics.local_committed)),
            applied: index(metrics.last_applied),
        }
    }

    /// Hands leadership to another voter, and waits until somebody else leads.
    pub async fn transfer_leadership(&self, to: NodeId, wait: Duration) -> Result<(), TransferError> {
        let deadline = Instant::now() + wait;
        let mut leadership = self.leadership();
        let now = leadership.borrow_and_update().clone();
        if !now.is_self {
            return Err(TransferError::NotLeader { leader: now.leader });
        }
        if !now.voters.contains_key(&to) {
            return Err(TransferError::NotAVoter { node: to });
        }
        if to == self.inner.identity.node {
            return Ok(());
        }
        let stopped = |reason: String| TransferError::Stopped { reason };
        self.inner.raft.trigger().transfer_leader(to).await.map_err(|error| stopped(error.to_string()))?;
        let taken = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != self.inner.identity.node));
        match timeout_at(deadline, taken).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(stopped("the consensus was dropped".to_owned())),
            Err(_) => Err(TransferError::TimedOut { to, waited_ms: wait.as_millis() }),
        }
    }

    /// Pushes what this node sees to `to`. To itself it goes straight to the reports' channel.
    pub async fn push_report(&self, to: NodeId, report: &Report, wait: Duration) -> Result<(), PeerError> {
        if to == self.inner.identity.node {
            return self.inner.service.reports.try_send(report.clone()).map_err(|error| PeerError::Address {
                node: to,
                reason: format!("its own reports are not taken: {error}"),
            });
        }
        let address = self.address(to)?;
        self.inner.peers.push_report(to, &address, report, wait).await
    }

    /// Has the leader enter in the audit what this node refused; each note once, by its request id.
    ///
    /// # Errors
    /// In words; they may have been entered all the same.
    pub async fn note(&self, leader: NodeId, notes: &[Command], wait: Duration) -> Result<(), String> {
        if leader != self.inner.identity.node {
            let address = self.address(leader).map_err(|error| error.to_string())?;
            let sent = self.inner.peers.note(leader, &address, notes, wait).await;
            return sent.map_err(|error| error.to_string());
        }
        for note in notes {
            self.propose(note.clone(), wait).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Asks `to` whether it is there.
    pub async fn ping(&self, to: NodeId, wait: Duration) -> Result<Pong, PeerError> {
        let address = self.address(to)?;
        self.inner.peers.ping(to, &address, wait).await
    }

    /// Where a member is dialled: as the membership says, else as configured.
    pub fn address(&self, node: NodeId) -> Result<String, PeerError> {
        let leadership = self.inner.leadership.borrow();
        let member = leadership.voters.get(&node).or_else(|| leadership.learners.get(&node));
        member
            .or_else(|| self.inner.members.get(&node))
            .map(|member| member.address.clone())
            .ok_or_else(|| PeerError::Address { node, reason: "it is neither configured nor a member".to_owned() })
    }

    /// Stops Raft, writes what is queued, and closes the store.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        let deadline = Instant::now() + SHUTDOWN_WAIT;
        if timeout_at(deadline, self.inner.raft.shutdown()).await.is_err() {
            tracing::warn!("raft did not stop within {} ms", SHUTDOWN_WAIT.as_millis());
        }
        let late = || StoreError::Write {
            file: self.inner.store.file().to_owned(),
            reason: format!("it did not close within {} ms", SHUTDOWN_WAIT.as_millis()),
        };
        let close = async {
            // For its next start: what others come to meanwhile it does not hear. Where that fails, closing says why.
            drop(self.inner.store.write_reached().await);
            self.inner.store.close().await
        };
        match timeout_at(Instant::now() + SHUTDOWN_WAIT, close).await {
            // Closed before: that is what was asked for.
            Ok(Ok(()) | Err(StoreError::Closed { .. })) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(late()),
        }
    }
}

/// openraft's settings, where the options make sense.
fn check(options: &Options) -> Result<openraft::Config, StartError> {
    let node = options.identity.node;
    if !options.members.contains_key(&node) {
        return Err(StartError::NotAMember { node });
    }
    options.config().map_err(StartError::Timing)
}

pub(super) fn hint(to: ForwardToLeader<TypeConfig>) -> LeaderHint {
    LeaderHint { leader: to.leader_id, address: to.leader_node.map(|node| node.address) }
}

fn is_leader(raft: &Raft) -> bool {
    raft.metrics().borrow_watched().state == ServerState::Leader
}

/// How long ago a majority answered this leader; `None` where this is no leader, or none ever did.
pub(super) fn quorum_age(raft: &Raft) -> Option<Duration> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.last_quorum_acked.as_ref().map(|at| at.elapsed())
}

/// Why Raft stopped, when it did.
pub(super) fn stop_reason(raft: &Raft) -> Option<String> {
    raft.metrics().borrow_watched().running_state.as_ref().err().map(ToString::to_string)
}

pub(super) fn has_quorum(raft: &Raft, contact: &Contact, limit: Duration) -> bool {
    if stop_reason(raft).is_some() {
        return false;
    }
    let age = if is_leader(raft) { quorum_age(raft) } else { contact.quorum_age() };
    age.is_some_and(|age| age <= limit)
}

async fn watch_leadership(raft: Raft, store: Store, publish: watch::Sender<Leadership>) {
    let mut metrics = raft.metrics();
    let mut revoked = store.watch_revoked();
    loop {
        let gone = revoked.borrow_and_update().as_ref().map(ToString::to_string);
        let is_gone = gone.is_some();
        let now = observe(&raft, gone);
        publish.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                *known = now;
            }
            changed
        });
        if is_gone {
            drop(raft.shutdown().await);
            return;
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            // Its sender lives in the store.
            _ = revoked.changed() => {}
        }
    }
}

fn observe(raft: &Raft, gone: Option<String>) -> Leadership {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let stopped = gone.or_else(|| metrics.running_state.as_ref().err().map(ToString::to_string));
    let membership = metrics.membership_config.membership();
    let voters: std::collections::BTreeSet<NodeId> = membership.voter_ids().collect();
    let (voting, learning): (BTreeMap<_, _>, BTreeMap<_, _>) =
        membership.nodes().map(|(id, node)| (*id, node.clone())).partition(|(id, _)| voters.contains(id));
    Leadership {
        leader: metrics.current_leader.filter(|_| stopped.is_none()),
        is_self: metrics.state == ServerState::Leader && stopped.is_none(),
        term: metrics.current_term,
        voters: voting,
        learners: learning,
        stopped,
    }
}
