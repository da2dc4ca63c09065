//! `release`: a fenced primary is the primary again; and what it refuses, and what dies in its middle.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use watchdog::guard::host::{boottime_ms, pause};
use watchdog::guard::postgres::{ControlState, control_state};
use watchdog::guard::protocol::{PostgresRole, Refusal, Reply, Request, WalState};

use crate::host::{Asked, Host, act, act_within, read_back, text, wait_until, warrant};
use crate::server::Server;

struct Site {
    host: Host,
    primary: Server,
    dir: tempfile::TempDir,
}

impl Site {
    /// A primary with a row, fenced by run r1 under token 5.
    fn fenced() -> Self {
        let site = Self::with("");
        site.primary.sql("CREATE TABLE kept AS SELECT 42 AS x");
        site.fence("r1", 5);
        site
    }

    fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let primary = Server::primary(dir.path());
        let host = Host::new(&primary.guarded(&more.replace("{dir}", &dir.path().display().to_string())));
        Self { host, primary, dir }
    }

    fn fence(&self, run: &str, n: u64) {
        let (reply, _) = self.host.ask(&act(&warrant(run, "fence", n), "fence"));
        assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    }

    fn release(&self, run: &str, n: u64) -> (Reply, i32) {
        self.host.ask(&act(&warrant(run, "release", n), "release"))
    }

    fn looked_at(&self, run: &str, n: u64) -> (Reply, i32) {
        self.host.ask(&read_back(&warrant(run, "release", n), "release"))
    }

    fn latch(&self) -> Option<u64> {
        self.host.status().groups[0].latch.as_ref().map(|mark| mark.token.n)
    }

    fn gate(&self) -> Option<i32> {
        self.host.run(&["gate"]).status.code()
    }

    /// As if nobody had asked for a release.
    fn assert_untouched(&self) {
        assert_eq!((self.primary.postmaster(), self.latch(), self.gate()), (None, Some(5), Some(40)));
        let (reply, code) = self.looked_at("r1", 5);
        assert!(matches!(reply, Reply::NotDone { .. }), "{reply:?}");
        assert_eq!(code, 13);
    }

    /// It serves, with what it had.
    fn assert_serves(&self) {
        assert_eq!((self.latch(), self.gate()), (None, Some(0)));
        assert_eq!(control_state(&self.primary.data), Ok(ControlState::InProduction));
        assert_eq!(self.primary.sql("INSERT INTO kept VALUES (43); SELECT count(*) > 1 FROM kept"), "t");
        assert_eq!(self.primary.sql("SELECT timeline_id FROM pg_control_checkpoint()"), "1");
    }

    /// `pg_control`, which the release reads before anything else of a stopped server, as a pipe: reading it waits for
    /// [`Trip::give`].
    fn trip(&self) -> Trip {
        let at = self.primary.data.join("global/pg_control");
        let bytes = fs::read(&at).unwrap();
        fs::rename(&at, at.with_extension("kept")).unwrap();
        assert!(Command::new("mkfifo").arg(&at).status().unwrap().success());
        Trip { at, bytes }
    }

    /// A guard that reads the control file, and waits.
    fn held_release(&self, trip: &Trip, ms: u64) -> Asked {
        let asked = self.host.begin(&act_within(&warrant("r1", "release", 5), "release", ms));
        trip.until_read();
        asked
    }
}

struct Trip {
    at: PathBuf,
    bytes: Vec<u8>,
}

impl Trip {
    /// Somebody has it open.
    fn until_read(&self) {
        wait_until("the control file to be read", || {
            use std::os::unix::fs::OpenOptionsExt;
            // Without a reader a pipe cannot be opened for writing at once.
            let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
            fs::File::options().write(true).custom_flags(flags).open(&self.at).ok()
        });
    }

    /// The real one is back in its place; whoever waits is given it.
    fn give(&self) {
        let mut pipe = fs::File::options().write(true).open(&self.at).unwrap();
        self.take_away();
        pipe.write_all(&self.bytes).unwrap();
    }

    fn take_away(&self) {
        fs::rename(self.at.with_extension("kept"), &self.at).unwrap();
    }
}

