//! `sealed-records` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("sealed-records");
