//! Which leases this leader granted, and in which groups it must not grant any more. One lock orders the two: whatever is
//! granted is known to whoever stops, and nothing is granted after.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::domain::ids::GroupName;

#[derive(Debug, Default)]
struct Slot {
    is_stopped: bool,
    last_granted: Option<Instant>,
}

/// Every group's grants. Kept for the life of the process: what was granted in an earlier leadership counts too.
#[derive(Debug, Default)]
pub struct Leases {
    slots: Mutex<BTreeMap<GroupName, Slot>>,
}

impl Leases {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<GroupName, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is granted in this group from now on. Called before a fence's or promotion's intent is proposed, whatever
    /// becomes of the proposal.
    pub fn stop(&self, group: &GroupName) {
        self.slots().entry(group.clone()).or_default().is_stopped = true;
    }

    /// The applied state shows no open run: whatever was proposed for one is void.
    pub fn allow(&self, group: &GroupName) {
        if let Some(slot) = self.slots().get_mut(group) {
            slot.is_stopped = false;
        }
    }

    /// Granting was stopped.
    pub fn is_stopped(&self, group: &GroupName) -> bool {
        self.slots().get(group).is_some_and(|slot| slot.is_stopped)
    }

    /// Records a grant whose request arrived then. `false`: granting was stopped meanwhile, and the request must be denied.
    pub fn grant(&self, group: &GroupName, arrived: Instant) -> bool {
        let mut slots = self.slots();
        let slot = slots.entry(group.clone()).or_default();
        if slot.is_stopped {
            return false;
        }
        slot.last_granted = slot.last_granted.max(Some(arrived));
        true
    }

    /// When the last request that was granted arrived.
    pub fn last_granted(&self, group: &GroupName) -> Option<Instant> {
        self.slots().get(group).and_then(|slot| slot.last_granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_granted_after_a_stop_and_what_was_is_known() {
        let (leases, group) = (Leases::default(), GroupName::from("shop"));
        let early = Instant::now();
        let late = early + std::time::Duration::from_secs(1);
        assert!(leases.grant(&group, late) && leases.grant(&group, early));
        assert_eq!(leases.last_granted(&group), Some(late), "a request that arrived earlier does not count back");
        leases.stop(&group);
        assert!(!leases.grant(&group, late));
        assert!(leases.grant(&GroupName::from("other"), late), "one group's fence is not another's");
        leases.allow(&group);
        assert!(leases.grant(&group, late));
    }
}
