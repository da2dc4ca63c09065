//! The kernel egress lease: the host's kernel passes the database's client traffic only until an absolute deadline on
//! `CLOCK_BOOTTIME`, with no program awake. It fences an old primary that nobody can reach.
//!
//! Two kinds. [`Kind::Bpf`] is a program at the database's cgroup that compares boot time with one word of memory:
//! exact, and whatever freezes between reckoning a deadline and writing it does no harm. [`Kind::Nftables`] needs neither
//! cgroup v2 nor BPF; docs/adr/0007 tells what it cannot promise. Both gate both directions of one TCP port, outlive the
//! guard, begin shut, and let exempt addresses (the standbys') through. Unix sockets are not gated.

mod asm;
mod bpf;
pub mod cgroup;
mod kernel;
mod lock;
pub mod nft;
pub mod probe;
mod scope;
pub mod sockets;

use std::io;
use std::path::PathBuf;

pub use scope::{EXEMPT_MAX, Net, Scope};

use super::host::boottime_ns;
use crate::domain::ids::GroupName;

/// The deadline of a gate that passes nothing.
pub const SHUT: u64 = 0;
/// The deadline of a gate that stays open: nobody could be promoted, or a person answers for it.
pub const OPEN_ENDED: u64 = u64::MAX;

/// How the kernel is made to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A BPF program at the database's cgroup.
    Bpf,
    /// A table of nftables in the database's network namespace.
    Nftables,
}

impl Kind {
    /// In configuration and words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Nftables => "nftables",
        }
    }
}

/// What goes wrong at the gate, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// What shall be gated cannot be.
    #[error("the gate of group {group} cannot be like this: {why}")]
    Scope {
        /// The group.
        group: GroupName,
        /// Why.
        why: String,
    },
    /// The cgroup is missing or is none.
    #[error("{} cannot be gated: {why}", .path.display())]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// The kernel refuses something of BPF.
    #[error("the kernel refuses to {what}: {source}; ask `watchdog-guard egress-probe` what this host can do")]
    Bpf {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// `nft` fails.
    #[error("nft cannot {what}: {said}")]
    Nft {
        /// What was tried.
        what: &'static str,
        /// What it said.
        said: String,
    },
    /// The kernel's table of sockets cannot be asked.
    #[error("cannot {what}: {source}")]
    Sockets {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A deadline that is no more.
    #[error("the deadline {until_ns} ns of boot time is past or too near ({now_ns} ns is now): ask for a new lease")]
    Past {
        /// The deadline, `CLOCK_BOOTTIME`, nanoseconds.
        until_ns: u64,
        /// Now, `CLOCK_BOOTTIME`, nanoseconds.
        now_ns: u64,
    },
    /// The gate is not in force as it should be: the database may be talking to clients ungated.
    #[error("the gate is not in force: {0}")]
    NotInForce(String),
    /// Neither kind can be installed.
    #[error("this host can do neither kind of gate: bpf: {bpf}; nftables: {nftables}")]
    Neither {
        /// Why not the one.
        bpf: Box<EgressError>,
        /// Why not the other.
        nftables: Box<EgressError>,
    },
}

/// What the living kernel says: the gate stands in front of the database that runs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// Its kind.
    pub kind: Kind,
    /// The gated TCP port.
    pub port: u16,
    /// The gated cgroup; only of kind `bpf`.
    pub cgroup: Option<PathBuf>,
    /// The deadline in force, `CLOCK_BOOTTIME`, nanoseconds; [`SHUT`], [`OPEN_ENDED`], or one that may be past.
    pub deadline_ns: u64,
    /// When it was read, `CLOCK_BOOTTIME`, nanoseconds.
    pub read_ns: u64,
    /// How it was seen, for people and the evidence.
    pub how: String,
}

#[derive(Debug)]
enum Gate {
    Bpf(bpf::BpfGate),
    Nftables(nft::NftGate),
}

