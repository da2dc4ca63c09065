//! Trip wires: a part on the way of a step holds it before or after its effect until the lab lets it go on. So a leader
//! can be killed in the middle of any step, for certain and not by luck.
//!
//! A wire is a file `trips/STEP.POINT.STATE` in the lab's folder; parts in other processes see the same files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::wait;

/// Nobody is held longer.
const HELD_AT_MOST: Duration = Duration::from_secs(60);

/// Where on the way of a step. A guard's command knows the two in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Asked for, nothing done yet.
    Before,
    /// Entered by the guard, its command runs; no effect yet.
    Inside,
    /// The effect is there, its command still runs: the guard has not written it down.
    Through,
    /// Done, nothing answered yet.
    After,
}

impl Point {
    fn word(self) -> &'static str {
        match self {
            Point::Before => "before",
            Point::Inside => "inside",
            Point::Through => "through",
            Point::After => "after",
        }
    }
}

fn wire(folder: &Path, step: &str, point: Point, state: &str) -> PathBuf {
    folder.join("trips").join(format!("{step}.{}.{state}", point.word()))
}

/// The next one to pass there is held.
pub fn arm(folder: &Path, step: &str, point: Point) -> Result<()> {
    let trips = folder.join("trips");
    fs::create_dir_all(&trips)?;
    // Commands that run as the database's user pass here too.
    fs::set_permissions(&trips, fs::Permissions::from_mode(0o777))?;
    fs::write(wire(folder, step, point, "armed"), "").context("cannot arm the trip wire")
}

/// Waits until somebody is held there.
pub async fn reached(folder: &Path, step: &str, point: Point, within: Duration) -> Result<()> {
    let held = wire(folder, step, point, "held");
    let what = format!("{step} to be held at {:?}", point.word());
    wait::until_true(&what, within, async || held.exists()).await
}

/// Lets whoever is held there go on.
pub fn release(folder: &Path, step: &str, point: Point) -> Result<()> {
    fs::write(wire(folder, step, point, "released"), "").context("cannot release the trip wire")
}

/// Called by a part: returns at once unless the wire is armed.
pub fn hold(folder: &Path, step: &str, point: Point) {
    // The renaming is atomic: exactly one passer is held.
    if fs::rename(wire(folder, step, point, "armed"), wire(folder, step, point, "held")).is_err() {
        return;
    }
    let released = wire(folder, step, point, "released");
    let _ = wait::until_blocking("a release", HELD_AT_MOST, || released.exists().then_some(()));
}

/// A shell function `hold STEP POINT` that does the same in a script.
pub fn shell_hold(folder: &Path) -> String {
    let trips = folder.join("trips");
    format!(
        "hold() {{\n  wire={}/$1.$2\n  mv $wire.armed $wire.held 2>/dev/null || return 0\n  for _ in $(seq {}); do\n    \
         [ -e $wire.released ] && return 0\n    sleep 0.01\n  done\n}}\n",
        trips.display(),
        HELD_AT_MOST.as_millis() / 10
    )
}

/// The same inside the runtime.
pub async fn hold_async(folder: PathBuf, step: &'static str, point: Point) {
    let _ = tokio::task::spawn_blocking(move || hold(&folder, step, point)).await;
}
