//! Where a server's write-ahead log stands, as its guard shows it. LSNs go over the wire as PostgreSQL writes them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A position in the write-ahead log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl Lsn {
    /// As PostgreSQL writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let part = |hex: &str| u32::from_str_radix(hex, 16).ok().filter(|_| hex.len() <= 8 && !hex.starts_with('+'));
        Some(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Lsn::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no position in the log")))
    }
}

/// The server's log: of its control file, and where the server answers, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalShown {
    /// How the server stands by its control file. Of a server that was killed it is what was so then.
    pub state: WalState,
    /// Which database cluster this is a copy of.
    pub system_identifier: u64,
    /// The timeline of the latest checkpoint. A standby that has followed a promotion shows the old one for a while.
    pub timeline: u32,
    /// Where the latest checkpoint's record begins. Of a server that was shut down this is the last record of its log.
    pub checkpoint_lsn: Lsn,
    /// What the running server says; `None` where none runs, or where `unread` says why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<WalRunning>,
    /// Why a running server could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// A running server's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalRunning {
    /// A standby: received and flushed. After its own restart the begin of a segment, until more comes.
    pub received_lsn: Option<Lsn>,
    /// A standby: behind the last record replayed.
    pub replayed_lsn: Option<Lsn>,
    /// A primary: behind the last byte written.
    pub current_lsn: Option<Lsn>,
    /// Of what is written, or replayed, just now; `None` where it cannot be told.
    pub timeline: Option<u32>,
    /// A standby: its receiver streams.
    pub streams: bool,
}

/// How a server stands by its control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalState {
    /// It starts.
    Starting,
    /// Shut down in an orderly way, having been a primary: its log ends with the latest checkpoint.
    ShutDown,
    /// Shut down in an orderly way while in recovery.
    ShutDownInRecovery,
    /// It was about to shut down.
    ShuttingDown,
    /// It recovers from a crash.
    InCrashRecovery,
    /// A standby, or a restored one that is not through yet.
    InArchiveRecovery,
    /// A primary that runs, or was killed.
    InProduction,
}

impl fmt::Display for WalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            WalState::Starting => "starting",
            WalState::ShutDown => "shut down",
            WalState::ShutDownInRecovery => "shut down in recovery",
            WalState::ShuttingDown => "shutting down",
            WalState::InCrashRecovery => "in crash recovery",
            WalState::InArchiveRecovery => "in archive recovery",
            WalState::InProduction => "in production",
        })
    }
}
