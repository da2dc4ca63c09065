//! `redis-rejoin`: a fenced server becomes a replica of the present primary, never for a moment a primary: its configuration
//! says whom it follows before the latch is cleared, and it is started after. What it held and the other lacks is gone
//! with that. `redis-release`: a server that this run handed over, or left with its writers waiting, is the primary again; it
//! starts none, and takes nothing back that is another run's.
//!
//! | it dies, or sleeps an hour | what stands |
//! |---|---|
//! | before the latch is cleared | a stopped, latched server. A guard that wakes late clears nothing: the token and the deadline are compared under the token lock |
//! | between clearing and starting | a stopped server: whoever starts it does what was asked for |

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::fence::fence;
use super::{Context, Deed, End, READ_ONLY, clear, keep, let_go_on, rewrite};
use crate::domain::stuck::UNLATCH;
use crate::guard::exec::{self, Ended, Stop, Task, Watch};
use crate::guard::host::{boottime_ms, pause};
use crate::guard::in_flight::Supervisor;
use crate::guard::latch::{self, Latch};
use crate::guard::ledger::{self, Event};
use crate::guard::protocol::REDIS_HAND_OVER;
use crate::guard::records::{self, RecordError};
use crate::guard::redis::config::Redis;
use crate::guard::redis::{self, ANSWER_MS, Seen, State};
use crate::redis::Role;

/// Makes it follow `of`.
pub fn rejoin(redis: &Redis, of: &str, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until: u64) -> End {
    let again = |why: String| End::again(format!("nothing was rejoined: {why}"));
    match redis::info(&redis::at(redis, of), ANSWER_MS) {
        Ok(upstream) if upstream.role == Role::Primary && !upstream.loading => {}
        Ok(upstream) => return again(format!("{of} is no primary that works: {:?}", upstream.role)),
        Err(why) => return again(why),
    }
    let Some((host, port)) = of.rsplit_once(':') else { return again(format!("{of} is not address:port")) };
    let is_latched = match latch::load_at(&context.files.redis_latch()) {
        Ok(latch) => latch.mark.is_some(),
        Err(e) => return again(e.to_string()),
    };
    let seen = redis::look(redis);
    if let Some(why) = seen.other_file {
        return End::never(format!("nothing was rejoined: {why}"));
    }
    match seen.state {
        State::Unknown => return again(seen.how),
        State::Primary | State::WritableReplica if !is_latched => {
            return again(format!("it was not fenced: {}", seen.how));
        }
        State::Stopped => {
            if let Err(why) = follow(&redis.config_file, host, port) {
                return again(why);
            }
        }
        State::Primary | State::WritableReplica | State::Replica { .. } => {
            for words in [&READ_ONLY[..], &["REPLICAOF", host, port]] {
                if let Err(why) = redis::command(&redis::endpoint(redis), words, ANSWER_MS) {
                    return End::Unknown(why);
                }
            }
            // Without its latch a restart may make it again what the file says.
            if let Err(why) = rewrite(redis) {
                return End::again(format!("it follows {of}, but stays latched where it was: {why}"));
            }
        }
    }
    if let Err(end) = clear(context, supervisor, &context.files.redis_latch(), until, "not rejoined") {
        return end;
    }
    if seen.state == State::Stopped
        && let Some(end) =
            start(redis, context, supervisor, until).or_else(|| takes_writes(redis, context, supervisor, until))
    {
        return end;
    }
    supervisor.phase("waiting for Redis to be in step");
    match (Deed::Rejoin(of).until_so(redis, context, supervisor, until), let_go_on(redis)) {
        (End::Done(evidence), Err(why)) => End::Unknown(format!("{evidence}; {why}")),
        (end, _) => end,
    }
}

/// What was started may not have read the file that names whom it follows. `Some` where it did not come up as that one's
/// replica: a primary is fenced again.
fn takes_writes(redis: &Redis, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until: u64) -> Option<End> {
    loop {
        let seen = redis::look(redis);
        match seen.state {
            State::Replica { .. } => return None,
            State::Primary => {
                let why = seen.other_file.unwrap_or(seen.how);
                let file = redis.config_file.display();
                return Some(match fence(redis, context, supervisor, until) {
                    End::Done(how) => End::never(format!(
                        "it came up as a primary, though {file} names whom it follows, and was latched and stopped again: \
                         look at start_argv of [redis]: {why}; {how}"
                    )),
                    End::Failed { reason: how, .. } | End::Unknown(how) | End::Preempted(how) => End::Unknown(format!(
                        "it came up as a primary, though {file} names whom it follows: stop it by hand: {why}; {how}"
                    )),
                });
            }
            State::WritableReplica => {
                let told = redis::command(&redis::endpoint(redis), &READ_ONLY, ANSWER_MS);
                return told.map(|_| ()).and_then(|()| rewrite(redis)).err().map(End::again);
            }
            State::Stopped | State::Unknown if supervisor.stop().is_some() || boottime_ms() >= until => return None,
            State::Stopped | State::Unknown => pause(10),
        }
    }
}

