//! What the tests of this binary share.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use watchdog::consensus::{Consensus, Identity, Node, Options, Retention, StartError, Timing};
use watchdog::domain::command::{Change, Command};
use watchdog::domain::ids::{NodeId, NodeName, Principal, RegionName, UnixMs};
use watchdog::domain::observation::Report;

/// Longer than anything here takes on a busy machine; never waited for in full unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// For one call.
pub const CALL: Duration = Duration::from_secs(5);

/// Polls until `check` gives something, or fails naming what was waited for.
pub async fn wait_until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A command that always can be applied, and tells itself apart by its text.
pub fn note(text: &str) -> Command {
    Command {
        node: NodeId(1),
        at: UnixMs(1),
        by: Principal::from("test"),
        from: None,
        request_id: None,
        change: Change::Note { group: None, what: text.to_owned(), outcome: "noted".to_owned() },
    }
}

pub fn identity(node: u64) -> Identity {
    Identity { cluster: "demo".into(), epoch: 1, node: NodeId(node) }
}

/// Three members on free loopback ports.
pub fn members(count: u64) -> BTreeMap<NodeId, Node> {
    // Held together, so that no port is given twice.
    let listeners: Vec<StdListener> =
        (0..count).map(|_| StdListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners
        .iter()
        .zip(1..)
        .map(|(listener, id)| {
            let node = Node {
                name: NodeName(format!("node-{id}")),
                region: RegionName(format!("region-{id}")),
                address: listener.local_addr().expect("bound").to_string(),
            };
            (NodeId(id), node)
        })
        .collect()
}

/// One running node: consensus and its gRPC server.
pub struct Running {
    pub consensus: Consensus,
    pub reports: mpsc::Receiver<Report>,
    address: SocketAddr,
    serving: Option<Serving>,
}

/// Faster clocks than shipped: everything is on loopback.
pub fn timing() -> Timing {
    Timing { heartbeat_ms: 100, election_min_ms: 400, election_max_ms: 600, install_snapshot_timeout_ms: 10_000 }
}

pub async fn start(
    id: u64,
    members: &BTreeMap<NodeId, Node>,
    folder: &Path,
    retention: Retention,
) -> Result<Running, StartError> {
    let (reports, received) = mpsc::channel(4);
    let consensus = Consensus::start(Options {
        identity: identity(id),
        members: members.clone(),
        data_dir: folder.join(format!("node-{id}")),
        timing: timing(),
        retention,
        reports,
        client_tls: None,
    })
    .await?;
    let address = members[&NodeId(id)].address.parse().expect("an address");
    let serving = Some(Serving::start(&consensus, address).await);
    Ok(Running { consensus, reports: received, address, serving })
}

/// A gRPC server that can be told to end.
struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    async fn start(consensus: &Consensus, address: SocketAddr) -> Self {
        // A node that was just stopped may still hold its port for an instant.
        let listener = wait_until("the port is free", async || tokio::net::TcpListener::bind(address).await.ok()).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let router = tonic::transport::Server::builder().add_service(consensus.service().into_server());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let task = tokio::spawn(async move {
            // The connections end too: a process that dies takes them with it.
            let served = router.serve_with_incoming_shutdown(incoming, async { drop(stopped.await) }).await;
            served.expect("serves");
        });
        Self { stop, task }
    }

    async fn end(self) {
        drop(self.stop);
        self.task.await.expect("the server ends");
    }
}

impl Running {
    /// Stops answering, then stops Raft and closes the store.
    pub async fn stop(mut self) {
        self.mute().await;
        self.consensus.shutdown().await.expect("the store closes");
    }

    /// Hears nobody any more, but goes on calling.
    pub async fn mute(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.end().await;
        }
    }

    /// Hears again.
    pub async fn unmute(&mut self) {
        self.serving = Some(Serving::start(&self.consensus, self.address).await);
    }

    /// Hears again, where it did not.
    pub async fn unmute_if_mute(&mut self) {
        if self.serving.is_none() {
            self.unmute().await;
        }
    }

    pub fn leads(&self) -> bool {
        self.consensus.leadership().borrow().is_self
    }

    pub fn applied(&self) -> u64 {
        self.consensus.state().borrow().applied_index
    }
}

/// A small file system of its own, gone with the value. Needs root; without it the test says so and passes.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).expect("a mount point");
        let options = format!("size={size}");
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
