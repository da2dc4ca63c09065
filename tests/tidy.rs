//! House rules as tests: which part may import which, what `domain` must not touch, and what every file carries.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module of `src/` and what it may import of its own crate (docs/ARCHITECTURE.md shows the same table).
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("calendar", &["domain"]),
    ("clock", &["domain"]),
    ("metrics", &["domain"]),
    ("proto", &[]),
    ("redis", &["domain"]),
    ("resolve", &["domain"]),
    ("systemd", &[]),
    ("tls", &["clock", "domain"]),
    ("config", &["calendar", "clock", "domain", "tls"]),
    ("guard", &["clock", "domain", "proto", "redis", "systemd", "tls"]),
    ("consensus", &["clock", "config", "domain", "metrics", "proto", "tls"]),
    ("probe", &["clock", "config", "domain", "metrics", "redis", "resolve"]),
    // The guard's wire format, and nothing else of it.
    ("actuator", &["clock", "config", "domain", "guard", "redis", "resolve"]),
    ("notify", &["clock", "config", "domain", "metrics"]),
    ("coordinator", &["actuator", "clock", "domain"]),
    ("api", &["calendar", "clock", "domain", "drill", "metrics", "proto", "tls"]),
    ("cli", &["api", "clock", "config", "domain", "proto", "tls"]),
    ("drill", &["calendar", "clock", "coordinator", "domain"]),
    (
        "server",
        &[
            "actuator",
            "api",
            "calendar",
            "clock",
            "config",
            "consensus",
            "coordinator",
            "domain",
            "drill",
            "metrics",
            "notify",
            "probe",
            "proto",
            "systemd",
            "tls",
        ],
    ),
];

const LINES_MAX: usize = 600;

/// Not in `domain`: it takes time and chance as data, and answers the same for the same input on every node.
const NOT_IN_DOMAIN: &[&str] = &[
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "tokio",
    "async fn",
    ".await",
    "rand::",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
];

/// Words that mean something else here, or nothing.
const NOT_OUR_WORDS: &[&str] = &["slave", "todo!(", "unimplemented!(", "dbg!(", "FIXME"];

fn files_under(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = left.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a readable source folder").path();
            if path.is_dir() {
                // What a package of its own has built is none of ours.
                if !path.ends_with("target") {
                    left.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).display().to_string()
}

/// The top module a source file belongs to: `src/probe/http.rs` and `src/probe.rs` are both `probe`.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    Some(first.trim_end_matches(".rs").to_owned())
}

/// Code without comments, so that a link in a doc comment is no import.
fn code(text: &str) -> String {
    let kept = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(kept).collect::<Vec<_>>().join("\n")
}

fn imports(text: &str) -> Vec<String> {
    let code = code(text);
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    code.match_indices("crate::").map(|(at, found)| name(&code[at + found.len()..])).filter(|n| !n.is_empty()).collect()
}

#[test]
fn every_import_is_in_the_table() {
    // Packages of their own, which stand in for dependencies.
    let elsewhere = |module: &String| ["lib", "bin", "patches"].contains(&module.as_str());
    let table: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in files_under("src") {
        let Some(module) = module_of(&path).filter(|module| !elsewhere(module)) else { continue };
        let Some(allowed) = table.get(module.as_str()) else {
            wrong.push(format!("{}: module {module} is not in the table of this test", shown(&path)));
            continue;
        };
        for import in imports(&read(&path)) {
            if import != module && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: {module} must not import {import}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_actuators_take_only_the_guards_protocol() {
    let mut wrong = Vec::new();
    for path in files_under("src/actuator") {
        for line in code(&read(&path)).lines() {
            if line.contains("guard::") && line.contains("crate::") && !line.contains("guard::protocol") {
                wrong.push(format!("{}: {}", shown(&path), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn domain_is_pure() {
    let mut wrong = Vec::new();
    for path in files_under("src/domain") {
        let text = code(&read(&path));
        for word in NOT_IN_DOMAIN {
            if text.contains(word) {
                wrong.push(format!("{}: {word}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    let mut wrong = Vec::new();
    for path in files_under("src").into_iter().chain(files_under("tests")).chain(files_under("benches")) {
        let text = read(&path);
        if !text.starts_with("//!") {
            wrong.push(format!("{}: begins without a //! line", shown(&path)));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines, more than {LINES_MAX}", shown(&path)));
        }
        if !path.ends_with("tests/tidy.rs") {
            for word in NOT_OUR_WORDS.iter().filter(|word| text.contains(**word)) {
                wrong.push(format!("{}: {word}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
