//! Where time comes from. `domain` never reads a clock; everything else asks here.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::ids::UnixMs;

/// The wall clock, for people. A clock before 1970 reads as 0.
pub fn unix_now() -> UnixMs {
    #[cfg(feature = "simulation")]
    if let Some(now) = simulated::NOW.with(std::cell::Cell::get) {
        return now();
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A UUIDv7 of that moment: an id that nothing else has, and that sorts by time.
pub fn unique_id(now: UnixMs) -> String {
    let nanos = u32::try_from(now.0 % 1000).unwrap_or(0) * 1_000_000;
    let at = uuid::Timestamp::from_unix(uuid::NoContext, now.0 / 1000, nanos);
    uuid::Uuid::new_v7(at).to_string()
}

/// Milliseconds since the machine started, counting the time it slept. Never set back; for measuring spans.
pub fn boot_ms() -> u64 {
    #[cfg(feature = "simulation")]
    if let Some(boot_ms) = simulated::BOOT_MS.with(std::cell::Cell::get) {
        return boot_ms();
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds_ms = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1000);
    seconds_ms.saturating_add(u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0))
}

/// Other clocks, thread by thread.
#[cfg(feature = "simulation")]
pub mod simulated {
    use std::cell::Cell;

    use super::UnixMs;

    thread_local! {
        /// What [`super::unix_now`] answers on this thread, where it is set.
        pub static NOW: Cell<Option<fn() -> UnixMs>> = const { Cell::new(None) };
        /// What [`super::boot_ms`] answers on this thread, where it is set.
        pub static BOOT_MS: Cell<Option<fn() -> u64>> = const { Cell::new(None) };
    }
}
