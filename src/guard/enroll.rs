//! What only a person on the host may do, by the host's name typed again: enroll a group, clear its latch, set a damaged
//! ledger aside. Each returns what it did, in words.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::config::Config;
use super::host::{self, boottime_ms};
use super::latch::{self, Latch};
use super::lease::hold;
use super::ledger::{self, Entry, Event};
use super::locks;
use super::protocol::LatchMark;
use super::records::{self, RecordError};
use super::token_store::{self, GroupFiles, TokenRecord};
use crate::clock::unix_now;
use crate::domain::ids::{ClusterName, GroupName, RunId, Token};

/// How long a person waits for an action at work, milliseconds.
const PATIENCE_MS: u64 = 10_000;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// What was typed is not so.
    #[error("{0}")]
    Refused(String),
    /// A file could not be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A directory or a rename.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What to do about a latch that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatchChoice {
    /// Write it clear: the database may start.
    Clear,
    /// Write it set: the database stays down until it is cleared.
    Set,
}

/// What is typed to enroll.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The group.
    pub group: GroupName,
    /// The cluster: as in the configuration.
    pub cluster: ClusterName,
    /// The cluster's epoch.
    pub epoch: u64,
    /// The host's name.
    pub confirm: String,
    /// No token at or below `EPOCH.floor` is to be believed lost: remember at least this.
    pub floor: u64,
    /// For a latch that cannot be read.
    pub latch: Option<LatchChoice>,
}

pub(super) fn confirmed(config: &Config, group: &GroupName, confirm: &str) -> Result<(), EnrollError> {
    let host = host::name();
    if confirm != host {
        return Err(EnrollError::Refused(format!("--confirm {confirm:?} is not this host's name, {host:?}")));
    }
    if !config.groups.contains(group) {
        return Err(EnrollError::Refused(format!("group {:?} is not in the guard's configuration", group.as_str())));
    }
    Ok(())
}

pub(super) fn lock(path: &Path) -> Result<locks::Held, EnrollError> {
    locks::take(path, boottime_ms() + PATIENCE_MS)?.ok_or_else(|| {
        EnrollError::Refused(format!("{} is held: an action is at work, see watchdog-guard status", path.display()))
    })
}

fn move_aside(path: &Path) -> Result<String, EnrollError> {
    let aside = path.with_extension(format!("damaged-{}", unix_now().0));
    fs::rename(path, &aside)
        .map_err(|source| EnrollError::Io { doing: format!("cannot set {} aside", path.display()), source })?;
    records::sync_dir_of(path)?;
    Ok(aside.display().to_string())
}

