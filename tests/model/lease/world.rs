//! The modelled world of the lease: the log's head, leaders with their desks, what is on its way, the primary's guard and
//! kernel, the standbys' guards, and time.

use std::collections::{BTreeMap, BTreeSet};

use watchdog::domain::lease::silence_ms;

use super::super::log::StateId;
use super::keepers::{KeeperId, RecordId, Todo};

/// Milliseconds of the primary's clock.
pub const TTL_MS: u64 = 60;

/// A moment, by the primary's clock. Two in each TTL: short of it by a sixth, and at its very end.
pub fn moment_ms(moment: u8) -> u64 {
    u64::from(moment / 2) * TTL_MS + u64::from(moment % 2) * 50
}

/// The same by the clock of everybody who waits for the primary: as fast as the margin allows. A slower one waits longer,
/// and waiting longer is among what is searched.
pub fn waiters_ms(moment: u8) -> u64 {
    moment_ms(moment) * 6 / 5
}

/// How the guard attests its gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    Bounded,
    Open,
    Absent,
}

/// What the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kernel {
    Absent,
    Until(u64),
    Open,
}

impl Kernel {
    /// With a server behind it.
    pub fn seen(self, now_ms: u64) -> Gate {
        match self {
            Kernel::Open => Gate::Open,
            Kernel::Until(until_ms) if until_ms.saturating_sub(now_ms) <= TTL_MS => Gate::Bounded,
            Kernel::Until(_) | Kernel::Absent => Gate::Absent,
        }
    }
}

/// An operator's word on the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pane {
    Whole,
    Asked,
    Broken,
}

/// A leader's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Said {
    Granted,
    OpenEnded,
    Denied,
}

/// A renewal, asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub nonce: u64,
    pub gate: Gate,
    pub holders: u8,
    pub challenge: u8,
    /// When: nothing in the model's rules reads it but what forgets dead letters.
    pub sent: u8,
}

/// A leader's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reply {
    pub nonce: u64,
    pub said: Said,
    /// The holders of the bound lease.
    pub bound: Option<u8>,
    pub ground: Option<u8>,
    pub challenge: u8,
    pub sent: u8,
}

/// On its way. Whatever is may stay so for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    Renew(Request),
    Reply(Reply),
    /// `sent`: by the primary's clock; past its TTL the answer counts no more.
    Hold {
        nonce: u64,
        holder: u8,
        ground: u8,
        sent: u8,
    },
    Held {
        nonce: u64,
        granted: bool,
        sent: u8,
    },
    Promote {
        token: u8,
    },
}

/// What the desk found, to be committed and said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finding {
    Grant { bind: Option<u8> },
    Open { unbind: bool },
    Unreliable,
    Denied,
}

/// A request on a leader's desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Paper {
    /// It arrived then.
    Arrived { request: Request, at: u8 },
    /// Leadership of this term is confirmed and the state was read.
    Found { request: Request, at: u8, term: u8, finding: Finding },
    /// What had to be committed is, or is not heard of.
    Granting { request: Request, at: u8 },
}

/// What a node does for its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Leadership is confirmed; granting is stopped; the fence's intent is about to be proposed.
    Fencing { run: u8, token: u8 },
    /// Silence is proved, to be committed: the lapse, or with it the promotion.
    Judged { run: u8, token: u8, promotes: bool },
}

/// A proposal that nobody heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unheard {
    Bind(u8),
    Unbind,
    Fence { run: u8, token: u8 },
}

/// A node that leads, or did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// Of its newest leadership, 0 for none.
    pub term: u8,
    /// When that began; `None`: ages ago.
    pub led_since: Option<u8>,
    /// The state it has applied up to.
    pub view: StateId,
    /// The token of its claim, 0 for none.
    pub token: u8,
    /// `Leases`: granting is stopped, and the arrival of the newest request granted.
    pub stopped: bool,
    pub last_granted: Option<u8>,
    /// `Turn`.
    pub turn_term: u8,
    pub challenge: Option<u8>,
    pub unheard: bool,
    /// By nonce.
    pub desk: BTreeMap<u64, Paper>,
    pub work: Option<Work>,
    /// At most one: whoever waits for an answer asks nothing else.
    pub proposed: Option<Unheard>,
}

/// The primary's host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    pub keeper: KeeperId,
    /// What the guard's process is about to do, one after the other.
    pub todo: Vec<Todo>,
    /// `lease.json`.
    pub disk: Option<RecordId>,
    /// The newest answered request and its answer's challenge.
    pub challenge: (u64, u8),
    /// The moment of the newest look, by which one a moment is enough.
    pub looked_at: Option<u8>,
    /// The newest request's nonce.
    pub newest: u64,
    pub kernel: Kernel,
    pub pane: Pane,
    pub boots: u8,
    pub booted_ms: u64,
    /// The database runs.
    pub runs: bool,
}

/// A standby's guard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Standby {
    /// The highest token raised here.
    pub held: u8,
    /// A hold stands until here, by [`waiters_ms`].
    pub hold_until_ms: u64,
    pub promoted: bool,
}

/// What is spent of the bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    pub looks: u8,
    pub elections: u8,
    pub runs: u8,
    pub withdrawals: u8,
    pub pauses: u8,
    pub glasses: u8,
    pub kills: u8,
    pub boots: u8,
    pub losses: u8,
    pub faults: u8,
}

/// What was seen on the way, for the promises: nothing in the model's rules reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// An operator owned the fence.
    pub glass_broken: bool,
    pub broken_invariant: bool,
    pub renewed_by_hold: bool,
    pub rebound: bool,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub moment: u8,
    pub head: StateId,
    pub leader: u8,
    pub term: u8,
    pub challenges: u8,
    pub nodes: [Node; 2],
    pub net: BTreeSet<Message>,
    pub host: Host,
    pub standbys: [Standby; 2],
    pub spent: Spent,
    pub seen: Seen,
}

impl World {
    /// The primary's `CLOCK_BOOTTIME`.
    pub fn host_ms(&self) -> u64 {
        moment_ms(self.moment) - self.host.booted_ms
    }

    /// Clients are answered by the old primary.
    pub fn passes(&self) -> bool {
        let lets_pass = match self.host.kernel {
            Kernel::Absent | Kernel::Open => true,
            Kernel::Until(until_ms) => self.host_ms() < until_ms,
        };
        self.host.runs && lets_pass
    }

    /// `guard::lease::gate::seen`.
    pub fn gate(&self) -> Gate {
        if self.host.runs { self.host.kernel.seen(self.host_ms()) } else { Gate::Absent }
    }

    /// A challenge never drawn before.
    pub fn draw(&mut self) -> u8 {
        self.challenges += 1;
        self.challenges
    }

    /// That node.
    pub fn node(&mut self, n: u8) -> &mut Node {
        &mut self.nodes[usize::from(n)]
    }
}

impl Standby {
    /// `guard::lease::hold::grant`.
    pub fn grants(&mut self, ground: u8, moment: u8) -> bool {
        if self.held > ground || self.promoted {
            return false;
        }
        self.hold_until_ms = self.hold_until_ms.max(waiters_ms(moment) + silence_ms(TTL_MS));
        true
    }

    /// A hold is in force.
    pub fn holds(&self, moment: u8) -> bool {
        waiters_ms(moment) < self.hold_until_ms
    }
}
