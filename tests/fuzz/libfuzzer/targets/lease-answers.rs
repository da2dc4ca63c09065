//! `lease-answers` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("lease-answers");
