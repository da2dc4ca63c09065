//! What is taken out, in the product or in the models, to show that the promises notice.

use std::cell::Cell;

use watchdog::domain::mutation::{Mutation, take_out};

use crate::shapes::Shape;

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
    /// A guard that holds although a higher token than the ground was raised.
    HoldIgnoresToken,
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

/// What is taken out, and where that is noticed.
pub struct Taken {
    /// It is asked for by this name.
    pub name: &'static str,
    pub mutant: Mutant,
    /// A seed that notices it; 0 where none is known.
    pub known: u64,
    /// Schedules of this shape were made to notice it.
    pub shape: Option<Shape>,
    pub what: &'static str,
}

/// Every mutant.
pub const ALL: &[Taken] = &[
    Taken {
        name: "host-takes-lower-tokens",
        mutant: Mutant::HostTakesLowerTokens,
        known: 23,
        shape: Some(Shape::Asleep),
        what: "a guard does not compare tokens",
    },
    Taken {
        name: "zone-takes-lower-tokens",
        mutant: Mutant::ZoneTakesLowerTokens,
        known: 8,
        shape: Some(Shape::Asleep),
        what: "the zone's compare-and-swap always swaps",
    },
    Taken {
        name: "guard-ignores-deadline",
        mutant: Mutant::GuardIgnoresDeadline,
        known: 45,
        shape: Some(Shape::LateAtAHost),
        what: "a guard begins what came too late",
    },
    Taken {
        name: "promote-without-reread",
        mutant: Mutant::Product(Mutation::PromoteWithoutReread),
        known: 3,
        shape: None,
        what: "no re-read of the fence before promoting",
    },
    Taken {
        name: "start-without-confirming",
        mutant: Mutant::Product(Mutation::StartWithoutConfirming),
        known: 1,
        shape: None,
        what: "no ReadIndex before `StepStarted`",
    },
    Taken {
        name: "act-before-commit",
        mutant: Mutant::Product(Mutation::ActBeforeCommit),
        known: 1,
        shape: None,
        what: "acting without waiting for `StepStarted`",
    },
    Taken {
        name: "repeat-instead-of-reading-back",
        mutant: Mutant::Product(Mutation::RepeatInsteadOfReadingBack),
        known: 4,
        shape: None,
        what: "an open question is done again instead of read back",
    },
    Taken {
        name: "any-token-holds",
        mutant: Mutant::Product(Mutation::AnyTokenHolds),
        known: 4,
        shape: None,
        what: "`apply` does not check the holder's token",
    },
    Taken {
        name: "no-fence-proof",
        mutant: Mutant::Product(Mutation::NoFenceProof),
        known: 1,
        shape: None,
        what: "promoting without fence proof",
    },
    Taken {
        name: "no-loss-gate",
        mutant: Mutant::Product(Mutation::NoLossGate),
        known: 8,
        shape: None,
        what: "the loss is not judged",
    },
    Taken {
        name: "no-pause-gate",
        mutant: Mutant::Product(Mutation::NoPauseGate),
        known: 10,
        shape: None,
        what: "a pause stops nothing",
    },
    Taken {
        name: "claim-does-not-raise",
        mutant: Mutant::Product(Mutation::ClaimDoesNotRaise),
        known: 1,
        shape: None,
        what: "a claim issues the same token again",
    },
    Taken {
        name: "no-hold-down",
        mutant: Mutant::Product(Mutation::NoHoldDown),
        known: 4,
        shape: None,
        what: "no hold-down",
    },
    Taken {
        name: "majority-of-present",
        mutant: Mutant::Product(Mutation::MajorityOfPresent),
        known: 537,
        shape: None,
        what: "a majority of those present is enough",
    },
    Taken {
        name: "many-open-runs",
        mutant: Mutant::Product(Mutation::ManyOpenRuns),
        known: 315,
        shape: None,
        what: "a second run may open beside the first",
    },
    Taken {
        name: "no-rate-margin",
        mutant: Mutant::Product(Mutation::NoRateMargin),
        known: 346,
        shape: Some(Shape::Unseen),
        what: "a lease is waited for without the margin of 20 %",
    },
    Taken {
        name: "grant-from-arrival",
        mutant: Mutant::Product(Mutation::GrantFromArrival),
        known: 346,
        shape: Some(Shape::Unseen),
        what: "a granted lease counts from its answer, not from its request",
    },
    Taken {
        name: "grant-after-fence",
        mutant: Mutant::Product(Mutation::GrantAfterFence),
        known: 314,
        shape: Some(Shape::Unseen),
        what: "a leader goes on granting once it has proposed the fence",
    },
    Taken {
        name: "silence-unbound",
        mutant: Mutant::Product(Mutation::SilenceUnbound),
        known: 3,
        shape: Some(Shape::Unbound),
        what: "silence counts although no lease is bound",
    },
    Taken {
        name: "holds-not-ended",
        mutant: Mutant::Product(Mutation::HoldsNotEnded),
        known: 116,
        shape: Some(Shape::Hermit),
        what: "silence counts although holds may renew the lease",
    },
    Taken {
        name: "hold-ignores-token",
        mutant: Mutant::HoldIgnoresToken,
        known: 359,
        shape: Some(Shape::Hermit),
        what: "a hold is granted though a higher token was raised",
    },
    Taken {
        name: "challenge-unchecked",
        mutant: Mutant::Product(Mutation::ChallengeUnchecked),
        known: 1238,
        shape: Some(Shape::LateAnswers),
        what: "a request that was held up may bind the lease",
    },
    Taken {
        name: "open-before-unbind",
        mutant: Mutant::Product(Mutation::OpenBeforeUnbind),
        known: 94,
        shape: Some(Shape::LateAnswers),
        what: "the gate may be opened before the unbinding is committed",
    },
    Taken {
        name: "open-out-of-order",
        mutant: Mutant::Product(Mutation::OpenOutOfOrder),
        known: 1368,
        shape: Some(Shape::LateAnswers),
        what: "the gate is opened by the answer to an older request",
    },
    Taken {
        name: "holds-not-asked",
        mutant: Mutant::Product(Mutation::HoldsNotAsked),
        known: 168,
        shape: Some(Shape::WatchdogsGone),
        what: "no guard asks for promotion holds",
    },
    Taken {
        name: "orders-not-audited",
        mutant: Mutant::Product(Mutation::OrdersNotAudited),
        known: 3,
        shape: None,
        what: "people's orders are not in the audit",
    },
    Taken {
        name: "no-cooldown",
        mutant: Mutant::Product(Mutation::NoCooldown),
        known: 33,
        shape: Some(Shape::TwoDisasters),
        what: "no cooldown, and no limit of one failover an epoch",
    },
    Taken {
        name: "no-catch-up",
        mutant: Mutant::Product(Mutation::NoCatchUp),
        known: 2,
        shape: Some(Shape::Moved),
        what: "a planned move promotes though nobody saw that the standby has everything",
    },
    Taken {
        name: "turn-back-after-promotion",
        mutant: Mutant::Product(Mutation::TurnBackAfterPromotion),
        known: 14,
        shape: Some(Shape::Moved),
        what: "a planned move turns back though its promotion was begun",
    },
    Taken {
        name: "forward-on-the-way-back",
        mutant: Mutant::Product(Mutation::ForwardOnTheWayBack),
        known: 118,
        shape: Some(Shape::Moved),
        what: "a step of the way forward starts on the way back",
    },
    Taken {
        name: "reverted-unreleased",
        mutant: Mutant::Product(Mutation::RevertedUnreleased),
        known: 2,
        shape: Some(Shape::Moved),
        what: "a run that turned back is closed before its release",
    },
    Taken {
        name: "release-without-serving",
        mutant: Mutant::Product(Mutation::ReleaseWithoutServing),
        known: 2,
        shape: Some(Shape::Moved),
        what: "a release leaves serving as it is: nobody's",
    },
    Taken {
        name: "stopped-for-ever",
        mutant: Mutant::Product(Mutation::StoppedForEver),
        known: 26,
        shape: Some(Shape::Moved),
        what: "a planned move that has stopped the writing waits for ever",
    },
    Taken {
        name: "redis-before-fence",
        mutant: Mutant::Product(Mutation::RedisBeforeFence),
        known: 12,
        shape: None,
        what: "Redis is promoted before the old one is fenced",
    },
];
