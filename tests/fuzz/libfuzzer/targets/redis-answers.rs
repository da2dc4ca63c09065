//! `redis-answers` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("redis-answers");
