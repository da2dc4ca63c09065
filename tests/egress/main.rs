//! The kernel egress lease on real parts: this kernel, real PostgreSQL, writers that count what was acknowledged.
//!
//! Each test runs itself again inside a network namespace of its own (so that nftables and ports are its own), and puts the
//! database into a cgroup of its own. Where the host cannot do a kind the test says "not tried"; nothing else passes unseen.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers too")]

#[path = "../guard/host.rs"]
#[allow(dead_code, reason = "shared with the guard's tests, which use all of it")]
mod host;
#[allow(dead_code, reason = "shared with the guard's tests, which tell tokens too")]
#[path = "../guard/nodes.rs"]
mod nodes;
#[path = "../guard/server.rs"]
#[allow(dead_code, reason = "shared with the guard's tests, which use all of it")]
mod server;

mod attesting;
mod gating;
mod holder;
mod kept;
mod resident;
mod rig;
mod writer;
