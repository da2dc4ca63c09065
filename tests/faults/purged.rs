//! A node comes back when the log it would need is long gone: it gets a snapshot over the network.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use openraft::storage::RaftLogStorage;
use watchdog::consensus::{Identity, Store};
use watchdog::domain::ids::NodeId;
use watchdog::proto::admin_client::AdminClient;
use watchdog::proto::{PauseRequest, ResumeRequest, RunPhase, WriteContext};

use crate::calm::at_rest;
use crate::lab::nodes::name_at;
use crate::lab::parts::Lab;
use crate::lab::watch::{group, status_of};
use crate::lab::{CLUSTER, DR, GROUP, HOME, WITNESS, pki, wait};
use crate::scene::{each_effect_once, fast, play};

/// More than a snapshot is made after (2000) and what is kept behind it (500) together.
const ENTRIES: u32 = 2700;
/// How often the log may be found to be there still.
const ROUNDS: u64 = 3;
/// Asked for at the same time.
const AT_ONCE: usize = 32;

/// Pauses and resumes until the log has grown by so much, and leaves the group resumed. The same `round` twice is the same request.
async fn grow_the_log(lab: &Lab, round: u64) -> Result<()> {
    let leader = lab.leader().await?;
    let channel = pki::connect(lab.node(&leader)?.listen, Duration::from_secs(20)).await?;
    let say = |n: u32| {
        let mut client = AdminClient::new(channel.clone());
        async move {
            let (by, reason) = ("lab".to_owned(), format!("entry {n} of a long week"));
            let context = Some(WriteContext { request_id: format!("week-{round}-{n:08}"), by, reason });
            if n.is_multiple_of(2) {
                let ask = PauseRequest { context, group: GROUP.to_owned(), until_ms: None };
                client.pause(ask).await.map(drop)
            } else {
                client.resume(ResumeRequest { context, group: GROUP.to_owned() }).await.map(drop)
            }
        }
    };
    let mut answers = futures::stream::iter(0..ENTRIES).map(say).buffer_unordered(AT_ONCE);
    while answers.next().await.is_some() {}
    // Which of them came last nobody knows: one more of each, one after the other.
    drop(say(ENTRIES + ENTRIES % 2).await);
    say(ENTRIES + 1 + ENTRIES % 2).await.context("the last resume")
}

/// The log position up to which a node's store, while it does not run, holds a snapshot instead of entries.
async fn purged_up_to(lab: &Lab, name: &str, id: u64) -> Result<u64> {
    let folder = lab.folder.path.join("nodes").join(name);
    let identity = Identity { cluster: CLUSTER.into(), epoch: 1, node: NodeId(id) };
    let mut store = Store::open(&folder, &identity)?;
    let purged = store.get_log_state().await?.last_purged_log_id;
    store.close().await?;
    Ok(purged.map_or(0, |purged| purged.index))
}

/// Lets the two nodes that run write until neither has the entry after `left_at` any more, the leader included.
async fn forget(lab: &mut Lab, left_at: u64) -> Result<()> {
    for round in 1.. {
        grow_the_log(lab, round).await?;
        let mut kept_from = Vec::new();
        for (site, id) in [(HOME, 1), (WITNESS, 3)] {
            let name = name_at(site);
            lab.node_mut(&name)?.stop()?;
            kept_from.push(purged_up_to(lab, &name, id).await?);
            start_again(lab, &name)?;
            wait::until("a leader", Duration::from_secs(30), async || lab.leader().await).await?;
        }
        if kept_from.iter().all(|purged| *purged > left_at) {
            println!("left at {left_at}; the others keep what comes after {kept_from:?}, after {round} rounds");
            break;
        }
        // A leader keeps what is on its way to somebody, and forgets it with the next snapshot.
        ensure!(round < ROUNDS, "{ROUNDS} times {ENTRIES} entries, and they keep all after {kept_from:?}");
    }
    Ok(())
}

fn start_again(lab: &mut Lab, name: &str) -> Result<()> {
    let Lab { nodes, folder, .. } = lab;
    nodes.iter_mut().find(|node| node.name == name).context("the node")?.start_again(folder)
}

/// Away for as long as it takes the others to forget; back by a snapshot, and as good a voter as any: with one of the
/// others gone, it makes up the majority that fails over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_node_returns_by_snapshot_and_makes_up_a_majority() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        let away = name_at(DR);
        lab.node_mut(&away)?.kill()?;
        let left_at = status_of(lab.node(&name_at(HOME))?.listen).await?.standing.unwrap_or_default().as_of_index;
        forget(lab, left_at).await?;
        start_again(lab, &away)?;
        at_rest(lab, 0).await?;
        wait::until("it to have caught up", Duration::from_secs(30), async || {
            let status = status_of(lab.node(&away)?.listen).await?;
            let index = status.standing.clone().unwrap_or_default().as_of_index;
            ensure!(index >= left_at + u64::from(ENTRIES), "it is at {index}, and left at {left_at}");
            ensure!(group(&status)?.pause.is_none(), "it shows another state: {:?}", group(&status)?.pause);
            Ok(())
        })
        .await?;
        lab.until_ready().await?;

        lab.node_mut(&name_at(WITNESS))?.kill()?;
        lab.kill_home()?;
        lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        at_rest(lab, 1).await?;
        each_effect_once(lab)
    })
    .await
}
