//! A command as the log holds it: the very bytes that were proposed, which are kept as they are wherever it goes. Their digest
//! stands in the audit, so a version of the program that reads or writes a field more still has the same digest for it.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::audit::AuditHash;
use super::command::{Command, RejectionCode};

/// A command with its bytes: a string of JSON within the log's own.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    bytes: String,
    command: Command,
}

impl Sealed {
    /// From here on its bytes stay.
    ///
    /// # Errors
    /// That it cannot be JSON: a fault of this program.
    pub fn new(command: Command) -> Result<Self, serde_json::Error> {
        Ok(Self { bytes: serde_json::to_string(&command)?, command })
    }

    /// It.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// SHA-256 of its bytes.
    pub fn digest(&self) -> AuditHash {
        AuditHash::of(self.bytes.as_bytes())
    }
}

/// The digest that a command has once it is sealed.
pub fn digest_of(command: &Command) -> AuditHash {
    serde_json::to_vec(command).map_or(AuditHash::NONE, |bytes| AuditHash::of(&bytes))
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.command, f)
    }
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.command, f)
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = String::deserialize(from)?;
        let command = serde_json::from_str(&bytes).map_err(|error| D::Error::custom(format!("a command: {error}")))?;
        Ok(Self { bytes, command })
    }
}

impl RejectionCode {
    /// Its word: as the API writes it, and the audit hashes it. None is ever changed.
    pub fn word(self) -> &'static str {
        match self {
            RejectionCode::NotFound => "not_found",
            RejectionCode::Stale => "stale",
            RejectionCode::RunOpen => "run_open",
            RejectionCode::Paused => "paused",
            RejectionCode::Illegal => "illegal",
            RejectionCode::NoFenceProof => "no_fence_proof",
            RejectionCode::LossTooGreat => "loss_too_great",
            RejectionCode::NoStandby => "no_standby",
            RejectionCode::NotPaused => "not_paused",
            RejectionCode::RunClosed => "run_closed",
            RejectionCode::OtherConfig => "other_config",
            RejectionCode::AlreadyFailedOver => "already_failed_over",
            RejectionCode::Unsettled => "unsettled",
            RejectionCode::Taken => "taken",
            RejectionCode::ChangeUnderWay => "change_under_way",
            RejectionCode::IsLeader => "is_leader",
            RejectionCode::LayoutBroken => "layout_broken",
            RejectionCode::QuorumLost => "quorum_lost",
            RejectionCode::NotReachable => "not_reachable",
            RejectionCode::Invalid => "invalid",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::Change;
    use crate::domain::ids::{NodeId, UnixMs};

    fn command() -> Command {
        let change = Change::Note { group: None, what: "x".to_owned(), outcome: "việc \"y\"".to_owned() };
        Command { node: NodeId(1), at: UnixMs(7), by: "user:linh".into(), from: None, request_id: None, change }
    }

    #[test]
    fn bytes_stay_as_they_were_proposed_also_with_what_this_version_does_not_know() {
        let sealed = Sealed::new(command()).unwrap();
        assert_eq!(sealed.digest(), digest_of(&command()));
        let text = serde_json::to_string(&sealed).unwrap();
        let read: Sealed = serde_json::from_str(&text).unwrap();
        assert_eq!((read.command(), read.digest()), (&command(), sealed.digest()));
        // A later version's command: a field more, and another order.
        let later = r#"{"at":7,"node":1,"colour":"red","by":"user:linh","change":{"change":"note","group":null,"what":"x","outcome":"y"}}"#;
        let read: Sealed = serde_json::from_value(serde_json::Value::String(later.to_owned())).unwrap();
        assert_eq!(read.digest(), AuditHash::of(later.as_bytes()));
        let again = serde_json::to_value(&read).unwrap();
        assert_eq!(again.as_str(), Some(later), "as it came");
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for bad in ["{}", "\"{}\"", "\"\"", "7", "null", "\"[]\""] {
            assert!(serde_json::from_str::<Sealed>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rejections_word_is_the_one_in_json() {
        for code in [RejectionCode::NotFound, RejectionCode::AlreadyFailedOver, RejectionCode::ChangeUnderWay] {
            assert_eq!(serde_json::to_value(code).unwrap().as_str(), Some(code.word()));
        }
    }
}
