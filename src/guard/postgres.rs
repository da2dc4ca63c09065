//! The database as its host sees it: `pg_control`, the server's processes, who listens on its port; and, where a standby
//! must be told from one about to be promoted, one query through the Unix socket. No passwords.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::config::Postgres;
use super::exec::{self, Ended, Ran, Task, Watch};
use super::host::{self, boottime_ms, pause};
use super::listeners;
use super::protocol::PostgresRole;

/// What the server may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// No process, nobody listens, nobody holds the data directory.
    Stopped,
    /// Replays, and nobody has asked it to end that.
    InRecovery,
    /// Replays, and was asked to end that.
    Promoting,
    /// Takes writes, or will without being asked (it recovers from a crash).
    Writable,
    /// Cannot be told.
    Unknown,
}

/// A role and how it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it may do.
    pub role: Role,
    /// How that was seen, for people and the evidence.
    pub how: String,
}

impl Seen {
    fn new(role: Role, how: impl Into<String>) -> Self {
        Self { role, how: how.into() }
    }
}

impl From<Role> for PostgresRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Stopped => PostgresRole::Stopped,
            Role::InRecovery => PostgresRole::InRecovery,
            Role::Promoting | Role::Writable => PostgresRole::Writable,
            Role::Unknown => PostgresRole::Unknown,
        }
    }
}

/// `DBState` in `pg_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlState {
    /// Shut down, starting, or recovering from a crash.
    Other(u32),
    /// In archive recovery.
    InArchiveRecovery,
    /// In production: set in the same breath in which writes are allowed.
    InProduction,
}

impl ControlState {
    /// Ended in an orderly way: its last record is written, and no session is left.
    pub const SHUT_DOWN: Self = Self::Other(1);
}

/// Reads the state from `pg_control`.
///
/// # Errors
/// As [`control_bytes`].
pub fn control_state(data_dir: &Path) -> Result<ControlState, String> {
    Ok(state_in(&control_bytes(data_dir)?))
}

/// Reads `pg_control`, whole. It is rewritten in place, so a torn read is tried again.
///
/// # Errors
/// Unreadable or its checksum is wrong, in words.
pub fn control_bytes(data_dir: &Path) -> Result<Vec<u8>, String> {
    let path = data_dir.join("global/pg_control");
    for _ in 0..5 {
        let bytes = std::fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        if is_whole(&bytes) {
            return Ok(bytes);
        }
        pause(1);
    }
    Err(format!("{} has no valid checksum", path.display()))
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
}

/// The checksum follows the structure, whose size depends on the version.
fn is_whole(bytes: &[u8]) -> bool {
    (200..=512).step_by(4).any(|at| word_at(bytes, at).is_some_and(|sum| sum == crc32c::crc32c(&bytes[..at])))
}

/// The state lies at byte 16 in every version.
fn state_in(bytes: &[u8]) -> ControlState {
    match word_at(bytes, 16) {
        Some(5) => ControlState::InArchiveRecovery,
        Some(6) => ControlState::InProduction,
        other => ControlState::Other(other.unwrap_or(u32::MAX)),
    }
}

/// The server's process as `postmaster.pid` names it, if it runs and works in this data directory: the number may by now
/// be that of somebody else, even of another server.
pub fn postmaster(data_dir: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    let wanted = data_dir.canonicalize().ok()?;
    // Where it may not be looked at, [`gone`] says so.
    let here = works_in(pid, &wanted).unwrap_or(false);
    (here && host::process_started(pid).is_some()).then_some(pid)
}

/// Is it a server process, and this its current directory? A process that may not be looked at is an error: it must not
/// pass for one that is not there.
fn works_in(pid: u32, wanted: &Path) -> Result<bool, String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if !is_server_name(name.trim()) {
        return Ok(false);
    }
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(dir) => Ok(dir == wanted),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Err(format!(
            "the guard may not see where process {pid} works ({e}): run it as root, or as the server's user"
        )),
        // It ended meanwhile, or is a zombie.
        Err(_) => Ok(false),
    }
}

fn is_server_name(name: &str) -> bool {
    matches!(name, "postgres" | "postmaster")
}

/// Every server process that works in the data directory: they all make it their current directory.
pub fn processes(data_dir: &Path) -> Result<Vec<u32>, String> {
    let wanted = data_dir.canonicalize().map_err(|e| format!("cannot find {}: {e}", data_dir.display()))?;
    let pids = host::pids().map_err(|e| format!("cannot read /proc: {e}"))?;
    pids.map(|pid| works_in(pid, &wanted).map(|here| here.then_some(pid))).filter_map(Result::transpose).collect()
}

/// Ends every one of them, frozen ones too; what has one's number by now is looked at again, and left alone.
pub fn kill(data_dir: &Path) {
    let Ok(wanted) = data_dir.canonicalize() else { return };
    for pid in processes(data_dir).unwrap_or_default() {
        host::kill_if(pid, || works_in(pid, &wanted) == Ok(true));
    }
}

