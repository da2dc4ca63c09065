//! What is replicated, as another node may send it: commands and snapshots. Applying never panics, whatever they say.

use std::collections::BTreeMap;

use watchdog::domain::command::{Applied, Command};
use watchdog::domain::ids::{GroupName, Token};
use watchdog::domain::invariants::{violations, violations_between};
use watchdog::domain::state::ClusterState;

use crate::corpus;
use crate::runner::{Target, Trial, holds};

fn states() -> Vec<ClusterState> {
    corpus::of("state").iter().map(|bytes| serde_json::from_slice(bytes).unwrap()).collect()
}

pub fn any_command_is_applied_or_rejected_alike_everywhere() -> Trial {
    let states = states();
    Target::new("commands", corpus::of("command")).judged_by(move |bytes| {
        let Ok(command) = serde_json::from_slice::<Command>(bytes) else { return Ok(()) };
        let printed = serde_json::to_vec(&command).unwrap();
        let again = serde_json::from_slice::<Command>(&printed);
        holds(again.is_ok_and(|again| again == command), || "comes back as another".to_owned())?;
        for before in &states {
            let (mut one, mut other) = (before.clone(), before.clone());
            let (first, second) =
                (one.apply(before.applied_index + 1, &command), other.apply(before.applied_index + 1, &command));
            holds(first == second && one == other, || format!("{first:?} here and {second:?} there"))?;
            let broken = [violations(&one), violations_between(before, &one)].concat();
            holds(broken.is_empty(), || format!("{broken:?} after {first:?}"))?;
            let tokens = |state: &ClusterState| -> BTreeMap<GroupName, Token> {
                state.groups.iter().map(|(name, group)| (name.clone(), group.token)).collect()
            };
            let after = tokens(&one);
            let higher = tokens(before).iter().all(|(name, token)| after.get(name).is_some_and(|after| after >= token));
            holds(higher, || format!("a token went back after {first:?}"))?;
            if let Applied::Rejected(rejection) = &first {
                holds(!rejection.message.is_empty(), || "rejected without a word".to_owned())?;
                holds(after == tokens(before), || "rejected, and yet a token was issued".to_owned())?;
            }
            // A snapshot of it is read back as it was.
            let snapshot = serde_json::to_vec(&one).unwrap();
            let read: ClusterState = serde_json::from_slice(&snapshot).map_err(|e| format!("its snapshot: {e}"))?;
            holds(read == one, || "its snapshot is another state".to_owned())?;
        }
        Ok(())
    })
}

pub fn any_snapshot_is_a_state_that_goes_on_or_is_told() -> Trial {
    let commands: Vec<Command> =
        corpus::of("command").iter().map(|bytes| serde_json::from_slice(bytes).unwrap()).collect();
    Target::new("snapshots", corpus::of("state")).judged_by(move |bytes| {
        let mut state: ClusterState = match serde_json::from_slice(bytes) {
            Ok(state) => state,
            Err(why) => return holds(!why.to_string().is_empty(), String::new),
        };
        for command in &commands {
            let index = state.applied_index.saturating_add(1);
            state.apply(index, command);
        }
        Ok(())
    })
}
