//! The base backup and its way into place, this host's own files, and the mark that the data directory is being changed.
//!
//! `DATA.rejoining/` is that mark, and keeps this host's own settings meanwhile: made whole under another name and renamed before the
//! first byte of the data directory is changed, removed when the data can start as a standby only. While it is there the data directory
//! may be nobody's: nothing is released, the boot gate is shut, and what was half rewound is replaced by a base backup.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{End, Postgres, Upstream, upstream};
use crate::clock::unix_now;
use crate::guard::actions::progress::Progress;
use crate::guard::exec::{Ended, Stop};
use crate::guard::host;
use crate::guard::in_flight::Supervisor;
use crate::guard::postgres;
use crate::guard::records;

/// Files of this host's own that `pg_rewind` and base backups bring from the other one.
const OWN_FILES: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];
const MIB: u64 = 1024 * 1024;

/// `DATA.word`, beside the data directory.
pub fn beside(pg: &Postgres, word: &str) -> PathBuf {
    let mut name = pg.data_dir.clone().into_os_string();
    name.push(format!(".{word}"));
    PathBuf::from(name)
}

/// Is the data directory being changed?
pub fn was_begun(pg: &Postgres) -> bool {
    beside(pg, "rejoining").exists()
}

/// Marks it, keeping this host's own settings. Done already where it is marked.
pub fn begin(pg: &Postgres) -> Result<(), String> {
    let mark = beside(pg, "rejoining");
    if mark.exists() {
        return Ok(());
    }
    let folder = beside(pg, "rejoining.unfinished");
    empty_folder(&folder)?;
    let in_words = |e: std::io::Error| format!("{}: {e}", folder.display());
    for name in OWN_FILES {
        match fs::read(pg.data_dir.join(name)) {
            Ok(bytes) => {
                let mut file = fs::File::create(folder.join(name)).map_err(in_words)?;
                file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(in_words)?;
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(in_words(e)),
        }
    }
    fs::File::open(&folder).and_then(|dir| dir.sync_all()).map_err(in_words)?;
    fs::rename(&folder, &mark).map_err(in_words)?;
    records::sync_dir_of(&mark).map_err(|e| e.to_string())
}

/// This host's own settings, back in a data directory.
pub fn restore_own_files(pg: &Postgres, into: &Path) -> Result<(), String> {
    for name in OWN_FILES {
        match fs::read(beside(pg, "rejoining").join(name)) {
            Ok(bytes) => write_as_server(pg, &into.join(name), &bytes, false)?,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(format!("{name}: {e}")),
        }
    }
    Ok(())
}

/// The data can start as a standby only.
pub fn end(pg: &Postgres) -> Result<(), String> {
    let mark = beside(pg, "rejoining");
    match fs::remove_dir_all(&mark) {
        Ok(()) => records::sync_dir_of(&mark).map_err(|e| e.to_string()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(format!("{}: {e}", mark.display())),
    }
}

/// Takes a base backup beside the old data and puts it in its place only when it is whole. What became of the old data.
pub fn base_backup(
    pg: &Postgres,
    upstream: &Upstream,
    supervisor: &mut Supervisor<'_>,
    until: u64,
) -> Result<String, End> {
    let again = |why: String| End::again(format!("no base backup: {why}"));
    let incoming = beside(pg, "incoming");
    // Of this rejoin, not of one long ago.
    if was_begun(pg) && is_whole(&incoming) {
        return into_place(pg, &incoming).map_err(again);
    }
    if let Some(spaces) = upstream::tablespaces(pg, upstream) {
        return Err(End::never(format!(
            "no base backup: the upstream has tablespaces ({spaces}), whose places here only you know. Take it by hand: stop the server, \
             pg_basebackup -D {} --tablespace-mapping=OLD=NEW …, touch standby.signal there, then retry",
            pg.data_dir.display()
        )));
    }
    let is_mount = is_mount_point(&pg.data_dir);
    if is_mount && !is_empty(&pg.data_dir) && !beside(pg, "rejoining/in-place").exists() {
        return Err(End::never(format!(
            "no base backup: {} is a mount point with old data in it, which cannot be renamed: move what is in it elsewhere, then retry",
            pg.data_dir.display()
        )));
    }
    let to = if is_mount { pg.data_dir.clone() } else { incoming };
    if let Some(bytes) = upstream::size(pg, upstream) {
        let at = to.parent().filter(|_| !is_mount).unwrap_or(&to);
        room_for(pg, at, bytes).map_err(again)?;
    }
    begin(pg).map_err(again)?;
    if is_mount {
        // From here on what lies there is ours to remove.
        fs::write(beside(pg, "rejoining/in-place"), "").map_err(|e| again(e.to_string()))?;
        records::sync_dir_of(&beside(pg, "rejoining/in-place")).map_err(|e| again(e.to_string()))?;
        empty(&to).map_err(again)?;
    } else {
        empty_folder(&to).map_err(again)?;
    }
    give_to_server(pg, &to).map_err(again)?;
    run(pg, upstream, &to, supervisor, until)?;
    restore_own_files(pg, &to).map_err(again)?;
    super::make_standby(pg, &to, upstream).map_err(again)?;
    if is_mount { Ok("there was no old data".to_owned()) } else { into_place(pg, &to).map_err(again) }
}

fn run(pg: &Postgres, upstream: &Upstream, to: &Path, supervisor: &mut Supervisor<'_>, until: u64) -> Result<(), End> {
    let into = to.display().to_string();
    let words = ["-D", &into, "-X", "stream", "-c", "fast", "-w", "-P", "-d", &upstream.conninfo];
    let output = supervisor.output();
    let mut watch = Progress::of(supervisor, "base backup");
    let (ran, in_words) = postgres::program(pg, "pg_basebackup", &words, &output, until, &mut watch);
    match ran.ended {
        Ended::Exit(0) => Ok(()),
        Ended::Stopped(Stop::Preempted(by)) => Err(End::Preempted(by)),
        _ => Err(End::again(format!("no base backup: {in_words}"))),
    }
}

/// A backup gets its `standby.signal` from us, last.
fn is_whole(data: &Path) -> bool {
    data.join("standby.signal").exists() && data.join("PG_VERSION").exists()
}

/// Keeps the old data under another name and puts the new in its place. If it dies between the two the data directory is missing, and
/// the next attempt finds a whole backup beside it.
fn into_place(pg: &Postgres, incoming: &Path) -> Result<String, String> {
    let in_words = |e: std::io::Error| format!("{}: {e}", pg.data_dir.display());
    let mut said = "there was no old data".to_owned();
    if is_empty(&pg.data_dir) {
        match fs::remove_dir(&pg.data_dir) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(in_words(e)),
        }
    } else {
        let aside = beside(pg, &format!("aside-{}", unix_now().0));
        fs::rename(&pg.data_dir, &aside).map_err(in_words)?;
        said = format!("the old data is kept in {}", aside.display());
    }
    fs::rename(incoming, &pg.data_dir).map_err(in_words)?;
    records::sync_dir_of(&pg.data_dir).map_err(|e| e.to_string())?;
    Ok(said)
}

/// Missing, or with nothing in it that counts.
pub fn is_empty(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lost+found")),
        Err(e) => e.kind() == ErrorKind::NotFound,
    }
}

