//! The guard's part in what is done to Redis, in the order of `src/guard/actions/redis`, with a moment between any two of
//! its effects in which the host may freeze or lose its power, the guard be killed, or a later token come.

use watchdog::domain::plan::{REDIS_FENCE, REDIS_HAND_OVER, REDIS_PROMOTE, REDIS_REJOIN, REDIS_RELEASE};
use watchdog::guard::protocol::{InFlight, LatchMark, Refusal, Reply, Request};

use crate::guard::{ended, may_clear, refused};
use crate::host::Host;
use crate::redis::{Redis, Unread, next_history, promoted, tick};
use crate::world::{MS, Place, World, unix_of};

/// A server that does not answer, and waits that are polled.
const POLL: u64 = 30 * MS;

/// What the guard sees of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Stopped,
    Replica { linked: bool },
    Primary,
    Unknown,
}

/// What reading back shows.
pub enum Look {
    There(String),
    NotThere(String),
    CannotTell(String),
}

fn state(redis: &Redis) -> State {
    match redis {
        Redis { running: false, .. } => State::Stopped,
        Redis { hung: true, .. } => State::Unknown,
        Redis { follows: true, linked, .. } => State::Replica { linked: *linked },
        _ => State::Primary,
    }
}

/// `None`: nothing of Redis is asked.
pub fn look(host: &Host, request: &Request) -> Option<Look> {
    let redis = host.redis.as_ref().filter(|_| request.action.starts_with("redis-"))?;
    let state = state(redis);
    if state == State::Unknown {
        return Some(Look::CannotTell("no answer".to_owned()));
    }
    let mark = redis.latch.as_ref();
    let by_us = |mark: &LatchMark| Some(&mark.run) == request.run.as_ref() && Some(&mark.step) == request.step.as_ref();
    let is_so = match request.action.as_str() {
        REDIS_FENCE => mark.is_some() && state != State::Primary,
        // What stopped before it followed may have been started again, and taken writes.
        REDIS_HAND_OVER => mark.is_some_and(by_us) && state != State::Primary && redis.follows,
        // Started past its boot gate, it may lack what another has taken since.
        REDIS_PROMOTE => mark.is_none() && state == State::Primary,
        REDIS_REJOIN => mark.is_none() && state == State::Replica { linked: true },
        _ => mark.is_none() && state == State::Primary && !may_wait(host, request),
    };
    let how = format!("{state:?}, latch {}", mark.is_some());
    Some(if is_so { Look::There(how) } else { Look::NotThere(how) })
}

/// A server does not say that its writers wait: the guard goes by its ledger.
fn may_wait(host: &Host, request: &Request) -> bool {
    let mut of_run = host.ledger.iter().filter(|line| Some(&line.run) == request.run.as_ref());
    let newest = of_run.rfind(|line| {
        line.step.as_str() == REDIS_HAND_OVER || line.step.as_str() == REDIS_RELEASE && line.event == "done"
    });
    newest.is_some_and(|line| line.step.as_str() == REDIS_HAND_OVER)
}

/// What forbids it whatever else is so.
pub fn forbids(host: &Host, request: &Request) -> Option<Reply> {
    let mark = host.redis.as_ref()?.latch.as_ref();
    let no = |why: &str| Some(refused(Refusal::Latched, why, None));
    match request.action.as_str() {
        REDIS_PROMOTE if mark.is_some() => no("this host's Redis server was fenced"),
        REDIS_REJOIN | REDIS_RELEASE if !may_clear(mark, request) => no("latched under a token that may not clear it"),
        _ => None,
    }
}

/// The action is entered as in flight: its first effect.
pub fn begins(world: &mut World, at: usize, what: &InFlight) {
    if what.action == REDIS_FENCE {
        set_latch(world, at, what);
    }
}

fn set_latch(world: &mut World, at: usize, what: &InFlight) {
    let moment = unix_of(world.now());
    if let Some(redis) = &mut world.hosts[at].redis {
        let (token, run, step) = (what.token, what.run.clone(), what.step.clone());
        redis.latch = Some(LatchMark { token, run, step, at: moment });
    }
}