/// Is it gone for certain: no process, nobody listens on port or socket, the data directory's lock is free?
///
/// # Errors
/// What shows that it is not, or why it cannot be told.
pub fn gone(pg: &Postgres) -> Result<String, Seen> {
    let unknown = |why: String| Seen::new(Role::Unknown, why);
    if !pg.data_dir.join("PG_VERSION").is_file() {
        let why = format!("{} is no data directory (not mounted?): nothing is proved by it", pg.data_dir.display());
        return Err(unknown(why));
    }
    let running = processes(&pg.data_dir).map_err(unknown)?;
    if let Some(pid) = postmaster(&pg.data_dir).or(running.first().copied()) {
        return Err(Seen::new(Role::Writable, format!("server process {pid} works in {}", pg.data_dir.display())));
    }
    let socket = pg.socket_dir.join(format!(".s.PGSQL.{}", pg.port));
    if !listeners::on(pg.address, pg.port).map_err(unknown)?.is_empty() || UnixStream::connect(&socket).is_ok() {
        let why = format!(
            "somebody listens on port {} or {}, but no server works in {}: is the guard's data_dir right?",
            pg.port,
            socket.display(),
            pg.data_dir.display()
        );
        return Err(unknown(why));
    }
    Ok(format!(
        "no server process in {}, port {} and {} refused, lock free",
        pg.data_dir.display(),
        pg.port,
        socket.display()
    ))
}

/// The file, if any, by which a server started in the data directory comes up in recovery.
pub fn standby_marker(data_dir: &Path) -> Option<&'static str> {
    ["standby.signal", "recovery.signal"].into_iter().find(|name| data_dir.join(name).exists())
}

/// Whether it takes writes, or would where it was started now.
pub fn may_serve(pg: &Postgres) -> bool {
    match look(pg).role {
        Role::Writable | Role::Promoting => true,
        Role::InRecovery => false,
        Role::Stopped | Role::Unknown => standby_marker(&pg.data_dir).is_none(),
    }
}

/// What it may do, by files and processes alone: fast. A promotion already taken up by the server, but not finished,
/// still looks like recovery: [`look_closely`] tells them apart.
pub fn look(pg: &Postgres) -> Seen {
    let running = match postmaster(&pg.data_dir) {
        // Every process of the machine is looked at only where it may be gone: promote waits for this.
        Some(pid) => format!("server process {pid} works in {}", pg.data_dir.display()),
        None => match gone(pg) {
            Ok(how) => return Seen::new(Role::Stopped, how),
            Err(seen) if seen.role == Role::Unknown => return seen,
            Err(seen) => seen.how,
        },
    };
    let standby = standby_marker(&pg.data_dir).is_some();
    match control_state(&pg.data_dir) {
        Err(why) => Seen::new(Role::Unknown, format!("{running}, but {why}")),
        Ok(ControlState::InProduction) => Seen::new(Role::Writable, format!("{running}; pg_control: in production")),
        Ok(_) if pg.data_dir.join("promote").exists() => {
            Seen::new(Role::Promoting, format!("{running}; a promotion was asked for"))
        }
        Ok(ControlState::InArchiveRecovery) if standby => {
            Seen::new(Role::InRecovery, format!("{running}; pg_control: in archive recovery"))
        }
        Ok(ControlState::InArchiveRecovery) => {
            Seen::new(Role::Promoting, format!("{running}; pg_control: in archive recovery, but no standby.signal"))
        }
        Ok(ControlState::Other(state)) if standby => {
            Seen::new(Role::Unknown, format!("{running}; pg_control: state {state}, a standby that starts or stops"))
        }
        Ok(ControlState::Other(state)) => {
            Seen::new(Role::Writable, format!("{running}; pg_control: state {state}, no standby: it starts or stops"))
        }
    }
}

/// In recovery, and was no promotion taken up? `pg_wal_replay_resume` does nothing to a replay that is not paused, and
/// refuses once a promotion is under way: nothing else in SQL shows that.
const CLOSE_LOOK: &str = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN 'writable' \
    WHEN pg_is_wal_replay_paused() THEN 'recovery' \
    WHEN pg_wal_replay_resume() IS NOT NULL THEN 'recovery' END";

/// How long the server may take for it, milliseconds.
pub const CLOSE_LOOK_MS: u64 = 3000;

/// What it may do, asking the server where files alone cannot tell.
pub fn look_closely(pg: &Postgres) -> Seen {
    look_closely_by(pg, |question| query(pg, question, CLOSE_LOOK_MS))
}

/// [`look_closely`], the question put to the server by `ask`.
pub fn look_closely_by(pg: &Postgres, ask: impl FnOnce(&str) -> Result<String, String>) -> Seen {
    let seen = look(pg);
    if seen.role != Role::InRecovery {
        return seen;
    }
    match ask(CLOSE_LOOK) {
        Ok(answer) if answer == "recovery" => Seen::new(Role::InRecovery, "server answers: in recovery, not promoting"),
        Ok(answer) if answer == "writable" => Seen::new(Role::Writable, "server answers: not in recovery"),
        Err(why) if why.contains("promotion is ongoing") => Seen::new(Role::Promoting, why),
        Ok(answer) => Seen::new(Role::Unknown, format!("server answers {answer:?}")),
        Err(why) => Seen::new(Role::Unknown, format!("{}; {why}", seen.how)),
    }
}