/// Makes it the primary again, where this run took that from it. All else stays as it was.
pub fn release(redis: &Redis, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until: u64) -> End {
    let again = |why: String| End::again(format!("nothing was released: {why}"));
    let latch = match latch::load_at(&context.files.redis_latch()) {
        Ok(latch) => latch,
        Err(e) => return again(e.to_string()),
    };
    let own = format!("{}/{} ", context.who.run, context.who.step);
    let is_latched_by_us = latch.mark.as_ref().is_some_and(|mark| mark.run == context.who.run);
    let was_ours = is_latched_by_us || latch.cleared_by.as_ref().is_some_and(|by| by.starts_with(&own));
    let seen = redis::look(redis);
    match seen.state {
        State::Unknown => return again(seen.how),
        State::Stopped => return stopped(redis, &latch, is_latched_by_us, &seen.how),
        _ if !was_ours => return not_ours(redis, &latch, context, &seen),
        State::Primary | State::WritableReplica | State::Replica { .. } => {}
    }
    if let Err(end) = clear(context, supervisor, &context.files.redis_latch(), until, "nothing was released") {
        return end;
    }
    let mut kept = String::new();
    if seen.state != State::Primary {
        if let Err(why) = redis::command(&redis::endpoint(redis), &["REPLICAOF", "NO", "ONE"], ANSWER_MS) {
            return End::Unknown(why);
        }
        kept = keep(redis);
    }
    let end = Deed::Release.until_so(redis, context, supervisor, until);
    // A hand-over that was left in its middle makes its writers wait.
    match (let_go_on(redis), end) {
        (Ok(()), End::Done(evidence)) => End::Done(format!("{evidence}{kept}")),
        (Ok(()), end) => end,
        (Err(why), _) => End::Unknown(why),
    }
}

/// It does not run: what is on its disk may be older than what its clients were told is kept.
fn stopped(redis: &Redis, latch: &Latch, is_latched_by_us: bool, how: &str) -> End {
    let file = redis.config_file.display();
    match &latch.mark {
        Some(_) if is_latched_by_us => End::never(format!(
            "not started: {how}. This run handed it over: the other server has every acknowledged byte, and this one may come \
             up with older data. Choose: start it as the other's replica (`replicaof` in {file}, {UNLATCH} --redis) and make \
             it the primary once it is in step, or make the other the primary (REPLICAOF NO ONE there) and this one its replica"
        )),
        Some(mark) => End::never(format!(
            "not started: {how}. It was latched under token {} by {}/{}, not by this run: make it a replica (redis-rejoin)",
            mark.token, mark.run, mark.step
        )),
        None => End::again(format!(
            "not started: {how}. This run did not stop it: see its log, and start it as {file} has it"
        )),
    }
}

/// Nothing of this run's is there, but writers that a hand-over of its left waiting.
fn not_ours(redis: &Redis, latch: &Latch, context: &Context<'_>, seen: &Seen) -> End {
    let mark = latch.mark.as_ref();
    let latched = mark.map_or("not latched".to_owned(), |mark| {
        format!("latched under token {} by {}/{}, which stays", mark.token, mark.run, mark.step)
    });
    if seen.state != State::Primary {
        match may_have_followed(context) {
            Ok(false) => {}
            Ok(true) => {
                let by = latch.cleared_by.as_deref().unwrap_or("nobody known");
                return End::never(format!(
                    "nothing was released: {latched}; {}. This run may have handed it over, and its latch was cleared since \
                     ({by}): make the right one the primary by hand (REPLICAOF NO ONE)",
                    seen.how
                ));
            }
            Err(e) => return End::again(format!("nothing was released: {e}")),
        }
    }
    match let_go_on(redis) {
        Ok(()) => {
            End::Done(format!("nothing of this run's to take back, all is left as it is: {latched}; {}", seen.how))
        }
        Err(why) => End::Unknown(why),
    }
}

