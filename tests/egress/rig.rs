//! A namespace, a cgroup and a server for one test, cleaned up whatever happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use watchdog::guard::egress::{Egress, Kind, Scope, cgroup, probe};
use watchdog::guard::host::boottime_ns;

use crate::host::wait_until;
use crate::server::Server;

/// Set inside the namespace.
const INSIDE: &str = "WATCHDOG_EGRESS_INSIDE";
pub const MS: u64 = 1_000_000;

/// Runs this test again in a network namespace of its own, and there the body. `name` is the test's own, `MODULE::NAME`.
pub fn alone(name: &str, kind: Kind, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let can = probe::probe();
    if !can.can(kind) {
        println!("NOT TRIED, this host cannot: {}", can.in_words());
        return;
    }
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["-n", "--", "/bin/sh", "-c", script]).arg(exe);
    let out = command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{said}");
    assert!(out.status.success() && said.contains("1 passed"), "{name} failed inside its namespace:\n{said}");
}

/// A cgroup of this test's own.
pub struct Cgroup {
    pub path: PathBuf,
}

impl Cgroup {
    pub fn new(what: &str) -> Self {
        let mount = cgroup::mount().expect("cgroup v2");
        sweep(&mount);
        let path = mount.join(format!("wdtest-{}-{what}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    /// Runs something so that what it starts, and the sockets that opens, belong to the cgroup.
    pub fn inside<T>(&self, body: impl FnOnce() -> T) -> T {
        let me = std::process::id();
        let home = cgroup::of_process(me).unwrap();
        self.take(me);
        let done = body();
        fs::write(home.join("cgroup.procs"), me.to_string()).unwrap();
        done
    }

    pub fn take(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A failed test may have left itself inside.
        let home = cgroup::mount().unwrap_or_default().join("cgroup.procs");
        let _stays = fs::write(home, std::process::id().to_string());
        clear(&self.path);
    }
}

/// What tests left that were killed.
fn sweep(mount: &Path) {
    for entry in fs::read_dir(mount).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("wdtest-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !crate::host::runs(pid)) {
            clear(&entry.path());
        }
    }
}

fn clear(path: &Path) {
    for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
    for _ in 0..400 {
        if fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        watchdog::guard::host::pause(5);
    }
}

/// A server in a gated cgroup. Fields are dropped in this order.
pub struct Rig {
    pub server: Server,
    pub cgroup: Cgroup,
    pub kind: Kind,
    pub dir: tempfile::TempDir,
}

impl Rig {
    pub fn new(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let cgroup = Cgroup::new("db");
        let server = cgroup.inside(|| {
            let server = Server::primary(dir.path());
            // All of loopback, both families, anybody: the namespace is the test's own.
            server.sql("ALTER SYSTEM SET listen_addresses = '*'");
            let hba = server.data.join("pg_hba.conf");
            let open = "host all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n";
            fs::write(&hba, fs::read_to_string(&hba).unwrap() + open).unwrap();
            server.kill();
            server.start();
            server
        });
        server.sql("CREATE TABLE written (n bigint, at timestamptz DEFAULT clock_timestamp())");
        Self { server, cgroup, kind, dir }
    }

    pub fn scope(&self) -> Scope {
        Scope {
            group: "aicamera".into(),
            port: self.server.port,
            exempt: Vec::new(),
            cgroup: Some(self.cgroup.path.clone()),
        }
    }

    pub fn install(&self) -> Egress {
        Egress::install(self.scope(), Some(self.kind)).unwrap()
    }

    /// A lease's length for these tests, milliseconds: nftables loses up to a second of it.
    pub fn ttl_ms(&self) -> u64 {
        match self.kind {
            Kind::Bpf => 300,
            Kind::Nftables => 1500,
        }
    }

    pub fn rows(&self) -> u64 {
        self.server.sql("SELECT count(*) FROM written").parse().unwrap()
    }
}

pub fn in_ms(ms: u64) -> u64 {
    boottime_ns() + ms * MS
}

/// Waits for a moment of boot time.
pub fn until(ns: u64) {
    wait_until("a moment", || (boottime_ns() >= ns).then_some(()));
}
