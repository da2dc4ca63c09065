//! Every sample in `cluster-config/` loads, with no warning but those it explains, and its plans are as written down in
//! `tests/config/plans/`. To accept a change of plans: `UPDATE_PLANS=1 cargo test --test config`, and read the difference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use watchdog::config::{Config, judge, render};
use watchdog::domain::ids::{GroupName, NodeId, RegionName};
use watchdog::domain::policy::Need;

use crate::text_of_plans;

const SAMPLES: &[&str] = &["sites-1-1-1", "sites-2-2-1", "two-region", "fast", "demo", "drill"];

/// Phrases of the warnings that a sample explains; any other is a fault of the sample.
const EXPLAINED: &[(&str, &[&str])] = &[("two-region", &["no automatic failover from hanoi (accepted)"])];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sample(name: &str) -> PathBuf {
    root().join("cluster-config").join(format!("{name}.toml"))
}

fn load(name: &str) -> Config {
    Config::load(&sample(name)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_sample_loads_without_unexplained_warnings() {
    for name in SAMPLES {
        let (config, report) = judge(&std::fs::read(sample(name)).unwrap());
        assert!(config.is_some(), "{}", render(&report, name));
        let explained = EXPLAINED.iter().find(|(of, _)| of == name).map_or(&[][..], |(_, phrases)| phrases);
        let told: Vec<String> = report.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), explained.len(), "{name}: {told:#?}");
        for phrase in explained {
            assert!(told.iter().any(|warning| warning.contains(phrase)), "{name}: no {phrase:?} in {told:#?}");
        }
    }
}

#[test]
fn every_file_of_the_folder_is_a_tested_sample() {
    let entries = std::fs::read_dir(root().join("cluster-config")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let tomls = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    for path in tomls {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        // The guard's sample is another program's file, tested with the guard.
        assert!(SAMPLES.contains(&stem) || stem.starts_with("guard"), "{} is not tested", path.display());
    }
}

#[test]
fn every_sample_resolves_to_the_plans_written_down() {
    for name in SAMPLES {
        let text = text_of_plans::of(&load(name));
        let path = root().join(format!("tests/config/plans/{name}.txt"));
        if std::env::var_os("UPDATE_PLANS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, written, "the plans of {name} differ from {}", path.display());
    }
}

#[test]
fn the_recommended_sample_means_what_it_says() {
    let config = load("sites-1-1-1");
    let policy = config.policy();
    assert_eq!(policy.digest, config.digest);
    assert_eq!(config.digest.as_str().len(), 64);
    let members: BTreeMap<NodeId, (&str, &str)> =
        policy.members.iter().map(|(id, member)| (*id, (member.name.as_str(), member.region.as_str()))).collect();
    assert_eq!(members[&NodeId(3)], ("danang-1", "danang"));
    let group = &policy.groups[&GroupName::from("aicamera")];
    assert_eq!(group.regions, ["hcmc", "hanoi"].map(RegionName::from));
    assert_eq!(group.home, RegionName::from("hcmc"));
    assert_eq!(group.triggers[&group.home].need, Need::All);
    assert_eq!((group.hold_down_ms, group.rpo_limit_ms, group.cooldown_ms), (3000, 900_000, 3_600_000));
    assert_eq!(group.failover_plans.len(), 2);
    assert!(group.traffic_plans.is_empty(), "aicamera has no traffic record");
    let marketplace = &policy.groups[&GroupName::from("marketplace")];
    assert_eq!(marketplace.traffic_plans.len(), 2);
    assert_eq!(config.node("hanoi-1").unwrap().id, NodeId(2));
    let error = config.node("hanoi-9").unwrap_err().to_string();
    assert!(error.contains("hanoi-9") && error.contains("danang-1"), "{error}");
}

#[test]
fn the_drill_groups_sample_may_simulate_faults_and_does() {
    let config = load("drill");
    let policy = config.policy();
    let drills = &policy.groups[&GroupName::from("drill")].drills;
    assert!(drills.is_resource);
    let plans: Vec<_> = drills.plans.iter().map(|plan| (plan.name.as_str(), plan.kind.word())).collect();
    assert_eq!(plans, [("monthly", "simulated"), ("weekly", "tabletop")]);
    assert_eq!(drills.plans[0].settings.checks.len(), 2, "an HTTP check and an SQL check");
}

#[test]
fn the_two_region_sample_names_the_region_it_gives_up() {
    let config = load("two-region");
    assert_eq!(config.no_automatic_failover_from, [RegionName::from("hanoi")].into());
}

#[test]
fn every_key_is_explained_in_the_documentation() {
    let raw = std::fs::read_to_string(root().join("src/config/raw.rs")).unwrap();
    let tables = &raw[raw.find("\ntables! {").unwrap()..raw.find("pub enum RawNeed").unwrap()];
    let documentation = std::fs::read_to_string(root().join("docs/CONFIGURATION.md")).unwrap();
    let words: Vec<&str> = documentation
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .collect();
    let fields = tables.lines().filter_map(|line| line.strip_prefix("        ")?.split_once(": "));
    let keys: Vec<&str> =
        fields.map(|(key, _)| key.trim_start_matches("r#")).filter(|key| !key.contains('/')).collect();
    assert!(keys.len() > 90, "{keys:?}");
    let missing: Vec<&&str> = keys.iter().filter(|key| !words.contains(key)).collect();
    assert!(missing.is_empty(), "docs/CONFIGURATION.md does not speak of {missing:?}");
}
