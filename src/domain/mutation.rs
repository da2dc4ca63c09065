//! Gates that can be taken out one at a time, so that the simulation can show that it notices. In builds without the
//! feature `simulation` none can be, and asking costs nothing.

/// What is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The fence is not read back again before promoting: that its step is done is taken for proof.
    PromoteWithoutReread,
    /// Steps start without a quorum round (ReadIndex).
    StartWithoutConfirming,
    /// Effects are asked for before `StepStarted` is known to be committed.
    ActBeforeCommit,
    /// What may have happened is not read back after a take-over: it is called failed, and done again.
    RepeatInsteadOfReadingBack,
    /// The log takes any token for the holder's.
    AnyTokenHolds,
    /// A promotion needs no fence proof.
    NoFenceProof,
    /// What a promotion would lose is not judged.
    NoLossGate,
    /// A pause stops nothing.
    NoPauseGate,
    /// A claim issues the token that is there already.
    ClaimDoesNotRaise,
    /// A failover opens at the first moment of agreement.
    NoHoldDown,
    /// A majority of those who report is enough.
    MajorityOfPresent,
    /// A second run may open beside the first.
    ManyOpenRuns,
    /// A failover may follow another at once.
    NoCooldown,
    /// A lease is waited for no longer than its TTL.
    NoRateMargin,
    /// A granted lease counts from when the answer came.
    GrantFromArrival,
    /// A leader goes on granting after it has proposed a fence.
    GrantAfterFence,
    /// Silence proves something also where no lease is bound.
    SilenceUnbound,
    /// Silence counts although promotion holds may renew the lease.
    HoldsNotEnded,
    /// A request that was held up on its way may bind the lease.
    ChallengeUnchecked,
    /// The gate may be opened before the unbinding is committed.
    OpenBeforeUnbind,
    /// The gate is opened by the answer to any request, however old.
    OpenOutOfOrder,
    /// A primary's guard asks nobody for promotion holds.
    HoldsNotAsked,
    /// Orders leave nothing in the audit.
    OrdersNotAudited,
    /// A planned move promotes though nobody saw that the standby has everything.
    NoCatchUp,
    /// A planned move promotes on any proof.
    PlannedOnAnyProof,
    /// A person's word takes the place of what a planned move proves.
    PlannedBySkipping,
    /// A planned move turns back by itself though its promotion was begun.
    TurnBackAfterPromotion,
    /// A step of the way forward starts on the way back.
    ForwardOnTheWayBack,
    /// The old primary is released while what the way forward did is an open question.
    ReleaseOverOpenQuestion,
    /// The old primary is released under the very token of what it undoes.
    ReleaseUnderOldToken,
    /// The old primary is released without a look at the promotion that was tried.
    ReleaseWithoutLook,
    /// A run that turned back is closed before the old primary was released.
    RevertedUnreleased,
    /// A planned move that has stopped the writing waits for ever.
    StoppedForEver,
    /// A release leaves serving as it is: nobody's.
    ReleaseWithoutServing,
    /// Redis is promoted beside the fence of the old one.
    RedisBeforeFence,
}

#[cfg(feature = "simulation")]
thread_local! {
    static TAKEN_OUT: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Takes a gate out, on this thread.
#[cfg(feature = "simulation")]
pub fn take_out(mutation: Option<Mutation>) {
    TAKEN_OUT.set(mutation);
}

/// Whether the gate is taken out.
#[cfg(feature = "simulation")]
pub fn is_out(mutation: Mutation) -> bool {
    TAKEN_OUT.get() == Some(mutation)
}

/// Whether the gate is taken out: never.
#[cfg(not(feature = "simulation"))]
pub const fn is_out(_: Mutation) -> bool {
    false
}
