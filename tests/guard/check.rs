//! `watchdog-guard check`, the built program: whether this host may have a lease at all. What the kernel tells is covered by mounts
//! in a namespace of the test's own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use watchdog::guard::egress::{Kind, probe};

use crate::host::text;

const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0";
const LEASE: &str = "[lease]\nhost = \"db-a\"\nregion = \"a\"\nttl_ms = 2000\nlisten = \"127.0.0.1:7110\"\ntls = { plaintext = \"loopback\" }\n\
                     nodes = [\"127.0.0.1:7101\"]\n";
const TRUSTED: &str = "clock_trusted_by = \"Linh, 2026-11-01: nobody pauses this guest\"\n";
const NO_CGROUP: &str = "umount -l \"$(findmnt -nt cgroup2 -o TARGET | head -n 1)\"";
const NO_NFT: &str = "mount --bind /dev/null \"$(command -v nft)\"";

/// The kernel counts by this clock source.
fn clock(source: &str) -> String {
    format!("echo '{source}' >clock && mount --bind clock {CLOCK}/current_clocksource")
}

fn run(dir: &Path, cover: &str, lease: &str) -> Output {
    let head = "cluster = \"demo\"\nstate_dir = \"/s\"\ngroups = [\"a\"]\n";
    let postgres = "[postgres]\ndata_dir = \"/d\"\nbin_dir = \"/b\"\nsocket_dir = \"/r\"\nport = 5432\n";
    fs::write(dir.join("guard.toml"), [head, postgres, lease].concat()).unwrap();
    let script = format!("{cover} && exec \"$0\" --config guard.toml check");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "/bin/sh", "-ec", &script, env!("CARGO_BIN_EXE_watchdog-guard")]);
    command.current_dir(dir).output().unwrap()
}

/// A host whose silence proves nothing, or that cannot fall silent, is refused (exit 1) and told what to do; a person's word by
/// name counts for the clock, and for nothing else. Without `[lease]` nobody asks.
#[test]
fn p4_a_host_that_could_not_prove_its_silence_is_refused() {
    let can = probe::probe();
    if ![Kind::Bpf, Kind::Nftables].iter().all(|kind| can.can(*kind)) {
        println!("NOT TRIED, this host cannot do both kinds: {}", can.in_words());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lease = |more: &str| format!("{LEASE}{more}");
    let (tsc, kvm) = (clock("tsc"), clock("kvm-clock"));
    let without = |what: &str| format!("{tsc} && {what}");
    let neither = format!("{} && {NO_CGROUP} && {NO_NFT}", clock("tsc"));
    let (bpf, nft) = ("gate = \"bpf\"\n", "gate = \"nftables\"\n");
    for (cover, lease, refused_by) in [
        (tsc.clone(), lease(""), vec![]),
        (clock("arch_sys_counter"), lease(""), vec![]),
        (kvm.clone(), lease(""), vec!["the clock source kvm-clock may hide a pause", "fencing = \"confirm\""]),
        (kvm.clone(), lease(TRUSTED), vec![]),
        (kvm.clone(), lease("clock_trusted_by = \" \"\n"), vec!["lease.clock_trusted_by: must say who"]),
        (kvm.clone(), String::new(), vec![]),
        (clock("xen"), lease(""), vec!["the clock source xen may hide a pause", "lease.clock_trusted_by"]),
        (clock(""), lease(""), vec!["the clock source that the kernel does not tell may hide"]),
        (format!("mount -t tmpfs none {CLOCK}"), lease(""), vec!["the clock source that the kernel does not tell"]),
        (without(NO_CGROUP), lease(bpf), vec!["lease.gate: this host can do none", "cgroup v2 is not mounted"]),
        (without(NO_CGROUP), lease(nft), vec![]),
        (without(NO_NFT), lease(nft), vec!["lease.gate: this host can do none", "nftables: not possible"]),
        (without(NO_NFT), lease(bpf), vec![]),
        (without(NO_NFT), lease(""), vec![]),
        (neither.clone(), lease(""), vec!["lease.gate", "bpf: not possible", "nftables: not possible", "\"confirm\""]),
        (neither.clone(), lease(TRUSTED), vec!["lease.gate: this host can do none"]),
        (neither, String::new(), vec![]),
        (format!("{kvm} && {NO_CGROUP}"), lease(bpf), vec!["kvm-clock", "lease.gate"]),
        (tsc.clone(), lease("[lease.holders]\ndb-a = \"127.0.0.1:7\"\n"), vec!["lease.holders: \"db-a\" is this host"]),
    ] {
        let out = run(dir.path(), &cover, &lease);
        let (said, complained) = (text(&out.stdout), text(&out.stderr));
        let row = format!("{cover}\n{lease}-> {:?}\n{said}{complained}", out.status.code());
        if refused_by.is_empty() {
            assert!(out.status.code() == Some(0) && said.contains("the configuration is sound"), "{row}");
        } else {
            assert!(out.status.code() == Some(1) && said.is_empty(), "{row}");
            assert!(refused_by.iter().all(|words| complained.contains(words)), "{row}\nwanted {refused_by:?}");
        }
    }
}
