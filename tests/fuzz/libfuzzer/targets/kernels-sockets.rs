//! `kernels-sockets` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("kernels-sockets");
