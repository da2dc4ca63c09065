//! What went wrong, which exit code it has, and what to do next ([`advice`](super::advice) after a refusal).

use tonic::{Code, Status};

use super::advice::{self, Asked};
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
    /// The cluster said that a value cannot be.
    #[error("{message}")]
    Wrong {
        /// Its words, with what was typed.
        message: String,
        /// The first field that is wrong; empty where none is named.
        field: String,
    },
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
    /// Nodes that have no room for one more.
    #[error("{0}")]
    Full(String),
    /// A node of another version.
    #[error("the node does not know this call: its version differs from this program's")]
    OtherVersion,
    /// A node's own fault.
    #[error("{0}")]
    Internal(String),
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
            Code::InvalidArgument => {
                CliError::Wrong { message: fields::words(status), field: fields::first_wrong(status) }
            }
            Code::NotFound | Code::FailedPrecondition | Code::Aborted | Code::PermissionDenied => {
                let word = status.metadata().get(REJECTION).and_then(|word| word.to_str().ok());
                let code = word.unwrap_or(if status.code() == Code::NotFound { "not_found" } else { "" }).to_owned();
                CliError::Refused { message, code }
            }
            Code::Unimplemented => CliError::OtherVersion,
            Code::Internal => CliError::Internal(message),
            Code::Unavailable if is_undecided(status) => CliError::NoQuorum(message),
            Code::Unavailable => CliError::Unreachable(message),
            Code::ResourceExhausted => CliError::Full(message),
            code => CliError::Failed(format!("the node answered {code:?}: {message}")),
        }
    }

    /// Its exit code.
    pub fn exit(&self) -> Exit {
        match self {
            CliError::Failed(_)
            | CliError::File(_)
            | CliError::ContextFile(_)
            | CliError::Certificate(_)
            | CliError::OtherVersion
            | CliError::Internal(_) => Exit::Failure,
            CliError::Usage(_) | CliError::Wrong { .. } => Exit::Usage,
            CliError::Refused { .. } => Exit::Refused,
            CliError::Unreachable(_) | CliError::NoQuorum(_) | CliError::Full(_) => Exit::Unreachable,
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
            | CliError::OtherVersion
            | CliError::Internal(_)
            | CliError::Wrong { .. }
            | CliError::Usage(_) => "error",
            CliError::Full(_) => "busy",
            CliError::Refused { .. } => "refused",
            CliError::Unreachable(_) => "unreachable",
            CliError::NoQuorum(_) => "no quorum",
            CliError::Unknown { .. } => "outcome unknown",
        }
    }

    /// What to do next.
    pub fn next(&self, asked: &Asked) -> String {
        match self {
            CliError::Wrong { field, .. } => advice::after_wrong(field, asked),
            CliError::Full(_) => "ask again in 10 s, name another node with --endpoint, or end other --watch and follow".to_owned(),
            CliError::OtherVersion => {
                "use the watchdogctl of the nodes' version: --version says this one's, watchdogd --version there a node's".to_owned()
            }
            CliError::Internal(_) => {
                "its log says more (journalctl -u watchdogd there); watchdogctl status shows how the cluster stands"
                    .to_owned()
            }
            CliError::Failed(_) => "watchdogctl status shows what the cluster thinks".to_owned(),
            CliError::File(_) => "name a file that is there and readable".to_owned(),
            CliError::ContextFile(_) => "mend the file; watchdogctl contexts --help shows one".to_owned(),
            CliError::Certificate(_) => {
                "watchdogctl cert show FILE tells what a certificate says; watchdogctl cert issue makes another"
                    .to_owned()
            }
            CliError::Usage(_) => advice::after_wrong("", asked),
            CliError::Unreachable(_) => {
                "nothing was changed. See that a majority of the watchdogd processes run and reach \
                 each other; name other nodes with --endpoint or WATCHDOG_ENDPOINTS"
                    .to_owned()
            }
            CliError::NoQuorum(_) => advice::UNDECIDED.to_owned(),
            CliError::Unknown { request_id: Some(id), .. } => {
                format!(
                    "the same command with --request-id {id} is safe to repeat and tells which; so does watchdogctl audit"
                )
            }
            CliError::Unknown { request_id: None, .. } => "ask again".to_owned(),
            CliError::Refused { code, .. } => advice::after_refusal(code, asked),
        }
    }
}

/// The node answered, and said that nobody can decide now.
pub(super) fn is_undecided(status: &Status) -> bool {
    let word = status.metadata().get(REJECTION).and_then(|word| word.to_str().ok());
    word.is_some_and(|word| word == NO_QUORUM || word == NO_LEADER)
}
