//! What the keeper needs of a gate in the kernel, and the real one: [`crate::guard::egress`].

use std::sync::{Arc, Mutex, PoisonError};

use super::config::{GateKind, Lease};
use crate::domain::ids::GroupName;
use crate::domain::lease::GateSeen;
use crate::guard::config::{Config, Postgres};
use crate::guard::egress::probe::clock_source;
use crate::guard::egress::{Attestation, Egress, EgressError, Kind, OPEN_ENDED, SHUT, Scope, cgroup};
use crate::guard::host::boottime_ms;
use crate::guard::postgres;

const NS_PER_MS: u64 = 1_000_000;

/// Why a gate did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The kernel's gate.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// Not put into the kernel by this process yet.
    #[error("the gate of group {0} is not installed yet")]
    NotInstalled(GroupName),
    /// The configuration has no `[lease]` or no `[postgres]`.
    #[error("the guard's configuration has no {0}: there is nothing to gate")]
    Nothing(&'static str),
}

/// A gate in the host's kernel. It outlives this process. Deadlines are `CLOCK_BOOTTIME`, milliseconds.
pub trait Gate: Send + Sync {
    /// Puts it in place, shut; or takes over the one that is there, as it is. A standby's host is left without one.
    ///
    /// # Errors
    /// The host cannot.
    fn install(&self) -> Result<(), GateError>;

    /// Puts it in place open until `boottime_ms`, in one step; or takes over the one that is there, and extends it.
    ///
    /// # Errors
    /// The host cannot.
    fn begin(&self, boottime_ms: u64) -> Result<(), GateError>;

    /// Lets pass until `boottime_ms` at least. A moment that is past does nothing.
    ///
    /// # Errors
    /// The kernel's.
    fn extend_until(&self, boottime_ms: u64) -> Result<(), GateError>;

    /// Lets pass until `boottime_ms` at most: bounds what stood open, opens nothing.
    ///
    /// # Errors
    /// The kernel's.
    fn bound_at(&self, boottime_ms: u64) -> Result<(), GateError>;

    /// Lets everything pass.
    ///
    /// # Errors
    /// The kernel's.
    fn open(&self) -> Result<(), GateError>;

    /// How it stands, from the kernel.
    fn seen(&self) -> GateSeen;

    /// How the commit gate stands that is configured beside it, in words; `None` where there is none.
    fn second_layer(&self) -> Option<String> {
        None
    }
}

/// This host's gate.
///
/// # Errors
/// The configuration names nothing to gate.
pub fn of(config: &Config) -> Result<Arc<dyn Gate>, GateError> {
    Ok(Arc::new(configured(config)?))
}

fn configured(config: &Config) -> Result<EgressGate, GateError> {
    let lease = config.lease.as_ref().ok_or(GateError::Nothing("[lease]"))?;
    let pg = config.postgres.clone().ok_or(GateError::Nothing("[postgres]"))?;
    let group = config.postgres_group().cloned().ok_or(GateError::Nothing("group of [postgres]"))?;
    let scope = Scope { group, port: pg.port, exempt: lease.exempt.clone(), cgroup: lease.cgroup.clone() };
    let kind = match lease.gate {
        GateKind::Auto => None,
        GateKind::Bpf => Some(Kind::Bpf),
        GateKind::Nftables => Some(Kind::Nftables),
    };
    Ok(EgressGate { pg, scope, kind, lease: lease.clone(), egress: Mutex::new(None) })
}

/// Takes the gate away from a fenced host whose data can only start as a standby by now, so that a standby answers who reads from
/// it, as one that never was a primary does. Its server must be stopped.
///
/// What counted on the gate was the silence of that primary: nothing of it runs any more, and what its connections still had to say is
/// ended before the gate goes. Once promoted the server gets a gate anew, and nothing counts on it before.
///
/// # Errors
/// The server is not gone, or the kernel refuses: the gate stays, or may be gone in part.
pub fn leave(config: &Config) -> Result<(), GateError> {
    if config.lease.is_none() {
        return Ok(());
    }
    let gate = configured(config)?;
    postgres::gone(&gate.pg).map_err(|seen| EgressError::NotInForce(seen.how))?;
    Ok(Egress::take_away(&gate.scope, gate.kind)?)
}

struct EgressGate {
    pg: Postgres,
    scope: Scope,
    kind: Option<Kind>,
    lease: Lease,
    egress: Mutex<Option<Egress>>,
}

impl EgressGate {
    fn with<T>(&self, does: impl FnOnce(&Egress) -> Result<T, EgressError>) -> Result<T, GateError> {
        let egress = self.egress.lock().unwrap_or_else(PoisonError::into_inner);
        let egress = egress.as_ref().ok_or_else(|| GateError::NotInstalled(self.scope.group.clone()))?;
        Ok(does(egress)?)
    }

    fn attest(&self, egress: &Egress) -> Option<Result<Attestation, EgressError>> {
        postgres::postmaster(&self.pg.data_dir).map(|pid| egress.attest(pid))
    }

