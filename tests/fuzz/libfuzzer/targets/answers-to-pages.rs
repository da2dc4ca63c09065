//! `answers-to-pages` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("answers-to-pages");
