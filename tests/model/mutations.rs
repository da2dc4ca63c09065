//! Does the search bite? One rule is broken at a time, and the promise that it keeps must be seen to break.

use watchdog::domain::mutation::Mutation as Gate;

use super::rules::{MOVE, Mode, Mutation, QUIET, Rules, Scope};
use super::search;
use super::steps::Step;

const FAULTS: Rules = Rules { elections: 1, losses: 1, ..QUIET };

const TURNED: &str = "p6 nothing goes forward after turning back";

/// Something fails, a request arrives once more, and somebody aborts.
const TRIED: Rules = Rules { failures: 1, duplicates: 1, orders: 1, attempts: 1, ..MOVE };

/// The rule, where it is broken, and what must break of it first. `None`: nothing, and `docs/VERIFICATION.md` says why.
const TABLE: &[(Mutation, Rules, Option<&str>)] = &[
    (Mutation::GuardTakesLowerToken, FAULTS, Some("p3 no resource acts under a lower token")),
    (
        Mutation::ZoneTakesLowerToken,
        Rules { steps: &super::steps::FAILOVER, attempts: 1, losses: 0, ..FAULTS },
        Some("p3 no resource acts under a lower token"),
    ),
    (Mutation::GuardForgetsToken, FAULTS, Some("p6 no effect after it was called off")),
    (Mutation::GuardActsAgain, Rules { duplicates: 1, ..QUIET }, Some("p6 each effect lands once")),
    (Mutation::FenceNeedsNoLatch, Rules { crashes: 1, ..QUIET }, Some("p4 promoted only when fenced")),
    (Mutation::BootGateIgnoresLatch, QUIET, Some("p4 one database takes writes")),
    (Mutation::FenceIsNotReadAgain, Rules { unfencings: 1, ..QUIET }, Some("p4 promoted only when fenced")),
    (Mutation::ActsWithoutIntent, FAULTS, Some("p2 no effect without its intent")),
    (Mutation::SilenceIsFailure, FAULTS, Some("p6 no effect after it was called off")),
    (
        Mutation::NotThereIsNever,
        Rules { steps: &[Step::Fence, Step::Dns, Step::Promote], losses: 1, ..QUIET },
        Some("p6 no effect after it was called off"),
    ),
    (
        Mutation::SettlesUnderOwnToken,
        Rules { orders: 1, losses: 0, ..FAULTS },
        Some("p6 no effect after it was called off"),
    ),
    (Mutation::LookRaisesNothing, FAULTS, Some("p6 no effect after it was called off")),
    (Mutation::ClaimIssuesNoToken, FAULTS, Some("the state's invariants hold")),
    (Mutation::LogTakesStaleTokens, Rules { forwards: true, ..FAULTS }, Some("p2 no intent under an old claim")),
    (Mutation::LogIgnoresPause, Rules { pauses: 1, ..QUIET }, Some("p9 nothing starts while paused")),
    (Mutation::LogStartsOnUnsettled, Rules { orders: 1, ..FAULTS }, Some("p6 no effect after it was called off")),
    (
        Mutation::LogOpensBesideOpenRun,
        Rules { forwards: true, elections: 1, runs: 2, ..QUIET },
        Some("p1 one run is open at a time"),
    ),
    (Mutation::LeadershipIsNotConfirmed, FAULTS, None),
    (Mutation::Product(Gate::NoCatchUp), MOVE, Some("p5 a planned move loses nothing")),
    (
        Mutation::Product(Gate::PlannedOnAnyProof),
        Rules { mode: Mode::None, unfencings: 1, ..MOVE },
        Some("p4 promoted only when fenced"),
    ),
    (Mutation::Product(Gate::PlannedBySkipping), Rules { orders: 1, ..MOVE }, Some("p6 whoever turned back serves")),
    (Mutation::Product(Gate::TurnBackAfterPromotion), MOVE, Some("the state's invariants hold")),
    (Mutation::Product(Gate::ForwardOnTheWayBack), MOVE, Some("the state's invariants hold")),
    (Mutation::Product(Gate::ReleaseOverOpenQuestion), Rules { losses: 1, ..MOVE }, Some(TURNED)),
    (Mutation::Product(Gate::ReleaseUnderOldToken), TRIED, Some(TURNED)),
    (Mutation::Product(Gate::ReleaseWithoutLook), TRIED, None),
    (Mutation::Product(Gate::RevertedUnreleased), MOVE, Some("p6 whoever turned back serves")),
    (Mutation::Product(Gate::ReleaseWithoutServing), MOVE, Some("p6 whoever turned back serves")),
];

#[test]
fn every_broken_rule_is_found_out() {
    println!("{:<26} {:<42} {:>5} {:>8} {:>6}", "rule broken", "promise seen to break", "steps", "states", "s");
    let mut wrong = Vec::new();
    for (mutation, rules, wanted) in TABLE {
        let found = search(&Scope { name: "mutation", rules: rules.with(*mutation) });
        let is_as_wanted = wanted.map_or(found.broken.is_empty(), |wanted| found.broken.contains(&wanted));
        println!("{}", found.line(&format!("{mutation:?}"), wanted.unwrap_or("nothing")));
        if std::env::var_os("MODEL_WAYS").is_some() {
            found.way.iter().for_each(|act| println!("    {act}"));
        }
        if !is_as_wanted {
            wrong.push(format!("{mutation:?}: {:?}, not {wanted:?}", found.broken));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
