//! What `watchdogctl cluster` prints.

use std::path::Path;

use serde::Serialize;

use super::backup_file::Header;
use super::text::{Page, Span, bold, dim, good, warn};
use super::when::{bytes, stamp};
use crate::domain::state::ClusterState;
use crate::proto::{RestoreResponse, RestoredGroup};

/// What a backup holds.
#[derive(Debug, Serialize)]
pub struct Held {
    #[serde(flatten)]
    header: Header,
    groups: Vec<HeldGroup>,
    audit_entries: usize,
    alarms: usize,
}

#[derive(Debug, Serialize)]
struct HeldGroup {
    name: String,
    serving: String,
    token: String,
    paused: bool,
    open_run: String,
    runs: usize,
    unsettled: usize,
}

impl Held {
    /// What a state holds.
    pub fn of(header: &Header, state: &ClusterState) -> Self {
        let group = |(name, group): (&crate::domain::ids::GroupName, &crate::domain::state::GroupState)| HeldGroup {
            name: name.0.clone(),
            serving: group.serving.region.as_ref().map(|region| region.0.clone()).unwrap_or_default(),
            token: group.token.to_string(),
            paused: group.pause.is_some(),
            open_run: group.open_run.as_ref().map(|run| run.id.0.clone()).unwrap_or_default(),
            runs: group.history.len(),
            unsettled: group.unsettled.len(),
        };
        Self {
            header: header.clone(),
            groups: state.groups.iter().map(group).collect(),
            audit_entries: state.audit.len(),
            alarms: state.alarms.len(),
        }
    }
}

fn head(page: &mut Page, header: &Header) {
    page.line([
        bold(&header.cluster),
        dim(format!("   epoch {}   log {}", header.epoch, header.applied_index)),
        dim(format!("   made {} by {}, version {}", stamp(header.taken_at_ms), header.by, header.version)),
    ]);
}

/// `cluster show`.
pub fn held(held: &Held) -> Page {
    let mut page = Page::default();
    head(&mut page, &held.header);
    page.gap();
    let mut rows: Vec<Vec<Span>> =
        vec![["GROUP", "SERVING", "TOKEN", "RUNS", "UNSETTLED", "OPEN RUN", ""].iter().map(dim).collect()];
    rows.extend(held.groups.iter().map(|group| {
        vec![
            bold(&group.name),
            if group.serving.is_empty() { warn("nobody") } else { Span::from(group.serving.as_str()) },
            Span::from(group.token.as_str()),
            Span::from(group.runs.to_string()),
            Span::from(group.unsettled.to_string()),
            if group.open_run.is_empty() { dim("none") } else { warn(&group.open_run) },
            if group.paused { warn("paused") } else { Span::default() },
        ]
    }));
    page.table(0, rows);
    page.gap();
    page.line([dim(format!(
        "{} audit entries, {} alarms, {}",
        held.audit_entries,
        held.alarms,
        bytes(held.header.bytes)
    ))]);
    page
}

/// `cluster backup`.
pub fn written(path: &Path, of: &Held) -> Page {
    let mut page = held(of);
    page.line([good("written "), Span::from(path.display().to_string()), dim("; keep it off the nodes")]);
    page
}

/// The backup, and what becomes of each group.
pub fn side_by_side(header: &Header, answer: &RestoreResponse) -> Page {
    let mut page = Page::default();
    head(&mut page, header);
    page.gap();
    let head = ["GROUP", "SERVED THEN", "SERVES NOW", "TOKEN THEN", "TOKEN NOW", "RUNS", ""];
    let mut rows: Vec<Vec<Span>> = vec![head.iter().map(dim).collect()];
    rows.extend(answer.groups.iter().map(row));
    page.table(0, rows);
    for group in &answer.groups {
        if !group.open_run.is_empty() {
            page.line([warn(format!(
                "{}: run {} is not resumed: it goes to the history as aborted",
                group.name, group.open_run
            ))]);
        }
        if !group.unsettled.is_empty() {
            page.line([warn(format!(
                "{}: left unsettled, to be read back: {}",
                group.name,
                group.unsettled.join(", ")
            ))]);
        }
    }
    page.gap();
    page.line([dim("every group begins paused; leases are unbound; guards must be enrolled with the new epoch")]);
    page
}

fn row(group: &RestoredGroup) -> Vec<Span> {
    let or = |text: &str, none: &str| if text.is_empty() { dim(none) } else { Span::from(text) };
    let moved = group.in_backup && group.served != group.serves;
    let serves = if moved { warn(&group.serves) } else { good(&group.serves) };
    let served = match (group.in_backup, group.served.as_str()) {
        (false, _) => dim("not in it"),
        (true, "") => warn("nobody"),
        (true, region) => Span::from(region),
    };
    vec![
        bold(&group.name),
        served,
        serves,
        or(&group.token_before, "-"),
        Span::from(group.token.as_str()),
        Span::from(group.runs.to_string()),
        if moved { warn("it differs: look again") } else { Span::default() },
    ]
}

/// `cluster restore`.
pub fn restored(cluster: &str, answer: &RestoreResponse) -> Page {
    let mut page = Page::default();
    page.gap();
    page.line([
        bold(cluster),
        good(" restored"),
        dim(format!("; the {} entries of the backup's audit stay there", answer.audit_entries)),
    ]);
    page.line([dim(
        "next: enrol every guard with the new epoch, look at watchdogctl status, then watchdogctl resume GROUP",
    )]);
    page
}
