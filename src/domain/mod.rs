//! What decides: pure data and functions. No clock, no randomness, no IO; time comes in as data.
//!
//! Reading order: [`ids`], [`observation`], [`verdict`], [`plan`], [`run`], [`attempt`], [`policy`], [`page`], [`command`], [`state`].

pub mod attempt;
pub mod command;
pub mod ids;
pub mod observation;
pub mod page;
pub mod plan;
pub mod policy;
pub mod run;
pub mod state;
pub mod verdict;
