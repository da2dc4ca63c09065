//! `check`: judges a configuration file, needs no node. The same judgement as at start-up.

use std::path::Path;

use serde::Serialize;

use super::Screen;
use super::args::Output;
use super::error::{CliError, Exit};
use super::text::print;
use crate::config::{Fault, check_file, render};

#[derive(Serialize)]
struct Judged<'a> {
    file: String,
    passes: bool,
    errors: &'a [Fault],
    warnings: &'a [Fault],
}

/// Judges and prints.
pub fn run(path: &Path, files: bool, screen: Screen) -> Result<Exit, CliError> {
    let report = check_file(path, files, None).map_err(|error| CliError::File(error.to_string()))?;
    let file = path.display().to_string();
    match screen.output {
        Output::Table => print(&render(&report, &file))?,
        Output::Json => {
            let judged = Judged { file, passes: report.passes(), errors: &report.errors, warnings: &report.warnings };
            print(&(super::to_json(&judged)? + "\n"))?;
        }
    }
    Ok(if report.passes() { Exit::Ok } else { Exit::Failure })
}
