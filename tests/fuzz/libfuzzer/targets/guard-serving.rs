//! `guard-serving` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("guard-serving");
