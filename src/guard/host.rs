//! The host itself: its boot, its clock that counts suspends, its name, its users. And the one place that waits.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use rustix::time::{ClockId, clock_gettime};

/// The kernel's boot id: another after each boot. Empty where the kernel tells none, which equals no nonce.
pub fn boot_nonce() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// `CLOCK_BOOTTIME`, milliseconds: it goes on while the host is suspended.
pub fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let s = u64::try_from(now.tv_sec).unwrap_or(0);
    let ms = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
    s.saturating_mul(1000).saturating_add(ms)
}

/// `CLOCK_BOOTTIME`, nanoseconds.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let s = u64::try_from(now.tv_sec).unwrap_or(0);
    s.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// The host's own name.
pub fn name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// Waits: between two looks at something that has no way to tell by itself (a lock, a child, a file).
#[expect(clippy::disallowed_methods, reason = "the guard's one place that waits; every caller looks again, bounded")]
pub fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// A local user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric id of the login group.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// Looks a user up in `/etc/passwd`, then through the name service.
///
/// # Errors
/// In words, where there is no such user.
pub fn user(name: &str) -> Result<User, String> {
    let local = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    if let Some(user) = user_in(&local, name) {
        return Ok(user);
    }
    let answer = std::process::Command::new("getent").args(["passwd", "--", name]).output();
    answer.ok().and_then(|out| user_in(&String::from_utf8_lossy(&out.stdout), name)).ok_or_else(|| {
        format!("no user {name:?} on this host: create it, or name another in the guard's configuration")
    })
}

/// Connects to a Unix socket as `user`, so that PostgreSQL's `peer` lets the guard in as it does `psql`. The credentials
/// that the server sees are the connecting thread's: one of its own takes that user on and ends.
///
/// # Errors
/// Nobody listens there, its queue is full, or the guard may not become that user.
pub fn connect_as(path: &Path, user: &User) -> io::Result<UnixStream> {
    let path = path.to_path_buf();
    let connect = move || -> io::Result<OwnedFd> {
        // Not waiting: a frozen server whose queue is full would keep this thread for ever.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(&path)?)?;
        Ok(socket)
    };
    as_user(user, connect)?.map(Into::into)
}

/// Does something short on a thread of its own that takes on `user`'s rights and ends. Only root can become somebody else;
/// whoever else asks does it as who they are.
///
/// # Errors
/// The thread could not be started, or the user not be become.
pub fn as_user<T: Send + 'static>(user: &User, act: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (uid, gid) = (user.uid, user.gid);
    let becomes = rustix::process::geteuid().is_root() && uid != 0;
    let inside = move || -> io::Result<T> {
        if becomes {
            let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        }
        Ok(act())
    };
    let thread = std::thread::Builder::new().name("as-user".to_owned()).spawn(inside)?;
    thread.join().map_err(|_| io::Error::other("the thread of another user ended badly"))?
}

fn user_in(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next()? == name).then_some(())?;
        let uid = parts.nth(1)?.parse().ok()?;
        let gid = parts.next()?.parse().ok()?;
        let home = Path::new(parts.nth(1)?).to_path_buf();
        Some(User { name: name.to_owned(), uid, gid, home })
    })
}

/// Every process that is seen.
///
/// # Errors
/// `/proc` cannot be read.
pub fn pids() -> io::Result<impl Iterator<Item = u32>> {
    let entries = std::fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// The certain signal: works on a frozen process too. The kernel gives a number that is free to somebody else: the process
/// is held fast first, and then `is_it` says whether it is the right one. What is gone already needs none.
pub fn kill_if(pid: u32, is_it: impl FnOnce() -> bool) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let held = pidfd_open(pid, PidfdFlags::empty());
    if !is_it() {
        return;
    }
    let _gone = match held {
        Ok(process) => pidfd_send_signal(process, Signal::KILL),
        Err(Errno::SRCH) => Ok(()),
        // A kernel that cannot hold one fast, or a sandbox that does not let us.
        Err(_) => kill_process(pid, Signal::KILL),
    };
}

/// One process and no other, whoever has its number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pid: u32,
    started: u64,
}

impl Process {
    /// The one that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        process_started(pid).map(|started| Self { pid, started })
    }

    /// Its number.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// Does it still run?
    pub fn runs(self) -> bool {
        process_started(self.pid) == Some(self.started)
    }

    /// Ends it, if it does.
    pub fn kill(self) {
        kill_if(self.pid, || self.runs());
    }
}

/// When a process was started, clock ticks since boot; `None` where there is none, or only a zombie.
pub fn process_started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut after_name = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    (after_name.next()? != "Z").then_some(())?;
    after_name.nth(18)?.parse().ok()
}

/// The process group of some process of a session, if any is left.
pub fn group_in_session(session: u32) -> Option<u32> {
    pids().ok()?.find_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut after_name = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        (after_name.next()? != "Z").then_some(())?;
        let group = after_name.nth(1)?.parse().ok()?;
        (after_name.next()?.parse::<u32>().ok()? == session).then_some(group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_whole_name_only() {
        let passwd =
            "postgresx:x:1:2::/x:/bin/sh\npostgres:x:105:109:PostgreSQL:/var/lib/postgresql:/bin/bash\nbad:x\n";
        let user = user_in(passwd, "postgres").expect("listed");
        assert_eq!((user.uid, user.gid, user.home.to_str()), (105, 109, Some("/var/lib/postgresql")));
        assert_eq!(user_in(passwd, "post"), None);
        assert_eq!(user_in(passwd, "bad"), None);
    }

    #[test]
    fn only_the_process_that_was_meant_is_killed() {
        use std::io::{BufRead, BufReader, Write};
        use std::os::unix::process::ExitStatusExt;
        use std::process::{Command, Stdio};

        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
        let (mut to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let meant = Process::of(child.id()).expect("it runs");
        let earlier = Process { started: meant.started - 1, ..meant };
        earlier.kill();
        kill_if(meant.pid(), || false);
        assert!(meant.runs() && !earlier.runs());
        to.write_all(b"alive\n").expect("it reads");
        let mut line = String::new();
        BufReader::new(from).read_line(&mut line).expect("it answers");
        assert_eq!(line, "alive\n");
        meant.kill();
        assert_eq!(child.wait().expect("its end").signal(), Some(Signal::KILL.as_raw()));
        assert!(!meant.runs());
        // Nobody is there any more.
        meant.kill();
    }

    #[test]
    fn this_process_has_a_start() {
        assert!(process_started(std::process::id()).is_some());
        assert!(boottime_ms() > 0);
        assert_eq!(boot_nonce().len(), 36);
    }
}
