//! The receiver of pages: takes each as often as it comes, and collapses what has the same key and number.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use watchdog::notify::{Notifier, Parcel, Sent};

use crate::world::{Asker, Place, Shared, World, ask};

/// What came, by number: its key and how often.
#[derive(Debug, Default)]
pub struct Pager {
    pub taken: BTreeMap<u64, (String, u32)>,
}

fn take(world: &mut World, asker: Asker<()>, seq: u64, key: String) {
    if world.provider_down {
        return;
    }
    let known = world.pager.taken.entry(seq).or_insert_with(|| (key.clone(), 0));
    known.1 += 1;
    let is_other = known.0 != key;
    if is_other {
        let text = format!("page {seq} came under two keys: {} and {key}", world.pager.taken[&seq].0);
        world.broken("P11", text);
    }
    world.note(format!("pager: {seq} {key}"));
    asker.answer(world, ());
}

/// A node's way to the receiver.
pub struct PagerClient {
    pub shared: Shared,
    pub node: u64,
}

#[async_trait]
impl Notifier for PagerClient {
    async fn send(&self, parcel: Parcel<'_>) -> Sent {
        let (seq, key) = (parcel.seq.unwrap_or(0), parcel.page.key.clone());
        let answer = ask(&self.shared, self.node, Place::Pager, move |world, asker| take(world, asker, seq, key));
        match tokio::time::timeout(Duration::from_secs(3), answer).await {
            Ok(Ok(())) => Sent::Delivered,
            _ => Sent::Retry { reason: "no answer".to_owned(), after: None },
        }
    }
}
