//! Who listens on a TCP port of this host, by the kernel's tables: also a server that is frozen and says nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;

/// The inodes of the sockets that listen on the port: at the address, or at all of them; where none is given, at any. Empty:
/// nobody does.
///
/// # Errors
/// The tables cannot be read.
pub fn on(address: Option<IpAddr>, port: u16) -> Result<BTreeSet<u64>, String> {
    let mut inodes = BTreeSet::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(path) {
            Ok(table) => inodes.extend(listening(&table, address, port)),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(format!("cannot read {path}: {e}")),
        }
    }
    Ok(inodes)
}

/// A socket whose inode cannot be read listens all the same: as 0, which nobody holds.
fn listening(table: &str, address: Option<IpAddr>, port: u16) -> BTreeSet<u64> {
    let wanted = format!(":{port:04X}");
    let of_line = |line: &str| {
        let mut parts = line.split_ascii_whitespace().skip(1);
        let local = parts.next()?.strip_suffix(&wanted)?;
        let listens = parts.nth(1) == Some("0A") && counts(local, address);
        listens.then(|| parts.nth(5).and_then(|inode| inode.parse().ok()).unwrap_or(0))
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// An address that cannot be read counts.
fn counts(at: &str, address: Option<IpAddr>) -> bool {
    let Some(address) = address else { return true };
    kernel_address(at).is_none_or(|at| at.is_unspecified() || at.to_canonical() == address.to_canonical())
}

/// The kernel prints addresses as words of 32 bits in the machine's own order.
fn kernel_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words: Option<Vec<[u8; 4]>> = (0..4).map(word).collect();
            Some(IpAddr::from(<[u8; 16]>::try_from(words?.concat()).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn only_listening_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 0100007F:1538 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:1539 0100007F:1538 01 00000000:00000000\n\
            2: 00000000000000000000000000000000:153A 00000000000000000000000000000000:0000 0A 0:0\n\
            3: 00000000000000000000000001000000:153B 00000000000000000000000000000000:0000 0A 0:0\n";
        let at = |text: &str| Some(text.parse().expect("an address"));
        for (address, port, heard) in [
            (None, 0x1538, true),
            (None, 0x1539, false),
            (None, 0x153A, true),
            (None, 0x38, false),
            (at("127.0.0.1"), 0x1538, true),
            (at("127.0.0.2"), 0x1538, false),
            (at("127.0.0.2"), 0x153A, true),
            (at("127.0.0.2"), 0x153B, false),
            (at("::1"), 0x153B, true),
        ] {
            assert_eq!(!listening(table, address, port).is_empty(), heard, "{address:?} {port:x}");
        }
    }

    #[test]
    fn the_sockets_are_named() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n\
            0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000 105 0 4242 1 0\n\
            1: 0100007F:18EB 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 105 0 4243 1 0\n\
            2: 00000000:18EC 00000000:0000 0A 00000000:00000000 00:00000000 00000000 105 0 4244 1 0\n";
        for (address, wanted) in [
            ("127.0.0.1:6379", vec![4242]),
            ("127.0.0.2:6379", vec![]),
            ("127.0.0.2:6380", vec![4244]),
            ("127.0.0.1:6381", vec![]),
        ] {
            let at: SocketAddr = address.parse().expect("an address");
            assert_eq!(listening(table, Some(at.ip()), at.port()), BTreeSet::from_iter(wanted), "{address}");
        }
    }
}
