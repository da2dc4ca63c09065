//! Guards reached through a real OpenSSH server. Where the guard itself is a script, its name says stand-in.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod asking;
mod faults;
mod guarded;
mod planned;
mod real_guard;
mod rig;

use std::time::Duration;

use tokio::time::Instant;

/// The one place that may wait: polls until `seen`, or fails the test.
async fn wait_until(what: &str, mut seen: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if seen() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not seen within 20 s: {what}");
}

/// Far enough for a loaded machine.
fn ample() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// For what never comes.
fn soon() -> Instant {
    Instant::now() + Duration::from_millis(400)
}