enum Next {
    /// Go on with that phase after so long.
    After(u64, u32),
    Over(Box<Reply>),
    Preempted,
}

fn over(reply: Reply) -> Next {
    Next::Over(Box::new(reply))
}

fn again(why: &str) -> Next {
    over(Reply::Failed { retryable: true, reason: why.to_owned() })
}

fn unknown(why: &str) -> Next {
    over(Reply::Unknown { reason: why.to_owned() })
}

fn done(what: &InFlight) -> Next {
    over(Reply::Done { evidence: format!("{} done", what.action), acted: true })
}

/// What is at work takes its next step.
pub fn go_on(world: &mut World, at: usize, serial: u64) {
    tick(world);
    let Some(work) = world.hosts[at].work.as_ref() else { return };
    let (what, phase, is_preempted) = (work.what.clone(), work.phase, work.preempted);
    let next = match what.action.as_str() {
        REDIS_FENCE => fence(world, at, &what, is_preempted),
        REDIS_HAND_OVER => hand_over(world, at, &what, (phase, is_preempted)),
        REDIS_PROMOTE => promote(world, at, &what),
        REDIS_REJOIN => rejoin(world, at, &what, (phase, is_preempted)),
        _ => release(world, at, &what, (phase, is_preempted)),
    };
    match next {
        Next::After(after, phase) => {
            if let Some(work) = &mut world.hosts[at].work {
                work.phase = phase;
            }
            world.later(after, move |world| crate::guard::end(world, at, serial));
        }
        Next::Over(reply) => {
            let event = match &*reply {
                Reply::Done { .. } => "done",
                Reply::Failed { .. } => "failed",
                _ => "unknown",
            };
            ended(world, at, event, *reply);
        }
        Next::Preempted => {
            let reply = Reply::Unknown { reason: "ended by a later token".to_owned() };
            ended(world, at, "preempted", reply);
        }
    }
}

/// Milliseconds of the host's clock until its request's deadline.
fn left_ms(world: &World, at: usize) -> u64 {
    let host = &world.hosts[at];
    let until = host.work.as_ref().and_then(|work| work.not_after_ms).unwrap_or(0);
    until.saturating_sub(host.boottime_ms(world.now()))
}

fn own(world: &mut World, at: usize) -> &mut Redis {
    world.hosts[at].redis.as_mut().expect("it is asked for only where there is one")
}

/// It was latched as it began: what is no replica is stopped, a frozen one by the kernel.
fn fence(world: &mut World, at: usize, what: &InFlight, is_preempted: bool) -> Next {
    let redis = own(world, at);
    if matches!(state(redis), State::Primary | State::Unknown) {
        if is_preempted {
            return Next::Preempted;
        }
        redis.stop();
    }
    done(what)
}

fn hand_over(world: &mut World, at: usize, what: &InFlight, (phase, is_preempted): (u32, bool)) -> Next {
    let is_hung = own(world, at).hung;
    let is_primary = state(own(world, at)) == State::Primary;
    match phase {
        0 if !is_primary => again("nothing was handed over"),
        0 => {
            // What an earlier attempt saw may not be so any more.
            let by_us = own(world, at).latch.as_ref().is_some_and(|m| m.run == what.run && m.step == what.step);
            if by_us && let Some(next) = clear(world, at, what, is_preempted) {
                return next;
            }
            own(world, at).paused = true;
            Next::After(POLL, 1)
        }
        1 if !is_hung && !own(world, at).paused => again("the server whose writes were paused is lost"),
        1 if is_whole(world, at) && !is_hung => {
            set_latch(world, at, what);
            Next::After(POLL, 2)
        }
        1 if is_preempted || left_ms(world, at) < 1200 => {
            // Its writers go on, where it can be told so.
            let redis = own(world, at);
            redis.paused &= redis.hung;
            match (is_preempted, is_hung) {
                (true, _) => Next::Preempted,
                (false, true) => unknown("whether its writers go on is not known"),
                (false, false) => again("nothing was handed over, writes go on"),
            }
        }
        1 => Next::After(POLL, 1),
        _ if is_hung => {
            own(world, at).unread.push(Unread::Follow);
            unknown("latched, its writers wait")
        }
        _ if !own(world, at).paused => unknown("latched, its writers wait"),
        _ => {
            let redis = own(world, at);
            redis.follow();
            redis.paused = false;
            done(what)
        }
    }
}

