//! The leader's answers to primaries' guards: a quorum round, the state, and what must be committed before the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex as Lock, PoisonError};

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::journal::{CONFIRM_TIMEOUT, PROPOSE_TIMEOUT};
use crate::api::lease::{LeaseDesk, Told, Word};
use crate::clock::unix_now;
use crate::consensus::Consensus;
use crate::coordinator::Leases;
use crate::domain::command::{Applied, Change, Command, Rejection, RejectionCode};
use crate::domain::ids::{ClusterName, GroupName, NodeId, Principal, RegionName};
use crate::domain::lease::{GateSeen, Given, LeaseAnswer, LeaseAsked, LeaseRequest, answer};
use crate::domain::mutation::{Mutation, is_out};
use crate::domain::policy::{ClusterPolicy, Fencing};
use crate::proto::LeaseWord;

const FENCE_ORDERED: &str = "a fence was ordered";

/// What each group's serving primary asked last, for the status. A request that was denied because another region serves
/// is not remembered: what matters is who should hold the lease.
#[derive(Debug, Default)]
pub struct AskedBook(Lock<BTreeMap<GroupName, (Instant, LeaseAsked)>>);

impl AskedBook {
    fn remember(&self, group: &GroupName, arrived: Instant, asked: LeaseAsked) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.insert(group.clone(), (arrived, asked));
    }

    /// The newest, with its age.
    pub fn newest(&self, group: &GroupName) -> Option<LeaseAsked> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (arrived, asked) = book.get(group)?;
        let age_ms = u64::try_from(arrived.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(LeaseAsked { age_ms, ..asked.clone() })
    }
}

/// This node's desk.
pub struct Desk {
    consensus: Consensus,
    policy: Arc<ClusterPolicy>,
    node: NodeId,
    name: Principal,
    leases: Arc<Leases>,
    book: Arc<AskedBook>,
    /// Requests take turns: what one of them commits, the next one's answer knows.
    turn: Mutex<Turn>,
}

/// What holds within one term.
#[derive(Debug, Default)]
struct Turn {
    term: u64,
    /// With the serving epoch in which it was drawn: what was attested in an earlier one is of another server's life.
    challenges: BTreeMap<GroupName, (u64, u64)>,
    /// Groups with a binding that was proposed and never heard of: it may still be committed.
    unheard: BTreeSet<GroupName>,
}

impl Turn {
    fn challenge(&mut self, group: &GroupName, serving_epoch: u64) -> u64 {
        let known = self.challenges.get(group).filter(|(epoch, _)| *epoch == serving_epoch);
        match known {
            Some((_, challenge)) => *challenge,
            None => self.draw_anew(group, serving_epoch),
        }
    }

    /// Whatever was sent before now binds nothing any more.
    fn draw_anew(&mut self, group: &GroupName, serving_epoch: u64) -> u64 {
        let challenge = rand::random();
        self.challenges.insert(group.clone(), (serving_epoch, challenge));
        challenge
    }
}

/// How a commit ended.
enum Committed {
    Done,
    /// Certainly not in force.
    Rejected(Rejection),
    /// It may still come.
    Unheard(String),
}

impl Desk {
    /// `leases`: the coordinator's own, which says where granting has stopped.
    pub fn new(
        consensus: Consensus,
        policy: Arc<ClusterPolicy>,
        node: NodeId,
        name: Principal,
        leases: Arc<Leases>,
        book: Arc<AskedBook>,
    ) -> Self {
        Self { consensus, policy, node, name, leases, book, turn: Mutex::default() }
    }

    /// Only within the term in which it was decided: by a later one the challenge it rests on is void.
    async fn commit(&self, term: u64, change: Change) -> Committed {
        let what = change.name();
        let command =
            Command { node: self.node, at: unix_now(), by: self.name.clone(), from: None, request_id: None, change };
        match self.consensus.propose_in_term(term, command, PROPOSE_TIMEOUT).await {
            Ok(Applied::Rejected(rejection)) => Committed::Rejected(rejection),
            Ok(_) => Committed::Done,
            Err(error) => Committed::Unheard(format!("{what} was not heard of: {error}")),
        }
    }

    /// After this is committed, or certainly needless, silence proves nothing. An error: nobody may rely on that.
    async fn unbind(&self, turn: &mut Turn, group: &GroupName, reason: &str) -> Result<(), String> {
        match self.commit(turn.term, Change::UnbindLease { group: group.clone(), reason: reason.to_owned() }).await {
            Committed::Rejected(rejection) if rejection.code == RejectionCode::RunOpen => Err(rejection.message),
            // Rejected: it was not bound, and the log has passed every earlier binding.
            Committed::Done | Committed::Rejected(_) => {
                turn.unheard.remove(group);
                Ok(())
            }
            Committed::Unheard(why) => Err(why),
        }
    }

    async fn bind(&self, turn: &mut Turn, group: &GroupName, binding: crate::domain::lease::LeaseBinding) {
        let host = binding.host.clone();
        match self.commit(turn.term, Change::BindLease { group: group.clone(), binding }).await {
            Committed::Done => tracing::info!(%group, %host, "the lease is bound: its silence counts from here on"),
            Committed::Rejected(why) => tracing::warn!(%group, %host, "the lease is not bound: {}", why.message),
            Committed::Unheard(why) => {
                turn.unheard.insert(group.clone());
                tracing::warn!(%group, %host, "{why}");
            }
        }
    }

