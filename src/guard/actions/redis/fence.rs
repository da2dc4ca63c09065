//! `redis-fence`: the server is gone for certain, and latched so that it does not come back. It latches first, then stops:
//! killed in between, the host is latched and its boot gate refuses. `redis-hand-over`: the server takes no writes any more,
//! and another has every byte. It pauses all writes, waits for the other, latches, and becomes its replica; so what it
//! holds is there still when the move turns back.
//!
//! | a hand-over dies, or sleeps an hour | what stands |
//! |---|---|
//! | before the latch | a server whose writers wait. The next attempt goes on with it; `redis-release`, or the end of the pause after a day, lets them go on |
//! | after the latch, before it follows | the same, latched. The next attempt takes the latch back, pauses and looks again: the server may have been started again since, and taken writes. One that stopped counts as handed over only where its configuration says that it followed |
//! | after it follows | nothing was written since all was seen to be handed over: the next attempt finds it done |

use super::{Context, Deed, End, Look, READ_ONLY, clear, is_by, keep, let_go_on};
use crate::clock::unix_now;
use crate::guard::exec::{self, Ended, Stop, Task, Watch};
use crate::guard::host::{boottime_ms, pause};
use crate::guard::in_flight::Supervisor;
use crate::guard::latch::{self, Latch};
use crate::guard::protocol::LatchMark;
use crate::guard::redis::config::Redis;
use crate::guard::redis::{self, ANSWER_MS, Listens, State, Talk};
use crate::redis::{Role, Shown};

/// So long do writers wait for a hand-over that was left in its middle: longer than a guard sleeps between seeing that all
/// was handed over and becoming a replica.
const PAUSE_MS: &str = "86400000";
/// A kill needs no more, milliseconds; also where the time is over.
const KILL_MS: u64 = 2000;

fn set_latch(context: &Context<'_>) -> Result<(), End> {
    let who = context.who;
    let mark = LatchMark { token: who.token, run: who.run.clone(), step: who.step.clone(), at: unix_now() };
    latch::store_at(&context.files.redis_latch(), &Latch { mark: Some(mark), cleared_by: None })
        .map_err(|e| End::again(format!("the latch could not be set, nothing was stopped: {e}")))
}

/// Latches, stops what is no replica, and looks.
pub fn fence(redis: &Redis, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until: u64) -> End {
    if let Err(end) = set_latch(context) {
        return end;
    }
    if !redis::look(redis).state.is_silent()
        && let Some(end) = stop(redis, context, supervisor, until)
    {
        return end;
    }
    answer(Deed::Fence, redis, context)
}

fn answer(deed: Deed<'_>, redis: &Redis, context: &Context<'_>) -> End {
    match deed.shows(redis, context) {
        Look::There(evidence) => End::Done(evidence),
        Look::NotThere(why) | Look::OnItsWay(why) => End::again(format!("latched, but not fenced: {why}")),
        Look::CannotTell(why) => End::Unknown(format!("latched, but {why}")),
    }
}

/// Pauses writes, waits for `to` to have everything, latches, and follows it: its clients' writes are refused from then on.
/// All in one conversation: a server that is started again in between has no pause, and is not told to follow.
pub fn hand_over(redis: &Redis, to: &str, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until: u64) -> End {
    let Some((host, port)) = to.rsplit_once(':') else { return End::never(format!("{to} is not address:port")) };
    let file = context.files.redis_latch();
    let by_us = latch::load_at(&file).is_ok_and(|latch| latch.mark.is_some_and(|mark| is_by(&mark, context)));
    let nothing = if by_us {
        "nothing was handed over, and the latch of an earlier attempt stands (`redis-release` takes it away)"
    } else {
        "nothing was handed over"
    };
    if let Look::There(how) = Deed::HandOver(to).shows(redis, context) {
        return all_refused(redis, how);
    }
    let seen = redis::look(redis);
    if let Some(why) = seen.other_file {
        return End::never(format!("{nothing}: {why}"));
    }
    if seen.state != State::Primary {
        return End::again(format!("{nothing}: {}", seen.how));
    }
    let mut talk = match Talk::open(&redis::endpoint(redis), ANSWER_MS) {
        Ok(talk) => talk,
        Err(why) => return End::again(format!("{nothing}: {why}")),
    };
    // A latch of ours says that all was handed over. That may not be so any more.
    if by_us && let Err(end) = clear(context, supervisor, &file, until, nothing) {
        return end;
    }
    let evidence = match until_whole(redis, to, &mut talk, supervisor, until) {
        Ok(evidence) => evidence,
        Err(end) => return end,
    };
    if let Err(end) = set_latch(context) {
        let_go(redis, String::new());
        return end;
    }
    for words in [&READ_ONLY[..], &["REPLICAOF", host, port]] {
        if let Err(why) = talk.command(words, ANSWER_MS) {
            return End::Unknown(format!("latched; unless it was started again meanwhile its writers wait: {why}"));
        }
    }
    let kept = keep(redis);
    match answer(Deed::HandOver(to), redis, context) {
        End::Done(how) => all_refused(redis, format!("{evidence}; {how}{kept}")),
        end => end,
    }
}