/// Whether the other follows this one and has everything that it wrote, as this guard is told over the network.
fn is_whole(world: &World, at: usize) -> bool {
    let (here, there) = (Place::Host(at), Place::Host(1 - at));
    let (own, other) = (&world.hosts[at], &world.hosts[1 - at]);
    let is_reached = other.on && !other.frozen && !world.is_cut(here, there) && !world.is_cut(there, here);
    let (Some(own), Some(other)) = (&own.redis, &other.redis) else { return false };
    is_reached
        && own.running
        && state(other) == State::Replica { linked: true }
        && other.history == own.history
        && other.offset >= own.offset
}

fn promote(world: &mut World, at: usize, what: &InFlight) -> Next {
    let redis = own(world, at);
    if redis.hung {
        redis.unread.push(Unread::FollowNobody(what.clone()));
    }
    if redis.hung || !redis.running {
        return unknown("no answer");
    }
    promoted(world, at, what);
    done(what)
}

/// The latch is cleared under the token lock, unless a later token was raised here or it is too late.
fn clear(world: &mut World, at: usize, what: &InFlight, is_preempted: bool) -> Option<Next> {
    if is_preempted || world.hosts[at].token != what.token {
        return Some(Next::Preempted);
    }
    if left_ms(world, at) == 0 {
        return Some(again("its time was over"));
    }
    let redis = own(world, at);
    if redis.latch.take().is_some() {
        redis.cleared_by = Some((what.run.clone(), what.step.clone()));
        let text = format!("{}: {} clears Redis' latch", world.hosts[at].name, what.action);
        world.note(text);
    }
    None
}

fn rejoin(world: &mut World, at: usize, what: &InFlight, (phase, is_preempted): (u32, bool)) -> Next {
    match phase {
        0 => {
            let (here, there) = (Place::Host(at), Place::Host(1 - at));
            let other = &world.hosts[1 - at];
            let is_reached = other.on && !other.frozen && !world.is_cut(here, there) && !world.is_cut(there, here);
            let is_well = other.redis.as_ref().is_some_and(|redis| state(redis) == State::Primary);
            let redis = own(world, at);
            match state(redis) {
                _ if !is_reached || !is_well => return again("it is no primary that works"),
                State::Unknown => return again("no answer"),
                State::Primary if redis.latch.is_none() => return again("it was not fenced"),
                _ => redis.follow(),
            }
            Next::After(POLL, 1)
        }
        1 => clear(world, at, what, is_preempted).unwrap_or(Next::After(POLL, 2)),
        2 => {
            let history = next_history(world);
            let redis = own(world, at);
            if !redis.running {
                redis.start(history);
            }
            Next::After(POLL, 3)
        }
        _ => match state(own(world, at)) {
            State::Replica { linked: true } => done(what),
            _ if is_preempted => Next::Preempted,
            State::Unknown if left_ms(world, at) == 0 => unknown("no answer"),
            _ if left_ms(world, at) == 0 => again("not in step"),
            _ => Next::After(POLL, 3),
        },
    }
}

fn release(world: &mut World, at: usize, what: &InFlight, (phase, is_preempted): (u32, bool)) -> Next {
    let history = next_history(world);
    let redis = own(world, at);
    let was_ours = redis.latch.is_some() || redis.cleared_by == Some((what.run.clone(), what.step.clone()));
    match phase {
        0 => match state(redis) {
            State::Unknown => again("no answer"),
            State::Replica { .. } if !was_ours => {
                over(Reply::Failed { retryable: false, reason: "nothing was released".to_owned() })
            }
            State::Stopped => {
                redis.follows = false;
                Next::After(POLL, 1)
            }
            _ => Next::After(POLL, 1),
        },
        1 => clear(world, at, what, is_preempted).unwrap_or(Next::After(POLL, 2)),
        _ if redis.hung => unknown("no answer"),
        _ => {
            if !redis.running {
                redis.start(history);
            }
            redis.follow_nobody(history);
            redis.paused = false;
            done(what)
        }
    }
}
