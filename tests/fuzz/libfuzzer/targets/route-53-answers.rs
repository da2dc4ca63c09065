//! `route-53-answers` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("route-53-answers");
