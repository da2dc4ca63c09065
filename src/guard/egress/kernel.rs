//! The few calls to the kernel that Rust cannot check: bpf(2), and one word of memory shared with a BPF map.
//!
//! Every function here owns or measures the buffers the kernel reads and writes; nothing outside needs `unsafe`. Offsets
//! are those of `union bpf_attr`, `struct bpf_prog_info` and `struct bpf_map_info` in `linux/bpf.h`: they only ever grow.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;

const MAP_CREATE: i32 = 0;
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_GET_NEXT_KEY: i32 = 4;
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;

/// `BPF_MAP_TYPE_ARRAY`.
pub(super) const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_LPM_TRIE`.
pub(super) const LPM_TRIE: u32 = 11;
/// `BPF_F_NO_PREALLOC`: a trie has no other way.
pub(super) const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`, kernel 5.5.
pub(super) const MMAPABLE: u32 = 1 << 10;
/// `BPF_PROG_TYPE_CGROUP_SKB`.
const CGROUP_SKB: u32 = 8;
/// `BPF_F_ALLOW_MULTI`: beside other programs, and never hidden by those of cgroups below.
const ALLOW_MULTI: u32 = 2;
/// `BPF_OBJ_NAME_LEN`, its closing zero not counted.
pub(super) const NAME_MAX: usize = 15;
/// Bytes of `union bpf_attr` that are sent: longer than any used part; the kernel wants the rest to be zero.
const ATTR_WORDS: usize = 18;
/// At most so many programs are looked at in one cgroup; the kernel allows 64.
const PROGRAMS_MAX: usize = 64;
/// A program of ours has two maps; more are read so that a stranger's is not taken for ours.
const MAPS_MAX: usize = 8;

/// Where a program stands in a cgroup: `BPF_CGROUP_INET_INGRESS`, `BPF_CGROUP_INET_EGRESS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Ingress = 0,
    Egress = 1,
}

/// `union bpf_attr`, written by offset.
#[repr(C, align(8))]
struct Attr([u64; ATTR_WORDS]);

impl Attr {
    fn new() -> Self {
        Self([0; ATTR_WORDS])
    }
    fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        for (i, byte) in bytes.iter().enumerate() {
            let mut word = self.0[(at + i) / 8].to_ne_bytes();
            word[(at + i) % 8] = *byte;
            self.0[(at + i) / 8] = u64::from_ne_bytes(word);
        }
        self
    }
    fn u32(self, at: usize, value: u32) -> Self {
        self.bytes(at, &value.to_ne_bytes())
    }
    fn fd(self, at: usize, fd: BorrowedFd<'_>) -> Self {
        self.u32(at, fd.as_raw_fd().cast_unsigned())
    }
    fn address<T: ?Sized>(self, at: usize, of: *const T) -> Self {
        self.bytes(at, &(of.cast::<u8>() as usize as u64).to_ne_bytes())
    }
    fn name(self, at: usize, name: &str) -> Self {
        self.bytes(at, &name.as_bytes()[..name.len().min(NAME_MAX)])
    }
    fn read_u32(&self, at: usize) -> u32 {
        let bytes = self.0[at / 8].to_ne_bytes();
        u32::from_ne_bytes([bytes[at % 8], bytes[at % 8 + 1], bytes[at % 8 + 2], bytes[at % 8 + 3]])
    }
}

/// bpf(2). Private: whoever calls it must have put only addresses of live and long enough buffers into `attr`.
#[expect(unsafe_code, reason = "bpf(2) has no safe binding")]
fn bpf(command: i32, attr: &mut Attr) -> io::Result<i32> {
    // SAFETY: `attr` is ours for the call and as long as is said. The addresses in it are, by this function's contract,
    // of buffers that its callers (all in this file) hold borrowed across the call and whose lengths they state or check.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut Attr, size_of::<Attr>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(done).map_err(io::Error::other) }
}

