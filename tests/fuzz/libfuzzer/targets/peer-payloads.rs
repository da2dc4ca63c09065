//! `peer-payloads` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("peer-payloads");