    /// A stopped server says nothing, and the one that is started next stands behind a gate that does not go with it: a
    /// table, or programs at a cgroup that the configuration names.
    fn attest_stopped(&self, egress: &Egress) -> Result<Attestation, EgressError> {
        postgres::gone(&self.pg).map_err(|seen| EgressError::NotInForce(seen.how))?;
        if egress.kind() == Kind::Bpf && self.scope.cgroup.is_none() {
            let why = "no server runs, and its cgroup may go with it: name one that stays in lease.cgroup";
            return Err(EgressError::NotInForce(why.to_owned()));
        }
        egress.attest_without_server()
    }

    /// After a lapse no socket may deliver what it could not say in time: they are ended while the gate is still shut, so that
    /// there is no moment in which one is alive and may speak. Their resets pass a shut gate, as they carry no answer.
    fn reset_after_lapse(&self, egress: &Egress) -> Result<(), EgressError> {
        match self.attest(egress) {
            Some(Ok(seen)) if seen.deadline_ns <= seen.read_ns => egress.kill_stale_connections().map(drop),
            _ => Ok(()),
        }
    }
}

impl EgressGate {
    /// `first_ns`: the deadline of a gate that is not there yet. `false`: none belongs here, the database is a standby by now.
    fn place(&self, first_ns: u64) -> Result<bool, GateError> {
        let mut egress = self.egress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scope = self.scope.clone();
        if let (None, Some(pid)) = (&scope.cgroup, postgres::postmaster(&self.pg.data_dir)) {
            // Where it has none that can be gated, the other kind needs none.
            scope.cgroup = cgroup::of_process(pid).ok();
        }
        let mut kind = self.kind;
        if let Some(there) = egress.as_ref() {
            // The cgroup of a server that is stopped may be gone: the next one's is gated when it runs.
            let has_no_place = there.kind() == Kind::Bpf && scope.cgroup.is_none();
            let is_elsewhere = there.kind() == Kind::Bpf && scope.cgroup != there.scope().cgroup;
            if has_no_place || (!is_elsewhere && there.is_in_place()) {
                return Ok(true);
            }
            tracing::warn!(group = %self.scope.group, "the gate is gone from the kernel, or from where the server is: installing it again");
            kind = Some(there.kind());
        }
        let placed = Egress::install_until(scope, kind, first_ns)?;
        // The host was looked at a while ago. A rejoin that has marked it as a standby and taken its gate away since would leave
        // ours shut before its readers for good; one that marks it after this look takes ours away as well.
        if !postgres::may_serve(&self.pg) {
            *egress = None;
            placed.kill_stale_connections()?;
            placed.remove()?;
            return Ok(false);
        }
        *egress = Some(placed);
        Ok(true)
    }
}

impl Gate for EgressGate {
    fn install(&self) -> Result<(), GateError> {
        self.place(SHUT).map(drop)
    }

    fn begin(&self, until_ms: u64) -> Result<(), GateError> {
        match self.place(until_ms.saturating_mul(NS_PER_MS))? {
            // One that was there already has kept its own deadline: it may have lapsed.
            true => self.extend_until(until_ms),
            false => Ok(()),
        }
    }

    fn extend_until(&self, until_ms: u64) -> Result<(), GateError> {
        self.with(|egress| {
            self.reset_after_lapse(egress)?;
            match egress.extend(until_ms.saturating_mul(NS_PER_MS)) {
                Ok(_) | Err(EgressError::Past { .. }) => Ok(()),
                Err(e) => Err(e),
            }
        })
    }

    fn bound_at(&self, until_ms: u64) -> Result<(), GateError> {
        self.with(|egress| egress.shorten(until_ms.saturating_mul(NS_PER_MS)).map(drop))
    }

    fn open(&self) -> Result<(), GateError> {
        self.with(|egress| {
            self.reset_after_lapse(egress)?;
            egress.open_ended()
        })
    }

    fn seen(&self) -> GateSeen {
        let absent = |why: String| GateSeen::Absent { why };
        if let Some(why) = self.lease.clock_fault(&clock_source()) {
            return absent(why);
        }
        let egress = self.egress.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(egress) = egress.as_ref() else { return absent("not installed yet".to_owned()) };
        match self.attest(egress).unwrap_or_else(|| self.attest_stopped(egress)) {
            Err(e) => absent(e.to_string()),
            Ok(seen) if seen.deadline_ns == OPEN_ENDED => GateSeen::OpenEnded,
            Ok(seen) => {
                let far_ms = (seen.deadline_ns / NS_PER_MS).saturating_sub(boottime_ms());
                if far_ms > self.lease.ttl_ms {
                    return absent(format!("its deadline lies {far_ms} ms ahead, more than the TTL: {}", seen.how));
                }
                GateSeen::Bounded { evidence: seen.how }
            }
        }
    }
}
