//! `replication-streams` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("replication-streams");
