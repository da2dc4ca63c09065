//! The outbox on its way: order, independence, loss of leadership, duplicates.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;
use watchdog::domain::ids::{ReceiverName, UnixMs};
use watchdog::domain::page::{Delivery, OutboxEntry, PageAction};
use watchdog::domain::state::ClusterState;
use watchdog::notify::{Backoff, Dispatcher, Notifier, Sent, Settle, Told, Webhook, no_quorum_page};

use super::receiver::{Answer, StandInReceiver};
use super::{AT, page, tls, wait_until};

const QUICK: Backoff = Backoff { first: Duration::from_millis(2), max: Duration::from_millis(20) };
const LONG: Duration = Duration::from_secs(20);

/// A stand-in for the log: commits at once, except for the first `failing` times.
struct StandInLog {
    state: watch::Sender<Arc<ClusterState>>,
    told: Mutex<Vec<Told>>,
    failing: Mutex<u32>,
}

#[async_trait]
impl Settle for StandInLog {
    async fn settle(&self, told: Told) -> Result<(), String> {
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err("no quorum".to_owned());
        }
        self.told.lock().unwrap().push(told.clone());
        self.state.send_modify(|state| {
            let mut next = (**state).clone();
            for entry in next.outbox.iter_mut().filter(|entry| entry.seq == told.seq) {
                entry.deliveries.insert(told.receiver.clone(), Delivery::Delivered { at: AT });
            }
            *state = Arc::new(next);
        });
        Ok(())
    }
}

impl StandInLog {
    fn told(&self) -> Vec<(u64, String, bool)> {
        let told = self.told.lock().unwrap();
        told.iter().map(|t| (t.seq, t.receiver.to_string(), t.refused.is_some())).collect()
    }
}

