//! One node: the product's own parts in a runtime of their own, whose clock only goes while the node runs. Dropping the
//! runtime kills the program between two awaits, wherever each of its tasks stands.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use watchdog::consensus::{Consensus, Identity, Node, Options, Retention, Store, Timing};
use watchdog::coordinator::{Coordinator, Journal, JournalError, Leadership, Leases, Sightings};
use watchdog::domain::command::{Applied, Change, Command};
use watchdog::domain::decide::Decisions;
use watchdog::domain::ids::{NodeId, Principal};
use watchdog::domain::observation::Report;
use watchdog::domain::plan::Action;
use watchdog::domain::policy::ClusterPolicy;
use watchdog::domain::state::ClusterState;
use watchdog::notify::{Backoff, Dispatcher};
use watchdog::server::journal::RaftJournal;
use watchdog::server::leases::Desk;
use watchdog::server::{pager, push, take_in};

use crate::acting::Hands;
use crate::asking::{Desks, Front};
use crate::chance::Chance;
use crate::disk::Disk;
use crate::leases;
use crate::pager::PagerClient;
use crate::promises::start_is_proposed;
use crate::seeing::observe;
use crate::wire::{Doors, dial};
use crate::world::{MS, Shared, Slice, to_local, within};

/// How long a sync of its disk takes, microseconds.
pub type Pace = Arc<Mutex<(u64, Chance)>>;

/// What is seen of a running program from outside.
#[derive(Clone)]
pub struct Handles {
    pub consensus: Consensus,
    pub store: Store,
    pub reports: watch::Receiver<Arc<Report>>,
    pub looks: watch::Receiver<Arc<Decisions>>,
}

struct Program {
    runtime: Runtime,
    handles: Arc<Mutex<Option<Handles>>>,
    born: Instant,
    /// How far its clock has gone since.
    local: u64,
}

/// A node's machine, whether its program runs or not.
pub struct Machine {
    pub id: u64,
    pub disk: Disk,
    pub pace: Pace,
    pub fast_ppm: i64,
    pub wall_ms: i64,
    /// Since when it is frozen.
    pub frozen_at: Option<u64>,
    pub restart_at: Option<u64>,
    pub incarnation: u64,
    program: Option<Program>,
    inbox: Vec<(u64, BoxFuture<'static, ()>)>,
}

/// All that a program is started with.
#[derive(Clone)]
pub struct Kit {
    pub shared: Shared,
    pub doors: Doors,
    pub desks: Desks,
    pub policy: Arc<ClusterPolicy>,
}

impl Machine {
    pub fn new(id: u64, seed: u64) -> Self {
        let pace = Arc::new(Mutex::new((0, Chance::new(seed, &format!("disk-{id}")))));
        Self {
            id,
            disk: Disk::default(),
            pace,
            fast_ppm: 0,
            wall_ms: 0,
            frozen_at: None,
            restart_at: None,
            incarnation: 0,
            program: None,
            inbox: Vec::new(),
        }
    }

    pub fn handles(&self) -> Option<Handles> {
        self.program.as_ref()?.handles.lock().expect("whole").clone()
    }

    /// Its program starts, on what its disk holds.
    pub fn start(&mut self, kit: &Kit) {
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime without threads");
        let born = runtime.block_on(async { Instant::now() });
        self.incarnation += 1;
        self.restart_at = None;
        self.frozen_at = None;
        let handles = Arc::default();
        let mut world = kit.shared.lock();
        world.running.insert(self.id, self.incarnation);
        world.note(format!("node {}: starts", self.id));
        drop(world);
        let boot = boot(kit.clone(), self.id, self.disk.clone(), self.pace.clone(), Arc::clone(&handles));
        runtime.spawn(boot);
        self.program = Some(Program { runtime, handles, born, local: 0 });
    }

    /// Its program dies, wherever it stands.
    pub fn crash(&mut self, kit: &Kit, tears: Option<&mut Chance>) {
        let Some(program) = self.program.take() else { return };
        self.disk.crash(tears);
        kit.shared.lock().running.remove(&self.id);
        kit.doors.lock().expect("whole").remove(&self.id);
        kit.desks.lock().expect("whole").remove(&self.id);
        self.inbox.clear();
        drop(program);
        self.disk = self.disk.reopen();
    }

    fn slice(&self, program: &Program, world: u64) -> Slice {
        Slice {
            world,
            local: program.born + Duration::from_micros(program.local),
            born: program.born,
            booted_ms: 1_000_000 + self.incarnation * 1000,
            fast_ppm: self.fast_ppm,
            wall_ms: self.wall_ms,
        }
    }

