//! `token-store` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("token-store");
