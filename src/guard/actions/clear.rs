//! Clearing the latch. Under the token lock: whoever raises a later token afterwards sees this action in flight, and whoever did before
//! is seen here. So a guard that slept an hour clears nothing, whoever was promoted meanwhile.

use std::path::Path;

use super::{Context, End};
use crate::guard::exec::{Stop, Watch};
use crate::guard::host::boottime_ms;
use crate::guard::in_flight::Supervisor;
use crate::guard::latch::{self, Latch};
use crate::guard::{locks, token_store};

/// The token lock is held for a few syncs only, milliseconds.
const TOKEN_LOCK_MS: u64 = 5000;

/// Clears the latch in `latch_file`, unless it is clear. `else_so`: what is so where it is not cleared, for people.
pub fn clear(
    context: &Context<'_>,
    supervisor: &mut Supervisor<'_>,
    latch_file: &Path,
    until_boottime_ms: u64,
    else_so: &str,
) -> Result<(), End> {
    supervisor.phase("clearing the latch");
    let again = |why: String| End::again(format!("{else_so}: {why}"));
    let (files, who) = (context.files, context.who);
    let taken = locks::take(&files.token_lock(), boottime_ms() + TOKEN_LOCK_MS).map_err(|e| again(e.to_string()))?;
    let held = || again(format!("{} is held: is the disk stuck?", files.token_lock().display()));
    let _comparing = taken.ok_or_else(held)?;
    if let Some(Stop::Preempted(by)) = supervisor.stop() {
        return Err(End::Preempted(by));
    }
    let held = token_store::load(files, &who.group).map_err(|e| again(e.to_string()))?.token;
    if held != who.token {
        return Err(End::Preempted(format!("token {held} was raised here meanwhile")));
    }
    if boottime_ms() >= until_boottime_ms {
        return Err(again("its time was over".to_owned()));
    }
    let latch = latch::load_at(latch_file).map_err(|e| again(e.to_string()))?;
    let Some(mark) = latch.mark else { return Ok(()) };
    // Looked at before too, but not under this lock.
    if !latch::may_clear(&mark, who) {
        return Err(End::never(format!(
            "{else_so}: latched under token {}, which {} may not clear",
            mark.token, who.token
        )));
    }
    let cleared_by = Some(format!("{}/{} under token {}", who.run, who.step, who.token));
    latch::store_at(latch_file, &Latch { mark: None, cleared_by })
        .map_err(|e| again(format!("the latch was not cleared: {e}")))
}
