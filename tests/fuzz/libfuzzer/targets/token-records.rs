//! `token-records` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("token-records");
