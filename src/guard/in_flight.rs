//! What is at work: entered under both locks before anything is begun, so that whoever raises the token afterwards sees
//! it; and the word of a later token that wants it ended.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::exec::{self, Stop, Watch};
use super::host;
use super::ledger::cut;
use super::locks;
use super::protocol::{InFlight, PHASE_BYTES_MAX, PROMOTE};
use super::records::{self, RecordError};
use super::token_store::GroupFiles;
use crate::domain::ids::{GroupName, RunId, StepId, Token};

/// Who asks, under which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The group.
    pub group: GroupName,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt.
    pub attempt: u32,
    /// The token.
    pub token: Token,
}

/// The file's content. It means nothing after a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entered {
    boot_nonce: String,
    what: InFlight,
    /// When the group's leader was started: a number used again by the kernel is not it.
    leader_started: Option<u64>,
}

/// A later token's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preempt {
    token: Token,
    run: RunId,
    step: StepId,
    abort: bool,
}

/// Shall `who` end what is in flight? Its own run's work is adopted, unless it aborts; promote is never ended.
pub fn preempts(in_flight: &InFlight, who: &Who, abort: bool) -> bool {
    in_flight.action != PROMOTE && who.token > in_flight.token && (abort || in_flight.run != who.run)
}

fn entered(files: &GroupFiles) -> Result<Option<Entered>, RecordError> {
    match records::read::<Entered>(&files.in_flight()) {
        Ok(entered) if entered.boot_nonce == host::boot_nonce() => Ok(Some(entered)),
        Ok(_) | Err(RecordError::Missing(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The process group that is still at work. A guard killed between starting its first command and writing its group
/// down left that command in its own session.
fn alive(entered: &Entered) -> Option<u32> {
    let Some(group) = entered.what.process_group else {
        let guard = entered.what.guard_pid;
        return host::process_started(guard).is_none().then(|| host::group_in_session(guard)).flatten();
    };
    let same = match host::process_started(group) {
        Some(started) => entered.leader_started == Some(started),
        None => true,
    };
    (same && exec::group_alive(group)).then_some(group)
}

/// What is at work now, seen by somebody who does not hold the action lock.
///
/// # Errors
/// The file is damaged while somebody holds the lock, or cannot be read.
pub fn look(files: &GroupFiles) -> Result<Option<InFlight>, RecordError> {
    let supervised = locks::is_held(&files.action_lock())?;
    match entered(files) {
        Ok(Some(entered)) if supervised => Ok(Some(entered.what)),
        Ok(_) if supervised => Ok(None),
        _ => orphan(files),
    }
}

/// What goes on without its guard, seen by somebody who holds the action lock, or knows that nobody does.
///
/// # Errors
/// The file cannot be read. A damaged one (it is not synced) tells nothing.
pub fn orphan(files: &GroupFiles) -> Result<Option<InFlight>, RecordError> {
    match entered(files) {
        Ok(Some(entered)) => {
            Ok(alive(&entered).map(|group| InFlight { orphaned: true, process_group: Some(group), ..entered.what }))
        }
        Ok(None) | Err(RecordError::Damaged { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Leaves word that what is in flight shall end. The caller holds the token lock. An orphan is ended at once: nobody
/// listens for it.
///
/// # Errors
/// The word could not be written.
pub fn ask_to_end(files: &GroupFiles, in_flight: &InFlight, who: &Who, abort: bool) -> Result<(), RecordError> {
    if in_flight.orphaned {
        in_flight.process_group.into_iter().for_each(exec::kill_now);
        return Ok(());
    }
    let word = Preempt { token: who.token, run: who.run.clone(), step: who.step.clone(), abort };
    records::write_quickly(&files.preempt(), &word)
}

/// The entry of one action at work. Dropping it takes the entry away.
#[derive(Debug)]
pub struct Supervisor<'a> {
    files: &'a GroupFiles,
    entered: Entered,
}

impl<'a> Supervisor<'a> {
    /// Enters an action. The caller holds the action lock and the token lock and has just compared the token.
    ///
    /// # Errors
    /// The entry could not be written; nothing may be begun.
    pub fn enter(files: &'a GroupFiles, who: &Who, action: &str) -> Result<Self, RecordError> {
        let what = InFlight {
            run: who.run.clone(),
            step: who.step.clone(),
            attempt: who.attempt,
            action: action.to_owned(),
            token: who.token,
            guard_pid: std::process::id(),
            process_group: None,
            since_boottime_ms: host::boottime_ms(),
            orphaned: false,
            phase: None,
        };
        let entered = Entered { boot_nonce: host::boot_nonce(), what, leader_started: None };
        records::write_quickly(&files.in_flight(), &entered)?;
        Ok(Self { files, entered })
    }

    /// How far it is, for whoever asks meanwhile. Cut to what an answer has room for.
    pub fn phase(&mut self, words: &str) {
        let words = Some(cut(words, PHASE_BYTES_MAX).to_owned());
        if self.entered.what.phase != words {
            self.entered.what.phase = words;
            self.write(&self.files.in_flight());
        }
    }

    /// The file that takes what commands print.
    pub fn output(&self) -> std::path::PathBuf {
        self.files.output()
    }

    fn write(&self, path: &Path) {
        // Without the entry a read-back cannot name the process group; the action itself is not worse for it.
        if let Err(e) = records::write_quickly(path, &self.entered) {
            tracing::warn!("{e}");
        }
    }
}

impl Watch for Supervisor<'_> {
    fn began(&mut self, process_group: u32) {
        self.entered.what.process_group = Some(process_group);
        self.entered.leader_started = host::process_started(process_group);
        self.write(&self.files.in_flight());
    }

    fn stop(&mut self) -> Option<Stop> {
        let mine = &self.entered.what;
        if mine.action == PROMOTE {
            return None;
        }
        let word: Preempt = records::read(&self.files.preempt()).ok()?;
        (word.token > mine.token && (word.abort || word.run != mine.run)).then(|| {
            let why = if word.abort { "aborted by" } else { "pre-empted by" };
            Stop::Preempted(format!("{why} token {} of {}/{}", word.token, word.run, word.step))
        })
    }
}

impl Drop for Supervisor<'_> {
    fn drop(&mut self) {
        // Left behind it means nothing: nobody holds the lock and its process group is gone.
        let _left = std::fs::remove_file(self.files.in_flight());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_what() {
        let token = |n| Token { epoch: 1, n };
        let at_work = |action: &str| InFlight {
            run: "r1".into(),
            step: "services".into(),
            attempt: 1,
            action: action.to_owned(),
            token: token(5),
            guard_pid: 1,
            process_group: None,
            since_boottime_ms: 0,
            orphaned: false,
            phase: None,
        };
        let who = |run: &str, n| Who {
            group: "a".into(),
            run: run.into(),
            step: "services".into(),
            attempt: 2,
            token: token(n),
        };
        for (action, run, n, abort, ends) in [
            ("start-services", "r1", 6, false, false),
            ("start-services", "r1", 6, true, true),
            ("start-services", "r1", 5, true, false),
            ("start-services", "r2", 6, false, true),
            ("start-services", "r2", 5, false, false),
            ("promote", "r2", 6, false, false),
            ("promote", "r1", 6, true, false),
            ("fence", "r2", 6, false, true),
        ] {
            assert_eq!(preempts(&at_work(action), &who(run, n), abort), ends, "{action} {run} {n} {abort}");
        }
    }
}
