//! `watchdogctl completions` and `man`: made from the command line, and taken by a shell.

use std::process::Command;

use clap::CommandFactory;

use crate::ctl::ctl;

const NOWHERE: &str = "127.0.0.1:1";

#[test]
fn every_shell_gets_a_script() {
    for (shell, begins) in [
        ("bash", "_watchdogctl() {"),
        ("zsh", "#compdef watchdogctl"),
        ("fish", "# Print an optspec"),
        ("elvish", "\nuse builtin;"),
        ("powershell", "\nusing namespace System.Management.Automation"),
    ] {
        let said = ctl(NOWHERE, &["completions", shell]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{shell}");
        assert!(said.stdout.starts_with(begins), "{shell}: {:?}", &said.stdout[..80]);
        assert!(said.stdout.contains("assert-fence") && said.stdout.contains("request-id"), "{shell}");
        assert!(
            ctl(NOWHERE, &["completions", "--help"]).stdout.contains(&format!("watchdogctl completions {shell} >"))
        );
    }
    let said = ctl(NOWHERE, &["completions", "tcsh"]);
    assert!(said.code == 2 && said.stderr.contains("bash, elvish, fish, powershell, zsh"), "{}", said.stderr);
}

#[test]
fn bash_completes_verbs_and_values() {
    let script = ctl(NOWHERE, &["completions", "bash"]).stdout;
    for (typed, wanted) in [
        (&["run", "ass"][..], "assert-fence"),
        (&["cert", "issue", "gu"], "guard"),
        (&["status", "--output", "js"], "json"),
        (&["failover", "--dr"], "--dry-run"),
    ] {
        let (last, before) = (typed[typed.len() - 1], typed[typed.len() - 2]);
        let words = format!(
            "{script}\nCOMP_WORDS=(watchdogctl {})\nCOMP_CWORD={}\n_watchdogctl watchdogctl {last} {}\necho \"${{COMPREPLY[*]}}\"",
            typed.join(" "),
            typed.len(),
            before,
        );
        // The script registers itself with `complete` and takes its words from what readline would have set.
        // By a file: the script is longer than one argument may be.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &words).unwrap();
        let said = Command::new("bash").arg("--norc").arg(file.path()).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap().trim(), wanted, "{typed:?}");
    }
}

fn verbs(of: &clap::Command, name: &str, found: &mut Vec<(String, String)>) {
    found.push((name.to_owned(), of.get_about().unwrap().to_string()));
    for below in of.get_subcommands() {
        verbs(below, &format!("{name}-{}", below.get_name()), found);
    }
}

#[test]
fn every_verb_has_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let man1 = folder.path().join("share/man1");
    let said = ctl(NOWHERE, &["man", "--dir", &man1.display().to_string()]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let mut wanted = Vec::new();
    verbs(&watchdog::cli::args::Cli::command(), "watchdogctl", &mut wanted);
    assert_eq!(std::fs::read_dir(&man1).unwrap().count(), wanted.len());
    assert_eq!(said.stdout, format!("{} pages in {}\n", wanted.len(), man1.display()));
    for (name, about) in &wanted {
        let page = std::fs::read_to_string(man1.join(format!("{name}.1"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        let version = env!("CARGO_PKG_VERSION");
        assert!(page.contains(&format!(".TH {name} 1  \"watchdogctl {version}\" \"Failover watchdog\"")), "{name}");
        let plain = page.replace("\\-", "-").replace("\\*(Aq", "'");
        assert!(plain.contains(&format!("{name} - {about}")), "{name}: {plain}");
        assert!(plain.contains("WATCHDOG_ENDPOINTS"), "{name} does not name what the environment sets");
    }
    let main = std::fs::read_to_string(man1.join("watchdogctl.1")).unwrap();
    assert!(main.contains("outcome unknown"), "the exit codes are in the main page");
    assert_eq!(ctl(NOWHERE, &["man"]).stdout, main);

    let in_the_way = man1.join("watchdogctl.1").display().to_string();
    let said = ctl(NOWHERE, &["man", "--dir", &in_the_way]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert!(said.stderr.contains(&in_the_way) && said.stderr.contains("\nnext: "), "{}", said.stderr);
}
