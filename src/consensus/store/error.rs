//! What can be wrong with the store. Every error names the file.

use std::io;
use std::path::{Path, PathBuf};

/// A store that cannot be opened, read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened or created.
    #[error("cannot open the store {}: {reason}", file.display())]
    Open {
        /// Which file.
        file: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// Another process has it.
    #[error("the store {} is in use by another process; stop that one first", file.display())]
    Locked {
        /// Which file.
        file: PathBuf,
    },
    /// A part of it is not what was written. Nothing of it is used.
    #[error(
        "the store {} is corrupt: table {table}, key {key}: {detail}; remove this node from the cluster and add it \
         again under a new id with an empty data_dir",
        file.display()
    )]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// Which table; `file` where it is the file as a whole.
        table: String,
        /// Which key.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It belongs to another cluster, epoch or node.
    #[error(
        "the store {} belongs to {field} {found}, but this node is configured with {field} {expected}; correct the \
         configuration or point data_dir to this node's own folder",
        file.display()
    )]
    OtherIdentity {
        /// Which file.
        file: PathBuf,
        /// `cluster`, `epoch` or `node`.
        field: &'static str,
        /// In the file.
        found: String,
        /// In the configuration.
        expected: String,
    },
    /// It is older than what others heard from this node: it forgot what this node promised.
    #[error(
        "the store {} went back in time: {detail}; it was restored from an older copy, or a second node runs under this \
         id. It forgot what this node had promised: remove this node from the cluster and add it again under a new id \
         with an empty data_dir",
        file.display()
    )]
    WentBack {
        /// Which file.
        file: PathBuf,
        /// What others heard.
        detail: String,
    },
    /// A write did not reach the disk; the store takes no more of them until it is opened again.
    #[error("cannot write to the store {}: {reason}; the node stops: free space or replace the disk, then start it", file.display())]
    Write {
        /// Which file.
        file: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// It was closed.
    #[error("the store {} is closed", file.display())]
    Closed {
        /// Which file.
        file: PathBuf,
    },
}

impl StoreError {
    pub(super) fn open(file: &Path, reason: impl ToString) -> Self {
        Self::Open { file: file.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn write(file: &Path, reason: impl ToString) -> Self {
        Self::Write { file: file.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn corrupt(file: &Path, table: &str, key: impl ToString, detail: impl ToString) -> Self {
        Self::Corrupt {
            file: file.to_owned(),
            table: table.to_owned(),
            key: key.to_string(),
            detail: detail.to_string(),
        }
    }

    /// The file it is about.
    pub fn file(&self) -> &Path {
        match self {
            Self::Open { file, .. }
            | Self::Locked { file }
            | Self::Corrupt { file, .. }
            | Self::OtherIdentity { file, .. }
            | Self::WentBack { file, .. }
            | Self::Write { file, .. }
            | Self::Closed { file } => file,
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        io::Error::other(error)
    }
}
