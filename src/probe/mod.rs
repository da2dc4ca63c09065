//! Seeing: probes, their windows, and the report a node pushes to the leader.
//!
//! * [`spec`]: what is to be probed, and [`build`], which makes the probe.
//! * One kind each: [`http`], [`tcp`], [`postgres`], [`replication`] (with [`coverage`]), [`redis`], [`dns`].
//! * [`schedule`]: one supervised task per target. [`observer`]: all of them, and the report; [`from_config`] starts it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::domain::observation::{Failure, Measure};

pub mod backup;
pub mod coverage;
pub mod dns;
mod failure;
pub mod from_config;
pub mod http;
pub mod observer;
pub mod postgres;
mod postgres_link;
pub mod redis;
pub mod replication;
pub mod schedule;
pub mod simulated;
pub mod spec;
pub mod tcp;

pub use from_config::{PingProbe, Serving, TargetError};
pub use observer::{Observer, ObserverOptions, Peer, Reference, Sight, SightKind, Target};
pub use spec::{Endpoint, ExpectedValues, ProbeBuilder, ProbeError, ProbeSpec, ProbeSurroundings, Role};

/// One look at one target.
///
/// A probe need not limit its own time: the schedule drops it when its time-out is over, so whatever it holds across
/// looks (a connection) must be taken out while it is used, and put back only when the look went well.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Looks once. `Ok` means "as it should be".
    ///
    /// # Errors
    /// What was wrong, told apart by kind; [`crate::domain::observation::FailureKind::OurFault`] where the target
    /// cannot be blamed.
    async fn probe(&self) -> Result<Option<Measure>, Failure>;

    /// Told when something happened that makes it worth looking now (a held connection closed).
    fn nudge(&self) -> Option<Arc<Notify>> {
        None
    }
}
