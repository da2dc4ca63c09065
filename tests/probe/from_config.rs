//! From a configuration file to an observer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use watchdog::config::{Config, judge, render};
use watchdog::domain::ids::{NodeId, RegionName, UnixMs};
use watchdog::domain::observation::{FailureKind, Verdict};
use watchdog::probe::{Observer, Peer, PingProbe, Serving, SightKind};

use crate::parts::*;

fn config_with(target: &str) -> Config {
    let nodes: String = [(1, "hcmc"), (2, "hanoi"), (3, "witness")]
        .iter()
        .map(|(id, region)| {
            format!(
                "[[node]]\nid = {id}\nname = \"{region}-1\"\nregion = \"{region}\"\nlisten = \"127.0.0.1:710{id}\"\n\
                 data_dir = \"/tmp/none-{id}\"\n"
            )
        })
        .collect();
    let text = format!(
        "[cluster]\nname = \"test\"\nepoch = 1\n[tls]\nplaintext = \"loopback\"\n[probe_defaults]\ninterval_ms = 200\nfastinter_ms = 50\n\
         [[region]]\nname = \"hcmc\"\n[[region]]\nname = \"hanoi\"\n[[region]]\nname = \"witness\"\nwitness = true\n{nodes}\
         [[reference]]\nname = \"ref\"\nkind = \"tcp\"\naddress = \"127.0.0.1:1\"\n{target}"
    );
    let (config, report) = judge(text.as_bytes());
    config.unwrap_or_else(|| panic!("{}", render(&report, "test")))
}

const GROUP: &str = r#"
[[host]]
name = "db-hcmc"
region = "hcmc"
ssh = "127.0.0.1:2201"
user = "watchdog"
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3cjkPvMS6yS4lR0wmVQ0uGb3bUMMgTLkzVt8y0m1xX"
identity_file = "/tmp/none"
[[host]]
name = "db-hanoi"
region = "hanoi"
ssh = "127.0.0.1:2202"
user = "watchdog"
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3cjkPvMS6yS4lR0wmVQ0uGb3bUMMgTLkzVt8y0m1xX"
identity_file = "/tmp/none"
[[group]]
name = "shop"
home = "hcmc"
fencing = "confirm"
[[group.region]]
name = "hcmc"
trigger = { targets = ["web"], need = "all" }
database_host = "db-hcmc"
[[group.region]]
name = "hanoi"
trigger = { targets = ["other"], need = "all" }
database_host = "db-hanoi"
[[group.target]]
name = "other"
region = "hanoi"
kind = "tcp"
address = "127.0.0.1:1"
"#;

fn not_closely() -> watchdog::probe::observer::Closely {
    Arc::new(|_, _| false)
}

fn no_faults() -> watchdog::probe::simulated::Faults {
    Arc::new(|_| None)
}

#[tokio::test]
async fn a_name_is_expected_where_the_group_serves() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (_bind, _folder, server) = crate::dns::bind().await;
    let target = format!(
        "{GROUP}[[group.target]]\nname = \"web\"\nregion = \"hcmc\"\nkind = \"tcp\"\naddress = \"{server}\"\n\
         [[group.target]]\nname = \"public-name\"\nregion = \"hcmc\"\nkind = \"dns\"\nserver = \"{server}\"\n\
         record_name = \"api.demo.test.\"\nrecord_type = \"A\"\n\
         [[dns]]\nname = \"zone\"\nkind = \"rfc2136\"\nserver = \"{server}\"\nzone = \"demo.test.\"\n\
         key_name = \"watchdog.\"\nkey_file = \"/tmp/none\"\n\
         [[group.record]]\ndns = \"zone\"\nname = \"api.demo.test.\"\ntype = \"A\"\nttl_s = 30\n\
         values = {{ hcmc = \"127.0.0.11\", hanoi = \"127.0.0.12\" }}\n"
    );
    let config = config_with(&target);
    let region = Arc::new(Mutex::new(Some(RegionName::from("hcmc"))));
    let serving: Serving = {
        let region = region.clone();
        Arc::new(move |_| region.lock().unwrap().clone())
    };
    let peer = |node, good: bool| Peer {
        node: NodeId(node),
        window: Default::default(),
        probe: Arc::new(PingProbe(move || async move { if good { Ok(()) } else { Err("cut".to_owned()) } })),
    };
    let node = config.node("hcmc-1").unwrap();
    let observer = Observer::of_config(
        &config,
        node,
        UnixMs(1),
        (&serving, &no_faults(), not_closely()),
        vec![peer(2, true), peer(3, false)],
    )
    .unwrap();
    let name = |observer: &Observer| {
        let found = observer.sights().into_iter().find(|sight| match &sight.kind {
            SightKind::Target { name, .. } => name.as_str() == "public-name",
            _ => false,
        });
        found.unwrap().standing
    };
    wait_until("the name is up", || async { (name(&observer).verdict == Verdict::Up).then_some(()) }).await;
    *region.lock().unwrap() = Some("hanoi".into());
    let wrong = wait_until("the name is wrong", || async { name(&observer).failure }).await;
    assert_eq!(wrong.kind, FailureKind::WrongAnswer);
    assert!(wrong.detail.contains("expected 127.0.0.12"), "{}", wrong.detail);
    *region.lock().unwrap() = None;
    wait_until("no region serves: any value will do", || async {
        (name(&observer).verdict == Verdict::Up).then_some(())
    })
    .await;
    let report = tokio::time::timeout(Duration::from_secs(60), async {
        let mut reports = observer.reports();
        let two_up =
            reports.wait_for(|r| r.observations.iter().filter(|o| o.verdict == Verdict::Up).count() == 2).await;
        two_up.unwrap().clone()
    });
    let report = report.await.unwrap();
    assert_eq!((report.node, &report.digest, report.isolated), (NodeId(1), &config.digest, false));
}

#[tokio::test]
async fn a_target_that_cannot_be_looked_at_is_named() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let target = format!(
        "{GROUP}[[group.target]]\nname = \"web\"\nregion = \"hcmc\"\nkind = \"postgres\"\nexpect_role = \"primary\"\n\
         conninfo = \"host=127.0.0.1 user=watchdog\"\npassword_file = \"/nonexistent/password\"\n"
    );
    let config = config_with(&target);
    let serving: Serving = Arc::new(|_| None);
    let started = Observer::of_config(
        &config,
        config.node("hanoi-1").unwrap(),
        UnixMs(1),
        (&serving, &no_faults(), not_closely()),
        vec![],
    );
    let error = started.err().expect("a file is missing").to_string();
    assert!(error.starts_with("target web: password_file /nonexistent/password"), "{error}");
}
