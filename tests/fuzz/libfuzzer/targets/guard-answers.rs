//! `guard-answers` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("guard-answers");
