//! The commit gate (docs/adr/0010): the optional second layer of a lease. The guard, as the only client that the server's
//! `synchronous_standby_names` names, confirms what was written while the lease runs, and nothing new without it: so a
//! commit that begins after the lease ran out waits. It is no fence, and proves nothing: the kernel's gate is and does.
//!
//! [`flow`] decides, purely, what may be confirmed; [`judge`] whether the server waits for it at all; [`wire`] speaks with
//! the server; [`keep`] puts the three together. [`BothLayers`] hands every deadline that the kernel's gate is given to
//! the commit gate too.
//!
//! | what happens | what follows |
//! |---|---|
//! | this process is killed, or ends | commits wait, none is lost; the next process begins a stream, and releases once it is granted |
//! | it is frozen for an hour | the deadline is read before each reply, on a clock that goes on: nothing is released |
//! | the server is frozen | a confirmation that has reached its socket counts when it wakes: 0 to 4 commits |
//! | the server is restarted | a new stream; it confirms what lies before, while the lease runs |
//! | the server is stopped in an orderly way while lapsed | it waits for its last record to be confirmed: the gate lets it go once it says "shut down" |

pub mod flow;
pub mod judge;
pub mod keep;
pub mod wire;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::lease::gate::{Gate, GateError};
use crate::domain::lease::GateSeen;

const NS_PER_MS: u64 = 1_000_000;

/// How the commit gate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stands {
    /// Commits wait for it, and for it alone; how that was seen.
    InForce(String),
    /// There is nothing to gate: why.
    NotNeeded(String),
    /// It is configured, and commits do not wait for it, or wait in vain: why, and what to do.
    NotInForce(String),
}

impl std::fmt::Display for Stands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InForce(how) => write!(f, "in force: {how}"),
            Self::NotNeeded(why) => write!(f, "not needed: {why}"),
            Self::NotInForce(why) => write!(f, "configured, but NOT IN FORCE: {why}"),
        }
    }
}

/// What the two layers share: until when the lease runs, as the kernel's gate was told; and how the commit gate stands.
#[derive(Debug)]
pub struct Shared {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    until_ns: watch::Sender<u64>,
    stands: Mutex<Stands>,
}

impl Shared {
    fn new() -> Arc<Self> {
        let stands = Mutex::new(Stands::NotInForce("it has only just begun".to_owned()));
        Arc::new(Self { until_ns: watch::Sender::new(0), stands })
    }

    /// Until when what was written may be confirmed, `CLOCK_BOOTTIME`, nanoseconds.
    fn until_ns(&self) -> u64 {
        *self.until_ns.borrow()
    }

    fn change(&self, change: impl FnOnce(u64) -> u64) {
        self.until_ns.send_if_modified(|until_ns| {
            let before = std::mem::replace(until_ns, change(*until_ns));
            before != *until_ns
        });
    }

    fn stands(&self) -> Stands {
        self.stands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stand(&self, stands: Stands) {
        let mut now = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != stands {
            match &stands {
                Stands::NotInForce(_) => tracing::warn!("commit gate {stands}"),
                Stands::InForce(_) | Stands::NotNeeded(_) => tracing::info!("commit gate {stands}"),
            }
            *now = stands;
        }
    }
}

/// The kernel's gate, with the commit gate behind it. A deadline reaches the commit gate after the kernel's when it is
/// later, before it when it is earlier: what is confirmed could always be told to a client.
pub struct BothLayers {
    kernel: Arc<dyn Gate>,
    shared: Arc<Shared>,
}

impl BothLayers {
    /// Puts the second layer behind the first. The other half is [`keep::keep`]'s.
    pub fn new(kernel: Arc<dyn Gate>) -> (Self, Arc<Shared>) {
        let shared = Shared::new();
        (Self { kernel, shared: shared.clone() }, shared)
    }
}

impl Gate for BothLayers {
    fn install(&self) -> Result<(), GateError> {
        self.kernel.install()
    }

    fn begin(&self, boottime_ms: u64) -> Result<(), GateError> {
        self.kernel.begin(boottime_ms)?;
        self.shared.change(|until_ns| until_ns.max(boottime_ms.saturating_mul(NS_PER_MS)));
        Ok(())
    }

    fn extend_until(&self, boottime_ms: u64) -> Result<(), GateError> {
        self.kernel.extend_until(boottime_ms)?;
        self.shared.change(|until_ns| until_ns.max(boottime_ms.saturating_mul(NS_PER_MS)));
        Ok(())
    }

    fn bound_at(&self, boottime_ms: u64) -> Result<(), GateError> {
        self.shared.change(|until_ns| until_ns.min(boottime_ms.saturating_mul(NS_PER_MS)));
        self.kernel.bound_at(boottime_ms)
    }

    fn open(&self) -> Result<(), GateError> {
        self.kernel.open()?;
        self.shared.change(|_| u64::MAX);
        Ok(())
    }

    fn seen(&self) -> GateSeen {
        match self.kernel.seen() {
            // Told to people only: what is attested is the kernel's.
            GateSeen::Bounded { evidence } => {
                GateSeen::Bounded { evidence: format!("{evidence}; commit gate {}", self.shared.stands()) }
            }
            seen => seen,
        }
    }

    fn second_layer(&self) -> Option<String> {
        Some(self.shared.stands().to_string())
    }
}
