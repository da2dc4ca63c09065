//! The dead-man heartbeat on real nodes and a real HTTP server outside: beats come from whoever leads with a majority, stop
//! without one, come again, and what keeps them from being heard is paged.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router};
use serde_json::Value;

use crate::lab::parts::{Lab, Options};
use crate::lab::wait;
use crate::lab::watch::status_of;
use crate::scene::{fast, play};

const TOKEN: &str = "the-outside-receivers-token";

/// The receiver outside: any path, the token asked for, everything kept.
#[derive(Default)]
struct Outside {
    beats: Mutex<Vec<Value>>,
    refuse_with: AtomicU16,
}

impl Outside {
    async fn start() -> Result<(SocketAddr, Arc<Self>)> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let outside = Arc::new(Self::default());
        let app = Router::new().fallback(hear).with_state(outside.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok((address, outside))
    }

    /// How many beats of each node.
    fn heard(&self) -> BTreeMap<String, usize> {
        let mut heard = BTreeMap::new();
        for beat in self.beats.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            *heard.entry(beat["node"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        heard
    }
}

async fn hear(State(outside): State<Arc<Outside>>, headers: HeaderMap, Json(beat): Json<Value>) -> StatusCode {
    if headers.get("authorization").is_none_or(|it| it.as_bytes() != format!("Bearer {TOKEN}").as_bytes()) {
        return StatusCode::UNAUTHORIZED;
    }
    if let Ok(status) = StatusCode::from_u16(outside.refuse_with.load(Ordering::SeqCst)) {
        return status;
    }
    outside.beats.lock().unwrap_or_else(PoisonError::into_inner).push(beat);
    StatusCode::OK
}

async fn more_of(outside: &Outside, node: &str, than: usize) -> Result<()> {
    wait::until(&format!("more than {than} beats of {node}"), Duration::from_secs(30), async || {
        let heard = outside.heard();
        ensure!(heard.get(node).is_some_and(|n| *n > than), "{heard:?}");
        Ok(())
    })
    .await
}

fn headlines(lab: &Lab) -> Vec<String> {
    let of_ours = |line: &String| line.contains("HEARTBEAT_UNHEARD");
    lab.receivers.received().iter().map(|page| page.headline()).filter(of_ours).collect()
}

async fn without_quorum(lab: &Lab, node: &str) -> Result<()> {
    let listen = lab.node(node)?.listen;
    wait::until("the node alone to say that it has no quorum", Duration::from_secs(20), async || {
        let standing = status_of(listen).await?.standing.unwrap_or_default();
        ensure!(!standing.has_quorum, "{standing:?}");
        Ok(())
    })
    .await
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_beats_come_from_who_leads_with_a_majority_and_from_nobody_else() -> Result<()> {
    let (address, outside) = Outside::start().await?;
    let folder = tempfile::tempdir()?;
    let (url, token) = (folder.path().join("url"), folder.path().join("token"));
    write_secret(&url, &format!("http://{address}/ping/a-secret-path\n"))?;
    write_secret(&token, &format!("{TOKEN}\n"))?;
    let first = "[[region]]\nname = \"hcmc\"\n";
    let table = format!(
        "[heartbeat]\nurl_file = \"{}\"\ntoken_file = \"{}\"\ninterval_s = 1\n\n{first}",
        url.display(),
        token.display()
    );
    let changes = vec![(first.to_owned(), table)];
    play(Options { links: true, changes, ..fast() }, async |lab: &mut Lab| {
        let alone = lab.leader().await?;
        more_of(&outside, &alone, 2).await?;
        // Cut off from both others it can still reach the receiver, and says nothing; who leads instead does.
        let names: Vec<String> = lab.nodes.iter().map(|node| node.name.clone()).collect();
        for other in names.iter().filter(|name| **name != alone) {
            lab.links.cut(&alone, other);
        }
        without_quorum(lab, &alone).await?;
        let last = outside.heard()[&alone];
        let next = wait::until("beats of another leader", Duration::from_secs(30), async || {
            let heard = outside.heard();
            heard.keys().find(|node| **node != alone).cloned().with_context(|| format!("{heard:?}"))
        })
        .await?;
        more_of(&outside, &next, 3).await?;
        ensure!(outside.heard()[&alone] == last, "a leader without a majority beats on: {:?}", outside.heard());

        // What is not heard is paged; and it is over when it is heard again.
        outside.refuse_with.store(503, Ordering::SeqCst);
        wait::until("a page that the heartbeat is not heard", Duration::from_secs(30), async || {
            ensure!(headlines(lab).iter().any(|line| line.contains("answered 503")), "{:?}", headlines(lab));
            Ok(())
        })
        .await?;
        outside.refuse_with.store(0, Ordering::SeqCst);
        wait::until("the page's end", Duration::from_secs(30), async || {
            ensure!(headlines(lab).iter().any(|line| line.contains("over: ")), "{:?}", headlines(lab));
            Ok(())
        })
        .await?;
        let told = headlines(lab).concat();
        ensure!(!told.contains("a-secret-path") && !told.contains(TOKEN), "a secret is told: {told}");

        // Nobody has a majority: silence. Then somebody has one again.
        lab.node_mut(&next)?.kill()?;
        without_quorum(lab, names.iter().find(|name| **name != alone && **name != next).context("a third")?).await?;
        let silent = outside.heard();
        wait::pause(Duration::from_secs(5)).await;
        ensure!(outside.heard() == silent, "beats without a majority: {:?}, then {:?}", silent, outside.heard());
        lab.links.heal();
        wait::until("beats again", Duration::from_secs(30), async || {
            ensure!(outside.heard() != silent, "{silent:?}");
            Ok(())
        })
        .await
    })
    .await
}
