//! The name server: one token record and one address record, changed together or not at all.

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};
use watchdog::actuator::dns::token_record::TokenRecord;
use watchdog::actuator::dns::zone::{Present, Seen, Settled, SwapTrouble, Trouble, Wanted, Zone};
use watchdog::domain::ids::Token;
use watchdog::domain::plan::RecordKind;

use crate::acting::caught;
use crate::mutation::{Mutant, is_in};
use crate::world::{Asker, Place, Shared, World, ask};

/// What it holds.
#[derive(Debug, Clone)]
pub struct NameServer {
    pub texts: Vec<String>,
    pub value: String,
    pub highest: Token,
    /// How often the address changed, and for which run.
    pub changes: Vec<(String, String)>,
}

impl NameServer {
    pub fn new(value: &str) -> Self {
        Self { texts: Vec::new(), value: value.to_owned(), highest: Token::default(), changes: Vec::new() }
    }
}

/// One change: only where the texts still are `if_texts`.
#[derive(Clone)]
struct Swap {
    if_texts: Vec<String>,
    record: TokenRecord,
    value: Option<String>,
    /// Somebody wants to know whether it came to a resource that had seen a higher token.
    text: String,
}

fn read_there(world: &mut World, asker: Asker<(Vec<String>, String)>) {
    if !world.provider_down {
        let held = (world.zone.texts.clone(), world.zone.value.clone());
        asker.answer(world, held);
    }
}

fn swap_there(world: &mut World, asker: Asker<bool>, swap: Swap) {
    if world.provider_down {
        return;
    }
    let matches = world.zone.texts == swap.if_texts || is_in(Mutant::ZoneTakesLowerTokens);
    if matches {
        let token = swap.record.token;
        crate::promises::zone_changes(world, token, &swap.record.run, swap.value.as_deref());
        world.zone.texts = vec![swap.text.clone()];
        world.zone.highest = world.zone.highest.max(token);
        if let Some(value) = swap.value.filter(|value| *value != world.zone.value) {
            world.zone.changes.push((swap.record.run.0.clone(), value.clone()));
            world.zone.value = value;
        }
        let text = format!("zone: {} under {token}", world.zone.value);
        world.note(text);
    } else {
        let text = format!("zone: a change under {} came too late", swap.record.token);
        world.note(text);
    }
    asker.answer(world, matches);
}

/// A node's way to the name server.
pub struct ZoneClient {
    pub shared: Shared,
    pub node: u64,
}

#[async_trait]
impl Zone for ZoneClient {
    type Raw = ();

    async fn read(&mut self, wanted: &Wanted<'_>, deadline: Instant) -> Result<Seen<()>, Trouble> {
        let answer = ask(&self.shared, self.node, Place::Zone, read_there);
        let Ok(Ok((texts, value))) = timeout_at(deadline, answer).await else {
            return Err(Trouble { retryable: true, reason: "the name server does not answer".to_owned() });
        };
        let name = wanted.records.first().map_or_else(String::new, |record| record.name.clone());
        let ttl_s = wanted.records.first().map_or(30, |record| record.ttl_s);
        let present = vec![Present { name, kind: RecordKind::A, ttl_s, values: vec![value] }];
        Ok(Seen { texts, present, raw: () })
    }

    async fn swap(&mut self, seen: &Seen<()>, wanted: &Wanted<'_>, deadline: Instant) -> Result<(), SwapTrouble> {
        let swap = Swap {
            if_texts: seen.texts.clone(),
            record: wanted.token.clone(),
            value: wanted.records.first().map(|record| record.value.clone()),
            text: wanted.token.to_string(),
        };
        // Between reading and writing.
        caught(&self.shared, self.node, "swap").await;
        let answer = ask(&self.shared, self.node, Place::Zone, move |world, asker| swap_there(world, asker, swap));
        match timeout_at(deadline, answer).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(SwapTrouble::Lost),
            _ => Err(SwapTrouble::Unsure("no answer from the name server".to_owned())),
        }
    }

    async fn settled(&mut self, _wanted: &Wanted<'_>, _deadline: Instant) -> Settled {
        Settled::Yes("the one server answers it".to_owned())
    }
}
