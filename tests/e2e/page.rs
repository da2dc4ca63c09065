//! The status page of real nodes: what it shows, to whom, and live.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::demo::fail_over;
use crate::lab::nodes::ctl;
use crate::lab::parts::Lab;
use crate::lab::{GROUP, wait};
use crate::scene::{fast, play};

async fn get(page: SocketAddr, path: &str) -> Result<String> {
    Ok(reqwest::get(format!("http://{page}{path}")).await?.error_for_status()?.text().await?)
}

/// A live page: what it was sent so far.
struct Live {
    answer: reqwest::Response,
    text: String,
}

impl Live {
    async fn open(page: SocketAddr, lang: &str) -> Result<Self> {
        let answer = reqwest::get(format!("http://{page}/events?lang={lang}")).await?.error_for_status()?;
        let kind = answer.headers().get("content-type").context("no content type")?.to_str()?;
        ensure!(kind.starts_with("text/event-stream"), "{kind}");
        Ok(Self { answer, text: String::new() })
    }

    /// Reads on until some event of it says so.
    async fn until(&mut self, what: &str) -> Result<()> {
        let read = async {
            while !self.text.contains(what) {
                let chunk = self.answer.chunk().await?.with_context(|| format!("the stream ended before {what:?}"))?;
                self.text += &String::from_utf8_lossy(&chunk);
            }
            Ok(())
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), read).await;
        waited.with_context(|| format!("no event says {what:?}"))?
    }

    async fn until_its_end(mut self) -> Result<()> {
        let read = async { while let Ok(Some(_)) = self.answer.chunk().await {} };
        tokio::time::timeout(Duration::from_secs(20), read).await.context("the stream outlives its node")
    }
}

async fn who_may_look(page: SocketAddr) -> Result<()> {
    let client = reqwest::Client::new();
    let answer = client.get(format!("http://{page}/")).send().await?;
    let policy = answer.headers().get("content-security-policy").context("no policy")?.to_str()?;
    ensure!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    // A name that somebody else's page had resolve to this machine.
    let rebound = client.get(format!("http://{page}/")).header("host", "evil.example").send().await?;
    ensure!(rebound.status() == 421 && !rebound.text().await?.contains(GROUP), "answered to another's name");
    ensure!(client.post(format!("http://{page}/")).send().await?.status() == 405, "it takes orders");
    ensure!(client.get(format!("http://{page}/metrics")).send().await?.status() == 404, "it has more than the page");
    let vi = client.get(format!("http://{page}/")).header("accept-language", "vi-VN,vi;q=0.9,en;q=0.5").send().await?;
    ensure!(vi.text().await?.contains("<html lang=\"vi\">"), "the browser's language is not heeded");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_page_shows_what_the_leader_counts_and_lives() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        let leader = lab.leader().await?;
        let (page, follower, listen) = {
            let other = lab.nodes.iter().find(|node| node.name != leader).context("a follower")?;
            (other.page, other.name.clone(), other.listen)
        };
        who_may_look(page).await?;
        // Votes of all three, though only the leader has them.
        wait::until("the follower's page to show all votes", Duration::from_secs(20), async || {
            let html = get(page, "/?lang=en").await?;
            for node in ["hcmc-1", "hanoi-1", "witness-1"] {
                ensure!(html.contains(&format!("<th scope=\"col\">{node}</th>")), "no column of {node}");
            }
            ensure!(html.contains("<th scope=\"row\">hcmc-db<small>") && html.contains("✓ up"), "no votes");
            Ok(())
        })
        .await?;
        let mut live = Live::open(page, "vi").await?;
        live.until("\"head\":").await?;
        ensure!(!live.text.contains("tạm dừng"), "paused before it is");
        ctl(listen, &["pause", GROUP, "--reason", "so that the page tells"]).await?;
        live.until("tạm dừng").await?;
        ctl(listen, &["resume", GROUP, "--reason", "so that it may fail over"]).await?;

        // As many as may be, and no more; a place is free again when one goes.
        let mut all = vec![live];
        while all.len() < 16 {
            all.push(Live::open(page, "en").await?);
        }
        let refused = reqwest::get(format!("http://{page}/events")).await?;
        ensure!(refused.status() == 503, "{}", refused.status());
        all.truncate(1);
        wait::until("a place to be free", Duration::from_secs(20), async || Live::open(page, "en").await.map(drop))
            .await?;

        fail_over(lab, None, false).await?;
        all[0].until("<circle r=").await?;
        all[0].until("thành công").await?;
        lab.node_mut(&follower)?.stop()?;
        all.remove(0).until_its_end().await
    })
    .await
}
