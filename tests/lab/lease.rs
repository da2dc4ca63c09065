//! Mode `lease` in a lab: a cgroup for each database, so that its kernel gate meets nobody else, and the resident guards. With
//! nftables a hub's namespaces do that, and nobody needs cgroups.
//!
//! On loopback the standby follows its primary through the Unix socket: a replica's address is everybody's there, and could
//! not be exempted from the gate. Inside a hub it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use watchdog::guard::egress::Kind;

use super::folder::{Folder, binaries};
use super::hub;
use super::nodes::Site;
use super::parts::{Options, Pace};
use super::pki;
use super::process::{Part, kill_all};
use super::{DR, HOME, address_of, wait};

/// How long one renewal lasts in a lab, milliseconds.
pub const TTL_MS: u64 = 1000;

/// A cgroup of the lab's own, removed with everything in it.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Where a site's database is gated.
    pub fn path_of(folder: &Folder, site: &str) -> Result<PathBuf> {
        let mount = watchdog::guard::egress::cgroup::mount().context("cgroup v2 is not mounted here")?;
        let lab = folder.path.file_name().context("the lab's folder has no name")?.to_string_lossy().into_owned();
        Ok(mount.join(format!("{lab}-{site}")))
    }

    /// A fresh one. An error where this machine has no cgroup v2 that may be written.
    pub fn new(folder: &Folder, site: &str) -> Result<Self> {
        let path = Self::path_of(folder, site)?;
        fs::create_dir(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its directory.
    pub fn path(&self) -> PathBuf {
        self.0.clone()
    }

    /// The same, made anew: a kernel that has just booted knows nothing of it, nor of any gate.
    pub fn renew(&self) -> Result<()> {
        let removed = || fs::remove_dir(&self.0).ok();
        wait::until_blocking("the cgroup to be empty", Duration::from_secs(5), removed)?;
        Ok(fs::create_dir(&self.0)?)
    }

    /// The same command, run inside.
    pub fn around(&self, command: &Command) -> Command {
        let mut inside = Command::new("/bin/sh");
        inside.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0);
        inside.arg(command.get_program()).args(command.get_args());
        if let Some(dir) = command.get_current_dir() {
            inside.current_dir(dir);
        }
        inside
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let emptied = || {
            let inside = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
            kill_all(&inside.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>());
            (fs::remove_dir(&self.0).is_ok() || !self.0.exists()).then_some(())
        };
        if let Err(error) = wait::until_blocking("the cgroup to be empty", Duration::from_secs(5), emptied) {
            eprintln!("left behind: {}: {error:#}", self.0.display());
        }
    }
}

/// The TTL a lab runs with, milliseconds: the configuration's default, or the shorter one of the fast settings. nftables loses up
/// to a second of each renewal.
pub fn ttl_ms(options: &Options) -> u64 {
    match (options.pace, options.nftables) {
        (_, true) => 3 * TTL_MS,
        (Pace::Default, false) => 2 * TTL_MS,
        (Pace::Fast, false) => TTL_MS,
    }
}

/// Why this machine does not let a lab gate a database so, if so.
pub fn obstacle(kind: Kind) -> Option<String> {
    let can = watchdog::guard::egress::probe::probe();
    (!can.can(kind)).then(|| can.in_words())
}

/// Whether this machine lets a lab gate a database so; says why not.
pub fn can(kind: Kind) -> bool {
    let obstacle = obstacle(kind);
    if let Some(why) = &obstacle {
        println!("NOT TRIED, this machine cannot: {why}");
    }
    obstacle.is_none()
}

/// Appends `[lease]` to both guards' configurations and starts them.
pub fn start_guards(folder: &mut Folder, sites: &[Site], options: &Options) -> Result<BTreeMap<String, Part>> {
    let mut listens = BTreeMap::new();
    for site in [HOME, DR] {
        let at = address_of(site);
        listens.insert(site, SocketAddr::new(at, folder.port(&[at])?));
    }
    let nodes: Vec<String> = sites.iter().map(|site| format!("\"{}\"", site.listen)).collect();
    let mut guards = BTreeMap::new();
    for (site, other) in [(HOME, DR), (DR, HOME)] {
        let config = folder.path.join(site).join("guard.toml");
        let exempt = if hub::inside() { format!("exempt = [\"{}\"]\n", address_of(other)) } else { String::new() };
        let gate = if options.nftables {
            "gate = \"nftables\"\n".to_owned()
        } else {
            format!("gate = \"bpf\"\ncgroup = \"{}\"\n", Cgroup::path_of(folder, site)?.display())
        };
        let mut text = String::new();
        write!(
            text,
            "\n[lease]\nhost = \"db-{site}\"\nregion = \"{site}\"\nttl_ms = {}\n{}listen = \"{}\"\nnodes = [{}]\n\
             holders = {{ db-{other} = \"{}\" }}\n{exempt}\
             clock_trusted_by = \"the lab: whoever froze this machine would freeze its judge too\"\n{gate}",
            ttl_ms(options),
            pki::guard(folder, &format!("db-{site}")),
            listens[site],
            nodes.join(", "),
            listens[other],
        )?;
        File::options().append(true).open(&config)?.write_all(text.as_bytes())?;
        guards.insert(site.to_owned(), serve(folder, site, &config)?);
    }
    Ok(guards)
}

/// Starts the resident guard of a region.
pub fn serve(folder: &Folder, site: &str, config: &Path) -> Result<Part> {
    let mut command = Command::new(binaries()?.guard);
    command.arg("--config").arg(config).arg("serve");
    let command = hub::at(folder, site, command);
    Part::start(folder, &format!("guard-serve-{site}"), command)
}
