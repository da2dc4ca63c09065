//! Which kinds of gate this host can do, and why not. Changes nothing.

use std::fs;

use super::{Kind, Scope, bpf, cgroup, nft};

/// Which clock the kernel counts by.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// What this host can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Each kind, and why not where it is not possible; in words.
    pub kinds: Vec<(Kind, Result<(), String>)>,
    /// Where cgroup v2 is mounted.
    pub cgroup2: Option<std::path::PathBuf>,
    /// The clock source, empty where the kernel tells none.
    pub clock_source: String,
}

impl Probe {
    /// Can this kind be done?
    pub fn can(&self, kind: Kind) -> bool {
        self.kinds.iter().any(|(known, can)| *known == kind && can.is_ok())
    }

    /// May the host's clock stand still while the host is paused from outside? Then a lease proves nothing: `confirm`.
    pub fn clock_may_hide_a_pause(&self) -> bool {
        hides_a_pause(&self.clock_source)
    }

    /// For people, a line for each.
    pub fn in_words(&self) -> String {
        let mut lines: Vec<String> = self
            .kinds
            .iter()
            .map(|(kind, can)| match can {
                Ok(()) => format!("egress lease by {}: possible", kind.word()),
                Err(why) => format!("egress lease by {}: not possible: {why}", kind.word()),
            })
            .collect();
        lines.push(match &self.cgroup2 {
            Some(at) => format!("cgroup v2: {}", at.display()),
            None => "cgroup v2: not mounted".to_owned(),
        });
        lines.push(match (self.clock_may_hide_a_pause(), self.clock_source.as_str()) {
            (_, "") => "clock source: the kernel does not tell; it may hide a pause: use mode confirm".to_owned(),
            (true, clock) => format!("clock source: {clock}: may hide a pause of this host: use mode confirm"),
            (false, clock) => format!("clock source: {clock}"),
        });
        lines.join("\n")
    }
}

/// Tries everything that leaves no trace: loads the programs without attaching, has nftables check the rules.
pub fn probe() -> Probe {
    let scope = Scope { group: "probe".into(), port: 1, exempt: Vec::new(), cgroup: None };
    let cgroup2 = cgroup::mount();
    let bpf = match cgroup2 {
        None => Err("cgroup v2 is not mounted: mount it, or boot with systemd.unified_cgroup_hierarchy=1".to_owned()),
        Some(_) => bpf::can(&scope).map_err(|e| match rustix::process::geteuid().is_root() {
            true => format!("{e}; kernel {}", kernel_release()),
            false => format!("{e}; run the guard as root (it needs CAP_BPF and CAP_NET_ADMIN)"),
        }),
    };
    let nft = nft::can(&scope).map_err(|e| e.to_string());
    Probe { kinds: vec![(Kind::Bpf, bpf), (Kind::Nftables, nft)], cgroup2, clock_source: clock_source() }
}

/// The clock source in use now, empty where the kernel tells none. The kernel may change it while it runs.
pub fn clock_source() -> String {
    fs::read_to_string(CLOCK_SOURCE).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// May a clock of this source stand still while the host is paused from outside?
pub fn hides_a_pause(clock_source: &str) -> bool {
    clock_source.is_empty() || clock_source.contains("kvm-clock") || clock_source.contains("xen")
}

fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} (bpf_ktime_get_boot_ns needs 5.8)", release.trim())
}
