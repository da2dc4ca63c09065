//! What the keeper needs of a gate in the kernel; `guard/egress` is the real one.

use std::sync::Arc;

use crate::domain::lease::GateSeen;
use crate::guard::config::Config;

/// Why a gate did not do as it was told; in words that say what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GateError(pub String);

/// A gate in the host's kernel. It outlives this process. Deadlines are `CLOCK_BOOTTIME`, milliseconds.
pub trait Gate: Send + Sync {
    /// Puts it in place, shut; or takes over the one that is there, as it is.
    ///
    /// # Errors
    /// The host cannot.
    fn install(&self) -> Result<(), GateError>;

    /// Lets pass until `boottime_ms` at least. A moment that is past does nothing.
    ///
    /// # Errors
    /// The kernel's.
    fn extend_until(&self, boottime_ms: u64) -> Result<(), GateError>;

    /// Lets pass until `boottime_ms` at most: bounds what stood open, opens nothing.
    ///
    /// # Errors
    /// The kernel's.
    fn bound_at(&self, boottime_ms: u64) -> Result<(), GateError>;

    /// Lets everything pass.
    ///
    /// # Errors
    /// The kernel's.
    fn open(&self) -> Result<(), GateError>;

    /// How it stands, from the kernel.
    fn seen(&self) -> GateSeen;
}

/// This host's gate.
pub fn of(_config: &Config) -> Arc<dyn Gate> {
    Arc::new(NoGate)
}

/// Where no gate is built: says so, and so nothing is ever bound.
#[derive(Debug, Clone, Copy)]
struct NoGate;

impl NoGate {
    fn error() -> GateError {
        GateError("this build has no gate for the kernel: fence by mode \"confirm\"".to_owned())
    }
}

impl Gate for NoGate {
    fn install(&self) -> Result<(), GateError> {
        Err(Self::error())
    }
    fn extend_until(&self, _: u64) -> Result<(), GateError> {
        Err(Self::error())
    }
    fn bound_at(&self, _: u64) -> Result<(), GateError> {
        Err(Self::error())
    }
    fn open(&self) -> Result<(), GateError> {
        Err(Self::error())
    }
    fn seen(&self) -> GateSeen {
        GateSeen::Absent { why: Self::error().0 }
    }
}
