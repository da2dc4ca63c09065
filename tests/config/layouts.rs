//! `watchdogd check`, the built program: layouts in which a lease would do harm.

use std::fs;
use std::process::Command;

use crate::faults::BASE;

/// The base's file with voters in these regions, in this mode, without automatic failover from these.
fn file(voters: &[&str], mode: &str, accepted: &[&str]) -> String {
    let (head, rest) = BASE.split_once("[[node]]").expect("the base has nodes");
    let (_, rest) = rest.split_once("[[reference]]").expect("the base has a reference after them");
    let node = |(n, region): (usize, &&str)| {
        let port = 7100 + n;
        format!(
            "[[node]]\nid = {n}\nname = \"n{n}\"\nregion = \"{region}\"\nlisten = \"127.0.0.1:{port}\"\ndata_dir = \"/n{n}\"\n"
        )
    };
    let nodes: String = (1..).zip(voters).map(node).collect();
    let accepts = format!("[cluster]\naccept_no_automatic_failover_from = {accepted:?}\n");
    format!("{head}{nodes}\n[[reference]]{rest}")
        .replacen("[cluster]\n", &accepts, 1)
        .replacen("fencing = \"confirm\"", &format!("fencing = \"{mode}\""), 1)
        .replacen("conninfo = \"host=10.1.0.21 user=w\"", "conninfo = \"host=10.1.0.21 user=w\"\ncanary = true", 1)
        .replacen("conninfo = \"host=10.2.0.21 user=w\"", "conninfo = \"host=10.2.0.21 user=w\"\ncanary = true", 1)
}

/// Where a region that can serve takes the quorum with it when it is lost, nobody is left to renew the other's lease, or to outwait its
/// own: refused (exit 1), with what to do, also where the file accepts the layout. Mode `confirm` may have it.
#[test]
fn p7_a_lease_is_refused_where_a_region_takes_the_quorum_with_it() {
    let (hcmc, hanoi, danang) = ("hcmc", "hanoi", "danang");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("watchdog.toml");
    for (voters, mode, accepted, refused_by) in [
        (vec![hcmc, hanoi, danang], "lease", vec![], ""),
        (vec![hcmc, hcmc, hanoi, hanoi, danang], "lease", vec![], ""),
        (vec![hcmc, hanoi, hanoi], "lease", vec![], "when hanoi is lost, 1 of 3 voters remain"),
        (vec![hcmc, hanoi, hanoi], "lease", vec![hanoi], "group[g].fencing"),
        (vec![hcmc, hcmc, hanoi], "lease", vec![hcmc], "when hcmc is lost no quorum remains"),
        (vec![hcmc, hcmc, hanoi, hanoi], "lease", vec![hcmc, hanoi], "add a witness node in a third place"),
        (vec![hcmc, hcmc, hcmc, hanoi, danang], "lease", vec![hcmc], "when hcmc is lost no quorum remains"),
        (vec![hcmc, hanoi], "lease", vec![hcmc, hanoi], "fewer than three"),
        (vec![hcmc, hanoi, hanoi], "confirm", vec![hanoi], ""),
        (vec![hcmc, hanoi, hanoi], "confirm", vec![], "when hanoi is lost, 1 of 3 voters remain"),
    ] {
        fs::write(&path, file(&voters, mode, &accepted)).expect("written");
        let mut check = Command::new(env!("CARGO_BIN_EXE_watchdogd"));
        let out = check.arg("check").arg("--config").arg(&path).output().expect("started");
        let said = String::from_utf8_lossy(&out.stdout);
        let row = format!("{voters:?}, {mode}, accepted {accepted:?} -> {:?}\n{said}", out.status.code());
        assert_eq!(out.status.code(), Some(i32::from(!refused_by.is_empty())), "{row}");
        assert!(said.contains(refused_by), "{row}\nwanted {refused_by:?}");
    }
}
