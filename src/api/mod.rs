//! The admin service over gRPC: status, pause, resume, failover, runs, audit. Any node answers; writes reach the leader.
//!
//! [`backend`] is what a node must be able to do for it; [`service`] is the service itself, with [`check`] (what callers
//! wrote), [`show`] (state as messages), [`forward`] (to the leader, once), [`follow`] (a run as it goes), [`watch`]
//! (everything as it goes), [`page`] (the status page), [`deadline`] (the caller's), [`traffic`] (moved by hand), [`services`]
//! (recovered by hand), [`drills`] (begun and reported), [`refuse`] (errors as gRPC codes,
//! with [`details`]) and [`health`]. [`access`] says who may call what, [`origin`] from where, and [`refusals`] what is
//! entered of those who may not; [`lease`] is the service that primaries' guards ask.

pub mod access;
mod audit;
pub mod backend;
pub mod backups;
mod check;
mod deadline;
pub mod details;
mod drills;
mod follow;
mod forward;
pub mod health;
pub mod lease;
pub mod moving;
pub mod nodes;
pub mod origin;
pub mod page;
mod pages;
mod picture;
pub mod refusals;
pub mod refuse;
pub mod service;
pub mod services;
pub mod show;
mod status;
pub mod traffic;
mod watch;
pub mod when;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::proto::DESCRIPTORS;
use crate::proto::admin_server::AdminServer;
use crate::tls::Dialer;
use backend::AdminBackend;
use service::AdminService;

/// Largest request that is read, bytes. Larger ones are refused before they are decoded.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Largest answer, bytes: a status with many votes, a run with its whole timeline.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Admin, health and reflection, to be served on a node's gRPC listener beside the peers' service.
///
/// The [`health`] is kept up to date until `shutdown`, which also ends every open stream.
///
/// Every call must have passed the [`access::AccessLayer`]; `dialer` reaches the leader.
pub fn routes(
    backend: Arc<dyn AdminBackend>,
    dialer: Dialer,
    shutdown: CancellationToken,
) -> Result<Routes, ReflectionError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| ReflectionError(error.to_string()))?;
    let health = health::serve(Arc::clone(&backend), shutdown.clone());
    let admin = AdminServer::new(AdminService::new(backend, dialer, shutdown))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_ANSWER_BYTES);
    Ok(Routes::new(admin).add_service(health).add_service(reflection))
}

/// The embedded descriptor set cannot be served: a fault of the build.
#[derive(Debug, thiserror::Error)]
#[error("the embedded descriptor set cannot be served, rebuild the program: {0}")]
pub struct ReflectionError(String);
