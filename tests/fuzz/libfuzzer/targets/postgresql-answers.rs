//! `postgresql-answers` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("postgresql-answers");
