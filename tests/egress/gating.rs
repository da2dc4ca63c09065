//! What passes and what does not.

use std::sync::atomic::Ordering;

use rustix::process::Signal;
use watchdog::guard::egress::{Egress, EgressError, Kind, OPEN_ENDED, SHUT};
use watchdog::guard::host::{boottime_ns, pause};

use crate::holder::Holder;
use crate::host::wait_until;
use crate::rig::{MS, Rig, alone, in_ms, until};
use crate::server::Server;
use crate::writer::{Writer, gets_in, waits};

const ROUNDS: u32 = 20;
/// A client may be told late what the kernel passed in time: the machine is shared. Milliseconds.
const CLIENT_LAG_MS: u64 = 150;
const HERE: &str = "127.0.0.1";

#[test]
fn nothing_is_acknowledged_past_the_deadline_bpf() {
    alone("gating::nothing_is_acknowledged_past_the_deadline_bpf", Kind::Bpf, || rounds(Kind::Bpf));
}

#[test]
fn nothing_is_acknowledged_past_the_deadline_nftables() {
    alone("gating::nothing_is_acknowledged_past_the_deadline_nftables", Kind::Nftables, || rounds(Kind::Nftables));
}

/// The process that opened the gate is killed in one round and frozen in the next.
fn rounds(kind: Kind) {
    let rig = Rig::new(kind);
    let port = rig.server.port;
    let gate = rig.install();
    assert!(!gets_in(HERE, HERE, port), "a fresh gate is shut");
    let (mut total, mut lags) = (0, Vec::new());
    for round in 0..ROUNDS {
        let holder = Holder::begin(&rig.scope(), kind, rig.ttl_ms() + 300);
        holder.signal(if round % 2 == 0 { Signal::KILL } else { Signal::STOP });
        let writer = Writer::begin(HERE, HERE, port);
        until(holder.deadline_ns + CLIENT_LAG_MS * MS);
        let (acknowledged, last) = (writer.acknowledged(), writer.last_ns());
        assert!(acknowledged > 0, "round {round}: nothing was written while the lease lasted");
        assert!(!gets_in(HERE, HERE, port), "round {round}: a new connection got in");
        pause(150);
        assert_eq!(writer.acknowledged(), acknowledged, "round {round}: acknowledged past the deadline");
        let attested = gate.attest(rig.server.postmaster().unwrap()).unwrap();
        assert!(attested.deadline_ns <= holder.deadline_ns, "{attested:?}");
        total += acknowledged;
        lags.push((i128::from(last) - i128::from(holder.deadline_ns)) / 1000);
        gate.kill_stale_connections().unwrap();
    }
    lags.sort_unstable();
    println!(
        "{}: {ROUNDS} rounds, {total} acknowledged, {} rows, 0 past the deadline; last acknowledgement seen by the client \
         relative to the deadline, µs: {lags:?}",
        kind.word(),
        rig.rows()
    );
    gate.remove().unwrap();
    assert!(gets_in(HERE, HERE, port), "without the gate all passes");
}

#[test]
fn a_blip_leaves_a_connection_alone_bpf() {
    alone("gating::a_blip_leaves_a_connection_alone_bpf", Kind::Bpf, || {
        let rig = Rig::new(Kind::Bpf);
        let gate = rig.install();
        let deadline = gate.extend(in_ms(400)).unwrap();
        let writer = Writer::begin(HERE, HERE, rig.server.port);
        until(deadline + CLIENT_LAG_MS * MS);
        let then = writer.acknowledged();
        pause(200);
        assert_eq!(writer.acknowledged(), then);
        gate.open_ended().unwrap();
        let reopened = boottime_ns();
        writer.goes_on();
        println!("bpf: the same connection goes on {} ms after reopening", (writer.last_ns() - reopened) / MS);
        // Killed by us, it ends.
        gate.shut().unwrap();
        assert!(gate.kill_stale_connections().unwrap() >= 1);
        gate.open_ended().unwrap();
        wait_until("the old connection to end", || writer.broken().then_some(()));
    });
}

