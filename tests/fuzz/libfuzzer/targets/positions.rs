//! `positions` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("positions");
