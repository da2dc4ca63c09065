//! `http-answers` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("http-answers");
