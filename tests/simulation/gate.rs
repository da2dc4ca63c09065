//! The gate in a host's kernel, as `guard::egress` promises it: an absolute deadline on the host's boot clock, enforced with
//! no program awake, and outliving every one of them until the host boots.

use watchdog::domain::lease::GateSeen;

/// How it stands. Moments are the host's boot clock, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gate {
    /// Nothing is in the kernel: everything passes.
    #[default]
    Missing,
    /// Passes until then.
    Until(u64),
    /// Passes for ever.
    Open,
}

impl Gate {
    pub fn passes(self, now_ms: u64) -> bool {
        match self {
            Self::Missing | Self::Open => true,
            Self::Until(until_ms) => now_ms < until_ms,
        }
    }

    /// Shut; or as it is, where it is there already.
    pub fn install(&mut self) {
        if *self == Self::Missing {
            *self = Self::Until(0);
        }
    }

    /// Open until then; or as it is and extended, where it is there already.
    pub fn begin(&mut self, now_ms: u64, until_ms: u64) {
        match self {
            Self::Missing => *self = Self::Until(until_ms),
            Self::Until(_) | Self::Open => self.extend(now_ms, until_ms),
        }
    }

    /// A moment that is past does nothing.
    pub fn extend(&mut self, now_ms: u64, until_ms: u64) {
        if let Self::Until(at_ms) = self
            && until_ms > now_ms
        {
            *at_ms = until_ms.max(*at_ms);
        }
    }

    pub fn bound(&mut self, until_ms: u64) {
        match self {
            Self::Missing => {}
            Self::Until(at_ms) => *at_ms = until_ms.min(*at_ms),
            Self::Open => *self = Self::Until(until_ms),
        }
    }

    pub fn open(&mut self) {
        if *self != Self::Missing {
            *self = Self::Open;
        }
    }

    /// As `guard::lease::gate` tells it of the kernel's.
    pub fn seen(self, now_ms: u64, ttl_ms: u64, is_installed: bool, server_runs: bool) -> GateSeen {
        let absent = |why: &str| GateSeen::Absent { why: why.to_owned() };
        match self {
            _ if !is_installed => absent("not installed yet"),
            _ if !server_runs => absent("no server runs"),
            Self::Missing => absent("not in the kernel"),
            Self::Open => GateSeen::OpenEnded,
            Self::Until(until_ms) if until_ms.saturating_sub(now_ms) > ttl_ms => absent("its deadline lies too far"),
            Self::Until(_) => GateSeen::Bounded { evidence: "model".to_owned() },
        }
    }
}
