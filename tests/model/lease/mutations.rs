//! Does the search bite? One rule of docs/adr/0008 is broken at a time, and what it keeps must be seen to break.

use super::bounds::{Begins, Bound, Mutation, QUIET, Scope};
use super::search;

const SILENCE: &str = "p4 silence that counts is silence";
const SHUTS: &str = "a bound lease's gate shuts by itself";

const ONE_LOOK: Bound = Bound { looks: 1, ..QUIET };
const LEADERS: Bound = Bound { elections: 1, ..ONE_LOOK };
const HOLDS: Bound = Bound { holders: 1, ..ONE_LOOK };
const PAUSED: Bound = Bound { pauses: 1, moments: 2, runs: 0, ..QUIET };
const UNBOUND: Bound = Bound { begins: Begins::Bounded, ..PAUSED };
const NEW: Bound = Bound { begins: Begins::New, looks: 2, faults: 1, moments: 2, runs: 0, ..QUIET };

/// The rule, where it is broken, and what must break of it.
type Row = (Mutation, Bound, &'static str);

/// All of them.
const TABLE: &[Row] = &[
    (Mutation::AttestsUnseen, NEW, SHUTS),
    (Mutation::BoundIsNotSaved, Bound { kills: 1, looks: 3, begins: Begins::Open, pauses: 0, ..PAUSED }, SHUTS),
    (Mutation::BindsUnattested, NEW, SHUTS),
    (Mutation::OpensBeforeUnbinding, PAUSED, SHUTS),
    (Mutation::OpensWhateverServes, Bound { pauses: 1, moments: 2, ..ONE_LOOK }, SILENCE),
    (Mutation::GrantsAfterStop, ONE_LOOK, SILENCE),
    (Mutation::StopsWhenHeard, Bound { losses: 1, ..ONE_LOOK }, SILENCE),
    (Mutation::StateForbidsNothing, LEADERS, SILENCE),
    (Mutation::CountsFromAnswer, ONE_LOOK, SILENCE),
    (Mutation::RelativeDeadline, ONE_LOOK, SILENCE),
    (Mutation::GrantsUnconfirmed, LEADERS, SILENCE),
    (Mutation::ForgetsEarlierLeaders, LEADERS, SILENCE),
    (Mutation::ForgetsOwnGrants, ONE_LOOK, SILENCE),
    (Mutation::OpenEndedIsNoGrant, Bound { pauses: 1, faults: 1, moments: 2, ..QUIET }, SILENCE),
    (Mutation::NoRateMargin, ONE_LOOK, SILENCE),
    (Mutation::HoldsAreNotAsked, HOLDS, SILENCE),
    (Mutation::HoldsAreNotEnded, HOLDS, SILENCE),
    (Mutation::HoldsInForceDoNotCount, HOLDS, SILENCE),
    (Mutation::OnlyTheTargetIsAsked, Bound { begins: Begins::BoundBySecond, holders: 2, ..ONE_LOOK }, SILENCE),
    (Mutation::GroundWhileRunOpen, Bound { looks: 2, ..HOLDS }, SILENCE),
    (Mutation::HoldIsNotSaved, HOLDS, SILENCE),
    (Mutation::OlderAnswerOpens, Bound { looks: 3, hastes: true, moments: 0, ..PAUSED }, SHUTS),
    (Mutation::AnyRequestBinds, PAUSED, SHUTS),
    (Mutation::ChallengeIsNotDrawnAnew, PAUSED, SHUTS),
    (Mutation::ChallengeOutlivesTerm, Bound { elections: 2, ..PAUSED }, SHUTS),
    (Mutation::ProposesInAnyTerm, Bound { elections: 2, ..UNBOUND }, SHUTS),
    (Mutation::UnheardBindingStands, Bound { losses: 1, ..UNBOUND }, SHUTS),
    (Mutation::TakesNoTurns, UNBOUND, SHUTS),
];

#[test]
fn every_broken_rule_of_the_lease_is_found_out() {
    println!("{:<26} {:<42} {:>5} {:>8} {:>6}", "rule broken", "promise seen to break", "steps", "states", "s");
    let mut wrong = Vec::new();
    for (mutation, bound, wanted) in TABLE {
        let found = search(&Scope { name: "mutation", bound: bound.with(*mutation) });
        println!("{}", found.line(&format!("{mutation:?}"), wanted));
        if std::env::var_os("MODEL_WAYS").is_some() {
            found.way.iter().for_each(|act| println!("    {act}"));
        }
        if !found.broken.contains(wanted) {
            wrong.push(format!("{mutation:?}: {:?}, not {wanted:?}", found.broken));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