    /// Something comes to the running program at that moment.
    pub fn receive(&mut self, at: u64, incarnation: u64, job: BoxFuture<'static, ()>) {
        if self.program.is_some() && incarnation == self.incarnation {
            self.inbox.push((at, job));
        }
    }

    /// Runs something in its program.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(program) = &self.program {
            program.runtime.spawn(work);
        }
    }

    /// It wakes, and its clocks say how long it slept; or they do not, where the whole machine was held.
    pub fn thaw(&mut self, now: u64, counts: bool) {
        let (Some(since), Some(program)) = (self.frozen_at.take(), &mut self.program) else { return };
        if !counts {
            return;
        }
        let slept = to_local(now - since, self.fast_ppm);
        program.local += slept;
        let until = program.born + Duration::from_micros(program.local);
        let slice = Slice { local: until, ..self.slice(self.program.as_ref().expect("it runs"), now) };
        let program = self.program.as_ref().expect("it runs");
        within(slice, || {
            program.runtime.block_on(async {
                let left = until.saturating_duration_since(Instant::now());
                tokio::time::advance(left).await;
            });
        });
    }

    /// Lets its program run from the world's `from` to `to`.
    pub fn run(&mut self, from: u64, to: u64) {
        if self.frozen_at.is_some() {
            return;
        }
        let Some(program) = &self.program else { return };
        let slice = self.slice(program, from);
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.sort_by_key(|(at, _)| *at);
        let fast_ppm = self.fast_ppm;
        let passes = to_local(to - from, fast_ppm);
        let until = slice.local + Duration::from_micros(passes);
        within(slice, || {
            for (at, job) in inbox {
                let due = slice.local + Duration::from_micros(to_local(at.saturating_sub(from), fast_ppm));
                program.runtime.spawn(async move {
                    tokio::time::sleep_until(due).await;
                    job.await;
                });
            }
            program.runtime.block_on(async { tokio::time::sleep_until(until).await });
        });
        if let Some(program) = &mut self.program {
            program.local += passes;
        }
    }

    /// Raft has stopped: the program would end, and be started again by whoever watches over it.
    pub fn stopped(&self) -> Option<String> {
        self.handles().and_then(|handles| handles.consensus.leadership().borrow().stopped.clone())
    }
}

async fn boot(kit: Kit, id: u64, disk: Disk, pace: Pace, handles: Arc<Mutex<Option<Handles>>>) {
    let syncing = move || {
        let takes = {
            let mut pace = pace.lock().expect("whole");
            let slow = pace.0;
            pace.1.between(0, 2 * MS + slow)
        };
        tokio::time::sleep(Duration::from_micros(takes))
    };
    let identity = Identity { cluster: kit.policy.cluster.clone(), epoch: kit.policy.epoch, node: NodeId(id) };
    let (store, writer) = match Store::open_on(disk, &identity, syncing) {
        Ok(opened) => opened,
        Err(error) => {
            kit.shared.lock().note(format!("node {id}: does not open its store: {error}"));
            return;
        }
    };
    tokio::spawn(writer);
    let (reports, received) = mpsc::channel(256);
    let options = Options {
        identity,
        members: members(&kit.policy),
        data_dir: PathBuf::new(),
        timing: Timing { install_snapshot_timeout_ms: 5000, ..Timing::default() },
        retention: Retention { snapshot_after: 60, keep: 20 },
        reports,
        client_tls: None,
    };
    let consensus = match Consensus::start_on(options, store.clone(), dial(&kit.shared, &kit.doors, id)).await {
        Ok(consensus) => consensus,
        Err(error) => {
            kit.shared.lock().note(format!("node {id}: does not start: {error}"));
            return;
        }
    };
    serve(kit, id, store, consensus, received, handles).await;
}

