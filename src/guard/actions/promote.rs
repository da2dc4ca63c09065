//! `promote`: makes the standby of this host the primary. Never killed. Its effect is read from `pg_control`, which says
//! "in production" in the same breath in which PostgreSQL allows writes.

use super::{Context, End, Look};
use crate::domain::stuck::UNLATCH;
use crate::guard::config::Postgres;
use crate::guard::exec::Ended;
use crate::guard::host::{self, boottime_ms, pause};
use crate::guard::in_flight::Supervisor;
use crate::guard::latch;
use crate::guard::postgres::{self, ControlState, Role};
use crate::guard::protocol::Refusal;

/// How often the effect is looked for, milliseconds.
const POLL_MS: u64 = 3;

/// A fenced host is not promoted: its data may be older than what the other side has acknowledged since.
pub fn forbidden(context: &Context<'_>) -> Option<(Refusal, String)> {
    match latch::load(context.files) {
        Ok(latch) => latch.mark.map(|mark| {
            let why = format!(
                "this host is latched: it was fenced under token {} by {}/{}, and its data may lack what was written \
                 elsewhere since. Where you are sure that it lacks nothing that counts, type here: {UNLATCH} --group {} \
                 --confirm {} --reason TEXT",
                mark.token,
                mark.run,
                mark.step,
                context.who.group,
                host::name()
            );
            (Refusal::Latched, why)
        }),
        Err(e) => Some((Refusal::DamagedStore, format!("{e}: a latch that cannot be read is not clear"))),
    }
}

/// Is it the primary?
pub fn look(pg: &Postgres) -> Look {
    let seen = postgres::look_closely(pg);
    match seen.role {
        Role::Writable => match postgres::control_state(&pg.data_dir) {
            Ok(ControlState::InProduction) => Look::There(seen.how),
            _ => Look::CannotTell(format!("{}: it is not open for writes yet", seen.how)),
        },
        Role::InRecovery | Role::Stopped => Look::NotThere(seen.how),
        Role::Promoting => Look::OnItsWay(seen.how),
        Role::Unknown => Look::CannotTell(seen.how),
    }
}

/// As [`look`], without asking the server: for the way to acting, where every millisecond counts and a promotion under
/// way does no harm.
pub fn look_fast(pg: &Postgres) -> Look {
    let seen = postgres::look(pg);
    match (seen.role, postgres::control_state(&pg.data_dir)) {
        (Role::Writable, Ok(ControlState::InProduction)) => Look::There(seen.how),
        (Role::Stopped, _) => Look::NotThere(seen.how),
        _ => Look::CannotTell(seen.how),
    }
}

/// Promotes, and waits for it.
pub fn act(pg: &Postgres, supervisor: &mut Supervisor<'_>) -> End {
    let seen = postgres::look(pg);
    match seen.role {
        Role::InRecovery | Role::Promoting => {}
        Role::Stopped => {
            let why = "there is no running standby to promote: start it, then retry";
            return End::again(format!("{why} ({})", seen.how));
        }
        Role::Writable | Role::Unknown => return End::again(format!("no standby that can be promoted: {}", seen.how)),
    }
    let until = boottime_ms().saturating_add(pg.promote_timeout_s.saturating_mul(1000));
    let data_dir = pg.data_dir.display().to_string();
    let output = supervisor.output();
    let (ran, in_words) =
        postgres::program(pg, "pg_ctl", &["promote", "-W", "-D", &data_dir], &output, until, supervisor);
    if let Ended::NotStarted(_) = ran.ended {
        return End::never(in_words);
    }
    // What pg_ctl says is no matter: "not in standby mode" is what it says to a server just promoted by others.
    loop {
        let state = postgres::control_state(&pg.data_dir);
        let postmaster = postgres::postmaster(&pg.data_dir);
        match (state, postmaster) {
            (Ok(ControlState::InProduction), Some(pid)) => {
                return End::Done(format!("promoted; server process {pid}; pg_control: in production"));
            }
            (_, None) => return End::Unknown(format!("the server is gone after {in_words}: read its log")),
            _ if !postgres::succeeded(&ran) => return End::again(in_words),
            (state, Some(_)) if boottime_ms() >= until => {
                return End::Unknown(format!("asked for, but pg_control still says {state:?}: read the server's log"));
            }
            _ => pause(POLL_MS),
        }
    }
}