/// A gate in the kernel. Dropping it changes nothing there.
#[derive(Debug)]
pub struct Egress {
    scope: Scope,
    gate: Gate,
}

impl Egress {
    /// Puts the gate into the kernel, shut; or takes over the one that is there with its deadline: it is at no moment
    /// missing nor open. Without a `kind` the better one that this host can do; one that is in force is never left for
    /// the other (remove it by hand first).
    ///
    /// # Errors
    /// The scope is wrong, or the host cannot; see [`EgressError`].
    pub fn install(scope: Scope, kind: Option<Kind>) -> Result<Self, EgressError> {
        Self::install_until(scope, kind, SHUT)
    }

    /// As [`Self::install`], but a gate that is not there yet is put in place open until `first_ns` (`CLOCK_BOOTTIME`,
    /// nanoseconds) in one step: at no moment is it there and shut, so nobody loses a connection or an attempt at one. The
    /// moment is absolute: what is past by now, whatever this process slept through, is shut.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub fn install_until(scope: Scope, kind: Option<Kind>, first_ns: u64) -> Result<Self, EgressError> {
        scope.check()?;
        let gate = match kind {
            Some(Kind::Bpf) => Gate::Bpf(bpf::BpfGate::install(&scope, first_ns)?),
            Some(Kind::Nftables) => Gate::Nftables(nft::NftGate::install(&scope, first_ns)?),
            None if nft::in_force(&scope) => Gate::Nftables(nft::NftGate::install(&scope, first_ns)?),
            None => match bpf::BpfGate::install(&scope, first_ns) {
                Ok(gate) => Gate::Bpf(gate),
                Err(bpf) => match nft::NftGate::install(&scope, first_ns) {
                    Ok(gate) => Gate::Nftables(gate),
                    Err(nftables) => {
                        let (bpf, nftables) = (Box::new(bpf), Box::new(nftables));
                        return Err(EgressError::Neither { bpf, nftables });
                    }
                },
            },
        };
        Ok(Self { scope, gate })
    }

    /// What is gated.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// How.
    pub fn kind(&self) -> Kind {
        match self.gate {
            Gate::Bpf(_) => Kind::Bpf,
            Gate::Nftables(_) => Kind::Nftables,
        }
    }

    /// Lets traffic pass until `until_ns` (`CLOCK_BOOTTIME`, nanoseconds), unless it may pass for longer already. Answers
    /// the deadline now in force: kind `nftables` closes up to a second earlier, at a whole second of the wall clock.
    ///
    /// # Errors
    /// [`EgressError::Past`], or the kernel's. It may have been written nevertheless: it is absolute.
    pub fn extend(&self, until_ns: u64) -> Result<u64, EgressError> {
        let now_ns = boottime_ns();
        if until_ns <= now_ns {
            return Err(EgressError::Past { until_ns, now_ns });
        }
        match &self.gate {
            Gate::Bpf(gate) => Ok(gate.at_least(until_ns)),
            Gate::Nftables(gate) => gate.at_least(until_ns),
        }
    }

    /// Lets traffic pass until `until_ns` at the latest: bounds what was open-ended. Opens nothing. Answers as `extend`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn shorten(&self, until_ns: u64) -> Result<u64, EgressError> {
        match &self.gate {
            Gate::Bpf(gate) => Ok(gate.at_most(until_ns)),
            Gate::Nftables(gate) => gate.at_most(until_ns),
        }
    }

    /// Lets nothing pass from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn shut(&self) -> Result<(), EgressError> {
        self.shorten(SHUT).map(drop)
    }

    /// Lets everything pass until told otherwise.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_ended(&self) -> Result<(), EgressError> {
        self.extend(OPEN_ENDED).map(drop)
    }

    /// Takes the gate out of the kernel: everything passes. By hand only.
    ///
    /// # Errors
    /// The kernel's; part of it may be gone.
    pub fn remove(self) -> Result<(), EgressError> {
        match self.gate {
            Gate::Bpf(gate) => gate.remove(),
            Gate::Nftables(gate) => gate.remove(),
        }
    }

    /// Ends what is left of a stopped server's connections, then takes away whatever gate is there. Where none is, and where this
    /// host cannot have the kind, nothing is to be done.
    ///
    /// # Errors
    /// The kernel's; what is there stays as it is, or part of it is gone.
    pub fn take_away(scope: &Scope, kind: Option<Kind>) -> Result<(), EgressError> {
        for each in [Kind::Bpf, Kind::Nftables].into_iter().filter(|each| kind.is_none_or(|kind| kind == *each)) {
            let is_there = match each {
                Kind::Bpf => scope.cgroup.as_ref().is_some_and(|path| path.exists()),
                Kind::Nftables => nft::in_force(scope),
            };
            if !is_there {
                continue;
            }
            match Self::install(scope.clone(), Some(each)) {
                Ok(gate) => {
                    gate.kill_stale_connections()?;
                    gate.remove()?;
                }
                // No kernel without BPF has a gate of it.
                Err(_) if kind.is_none() && each == Kind::Bpf => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// The gate is in the kernel as it was installed: not taken away, changed, or gone with its cgroup.
    pub fn is_in_place(&self) -> bool {
        self.read().is_ok()
    }

    fn read(&self) -> Result<(u64, String), EgressError> {
        match &self.gate {
            Gate::Bpf(gate) => gate.read(&self.scope),
            Gate::Nftables(gate) => gate.read(),
        }
    }

    fn attestation(&self, deadline_ns: u64, how: String) -> Attestation {
        let cgroup = self.scope.cgroup.clone().filter(|_| self.kind() == Kind::Bpf);
        Attestation { kind: self.kind(), port: self.scope.port, cgroup, deadline_ns, read_ns: boottime_ns(), how }
    }

    /// As [`Self::attest`], where it was seen that no server runs: whatever is started in the cgroup, or on the port, is
    /// gated from its first packet.
    ///
    /// # Errors
    /// [`EgressError::NotInForce`] with what is amiss, or why it cannot be told.
    pub fn attest_without_server(&self) -> Result<Attestation, EgressError> {
        let (deadline_ns, gate) = self.read()?;
        Ok(self.attestation(deadline_ns, format!("{gate}; no server runs")))
    }

    /// Looks whether the gate is in force, as installed, for the server whose first process is `postmaster`.
    ///
    /// # Errors
    /// [`EgressError::NotInForce`] with what is amiss, or why it cannot be told.
    pub fn attest(&self, postmaster: u32) -> Result<Attestation, EgressError> {
        let (deadline_ns, gate) = self.read()?;
        let listening = sockets::listening(postmaster, self.scope.port)?;
        let mut how = format!("{gate}; {listening}");
        if let (Gate::Bpf(_), Some(path)) = (&self.gate, &self.scope.cgroup) {
            let inside = cgroup::Inside::of(path)?;
            let count = inside.holds(postmaster)?;
            listening.all_in(&inside)?;
            how.push_str(&format!("; {count} of its processes and its sockets are in {}", path.display()));
        }
        Ok(self.attestation(deadline_ns, how))
    }

    /// Resets every connection to the gated port but the exempt ones', in this network namespace: after a lapse, before
    /// opening, so that no socket delivers an answer of before. Answers how many.
    ///
    /// # Errors
    /// The kernel was built without `INET_DIAG_DESTROY`, or refuses: then restart the database before opening.
    pub fn kill_stale_connections(&self) -> Result<usize, EgressError> {
        let inside = match (&self.gate, &self.scope.cgroup) {
            (Gate::Bpf(_), Some(path)) => Some(cgroup::Inside::of(path)?),
            _ => None,
        };
        sockets::reset(&self.scope, inside.as_ref())
    }
}
