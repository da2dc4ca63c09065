//! `cluster-configuration` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("cluster-configuration");
