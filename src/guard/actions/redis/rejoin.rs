//! `redis-rejoin`: a fenced server becomes a replica of the present primary, never for a moment a primary: its configuration
//! says whom it follows before the latch is cleared, and it is started after. What it held and the other lacks is gone
//! with that. `redis-release`: a server that was handed over, or left with its writers waiting, is the primary again.
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

use super::{Context, Deed, End, READ_ONLY, clear, keep};
use crate::guard::exec::{self, Ended, Stop, Task};
use crate::guard::in_flight::Supervisor;
use crate::guard::latch;
use crate::guard::records;
use crate::guard::redis::config::Redis;
use crate::guard::redis::{self, ANSWER_MS, State};
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
    match seen.state {
        State::Unknown => return again(seen.how),
        State::Primary | State::WritableReplica if !is_latched => {
            return again(format!("it was not fenced: {}", seen.how));
        }
        State::Stopped => {
            if let Err(why) = follow(&redis.config_file, Some((host, port))) {
                return again(why);
            }
        }
        State::Primary | State::WritableReplica | State::Replica { .. } => {
            for words in [&READ_ONLY[..], &["REPLICAOF", host, port]] {
                if let Err(why) = redis::command(&redis::endpoint(redis), words, ANSWER_MS) {
                    return End::Unknown(why);
                }
            }
        }
    }
    if let Err(end) = clear(context, supervisor, &context.files.redis_latch(), until, "not rejoined") {
        return end;
    }
    if seen.state == State::Stopped
        && let Some(end) = start(redis, context, supervisor, until)
    {
        return end;
    }
    supervisor.phase("waiting for Redis to be in step");
    let kept = if seen.state == State::Stopped { String::new() } else { keep(redis) };
    match Deed::Rejoin(of).until_so(redis, context, supervisor, until) {
        End::Done(evidence) => End::Done(format!("{evidence}{kept}")),
        end => end,
    }
}

/// Makes it the primary again.
pub fn release(redis: &Redis, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until: u64) -> End {
    let again = |why: String| End::again(format!("nothing was released: {why}"));
    let latch = match latch::load_at(&context.files.redis_latch()) {
        Ok(latch) => latch,
        Err(e) => return again(e.to_string()),
    };
    let own = format!("{}/{} ", context.who.run, context.who.step);
    let was_ours = latch.mark.is_some() || latch.cleared_by.is_some_and(|by| by.starts_with(&own));
    let seen = redis::look(redis);
    match seen.state {
        State::Unknown => return again(seen.how),
        State::WritableReplica | State::Replica { .. } if !was_ours => {
            return End::never(format!("nothing was released: {}", seen.how));
        }
        State::Stopped => {
            if let Err(why) = follow(&redis.config_file, None) {
                return again(why);
            }
        }
        State::Primary | State::WritableReplica | State::Replica { .. } => {}
    }
    if let Err(end) = clear(context, supervisor, &context.files.redis_latch(), until, "nothing was released") {
        return end;
    }
    let mut kept = String::new();
    if seen.state == State::Stopped {
        if let Some(end) = start(redis, context, supervisor, until) {
            return end;
        }
    } else if seen.state != State::Primary {
        if let Err(why) = redis::command(&redis::endpoint(redis), &["REPLICAOF", "NO", "ONE"], ANSWER_MS) {
            return End::Unknown(why);
        }
        kept = keep(redis);
    }
    let end = Deed::Release.until_so(redis, context, supervisor, until);
    // A hand-over that was left in its middle makes its writers wait.
    match (redis::command(&redis::endpoint(redis), &["CLIENT", "UNPAUSE"], ANSWER_MS), end) {
        (Ok(_), End::Done(evidence)) => End::Done(format!("{evidence}{kept}")),
        (Ok(_), end) => end,
        (Err(why), _) => End::Unknown(format!("whether its writers go on is not known: {why}")),
    }
}

/// Writes whom the stopped server follows into its configuration file, and leaves the rest of it as it is.
fn follow(file: &Path, whom: Option<(&str, &str)>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    let old = fs::read_to_string(file).map_err(failed)?;
    let new = with_upstream(&old, whom);
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
fn with_upstream(text: &str, whom: Option<(&str, &str)>) -> String {
    let mut kept: String = text.lines().filter(|line| !names_one(line)).map(|line| format!("{line}\n")).collect();
    if let Some((host, port)) = whom {
        kept += &format!("replicaof {host} {port}\n");
    }
    kept
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
        assert_eq!(with_upstream(text, None), without);
        assert_eq!(with_upstream(text, Some(("10.2.0.7", "6380"))), format!("{without}replicaof 10.2.0.7 6380\n"));
        let older = format!("{}eof 10.1.0.7 6379\n", "slav");
        assert_eq!(with_upstream(&older, None), "");
        assert_eq!(upstream_in(text), Some(("10.1.0.7", "6379")));
        assert_eq!(upstream_in(&format!("{text}{older}replicaof 10.2.0.7 6380\n")), Some(("10.2.0.7", "6380")));
        assert_eq!(upstream_in(without), None);
    }
}
