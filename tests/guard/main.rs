//! `watchdog-guard` as it is installed: its binary, its files, real processes, real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers too")]

mod by_hand;
mod check;
mod commit_gate;
mod concurrency;
mod crashes;
mod database;
mod describe;
mod holds;
mod host;
mod leases;
#[allow(dead_code, reason = "shared with the gate's tests, which use all of it")]
mod nodes;
mod redis;
mod rejoin;
mod release;
mod requests;
mod server;
