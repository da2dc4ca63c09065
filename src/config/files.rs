//! The files that a configuration names: are they there, readable, and kept from others' eyes? Asked on the node that needs
//! them (`check --files`, and start-up), since the same configuration lies on machines that do not hold them.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;

use super::check::{Place, Report};
use super::types::{Config, NamedFile};

impl Config {
    /// Looks at every named file on this machine.
    pub fn check_files(&self) -> Report {
        let mut report = Report::default();
        for file in &self.files {
            look_at(file, &mut report);
        }
        report.sort();
        report
    }
}

fn look_at(file: &NamedFile, report: &mut Report) {
    let place = Place { path: file.field.clone(), line: file.line, ..Place::default() };
    let path = file.path.display();
    let metadata = match File::open(&file.path).and_then(|open| open.metadata()) {
        Ok(metadata) => metadata,
        Err(error) => {
            report.error(&place, "", format!("{path}: {error}"), "put the file there, readable by watchdogd's user");
            return;
        }
    };
    if !metadata.is_file() {
        report.error(&place, "", format!("{path} is not a regular file"), "name a file");
        return;
    }
    if metadata.len() == 0 {
        report.error(&place, "", format!("{path} is empty"), "write its content");
    }
    let mode = metadata.permissions().mode() & 0o777;
    if file.secret && mode & 0o007 != 0 {
        let what =
            format!("{path} holds a secret and has mode {mode:03o}: everybody on this machine may read or change it");
        report.error(&place, "", what, format!("chmod 600 {path}"));
    }
}
