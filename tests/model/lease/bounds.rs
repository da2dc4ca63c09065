//! What is searched: how much of everything, and at most one rule broken on purpose.

/// A rule that the model breaks, to see that the search finds out. By the numbers of docs/adr/0008.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// 1: the guard attests a bounded gate without looking at the kernel.
    AttestsUnseen,
    /// 1: the guard's record that its gate is bounded is not durable.
    BoundIsNotSaved,
    /// 1: the leader binds what was not attested as bounded.
    BindsUnattested,
    /// 2: the leader says "open-ended" without having committed the unbinding.
    OpensBeforeUnbinding,
    /// 2: the leader says "open-ended" though the binding was ended by a promotion that counts on it.
    OpensWhateverServes,
    /// 3: the leader does not stop granting for a fence.
    GrantsAfterStop,
    /// 3: the leader stops granting only when it has heard that the fence's intent is committed.
    StopsWhenHeard,
    /// 3: the state does not forbid granting after the fence's intent.
    StateForbidsNothing,
    /// 4: a grant counts from its answer, not from its request.
    CountsFromAnswer,
    /// 4: the deadline is relative to when the gate is moved.
    RelativeDeadline,
    /// 4: a node that led grants on the quorum round of an earlier request.
    GrantsUnconfirmed,
    /// 4: a new leader does not wait for what earlier ones granted.
    ForgetsEarlierLeaders,
    /// 4: a leader does not wait for what it granted itself.
    ForgetsOwnGrants,
    /// 4: a leader does not wait for what it called open-ended.
    OpenEndedIsNoGrant,
    /// 4: no margin for the rate of clocks.
    NoRateMargin,
    /// 5: holds are not asked about.
    HoldsAreNotAsked,
    /// 5: holds are looked at, no token is raised: a new one may begin.
    HoldsAreNotEnded,
    /// 5: the token is raised, but what is in force is not looked at.
    HoldsInForceDoNotCount,
    /// 5: only the target's hold is ended, not every holder's of the binding.
    OnlyTheTargetIsAsked,
    /// 5: the ground of the open run is told.
    GroundWhileRunOpen,
    /// 5: a hold is not durable before it is answered.
    HoldIsNotSaved,
    /// 6: an answer to an older request opens the gate.
    OlderAnswerOpens,
    /// 7: any request binds, whatever challenge it carries.
    AnyRequestBinds,
    /// 7: no other challenge is drawn before an answer after which the gate may stand open.
    ChallengeIsNotDrawnAnew,
    /// 7: a leader keeps its challenge over the terms.
    ChallengeOutlivesTerm,
    /// 7: what was decided in one term is proposed in a later.
    ProposesInAnyTerm,
    /// 7: a binding that was not heard of is left alone.
    UnheardBindingStands,
    /// 7: binding and answering do not take turns.
    TakesNoTurns,
}

/// Where the search begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// A host that has no gate yet.
    New,
    /// The same, and its server has just been promoted.
    Promoted,
    /// A bound lease, renewed this moment.
    Bound,
    /// The same, with the second holder alone.
    BoundBySecond,
    /// Paused, unbound, and the gate stands open.
    Open,
    /// Resumed since: the gate is bounded again, and nothing is bound yet.
    Bounded,
}

/// How much of everything, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Moments: two in each TTL.
    pub moments: u8,
    /// Times the guard looks at its host and asks: once a moment, or as often as it likes.
    pub looks: u8,
    pub hastes: bool,
    /// Holders, 0 to 2.
    pub holders: u8,
    pub begins: Begins,
    pub elections: u8,
    /// Runs opened.
    pub runs: u8,
    /// Runs withdrawn.
    pub withdrawals: u8,
    pub pauses: u8,
    /// Operators' words on the gate: asked for, broken, mended.
    pub glasses: u8,
    /// The guard's process dies and is started again.
    pub kills: u8,
    /// The primary's host boots.
    pub boots: u8,
    /// Proposals that nobody hears of: committed later, or never.
    pub losses: u8,
    /// The guard's disk is full, or its kernel refuses to move the gate.
    pub faults: u8,
    /// Broken on purpose.
    pub mutation: Option<Mutation>,
}

