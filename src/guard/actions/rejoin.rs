//! `rejoin`: makes a fenced primary a standby of the new one: `pg_rewind`, else a base backup taken beside the old data,
//! which is kept. Clears the latch under its own, later token, once the data directory can only start as a standby. Before that
//! it takes the lease's gate away, which a fence left shut: a standby is there to be read from. If it dies in between, the latch
//! stands, and the next attempt does the same again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Context, End, Look, Start, fence};
use crate::clock::unix_now;
use crate::guard::config::{Postgres, Upstream};
use crate::guard::exec::{Ended, Stop};
use crate::guard::host::{self, boottime_ms, pause};
use crate::guard::in_flight::Supervisor;
use crate::guard::latch::{self, Latch};
use crate::guard::lease::gate;
use crate::guard::postgres::{self, Role};
use crate::guard::records;

/// Files of this host's own that `pg_rewind` and base backups bring from the other one.
const OWN_FILES: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];
/// How long the started standby may take to answer, milliseconds.
const START_MS: u64 = 60_000;

/// Was it begun here, and not ended? What the data directory holds then may be neither's.
pub fn was_begun(_pg: &Postgres) -> bool {
    false
}

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
        Role::Stopped | Role::Writable | Role::Promoting => Look::NotThere(seen.how),
        Role::Unknown => Look::CannotTell(seen.how),
    }
}

/// The line we write: the last one of its key counts.
fn conninfo_line(upstream: &Upstream) -> String {
    format!("primary_conninfo = '{}'", upstream.conninfo.replace('\'', "''"))
}

