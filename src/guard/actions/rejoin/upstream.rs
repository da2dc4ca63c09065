//! What the new primary is asked before anything here is changed: who it is, how its timelines went, how large it is. By `psql` as the
//! server's user; what can be is asked over a replication connection, which a standby needs anyway.

use super::way::{self, Part};
use super::{End, Postgres, Upstream};
use crate::guard::host::{boottime_ms, pause};
use crate::guard::postgres;
use crate::guard::protocol::Lsn;

/// How long one answer may take, milliseconds.
const ASK_MS: u64 = 15_000;
/// How long a checkpoint there is waited for, milliseconds.
const CHECKPOINT_MS: u64 = 600_000;

/// The server to follow, as it answers.
#[derive(Debug, Clone)]
pub struct Found {
    pub system_identifier: u64,
    pub timeline: u32,
    pub lsn: Lsn,
    pub history: Vec<Part>,
}

fn again(why: String) -> End {
    End::again(format!("nothing was changed: the upstream cannot be asked: {why}"))
}

/// Who it is, and its history.
pub fn find(pg: &Postgres, upstream: &Upstream) -> Result<Found, End> {
    let said = replication(pg, upstream, "IDENTIFY_SYSTEM").map_err(again)?;
    let none = || again(format!("IDENTIFY_SYSTEM is answered {said:?}"));
    let mut words = said.split('|');
    let system_identifier = words.next().and_then(|word| word.parse().ok()).ok_or_else(none)?;
    let timeline: u32 = words.next().and_then(|word| word.parse().ok()).ok_or_else(none)?;
    let lsn = words.next().and_then(Lsn::parse).ok_or_else(none)?;
    let file = match timeline {
        1 => String::new(),
        _ => {
            let said = replication(pg, upstream, &format!("TIMELINE_HISTORY {timeline}")).map_err(again)?;
            said.split_once('|').map(|(_, file)| file.to_owned()).ok_or_else(|| again(format!("{said:?}")))?
        }
    };
    let history = way::history(timeline, &file).map_err(again)?;
    Ok(Found { system_identifier, timeline, lsn, history })
}

/// The slot that is named for this host: made where it is not there, with the log kept from now on.
pub fn slot(pg: &Postgres, upstream: &Upstream) -> Result<(), End> {
    let Some(slot) = &upstream.slot else { return Ok(()) };
    match replication(pg, upstream, &format!("CREATE_REPLICATION_SLOT \"{slot}\" PHYSICAL RESERVE_WAL")) {
        Ok(_) => Ok(()),
        Err(why) if why.contains("already exists") => Ok(()),
        Err(why) => Err(End::again(format!(
            "nothing was changed: slot {slot:?} cannot be made on the upstream: {why}. Type there: SELECT \
             pg_create_physical_replication_slot('{slot}', true)"
        ))),
    }
}

/// Makes sure that `pg_rewind` sees a promotion there. That of PostgreSQL 15 takes the timeline of the source's latest checkpoint for its
/// present one, and finds nothing to rewind until the first checkpoint after a promotion: so one is asked for, or waited for where this
/// user may not. `Some`: no question but those of a replication connection is answered there, so `pg_rewind` has nobody to ask either.
pub fn checkpoint(pg: &Postgres, upstream: &Upstream, timeline: u32, until: u64) -> Result<Option<String>, End> {
    let until = until.min(boottime_ms().saturating_add(CHECKPOINT_MS));
    let is_through = || sql(pg, upstream, "SELECT timeline_id FROM pg_control_checkpoint()");
    let mut asked = String::new();
    loop {
        match is_through() {
            Ok(said) if said == timeline.to_string() => return Ok(None),
            Ok(_) if asked.is_empty() => {
                let may = sql(pg, upstream, "CHECKPOINT");
                asked = may.err().unwrap_or_else(|| "it was asked for".to_owned());
            }
            Ok(said) if boottime_ms() >= until => {
                return Err(End::again(format!(
                    "nothing was changed: the upstream's latest checkpoint is of timeline {said}, not {timeline} yet ({asked}): type \
                     CHECKPOINT there"
                )));
            }
            Ok(_) => pause(200),
            Err(why) => return Ok(Some(why)),
        }
    }
}

/// Its size, bytes; `None` where it cannot be asked.
pub fn size(pg: &Postgres, upstream: &Upstream) -> Option<u64> {
    sql(pg, upstream, "SELECT sum(pg_database_size(oid))::bigint FROM pg_database").ok()?.parse().ok()
}

/// Its tablespaces besides the two that every one has, with where they lie.
pub fn tablespaces(pg: &Postgres, upstream: &Upstream) -> Option<String> {
    let question = "SELECT coalesce(string_agg(spcname || ' at ' || pg_tablespace_location(oid), ', '), '') FROM pg_tablespace \
                    WHERE spcname NOT IN ('pg_default', 'pg_global')";
    sql(pg, upstream, question).ok().filter(|said| !said.is_empty())
}

fn replication(pg: &Postgres, upstream: &Upstream, command: &str) -> Result<String, String> {
    ask(pg, &format!("{} replication=true", upstream.conninfo), command)
}

fn sql(pg: &Postgres, upstream: &Upstream, question: &str) -> Result<String, String> {
    ask(pg, &format!("{} dbname=postgres", upstream.conninfo), question)
}

fn ask(pg: &Postgres, conninfo: &str, question: &str) -> Result<String, String> {
    let psql = pg.bin_dir.join("psql").display().to_string();
    let argv = [psql.as_str(), "-XAtqw", "-v", "ON_ERROR_STOP=1", "-d", conninfo, "-c", question].map(str::to_owned);
    postgres::answer(&argv, &pg.user, "5", ASK_MS)
}
