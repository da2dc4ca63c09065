//! `fence`: the server is gone for certain, or runs in recovery; and the latch is set.
//!
//! The latch is set first: after a crash between the two the host is latched and its boot gate refuses, and the fence is
//! not reported before both are so. The other order could stop a server that then starts again unlatched.

use super::{Context, End, Look};
use crate::clock::unix_now;
use crate::guard::config::Postgres;
use crate::guard::exec::{Ended, Stop, Watch};
use crate::guard::host::{boottime_ms, pause};
use crate::guard::in_flight::Supervisor;
use crate::guard::latch::{self, Latch};
use crate::guard::postgres::{self, Role};
use crate::guard::protocol::LatchMark;

/// Where nobody asks for less, the whole of stopping may take this long beyond the fast stop's own time, milliseconds.
const CERTAIN_STOP_MS: u64 = 20_000;

/// Is it fenced?
pub fn look(pg: &Postgres, context: &Context<'_>) -> Look {
    let latch = match latch::load(context.files) {
        Ok(latch) => latch,
        Err(e) => return Look::CannotTell(e.to_string()),
    };
    let seen = postgres::look_closely(pg);
    match (latch.mark, seen.role) {
        (_, Role::Unknown) => Look::CannotTell(seen.how),
        (_, Role::Writable | Role::Promoting) => Look::NotThere(seen.how),
        (None, Role::Stopped | Role::InRecovery) => Look::NotThere(format!("not latched; {}", seen.how)),
        (Some(mark), Role::Stopped) => Look::There(format!("stopped and latched under {}: {}", mark.token, seen.how)),
        (Some(mark), Role::InRecovery) => {
            Look::There(format!("in recovery and latched under {}: {}", mark.token, seen.how))
        }
    }
}

/// Latches, stops what is not in recovery, and looks.
pub fn act(pg: &Postgres, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until_boottime_ms: u64) -> End {
    let who = context.who;
    let mark = LatchMark { token: who.token, run: who.run.clone(), step: who.step.clone(), at: unix_now() };
    if let Err(e) = latch::store(context.files, &Latch { mark: Some(mark), cleared_by: None }) {
        return End::again(format!("the latch could not be set, nothing was stopped: {e}"));
    }
    let seen = postgres::look_closely(pg);
    let harmless = matches!(seen.role, Role::Stopped | Role::InRecovery);
    if let Some(end) = (!harmless).then(|| stop(pg, supervisor, until_boottime_ms)).flatten() {
        return end;
    }
    match look(pg, context) {
        Look::There(evidence) => End::Done(evidence),
        Look::NotThere(why) | Look::OnItsWay(why) => End::again(format!("latched, but not stopped: {why}")),
        Look::CannotTell(why) => End::Unknown(format!("latched, but {why}")),
    }
}

/// Stops the server: politely for half the time there is, then at once, then by the kernel. `None`: go and look.
pub fn stop(pg: &Postgres, supervisor: &mut Supervisor<'_>, until_boottime_ms: u64) -> Option<End> {
    let now = boottime_ms();
    let polite_ms = pg.stop_timeout_s.saturating_mul(1000).min(until_boottime_ms.saturating_sub(now) / 2);
    let fast_until = now.saturating_add(polite_ms);
    let data_dir = pg.data_dir.display().to_string();
    let output = supervisor.output();
    let seconds = polite_ms.div_ceil(1000).max(1).to_string();
    let (ran, _) = match &pg.stop_argv {
        Some(argv) => postgres::run_argv(pg, argv, &output, fast_until, supervisor),
        None => {
            let words = ["stop", "-m", "fast", "-t", &seconds, "-D", &data_dir];
            postgres::program(pg, "pg_ctl", &words, &output, fast_until, supervisor)
        }
    };
    if let Ended::Stopped(Stop::Preempted(by)) = ran.ended {
        return Some(End::Preempted(by));
    }
    if postgres::gone(pg).is_ok() {
        return None;
    }
    let certain_until = boottime_ms().saturating_add(CERTAIN_STOP_MS).min(until_boottime_ms.max(fast_until));
    let half = boottime_ms().saturating_add(certain_until.saturating_sub(boottime_ms()) / 2);
    let words = ["stop", "-m", "immediate", "-W", "-D", &data_dir];
    postgres::program(pg, "pg_ctl", &words, &output, half, supervisor);
    wait_until_gone(pg, supervisor, half).or_else(|| {
        if postgres::gone(pg).is_ok() {
            return None;
        }
        // The last resort. What was acknowledged is in the WAL.
        postgres::kill(&pg.data_dir);
        wait_until_gone(pg, supervisor, certain_until.max(boottime_ms() + 1000))
    })
}

/// Waits. `Some` only where a later token wants the waiting ended: listened for once at least, also past the time.
fn wait_until_gone(pg: &Postgres, supervisor: &mut Supervisor<'_>, until_boottime_ms: u64) -> Option<End> {
    while postgres::gone(pg).is_err() {
        if let Some(Stop::Preempted(by)) = supervisor.stop() {
            return Some(End::Preempted(by));
        }
        if boottime_ms() >= until_boottime_ms {
            break;
        }
        pause(5);
    }
    None
}
