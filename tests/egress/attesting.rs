//! What attestation notices.

use std::process::Command;

use watchdog::guard::egress::{Egress, EgressError, Kind, Scope};

use crate::rig::{Cgroup, Rig, alone, in_ms};

fn amiss(gate: &Egress, postmaster: u32, wanted: &str) {
    let error = gate.attest(postmaster).expect_err("the gate is not in force");
    assert!(matches!(error, EgressError::NotInForce(_)) && error.to_string().contains(wanted), "{error}");
}

fn must(words: &[&str]) {
    let out = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn what_is_amiss_is_noticed_bpf() {
    alone("attesting::what_is_amiss_is_noticed_bpf", Kind::Bpf, || {
        let rig = Rig::new(Kind::Bpf);
        let gate = rig.install();
        let postmaster = rig.server.postmaster().unwrap();
        gate.extend(in_ms(60_000)).unwrap();
        println!("{:?}", gate.attest(postmaster).unwrap());
        // One backend, then the first process, elsewhere: their sockets are still gated, those to come would not be.
        let elsewhere = Cgroup::new("elsewhere");
        elsewhere.take(postmaster);
        amiss(&gate, postmaster, "restart it there");
        rig.cgroup.take(postmaster);
        gate.attest(postmaster).unwrap();
        // Somebody lets everybody through, with the guard's own means.
        let wider = Scope { exempt: vec!["127.0.0.0/8".parse().unwrap()], ..rig.scope() };
        let theirs = Egress::install(wider, Some(Kind::Bpf)).unwrap();
        amiss(&gate, postmaster, "exempt addresses");
        drop(rig.install());
        gate.attest(postmaster).unwrap();
        // Detached, and installed again: with other maps, which the first gate does not write.
        theirs.remove().unwrap();
        amiss(&gate, postmaster, "0 programs");
        let again = rig.install();
        amiss(&gate, postmaster, "is not the one installed");
        again.attest(postmaster).unwrap();
        amiss(&again, std::process::id(), "does not listen");
        // The database was started outside and moved in later: its listening socket stays outside.
        rig.server.kill();
        rig.server.start();
        let postmaster = rig.server.postmaster().unwrap();
        amiss(&again, postmaster, "restart it there");
        for pid in watchdog::guard::postgres::processes(&rig.server.data).unwrap() {
            rig.cgroup.take(pid);
        }
        amiss(&again, postmaster, "was made outside");
    });
}

#[test]
fn what_is_amiss_is_noticed_nftables() {
    alone("attesting::what_is_amiss_is_noticed_nftables", Kind::Nftables, || {
        let rig = Rig::new(Kind::Nftables);
        let gate = rig.install();
        let postmaster = rig.server.postmaster().unwrap();
        let deadline = gate.extend(in_ms(60_000)).unwrap();
        println!("{:?}", gate.attest(postmaster).unwrap());
        let again = |why: &str| {
            amiss(&gate, postmaster, why);
            drop(rig.install());
            assert_eq!(gate.attest(postmaster).unwrap().deadline_ns, deadline, "taken over with its deadline");
        };
        must(&["nft", "insert", "rule", "inet", "watchdog_aicamera", "gate_out", "accept"]);
        again("not as it was written");
        must(&["nft", "add", "element", "inet", "watchdog_aicamera", "peers4", "{ 127.0.0.9 }"]);
        again("not as it was written");
        must(&["nft", "insert", "rule", "inet", "watchdog_aicamera", "until", "accept"]);
        amiss(&gate, postmaster, "does not hold one rule");
        drop(rig.install());
        assert_eq!(gate.attest(postmaster).unwrap().deadline_ns, 0, "what cannot be read is shut");
        must(&["nft", "flush", "table", "inet", "watchdog_aicamera"]);
        amiss(&gate, postmaster, "not as it was written");
        must(&["nft", "delete", "table", "inet", "watchdog_aicamera"]);
        amiss(&gate, postmaster, "there is no table");
        assert!(gate.extend(in_ms(60_000)).is_err(), "there is nothing to extend");
        drop(rig.install());
        gate.attest(postmaster).unwrap();
        amiss(&gate, std::process::id(), "does not listen");
        // A server in another network namespace is not behind this table.
        let mut other = Command::new("unshare").args(["-n", "--", "sleep", "60"]).spawn().unwrap();
        crate::host::wait_until("the namespace", || {
            let space = |who: u32| std::fs::read_link(format!("/proc/{who}/ns/net")).ok();
            (space(other.id())? != space(std::process::id())?).then_some(())
        });
        amiss(&gate, other.id(), "another network namespace");
        other.kill().and_then(|()| other.wait()).unwrap();
    });
}
