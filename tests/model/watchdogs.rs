//! What can happen next: nodes act as `src/coordinator/steps.rs` does, requests arrive, people give orders, hosts die.

use stateright::{Model, Property};
use watchdog::domain::advance::Move;
use watchdog::domain::run::{RunOutcome, StepPhase};

use super::cluster::{AWAY, HOME};
use super::command::{Cmd, End, Ended, Word};
use super::log::{Answer, Brief, Log, StateId};
use super::rules::{Mutation, Rules};
use super::steps::{Place, Step};
use super::world::{Arrival, Node, Request, Resources, Seen, Slot, Spent, Task, World};
use super::{executor, promises};

/// A move of `advance`, small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Due {
    Claim,
    Start {
        step: Step,
        attempt: u8,
    },
    Settle {
        step: Step,
        attempt: u8,
    },
    Watch {
        step: Step,
    },
    GiveUp {
        step: Step,
    },
    Abort,
    Close,
    TurnBack,
    /// Closes as reverted.
    Revert,
    /// Closes as withdrawn: it turned back before anything was begun.
    CallOff,
}

/// Whether an exchange's answer comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Luck {
    Good,
    /// The request never arrived, or its answer was lost: nobody knows.
    Lost,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    /// A majority follows this node from now on; whoever led may not know for long, or for ever.
    Elect(u8),
    /// A node that leads no more applies what was committed since.
    CatchUp(u8),
    /// Decides to open a run, on what it sees now.
    Decide(u8),
    /// Goes on with something under way.
    GoOn(u8, Slot, Luck),
    /// Begins a move of `advance`.
    Begin(u8, Due, Luck),
    /// The trigger is gone: the fence's start becomes a withdrawal.
    Withdraw(u8),
    /// The answer to a request under way never comes.
    TimeOut(u8, Step),
    /// Looks at a place left unsettled.
    LookAtUnsettled(u8, Place),
    /// A request arrives; `fails`: the resource tries and cannot; `stays`: it will arrive once more.
    Arrive {
        request: Request,
        fails: bool,
        stays: bool,
    },
    /// What is at work comes through.
    Land(Place),
    /// The release at work clears the latch.
    ClearLatch,
    /// The standby gets the last of what the stopped old primary took.
    StandbyCatchesUp,
    /// The old primary's host loses its power, and whatever its guard was doing is over.
    OldHostDies,
    /// The old primary's server dies.
    OldPrimaryDies,
    /// The old primary's host boots; its gate starts the server unless it is latched.
    OldPrimaryBoots,
    /// A person takes a fence away by hand (see the assumptions).
    UnfenceByHand,
    Order(Word),
    Pause,
    Resume,
}

/// The model.
pub struct Watchdogs {
    pub rules: Rules,
    pub log: Log,
    first: StateId,
}

impl Watchdogs {
    pub fn new(rules: Rules) -> Self {
        let (log, first) = Log::new(rules);
        Self { rules, log, first }
    }

    /// The moves that `advance` gives a node now, with patience and without.
    pub fn due(&self, node: &Node) -> Vec<Due> {
        let mut due: Vec<Due> = Vec::new();
        for is_patient in [true, false] {
            let moves = self.log.moves(node.view, node.token, &node.busy(), is_patient);
            due.extend(moves.iter().filter_map(as_due));
        }
        due.sort();
        due.dedup();
        due
    }

    /// Commits where the proposer is still followed, or where the model forwards. `None`: certainly not written.
    pub fn propose(&self, world: &mut World, node: u8, cmd: Cmd) -> Option<Answer> {
        if node != world.leader && !self.rules.forwards {
            return None;
        }
        Some(self.write(world, cmd))
    }

