//! The one place that waits: polls for a state until a deadline.

use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Polls `look` until it gives something, or fails naming `what` and the last word of `look`'s error.
pub async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("waited {within:?} for {what}")));
            }
            Err(_) => pause(LOOK_EVERY).await,
        }
    }
}

/// Polls a yes or no.
pub async fn until_true(what: &str, within: Duration, mut look: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    until(what, within, async || if look().await { Ok(()) } else { Err(anyhow::anyhow!("not yet")) }).await
}

/// Lets time pass: for a rate (the client's inserts) or a period that is itself the subject (a blip).
pub async fn pause(how_long: Duration) {
    tokio::time::sleep(how_long).await;
}

/// As [`until`], where there is no runtime.
pub fn until_blocking<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        anyhow::ensure!(Instant::now() < deadline, "waited {within:?} for {what}");
        nap(LOOK_EVERY);
    }
}

/// The blocking pause between two looks.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a state, with a deadline around it")]
pub fn nap(how_long: Duration) {
    std::thread::sleep(how_long);
}