fn is_mount_point(dir: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    device(dir).is_some_and(|ours| dir.parent().and_then(device).is_some_and(|parents| parents != ours))
}

/// An empty directory of its owner's; what an unfinished one left is removed.
pub fn empty_folder(folder: &Path) -> Result<(), String> {
    let in_words = |e: std::io::Error| format!("{}: {e}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(in_words)?;
    }
    fs::create_dir(folder).map_err(in_words)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(in_words)
}

/// Removes what is in it.
fn empty(dir: &Path) -> Result<(), String> {
    let in_words = |e: std::io::Error| format!("{}: {e}", dir.display());
    for entry in fs::read_dir(dir).map_err(in_words)? {
        let path = entry.map_err(in_words)?.path();
        let is_dir = fs::symlink_metadata(&path).map_err(in_words)?.is_dir();
        if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.map_err(in_words)?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(in_words)
}

/// Is there room for so much at `at`, and `keep_free_mb` besides?
///
/// # Errors
/// How much is missing, in words.
pub fn room_for(pg: &Postgres, at: &Path, bytes: u64) -> Result<(), String> {
    let disk = rustix::fs::statvfs(at).map_err(|e| format!("{}: {e}", at.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes.saturating_add(pg.keep_free_mb.saturating_mul(MIB)) <= free {
        return Ok(());
    }
    Err(format!(
        "{} MiB are needed at {}, {} MiB are free, and {} MiB of them are to stay so (postgres.keep_free_mb): make room, for one by \
         removing an old {}.aside-* or .diverged-* that nobody needs",
        bytes.div_ceil(MIB),
        at.display(),
        free / MIB,
        pg.keep_free_mb,
        pg.data_dir.display()
    ))
}

/// Writes a file that belongs to the server's user.
pub fn write_as_server(pg: &Postgres, path: &Path, bytes: &[u8], append: bool) -> Result<(), String> {
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
