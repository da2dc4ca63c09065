//! The leader's answers to primaries' guards: a quorum round, the state, and what must be committed before the answer.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::journal::{CONFIRM_TIMEOUT, PROPOSE_TIMEOUT};
use crate::api::lease::{LeaseDesk, Word};
use crate::clock::unix_now;
use crate::consensus::Consensus;
use crate::coordinator::Leases;
use crate::domain::command::{Applied, Change, Command};
use crate::domain::ids::{ClusterName, GroupName, NodeId, Principal};
use crate::domain::lease::{LeaseAnswer, LeaseRequest, answer};
use crate::domain::policy::{ClusterPolicy, Fencing};
use crate::proto::LeaseWord;

/// This node's desk.
pub struct Desk {
    pub consensus: Consensus,
    pub policy: Arc<ClusterPolicy>,
    pub node: NodeId,
    pub name: Principal,
    pub leases: Arc<Leases>,
}

impl Desk {
    async fn commit(&self, change: Change) -> Result<(), String> {
        let what = change.name();
        let command = Command { node: self.node, at: unix_now(), by: self.name.clone(), request_id: None, change };
        match self.consensus.propose(command, PROPOSE_TIMEOUT).await {
            Ok(Applied::Rejected(rejection)) => Err(format!("{what} was rejected: {}", rejection.message)),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{what} was not committed: {error}")),
        }
    }

    fn word(&self, group: &GroupName, word: LeaseWord, why: String) -> Word {
        let state = self.consensus.state().borrow().clone();
        let shown = state.group(group);
        let lease = shown.and_then(|group| group.lease.clone());
        Word {
            word,
            why,
            bound: lease.is_some(),
            holders: lease.map(|lease| lease.holders).unwrap_or_default(),
            // A run that is open may already count on holds having ended.
            ground: shown.filter(|group| group.open_run.is_none()).map(|group| group.token),
            ttl_ms: match shown.map(|group| &group.fencing) {
                Some(Fencing::Lease { ttl_ms }) => *ttl_ms,
                _ => 0,
            },
        }
    }
}

#[async_trait]
impl LeaseDesk for Desk {
    fn cluster(&self) -> (ClusterName, u64) {
        (self.policy.cluster.clone(), self.policy.epoch)
    }

    async fn renew(&self, request: LeaseRequest) -> Result<Word, String> {
        let arrived = Instant::now();
        // Begins after the arrival, and waits until everything committed before is applied here.
        self.consensus.confirm_leadership(CONFIRM_TIMEOUT).await.map_err(|error| error.to_string())?;
        let group = &request.group;
        let state = self.consensus.state().borrow().clone();
        let denied = |why: String| Ok(self.word(group, LeaseWord::Denied, why));
        match answer(&state, &request, self.leases.is_stopped(group), unix_now()) {
            LeaseAnswer::Granted { bind } => {
                if let Some(binding) = bind {
                    let host = binding.host.clone();
                    match self.commit(Change::BindLease { group: group.clone(), binding }).await {
                        Ok(()) => tracing::info!(%group, %host, "the lease is bound: its silence counts from here on"),
                        Err(why) => tracing::warn!(%group, %host, "the lease is not bound: {why}"),
                    }
                }
                if !self.leases.grant(group, arrived) {
                    return denied("a fence was ordered".to_owned());
                }
                Ok(self.word(group, LeaseWord::Granted, String::new()))
            }
            LeaseAnswer::OpenEnded { unbind, why } => {
                if unbind {
                    self.commit(Change::UnbindLease { group: group.clone(), reason: why.clone() }).await?;
                    tracing::warn!(%group, "the lease is unbound: {why}");
                }
                Ok(self.word(group, LeaseWord::OpenEnded, why))
            }
            LeaseAnswer::Unreliable { why } => {
                self.commit(Change::UnbindLease { group: group.clone(), reason: why.clone() }).await?;
                tracing::error!(%group, "the lease is unbound, promotion needs other proof from here on: {why}");
                denied(why)
            }
            LeaseAnswer::Denied { why } => denied(why),
        }
    }
}
