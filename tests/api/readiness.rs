//! Readiness, as people and programs are told of it: judged now, and as remembered.

use watchdog::clock::unix_now;
use watchdog::domain::command::Change;
use watchdog::domain::loss::Loss;
use watchdog::domain::readiness::mark::Judgement;
use watchdog::domain::readiness::{Holds, Item, Past, Readiness};

use crate::ctl::{ctl, golden, long_ago};
use crate::standin::{GROUP, Log, leader};

fn readiness(items: Vec<Item>, loss: Loss, recovery_ms: Option<u64>) -> Readiness {
    Readiness {
        from: "hcmc".into(),
        to: "hanoi".into(),
        items,
        loss,
        loss_limit_ms: 900_000,
        recovery_ms,
        recovery: recovery_ms
            .map(|_| "4.5 s until a majority has seen it down for the hold-down".to_owned())
            .into_iter()
            .collect(),
        past: recovery_ms.map(|_| Past { runs: 3, median_ms: 6200, worst_ms: 95_000 }),
        objective_ms: Some(3_600_000),
    }
}

fn item(name: &'static str, holds: Holds, reason: &str, detail: &str) -> Item {
    Item { name, holds, reason: reason.to_owned(), detail: detail.to_owned() }
}

/// All is well but for one weakness.
fn weak() -> Readiness {
    let proof = "the lease of db-hcmc is bound: 2.4 s after its last renewal its silence is proof";
    let items = vec![
        item("quorum", Holds::Yes, "", "2 of 3 voters answer outside hcmc, 2 are needed, none to spare"),
        item("fence", Holds::Yes, "", proof),
        item("dns", Holds::Weak, "the provider of dns cannot be reached", "dns: no answer"),
    ];
    readiness(items, Loss::AtMost { ms: 180, bytes: None }, Some(5000))
}

fn not_ready() -> Readiness {
    let mut items = weak().items;
    let gone = "start-services on db-hanoi could not be started: /usr/local/sbin/start: no such program";
    items.push(item("services", Holds::No, gone, &format!("services: {gone}")));
    items.push(item("guards", Holds::Unknown, "the guard of db-hanoi was not asked", "the guard was not asked"));
    readiness(items, Loss::Unknown { why: "nobody reports".to_owned() }, None)
}

/// As a leader found it two hours ago.
fn remember(log: &Log, found: &Readiness) {
    log.done_at(long_ago(), Change::Readiness { group: GROUP.into(), judgement: Judgement::of(found, 1) });
}

#[tokio::test]
async fn readiness_says_what_would_become_of_the_group() {
    let (_log, node, served) = leader().await;
    *node.readiness.lock().unwrap() = Some(weak());
    let said = ctl(&served.address, &["readiness", GROUP]);
    golden("readiness-weak.txt", &said.stdout);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let json = ctl(&served.address, &["readiness", GROUP, "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["ready"], &json["items"][2]["state"]), (&true.into(), &"weak".into()));
    golden("readiness-json-keys.txt", &json.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join("\n"));

    *node.readiness.lock().unwrap() = Some(not_ready());
    let said = ctl(&served.address, &["readiness", GROUP]);
    golden("readiness-no.txt", &said.stdout);
    assert_eq!(said.code, 1, "for a timer that asks every night");
    assert_eq!(ctl(&served.address, &["readiness", "nobody"]).code, 3);
}

#[tokio::test]
async fn what_waits_for_a_person_and_what_is_unknown_are_not_called_ready_by_themselves() {
    let (_log, node, served) = leader().await;
    *node.readiness.lock().unwrap() = Some(Readiness { recovery_ms: None, ..weak() });
    let said = ctl(&served.address, &["readiness", GROUP]);
    assert_eq!(said.code, 0);
    assert!(said.stdout.contains("hanoi would take over after a person's word"), "{}", said.stdout);
    let mut unknown = Readiness { recovery_ms: None, ..weak() };
    unknown.items[1] = item("guards", Holds::Unknown, "not asked", "not asked");
    *node.readiness.lock().unwrap() = Some(unknown);
    let said = ctl(&served.address, &["readiness", GROUP]);
    assert_eq!(said.code, 1);
    assert!(said.stdout.contains("whether anybody would take over is not known"), "{}", said.stdout);
}

#[tokio::test]
async fn all_groups_are_shown_as_they_were_last_judged() {
    let (log, _node, served) = leader().await;
    let said = ctl(&served.address, &["readiness"]);
    assert_eq!((said.code, said.stdout.trim_end()), (1, "aicamera  if hcmc vanished  not judged yet"));
    remember(&log, &weak());
    let said = ctl(&served.address, &["readiness"]);
    golden("readiness-all-weak.txt", &said.stdout);
    assert_eq!(said.code, 0);
    let status = ctl(&served.address, &["status"]).stdout;
    assert!(status.contains("  readiness  ready since 2 h 5 min ago, but weak: dns: the provider of dns"), "{status}");

    remember(&log, &not_ready());
    let said = ctl(&served.address, &["readiness"]);
    golden("readiness-all-no.txt", &said.stdout);
    assert_eq!(said.code, 1);
    let json = ctl(&served.address, &["readiness", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let group = &json["groups"][0];
    assert_eq!((&group["group"], &group["readiness"]["verdict"]), (&GROUP.into(), &"no".into()), "{json:#}");
    let status = ctl(&served.address, &["status"]).stdout;
    assert!(status.contains("  readiness  NOT READY since 2 h 5 min ago: services: start-services on"), "{status}");
}

#[tokio::test]
async fn where_nobody_can_judge_the_last_judgement_is_shown_and_said_to_be_that() {
    let (log, node, served) = leader().await;
    remember(&log, &not_ready());
    node.lose_quorum();
    let said = ctl(&served.address, &["--timeout", "700ms", "readiness", GROUP]);
    golden("readiness-remembered.txt", &said.stdout);
    assert_eq!(said.code, 4);
    assert!(said.stderr.contains("so nobody can judge now, and this is what was judged last"), "{}", said.stderr);
    let json = ctl(&served.address, &["--timeout", "700ms", "readiness", GROUP, "-o", "json"]);
    let found: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, &found["ready"]), (4, &false.into()));
    assert!(found["remembered"]["changed_at_ms"].as_i64().is_some_and(|at| at < unix_now().0 as i64), "{found:#}");
    let all = ctl(&served.address, &["readiness"]);
    assert_eq!(all.code, 4, "{}", all.stderr);
}

#[tokio::test]
async fn a_judgement_from_before_the_move_is_not_passed_off_as_new() {
    let (log, _node, served) = leader().await;
    remember(&log, &weak());
    // The fence's start takes serving away.
    log.fencing_at(unix_now());
    let said = ctl(&served.address, &["readiness"]);
    assert_eq!(said.code, 1);
    assert!(said.stdout.contains("not judged yet since the group moved"), "{}", said.stdout);
}
