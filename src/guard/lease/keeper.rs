//! Decides what a primary's guard does about its lease (ADR 8). Pure: looks and answers in, actions out, `CLOCK_BOOTTIME`
//! as data; [`super::primary`] does what it says.
//!
//! What the promises rest on here:
//! * The gate's deadline is when a request was *sent* plus the TTL, and only where that very request was granted (by the
//!   leader, or by every holder of the binding). It is absolute and counts suspends: an answer that comes late, after a
//!   freeze of an hour, extends nothing.
//! * A bounded gate is attested only where `bounded` is durable, and it is made durable before the gate is bounded. A
//!   missing record means bounded, and so does one of an earlier boot.
//! * The gate is opened only by the answer *open-ended* to the newest request sent, after that was made durable. While an
//!   older request waits for its answer no newer is sent, once such an answer was seen.
//! * A server that this very process saw follow another, of a host whose record knows no binding, is asked for before its first
//!   gate is put in place: the grant brings it, open until its deadline, and no client of the new primary is reset. Nothing can count
//!   on the silence of such a host: what it attests until then is *absent*, which binds nothing. A denial, or a TTL without a word,
//!   puts the gate in place shut, as for every other server without one.
//! * A holder that the last binding named stays named in every request until the cluster shows an unbound lease: so no
//!   binding can forget a holder whose hold this guard would believe.
//!
//! | what happens | what follows |
//! |---|---|
//! | this process is killed | the kernel shuts the gate at its deadline; the next process takes the gate over as it is |
//! | it is frozen, or the host suspended, for an hour | the deadline passes meanwhile; every answer waiting is too late |
//! | it is started again | the record says bounded or open; nonces go on above all earlier ones |
//! | the host boots | bounded and shut, whatever the record says, until somebody grants; also while it is latched, since nothing is released without a gate |
//! | the disk is full | what is bounded goes on being renewed; nothing is opened, nothing that is open is attested as bounded |
//! | the record is lost or damaged | bounded; holds count again once a leader has told the binding |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{HostName, Token};
use crate::domain::lease::{GateSeen, HoldTold};
use crate::domain::mutation::{Mutation, is_out};

/// The part of a nonce that counts within one process; what it overflows into lies in the next milliseconds.
const NONCE_BITS: u32 = 20;

/// `lease.json`: what must outlive this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRecord {
    /// The boot it was written in: an open gate is not believed in another.
    pub boot_nonce: String,
    /// The gate shuts by itself; only the cluster's word makes this false.
    pub bounded: bool,
    /// Above that of every earlier process: the upper part of its nonces.
    pub starts: u64,
    /// The cluster's last word: the lease is bound.
    pub bound: bool,
    /// The holders of that binding.
    pub holders: Vec<HostName>,
    /// The ground for holds.
    pub ground: Option<Token>,
}

impl LeaseRecord {
    /// What a missing or unreadable record means.
    pub fn missing() -> Self {
        Self { boot_nonce: String::new(), bounded: true, starts: 0, bound: false, holders: Vec::new(), ground: None }
    }
}

/// What does not change while the process runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This guard's own TTL, milliseconds.
    pub ttl_ms: u64,
    /// How many nodes there are to ask.
    pub nodes: usize,
    /// Hosts that can be asked for holds.
    pub holders: Vec<HostName>,
    /// This boot.
    pub boot_nonce: String,
    /// Wall clock, milliseconds: so that nonces go on above earlier ones even where the record was lost.
    pub unix_ms: u64,
}

/// An operator's word that the gate shall stand open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Glass {
    /// None was given.
    #[default]
    Whole,
    /// Once the cluster no longer counts on the gate.
    Asked,
    /// At once: the operator owns the fence.
    Broken,
}

/// The host, as read just now.
#[derive(Debug, Clone)]
pub struct Look {
    /// `CLOCK_BOOTTIME` before it was read, milliseconds. Requests that follow count as sent then.
    pub now_ms: u64,
    /// The database is the primary, or could start as one.
    pub may_serve: bool,
    /// The latch is set, or cannot be read.
    pub latched: bool,
    /// The gate, from the kernel.
    pub gate: GateSeen,
    /// An operator's word.
    pub glass: Glass,
}

