//! The units in `cluster-config/systemd/` are sound, and give away no more than they must.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/systemd")
}

fn analyze(words: &[&str], files: &[PathBuf]) -> (bool, String) {
    let ran =
        Command::new("systemd-analyze").args(words).args(files).output().expect("systemd-analyze: scripts/install");
    (ran.status.success(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
}

/// Copies of the units that call the programs where they were built.
fn copies(folder: &Path) -> Result<Vec<PathBuf>> {
    let programs =
        [("watchdogd", env!("CARGO_BIN_EXE_watchdogd")), ("watchdog-guard", env!("CARGO_BIN_EXE_watchdog-guard"))];
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(units())? {
        let entry = entry?;
        if !entry.path().is_file() {
            continue;
        }
        let mut text = std::fs::read_to_string(entry.path())?;
        for (name, built) in programs {
            text = text.replace(&format!("=/usr/bin/{name} "), &format!("={built} "));
        }
        let is_elsewhere = text.contains("=/usr/bin/watchdog") || text.contains("/usr/local/bin/");
        ensure!(!is_elsewhere, "{}: a program that is not installed there", entry.path().display());
        let copy = folder.join(entry.file_name());
        std::fs::write(&copy, text)?;
        copies.push(copy);
    }
    ensure!(copies.len() >= 3, "{copies:?}");
    Ok(copies)
}

#[test]
fn every_unit_is_understood() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (sound, said) = analyze(&["verify", "--man=no"], &copies(folder.path())?);
    ensure!(sound && said.trim().is_empty(), "{said}");
    Ok(())
}

/// The exposure that systemd computes, in tenths; a higher one fails, and is to be justified here.
#[test]
fn units_keep_to_what_they_need() {
    for (unit, at_most) in [("watchdogd.service", "15"), ("watchdog-guard-serve.service", "67")] {
        let threshold = format!("--threshold={at_most}");
        let words = ["security", "--offline=true", "--no-pager", &threshold];
        let (within, said) = analyze(&words, &[units().join(unit)]);
        assert!(within, "{unit} is above {at_most}: {said}");
    }
}