    /// Commits, and keeps for the promises what was seen.
    pub fn write(&self, world: &mut World, cmd: Cmd) -> Answer {
        let before = self.log.brief(world.head);
        let answer = self.log.apply(world.head, cmd);
        if !answer.done {
            return answer;
        }
        world.head = answer.state;
        let leader = usize::from(world.leader);
        self.catch_up(&mut world.nodes[leader], world.head);
        let seen = &mut world.seen;
        match cmd {
            Cmd::Start { run, step, token, attempt, .. } => {
                seen.intents.insert(Request { run, step, attempt, token });
                seen.started_while_paused |= before.is_paused;
                seen.started_under_old_claim |= token != before.run_token;
                seen.moved |= before.is_planned && step == Step::Promote;
            }
            Cmd::Open { .. } => seen.opened += 1,
            Cmd::Close { end, .. } => {
                seen.closed += 1;
                if end == End::Succeeded && !before.is_planned {
                    seen.completed_in.push(before.opened_in);
                }
                if end == End::Reverted {
                    seen.reverted = true;
                    let is_home = self.log.brief(world.head).serving.as_deref() == Some(HOME);
                    seen.reverted_unserved |= !is_home || !promises::is_home_served(&world.resources, &world.spent);
                }
            }
            Cmd::Order { word: Word::AssertFence, .. } => seen.is_asserted = true,
            _ => {}
        }
        seen.broken_invariant |= !answer.is_sound;
        answer
    }

    /// The node applies up to `head`; a run it does not know is not in its hands.
    pub fn catch_up(&self, node: &mut Node, head: StateId) {
        node.view = head;
        let brief = self.log.brief(head);
        let run = brief.run;
        if node.run != run {
            let is_the_runs = |slot: &Slot| matches!(slot, Slot::Of(_) | Slot::Run);
            node.tasks.retain(|slot, _| !is_the_runs(slot));
            node.run = run;
            node.token = 0;
        }
        // `Runs::advance`: what was skipped is dropped.
        let is_skipped = |slot: &Slot| matches!(slot, Slot::Of(step) if brief.step(*step).phase == StepPhase::Skipped);
        node.tasks.retain(|slot, _| !is_skipped(slot));
    }

    fn elect(&self, world: &mut World, node: u8) {
        world.leader = node;
        let mut fresh = Node { leads: true, ..Node::default() };
        self.catch_up(&mut fresh, world.head);
        world.nodes[usize::from(node)] = fresh;
    }

    /// The answer to a request reaches whoever still waits for it.
    pub fn answer(world: &mut World, request: Request, ended: Ended) {
        for node in &mut world.nodes {
            if node.token == request.token
                && node.run == request.run
                && let Some(task) = node.tasks.get_mut(&Slot::Of(request.step))
                && *task == (Task::Waiting { attempt: request.attempt })
            {
                *task = Task::Reporting { attempt: request.attempt, ended };
            }
        }
    }

    fn arrive(&self, world: &mut World, request: Request, fails: bool, stays: bool) -> bool {
        let arrival = world.resources.arrive(request, fails, self.rules);
        if arrival == Arrival::Waits {
            return false;
        }
        if !stays {
            world.mail.remove(&request);
        }
        match arrival {
            Arrival::Answered(ended) => Self::answer(world, request, ended),
            Arrival::Begun => {
                promises::judge_effect(self, world, request);
                // A zone's update is one transaction; a service's start is taken for one.
                if matches!(request.step, Step::Dns | Step::Services)
                    && let Some(place) = request.step.place()
                {
                    self.land(world, place);
                }
            }
            Arrival::Waits => {}
        }
        true
    }

    fn land(&self, world: &mut World, place: Place) {
        let Some(request) = world.resources.land(place) else { return };
        match request.step {
            Step::Fence => world.seen.fences += 1,
            Step::Promote => world.seen.promotions += 1,
            Step::Dns => world.seen.repointings += 1,
            Step::Services => *world.seen.starts.entry(request.run).or_default() += 1,
            Step::Verify | Step::CatchUp | Step::Release => {}
        }
        Self::answer(world, request, Ended::Done);
    }