#[test]
fn a_blip_resets_a_connection_nftables() {
    alone("gating::a_blip_resets_a_connection_nftables", Kind::Nftables, || {
        let rig = Rig::new(Kind::Nftables);
        let gate = rig.install();
        let deadline = gate.extend(in_ms(rig.ttl_ms())).unwrap();
        let writer = Writer::begin(HERE, HERE, rig.server.port);
        until(deadline + CLIENT_LAG_MS * MS);
        gate.open_ended().unwrap();
        wait_until("the old connection to be reset", || writer.broken().then_some(()));
        assert!(gets_in(HERE, HERE, rig.server.port));
    });
}

#[test]
fn who_only_waits_hears_of_the_end_bpf() {
    alone("gating::who_only_waits_hears_of_the_end_bpf", Kind::Bpf, || hears(Kind::Bpf));
}

#[test]
fn who_only_waits_hears_of_the_end_nftables() {
    alone("gating::who_only_waits_hears_of_the_end_nftables", Kind::Nftables, || hears(Kind::Nftables));
}

/// Old connections are ended while the gate is shut, so that none says anything more. Those who wait there must learn of it
/// nevertheless, by IPv4 and IPv6.
fn hears(kind: Kind) {
    let rig = Rig::new(kind);
    let gate = rig.install();
    gate.open_ended().unwrap();
    let waiting = [waits(HERE, HERE, rig.server.port), waits("::1", "::1", rig.server.port)];
    gate.shut().unwrap();
    pause(CLIENT_LAG_MS);
    assert!(waiting.iter().all(|ended| !ended.load(Ordering::SeqCst)), "a shut gate alone ends nothing");
    assert!(gate.kill_stale_connections().unwrap() >= 2);
    wait_until("both to hear of it", || waiting.iter().all(|ended| ended.load(Ordering::SeqCst)).then_some(()));
    assert!(!gets_in(HERE, HERE, rig.server.port) && !gets_in("::1", "::1", rig.server.port), "it is still shut");
}

#[test]
fn renewing_in_time_disturbs_nobody_bpf() {
    alone("gating::renewing_in_time_disturbs_nobody_bpf", Kind::Bpf, || renewing(Kind::Bpf));
}

#[test]
fn renewing_in_time_disturbs_nobody_nftables() {
    alone("gating::renewing_in_time_disturbs_nobody_nftables", Kind::Nftables, || renewing(Kind::Nftables));
}

fn renewing(kind: Kind) {
    let rig = Rig::new(kind);
    let gate = rig.install();
    gate.extend(in_ms(4000)).unwrap();
    let writers: Vec<Writer> = (0..3).map(|_| Writer::begin(HERE, HERE, rig.server.port)).collect();
    writers.iter().for_each(Writer::goes_on);
    let begun = boottime_ns();
    for _ in 0..100 {
        gate.extend(in_ms(4000)).unwrap();
    }
    let each = (boottime_ns() - begun) / 100 / 1000;
    writers.iter().for_each(Writer::goes_on);
    println!("{}: 100 renewals under 3 writers, {each} µs each, no connection lost", kind.word());
}

#[test]
fn a_later_deadline_stays_bpf() {
    alone("gating::a_later_deadline_stays_bpf", Kind::Bpf, || deadlines(Kind::Bpf));
}

#[test]
fn a_later_deadline_stays_nftables() {
    alone("gating::a_later_deadline_stays_nftables", Kind::Nftables, || deadlines(Kind::Nftables));
}

fn deadlines(kind: Kind) {
    let rig = Rig::new(kind);
    let gate = rig.install();
    let postmaster = rig.server.postmaster().unwrap();
    let in_force = |gate: &Egress| gate.attest(postmaster).unwrap().deadline_ns;
    assert_eq!((gate.kind(), in_force(&gate)), (kind, SHUT));
    assert!(matches!(gate.extend(boottime_ns()), Err(EgressError::Past { .. })));
    let far = gate.extend(in_ms(60_000)).unwrap();
    assert_eq!(in_force(&gate), far);
    assert_eq!(gate.extend(in_ms(20_000)).unwrap(), far);
    // A guard that starts again takes over what is there, and so does one that is asked for no kind.
    let again = rig.install();
    assert_eq!((in_force(&again), in_force(&gate)), (far, far));
    let nearer = again.shorten(in_ms(20_000)).unwrap();
    assert!(nearer < far && in_force(&gate) == nearer);
    assert_eq!(gate.shorten(in_ms(60_000)).unwrap(), nearer, "shortening opens nothing");
    gate.open_ended().unwrap();
    assert_eq!((in_force(&gate), gate.extend(in_ms(9000)).unwrap()), (OPEN_ENDED, OPEN_ENDED));
    gate.shorten(in_ms(20_000)).unwrap();
    assert!(gets_in(HERE, HERE, rig.server.port));
    gate.shut().unwrap();
    assert_eq!(in_force(&gate), SHUT);
    assert!(gate.shorten(in_ms(20_000)).unwrap() == SHUT && !gets_in(HERE, HERE, rig.server.port));
    if kind == Kind::Nftables {
        assert_eq!(Egress::install(rig.scope(), None).unwrap().kind(), kind, "what is in force is not left");
    }
}