/// A hand-over of this run began here, and did not end by saying that nothing was handed over.
fn may_have_followed(context: &Context<'_>) -> Result<bool, RecordError> {
    let entries = ledger::load(&context.files.ledger())?;
    let of_run = entries.iter().filter(|entry| entry.run == context.who.run && entry.action == REDIS_HAND_OVER);
    let (began, ended): (Vec<_>, Vec<_>) = of_run.partition(|entry| entry.event == Event::Started);
    let failed = ended.iter().filter(|entry| entry.event == Event::Failed).count();
    Ok(began.len() != failed)
}

/// Writes whom the stopped server follows into its configuration file, and leaves the rest of it as it is.
fn follow(file: &Path, host: &str, port: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    let old = fs::read_to_string(file).map_err(failed)?;
    let new = with_upstream(&old, host, port);
    if new == old {
        return Ok(());
    }
    let about = fs::metadata(file).map_err(failed)?;
    let beside = file.with_extension("watchdog");
    let write = || {
        let mut written = fs::File::create(&beside)?;
        written.set_permissions(fs::Permissions::from_mode(about.mode() & 0o7777))?;
        std::os::unix::fs::fchown(&written, Some(about.uid()), Some(about.gid()))?;
        written.write_all(new.as_bytes())?;
        written.sync_all()?;
        fs::rename(&beside, file)
    };
    write().map_err(failed)?;
    records::sync_dir_of(file).map_err(|e| e.to_string())
}

/// Whether the configuration file has the server follow `whom`, `host:port`.
pub(super) fn follows(file: &Path, whom: &str) -> Result<bool, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(upstream_in(&text).is_some_and(|(host, port)| whom == format!("{host}:{port}")))
}

/// The last line that names one counts.
fn upstream_in(text: &str) -> Option<(&str, &str)> {
    let mut words = text.lines().rfind(|line| names_one(line))?.split_ascii_whitespace().skip(1);
    Some((words.next()?, words.next()?))
}

fn names_one(line: &str) -> bool {
    let word = line.split_ascii_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    // Its older name too.
    word.ends_with("of") && (word.starts_with("replica") || word.len() == "replicaof".len() - 2)
}

/// The lines without any that names whom it follows, and one that does.
fn with_upstream(text: &str, host: &str, port: &str) -> String {
    let kept: String = text.lines().filter(|line| !names_one(line)).map(|line| format!("{line}\n")).collect();
    format!("{kept}replicaof {host} {port}\n")
}

/// Starts the server by the configured words, or its own program. `Some` where it cannot be.
fn start(redis: &Redis, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until: u64) -> Option<End> {
    supervisor.phase("starting Redis");
    let own = [
        redis.server.display().to_string(),
        redis.config_file.display().to_string(),
        "--daemonize".to_owned(),
        "yes".to_owned(),
    ];
    let argv = redis.start_argv.as_deref().unwrap_or(&own);
    let output = context.files.output();
    let (user, env) = (redis.runs_as(argv), BTreeMap::new());
    let task = Task { argv, user, env: &env, output: &output, until_boottime_ms: until };
    let ran = exec::run(&task, supervisor);
    match ran.ended {
        Ended::Exit(0) => None,
        Ended::Stopped(Stop::Preempted(by)) => Some(End::Preempted(by)),
        _ => Some(End::again(format!("Redis could not be started: {}", ran.in_words(argv)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_that_names_the_primary_is_changed() {
        let text = "port 6379\n# replicaof is below\nReplicaOf 10.1.0.7 6379\nreplica-read-only yes\nproof x\n";
        let without = "port 6379\n# replicaof is below\nreplica-read-only yes\nproof x\n";
        assert_eq!(with_upstream(text, "10.2.0.7", "6380"), format!("{without}replicaof 10.2.0.7 6380\n"));
        let older = format!("{}eof 10.1.0.7 6379\n", "slav");
        assert_eq!(with_upstream(&older, "10.2.0.7", "6380"), "replicaof 10.2.0.7 6380\n");
        assert_eq!(upstream_in(text), Some(("10.1.0.7", "6379")));
        assert_eq!(upstream_in(&format!("{text}{older}replicaof 10.2.0.7 6380\n")), Some(("10.2.0.7", "6380")));
        assert_eq!(upstream_in(without), None);
    }
}
