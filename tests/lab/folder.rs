//! The lab's folder, its block of ports, the programs it starts, and the janitor that ends them all.

use std::fs::{self, File};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use super::process::{carrying_mark, detach, kill_all};
use super::{address_of, hub, wait};

/// Ports below the kernel's range for outgoing connections, in blocks.
const FIRST_PORT: u16 = 20_000;
const BLOCK: u16 = 50;
const BLOCKS: u16 = 240;

/// One lab's folder. Dropping it ends every process that carries its mark, and removes it unless it is to be kept.
pub struct Folder {
    /// Where.
    pub path: PathBuf,
    /// Who ends everything; closing its standard input is the word to do so.
    janitor: Option<(Child, ChildStdin)>,
    block: PortBlock,
    keep: bool,
}

/// Ports that no other lab on this machine takes while this one lives.
struct PortBlock {
    _lock: File,
    next: u16,
    end: u16,
}

impl Folder {
    /// Makes the folder (a fresh one under the temporary folder where `at` is none) and starts its janitor.
    pub fn create(at: Option<&Path>) -> Result<Self> {
        let path = match at {
            Some(path) => {
                let taken = path.read_dir().is_ok_and(|mut entries| entries.next().is_some());
                ensure!(!taken, "{} is not empty: name another folder, or remove it", path.display());
                fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
                path.canonicalize()?
            }
            None => tempfile::Builder::new().prefix("watchdog-lab-").tempdir()?.keep(),
        };
        // The database's user must get through to its data.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        for sub in ["log", "etc", "run"] {
            fs::create_dir_all(path.join(sub))?;
        }
        fs::set_permissions(path.join("run"), fs::Permissions::from_mode(0o777))?;
        let block = PortBlock::take()?;
        let mut folder = Self { path, janitor: None, block, keep: false };
        folder.janitor = Some(folder.start_janitor()?);
        Ok(folder)
    }

    /// Leave the folder's files when the lab ends (its processes end all the same).
    pub fn keep_files(&mut self) {
        self.keep = true;
    }

    /// A part's log file.
    pub fn log(&self, part: &str) -> PathBuf {
        self.path.join("log").join(format!("{part}.log"))
    }

    /// A file below the folder, with its parents.
    pub fn write(&self, relative: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// A secret's file, for its owner's eyes.
    pub fn write_secret(&self, relative: &str, text: &str) -> Result<PathBuf> {
        let path = self.write(relative, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// An executable script.
    pub fn write_script(&self, relative: &str, text: &str) -> Result<PathBuf> {
        let path = self.write(relative, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// A port that is free at every one of these addresses.
    pub fn port(&mut self, at: &[IpAddr]) -> Result<u16> {
        while self.block.next < self.block.end {
            let port = self.block.next;
            self.block.next += 1;
            // In another namespace all ports are this lab's.
            let is_elsewhere = |ip: &IpAddr| hub::inside() && *ip != address_of("hub");
            let binds = |ip: &IpAddr| TcpListener::bind((*ip, port)).is_ok() && UdpSocket::bind((*ip, port)).is_ok();
            let free = |ip: &IpAddr| is_elsewhere(ip) || binds(ip);
            if at.iter().all(free) {
                return Ok(port);
            }
        }
        bail!("all {BLOCK} ports of this lab's block are taken")
    }

    fn start_janitor(&self) -> Result<(Child, ChildStdin)> {
        let mut command = Command::new(binaries()?.lab);
        command.arg("janitor").arg(&self.path).stdin(Stdio::piped());
        let log = File::create(self.log("janitor"))?;
        command.stdout(log.try_clone()?).stderr(log);
        detach(&mut command);
        let mut child = command.spawn().context("cannot start the janitor")?;
        let stdin = child.stdin.take().context("the janitor has no standard input")?;
        Ok((child, stdin))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some((mut child, stdin)) = self.janitor.take() {
            drop(stdin);
            // It ends by its own deadline.
            let _ = child.wait();
        }
        if self.keep || std::thread::panicking() {
            eprintln!("kept: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl PortBlock {
    fn take() -> Result<Self> {
        let locks = std::env::temp_dir().join("watchdog-lab-ports");
        fs::create_dir_all(&locks)?;
        let _ = fs::set_permissions(&locks, fs::Permissions::from_mode(0o777));
        for n in 0..BLOCKS {
            let path = locks.join(n.to_string());
            let Ok(file) = File::options().create(true).truncate(false).write(true).open(&path) else { continue };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let next = FIRST_PORT + n * BLOCK;
                return Ok(Self { _lock: file, next, end: next + BLOCK });
            }
        }
        bail!("{BLOCKS} labs are running already (locks in {})", locks.display())
    }
}

/// What this build made.
pub struct Binaries {
    /// The lab's own program.
    pub lab: PathBuf,
    /// A node.
    pub watchdogd: PathBuf,
    /// The operators' command.
    pub watchdogctl: PathBuf,
    /// The resource side.
    pub guard: PathBuf,
}

/// Finds them beside the running program (`target/PROFILE/{examples,deps}/…`).
pub fn binaries() -> Result<Binaries> {
    let me = std::env::current_exe()?;
    let profile = me.parent().and_then(Path::parent).context("the program lies outside a target folder")?;
    let found = |relative: &str| {
        let path = profile.join(relative);
        ensure!(path.exists(), "{} is not built: run `cargo build --bins --example lab`", path.display());
        Ok(path)
    };
    Ok(Binaries {
        lab: found("examples/lab")?,
        watchdogd: found("watchdogd")?,
        watchdogctl: found("watchdogctl")?,
        guard: found("watchdog-guard")?,
    })
}

/// The janitor's work: waits for its standard input to close, then kills what carries the mark until nothing does.
pub fn janitor(mark: &Path) -> Result<()> {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let servers = super::postgres::stop_at_once(mark);
    let _ = wait::until_blocking("the databases to stop", Duration::from_secs(3), || {
        servers.iter().all(|pid| !super::process::is_running(*pid)).then_some(())
    });
    super::postgres::remove_shared_memory(mark);
    wait::until_blocking("every process of the lab to end", Duration::from_secs(10), || {
        let left = carrying_mark(mark);
        kill_all(&left);
        left.is_empty().then_some(())
    })
}
