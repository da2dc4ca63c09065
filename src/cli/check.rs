//! `check`: judges a configuration file, needs no node. The same judgement as at start-up.

use std::path::Path;

use serde::Serialize;

use super::Screen;
use super::args::Output;
use super::error::{CliError, Exit};
use super::text::print;
use crate::config::{Config, ConfigError, Fault, Report, render};

#[derive(Serialize)]
struct Judged<'a> {
    file: String,
    passes: bool,
    errors: &'a [Fault],
    warnings: &'a [Fault],
}

/// Every fault of the file; with `files` also of the files it names, as they lie on this machine.
pub fn judge(path: &Path, files: bool) -> Result<Report, ConfigError> {
    match Config::load(path) {
        Ok(config) => {
            let mut report = Report { errors: Vec::new(), warnings: config.warnings.clone() };
            if files {
                let named = config.check_files(None);
                report.errors.extend(named.errors);
                report.warnings.extend(named.warnings);
                report.sort();
            }
            Ok(report)
        }
        Err(ConfigError::Faults { report, .. }) => Ok(report),
        Err(error) => Err(error),
    }
}

/// Judges and prints.
pub fn run(path: &Path, files: bool, screen: Screen) -> Result<Exit, CliError> {
    let report = judge(path, files).map_err(|error| CliError::File(error.to_string()))?;
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
