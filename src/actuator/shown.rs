//! What a guard's status shows of one group, and what follows from it.

use crate::domain::attempt::Prospect;
use crate::domain::ids::GroupName;
use crate::domain::plan::GuardEndpoint;
use crate::domain::stuck::UNLATCH;
use crate::guard::protocol::{GroupStatus, PostgresRole, Status, WalShown};

/// What a guard shows of the warrant's group.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub role: PostgresRole,
    pub seen_by: String,
    pub wal: Option<WalShown>,
    pub group: GroupStatus,
}

impl Shown {
    pub fn of(name: &GroupName, endpoint: &GuardEndpoint, status: Status) -> Result<Self, String> {
        let host = &endpoint.host;
        let postgres = status.postgres.filter(|postgres| &postgres.group == name);
        let postgres = postgres
            .ok_or_else(|| format!("guard of host {host} shows no database of group {name}: configure it there"))?;
        let group = status.groups.into_iter().find(|shown| &shown.group == name);
        let group = group.ok_or_else(|| format!("guard of host {host} does not show group {name}"))?;
        if let Some(fault) = group.fault {
            return Err(format!("guard of host {host}, group {name}: {fault}"));
        }
        Ok(Shown { role: postgres.role, seen_by: postgres.seen_by, wal: postgres.wal, group })
    }

    /// A running standby without a latch can; what is writable was promoted already.
    pub fn can_be_promoted(&self, guard: &GuardEndpoint) -> Prospect {
        let (host, group, seen_by) = (&guard.host, &self.group.group, &self.seen_by);
        match (self.role, &self.group.latch) {
            (PostgresRole::Writable, _) => Prospect::Good { evidence: format!("{host}: server writable ({seen_by})") },
            (PostgresRole::InRecovery, None) => {
                Prospect::Good { evidence: format!("{host}: server in recovery ({seen_by}), not latched") }
            }
            (PostgresRole::InRecovery, Some(latch)) => Prospect::Bad {
                reason: format!(
                    "{host} was fenced under token {} by run {} and is latched since: where it is a standby of the present \
                     primary, `{UNLATCH} --group {group} --confirm HOSTNAME --reason TEXT` there",
                    latch.token, latch.run
                ),
            },
            (PostgresRole::Stopped, Some(latch)) => Prospect::Bad {
                reason: format!(
                    "{host}: server stopped ({seen_by}), fenced under token {} by run {}: `watchdogctl rejoin {group}` makes it a \
                     standby of the present primary",
                    latch.token, latch.run
                ),
            },
            (PostgresRole::Stopped, None) => {
                Prospect::Bad { reason: format!("{host}: server stopped ({seen_by}): start it there") }
            }
            (PostgresRole::Unknown, _) => Prospect::Unknown { reason: format!("{host}: server unknown ({seen_by})") },
        }
    }
}
