//! `page` and `contact`: what is shown of incidents, who may say what of them, and tests of the receivers.

use std::time::Duration;

use watchdog::config::judge;
use watchdog::domain::command::{Applied, Change, Command};
use watchdog::domain::decide::specs;
use watchdog::domain::ids::{NodeId, UnixMs};
use watchdog::domain::page::{Page, PageAction, Severity};

use crate::ctl::{ctl, golden, long_ago};
use crate::standin::{GROUP, Log, leader, policy};

/// Contacts and ladders beside the test's configuration.
const ON_CALL: &str = r#"
[[receiver]]
name = "chat"
kind = "webhook"
url = "http://127.0.0.1:9000/pages"
[[contact]]
name = "linh"
role = "dr-coordinator"
phone = "+84 28 0000 0001"
receivers = ["oncall"]
[[contact]]
name = "bao"
role = "database-administrator"
mail = "bao@example.vn"
receivers = ["chat"]
[[contact]]
name = "cloud"
role = "cloud-provider"
url = "https://support.example.com"
[[escalation]]
name = "urgent"
severities = ["critical", "error"]
steps = [{ after_min = 0, contacts = ["linh"] }, { after_min = 10, contacts = ["bao", "cloud"] }]
repeat_every_min = 30
"#;

/// The configuration with contacts is in force.
fn adopt(log: &Log) {
    let text = format!("{}\n{ON_CALL}", include_str!("watchdog.toml"));
    let (config, report) = judge(text.as_bytes());
    let with = config.unwrap_or_else(|| panic!("{:?}", report.errors)).policy();
    let own = policy();
    log.done(Change::AdoptConfig {
        cluster: own.cluster.clone(),
        epoch: own.epoch,
        digest: own.digest.clone(),
        groups: specs(&own),
        receivers: with.receivers,
        on_call: with.on_call,
    });
}

fn lag(at: UnixMs, log: &Log) {
    let page = Page {
        key: format!("{}/{GROUP}/lag", policy().cluster),
        event: "REPLICATION_LAG".to_owned(),
        action: PageAction::Trigger,
        severity: Severity::Critical,
        summary: format!("{GROUP}: the standby lags more than 300 s"),
        group: Some(GROUP.into()),
        run: None,
        details: [("behind".to_owned(), "1.2 GiB".to_owned())].into(),
    };
    log.done_at(at, Change::Tell { page });
}

fn told(log: &Log, at: UnixMs, seq: u64, receiver: &str, refused: Option<&str>) {
    let refused = refused.map(str::to_owned);
    log.done_at(at, Change::Told { seq, receiver: receiver.into(), refused });
}

