//! `command-lines` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("command-lines");
