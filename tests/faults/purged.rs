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
use crate::lab::{CLUSTER, DR, GROUP, HOME, WITNESS, wait};
use crate::scene::{each_effect_once, fast, play};

/// More than a snapshot is made after (2000) and what is kept behind it (500) together.
const ENTRIES: u32 = 2700;
/// Asked for at the same time.
const AT_ONCE: usize = 32;

/// Pauses and resumes until the log has grown by so much, and leaves the group resumed.
async fn grow_the_log(lab: &Lab) -> Result<()> {
    let leader = lab.leader().await?;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", lab.node(&leader)?.listen))?.connect().await?;
    let say = |n: u32| {
        let mut client = AdminClient::new(channel.clone());
        async move {
            let (by, reason) = ("lab".to_owned(), format!("entry {n} of a long week"));
            let context = Some(WriteContext { request_id: format!("week-{n:08}"), by, reason });
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
    say(ENTRIES + 1 - ENTRIES % 2).await.context("the last resume")
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

/// Away for as long as it takes the others to forget; back by a snapshot, and as good a voter as any: with one of the
/// others gone, it makes up the majority that fails over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_node_returns_by_snapshot_and_makes_up_a_majority() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        let away = name_at(DR);
        lab.node_mut(&away)?.kill()?;
        let left_at = status_of(lab.node(&name_at(HOME))?.listen).await?.standing.unwrap_or_default().as_of_index;
        ensure!(purged_up_to(lab, &away, 2).await? == 0, "it had a snapshot before");
        grow_the_log(lab).await?;
        let Lab { nodes, folder, .. } = &mut *lab;
        nodes.iter_mut().find(|node| node.name == away).context("the node")?.start_again(folder)?;
        at_rest(lab, 0).await?;
        wait::until("it to have caught up", Duration::from_secs(30), async || {
            let status = status_of(lab.node(&away)?.listen).await?;
            let index = status.standing.clone().unwrap_or_default().as_of_index;
            ensure!(index >= left_at + u64::from(ENTRIES), "it is at {index}, and left at {left_at}");
            ensure!(group(&status)?.pause.is_none(), "it shows another state: {:?}", group(&status)?.pause);
            Ok(())
        })
        .await?;
        lab.node_mut(&away)?.stop()?;
        let purged = purged_up_to(lab, &away, 2).await?;
        ensure!(purged > left_at, "it caught up by the log: purged up to {purged}, left at {left_at}");
        println!("left at {left_at}, came back by a snapshot up to at least {purged}");
        let Lab { nodes, folder, .. } = &mut *lab;
        nodes.iter_mut().find(|node| node.name == away).context("the node")?.start_again(folder)?;
        lab.until_ready().await?;

        lab.node_mut(&name_at(WITNESS))?.kill()?;
        lab.kill_home()?;
        lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        at_rest(lab, 1).await?;
        each_effect_once(lab)
    })
    .await
}
