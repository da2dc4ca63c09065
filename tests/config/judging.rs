//! Layouts, warnings, what groups must not share, named files, the digest, and input of any kind.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use watchdog::config::{Config, ConfigError, Report, TargetKind, check_file, judge, render};
use watchdog::domain::policy::{Fencing, LagAction};

use crate::faults::{BASE, TLS_FILES};

fn sound(text: &str) -> (Config, Report) {
    let (config, report) = judge(text.as_bytes());
    (config.unwrap_or_else(|| panic!("{}", render(&report, "test"))), report)
}

fn changed(changes: &[(&str, &str)]) -> String {
    let mut text = BASE.to_owned();
    for (old, new) in changes {
        assert!(text.contains(old), "the base has no {old:?}");
        text = text.replacen(old, new, 1);
    }
    text
}

fn assert_error(text: &str, path: &str, phrase: &str) {
    let (config, report) = judge(text.as_bytes());
    let found = report.errors.iter().any(|fault| fault.path == path && fault.to_string().contains(phrase));
    assert!(config.is_none() && found, "wanted {path}: …{phrase}…\n{}", render(&report, "test"));
}

fn assert_warning(text: &str, path: &str, phrase: &str) {
    let (config, report) = sound(text);
    let found = report.warnings.iter().any(|fault| fault.path == path && fault.to_string().contains(phrase));
    assert!(found, "wanted {path}: …{phrase}…\n{}", render(&report, "test"));
    assert_eq!(config.warnings, report.warnings);
}

#[test]
fn a_chats_body_is_judged_before_a_page_is_due() {
    let url = "url = \"http://127.0.0.1:9000/pages\"";
    let with = |lines: &str| changed(&[(url, &format!("{url}\n{lines}"))]);
    for (lines, path, phrase) in [
        ("template = \"telegram\"", "receiver[chat].chat_id", "chat_id is missing"),
        ("template = \"telegram\"\nchat_id = \"x y\"", "receiver[chat].chat_id", "is not a chat"),
        ("template = \"signal\"", "receiver[chat].template", "is not JSON"),
        ("template = '{\"text\": \"{{sumary}}\"}'", "receiver[chat].template", "there is no {{sumary}}"),
        ("chat_id = \"-1001\"", "receiver[chat].chat_id", "means nothing without"),
        ("url_file = \"/etc/bot.url\"", "receiver[chat].url_file", "stands beside url"),
    ] {
        assert_error(&with(lines), path, phrase);
    }
    for lines in
        ["template = \"slack\"", "template = \"telegram\"\nchat_id = \"-100123\"", "template = '{\"t\": \"{{text}}\"}'"]
    {
        sound(&with(lines));
    }
}

#[test]
fn a_status_page_is_bound_to_loopback_or_behind_certificates() {
    let outside = ("data_dir = \"/var/lib/n1\"", "data_dir = \"/var/lib/n1\"\npage = \"10.1.0.5:7301\"");
    sound(&changed(&[outside]));
    let plain = changed(&[outside]).replacen(TLS_FILES, "plaintext = \"loopback\"\n", 1);
    assert_error(&plain, "node[n1].page", "in plain text to everybody");
    sound(&plain.replace("10.1.0.5:7301", "127.0.0.1:7301"));
    assert_error(
        &changed(&[outside]).replace("10.1.0.5:7301", "10.1.0.5:7101"),
        "node[n1].page",
        "page and listen both",
    );
}

#[test]
fn a_backup_never_triggers_anything() {
    let backup = "[[group.target]]\nname = \"dump\"\nregion = \"hanoi\"\nkind = \"backup\"\n\
                  url = \"https://backup.example.vn/info.json\"\nstanza = \"main\"\n[[group.target]]\nname = \"hanoi-rep\"";
    let with = ("[[group.target]]\nname = \"hanoi-rep\"", backup);
    let (config, _) = sound(&changed(&[with]));
    let target = config.targets().find(|target| target.name.as_str() == "dump").expect("it is probed");
    assert_eq!((target.kind.word(), target.schedule.interval.as_secs()), ("backup", 60));
    let text = changed(&[with, ("targets = [\"hanoi-db\"]", "targets = [\"dump\"]")]);
    assert_error(&text, "group[g].region[hanoi].trigger.targets", "a late backup is no evidence");
    let text =
        changed(&[with, ("replication = \"hanoi-rep\"", "load_balancer = \"dump\"\nreplication = \"hanoi-rep\"")]);
    assert_error(&text, "group[g].region[hanoi].load_balancer", "is of kind backup");
}

