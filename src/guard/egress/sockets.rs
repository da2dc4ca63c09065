//! The kernel's table of TCP sockets, asked through `NETLINK_SOCK_DIAG` (`linux/inet_diag.h`): whose listening socket it is,
//! in which cgroup it was made, and resetting what is connected. No `ss` is needed.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket, sockopt};

use super::cgroup::Inside;
use super::{EgressError, Scope};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `TCP_LISTEN` of the kernel's states.
const LISTEN: u8 = 10;
/// Every state but listening, `TIME_WAIT` and closed: what may still carry an answer.
const CONNECTED: u32 = 0xfff & !(1 << LISTEN) & !(1 << 6) & !(1 << 7) | 1 << 12;
/// `INET_DIAG_CGROUP_ID`, kernel 5.8.
const CGROUP_ID: u16 = 21;
/// Bytes: header of a message, `inet_diag_sockid`, `inet_diag_msg`.
const HEADER: usize = 16;
const ID: usize = 48;
const MESSAGE: usize = 72;
/// The kernel answers in pieces of at most 32 KiB.
const ANSWER_BYTES: usize = 64 * 1024;
/// It answers at once; this only bounds a fault.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// One TCP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Socket {
    family: u8,
    state: u8,
    /// As the kernel wrote it: ports, addresses, interface, cookie.
    id: [u8; ID],
    port: u16,
    peer: IpAddr,
    inode: u32,
    cgroup: Option<u64>,
}

fn asked(what: &'static str) -> impl Fn(io::Error) -> EgressError {
    move |source| EgressError::Sockets { what, source }
}

fn open() -> io::Result<OwnedFd> {
    let link = socket(AddressFamily::NETLINK, SocketType::DGRAM, Some(netlink::SOCK_DIAG))?;
    sockopt::set_socket_timeout(&link, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    Ok(link)
}

fn request(kind: u16, flags: u16, family: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let length = u32::try_from(HEADER + 8 + ID).unwrap_or(0);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes().iter().chain(&flags.to_ne_bytes()));
    bytes.extend([0; 8]);
    bytes.extend([family, TCP, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Splits what came into messages: kind and body.
fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        found.push((kind, body));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn error_in(body: &[u8]) -> io::Result<()> {
    let errno = u32_at(body, 0).map_or(0, u32::cast_signed);
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno.saturating_neg())) }
}

fn socket_in(body: &[u8]) -> Option<Socket> {
    let id: [u8; ID] = body.get(4..4 + ID)?.try_into().ok()?;
    let [family, state, ..] = *body else { return None };
    let peer = match family {
        AF_INET => IpAddr::from(<[u8; 4]>::try_from(&id[20..24]).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(&id[20..36]).ok()?).to_canonical(),
    };
    let mut cgroup = None;
    let mut rest = body.get(MESSAGE..)?;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let Some(value) = rest.get(4..usize::from(length)) else { break };
        if kind == CGROUP_ID {
            cgroup = value.try_into().ok().map(u64::from_ne_bytes);
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    let port = u16::from_be_bytes([id[0], id[1]]);
    Some(Socket { family, state, id, port, peer, inode: u32_at(body, 68)?, cgroup })
}

/// Adds the sockets of one piece of the kernel's answer. True: it was the last.
fn take_in(bytes: &[u8], port: u16, found: &mut Vec<Socket>) -> io::Result<bool> {
    for (kind, body) in messages(bytes) {
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => error_in(body)?,
            _ => found.extend(socket_in(body).filter(|socket| socket.port == port)),
        }
    }
    Ok(false)
}

/// The peers of the sockets with that local port in one piece of the kernel's answer.
///
/// # Errors
/// What the kernel said instead.
pub fn peers_in(bytes: &[u8], port: u16) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    take_in(bytes, port, &mut found)?;
    Ok(found.into_iter().map(|socket| socket.peer).collect())
}

/// The TCP sockets of this network namespace with a local port.
fn with_port(port: u16, states: u32) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let link = open()?;
        let mut id = [0; ID];
        id[..2].copy_from_slice(&port.to_be_bytes());
        send(&link, &request(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, family, states, &id), SendFlags::empty())?;
        let mut bytes = vec![0; ANSWER_BYTES];
        loop {
            let (length, _) = recv(&link, bytes.as_mut_slice(), RecvFlags::empty())?;
            if take_in(&bytes[..length], port, &mut found)? {
                break;
            }
        }
    }
    Ok(found)
}

