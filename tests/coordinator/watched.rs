//! After a failover: what serves now is watched by whoever leads, told of once, and its end stands in the run's record.

use std::sync::Arc;

use watchdog::domain::ids::UnixMs;
use watchdog::domain::monitor::MonitorOutcome;
use watchdog::domain::observation::{Observation, Verdict};
use watchdog::domain::run::Run;
use watchdog::domain::state::GroupState;

use crate::Stage;
use crate::world::{Node, group};

/// A stage that watches for so long after a move.
fn stage(monitor_ms: u64) -> Stage {
    let mut stage = Stage::new();
    let mut policy = (*stage.policy).clone();
    policy.groups.values_mut().for_each(|rules| rules.monitor_ms = monitor_ms);
    stage.policy = Arc::new(policy);
    stage
}

fn newest(group: &GroupState) -> &Run {
    group.history.back().expect("a run in the history")
}

/// All three see hanoi's database so.
fn hanoi_is(stage: &Stage, node: &Node, seq: u64, verdict: Verdict) {
    let seen = |observation: &mut Observation| {
        if observation.target.as_str() == "hanoi-db" {
            observation.verdict = verdict;
        }
    };
    node.report_changed(seq, Verdict::Down, 60_000, &stage.policy, seen);
}

#[tokio::test]
async fn c4_trouble_after_a_failover_is_paged_once_whoever_leads_and_the_record_tells_how_it_ended() {
    let stage = stage(600_000);
    let first = stage.lead(3, Verdict::Down);
    let done = stage.until_closed().await;
    let run = newest(&done).id.clone();
    let is_written =
        |group: &GroupState| newest(group).monitor.as_ref().is_some_and(|monitor| !monitor.well.is_empty());
    stage.log.until("that it is well to be written down", is_written).await;
    hanoi_is(&stage, &first, 3, Verdict::Down);
    let is_amiss = |group: &GroupState| {
        newest(group)
            .monitor
            .as_ref()
            .is_some_and(|monitor| monitor.trouble().any(|seen| seen.what == "target hanoi-db"))
    };
    stage.log.until("the trouble to be written down", is_amiss).await;

    // The leader dies; the next one sees the same and says nothing anew.
    drop(first);
    let second = Node::start(2, &stage.policy, &stage.log, &stage.world);
    hanoi_is(&stage, &second, 3, Verdict::Down);
    stage.log.elect(2);
    tokio::time::sleep(crate::REPORT_EVERY * 5).await;
    let told: Vec<String> = stage.log.pages().into_iter().filter(|event| event.contains("MONITOR")).collect();
    assert_eq!(told, ["DR_MONITOR_TROUBLE"]);
    let state = stage.log.state();
    let incident = state.incidents.values().find(|incident| incident.page.event == "DR_MONITOR_TROUBLE").unwrap();
    assert!(incident.page.run == Some(run.clone()) && incident.page.summary.contains(run.as_str()), "{incident:?}");
    stage.end();
}

#[tokio::test]
async fn c4_a_watch_ends_well_by_a_command_and_stays_in_the_record() {
    let stage = stage(400);
    let _leader = stage.lead(3, Verdict::Down);
    stage.until_closed().await;
    let is_over = |group: &GroupState| newest(group).monitor.as_ref().is_some_and(|monitor| monitor.ended.is_some());
    let over = stage.log.until("the watch to be over", is_over).await;
    let monitor = newest(&over).monitor.clone().unwrap();
    let end = monitor.ended.unwrap();
    assert_eq!((end.how, monitor.seen.len()), (MonitorOutcome::Well, 0), "{end:?}");
    assert!(end.at >= UnixMs(monitor.since.0 + 400), "before its time");
    let state = stage.log.state();
    assert!(state.audit.iter().any(|entry| entry.what.starts_with("end the watch after run")));
    assert!(!stage.log.pages().iter().any(|event| event.contains("MONITOR")), "{:?}", stage.log.pages());
    assert_eq!(group(&stage.policy), newest(&over).group);
    stage.end();
}
