//! The resident guard's own process (`watchdog-guard serve`), a real database in a cgroup of its own, this kernel's gate; a
//! stand-in says what the nodes would say.

use std::process::Child;
use std::sync::Arc;

use rustix::process::Signal;
use watchdog::guard::egress::Kind;
use watchdog::guard::host::{boottime_ns, pause};
use watchdog::proto::{GateState, LeaseWord, RenewRequest};

use crate::host::{Host, signal_to, wait_until};
use crate::nodes::{StandInNode, TTL_MS, free_address, leased};
use crate::rig::{MS, Rig, alone, until};
use crate::writer::{Writer, gets_in};

const HERE: &str = "127.0.0.1";
/// A client may be told late what the kernel passed in time: the machine is shared. Milliseconds.
const CLIENT_LAG_MS: u64 = 150;

/// Fields are dropped in this order.
struct Resident {
    guard: Child,
    node: Arc<StandInNode>,
    host: Host,
    rig: Rig,
    _runtime: tokio::runtime::Runtime,
}

impl Resident {
    /// Up and asking, the gate installed and shut: nobody grants anything yet.
    fn new() -> Self {
        let rig = Rig::new(Kind::Bpf);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (at_node, node) = (free_address(), Arc::new(StandInNode::default()));
        node.serve(&runtime, &at_node);
        let gate = format!("gate = \"bpf\"\ncgroup = \"{}\"\n", rig.cgroup.path.display());
        let host = Host::new(&(rig.server.guarded("") + &leased("db-hcmc", &free_address(), &at_node, &gate)));
        let guard = host.command(&["serve"]).spawn().unwrap();
        let resident = Self { guard, node, host, rig, _runtime: runtime };
        resident.until_attested("the server listens on port");
        resident
    }

    fn last(&self) -> Option<RenewRequest> {
        self.node.last.lock().unwrap().clone()
    }

    /// Waits until the nodes are told of a bounded gate, with these words as evidence.
    fn until_attested(&self, words: &str) {
        wait_until(&format!("a bounded gate, attested by {words:?}"), || {
            self.last().filter(|last| last.gate() == GateState::Bounded && last.gate_detail.contains(words))
        });
    }

    /// The kernel's own word, whoever wrote it. Taking the gate over changes nothing.
    fn deadline_ns(&self) -> u64 {
        let gate = self.rig.install();
        let seen = match self.rig.server.postmaster() {
            Some(postmaster) => gate.attest(postmaster),
            None => gate.attest_without_server(),
        };
        seen.unwrap().deadline_ns
    }

    fn gets_in(&self) -> bool {
        gets_in(HERE, HERE, self.rig.server.port)
    }

    fn until_open(&self) {
        wait_until("the gate to let somebody in", || self.gets_in().then_some(()));
    }

    /// A writer at work while the lease is renewed; then `ends` happens to who renews it. Not a row is acknowledged, and nobody is let
    /// in, from the deadline on that the kernel has then.
    fn falls_silent(&mut self, how: &str, ends: impl FnOnce(&mut Self)) {
        self.until_open();
        let writer = Writer::begin(HERE, HERE, self.rig.server.port);
        writer.goes_on();
        ends(self);
        // What was granted just before may still be written.
        let deadline_ns = wait_until("the last deadline", || {
            let deadline_ns = self.deadline_ns();
            assert!(deadline_ns <= boottime_ns() + TTL_MS * MS, "further ahead than one TTL");
            until(deadline_ns + CLIENT_LAG_MS * MS);
            (self.deadline_ns() == deadline_ns).then_some(deadline_ns)
        });
        let acknowledged = writer.acknowledged();
        assert!(!self.gets_in(), "{how}: a new connection got in");
        pause(TTL_MS / 2);
        assert_eq!(writer.acknowledged(), acknowledged, "{how}: acknowledged past the deadline");
        assert_eq!(self.deadline_ns(), deadline_ns, "{how}: moved again");
        let lag = (i128::from(writer.last_ns()) - i128::from(deadline_ns)) / 1000;
        println!("{how}: {acknowledged} rows acknowledged, the last {lag} µs after the deadline as its client saw it");
    }

    fn signal(&self, signal: Signal) {
        signal_to(self.guard.id(), signal);
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let _gone = self.guard.kill().and_then(|()| self.guard.wait());
    }
}

#[test]
fn a_resident_guard_keeps_the_kernels_gate() {
    alone("resident::a_resident_guard_keeps_the_kernels_gate", Kind::Bpf, || {
        let kept = Resident::new();
        assert!(!kept.gets_in(), "nobody has granted anything");
        kept.node.say(Some(LeaseWord::Granted));
        kept.until_open();

        // Renewed: one connection goes on for longer than any one grant lasts.
        let writer = Writer::begin(HERE, HERE, kept.rig.server.port);
        until(boottime_ns() + TTL_MS * MS * 3 / 2);
        writer.goes_on();
        let deadline_ns = kept.deadline_ns();
        assert!((1..=boottime_ns() + TTL_MS * MS).contains(&deadline_ns), "{deadline_ns} is not within one TTL");
        drop(writer);

        // Without a server it is renewed and attested as before, and gates the next one from its first packet.
        kept.rig.server.stop_fast();
        kept.until_attested("no server runs");
        let (stopped_ns, loose) = (boottime_ns(), kept.node.loose());
        until(stopped_ns + TTL_MS * MS * 3 / 2);
        assert!(kept.deadline_ns() > boottime_ns(), "it ran out while the server was stopped");
        assert_eq!(kept.node.loose(), loose, "not attested as bounded all the while");
        assert!(kept.node.holders().is_some(), "the lease was unbound");
        kept.rig.cgroup.inside(|| kept.rig.server.start());
        println!("attested as not bounded {} times while the server started", kept.node.loose() - loose);
        kept.until_attested("the server listens on port");
        kept.until_open();

        // Taken away while nobody grants anything: it is put back, shut, and opens with the next grant only.
        kept.node.say(None);
        let loose = kept.node.loose();
        kept.rig.install().remove().unwrap();
        wait_until("the nodes to be told that it is gone", || (kept.node.loose() > loose).then_some(()));
        kept.until_attested("the server listens on port");
        assert!(!kept.gets_in(), "it is not back, or open");
        kept.node.say(Some(LeaseWord::Granted));
        kept.until_open();
    });
}

#[test]
fn nothing_passes_after_the_last_renewal_of_a_resident_guard() {
    alone("resident::nothing_passes_after_the_last_renewal_of_a_resident_guard", Kind::Bpf, || {
        let mut kept = Resident::new();
        kept.node.say(Some(LeaseWord::Granted));
        kept.falls_silent("nobody grants it any more", |kept| kept.node.say(None));
        kept.node.say(Some(LeaseWord::Granted));
        kept.falls_silent("the guard is frozen", |kept| kept.signal(Signal::STOP));
        kept.signal(Signal::CONT);
        kept.falls_silent("the guard is killed", |kept| {
            kept.guard.kill().unwrap();
            kept.guard.wait().unwrap();
        });
        // The next process takes over what it finds, shut, and goes on.
        kept.guard = kept.host.command(&["serve"]).spawn().unwrap();
        kept.until_open();
    });
}
