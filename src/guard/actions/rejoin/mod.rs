//! `rejoin`: makes a fenced primary a standby of the new one, and clears the latch under its own, later token (or that of the run that
//! set it), once the data directory can only start as a standby.
//!
//! Where nothing diverged ([`way`]) the data stays as it is. Else what diverged is kept aside ([`aside`]), then `pg_rewind`; where that
//! fails, or the disk is a new one, a base backup is taken beside the old data, which is kept ([`copy`]). The upstream is asked first
//! ([`upstream`]): one that does not answer, or is another database, changes nothing here.
//!
//! | it dies | what stands, and what the next attempt does |
//! |---|---|
//! | before the data is changed | the old data under its latch: all again |
//! | while it is rewound or copied | the latch and `DATA.rejoining`: a rewind that went on by itself to its end has left `standby.signal`, its last act, and counts; else a base backup is taken |
//! | while the backup is put in place | a whole backup beside a missing data directory: put in place |
//! | before the latch is cleared | a standby's data under the latch: nothing has diverged |
//! | after that | a standby that is not started: it is started |
//!
//! Before the latch is cleared the lease's gate is taken away, which a fence left shut: a standby is there to be read from.

mod aside;
mod copy;
mod diverged;
mod upstream;
mod way;

use std::fs;
use std::path::Path;

pub use copy::was_begun;
use way::Way;

use super::progress::Progress;
use super::{Context, End, Look, START_MS, Start, fence};
use crate::guard::config::{Postgres, Upstream};
use crate::guard::exec::{Ended, Stop};
use crate::guard::host::{boottime_ms, pause};
use crate::guard::in_flight::Supervisor;
use crate::guard::latch::{self, Latch};
use crate::guard::lease::gate;
use crate::guard::postgres::{self, Role};
use crate::guard::records;
use crate::guard::wal;

/// Is it a standby of that upstream, and not latched?
pub fn look(pg: &Postgres, upstream: &Upstream, context: &Context<'_>) -> Look {
    match latch::load(context.files) {
        Ok(Latch { mark: None, .. }) => {}
        Ok(Latch { mark: Some(mark), .. }) => return Look::NotThere(format!("latched under token {}", mark.token)),
        Err(e) => return Look::CannotTell(e.to_string()),
    }
    let seen = postgres::look_closely(pg);
    match seen.role {
        Role::InRecovery if follows(&pg.data_dir, upstream) => Look::There(seen.how),
        Role::InRecovery => Look::NotThere(format!("{}, but of another upstream", seen.how)),
        // A new disk has nothing to look at.
        Role::Unknown if copy::is_empty(&pg.data_dir) => Look::NotThere(seen.how),
        Role::Stopped | Role::Writable | Role::Promoting => Look::NotThere(seen.how),
        Role::Unknown => Look::CannotTell(seen.how),
    }
}

/// The lines we write: the last ones of their keys count.
fn lines_for(upstream: &Upstream) -> [String; 2] {
    let slot = upstream.slot.as_deref().unwrap_or("");
    [format!("primary_conninfo = '{}'", upstream.conninfo.replace('\'', "''")), format!("primary_slot_name = '{slot}'")]
}

fn follows(data_dir: &Path, upstream: &Upstream) -> bool {
    let text = fs::read_to_string(data_dir.join("postgresql.auto.conf")).unwrap_or_default();
    lines_for(upstream).iter().all(|line| {
        let key = line.split(' ').next().unwrap_or("");
        text.lines().rev().find(|found| found.starts_with(key)) == Some(line.as_str())
    })
}

/// Stops, brings the data in line, clears the latch, starts, looks.
pub fn act(
    pg: &Postgres,
    (name, upstream): (&str, &Upstream),
    context: &Context<'_>,
    supervisor: &mut Supervisor<'_>,
    until_boottime_ms: u64,
) -> End {
    let until = until_boottime_ms.min(boottime_ms().saturating_add(pg.rejoin_timeout_s.saturating_mul(1000)));
    let latched = latch::load(context.files).is_ok_and(|latch| latch.mark.is_some());
    if let Err(end) = stop(pg, latched, supervisor, until) {
        return end;
    }
    let how = match bring_in_line(pg, upstream, supervisor, until) {
        Ok(how) => how,
        Err(end) => return end,
    };
    if let Err(e) = make_standby(pg, &pg.data_dir, upstream).and_then(|()| copy::end(pg)) {
        return End::again(format!("{how}, but the standby's settings could not be written: {e}"));
    }
    // Only where a fence went before: else the cluster may still count on the silence of a server that is merely stopped.
    if latched && let Err(e) = gate::leave(context.config) {
        return End::again(format!("{how}, but the gate could not be taken away: {e}"));
    }
    if let Err(end) = super::clear(context, supervisor, &context.files.latch(), until, &how) {
        return end;
    }
    supervisor.phase("starting");
    if let Some(end) = super::start(pg, context, &supervisor.output(), supervisor, Start::Standby) {
        return end;
    }
    let patience = boottime_ms().saturating_add(START_MS);
    loop {
        match look(pg, upstream, context) {
            Look::There(evidence) => return End::Done(format!("{how}; standby of {name}: {evidence}")),
            Look::NotThere(why) | Look::OnItsWay(why) | Look::CannotTell(why) if boottime_ms() >= patience => {
                return End::again(format!("{how}, but it is no standby of {name}: {why}"));
            }
            _ => pause(50),
        }
    }
}

