//! What `--help` promises and the documents repeat: exit codes, and a word for every verb.

use std::collections::BTreeMap;

use watchdog::cli::error::Exit;

use crate::ctl::ctl;

/// `  0  done`, also where it goes on in the next line.
fn in_help(help: &str) -> BTreeMap<u8, String> {
    let part = help.split("Exit codes:").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut codes = BTreeMap::new();
    let mut last = None;
    for line in part.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once(' ').and_then(|(code, words)| Some((code.parse::<u8>().ok()?, words.trim()))) {
            Some((code, words)) => {
                codes.insert(code, words.to_owned());
                last = Some(code);
            }
            None => {
                let words = codes.get_mut(&last.unwrap()).unwrap();
                *words = format!("{words} {line}");
            }
        }
    }
    codes
}

/// `| 0 | done |`.
fn in_document(text: &str) -> BTreeMap<u8, String> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [code, words] = cells.as_slice() else { return None };
        Some((code.parse().ok()?, (*words).to_owned()))
    };
    let part = text.split("| exit code |").nth(1).expect("docs/OPERATIONS.md has the table");
    part.lines().skip(1).take_while(|line| line.starts_with('|')).filter_map(row).collect()
}

#[test]
fn help_document_and_program_have_the_same_exit_codes() {
    let help = in_help(&ctl("", &["--help"]).stdout);
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md")).unwrap();
    assert_eq!(help, in_document(&document));
    let all = [Exit::Ok, Exit::Failure, Exit::Usage, Exit::Refused, Exit::Unreachable, Exit::Unknown];
    assert_eq!(help.keys().copied().collect::<Vec<u8>>(), all.map(|exit| exit as u8));
}
