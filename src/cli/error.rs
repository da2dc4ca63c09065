//! What went wrong, which exit code it has, and what to do next.

use tonic::{Code, Status};

use super::fields;
use crate::api::refuse::{NO_LEADER, NO_QUORUM, REJECTION};

/// Exit codes, as `--help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed, or what was followed did not succeed.
    Failure = 1,
    /// The command line, or a value in it, cannot be.
    Usage = 2,
    /// The cluster said no; nothing was changed.
    Refused = 3,
    /// No node, no leader or no quorum; nothing was changed.
    Unreachable = 4,
    /// It may or may not have been done.
    Unknown = 5,
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Something here failed.
    #[error("{0}")]
    Failed(String),
    /// A file here could not be read.
    #[error("{0}")]
    File(String),
    /// The file of contexts has a fault.
    #[error("{0}")]
    ContextFile(String),
    /// A certificate, its key or its authority cannot be used.
    #[error("{0}")]
    Certificate(String),
    /// The command line, or a value in it, cannot be.
    #[error("{0}")]
    Usage(String),
    /// The cluster said no.
    #[error("{message}")]
    Refused {
        /// Its words.
        message: String,
        /// The stable code, where it has one.
        code: String,
    },
    /// No node.
    #[error("{0}")]
    Unreachable(String),
    /// A node, but no leader or no quorum.
    #[error("{0}")]
    NoQuorum(String),
    /// It may or may not have been done.
    #[error("{why}")]
    Unknown {
        /// What happened.
        why: String,
        /// To ask again with.
        request_id: Option<String>,
    },
}

impl CliError {
    /// A node's final word.
    pub fn from_status(status: &Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument => CliError::Usage(fields::words(status)),
            Code::NotFound | Code::FailedPrecondition | Code::Aborted | Code::PermissionDenied => {
                let word = status.metadata().get(REJECTION).and_then(|word| word.to_str().ok());
                let code = word.unwrap_or(if status.code() == Code::NotFound { "not_found" } else { "" }).to_owned();
                CliError::Refused { message, code }
            }
            Code::Unimplemented => {
                CliError::Failed("the node does not know this call: its version differs from this program's".to_owned())
            }
            Code::Unavailable if is_undecided(status) => CliError::NoQuorum(message),
            Code::Unavailable => CliError::Unreachable(message),
            code => CliError::Failed(format!("the node answered {code:?}: {message}")),
        }
    }

    /// Its exit code.
    pub fn exit(&self) -> Exit {
        match self {
            CliError::Failed(_) | CliError::File(_) | CliError::ContextFile(_) | CliError::Certificate(_) => {
                Exit::Failure
            }
            CliError::Usage(_) => Exit::Usage,
            CliError::Refused { .. } => Exit::Refused,
            CliError::Unreachable(_) | CliError::NoQuorum(_) => Exit::Unreachable,
            CliError::Unknown { .. } => Exit::Unknown,
        }
    }

    /// What happened, in a word for the beginning of the line.
    pub fn word(&self) -> &'static str {
        match self {
            CliError::Failed(_)
            | CliError::File(_)
            | CliError::ContextFile(_)
            | CliError::Certificate(_)
            | CliError::Usage(_) => "error",
            CliError::Refused { .. } => "refused",
            CliError::Unreachable(_) => "unreachable",
            CliError::NoQuorum(_) => "no quorum",
            CliError::Unknown { .. } => "outcome unknown",
        }
    }

    /// What to do next.
    pub fn next(&self) -> String {
        match self {
            CliError::Failed(_) => "watchdogctl status shows what the cluster thinks".to_owned(),
            CliError::File(_) => "name a file that is there and readable".to_owned(),
            CliError::ContextFile(_) => "mend the file; watchdogctl contexts --help shows one".to_owned(),
            CliError::Certificate(_) => {
                "watchdogctl cert show FILE tells what a certificate says; watchdogctl cert issue makes another"
                    .to_owned()
            }
            CliError::Usage(_) => "watchdogctl --help, or VERB --help, says what is expected".to_owned(),
            CliError::Unreachable(_) => {
                "nothing was changed. See that a majority of the watchdogd processes run and reach \
                 each other; name other nodes with --endpoint or WATCHDOG_ENDPOINTS"
                    .to_owned()
            }
            CliError::NoQuorum(_) => {
                "see that a majority of the nodes run and reach each other (watchdogctl status says who is reached), \
                 then ask again; where a link is cut, name nodes on the side with the majority with --endpoint"
                    .to_owned()
            }
            CliError::Unknown { request_id: Some(id), .. } => {
                format!(
                    "the same command with --request-id {id} is safe to repeat and tells which; so does watchdogctl audit"
                )
            }
            CliError::Unknown { request_id: None, .. } => "ask again".to_owned(),
            CliError::Refused { code, .. } => next_after(code).to_owned(),
        }
    }
}

