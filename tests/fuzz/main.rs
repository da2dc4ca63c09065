//! Whatever is read from outside is fed with bytes that nobody meant to send: promise P12 as properties. Each target says
//! what must hold beyond "no panic"; `docs/VERIFICATION.md` lists them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers too")]

mod admin;
mod config;
mod corpus;
mod dns;
mod genuine;
mod guard;
mod guard_answer;
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
mod runner;
#[path = "../api/standin.rs"]
#[allow(dead_code, reason = "shared with the tests of the API")]
mod standin;
mod store;
mod stream;
#[path = "../storage/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the storage")]
mod support;
mod targets;
mod words;