#[test]
fn a_fence_is_taken_back_and_comes_again() {
    let site = Site::fenced();
    site.assert_untouched();
    let shown = site.host.status().postgres.unwrap().wal.unwrap();
    assert_eq!((shown.state, shown.timeline, shown.running), (WalState::ShutDown, 1, None));

    // Only a later token, or the run that fenced.
    let (reply, code) = site.release("r2", 5);
    assert!(matches!(&reply, Reply::Refused { refusal: Refusal::Latched, .. }), "{reply:?}");
    assert_eq!(code, 31);
    assert!(matches!(site.release("r1", 4), (Reply::Refused { refusal: Refusal::LowerToken, .. }, 22)));
    site.assert_untouched();

    let (reply, code) = site.release("r1", 5);
    assert!(matches!(&reply, Reply::Done { acted: true, evidence } if evidence.contains("in production")), "{reply:?}");
    assert_eq!(code, 0);
    site.assert_serves();
    for reply in [site.release("r1", 5), site.looked_at("r1", 5), site.release("r1", 6)] {
        assert!(matches!(reply, (Reply::Done { acted: false, .. }, 0)), "{reply:?}");
    }
    assert_eq!(site.host.events("release"), ["started", "done"]);
    let running = site.host.status().postgres.unwrap().wal.unwrap().running.unwrap();
    assert_eq!((running.timeline, running.replayed_lsn, running.streams), (Some(1), None, false));
    assert!(running.current_lsn.is_some());

    site.fence("r2", 7);
    assert!(matches!(site.release("r1", 6), (Reply::Refused { refusal: Refusal::LowerToken, .. }, 22)));
    assert_eq!((site.primary.postmaster(), site.latch()), (None, Some(7)));
    assert!(matches!(site.release("r3", 8), (Reply::Done { acted: true, .. }, 0)));
    site.assert_serves();
}

/// Stopped at once, it recovers from its own log, and has all that was acknowledged.
#[test]
fn a_primary_that_was_not_stopped_in_an_orderly_way_is_released_too() {
    let site = Site::with("");
    site.primary.sql("CREATE TABLE kept AS SELECT 42 AS x");
    site.primary.kill();
    site.fence("r1", 5);
    assert!(matches!(site.release("r1", 5), (Reply::Done { acted: true, .. }, 0)));
    site.assert_serves();
}

#[test]
fn a_latch_over_a_running_server_is_cleared_and_the_server_goes_on() {
    let site = Site::with("stop_argv = [\"/bin/sleep\", \"60\"]\n");
    site.primary.sql("CREATE TABLE kept AS SELECT 42 AS x");
    let postmaster = site.primary.postmaster();
    let Asked(mut guard) = site.host.begin(&act(&warrant("r1", "fence", 5), "fence"));
    site.host.until_in_flight();
    guard.kill().unwrap();
    guard.wait().unwrap();
    // Its orphan is ended by an abort, as by whoever settles what a run left.
    site.host.ask(&Request::raise(&warrant("r1", "fence", 6), true));
    assert_eq!((site.latch(), site.primary.postmaster()), (Some(5), postmaster));
    assert!(matches!(site.release("r1", 6), (Reply::Done { acted: true, .. }, 0)));
    site.assert_serves();
    assert_eq!(site.primary.postmaster(), postmaster);
}

#[test]
fn what_is_a_standbys_is_never_released() {
    let site = Site::fenced();
    let refused = |what: &str| {
        let (reply, _) = site.release("r1", 5);
        let is_told = matches!(&reply, Reply::Failed { retryable: false, reason } if reason.contains(what));
        assert!(is_told, "{reply:?} does not say {what:?}");
        assert_eq!((site.primary.postmaster(), site.latch()), (None, Some(5)));
    };
    for name in ["standby.signal", "recovery.signal"] {
        fs::write(site.primary.data.join(name), "").unwrap();
        refused(name);
        fs::remove_file(site.primary.data.join(name)).unwrap();
    }
    let control = site.primary.data.join("global/pg_control");
    let kept = fs::read(&control).unwrap();
    for (state, words) in
        [(2_u32, "shut down in recovery"), (5, "in archive recovery"), (0, "starting"), (9, "state 9")]
    {
        let mut bytes = kept.clone();
        bytes[16..20].copy_from_slice(&state.to_ne_bytes());
        // PostgreSQL 15: the checksum follows 288 bytes.
        let sum = crc32c::crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&sum.to_ne_bytes());
        fs::write(&control, bytes).unwrap();
        refused(words);
    }
    fs::write(&control, "damaged").unwrap();
    refused("no valid checksum");
    fs::write(&control, kept).unwrap();
    assert!(matches!(site.release("r1", 5), (Reply::Done { acted: true, .. }, 0)));
    site.assert_serves();
}

