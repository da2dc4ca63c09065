//! A lab for one test: everything runs and writes; when the test fails its folder is kept and named.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use watchdog::guard::ledger::{self, Entry, Event};

use super::parts::{Lab, Options, Pace};
use super::{DR, HOME};

/// The fast settings, everything else as in the demo.
pub fn fast() -> Options {
    Options { pace: Pace::Fast, ..Options::default() }
}

/// Starts everything, plays `body`, and keeps the folder when it fails.
pub async fn play(options: Options, body: impl AsyncFnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    play_prepared(options, async |_: &mut Lab| Ok(()), body).await
}

/// The same, with something done before the nodes start.
pub async fn play_prepared(
    options: Options,
    prepare: impl AsyncFnOnce(&mut Lab) -> Result<()>,
    body: impl AsyncFnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut lab = Lab::start(options).await?;
    let played = async {
        prepare(&mut lab).await?;
        lab.start_nodes().await?;
        lab.start_client().await?;
        body(&mut lab).await
    };
    let played = played.await;
    if played.is_err() {
        lab.folder.keep_files();
    }
    // On one line, whatever the test harness makes of it.
    played.map_err(|error| anyhow::anyhow!("{error:#} (logs and state are in {})", lab.folder.path.display()))
}

/// The ledger of a region's guard.
pub fn ledger(lab: &Lab, site: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    find_ledgers(&lab.folder.path.join(site).join("guard"), &mut entries)?;
    Ok(entries)
}

fn find_ledgers(folder: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("no guard state at {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_ledgers(&path, entries)?;
        } else if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ledger")) {
            entries.extend(ledger::load(&path)?);
        }
    }
    Ok(())
}

/// How often each effect was brought about: what the guards' ledgers show as done, by host and action.
pub fn effects(lab: &Lab) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for site in [HOME, DR] {
        for entry in ledger(lab, site)?.iter().filter(|entry| entry.event == Event::Done) {
            *counts.entry(format!("{site}/{}", entry.action)).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Each effect of a failover exactly once.
pub fn each_effect_once(lab: &Lab) -> Result<()> {
    let found = effects(lab)?;
    for effect in ["hcmc/fence", "hanoi/promote", "hanoi/start-services"] {
        let count = found.get(effect).copied().unwrap_or_default();
        anyhow::ensure!(count == 1, "{effect} is {count} times in the ledgers: {found:?}");
    }
    anyhow::ensure!(found.len() == 3, "something else was done, too: {found:?}");
    Ok(())
}

/// Nothing was done to any host, and the name points home.
pub fn nothing_happened(lab: &Lab) -> Result<()> {
    let found = effects(lab)?;
    anyhow::ensure!(found.is_empty(), "something was done: {found:?}");
    points_at(lab, HOME)
}

/// The public name's address is the region's.
pub fn points_at(lab: &Lab, site: &str) -> Result<()> {
    let (said, wanted) = (lab.dig()?, super::address_of(site).to_string());
    anyhow::ensure!(said.ends_with(&format!(" {wanted}")), "the name does not point at {site}: {said}");
    Ok(())
}