/// The node answered, and said that nobody can decide now.
pub(super) fn is_undecided(status: &Status) -> bool {
    let word = status.metadata().get(REJECTION).and_then(|word| word.to_str().ok());
    word.is_some_and(|word| word == NO_QUORUM || word == NO_LEADER)
}

fn next_after(code: &str) -> &'static str {
    match code {
        "unauthenticated" => {
            "give --ca, --certificate and --key (WATCHDOG_CA, WATCHDOG_CERTIFICATE, WATCHDOG_KEY); \
             watchdogctl cert issue user NAME makes a certificate"
        }
        "permission_denied" => {
            "ask somebody who has that role, or have it given to this identity with [[role]] in the nodes' configuration; \
             watchdogctl cert show FILE tells who a certificate says you are"
        }
        "not_found" => {
            "watchdogctl status lists the groups, run list the runs, page list the incidents, node list the nodes"
        }
        "stale" => "something changed since you looked: watchdogctl status, then decide again",
        "run_open" => "watchdogctl run show GROUP; retry, skip or abort it first",
        "paused" => "watchdogctl resume GROUP --reason …",
        "no_fence_proof" => {
            "look at the old primary with your own eyes; when it is silent and stays so: watchdogctl run assert-fence \
             GROUP --region REGION --reason …"
        }
        "loss_too_great" => {
            "bring the standby up to date, or accept the loss by name: --accept-loss (or watchdogctl run accept-loss GROUP)"
        }
        "gate_closed" => "nothing was changed. Open what is closed, then ask again; --dry-run shows how it stands",
        "no_standby" => {
            "nothing was changed. Mend the standby as said above, then ask again; `--dry-run` shows whether it would do"
        }
        "other_config" => {
            "give every node one configuration file that has what is said above; watchdogctl node list marks nodes whose file differs"
        }
        "already_failed_over" => "one automatic failover a serving epoch; an operator may still: watchdogctl failover",
        "unsettled" => {
            "watchdogctl status names the resource; make its host or zone reachable, it is then settled by itself"
        }
        "taken" => "nothing was changed. watchdogctl node list shows the numbers, names and addresses in use",
        "change_under_way" => "nothing was changed. watchdogctl node list shows who joins or leaves; finish that first",
        "is_leader" => "watchdogctl node transfer --reason …, then ask again",
        "layout_broken" => "nothing was changed. --dry-run shows the layout before and after",
        "quorum_lost" => "nothing was changed. watchdogctl node list shows who does not answer",
        "not_reachable" => "nothing was changed. See that watchdogd runs there and that its port is open to every node",
        "not_paused" => "nothing is to be done; watchdogctl status shows how the group stands",
        "run_closed" => "watchdogctl run show RUN tells how it went, watchdogctl status whether another is open",
        "illegal" => "watchdogctl run show GROUP says where the run stands",
        _ => "watchdogctl status shows the present state",
    }
}
