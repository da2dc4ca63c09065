//! A guard's answers as a node reads them.

use serde_json::Value;
use watchdog::actuator::guarded::read_answer;

use crate::corpus;
use crate::runner::{Target, Trial, holds, printable};

pub fn any_answer_is_read_wholly_or_refused_with_an_excerpt() -> Trial {
    Target::new("guard-answers", corpus::of("guard-answer")).cases(1000).judged_by(move |bytes| {
        let answer = match read_answer("db-hcmc", bytes) {
            Err(why) => {
                holds(why.contains("guard of host db-hcmc"), || format!("no host in {why:?}"))?;
                holds(why.len() < 4000, || format!("{} bytes of error", why.len()))?;
                return printable(&why);
            }
            Ok(answer) => answer,
        };
        let printed = serde_json::to_vec(&answer).unwrap();
        holds(read_answer("db-hcmc", &printed).as_ref() == Ok(&answer), || {
            format!("{answer:?} comes back as another")
        })?;
        // Nothing that was said is dropped: a newer guard's "but" must not be overheard.
        let (said, read) = (without_nulls(bytes)?, without_nulls(&printed)?);
        holds(said == read, || format!("of {said} only {read} is read"))?;
        let reply = answer.reply;
        let _ = (
            reply.clone().into_outcome(),
            reply.clone().into_read_back(),
            reply.clone().into_raised(),
            reply.exit_code(),
        );
        Ok(())
    })
}

/// What an absent key means is what `null` means; a log position is the same in small letters and with zeros before it.
fn without_nulls(bytes: &[u8]) -> Result<Value, String> {
    fn strip(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let plain = |key: &str, value: Value| match value {
                    Value::String(text) if key.ends_with("_lsn") => Value::String(position(&text).unwrap_or(text)),
                    other => strip(other),
                };
                let said = map.into_iter().filter(|(_, value)| !value.is_null());
                Value::Object(said.map(|(key, value)| (key.clone(), plain(&key, value))).collect())
            }
            Value::Array(all) => Value::Array(all.into_iter().map(strip).collect()),
            other => other,
        }
    }
    serde_json::from_slice(bytes).map(strip).map_err(|e| e.to_string())
}

/// As PostgreSQL prints it.
fn position(text: &str) -> Option<String> {
    let half = |text: &str| u32::from_str_radix(text, 16).ok();
    let (high, low) = text.split_once('/')?;
    Some(format!("{:X}/{:X}", half(high)?, half(low)?))
}
