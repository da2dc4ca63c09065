//! What ends a drill at once: the targets and events that its settings name.

use super::Drill;
use crate::domain::ids::GroupName;
use crate::domain::policy::{ClusterPolicy, GroupPolicy, Need, Trigger};
use crate::domain::quorum;
use crate::domain::state::{ClusterState, GroupState};
use crate::domain::view::View;

/// The first of them that holds now, in words.
pub fn alarm(
    state: &ClusterState,
    policy: &ClusterPolicy,
    (name, rules): (&GroupName, &GroupPolicy),
    group: &GroupState,
    drill: &Drill,
    view: &View,
) -> Option<String> {
    let is_down = |target: &&crate::domain::ids::TargetName| {
        let trigger = Trigger { targets: vec![(*target).clone()], need: Need::All };
        quorum::count(policy, name, rules, &trigger, &drill.from, &group.seen_up, view).is_down()
    };
    if let Some(target) = drill.settings.abort_targets.iter().find(is_down) {
        return Some(format!("a quorum sees {target} down"));
    }
    let told = state.incidents.values().find(|incident| {
        let page = &incident.page;
        let is_named = drill.settings.abort_events.contains(&page.event);
        is_named && page.group.as_ref() == Some(name) && incident.at >= drill.opened_at
    });
    told.map(|incident| format!("{}: {}", incident.page.event, incident.page.summary))
}
