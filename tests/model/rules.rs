//! What is searched: the plan, the bound, and at most one rule broken on purpose.

use super::steps::Step;

/// A rule that the model breaks, to see that the search finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A guard acts under a lower token than it holds.
    GuardTakesLowerToken,
    /// The zone is written under a lower token than it holds.
    ZoneTakesLowerToken,
    /// A guard's store does not keep what is raised.
    GuardForgetsToken,
    /// The guard says "fenced" of a server that is stopped but not latched.
    FenceNeedsNoLatch,
    /// The host's boot gate starts a latched server.
    BootGateIgnoresLatch,
    /// The guard does not look before it acts.
    GuardActsAgain,
    /// The executor promotes on a fence step that is done, without reading it back.
    FenceIsNotReadAgain,
    /// The executor does not confirm its leadership.
    LeadershipIsNotConfirmed,
    /// The executor acts though its intent was not committed.
    ActsWithoutIntent,
    /// The executor calls "no answer" a failure.
    SilenceIsFailure,
    /// The executor calls a step failed that is not there, though its last request may still arrive.
    NotThereIsNever,
    /// What an abort or skip left is settled under the very token it was started under.
    SettlesUnderOwnToken,
    /// The executor reads back without raising its token.
    LookRaisesNothing,
    /// A claim issues the token of the claim before.
    ClaimIssuesNoToken,
    /// The log takes commands under an earlier claim's token.
    LogTakesStaleTokens,
    /// The log starts steps while paused.
    LogIgnoresPause,
    /// The log starts steps on resources left unsettled.
    LogStartsOnUnsettled,
    /// The log opens a run though one is open.
    LogOpensBesideOpenRun,
    /// A gate of the product itself.
    Product(watchdog::domain::mutation::Mutation),
}

/// The group's fencing mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Confirm,
    None,
    /// With this TTL, milliseconds. Searched by [`super::lease`].
    Lease(u64),
}

/// How much of everything, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The plan's steps.
    pub steps: &'static [Step],
    /// Nodes that may come to lead. Each may go on believing so for ever.
    pub nodes: u8,
    /// Elections after the first leader's. Each leaves a frozen, dead or restarted leader behind.
    pub elections: u8,
    /// Runs opened.
    pub runs: u8,
    /// So many of them, the first, are planned moves.
    pub planned: u8,
    /// Claims in all.
    pub claims: u8,
    /// Attempts of each step.
    pub attempts: u8,
    /// The plan's own limit of attempts.
    pub max_attempts: u32,
    /// Operators' orders: retry, skip, abort, assert-fence.
    pub orders: u8,
    /// Pauses.
    pub pauses: u8,
    /// Answers lost: of a request, of reading back, or of the log itself.
    pub losses: u8,
    /// Requests delivered once more.
    pub duplicates: u8,
    /// Attempts that fail at the resource without effect.
    pub failures: u8,
    /// Times the trigger goes away.
    pub recoveries: u8,
    /// Crashes of the old primary's server, each followed by any number of boots.
    pub crashes: u8,
    /// Times a person takes a fence away by hand, between a fence and its promotion.
    pub unfencings: u8,
    /// Times the old primary's host loses its power with an action of its guard under way, each followed by any number of
    /// boots.
    pub deaths: u8,
    /// The group's fencing mode.
    pub mode: Mode,
    /// Proposals of a leader that is none any more reach the log all the same (more than Raft allows).
    pub forwards: bool,
    /// Broken on purpose.
    pub mutation: Option<Mutation>,
}

impl Rules {
    /// Whether this rule is broken.
    pub fn breaks(self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// The gate of the product that is taken out.
    pub fn product(self) -> Option<watchdog::domain::mutation::Mutation> {
        match self.mutation {
            Some(Mutation::Product(gate)) => Some(gate),
            _ => None,
        }
    }

    /// Mode `none`: a standing assertion.
    pub fn is_mode_none(self) -> bool {
        self.mode == Mode::None
    }

    /// Whether the run of this number is a planned move.
    pub fn is_planned(self, run: u8) -> bool {
        run > 0 && run <= self.planned
    }

    /// The same with a rule broken.
    pub fn with(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }
}

/// Fence and promote, no fault: where a database can be lost.
pub const QUIET: Rules = Rules {
    steps: &[Step::Fence, Step::Promote],
    nodes: 2,
    elections: 0,
    runs: 1,
    planned: 0,
    claims: 4,
    attempts: 2,
    max_attempts: 2,
    orders: 0,
    pauses: 0,
    losses: 0,
    duplicates: 0,
    failures: 0,
    recoveries: 0,
    crashes: 0,
    unfencings: 0,
    deaths: 0,
    mode: Mode::Confirm,
    forwards: false,
    mutation: None,
};

/// A planned move, no fault: the standby may get everything, or never.
pub const MOVE: Rules = Rules { steps: &super::steps::PLANNED, planned: 1, ..QUIET };

/// A bound that is searched to its end.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    pub name: &'static str,
    pub rules: Rules,
}

