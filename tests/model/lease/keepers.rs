//! **The real `Keeper`** of the primary's guard. Equal ones are kept once and called by number, and so are its answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use watchdog::domain::ids::HostName;
use watchdog::domain::lease::GateSeen;
use watchdog::guard::lease::keeper;
use watchdog::guard::lease::keeper::{Action, Glass, Keeper, LeaseRecord, Look, Settings, Word};

use super::super::command::{HOLDERS, bits_of, holders};
use super::super::log::token;
use super::world::{Gate, Pane, Reply, Said, TTL_MS};

/// A keeper's number.
pub type KeeperId = u32;
/// A record's number.
pub type RecordId = u32;

/// What a keeper is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    Looked {
        now_ms: u64,
        gate: Gate,
        pane: Pane,
    },
    /// Looked, and the server follows another.
    Follows {
        now_ms: u64,
    },
    Answered {
        now_ms: u64,
        reply: Reply,
    },
    Held {
        now_ms: u64,
        nonce: u64,
        granted: bool,
    },
    Saved,
    NotSaved,
}

/// What it wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Todo {
    Save(RecordId),
    Install,
    Begin(u64),
    Extend(u64),
    Bound(u64),
    Open,
    Ask { nonce: u64, gate: Gate, holders: u8 },
    AskHolder { nonce: u64, holder: u8, ground: u8 },
}

/// What a keeper came to.
pub type After = (KeeperId, Arc<Vec<Todo>>);

#[derive(Default)]
struct Kept {
    keepers: Vec<Keeper>,
    numbers: HashMap<String, KeeperId>,
    records: Vec<LeaseRecord>,
    answers: HashMap<(KeeperId, Event), After>,
}

/// All keepers met so far.
pub struct Keepers {
    holders: u8,
    kept: Mutex<Kept>,
}

impl Keepers {
    /// Guards that ask the first so many of [`HOLDERS`].
    pub fn new(holders: u8) -> Self {
        Self { holders, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process begins. `starts`: how many there were.
    pub fn start(&self, boot: u8, starts: u8, found: Option<RecordId>) -> After {
        let mut kept = self.kept();
        let asked = HOLDERS.iter().take(self.holders.into()).map(|name| HostName::from(*name));
        let settings = Settings {
            ttl_ms: TTL_MS,
            nodes: 3,
            holders: asked.collect(),
            boot_nonce: format!("boot {boot}"),
            unix_ms: starts.into(),
        };
        let found = found.map(|id| kept.records[id as usize].clone());
        let (keeper, first) = Keeper::start(settings, found);
        kept.take(keeper, &first)
    }

    /// Tells it.
    pub fn tell(&self, id: KeeperId, event: Event) -> After {
        let mut kept = self.kept();
        if let Some(known) = kept.answers.get(&(id, event)) {
            return known.clone();
        }
        let mut keeper = kept.keepers[id as usize].clone();
        let actions = match event {
            Event::Looked { now_ms, gate, pane } => keeper.looked(&look(now_ms, gate, pane)),
            Event::Follows { now_ms } => {
                keeper.looked(&Look { may_serve: false, ..look(now_ms, Gate::Absent, Pane::Whole) })
            }
            Event::Answered { now_ms, reply } => keeper.answered(now_ms, reply.nonce, Some(&said(reply))),
            Event::Held { now_ms, nonce, granted } => keeper.held(now_ms, nonce, granted),
            Event::Saved => keeper.saved(),
            Event::NotSaved => {
                keeper.not_saved();
                Vec::new()
            }
        };
        let after = kept.take(keeper, &actions);
        kept.answers.insert((id, event), after.clone());
        after
    }

    /// The record of that number.
    pub fn record(&self, id: RecordId) -> LeaseRecord {
        self.kept().records[id as usize].clone()
    }

    /// `Now::passes` as the boot gate reads it, without the kernel.
    pub fn has_lease(&self, id: KeeperId, now_ms: u64) -> bool {
        let keeper = &self.kept().keepers[id as usize];
        keeper.is_open_ended() || keeper.deadline_ms() > now_ms
    }
}

impl Kept {
    fn take(&mut self, keeper: Keeper, actions: &[Action]) -> After {
        let todo = actions.iter().map(|action| self.todo(action)).collect();
        let next = KeeperId::try_from(self.keepers.len()).expect("fewer keepers than that");
        let id = *self.numbers.entry(format!("{keeper:?}")).or_insert(next);
        if id == next {
            self.keepers.push(keeper);
        }
        (id, Arc::new(todo))
    }

    fn todo(&mut self, action: &Action) -> Todo {
        match action {
            Action::Save(record) => {
                let at = self.records.iter().position(|known| known == record).unwrap_or(self.records.len());
                if at == self.records.len() {
                    self.records.push(record.clone());
                }
                Todo::Save(RecordId::try_from(at).expect("fewer records than that"))
            }
            Action::Install => Todo::Install,
            Action::Begin(until_ms) => Todo::Begin(*until_ms),
            Action::ExtendUntil(until_ms) => Todo::Extend(*until_ms),
            Action::BoundAt(until_ms) => Todo::Bound(*until_ms),
            Action::Open => Todo::Open,
            Action::AskNode { nonce, gate, holders, .. } => {
                let gate = match gate {
                    GateSeen::Bounded { .. } => Gate::Bounded,
                    GateSeen::OpenEnded => Gate::Open,
                    GateSeen::Absent { .. } => Gate::Absent,
                };
                Todo::Ask { nonce: *nonce, gate, holders: bits_of(holders) }
            }
            Action::AskHolder { nonce, host, ground, .. } => Todo::AskHolder {
                nonce: *nonce,
                holder: bits_of(std::slice::from_ref(host)).trailing_zeros() as u8,
                ground: u8::try_from(ground.n).expect("tokens stay small within the bound"),
            },
        }
    }
}

/// As attested.
pub fn seen(gate: Gate) -> GateSeen {
    match gate {
        Gate::Bounded => GateSeen::Bounded { evidence: String::new() },
        Gate::Open => GateSeen::OpenEnded,
        Gate::Absent => GateSeen::Absent { why: String::new() },
    }
}

fn look(now_ms: u64, gate: Gate, pane: Pane) -> Look {
    let glass = match pane {
        Pane::Whole => Glass::Whole,
        Pane::Asked => Glass::Asked,
        Pane::Broken => Glass::Broken,
    };
    Look { now_ms, may_serve: true, latched: false, gate: seen(gate), glass }
}

fn said(reply: Reply) -> keeper::Said {
    let word = match reply.said {
        Said::Granted => Word::Granted,
        Said::OpenEnded => Word::OpenEnded,
        Said::Denied => Word::Denied,
    };
    keeper::Said {
        word,
        why: String::new(),
        bound: reply.bound.is_some(),
        holders: reply.bound.map(holders).unwrap_or_default(),
        ground: reply.ground.map(token),
        ttl_ms: TTL_MS,
    }
}