#[test]
fn a_running_standby_is_never_released() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let primary = Server::primary(dir.path());
    let standby = Server::standby(dir.path(), &primary);
    let host = Host::new(&standby.guarded(""));
    assert!(matches!(host.ask(&act(&warrant("r1", "fence", 5), "fence")), (Reply::Done { .. }, 0)));
    let (reply, _) = host.ask(&act(&warrant("r1", "release", 6), "release"));
    assert!(matches!(&reply, Reply::Failed { retryable: false, .. }), "{reply:?}");
    let status = host.status();
    assert_eq!(status.postgres.unwrap().role, PostgresRole::InRecovery);
    assert!(status.groups[0].latch.is_some());
}

#[test]
fn a_guard_killed_before_the_latch_is_cleared_leaves_it_standing() {
    let site = Site::fenced();
    let trip = site.trip();
    let Asked(mut guard) = site.held_release(&trip, 60_000);
    guard.kill().unwrap();
    guard.wait().unwrap();
    trip.take_away();
    site.assert_untouched();
    assert_eq!(site.host.events("release"), ["started"]);
    assert!(matches!(site.release("r1", 6), (Reply::Done { acted: true, .. }, 0)));
    site.assert_serves();
}

#[test]
fn a_guard_that_slept_past_its_deadline_or_was_outrun_clears_nothing() {
    let site = Site::fenced();
    let trip = site.trip();
    let asked = site.held_release(&trip, 1000);
    let begun = boottime_ms();
    wait_until("the deadline to pass", || (boottime_ms() > begun + 1000).then_some(()));
    trip.give();
    let (reply, _) = asked.answer();
    assert!(matches!(&reply, Reply::Failed { reason, .. } if reason.contains("time was over")), "{reply:?}");
    site.assert_untouched();

    let trip = site.trip();
    let asked = site.held_release(&trip, 60_000);
    let (reply, _) = site.host.ask(&Request::raise(&warrant("r2", "promote", 6), false));
    assert!(matches!(&reply, Reply::Raised { in_flight: Some(seen), .. } if seen.action == "release"), "{reply:?}");
    trip.give();
    let (reply, _) = asked.answer();
    assert!(matches!(&reply, Reply::Unknown { reason } if reason.contains("token 1.6")), "{reply:?}");
    assert_eq!(site.host.events("release").last().map(String::as_str), Some("preempted"));
    assert_eq!((site.primary.postmaster(), site.latch()), (None, Some(5)));
    // Of the same run, but raised by whoever took it over: this guard's word does not count any more either.
    let trip = site.trip();
    let asked = site.host.begin(&act(&warrant("r2", "release", 6), "release"));
    trip.until_read();
    site.host.ask(&Request::raise(&warrant("r2", "release", 7), false));
    trip.give();
    let (reply, _) = asked.answer();
    assert!(matches!(&reply, Reply::Unknown { reason } if reason.contains("token 1.7")), "{reply:?}");
    assert_eq!((site.primary.postmaster(), site.latch()), (None, Some(5)));
}

/// The unit's way of starting, which waits for the file `go`: what is begun is waited for, whoever asks meanwhile.
const SLOW_START: &str = "start_argv = [\"{dir}/slow-start\"]\n";