/// Enrolls a group: from here on its token store answers.
///
/// # Errors
/// What was typed is not so, or a file could not be written.
pub fn enroll(config: &Config, typed: &Enrolment) -> Result<String, EnrollError> {
    confirmed(config, &typed.group, &typed.confirm)?;
    if typed.cluster != config.cluster {
        let why =
            format!("--cluster {:?} is not the configuration's {:?}", typed.cluster.as_str(), config.cluster.as_str());
        return Err(EnrollError::Refused(why));
    }
    let files = GroupFiles::new(&config.state_dir, &typed.group);
    make_dir(&files)?;
    let _acting = lock(&files.action_lock())?;
    let _comparing = lock(&files.token_lock())?;

    let before = match token_store::load(&files, &typed.group) {
        Ok(record) => Some(record),
        Err(RecordError::Missing(_) | RecordError::Damaged { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    let traces = traces(&files);
    let known = before.as_ref().map(|record| record.token).into_iter().chain(traces.clone()).max();
    if let Some(known) = known.filter(|known| known.epoch > typed.epoch) {
        let why = format!("--epoch {} is below token {known}, seen here", typed.epoch);
        return Err(EnrollError::Refused(why));
    }
    let token = known.into_iter().chain([Token { epoch: typed.epoch, n: typed.floor }]).max().unwrap_or_default();
    let first = before.is_none() && traces.is_empty() && !files.token().exists();
    let mut latch_words = enroll_latch(&files.latch(), typed, token, first)?;
    if config.redis_of(&typed.group).is_some() {
        // Redis may have come to this host later than the group did.
        let first = !files.redis_latch().exists() && !redis_was_acted_upon(&files);
        latch_words += &format!(" Redis: {}", enroll_latch(&files.redis_latch(), typed, token, first)?);
    }
    if matches!(hold::standing(&files), Err(RecordError::Damaged { .. })) {
        let aside = move_aside(&files.hold())?;
        let begun = hold::begin_longest(&files, token)?;
        latch_words += &format!(" The damaged promotion hold is kept as {aside}; in its place {begun}.");
    }
    if before.as_ref().is_some_and(|record| record.epoch == typed.epoch && record.token == token) {
        return Ok(format!("group {} is enrolled already; token {token} is held. {latch_words}", typed.group));
    }
    let mut words = String::new();
    if before.is_none() && files.token().exists() {
        words = format!("The damaged token store is kept as {}. ", move_aside(&files.token())?);
    }
    let enrolled_at = unix_now();
    let (cluster, group) = (typed.cluster.clone(), typed.group.clone());
    records::write_durably(&files.token(), &TokenRecord { cluster, epoch: typed.epoch, group, token, enrolled_at })?;
    Ok(format!(
        "{words}Group {} is enrolled with cluster {} epoch {}: token {token} is held, lower ones are refused. {latch_words}\n\
         If this host was enrolled before and its state was lost, run this again with --floor N, the group's token in \
         `watchdogctl status`.",
        typed.group, typed.cluster, typed.epoch
    ))
}

fn make_dir(files: &GroupFiles) -> Result<(), EnrollError> {
    let dir = files.dir();
    let io = |source| EnrollError::Io { doing: format!("cannot create {}", dir.display()), source };
    fs::create_dir_all(dir).map_err(io)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(io)?;
    records::sync_dir_of(dir)?;
    Ok(())
}

/// Tokens seen in what is left: nothing below them is to be believed again.
fn traces(files: &GroupFiles) -> Vec<Token> {
    let mut tokens: Vec<Token> = [files.ledger(), files.ledger().with_extension("old")]
        .iter()
        .filter_map(|path| ledger::load(path).ok())
        .flatten()
        .map(|entry| entry.token)
        .collect();
    let latches = [files.latch(), files.redis_latch()];
    tokens.extend(latches.iter().filter_map(|file| Some(latch::load_at(file).ok()?.mark?.token)));
    tokens
}

/// An unreadable ledger may hide that it was, also one that was set aside.
fn redis_was_acted_upon(files: &GroupFiles) -> bool {
    let aside = files.ledger().with_extension("damaged-");
    let is_aside = |name: &std::ffi::OsStr| {
        aside.file_name().is_some_and(|begin| name.as_encoded_bytes().starts_with(begin.as_encoded_bytes()))
    };
    // A folder that cannot be read hides it too.
    let was_set_aside = fs::read_dir(files.dir())
        .map_or(true, |found| found.into_iter().any(|file| file.map_or(true, |file| is_aside(&file.file_name()))));
    was_set_aside
        || [files.ledger(), files.ledger().with_extension("old")].iter().any(|path| match ledger::load(path) {
            Ok(entries) => entries.iter().any(|entry| entry.action.starts_with("redis-")),
            Err(RecordError::Missing(_)) => false,
            Err(_) => true,
        })
}

fn enroll_latch(file: &Path, typed: &Enrolment, token: Token, first: bool) -> Result<String, EnrollError> {
    let clear = |why: &str| Latch { mark: None, cleared_by: Some(why.to_owned()) };
    let error = match latch::load_at(file) {
        Ok(Latch { mark: None, .. }) => return Ok("The latch is clear.".to_owned()),
        Ok(Latch { mark: Some(mark), .. }) => return Ok(format!("The latch stays set (token {}).", mark.token)),
        Err(e) => e,
    };
    if matches!(error, RecordError::Damaged { .. }) && typed.latch.is_some() {
        move_aside(file)?;
    }
    match (typed.latch, first) {
        (Some(LatchChoice::Clear), _) => latch::store_at(file, &clear("enroll, by an operator's choice"))?,
        (None, true) => latch::store_at(file, &clear("first enrolment"))?,
        (Some(LatchChoice::Set), _) => {
            let mark = LatchMark { token, run: "operator".into(), step: "enroll".into(), at: unix_now() };
            latch::store_at(file, &Latch { mark: Some(mark), cleared_by: None })?;
            return Ok("The latch is set: the server stays down until `watchdog-guard unlatch`.".to_owned());
        }
        (None, false) => {
            let why = format!("{error}: was this host fenced? Add --latch set (safe) or --latch clear");
            return Err(EnrollError::Refused(why));
        }
    }
    Ok("The latch is clear.".to_owned())
}

/// Clears the latch on an operator's word.
///
/// # Errors
/// What was typed is not so, or a file could not be written.
pub fn unlatch(
    config: &Config,
    group: &GroupName,
    of_redis: bool,
    confirm: &str,
    reason: &str,
) -> Result<String, EnrollError> {
    confirmed(config, group, confirm)?;
    if reason.trim().is_empty() {
        return Err(EnrollError::Refused("--reason must say why".to_owned()));
    }
    let files = GroupFiles::new(&config.state_dir, group);
    let _acting = lock(&files.action_lock())?;
    let file = if of_redis { files.redis_latch() } else { files.latch() };
    let Some(mark) = latch::load_at(&file)?.mark else {
        return Ok(format!("group {group} is not latched; nothing was changed"));
    };
    latch::store_at(&file, &Latch { mark: None, cleared_by: Some(format!("operator: {}", ledger::cut(reason, 500))) })?;
    record(&files, mark.token, "unlatch", reason)?;
    Ok(format!(
        "group {group}: the latch of token {} is cleared on your word. {what} may start: if another one is the \
         primary now, there will be two.",
        mark.token,
        what = if of_redis { "Redis" } else { "The database" }
    ))
}

/// Sets a ledger aside, so that a new one is begun.
///
/// # Errors
/// What was typed is not so, or a file could not be written.
pub fn set_ledger_aside(config: &Config, group: &GroupName, confirm: &str) -> Result<String, EnrollError> {
    confirmed(config, group, confirm)?;
    let files = GroupFiles::new(&config.state_dir, group);
    let _acting = lock(&files.action_lock())?;
    if let Ok(entries) = ledger::load(&files.ledger()) {
        return Ok(format!("group {group}: the ledger is sound ({} records); nothing was changed", entries.len()));
    }
    let aside = move_aside(&files.ledger())?;
    let token = token_store::load(&files, group)?.token;
    record(&files, token, "set-ledger-aside", &aside)?;
    Ok(format!("group {group}: the ledger is kept as {aside}; a new one is begun"))
}

pub(super) fn record(files: &GroupFiles, token: Token, action: &str, detail: &str) -> Result<(), EnrollError> {
    let entry = Entry {
        at: unix_now(),
        run: RunId::from("operator"),
        step: action.into(),
        attempt: 1,
        token,
        action: action.to_owned(),
        event: Event::Done,
        detail: detail.to_owned(),
    };
    Ok(ledger::append(&files.ledger(), &entry)?)
}
