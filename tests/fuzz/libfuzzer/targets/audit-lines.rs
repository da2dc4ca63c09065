//! `audit-lines` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("audit-lines");