/// It is handed over: what waited is refused now.
fn all_refused(redis: &Redis, evidence: String) -> End {
    if redis::gone(redis).is_ok() {
        return End::Done(evidence);
    }
    match let_go_on(redis) {
        Ok(()) => End::Done(evidence),
        Err(why) => End::Unknown(format!("{evidence}; {why}")),
    }
}

fn until_whole(
    redis: &Redis,
    to: &str,
    talk: &mut Talk,
    supervisor: &mut Supervisor<'_>,
    until: u64,
) -> Result<String, End> {
    if let Err(why) = talk.command(&["CLIENT", "PAUSE", PAUSE_MS, "WRITE"], ANSWER_MS) {
        return Err(let_go(redis, format!("writes could not be paused: {why}")));
    }
    let patience = until.saturating_sub(until.saturating_sub(boottime_ms()) / 4);
    loop {
        let own = match talk.info(ANSWER_MS) {
            Ok(own) => own,
            Err(why) => return Err(let_go(redis, format!("the server whose writes were paused is lost: {why}"))),
        };
        let why = match whole(redis, &own, to) {
            Ok(evidence) => return Ok(evidence),
            Err(why) => why,
        };
        if let Some(Stop::Preempted(by)) = supervisor.stop() {
            let_go(redis, by.clone());
            return Err(End::Preempted(by));
        }
        if boottime_ms() >= patience {
            return Err(let_go(redis, why));
        }
        pause(10);
    }
}

/// Whether `to` follows the server that is `own`, and has everything that it wrote.
fn whole(redis: &Redis, own: &Shown, to: &str) -> Result<String, String> {
    let other = redis::info(&redis::at(redis, to), ANSWER_MS)?;
    match other.role {
        Role::Replica { linked: true, .. } if other.history == own.history && other.offset >= own.offset => {
            Ok(format!("writes paused at offset {}, {to} has all of it", own.offset))
        }
        Role::Replica { linked: true, .. } if other.history == own.history => {
            Err(format!("{to} has {} of {} bytes", other.offset, own.offset))
        }
        Role::Replica { of, .. } => Err(format!("{to} follows {of} and is not in step with this server")),
        Role::Primary => Err(format!("{to} is a primary and follows nobody")),
    }
}

/// Lets the writers go on.
fn let_go(redis: &Redis, why: String) -> End {
    match let_go_on(redis) {
        Ok(()) => End::again(format!("nothing was handed over, writes go on: {why}")),
        Err(e) => End::Unknown(format!("{why}; {e}")),
    }
}

/// Stops the server: politely for half the time there is, then by the kernel. `None`: go and look.
fn stop(redis: &Redis, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until: u64) -> Option<End> {
    supervisor.phase("stopping Redis");
    let Err(Listens::Processes(processes)) = redis::gone(redis) else { return None };
    let now = boottime_ms();
    let polite_until =
        now.saturating_add((until.saturating_sub(now) / 2).min(redis.stop_timeout_s.saturating_mul(1000)));
    match &redis.stop_argv {
        Some(argv) => {
            let output = context.files.output();
            let user = redis.runs_as(argv);
            let task = Task { argv, user, env: &Default::default(), output: &output, until_boottime_ms: polite_until };
            if let Ended::Stopped(Stop::Preempted(by)) = exec::run(&task, supervisor).ended {
                return Some(End::Preempted(by));
            }
        }
        None => {
            // It closes the connection instead of answering; what it says otherwise is that it goes on.
            let limit_ms = polite_until.saturating_sub(now);
            let _said = redis::command(&redis::endpoint(redis), &["SHUTDOWN"], limit_ms);
        }
    }
    let is_there = || redis::gone(redis).is_err() || processes.iter().any(|process| process.runs());
    for kill in [false, true] {
        let patience = if kill {
            processes.iter().for_each(|process| process.kill());
            boottime_ms().saturating_add(KILL_MS)
        } else {
            polite_until
        };
        loop {
            if !is_there() {
                return None;
            }
            if let Some(Stop::Preempted(by)) = supervisor.stop() {
                return Some(End::Preempted(by));
            }
            if boottime_ms() >= patience {
                break;
            }
            pause(5);
        }
    }
    None
}
