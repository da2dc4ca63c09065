//! Trip wires: a part on the way of a step holds it before or after its effect until the lab lets it go on. So a leader
//! can be killed in the middle of any step, for certain and not by luck.
//!
//! A wire is a file `trips/STEP.POINT.STATE` in the lab's folder; parts in other processes see the same files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::wait;

/// Nobody is held longer.
const HELD_AT_MOST: Duration = Duration::from_secs(60);

/// On which side of the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Asked for, nothing done yet.
    Before,
    /// Done, nothing answered yet.
    After,
}

impl Point {
    fn word(self) -> &'static str {
        match self {
            Point::Before => "before",
            Point::After => "after",
        }
    }
}

fn wire(folder: &Path, step: &str, point: Point, state: &str) -> PathBuf {
    folder.join("trips").join(format!("{step}.{}.{state}", point.word()))
}

/// The next one to pass there is held.
pub fn arm(folder: &Path, step: &str, point: Point) -> Result<()> {
    fs::create_dir_all(folder.join("trips"))?;
    fs::write(wire(folder, step, point, "armed"), "").context("cannot arm the trip wire")
}

/// Waits until somebody is held there.
pub async fn reached(folder: &Path, step: &str, point: Point, within: Duration) -> Result<()> {
    let held = wire(folder, step, point, "held");
    let what = format!("{step} to be held {} its effect", point.word());
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

/// The same inside the runtime.
pub async fn hold_async(folder: PathBuf, step: &'static str, point: Point) {
    let _ = tokio::task::spawn_blocking(move || hold(&folder, step, point)).await;
}
