//! The lease on the host's side (docs/adr/0008-the-lease.md).
//!
//! [`hold`] is a standby guard's word not to promote. [`keeper`] decides, purely, when a primary's gate may stand open,
//! and tells what becomes of it when something dies; [`primary`] does what it says, at a [`gate`]; [`serve`] is the
//! resident process for both; [`boot`] what the boot gate asks besides the latch; [`glass`] an operator's word;
//! [`files`] what they tell each other, [`wire`] how answers are read; [`config`] whom to ask.

pub mod boot;
pub mod config;
pub mod files;
pub mod gate;
pub mod glass;
pub mod hold;
pub mod keeper;
pub mod primary;
pub mod serve;
pub mod wire;

use super::records::RecordError;
use crate::tls::TlsError;

/// Why the resident guard does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration names nothing to gate.
    #[error(transparent)]
    Gate(#[from] gate::GateError),
    /// A file of the group.
    #[error("{0}; is the group enrolled? type `watchdog-guard enroll` (see --help)")]
    Record(#[from] RecordError),
    /// Its certificate.
    #[error("lease.tls: {0}")]
    Tls(#[from] TlsError),
    /// There is one already.
    #[error("another `watchdog-guard serve` of this group runs (it holds {0})")]
    Running(String),
    /// Its address cannot be had.
    #[error("lease.listen: cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An address of the configuration.
    #[error("lease: {address:?} is not address:port: {source}")]
    Address {
        /// The address.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The service ended by itself.
    #[error("the service of holds ended: {0}")]
    Grpc(tonic::transport::Error),
}