fn stop(pg: &Postgres, latched: bool, supervisor: &mut Supervisor<'_>, until: u64) -> Result<(), End> {
    let seen = postgres::look_closely(pg);
    if !latched && matches!(seen.role, Role::Writable | Role::Promoting) {
        return Err(End::never(format!("an unfenced primary is not rejoined: fence it first ({})", seen.how)));
    }
    if !pg.data_dir.join("PG_VERSION").exists() || postgres::gone(pg).is_ok() {
        return Ok(());
    }
    supervisor.phase("stopping");
    if let Some(end) = fence::stop(pg, supervisor, until) {
        return Err(end);
    }
    match postgres::gone(pg) {
        Ok(_) => Ok(()),
        Err(seen) => Err(End::again(format!("the server could not be stopped: {}", seen.how))),
    }
}

/// How it was, in words.
fn bring_in_line(
    pg: &Postgres,
    upstream: &Upstream,
    supervisor: &mut Supervisor<'_>,
    until: u64,
) -> Result<String, End> {
    supervisor.phase("asking the upstream");
    let found = upstream::find(pg, upstream)?;
    upstream::slot(pg, upstream)?;
    let copied = |why: String, supervisor: &mut Supervisor<'_>| {
        let old = copy::base_backup(pg, upstream, supervisor, until)?;
        Ok(format!("base backup taken ({why}; {old})"))
    };
    if was_begun(pg) {
        if pg.data_dir.join("standby.signal").exists() {
            copy::restore_own_files(pg, &pg.data_dir).map_err(|e| End::again(format!("own settings: {e}")))?;
            return Ok("rewound or copied by an earlier attempt".to_owned());
        }
        return copied("an earlier attempt ended in the middle".to_owned(), supervisor);
    }
    if !pg.data_dir.join("PG_VERSION").exists() {
        return copied("no data directory".to_owned(), supervisor);
    }
    let control = match wal::control(&pg.data_dir) {
        Ok(control) => control,
        Err(why) => return copied(why, supervisor),
    };
    if control.system_identifier != found.system_identifier {
        return Err(End::never(format!(
            "nothing was changed: the upstream has system identifier {}, and {} has {}: another database. Is its conninfo right?",
            found.system_identifier,
            pg.data_dir.display(),
            control.system_identifier
        )));
    }
    let timeline = control.timeline.max(control.min_recovery_timeline);
    let ours = match own_history(pg, timeline) {
        Ok(ours) => ours,
        Err(why) => return copied(why, supervisor),
    };
    let (fork, past) = match way::decide(&control, &ours, &found.history, found.lsn) {
        Way::Follow(fork) => {
            return Ok(format!("nothing diverged, {} on timeline {} is in both", fork.lsn, fork.timeline));
        }
        Way::Copy => return copied("the two have no timeline in common".to_owned(), supervisor),
        Way::Rewind(fork) => (fork, aside::Past { fork, ours: &ours, timelines: (timeline, found.timeline) }),
    };
    let cannot = match upstream::checkpoint(pg, upstream, found.timeline, until)? {
        Some(why) => why,
        None => {
            let kept = aside::keep(pg, &past, supervisor, until)?;
            let parted = format!("past {} on timeline {}: {kept}", fork.lsn, fork.timeline);
            match rewind(pg, upstream, supervisor, until)? {
                None => return Ok(format!("rewound ({parted})")),
                Some(why) => format!("{why}; {parted}"),
            }
        }
    };
    copied(cannot, supervisor)
}

fn own_history(pg: &Postgres, timeline: u32) -> Result<Vec<way::Part>, String> {
    let file = pg.data_dir.join(format!("pg_wal/{timeline:08X}.history"));
    let text = match timeline {
        0 | 1 => String::new(),
        _ => fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?,
    };
    way::history(timeline, &text)
}

/// `Some`: it failed, in words; what is in the data directory is of no use then.
fn rewind(
    pg: &Postgres,
    upstream: &Upstream,
    supervisor: &mut Supervisor<'_>,
    until: u64,
) -> Result<Option<String>, End> {
    let again = |e: String| End::again(format!("nothing was rewound: {e}"));
    copy::begin(pg).map_err(again)?;
    // Its being there says afterwards that a rewind is whole.
    let signal = pg.data_dir.join("standby.signal");
    if signal.exists() {
        fs::remove_file(&signal).map_err(|e| again(e.to_string()))?;
        records::sync_dir_of(&signal).map_err(|e| again(e.to_string()))?;
    }
    let data_dir = pg.data_dir.display().to_string();
    let source = format!("--source-server={} dbname=postgres", upstream.conninfo);
    let config = pg.config_file.as_ref().map(|file| format!("--config-file={}", file.display()));
    let mut words = vec!["--target-pgdata", data_dir.as_str(), "--progress", "--write-recovery-conf", source.as_str()];
    words.extend(config.as_deref());
    let output = supervisor.output();
    let (ran, in_words) =
        postgres::program(pg, "pg_rewind", &words, &output, until, &mut Progress::of(supervisor, "rewinding"));
    if let Ended::Stopped(Stop::Preempted(by)) = ran.ended {
        return Err(End::Preempted(by));
    }
    if !postgres::succeeded(&ran) {
        return Ok(Some(in_words));
    }
    copy::restore_own_files(pg, &pg.data_dir).map_err(|e| End::again(format!("rewound, but own settings: {e}")))?;
    Ok(None)
}

/// From here on the data directory can start as a standby only; durable before the latch is cleared.
fn make_standby(pg: &Postgres, data_dir: &Path, upstream: &Upstream) -> Result<(), String> {
    if !follows(data_dir, upstream) {
        let lines = format!("\n{}\n", lines_for(upstream).join("\n"));
        copy::write_as_server(pg, &data_dir.join("postgresql.auto.conf"), lines.as_bytes(), true)?;
    }
    let signal = data_dir.join("standby.signal");
    copy::write_as_server(pg, &signal, b"", false)?;
    records::sync_dir_of(&signal).map_err(|e| e.to_string())
}
