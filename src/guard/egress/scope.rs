//! What is gated: whose traffic, on which port, and who is let through whatever the deadline.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::EgressError;
use crate::domain::ids::GroupName;

/// At most so many exempt networks: they are the standbys of one database.
pub const EXEMPT_MAX: usize = 256;

/// One address or a network of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    address: IpAddr,
    prefix: u8,
}

impl Net {
    /// The network's first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits of the address count.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Is the address in it? An IPv4 address in IPv6's clothes is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(one)) => {
                masked(u128::from(u32::from(one)), self.prefix, 32) == u32::from(net).into()
            }
            (IpAddr::V6(net), IpAddr::V6(one)) => masked(u128::from(one), self.prefix, 128) == u128::from(net),
            _ => false,
        }
    }
}

fn masked(bits: u128, prefix: u8, width: u8) -> u128 {
    let gone = u32::from(width.saturating_sub(prefix));
    bits.checked_shr(gone).and_then(|kept| kept.checked_shl(gone)).unwrap_or(0)
}

impl From<IpAddr> for Net {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| format!("{text:?} is not an address or ADDRESS/BITS"))?;
        let one = Net::from(address);
        let Some(prefix) = prefix else { return Ok(one) };
        let prefix: u8 = prefix.parse().map_err(|_| format!("{text:?}: the part after / is not a number of bits"))?;
        if prefix > one.prefix {
            return Err(format!("{text:?}: more than {} bits", one.prefix));
        }
        let net = Net { address: one.address, prefix };
        if !net.contains(one.address) {
            return Err(format!("{text:?}: bits are set behind the first {prefix}"));
        }
        Ok(net)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What is gated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The group whose database it is; names the nftables table.
    pub group: GroupName,
    /// The database's TCP port (or that of the pooler in front of it).
    pub port: u16,
    /// Never gated: the standbys' addresses. Clients there are not gated either.
    pub exempt: Vec<Net>,
    /// The cgroup (version 2) in which the database runs; kind `bpf` needs it.
    pub cgroup: Option<PathBuf>,
}

impl Scope {
    /// The exempt networks, each once and none inside another: nftables takes no overlap.
    pub(super) fn exempt_once(&self) -> Vec<Net> {
        let mut nets = self.exempt.clone();
        nets.sort_by_key(|net| net.prefix);
        let mut kept: Vec<Net> = Vec::new();
        for net in nets {
            if !kept.iter().any(|wider| wider.contains(net.address)) {
                kept.push(net);
            }
        }
        kept.sort();
        kept
    }

    pub(super) fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|net| net.contains(address))
    }

    /// The group's name as nftables and bpf(2) take it: letters, digits and `_`, and at most `max` of them. Where
    /// something had to be changed a checksum keeps two groups apart.
    pub(super) fn name(&self, max: usize) -> String {
        let group = self.group.as_str();
        let plain: String = group.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if plain == group && plain.len() <= max {
            return plain;
        }
        let sum = format!("_{:08x}", crc32c::crc32c(group.as_bytes()));
        format!("{}{sum}", &plain[..plain.len().min(max.saturating_sub(sum.len()))])
    }

    pub(super) fn check(&self) -> Result<(), EgressError> {
        let fault = |why: String| Err(EgressError::Scope { group: self.group.clone(), why });
        if self.group.as_str().is_empty() {
            return fault("the group has no name".to_owned());
        }
        if self.port == 0 {
            return fault("0 is no port".to_owned());
        }
        if self.exempt.len() > EXEMPT_MAX {
            return fault(format!("{} exempt networks, more than {EXEMPT_MAX}", self.exempt.len()));
        }
        match self.exempt.iter().find(|net| net.prefix == 0) {
            Some(net) => fault(format!("exempt {net} would let everybody through: name the standbys' addresses")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Net {
        text.parse().expect("a network")
    }

    fn scope(group: &str, exempt: &[&str]) -> Scope {
        Scope { group: group.into(), port: 5432, exempt: exempt.iter().map(|n| net(n)).collect(), cgroup: None }
    }

    #[test]
    fn a_network_contains_what_its_bits_say() {
        let holds = |n: &str, a: &str| net(n).contains(a.parse().expect("an address"));
        assert!(holds("10.1.0.0/16", "10.1.255.3") && !holds("10.1.0.0/16", "10.2.0.0"));
        assert!(holds("10.0.0.7", "::ffff:10.0.0.7") && holds("::ffff:10.0.0.7", "10.0.0.7"));
        assert!(holds("fd00::/8", "fd12::1") && !holds("fd00::/8", "fe00::1"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "::1") && holds("::/0", "::1"));
        for bad in ["", "10.0.0.1/33", "10.0.0.1/16", "x", "10.0.0.0/-1", "10.0.0.0/8; drop"] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_inside_another_is_left_out() {
        let once = scope("a", &["10.1.0.0/16", "10.0.0.0/8", "fd00::1", "10.0.0.0/8", "fd00::1"]).exempt_once();
        assert_eq!(once, [net("10.0.0.0/8"), net("fd00::1")]);
    }

    #[test]
    fn names_are_bounded_and_differ() {
        assert_eq!(scope("aicamera", &[]).name(20), "aicamera");
        let (a, b) = (scope("a.b", &[]).name(20), scope("a-b", &[]).name(20));
        assert_ne!(a, b);
        let long = scope(&"x; flush ruleset".repeat(9), &[]).name(20);
        assert!(long.len() == 20 && long.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{long}");
    }

    #[test]
    fn a_scope_that_gates_nothing_is_refused() {
        assert!(scope("a", &["10.0.0.0/8"]).check().is_ok());
        assert!(scope("a", &["::/0"]).check().is_err() && scope("", &[]).check().is_err());
        assert!(Scope { port: 0, ..scope("a", &[]) }.check().is_err());
    }
}