#[expect(unsafe_code, reason = "a descriptor comes from bpf(2) as a number")]
fn bpf_fd(command: i32, attr: &mut Attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the commands this is used for answer with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What `BPF_OBJ_GET_INFO_BY_FD` says, as words of 32 bits.
fn info(fd: BorrowedFd<'_>, words: &mut [u32]) -> io::Result<()> {
    let length = u32::try_from(size_of_val(words)).map_err(io::Error::other)?;
    let mut attr = Attr::new().fd(0, fd).u32(4, length).address(8, words.as_mut_ptr());
    bpf(OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A map, with what the kernel says of it: buffers are measured against that.
#[derive(Debug)]
pub(super) struct Map {
    fd: OwnedFd,
    pub(super) id: u32,
    pub(super) kind: u32,
    pub(super) key_size: usize,
    pub(super) value_size: usize,
    pub(super) flags: u32,
}

/// What a new map shall be.
pub(super) struct MapShape<'a> {
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) entries: u32,
    pub(super) flags: u32,
    pub(super) name: &'a str,
}

impl Map {
    pub(super) fn create(shape: &MapShape<'_>) -> io::Result<Self> {
        let attr = Attr::new().u32(0, shape.kind).u32(4, shape.key_size).u32(8, shape.value_size);
        let mut attr = attr.u32(12, shape.entries).u32(16, shape.flags).name(28, shape.name);
        Self::known(bpf_fd(MAP_CREATE, &mut attr)?)
    }

    pub(super) fn by_id(id: u32) -> io::Result<Self> {
        Self::known(bpf_fd(MAP_GET_FD_BY_ID, &mut Attr::new().u32(0, id))?)
    }

    fn known(fd: OwnedFd) -> io::Result<Self> {
        let mut words = [0u32; 20];
        info(fd.as_fd(), &mut words)?;
        let [kind, id, key, value, _entries, flags, ..] = words;
        Ok(Self { fd, id, kind, key_size: key as usize, value_size: value as usize, flags })
    }

    /// Its number as a program names it.
    pub(super) fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    fn measured(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        // Values of per-CPU maps are longer than their size says: only these two kinds are ours.
        let fits = matches!(self.kind, ARRAY | LPM_TRIE)
            && key.len() == self.key_size
            && value.is_none_or(|value| value.len() == self.value_size);
        if fits { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "not a map of this shape")) }
    }

    pub(super) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<()> {
        self.measured(key, Some(value))?;
        let mut attr = Attr::new().fd(0, self.fd.as_fd()).address(8, key).address(16, value.as_mut_ptr());
        bpf(MAP_LOOKUP_ELEM, &mut attr).map(drop)
    }

    pub(super) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.measured(key, Some(value))?;
        let mut attr = Attr::new().fd(0, self.fd.as_fd()).address(8, key).address(16, value);
        bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
    }

    pub(super) fn delete(&self, key: &[u8]) -> io::Result<()> {
        self.measured(key, None)?;
        bpf(MAP_DELETE_ELEM, &mut Attr::new().fd(0, self.fd.as_fd()).address(8, key)).map(drop)
    }

    /// Its keys, at most `max`.
    pub(super) fn keys(&self, max: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        while keys.len() < max {
            let mut next = vec![0u8; self.key_size];
            let mut attr = Attr::new().fd(0, self.fd.as_fd()).address(16, next.as_mut_ptr());
            if let Some(last) = keys.last() {
                attr = attr.address(8, last.as_slice());
            }
            match bpf(MAP_GET_NEXT_KEY, &mut attr) {
                Ok(_) => keys.push(next),
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            }
        }
        Ok(keys)
    }
}

/// A loaded program.
#[derive(Debug)]
pub(super) struct Program {
    fd: OwnedFd,
    pub(super) id: u32,
    /// The kernel's digest of the instructions, map descriptors left out.
    pub(super) tag: [u8; 8],
    pub(super) name: String,
    pub(super) maps: Vec<u32>,
}

impl Program {
    /// Loads a program for cgroups. `instructions` are the kernel's, 8 bytes each.
    ///
    /// # Errors
    /// The kernel's, with the verifier's last words.
    pub(super) fn load(instructions: &[u64], name: &str) -> io::Result<Self> {
        let mut log = vec![0u8; 16 * 1024];
        let length = u32::try_from(instructions.len()).map_err(io::Error::other)?;
        let attr = |log: Option<&mut Vec<u8>>| {
            let attr = Attr::new().u32(0, CGROUP_SKB).u32(4, length).address(8, instructions);
            let attr = attr.address(16, c"Apache-2.0".as_ptr()).name(48, name);
            match log {
                Some(log) => {
                    let size = u32::try_from(log.len()).unwrap_or(0);
                    attr.u32(24, 1).u32(28, size).address(32, log.as_mut_ptr())
                }
                None => attr,
            }
        };
        let fd = bpf_fd(PROG_LOAD, &mut attr(None)).or_else(|first| {
            // Once more for the verifier's reasons; without them where it takes only the first.
            bpf_fd(PROG_LOAD, &mut attr(Some(&mut log))).map_err(|_| {
                let said = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
                let last = said.lines().rev().take(3).collect::<Vec<_>>().join(" | ");
                if last.is_empty() { first } else { io::Error::new(first.kind(), format!("{first}: {last}")) }
            })
        })?;
        Self::known(fd)
    }

