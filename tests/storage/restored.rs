//! Folders restored as a whole from an older copy. Each agrees with itself, and has forgotten what its node promised since.

use std::path::{Path, PathBuf};

use watchdog::consensus::{Consensus, MARK_FILE, Reached, Retention, STORE_FILE, StartError, StoreError};
use watchdog::domain::ids::NodeId;

use crate::cluster::Cluster;
use crate::support::{CALL, Running, note, wait_until};

/// A node's folder, as it is now or was when it was copied.
fn keep(cluster: &Cluster, id: u64, name: &str) -> PathBuf {
    let to = cluster.folder().join(name);
    std::fs::create_dir(&to).expect("a new folder");
    put(&cluster.folder_of(id), &to);
    to
}

fn put(from: &Path, to: &Path) {
    for file in [STORE_FILE, MARK_FILE] {
        std::fs::copy(from.join(file), to.join(file)).expect("copied");
    }
}

async fn propose(cluster: &Cluster, count: usize) {
    let leader = cluster.leader().await;
    for round in 0..count {
        cluster.nodes[&leader].consensus.propose(note(&format!("{round}")), CALL).await.expect("a majority is there");
    }
}

fn known(consensus: &Consensus, of: u64) -> Option<Reached> {
    consensus.reached().into_iter().find(|reached| reached.node == NodeId(of))
}

/// Waits until every node knows how far `of` came by now.
async fn all_know(cluster: &Cluster, of: u64) {
    wait_until("everyone knows how far it came", async || {
        let own = known(&cluster.nodes[&of].consensus, of);
        cluster.nodes.values().all(|node| known(&node.consensus, of) == own).then_some(())
    })
    .await;
}

/// A node of three that does not lead, with a copy of its folder from before the last entries, and stopped.
async fn with_an_old_copy() -> (Cluster, u64, PathBuf) {
    let mut cluster = Cluster::form(Retention { snapshot_after: 20, keep: 5 }).await;
    propose(&cluster, 5).await;
    cluster.agree().await;
    let leader = cluster.leader().await;
    let id = (1..=3).rev().find(|id| *id != leader).expect("three nodes");
    // It runs: a copy of what is on the disk, as a snapshot of the disk makes it.
    let old = keep(&cluster, id, "old");
    propose(&cluster, 3).await;
    cluster.agree().await;
    all_know(&cluster, id).await;
    cluster.stop(id).await;
    (cluster, id, old)
}

