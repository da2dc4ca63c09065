//! `hold-requests` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("hold-requests");
