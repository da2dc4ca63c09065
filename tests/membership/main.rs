//! Who is in the cluster, on real nodes: `watchdogd` and `watchdogctl` as they are installed, in plain text on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers too")]

mod nodes;
mod restore;
mod rig;
