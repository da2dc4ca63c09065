//! The gate as the resident guard keeps it: attested by this kernel, put back where it was taken away.

use std::fs;
use std::sync::Arc;

use watchdog::domain::lease::GateSeen;
use watchdog::guard::config::Config;
use watchdog::guard::egress::{Egress, Kind};
use watchdog::guard::host::{boottime_ms, boottime_ns};
use watchdog::guard::lease::gate::{self, Gate};

use crate::host::wait_until;
use crate::rig::{Cgroup, MS, Rig, alone};
use crate::writer::{Writer, gets_in};

const HERE: &str = "127.0.0.1";
const TTL_MS: u64 = 5000;

fn config(rig: &Rig, more: &str) -> Config {
    let lease = format!(
        "[lease]\nhost = \"db-hcmc\"\nregion = \"hcmc\"\nttl_ms = {TTL_MS}\nlisten = \"127.0.0.1:9\"\nnodes = [\"127.0.0.1:9\"]\n\
         clock_trusted_by = \"nobody pauses a test\"\n\
         gate = \"{}\"\n{more}",
        rig.kind.word()
    );
    let path = rig.dir.path().join("guard.toml");
    let head = format!("cluster = \"demo\"\nstate_dir = \"{}\"\ngroups = [\"aicamera\"]\n", rig.dir.path().display());
    fs::write(&path, head + &rig.server.guarded("") + &lease).unwrap();
    Config::load(&path).unwrap()
}

fn kept(rig: &Rig, more: &str) -> Arc<dyn Gate> {
    gate::of(&config(rig, more)).unwrap()
}

fn named(rig: &Rig) -> String {
    format!("cgroup = \"{}\"\n", rig.cgroup.path.display())
}

fn assert_bounded(gate: &dyn Gate, wanted: &str) {
    match gate.seen() {
        GateSeen::Bounded { evidence } if evidence.contains(wanted) => println!("{evidence}"),
        seen => panic!("{seen:?}, not bounded by {wanted:?}"),
    }
}

fn assert_absent(gate: &dyn Gate, wanted: &str) {
    match gate.seen() {
        GateSeen::Absent { why } if why.contains(wanted) => println!("{why}"),
        seen => panic!("{seen:?}, not absent for {wanted:?}"),
    }
}

/// A server that stops and starts, and a gate that somebody takes away.
fn is_kept(kind: Kind) {
    let rig = Rig::new(kind);
    let gate = kept(&rig, &named(&rig));
    assert_absent(&*gate, "not installed yet");
    gate.install().unwrap();
    gate.extend_until(boottime_ms() + TTL_MS).unwrap();
    assert_bounded(&*gate, "the server listens on port");
    rig.server.stop_fast();
    assert_bounded(&*gate, "no server runs");
    rig.cgroup.inside(|| rig.server.start());
    assert_bounded(&*gate, "the server listens on port");

    rig.install().remove().unwrap();
    assert!(matches!(gate.seen(), GateSeen::Absent { .. }));
    gate.install().unwrap();
    assert_bounded(&*gate, "the server listens on port");
    let postmaster = rig.server.postmaster().unwrap();
    assert_eq!(rig.install().attest(postmaster).unwrap().deadline_ns, 0, "one that is put back is shut");
    gate.extend_until(boottime_ms() + TTL_MS).unwrap();
    assert!(rig.install().attest(postmaster).unwrap().deadline_ns > 0, "and is the one that is moved");
}

#[test]
fn it_is_kept_bpf() {
    alone("kept::it_is_kept_bpf", Kind::Bpf, || is_kept(Kind::Bpf));
}

#[test]
fn it_is_kept_nftables() {
    alone("kept::it_is_kept_nftables", Kind::Nftables, || is_kept(Kind::Nftables));
}

/// A new primary's gate: at no moment there and shut, so that who is connected stays so and who connects gets in.
fn begins_open(kind: Kind) {
    let rig = Rig::new(kind);
    let gate = kept(&rig, &named(&rig));
    let writer = Writer::begin(HERE, HERE, rig.server.port);
    writer.goes_on();
    gate.begin(boottime_ms() + TTL_MS).unwrap();
    assert_bounded(&*gate, "the server listens on port");
    writer.goes_on();
    assert!(gets_in(HERE, HERE, rig.server.port));
    let deadline_ns = || rig.install().attest(rig.server.postmaster().unwrap()).unwrap().deadline_ns;
    let first_ns = deadline_ns();
    assert!(first_ns > boottime_ns() && first_ns <= boottime_ns() + TTL_MS * MS, "{first_ns}");
    // One that is there, and shut: who was connected hears of the end, as after every lapse.
    gate.bound_at(0).unwrap();
    gate.begin(boottime_ms() + TTL_MS).unwrap();
    assert!(deadline_ns() > boottime_ns());
    wait_until("the old connection to end", || writer.broken().then_some(()));
    assert!(gets_in(HERE, HERE, rig.server.port));

    // Slept through its first deadline before it could put the gate in place: shut.
    rig.install().remove().unwrap();
    gate.begin(boottime_ms() - 1).unwrap();
    assert!(deadline_ns() <= boottime_ns() && !gets_in(HERE, HERE, rig.server.port));
}

#[test]
fn a_new_primarys_gate_begins_open_bpf() {
    alone("kept::a_new_primarys_gate_begins_open_bpf", Kind::Bpf, || begins_open(Kind::Bpf));
}

#[test]
fn a_new_primarys_gate_begins_open_nftables() {
    alone("kept::a_new_primarys_gate_begins_open_nftables", Kind::Nftables, || begins_open(Kind::Nftables));
}

#[test]
fn it_follows_the_servers_own_cgroup() {
    alone("kept::it_follows_the_servers_own_cgroup", Kind::Bpf, || {
        let rig = Rig::new(Kind::Bpf);
        let gate = kept(&rig, "");
        gate.install().unwrap();
        assert_bounded(&*gate, &rig.cgroup.path.display().to_string());
        rig.server.stop_fast();
        assert_absent(&*gate, "name one that stays in lease.cgroup");
        gate.install().unwrap();
        let other = Cgroup::new("other");
        other.inside(|| rig.server.start());
        assert_absent(&*gate, "restart it there");
        gate.install().unwrap();
        assert_bounded(&*gate, &other.path.display().to_string());
        let postmaster = rig.server.postmaster().unwrap();
        let there = Egress::install(
            watchdog::guard::egress::Scope { cgroup: Some(other.path.clone()), ..rig.scope() },
            Some(Kind::Bpf),
        );
        assert_eq!(there.unwrap().attest(postmaster).unwrap().deadline_ns, 0, "a fresh one is shut");
        rig.server.kill();
    });
}
