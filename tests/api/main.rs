//! The admin service and `watchdogctl` over a stand-in node that holds a real replicated state.

mod bad_input;
mod calls;
mod ctl;
mod forwarding;
mod standin;