/// A second group that stands on its own beside the base's.
const OTHER: &str = r#"
[[host]]
name = "db2-hcmc"
region = "hcmc"
ssh = "10.1.0.31:22"
user = "watchdog"
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHtpVfFN8j+vcz/AJkRuA2nPMVe6pXG4cUT0uqamVTHL"
identity_file = "/etc/id"
[[host]]
name = "db2-hanoi"
region = "hanoi"
ssh = "10.2.0.31:22"
user = "watchdog"
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP3TkXPwUlkjkXogWz40z9z2gbE8xJYbzKwazZv8KRpD"
identity_file = "/etc/id"
[[group]]
name = "h"
home = "hanoi"
[[group.region]]
name = "hcmc"
trigger = { targets = ["h-db-hcmc"] }
database_host = "db2-hcmc"
[[group.region]]
name = "hanoi"
trigger = { targets = ["h-db-hanoi"] }
database_host = "db2-hanoi"
[[group.target]]
name = "h-db-hcmc"
region = "hcmc"
kind = "postgres"
conninfo = "host=10.1.0.31 user=w"
[[group.target]]
name = "h-db-hanoi"
region = "hanoi"
kind = "postgres"
conninfo = "host=10.2.0.31 user=w"
[[group.record]]
dns = "zone"
name = "other.demo.test."
type = "A"
values = { hcmc = "192.0.2.3", hanoi = "192.0.2.4" }
"#;

#[test]
fn groups_share_neither_databases_nor_hosts_nor_records_nor_tokens() {
    let both = format!("{BASE}{OTHER}");
    sound(&both);
    let cases = [
        ("host=10.1.0.31 user=w", "host=10.1.0.21 user=x", "group[h].target[h-db-hcmc].conninfo", "belongs to group g"),
        (
            "database_host = \"db2-hcmc\"",
            "database_host = \"db-hcmc\"",
            "group[h].region[hcmc].database_host",
            "to group g",
        ),
        ("other.demo.test.", "API.demo.test.", "group[h].record[API.demo.test.].name", "already belongs to group g"),
        (
            "home = \"hanoi\"",
            "home = \"hanoi\"\ntoken_record = \"_watchdog-g.demo.test.\"",
            "group[h].token_record",
            "already belongs to group g",
        ),
        ("name = \"h\"", "name = \"g\"", "group[g].name", "twice as group"),
    ];
    for (old, new, path, phrase) in cases {
        assert!(OTHER.contains(old), "{old}");
        assert_error(&format!("{BASE}{}", OTHER.replacen(old, new, 1)), path, phrase);
    }
    // Another port is another instance.
    sound(&format!("{BASE}{}", OTHER.replacen("host=10.1.0.31", "host=10.1.0.21 port=5433", 1)));
}

#[test]
fn the_layout_is_judged_by_what_remains() {
    let all_but_one_at = |region: &str| {
        changed(&[
            ("name = \"n2\"\nregion = \"hanoi\"", &format!("name = \"n2\"\nregion = \"{region}\"")),
            ("name = \"n3\"\nregion = \"danang\"", &format!("name = \"n3\"\nregion = \"{region}\"")),
        ])
    };
    // All voters in the serving region: 0 of 3 remain.
    assert_error(&all_but_one_at("hcmc"), "cluster", "0 of 3 voters remain, and 2 are needed");
    // 1 HCMC + 2 Hanoi: Hanoi's loss is the one to accept.
    let two_regions = all_but_one_at("hanoi");
    assert_error(&two_regions, "cluster", "no automatic failover from hanoi");
    let accept = "name = \"test\"\naccept_no_automatic_failover_from = [\"hanoi\"]";
    let accepted = two_regions.replace("name = \"test\"", accept);
    assert_warning(
        &accepted,
        "cluster.accept_no_automatic_failover_from",
        "no automatic failover from hanoi (accepted)",
    );
    assert_eq!(sound(&accepted).0.no_automatic_failover_from.len(), 1);
    // Accepting what is not so is said too, and an unknown region is an error.
    assert_warning(
        &BASE.replace("name = \"test\"", accept),
        "cluster.accept_no_automatic_failover_from",
        "take it out",
    );
    let unknown = BASE.replace("name = \"test\"", &accept.replace("hanoi", "hue"));
    assert_error(&unknown, "cluster.accept_no_automatic_failover_from", "no region is called \"hue\"");
    // Accepting the wrong region accepts nothing.
    let wrong = two_regions.replace("name = \"test\"", &accept.replace("hanoi", "hcmc"));
    assert_error(&wrong, "cluster", "no automatic failover from hanoi");
}