    fn node_acts(&self, world: &World, n: u8, acts: &mut Vec<Act>) {
        let node = &world.nodes[usize::from(n)];
        let spent = &world.spent;
        let brief = self.log.brief(node.view);
        let can_lose = spent.losses < self.rules.losses;
        if node.view != world.head && n != world.leader {
            acts.push(Act::CatchUp(n));
        }
        let is_home = brief.served_last == HOME;
        if brief.run == 0 && is_home && spent.runs < self.rules.runs && !node.tasks.contains_key(&Slot::Opening) {
            acts.push(Act::Decide(n));
        }
        for (slot, task) in &node.tasks {
            match task {
                Task::Waiting { .. } => {
                    if let (Slot::Of(step), true) = (slot, can_lose) {
                        acts.push(Act::TimeOut(n, *step));
                    }
                }
                _ => {
                    acts.push(Act::GoOn(n, *slot, Luck::Good));
                    if can_lose && !matches!(task, Task::Open { .. } | Task::Settled { .. }) {
                        acts.push(Act::GoOn(n, *slot, Luck::Lost));
                    }
                }
            }
        }
        for due in self.due(node) {
            if !executor::may_begin(self, node, &brief, due) {
                continue;
            }
            acts.push(Act::Begin(n, due, Luck::Good));
            let can_be_lost = matches!(due, Due::Claim | Due::Watch { .. } | Due::Abort | Due::Start { .. });
            if can_lose && can_be_lost {
                acts.push(Act::Begin(n, due, Luck::Lost));
            }
            if matches!(due, Due::Start { step: Step::Fence, .. })
                && spent.recoveries < self.rules.recoveries
                && !brief.went_past_fence
                && !brief.is_planned
            {
                acts.push(Act::Withdraw(n));
            }
        }
        if node.busy().is_empty() && !node.tasks.contains_key(&Slot::Run) {
            // `Runs::settle`: under its own token nothing is kept out.
            let is_broken = self.rules.breaks(Mutation::SettlesUnderOwnToken);
            let is_kept_out = |token: u8| brief.run == 0 || token < brief.token || is_broken;
            for (place, token) in &brief.unsettled {
                if !node.tasks.contains_key(&Slot::Settling(*place)) && is_kept_out(*token) {
                    acts.push(Act::LookAtUnsettled(n, *place));
                }
            }
        }
    }

    fn operators_acts(&self, world: &World, brief: &Brief, acts: &mut Vec<Act>) {
        if brief.is_paused {
            acts.push(Act::Resume);
        } else if world.spent.pauses < self.rules.pauses {
            acts.push(Act::Pause);
        }
        if brief.run == 0 || world.spent.orders >= self.rules.orders {
            return;
        }
        acts.push(Act::Order(Word::Abort));
        acts.push(Act::Order(Word::AssertFence));
        for step in self.rules.steps {
            acts.push(Act::Order(Word::Skip(*step)));
            acts.push(Act::Order(Word::Retry(*step)));
        }
    }

    fn hosts_acts(&self, world: &World, brief: &Brief, acts: &mut Vec<Act>) {
        let (spent, resources) = (&world.spent, &world.resources);
        if resources.old_runs && spent.crashes < self.rules.crashes {
            acts.push(Act::OldPrimaryDies);
        }
        if resources.old.at_work.is_some() && spent.deaths < self.rules.deaths {
            acts.push(Act::OldHostDies);
        }
        if self.rules.planned > 0 && !resources.old_runs && !resources.has_all && !resources.promoted {
            acts.push(Act::StandbyCatchesUp);
        }
        let gate_opens = resources.latch == 0 || self.rules.breaks(Mutation::BootGateIgnoresLatch);
        if !resources.old_runs && gate_opens {
            acts.push(Act::OldPrimaryBoots);
        }
        // People do not take a fence away while a promotion builds upon it: they have looked (see the assumptions).
        let is_promoting = brief.step(Step::Promote).phase != StepPhase::Pending
            || brief.serving.as_deref() == Some(AWAY)
            || resources.new.at_work.is_some()
            || world.mail.iter().any(|request| request.step == Step::Promote)
            || world.nodes.iter().any(|node| {
                matches!(node.tasks.get(&Slot::Of(Step::Promote)), Some(Task::Proven { .. } | Task::Waiting { .. }))
            });
        let is_fenced = resources.latch > 0 && !resources.old_runs;
        if is_fenced && !is_promoting && !resources.promoted && spent.unfencings < self.rules.unfencings {
            acts.push(Act::UnfenceByHand);
        }
    }