    /// Not this region serves by now. A promotion ends the binding too: what was found unbound may be a gate that a
    /// promotion counts on, begun since the state was read.
    fn serves_elsewhere(&self, group: &GroupName, region: &RegionName) -> Option<String> {
        let state = self.consensus.state().borrow().clone();
        let serving = state.group(group)?.serving.region.clone();
        (serving.as_ref() != Some(region)).then(|| {
            let serving = serving.as_ref().map_or("nobody", RegionName::as_str);
            format!("{serving} serves by now, not {region}")
        })
    }

    fn word(&self, turn: &mut Turn, group: &GroupName, word: LeaseWord, why: String) -> Word {
        let state = self.consensus.state().borrow().clone();
        let shown = state.group(group);
        let lease = shown.and_then(|group| group.lease.clone());
        Word {
            word,
            why,
            bound: lease.is_some(),
            holders: lease.map(|lease| lease.holders).unwrap_or_default(),
            // A run that is open may already count on holds having ended.
            ground: shown.filter(|group| group.open_run.is_none() && !group.unconfirmed).map(|group| group.token),
            ttl_ms: match shown.map(|group| &group.fencing) {
                Some(Fencing::Lease { ttl_ms }) => *ttl_ms,
                _ => 0,
            },
            challenge: turn.challenge(group, shown.map_or(0, |group| group.serving.epoch)),
        }
    }
}

#[async_trait]
impl LeaseDesk for Desk {
    fn cluster(&self) -> (ClusterName, u64) {
        (self.policy.cluster.clone(), self.policy.epoch)
    }

    async fn renew(&self, request: LeaseRequest, challenge: u64, told: Told) -> Result<Word, String> {
        let arrived = Instant::now();
        let mut turn = self.turn.lock().await;
        // Begins after the arrival, and waits until everything committed before is applied here.
        let term = self.consensus.confirm_leadership(CONFIRM_TIMEOUT).await.map_err(|error| error.to_string())?;
        if turn.term != term {
            *turn = Turn { term, ..Turn::default() };
        }
        let (group, region) = (request.group.clone(), request.region.clone());
        if turn.unheard.contains(&group) {
            self.unbind(&mut turn, &group, "a binding was proposed and never heard of").await?;
        }
        let state = self.consensus.state().borrow().clone();
        let epoch = state.group(&group).map_or(0, |group| group.serving.epoch);
        let may_bind = turn.challenge(&group, epoch) == challenge || is_out(Mutation::ChallengeUnchecked);
        let request = LeaseRequest { may_bind, ..request };
        if !matches!(request.gate, GateSeen::Bounded { .. }) {
            turn.draw_anew(&group, epoch);
        }
        let (word, why) = match answer(&state, &request, self.leases.is_stopped(&group, &region), unix_now()) {
            LeaseAnswer::Granted { bind } => {
                if let Some(binding) = bind {
                    self.bind(&mut turn, &group, binding).await;
                }
                if self.leases.grant(&group, &region, arrived) {
                    (LeaseWord::Granted, String::new())
                } else {
                    (LeaseWord::Denied, FENCE_ORDERED.to_owned())
                }
            }
            LeaseAnswer::OpenEnded { unbind, why } => {
                turn.draw_anew(&group, epoch);
                if unbind && !is_out(Mutation::OpenBeforeUnbind) {
                    self.unbind(&mut turn, &group, &why).await?;
                    tracing::warn!(%group, "the lease is unbound: {why}");
                }
                match self.serves_elsewhere(&group, &region) {
                    Some(why) => (LeaseWord::Denied, why),
                    // A guard that cannot write down that its gate is open takes it for a grant.
                    None if self.leases.grant(&group, &region, arrived) => (LeaseWord::OpenEnded, why),
                    None => (LeaseWord::Denied, FENCE_ORDERED.to_owned()),
                }
            }
            LeaseAnswer::Unreliable { why } => {
                self.unbind(&mut turn, &group, &why).await?;
                tracing::error!(%group, "the lease is unbound, promotion needs other proof from here on: {why}");
                (LeaseWord::Denied, why)
            }
            LeaseAnswer::Denied { why } => (LeaseWord::Denied, why),
        };
        let serves = state.group(&group).and_then(|group| group.serving.region.as_ref()) == Some(&region);
        if serves {
            let given = match word {
                LeaseWord::Granted => Given::Granted,
                LeaseWord::OpenEnded => Given::OpenEnded,
                LeaseWord::Denied | LeaseWord::Unspecified => Given::Denied,
            };
            let (host, gate, why) = (request.host, request.gate, why.clone());
            let Told { open_for_ms, holds } = told;
            self.book.remember(&group, arrived, LeaseAsked { host, age_ms: 0, given, why, gate, open_for_ms, holds });
        }
        Ok(self.word(&mut turn, &group, word, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_ends_with_the_serving_epoch_and_with_every_answer_that_may_open() {
        let (mut turn, group) = (Turn::default(), GroupName::from("aicamera"));
        let first = turn.challenge(&group, 1);
        assert_eq!(turn.challenge(&group, 1), first);
        // Failed over and back again: what its primary attested before is another server's life.
        assert_ne!(turn.challenge(&group, 2), first);
        let third = turn.challenge(&group, 3);
        assert_ne!(third, first);
        assert_ne!(turn.draw_anew(&group, 3), third);
        assert_ne!(turn.challenge(&group, 3), third);
        assert_ne!(turn.challenge(&GroupName::from("other"), 3), turn.challenge(&group, 3));
    }
}