/// The listening sockets of a server on the gated port.
#[derive(Debug)]
pub(super) struct Listening(Vec<Socket>, u16);

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server listens on port {} with {} socket(s) in this network namespace", self.1, self.0.len())
    }
}

impl Listening {
    /// Were they made in the gated cgroup? That counts, and not where their process is now: a socket stays in the cgroup
    /// in which it was made, and hands that on to its connections.
    pub(super) fn all_in(&self, inside: &Inside) -> Result<(), EgressError> {
        match self.0.iter().find(|socket| socket.cgroup.is_none_or(|id| !inside.has(id))) {
            None => Ok(()),
            Some(socket) if socket.cgroup.is_none() => Err(EgressError::NotInForce(
                "this kernel does not tell a socket's cgroup (5.8 does): use kind nftables".to_owned(),
            )),
            Some(_) => Err(EgressError::NotInForce(format!(
                "the database's socket on port {} was made outside {}: restart the database inside it",
                self.1,
                inside.path().display()
            ))),
        }
    }
}

/// A process's listening sockets on a port, in this network namespace.
pub(super) fn listening(pid: u32, port: u16) -> Result<Listening, EgressError> {
    let space = |who: &str| fs::read_link(format!("/proc/{who}/ns/net"));
    let what = "look at the database's process (run the guard as root)";
    if space(&pid.to_string()).map_err(asked(what))? != space("self").map_err(asked(what))? {
        let why = format!("process {pid} is in another network namespace than the guard: run the guard in the same");
        return Err(EgressError::NotInForce(why));
    }
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).map_err(asked(what))?.flatten() {
        let link = fs::read_link(entry.path()).unwrap_or_default();
        let inode =
            link.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u32>().ok());
        inodes.extend(inode);
    }
    let all = with_port(port, 1 << LISTEN).map_err(asked("ask the kernel who listens"))?;
    let own: Vec<Socket> =
        all.into_iter().filter(|socket| socket.state == LISTEN && inodes.contains(&socket.inode)).collect();
    if own.is_empty() {
        let why = format!("process {pid} does not listen on TCP port {port}: is the gated port the database's?");
        return Err(EgressError::NotInForce(why));
    }
    Ok(Listening(own, port))
}

/// Resets what is connected to the gated port, but the exempt; with a cgroup only what was made inside it. Those whose
/// process is gone and whose last words the kernel still repeats are among them.
pub(super) fn reset(scope: &Scope, inside: Option<&Inside>) -> Result<usize, EgressError> {
    let what = "reset old connections (the kernel needs INET_DIAG_DESTROY; without it restart the database)";
    let sockets = with_port(scope.port, CONNECTED).map_err(asked("ask the kernel who is connected"))?;
    let link = open().map_err(asked(what))?;
    let mut count = 0;
    for socket in sockets {
        let elsewhere = inside.is_some_and(|inside| socket.cgroup.is_some_and(|id| !inside.has(id)));
        if scope.is_exempt(socket.peer) || elsewhere {
            continue;
        }
        let asks = request(SOCK_DESTROY, REQUEST | ACK, socket.family, u32::MAX, &socket.id);
        send(&link, &asks, SendFlags::empty()).map_err(|e| asked(what)(e.into()))?;
        let mut bytes = vec![0; ANSWER_BYTES];
        let (length, _) = recv(&link, bytes.as_mut_slice(), RecvFlags::empty()).map_err(|e| asked(what)(e.into()))?;
        for (kind, body) in messages(&bytes[..length]) {
            match (kind, error_in(body)) {
                (NLMSG_ERROR, Ok(())) => count += 1,
                // It ended meanwhile.
                (NLMSG_ERROR, Err(e)) if e.kind() == io::ErrorKind::NotFound => {}
                (NLMSG_ERROR, Err(e)) => return Err(asked(what)(e)),
                _ => {}
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_listening() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = listening(std::process::id(), port).expect("seen");
        assert_eq!(seen.0.len(), 1);
        drop(listener);
        let error = listening(std::process::id(), port).expect_err("gone");
        assert!(error.to_string().contains(&format!("does not listen on TCP port {port}")), "{error}");
    }

    #[test]
    fn messages_that_are_cut_end_the_reading() {
        let one = request(SOCK_DESTROY, REQUEST, AF_INET, 0, &[0; ID]);
        assert_eq!(messages(&one).len(), 1);
        assert_eq!(messages(&[one.clone(), one.clone()].concat()).len(), 2);
        for cut in 0..one.len() {
            assert!(messages(&one[..cut]).is_empty());
            let _nothing = socket_in(&one[..cut]);
        }
        assert!(messages(&[0; 64]).is_empty());
    }
}