#[test]
fn an_even_number_of_voters_splits_in_halves() {
    let fourth = "[[node]]\nid = 4\nname = \"n4\"\nregion = \"hcmc\"\nlisten = \"127.0.0.1:7104\"\ndata_dir = \"/n4\"\n\n[[reference]]";
    let four = BASE.replacen("[[reference]]", fourth, 1);
    // Two of four outside HCMC are no majority.
    assert_error(&four, "cluster", "when hcmc is lost, 2 of 4 voters remain, and 3 are needed");
    assert_warning(
        &four.replace("name = \"n4\"\nregion = \"hcmc\"", "name = \"n4\"\nregion = \"danang\""),
        "node",
        "even number",
    );
}

#[test]
fn fewer_than_three_nodes_are_refused() {
    let third = BASE.find("[[node]]\nid = 3").unwrap()..BASE.find("[[reference]]").unwrap();
    let mut two = BASE.to_owned();
    two.replace_range(third, "");
    assert_error(&two, "node", "2 [[node]]: fewer than three");
    assert_error("[cluster]\nname = \"x\"\n", "node", "0 [[node]]");
}

#[test]
fn a_witness_cannot_serve_and_one_region_is_no_group() {
    let witness = changed(&[
        ("[[group.region]]\nname = \"hanoi\"", "[[group.region]]\nname = \"danang\""),
        ("hanoi = \"192.0.2.2\"", "danang = \"192.0.2.2\""),
    ]);
    assert_error(&witness, "group[g].region[danang].name", "danang is a witness: it cannot serve");
    let lone = BASE.find("[[group.region]]\nname = \"hanoi\"").unwrap()..BASE.find("[[group.target]]").unwrap();
    let mut one = BASE.to_owned();
    one.replace_range(lone, "");
    assert_error(&one, "group[g]", "nowhere to fail over to");
}

#[test]
fn doubtful_settings_are_warned_of() {
    let cases = [
        ("hold_down_ms = 3000", "hold_down_ms = 100", "group[g].region[hcmc].trigger.targets", "it adds nothing"),
        ("hold_down_ms = 3000", "rpo_limit_s = 60", "group[g].lag_limit_s", "before anybody hears of lag"),
        ("hold_down_ms = 3000", "cooldown_s = 5", "group[g].cooldown_s", "to and fro"),
        ("hold_down_ms = 3000", "lag_action = \"failover\"", "group[g].lag_action", "loses what it lags by"),
        ("heartbeat_ms = 250", "heartbeat_ms = 100", "timing.heartbeat_ms", "between regions"),
        ("heartbeat_ms = 250", "election_min_ms = 600", "timing.election_min_ms", "less than 4 heartbeats"),
        ("heartbeat_ms = 250", "install_snapshot_timeout_ms = 200", "timing.install_snapshot_timeout_ms", "too short"),
        ("interval_ms = 500", "fall = 1", "probe_defaults.fall", "a single lost probe"),
        ("replication = \"hanoi-rep\"", "", "group[g].region[hanoi]", "the loss stays unknown"),
        (
            "trigger = { targets = [\"hanoi-db\"] }",
            "",
            "group[g].region[hanoi]",
            "only an operator moves the group away",
        ),
        (
            "type = \"A\"\nvalues",
            "type = \"A\"\nttl_s = 7200\nvalues",
            "group[g].record[api.demo.test.].ttl_s",
            "for so long",
        ),
        ("192.0.2.2", "192.0.2.1", "group[g].record[api.demo.test.].values", "changes nothing"),
        (
            "[[region]]\nname = \"hanoi\"",
            "[[region]]\nname = \"hue\"\n[[region]]\nname = \"hanoi\"",
            "region[hue].name",
            "nothing stands",
        ),
        (
            "services = [{ host = \"db-hanoi\"",
            "services = [{ host = \"db-hcmc\"",
            "group[g].region[hanoi].services",
            "alive when the other",
        ),
    ];
    for (old, new, path, phrase) in cases {
        assert_warning(&changed(&[(old, new)]), path, phrase);
    }
}

