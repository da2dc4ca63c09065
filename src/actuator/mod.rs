//! Acting: what carries out a step at a resource. One trait; every implementation compares the token at the resource itself.

mod catch_up;
pub mod described;
pub mod dns;
pub mod guarded;
mod shown;
pub mod ssh;
pub mod verify;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::domain::attempt::{Outcome, Prospect, Raised, ReadBack, Warrant};
use crate::domain::plan::Action;

/// Carries out one kind of action. Implementations never retry underneath the caller, and never outlive `deadline`.
///
/// What may have been sent is `Unknown`; only what was certainly not sent, or was refused by the resource, is `Failed`.
/// Dropping the future abandons the attempt at once (the effect, if sent, may still come: that too is unknown).
#[async_trait]
pub trait Actuator: Send + Sync {
    /// Makes the resource remember the warrant's token without acting, and tells what is in flight there.
    async fn raise(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Raised;

    /// Whether the action could succeed now. Raises no token and changes nothing: asked before anything else is done for
    /// its sake that could not be taken back. Asked of promotions; what cannot be told beforehand is answered `Good`.
    async fn can_succeed(&self, _warrant: &Warrant, action: &Action, _deadline: Instant) -> Prospect {
        Prospect::Good { evidence: format!("{} cannot be foreseen", action.verb()) }
    }

    /// Makes the host of a promotion remember the token, which ends new promotion holds there, and looks whether an old one
    /// still stands: `Good` when none does. Mode `lease` only.
    async fn end_holds(&self, _warrant: &Warrant, action: &Action, _deadline: Instant) -> Prospect {
        Prospect::Unknown { reason: format!("{} has no promotion holds", action.verb()) }
    }

    /// Raises the token at the resource, then acts.
    async fn execute(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Outcome;

    /// Whether [`read_back`](Self::read_back) makes the resource remember the token by itself, so that raising it first
    /// would only cost another exchange.
    fn read_back_raises(&self, _action: &Action) -> bool {
        false
    }

    /// Looks whether the effect is there. Changes nothing, except that the token may be raised.
    async fn read_back(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> ReadBack;
}
