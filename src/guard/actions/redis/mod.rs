//! What is done to the host's Redis server. A primary is fenced by stopping it (`redis-fence`) or, where it is well,
//! by making it the replica of a server that has everything (`redis-hand-over`), under a latch of its own beside the
//! database's. `redis-promote` makes a replica the primary, `redis-rejoin` a fenced server the replica of another, and `redis-release` takes a
//! hand-over back.

mod fence;
mod rejoin;

use super::{Context, End, Look, clear};
use crate::domain::stuck::UNLATCH;
use crate::guard::exec::{Stop, Watch};
use crate::guard::host::{self, boottime_ms, pause};
use crate::guard::in_flight::Supervisor;
use crate::guard::latch::{self, Latch};
use crate::guard::ledger::{self, Entry, Event};
use crate::guard::protocol::{
    LatchMark, REDIS_FENCE, REDIS_HAND_OVER, REDIS_PROMOTE, REDIS_REJOIN, REDIS_RELEASE, Refusal,
};
use crate::guard::records::RecordError;
use crate::guard::redis::config::Redis;
use crate::guard::redis::{self, ANSWER_MS, State};

/// Which of them.
#[derive(Debug, Clone, Copy)]
pub enum Deed<'a> {
    /// Latch and stop.
    Fence,
    /// Latch and follow the server at this address, once it has everything.
    HandOver(&'a str),
    /// Follow nobody.
    Promote,
    /// Clear the latch, and follow the server at this address.
    Rejoin(&'a str),
    /// Clear the latch, and be the primary again.
    Release,
}

/// Every action's name, and whether it takes the parameter `upstream`.
pub const ACTIONS: [(&str, bool); 5] = [
    (REDIS_FENCE, false),
    (REDIS_HAND_OVER, true),
    (REDIS_PROMOTE, false),
    (REDIS_REJOIN, true),
    (REDIS_RELEASE, false),
];

/// A replica that takes writes takes what nobody else has.
const READ_ONLY: [&str; 4] = ["CONFIG", "SET", "replica-read-only", "yes"];

impl<'a> Deed<'a> {
    /// By the action's name and the upstream's address.
    pub fn of(name: &str, upstream: Option<&'a str>) -> Option<Self> {
        Some(match (name, upstream) {
            (REDIS_FENCE, None) => Deed::Fence,
            (REDIS_HAND_OVER, Some(to)) => Deed::HandOver(to),
            (REDIS_PROMOTE, None) => Deed::Promote,
            (REDIS_REJOIN, Some(of)) => Deed::Rejoin(of),
            (REDIS_RELEASE, None) => Deed::Release,
            _ => return None,
        })
    }

    /// What forbids it whatever else is so.
    pub fn forbidden(self, context: &Context<'_>) -> Option<(Refusal, String)> {
        match self {
            Deed::Fence | Deed::HandOver(_) => None,
            Deed::Promote => latched(context),
            Deed::Rejoin(_) | Deed::Release => latch::forbids_clearing(&context.files.redis_latch(), context.who),
        }
    }

    /// Is it so?
    pub fn look(self, redis: &Redis, context: &Context<'_>) -> Look {
        match self.shows(redis, context) {
            Look::There(how) => match self.left_waiting(context) {
                Ok(None) => Look::There(how),
                Ok(Some(why)) => Look::NotThere(format!("{how}; {why}")),
                Err(e) => Look::CannotTell(format!("{how}; whether its writers wait: {e}")),
            },
            found => found,
        }
    }

    /// A hand-over whose guard died leaves the writers waiting, and no server says that of itself: after one of the same run only
    /// what came to its end has let them go on for certain.
    fn left_waiting(self, context: &Context<'_>) -> Result<Option<String>, RecordError> {
        let counts: fn(&Entry) -> bool = match self {
            Deed::Fence | Deed::Promote => return Ok(None),
            Deed::HandOver(_) => |entry| entry.action == REDIS_HAND_OVER,
            Deed::Rejoin(_) => |entry| entry.action == REDIS_REJOIN,
            Deed::Release => {
                |entry| entry.action == REDIS_HAND_OVER || entry.action == REDIS_RELEASE && entry.event == Event::Done
            }
        };
        let entries = ledger::load(&context.files.ledger())?;
        let newest = entries.iter().rfind(|entry| entry.run == context.who.run && counts(entry));
        let left = newest.filter(|entry| {
            entry.event != Event::Done || matches!(self, Deed::Release) && entry.action == REDIS_HAND_OVER
        });
        Ok(left.map(|entry| {
            let (step, attempt) = (&entry.step, entry.attempt);
            format!("its writers may wait still for {step}, attempt {attempt}")
        }))
    }

    /// What server and latch show.
    fn shows(self, redis: &Redis, context: &Context<'_>) -> Look {
        let latch = match latch::load_at(&context.files.redis_latch()) {
            Ok(latch) => latch,
            Err(e) => return Look::CannotTell(e.to_string()),
        };
        let seen = redis::look(redis);
        if seen.state == State::Unknown {
            return Look::CannotTell(seen.how);
        }
        let latched =
            latch.mark.as_ref().map_or("not latched".to_owned(), |mark| format!("latched under {}", mark.token));
        let how = format!("{latched}; {}", seen.how);
        let is_so = match self {
            Deed::Fence => latch.mark.is_some() && seen.state.is_silent(),
            // By this very step: it latches only what was seen to be handed over whole. What stopped before it followed may
            // have been started again, and taken writes.
            Deed::HandOver(to) => {
                let by_us = latch.mark.as_ref().is_some_and(|mark| is_by(mark, context));
                let followed = match seen.state {
                    State::Stopped => rejoin::follows(&redis.config_file, to),
                    _ => Ok(true),
                };
                match followed {
                    Ok(followed) => by_us && followed && seen.state.is_silent(),
                    Err(why) => return Look::CannotTell(format!("{how}; whether it followed {to}: {why}")),
                }
            }
            // Started past its boot gate, it may lack what another has taken since.
            Deed::Promote => match latched_why(&latch, context) {
                Some(why) => return Look::NotThere(format!("{}; {why}", seen.how)),
                None => seen.state == State::Primary,
            },
            Deed::Rejoin(upstream) => {
                let follows = State::Replica { of: upstream.to_owned(), linked: true };
                latch.mark.is_none() && seen.state == follows
            }
            Deed::Release => latch.mark.is_none() && seen.state == State::Primary,
        };
        if is_so { Look::There(how) } else { Look::NotThere(how) }
    }

    /// Does it.
    pub fn act(
        self,
        redis: &Redis,
        context: &Context<'_>,
        supervisor: &mut Supervisor<'_>,
        until_boottime_ms: u64,
    ) -> End {
        match self {
            Deed::Fence => fence::fence(redis, context, supervisor, until_boottime_ms),
            Deed::HandOver(to) => fence::hand_over(redis, to, context, supervisor, until_boottime_ms),
            Deed::Promote => promote(redis, context, supervisor, until_boottime_ms),
            Deed::Rejoin(of) => rejoin::rejoin(redis, of, context, supervisor, until_boottime_ms),
            Deed::Release => rejoin::release(redis, context, supervisor, until_boottime_ms),
        }
    }

    /// Looks until it is so, or the time is over.
    fn until_so(
        self,
        redis: &Redis,
        context: &Context<'_>,
        supervisor: &mut Supervisor<'_>,
        until_boottime_ms: u64,
    ) -> End {
        loop {
            let found = self.shows(redis, context);
            if let Look::There(evidence) = found {
                return End::Done(evidence);
            }
            if let Some(Stop::Preempted(by)) = supervisor.stop() {
                return End::Preempted(by);
            }
            if boottime_ms() >= until_boottime_ms {
                return match found {
                    Look::CannotTell(why) => End::Unknown(why),
                    Look::There(why) | Look::NotThere(why) | Look::OnItsWay(why) => End::again(why),
                };
            }
            pause(10);
        }
    }
}

/// This very step of this run has set it.
fn is_by(mark: &LatchMark, context: &Context<'_>) -> bool {
    mark.run == context.who.run && mark.step == context.who.step
}

/// Nobody waits any more for what a hand-over paused: where it takes no writes they are refused.
fn let_go_on(redis: &Redis) -> Result<(), String> {
    redis::command(&redis::endpoint(redis), &["CLIENT", "UNPAUSE"], ANSWER_MS)
        .map(|_| ())
        .map_err(|why| format!("whether its writers wait is not known: {why}"))
}

/// A fenced server's data may be older than what the other side has taken since.
fn latched(context: &Context<'_>) -> Option<(Refusal, String)> {
    match latch::load_at(&context.files.redis_latch()) {
        Ok(latch) => latched_why(&latch, context).map(|why| (Refusal::Latched, why)),
        Err(e) => Some((Refusal::DamagedStore, format!("{e}: a latch that cannot be read is not clear"))),
    }
}

/// In words for a person: what it says may be all that is left to go by, with the other region dead.
fn latched_why(latch: &Latch, context: &Context<'_>) -> Option<String> {
    let LatchMark { token, run, step, .. } = latch.mark.as_ref()?;
    let (group, host) = (context.who.group.as_str(), host::name());
    Some(format!(
        "the Redis server of this host was fenced under token {token} by {run}/{step}. Where another is the primary, make \
         this one its replica first (redis-rejoin). Where you answer for it that no other is or comes back as one, and this \
         one's data will do: {UNLATCH} --redis --group {group} --confirm {host} --reason TEXT"
    ))
}

/// `REPLICAOF NO ONE` takes effect within the command. What it would be after a restart is in its configuration file, which
/// it is asked to rewrite; where it cannot, that is said, since it serves all the same.
fn promote(redis: &Redis, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until_boottime_ms: u64) -> End {
    let server = redis::endpoint(redis);
    if let Err(why) = redis::command(&server, &["REPLICAOF", "NO", "ONE"], ANSWER_MS) {
        return End::Unknown(why);
    }
    if let Err(why) = let_go_on(redis) {
        return End::Unknown(why);
    }
    let kept = keep(redis);
    match Deed::Promote.until_so(redis, context, supervisor, until_boottime_ms) {
        End::Done(evidence) => End::Done(format!("{evidence}{kept}")),
        end => end,
    }
}

/// Lets the server rewrite its configuration file; in words, where it could not.
fn keep(redis: &Redis) -> String {
    rewrite(redis).map_or_else(|why| format!("; BUT A RESTART WOULD UNDO IT, {why}"), |()| String::new())
}

fn rewrite(redis: &Redis) -> Result<(), String> {
    redis::command(&redis::endpoint(redis), &["CONFIG", "REWRITE"], ANSWER_MS)
        .map(|_| ())
        .map_err(|why| format!("its configuration file was not rewritten: {why}"))
}