/// What a leader said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// May pass until the TTL after the request was sent.
    Granted,
    /// Nothing counts on the gate.
    OpenEnded,
    /// Nothing may pass on the cluster's word.
    Denied,
}

/// A leader's answer, its nonce checked already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The word.
    pub word: Word,
    /// Why, for people.
    pub why: String,
    /// The lease is bound.
    pub bound: bool,
    /// Its holders.
    pub holders: Vec<HostName>,
    /// The ground for holds, if told.
    pub ground: Option<Token>,
    /// The group's TTL, milliseconds; 0 where it has none.
    pub ttl_ms: u64,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make it durable, then call [`Keeper::saved`] or [`Keeper::not_saved`] before anything else.
    Save(LeaseRecord),
    /// Put the gate into the kernel, shut; or take over the one that is there.
    Install,
    /// Put the gate into the kernel open until here, in one step; or take over the one that is there and extend it.
    Begin(u64),
    /// Let pass until here at least.
    ExtendUntil(u64),
    /// Let pass until here at most.
    BoundAt(u64),
    /// Let everything pass.
    Open,
    /// Ask a node.
    AskNode {
        /// Of the request.
        nonce: u64,
        /// Which of the configured ones.
        node: usize,
        /// What is attested.
        gate: GateSeen,
        /// The holders to name.
        holders: Vec<HostName>,
        /// The TTL.
        ttl_ms: u64,
    },
    /// Ask a standby's guard for a hold.
    AskHolder {
        /// Of the request.
        nonce: u64,
        /// Which.
        host: HostName,
        /// The TTL.
        ttl_ms: u64,
        /// The ground.
        ground: Token,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    Node { node: usize, open_attested: bool },
    Holder(HostName),
}

#[derive(Debug, Clone)]
struct Asked {
    sent_ms: u64,
    ttl_ms: u64,
    whom: Whom,
}

impl Asked {
    fn until_ms(&self) -> u64 {
        self.sent_ms.saturating_add(self.ttl_ms)
    }
}

/// What a record's being durable allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    Open,
    Bound { until_ms: u64 },
}

/// Whether the cluster's word comes before the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// The gate, shut.
    Gate,
    /// The word, should this server be promoted: it follows another, and no gate of it was seen.
    Follows,
    /// The word, up to here: it was promoted.
    Word { until_ms: u64 },
}

/// One primary's lease.
#[derive(Debug, Clone)]
pub struct Keeper {
    settings: Settings,
    durable: LeaseRecord,
    /// As `durable`, but for what was learned since.
    known: LeaseRecord,
    saving: Option<(LeaseRecord, Then)>,
    last_nonce: u64,
    /// The newest request to a node.
    newest: u64,
    /// The newest request of which an answer was used.
    heard: u64,
    asked: BTreeMap<u64, Asked>,
    /// The hosts that granted, and until when that lets the gate stand open.
    holds: BTreeMap<HostName, u64>,
    node: usize,
    /// One request at a time, until the newest is answered.
    alone: bool,
    group_ttl_ms: u64,
    deadline_ms: u64,
    first: First,
    glass: Glass,
    said: String,
}

impl Keeper {
    /// Begins with what was durable. The first action makes this process's nonces durable; where that fails the wall
    /// clock alone orders them.
    pub fn start(settings: Settings, found: Option<LeaseRecord>) -> (Self, Vec<Action>) {
        let mut durable = found.unwrap_or_else(LeaseRecord::missing);
        // An open gate is gone with its boot; a kernel that tells no boots apart is not believed.
        durable.bounded |= durable.boot_nonce != settings.boot_nonce || settings.boot_nonce.is_empty();
        durable.boot_nonce = settings.boot_nonce.clone();
        durable.starts = durable.starts.saturating_add(1).max(settings.unix_ms).min(u64::MAX >> NONCE_BITS);
        let mut keeper = Self {
            known: durable.clone(),
            saving: None,
            last_nonce: durable.starts << NONCE_BITS,
            newest: 0,
            heard: 0,
            asked: BTreeMap::new(),
            holds: BTreeMap::new(),
            node: 0,
            alone: false,
            group_ttl_ms: u64::MAX,
            deadline_ms: 0,
            first: First::Gate,
            glass: Glass::Whole,
            said: "nobody has answered yet".to_owned(),
            settings,
            durable,
        };
        let first = keeper.save(Then::Nothing);
        (keeper, vec![first])
    }

