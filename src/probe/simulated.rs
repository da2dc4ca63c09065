//! A fault that is not there: while a drill's group is to be seen failing, its trigger's targets are reported so by every node.
//! The looks themselves go on, so that what is really there is known again at once.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::Probe;
use crate::domain::ids::GroupName;
use crate::domain::observation::{Failure, FailureKind, Measure};

/// For which drill the group's fault is simulated now, as the node's copy of the log has it.
pub type Faults = Arc<dyn Fn(&GroupName) -> Option<String> + Send + Sync>;

/// The probe of a target whose fault may be simulated.
pub struct SimulatedFault {
    inner: Arc<dyn Probe>,
    group: GroupName,
    faults: Faults,
}

impl SimulatedFault {
    /// Around the target's own probe.
    pub fn around(inner: Arc<dyn Probe>, group: GroupName, faults: Faults) -> Self {
        Self { inner, group, faults }
    }
}

#[async_trait]
impl Probe for SimulatedFault {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        match (self.faults)(&self.group) {
            Some(drill) => Err(Failure {
                kind: FailureKind::TimedOut,
                detail: format!("simulated by drill {drill}; the target was not asked"),
            }),
            None => self.inner.probe().await,
        }
    }

    fn nudge(&self) -> Option<Arc<Notify>> {
        self.inner.nudge()
    }
}