/// What every test run searches.
pub const SCOPES: &[Scope] = &[
    Scope { name: "answers are lost", rules: Rules { elections: 1, losses: 1, claims: 3, ..QUIET } },
    Scope { name: "answers and orders", rules: Rules { losses: 1, orders: 2, failures: 1, ..QUIET } },
    Scope {
        name: "hosts fail, triggers go",
        rules: Rules {
            elections: 1,
            losses: 1,
            recoveries: 1,
            crashes: 1,
            unfencings: 1,
            failures: 1,
            claims: 3,
            attempts: 1,
            ..QUIET
        },
    },
    Scope { name: "operators", rules: Rules { elections: 1, orders: 2, claims: 3, attempts: 1, ..QUIET } },
    Scope { name: "paused", rules: Rules { elections: 1, pauses: 1, orders: 1, claims: 3, attempts: 1, ..QUIET } },
    Scope {
        name: "two runs",
        rules: Rules { elections: 1, runs: 2, orders: 1, recoveries: 1, failures: 1, attempts: 1, ..QUIET },
    },
    Scope { name: "three leaders", rules: Rules { nodes: 3, elections: 2, attempts: 1, ..QUIET } },
    Scope { name: "late proposals count", rules: Rules { forwards: true, elections: 1, losses: 1, ..QUIET } },
    Scope {
        name: "the whole plan",
        rules: Rules { steps: &super::steps::FAILOVER, elections: 1, claims: 3, attempts: 1, ..QUIET },
    },
    Scope {
        name: "DNS beside promotion",
        rules: Rules { steps: &[Step::Fence, Step::Dns, Step::Promote], losses: 1, orders: 1, failures: 1, ..QUIET },
    },
    Scope {
        name: "requests arrive twice",
        rules: Rules { duplicates: 1, elections: 1, orders: 1, claims: 3, attempts: 1, ..QUIET },
    },
    Scope { name: "mode none", rules: Rules { mode: Mode::None, elections: 1, losses: 1, crashes: 1, ..QUIET } },
    Scope { name: "moved by plan", rules: Rules { elections: 1, failures: 1, claims: 3, attempts: 1, ..MOVE } },
    Scope { name: "moved, answers lost", rules: Rules { losses: 1, failures: 1, ..MOVE } },
    Scope {
        name: "moved, operators",
        rules: Rules { elections: 1, orders: 1, failures: 1, claims: 3, attempts: 1, ..MOVE },
    },
    Scope {
        name: "moved, hosts die",
        rules: Rules { elections: 1, deaths: 1, crashes: 1, claims: 3, attempts: 1, ..MOVE },
    },
    Scope { name: "moved, paused", rules: Rules { elections: 1, pauses: 1, claims: 3, attempts: 1, ..MOVE } },
    Scope {
        name: "moved, requests arrive twice",
        rules: Rules { duplicates: 1, failures: 1, orders: 1, claims: 3, attempts: 1, ..MOVE },
    },
    Scope {
        name: "moved, then lost",
        rules: Rules { runs: 2, orders: 1, failures: 1, losses: 1, attempts: 1, claims: 5, ..MOVE },
    },
    Scope {
        name: "moved, late proposals count",
        rules: Rules { forwards: true, elections: 1, claims: 3, attempts: 1, ..MOVE },
    },
    Scope {
        name: "moved, mode none",
        rules: Rules { mode: Mode::None, elections: 1, unfencings: 1, claims: 3, attempts: 1, ..MOVE },
    },
];

/// What is searched where somebody has the time.
pub const WIDE: &[Scope] = &[
    Scope { name: "wide: answers and orders", rules: Rules { elections: 1, losses: 1, orders: 1, ..QUIET } },
    Scope {
        name: "wide: hosts and triggers",
        rules: Rules { elections: 1, losses: 1, recoveries: 1, crashes: 1, unfencings: 1, failures: 1, ..QUIET },
    },
    Scope {
        name: "wide: late proposals count",
        rules: Rules { forwards: true, elections: 1, losses: 1, orders: 1, attempts: 1, ..QUIET },
    },
    Scope {
        name: "wide: paused, answers lost",
        rules: Rules { elections: 1, losses: 1, orders: 1, pauses: 1, attempts: 1, ..QUIET },
    },
    Scope {
        name: "wide: two runs",
        rules: Rules { elections: 1, runs: 2, losses: 1, orders: 1, recoveries: 1, attempts: 1, ..QUIET },
    },
    Scope { name: "wide: three leaders", rules: Rules { nodes: 3, elections: 2, orders: 1, attempts: 1, ..QUIET } },
    Scope { name: "wide: moved, answers lost", rules: Rules { elections: 1, losses: 1, failures: 1, ..MOVE } },
    Scope {
        name: "wide: moved, operators",
        rules: Rules { elections: 1, orders: 2, failures: 1, losses: 1, attempts: 1, ..MOVE },
    },
    Scope {
        name: "wide: moved, hosts die",
        rules: Rules { elections: 1, deaths: 1, crashes: 1, losses: 1, orders: 1, attempts: 1, ..MOVE },
    },
    Scope {
        name: "wide: moved, paused",
        rules: Rules { elections: 1, pauses: 1, orders: 1, losses: 1, attempts: 1, ..MOVE },
    },
    Scope {
        name: "wide: moved, then lost",
        rules: Rules { runs: 2, elections: 1, orders: 2, failures: 1, losses: 1, attempts: 1, claims: 5, ..MOVE },
    },
    Scope {
        name: "wide: moved, late proposals count",
        rules: Rules { forwards: true, elections: 1, losses: 1, ..MOVE },
    },
    Scope { name: "wide: moved, three leaders", rules: Rules { nodes: 3, elections: 2, attempts: 1, ..MOVE } },
];
