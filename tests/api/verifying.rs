//! `watchdogctl audit verify`, over what nodes keep in memory and over files.

use std::fs;
use std::path::Path;

use watchdog::domain::audit::AuditHash;
use watchdog::domain::audit_line::{EntryLine, Line};
use watchdog::domain::command::Change;

use crate::ctl::ctl;
use crate::standin::{Log, StandInNode, leader, serve};

fn write(path: &Path, log: &Log) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let state = log.state();
    let mut words = AuditHash::NONE;
    let lines = state.audit_chain().map(|(prev, entry)| {
        let line = EntryLine::of(entry, prev, words);
        words = line.words;
        Line::Entry(line).to_text().unwrap()
    });
    fs::write(path, lines.collect::<String>()).unwrap();
}

fn enter(log: &Log, count: usize) {
    for n in 0..count {
        log.done(Change::Note { group: None, what: format!("note {n}"), outcome: "done".to_owned() });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_what_the_nodes_keep_is_verified_and_compared() {
    let (log, _node, served) = leader().await;
    enter(&log, 450);
    let said = ctl(&served.address, &["audit", "verify"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.starts_with("1 node: 451 entries, 1 to 451\nhead 451 "), "{}", said.stdout);
    assert!(said.stdout.ends_with("whole: every entry is as it was written, and where it was written\n"));
    // A node with another history.
    let strange = Log::new();
    enter(&strange, 300);
    let other = StandInNode::new(1, &strange);
    other.follow(3, &served.address);
    let other = serve(&other).await;
    let both = format!("{},{}", served.address, other.address);
    let said = ctl(&both, &["audit", "verify"]);
    assert_eq!(said.code, 1, "{}", said.stdout);
    assert!(said.stdout.contains("hcmc-1") && said.stdout.ends_with("not whole\n"), "{}", said.stdout);
    // One that does not answer is named, and nothing else is wrong.
    let gone = format!("{},127.0.0.1:1", served.address);
    let said = ctl(&gone, &["audit", "verify"]);
    assert_eq!(said.code, 0);
    assert!(said.stdout.contains("note: 127.0.0.1:1 did not answer"), "{}", said.stdout);
    assert_eq!(ctl("127.0.0.1:1", &["audit", "verify"]).code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_files_are_verified_without_a_node() {
    let (log, _node, _served) = leader().await;
    enter(&log, 9);
    let folder = tempfile::tempdir().unwrap();
    let (hcmc, hanoi) =
        (folder.path().join("hcmc/audit-2026-11.jsonl"), folder.path().join("hanoi/audit-2026-11.jsonl"));
    write(&hcmc, &log);
    write(&hanoi, &log);
    let root = folder.path().display().to_string();
    let path = |name: &str| format!("{root}/{name}");
    let verify = |names: &[&str]| {
        let paths: Vec<String> = names.iter().map(|name| path(name)).collect();
        let args: Vec<&str> = ["audit", "verify"].into_iter().chain(paths.iter().map(String::as_str)).collect();
        ctl("127.0.0.1:1", &args)
    };
    let said = verify(&["hcmc", "hanoi"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{}", said.stdout);
    assert!(said.stdout.starts_with("2 files: 10 entries, 1 to 10\n"), "{}", said.stdout);
    // One line out of one file.
    let lines = fs::read_to_string(&hcmc).unwrap();
    let less: String =
        lines.split_inclusive('\n').enumerate().filter(|(at, _)| *at != 4).map(|(_, line)| line).collect();
    fs::write(&hcmc, less).unwrap();
    for names in [&["hcmc"][..], &["hcmc", "hanoi"]] {
        let said = verify(names);
        assert_eq!(said.code, 1);
        let wanted = format!("missing  entry 5 is missing between {root}/hcmc/audit-2026-11.jsonl:4 and ");
        assert!(said.stdout.contains(&wanted), "{}", said.stdout);
    }
    // One word of one line.
    fs::write(&hcmc, lines.replacen("note 3", "note X", 1) + "{\"line\":").unwrap();
    let said = ctl("127.0.0.1:1", &["audit", "verify", &path("hcmc"), "-o", "json"]);
    assert_eq!(said.code, 1);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["faults"][0]["kind"], "changed");
    assert_eq!(json["faults"][0]["first_seq"], 5);
    assert_eq!(json["faults"][0]["places"][0], path("hcmc/audit-2026-11.jsonl:5"));
    assert!(json["notes"][0].as_str().unwrap().contains("audit-2026-11.jsonl:11 has no end"), "{json}");
    // Nothing there.
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(verify(&["empty"]).stderr.contains("there is no audit-YYYY-MM.jsonl in it"));
    assert!(verify(&["nowhere"]).stderr.contains("nowhere"));
}
