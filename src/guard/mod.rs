//! The resource side: the program on each host that is acted upon, and the SSH key's forced command.
//!
//! [`protocol`] is what it is asked and what it answers; [`handler`] the order in which a request is dealt with;
//! [`token_store`], [`latch`], [`ledger`] and [`in_flight`] what it remembers, as [`records`] under [`locks`];
//! [`actions`] what it does, by [`exec`], [`postgres`], [`redis`] and, where it asks often, a [`session`]; [`wal`] where its log stands; [`lease`] how an old primary falls silent by itself, by
//! [`egress`], the kernel's gate in front of the database, and [`commit_gate`], the optional one in it; [`config`] what it
//! may do; [`enroll`] and [`show`] what a person on the [`host`] does and sees.

pub mod actions;
pub mod commit_gate;
pub mod config;
pub mod describe;
pub mod egress;
pub mod enroll;
pub mod exec;
pub mod handler;
pub mod host;
pub mod in_flight;
pub mod latch;
pub mod lease;
pub mod ledger;
pub mod listeners;
pub mod locks;
pub mod postgres;
pub mod protocol;
pub mod records;
pub mod redis;
pub mod session;
pub mod show;
pub mod token_store;
pub mod wal;
