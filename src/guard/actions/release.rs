//! `release`: makes a fenced primary the primary again, where a planned move turned back before anything was promoted. Never promotes,
//! and never touches a timeline: the server goes on where its own log ends. A server that was not stopped in an orderly way recovers
//! from its own log as after any crash; it lost nothing and never left its timeline.
//!
//! The latch is cleared first, then the server is started: its unit's boot gate asks for the latch.
//!
//! | it dies, or sleeps an hour | what stands |
//! |---|---|
//! | before the latch is cleared | a stopped server under its latch, as if nobody had asked. A guard that wakes late clears nothing: past its deadline, or under a token that is no longer the highest here, which is compared under the token lock |
//! | between the two | a stopped server without a latch: whoever starts it does what was asked for. The log says that this region serves, and nobody was promoted |
//! | while it starts | a server that starts, or `pg_ctl` which still waits for it: looked at again by the next attempt |
//!
//! A later token ends it, but not while it waits for the start: a `pg_ctl` that is killed leaves a server behind that starts all the
//! same, and nobody would know. Whoever fences it then waits for the action lock, which the start holds for a minute at most.
//!
//! Mode `lease`: the gate that the fence left shut stays in the kernel. The resident guard asks again as soon as the latch is clear, and
//! opens it by a grant only. So a server that was started here answers no client before the cluster says so. A boot takes the gate away,
//! and not the binding that counts on it: nothing is released before the resident guard has put one in place again.

use super::{Context, End, Look, Start};
use crate::guard::config::Postgres;
use crate::guard::exec::{self, Watch};
use crate::guard::host::{boottime_ms, pause};
use crate::guard::in_flight::Supervisor;
use crate::guard::latch;
use crate::guard::lease::boot;
use crate::guard::postgres::{self, ControlState, Role};
use crate::guard::protocol::WalState;
use crate::guard::wal;

/// How long crash recovery may take before it is answered that it goes on, milliseconds.
const READY_MS: u64 = 60_000;

/// Is it the primary, and not latched?
pub fn look(pg: &Postgres, context: &Context<'_>) -> Look {
    let mark = match latch::load(context.files) {
        Ok(latch) => latch.mark,
        Err(e) => return Look::CannotTell(e.to_string()),
    };
    let seen = postgres::look_closely(pg);
    match (seen.role, mark) {
        (Role::Unknown, _) => Look::CannotTell(seen.how),
        (_, Some(mark)) => Look::NotThere(format!("latched under token {}; {}", mark.token, seen.how)),
        (Role::Writable, None) => match postgres::control_state(&pg.data_dir) {
            Ok(ControlState::InProduction) => Look::There(format!("not latched; {}", seen.how)),
            _ => Look::OnItsWay(format!("not latched; {}: it is not open for writes yet", seen.how)),
        },
        (Role::Stopped | Role::InRecovery | Role::Promoting, None) => {
            Look::NotThere(format!("not latched; {}", seen.how))
        }
    }
}

/// Why this data directory is not the old primary's own any more, if so.
fn left_its_timeline(pg: &Postgres) -> Option<String> {
    let data_dir = &pg.data_dir;
    if let Some(name) = postgres::standby_marker(data_dir) {
        return Some(format!("{} has {name}: it is a standby's, or a restored one", data_dir.display()));
    }
    if super::rejoin::was_begun(pg) {
        return Some(format!("{} was being made a standby, and is not whole: rejoin it again", data_dir.display()));
    }
    match wal::control(data_dir).map(|control| control.state) {
        Ok(WalState::ShutDown | WalState::ShuttingDown | WalState::InCrashRecovery | WalState::InProduction) => None,
        Ok(state) => Some(format!("pg_control of {} says {state}: it is not a primary's", data_dir.display())),
        Err(why) => Some(why),
    }
}

/// Clears the latch, starts the server, and looks.
pub fn act(pg: &Postgres, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until_boottime_ms: u64) -> End {
    if let Some(why) = left_its_timeline(pg) {
        return End::never(format!("nothing was released: {why}"));
    }
    let seen = postgres::look(pg);
    if matches!(seen.role, Role::Unknown | Role::InRecovery | Role::Promoting) {
        return End::again(format!("nothing was released: {}", seen.how));
    }
    if seen.role == Role::Writable && postgres::control_state(&pg.data_dir) != Ok(ControlState::InProduction) {
        return End::again(format!("nothing was released, it starts or stops: {}", seen.how));
    }
    if let Some(why) = boot::ungated(context.config) {
        return End::again(format!("nothing was released: {why}"));
    }
    if let Err(end) =
        super::clear(context, supervisor, &context.files.latch(), until_boottime_ms, "nothing was released")
    {
        return end;
    }
    if seen.role == Role::Stopped {
        if let Some(exec::Stop::Preempted(by)) = supervisor.stop() {
            return End::Preempted(by);
        }
        supervisor.phase("starting");
        // Where it is already so far, others may have started it in between.
        if let Some(end) = super::start(pg, context, &supervisor.output(), &mut Deaf(supervisor), Start::Primary)
            && postgres::look(pg).role == Role::Stopped
        {
            return end;
        }
    }
    let patience = boottime_ms().saturating_add(READY_MS);
    loop {
        match look(pg, context) {
            Look::There(evidence) => return End::Done(format!("released: {evidence}")),
            Look::NotThere(why) | Look::CannotTell(why) if boottime_ms() >= patience => {
                return End::again(format!("the latch is clear, but it does not serve: {why}"));
            }
            Look::OnItsWay(why) if boottime_ms() >= patience => {
                return End::Unknown(format!("the latch is clear and the server starts, read its log: {why}"));
            }
            _ => pause(20),
        }
    }
}

/// Hears no later token.
struct Deaf<'a, 'b>(&'a mut Supervisor<'b>);

impl exec::Watch for Deaf<'_, '_> {
    fn began(&mut self, process_group: u32) {
        self.0.began(process_group);
    }
    fn stop(&mut self) -> Option<exec::Stop> {
        None
    }
}
