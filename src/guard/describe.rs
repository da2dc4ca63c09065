//! What this host can do: each action the guard knows, and whether its programs are there and can be run by whom they would
//! be run. Looks only, and starts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::actions::redis::ACTIONS as REDIS_ACTIONS;
use super::config::{Action, Config, Postgres};
use super::exec::{self, PATH};
use super::host::{self, User};
use super::ledger::cut;
use super::postgres;
use super::protocol::{
    ActionShown, FENCE, PROMOTE, REDIS_FENCE, REDIS_HAND_OVER, REDIS_REJOIN, REDIS_RELEASE, REJOIN, RELEASE,
};

/// A fault is told in no more than this, bytes: all of them must fit into one answer.
const FAULT_BYTES_MAX: usize = 300;

/// A program as it would be run.
struct Wanted<'a> {
    program: String,
    user: &'a str,
    path: &'a str,
}

/// Every action of this host, by name, as found just now.
pub fn actions(config: &Config) -> BTreeMap<String, ActionShown> {
    let mut looked = Looked::default();
    let mut shown = BTreeMap::new();
    for (name, action) in &config.action {
        let params = action.params.keys().cloned().collect();
        let fault = looked.first_fault(&of_action(action));
        shown.insert(name.clone(), ActionShown { params, fault });
    }
    if let Some(redis) = &config.redis {
        let own = [redis.server.display().to_string()];
        let start = redis.start_argv.as_deref().unwrap_or(&own);
        let starts = program(start, redis.runs_as(start));
        let stops = redis.stop_argv.as_ref().and_then(|argv| program(argv, redis.runs_as(argv)));
        for (name, takes_upstream) in REDIS_ACTIONS {
            let params = if takes_upstream { BTreeSet::from(["upstream".to_owned()]) } else { BTreeSet::new() };
            let wanted = match name {
                REDIS_FENCE | REDIS_HAND_OVER => &stops,
                REDIS_REJOIN | REDIS_RELEASE => &starts,
                _ => &None,
            };
            let fault = looked.first_fault(wanted.as_slice());
            shown.insert(name.to_owned(), ActionShown { params, fault });
        }
    }
    let Some(pg) = &config.postgres else { return shown };
    let mut built_in = |name: &str, params: &[&str], wanted: &[Wanted<'_>]| {
        let params: BTreeSet<String> = params.iter().map(|param| (*param).to_owned()).collect();
        shown.insert(name.to_owned(), ActionShown { params, fault: looked.first_fault(wanted) });
    };
    built_in(FENCE, &[], &[configured_or(pg, pg.stop_argv.as_ref()), own(pg, "pg_ctl")]);
    built_in(PROMOTE, &[], &[own(pg, "pg_ctl")]);
    built_in(RELEASE, &[], &[configured_or(pg, pg.start_argv.as_ref())]);
    if !pg.upstream.is_empty() {
        let start = configured_or(pg, pg.start_argv.as_ref());
        built_in(REJOIN, &["upstream"], &[own(pg, "pg_rewind"), own(pg, "pg_basebackup"), own(pg, "psql"), start]);
    }
    shown
}

fn of_action(action: &Action) -> Vec<Wanted<'_>> {
    let path = action.env.get("PATH").map_or(PATH, String::as_str);
    let programs = action.argv.iter().chain(&action.read_back).filter_map(|argv| argv.first());
    programs.map(|program| Wanted { program: program.clone(), user: &action.user, path }).collect()
}

fn program<'a>(argv: &[String], user: &'a str) -> Option<Wanted<'a>> {
    Some(Wanted { program: argv.first()?.clone(), user, path: PATH })
}

fn own<'a>(pg: &'a Postgres, name: &str) -> Wanted<'a> {
    Wanted { program: pg.bin_dir.join(name).display().to_string(), user: &pg.user, path: PATH }
}

/// What takes `pg_ctl`'s place in stopping or starting, where something does.
fn configured_or<'a>(pg: &'a Postgres, argv: Option<&'a Vec<String>>) -> Wanted<'a> {
    match argv.and_then(|argv| Some((argv.first()?, postgres::runs_as(pg, argv)))) {
        Some((program, user)) => Wanted { program: program.clone(), user, path: PATH },
        None => own(pg, "pg_ctl"),
    }
}

/// Users, each looked up once.
#[derive(Default)]
struct Looked(BTreeMap<String, Result<User, String>>);

impl Looked {
    fn first_fault(&mut self, wanted: &[Wanted<'_>]) -> Option<String> {
        wanted.iter().find_map(|one| self.fault(one)).map(|fault| cut(&fault, FAULT_BYTES_MAX).to_owned())
    }

    fn fault(&mut self, wanted: &Wanted<'_>) -> Option<String> {
        let find = || host::user(wanted.user).and_then(|user| exec::may_become(&user).map(|_| user));
        let user = match self.0.entry(wanted.user.to_owned()).or_insert_with(find) {
            Ok(user) => user.clone(),
            Err(why) => return Some(why.clone()),
        };
        let (program, candidates) = (wanted.program.clone(), candidates(&wanted.program, wanted.path));
        // Access lists, mounts without exec and the way there count too: the kernel is asked, as that user.
        let found = host::as_user(&user, move || look(&program, &candidates));
        match found {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(format!("{why} (as user {})", user.name)),
            Err(e) => Some(format!("{}: cannot look as user {}: {e}", wanted.program, user.name)),
        }
    }
}

/// Where a program may lie. Commands run in `/`.
fn candidates(program: &str, path: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![Path::new("/").join(program)];
    }
    path.split(':').map(|dir| Path::new("/").join(dir).join(program)).collect()
}

/// The first that can be run; else why none can.
fn look(program: &str, candidates: &[PathBuf]) -> Result<(), String> {
    let mut why = format!("{program}: no such program");
    for candidate in candidates {
        match std::fs::metadata(candidate) {
            Ok(found) if !found.is_file() => why = format!("{}: is no file", candidate.display()),
            Ok(_) => match rustix::fs::access(candidate, Access::EXEC_OK) {
                Ok(()) => return Ok(()),
                Err(_) => why = format!("{}: is there, but may not be run", candidate.display()),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => why = format!("{}: {e}", candidate.display()),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_is_looked_for_as_it_would_be_run() {
        let dir = tempfile::tempdir().expect("a folder");
        let put = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, "#!/bin/sh\n").expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode set");
            path.display().to_string()
        };
        let (good, plain) = (put("good", 0o755), put("plain", 0o644));
        let path = format!("/nowhere:{}", dir.path().display());
        let here = dir.path().display().to_string();
        for (program, path, wanted) in [
            (good.as_str(), PATH, Ok(())),
            ("good", path.as_str(), Ok(())),
            ("good", PATH, Err("good: no such program")),
            (plain.as_str(), PATH, Err("is there, but may not be run")),
            ("plain", path.as_str(), Err("is there, but may not be run")),
            ("/no/such", PATH, Err("/no/such: no such program")),
            (here.as_str(), PATH, Err("is no file")),
        ] {
            let found = look(program, &candidates(program, path));
            match (found, wanted) {
                (Ok(()), Ok(())) => {}
                (Err(why), Err(words)) => assert!(why.contains(words), "{why}"),
                (found, wanted) => panic!("{program}: {found:?}, not {wanted:?}"),
            }
        }
    }
}
