//! `lease-requests` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("lease-requests");
