//! Every sample in `cluster-config/` loads without a warning that it does not explain.

use std::path::PathBuf;

use watchdog::config::{Config, judge, render};

fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cluster-config").join(name)
}

fn load(name: &str) -> Config {
    Config::load(&sample(name)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_recommended_layout_loads_without_a_warning() {
    let bytes = std::fs::read(sample("sites-1-1-1.toml")).unwrap();
    let (config, report) = judge(&bytes);
    assert!(report.warnings.is_empty() && config.is_some(), "{}", render(&report, "sites-1-1-1.toml"));
    assert_eq!(load("sites-1-1-1.toml").digest, config.unwrap().digest);
}
