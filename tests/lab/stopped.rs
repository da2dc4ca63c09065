//! Whether a process has stopped. SIGSTOP is a request: until one of its threads is scheduled and takes it, the others go
//! on, and on a busy machine that is long enough to answer what should have found it frozen.

use std::time::{Duration, Instant};

/// Waits until every thread of `pid` has stopped, or is gone.
///
/// # Panics
/// When ten seconds were not enough.
pub fn until_stopped(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !has_stopped(pid) {
        assert!(Instant::now() < deadline, "process {pid} got SIGSTOP and has not stopped within 10 s");
        nap();
    }
}

fn has_stopped(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let Ok(stat) = std::fs::read_to_string(thread.path().join("stat")) else { return true };
        // The name before it is in brackets and may hold anything.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        matches!(state, Some('T' | 't' | 'Z' | 'X'))
    })
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a state, with a deadline around it")]
fn nap() {
    std::thread::sleep(Duration::from_millis(1));
}
