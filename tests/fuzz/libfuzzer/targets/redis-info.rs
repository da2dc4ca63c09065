//! `redis-info` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("redis-info");
