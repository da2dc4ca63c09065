//! The cgroup (version 2) a process is in, and which of them are gated.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::EgressError;
use crate::guard::host;

/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// At most so many cgroups below the gated one are looked at: a database's are a handful.
const BELOW_MAX: usize = 4096;

/// Where cgroup v2 is mounted.
pub fn mount() -> Option<PathBuf> {
    mount_in(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS… - TYPE …`; blanks are written as octal.
fn mount_in(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next()? == "cgroup2").then_some(())?;
        let point = before.split(' ').nth(4)?;
        Some(PathBuf::from(point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")))
    })
}

/// The directory of the cgroup in which a process is.
///
/// # Errors
/// There is no such process, or no cgroup v2 here.
pub fn of_process(pid: u32) -> Result<PathBuf, EgressError> {
    let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let fault = |why: String| EgressError::Cgroup { path: file.clone(), why };
    let table = fs::read_to_string(&file).map_err(|e| fault(e.to_string()))?;
    let mount = mount().ok_or_else(|| fault("cgroup v2 is not mounted on this host".to_owned()))?;
    let inside = table.lines().find_map(|line| line.strip_prefix("0::/"));
    inside.map(|path| mount.join(path)).ok_or_else(|| fault("names no cgroup of version 2".to_owned()))
}

/// This process is in a cgroup until this is dropped: what it starts meanwhile stays there. It makes no socket in between.
#[derive(Debug)]
pub struct Stay {
    back: PathBuf,
}

impl Stay {
    /// Goes in.
    ///
    /// # Errors
    /// It is none, or this process may not move.
    pub fn within(path: &Path) -> Result<Self, EgressError> {
        let back = of_process(std::process::id())?;
        open(path)?;
        let fault = |e: io::Error| EgressError::Cgroup { path: path.to_path_buf(), why: format!("cannot go in: {e}") };
        move_to(path).map_err(fault)?;
        Ok(Self { back })
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        // Left inside it gates nothing of its own: it listens on no database's port.
        if let Err(error) = move_to(&self.back) {
            tracing::warn!(%error, to = %self.back.display(), "the guard stays in the database's cgroup");
        }
    }
}

/// `0` is whoever writes it.
fn move_to(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// Opens the directory of a cgroup.
pub(super) fn open(path: &Path) -> Result<File, EgressError> {
    let fault = |why: String| EgressError::Cgroup { path: path.to_path_buf(), why };
    let dir = File::open(path).map_err(|e| fault(e.to_string()))?;
    let kind = rustix::fs::fstatfs(&dir).map_err(|e| fault(e.to_string()))?.f_type;
    if u64::try_from(kind).ok() != Some(CGROUP2_MAGIC) {
        let mounted = mount().map_or("it is not mounted here".to_owned(), |at| format!("it is at {}", at.display()));
        return Err(fault(format!("is no directory of cgroup v2 ({mounted})")));
    }
    Ok(dir)
}

/// A cgroup and all below it, by the kernel's ids (which are inode numbers).
pub(super) struct Inside {
    path: PathBuf,
    ids: BTreeSet<u64>,
}

impl Inside {
    pub(super) fn of(path: &Path) -> Result<Self, EgressError> {
        let fault = |e: io::Error| EgressError::Cgroup { path: path.to_path_buf(), why: e.to_string() };
        let mut ids = BTreeSet::from([open(path)?.metadata().map_err(fault)?.ino()]);
        let mut left = vec![path.to_path_buf()];
        while let Some(dir) = left.pop() {
            // One that went away meanwhile holds nobody.
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if ids.len() < BELOW_MAX && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    ids.extend(entry.metadata().map(|meta| meta.ino()));
                    left.push(entry.path());
                }
            }
        }
        Ok(Self { path: path.to_path_buf(), ids })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.ids.contains(&id)
    }

    /// Is a server with all its children in it? Answers how many processes that is.
    pub(super) fn holds(&self, postmaster: u32) -> Result<usize, EgressError> {
        let mut count = 0;
        for pid in std::iter::once(postmaster).chain(children(postmaster)) {
            match of_process(pid) {
                Ok(at) if fs::metadata(&at).is_ok_and(|meta| self.has(meta.ino())) => count += 1,
                _ if pid != postmaster && super::super::host::process_started(pid).is_none() => {}
                Ok(at) => {
                    return Err(EgressError::NotInForce(format!(
                        "process {pid} of the database is in {}, not in {}: restart it there",
                        at.display(),
                        self.path.display()
                    )));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(count)
    }
}

/// The children of a process.
fn children(parent: u32) -> Vec<u32> {
    let pids = host::pids().into_iter().flatten();
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent_in = |stat: &str| stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok();
        parent_in(&stat) == Some(parent)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_among_others() {
        let table = "24 1 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n\
            30 24 0:27 / /sys/fs/cgroup/a\\040b rw,relatime shared:9 - cgroup2 cgroup rw\n";
        assert_eq!(mount_in(table), Some(PathBuf::from("/sys/fs/cgroup/a b")));
        assert_eq!(mount_in("24 1 0:22 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu\nnonsense\n"), None);
    }
}
