//! The gate as the resident guard keeps it: attested by this kernel, put back where it was taken away.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use watchdog::domain::lease::GateSeen;
use watchdog::guard::config::Config;
use watchdog::guard::egress::{Egress, Kind};
use watchdog::guard::host::{boot_nonce, boottime_ms, boottime_ns};
use watchdog::guard::lease::gate::{self, Gate};
use watchdog::guard::protocol::{Reply, Request};

use crate::host::{Host, act, wait_until, warrant};
use crate::rig::{Cgroup, MS, Rig, alone};
use crate::server::Server;
use crate::writer::{Writer, gets_in, waits};

const HERE: &str = "127.0.0.1";
const TTL_MS: u64 = 5000;

fn leased(rig: &Rig, more: &str) -> String {
    format!(
        "[lease]\nhost = \"db-hcmc\"\nregion = \"hcmc\"\nttl_ms = {TTL_MS}\ntls = {{ plaintext = \"loopback\" }}\nlisten = \"127.0.0.1:9\"\nnodes = [\"127.0.0.1:9\"]\n\
         clock_trusted_by = \"nobody pauses a test\"\n\
         gate = \"{}\"\n{more}",
        rig.kind.word()
    )
}

fn config(rig: &Rig, more: &str) -> Config {
    let lease = leased(rig, more);
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

/// Of a fenced primary that has become a standby. While its server runs the gate stays.
fn goes(kind: Kind) {
    let rig = Rig::new(kind);
    let config = config(&rig, &named(&rig));
    let gate = gate::of(&config).unwrap();
    gate.install().unwrap();
    gate.extend_until(boottime_ms() + 60_000).unwrap();
    let waiting = waits(HERE, HERE, rig.server.port);
    gate.bound_at(0).unwrap();
    gate::leave(&config).unwrap_err();
    assert!(!gets_in(HERE, HERE, rig.server.port), "its server runs");
    rig.server.kill();
    gate::leave(&config).unwrap();
    // Behind nftables the dying server's own last packet was answered by a reset, to the server: nobody is left to tell the client.
    if kind == Kind::Bpf {
        wait_until("what waited there to hear of the end", || waiting.load(Ordering::SeqCst).then_some(()));
    }
    assert!(matches!(gate.seen(), GateSeen::Absent { .. }), "{:?}", gate.seen());
    rig.cgroup.inside(|| rig.server.start());
    assert!(gets_in(HERE, HERE, rig.server.port));
    rig.server.kill();
    gate::leave(&config).unwrap();
}

#[test]
fn it_goes_with_a_primary_that_became_a_standby_bpf() {
    alone("kept::it_goes_with_a_primary_that_became_a_standby_bpf", Kind::Bpf, || goes(Kind::Bpf));
}

#[test]
fn it_goes_with_a_primary_that_became_a_standby_nftables() {
    alone("kept::it_goes_with_a_primary_that_became_a_standby_nftables", Kind::Nftables, || goes(Kind::Nftables));
}

/// `rejoin` takes it away before the latch is cleared: who reads from the standby is answered.
fn rejoined(kind: Kind) {
    let rig = Rig::new(kind);
    let other = Server::standby(rig.dir.path(), &rig.server);
    let upstream = format!("[postgres.upstream.other]\nconninfo = \"{}\"\n", other.conninfo());
    let host = Host::new(&rig.server.guarded(&(upstream + &leased(&rig, &named(&rig)))));
    let gate = rig.install();
    let done = |(reply, _): (Reply, i32)| assert!(matches!(reply, Reply::Done { acted: true, .. }), "{reply:?}");
    done(host.ask(&act(&warrant("r1", "fence", 5), "fence")));
    done(Host::new(&other.guarded("")).ask(&act(&warrant("r1", "promote", 5), "promote")));
    assert!(gate.is_in_place(), "a fence leaves it");
    let params = BTreeMap::from([("upstream".to_owned(), "other".to_owned())]);
    let rejoin = warrant("r2", "rejoin", 6);
    let rejoin = Request::act(&rejoin, "rejoin", params, &boot_nonce(), boottime_ms() + 120_000);
    rig.cgroup.inside(|| done(host.ask(&rejoin)));
    assert_eq!(rig.server.sql("SELECT pg_is_in_recovery()"), "t");
    assert!(!gate.is_in_place() && gets_in(HERE, HERE, rig.server.port));
    // A resident guard that looked before all this, and acts upon it now.
    let late = gate::of(&config(&rig, &named(&rig))).unwrap();
    late.install().unwrap();
    late.begin(boottime_ms() + TTL_MS).unwrap();
    assert!(!gate.is_in_place() && gets_in(HERE, HERE, rig.server.port), "a standby's readers are shut out");
    rig.server.kill();
}

#[test]
fn a_rejoined_primary_can_be_read_from_bpf() {
    alone("kept::a_rejoined_primary_can_be_read_from_bpf", Kind::Bpf, || rejoined(Kind::Bpf));
}

#[test]
fn a_rejoined_primary_can_be_read_from_nftables() {
    alone("kept::a_rejoined_primary_can_be_read_from_nftables", Kind::Nftables, || rejoined(Kind::Nftables));
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
