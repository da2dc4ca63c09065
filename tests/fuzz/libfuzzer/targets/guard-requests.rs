//! `guard-requests` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("guard-requests");
