//! The status page of real nodes: what it shows, to whom, live and in a browser; and that no secret is in it, nor in a log,
//! the audit, the metrics, a page or what watchdogctl prints.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::lab::browser::{self, Look};
use crate::lab::demo::fail_over;
use crate::lab::nodes::ctl;
use crate::lab::parts::{Dns, Lab, Options};
use crate::lab::{DR, GROUP, wait};
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
        in_a_browser(page, listen).await?;
        lab.node_mut(&follower)?.stop()?;
        all.remove(0).until_its_end().await
    })
    .await
}

/// A way to the page that can be listened to, and cut.
struct Way {
    address: SocketAddr,
    /// What went to the browser.
    down: Arc<Mutex<Vec<u8>>>,
    _conns: JoinSet<()>,
}

impl Way {
    async fn to(page: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, down) = (listener.local_addr()?, Arc::<Mutex<Vec<u8>>>::default());
        let (mut conns, heard) = (JoinSet::new(), down.clone());
        conns.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((browser, _)) = listener.accept().await {
                carried.spawn(carry(browser, page, heard.clone()));
            }
        });
        Ok(Self { address, down, _conns: conns })
    }

    fn told(&self) -> String {
        String::from_utf8_lossy(&self.down.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

async fn carry(browser: TcpStream, page: SocketAddr, heard: Arc<Mutex<Vec<u8>>>) {
    let Ok(node) = TcpStream::connect(page).await else { return };
    let ((mut from_browser, mut to_browser), (mut from_node, mut to_node)) = (browser.into_split(), node.into_split());
    let up = async { tokio::io::copy(&mut from_browser, &mut to_node).await.map(drop) };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = from_node.read(&mut buffer).await?;
            if n == 0 {
                return Ok(());
            }
            heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
            to_browser.write_all(&buffer[..n]).await?;
        }
    };
    let _: (std::io::Result<()>, std::io::Result<()>) = tokio::join!(up, down);
}

