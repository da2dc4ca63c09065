//! What can happen next.

use stateright::{Model, Property};

use super::super::cluster::HOME;
use super::super::command::Cmd;
use super::super::log::{Log, StateId};
use super::super::rules;
use super::bounds::{Begins, Bound, Mutation};
use super::keepers::Keepers;
use super::runs::Due;
use super::world::{Host, Kernel, Message, Node, Pane, Paper, Seen, Spent, Standby, TTL_MS, Unheard, World, moment_ms};
use super::{desk, host, promises, runs};

/// Whether something comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Luck {
    Good,
    /// Of a proposal: nobody hears of it, and it is committed later or never. Of the host: disk or kernel refuse.
    Unheard,
}

/// One thing that happens. A program that is frozen is one of whose things none happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Time goes on to the next moment, by every clock.
    Tick,
    /// The primary's guard looks at its host and asks.
    Look,
    /// It goes on with what its keeper wants done.
    GuardGoesOn(Luck),
    /// A message arrives; a renewal at this node.
    Arrive(Message, u8),
    /// The guard dies and is started again.
    GuardRestarts,
    HostBoots,
    DatabaseStarts,
    HolderRestarts(u8),
    /// An operator's word on the gate.
    Glass(Pane),
    /// A leader goes on with a request.
    DeskGoesOn(u8, u64, Luck),
    /// What was proposed and not heard of is committed.
    CommittedLate(u8),
    /// A majority follows this node. `adopts`: what the last leader proposed unheard is in its log. `forgets`: it was
    /// restarted before.
    Elect {
        node: u8,
        adopts: bool,
        forgets: bool,
    },
    OpenRun,
    Begin(u8, Due),
    GoOn(u8, Luck),
    Withdraw,
    Pause,
    Resume,
}

/// The model.
pub struct LeaseModel {
    pub bound: Bound,
    pub log: Log,
    pub keepers: Keepers,
    first: StateId,
}

const NODES: [u8; 2] = [0, 1];

impl LeaseModel {
    pub fn new(bound: Bound) -> Self {
        let rules = rules::Rules { mode: rules::Mode::Lease(TTL_MS), ..rules::QUIET };
        let (log, first) = Log::new(rules);
        Self { bound, log, keepers: Keepers::new(bound.holders), first }
    }

    /// Commits. False: rejected.
    pub fn write(&self, world: &mut World, cmd: Cmd) -> bool {
        // What this leader wrote before is before it in its log.
        let leader = world.leader;
        self.commit_late(world, leader);
        let answer = self.log.apply(world.head, cmd);
        world.seen.broken_invariant |= !answer.is_sound;
        world.head = answer.state;
        world.node(leader).view = answer.state;
        if self.log.brief(answer.state).run == 0 {
            // `Runs::look`: whatever was proposed for a run is void.
            let node = world.node(leader);
            node.stopped = false;
            node.token = 0;
        }
        answer.done
    }

    /// Commits a claim, and answers its token.
    pub fn claim(&self, world: &mut World, cmd: Cmd) -> u8 {
        if self.write(world, cmd) { self.log.brief(world.head).run_token } else { 0 }
    }

    fn commit_late(&self, world: &mut World, n: u8) -> bool {
        match world.node(n).proposed.take() {
            Some(Unheard::Bind(holders)) => self.write(world, Cmd::Bind { holders }),
            Some(Unheard::Unbind) => self.write(world, Cmd::Unbind),
            Some(Unheard::Fence { run, token }) => self.write(world, runs::fence(run, token)),
            None => false,
        }
    }

    fn elect(&self, world: &mut World, n: u8, adopts: bool, forgets: bool) {
        world.spent.elections += 1;
        let last = world.leader;
        if adopts {
            self.commit_late(world, last);
        }
        world.node(last).proposed = None;
        world.leader = n;
        world.term += 1;
        let (term, moment, head) = (world.term, world.moment, world.head);
        let node = world.node(n);
        if forgets {
            *node = Node::default();
        }
        node.term = term;
        node.led_since = Some(moment);
        node.view = head;
        node.token = 0;
        node.work = None;
        node.stopped &= self.log.brief(head).run > 0;
        if world.spent.elections == self.bound.elections {
            // Whoever never leads again never confirms.
            world.node(last).desk.retain(|_, paper| {
                !matches!(paper, Paper::Arrived { .. }) || self.bound.breaks(Mutation::GrantsUnconfirmed)
            });
        }
    }