    pub(super) fn by_id(id: u32) -> io::Result<Self> {
        Self::known(bpf_fd(PROG_GET_FD_BY_ID, &mut Attr::new().u32(0, id))?)
    }

    fn known(fd: OwnedFd) -> io::Result<Self> {
        let mut maps = [0u32; MAPS_MAX];
        let mut words = [0u32; 40];
        // nr_map_ids at byte 52, map_ids at 56, name at 64.
        let address = (maps.as_mut_ptr() as usize as u64).to_ne_bytes();
        words[13] = u32::try_from(MAPS_MAX).map_err(io::Error::other)?;
        words[14] = u32::from_ne_bytes([address[0], address[1], address[2], address[3]]);
        words[15] = u32::from_ne_bytes([address[4], address[5], address[6], address[7]]);
        info(fd.as_fd(), &mut words)?;
        let [a, b] = [words[2].to_ne_bytes(), words[3].to_ne_bytes()];
        let tag = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
        let count = (words[13] as usize).min(MAPS_MAX);
        Ok(Self { id: words[1], tag, name: text(&words[16..20]), maps: maps[..count].to_vec(), fd })
    }

    /// Attaches it to a cgroup, where it stays whatever becomes of this process.
    pub(super) fn attach(&self, cgroup: BorrowedFd<'_>, hook: Hook) -> io::Result<()> {
        let attr = Attr::new().fd(0, cgroup).fd(4, self.fd.as_fd()).u32(8, hook as u32);
        bpf(PROG_ATTACH, &mut attr.u32(12, ALLOW_MULTI)).map(drop)
    }

    pub(super) fn detach(&self, cgroup: BorrowedFd<'_>, hook: Hook) -> io::Result<()> {
        bpf(PROG_DETACH, &mut Attr::new().fd(0, cgroup).fd(4, self.fd.as_fd()).u32(8, hook as u32)).map(drop)
    }
}

/// The ids of the programs attached to exactly this cgroup, in the order they run.
pub(super) fn attached(cgroup: BorrowedFd<'_>, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; PROGRAMS_MAX];
    let count = u32::try_from(PROGRAMS_MAX).map_err(io::Error::other)?;
    let attr = Attr::new().fd(0, cgroup).u32(4, hook as u32).address(16, ids.as_mut_ptr());
    let mut attr = attr.u32(24, count);
    bpf(PROG_QUERY, &mut attr)?;
    let found = (attr.read_u32(24) as usize).min(PROGRAMS_MAX);
    Ok(ids[..found].to_vec())
}

/// The one value of an array map, shared with the kernel: reads and writes are single, whole, and seen at once. (Writing
/// through bpf(2) copies bytes, which no kernel promises to do in one piece.)
#[derive(Debug)]
pub(super) struct Word {
    at: std::ptr::NonNull<AtomicU64>,
}

/// What is mapped, bytes: the kernel makes it a page.
const WORD_BYTES: usize = 8;

#[expect(unsafe_code, reason = "memory shared with the kernel may be used from every thread, as an atomic")]
// SAFETY: it is only ever used as a shared `AtomicU64`.
unsafe impl Send for Word {}
#[expect(unsafe_code, reason = "memory shared with the kernel may be used from every thread, as an atomic")]
// SAFETY: it is only ever used as a shared `AtomicU64`.
unsafe impl Sync for Word {}

impl Word {
    #[expect(unsafe_code, reason = "mmap(2) gives memory that Rust did not allocate")]
    pub(super) fn of(map: &Map) -> io::Result<Self> {
        if map.kind != ARRAY || map.value_size != WORD_BYTES || map.flags & MMAPABLE == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a map of this shape"));
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let at = unsafe {
            let (protect, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), WORD_BYTES, protect, flags, map.fd.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = std::ptr::NonNull::new(at.cast::<AtomicU64>());
        at.map(|at| Self { at }).ok_or_else(|| io::Error::other("mapped at address 0"))
    }

    #[expect(unsafe_code, reason = "the mapping is read as an atomic")]
    pub(super) fn value(&self) -> &AtomicU64 {
        // SAFETY: mapped until `drop`, page-aligned, at least 8 bytes, zero-initialised by the kernel, and changed by
        // others only as whole words.
        unsafe { self.at.as_ref() }
    }
}

impl Drop for Word {
    #[expect(unsafe_code, reason = "munmap(2)")]
    fn drop(&mut self) {
        // SAFETY: mapped in `of` with this length; no reference outlives `self`.
        let _kept = unsafe { libc::munmap(self.at.as_ptr().cast(), WORD_BYTES) };
    }
}
