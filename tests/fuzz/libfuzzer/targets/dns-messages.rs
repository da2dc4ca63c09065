//! `dns-messages` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("dns-messages");