fn follows(data_dir: &Path, upstream: &Upstream) -> bool {
    let text = fs::read_to_string(data_dir.join("postgresql.auto.conf")).unwrap_or_default();
    let last = text.lines().rev().find(|line| line.starts_with("primary_conninfo"));
    last == Some(conninfo_line(upstream).as_str())
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
    let seen = postgres::look_closely(pg);
    if !latched && matches!(seen.role, Role::Writable | Role::Promoting) {
        return End::never(format!("an unfenced primary is not rejoined: fence it first ({})", seen.how));
    }
    if postgres::gone(pg).is_err() && pg.data_dir.join("PG_VERSION").exists() {
        if let Some(end) = fence::stop(pg, supervisor, until) {
            return end;
        }
        if let Err(seen) = postgres::gone(pg) {
            return End::again(format!("the server could not be stopped: {}", seen.how));
        }
    }
    let how = match bring_in_line(pg, upstream, supervisor, until) {
        Ok(how) => how,
        Err(end) => return end,
    };
    if let Err(e) = make_standby(pg, upstream) {
        return End::again(format!("{how}, but the standby's settings could not be written: {e}"));
    }
    // Only where a fence went before: else the cluster may still count on the silence of a server that is merely stopped.
    if latched && let Err(e) = gate::leave(context.config) {
        return End::again(format!("{how}, but the gate could not be taken away: {e}"));
    }
    let cleared_by = Some(format!("rejoin to {name} under token {}", context.who.token));
    if let Err(e) = latch::store(context.files, &Latch { mark: None, cleared_by }) {
        return End::again(format!("{how}, but the latch could not be cleared: {e}"));
    }
    if let Some(end) = super::start(pg, &supervisor.output(), supervisor, Start::Standby) {
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

fn bring_in_line(
    pg: &Postgres,
    upstream: &Upstream,
    supervisor: &mut Supervisor<'_>,
    until: u64,
) -> Result<String, End> {
    let own = save_own_files(pg).map_err(|e| End::again(format!("cannot keep this host's own settings: {e}")))?;
    let mut before = "no data directory".to_owned();
    if pg.data_dir.join("PG_VERSION").exists() {
        let source = format!("--source-server={} dbname=postgres", upstream.conninfo);
        let words = ["--target-pgdata", &pg.data_dir.display().to_string(), &source];
        let (ran, in_words) = postgres::program(pg, "pg_rewind", &words, &supervisor.output(), until, supervisor);
        if let Ended::Stopped(Stop::Preempted(by)) = ran.ended {
            return Err(End::Preempted(by));
        }
        if postgres::succeeded(&ran) {
            restore_own_files(pg, &pg.data_dir, &own).map_err(|e| End::again(format!("own settings: {e}")))?;
            return Ok("rewound".to_owned());
        }
        before = in_words;
    }
    base_backup(pg, upstream, &own, supervisor, until).map(|aside| {
        let old = aside.map_or("there was no old data".to_owned(), |aside| format!("the old data is kept in {aside}"));
        format!("base backup taken ({before}; {old})")
    })
}

/// Takes a base backup beside the old data and puts it in its place only when it is whole. Where the old data is now.
fn base_backup(
    pg: &Postgres,
    upstream: &Upstream,
    own: &OwnFiles,
    supervisor: &mut Supervisor<'_>,
    until: u64,
) -> Result<Option<String>, End> {
    let again = |why: String| End::again(format!("no base backup: {why}"));
    let incoming = beside(pg, "incoming");
    make_room(pg, &incoming).map_err(again)?;
    let into = incoming.display().to_string();
    let words = ["-D", &into, "-X", "stream", "-c", "fast", "-w", "-d", &upstream.conninfo];
    let (ran, in_words) = postgres::program(pg, "pg_basebackup", &words, &supervisor.output(), until, supervisor);
    match ran.ended {
        Ended::Exit(0) => {}
        Ended::Stopped(Stop::Preempted(by)) => return Err(End::Preempted(by)),
        _ => return Err(again(format!("{in_words}; the old data is untouched"))),
    }
    restore_own_files(pg, &incoming, own).map_err(again)?;
    swap(pg, &incoming).map_err(again)
}

/// `DATA.word`, beside the data directory.
fn beside(pg: &Postgres, word: &str) -> PathBuf {
    let mut name = pg.data_dir.clone().into_os_string();
    name.push(format!(".{word}"));
    PathBuf::from(name)
}

/// An empty directory for the backup; what an unfinished one left is removed.
fn make_room(pg: &Postgres, incoming: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let in_words = |e: std::io::Error| format!("{}: {e}", incoming.display());
    if incoming.exists() {
        fs::remove_dir_all(incoming).map_err(in_words)?;
    }
    fs::create_dir(incoming).map_err(in_words)?;
    fs::set_permissions(incoming, fs::Permissions::from_mode(0o700)).map_err(in_words)?;
    give_to_server(pg, incoming)
}

/// Keeps the old data under another name and puts the new in its place.
fn swap(pg: &Postgres, incoming: &Path) -> Result<Option<String>, String> {
    let in_words = |e: std::io::Error| format!("{}: {e}", pg.data_dir.display());
    let aside = beside(pg, &format!("aside-{}", unix_now().0));
    let kept = pg.data_dir.exists();
    if kept {
        fs::rename(&pg.data_dir, &aside).map_err(in_words)?;
    }
    fs::rename(incoming, &pg.data_dir).map_err(in_words)?;
    records::sync_dir_of(&pg.data_dir).map_err(|e| e.to_string())?;
    Ok(kept.then(|| aside.display().to_string()))
}

/// Names and content.
type OwnFiles = Vec<(&'static str, Vec<u8>)>;

fn save_own_files(pg: &Postgres) -> std::io::Result<OwnFiles> {
    let mut own = Vec::new();
    for name in OWN_FILES {
        match fs::read(pg.data_dir.join(name)) {
            Ok(bytes) => own.push((name, bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(own)
}

fn restore_own_files(pg: &Postgres, into: &Path, own: &OwnFiles) -> Result<(), String> {
    own.iter().try_for_each(|(name, bytes)| write_as_server(pg, &into.join(name), bytes, false))
}

/// Writes a file that belongs to the server's user.
fn write_as_server(pg: &Postgres, path: &Path, bytes: &[u8], append: bool) -> Result<(), String> {
    let in_words = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut options = fs::File::options();
    options.create(true).write(true).truncate(!append).append(append);
    let mut file = options.open(path).map_err(in_words)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(in_words)?;
    give_to_server(pg, path)
}

fn give_to_server(pg: &Postgres, path: &Path) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let user = host::user(&pg.user)?;
    std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).map_err(|e| format!("{}: {e}", path.display()))
}

/// From here on the data directory can start as a standby only; durable before the latch is cleared.
fn make_standby(pg: &Postgres, upstream: &Upstream) -> Result<(), String> {
    let mut lines = format!("\n{}\n", conninfo_line(upstream));
    let slot = upstream.slot.as_deref().unwrap_or("");
    lines.push_str(&format!("primary_slot_name = '{slot}'\n"));
    write_as_server(pg, &pg.data_dir.join("postgresql.auto.conf"), lines.as_bytes(), true)?;
    let signal = pg.data_dir.join("standby.signal");
    write_as_server(pg, &signal, b"", false)?;
    records::sync_dir_of(&signal).map_err(|e| e.to_string())
}
