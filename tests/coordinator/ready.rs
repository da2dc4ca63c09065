//! Readiness, watched by the leader: what is written when, who takes over, and who is paged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use watchdog::coordinator::{Judge, ReadinessWatch};
use watchdog::domain::ids::GroupName;
use watchdog::domain::observation::Verdict;
use watchdog::domain::readiness::Holds;
use watchdog::domain::readiness::mark::{JudgedItem, Judgement};

use crate::Stage;
use crate::world::{Node, PATIENCE};

/// Judges as told, and counts how often it was asked.
struct Told {
    holds: Mutex<Holds>,
    asked: watch::Sender<u64>,
    epoch: AtomicU64,
}

impl Told {
    fn new(holds: Holds) -> Arc<Self> {
        Arc::new(Self { holds: Mutex::new(holds), asked: watch::Sender::new(0), epoch: AtomicU64::new(1) })
    }

    fn say(&self, holds: Holds) {
        *self.holds.lock().unwrap() = holds;
    }

    /// Until it was asked so often more.
    async fn asked_more(&self, times: u64) {
        let mut asked = self.asked.subscribe();
        let enough = *asked.borrow_and_update() + times;
        tokio::time::timeout(PATIENCE, asked.wait_for(|asked| *asked >= enough)).await.unwrap().unwrap();
    }
}

#[async_trait]
impl Judge for Told {
    async fn judge(&self, _group: &GroupName) -> Option<Judgement> {
        let holds = *self.holds.lock().unwrap();
        self.asked.send_modify(|asked| *asked += 1);
        let item = JudgedItem { name: "standby".to_owned(), holds, reason: "as told".to_owned() };
        let (from, to) = ("hcmc".into(), "hanoi".into());
        Some(Judgement { serving_epoch: self.epoch.load(Ordering::Relaxed), from, to, items: vec![item] })
    }
}

/// Watches beside the node's coordinator until dropped.
fn watched(node: &Node, judge: &Arc<Told>) -> (tokio::task::JoinHandle<()>, watch::Sender<bool>) {
    let (stop, stopping) = watch::channel(false);
    let watch = ReadinessWatch::new(node.coordinator.clone(), judge.clone(), Duration::from_millis(10));
    (tokio::spawn(watch.run(stopping)), stop)
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes_and_worse_pages_the_second_time() {
    let stage = Stage::new();
    let leader = stage.lead(3, Verdict::Up);
    let judge = Told::new(Holds::Yes);
    let (watching, _stop) = watched(&leader, &judge);
    let verdict = |wanted| {
        move |group: &watchdog::domain::state::GroupState| {
            group.readiness.as_ref().is_some_and(|mark| mark.judgement.verdict() == wanted)
        }
    };
    stage.log.until("it is judged", verdict(Holds::Yes)).await;
    stage.log.until("every target was seen up", |group| group.seen_up.len() == 3).await;
    let before = stage.log.state().applied_index;
    judge.asked_more(10).await;
    assert_eq!(stage.log.state().applied_index, before, "something was written at rest");

    judge.say(Holds::No);
    stage.log.until("it is not ready", verdict(Holds::No)).await;
    judge.asked_more(10).await;
    let told = |event: &str| stage.log.pages().iter().filter(|page| page.as_str() == event).count();
    assert_eq!(told("NOT_READY"), 1, "{:?}", stage.log.pages());
    let before = stage.log.state().applied_index;
    judge.asked_more(10).await;
    assert_eq!(stage.log.state().applied_index, before, "the same again was written");

    judge.say(Holds::Weak);
    stage.log.until("it is ready again", verdict(Holds::Weak)).await;
    leader.report(3, Verdict::Up, 60_000, &stage.policy);
    tokio::time::timeout(PATIENCE, async {
        while !stage.log.state().alarms.is_empty() {
            judge.asked_more(1).await;
        }
    })
    .await
    .unwrap();
    watching.abort();
    stage.end();
}

#[tokio::test]
async fn a_new_leader_goes_on_from_what_is_remembered() {
    let stage = Stage::new();
    let (old, new) = (Told::new(Holds::Weak), Told::new(Holds::Weak));
    let first = stage.lead(3, Verdict::Up);
    let (one, _stop_one) = watched(&first, &old);
    stage.log.until("it is judged", |group| group.readiness.is_some()).await;
    let second = Node::start(2, &stage.policy, &stage.log, &stage.world);
    let (two, _stop_two) = watched(&second, &new);
    second.report(5, Verdict::Up, 60_000, &stage.policy);
    assert_eq!(*new.asked.borrow(), 0, "who does not lead judges nothing");
    stage.log.elect(2);
    new.asked_more(5).await;
    let asked = *old.asked.borrow();
    new.asked_more(10).await;
    assert!(*old.asked.borrow() <= asked + 1, "the old leader goes on");
    new.say(Holds::Yes);
    let wanted = |group: &watchdog::domain::state::GroupState| {
        group.readiness.as_ref().is_some_and(|mark| mark.judgement.verdict() == Holds::Yes && mark.node.0 == 2)
    };
    stage.log.until("the new leader's word", wanted).await;
    one.abort();
    two.abort();
    stage.end();
}