    fn empty(&self) -> World {
        let (keeper, todo) = self.keepers.start(0, 0, None);
        let leader = Node { term: 1, view: self.first, ..Node::default() };
        World {
            moment: 0,
            head: self.first,
            leader: 0,
            term: 1,
            challenges: 0,
            nodes: [leader, Node { view: self.first, ..Node::default() }],
            net: Default::default(),
            host: Host {
                keeper,
                todo: (*todo).clone(),
                disk: None,
                challenge: (0, 0),
                newest: 0,
                looked_at: None,
                kernel: Kernel::Absent,
                pane: Pane::Whole,
                boots: 0,
                booted_ms: 0,
                runs: true,
            },
            standbys: [Standby::default(), Standby::default()],
            spent: Spent::default(),
            seen: Seen::default(),
        }
    }

    /// A guard that has asked until its lease was bound, with every holder; then, where so wanted, until it was unbound.
    fn begin(&self) -> World {
        let mut world = self.empty();
        self.go_well(&mut world, 4);
        let every = if self.bound.begins == Begins::BoundBySecond { 2 } else { (1 << self.bound.holders) - 1 };
        assert_eq!(self.log.brief(world.head).bound, Some(every), "the search begins with a bound lease");
        if matches!(self.bound.begins, Begins::Open | Begins::Bounded) {
            assert!(self.write(&mut world, Cmd::Pause));
            self.go_well(&mut world, 1);
            assert_eq!(world.host.kernel, Kernel::Open);
        }
        if self.bound.begins == Begins::Bounded {
            assert!(self.write(&mut world, Cmd::Resume));
            self.go_well(&mut world, 1);
            assert!(self.log.brief(world.head).bound.is_none() && world.host.kernel != Kernel::Open);
        }
        assert!(world.passes());
        world.net.clear();
        world.host.looked_at = None;
        world.spent = Spent::default();
        world.seen = Seen::default();
        world
    }

    /// The guard asks so often, and nothing fails.
    fn go_well(&self, world: &mut World, looks: u8) {
        for _ in 0..looks {
            if world.host.todo.is_empty() {
                host::look(self, world);
            }
            loop {
                let mut acts = Vec::new();
                self.guards_acts(world, &mut acts);
                self.desks_acts(world, &mut acts);
                self.nets_acts(world, &mut acts);
                let goes_well = |act: &&Act| {
                    matches!(act, Act::GuardGoesOn(Luck::Good) | Act::Arrive(..) | Act::DeskGoesOn(_, _, Luck::Good))
                };
                let is_left = |act: &&Act| {
                    let is_first = matches!(act, Act::Arrive(Message::Hold { holder: 0, .. }, _));
                    is_first && self.bound.begins == Begins::BoundBySecond
                };
                let Some(act) = acts.iter().find(|act| goes_well(act) && !is_left(act)) else { break };
                assert!(self.happens(world, *act).is_some(), "{act:?} happens before the search");
            }
        }
    }

    fn guards_acts(&self, world: &World, acts: &mut Vec<Act>) {
        if world.host.todo.is_empty() {
            return;
        }
        acts.push(Act::GuardGoesOn(Luck::Good));
        if world.spent.faults < self.bound.faults {
            acts.push(Act::GuardGoesOn(Luck::Unheard));
        }
    }

