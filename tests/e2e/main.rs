//! End to end: the built programs on real parts, each promise by its name.

#[path = "../lab/mod.rs"]
mod lab;

mod backups;
mod chats;
mod drills;
mod failover;
mod heartbeat;
mod ladder;
mod lease;
mod metrics;
mod page;
mod page_tls;
mod partition;
mod parts;
mod planned;
mod ready;
mod redis;
mod refusals;
mod restored;
mod service;
mod supervised;
mod traces;
mod traffic;

use lab::{calm, scene};
