//! The units of `cluster-config/systemd/`: what they start exists with these words, and systemd understands every line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [(&str, &str); 2] = [
    ("/usr/bin/watchdogd", env!("CARGO_BIN_EXE_watchdogd")),
    ("/usr/bin/watchdog-guard", env!("CARGO_BIN_EXE_watchdog-guard")),
];

fn units() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/systemd")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder is part of the sources") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

#[test]
fn what_the_units_start_takes_these_words() {
    let mut seen = 0;
    for unit in units() {
        let text = fs::read_to_string(&unit).unwrap();
        for line in text.lines().filter(|line| line.starts_with("Exec")) {
            if line.starts_with("ExecReload=/bin/kill ") {
                continue;
            }
            let mut words = line.split_once('=').unwrap().1.split_whitespace();
            let program = words.next().unwrap().trim_start_matches('+');
            let built = PROGRAMS.iter().find(|(installed, _)| *installed == program);
            let (_, built) = built.unwrap_or_else(|| panic!("{}: {program} is none of ours", unit.display()));
            // Unknown verbs and options are refused before the help is printed.
            let ran = Command::new(built).args(words).arg("--help").output().unwrap();
            assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
            seen += 1;
        }
    }
    assert_eq!(seen, 5);
}

#[test]
fn systemd_understands_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/systemd");
    for unit in units() {
        let to = dir.path().join(unit.strip_prefix(&root).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let mut text = fs::read_to_string(&unit).unwrap();
        for (installed, built) in PROGRAMS {
            text = text.replace(&format!("{installed} "), &format!("{built} "));
        }
        fs::write(to, text).unwrap();
    }
    // What the drop-in is for, as Debian's template has it.
    fs::write(dir.path().join("postgresql@15-main.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    let names =
        ["watchdogd.service", "watchdog-guard-serve.service", "watchdog-database.slice", "postgresql@15-main.service"];
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).args(names.map(|name| dir.path().join(name)));
    let said = verify.env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display())).output();
    let said = said.expect("systemd-analyze: scripts/install");
    let words = String::from_utf8_lossy(&said.stderr);
    let ours: Vec<&str> = words.lines().filter(|line| line.contains(dir.path().to_str().unwrap())).collect();
    assert!(said.status.success() && ours.is_empty(), "{words}");
}

/// The exposure that systemd computes, in tenths; a unit above its figure fails, and a higher figure is to be justified here:
/// the guard runs as root, since it moves the kernel's gate and looks at the server's processes.
#[test]
fn units_keep_to_what_they_need() {
    for (unit, at_most) in [("watchdogd.service", 15), ("watchdog-guard-serve.service", 67)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/systemd").join(unit);
        let judged = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", &format!("--threshold={at_most}")])
            .arg(path)
            .output()
            .expect("systemd-analyze: scripts/install");
        assert!(judged.status.success(), "{unit} is above {at_most}: {}", String::from_utf8_lossy(&judged.stdout));
    }
}
