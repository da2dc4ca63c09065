//! The lease on the host's side (docs/adr/0008-the-lease.md): [`hold`] is a standby guard's word not to promote;
//! [`config`] whom to ask.

pub mod config;
pub mod hold;
pub mod keeper;