struct Rig {
    log: Arc<StandInLog>,
    leading: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Rig {
    fn start(receivers: &[(&str, &StandInReceiver)], outbox: &[(u64, &[&str])]) -> Self {
        tls();
        let entry = |(seq, to): &(u64, &[&str])| OutboxEntry {
            seq: *seq,
            at: AT,
            page: page(&format!("key-{seq}")),
            deliveries: to.iter().map(|name| (ReceiverName::from(*name), Delivery::Pending)).collect(),
            notice: None,
        };
        let state = ClusterState { outbox: outbox.iter().map(entry).collect(), ..ClusterState::default() };
        let log = Arc::new(StandInLog {
            state: watch::Sender::new(Arc::new(state)),
            told: Mutex::default(),
            failing: Mutex::default(),
        });
        let (leading, leads) = watch::channel(false);
        let (dispatcher, state, settle) = (dispatcher(receivers), log.state.subscribe(), log.clone());
        let task = tokio::spawn(async move { dispatcher.run(state, leads, &*settle).await });
        Self { log, leading, task }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn dispatcher(receivers: &[(&str, &StandInReceiver)]) -> Dispatcher {
    let line = |(name, receiver): &(&str, &StandInReceiver)| {
        let url = Url::parse(&receiver.url()).unwrap();
        let hook = Webhook::new("demo".into(), url, None, LONG).unwrap();
        (ReceiverName::from(*name), Box::new(hook) as Box<dyn Notifier>)
    };
    Dispatcher::with_notifiers(receivers.iter().map(line).collect(), QUICK, LONG)
}

#[tokio::test]
async fn a_receiver_gets_its_pages_in_order_and_refusals_are_settled() {
    let script = [Answer::Status(500, ""), Answer::Status(202, ""), Answer::Status(400, "bad"), Answer::TooMany(0)];
    let receiver = StandInReceiver::start(&script).await;
    let rig = Rig::start(&[("chat", &receiver)], &[(1, &["chat"]), (2, &["chat"]), (3, &["chat"])]);
    rig.leading.send_replace(true);
    wait_until("three pages told", || rig.log.told().len() == 3).await;
    assert_eq!(receiver.keys(), ["key-1", "key-1", "key-2", "key-3", "key-3"]);
    let told = rig.log.told();
    assert_eq!(told, [(1, "chat".into(), false), (2, "chat".into(), true), (3, "chat".into(), false)]);
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_nobody_else() {
    let stuck = StandInReceiver::start(&[Answer::Hang]).await;
    let well = StandInReceiver::start(&[]).await;
    let both: &[&str] = &["stuck", "well", "gone"];
    let rig = Rig::start(&[("stuck", &stuck), ("well", &well)], &[(1, both), (2, both)]);
    rig.leading.send_replace(true);
    wait_until("well and gone settled", || rig.log.told().len() == 4).await;
    assert_eq!(well.keys(), ["key-1", "key-2"]);
    assert_eq!(stuck.keys(), ["key-1"], "one at a time");
    // A receiver that was taken out of the configuration would otherwise keep its pages in the outbox for ever.
    let gone: Vec<_> = rig.log.told().into_iter().filter(|(_, name, _)| name == "gone").collect();
    assert_eq!(gone, [(1, "gone".into(), true), (2, "gone".into(), true)]);
}

#[tokio::test]
async fn nothing_is_sent_without_leadership_and_a_send_is_dropped_with_it() {
    let receiver = StandInReceiver::start(&[Answer::Hang]).await;
    let old = Rig::start(&[("chat", &receiver)], &[(1, &["chat"])]);
    let idle = Rig::start(&[("chat", &receiver)], &[(9, &["chat"])]);
    old.leading.send_replace(true);
    wait_until("the send began", || receiver.keys().len() == 1).await;
    old.leading.send_replace(false);
    wait_until("the send was dropped", || receiver.dropped() == 1).await;
    assert!(old.log.told().is_empty());

    // Another leader delivers what the first may or may not have sent: the key is the same.
    let new = Rig::start(&[("chat", &receiver)], &[(1, &["chat"])]);
    new.leading.send_replace(true);
    wait_until("delivered by the next leader", || new.log.told().len() == 1).await;
    assert_eq!(receiver.keys(), ["key-1", "key-1"]);
    assert_eq!(receiver.incidents(), ["key-1"]);

    // Leading again without knowing of it, the first sends once more: still one incident.
    old.leading.send_replace(true);
    wait_until("delivered again", || old.log.told().len() == 1).await;
    assert_eq!(receiver.incidents(), ["key-1"]);
    assert!(idle.log.told().is_empty());
}

#[tokio::test]
async fn a_report_that_cannot_be_committed_is_made_again_without_sending_again() {
    let receiver = StandInReceiver::start(&[]).await;
    let rig = Rig::start(&[("chat", &receiver)], &[(1, &["chat"])]);
    *rig.log.failing.lock().unwrap() = 3;
    rig.leading.send_replace(true);
    wait_until("told", || rig.log.told().len() == 1).await;
    assert_eq!(receiver.keys(), ["key-1"]);
}

#[tokio::test]
async fn it_ends_with_the_node() {
    let receiver = StandInReceiver::start(&[]).await;
    let mut rig = Rig::start(&[("chat", &receiver)], &[]);
    rig.leading = watch::channel(true).0;
    wait_until("ended", || rig.task.is_finished()).await;
}

#[tokio::test]
async fn a_node_without_quorum_pages_every_receiver_by_itself() {
    tls();
    let well = StandInReceiver::start(&[Answer::Status(500, "")]).await;
    let refusing = StandInReceiver::start(&[Answer::Status(403, "")]).await;
    let down = StandInReceiver::start(&[Answer::Hang]).await;
    let mut lone = dispatcher(&[("well", &well), ("refusing", &refusing)]);
    let page = no_quorum_page(&"demo".into(), &"hcmc-1".into(), PageAction::Trigger, "1 of 3".to_owned());
    let sent = lone.direct_page(&page, UnixMs(0), LONG).await;
    assert_eq!(sent[&ReceiverName::from("well")], Sent::Delivered);
    assert!(matches!(sent[&ReceiverName::from("refusing")], Sent::Refused { .. }));
    assert_eq!(well.keys(), ["demo/no-quorum", "demo/no-quorum"]);
    assert_eq!(well.received()[1].body["seq"], serde_json::Value::Null);

    let line = Webhook::new("demo".into(), Url::parse(&down.url()).unwrap(), None, LONG).unwrap();
    lone = Dispatcher::with_notifiers(vec![("down".into(), Box::new(line))], QUICK, Duration::from_millis(50));
    let sent = lone.direct_page(&page, UnixMs(0), Duration::ZERO).await;
    assert!(matches!(sent[&ReceiverName::from("down")], Sent::Retry { .. }), "{sent:?}");
}
