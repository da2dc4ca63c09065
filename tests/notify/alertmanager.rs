//! Against Debian's Alertmanager: what is told stands there, is routed on, and ends. Its own page to PagerDuty is what ours
//! is held against.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use url::Url;
use watchdog::domain::command::{Change, Command as Proposal};
use watchdog::domain::ids::{ConfigDigest, NodeId, Principal, UnixMs};
use watchdog::domain::page::{Page, PageAction, Severity};
use watchdog::domain::state::ClusterState;
use watchdog::notify::{Alertmanager, Backoff, Dispatcher, Notifier, PagerDuty, Parcel, Sent, Settle, Told};

use super::receiver::{Received, StandInReceiver};
use super::{page, secret_file, tls};

const LONG: Duration = Duration::from_secs(20);

/// A real Alertmanager on a free loopback port, with nothing to gossip with.
pub struct Am {
    child: Child,
    address: SocketAddr,
}

impl Drop for Am {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Am {
    async fn start(folder: &Path, to: &StandInReceiver) -> Self {
        let hook = to.url();
        let config = format!(
            "route:\n  receiver: all\n  group_by: [key]\n  group_wait: 0s\n  group_interval: 1s\n  repeat_interval: 1h\n\
             receivers:\n  - name: all\n    webhook_configs:\n      - url: {hook}/hook\n        send_resolved: true\n    \
             pagerduty_configs:\n      - url: {hook}/v2/enqueue\n        routing_key: R0UT1NGKEY\n        send_resolved: true\n"
        );
        Self::run(folder, &config).await
    }

