//! Traffic moved by an operator: the load balancer's record goes, the database stays; and back again.

use std::time::Duration;

use anyhow::{Result, ensure};
use watchdog::proto::{RunKind, RunPhase};

use crate::lab::dns::dig;
use crate::lab::parts::{Lab, Options};
use crate::lab::postgres::DATABASE;
use crate::lab::watch::group;
use crate::lab::{DR, GROUP, HOME, PUBLIC_NAME, ZONE, address_of};
use crate::scene::{fast, nothing_happened, play};

/// A second name in the zone, that only traffic runs repoint; and the services are asked under it.
fn with_traffic_record() -> Options {
    let name = format!("www.{ZONE}");
    let record = format!(
        "[[group.traffic_record]]\ndns = \"zone\"\nname = \"{name}\"\ntype = \"A\"\nttl_s = 5\n\
         values = {{ {HOME} = \"{}\", {DR} = \"{}\" }}\n\n[[group.step]]\nid = \"verify\"",
        address_of(HOME),
        address_of(DR)
    );
    let under = |name: &str| format!("url = \"http://{}:", name.trim_end_matches('.'));
    let changes = vec![("[[group.step]]\nid = \"verify\"".to_owned(), record), (under(PUBLIC_NAME), under(&name))];
    Options { changes, ..fast() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_traffic_goes_and_comes_back_and_the_database_stays() -> Result<()> {
    play(with_traffic_record(), async |lab: &mut Lab| {
        let name = format!("www.{ZONE}");
        // Behind the load balancer in the DR region, the service writes to the database at home for as long as that serves.
        let script = &lab.services[DR].start_script;
        let (home, dr) = (lab.primary.conninfo("app", DATABASE), lab.standby.conninfo("app", DATABASE));
        std::fs::write(script, std::fs::read_to_string(script)?.replace(&dr, &home))?;
        lab.services[DR].start().await?;
        let node = lab.node("witness-1")?;
        let words = ["traffic", GROUP, "--to", DR, "--reason", "their load balancer is replaced"];
        let plan = node.ctl(&["traffic", GROUP, "--to", DR, "--dry-run"]).await?;
        ensure!(plan["would_open"] == true && plan["run_id"] == "", "{plan:#}");
        ensure!(lab.runs().await?.is_empty(), "a dry run opened one");

        let seen = plan["token"].as_str().unwrap_or_default().to_owned();
        lab.node("witness-1")?.ctl(&[&words[..], &["--yes", GROUP, "--detach"]].concat()).await?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        let summary = run.summary.clone().unwrap_or_default();
        ensure!(summary.kind() == RunKind::Traffic && !summary.automatic && summary.token != seen, "{summary:?}");
        let there = dig(lab.dns.server(), &name, "A")?;
        ensure!(there.ends_with(&address_of(DR).to_string()), "{there}");
        ensure!(lab.dig()?.ends_with(&address_of(HOME).to_string()), "the service's own name moved: {}", lab.dig()?);
        let status = lab.status().await?;
        let serving = group(&status)?.serving.clone().unwrap_or_default();
        ensure!(group(&status)?.traffic_region == DR && serving.region == HOME, "{:?}", group(&status)?);
        ensure!(lab.standby.in_recovery().await?, "the standby was promoted");
        nothing_happened(lab)?;

        // Where it is already it cannot go.
        let again = lab.node("witness-1")?.ctl(&[&words[..], &["--yes", GROUP, "--detach"]].concat()).await;
        let told = again.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(told.contains("--to: the traffic of") && told.contains("goes to hanoi already"), "{told}");

        let back = ["traffic", GROUP, "--to", HOME, "--reason", "it is replaced", "--yes", GROUP, "--detach"];
        lab.node("witness-1")?.ctl(&back).await?;
        crate::lab::wait::until("traffic at home", Duration::from_secs(60), async || {
            let status = lab.status().await?;
            ensure!(group(&status)?.traffic_region == HOME && group(&status)?.open_run.is_none(), "not yet");
            Ok(())
        })
        .await?;
        let here = dig(lab.dns.server(), &name, "A")?;
        ensure!(here.ends_with(&address_of(HOME).to_string()), "{here}");
        Ok(())
    })
    .await
}
