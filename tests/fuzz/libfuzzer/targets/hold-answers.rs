//! `hold-answers` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("hold-answers");
