//! Actions whose commands are in the configuration: `start-services`, `restart`, `scale`, `rollback` …

use std::collections::BTreeMap;

use super::{Context, End, Look, newest};
use crate::guard::config::Action;
use crate::guard::exec::{self, Ended, Stop, Task, Watch};
use crate::guard::in_flight::Supervisor;
use crate::guard::ledger;

/// A command's words with each parameter in its place, always as one whole word.
pub fn words(argv: &[String], params: &BTreeMap<String, String>) -> Vec<String> {
    let put = |word: &String| {
        let name = word.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        name.and_then(|name| params.get(name)).unwrap_or(word).clone()
    };
    argv.iter().map(put).collect()
}

/// Runs the commands in order.
pub fn act(action: &Action, context: &Context<'_>, supervisor: &mut Supervisor<'_>, until_boottime_ms: u64) -> End {
    let mut last = String::new();
    for argv in &action.argv {
        let argv = words(argv, context.params);
        let output = supervisor.output();
        let task = Task { argv: &argv, user: &action.user, env: &action.env, output: &output, until_boottime_ms };
        let ran = exec::run(&task, supervisor);
        let in_words = ran.in_words(&argv);
        match ran.ended {
            Ended::Exit(0) => last = in_words,
            Ended::Stopped(Stop::Preempted(_)) => return End::Preempted(in_words),
            // What a killed command had done by then is not known.
            Ended::Stopped(Stop::TimeOver) | Ended::Signal(_) => return End::Unknown(in_words),
            Ended::NotStarted(_) => return End::never(in_words),
            Ended::Exit(_) => return End::again(in_words),
        }
    }
    End::Done(last)
}

/// Runs the read-back command where the ledger says that the step was begun here at all.
pub fn look(action: &Action, context: &Context<'_>, until_boottime_ms: u64) -> Look {
    let entries = match ledger::load(&context.files.ledger()) {
        Ok(entries) => entries,
        Err(e) => return Look::CannotTell(e.to_string()),
    };
    let Some(entry) = newest(&entries, &context.who.run, &context.who.step) else {
        return Look::NotThere("the ledger has no record of this step of this run: it was not begun here".to_owned());
    };
    let hint = format!("ledger: {} under token {}", entry.event.word(), entry.token);
    let Some(argv) = &action.read_back else {
        return match entry.event {
            ledger::Event::Done => Look::There(format!("{hint}; no read_back is configured")),
            ledger::Event::Failed | ledger::Event::Preempted => Look::NotThere(format!("{hint}: {}", entry.detail)),
            ledger::Event::Started | ledger::Event::Unknown => {
                Look::CannotTell(format!("{hint}; no read_back is configured: look by hand"))
            }
        };
    };
    let argv = words(argv, context.params);
    let output = context.files.dir().join(format!("read-back-{}.log", std::process::id()));
    let task = Task { argv: &argv, user: &action.user, env: &action.env, output: &output, until_boottime_ms };
    let ran = exec::run(&task, &mut Unwatched);
    let _left = std::fs::remove_file(&output);
    let in_words = format!("{hint}; {}", ran.in_words(&argv));
    match ran.ended {
        Ended::Exit(0) => Look::There(in_words),
        Ended::Exit(code) if action.read_back_not_done.contains(&code) => Look::NotThere(in_words),
        _ => Look::CannotTell(in_words),
    }
}

/// A look may always run to its end: it changes nothing.
pub struct Unwatched;

impl Watch for Unwatched {
    fn began(&mut self, _process_group: u32) {}
    fn stop(&mut self) -> Option<Stop> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_one_whole_word_whatever_it_holds() {
        let argv = ["scale", "{n}", "{n}x", "{other}"].map(str::to_owned);
        let params = BTreeMap::from([("n".to_owned(), "3; rm -rf / {other}".to_owned())]);
        assert_eq!(words(&argv, &params), ["scale", "3; rm -rf / {other}", "{n}x", "{other}"]);
    }
}
