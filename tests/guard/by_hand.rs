//! What a person on the host types.

use std::fs;

use watchdog::guard::config::Config;
use watchdog::guard::protocol::{Reply, Request, Status};

use crate::host::{Host, act, flip, name, text, warrant};

#[test]
fn enrolling_asks_for_the_right_names() {
    let host = Host::not_enrolled("");
    let me = name();
    for (group, cluster, confirm, words) in [
        ("aicamera", "demo", "elsewhere", "is not this host's name"),
        ("payments", "demo", me.as_str(), "not in the guard's configuration"),
        ("aicamera", "other", me.as_str(), "is not the configuration's"),
    ] {
        let typed = ["enroll", "--group", group, "--cluster", cluster, "--epoch", "1", "--confirm", confirm];
        let out = host.run(&typed);
        assert_eq!(out.status.code(), Some(1));
        assert!(text(&out.stderr).contains(words), "{}", text(&out.stderr));
    }
    assert!(!host.state("token.json").exists());
}

#[test]
fn enrolling_again_never_forgets_a_higher_token() {
    let host = Host::new("");
    assert_eq!(host.ask(&act(&warrant("r1", "s", 7), "once")).1, 0);
    host.enroll(1);
    assert_eq!(host.status().groups[0].token.unwrap().to_string(), "1.7");
    host.enroll(2);
    assert_eq!(host.status().groups[0].token.unwrap().to_string(), "2.0");
    let me = name();
    let lower = ["enroll", "--group", "aicamera", "--cluster", "demo", "--epoch", "1", "--confirm", &me];
    assert!(text(&host.run(&lower).stderr).contains("below token 2.0"));
    let floor = ["--floor", "9"];
    let typed = ["enroll", "--group", "aicamera", "--cluster", "demo", "--epoch", "2", "--confirm", &me];
    assert!(host.run(&[&typed[..], &floor[..]].concat()).status.success());
    assert_eq!(host.status().groups[0].token.unwrap().to_string(), "2.9");
}

#[test]
fn a_lost_latch_must_be_chosen_by_a_person() {
    let host = Host::new("");
    assert_eq!(host.ask(&act(&warrant("r1", "s", 7), "once")).1, 0);
    flip(&host.state("latch.json"));
    let me = name();
    let typed = ["enroll", "--group", "aicamera", "--cluster", "demo", "--epoch", "1", "--confirm", &me];
    let out = host.run(&typed);
    assert!(text(&out.stderr).contains("--latch set (safe)"), "{}", text(&out.stderr));
    assert!(host.run(&[&typed[..], &["--latch", "set"][..]].concat()).status.success());
    assert!(host.status().groups[0].latch.is_some());
}

#[test]
fn status_is_words_for_people_and_data_for_programs() {
    let host = Host::new("");
    assert_eq!(host.ask(&act(&warrant("r1", "s", 7), "once")).1, 0);
    let words = text(&host.run(&["status"]).stdout);
    for wanted in ["group aicamera", "token      1.7", "latch      clear", "in flight  nothing", "done once r1/s"] {
        assert!(words.contains(wanted), "{wanted:?} is not in\n{words}");
    }
    let said = host.run(&["status", "--output", "json"]).stdout;
    let mut data: serde_json::Value = serde_json::from_slice(&said).unwrap();
    // On the host it tells more than it tells the cluster.
    for key in ["lease", "boot_gate", "boot_gate_reason"] {
        assert_eq!(data.as_object_mut().unwrap().remove(key), Some(serde_json::Value::Null), "{key}");
    }
    let data: Status = serde_json::from_value(data).unwrap();
    let Reply::Status(asked) = host.ask(&Request::status("demo".into(), 1)).0 else { panic!("status") };
    assert_eq!(data, asked);
    fs::remove_file(host.state("token.json")).unwrap();
    assert!(text(&host.run(&["status"]).stdout).contains("FAULT      not enrolled"));
}

#[test]
fn the_sample_is_sound() {
    let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/guard.toml");
    let config = Config::load(&sample).unwrap();
    assert!(config.postgres.is_some() && config.action.contains_key("start-services") && config.lease.is_none());
    // What it shows commented out is sound as well.
    let text = fs::read_to_string(&sample).unwrap();
    let (before, after) = text.split_once("# [lease]\n").unwrap();
    let (lease, rest) = after.split_once("\n\n").unwrap();
    let lease: String = lease.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("guard.toml"), format!("{before}[lease]\n{lease}\n{rest}")).unwrap();
    let config = Config::load(&dir.path().join("guard.toml")).unwrap();
    assert_eq!(config.lease.map(|lease| lease.renew_every_ms()), Some(400));
}