    fn hosts_acts(&self, world: &World, acts: &mut Vec<Act>) {
        let (host, spent) = (&world.host, &world.spent);
        let may_look = self.bound.hastes || host.looked_at != Some(world.moment);
        if host.todo.is_empty() && spent.looks < self.bound.looks && may_look {
            acts.push(Act::Look);
        }
        if spent.kills < self.bound.kills {
            acts.push(Act::GuardRestarts);
        }
        if spent.boots < self.bound.boots {
            acts.push(Act::HostBoots);
        }
        if host::may_start(self, world) {
            acts.push(Act::DatabaseStarts);
        }
        if spent.glasses < self.bound.glasses {
            let panes = [Pane::Whole, Pane::Asked, Pane::Broken];
            acts.extend(panes.into_iter().filter(|pane| *pane != host.pane).map(Act::Glass));
        }
        if self.bound.breaks(Mutation::HoldIsNotSaved) {
            let holds = |n: &u8| world.standbys[usize::from(*n)].holds(world.moment);
            acts.extend([0, 1].into_iter().filter(holds).map(Act::HolderRestarts));
        }
    }

    fn nets_acts(&self, world: &World, acts: &mut Vec<Act>) {
        let is_free = world.host.todo.is_empty();
        for message in &world.net {
            match message {
                Message::Renew(_) => {
                    let takers = NODES.into_iter().filter(|n| desk::takes(self, world, *n));
                    acts.extend(takers.map(|n| Act::Arrive(*message, n)));
                }
                Message::Reply(_) | Message::Held { .. } if !is_free => {}
                _ => acts.push(Act::Arrive(*message, 0)),
            }
        }
    }

    fn desks_acts(&self, world: &World, acts: &mut Vec<Act>) {
        for n in NODES {
            for nonce in world.nodes[usize::from(n)].desk.keys() {
                acts.push(Act::DeskGoesOn(n, *nonce, Luck::Good));
                if world.spent.losses < self.bound.losses {
                    acts.push(Act::DeskGoesOn(n, *nonce, Luck::Unheard));
                }
            }
        }
    }

    fn runs_acts(&self, world: &World, acts: &mut Vec<Act>) {
        let brief = self.log.brief(world.head);
        let spent = &world.spent;
        if brief.run == 0 && spent.runs < self.bound.runs && brief.serving.as_deref() == Some(HOME) {
            acts.push(Act::OpenRun);
        }
        if brief.run > 0 && spent.withdrawals < self.bound.withdrawals {
            acts.push(Act::Withdraw);
        }
        if brief.is_paused {
            acts.push(Act::Resume);
        } else if spent.pauses < self.bound.pauses {
            acts.push(Act::Pause);
        }
        for n in NODES {
            let node = &world.nodes[usize::from(n)];
            acts.extend(runs::due(self, world, n).into_iter().map(|due| Act::Begin(n, due)));
            if node.work.is_some() {
                acts.push(Act::GoOn(n, Luck::Good));
                if spent.losses < self.bound.losses {
                    acts.push(Act::GoOn(n, Luck::Unheard));
                }
            }
            if node.proposed.is_some() && n == world.leader {
                acts.push(Act::CommittedLate(n));
            }
            if spent.elections < self.bound.elections && n != world.leader {
                let has_memory = node.term > 0;
                let last_proposed = world.nodes[usize::from(world.leader)].proposed.is_some();
                for adopts in [false, true].into_iter().filter(|adopts| last_proposed || !adopts) {
                    acts.push(Act::Elect { node: n, adopts, forgets: false });
                    if has_memory {
                        acts.push(Act::Elect { node: n, adopts, forgets: true });
                    }
                }
            }
        }
    }

    /// What is past its TTL and can change nothing but for the safer: a hold that is granted late only stands in a
    /// promotion's way, a renewal only makes a leader wait longer, unless it could bind.
    fn forget_dead_letters(&self, world: &mut World) {
        let now_ms = moment_ms(world.moment);
        let is_late = |sent: u8| now_ms >= moment_ms(sent) + TTL_MS;
        let can_unbind = self.bound.can_unbind();
        world.net.retain(|message| match message {
            Message::Hold { sent, .. } | Message::Held { sent, .. } => !is_late(*sent),
            Message::Reply(reply) => can_unbind || !is_late(reply.sent),
            Message::Renew(request) => can_unbind || !is_late(request.sent),
            Message::Promote { .. } => true,
        });
    }