impl Bound {
    /// Whether this rule is broken.
    pub fn breaks(self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Something within the bound can end a binding.
    pub fn can_unbind(self) -> bool {
        !matches!(self.begins, Begins::Bound | Begins::BoundBySecond)
            || self.pauses + self.glasses + self.kills + self.boots + self.faults > 0
    }

    /// The same with a rule broken.
    pub fn with(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }
}

/// A bound lease, one run, no fault.
pub const QUIET: Bound = Bound {
    moments: 4,
    looks: 2,
    hastes: false,
    holders: 0,
    begins: Begins::Bound,
    elections: 0,
    runs: 1,
    withdrawals: 0,
    pauses: 0,
    glasses: 0,
    kills: 0,
    boots: 0,
    losses: 0,
    faults: 0,
    mutation: None,
};

/// A bound that is searched to its end.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    pub name: &'static str,
    pub bound: Bound,
}

/// What every test run searches.
pub const SCOPES: &[Scope] = &[
    Scope { name: "lease: two leaders", bound: Bound { elections: 1, ..QUIET } },
    Scope { name: "lease: proposals unheard", bound: Bound { elections: 1, losses: 1, looks: 1, ..QUIET } },
    Scope { name: "lease: a leader comes back", bound: Bound { elections: 2, looks: 1, ..QUIET } },
    Scope { name: "lease: promotion holds", bound: Bound { holders: 1, elections: 1, looks: 1, ..QUIET } },
    Scope { name: "lease: two holders", bound: Bound { holders: 2, looks: 1, moments: 5, ..QUIET } },
    Scope {
        name: "lease: withdrawn and again",
        bound: Bound { runs: 2, withdrawals: 1, holders: 1, looks: 1, ..QUIET },
    },
    Scope { name: "lease: paused", bound: Bound { pauses: 1, moments: 3, ..QUIET } },
    Scope {
        name: "lease: paused, two leaders",
        bound: Bound { pauses: 1, elections: 1, looks: 1, moments: 2, ..QUIET },
    },
    Scope {
        name: "lease: not bound, asking often",
        bound: Bound {
            begins: Begins::Bounded,
            hastes: true,
            looks: 3,
            pauses: 1,
            losses: 1,
            runs: 0,
            moments: 1,
            ..QUIET
        },
    },
    Scope { name: "lease: glass", bound: Bound { glasses: 2, moments: 2, ..QUIET } },
    Scope {
        name: "lease: the guard dies",
        bound: Bound { kills: 1, pauses: 1, faults: 1, runs: 0, moments: 2, ..QUIET },
    },
    Scope {
        name: "lease: it dies while open",
        bound: Bound { kills: 1, runs: 0, moments: 3, begins: Begins::Open, ..QUIET },
    },
    Scope { name: "lease: the host boots", bound: Bound { boots: 1, looks: 1, ..QUIET } },
    Scope {
        name: "lease: from the beginning",
        bound: Bound { begins: Begins::New, looks: 3, faults: 1, losses: 1, runs: 0, moments: 3, ..QUIET },
    },
    Scope {
        name: "lease: from a promotion",
        bound: Bound { begins: Begins::Promoted, looks: 3, kills: 1, faults: 1, runs: 0, moments: 3, ..QUIET },
    },
    Scope { name: "lease: promoted and lost again", bound: Bound { begins: Begins::Promoted, looks: 2, ..QUIET } },
];

/// What is searched where somebody has the time.
pub const WIDE: &[Scope] = &[
    Scope { name: "wide lease: holds, two looks", bound: Bound { holders: 1, ..QUIET } },
    Scope { name: "wide lease: glass", bound: Bound { glasses: 2, moments: 3, ..QUIET } },
    Scope { name: "wide lease: six moments", bound: Bound { elections: 1, moments: 6, ..QUIET } },
    Scope {
        name: "wide lease: withdrawn, elected",
        bound: Bound { runs: 2, withdrawals: 1, elections: 1, looks: 1, holders: 1, ..QUIET },
    },
    Scope {
        name: "wide lease: paused, unheard",
        bound: Bound { pauses: 1, elections: 1, losses: 1, looks: 2, moments: 2, ..QUIET },
    },
    Scope { name: "wide lease: a guard dies", bound: Bound { kills: 1, pauses: 1, faults: 1, moments: 2, ..QUIET } },
    Scope { name: "wide lease: glass, two leaders", bound: Bound { glasses: 2, elections: 1, moments: 2, ..QUIET } },
];
