//! `completions` and `man`: both are made from the command line as [`super::args`] describes it, so that they never lag behind.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use serde::Serialize;

use super::Screen;
use super::args::Cli;
use super::error::{CliError, Exit};
use super::text::{Page, print};

const NAME: &str = "watchdogctl";

#[derive(Serialize)]
struct Written<'a> {
    folder: &'a Path,
    pages: &'a [String],
}

/// Prints a shell's completion script.
pub fn completions(shell: Shell) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

/// Prints the main page, or writes all of them.
pub fn run(folder: Option<&Path>, screen: Screen) -> Result<Exit, CliError> {
    let pages = pages()?;
    let Some(folder) = folder else {
        for (_, text) in pages.iter().filter(|(name, _)| name == "watchdogctl.1") {
            print(text)?;
        }
        return Ok(Exit::Ok);
    };
    let failed = |path: PathBuf| move |error: std::io::Error| CliError::File(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(failed(folder.to_owned()))?;
    for (name, text) in &pages {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(failed(path))?;
    }
    let names: Vec<String> = pages.into_iter().map(|(name, _)| name).collect();
    screen.show(&Written { folder, pages: &names }, || {
        let mut page = Page::default();
        page.line([format!("{} pages in {}", names.len(), folder.display()).into()]);
        page
    })?;
    Ok(Exit::Ok)
}

/// File names and texts: one for the program, one for each verb, and one for each verb's own verbs.
fn pages() -> Result<Vec<(String, String)>, CliError> {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let mut pages = Vec::new();
    collect(&whole, &mut pages)?;
    pages.sort();
    Ok(pages)
}

fn collect(verb: &Command, pages: &mut Vec<(String, String)>) -> Result<(), CliError> {
    for below in verb.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, pages)?;
    }
    let man =
        Man::new(verb.clone()).source(format!("{NAME} {}", env!("CARGO_PKG_VERSION"))).manual("Failover watchdog");
    let mut text = Vec::new();
    let name = man.get_filename();
    man.render(&mut text).map_err(|error| CliError::Failed(format!("{name}: {error}")))?;
    pages.push((name, String::from_utf8_lossy(&text).into_owned()));
    Ok(())
}
