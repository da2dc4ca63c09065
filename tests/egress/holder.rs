//! A guard's process that opens the gate for a while and is then killed or frozen: this very test, run as another process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use watchdog::guard::egress::{Egress, Kind, Scope};

use crate::rig::{MS, in_ms};

const ROLE: &str = "WATCHDOG_EGRESS_HOLDER";

/// What the other process does; nothing in an ordinary run.
#[test]
fn hold() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let [kind, port, cgroup, ttl_ms] = role.split('|').collect::<Vec<_>>()[..] else { panic!("{role}") };
    let kind = if kind == "bpf" { Kind::Bpf } else { Kind::Nftables };
    let (port, cgroup) = (port.parse().unwrap(), Some(cgroup.into()));
    let gate =
        Egress::install(Scope { group: "aicamera".into(), port, exempt: Vec::new(), cgroup }, Some(kind)).unwrap();
    let deadline = gate.extend(in_ms(ttl_ms.parse().unwrap())).unwrap();
    println!("\nDEADLINE {deadline}");
    watchdog::guard::host::pause(600_000);
}

/// The other process, ended when dropped.
pub struct Holder {
    child: Child,
    pub deadline_ns: u64,
}

impl Holder {
    pub fn begin(scope: &Scope, kind: Kind, ttl_ms: u64) -> Self {
        let cgroup = scope.cgroup.as_ref().unwrap().display();
        let role = format!("{}|{}|{cgroup}|{ttl_ms}", kind.word(), scope.port);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["holder::hold", "--exact", "--nocapture"]).env(ROLE, role).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let deadline = lines.map(|line| line.strip_prefix("DEADLINE ").map(str::to_owned)).find_map(|found| found);
        let deadline_ns: u64 = deadline.expect("the holder says its deadline").parse().unwrap();
        assert!(deadline_ns > 100 * MS);
        Self { child, deadline_ns }
    }

    pub fn signal(&self, signal: Signal) {
        crate::host::signal_to(self.child.id(), signal);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _gone = self.child.kill().and_then(|()| self.child.wait());
    }
}
