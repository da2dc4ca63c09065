//! Processes: started detached with a log of their own, found by the lab's mark, killed, frozen and thawed as a tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::folder::Folder;
use super::stopped::until_stopped;
use super::wait;

/// Environment variable that carries the lab's mark.
pub const MARK: &str = "WATCHDOG_LAB";

/// A running part: its process and everything under it.
pub struct Part {
    /// For people.
    pub name: String,
    /// Its log.
    pub log: PathBuf,
    /// Its first process.
    pub pid: u32,
    ended: Arc<Mutex<Option<ExitStatus>>>,
}

impl Part {
    /// Starts `command` with its output appended to the log `NAME.log`.
    pub fn start(folder: &Folder, name: &str, mut command: Command) -> Result<Self> {
        let log = folder.log(name);
        let file = File::options().create(true).append(true).open(&log)?;
        command.env(MARK, &folder.path).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        detach(&mut command);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        let pid = child.id();
        remember(folder, pid)?;
        let ended = Arc::new(Mutex::new(None));
        let report = Arc::clone(&ended);
        // Reaped at once: whoever asks whether the process is gone must not be told by a zombie that it lives.
        std::thread::spawn(move || {
            let status = child.wait();
            *report.lock().unwrap_or_else(PoisonError::into_inner) = status.ok();
        });
        Ok(Self { name: name.to_owned(), log, pid, ended })
    }

    /// Its exit status, once it has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error with the log's end, if it has ended.
    pub fn check_running(&self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => {
                anyhow::bail!("{} ended ({status}); the end of {}:\n{}", self.name, self.log.display(), tail(&self.log))
            }
        }
    }

    /// SIGKILL to it and everything under it; returns when it is reaped.
    pub fn kill(&self) -> Result<()> {
        self.signal_tree(Signal::KILL);
        self.wait_ended(Duration::from_secs(10))
    }

    /// SIGTERM, and SIGKILL when that does not help.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::TERM);
        self.wait_ended(Duration::from_secs(10)).or_else(|_| self.kill())
    }

    /// A signal to its first process.
    pub fn signal(&self, signal: Signal) {
        if self.ended().is_none() {
            send(self.pid, signal);
        }
    }

    /// SIGSTOP to all of it; returns when it has stopped.
    pub fn freeze(&self) {
        if self.ended().is_none() {
            freeze_all(&tree(self.pid));
        }
    }

    /// SIGCONT to all of it.
    pub fn thaw(&self) {
        self.signal_tree(Signal::CONT);
    }

    /// Waits for its end.
    pub fn wait_ended(&self, within: Duration) -> Result<()> {
        wait::until_blocking(&format!("{} to end", self.name), within, || self.ended().map(|_| ()))
    }

    fn signal_tree(&self, signal: Signal) {
        if self.ended().is_none() {
            for pid in tree(self.pid) {
                send(pid, signal);
            }
        }
    }
}

/// Where the lab's own children are written down: some of them overwrite their environment, and the mark with it.
fn children_file(mark: &Path) -> PathBuf {
    mark.join("children")
}

fn remember(folder: &Folder, pid: u32) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(children_file(&folder.path))?;
    Ok(writeln!(file, "{pid} {}", birth(pid).unwrap_or(0))?)
}

/// The lab's own children that still live, with all that is under them.
fn children(mark: &Path) -> Vec<u32> {
    let text = fs::read_to_string(children_file(mark)).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| {
        let (pid, born) = line.split_once(' ')?;
        Some((pid.parse::<u32>().ok()?, born.parse::<u64>().ok()?))
    });
    // A number may have been given to somebody else since: the time of birth tells.
    pairs.filter(|(pid, born)| birth(*pid) == Some(*born)).flat_map(|(pid, _)| tree(pid)).collect()
}

/// Out of the terminal's process group, so that Ctrl-C reaches the lab alone.
pub fn detach(command: &mut Command) {
    command.process_group(0);
}

/// Runs a command to its end; its output, or an error with what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}):\n{said}{complained}", output.status);
    Ok(said)
}

/// The same, off the runtime's threads.
pub async fn run_async(mut command: Command) -> Result<String> {
    tokio::task::spawn_blocking(move || run(&mut command)).await?
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Sends a signal; a process that is already gone is no error.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

/// SIGSTOP to all; returns when they have stopped.
pub fn freeze_all(pids: &[u32]) {
    pids.iter().for_each(|pid| send(*pid, Signal::STOP));
    pids.iter().copied().for_each(until_stopped);
}

/// SIGKILL to all.
pub fn kill_all(pids: &[u32]) {
    for pid in pids {
        send(*pid, Signal::KILL);
    }
}

/// Exists and is not a zombie.
pub fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// The fields of `/proc/PID/stat` from the third on.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = text.rsplit_once(')')?;
    Some(after.split_whitespace().map(str::to_owned).collect())
}

/// State and parent.
fn stat(pid: u32) -> Option<(char, u32)> {
    let fields = stat_fields(pid)?;
    Some((fields.first()?.chars().next()?, fields.get(1)?.parse().ok()?))
}

/// When the process was started, in ticks since boot.
fn birth(pid: u32) -> Option<u64> {
    stat_fields(pid)?.get(19)?.parse().ok()
}

/// All process ids.
pub fn all_pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A process and all its descendants, parents first.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in all_pids() {
        if let Some((_, parent)) = stat(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Every live process of a lab but this one: has its mark in the environment, works inside a database's folder
/// (PostgreSQL's children overwrite their environment), or is the lab's child or below one.
pub fn carrying_mark(mark: &Path) -> Vec<u32> {
    let mut needle = format!("{MARK}=").into_bytes();
    needle.extend(mark.as_os_str().as_bytes());
    let databases = mark.join("pg");
    let me = std::process::id();
    let marked = |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == needle)
    };
    let inside = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&databases));
    let mut found: Vec<u32> = all_pids().into_iter().filter(|pid| marked(*pid) || inside(*pid)).collect();
    found.extend(children(mark));
    found.retain(|pid| *pid != me && is_running(*pid));
    found
}
