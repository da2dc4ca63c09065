//! Everything this node looks at, and the report of it: sent on change and every interval.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Probe;
use super::schedule::{self, Judge};
use crate::clock;
use crate::domain::ids::{ConfigDigest, GroupName, NodeId, TargetName, UnixMs};
use crate::domain::observation::{FailureKind, Measure, Observation, Report, Verdict};
use crate::domain::verdict::{Outcome, Standing, Window, WindowParameters};
use crate::metrics::events;

/// A target of a group.
pub struct Target {
    /// Its group.
    pub group: GroupName,
    /// Its name, unique in the cluster.
    pub name: TargetName,
    /// How it is probed and judged.
    pub window: WindowParameters,
    /// What looks at it.
    pub probe: Arc<dyn Probe>,
}

/// Something that has nothing to do with any group.
pub struct Reference {
    /// Its name.
    pub name: String,
    /// How it is probed and judged.
    pub window: WindowParameters,
    /// What looks at it.
    pub probe: Arc<dyn Probe>,
}

/// Another node. Its probe is whatever says that the node answers.
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// How it is probed and judged.
    pub window: WindowParameters,
    /// What pings it.
    pub probe: Arc<dyn Probe>,
}

/// Who looks, and at what.
pub struct ObserverOptions {
    /// This node.
    pub node: NodeId,
    /// When this process started.
    pub incarnation: UnixMs,
    /// The configuration it runs under.
    pub digest: ConfigDigest,
    /// A report is made at least this often, milliseconds.
    pub report_interval_ms: u64,
    /// The groups' targets.
    pub targets: Vec<Target>,
    /// The references.
    pub references: Vec<Reference>,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// Which targets are looked at as often as doubtful ones, asked at each look.
    pub closely: Option<Closely>,
}

/// Whether a group's target is looked at closely now, though it is well: where the group was moved a while ago.
pub type Closely = Arc<dyn Fn(&GroupName, &TargetName) -> bool + Send + Sync>;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SightKind {
    /// A target of a group.
    Target {
        /// Its group.
        group: GroupName,
        /// Its name.
        name: TargetName,
    },
    /// A reference.
    Reference {
        /// Its name.
        name: String,
    },
    /// Another node.
    Peer {
        /// Its number.
        node: NodeId,
    },
}

/// What is looked at, and how it stands: for status and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// What.
    pub kind: SightKind,
    /// How it stands; its times are those of [`clock::boot_ms`].
    pub standing: Standing,
}

/// All looks and their reports. Dropping it ends them all.
pub struct Observer {
    board: Arc<Board>,
    reports: watch::Receiver<Arc<Report>>,
    _tasks: JoinSet<()>,
}

impl Observer {
    /// Starts looking. Must be called within a tokio runtime.
    pub fn start(options: ObserverOptions) -> Self {
        let now_ms = clock::boot_ms();
        let mut slots = Vec::new();
        let mut probes = Vec::new();
        let mut add = |kind, window: WindowParameters, probe| {
            slots.push((kind, Mutex::new(Window::new(window, now_ms))));
            probes.push((window, probe));
        };
        for target in options.targets {
            add(SightKind::Target { group: target.group, name: target.name }, target.window, target.probe);
        }
        for reference in options.references {
            add(SightKind::Reference { name: reference.name }, reference.window, reference.probe);
        }
        for peer in options.peers {
            add(SightKind::Peer { node: peer.node }, peer.window, peer.probe);
        }
        let board = Arc::new(Board {
            node: options.node,
            incarnation: options.incarnation,
            digest: options.digest,
            slots,
            changed: Notify::new(),
            closely: options.closely,
        });
        let (sender, reports) = watch::channel(Arc::new(board.report(0)));
        let mut tasks = JoinSet::new();
        for (slot, (window, probe)) in probes.into_iter().enumerate() {
            tasks.spawn(schedule::watch(probe, window, Arc::new(Seat { board: board.clone(), slot })));
        }
        tasks.spawn(report(board.clone(), sender, options.report_interval_ms));
        Self { board, reports, _tasks: tasks }
    }

    /// The newest report, and each one after it.
    pub fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.reports.clone()
    }

    /// How everything stands now, references and peers included.
    pub fn sights(&self) -> Vec<Sight> {
        let now_ms = clock::boot_ms();
        let sight = |(kind, window): &(SightKind, Mutex<Window>)| Sight {
            kind: kind.clone(),
            standing: locked(window).standing(now_ms),
        };
        self.board.slots.iter().map(sight).collect()
    }
}

