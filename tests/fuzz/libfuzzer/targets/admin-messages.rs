//! `admin-messages` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("admin-messages");
