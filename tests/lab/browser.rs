//! Chromium without a window: what a page looks like to it, and what becomes of it there.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

use super::wait;

/// A browser takes its time on a loaded machine, and no longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// How the page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Width and height of the window.
    pub size: (u32, u32),
    /// The person likes it dark.
    pub dark: bool,
    /// What the browser accepts.
    pub language: &'static str,
    /// The person lets pages run scripts.
    pub scripts: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { size: (1280, 1800), dark: false, language: "en", scripts: true }
    }
}

/// The document as it stands once nothing loads any more: a page that is kept up to date loads until its stream ends.
pub fn document(url: &str, look: Look) -> Result<String> {
    document_after(url, look, 3000)
}

/// The same after so much of the browser's own time, which runs as fast as it can.
pub fn document_after(url: &str, look: Look, ms: u64) -> Result<String> {
    run(url, look, &["--dump-dom", &format!("--virtual-time-budget={ms}")])
}

/// Stays on the page until `seen`, in the browser's own time, which runs as fast as it can.
pub fn stay(url: &str, look: Look, seen: impl Fn() -> bool) -> Result<()> {
    let (profile, out) = (tempfile::tempdir()?, tempfile::NamedTempFile::new()?);
    let mut child = start(url, look, profile.path(), &out, &["--dump-dom", "--virtual-time-budget=3600000"])?;
    let waited = wait::until_blocking(&format!("chromium on {url}"), PATIENCE, || seen().then_some(Ok(())));
    // An error means that it is gone already.
    let _gone = child.kill();
    child.wait()?;
    waited?
}

/// A picture of it.
pub fn screenshot(url: &str, look: Look, file: &Path) -> Result<()> {
    let to = format!("--screenshot={}", file.display());
    run(url, look, &[&to, "--hide-scrollbars"])?;
    ensure!(file.metadata().is_ok_and(|it| it.len() > 10_000), "no picture at {}", file.display());
    Ok(())
}

fn run(url: &str, look: Look, words: &[&str]) -> Result<String> {
    let (profile, out) = (tempfile::tempdir()?, tempfile::NamedTempFile::new()?);
    let mut child = start(url, look, profile.path(), &out, words)?;
    let ended = wait::until_blocking(&format!("chromium to end on {url}"), PATIENCE, || child.try_wait().transpose());
    if ended.is_err() {
        // An error means that it is gone already.
        let _gone = child.kill();
        child.wait()?;
    }
    let ended = ended??;
    ensure!(ended.success(), "chromium on {url}: {ended}");
    Ok(std::fs::read_to_string(out.path())?)
}

fn start(url: &str, look: Look, profile: &Path, out: &NamedTempFile, words: &[&str]) -> Result<Child> {
    if !look.scripts {
        let folder = profile.join("Default");
        std::fs::create_dir(&folder)?;
        let text = r#"{"profile": {"default_content_setting_values": {"javascript": 2}}}"#;
        std::fs::write(folder.join("Preferences"), text)?;
    }
    let mut chromium = Command::new("chromium");
    // Its sandbox wants rights of the kernel that containers and root do not have; it sees our own pages only.
    chromium.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"]);
    chromium.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    chromium.arg(format!("--user-data-dir={}", profile.display()));
    chromium.arg(format!("--window-size={},{}", look.size.0, look.size.1)).arg(format!("--lang={}", look.language));
    chromium.arg(format!("--accept-lang={}", look.language));
    let scheme = u8::from(!look.dark);
    chromium.arg(format!("--blink-settings=preferredColorScheme={scheme}"));
    chromium.args(words).arg(url);
    chromium.stdin(Stdio::null()).stdout(out.reopen()?).stderr(Stdio::null());
    chromium.spawn().context("chromium cannot be started: scripts/install installs it")
}