    /// What the cluster last said, for people.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// The gate may stand open for good: the record says so.
    pub fn is_open_ended(&self) -> bool {
        !self.durable.bounded
    }

    /// Until when the gate may stand open at most as far as this process extended it, `CLOCK_BOOTTIME`, milliseconds.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// The holds that count at `now_ms`: who granted it, how much longer, over which ground. For status.
    pub fn holds_at(&self, now_ms: u64) -> Vec<HoldTold> {
        let Some(ground) = self.known.ground else { return Vec::new() };
        let held = self.holds.iter().filter(|(_, until_ms)| **until_ms > now_ms);
        held.map(|(host, until_ms)| HoldTold { host: host.clone(), for_ms: until_ms - now_ms, ground }).collect()
    }

    fn ttl_ms(&self) -> u64 {
        self.settings.ttl_ms.min(self.group_ttl_ms)
    }

    fn save(&mut self, then: Then) -> Action {
        let record = self.known.clone();
        self.saving = Some((record.clone(), then));
        Action::Save(record)
    }

    /// The record is durable.
    pub fn saved(&mut self) -> Vec<Action> {
        let Some((record, then)) = self.saving.take() else { return Vec::new() };
        self.durable = record;
        match then {
            Then::Nothing => Vec::new(),
            Then::Open => {
                self.deadline_ms = 0;
                vec![Action::Install, Action::Open]
            }
            Then::Bound { until_ms } => {
                self.deadline_ms = until_ms;
                vec![Action::Install, Action::BoundAt(until_ms), Action::ExtendUntil(until_ms)]
            }
        }
    }

    /// The record could not be made durable: nothing that rests on it is done; the next answer tries again.
    pub fn not_saved(&mut self) {
        self.saving = None;
        self.known.bounded = self.durable.bounded;
    }

    /// The host was looked at: puts the gate right, and asks everybody.
    pub fn looked(&mut self, look: &Look) -> Vec<Action> {
        self.glass = look.glass;
        self.asked.retain(|_, asked| look.now_ms < asked.until_ms());
        self.holds.retain(|_, until_ms| look.now_ms < *until_ms);
        if self.saving.is_some() {
            return Vec::new();
        }
        if look.latched {
            return self.fall_silent(look);
        }
        let mut actions = Vec::new();
        if self.glass == Glass::Broken && self.durable.bounded {
            self.known.bounded = false;
            actions.push(self.save(Then::Open));
            return actions;
        }
        if !look.may_serve {
            self.first = if self.known.bound { First::Gate } else { First::Follows };
            return actions;
        }
        if self.first == First::Follows {
            self.first = First::Word { until_ms: look.now_ms.saturating_add(self.ttl_ms()) };
        }
        match (self.durable.bounded, &look.gate) {
            (true, GateSeen::Absent { .. }) if self.word_comes_first(look.now_ms) => {}
            (true, GateSeen::Bounded { .. }) | (false, GateSeen::OpenEnded) => {}
            (true, GateSeen::Absent { .. }) => actions.push(Action::Install),
            (true, GateSeen::OpenEnded) => actions.push(Action::BoundAt(self.deadline_ms)),
            (false, _) => actions.extend([Action::Install, Action::Open]),
        }
        self.ask_node(look, &mut actions);
        self.ask_holders(look, &mut actions);
        actions
    }

    fn word_comes_first(&mut self, now_ms: u64) -> bool {
        let comes = matches!(self.first, First::Word { until_ms } if now_ms < until_ms);
        if !comes {
            self.first = First::Gate;
        }
        comes
    }