    /// With this configuration.
    pub async fn run(folder: &Path, config: &str) -> Self {
        std::fs::write(folder.join("alertmanager.yml"), config).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let log = std::fs::File::create(folder.join("alertmanager.log")).unwrap();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", folder.join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus-alertmanager: scripts/install");
        let am = Self { child, address };
        let client = reqwest::Client::new();
        for _ in 0..1000 {
            let ready = client.get(format!("{}/-/ready", am.url())).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return am;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("Alertmanager is not ready: {}", std::fs::read_to_string(folder.join("alertmanager.log")).unwrap());
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What stands there now.
    async fn alerts(&self) -> Vec<Value> {
        let answer = reqwest::get(format!("{}/api/v2/alerts?active=true", self.url())).await.unwrap();
        answer.json::<Value>().await.unwrap().as_array().cloned().unwrap()
    }

    async fn until_standing(&self, keys: &[&str]) -> Vec<Value> {
        for _ in 0..1000 {
            let alerts = self.alerts().await;
            let found: BTreeSet<&str> = alerts.iter().filter_map(|alert| alert["labels"]["key"].as_str()).collect();
            if found == keys.iter().copied().collect() {
                return alerts;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{keys:?} do not stand: {:#?}", self.alerts().await);
    }
}

/// The replicated state, without a cluster: proposals are applied at once.
pub struct StandInLog {
    state: watch::Sender<Arc<ClusterState>>,
}

impl StandInLog {
    pub fn new() -> Self {
        let log = Self { state: watch::Sender::new(Arc::default()) };
        log.apply(Change::AdoptConfig {
            cluster: "demo".into(),
            epoch: 1,
            digest: ConfigDigest::from("d"),
            groups: Default::default(),
            receivers: vec!["am".into()],
            on_call: Default::default(),
        });
        log
    }

    fn apply(&self, change: Change) {
        self.state.send_modify(|state| {
            let index = state.applied_index + 1;
            let by = Principal("node:a".to_owned());
            let at = watchdog::clock::unix_now();
            let command = Proposal { node: NodeId(1), at, by, from: None, request_id: None, change };
            Arc::make_mut(state).apply(index, &command);
        });
    }

    pub fn tell(&self, page: Page) {
        self.apply(Change::Tell { page });
    }
}

#[async_trait::async_trait]
impl Settle for StandInLog {
    async fn settle(&self, told: Told) -> Result<(), String> {
        self.apply(Change::Told { seq: told.seq, receiver: told.receiver, refused: told.refused });
        Ok(())
    }
}

fn alertmanager(am: &Am) -> Alertmanager {
    Alertmanager::new("demo".into(), &Url::parse(&am.url()).unwrap(), None, LONG).unwrap()
}

/// Delivers as a leader does, until dropped.
pub fn leader(am: &Am, log: &Arc<StandInLog>) -> (tokio::task::JoinHandle<()>, watch::Sender<bool>) {
    let line: Box<dyn Notifier> = Box::new(alertmanager(am));
    let backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_millis(100) };
    let dispatcher = Dispatcher::with_notifiers(vec![("am".into(), line)], backoff, LONG);
    let (leading, leads) = watch::channel(true);
    let (state, settle) = (log.state.subscribe(), log.clone());
    (tokio::spawn(async move { dispatcher.run(state, leads, &*settle).await }), leading)
}

pub fn critical(key: &str, action: PageAction) -> Page {
    let severity = if action == PageAction::Resolve { Severity::Info } else { Severity::Critical };
    Page { event: "DR_FAILOVER_BLOCKED".to_owned(), action, severity, run: None, ..page(key) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_stands_at_alertmanager_until_it_is_over() {
    tls();
    let folder = TempDir::new().unwrap();
    let hook = StandInReceiver::start(&[]).await;
    let am = Am::start(folder.path(), &hook).await;
    let log = Arc::new(StandInLog::new());
    let (task, leading) = leader(&am, &log);
    log.tell(critical("demo/aicamera/blocked", PageAction::Trigger));
    log.tell(critical("demo/shop/blocked", PageAction::Trigger));
    let standing = am.until_standing(&["demo/aicamera/blocked", "demo/shop/blocked"]).await;
    let one = standing.iter().find(|alert| alert["labels"]["key"] == "demo/aicamera/blocked").unwrap();
    for (label, value) in
        [("alertname", "DR_FAILOVER_BLOCKED"), ("cluster", "demo"), ("severity", "critical"), ("group", "aicamera")]
    {
        assert_eq!(one["labels"][label], value, "{one:#}");
    }
    assert_eq!(one["annotations"]["summary"], "aicamera serves from hanoi", "{one:#}");

    // The end has another severity in the outbox; there it must end the one alert that stands, and no other.
    log.tell(critical("demo/aicamera/blocked", PageAction::Resolve));
    am.until_standing(&["demo/shop/blocked"]).await;
    let is = |page: &Received, status: &str| page.path == "/hook" && page.body["status"] == status;
    super::wait_until("the webhook behind it to hear of the end", || {
        hook.received().iter().any(|page| is(page, "resolved"))
    })
    .await;
    let ended: Vec<_> = hook.received().into_iter().filter(|page| is(page, "resolved")).collect();
    let alerts: Vec<&Value> = ended.iter().flat_map(|page| page.body["alerts"].as_array().unwrap()).collect();
    assert!(alerts.iter().all(|alert| alert["labels"]["severity"] == "critical"), "{alerts:#?}");

    // A leader that goes and one that comes: it says again what stands, also to an Alertmanager that knows nothing.
    task.abort();
    drop((am, leading));
    let folder = TempDir::new().unwrap();
    let am = Am::start(folder.path(), &hook).await;
    let (task, _leading) = leader(&am, &log);
    am.until_standing(&["demo/shop/blocked"]).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_or_unreachable_alertmanager_is_told_apart() {
    tls();
    let hook = StandInReceiver::start(&[super::receiver::Answer::Status(400, "bad labels")]).await;
    let folder = TempDir::new().unwrap();
    let token = secret_file(&folder, "T0KEN\n");
    let url = Url::parse(&format!("{}/prefix/", hook.url())).unwrap();
    let to = Alertmanager::new("demo".into(), &url, Some(token), LONG).unwrap();
    let page = critical("k", PageAction::Trigger);
    let parcel = Parcel { seq: Some(1), at: UnixMs(1), page: &page, notice: None };
    assert!(matches!(to.send(parcel).await, Sent::Refused { reason } if reason.contains("bad labels")));
    let received = hook.received();
    assert_eq!(received[0].path, "/prefix/api/v2/alerts");
    assert_eq!(received[0].headers["authorization"], "Bearer T0KEN");
    let nowhere = Url::parse("http://127.0.0.1:1").unwrap();
    let to = Alertmanager::new("demo".into(), &nowhere, None, LONG).unwrap();
    assert!(matches!(to.send(parcel).await, Sent::Retry { .. }));
}

/// PagerDuty takes what Alertmanager sends it: ours has the same fields of the same kinds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_page_to_pagerduty_has_the_shape_of_alertmanagers() {
    tls();
    let folder = TempDir::new().unwrap();
    let pagerduty = StandInReceiver::start(&[]).await;
    let am = Am::start(folder.path(), &pagerduty).await;
    let page = critical("demo/aicamera/blocked", PageAction::Trigger);
    let parcel = Parcel { seq: Some(1), at: watchdog::clock::unix_now(), page: &page, notice: None };
    assert_eq!(alertmanager(&am).send(parcel).await, Sent::Delivered);
    let sent = || pagerduty.received().into_iter().find(|page| page.path == "/v2/enqueue").map(|page| page.body);
    super::wait_until("Alertmanager to page", || sent().is_some()).await;
    let theirs = sent().unwrap();

    let direct = StandInReceiver::start(&[]).await;
    let key = secret_file(&folder, "R0UT1NGKEY\n");
    let ours = PagerDuty::new("demo".into(), &Url::parse(&direct.url()).unwrap(), key, LONG).unwrap();
    assert_eq!(ours.send(parcel).await, Sent::Delivered);
    let ours = direct.received().remove(0).body;
    // What Alertmanager says of itself, or of many alerts in one, has no counterpart.
    for field in ["routing_key", "event_action", "dedup_key"] {
        assert!(theirs[field].is_string() && ours[field].is_string(), "{field}: {theirs:#} {ours:#}");
    }
    assert_eq!((&theirs["routing_key"], &theirs["event_action"]), (&ours["routing_key"], &ours["event_action"]));
    for field in ["summary", "source", "severity"] {
        assert!(
            theirs["payload"][field].is_string() && ours["payload"][field].is_string(),
            "{field}: {theirs:#} {ours:#}"
        );
    }
    assert!(theirs["payload"]["custom_details"].is_object() && ours["payload"]["custom_details"].is_object());
    let severities = ["critical", "error", "warning", "info"];
    assert!(severities.contains(&ours["payload"]["severity"].as_str().unwrap()), "{ours:#}");
}
