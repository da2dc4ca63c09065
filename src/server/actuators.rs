//! Which actuator carries out which action, and the sessions to guards that the leader keeps warm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actuator::Actuator;
use crate::actuator::described::Described;
use crate::actuator::dns::DnsActuator;
use crate::actuator::guarded::GuardedActuator;
use crate::actuator::ssh::Settings;
use crate::actuator::verify::VerifyActuator;
use crate::coordinator::Leadership;
use crate::domain::attempt::{Outcome, Prospect, Raised, ReadBack, Warrant};
use crate::domain::ids::HostName;
use crate::domain::plan::{Action, GuardEndpoint, Plan};
use crate::domain::policy::ClusterPolicy;
use crate::domain::readiness::ZoneSeen;

/// A session is used so often, so that it neither idles out nor breaks unnoticed.
const WARM_EVERY: Duration = Duration::from_secs(30);
/// A guard that does not answer within this is left for the next round.
const WARM_DEADLINE: Duration = Duration::from_secs(5);

/// Every kind of actuator a plan may need.
pub struct ActuatorSet {
    dns: DnsActuator,
    guarded: GuardedActuator,
    verify: VerifyActuator,
}

impl ActuatorSet {
    /// With empty caches and no connections.
    pub fn new() -> Self {
        Self {
            dns: DnsActuator::new(),
            guarded: GuardedActuator::new(Settings::default()),
            verify: VerifyActuator::new(),
        }
    }

    fn of(&self, action: &Action) -> &dyn Actuator {
        match action {
            Action::UpsertDns { .. } => &self.dns,
            Action::Fence { .. }
            | Action::CatchUp { .. }
            | Action::Promote { .. }
            | Action::Release { .. }
            | Action::Guarded { .. } => &self.guarded,
            Action::Verify { .. } => &self.verify,
        }
    }
}

#[async_trait]
impl Actuator for ActuatorSet {
    async fn raise(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Raised {
        self.of(action).raise(warrant, action, deadline).await
    }

    async fn can_succeed(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Prospect {
        self.of(action).can_succeed(warrant, action, deadline).await
    }

    async fn end_holds(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Prospect {
        self.of(action).end_holds(warrant, action, deadline).await
    }

    async fn execute(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> Outcome {
        self.of(action).execute(warrant, action, deadline).await
    }

    fn read_back_raises(&self, action: &Action) -> bool {
        self.of(action).read_back_raises(action)
    }

    async fn read_back(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> ReadBack {
        self.of(action).read_back(warrant, action, deadline).await
    }
}

impl ActuatorSet {
    /// What is there now, raising no token and changing nothing. `None`: cannot be known before the steps before it ran.
    pub async fn peek(
        &self,
        policy: &ClusterPolicy,
        warrant: &Warrant,
        action: &Action,
        deadline: Instant,
    ) -> Option<ReadBack> {
        match action {
            Action::UpsertDns { .. } => Some(self.dns.read_back(warrant, action, deadline).await),
            Action::Fence { .. } | Action::Promote { .. } | Action::Release { .. } | Action::Guarded { .. } => {
                Some(self.guarded.peek(&policy.cluster, policy.epoch, action, deadline).await)
            }
            Action::CatchUp { .. } | Action::Verify { .. } => None,
        }
    }
}

impl ActuatorSet {
    /// What a guard shows of its host, and what it could do there.
    pub async fn describe(&self, policy: &ClusterPolicy, guard: &GuardEndpoint, deadline: Instant) -> Described {
        self.guarded.describe(&policy.cluster, policy.epoch, guard, deadline).await
    }

    /// What a DNS step's provider shows of the token record.
    pub async fn look_at_zone(&self, warrant: &Warrant, action: &Action, deadline: Instant) -> ZoneSeen {
        self.dns.look(warrant, action, deadline).await
    }
}

/// While this node leads, a session to every guard is kept open: a failover then costs one exchange a step.
pub async fn keep_warm(
    actuators: Arc<ActuatorSet>,
    policy: Arc<ClusterPolicy>,
    mut leadership: watch::Receiver<Leadership>,
) {
    let guards = guards_of(&policy);
    loop {
        if leadership.wait_for(|now| now.leads).await.is_err() {
            return;
        }
        let deadline = Instant::now() + WARM_DEADLINE;
        let warming = guards.values().map(|guard| {
            let (actuators, policy) = (actuators.clone(), policy.clone());
            async move {
                let warmed = actuators.guarded.warm(&policy.cluster, policy.epoch, guard, deadline).await;
                if let Err(error) = warmed {
                    tracing::debug!(host = %guard.host, %error, "the guard does not answer now");
                }
            }
        });
        join_all(warming).await;
        tokio::time::sleep(WARM_EVERY).await;
    }
}

/// Every guard that some plan would ask, once.
fn guards_of(policy: &ClusterPolicy) -> BTreeMap<HostName, GuardEndpoint> {
    let plans = policy.groups.values().flat_map(|group| group.plans());
    plans.flat_map(guards_of_plan).map(|guard| (guard.host.clone(), guard.clone())).collect()
}

/// The guards that a plan would ask, in its order; the same one as often as it would be.
pub fn guards_of_plan(plan: &Plan) -> impl Iterator<Item = &GuardEndpoint> {
    plan.steps().filter_map(|(_, step)| match &step.action {
        Action::Fence { guard }
        | Action::Promote { guard }
        | Action::Release { guard }
        | Action::Guarded { guard, .. } => Some(guard),
        // Both of its hosts are other steps' too.
        Action::CatchUp { .. } | Action::UpsertDns { .. } | Action::Verify { .. } => None,
    })
}
