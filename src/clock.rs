//! Where time comes from. `domain` never reads a clock; everything else asks here.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::ids::UnixMs;

/// The wall clock, for people. A clock before 1970 reads as 0.
pub fn unix_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