#[test]
fn taking_over_leaves_no_gap_bpf() {
    alone("gating::taking_over_leaves_no_gap_bpf", Kind::Bpf, || taking_over(Kind::Bpf));
}

#[test]
fn taking_over_leaves_no_gap_nftables() {
    alone("gating::taking_over_leaves_no_gap_nftables", Kind::Nftables, || taking_over(Kind::Nftables));
}

fn taking_over(kind: Kind) {
    let rig = Rig::new(kind);
    let port = rig.server.port;
    let gate = rig.install();
    gate.open_ended().unwrap();
    let writer = Writer::begin(HERE, HERE, port);
    for _ in 0..20 {
        drop(rig.install());
    }
    writer.goes_on();
    drop(writer);
    gate.shut().unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let tries = scope.spawn(|| {
            let mut tried = 0;
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                assert!(!gets_in(HERE, HERE, port), "a new connection got in while the gate was taken over");
                tried += 1;
            }
            tried
        });
        let until = in_ms(1500);
        let mut taken = 0;
        while boottime_ns() < until {
            drop(rig.install());
            taken += 1;
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        println!("{}: taken over {taken} times while shut, {} tries", kind.word(), tries.join().unwrap());
    });
}

#[test]
fn the_rest_is_left_alone_bpf() {
    alone("gating::the_rest_is_left_alone_bpf", Kind::Bpf, || the_rest(Kind::Bpf));
}

#[test]
fn the_rest_is_left_alone_nftables() {
    alone("gating::the_rest_is_left_alone_nftables", Kind::Nftables, || the_rest(Kind::Nftables));
}

/// Replication from an exempt address, both families, another port.
fn the_rest(kind: Kind) {
    let rig = Rig::new(kind);
    let port = rig.server.port;
    let mut scope = rig.scope();
    scope.exempt = vec![HERE.parse().unwrap()];
    let gate = Egress::install(scope.clone(), Some(kind)).unwrap();
    // The standby comes from the exempt address, outside the gated cgroup; clients from another and by IPv6.
    let standby = Server::standby(rig.dir.path(), &rig.server);
    assert!(!gets_in("127.0.0.9", HERE, port) && !gets_in("::1", "::1", port));
    for n in 0..5 {
        rig.server.sql(&format!("INSERT INTO written (n) VALUES ({n})"));
    }
    let rows = rig.rows().to_string();
    let follows = || (standby.sql("SELECT count(*) FROM written") == rows).then_some(());
    wait_until("the standby to follow through the shut gate", follows);
    gate.attest(rig.server.postmaster().unwrap()).unwrap();
    // Another server in the same cgroup at another port.
    let (other, dir) = (tempfile::tempdir().unwrap(), rig.dir.path());
    std::fs::set_permissions(other.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let second = rig.cgroup.inside(|| Server::primary(other.path()));
    assert!(dir.exists() && gets_in(HERE, HERE, second.port), "another port is not gated");
    gate.extend(in_ms(60_000)).unwrap();
    assert!(gets_in("127.0.0.9", HERE, port) && gets_in("::1", "::1", port));
    let six = Writer::begin("::1", "::1", port);
    six.goes_on();
    gate.shut().unwrap();
    pause(CLIENT_LAG_MS);
    let then = six.acknowledged();
    pause(200);
    assert_eq!(six.acknowledged(), then, "IPv6 is gated too");
    // Without the exemption the standby is cut off as well; with it by IPv6, IPv6 gets in.
    scope.exempt = vec!["::1".parse().unwrap()];
    let gate = Egress::install(scope, Some(kind)).unwrap();
    assert!(gets_in("::1", "::1", port) && !gets_in(HERE, HERE, port));
    gate.attest(rig.server.postmaster().unwrap()).unwrap();
}
