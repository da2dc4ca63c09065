//! Escalation on real parts: nobody acknowledges, the leader dies between two steps, and the next step comes all the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::nodes::ctl;
use crate::lab::parts::{Lab, Options};
use crate::lab::receiver::Received;
use crate::lab::{GROUP, wait};
use crate::scene::{fast, nothing_happened, play};

/// linh at once by the webhook, bao 12 s later by PagerDuty: time enough to kill a leader and elect another.
const ON_CALL: &str = r#"[[contact]]
name = "linh"
role = "dr-coordinator"
receivers = ["chat"]
[[contact]]
name = "bao"
role = "database-administrator"
receivers = ["oncall"]
[[escalation]]
name = "short"
severities = ["critical"]
steps = [{ after_s = 0, contacts = ["linh"] }, { after_s = 12, contacts = ["bao"] }]

"#;

fn laddered() -> Options {
    let receiver = "[[receiver]]\nname = \"chat\"".to_owned();
    let with = format!("{ON_CALL}{receiver}");
    Options { changes: vec![(receiver, with)], ..fast() }
}

/// What the receiver was told of the blocked failover, in order: the action and the summary.
fn told(lab: &Lab, by: &str) -> Vec<(String, String)> {
    let of = |page: &Received| {
        let text = |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let (key, action) = (page.body.get("key"), page.body.get("action"));
        let key = text(key.or_else(|| page.body.get("dedup_key")));
        let action = text(action.or_else(|| page.body.get("event_action")));
        let summary = page.body.get("summary").or_else(|| page.body.get("payload")?.get("summary"));
        key.ends_with("/blocked").then(|| (action, text(summary)))
    };
    lab.receivers.received().iter().filter(|page| page.by == by).filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_the_next_step_is_told_once_though_the_leader_died() -> Result<()> {
    play(laddered(), async |lab: &mut Lab| {
        let leader = lab.leader().await?;
        let other = lab.nodes.iter().find(|node| node.name != leader).context("three nodes")?.listen;
        ctl(other, &["pause", GROUP, "--reason", "so that a failover is blocked"]).await?;
        lab.kill_home()?;
        // And known to be: a page whose taking was not written down yet is sent again by the next leader.
        wait::until("the first step to be told", Duration::from_secs(20), async || {
            let open = ctl(other, &["page", "list"]).await?;
            let first = &open["incidents"][0]["tellings"][0]["deliveries"][0];
            ensure!(first["state"] == "delivered" && first["receiver"] == "chat", "{open}");
            Ok(())
        })
        .await?;
        ensure!(told(lab, "webhook").len() == 1, "{:?}", told(lab, "webhook"));
        ensure!(told(lab, "pagerduty").is_empty(), "the second step came with the first");
        lab.node_mut(&leader)?.kill()?;
        wait::until("the second step to be told by another leader", Duration::from_secs(40), async || {
            ensure!(!told(lab, "pagerduty").is_empty(), "nothing yet");
            Ok(())
        })
        .await?;
        let second = told(lab, "pagerduty");
        ensure!(second.len() == 1 && second[0].1.contains("step 2 of 2"), "{second:?}");
        ensure!(told(lab, "webhook").len() == 1, "the first step was told again: {:?}", told(lab, "webhook"));

        let open = ctl(other, &["page", "list"]).await?;
        let incidents = open["incidents"].as_array().context("incidents")?;
        let one = incidents.iter().find(|one| one["event"] == "DR_FAILOVER_BLOCKED").context("it is open")?;
        ensure!(one["tellings"].as_array().map(Vec::len) == Some(2), "{one}");
        ensure!(one["level"]["number"] == 1 && one["ladder"] == "short", "{one}");
        let number = one["number"].to_string();
        ctl(other, &["page", "ack", &number, "--reason", "on my way"]).await?;
        wait::until("both to hear who has it", Duration::from_secs(20), async || {
            for by in ["webhook", "pagerduty"] {
                let last = told(lab, by).pop().unwrap_or_default();
                ensure!(last.0 == "acknowledge" && last.1.contains("on my way"), "{by}: {last:?}");
            }
            Ok(())
        })
        .await?;
        for by in ["webhook", "pagerduty"] {
            ensure!(told(lab, by).len() == 2, "{by}: {:?}", told(lab, by));
        }
        nothing_happened(lab)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_page_goes_through_the_outbox_to_one_contact() -> Result<()> {
    play(laddered(), async |lab: &mut Lab| {
        let listen = lab.nodes.first().context("three nodes")?.listen;
        let sent = ctl(listen, &["page", "test", "--contact", "bao", "--reason", "monthly"]).await?;
        ensure!(sent["incident"]["tellings"][0]["deliveries"][0]["state"] == "delivered", "{sent}");
        let tests: Vec<Received> =
            lab.receivers.received().into_iter().filter(|page| page.says("WATCHDOG_TEST")).collect();
        ensure!(tests.len() == 1 && tests[0].by == "pagerduty", "{tests:?}");
        // What a receiver refuses is said, with its own words.
        lab.receivers.refuse_with(Some(400));
        let refused = ctl(listen, &["page", "test", "--receiver", "chat"]).await.expect_err("refused").to_string();
        ensure!(refused.contains("exit status: 1"), "{refused}");
        Ok(())
    })
    .await
}
