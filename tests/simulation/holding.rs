//! A standby's guard when it is asked for a promotion hold: the rule of `guard::lease::hold` over a model host, with the
//! real record and the real account of how long it stands.

use watchdog::domain::ids::{HostName, Token};
use watchdog::domain::lease::silence_ms;
use watchdog::guard::lease::hold::HoldRecord;
use watchdog::guard::protocol::{HoldShown, PROMOTE, PostgresRole};

use crate::host::Host;
use crate::keeping;
use crate::mutation::{Mutant, is_in};
use crate::world::{MS, Place, World};

/// What a primary's guard asks.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    pub nonce: u64,
    /// The asking host, and which of its guard's programs.
    pub from: usize,
    pub generation: u64,
    pub ttl_ms: u64,
    pub ground: Token,
}

/// The question has come.
pub fn asked(world: &mut World, at: usize, ask: Ask) {
    let now = world.now();
    let host = &mut world.hosts[at];
    let (arrived_ms, stands_still) = (host.boottime_ms(now), host.stands_still());
    let Some(side) = host.lease.as_mut().filter(|side| side.resident.is_some()) else { return };
    if stands_still {
        side.unread.push(ask);
        return;
    }
    // The server is asked, and the record synced.
    let takes = 1 + (ask.nonce % 16) * MS;
    world.later(takes, move |world| look_into(world, at, ask, arrived_ms));
}

/// Decides, and has it written down.
pub fn look_into(world: &mut World, at: usize, ask: Ask, arrived_ms: u64) {
    let now_ms = world.hosts[at].boottime_ms(world.now());
    let host = &mut world.hosts[at];
    let stands_still = host.stands_still();
    let Some(side) = host.lease.as_mut().filter(|side| side.resident.is_some()) else { return };
    if stands_still {
        side.unanswered.push((ask, arrived_ms));
        return;
    }
    let granted = grants(host, ask, arrived_ms, now_ms);
    if granted {
        let from = HostName(world.hosts[ask.from].name.clone());
        let host = &mut world.hosts[at];
        let (boot_nonce, lasts_ms) = (host.boot_nonce(), silence_ms(ask.ttl_ms));
        let before_ms = standing(host, now_ms).map_or(0, |hold| now_ms + hold.remaining_ms);
        let until_boottime_ms = (arrived_ms + lasts_ms).max(before_ms);
        let record = HoldRecord { boot_nonce, until_boottime_ms, lasts_ms, host: from, ground: ask.ground };
        if let Some(side) = &mut host.lease {
            side.hold = Some(record);
        }
    }
    let (here, there) = (Place::Host(at), Place::Host(ask.from));
    if let Some(delay) = world.travel(here, there) {
        let late = world.lateness();
        world.later(delay + late, move |world| keeping::held(world, ask, granted));
    }
}

fn grants(host: &Host, ask: Ask, arrived_ms: u64, now_ms: u64) -> bool {
    let is_low = host.token <= ask.ground || is_in(Mutant::HoldIgnoresToken);
    let is_promoting = host.work.as_ref().is_some_and(|work| work.what.action == PROMOTE);
    host.role() == PostgresRole::InRecovery
        && is_low
        && !is_promoting
        && now_ms < arrived_ms + ask.ttl_ms
        && !host.mood.fails
}

/// The hold that stands.
pub fn standing(host: &Host, now_ms: u64) -> Option<HoldShown> {
    let hold = host.lease.as_ref()?.hold.as_ref()?;
    let remaining_ms = hold.remaining_ms(&host.boot_nonce(), now_ms);
    (remaining_ms > 0).then(|| HoldShown { host: hold.host.clone(), remaining_ms })
}