#[test]
fn fencing_none_needs_a_name_and_drops_the_fence() {
    let text =
        changed(&[("fencing = \"confirm\"", "fencing = \"none\"\nfencing_none_asserted_by = \"Linh, 2026-11-01\"")]);
    assert_warning(&text, "group[g].fencing", "on the word of Linh, 2026-11-01");
    let policy = sound(&text).0.policy();
    let group = policy.groups.values().next().unwrap();
    assert_eq!(group.fencing, Fencing::None { asserted_by: "Linh, 2026-11-01".to_owned() });
    let steps: Vec<&str> = group.failover_plans[0].steps().map(|(_, step)| step.id.as_str()).collect();
    assert_eq!(steps, ["dns", "promote", "services", "verify"]);
}

#[test]
fn fencing_lease_needs_a_quorum_elsewhere_a_canary_and_patience() {
    let lease = ("fencing = \"confirm\"", "fencing = \"lease\"\nlease_ttl_ms = 1500");
    let hcmc = ("conninfo = \"host=10.1.0.21 user=w\"", "conninfo = \"host=10.1.0.21 user=w\"\ncanary = true");
    let hanoi = ("conninfo = \"host=10.2.0.21 user=w\"", "conninfo = \"host=10.2.0.21 user=w\"\ncanary = true");
    let text = changed(&[lease, hcmc, hanoi]);
    let policy = sound(&text).0.policy();
    assert_eq!(policy.groups.values().next().unwrap().fencing, Fencing::Lease { ttl_ms: 1500 });
    assert_error(
        &changed(&[lease, hcmc]),
        "group[g].region[hanoi].trigger.targets",
        "needs a postgres target with canary",
    );
    let hasty = text.replacen("hold_down_ms = 3000", "hold_down_ms = 3000\nfence_patience_s = 1", 1);
    assert_error(&hasty, "group[g].fence_patience_s", "before silence is proved (1800 ms)");
    let host = text.replacen("database_host = \"db-hanoi\"", "", 1);
    assert_error(&host, "group[g].region[hanoi].database_host", "kept by the guard");
    let odd = changed(&[("hold_down_ms = 3000", "hold_down_ms = 3000\nlease_ttl_ms = 1500")]);
    assert_error(&odd, "group[g].lease_ttl_ms", "means nothing without");
    let brief = changed(&[("fencing = \"confirm\"", "fencing = \"lease\"\nlease_ttl_ms = 10")]);
    assert_error(&brief, "group[g].lease_ttl_ms", "500");
    let slow = text.replacen("canary = true", "canary = true\ninterval_ms = 4000\nfastinter_ms = 400", 1);
    assert_warning(&slow, "group[g].region[hcmc].trigger.targets", "more than twice lease_ttl_ms 1500");
    let long = text.replacen("lease_ttl_ms = 1500", "lease_ttl_ms = 6000", 1);
    assert_warning(&long, "group[g].lease_ttl_ms", "passed over only 7200 ms after its last renewal");
    let two_places = text.replacen("name = \"n3\"\nregion = \"danang\"", "name = \"n3\"\nregion = \"hcmc\"", 1);
    let accepted = two_places.replacen("[cluster]", "[cluster]\naccept_no_automatic_failover_from = [\"hcmc\"]", 1);
    assert_error(&accepted, "group[g].fencing", "no quorum remains");
}

