//! Probes against real parts: PostgreSQL, HTTP and TLS servers, BIND; and against stand-ins that answer nonsense.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on shall stop

mod backup;
mod dns;
mod from_config;
mod http;
mod observer;
mod parts;
mod postgres;
mod redis;
mod replication;