    /// What a node remembers that never leads again and has nothing in hand.
    fn forget_the_past(&self, world: &mut World) {
        if world.spent.elections < self.bound.elections || self.bound.breaks(Mutation::GrantsUnconfirmed) {
            return;
        }
        let leader = world.leader;
        for n in NODES.into_iter().filter(|n| *n != leader) {
            let node = world.node(n);
            if node.desk.is_empty() && node.work.is_none() {
                *node = Node { view: self.first, ..Node::default() };
            }
        }
    }

    fn arrive(&self, world: &mut World, message: Message, n: u8) -> Option<()> {
        match message {
            Message::Renew(request) => desk::arrive(world, n, request),
            Message::Reply(reply) => host::take(self, world, reply),
            Message::Hold { .. } => host::hold(world, message),
            Message::Held { .. } => host::take_hold(self, world, message),
            Message::Promote { token } => return host::promote(world, token),
        }
        Some(())
    }

    fn happens(&self, world: &mut World, act: Act) -> Option<()> {
        match act {
            Act::Tick => {
                world.moment += 1;
                self.forget_dead_letters(world);
            }
            Act::Look => host::look(self, world),
            Act::GuardGoesOn(luck) => host::go_on(self, world, luck)?,
            Act::Arrive(message, n) => self.arrive(world, message, n)?,
            Act::GuardRestarts => {
                world.spent.kills += 1;
                host::restart(self, world);
            }
            Act::HostBoots => {
                world.spent.boots += 1;
                host::boot(self, world);
            }
            Act::DatabaseStarts => world.host.runs = true,
            Act::HolderRestarts(holder) => host::restart_holder(world, holder),
            Act::Glass(pane) => {
                world.spent.glasses += 1;
                world.host.pane = pane;
                world.seen.glass_broken |= pane == Pane::Broken;
            }
            Act::DeskGoesOn(n, nonce, luck) => {
                desk::go_on(self, world, n, nonce, luck)?;
                world.spent.losses += u8::from(luck == Luck::Unheard);
            }
            Act::CommittedLate(n) => {
                self.commit_late(world, n);
            }
            Act::Elect { node, adopts, forgets } => self.elect(world, node, adopts, forgets),
            Act::OpenRun => {
                world.spent.runs += 1;
                let brief = self.log.brief(world.head);
                let open = Cmd::Open { run: world.spent.runs, token: brief.token, epoch: brief.serving_epoch };
                if !self.write(world, open) {
                    return None;
                }
                let leader = world.leader;
                runs::begin(self, world, leader, Due::Claim);
            }
            Act::Begin(n, due) => runs::begin(self, world, n, due),
            Act::GoOn(n, luck) => {
                runs::go_on(self, world, n, luck)?;
                world.spent.losses += u8::from(luck == Luck::Unheard);
            }
            Act::Withdraw => {
                world.spent.withdrawals += 1;
                return runs::withdraw(self, world).then_some(());
            }
            Act::Pause => {
                world.spent.pauses += 1;
                return self.write(world, Cmd::Pause).then_some(());
            }
            Act::Resume => return self.write(world, Cmd::Resume).then_some(()),
        }
        Some(())
    }
}

impl Model for LeaseModel {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![match self.bound.begins {
            Begins::New => self.empty(),
            Begins::Promoted => {
                let mut world = self.empty();
                host::follow(self, &mut world);
                world
            }
            _ => self.begin(),
        }]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        if world.moment < self.bound.moments {
            acts.push(Act::Tick);
        }
        self.guards_acts(world, acts);
        self.hosts_acts(world, acts);
        self.nets_acts(world, acts);
        self.desks_acts(world, acts);
        self.runs_acts(world, acts);
    }

    fn next_state(&self, last: &World, act: Act) -> Option<World> {
        let mut next = last.clone();
        self.happens(&mut next, act)?;
        self.forget_the_past(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::properties()
    }
}
