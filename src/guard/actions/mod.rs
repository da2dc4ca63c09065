//! What the named actions do, and how each is read back. [`first_step`] decides, purely, what comes before acting.

mod clear;
pub mod configured;
pub mod fence;
mod progress;
pub mod promote;
pub mod redis;
pub mod rejoin;
pub mod release;
mod start;

use std::collections::BTreeMap;

use super::config::{self, Config};
use super::in_flight::{Supervisor, Who};
use super::latch;
use super::lease::hold;
use super::ledger::{Entry, Event};
use super::protocol::{FENCE, PROMOTE, REJOIN, RELEASE, Refusal};
use super::redis::config::Redis as RedisConfig;
use super::token_store::GroupFiles;
use crate::domain::ids::{HostName, RunId, StepId};
use clear::clear;
use start::{START_MS, Start, start};

/// All an action may use.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The guard's configuration.
    pub config: &'a Config,
    /// The group's files.
    pub files: &'a GroupFiles,
    /// Who asks.
    pub who: &'a Who,
    /// Checked parameters.
    pub params: &'a BTreeMap<String, String>,
    /// The old primary's host, where its own guard showed it fenced.
    pub fenced_host: Option<&'a HostName>,
}

/// A named action of this host.
#[derive(Debug, Clone, Copy)]
pub enum Named<'a> {
    /// Built in.
    Fence(&'a config::Postgres),
    /// Built in.
    Promote(&'a config::Postgres),
    /// Built in.
    Release(&'a config::Postgres),
    /// Built in.
    Rejoin(&'a config::Postgres, &'a str, &'a config::Upstream),
    /// Built in: what is done to the host's Redis server.
    Redis(&'a RedisConfig, redis::Deed<'a>),
    /// From the configuration.
    Configured(&'a config::Action),
}

/// What reading back shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The effect is there.
    There(String),
    /// It is not, and nothing will bring it.
    NotThere(String),
    /// It is on its way: what was begun will end by itself.
    OnItsWay(String),
    /// Cannot be told.
    CannotTell(String),
}

/// How acting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The effect is there; evidence.
    Done(String),
    /// It failed.
    Failed {
        /// Again may help.
        retryable: bool,
        /// Why.
        reason: String,
    },
    /// Cannot be told.
    Unknown(String),
    /// Ended by a later token.
    Preempted(String),
}

impl End {
    /// Failed, but may be tried again.
    pub fn again(reason: impl Into<String>) -> End {
        End::Failed { retryable: true, reason: reason.into() }
    }
    /// Failed, and will again until somebody changes something.
    pub fn never(reason: impl Into<String>) -> End {
        End::Failed { retryable: false, reason: reason.into() }
    }
}

/// Finds an action by name and checks its parameters.
///
/// # Errors
/// Not an action of this host and group, or parameters not as declared.
pub fn find<'a>(
    config: &'a Config,
    who: &Who,
    name: &str,
    params: &'a BTreeMap<String, String>,
) -> Result<Named<'a>, (Refusal, String)> {
    if let Some((_, takes)) = redis::ACTIONS.iter().find(|(known, _)| *known == name) {
        return find_redis(config, who, (name, *takes), params);
    }
    if ![FENCE, PROMOTE, RELEASE, REJOIN].contains(&name) {
        let known = || config.action.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let action = config.action.get(name).ok_or_else(|| {
            let why = format!("action {name:?} is not in the guard's configuration (configured: {})", known());
            (Refusal::UnknownAction, why)
        })?;
        check_params(name, &action.params, params)?;
        return Ok(Named::Configured(action));
    }
    let postgres = config.postgres_of(&who.group).ok_or_else(|| {
        let why =
            format!("action {name:?} needs [postgres] for group {:?} in the guard's configuration", who.group.as_str());
        (Refusal::UnknownAction, why)
    })?;
    if name != REJOIN {
        check_params(name, &BTreeMap::new(), params)?;
        return Ok(match name {
            FENCE => Named::Fence(postgres),
            PROMOTE => Named::Promote(postgres),
            _ => Named::Release(postgres),
        });
    }
    let names: Vec<String> = postgres.upstream.keys().cloned().collect();
    let pattern = config::Pattern { one_of: Some(names), chars: None, max_length: None };
    check_params(name, &BTreeMap::from([("upstream".to_owned(), pattern)]), params)?;
    let found = params.get("upstream").and_then(|name| postgres.upstream.get_key_value(name));
    let (name, upstream) = found.ok_or((Refusal::BadParameter, "upstream: not declared".to_owned()))?;
    Ok(Named::Rejoin(postgres, name, upstream))
}

