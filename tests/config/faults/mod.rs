//! Every kind of fault, by table: a sound file is changed in one place, and exactly that must be told, at that line.

mod groups;
mod outside;
pub use outside::TLS_FILES;

use watchdog::config::{Fault, judge};

use groups::{GROUPS, RECORDS, SERVICES, TARGETS, TRIGGERS};
use outside::{NODES, PARTS, SHAPE, TLS};

pub const BASE: &str = include_str!("../base.toml");

/// Replace `old` by `new`; then the only error is at `path`, in the line that holds `at`, and says `phrase`.
struct Case {
    old: &'static str,
    new: &'static str,
    path: &'static str,
    at: &'static str,
    phrase: &'static str,
}

const fn case(
    old: &'static str,
    new: &'static str,
    path: &'static str,
    at: &'static str,
    phrase: &'static str,
) -> Case {
    Case { old, new, path, at, phrase }
}

fn changed(old: &str, new: &str) -> String {
    assert!(BASE.contains(old), "the base has no {old:?}");
    BASE.replacen(old, new, 1)
}

fn line_of(text: &str, needle: &str) -> Option<usize> {
    let at = text.find(needle).unwrap_or_else(|| panic!("no {needle:?} to look for"));
    Some(text[..at].matches('\n').count() + 1)
}

fn told(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

fn run(cases: &[Case]) {
    let mut wrong = String::new();
    for Case { old, new, path, at, phrase } in cases {
        let text = changed(old, new);
        let (config, report) = judge(text.as_bytes());
        assert!(config.is_none() || report.passes());
        let line = line_of(&text, at);
        let matches = |fault: &&Fault| {
            fault.path == *path && fault.line == line && fault.to_string().contains(phrase) && !fault.todo.is_empty()
        };
        let secret_told = report.errors.iter().any(|fault| fault.to_string().contains("hunter2"));
        // A fault must not drag others behind it; those that must are listed by hand below.
        if report.errors.iter().filter(matches).count() != 1 || report.errors.len() != 1 || secret_told {
            wrong += &format!("\n{new:?} -> wanted line {line:?} {path}: …{phrase}…; told:{}", told(&report.errors));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_base_is_sound() {
    let (config, report) = judge(BASE.as_bytes());
    assert!(config.is_some(), "{}", told(&report.errors));
    assert!(report.warnings.is_empty(), "{}", told(&report.warnings));
}

#[test]
fn faults_of_shape_are_told() {
    run(SHAPE);
}

#[test]
fn faults_of_certificates_and_roles_are_told() {
    run(TLS);
}

#[test]
fn plain_text_does_not_leave_the_machine() {
    let text = changed(TLS_FILES, "plaintext = \"loopback\"\n");
    let (config, report) = judge(text.as_bytes());
    assert!(config.is_some() && told(&report.warnings).contains("whoever has a login on this machine"));
    for (old, new) in [
        ("127.0.0.1:7102", "10.1.0.5:7102"),
        ("listen = \"127.0.0.1:7102\"", "listen = \"127.0.0.1:7102\"\naddress = \"n2.vn:7102\""),
    ] {
        let (config, report) = judge(text.replacen(old, new, 1).as_bytes());
        assert!(config.is_none() && told(&report.errors).contains("not on loopback"), "{}", told(&report.errors));
    }
    let (config, report) = judge(BASE.split_once("[tls]").unwrap().0.as_bytes());
    assert!(config.is_none() && told(&report.errors).contains("names no certificates"), "{}", told(&report.errors));
}

#[test]
fn faults_of_nodes_and_timing_are_told() {
    run(NODES);
}

#[test]
fn faults_of_receivers_hosts_and_dns_are_told() {
    run(PARTS);
}

#[test]
fn faults_of_groups_are_told() {
    run(GROUPS);
    run(TRIGGERS);
}

#[test]
fn faults_of_services_are_told() {
    run(SERVICES);
}

#[test]
fn faults_of_targets_are_told() {
    run(TARGETS);
}

#[test]
fn faults_of_records_and_checks_are_told() {
    run(RECORDS);
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = BASE
        .replace("name = \"test\"", "name = 7")
        .replace("id = 2\n", "id = 1\n")
        .replace("hold_down_ms = 3000", "hold_down = 3")
        .replace("hanoi = \"192.0.2.2\"", "hanoi = \"here\"");
    let (config, report) = judge(text.as_bytes());
    assert!(config.is_none());
    let paths: Vec<&str> = report.errors.iter().map(|fault| fault.path.as_str()).collect();
    let wanted = ["cluster.name", "node[n2].id", "group[g].hold_down", "group[g].record[api.demo.test.].values.hanoi"];
    assert_eq!(paths, wanted, "{}", told(&report.errors));
}
