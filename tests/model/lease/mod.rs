//! The lease (docs/adr/0008): two leaders, a primary's guard, its kernel and the standbys' guards, with clocks, late
//! messages, freezes and deaths, searched to the end of a stated bound. `docs/VERIFICATION.md` tells what is modelled.

mod bounds;
mod desk;
mod host;
mod keepers;
mod model;
mod mutations;
mod promises;
mod runs;
mod world;

use bounds::{SCOPES, Scope, WIDE};
use model::LeaseModel;

use super::{Found, explore, report};

fn search(scope: &Scope) -> Found {
    explore(LeaseModel::new(scope.bound), |model| model.log.broken())
}

fn holds(scope: &Scope) {
    report(scope.name, &search(scope), &promises::possible(&scope.bound));
}

scopes! {
    further out: silence_is_silence_further_out,
    silence_is_silence_under_two_leaders: "lease: two leaders",
    silence_is_silence_where_proposals_are_not_heard_of: "lease: proposals unheard",
    silence_is_silence_when_a_leader_comes_back: "lease: a leader comes back",
    silence_is_silence_with_promotion_holds: "lease: promotion holds",
    silence_is_silence_with_two_holders: "lease: two holders",
    silence_is_silence_over_two_runs: "lease: withdrawn and again",
    a_bound_gate_shuts_while_paused: "lease: paused",
    a_bound_gate_shuts_while_paused_under_two_leaders: "lease: paused, two leaders",
    a_bound_gate_shuts_however_often_it_is_asked: "lease: not bound, asking often",
    a_bound_gate_shuts_under_glass: "lease: glass",
    a_bound_gate_shuts_when_the_guard_dies: "lease: the guard dies",
    a_bound_gate_shuts_when_the_guard_dies_while_it_is_open: "lease: it dies while open",
    a_bound_gate_shuts_when_the_host_boots: "lease: the host boots",
    a_lease_is_bound_from_nothing: "lease: from the beginning",
    a_lease_is_bound_after_a_promotion: "lease: from a promotion",
    silence_is_silence_soon_after_a_promotion: "lease: promoted and lost again",
}
