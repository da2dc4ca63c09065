//! The modelled world: the log's head, nodes with what they remember, requests under way, and resources that compare
//! tokens themselves, as the guard and the zone do.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{End, Ended, Places, Proof};
use super::log::StateId;
use super::rules::{Mutation, Rules};
use super::steps::{Place, Step};

/// What a node has under way, by what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// A decision to open a run, not yet proposed.
    Opening,
    /// A step.
    Of(Step),
    /// The run as a whole.
    Run,
    /// A place left unsettled.
    Settling(Place),
}

/// Something under way on a node: it may rest here for ever, or go on after others have acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Decided on this token and serving epoch.
    Open { token: u8, epoch: u8 },
    /// A promotion whose leadership is confirmed, with what the node then knew of the run.
    Confirmed { attempt: u8, is_fence_done: bool, is_asserted: bool },
    /// A promotion whose gates are passed.
    Proven { attempt: u8, proof: Proof },
    /// An open question about to be read back: leadership is confirmed.
    Looking { attempt: u8 },
    /// `StepStarted` is committed and the request is on its way.
    Waiting { attempt: u8 },
    /// It ended, and the log has yet to learn of it.
    Reporting { attempt: u8, ended: Ended },
    /// About to close the run, after looking at its resources.
    Closing { end: End, is_untouched: bool, settled: Places },
    /// A place left unsettled was read; the log has yet to learn of it.
    Settled { is_untouched: bool },
}

/// A node that leads, or believes so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// It was elected and has not heard otherwise.
    pub leads: bool,
    /// The state it has applied up to: the log's head, or any earlier one.
    pub view: StateId,
    /// The run it holds, 0 for none.
    pub run: u8,
    /// The token of its claim, 0 for none.
    pub token: u8,
    /// What it has under way.
    pub tasks: BTreeMap<Slot, Task>,
}

impl Node {
    /// Steps under way.
    pub fn busy(&self) -> BTreeSet<Step> {
        let step = |slot: &Slot| if let Slot::Of(step) = slot { Some(*step) } else { None };
        self.tasks.keys().filter_map(step).collect()
    }
}

/// A request to act, sent and not yet arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub run: u8,
    pub step: Step,
    pub attempt: u8,
    pub token: u8,
}

/// A resource's token store and what is at work there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Keeper {
    /// The highest token it remembers.
    pub held: u8,
    /// Begun and not yet through.
    pub at_work: Option<Request>,
}

/// The hosts and the zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resources {
    pub old: Keeper,
    pub new: Keeper,
    pub zone: Keeper,
    /// The old primary takes writes.
    pub old_runs: bool,
    /// The old primary's latch: the token it was set under, 0 where clear.
    pub latch: u8,
    /// It was stopped in an orderly way, or runs.
    pub is_orderly: bool,
    /// The standby has all that the stopped old primary ever took.
    pub has_all: bool,
    /// The standby takes writes.
    pub promoted: bool,
    /// The name points to the new region.
    pub repointed: bool,
    /// The runs for which the guard's ledger says that services were started.
    pub started: BTreeSet<u8>,
}

/// What is spent of the bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    pub elections: u8,
    pub runs: u8,
    pub orders: u8,
    pub pauses: u8,
    pub losses: u8,
    pub duplicates: u8,
    pub failures: u8,
    pub recoveries: u8,
    pub crashes: u8,
    pub unfencings: u8,
    pub deaths: u8,
}

/// What was seen on the way, for the promises: nothing in the model's rules reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Intents committed.
    pub intents: BTreeSet<Request>,
    /// Serving epochs in which an automatic failover that completed was opened.
    pub completed_in: Vec<u8>,
    pub closed: u8,
    pub opened: u8,
    /// Effects that landed.
    pub promotions: u8,
    pub repointings: u8,
    pub fences: u8,
    pub starts: BTreeMap<u8, u8>,
    pub is_asserted: bool,
    /// The log took a planned move's promotion.
    pub moved: bool,
    /// A planned move turned back.
    pub reverted: bool,
    /// Wrongs, each the business of one promise.
    pub effect_without_intent: bool,
    pub acted_under_lower: bool,
    pub promoted_unfenced: bool,
    pub effect_after_end: bool,
    pub started_while_paused: bool,
    pub started_under_old_claim: bool,
    pub broken_invariant: bool,
    pub lost_by_plan: bool,
    pub forward_after_turning: bool,
    pub reverted_unserved: bool,
}

/// One state of the search.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub head: StateId,
    /// The node that a majority follows.
    pub leader: u8,
    pub nodes: Vec<Node>,
    pub mail: BTreeSet<Request>,
    pub resources: Resources,
    pub spent: Spent,
    pub seen: Seen,
}

/// What looking at a resource shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Done,
    NotDone,
    Untouched,
    InFlight,
    Refused,
}

/// What became of a request to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Another action is at work: it waits for the action lock.
    Waits,
    /// Answered without acting.
    Answered(Ended),
    /// Begun; what comes of it is still to be seen.
    Begun,
}

impl Resources {
    pub fn new() -> Self {
        Self {
            old: Keeper::default(),
            new: Keeper::default(),
            zone: Keeper::default(),
            old_runs: true,
            latch: 0,
            is_orderly: true,
            has_all: false,
            promoted: false,
            repointed: false,
            started: BTreeSet::new(),
        }
    }

    pub fn keeper(&self, place: Place) -> &Keeper {
        match place {
            Place::Old => &self.old,
            Place::New => &self.new,
            Place::Zone => &self.zone,
        }
    }