    /// Fenced: nobody is asked, and what was asked counts for nothing.
    fn fall_silent(&mut self, look: &Look) -> Vec<Action> {
        self.first = First::Gate;
        self.asked.clear();
        self.holds.clear();
        self.deadline_ms = 0;
        self.said = "this host is latched: nothing is asked for".to_owned();
        let mut actions = Vec::new();
        if !matches!(look.gate, GateSeen::Absent { .. }) {
            actions.push(Action::BoundAt(0));
        } else if look.may_serve && self.durable.bounded {
            // It may be released: behind a gate only, and a boot has taken that away.
            actions.push(Action::Install);
        }
        if !self.durable.bounded {
            self.known.bounded = true;
            actions.push(self.save(Then::Bound { until_ms: 0 }));
        }
        actions
    }

    fn next_nonce(&mut self) -> u64 {
        self.last_nonce += 1;
        self.last_nonce
    }

    fn ask_node(&mut self, look: &Look, actions: &mut Vec<Action>) {
        let waits = |node: Option<usize>| {
            self.asked.values().any(|asked| match asked.whom {
                Whom::Node { node: asked, .. } => node.is_none_or(|node| node == asked),
                Whom::Holder(_) => false,
            })
        };
        if self.settings.nodes == 0 || (self.alone && waits(None)) {
            return;
        }
        // One that has not answered the last request by now may never: another is asked beside it.
        if waits(Some(self.node)) {
            self.node = (self.node + 1) % self.settings.nodes;
        }
        let gate = match (&look.gate, self.durable.bounded && self.glass == Glass::Whole) {
            (GateSeen::Absent { why }, _) => GateSeen::Absent { why: why.clone() },
            (seen, true) => seen.clone(),
            // It may be opened at any moment: less is attested than may be there.
            (_, false) => GateSeen::OpenEnded,
        };
        let open_attested = !matches!(gate, GateSeen::Bounded { .. });
        // Those of the record too: after a crash it is all that is known.
        let named = self.holds.keys().chain(&self.known.holders).chain(&self.durable.holders);
        let mut holders: Vec<HostName> = named.cloned().collect();
        holders.sort();
        holders.dedup();
        let (nonce, node, ttl_ms) = (self.next_nonce(), self.node, self.ttl_ms());
        self.newest = nonce;
        let asked = Asked { sent_ms: look.now_ms, ttl_ms, whom: Whom::Node { node, open_attested } };
        self.asked.insert(nonce, asked);
        actions.push(Action::AskNode { nonce, node, gate, holders, ttl_ms });
    }

    fn ask_holders(&mut self, look: &Look, actions: &mut Vec<Action>) {
        let Some(ground) = self.known.ground.filter(|_| self.durable.bounded) else { return };
        if is_out(Mutation::HoldsNotAsked) {
            return;
        }
        for host in self.settings.holders.clone() {
            let (nonce, ttl_ms) = (self.next_nonce(), self.ttl_ms());
            self.asked.insert(nonce, Asked { sent_ms: look.now_ms, ttl_ms, whom: Whom::Holder(host.clone()) });
            actions.push(Action::AskHolder { nonce, host, ttl_ms, ground });
        }
    }