fn find_redis<'a>(
    config: &'a Config,
    who: &Who,
    (name, takes_upstream): (&str, bool),
    params: &'a BTreeMap<String, String>,
) -> Result<Named<'a>, (Refusal, String)> {
    let missing = || {
        let group = who.group.as_str();
        let why = format!("action {name:?} needs [redis] for group {group:?} in the guard's configuration");
        (Refusal::UnknownAction, why)
    };
    let redis = config.redis_of(&who.group).ok_or_else(missing)?;
    let mut declared = BTreeMap::new();
    if takes_upstream {
        let names = redis.upstream.keys().cloned().collect();
        let pattern = config::Pattern { one_of: Some(names), chars: None, max_length: None };
        declared.insert("upstream".to_owned(), pattern);
    }
    check_params(name, &declared, params)?;
    let upstream = params.get("upstream").and_then(|name| redis.upstream.get(name)).map(String::as_str);
    let deed = redis::Deed::of(name, upstream).ok_or_else(missing)?;
    Ok(Named::Redis(redis, deed))
}

fn check_params(
    action: &str,
    declared: &BTreeMap<String, config::Pattern>,
    given: &BTreeMap<String, String>,
) -> Result<(), (Refusal, String)> {
    let refuse = |why: String| Err((Refusal::BadParameter, format!("action {action:?}: {why}")));
    if let Some(name) = given.keys().find(|name| !declared.contains_key(*name)) {
        return refuse(format!("parameter {name:?} is not declared"));
    }
    for (name, pattern) in declared {
        match given.get(name) {
            None => return refuse(format!("parameter {name:?} is missing")),
            Some(value) => {
                if let Err(why) = pattern.check(value) {
                    return refuse(format!("parameter {name:?} = {value:?} {why}"));
                }
            }
        }
    }
    Ok(())
}

