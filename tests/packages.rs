//! The Debian packages, made of the programs as tests have them: what is in them, whose it is, and that it runs and is
//! understood where it would lie.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What it printed; a failure with all that it said ends the test.
fn said(command: &mut Command) -> String {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{command:?}: {}\n{out}{err}", ran.status);
    out.into_owned()
}

/// The one package of that name in the folder.
fn package(folder: &Path, name: &str) -> PathBuf {
    let all = fs::read_dir(folder).expect("made before").map(|entry| entry.expect("it can be listed").path());
    let is_it =
        |path: &PathBuf| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(&format!("{name}_")));
    let found: Vec<PathBuf> = all.filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found[0].clone()
}

/// Lays out the package's files below `to`, and its scripts in `control`.
fn lay_out(package: &Path, to: &Path, control: &Path) {
    said(Command::new("dpkg-deb").arg("-x").args([package, to]));
    said(Command::new("dpkg-deb").arg("-e").args([package, control]));
}

fn field(package: &Path, name: &str) -> String {
    said(Command::new("dpkg-deb").arg("-f").arg(package).arg(name)).trim().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

/// The unit where it lies, with its programs where they lie.
fn verify(to: &Path, unit: &str, program: &str) {
    let folder = to.join("usr/lib/systemd/system");
    let folder = if folder.exists() { folder } else { to.join("lib/systemd/system") };
    let path = folder.join(unit);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let here = to.join(&program[1..]).display().to_string();
    assert!(text.contains(program), "{unit} does not start {program}");
    fs::write(&path, text.replace(&format!("{program} "), &format!("{here} "))).expect("a folder of ours");
    said(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&path)
            .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.display())),
    );
}

fn scripts_are_sound(control: &Path, names: &[&str]) {
    for name in names {
        let path = control.join(name);
        assert_eq!(mode(&path), 0o755, "{name}");
        said(Command::new("sh").arg("-n").arg(&path));
        assert!(!fs::read_to_string(&path).expect("text").contains("#DEBHELPER#"), "{name} is not filled in");
    }
}

#[test]
fn the_packages_hold_what_is_installed() {
    for built in
        [env!("CARGO_BIN_EXE_watchdogd"), env!("CARGO_BIN_EXE_watchdogctl"), env!("CARGO_BIN_EXE_watchdog-guard")]
    {
        assert!(Path::new(built).starts_with(root().join("target/debug")), "{built} is not what scripts/package packs");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let made = folder.path().join("made");
    said(Command::new(root().join("scripts/package")).arg("--dev").arg(&made));
    the_nodes(&package(&made, "failover-watchdog"), &folder.path().join("node"));
    the_guards(&package(&made, "failover-watchdog-guard"), &folder.path().join("guard"));
}

fn the_nodes(package: &Path, to: &Path) {
    let control = to.with_extension("control");
    lay_out(package, to, &control);
    assert_eq!(field(package, "Package"), "failover-watchdog");
    assert!(field(package, "Version").starts_with(env!("CARGO_PKG_VERSION")));
    let depends = field(package, "Depends");
    assert!(depends.contains("libc6") && depends.contains("systemd"), "{depends}");
    for program in ["watchdogd", "watchdogctl"] {
        let path = to.join("usr/bin").join(program);
        assert_eq!(mode(&path), 0o755);
        assert!(said(Command::new(path).arg("--version")).contains(env!("CARGO_PKG_VERSION")));
    }
    assert_eq!(mode(&to.join("etc/watchdog/watchdogd.env")), 0o640);
    assert!(
        fs::read_to_string(control.join("conffiles")).expect("it has some").contains("/etc/watchdog/watchdogd.env")
    );
    // What an operator is told to look at is there, and is what this program takes.
    let doc = to.join("usr/share/doc/failover-watchdog");
    for sample in
        ["sites-1-1-1.toml", "monitoring/rules.yml", "monitoring/dashboard.json", "monitoring/alertmanager.yml"]
    {
        assert!(doc.join("examples").join(sample).exists(), "{sample}");
    }
    let sample = doc.join("examples/sites-1-1-1.toml");
    said(Command::new(to.join("usr/bin/watchdogd")).arg("check").arg("--config").arg(sample));
    for file in ["docs/OPERATIONS.md", "README.md"] {
        assert!(doc.join(file).exists(), "{file}");
    }
    let manual = to.join("usr/share/man/man1");
    for page in ["watchdogctl.1", "watchdogctl-failover.1"] {
        assert!(["", ".gz"].iter().any(|end| manual.join(format!("{page}{end}")).exists()), "{page}");
    }
    for file in [
        "usr/share/bash-completion/completions/watchdogctl",
        "usr/share/zsh/vendor-completions/_watchdogctl",
        "usr/share/fish/vendor_completions.d/watchdogctl.fish",
        "usr/lib/sysusers.d/failover-watchdog.conf",
    ] {
        assert!(fs::metadata(to.join(file)).is_ok_and(|it| it.len() > 0), "{file}");
    }
    scripts_are_sound(&control, &["postinst", "prerm", "postrm"]);
    // Installed, not started: it has no configuration yet.
    let postinst = fs::read_to_string(control.join("postinst")).expect("text");
    assert!(postinst.contains("systemd-sysusers") && !postinst.contains("deb-systemd-invoke start"), "{postinst}");
    verify(to, "watchdogd.service", "/usr/bin/watchdogd");
}

fn the_guards(package: &Path, to: &Path) {
    let control = to.with_extension("control");
    lay_out(package, to, &control);
    assert_eq!(field(package, "Package"), "failover-watchdog-guard");
    let program = to.join("usr/bin/watchdog-guard");
    assert_eq!(mode(&program), 0o755);
    assert!(said(Command::new(program).arg("--version")).contains(env!("CARGO_PKG_VERSION")));
    let doc = to.join("usr/share/doc/failover-watchdog-guard");
    assert!(doc.join("examples/guard.toml").exists() && doc.join("GUARD.md").exists());
    assert!(!to.join("usr/bin/watchdogd").exists(), "a host that is acted upon has no use for a node");
    scripts_are_sound(&control, &["postinst"]);
    verify(to, "watchdog-guard-serve.service", "/usr/bin/watchdog-guard");
}
