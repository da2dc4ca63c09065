//! The rules and the dashboard in `cluster-config/monitoring/` name what there is, and the rules do what they say.

mod grafana;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use watchdog::metrics;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/monitoring")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("it is part of the sources")
}

/// Every expression of the rules, and of the dashboard.
fn expressions() -> Vec<String> {
    let rules = read("rules.yml");
    let of_rules = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ").map(str::to_owned));
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let mut found: Vec<String> = of_rules.collect();
    assert!(found.len() > 20, "the rules' expressions are not found any more");
    let in_rules = found.len();
    collect(&dashboard, &mut found);
    assert!(found.len() > in_rules + 20, "the dashboard's expressions are not found any more");
    found
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    // A variable's "query" is an expression too, where it is not a data source's kind.
                    Some(text) if name == "expr" || name == "query" && text.contains('(') => {
                        found.push(text.to_owned())
                    }
                    _ => collect(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// Words of an expression that can only be metrics: by their prefix, outside quotes.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let bare: String = expression.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let words = bare.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_metric = |word: &&str| {
        ["watchdog_", "pg_", "process_", "backup_", "redis_"].iter().any(|prefix| word.starts_with(prefix))
    };
    words.filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn every_expression_names_metrics_that_exist() {
    let names: BTreeSet<String> = metrics::names().into_iter().collect();
    for expression in expressions() {
        let used = metrics_of(&expression);
        assert!(!used.is_empty() || expression.starts_with("up{"), "no metric in {expression}");
        for metric in used {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                metric.strip_suffix(suffix).filter(|family| names.contains(*family) && !names.contains(&metric))
            });
            let family = family.unwrap_or(&metric);
            assert!(names.contains(family), "there is no metric {metric}: {expression}");
        }
    }
}

#[test]
fn names_follow_the_conventions_and_are_used_once() {
    let names = metrics::names();
    let unique: BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    for family in metrics::families::GAUGES {
        let label_ok = |label: &&&str| label.chars().all(|c| c.is_ascii_lowercase() || c == '_') && **label != "le";
        assert_eq!(family.labels.iter().filter(label_ok).count(), family.labels.len(), "{}", family.name);
        assert!(family.help.ends_with('.'), "{}: {}", family.name, family.help);
        assert!(!family.name.ends_with("_ms") && !family.name.contains("millis"), "{}: base units", family.name);
    }
}

/// An alert without a runbook leaves whoever is woken by it alone.
#[test]
fn every_alert_has_its_runbook() {
    let book = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md")).unwrap();
    let anchors: BTreeSet<String> = book
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .collect();
    let rules = read("rules.yml");
    let (alerts, links): (Vec<_>, Vec<_>) = (
        rules.lines().filter(|line| line.trim().starts_with("- alert: ")).collect(),
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: docs/OPERATIONS.md#")).collect(),
    );
    assert_eq!(alerts.len(), links.len(), "an alert without a runbook_url");
    for link in links {
        assert!(anchors.contains(link), "docs/OPERATIONS.md has no heading for #{link}");
    }
}

/// The names of the events that people are paged by, as the sources have them.
fn events() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("part of the sources") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).expect("text");
            let is_event = |word: &&str| {
                word.len() > 5 && word.contains('_') && word.bytes().all(|b| b == b'_' || b.is_ascii_uppercase())
            };
            found.extend(text.split('"').filter(is_event).map(str::to_owned));
        }
    }
    found
}

/// Whoever is woken reads the event's name first.
#[test]
fn every_event_is_in_the_book() {
    let book = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md")).unwrap();
    let events = events();
    assert!(events.len() > 20 && events.contains("NOT_READY"), "the events' names are not found any more: {events:?}");
    for event in events {
        // A run's events are one word for its kind and one for what became of it: the book has both.
        let (kind, end) = event.rsplit_once('_').expect("it has one");
        let is_named = |word: &str| book.contains(&format!("`{word}")) || book.contains(&format!("{word}`"));
        let in_parts = is_named(&format!("{kind}_…")) || is_named(&format!("…_{end}"));
        assert!(is_named(&event) || in_parts, "docs/OPERATIONS.md says nothing of {event}");
    }
}

fn promtool(words: &[&str]) {
    let ran = Command::new("promtool").args(words).current_dir(folder()).output().expect("promtool: scripts/install");
    let said = [ran.stdout, ran.stderr].concat();
    assert!(ran.status.success(), "promtool {words:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn the_rules_fire_when_they_should_and_only_then() {
    promtool(&["check", "rules", "rules.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "rules_test.yml"]);
}

#[test]
fn the_mails_sample_is_understood() {
    let said = Command::new("amtool").args(["check-config", "alertmanager.yml"]).current_dir(folder()).output();
    let said = said.expect("amtool: scripts/install");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn every_alert_is_tested() {
    let (rules, tests) = (read("rules.yml"), read("rules_test.yml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let fires = tests.split("alertname: ").skip(1).filter(|it| it.split_whitespace().next() == Some(alert));
        let (firing, silent): (Vec<_>, Vec<_>) =
            fires.partition(|it| it.split("- eval_time").next().is_some_and(|it| it.contains("exp_labels")));
        assert!(!firing.is_empty() && !silent.is_empty(), "{alert} is not tested both ways");
    }
}

/// Panels lie beside one another, each has an expression, and each panel's kind is one that Grafana has.
#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let kind = panel["type"].as_str().unwrap();
        assert!(["row", "stat", "timeseries", "state-timeline"].contains(&kind), "{kind}");
        assert!(kind == "row" || panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{panel}");
        let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} overlaps another panel or the edge", panel["title"]);
            }
        }
    }
}
