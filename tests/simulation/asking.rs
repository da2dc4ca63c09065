//! A guard's request for its lease on its way: to some node, from there to the leader's real desk, and back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use watchdog::api::lease::{LeaseDesk, Told, Word as Answer};
use watchdog::consensus::Consensus;
use watchdog::domain::ids::HostName;
use watchdog::domain::lease::{GateSeen, LeaseRequest};
use watchdog::guard::lease::keeper::{Said, Word};
use watchdog::proto::LeaseWord;
use watchdog::server::leases::Desk;

use crate::world::{Place, Shared, World};
use crate::{keeping, leases, site};

/// As `api::lease` waits for the leader.
const FORWARD: Duration = Duration::from_millis(800);

/// What a node answers guards with.
#[derive(Clone)]
pub struct Front {
    pub desk: Arc<Desk>,
    pub consensus: Consensus,
}

/// Each node's, while its program runs.
pub type Desks = Arc<Mutex<BTreeMap<u64, Front>>>;

/// One request.
#[derive(Debug, Clone)]
pub struct Renewal {
    pub nonce: u64,
    pub gate: GateSeen,
    pub holders: Vec<HostName>,
    pub ttl_ms: u64,
    pub challenge: u64,
}

/// Sends it from the host's guard to a node.
pub fn send(world: &mut World, from: (usize, u64), node: u64, renewal: Renewal) {
    let Some(shared) = world.own.clone() else { return };
    let late = world.lateness();
    let job = Box::pin(at_node(shared, node, from, renewal));
    world.send_later(Place::Host(from.0), node, late, job);
}

async fn at_node(shared: Shared, node: u64, from: (usize, u64), renewal: Renewal) {
    let Some(front) = front(&shared, node) else { return };
    let nonce = renewal.nonce;
    let standing = front.consensus.leadership().borrow().clone();
    let answer = match standing.leader {
        _ if standing.is_self => renew(&shared, node, from.0, renewal).await,
        Some(leader) => carried(&shared, (node, leader.0), from.0, renewal).await,
        None => None,
    };
    let said = answer.map(said);
    let mut world = shared.lock();
    let late = world.lateness();
    if let Some(delay) = world.travel(Place::Node(node), Place::Host(from.0)) {
        world.later(delay + late, move |world| keeping::answered(world, from, nonce, said));
    }
}

fn front(shared: &Shared, node: u64) -> Option<Front> {
    let desks = shared.lock().desks.clone();
    desks.lock().expect("whole").get(&node).cloned()
}

async fn carried(shared: &Shared, (node, leader): (u64, u64), at: usize, renewal: Renewal) -> Option<Answer> {
    let (slot, answer) = oneshot::channel();
    let there = shared.clone();
    let job = Box::pin(async move {
        let answer = renew(&there, leader, at, renewal).await;
        let back = Box::pin(async move { drop(slot.send(answer)) });
        there.lock().send_to_node(Place::Node(leader), node, back);
    });
    if !shared.lock().send_to_node(Place::Node(node), leader, job) {
        tokio::time::sleep(FORWARD).await;
        return None;
    }
    tokio::time::timeout(FORWARD, answer).await.ok()?.ok()?
}

async fn renew(shared: &Shared, node: u64, at: usize, renewal: Renewal) -> Option<Answer> {
    let front = front(shared, node)?;
    let request = LeaseRequest {
        group: site::group(),
        host: HostName(format!("db-{}", site::REGIONS[at])),
        region: site::region(at),
        ttl_ms: renewal.ttl_ms,
        gate: renewal.gate,
        holders: renewal.holders,
        may_bind: false,
    };
    let answer = front.desk.renew(request, renewal.challenge, Told::default()).await.ok()?;
    if answer.word == LeaseWord::Granted {
        leases::granted(&mut shared.lock(), node, at);
    }
    Some(answer)
}

fn said(answer: Answer) -> (Said, u64) {
    let word = match answer.word {
        LeaseWord::Granted => Word::Granted,
        LeaseWord::OpenEnded => Word::OpenEnded,
        LeaseWord::Denied | LeaseWord::Unspecified => Word::Denied,
    };
    let Answer { why, bound, holders, ground, ttl_ms, challenge, .. } = answer;
    (Said { word, why, bound, holders, ground, ttl_ms }, challenge)
}
