//! What the service manager is told (sd_notify(3)): that the program is ready, how it stands, and that it still lives.
//! Without a service manager nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;

/// `READY=1` and a line for `systemctl status`: from now on others may count on the program.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// A line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&one_line(status))]);
}

/// `STOPPING=1`: it was told to end, and does.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// `WATCHDOG=1` three times within the unit's `WatchdogSec=`, for as long as this is polled: a program whose runtime
/// hangs falls silent, and is killed and started again. Never returns.
pub async fn keep_alive() {
    let Some(every) = sd_notify::watchdog_enabled().map(|limit| (limit / 3).max(Duration::from_millis(10))) else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// A newline would begin another assignment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