    /// A node answered, or could not (`None`).
    pub fn answered(&mut self, now_ms: u64, nonce: u64, said: Option<&Said>) -> Vec<Action> {
        let is_nodes = self.asked.get(&nonce).is_some_and(|asked| matches!(asked.whom, Whom::Node { .. }));
        let Some(asked) = self.asked.remove(&nonce).filter(|_| is_nodes) else { return Vec::new() };
        let Whom::Node { node, open_attested } = asked.whom else { return Vec::new() };
        let Some(said) = said else {
            if node == self.node {
                self.node = (self.node + 1) % self.settings.nodes.max(1);
            }
            return Vec::new();
        };
        if now_ms >= asked.until_ms() || self.saving.is_some() {
            return Vec::new();
        }
        let ttl_ms = if said.ttl_ms == 0 { asked.ttl_ms } else { asked.ttl_ms.min(said.ttl_ms) };
        let since_ms = if is_out(Mutation::GrantFromArrival) { now_ms } else { asked.sent_ms };
        let until_ms = since_ms.saturating_add(ttl_ms);
        let is_news = nonce > self.heard;
        if is_news {
            self.learn(nonce, said);
        }
        let is_newest = nonce == self.newest;
        self.alone &= !is_newest;
        let mut actions = Vec::new();
        let then = match (said.word, self.durable.bounded) {
            (Word::Granted, true) => {
                actions.extend(self.extend(now_ms, until_ms));
                let unbound = open_attested && !said.bound && is_newest;
                (self.glass == Glass::Asked && unbound).then_some(Then::Open)
            }
            (Word::Granted, false) => (is_news && self.glass == Glass::Whole).then_some(Then::Bound { until_ms }),
            (Word::OpenEnded, true) => {
                // Nothing counts on the gate, so this is a grant too: where the record cannot be written, the only one.
                actions.extend(self.extend(now_ms, until_ms));
                self.alone |= !is_newest;
                (is_newest || is_out(Mutation::OpenOutOfOrder)).then_some(Then::Open)
            }
            (Word::Denied, true) => {
                if matches!(self.first, First::Word { .. }) {
                    self.first = First::Gate;
                    actions.push(Action::Install);
                }
                None
            }
            (Word::OpenEnded, false) => None,
            (Word::Denied, false) => (is_news && self.glass != Glass::Broken).then_some(Then::Bound { until_ms: 0 }),
        };
        match then {
            Some(then) => {
                self.known.bounded = matches!(then, Then::Bound { .. });
                actions.push(self.save(then));
            }
            None if self.known != self.durable => actions.push(self.save(Then::Nothing)),
            None => {}
        }
        actions
    }

    fn learn(&mut self, nonce: u64, said: &Said) {
        self.heard = nonce;
        self.known.bound = said.bound;
        self.known.holders = if said.bound { said.holders.clone() } else { Vec::new() };
        self.known.holders.sort();
        self.group_ttl_ms = if said.ttl_ms == 0 { u64::MAX } else { said.ttl_ms };
        self.said = match said.word {
            Word::Granted => "granted by the cluster".to_owned(),
            Word::OpenEnded => format!("open-ended: {}", said.why),
            Word::Denied => format!("denied: {}", said.why),
        };
        if said.word == Word::Denied {
            // Who denies has ordered a fence, or sees another primary: the standbys' older word counts no more.
            self.known.ground = None;
            self.holds.clear();
        } else if said.ground.is_some() {
            self.known.ground = said.ground;
        }
    }

    /// A standby's guard answered, or could not.
    pub fn held(&mut self, now_ms: u64, nonce: u64, granted: bool) -> Vec<Action> {
        let is_holders = self.asked.get(&nonce).is_some_and(|asked| matches!(asked.whom, Whom::Holder(_)));
        let Some(asked) = self.asked.remove(&nonce).filter(|_| is_holders) else { return Vec::new() };
        let until_ms = asked.until_ms();
        let Whom::Holder(host) = asked.whom else { return Vec::new() };
        if !granted || self.known.ground.is_none() || now_ms >= until_ms {
            return Vec::new();
        }
        let hold = self.holds.entry(host).or_default();
        *hold = until_ms.max(*hold);
        // None at all is not every one.
        let can_renew = self.known.bound && !self.known.holders.is_empty() && self.durable.bounded;
        if !can_renew || self.saving.is_some() {
            return Vec::new();
        }
        let granted: Option<Vec<u64>> = self.known.holders.iter().map(|host| self.holds.get(host).copied()).collect();
        let until_ms = granted.into_iter().flatten().min();
        until_ms.map(|until_ms| self.extend(now_ms, until_ms)).unwrap_or_default()
    }

    fn extend(&mut self, now_ms: u64, until_ms: u64) -> Vec<Action> {
        if until_ms <= now_ms || until_ms <= self.deadline_ms {
            return Vec::new();
        }
        self.deadline_ms = until_ms;
        match std::mem::replace(&mut self.first, First::Gate) {
            First::Word { .. } => vec![Action::Begin(until_ms)],
            First::Gate | First::Follows => vec![Action::ExtendUntil(until_ms)],
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
