//! Kind `bpf`: two programs at the database's cgroup, one for each direction, that share one deadline. `PROG_ATTACH` keeps
//! them there with the cgroup itself, so nothing is pinned anywhere; a guard that starts again finds them by name and
//! digest, and through them their maps.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::asm::{self, KEY_BYTES};
use super::kernel::{self, ARRAY, Hook, LPM_TRIE, MMAPABLE, Map, MapShape, NAME_MAX, NO_PREALLOC, Program, Word};
use super::lock::Lock;
use super::{EXEMPT_MAX, EgressError, Net, Scope, cgroup};

const HOOKS: [Hook; 2] = [Hook::Egress, Hook::Ingress];
/// What stands behind an exempt network; only its presence counts.
const EXEMPT: [u8; 4] = [1, 0, 0, 0];
/// The only key of the deadline's map.
const ONLY: [u8; 4] = [0; 4];

/// The gate at one cgroup.
#[derive(Debug)]
pub(super) struct BpfGate {
    path: PathBuf,
    dir: File,
    port: u16,
    /// Loaded afresh at each install, so that the digests are this kernel's own for these instructions.
    tags: [[u8; 8]; 2],
    maps: Maps,
    word: Word,
}

#[derive(Debug)]
struct Maps {
    deadline: Map,
    exempt: Map,
}

fn refused(what: &'static str) -> impl FnOnce(io::Error) -> EgressError {
    move |source| EgressError::Bpf { what, source }
}

/// One installs at a time.
fn lock(path: &Path) -> Result<Lock, EgressError> {
    // An open file of its own: it is let go of with the value, while the gate keeps the directory.
    Lock::take(cgroup::open(path)?).map_err(refused("lock the cgroup's directory"))
}

impl Maps {
    fn create(scope: &Scope) -> io::Result<Self> {
        let name = format!("wd_{}", scope.name(NAME_MAX - 3));
        let flags = MMAPABLE;
        let deadline =
            Map::create(&MapShape { kind: ARRAY, key_size: 4, value_size: 8, entries: 1, flags, name: &name })?;
        let exempt = Map::create(&MapShape {
            kind: LPM_TRIE,
            key_size: u32::try_from(KEY_BYTES).map_err(io::Error::other)?,
            value_size: 4,
            // Twice, so that new ones fit in before old ones go.
            entries: u32::try_from(2 * EXEMPT_MAX).map_err(io::Error::other)?,
            flags: NO_PREALLOC,
            name: "wd_exempt",
        })?;
        Ok(Self { deadline, exempt })
    }

    /// The maps a program uses, if they are such as ours.
    fn of(program: &Program) -> io::Result<Option<Self>> {
        let maps = program.maps.iter().map(|id| Map::by_id(*id)).collect::<io::Result<Vec<_>>>()?;
        let (mut deadline, mut exempt) = (None, None);
        for map in maps {
            match (map.kind, map.key_size, map.value_size) {
                (ARRAY, 4, 8) if map.flags & MMAPABLE != 0 => deadline = Some(map),
                (LPM_TRIE, KEY_BYTES, 4) => exempt = Some(map),
                _ => return Ok(None),
            }
        }
        Ok(deadline.zip(exempt).map(|(deadline, exempt)| Self { deadline, exempt }))
    }

    fn are(&self, program: &Program) -> bool {
        let used: BTreeSet<u32> = program.maps.iter().copied().collect();
        used == BTreeSet::from([self.deadline.id, self.exempt.id])
    }

    fn load(&self, hook: Hook, port: u16) -> io::Result<Program> {
        let code = asm::gate(hook, port, self.deadline.raw(), self.exempt.raw());
        let code = code.ok_or_else(|| io::Error::other("the program does not assemble"))?;
        Program::load(&code, &name_of(hook, port))
    }

    fn exempt_keys(&self) -> io::Result<BTreeSet<Vec<u8>>> {
        Ok(self.exempt.keys(2 * EXEMPT_MAX + 1)?.into_iter().collect())
    }

