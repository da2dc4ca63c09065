//! Which actuator carries out which action.

use async_trait::async_trait;
use tokio::time::Instant;

use crate::actuator::Actuator;
use crate::actuator::dns::DnsActuator;
use crate::domain::attempt::{Outcome, Raised, ReadBack, Warrant};
use crate::domain::plan::Action;

/// Every kind of actuator a plan may need.
pub struct ActuatorSet {
    dns: DnsActuator,
}

impl ActuatorSet {
    /// With empty caches and no connections.
    pub fn new() -> Self {
        Self { dns: DnsActuator::new() }
    }

    fn of(&self, action: &Action) -> Option<&dyn Actuator> {
        match action {
            Action::UpsertDns { .. } => Some(&self.dns),
            Action::Fence { .. } | Action::Promote { .. } | Action::Guarded { .. } | Action::Verify { .. } => None,
        }
    }
}

/// What is answered for an action that this build cannot carry out.
fn cannot(action: &Action) -> String {
    format!("this build has no actuator for {}", action.verb())
}

#[async_trait]
impl Actuator for ActuatorSet {
    async fn raise(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Raised {
        match self.of(action) {
            Some(actuator) => actuator.raise(warrant, action, deadline).await,
            None => Raised::Unknown { reason: cannot(action) },
        }
    }

    async fn execute(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Outcome {
        match self.of(action) {
            Some(actuator) => actuator.execute(warrant, action, deadline).await,
            None => Outcome::Failed { retryable: false, reason: cannot(action) },
        }
    }

    async fn read_back(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> ReadBack {
        match self.of(action) {
            Some(actuator) => actuator.read_back(warrant, action, deadline).await,
            None => ReadBack::Unknown { reason: cannot(action) },
        }
    }
}
