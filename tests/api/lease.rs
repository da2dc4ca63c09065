//! Mode `lease`, as people and programs are told of it.

use std::sync::Arc;

use watchdog::api::backend::LeaseSight;
use watchdog::domain::command::Change;
use watchdog::domain::decide::specs;
use watchdog::domain::ids::{NodeId, Token};
use watchdog::domain::lease::{GateSeen, Given, HoldTold, LeaseAsked, LeaseBinding};
use watchdog::domain::policy::Fencing;

use crate::ctl::{ctl, golden, long_ago};
use crate::standin::{GROUP, Log, Served, StandInNode, failing_sight, policy, serve};

const AN_HOUR_MS: u64 = 3_600_000;

fn asked() -> LeaseAsked {
    LeaseAsked {
        host: "db-hcmc".into(),
        age_ms: 0,
        given: Given::Granted,
        why: String::new(),
        gate: GateSeen::Bounded { evidence: "bpf on /sys/fs/cgroup/db, port 5432, 9 processes behind it".to_owned() },
        open_for_ms: AN_HOUR_MS,
        holds: vec![HoldTold { host: "db-hanoi".into(), for_ms: AN_HOUR_MS, ground: Token { epoch: 1, n: 0 } }],
    }
}

/// A leader of a group in mode `lease`, bound where `bound`, that sees this of the lease.
async fn leased(bound: bool, sight: Option<LeaseSight>) -> (Arc<Log>, Arc<StandInNode>, Served) {
    let log = Log::new();
    let mut policy = policy();
    policy.groups.get_mut(&GROUP.into()).unwrap().fencing = Fencing::Lease { ttl_ms: 2000 };
    log.done(Change::AdoptConfig {
        cluster: policy.cluster.clone(),
        epoch: policy.epoch,
        digest: policy.digest.clone(),
        groups: specs(&policy),
        receivers: policy.receivers.clone(),
        on_call: policy.on_call.clone(),
    });
    if bound {
        let binding = LeaseBinding {
            region: "hcmc".into(),
            host: "db-hcmc".into(),
            ttl_ms: 2000,
            holders: vec!["db-hanoi".into()],
            since: long_ago(),
            attestation: "bpf".to_owned(),
        };
        log.done(Change::BindLease { group: GROUP.into(), binding });
    }
    let node = StandInNode::under(3, &log, policy);
    node.lead();
    let mut seen = failing_sight();
    let group = seen.groups.as_mut().unwrap().get_mut(&GROUP.into()).unwrap();
    group.lease = sight;
    (group.votes, group.replication) = (Vec::new(), Vec::new());
    seen.warnings.clear();
    *node.sight.lock().unwrap() = seen;
    let served = serve(&node).await;
    (log, node, served)
}

#[tokio::test]
async fn who_holds_what_until_when() {
    let sight = LeaseSight { unbound: String::new(), asked: Some(asked()), granter: NodeId(3), granted_ms: Some(0) };
    let (_log, _node, served) = leased(true, Some(sight)).await;
    golden("status-lease.txt", &ctl(&served.address, &["status"]).stdout);
    let said = ctl(&served.address, &["status", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let lease = json.pointer("/groups/0/lease_status").unwrap();
    let number = |pointer: &str| lease.pointer(pointer).and_then(serde_json::Value::as_i64).unwrap();
    assert_eq!(number("/asked/gate_until_ms") - number("/asked/at_ms"), 3_600_000);
    assert_eq!(number("/asked/holds/0/until_ms") - number("/asked/at_ms"), 3_600_000);
    assert_eq!(number("/grant/until_ms") - number("/grant/at_ms"), 2000);
    assert_eq!(lease["asked"]["holds"][0]["ground"], "1.0");
    assert_eq!(lease["asked"]["gate"], "bounded");
    assert_eq!(json.pointer("/groups/0/fencing_configured").unwrap(), "lease");
    let keys = |at: &str| lease.pointer(at).unwrap().as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let keys = ["", "/asked", "/asked/holds/0", "/grant"].map(keys);
    golden("status-lease-json-keys.txt", &keys.join("\n"));
}

#[tokio::test]
async fn a_lease_that_proves_nothing_says_why() {
    let gone = GateSeen::Absent { why: "the server does not run".to_owned() };
    let asked =
        LeaseAsked { gate: gone, given: Given::Denied, why: "unbound".to_owned(), holds: Vec::new(), ..asked() };
    let unbound = "the gate of db-hcmc is not in force: the server does not run".to_owned();
    let sight = LeaseSight { unbound, asked: Some(asked), granter: NodeId(3), granted_ms: None };
    let (_log, _node, served) = leased(false, Some(sight)).await;
    golden("status-lease-unbound.txt", &ctl(&served.address, &["status"]).stdout);
}

#[tokio::test]
async fn a_standby_that_fell_silent_and_a_shut_gate_are_shown() {
    let asked = LeaseAsked { open_for_ms: 0, holds: Vec::new(), ..asked() };
    let sight = LeaseSight { unbound: String::new(), asked: Some(asked), granter: NodeId(3), granted_ms: None };
    let (_log, _node, served) = leased(true, Some(sight)).await;
    let said = ctl(&served.address, &["status"]).stdout;
    for words in ["gate   shut: its clients wait", "grant  none by this leader yet", "hold   none by db-hanoi now"] {
        assert!(said.contains(words), "{said}");
    }
}

/// The file of the answering node asks for another mode than the one that was adopted.
#[tokio::test]
async fn a_mode_that_is_not_the_configured_one_is_said() {
    let (log, _node, _served) = leased(true, None).await;
    let other = StandInNode::new(3, &log);
    other.lead();
    let served = serve(&other).await;
    let said = ctl(&served.address, &["status"]).stdout;
    assert!(said.contains("fencing lease (this node's file says confirm: not in force)"), "{said}");
}