    /// First what is new, then away with what is not wanted: nobody wanted is shut out for a moment.
    fn exempt_exactly(&self, scope: &Scope) -> io::Result<()> {
        let (wanted, there) = (wanted_keys(scope), self.exempt_keys()?);
        for key in wanted.difference(&there) {
            self.exempt.update(key, &EXEMPT)?;
        }
        for key in there.difference(&wanted) {
            self.exempt.delete(key)?;
        }
        Ok(())
    }
}

fn name_of(hook: Hook, port: u16) -> String {
    match hook {
        Hook::Egress => format!("wd_out_{port}"),
        Hook::Ingress => format!("wd_in_{port}"),
    }
}

fn wanted_keys(scope: &Scope) -> BTreeSet<Vec<u8>> {
    scope.exempt_once().iter().map(|net| key_of(net).to_vec()).collect()
}

/// As the program builds it: compared bits, family, address. The family's own 32 bits always count.
fn key_of(net: &Net) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..4].copy_from_slice(&(32 + u32::from(net.prefix())).to_ne_bytes());
    match net.address() {
        std::net::IpAddr::V4(v4) => {
            key[4..8].copy_from_slice(&4u32.to_ne_bytes());
            key[8..12].copy_from_slice(&v4.octets());
        }
        std::net::IpAddr::V6(v6) => {
            key[4..8].copy_from_slice(&6u32.to_ne_bytes());
            key[8..24].copy_from_slice(&v6.octets());
        }
    }
    key
}

/// The programs at a hook that bear our name for this port.
fn ours(dir: &File, hook: Hook, port: u16) -> Result<Vec<Program>, EgressError> {
    let name = name_of(hook, port);
    let ids = kernel::attached(dir.as_fd(), hook).map_err(refused("tell the cgroup's programs"))?;
    let mut found = Vec::new();
    for id in ids {
        match Program::by_id(id) {
            Ok(program) if program.name == name => found.push(program),
            // Detached by somebody meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(_) => {}
            Err(e) => return Err(refused("show a program of the cgroup")(e)),
        }
    }
    Ok(found)
}

impl BpfGate {
    /// `first_ns`: the deadline that a fresh gate begins with, before any packet meets it.
    pub(super) fn install(scope: &Scope, first_ns: u64) -> Result<Self, EgressError> {
        let path = scope.cgroup.clone().ok_or_else(|| EgressError::Scope {
            group: scope.group.clone(),
            why: "kind bpf needs the cgroup the database runs in; `watchdog-guard egress-probe` shows where to find it"
                .to_owned(),
        })?;
        let dir = cgroup::open(&path)?;
        let lock = lock(&path)?;
        let there = [ours(&dir, Hook::Egress, scope.port)?, ours(&dir, Hook::Ingress, scope.port)?];
        let mut adopted = None;
        for program in there.iter().flatten() {
            adopted = Maps::of(program).map_err(refused("show a program's maps"))?;
            if adopted.is_some() {
                break;
            }
        }
        let maps = match adopted {
            Some(maps) => maps,
            None => {
                let maps = Maps::create(scope).map_err(refused("create a BPF map"))?;
                let first = first_ns.to_ne_bytes();
                maps.deadline.update(&ONLY, &first).map_err(refused("write the first deadline"))?;
                maps
            }
        };
        maps.exempt_exactly(scope).map_err(refused("write the exempt addresses"))?;
        let mut tags = [[0; 8]; 2];
        for ((hook, there), tag) in HOOKS.into_iter().zip(there).zip(&mut tags) {
            let fresh = maps.load(hook, scope.port).map_err(refused("load the gate's program"))?;
            *tag = fresh.tag;
            let kept = there.iter().find(|old| old.tag == fresh.tag && maps.are(old)).map(|old| old.id);
            // Each of several must let a packet pass, so the new one is added before an old one goes.
            if kept.is_none() {
                fresh.attach(dir.as_fd(), hook).map_err(refused("attach the gate's program to the cgroup"))?;
            }
            for old in there.iter().filter(|old| Some(old.id) != kept) {
                old.detach(dir.as_fd(), hook).map_err(refused("detach an older program of the gate"))?;
            }
        }
        drop(lock);
        let word = Word::of(&maps.deadline).map_err(refused("share the deadline's memory"))?;
        Ok(Self { path, dir, port: scope.port, tags, maps, word })
    }

