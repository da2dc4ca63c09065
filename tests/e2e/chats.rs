//! Who gets what: routes by group and severity to a chat's bot with a body of its own, and a provider that is dead told
//! through the others.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::nodes::ctl;
use crate::lab::parts::{Lab, Options};
use crate::lab::receiver::CHAT_BOT;
use crate::lab::{GROUP, wait};
use crate::scene::{fast, play};

/// What the chat's people are told goes there alone; everything else goes to PagerDuty.
fn routed(address_file: &str, group: &str) -> Options {
    let region = "[[region]]\nname = \"hcmc\"\n".to_owned();
    let tables = format!(
        r#"[[receiver]]
name = "bot"
kind = "webhook"
url_file = "{address_file}"
template = "telegram"
chat_id = "-100777"
[[contact]]
name = "linh"
role = "dr-coordinator"
receivers = ["bot"]
[[contact]]
name = "bao"
role = "system-administrator"
receivers = ["oncall"]
[[escalation]]
name = "the-groups-worst"
groups = ["{group}"]
severities = ["critical"]
steps = [{{ after_s = 0, contacts = ["linh"] }}]
[[escalation]]
name = "everything-else"
steps = [{{ after_s = 0, contacts = ["bao"] }}]

{region}"#
    );
    Options { changes: vec![(region, tables)], ..fast() }
}

fn of(lab: &Lab, by: &str, text: &str) -> Vec<Value> {
    lab.receivers.received().into_iter().filter(|page| page.by == by && page.says(text)).map(|page| page.body).collect()
}

/// The receivers' address is known only once the lab stands: the file is read at every send.
fn point(file: &Path, to: &str) -> Result<()> {
    Ok(std::fs::write(file, format!("http://{to}{CHAT_BOT}\n"))?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_gets_what_its_people_are_for_in_its_own_words() -> Result<()> {
    // Made with mode 600: the address of a bot is its password.
    let file = tempfile::NamedTempFile::new()?;
    point(file.path(), "127.0.0.1:9")?;
    let path = file.path().display().to_string();
    play(routed(&path, GROUP), async |lab: &mut Lab| {
        point(file.path(), &lab.receivers.listen.to_string())?;
        let listen = lab.nodes.first().context("three nodes")?.listen;
        let sent = ctl(listen, &["page", "test", "--contact", "linh", "--reason", "monthly"]).await?;
        ensure!(sent["incident"]["tellings"][0]["deliveries"][0]["state"] == "delivered", "{sent}");
        let tests = of(lab, "chat-bot", "WATCHDOG_TEST");
        ensure!(tests.len() == 1 && of(lab, "pagerduty", "WATCHDOG_TEST").is_empty(), "{tests:?}");
        let fields: Vec<&String> = tests[0].as_object().context("an object")?.keys().collect();
        ensure!(tests[0]["chat_id"] == "-100777" && fields.contains(&&"text".to_owned()), "{tests:?}");

        // Critical, and of the group: a failover that is due and may not begin.
        ctl(listen, &["pause", GROUP, "--reason", "so that a failover is blocked"]).await?;
        lab.kill_home()?;
        wait::until("the chat to be told", Duration::from_secs(30), async || {
            ensure!(!of(lab, "chat-bot", "DR_FAILOVER_BLOCKED").is_empty(), "not yet");
            Ok(())
        })
        .await?;
        let told = &of(lab, "chat-bot", "DR_FAILOVER_BLOCKED")[0];
        let text = told["text"].as_str().context("text")?;
        ensure!(text.starts_with("[CRITICAL] DR_FAILOVER_BLOCKED") && text.contains(GROUP), "{text}");
        // A warning of the same group goes to the others: a failover's success.
        ctl(listen, &["resume", GROUP, "--reason", "so that it may fail over"]).await?;
        wait::until("the success to be told to the others", Duration::from_secs(60), async || {
            ensure!(!of(lab, "pagerduty", "DR_FAILOVER_SUCCESS").is_empty(), "not yet");
            Ok(())
        })
        .await?;
        ensure!(!of(lab, "chat-bot", "DR_FAILOVER_STARTED").is_empty(), "it is critical, and of the group");
        ensure!(of(lab, "chat-bot", "DR_FAILOVER_SUCCESS").is_empty(), "told to whom it is not for");
        ensure!(of(lab, "pagerduty", "DR_FAILOVER_BLOCKED").is_empty(), "told to whom it is not for");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_provider_is_told_through_the_others_and_shown() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        let node = lab.nodes.first().context("three nodes")?;
        let listen = node.listen;
        // Its key was withdrawn: it will never take a page again.
        lab.receivers.refuse_by("pagerduty", 403);
        let refused = ctl(listen, &["page", "test", "--receiver", "oncall"]).await.expect_err("refused").to_string();
        ensure!(refused.contains("exit status: 1"), "{refused}");
        wait::until("the webhook to be told of it", Duration::from_secs(30), async || {
            let told = of(lab, "webhook", "RECEIVER_FAILING");
            let one = told.first().context("not yet")?;
            ensure!(one["summary"].as_str().is_some_and(|text| text.contains("oncall")) && one["action"] == "trigger");
            Ok(())
        })
        .await?;
        let status = ctl(listen, &["status"]).await?.to_string();
        ensure!(status.contains("RECEIVER_FAILING") && status.contains("oncall"), "{status}");
        let metrics = reqwest::get(format!("http://{}/metrics", node.http)).await?.text().await?;
        ensure!(metrics.contains("watchdog_alarms_active{event=\"RECEIVER_FAILING\"} 1"), "{metrics}");
        let refusals =
            metrics.lines().find_map(|line| line.strip_prefix("watchdog_outbox_pages_refused{receiver=\"oncall\"} "));
        ensure!(refusals.is_some_and(|n| n != "0"), "{refusals:?}");
        let page = reqwest::get(format!("http://{}/?lang=en", node.page)).await?.text().await?;
        ensure!(page.contains("RECEIVER_FAILING") && page.contains("refused by oncall"), "{page}");

        // Mended: over with the first page that it takes.
        lab.receivers.refuse_with(None);
        ctl(listen, &["page", "test", "--receiver", "oncall"]).await?;
        wait::until("it to be over", Duration::from_secs(30), async || {
            let told = of(lab, "webhook", "RECEIVER_FAILING");
            ensure!(told.iter().any(|one| one["action"] == "resolve"), "{told:?}");
            Ok(())
        })
        .await
    })
    .await
}
