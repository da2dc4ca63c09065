//! Targets of kind `backup`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::check::Item;
use crate::config::raw::RawTarget;
use crate::config::types::{BackupSource, TargetKind};
use crate::domain::ids::NodeName;

use super::Judge;
use super::fields::cut;
use super::target::COMMON;

/// A month: who backs up less often does not need to be told.
const AGE_MAX_H: u64 = 31 * 24;

impl Judge<'_> {
    pub(super) fn backup_target(&mut self, item: &Item<RawTarget>) -> Option<TargetKind> {
        let Item { place, value } = item;
        self.only(place, "backup", COMMON, &["url", "file", "stanza", "max_age_h", "ca_file", "nodes"]);
        let source = match (&value.url, &value.file) {
            (Some(_), Some(_)) => {
                self.report.error(place, "file", "stands beside url", "write one of them");
                None
            }
            (None, Some(file)) => self.path(place, "file", file).map(|_| BackupSource::File(file.clone())),
            _ => self.url(place, "url", &value.url).map(BackupSource::Url),
        };
        let stanza = value.stanza.as_ref().filter(|name| {
            let is_good = !name.is_empty() && name.len() <= 128 && !name.chars().any(char::is_control);
            if !is_good {
                let what = format!("{:?} cannot be a stanza's name", cut(name));
                self.report.error(place, "stanza", what, "write it as in pgbackrest.conf");
            }
            is_good
        });
        let max_age_h = self.number(place, "max_age_h", value.max_age_h, 25, 1..=AGE_MAX_H);
        let ca_file = self.file(place, "ca_file", &value.ca_file, false);
        let known = self.known.nodes.clone();
        let mut nodes = BTreeSet::new();
        for name in value.nodes.iter().flatten() {
            nodes.extend(self.refers(place, "nodes", &Some(name.clone()), &known, "node").map(NodeName));
        }
        if value.file.is_some() && value.nodes.as_ref().is_none_or(Vec::is_empty) {
            let todo = "add nodes = [\"…\"]: those on whose machine the file is";
            self.report.error(place, "nodes", "a file lies on some machine, and it is not said whose", todo);
        }
        let max_age = Duration::from_secs(max_age_h * 3600);
        Some(TargetKind::Backup { source: source?, stanza: stanza.cloned(), max_age, ca_file, nodes })
    }
}
