//! Which leases this leader granted, and in which groups it must not grant any more. One lock orders the two: whatever is
//! granted is known to whoever stops, and nothing is granted after.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::domain::ids::{GroupName, RegionName};
use crate::domain::mutation::{Mutation, is_out};

#[derive(Debug, Default)]
struct Slot {
    is_stopped: bool,
    last_granted: Option<Instant>,
}

/// Every group's grants, by the region whose primary was granted. Kept for the life of the process: what was granted in an earlier leadership counts too.
#[derive(Debug, Default)]
pub struct Leases {
    slots: Mutex<BTreeMap<(GroupName, RegionName), Slot>>,
}

impl Leases {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<(GroupName, RegionName), Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is granted to this region's primary from now on. Called before a fence's or promotion's intent is proposed, whatever
    /// becomes of the proposal.
    pub fn stop(&self, group: &GroupName, region: &RegionName) {
        if is_out(Mutation::GrantAfterFence) {
            return;
        }
        self.slots().entry((group.clone(), region.clone())).or_default().is_stopped = true;
    }

    /// The applied state shows no open run: whatever was proposed for one is void.
    pub fn allow(&self, group: &GroupName) {
        for (_, slot) in self.slots().iter_mut().filter(|((of, _), _)| of == group) {
            slot.is_stopped = false;
        }
    }

    /// As [`allow`](Self::allow), for one region while the run that has turned back to it is still open.
    pub fn allow_in(&self, group: &GroupName, region: &RegionName) {
        if let Some(slot) = self.slots().get_mut(&(group.clone(), region.clone())) {
            slot.is_stopped = false;
        }
    }

    /// Granting was stopped.
    pub fn is_stopped(&self, group: &GroupName, region: &RegionName) -> bool {
        self.slots().get(&(group.clone(), region.clone())).is_some_and(|slot| slot.is_stopped)
    }

    /// Records a grant whose request arrived then. `false`: granting was stopped meanwhile, and the request must be denied.
    pub fn grant(&self, group: &GroupName, region: &RegionName, arrived: Instant) -> bool {
        let mut slots = self.slots();
        let slot = slots.entry((group.clone(), region.clone())).or_default();
        if slot.is_stopped {
            return false;
        }
        slot.last_granted = slot.last_granted.max(Some(arrived));
        true
    }

    /// When the last request of this region's primary that was granted arrived.
    pub fn last_granted(&self, group: &GroupName, region: &RegionName) -> Option<Instant> {
        self.slots().get(&(group.clone(), region.clone())).and_then(|slot| slot.last_granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_granted_after_a_stop_and_what_was_is_known() {
        let (leases, group) = (Leases::default(), GroupName::from("shop"));
        let (old, new) = (RegionName::from("hcmc"), RegionName::from("hanoi"));
        let early = Instant::now();
        let late = early + std::time::Duration::from_secs(1);
        assert!(leases.grant(&group, &old, late) && leases.grant(&group, &old, early));
        assert_eq!(leases.last_granted(&group, &old), Some(late), "a request that arrived earlier does not count back");
        leases.stop(&group, &old);
        assert!(!leases.grant(&group, &old, late));
        assert!(leases.grant(&group, &new, late), "the new primary is renewed while the run is open");
        assert!(leases.grant(&GroupName::from("other"), &old, late), "one group's fence is not another's");
        assert_eq!(leases.last_granted(&group, &old), Some(late));
        leases.allow(&group);
        assert!(leases.grant(&group, &old, late));
    }
}
