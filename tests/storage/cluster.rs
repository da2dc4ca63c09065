//! Three nodes in one process, over loopback gRPC.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use watchdog::consensus::{MARK_FILE, MembershipError, Node, ProposeError, Retention, STORE_FILE, StartError};
use watchdog::domain::ids::{ConfigDigest, NodeId, UnixMs};
use watchdog::domain::observation::Report;

use crate::support::{CALL, Running, SmallDisk, members, note, start, timing, wait_until};

pub struct Cluster {
    folder: TempDir,
    pub members: BTreeMap<NodeId, Node>,
    pub nodes: BTreeMap<u64, Running>,
    retention: Retention,
}

impl Cluster {
    pub async fn form(retention: Retention) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Self { folder, members: members(3), nodes: BTreeMap::new(), retention };
        for id in 1..=3 {
            cluster.start(id).await;
        }
        cluster
    }

    pub async fn start(&mut self, id: u64) {
        let node = start(id, &self.members, self.folder.path(), self.retention).await.expect("starts");
        node.consensus.bootstrap().await.expect("forms");
        self.nodes.insert(id, node);
    }

    /// Starts a node outside of this list, on whatever lies in its folder.
    pub async fn start_as_it_is(&self, id: u64) -> Result<Running, StartError> {
        start(id, &self.members, self.folder.path(), self.retention).await
    }

    /// Where the nodes' folders lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A node's.
    pub fn folder_of(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("node-{id}"))
    }

    pub async fn stop(&mut self, id: u64) {
        self.nodes.remove(&id).expect("it runs").stop().await;
    }

    /// The node that leads with a quorum behind it.
    pub async fn leader(&self) -> u64 {
        wait_until("a leader is confirmed", async || {
            for (id, node) in &self.nodes {
                if node.leads() && node.consensus.confirm_leadership(CALL).await.is_ok() {
                    return Some(*id);
                }
            }
            None
        })
        .await
    }

    pub async fn agree(&self) -> u64 {
        wait_until("all nodes applied the same", async || {
            let mut applied: Vec<u64> = self.nodes.values().map(Running::applied).collect();
            applied.dedup();
            (applied.len() == 1).then(|| applied[0])
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_catches_up_when_it_returns() {
    let mut cluster = Cluster::form(Retention::default()).await;
    let first = cluster.leader().await;
    for round in 0..5 {
        cluster.nodes[&first].consensus.propose(note(&format!("{round}")), CALL).await.expect("applied");
    }
    let before = cluster.agree().await;
    cluster.stop(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    cluster.nodes[&second].consensus.propose(note("after"), CALL).await.expect("two of three suffice");
    cluster.start(first).await;
    assert!(cluster.agree().await > before);
    let states: Vec<_> = cluster.nodes.values().map(|node| node.consensus.state().borrow().clone()).collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "all nodes hold the same state");
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_cannot_propose_and_says_so() {
    let mut cluster = Cluster::form(Retention::default()).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &others {
        cluster.stop(*id).await;
    }
    let alone = &cluster.nodes[&leader].consensus;
    let before = alone.state().borrow().applied_index;
    let answer = alone.propose(note("alone"), std::time::Duration::from_secs(2)).await;
    assert!(matches!(answer, Err(ProposeError::Unknown { .. } | ProposeError::NotLeader(_))), "{answer:?}");
    assert!(alone.confirm_leadership(std::time::Duration::from_secs(2)).await.is_err());
    wait_until("it says that it has no quorum", async || (!alone.has_quorum()).then_some(())).await;
    assert_eq!(alone.state().borrow().applied_index, before, "nothing was applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_and_pings_reach_the_leader() {
    let mut cluster = Cluster::form(Retention::default()).await;
    let leader = cluster.leader().await;
    let other = (1..=3).find(|id| *id != leader).expect("three nodes");
    let report = Report {
        node: NodeId(other),
        incarnation: UnixMs(1),
        seq: 1,
        digest: ConfigDigest::from("digest"),
        isolated: false,
        clock: UnixMs(1),
        observations: Vec::new(),
    };
    let sender = cluster.nodes[&other].consensus.clone();
    sender.push_report(NodeId(leader), &report, CALL).await.expect("taken");
    let received = cluster.nodes.get_mut(&leader).expect("it runs").reports.recv().await;
    assert_eq!(received.as_ref(), Some(&report));
    let pong = sender.ping(NodeId(leader), CALL).await.expect("it is there");
    assert_eq!((pong.node, pong.leader, pong.formed), (NodeId(leader), Some(NodeId(leader)), true));
    let forged = Report { node: NodeId(leader), ..report };
    let refused =
        sender.push_report(NodeId(leader), &forged, CALL).await.expect_err("reports are signed by their node");
    assert!(refused.to_string().contains("payload.node"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_late_gets_a_snapshot_and_keeps_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let retention = Retention { snapshot_after: 20, keep: 5 };
    let mut cluster = Cluster { folder, members: members(3), nodes: BTreeMap::new(), retention };
    cluster.start(1).await;
    cluster.start(2).await;
    let leader = cluster.leader().await;
    for round in 0..100 {
        cluster.nodes[&leader].consensus.propose(note(&format!("{round}")), CALL).await.expect("applied");
    }
    // It joins by its configuration alone; the entries it lacks are gone by now.
    cluster.start(3).await;
    let applied = cluster.agree().await;
    cluster.stop(3).await;
    cluster.start(3).await;
    assert_eq!(cluster.agree().await, applied, "what was installed is there after a restart");
    let states: Vec<_> = cluster.nodes.values().map(|node| node.consensus.state().borrow().clone()).collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "all nodes hold the same state");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_commands_of_an_old_term_are_refused() {
    let cluster = Cluster::form(Retention::default()).await;
    let leader = cluster.leader().await;
    let next = (1..=3).find(|id| *id != leader).expect("three nodes");
    let consensus = &cluster.nodes[&leader].consensus;
    let term = consensus.confirm_leadership(CALL).await.expect("it leads");
    consensus.propose_in_term(term, note("now"), CALL).await.expect("applied");
    let stale = consensus.propose_in_term(term - 1, note("stale"), CALL).await;
    assert!(matches!(stale, Err(ProposeError::NotLeader(_))), "{stale:?}");
    consensus.transfer_leadership(NodeId(next), CALL).await.expect("handed over");
    assert_eq!(cluster.leader().await, next);
    let stale = consensus.propose_in_term(term, note("stale"), CALL).await;
    let Err(ProposeError::NotLeader(hint)) = stale else { panic!("{stale:?}") };
    assert_eq!(hint.leader, Some(NodeId(next)));
    assert_eq!(hint.address.as_ref(), Some(&cluster.members[&NodeId(next)].address));
    wait_until("followers too know of the quorum", async || consensus.has_quorum().then_some(())).await;
    assert!(consensus.transfer_leadership(NodeId(9), CALL).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_folder_was_emptied_comes_back_only_under_a_new_number() {
    let mut cluster = Cluster::form(Retention { snapshot_after: 20, keep: 5 }).await;
    cluster.leader().await;
    cluster.agree().await;
    cluster.stop(3).await;
    std::fs::remove_dir_all(cluster.folder.path().join("node-3")).expect("emptied");
    let emptied = start(3, &cluster.members, cluster.folder.path(), cluster.retention).await.expect("starts");
    let refused = emptied.consensus.bootstrap().await.expect_err("it forgot what it promised");
    assert!(refused.to_string().contains("another store"), "{refused}");
    let leader = cluster.leader().await;
    for round in 0..50 {
        cluster.nodes[&leader].consensus.propose(note(&format!("{round}")), CALL).await.expect("two of three suffice");
    }
    assert_eq!(emptied.applied(), 0, "nothing is counted from it, nothing given to it");
    emptied.stop().await;

    let mut members = cluster.members.clone();
    let node = members.remove(&NodeId(3)).expect("configured");
    members.insert(NodeId(4), node.clone());
    cluster.members = members;
    cluster.start(4).await;
    let consensus = cluster.nodes[&leader].consensus.clone();
    consensus.remove_node(NodeId(3), CALL).await.expect("removed");
    consensus.add_node(NodeId(4), node.clone(), CALL * 2).await.expect("caught up, and votes");
    cluster.agree().await;
    let voters: Vec<NodeId> = consensus.leadership().borrow().voters.keys().copied().collect();
    assert_eq!(voters, [NodeId(1), NodeId(2), NodeId(4)]);
    let again = consensus.add_node(NodeId(3), node, CALL).await.expect_err("a number is used once");
    assert!(again.to_string().contains("used before"), "{again}");
    let own = consensus.remove_node(NodeId(leader), CALL).await.expect_err("not the leader itself");
    assert!(own.to_string().contains("leadership"), "{own}");
    let other = (1..=2).find(|id| *id != leader).expect("two are left");
    cluster.stop(other).await;
    consensus.propose(note("with 4"), CALL).await.expect("the new node's vote counts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_admitted_only_into_the_membership_that_was_judged() {
    let cluster = Cluster::form(Retention::default()).await;
    let consensus = cluster.nodes[&cluster.leader().await].consensus.clone();
    let newcomer = |port: u16| Node { address: format!("127.0.0.1:{port}"), ..cluster.members[&NodeId(3)].clone() };
    let seen = consensus.membership();
    consensus.admit_learner(&seen, NodeId(4), newcomer(1), CALL).await.expect("nothing changed meanwhile");
    let late = consensus.admit_learner(&seen, NodeId(5), newcomer(2), CALL).await;
    assert!(matches!(late, Err(MembershipError::Unknown { .. })), "judged before node 4 was there: {late:?}");
    let now = consensus.membership();
    assert_eq!(now.learners.keys().collect::<Vec<_>>(), [&NodeId(4)]);
    consensus.admit_learner(&now, NodeId(5), newcomer(2), CALL).await.expect("judged anew");
    assert_eq!(consensus.membership().learners.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_deposes_nobody_when_it_returns() {
    let mut cluster = Cluster::form(Retention::default()).await;
    let leader = cluster.leader().await;
    let consensus = cluster.nodes[&leader].consensus.clone();
    let term = consensus.confirm_leadership(CALL).await.expect("it leads");
    let other = (1..=3).find(|id| *id != leader).expect("three nodes");
    let cut = cluster.nodes.get_mut(&other).expect("it runs");
    cut.mute().await;
    wait_until("it misses the leader", async || (!cut.consensus.has_quorum()).then_some(())).await;
    // It stands for election in vain meanwhile, several times: the others hear their leader.
    let until = tokio::time::Instant::now() + timing().quorum_limit() * 4;
    wait_until("it stood for election", async || {
        consensus.propose(note("meanwhile"), CALL).await.expect("two of three suffice");
        (tokio::time::Instant::now() > until).then_some(())
    })
    .await;
    cut.unmute().await;
    cluster.agree().await;
    assert_eq!(consensus.confirm_leadership(CALL).await.expect("it still leads"), term);
    let cut = &cluster.nodes[&other].consensus;
    wait_until("it knows of the quorum again", async || cut.has_quorum().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_full_stops_and_says_which_file_and_the_others_go_on() {
    let mut cluster = Cluster::form(Retention::default()).await;
    cluster.leader().await;
    cluster.stop(3).await;
    let folder = cluster.folder.path().join("node-3");
    let kept = cluster.folder.path().join("kept");
    std::fs::rename(&folder, &kept).expect("moved aside");
    let Some(disk) = SmallDisk::mount(&folder, "6m") else {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    };
    for name in [STORE_FILE, MARK_FILE] {
        std::fs::copy(kept.join(name), disk.0.join(name)).expect("copied");
    }
    cluster.start(3).await;
    let leader = cluster.leader().await;
    let consensus = cluster.nodes[&leader].consensus.clone();
    let full = cluster.nodes[&3].consensus.clone();
    let large = "y".repeat(100_000);
    let stopped = wait_until("its disk is full", async || {
        // When it led itself, somebody else takes over.
        drop(consensus.propose(note(&large), CALL).await);
        drop(full.propose(note(&large), CALL).await);
        full.leadership().borrow().stopped.clone()
    })
    .await;
    assert!(stopped.contains("No space left") && stopped.contains(STORE_FILE), "{stopped}");
    assert!(!full.has_quorum(), "it does not count itself in");
    cluster.nodes.remove(&3).expect("it ran").mute().await;
    drop(full.shutdown().await);
    let leader = cluster.leader().await;
    cluster.nodes[&leader].consensus.propose(note("after"), CALL).await.expect("two of three suffice");
}