    pub(super) fn at_least(&self, until_ns: u64) -> u64 {
        self.word.value().fetch_max(until_ns, Ordering::SeqCst).max(until_ns)
    }

    pub(super) fn at_most(&self, until_ns: u64) -> u64 {
        self.word.value().fetch_min(until_ns, Ordering::SeqCst).min(until_ns)
    }

    /// The deadline that the attached programs compare with, and how that was seen.
    pub(super) fn read(&self, scope: &Scope) -> Result<(u64, String), EgressError> {
        let amiss = |why: String| EgressError::NotInForce(format!("{why}: install it again"));
        let same = |path: &Path| -> io::Result<bool> {
            let (now, then) = (std::fs::metadata(path)?, self.dir.metadata()?);
            Ok((now.ino(), now.dev()) == (then.ino(), then.dev()))
        };
        if !same(&self.path).unwrap_or(false) {
            return Err(amiss(format!("{} is not the cgroup any more that was gated", self.path.display())));
        }
        let mut ids = Vec::new();
        for (hook, tag) in HOOKS.into_iter().zip(&self.tags) {
            let found = ours(&self.dir, hook, self.port)?;
            let [only] = found.as_slice() else {
                let (name, count) = (name_of(hook, self.port), found.len());
                return Err(amiss(format!("{count} programs {name} at {}, not one", self.path.display())));
            };
            if only.tag != *tag || !self.maps.are(only) {
                return Err(amiss(format!("program {} ({}) is not the one installed", only.id, only.name)));
            }
            ids.push(only.id.to_string());
        }
        let exempt = self.maps.exempt_keys().map_err(refused("tell the exempt addresses"))?;
        if exempt != wanted_keys(scope) {
            return Err(amiss("the exempt addresses are not those configured".to_owned()));
        }
        let mut value = [0; 8];
        self.maps.deadline.lookup(&ONLY, &mut value).map_err(refused("tell the deadline"))?;
        let how = format!("bpf programs {} at {}", ids.join(" and "), self.path.display());
        Ok((u64::from_ne_bytes(value), how))
    }

    pub(super) fn remove(self) -> Result<(), EgressError> {
        let _lock = lock(&self.path)?;
        for hook in HOOKS {
            for program in ours(&self.dir, hook, self.port)? {
                program.detach(self.dir.as_fd(), hook).map_err(refused("detach the gate's program"))?;
            }
        }
        Ok(())
    }
}

/// Tries everything but attaching.
pub(super) fn can(scope: &Scope) -> Result<(), EgressError> {
    let maps = Maps::create(scope).map_err(refused("create a BPF map"))?;
    for hook in HOOKS {
        maps.load(hook, scope.port).map_err(refused("load the gate's program"))?;
    }
    Word::of(&maps.deadline).map(drop).map_err(refused("share the deadline's memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_families_apart() {
        let key = |text: &str| key_of(&text.parse().expect("a network"));
        assert_eq!(key("10.0.0.0/8")[..4], 40u32.to_ne_bytes());
        assert_eq!(key("10.0.0.1")[4..12], [&4u32.to_ne_bytes()[..], &[10, 0, 0, 1]].concat());
        assert_eq!(key("::1")[..8], [160u32.to_ne_bytes(), 6u32.to_ne_bytes()].concat());
        assert_eq!(key("::1")[23], 1);
        assert_eq!(asm::KEY_BITS, 160);
    }

    #[test]
    fn names_fit() {
        assert!(HOOKS.iter().all(|hook| name_of(*hook, u16::MAX).len() <= NAME_MAX));
    }
}