/// One value by `psql` through the Unix socket, as the configured user, without a password.
///
/// # Errors
/// What `psql` said, or that it took too long.
pub fn query(pg: &Postgres, sql: &str, limit_ms: u64) -> Result<String, String> {
    let argv: Vec<String> = [
        pg.bin_dir.join("psql").display().to_string().as_str(),
        "-XAtqw",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        &pg.socket_dir.display().to_string(),
        "-p",
        &pg.port.to_string(),
        "-U",
        &pg.user,
        "-d",
        "postgres",
        "-c",
        sql,
    ]
    .map(str::to_owned)
    .to_vec();
    let mut command = exec::command_for(&argv, &pg.user)?;
    command.env("PGCONNECT_TIMEOUT", "2").env("PGOPTIONS", "-c statement_timeout=2000");
    answer_of(command, boottime_ms() + limit_ms)
}

/// What a `psql` prints, run as `user`. `connect_s`: how long it may take to connect, seconds.
///
/// # Errors
/// As [`query`].
pub fn answer(argv: &[String], user: &str, connect_s: &str, limit_ms: u64) -> Result<String, String> {
    let mut command = exec::command_for(argv, user)?;
    command.env("PGCONNECT_TIMEOUT", connect_s);
    answer_of(command, boottime_ms() + limit_ms)
}

/// A pipe's buffer: more is never waited for.
const PIPE_BYTES: u64 = 64 * 1024;

fn answer_of(mut command: Command, until_boottime_ms: u64) -> Result<String, String> {
    use std::io::Read;
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started.map_err(|e| format!("cannot start psql: {e}"))?;
    let mut wait_ms = 1;
    // What psql prints here fits a pipe's buffer: it never waits for us to read.
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if boottime_ms() < until_boottime_ms => pause(wait_ms),
            Ok(None) => {
                exec::end_group(child.id(), || matches!(child.try_wait(), Ok(None)));
                return Err("psql got no answer in time".to_owned());
            }
            Err(e) => return Err(format!("cannot await psql: {e}")),
        }
        wait_ms = (wait_ms * 2).min(5);
    };
    let mut said = String::new();
    let mut read = |pipe: Option<&mut dyn Read>| pipe.map(|p| p.take(PIPE_BYTES).read_to_string(&mut said));
    if status.success() {
        read(child.stdout.as_mut().map(|p| p as &mut dyn Read));
        Ok(said.trim().to_owned())
    } else {
        read(child.stderr.as_mut().map(|p| p as &mut dyn Read));
        Err(format!("psql: {}", said.trim()))
    }
}

/// Runs `pg_ctl` (or another of the server's programs) as the configured user.
pub fn program(
    pg: &Postgres,
    name: &str,
    words: &[&str],
    output: &Path,
    until_boottime_ms: u64,
    watch: &mut dyn Watch,
) -> (Ran, String) {
    let mut argv = vec![pg.bin_dir.join(name).display().to_string()];
    argv.extend(words.iter().map(|word| (*word).to_owned()));
    run_argv(pg, &argv, output, until_boottime_ms, watch)
}

/// Runs configured words, or those of [`program`], as the configured user; root's own (`systemctl`) as root.
pub fn run_argv(
    pg: &Postgres,
    argv: &[String],
    output: &Path,
    until_boottime_ms: u64,
    watch: &mut dyn Watch,
) -> (Ran, String) {
    let user = runs_as(pg, argv);
    let ran = exec::run(&Task { argv, user, env: &BTreeMap::new(), output, until_boottime_ms }, watch);
    let words = ran.in_words(argv);
    (ran, words)
}

/// As whom [`run_argv`] runs these words.
pub fn runs_as<'a>(pg: &'a Postgres, argv: &[String]) -> &'a str {
    let own_program = argv.first().is_some_and(|program| Path::new(program).starts_with(&pg.bin_dir));
    if rustix::process::geteuid().is_root() && !own_program { "root" } else { &pg.user }
}

/// Did it end well?
pub fn succeeded(ran: &Ran) -> bool {
    ran.ended == Ended::Exit(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_file_without_its_checksum_says_nothing() {
        let mut bytes = vec![7u8; 8192];
        bytes[16..20].copy_from_slice(&6u32.to_ne_bytes());
        assert!(!is_whole(&bytes));
        let sum = crc32c::crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&sum.to_ne_bytes());
        assert!(is_whole(&bytes));
        assert_eq!(state_in(&bytes), ControlState::InProduction);
        bytes[17] ^= 1;
        assert!(!is_whole(&bytes) && !is_whole(&[]));
    }
}