async fn serve(
    kit: Kit,
    id: u64,
    store: Store,
    consensus: Consensus,
    received: mpsc::Receiver<Report>,
    handles: Arc<Mutex<Option<Handles>>>,
) {
    let sightings = Arc::new(Sightings::default());
    let observer = observe(&kit.shared, id, &kit.policy, &consensus);
    let journal = Arc::new(RaftJournal::start(consensus.clone()));
    let (looks, look) = watch::channel(Arc::default());
    let (leases, name) = (Arc::<Leases>::default(), Principal(format!("node:node-{id}")));
    let desk =
        Desk::new(consensus.clone(), kit.policy.clone(), NodeId(id), name.clone(), leases.clone(), Arc::default());
    let coordinator = Arc::new(Coordinator {
        node: NodeId(id),
        name,
        policy: kit.policy.clone(),
        journal: Arc::new(Witnessed {
            journal: journal.clone(),
            shared: kit.shared.clone(),
            node: id,
            seen: Mutex::default(),
        }),
        actuator: Arc::new(Hands::new(&kit.shared, id, consensus.state())),
        sightings: sightings.clone(),
        looks,
        leases,
        last_rejection: Mutex::default(),
        news: watchdog::coordinator::News::default(),
    });
    kit.doors.lock().expect("whole").insert(id, consensus.service());
    kit.desks.lock().expect("whole").insert(id, Front { desk: Arc::new(desk), consensus: consensus.clone() });
    *handles.lock().expect("whole") =
        Some(Handles { consensus: consensus.clone(), store, reports: observer.reports(), looks: look });
    let (_stop, stopping) = watch::channel(false);
    tokio::spawn(take_in(received, sightings.clone()));
    tokio::spawn(push(consensus.clone(), NodeId(id), observer.reports(), sightings));
    tokio::spawn(coordinator.run(stopping));
    tokio::spawn(deliver(kit.clone(), id, consensus.clone(), journal));
    if let Err(error) = consensus.bootstrap().await {
        kit.shared.lock().note(format!("node {id}: does not form the cluster: {error}"));
    }
    // The observer, and whoever could tell it to stop, live as long as the program.
    std::future::pending::<()>().await;
}

fn members(policy: &ClusterPolicy) -> BTreeMap<NodeId, Node> {
    let member = |(id, member): (&NodeId, &watchdog::domain::policy::Member)| {
        let node = Node { name: member.name.clone(), region: member.region.clone(), address: format!("node-{}", id.0) };
        (*id, node)
    };
    policy.members.iter().map(member).collect()
}

/// The node's journal, and what is to be seen of its use from outside.
struct Witnessed {
    journal: Arc<RaftJournal>,
    shared: Shared,
    node: u64,
    /// The term, and in it: quorum rounds that succeeded, starts that were proposed.
    seen: Mutex<(u64, u64, u64)>,
}

impl Witnessed {
    /// A start from which on this leader grants no lease to the old primary.
    fn see_fence(&self, command: &Command) {
        let Change::StepStarted { group, run, step, .. } = &command.change else { return };
        let state = self.journal.state().borrow().clone();
        let open = state.group(group).and_then(|group| group.open_run.as_ref()).filter(|open| &open.id == run);
        let Some(open) = open.filter(|open| open.moves_serving()) else { return };
        if open.plan.step(step).is_some_and(|step| !matches!(step.action, Action::Verify { .. })) {
            leases::fence_is_proposed(&mut self.shared.lock(), self.node, run, open.from().as_str());
        }
    }

    fn count(&self, add: (u64, u64)) -> (u64, u64) {
        let term = self.journal.leadership().borrow().term;
        let mut seen = self.seen.lock().expect("whole");
        if seen.0 != term {
            *seen = (term, 0, 0);
        }
        let before = (seen.1, seen.2);
        seen.1 += add.0;
        seen.2 += add.1;
        before
    }
}

#[async_trait]
impl Journal for Witnessed {
    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.journal.state()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.journal.leadership()
    }

    async fn propose(&self, command: Command) -> Result<Applied, JournalError> {
        if matches!(command.change, Change::StepStarted { .. }) {
            let (rounds, starts) = self.count((0, 1));
            // The first round is the one by which a leader begins.
            start_is_proposed(&mut self.shared.lock(), self.node, rounds.saturating_sub(1), starts);
            self.see_fence(&command);
        }
        self.journal.propose(command).await
    }

    async fn confirm(&self) -> Result<(), JournalError> {
        let confirmed = self.journal.confirm().await;
        if confirmed.is_ok() {
            self.count((1, 0));
        }
        confirmed
    }

    async fn transfer(&self, to: NodeId) -> Result<(), JournalError> {
        self.journal.transfer(to).await
    }
}

/// Tells a model receiver.
async fn deliver(kit: Kit, id: u64, consensus: Consensus, journal: Arc<RaftJournal>) {
    let line = |name: &watchdog::domain::ids::ReceiverName| {
        let client = PagerClient { shared: kit.shared.clone(), node: id };
        (name.clone(), Box::new(client) as Box<dyn watchdog::notify::Notifier>)
    };
    let lines = kit.policy.receivers.iter().map(line).collect();
    let backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(2) };
    let dispatcher = Dispatcher::with_notifiers(lines, backoff, Duration::from_secs(4));
    let by = Principal(format!("node:node-{id}"));
    pager::deliver(Arc::new(dispatcher), consensus, journal, NodeId(id), by).await;
}