#[test]
fn a_guards_file_is_recognised_and_told_where_to_go() {
    let text = include_str!("../../cluster-config/guard.toml");
    let (config, report) = judge(text.as_bytes());
    assert!(config.is_none());
    let told: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("a guard's file") && told[0].contains("watchdog-guard --config FILE check"), "{told:#?}");
    assert_eq!(report.errors[0].line, text.lines().position(|line| line.starts_with("state_dir")).map(|n| n + 1));
    // A cluster's file with a stray key is not taken for one.
    let stray = format!("state_dir = \"/x\"\n{BASE}");
    assert_error(&stray, "state_dir", "no such table");
}

#[test]
fn a_group_without_a_database_moves_its_names_only() {
    let text = changed(&[
        ("database_host = \"db-hcmc\"\n", ""),
        ("database_host = \"db-hanoi\"\n", ""),
        ("replication = \"hcmc-rep\"\n", ""),
        ("replication = \"hanoi-rep\"\n", ""),
    ]);
    let policy = sound(&text).0.policy();
    let group = policy.groups.values().next().unwrap();
    let steps: Vec<&str> = group.failover_plans[0].steps().map(|(_, step)| step.id.as_str()).collect();
    assert_eq!(steps, ["dns", "services", "verify"]);
    let gate = text.replace("hold_down_ms = 3000", "lag_action = \"gate\"\nhold_down_ms = 3000");
    assert_error(&gate, "group[g].lag_action", "no region of the group measures replication");
}

#[test]
fn values_arrive_where_they_are_used() {
    let text = changed(&[
        ("url = \"http://10.1.0.40/health\"", "url = \"http://10.1.0.40/health\"\nfall = 5\ntimeout_ms = 700"),
        ("interval_ms = 500", "interval_ms = 400\nrise = 4"),
        (
            "hold_down_ms = 3000",
            "hold_down_ms = 4000\nlag_action = \"gate\"\nfence_patience_s = 20\nrto_objective_s = 60",
        ),
        ("deadline_s = 5", "deadline_ms = 1500\nmax_attempts = 7\nbackoff_ms = 20000"),
    ]);
    let (config, _) = sound(&text);
    let api = config.targets().find(|target| target.name.as_str() == "hcmc-api").unwrap();
    let schedule = &api.schedule;
    assert_eq!((schedule.fall, schedule.rise, schedule.interval.as_millis()), (5, 4, 400));
    assert_eq!((schedule.timeout.as_millis(), schedule.fastinter.as_millis()), (700, 100));
    let name = config.targets().find(|target| target.name.as_str() == "public").unwrap();
    let TargetKind::Dns { expected, .. } = &name.kind else { panic!("{name:?}") };
    assert_eq!(expected.values().collect::<Vec<_>>(), ["192.0.2.2", "192.0.2.1"]);
    let policy = config.policy();
    let group = policy.groups.values().next().unwrap();
    assert_eq!((group.hold_down_ms, group.lag_action, group.fence_patience_ms), (4000, LagAction::Gate, 20_000));
    assert_eq!((group.rto_objective_ms, group.observation_ttl_ms), (Some(60_000), 5000));
    let verify = group.failover_plans[0].step(&"verify".into()).unwrap();
    assert_eq!((verify.deadline_ms, verify.retry.max_attempts), (1500, 7));
    assert_eq!((verify.retry.backoff_ms, verify.retry.backoff_max_ms), (20_000, 20_000));
    assert_eq!(config.hosts.values().last().unwrap().guard.host_key.split(' ').count(), 2, "the comment is left out");
}

