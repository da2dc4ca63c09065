//! `lease-records` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("lease-records");
