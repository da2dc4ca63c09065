//! `lease-files` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("lease-files");
