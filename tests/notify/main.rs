//! Pages on their way out, against a real HTTP server.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod alertmanager;
mod delivery;
mod mail;
mod receiver;
mod sending;

use std::path::PathBuf;
use std::time::Duration;

use watchdog::domain::ids::UnixMs;
use watchdog::domain::page::{Page, PageAction, Severity};

/// The one place that may wait: polls until `seen`, or fails the test.
async fn wait_until(what: &str, seen: impl Fn() -> bool) {
    for _ in 0..2000 {
        if seen() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not seen within 10 s: {what}");
}

fn tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

const AT: UnixMs = UnixMs(1_795_230_267_012);

fn page(key: &str) -> Page {
    Page {
        key: key.to_owned(),
        event: "DR_FAILOVER_SUCCESS".to_owned(),
        action: PageAction::Trigger,
        severity: Severity::Critical,
        summary: "aicamera serves from hanoi".to_owned(),
        group: Some("aicamera".into()),
        run: Some("0199-run".into()),
        details: [("recovery_time_ms".to_owned(), "3870".to_owned())].into(),
    }
}

fn secret_file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("secret");
    std::fs::write(&path, text).unwrap();
    path
}
