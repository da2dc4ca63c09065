//! A node's eyes: the real observer with its windows, over probes of the model world.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use watchdog::clock::{boot_ms, unix_now};
use watchdog::consensus::Consensus;
use watchdog::domain::ids::NodeId;
use watchdog::domain::observation::{Failure, FailureKind, Measure, ReplicationMeasure};
use watchdog::domain::policy::ClusterPolicy;
use watchdog::domain::verdict::WindowParameters;
use watchdog::probe::coverage::Coverage;
use watchdog::probe::{Observer, ObserverOptions, Peer, PingProbe, Probe, Reference, Target};

use crate::host::Kind;
use crate::site;
use crate::world::{Asker, Place, Shared, World, ask};

const WINDOW: WindowParameters =
    WindowParameters { interval_ms: 500, fastinter_ms: 150, timeout_ms: 500, fall: 3, rise: 2 };
const PEERS: WindowParameters =
    WindowParameters { interval_ms: 1000, fastinter_ms: 300, timeout_ms: 1000, fall: 3, rise: 1 };

/// What a host's database shows to whoever connects.
#[derive(Debug, Clone, Copy)]
struct Shown {
    kind: Kind,
    lsn: u64,
    is_streaming: bool,
}

/// `None`: the host lives and nothing listens there. A host without power answers nothing at all.
fn look_there(world: &mut World, asker: Asker<Option<Shown>>, at: usize) {
    crate::host::tick(world);
    let host = &world.hosts[at];
    let is_gated = host.database.kind == Kind::Primary && !host.lets_out(world.now());
    if !host.on || host.mood.hangs || host.frozen || is_gated && host.database.running {
        return;
    }
    let database = &host.database;
    let shown = Shown { kind: database.kind, lsn: database.lsn, is_streaming: !database.is_cut_off };
    let shown = database.running.then_some(shown);
    asker.answer(world, shown);
}

fn failure(kind: FailureKind, detail: &str) -> Failure {
    Failure { kind, detail: detail.to_owned() }
}

struct Eyes {
    shared: Shared,
    node: u64,
}

impl Eyes {
    async fn look(&self, at: usize) -> Result<Shown, Failure> {
        let answer = ask(&self.shared, self.node, Place::Host(at), move |world, asker| look_there(world, asker, at));
        match answer.await {
            Ok(Some(shown)) => Ok(shown),
            Ok(None) => Err(failure(FailureKind::Refused, "nothing listens there")),
            Err(_) => std::future::pending().await,
        }
    }
}

/// Does the region's database answer?
struct DatabaseProbe(Eyes, usize);

#[async_trait]
impl Probe for DatabaseProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        self.0.look(self.1).await.map(|_| None)
    }
}

/// How far is the standby in that region? As the real probe: positions only, with the real account of what is covered.
struct ReplicationProbe {
    eyes: Eyes,
    standby: usize,
    coverage: Mutex<Coverage>,
}

#[async_trait]
impl Probe for ReplicationProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        let read_primary = async {
            let asked_ms = boot_ms();
            let looking = tokio::time::timeout(Duration::from_millis(400), self.eyes.look(1 - self.standby));
            if let Ok(Ok(shown)) = looking.await
                && shown.kind == Kind::Primary
            {
                self.coverage.lock().expect("whole").sample(asked_ms, shown.lsn);
            }
        };
        let ((), standby) = tokio::join!(read_primary, self.eyes.look(self.standby));
        let standby = standby?;
        let now_ms = boot_ms();
        let mut coverage = self.coverage.lock().expect("whole");
        let newest = coverage.newest();
        let in_recovery = standby.kind == Kind::Standby;
        Ok(Some(Measure::Replication(ReplicationMeasure {
            in_recovery,
            received_lsn: in_recovery.then_some(standby.lsn),
            replayed_lsn: in_recovery.then_some(standby.lsn),
            streaming: standby.is_streaming,
            primary_lsn: newest.map(|(_, lsn)| lsn),
            primary_lsn_age_ms: newest.map(|(at_ms, _)| now_ms.saturating_sub(at_ms)),
            covered_age_ms: coverage.covered_age_ms(now_ms, standby.lsn),
            replay_age_ms: None,
        })))
    }
}

struct ReferenceProbe(Eyes);

#[async_trait]
impl Probe for ReferenceProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        let there = |world: &mut World, asker: Asker<()>| asker.answer(world, ());
        match ask(&self.0.shared, self.0.node, Place::Reference, there).await {
            Ok(()) => Ok(None),
            Err(_) => std::future::pending().await,
        }
    }
}

/// Starts looking at everything the configuration names.
pub fn observe(shared: &Shared, node: u64, policy: &ClusterPolicy, consensus: &Consensus) -> Observer {
    let eyes = || Eyes { shared: shared.clone(), node };
    let target =
        |name: &str, probe: Arc<dyn Probe>| Target { group: site::group(), name: name.into(), window: WINDOW, probe };
    let mut targets = Vec::new();
    for (at, region) in site::REGIONS[..2].iter().enumerate() {
        targets.push(target(&format!("{region}-db"), Arc::new(DatabaseProbe(eyes(), at))));
        let replication = ReplicationProbe { eyes: eyes(), standby: at, coverage: Mutex::default() };
        targets.push(target(&format!("to-{region}"), Arc::new(replication)));
    }
    let peer = |id: NodeId| {
        let consensus = consensus.clone();
        let ping = move || {
            let consensus = consensus.clone();
            async move {
                let pong = consensus.ping(id, Duration::from_millis(PEERS.timeout_ms)).await;
                pong.map(drop).map_err(|error| error.to_string())
            }
        };
        Peer { node: id, window: PEERS, probe: Arc::new(PingProbe(ping)) }
    };
    Observer::start(ObserverOptions {
        node: NodeId(node),
        incarnation: unix_now(),
        digest: policy.digest.clone(),
        report_interval_ms: 500,
        targets,
        references: vec![Reference {
            name: "outside".to_owned(),
            window: WINDOW,
            probe: Arc::new(ReferenceProbe(eyes())),
        }],
        peers: policy.members.keys().filter(|id| id.0 != node).map(|id| peer(*id)).collect(),
        closely: None,
    })
}