#[tokio::test]
async fn what_was_told_and_who_has_it() {
    let (log, _node, served) = leader().await;
    let here = served.address.as_str();
    assert!(ctl(here, &["page", "list"]).stdout.contains("no incident is open"));
    adopt(&log);
    let at = long_ago();
    lag(at, &log);
    let seq = log.state().next_page;
    told(&log, at.plus(900), seq, "oncall", None);
    golden("page-list.txt", &ctl(here, &["page", "list"]).stdout);
    golden("page-show.txt", &ctl(here, &["page", "show", "aicamera/lag"]).stdout);
    golden("contact-list.txt", &ctl(here, &["contact", "list", GROUP]).stdout);
    let status = ctl(here, &["status"]).stdout;
    assert!(status.contains("open incidents") && status.contains("nobody has it"), "{status}");

    let number = log.state().incidents.values().next().expect("one is open").opened.to_string();
    let said = ctl(here, &["page", "ack", &number, "--reason", "I look"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("acknowledged") && said.stdout.contains("acknowledgement lapses"), "{}", said.stdout);
    let listed = ctl(here, &["page", "list"]).stdout;
    assert!(listed.contains("operator:linh") && listed.contains(": I look"), "{listed}");
    assert!(ctl(here, &["status"]).stdout.contains("operator:linh has it"));
    let page = log.state().outbox.back().expect("whoever was told hears of it").clone();
    assert_eq!(page.page.action, PageAction::Acknowledge);
    assert!(page.deliveries.keys().all(|receiver| receiver.as_str() == "oncall"));

    let said = ctl(here, &["page", "ack", "all-of-aicamera", "--reason", "all of it"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    // What ends by itself is not ended by hand, and what is not there says so.
    for (args, code, phrase) in [
        (&["page", "resolve", "aicamera/lag", "--reason", "x"][..], 3, "acknowledge it instead"),
        (&["page", "resolve", "aicamera/gone", "--reason", "x"], 3, "no incident aicamera/gone"),
        (&["page", "ack", "all-of-nothing", "--reason", "x"], 3, "no group nothing"),
        (&["page", "ack", "--reason", "x"], 2, "required"),
        (&["page", "ack", "1"], 2, "--reason"),
        (&["page", "test", "--receiver", "phone"], 3, "there is no receiver phone"),
        (&["page", "test", "--contact", "cloud"], 3, "called by hand"),
        (&["page", "test", "--contact", "lan"], 3, "there are: bao, cloud, linh"),
        (&["page", "test", "--contact", "lan", "--receiver", "chat"], 2, "cannot be used with"),
    ] {
        let said = ctl(here, args);
        assert!(said.code == code && said.stderr.contains(phrase), "{args:?}: {} {}", said.code, said.stderr);
    }
    // Over: kept, and shown where asked for.
    let over = log.state().incidents.values().next().expect("it is open").page.clone();
    log.done(Change::Tell { page: Page { action: PageAction::Resolve, ..over } });
    let listed = ctl(here, &["page", "list", "--past"]).stdout;
    assert!(listed.contains("no incident is open") && listed.contains("over"), "{listed}");
    let said = ctl(here, &["page", "ack", &number, "--reason", "x"]);
    assert!(said.code == 3 && said.stderr.contains("is over already"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_page_waits_until_each_receiver_has_answered() {
    let (log, _node, served) = leader().await;
    adopt(&log);
    let here = served.address.clone();
    // Nobody delivers: it says so when the time is up, and the page stays in the outbox.
    let said = ctl(&here, &["page", "test", "--contact", "linh", "--timeout", "1s"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stdout.contains("oncall") && said.stdout.contains("has not taken it yet"), "{}", said.stdout);
    assert!(said.stderr.contains("watchdogctl page resolve"), "{}", said.stderr);

    let (before, deliverer) = (log.state().next_page, log.clone());
    let delivering = tokio::spawn(async move {
        loop {
            let state = deliverer.state();
            if let Some(entry) = state.outbox.iter().find(|entry| entry.seq > before) {
                told(&deliverer, entry.at, entry.seq, "oncall", None);
                told(&deliverer, entry.at, entry.seq, "chat", Some("400: no such channel"));
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let said = tokio::task::spawn_blocking(move || ctl(&here, &["page", "test", "--reason", "monthly"])).await.unwrap();
    delivering.await.unwrap();
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stdout.contains("oncall  took it"), "{}", said.stdout);
    assert!(said.stdout.contains("chat  refused it: 400: no such channel"), "{}", said.stdout);
    let state = log.state();
    let page = &state.outbox.back().expect("the test's page").page;
    assert_eq!(page.event, "WATCHDOG_TEST");
    assert!(page.summary.contains("monthly") && page.summary.contains("nothing is wrong"), "{}", page.summary);
    // Its end is told to whoever was told of it, by the person who tried.
    let number = state.incidents[&page.key].opened.to_string();
    let said = ctl(&served.address, &["page", "resolve", &number, "--reason", "done"]);
    assert!(said.code == 0 && said.stdout.contains("resolved"), "{}", said.stderr);
}

#[tokio::test]
async fn the_same_request_twice_acknowledges_once() {
    let (log, _node, served) = leader().await;
    adopt(&log);
    lag(long_ago(), &log);
    let again = ["--request-id", "0195aaaa-0000-7000-8000-00000000000a"];
    for _ in 0..2 {
        let said = ctl(&served.address, &[&["page", "ack", "aicamera/lag", "--reason", "I look"][..], &again].concat());
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    let audited = log.state().audit.iter().filter(|line| line.what.starts_with("acknowledge ")).count();
    assert_eq!(audited, 1);
    // Another incident under the same id is another request.
    let state = log.state();
    let unknown = Change::Acknowledge { group: None, pages: Vec::new(), reason: "x".to_owned() };
    let command = Command {
        node: NodeId(3),
        at: UnixMs(1),
        by: "operator:linh".into(),
        from: None,
        request_id: Some(again[1].into()),
        change: unknown,
    };
    assert!(matches!(log.apply(&command), Applied::Rejected(_)));
    assert_eq!(log.state().incidents, state.incidents);
}
