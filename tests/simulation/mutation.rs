//! What is taken out, in the product or in the models, to show that the promises notice.

use std::cell::Cell;

use watchdog::domain::mutation::{Mutation, take_out};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// In the product.
    Product(Mutation),
    /// A guard that does not compare tokens.
    HostTakesLowerTokens,
    /// A zone that takes every change.
    ZoneTakesLowerTokens,
    /// A guard that begins what came too late.
    GuardIgnoresDeadline,
}

thread_local! {
    static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
}

pub fn set(mutant: Option<Mutant>) {
    MUTANT.set(mutant);
    take_out(match mutant {
        Some(Mutant::Product(mutation)) => Some(mutation),
        _ => None,
    });
}

pub fn is_in(mutant: Mutant) -> bool {
    MUTANT.get() == Some(mutant)
}

/// Every mutant: the name it is asked for by, a seed that notices it, and what it is.
pub const ALL: &[(&str, Mutant, u64, &str)] = &[
    ("host-takes-lower-tokens", Mutant::HostTakesLowerTokens, 68, "a guard does not compare tokens"),
    ("zone-takes-lower-tokens", Mutant::ZoneTakesLowerTokens, 0, "the zone's compare-and-swap always swaps"),
    ("guard-ignores-deadline", Mutant::GuardIgnoresDeadline, 0, "a guard begins what came too late"),
    (
        "promote-without-reread",
        Mutant::Product(Mutation::PromoteWithoutReread),
        4,
        "no re-read of the fence before promoting",
    ),
    (
        "start-without-confirming",
        Mutant::Product(Mutation::StartWithoutConfirming),
        4,
        "no ReadIndex before `StepStarted`",
    ),
    ("act-before-commit", Mutant::Product(Mutation::ActBeforeCommit), 4, "acting without waiting for `StepStarted`"),
    (
        "repeat-instead-of-reading-back",
        Mutant::Product(Mutation::RepeatInsteadOfReadingBack),
        45,
        "an open question is done again instead of read back",
    ),
    ("any-token-holds", Mutant::Product(Mutation::AnyTokenHolds), 4, "`apply` does not check the holder's token"),
    ("no-fence-proof", Mutant::Product(Mutation::NoFenceProof), 4, "promoting without fence proof"),
    ("no-loss-gate", Mutant::Product(Mutation::NoLossGate), 5, "the loss is not judged"),
    ("no-pause-gate", Mutant::Product(Mutation::NoPauseGate), 20, "a pause stops nothing"),
    ("claim-does-not-raise", Mutant::Product(Mutation::ClaimDoesNotRaise), 4, "a claim issues the same token again"),
    ("no-hold-down", Mutant::Product(Mutation::NoHoldDown), 4, "no hold-down"),
    ("majority-of-present", Mutant::Product(Mutation::MajorityOfPresent), 7, "a majority of those present is enough"),
    ("many-open-runs", Mutant::Product(Mutation::ManyOpenRuns), 26, "a second run may open beside the first"),
    ("no-cooldown", Mutant::Product(Mutation::NoCooldown), 0, "no cooldown, and no limit of one failover an epoch"),
];
