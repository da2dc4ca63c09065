//! Runs one command: no shell, an empty environment, a process group of its own, a time limit on the group, and an ear
//! for a later token that wants it ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process_group, test_kill_process_group};

use super::host::{self, User, boottime_ms, pause};

/// Between the polite and the certain signal, milliseconds.
const KILL_GRACE_MS: u64 = 2000;
/// Where programs named without a directory are looked for, unless the action's `env` says otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is kept of a command's words, bytes: the last ones.
const OUTPUT_BYTES_KEPT: u64 = 2000;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Program and words.
    pub argv: &'a [String],
    /// As whom.
    pub user: &'a str,
    /// Further environment.
    pub env: &'a BTreeMap<String, String>,
    /// File that takes what it prints; a daemon may keep it open.
    pub output: &'a Path,
    /// Ended at this moment of `CLOCK_BOOTTIME`, milliseconds.
    pub until_boottime_ms: u64,
}

/// Why a command was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Its time was over.
    TimeOver,
    /// A later token wants it ended; in words.
    Preempted(String),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself with a code.
    Exit(i32),
    /// By somebody's signal.
    Signal(i32),
    /// By this guard.
    Stopped(Stop),
    /// It never began; why.
    NotStarted(String),
}

/// How it ended and what it said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How.
    pub ended: Ended,
    /// Its last words.
    pub said: String,
}

impl Ran {
    /// For people: how it ended, and its words where there are any.
    pub fn in_words(&self, argv: &[String]) -> String {
        let program = argv.first().map_or("", String::as_str);
        let how = match &self.ended {
            Ended::Exit(0) => "succeeded".to_owned(),
            Ended::Exit(code) => format!("exited with {code}"),
            Ended::Signal(signal) => format!("was ended by signal {signal}"),
            Ended::Stopped(Stop::TimeOver) => "did not end in its time and was killed".to_owned(),
            Ended::Stopped(Stop::Preempted(by)) => format!("was ended: {by}"),
            Ended::NotStarted(why) => format!("could not be started: {why}"),
        };
        let said = self.said.trim();
        if said.is_empty() { format!("{program} {how}") } else { format!("{program} {how}: {said}") }
    }
}

/// What a running command's supervisor looks at and is told.
pub trait Watch {
    /// The process group that now works.
    fn began(&mut self, process_group: u32);
    /// Whether it shall be ended before its time.
    fn stop(&mut self) -> Option<Stop>;
}

/// A command as it is always run: empty environment, own process group, as `user`.
///
/// # Errors
/// No words, no such user, or the guard may not become that user; in words.
pub fn command_for(argv: &[String], user: &str) -> Result<Command, String> {
    let program = argv.first().ok_or("an empty command")?;
    let user = host::user(user)?;
    let mut command = Command::new(program);
    command
        .args(&argv[1..])
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", &user.home)
        .env("USER", &user.name)
        .env("LANG", "C")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .process_group(0);
    become_user(&mut command, &user)?;
    Ok(command)
}

/// Only root can become somebody else; anybody can stay who they are. Supplementary groups are dropped by the library.
fn become_user(command: &mut Command, user: &User) -> Result<(), String> {
    if may_become(user)? {
        command.uid(user.uid).gid(user.gid);
    }
    Ok(())
}

/// Whether this process must change to be `user`.
///
/// # Errors
/// It may not.
pub fn may_become(user: &User) -> Result<bool, String> {
    match geteuid().as_raw() {
        me if me == user.uid => Ok(false),
        0 => Ok(true),
        me => {
            Err(format!("the guard runs as uid {me} and cannot become {:?}: run it as root or as that user", user.name))
        }
    }
}

/// Runs it to its end, whatever that is. The caller is told the process group before anything else happens to it.
pub fn run(task: &Task<'_>, watch: &mut dyn Watch) -> Ran {
    let not_started = |why: String| Ran { ended: Ended::NotStarted(why), said: String::new() };
    let output = match File::options().read(true).write(true).create(true).truncate(true).open(task.output) {
        Ok(output) => output,
        Err(e) => return not_started(format!("cannot open {}: {e}", task.output.display())),
    };
    let started = command_for(task.argv, task.user).and_then(|mut command| {
        command.envs(task.env);
        let both = output.try_clone().and_then(|out| Ok((out, output.try_clone()?))).map_err(|e| e.to_string())?;
        command.stdout(both.0).stderr(both.1).spawn().map_err(|e| e.to_string())
    });
    let mut child = match started {
        Ok(child) => child,
        Err(why) => return not_started(why),
    };
    watch.began(child.id());
    let ended = supervise(&mut child, task.until_boottime_ms, watch);
    Ran { ended, said: last_words(output) }
}