impl Named<'_> {
    /// Looks whether the effect is there, on the way to acting: where a doubt leads to acting, not to an answer.
    pub fn look_first(&self, context: &Context<'_>, until_boottime_ms: u64) -> Look {
        match self {
            Named::Promote(pg) => promote::look_fast(pg),
            _ => self.look(context, until_boottime_ms),
        }
    }

    /// Looks whether the effect is there.
    pub fn look(&self, context: &Context<'_>, until_boottime_ms: u64) -> Look {
        match self {
            Named::Fence(pg) => fence::look(pg, context),
            Named::Promote(pg) => promote::look(pg),
            Named::Release(pg) => release::look(pg, context),
            Named::Rejoin(pg, _, upstream) => rejoin::look(pg, upstream, context),
            Named::Redis(redis, deed) => deed.look(redis, context),
            Named::Configured(action) => configured::look(action, context, until_boottime_ms),
        }
    }

    /// What forbids acting whatever else is so.
    pub fn forbidden(&self, context: &Context<'_>) -> Option<(Refusal, String)> {
        match self {
            Named::Promote(_) => promote::forbidden(context),
            Named::Release(_) | Named::Rejoin(..) => latch::forbids_clearing(&context.files.latch(), context.who),
            Named::Redis(_, deed) => deed.forbidden(context),
            Named::Fence(_) | Named::Configured(_) => None,
        }
    }

    /// What keeps it from acting for a while. Looked at when the action is in flight: a hold that is granted later sees
    /// it there.
    pub fn not_yet(&self, context: &Context<'_>) -> Option<String> {
        match self {
            Named::Promote(_) => hold::forbids_promotion(context.files, &context.who.group, context.fenced_host),
            _ => None,
        }
    }

    /// Acts.
    pub fn act(&self, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until_boottime_ms: u64) -> End {
        match self {
            Named::Fence(pg) => fence::act(pg, context, supervisor, until_boottime_ms),
            Named::Promote(pg) => promote::act(pg, supervisor),
            Named::Release(pg) => release::act(pg, context, supervisor, until_boottime_ms),
            Named::Rejoin(pg, name, upstream) => {
                rejoin::act(pg, (name, upstream), context, supervisor, until_boottime_ms)
            }
            Named::Redis(redis, deed) => deed.act(redis, context, supervisor, until_boottime_ms),
            Named::Configured(action) => configured::act(action, context, supervisor, until_boottime_ms),
        }
    }

    /// The action's own nature, for [`first_step`].
    pub fn nature(&self) -> Nature {
        match self {
            Named::Configured(action) => {
                Nature { state: false, read_back: action.read_back.is_some(), repeatable: action.repeatable }
            }
            _ => Nature { state: true, read_back: true, repeatable: true },
        }
    }
}

/// What kind of action it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// Its effect is a state that can be there without it having been begun (a primary is a primary).
    pub state: bool,
    /// It can be read back.
    pub read_back: bool,
    /// It may be done again without harm.
    pub repeatable: bool,
}

/// What comes before acting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// Act.
    Act,
    /// Read back; act only where the effect is not there.
    Look,
    /// The ledger is all there is, and it says done.
    AnswerDone,
    /// It was begun, and nothing can tell how it ended.
    AnswerUnknown,
}

/// Decides it from the newest ledger event of the same run and step.
pub fn first_step(nature: Nature, newest: Option<Event>) -> First {
    if nature.state {
        return First::Look;
    }
    match newest {
        None | Some(Event::Failed | Event::Preempted) => First::Act,
        Some(_) if nature.read_back => First::Look,
        Some(Event::Done) => First::AnswerDone,
        Some(Event::Started | Event::Unknown) if nature.repeatable => First::Act,
        Some(Event::Started | Event::Unknown) => First::AnswerUnknown,
    }
}

/// The newest entry of a run's step.
pub fn newest<'a>(entries: &'a [Entry], run: &RunId, step: &StepId) -> Option<&'a Entry> {
    entries.iter().rev().find(|entry| &entry.run == run && &entry.step == step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_is_a_hint_and_reading_back_decides() {
        let nature = |state, read_back, repeatable| Nature { state, read_back, repeatable };
        for (nature, newest, first) in [
            (nature(true, true, true), None, First::Look),
            (nature(true, true, true), Some(Event::Done), First::Look),
            (nature(false, true, false), None, First::Act),
            (nature(false, true, false), Some(Event::Started), First::Look),
            (nature(false, true, false), Some(Event::Done), First::Look),
            (nature(false, true, false), Some(Event::Failed), First::Act),
            (nature(false, true, false), Some(Event::Preempted), First::Act),
            (nature(false, false, true), Some(Event::Started), First::Act),
            (nature(false, false, true), Some(Event::Done), First::AnswerDone),
            (nature(false, false, false), Some(Event::Done), First::AnswerDone),
            (nature(false, false, false), Some(Event::Started), First::AnswerUnknown),
            (nature(false, false, false), Some(Event::Unknown), First::AnswerUnknown),
            (nature(false, false, false), Some(Event::Failed), First::Act),
        ] {
            assert_eq!(first_step(nature, newest), first, "{nature:?} {newest:?}");
        }
    }
}