#[test]
fn the_digest_is_about_the_meaning() {
    let digest = |text: &str| sound(text).0.digest;
    let base = digest(BASE);
    assert_eq!(base, digest(BASE));
    let comments: String = BASE.lines().map(|line| format!("  {line}   # a comment\n\n")).collect();
    assert_eq!(base, digest(&comments));
    let reordered = changed(&[
        (
            "home = \"hcmc\"\nfencing = \"confirm\"\nhold_down_ms = 3000",
            "hold_down_ms = 3_000\nfencing = 'confirm'\nhome = \"hcmc\"",
        ),
        ("{ hcmc = \"192.0.2.1\", hanoi = \"192.0.2.2\" }", "{ hanoi = \"192.0.2.2\", hcmc = \"192.0.2.1\" }"),
        ("heartbeat_ms = 250", ""),
    ]);
    assert_eq!(base, digest(&reordered), "key order, spelling and written-out defaults mean nothing");
    let nodes = BASE.find("[[node]]").unwrap()..BASE.find("[[reference]]").unwrap();
    let mut moved = BASE.to_owned();
    let block = moved.drain(nodes).collect::<String>();
    let (first, rest) = block.split_at(block.find("[[node]]\nid = 2").unwrap());
    assert_eq!(base, digest(&moved.replacen("[[reference]]", &format!("{rest}\n{first}\n[[reference]]"), 1)));
    let different = [
        ("hold_down_ms = 3000", "hold_down_ms = 3001"),
        ("192.0.2.2", "192.0.2.9"),
        ("deadline_s = 5", "deadline_s = 6"),
        ("name = \"test\"", "name = \"test\"\nepoch = 2"),
        ("url = \"http://127.0.0.1:9000/pages\"", "url = \"http://127.0.0.1:9001/pages\""),
    ];
    for (old, new) in different {
        assert_ne!(base, digest(&changed(&[(old, new)])), "{new}");
    }
}

#[test]
fn named_files_are_looked_at_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let (id, open, empty) = (file("id", "key", 0o600), file("open", "key", 0o644), file("empty", "", 0o600));
    let dir = folder.path().display().to_string();
    let text = BASE.replace("/etc/id", &id).replace("/etc/pd.key", &open).replace("/etc/tsig", &empty);
    let text =
        text.replace("url = \"http://127.0.0.1:9000/pages\"", &format!("url = \"http://x/\"\nsecret_file = \"{dir}\""));
    let text = text.replacen(TLS_FILES, "plaintext = \"loopback\"\n", 1);
    let text = text.replacen("expect_role", &format!("password_file = \"{dir}/none\"\nexpect_role"), 1);
    let (config, _) = sound(&text);
    let report = config.check_files(None);
    let path = folder.path().join("watchdog.toml");
    std::fs::write(&path, &text).unwrap();
    assert!(check_file(&path, false, None).unwrap().passes());
    assert_eq!(check_file(&path, true, None).unwrap().errors, report.errors);
    let told: Vec<(&str, &str)> =
        report.errors.iter().map(|fault| (fault.path.as_str(), fault.what.as_str())).collect();
    let wanted = [
        ("receiver[oncall].routing_key_file", "mode 644"),
        ("receiver[chat].secret_file", "not a regular file"),
        ("dns[zone].key_file", "is empty"),
        ("group[g].target[hcmc-db].password_file", "No such file"),
    ];
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    for ((path, what), (wanted_path, phrase)) in told.iter().zip(wanted) {
        assert!(*path == wanted_path && what.contains(phrase), "wanted {wanted_path}: {phrase}; told {path}: {what}");
    }
    assert!(report.errors.iter().all(|fault| fault.line.is_some()));
}

#[test]
fn a_file_that_cannot_be_loaded_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Config::load(&folder.path().join("none.toml")).unwrap_err();
    assert!(matches!(&missing, ConfigError::Read { .. }) && missing.to_string().contains("none.toml"), "{missing}");
    let directory = Config::load(folder.path()).unwrap_err();
    assert!(directory.to_string().contains("directory"), "{directory}");
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, b"[cluster]\nname = \"\xff\"\n").unwrap();
    let bytes = Config::load(&path).unwrap_err().to_string();
    assert!(bytes.contains("bad.toml: 1 error") && bytes.contains("line 2") && bytes.contains("UTF-8"), "{bytes}");
    std::fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
    let large = Config::load(&path).unwrap_err().to_string();
    assert!(large.contains("more than 1048576"), "{large}");
    std::fs::write(&path, "[cluster]\nname = x\n[[node]]\nid = \n").unwrap();
    let first = Config::load(&path).unwrap_err().to_string();
    assert!(first.contains("line 2") && !first.contains("line 4"), "{first}");
}

