//! `guard-configuration` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("guard-configuration");