    pub fn keeper_mut(&mut self, place: Place) -> &mut Keeper {
        match place {
            Place::Old => &mut self.old,
            Place::New => &mut self.new,
            Place::Zone => &mut self.zone,
        }
    }

    /// Whether a token would be refused.
    pub fn refuses(&self, place: Place, token: u8, rules: Rules) -> bool {
        let is_broken = match place {
            Place::Zone => rules.breaks(Mutation::ZoneTakesLowerToken),
            Place::Old | Place::New => rules.breaks(Mutation::GuardTakesLowerToken),
        };
        token < self.keeper(place).held && !is_broken
    }

    /// Compares and raises. False: refused. `guard::handler::raise`.
    pub fn raise(&mut self, place: Place, token: u8, rules: Rules) -> bool {
        if self.refuses(place, token, rules) {
            return false;
        }
        let forgets = rules.breaks(Mutation::GuardForgetsToken) && place != Place::Zone;
        if !forgets {
            let keeper = self.keeper_mut(place);
            keeper.held = keeper.held.max(token);
        }
        true
    }

    /// Raises, then looks whether the step's effect is there. `settles`: ends what is at work, where it may be ended.
    pub fn look(&mut self, request: Request, settles: bool, rules: Rules) -> Look {
        let Some(place) = request.step.place() else { return Look::NotDone };
        let is_raised = rules.breaks(Mutation::LookRaisesNothing) || self.raise(place, request.token, rules);
        if !is_raised {
            return Look::Refused;
        }
        if let Some(at_work) = self.keeper(place).at_work {
            let is_other = settles || at_work.run != request.run;
            // Nor is a release ended while it waits for its start.
            let is_deaf = at_work.step == Step::Promote || at_work.step == Step::Release && self.latch == 0;
            if !is_deaf && request.token > at_work.token && is_other {
                self.keeper_mut(place).at_work = None;
            }
            let could_bring = at_work.step == request.step || request.step == Step::Promote || settles;
            let is_through = request.step == Step::Promote && self.promoted;
            if could_bring && !is_through {
                return Look::InFlight;
            }
        }
        self.shows(request, rules)
    }

    fn shows(&self, request: Request, rules: Rules) -> Look {
        let is_latched = self.latch > 0 || rules.breaks(Mutation::FenceNeedsNoLatch);
        let found = |is_there: bool| if is_there { Look::Done } else { Look::NotDone };
        match request.step {
            Step::Fence if self.latch > request.token => Look::Refused,
            Step::Fence if !self.old_runs && is_latched => Look::Done,
            Step::Fence if self.old_runs && self.latch == 0 && self.old.at_work.is_none() => Look::Untouched,
            Step::Release => found(self.old_runs && self.latch == 0 && self.old.at_work.is_none()),
            Step::Fence | Step::Verify | Step::CatchUp => Look::NotDone,
            Step::Promote => found(self.promoted),
            Step::Services => found(self.started.contains(&request.run)),
            Step::Dns => found(self.repointed),
        }
    }

    /// A request to act arrives: token, then action lock, then a look, then the effect begins.
    pub fn arrive(&mut self, request: Request, fails: bool, rules: Rules) -> Arrival {
        let Some(place) = request.step.place() else {
            let is_so = !fails && (request.step != Step::CatchUp || self.has_caught_up(request.token));
            return Arrival::Answered(if is_so { Ended::Done } else { Ended::Failed });
        };
        if self.keeper(place).at_work.is_some() {
            return Arrival::Waits;
        }
        if !self.raise(place, request.token, rules) {
            return Arrival::Answered(Ended::Refused);
        }
        let is_there = self.shows(request, rules) == Look::Done;
        if is_there && !rules.breaks(Mutation::GuardActsAgain) {
            return Arrival::Answered(Ended::Done);
        }
        if fails {
            return Arrival::Answered(Ended::Failed);
        }
        // The latch is set before the server is stopped.
        if request.step == Step::Fence {
            self.latch = self.latch.max(request.token);
        }
        self.keeper_mut(place).at_work = Some(request);
        Arrival::Begun
    }

    /// What both guards show together: `actuator::catch_up`. Raises nothing.
    pub fn has_caught_up(&self, token: u8) -> bool {
        let is_outrun = self.old.held.max(self.new.held) > token;
        let has_ended = !self.old_runs && self.latch > 0 && self.is_orderly;
        !is_outrun && has_ended && self.has_all && !self.promoted
    }

    /// A release clears the latch, where no later token was raised meanwhile. `false`: it ends.
    pub fn clear_latch(&mut self) -> bool {
        let Some(request) = self.old.at_work.filter(|request| request.step == Step::Release) else { return true };
        let may = self.old.held == request.token && self.latch <= request.token;
        if may {
            self.latch = 0;
            return true;
        }
        self.old.at_work = None;
        false
    }

    /// The old primary's server runs: what it takes, the standby has yet to get.
    pub fn start_old(&mut self) {
        self.old_runs = true;
        self.is_orderly = true;
        self.has_all = false;
    }

    /// It dies as it is.
    pub fn kill_old(&mut self, rules: Rules) {
        self.is_orderly &= !self.old_runs || rules.planned == 0;
        self.old_runs = false;
    }

    /// What is at work at a place comes through.
    pub fn land(&mut self, place: Place) -> Option<Request> {
        let request = self.keeper_mut(place).at_work.take()?;
        match request.step {
            Step::Fence => self.old_runs = false,
            Step::Promote => self.promoted = true,
            Step::Services => {
                self.started.insert(request.run);
            }
            Step::Dns => self.repointed = true,
            Step::Release => self.start_old(),
            Step::Verify | Step::CatchUp => {}
        }
        Some(request)
    }
}