#[test]
fn a_fault_of_syntax_is_told_alone_with_its_line_and_column() {
    // Everything after a bracket left open is read as something else than it is.
    for (old, new, line_says) in [
        ("[[node]]", "[[node", "[[node"),
        ("[cluster]", "[cluster", "[cluster"),
        ("targets = [", "targets = [[", ""),
        ("name = \"test\"", "name = \"tést", "name = \"tést"),
    ] {
        let text = changed(&[(old, new)]);
        let (config, report) = judge(text.as_bytes());
        assert!(config.is_none());
        let [only] = &report.errors[..] else { panic!("{new}: {}", render(&report, "test")) };
        let line = only.line.and_then(|line| text.lines().nth(line - 1)).expect("it has a line");
        assert!(line_says.is_empty() || line.contains(line_says), "{new}: {only}");
        let column = only.what.strip_prefix("not TOML at column ").and_then(|rest| rest.split_once(':'));
        let column: usize = column.and_then(|(column, _)| column.parse().ok()).expect("it has a column");
        assert!((1..=line.chars().count() + 1).contains(&column), "{new}: column {column} of {line:?}: {only}");
        assert!(report.warnings.is_empty(), "{}", render(&report, "test"));
    }
}

#[test]
fn the_report_is_calm_and_aligned() {
    let text = changed(&[("hold_down_ms = 3000", "hold_down = 3\ncooldown_s = 5"), ("name = \"test\"", "")]);
    let (_, report) = judge(text.as_bytes());
    let wanted = "\
watchdog.toml: 2 errors, 1 warning

  error    line  1  cluster.name
                    name is missing
                  → add name = …

  error    line 83  group[g].hold_down
                    no such key
                  → did you mean hold_down_ms? (the unit is part of the name)

  warning  line 84  group[g].cooldown_s
                    cooldown_s 5: a fault in both regions may move the group to and fro
                  → keep it at some minutes at least
";
    assert_eq!(render(&report, "watchdog.toml"), wanted);
    assert_eq!(render(&Report::default(), "watchdog.toml"), "watchdog.toml: no faults found\n");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (config, report) = judge(&bytes);
        prop_assert_eq!(config.is_some(), report.passes());
        let _ = render(&report, "any");
    }

    #[test]
    fn a_damaged_file_is_judged_without_a_panic(
        cuts in proptest::collection::vec((0..BASE.len(), 0..40usize, "[\\x00-\\x7f]{0,12}|huế|\"|=|\\[\\[|\\{|9{1,30}"), 1..6),
    ) {
        let mut bytes = BASE.as_bytes().to_vec();
        for (at, len, insert) in cuts {
            let at = at.min(bytes.len());
            let end = (at + len).min(bytes.len());
            bytes.splice(at..end, insert.bytes());
        }
        let (config, report) = judge(&bytes);
        prop_assert_eq!(config.is_some(), report.passes());
        let lines = bytes.split(|byte| *byte == b'\n').count();
        for fault in report.errors.iter().chain(&report.warnings) {
            prop_assert!(fault.line.is_none_or(|line| (1..=lines + 1).contains(&line)), "{}", fault);
            prop_assert!(!fault.what.is_empty() && !fault.todo.is_empty());
        }
    }

    #[test]
    fn a_file_with_wild_values_is_judged_without_a_panic(value in "\"[^\"\\\\\\x00-\\x1f]{0,80}\"|-?[0-9]{1,20}|true|\\[\\]|\\{\\}|1e400|nan", nth in 0..90usize) {
        let keys: Vec<(usize, usize)> = BASE
            .match_indices(" = ")
            .map(|(at, _)| (at + 3, BASE[at..].find('\n').map_or(BASE.len(), |end| at + end)))
            .collect();
        let (from, to) = keys[nth % keys.len()];
        let mut text = BASE.to_owned();
        text.replace_range(from..to, &value);
        let (config, report) = judge(text.as_bytes());
        prop_assert_eq!(config.is_some(), report.passes());
    }
}
