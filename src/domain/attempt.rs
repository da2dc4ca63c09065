//! One attempt at a step: what an actuator is told, and the only answers it may give. "Unknown" is an answer of its own.

use serde::{Deserialize, Serialize};

use super::ids::{ClusterName, GroupName, HostName, RunId, StepId, Token};

/// Who acts, for which run, under which token. Every token store compares `token` before anything is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warrant {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The group acted for.
    pub group: GroupName,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// Counts attempts of this step over all claims, from 1.
    pub attempt: u32,
    /// The executor's current token.
    pub token: Token,
    /// To promote, mode `lease`: the old primary's host, where its own guard showed it stopped and latched under this token.
    /// A promotion hold given to that host keeps nothing safe any more, and is not waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced_host: Option<HostName>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The effect is there; the evidence says how it was seen.
    Done {
        /// What was read.
        evidence: String,
    },
    /// The effect is certainly not there.
    Failed {
        /// Trying again may help.
        retryable: bool,
        /// What went wrong and what to do next.
        reason: String,
    },
    /// It may or may not have happened (time-out after sending): only reading back can tell.
    Unknown {
        /// What was being done when contact was lost.
        reason: String,
    },
    /// The resource remembers a higher token and changed nothing.
    Refused {
        /// The token it holds.
        held: Token,
    },
}

/// What the resource shows when looked at under the current token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "read_back")]
pub enum ReadBack {
    /// The effect is there.
    Done {
        /// What was read.
        evidence: String,
    },
    /// The effect is not there and nothing that could bring it is under way.
    NotDone {
        /// What was read.
        evidence: String,
    },
    /// As `NotDone`, and no part of the effect is there either: the resource is as if nobody had tried.
    Untouched {
        /// What was read.
        evidence: String,
    },
    /// An earlier attempt is still at work there.
    InFlight {
        /// What was read.
        evidence: String,
    },
    /// The resource could not be read.
    Unknown {
        /// Why, and what to do next.
        reason: String,
    },
    /// The resource remembers a higher token.
    Refused {
        /// The token it holds.
        held: Token,
    },
}

/// Whether an action could succeed now, as far as can be told without raising a token or changing anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prospect {
    /// Nothing that can be seen beforehand stands in its way.
    Good {
        /// What was read.
        evidence: String,
    },
    /// It would certainly fail as things are.
    Bad {
        /// Why, and what to do next.
        reason: String,
    },
    /// The resource could not be asked.
    Unknown {
        /// Why, and what to do next.
        reason: String,
    },
}

/// Whether the token was made to be remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "raise")]
pub enum Raised {
    /// The store now remembers at least this token, durably.
    Done {
        /// What is still at work there under an earlier token (`run/step`).
        in_flight: Option<String>,
    },
    /// The store could not be reached or did not answer.
    Unknown {
        /// Why.
        reason: String,
    },
    /// It remembers a higher one.
    Refused {
        /// The token it holds.
        held: Token,
    },
}
