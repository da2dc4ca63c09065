//! A node's hands: the real guarded and zone actuators over the virtual network, and a model of verification.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use watchdog::actuator::Actuator;
use watchdog::actuator::dns::ZoneActuator;
use watchdog::actuator::guarded::GuardedActuator;
use watchdog::actuator::ssh::{Ask, AskError};
use watchdog::domain::attempt::{Outcome, Prospect, Raised, ReadBack, Warrant};
use watchdog::domain::ids::Token;
use watchdog::domain::plan::{Action, GuardEndpoint};
use watchdog::domain::state::ClusterState;

use crate::world::{Asker, Place, Shared, World, ask};
use crate::{guard, promises, site};

/// SSH, in short: a line there, a line back.
struct Sessions {
    shared: Shared,
    node: u64,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

/// Which of the world's hosts it is.
fn host_of(endpoint: &GuardEndpoint) -> usize {
    site::REGIONS.iter().position(|region| endpoint.host.as_str() == format!("db-{region}")).expect("a known host")
}

#[async_trait]
impl Ask for Sessions {
    async fn ask(&self, endpoint: &GuardEndpoint, line: String, deadline: Instant) -> Result<Vec<u8>, AskError> {
        let at = host_of(endpoint);
        let (here, there) = (Place::Node(self.node), Place::Host(at));
        // Nothing is sent where no session can be had.
        let is_reached = {
            let world = self.shared.lock();
            world.hosts[at].on && !world.is_cut(here, there) && !world.is_cut(there, here)
        };
        if !is_reached {
            tokio::time::sleep_until(deadline).await;
            let reason = format!("no session to {}", endpoint.host);
            return Err(AskError::NotSent { retryable: true, reason });
        }
        let answer = ask(&self.shared, self.node, there, move |world, asker| guard::receive(world, at, line, asker));
        match timeout_at(deadline, answer).await {
            Ok(Ok(bytes)) => Ok(bytes),
            _ => Err(AskError::Lost { reason: format!("no answer from {}", endpoint.host) }),
        }
    }
}

/// What verification finds.
#[derive(Debug, Clone, Copy)]
enum Verified {
    Well,
    Not,
    Held(Token),
}

fn verify_there(world: &mut World, asker: Asker<Verified>, token: Token) {
    let at = site::VALUES.iter().position(|value| *value == world.zone.value).unwrap_or(0);
    let now = world.now();
    let host = &mut world.hosts[at];
    if host.frozen {
        return;
    }
    let found = if !host.acknowledges(now) || !host.services {
        Verified::Not
    } else if host.database.token > token {
        Verified::Held(host.database.token)
    } else {
        host.database.token = token;
        Verified::Well
    };
    asker.answer(world, found);
}

/// Where the schedule says so, the node freezes here, and goes on with what it had in hand when it wakes.
pub async fn caught(shared: &Shared, node: u64, verb: &str) {
    let waking = Arc::new(Notify::new());
    {
        let mut world = shared.lock();
        let Some(at) = world.catches.iter().position(|(wanted, ..)| wanted == verb) else { return };
        let (_, lasts, counts) = world.catches.remove(at);
        world.caught.push((node, lasts, counts, waking.clone()));
    }
    waking.notified().await;
}

type Zones = ZoneActuator<Box<dyn Fn() -> crate::zone::ZoneClient + Send + Sync>>;

/// Every kind of actuator the plan needs, and a look at each attempt before it sets out.
pub struct Hands {
    shared: Shared,
    node: u64,
    state: watch::Receiver<Arc<ClusterState>>,
    guarded: GuardedActuator,
    zones: Zones,
}

impl Hands {
    pub fn new(shared: &Shared, node: u64, state: watch::Receiver<Arc<ClusterState>>) -> Self {
        let sessions = Sessions { shared: shared.clone(), node };
        let of_zone = shared.clone();
        let open = move || crate::zone::ZoneClient { shared: of_zone.clone(), node };
        Self {
            shared: shared.clone(),
            node,
            state,
            guarded: GuardedActuator::over(Box::new(sessions)),
            zones: ZoneActuator(Box::new(open)),
        }
    }

    fn of(&self, action: &Action) -> Option<&dyn Actuator> {
        match action {
            Action::UpsertDns { .. } => Some(&self.zones),
            Action::Fence { .. }
            | Action::CatchUp { .. }
            | Action::Promote { .. }
            | Action::Release { .. }
            | Action::Guarded { .. } => Some(&self.guarded),
            Action::Verify { .. } => None,
        }
    }

    async fn verify(&self, warrant: &Warrant, deadline: Instant) -> Outcome {
        let token = warrant.token;
        let at = site::VALUES.iter().position(|value| *value == self.shared.lock().zone.value).unwrap_or(0);
        let answer =
            ask(&self.shared, self.node, Place::Host(at), move |world, asker| verify_there(world, asker, token));
        match timeout_at(deadline, answer).await {
            Ok(Ok(Verified::Well)) => Outcome::Done { evidence: "all is well".to_owned() },
            Ok(Ok(Verified::Not)) => Outcome::Failed { retryable: true, reason: "not everything works".to_owned() },
            Ok(Ok(Verified::Held(held))) => Outcome::Refused { held },
            _ => Outcome::Failed { retryable: true, reason: "no answer".to_owned() },
        }
    }
}

#[async_trait]
impl Actuator for Hands {
    async fn raise(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Raised {
        promises::raise_is_sent(&mut self.shared.lock(), self.node, warrant, &self.state.borrow());
        match self.of(action) {
            Some(actuator) => actuator.raise(warrant, action, deadline).await,
            None => Raised::Done { in_flight: None },
        }
    }

    async fn can_succeed(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Prospect {
        match self.of(action) {
            Some(actuator) => actuator.can_succeed(warrant, action, deadline).await,
            None => Prospect::Good { evidence: "nothing to foresee".to_owned() },
        }
    }

    async fn end_holds(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Prospect {
        match self.of(action) {
            Some(actuator) => actuator.end_holds(warrant, action, deadline).await,
            None => Prospect::Unknown { reason: "no promotion holds".to_owned() },
        }
    }

    async fn execute(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Outcome {
        promises::attempt_is_sent(&mut self.shared.lock(), self.node, warrant, action, &self.state.borrow());
        caught(&self.shared, self.node, action.verb()).await;
        match self.of(action) {
            Some(actuator) => actuator.execute(warrant, action, deadline).await,
            None => self.verify(warrant, deadline).await,
        }
    }

    fn read_back_raises(&self, action: &Action) -> bool {
        self.of(action).is_some_and(|actuator| actuator.read_back_raises(action))
    }

    async fn read_back(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> ReadBack {
        promises::raise_is_sent(&mut self.shared.lock(), self.node, warrant, &self.state.borrow());
        match self.of(action) {
            Some(actuator) => actuator.read_back(warrant, action, deadline).await,
            None => ReadBack::NotDone { evidence: "nothing to read back".to_owned() },
        }
    }
}
