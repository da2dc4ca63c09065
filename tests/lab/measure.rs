//! What a run took, from its own record and the client's.

use std::time::SystemTime;

use watchdog::proto::Run;

use super::story::{since, time};

/// One step.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StepTime {
    /// Its name.
    pub id: String,
    /// From its first start to its result, seconds.
    pub took_s: f64,
    /// Its result, since the fault, seconds.
    pub done_at_s: f64,
}

/// One failover, in seconds.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Times {
    /// From the fault to the first failure that counted.
    pub detection_s: f64,
    /// From the fault to the run's opening.
    pub decision_s: f64,
    /// From the opening to the first step's result: the fence.
    pub first_effect_s: f64,
    /// Each step.
    pub steps: Vec<StepTime>,
    /// From the fault to the first row acknowledged on the other side.
    pub recovery_s: f64,
    /// From the fault to the run's end.
    pub closed_s: f64,
}

impl Times {
    /// Computes them; what the run does not tell is 0.
    pub fn of(run: &Run, fault: SystemTime, first_row: SystemTime) -> Self {
        let at = |ms: i64| since(fault, time(ms));
        let summary = run.summary.clone().unwrap_or_default();
        let opened = summary.opened_at_ms;
        let mut steps: Vec<StepTime> = run
            .steps
            .iter()
            .filter_map(|step| {
                let (begun, done) = (step.first_started_at_ms?, step.finished_at_ms?);
                let took_s = since(time(begun), time(done));
                Some(StepTime { id: step.id.clone(), took_s, done_at_s: at(done) })
            })
            .collect();
        steps.sort_by(|a, b| a.done_at_s.total_cmp(&b.done_at_s));
        let first_effect = run.steps.iter().filter_map(|step| step.first_started_at_ms).min().unwrap_or(opened);
        Self {
            detection_s: run.fault_at_ms.map_or(0.0, at),
            decision_s: at(opened),
            first_effect_s: since(time(opened), time(first_effect)),
            steps,
            recovery_s: since(fault, first_row),
            closed_s: summary.closed_at_ms.map_or(0.0, at),
        }
    }
}