/// What came after the page was loaded is in the document: the script runs under the policy, and puts it in.
async fn in_a_browser(page: SocketAddr, listen: SocketAddr) -> Result<()> {
    let way = Way::to(page).await?;
    let url = format!("http://{}/?lang=en", way.address);
    let looking = tokio::task::spawn_blocking(move || browser::document(&url, Look::default()));
    wait::until_true("the browser to open the stream", Duration::from_secs(60), async || {
        way.told().contains("text/event-stream")
    })
    .await?;
    ctl(listen, &["pause", GROUP, "--reason", "seen live by a browser"]).await?;
    wait::until_true("it to be told", Duration::from_secs(20), async || way.told().contains("seen live by a browser"))
        .await?;
    drop(way);
    let document = looking.await??;
    ensure!(document.contains("seen live by a browser"), "what was sent is not in the page: {document}");
    ensure!(document.contains(">Not live: the connection is lost, trying again</span>"), "{document}");
    ensure!(document.contains(&format!("◆ {DR} (not its home: hcmc)")), "{document}");
    ctl(listen, &["resume", GROUP, "--reason", "seen"]).await?;
    Ok(())
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// Everything that is secret in the lab, by name: what was planted, and what it made itself.
fn secrets(lab: &Lab) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::from([
        ("routing key".to_owned(), "0123456789abcdef0123456789abcdef".to_owned()),
        ("webhook's secret".to_owned(), "a secret of the lab".to_owned()),
        ("heartbeat's token".to_owned(), "planted-token-5c1e".to_owned()),
        ("heartbeat's address".to_owned(), "planted-path-77aa".to_owned()),
        ("database's password".to_owned(), "planted-password-9f3b".to_owned()),
    ]);
    if let Dns::Bind(bind) = &lab.dns {
        found.insert("TSIG key".to_owned(), bind.secret.clone());
    }
    let mut keys = vec![lab.key.file.clone()];
    keys.extend(
        files(&lab.folder.path.join("tls"))?.into_iter().filter(|path| path.extension().is_some_and(|it| it == "key")),
    );
    ensure!(keys.len() >= 4, "{keys:?}");
    for key in keys {
        let text = std::fs::read_to_string(&key)?;
        let line = text.lines().find(|line| !line.starts_with("---") && line.len() > 30).context("a key has lines")?;
        found.insert(key.display().to_string(), line.to_owned());
    }
    Ok(found)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// Everything that is told, by where.
async fn told(lab: &Lab) -> Result<BTreeMap<String, String>> {
    let mut told = BTreeMap::new();
    for path in files(&lab.folder.path.join("log"))? {
        told.insert(path.display().to_string(), String::from_utf8_lossy(&std::fs::read(&path)?).into_owned());
    }
    for path in
        files(&lab.folder.path.join("nodes"))?.into_iter().filter(|path| path.to_string_lossy().contains("audit"))
    {
        told.insert(path.display().to_string(), String::from_utf8_lossy(&std::fs::read(&path)?).into_owned());
    }
    for node in &lab.nodes {
        told.insert(format!("metrics of {}", node.name), get(node.http, "/metrics").await?);
        told.insert(format!("readyz of {}", node.name), get(node.http, "/readyz").await?);
        told.insert(format!("page of {}", node.name), get(node.page, "/").await?);
        for words in [&["status"][..], &["run", "list"], &["audit"], &["page", "list"], &["contact", "list"]] {
            told.insert(format!("{words:?} of {}", node.name), node.ctl(words).await?.to_string());
        }
    }
    let pages = lab.receivers.received();
    let body = |page: &crate::lab::receiver::Received| {
        // PagerDuty is told its routing key: by that it knows whose page it is.
        let mut body = page.body.clone();
        if let Some(fields) = body.as_object_mut() {
            fields.remove("routing_key");
        }
        body.to_string()
    };
    told.insert("pages".to_owned(), pages.iter().map(body).collect());
    Ok(told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_told_and_each_line_of_a_run_says_whose_it_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    // Nobody listens there: what cannot be told is complained of, without its address.
    write_secret(&path("url"), "http://127.0.0.1:9/planted-path-77aa\n")?;
    write_secret(&path("token"), "planted-token-5c1e\n")?;
    write_secret(&path("password"), "planted-password-9f3b\n")?;
    let region = "[[region]]\nname = \"hcmc\"\n".to_owned();
    let beat = format!(
        "[heartbeat]\nurl_file = \"{}\"\ntoken_file = \"{}\"\ninterval_s = 1\n\n{region}",
        path("url").display(),
        path("token").display()
    );
    let role = "expect_role = \"primary\"".to_owned();
    let with_password = format!("password_file = \"{}\"\n{role}", path("password").display());
    let options = Options {
        changes: vec![(region, beat), (role, with_password)],
        environment: BTreeMap::from([
            ("WATCHDOG_LOG_FORMAT".to_owned(), "json".to_owned()),
            ("RUST_LOG".to_owned(), "debug".to_owned()),
        ]),
        ..fast()
    };
    play(options, async |lab: &mut Lab| {
        fail_over(lab, None, false).await?;
        wait::until("the heartbeat's complaint to be told", Duration::from_secs(30), async || {
            ensure!(lab.receivers.received().iter().any(|page| page.says("HEARTBEAT_UNHEARD")), "not yet");
            Ok(())
        })
        .await?;
        let (secrets, told) = (secrets(lab)?, told(lab).await?);
        ensure!(told.len() > 30, "{:?}", told.keys());
        for (place, text) in &told {
            for (name, secret) in &secrets {
                ensure!(!text.contains(secret.as_str()), "{name} stands in {place}");
            }
        }
        let leader = lab.leader().await?;
        let log = told.iter().find(|(place, _)| place.contains(&format!("node-{leader}"))).context("its log")?.1;
        each_line_says_whose(log)
    })
    .await
}

/// Of the lines that the run's steps left.
fn each_line_says_whose(log: &str) -> Result<()> {
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    ensure!(lines.len() > 20, "no JSON in the leader's log");
    let of_moves = |line: &&Value| {
        let target = line["target"].as_str().unwrap_or_default();
        line["span"]["name"] == "move" || target == "watchdog::coordinator::steps"
    };
    let mut steps = 0;
    for line in lines.iter().filter(of_moves) {
        let field = |name: &str| line["span"][name].as_str().or(line[name].as_str()).unwrap_or_default();
        ensure!(field("run").len() == 36 && !field("token").is_empty(), "whose is this: {line}");
        steps += usize::from(!field("step").is_empty());
    }
    ensure!(steps >= 4, "{steps} lines of steps");
    Ok(())
}