fn with_slow_start() -> Site {
    let site = Site::with(SLOW_START);
    let at = site.dir.path().display().to_string();
    let (data, options) = (site.primary.data.display().to_string(), site.primary.options());
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e {at}/go ]; do sleep 0.01; done\n\
         exec setpriv --reuid=postgres --regid=postgres --init-groups /usr/lib/postgresql/15/bin/pg_ctl start -w -D {data} \
         -l {at}/primary/log -o '{options}'\n"
    );
    fs::write(site.dir.path().join("slow-start"), script).unwrap();
    fs::set_permissions(site.dir.path().join("slow-start"), fs::Permissions::from_mode(0o755)).unwrap();
    site.primary.sql("CREATE TABLE kept AS SELECT 42 AS x");
    site.fence("r1", 5);
    site
}

fn until_starting(site: &Site) -> u32 {
    wait_until("the start to be awaited", || {
        let in_flight = site.host.status().groups[0].in_flight.clone()?;
        in_flight.process_group.filter(|_| in_flight.phase.as_deref() == Some("starting"))
    })
}

#[test]
fn a_guard_killed_while_the_server_starts_is_followed_by_one_that_waits_for_it() {
    let site = with_slow_start();
    let Asked(mut guard) = site.host.begin(&act(&warrant("r1", "release", 5), "release"));
    until_starting(&site);
    guard.kill().unwrap();
    guard.wait().unwrap();
    assert_eq!((site.latch(), site.gate()), (None, Some(0)));
    let (reply, _) = site.looked_at("r1", 6);
    assert!(matches!(&reply, Reply::InFlight { in_flight } if in_flight.orphaned), "{reply:?}");
    let again = site.host.begin(&act(&warrant("r1", "release", 6), "release"));
    fs::write(site.dir.path().join("go"), "").unwrap();
    assert!(matches!(again.answer(), (Reply::Done { .. }, 0)));
    site.assert_serves();
}

#[test]
fn a_later_token_does_not_end_the_start_and_fences_after_it() {
    let site = with_slow_start();
    let releasing = site.host.begin(&act(&warrant("r1", "release", 5), "release"));
    let group = until_starting(&site);
    let fencing = site.host.begin(&act(&warrant("r2", "fence", 6), "fence"));
    wait_until("the later token to be raised", || {
        (site.host.status().groups[0].token.is_some_and(|token| token.n == 6)).then_some(())
    });
    // Longer than a command that is told to end is given.
    pause(200);
    assert!(watchdog::guard::exec::group_alive(group));
    fs::write(site.dir.path().join("go"), "").unwrap();
    assert!(matches!(releasing.answer(), (Reply::Done { acted: true, .. }, 0)));
    assert!(matches!(fencing.answer(), (Reply::Done { acted: true, .. }, 0)));
    assert_eq!((site.primary.postmaster(), site.latch()), (None, Some(6)));
}

#[test]
fn a_guard_killed_anywhere_leaves_the_latch_or_a_server_that_may_serve() {
    let site = Site::fenced();
    let mut token = 5;
    let mut ends = std::collections::BTreeSet::new();
    for after_ms in (0..400).step_by(25) {
        let Asked(mut guard) = site.host.begin(&act(&warrant("r1", "release", token), "release"));
        pause(after_ms);
        guard.kill().unwrap();
        guard.wait().unwrap();
        ends.insert((site.latch().is_some(), site.primary.postmaster().is_some()));
        // A server that runs under its latch would be one that nobody released.
        assert!(!ends.contains(&(true, true)), "killed after {after_ms} ms");
        token += 1;
        let (reply, _) = site.release("r1", token);
        assert!(matches!(reply, Reply::Done { .. }), "killed after {after_ms} ms: {reply:?}");
        site.assert_serves();
        token += 1;
        site.fence("r1", token);
    }
    println!("left behind (latched, running): {ends:?}");
    assert!(ends.contains(&(true, false)), "no guard was killed early: {ends:?}");
}

#[test]
fn a_frozen_servers_status_is_told_all_the_same() {
    let site = Site::with("");
    site.primary.signal_all(Signal::STOP);
    let wal = site.host.status().postgres.unwrap().wal.unwrap();
    assert_eq!((wal.state, wal.running), (WalState::InProduction, None));
    assert!(wal.unread.is_some_and(|why| why.contains("no answer")), "says why");
    let words = text(&site.host.run(&["status"]).stdout);
    site.primary.signal_all(Signal::CONT);
    assert!(words.contains("no answer"), "{words}");
}
