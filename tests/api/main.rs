//! The admin service and `watchdogctl` over a stand-in node that holds a real replicated state.

#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part ends the test")]

mod bad_input;
#[path = "../lab/browser.rs"]
mod browser;
mod calls;
mod connections;
mod contexts;
mod ctl;
mod ctl_help;
mod ctl_pause;
mod ctl_watch;
mod deadlines;
mod details;
mod drills;
mod forwarding;
mod health;
mod identity;
mod lease;
mod manual;
mod moving;
mod page;
mod pages;
mod readiness;
mod reflection;
mod refused;
mod schema;
mod services;
mod standin;
mod standin_moving;
mod standin_nodes;
mod standin_services;
mod standin_traffic;
mod traffic;
mod verifying;
#[path = "../lab/wait.rs"]
#[allow(dead_code, reason = "the browser needs a part of it")]
mod wait;
mod watching;
mod wire;
