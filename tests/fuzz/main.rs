//! Whatever is read from outside is fed with bytes that nobody meant to send: promise P12 as properties. Each target says
//! what must hold beyond "no panic"; `docs/VERIFICATION.md` lists them. The same file is the library of
//! `libfuzzer`, a package of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers too")]
#![cfg_attr(not(test), allow(dead_code, unused_imports, reason = "some targets are driven by chance alone"))]

mod admin;
mod audit;
mod config;
mod corpus;
mod dns;
#[cfg(test)]
mod genuine;
mod guard;
mod guard_answer;
#[cfg(not(test))]
pub mod guided;
mod http;
#[path = "../storage/image.rs"]
#[allow(dead_code, reason = "shared with the tests of the storage")]
mod image;
mod lease;
mod log;
mod meter;
mod mutate;
mod peer;
mod postgres;
mod records;
mod redis;
mod runner;
#[path = "../api/standin.rs"]
#[allow(dead_code, reason = "shared with the tests of the API")]
mod standin;
#[path = "../api/standin_moving.rs"]
mod standin_moving;
#[path = "../api/standin_nodes.rs"]
#[allow(dead_code, reason = "shared with the tests of the API")]
mod standin_nodes;
#[path = "../api/standin_services.rs"]
#[allow(dead_code, reason = "shared with the tests of the API")]
mod standin_services;
#[path = "../api/standin_traffic.rs"]
#[allow(dead_code, reason = "shared with the tests of the API")]
mod standin_traffic;
#[cfg(test)]
mod store;
mod stream;
#[path = "../storage/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the storage")]
mod support;
mod targets;
mod words;