/// Starts the node on what was restored; it must end, say why, and never start on it again.
async fn is_refused(cluster: &Cluster, id: u64, what: &str) {
    let restored = cluster.start_as_it_is(id).await.expect("it agrees with itself");
    let before = restored.applied();
    drop(restored.consensus.bootstrap().await);
    let stopped = wait_until(what, async || restored.consensus.leadership().borrow().stopped.clone()).await;
    for words in ["went back in time", "under a new id", STORE_FILE] {
        assert!(stopped.contains(words), "{what}: {stopped}");
    }
    assert!(!restored.consensus.has_quorum(), "{what}: it counts itself in");
    assert_eq!(restored.applied(), before, "{what}: something was given to it");
    restored.stop().await;
    match cluster.start_as_it_is(id).await.map(|_| ()) {
        Err(StartError::Store(StoreError::WentBack { .. })) => {}
        other => panic!("{what}: it starts again: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_restored_as_a_whole_is_refused_and_the_others_go_on() {
    let (mut cluster, id, old) = with_an_old_copy().await;
    let newest = keep(&cluster, id, "newest");
    let leader = cluster.leader().await;
    let term = cluster.nodes[&leader].consensus.confirm_leadership(CALL).await.expect("it leads");
    put(&old, &cluster.folder_of(id));
    is_refused(&cluster, id, "both others are there").await;
    propose(&cluster, 3).await;
    assert_eq!(cluster.nodes[&leader].consensus.confirm_leadership(CALL).await.expect("it leads"), term, "as before");

    // The restored one left no trace: with what it really had it is back, and counts.
    put(&newest, &cluster.folder_of(id));
    cluster.start(id).await;
    cluster.agree().await;
    let other = (1..=3).find(|other| *other != id && *other != leader).expect("three nodes");
    cluster.stop(other).await;
    propose(&cluster, 1).await;
}

/// Each of the others knows it alone, whoever led and whoever it spoke with; and after a restart too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_the_others_alone_refuses_it_also_after_a_restart() {
    let (mut cluster, id, old) = with_an_old_copy().await;
    let others: Vec<u64> = cluster.nodes.keys().copied().collect();
    for other in &others {
        cluster.stop(*other).await;
    }
    for other in &others {
        cluster.start(*other).await;
        put(&old, &cluster.folder_of(id));
        is_refused(&cluster, id, &format!("only node {other} is there, and it was restarted")).await;
        assert!(!cluster.nodes[other].consensus.has_quorum(), "it counted with node {other}");
        cluster.stop(*other).await;
    }
    for other in &others {
        cluster.start(*other).await;
    }
    propose(&cluster, 1).await;
}

/// A copy that is started beside the node it was copied from: at most one of the two goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_node_and_its_copy_only_one_goes_on() {
    let mut cluster = Cluster::form(Retention::default()).await;
    propose(&cluster, 3).await;
    let leader = cluster.leader().await;
    let id = (1..=3).find(|id| *id != leader).expect("three nodes");
    all_know(&cluster, id).await;
    // As two machines with the same address: the first is not heard any more, but speaks.
    let copy = keep(&cluster, id, "copy");
    let mut first = cluster.nodes.remove(&id).expect("it runs");
    first.mute().await;
    std::fs::rename(cluster.folder_of(id), cluster.folder().join("first")).expect("moved aside");
    std::fs::rename(copy, cluster.folder_of(id)).expect("put in its place");
    cluster.start(id).await;
    // Whose word the others heard last goes on: that is the copy's, unless the first still spoke when it had begun.
    let told = |node: &Running| node.consensus.leadership().borrow().stopped.clone();
    let stopped =
        wait_until("one of the two is told", async || told(&first).or_else(|| told(&cluster.nodes[&id]))).await;
    assert!(stopped.contains("went back in time"), "{stopped}");
    let copy_goes_on = told(&first).is_some();
    if copy_goes_on {
        cluster.agree().await;
    }
    propose(&cluster, 1).await;
    let both = [told(&first), told(&cluster.nodes[&id])];
    assert_eq!(both.iter().flatten().count(), 1, "{both:?}");
    first.stop().await;
}

/// What happens to nodes that never went back: it accuses none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_elections_truncations_and_snapshots_accuse_nobody() {
    let mut cluster = Cluster::form(Retention { snapshot_after: 20, keep: 5 }).await;
    for round in 0..9_u64 {
        let leader = cluster.leader().await;
        let away = match round % 3 {
            // The leader, with entries that nobody else has: they are truncated when it is back.
            0 => {
                let alone = cluster.nodes[&leader].consensus.clone();
                for (id, node) in &mut cluster.nodes {
                    if *id != leader {
                        node.mute().await;
                    }
                }
                drop(alone.propose(note("alone"), std::time::Duration::from_millis(200)).await);
                leader
            }
            // Long enough away to come back by a snapshot.
            1 => (1..=3).find(|id| *id != leader).expect("three nodes"),
            // All at once.
            _ => 0,
        };
        let going: Vec<u64> = cluster.nodes.keys().copied().filter(|id| away == 0 || *id == away).collect();
        for id in &going {
            cluster.stop(*id).await;
        }
        for node in cluster.nodes.values_mut() {
            node.unmute_if_mute().await;
        }
        if away != 0 {
            propose(&cluster, 30).await;
        }
        for id in &going {
            cluster.start(*id).await;
        }
        propose(&cluster, 2).await;
        cluster.agree().await;
        for (id, node) in &cluster.nodes {
            assert_eq!(node.consensus.leadership().borrow().stopped, None, "node {id} in round {round}");
        }
    }
}