/// Where all looks are written down.
struct Board {
    node: NodeId,
    incarnation: UnixMs,
    digest: ConfigDigest,
    slots: Vec<(SightKind, Mutex<Window>)>,
    changed: Notify,
    closely: Option<Closely>,
}

impl Board {
    fn report(&self, seq: u64) -> Report {
        let now_ms = clock::boot_ms();
        let mut observations = Vec::new();
        let (mut references, mut peers) = (Tally::default(), Tally::default());
        for (kind, window) in &self.slots {
            let standing = locked(window).standing(now_ms);
            match kind {
                SightKind::Reference { .. } => references.count(standing.verdict),
                SightKind::Peer { .. } => peers.count(standing.verdict),
                SightKind::Target { group, name } => observations.push(Observation {
                    group: group.clone(),
                    target: name.clone(),
                    verdict: standing.verdict,
                    held_ms: now_ms.saturating_sub(standing.since_ms),
                    seen_up: standing.seen_up,
                    failure: standing.failure,
                    measure: standing.measure,
                }),
            }
        }
        Report {
            node: self.node,
            incarnation: self.incarnation,
            seq,
            digest: self.digest.clone(),
            isolated: is_isolated(references, peers),
            clock: clock::unix_now(),
            observations,
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    down: usize,
    all: usize,
}

impl Tally {
    fn count(&mut self, verdict: Verdict) {
        self.all += 1;
        self.down += usize::from(verdict == Verdict::Down);
    }
}

/// Every reference fails, and a majority of the peers. Without references the peers decide alone: whoever has lost a
/// majority of them has no quorum either.
fn is_isolated(references: Tally, peers: Tally) -> bool {
    references.down == references.all && peers.down * 2 > peers.all
}

/// Where one target's looks are written down.
struct Seat {
    board: Arc<Board>,
    slot: usize,
}

impl Judge for Seat {
    fn judge(&self, outcome: Outcome, took: Duration) -> u64 {
        let Some((kind, window)) = self.board.slots.get(self.slot) else { return u64::from(u32::MAX) };
        if let SightKind::Target { group, name } = kind {
            let failure = match &outcome {
                Outcome::Good(_) => None,
                Outcome::Bad(failure) => Some(failure.kind),
            };
            events::probed(group.as_str(), name.as_str(), failure, took);
        }
        let is_close = match (kind, &self.board.closely) {
            (SightKind::Target { group, name }, Some(closely)) => closely(group, name),
            _ => false,
        };
        let (changed, pace_ms) = {
            let mut window = locked(window);
            let now_ms = clock::boot_ms();
            let before = face(&window.standing(now_ms));
            window.record(now_ms, outcome);
            let pace_ms = if is_close { window.pace_ms().min(window.fastinter_ms()) } else { window.pace_ms() };
            (face(&window.standing(now_ms)) != before, pace_ms)
        };
        if changed {
            self.board.changed.notify_one();
        }
        pace_ms
    }
}

/// What the leader must hear of at once; numbers that move all the time wait for the interval.
#[derive(PartialEq, Eq)]
struct Face {
    verdict: Verdict,
    seen_up: bool,
    failure: Option<FailureKind>,
    values: Vec<String>,
    /// In recovery, and streaming.
    role: Option<(bool, bool)>,
}

fn face(standing: &Standing) -> Face {
    let (values, role) = match &standing.measure {
        Some(Measure::Dns { values }) => (values.clone(), None),
        Some(Measure::Replication(measure)) => (Vec::new(), Some((measure.in_recovery, measure.streaming))),
        Some(Measure::Postgres { in_recovery, .. }) => (Vec::new(), Some((*in_recovery, false))),
        Some(Measure::Redis(measure)) => (Vec::new(), Some((!measure.is_primary, measure.linked))),
        Some(Measure::Http { .. } | Measure::Backup(_)) | None => (Vec::new(), None),
    };
    let failure = standing.failure.as_ref().map(|failure| failure.kind);
    Face { verdict: standing.verdict, seen_up: standing.seen_up, failure, values, role }
}

async fn report(board: Arc<Board>, sender: watch::Sender<Arc<Report>>, interval_ms: u64) {
    let mut ticks = tokio::time::interval(Duration::from_millis(interval_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for seq in 1.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = board.changed.notified() => {}
        }
        sender.send_replace(Arc::new(board.report(seq)));
    }
}

fn locked(window: &Mutex<Window>) -> std::sync::MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}
