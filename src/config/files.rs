//! The files that a configuration names: are they there, readable, and kept from others' eyes? Asked on the node that needs
//! them (`check --files`, and start-up), since the same configuration lies on machines that do not hold them.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;

use super::check::{Place, Report};
use super::types::{Config, NamedFile};
use crate::clock::unix_now;
use crate::domain::ids::NodeName;
use crate::tls::material::{Use, load};

impl Config {
    /// Looks at every named file on this machine, as the node of that name does at its start; without a name, as each node
    /// does that has a certificate here.
    pub fn check_files(&self, node: Option<&NodeName>) -> Report {
        let mut report = Report::default();
        let (own, all): (Vec<&NamedFile>, Vec<&NamedFile>) = self.files.iter().partition(|file| is_nodes_own(file));
        for file in all {
            look_at(file, &mut report);
        }
        let has_one = |name: &&NodeName| self.tls_files(name).is_some_and(|files| files.certificate.exists());
        let here: Vec<&NodeName> = match node {
            Some(node) => vec![node],
            None => self.nodes.values().map(|node| &node.name).filter(has_one).collect(),
        };
        if let (true, Some(file)) = (here.is_empty(), own.first()) {
            let what = format!("{}: no node's file is on this machine", file.path.display());
            report.error(&place_of(file), "", what, "put it there, readable by watchdogd's user");
        }
        for name in here {
            for file in &own {
                let path = file.path.to_string_lossy().replace("{node}", name.as_str()).into();
                look_at(&NamedFile { path, ..(*file).clone() }, &mut report);
            }
            self.look_at_certificate(name, &mut report);
        }
        report.sort();
        report
    }

    /// What the three files are worth together, where each by itself is there.
    fn look_at_certificate(&self, node: &NodeName, report: &mut Report) {
        let is_told = report.errors.iter().any(|fault| fault.path.starts_with("tls."));
        let Some(files) = self.tls_files(node).filter(|_| !is_told) else { return };
        let place = Place { path: "tls".to_owned(), ..Place::default() };
        let loaded = match load(&files, Use::Both, unix_now()) {
            Ok(loaded) => loaded,
            Err(error) => {
                report.error(&place, "", format!("{}: {}", error.file.display(), error.what), error.todo);
                return;
            }
        };
        let held = self.roles().of(&loaded.identity);
        if held.node.as_ref() != Some(node) {
            let (file, identity) = (files.certificate.display(), &loaded.identity);
            let what = format!("{file}: is the certificate of {identity} ({}), not of node {node}", held.in_words());
            report.error(&place, "", what, format!("issue one: watchdogctl cert issue node {node}"));
        }
    }
}

fn is_nodes_own(file: &NamedFile) -> bool {
    file.path.to_string_lossy().contains("{node}")
}

fn place_of(file: &NamedFile) -> Place {
    Place { path: file.field.clone(), line: file.line, ..Place::default() }
}

fn look_at(file: &NamedFile, report: &mut Report) {
    let place = place_of(file);
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