    fn happens(&self, world: &mut World, act: Act) -> bool {
        match act {
            Act::Elect(n) => {
                world.spent.elections += 1;
                self.elect(world, n);
            }
            Act::CatchUp(n) => {
                let head = world.head;
                self.catch_up(&mut world.nodes[usize::from(n)], head);
            }
            Act::Decide(n) => {
                let node = &mut world.nodes[usize::from(n)];
                let brief = self.log.brief(node.view);
                node.tasks.insert(Slot::Opening, Task::Open { token: brief.token, epoch: brief.serving_epoch });
            }
            Act::GoOn(n, slot, luck) => executor::go_on(self, world, n, slot, luck),
            Act::Begin(n, due, luck) => executor::begin(self, world, n, due, luck),
            Act::Withdraw(n) => executor::withdraw(self, world, n),
            Act::TimeOut(n, step) => executor::time_out(self, world, n, step),
            Act::LookAtUnsettled(n, place) => executor::look_at_unsettled(self, world, n, place),
            Act::Arrive { request, fails, stays } => {
                world.spent.failures += u8::from(fails);
                world.spent.duplicates += u8::from(stays);
                return self.arrive(world, request, fails, stays);
            }
            Act::Land(place) => self.land(world, place),
            Act::OldPrimaryDies => {
                world.spent.crashes += 1;
                world.resources.kill_old(self.rules);
            }
            Act::OldHostDies => {
                world.spent.deaths += 1;
                world.resources.kill_old(self.rules);
                world.resources.old.at_work = None;
            }
            Act::ClearLatch => {
                let at_work = world.resources.old.at_work;
                if !world.resources.clear_latch()
                    && let Some(request) = at_work
                {
                    Self::answer(world, request, Ended::Unknown);
                }
            }
            Act::StandbyCatchesUp => world.resources.has_all = true,
            Act::OldPrimaryBoots => world.resources.start_old(),
            Act::UnfenceByHand => {
                world.spent.unfencings += 1;
                world.resources.latch = 0;
                world.resources.start_old();
            }
            Act::Order(word) => {
                world.spent.orders += 1;
                let run = self.log.brief(world.head).run;
                return self.write(world, Cmd::Order { run, word }).done;
            }
            Act::Pause => {
                world.spent.pauses += 1;
                return self.write(world, Cmd::Pause).done;
            }
            Act::Resume => return self.write(world, Cmd::Resume).done,
        }
        true
    }
}

fn as_due(due: &Move) -> Option<Due> {
    let small = |n: &u32| u8::try_from(*n).ok();
    Some(match due {
        Move::Claim => Due::Claim,
        Move::Start { step, attempt } => Due::Start { step: Step::of(step)?, attempt: small(attempt)? },
        Move::Settle { step, attempt } => Due::Settle { step: Step::of(step)?, attempt: small(attempt)? },
        Move::Watch { step } => Due::Watch { step: Step::of(step)? },
        Move::GiveUp { step, .. } => Due::GiveUp { step: Step::of(step)? },
        Move::Abort => Due::Abort,
        Move::Close { outcome: RunOutcome::Succeeded } => Due::Close,
        Move::TurnBack { .. } => Due::TurnBack,
        Move::Close { outcome: RunOutcome::Reverted } => Due::Revert,
        Move::Close { outcome: RunOutcome::Withdrawn } => Due::CallOff,
        Move::Close { .. } | Move::Lapse { .. } => return None,
    })
}

impl Model for Watchdogs {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            head: self.first,
            leader: 0,
            nodes: vec![Node { view: self.first, ..Node::default() }; usize::from(self.rules.nodes)],
            mail: Default::default(),
            resources: Resources::new(),
            spent: Spent::default(),
            seen: Seen::default(),
        };
        self.elect(&mut world, 0);
        vec![world]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        let brief = self.log.brief(world.head);
        for n in 0..self.rules.nodes {
            if world.spent.elections < self.rules.elections {
                acts.push(Act::Elect(n));
            }
            if world.nodes[usize::from(n)].leads {
                self.node_acts(world, n, acts);
            }
        }
        for request in &world.mail {
            let request = *request;
            acts.push(Act::Arrive { request, fails: false, stays: false });
            if world.spent.failures < self.rules.failures {
                acts.push(Act::Arrive { request, fails: true, stays: false });
            }
            if world.spent.duplicates < self.rules.duplicates {
                acts.push(Act::Arrive { request, fails: false, stays: true });
            }
        }
        for place in [Place::Old, Place::New, Place::Zone] {
            match world.resources.keeper(place).at_work {
                Some(Request { step: Step::Release, .. }) if world.resources.latch > 0 => acts.push(Act::ClearLatch),
                Some(_) => acts.push(Act::Land(place)),
                None => {}
            }
        }
        self.operators_acts(world, &brief, acts);
        self.hosts_acts(world, &brief, acts);
    }

    fn next_state(&self, last: &World, act: Act) -> Option<World> {
        let mut next = last.clone();
        if !self.happens(&mut next, act) {
            return None;
        }
        executor::forget_dead_letters(self, &mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::properties()
    }
}
