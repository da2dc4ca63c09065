//! The watch after a move in the replicated state: begun with the run's end, in the same entry of the log; one incident for all
//! that is amiss, under the run's name.

use super::{ClusterState, Effect, Entry, reject};
use crate::domain::command::RejectionCode;
use crate::domain::ids::{GroupName, RunId};
use crate::domain::monitor::{Monitor, MonitorChange, MonitorEnd, MonitorOutcome, Seen};
use crate::domain::page::{Page, PageAction, Severity};
use crate::domain::run::{Run, RunOutcome};

use super::timeline::note;

/// What an incident's key ends with.
const SUFFIX: &str = "/monitor";
/// The incident's event.
const EVENT: &str = "DR_MONITOR_TROUBLE";

impl ClusterState {
    /// The watch that follows a run which moved the group; none where that is switched off.
    pub(super) fn monitor_of(run: &Run, outcome: RunOutcome, entry: Entry<'_>, for_ms: u64) -> Option<Monitor> {
        let watches = outcome == RunOutcome::Succeeded && run.moves_serving() && for_ms > 0;
        watches.then(|| Monitor::begin(entry.at, for_ms))
    }

    pub(super) fn change_monitor(
        &mut self,
        entry: Entry<'_>,
        name: &GroupName,
        (id, revision): (&RunId, u32),
        about: &MonitorChange,
    ) -> Effect {
        let group = self.group_mut(name)?;
        let is_it = |run: &&mut Run| &run.id == id;
        let Some(run) = group.history.iter_mut().find(is_it) else {
            return reject(RejectionCode::NotFound, format!("run {id} is not in group {name}'s history"));
        };
        let Some(monitor) = run.monitor.as_mut().filter(|monitor| monitor.ended.is_none()) else {
            return reject(RejectionCode::Illegal, format!("nothing is watched after run {id}"));
        };
        if monitor.revision != revision {
            let message =
                format!("the watch after run {id} is at revision {}, this was decided on {revision}", monitor.revision);
            return reject(RejectionCode::Stale, message);
        }
        match about {
            MonitorChange::Saw { trouble, well } => {
                let new = monitor.take_in(entry.at, trouble, well);
                for seen in &new {
                    note(run, entry, None, format!("monitor: {}: {}", seen.what, seen.detail));
                }
                let run = run.clone();
                if !new.is_empty() {
                    self.page_trouble(entry, &run, &new);
                }
            }
            MonitorChange::End => {
                let is_there =
                    group.serving.region.as_ref() == group.history.iter().find(|run| &run.id == id).map(Run::to);
                let why = if is_there { "" } else { "the group does not serve from there any more" };
                self.end_monitor(entry, name, why);
            }
        }
        Ok(None)
    }

    /// The group moves on: whoever moves it is watched next.
    pub(super) fn monitor_gives_way(&mut self, entry: Entry<'_>, run: &Run) {
        if run.moves_serving() {
            self.end_monitor(entry, &run.group, &format!("{} {} begins", run.kind, run.id));
        }
    }

    /// Ends the watch that goes on, where one does. `cut_short`: why before its time; empty where its time is over.
    fn end_monitor(&mut self, entry: Entry<'_>, name: &GroupName, cut_short: &str) {
        let Ok(group) = self.group_mut(name) else { return };
        let goes_on = |run: &&mut Run| run.monitor.as_ref().is_some_and(|monitor| monitor.ended.is_none());
        let Some(run) = group.history.iter_mut().rfind(goes_on) else { return };
        let Some(monitor) = run.monitor.as_mut() else { return };
        let how = match (cut_short.is_empty(), monitor.trouble().next()) {
            (false, _) => MonitorOutcome::CutShort,
            (true, None) => MonitorOutcome::Well,
            (true, Some(_)) => MonitorOutcome::Unwell,
        };
        let colon = if cut_short.is_empty() { "" } else { ": " };
        let why = format!("{}{colon}{cut_short}", monitor.summary());
        monitor.ended = Some(MonitorEnd { at: entry.at, how, why: why.clone() });
        let watched_s = entry.at.since(monitor.since) / 1000;
        note(run, entry, None, format!("monitor: ended {} after {watched_s} s: {why}", how.word()));
        let run = run.clone();
        let summary = format!("{name}: watched {} for {watched_s} s after run {}: {why}", run.to(), run.id);
        let mut page = self.monitor_page(&run, summary);
        if how == MonitorOutcome::Unwell {
            let _told = self.send(entry, page);
        } else if self.incidents.contains_key(&page.key) {
            (page.action, page.severity) = (PageAction::Resolve, Severity::Info);
            let _told = self.send(entry, page);
        }
    }

    fn page_trouble(&mut self, entry: Entry<'_>, run: &Run, new: &[Seen]) {
        let amiss: Vec<String> = new.iter().map(|seen| format!("{}: {}", seen.what, seen.detail)).collect();
        let summary =
            format!("{}: trouble in {} after {} {}: {}", run.group, run.to(), run.kind, run.id, amiss.join("; "));
        let page = self.monitor_page(run, summary);
        let _told = self.send(entry, page);
    }

    /// One key for each run. Trouble after a rehearsal is trouble all the same.
    fn monitor_page(&self, run: &Run, summary: String) -> Page {
        let mut page = self.run_page(run, SUFFIX, EVENT, Severity::Error, summary);
        let amiss = run.monitor.iter().flat_map(|monitor| monitor.trouble());
        page.details.extend(amiss.map(|seen| (seen.what.clone(), seen.detail.clone())));
        page.details.insert("next".to_owned(), format!("watchdogctl run show {}", run.id));
        page
    }

    /// The incident of a watch that goes on ends with it.
    pub(super) fn is_monitored(&self, key: &str) -> bool {
        let of = |run: &Run| format!("{}{SUFFIX}", self.run_key(run));
        self.groups.values().filter_map(|group| group.monitored()).any(|run| of(run) == key)
    }
}
