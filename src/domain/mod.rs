//! What decides: pure data and functions. No clock, no randomness, no IO; time comes in as data.
//!
//! Reading order: [`ids`], [`observation`], [`verdict`], [`plan`], [`run`], [`attempt`], [`policy`], [`page`], [`on_call`],
//! [`incident`], [`command`], [`audit`] with [`audit_line`] and [`audit_verify`], [`state`]; then what is decided from them: [`view`], [`quorum`], [`loss`], [`lease`],
//! [`decide`], [`alarms`], [`advance`],
//! [`stuck`], [`readiness`], [`drill`]; and of the cluster itself: [`layout`], [`leading`], [`membership`]. [`text`] tidies words from outside.

pub mod advance;
pub mod alarms;
pub mod attempt;
pub mod audit;
pub mod audit_line;
pub mod audit_verify;
pub mod chapters;
pub mod command;
pub mod decide;
pub mod drill;
pub mod identity;
pub mod ids;
pub mod incident;
pub mod invariants;
pub mod layout;
pub mod leading;
pub mod lease;
pub mod loss;
pub mod membership;
pub mod monitor;
pub mod moving;
pub mod mutation;
pub mod observation;
pub mod on_call;
pub mod page;
pub mod plan;
pub mod policy;
pub mod quorum;
pub mod readiness;
pub mod rejection;
pub mod run;
pub mod sealed;
pub mod service;
pub mod state;
pub mod stuck;
pub mod text;
pub mod trace;
pub mod verdict;
pub mod view;

#[cfg(test)]
mod decide_tests;
#[cfg(test)]
mod drill_tests;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod incident_tests;
#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod membership_tests;