fn supervise(child: &mut Child, until_boottime_ms: u64, watch: &mut dyn Watch) -> Ended {
    let mut wait_ms = 1;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return by_itself(status),
            Ok(None) => {}
            Err(e) => return Ended::NotStarted(format!("its end cannot be awaited: {e}")),
        }
        // A later token's word first: a guard that slept past its time must not take what comes next for its own to do.
        let stop = watch.stop().or_else(|| (boottime_ms() >= until_boottime_ms).then_some(Stop::TimeOver));
        if let Some(stop) = stop {
            end_group(child.id(), || matches!(child.try_wait(), Ok(None)));
            return Ended::Stopped(stop);
        }
        pause(wait_ms);
        wait_ms = (wait_ms * 2).min(10);
    }
}

fn by_itself(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(0)),
    }
}

/// Ends a process group: politely, then for certain. `reap` collects a leader that is our child and says whether it
/// still runs.
pub fn end_group(process_group: u32, mut reap: impl FnMut() -> bool) {
    let Some(pid) = i32::try_from(process_group).ok().and_then(Pid::from_raw) else { return };
    let until = boottime_ms() + KILL_GRACE_MS;
    // An error means that there is nobody left to tell.
    let _gone = kill_process_group(pid, Signal::TERM);
    while (reap() || group_alive(process_group)) && boottime_ms() < until {
        pause(5);
    }
    let _gone = kill_process_group(pid, Signal::KILL);
    let until = boottime_ms() + KILL_GRACE_MS;
    while (reap() || group_alive(process_group)) && boottime_ms() < until {
        pause(2);
    }
}

/// Ends a process group that nobody supervises, for certain and without waiting.
pub fn kill_now(process_group: u32) {
    if let Some(pid) = i32::try_from(process_group).ok().and_then(Pid::from_raw) {
        // An error means that there is nobody left to tell.
        let _gone = kill_process_group(pid, Signal::KILL);
    }
}

/// Is there any process in the group?
pub fn group_alive(process_group: u32) -> bool {
    i32::try_from(process_group).ok().and_then(Pid::from_raw).is_some_and(|pid| test_kill_process_group(pid).is_ok())
}

fn last_words(mut output: File) -> String {
    let length = output.metadata().map_or(0, |meta| meta.len());
    let mut words = Vec::new();
    let read = output
        .seek(SeekFrom::Start(length.saturating_sub(OUTPUT_BYTES_KEPT)))
        .and_then(|_| output.take(OUTPUT_BYTES_KEPT).read_to_end(&mut words));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&words).chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Never;
    impl Watch for Never {
        fn began(&mut self, _process_group: u32) {}
        fn stop(&mut self) -> Option<Stop> {
            None
        }
    }

    fn run_here(argv: &[&str], ms: u64) -> Ran {
        let dir = tempfile::tempdir().expect("temp folder");
        let argv: Vec<String> = argv.iter().map(|w| (*w).to_owned()).collect();
        let me = std::fs::read_to_string("/etc/passwd").expect("users");
        let uid = geteuid().as_raw().to_string();
        let name = me.lines().find(|l| l.split(':').nth(2) == Some(&uid)).and_then(|l| l.split(':').next());
        let env = BTreeMap::from([("GREETING".to_owned(), "xin chào".to_owned())]);
        let output = dir.path().join("out");
        let task = Task {
            argv: &argv,
            user: name.expect("this user has a name"),
            env: &env,
            output: &output,
            until_boottime_ms: boottime_ms() + ms,
        };
        run(&task, &mut Never)
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(run_here(&["true"], 5000).ended, Ended::Exit(0));
        assert_eq!(run_here(&["sh", "-c", "exit 7"], 5000).ended, Ended::Exit(7));
        assert_eq!(run_here(&["sh", "-c", "kill -9 $$"], 5000).ended, Ended::Signal(9));
        assert_eq!(run_here(&["sh", "-c", "sleep 60 & sleep 60"], 50).ended, Ended::Stopped(Stop::TimeOver));
        assert!(matches!(run_here(&["/no/such/program"], 5000).ended, Ended::NotStarted(_)));
        assert_eq!(run_here(&["printenv", "GREETING"], 5000).said, "xin chào\n");
    }
}
