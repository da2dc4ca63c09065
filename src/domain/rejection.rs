//! Why the log did not do what a command asked for.

use serde::{Deserialize, Serialize};

/// Why a command changed nothing. Programs branch on `code`, people read `message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Stable.
    pub code: RejectionCode,
    /// Names the thing, the value and what to do next.
    pub message: String,
}

/// Stable reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionCode {
    /// No such group, run, step, page or resource.
    NotFound,
    /// Decided on an older state than the present one.
    Stale,
    /// A run is already open in the group.
    RunOpen,
    /// The group is paused.
    Paused,
    /// Not a legal transition from here.
    Illegal,
    /// P4: no fence proof.
    NoFenceProof,
    /// P5: too much, or unknown, would be lost.
    LossTooGreat,
    /// There is no standby that could be promoted.
    NoStandby,
    /// There is no pause to end.
    NotPaused,
    /// The run is over.
    RunClosed,
    /// Another configuration is in force.
    OtherConfig,
    /// Another automatic failover already completed in this serving epoch.
    AlreadyFailedOver,
    /// A resource is not yet settled after an abort.
    Unsettled,
    /// A number, name or address is another node's, or was used before.
    Taken,
    /// Another change of the membership is not over.
    ChangeUnderWay,
    /// The node leads.
    IsLeader,
    /// The loss of a region that serves would leave no majority (section 3).
    LayoutBroken,
    /// No majority would answer.
    QuorumLost,
    /// A node does not answer.
    NotReachable,
    /// A field's value cannot be.
    Invalid,
}
