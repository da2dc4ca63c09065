//! Backups: when the last good one was made, read from what the backup tool or the store says. Never evidence that a region
//! is lost: a backup that is late is told, by metrics and their alerts, and triggers nothing.
//!
//! Nothing is run: pgBackRest's own `info --output=json` is read as its schedule wrote it, from a file or by HTTP, or else
//! the time of a file, or the `Last-Modified` of an object (an S3 object's presigned or public address, for one).

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use reqwest::header::LAST_MODIFIED;
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use url::Url;

use super::http::{HttpClients, failed, without_secrets};
use super::{Probe, ProbeError, failure};
use crate::domain::ids::UnixMs;
use crate::domain::observation::{BackupMeasure, Failure, FailureKind, Measure};

/// A repository's whole catalogue is smaller, bytes.
const MAX_INFO_BYTES: u64 = 8 << 20;
/// Backups "from the future" by more than this are a fault of somebody's clock, milliseconds.
const FUTURE_MS: u64 = 3_600_000;

/// Where it is written when the last backup was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupSource {
    /// A file on this machine.
    File(PathBuf),
    /// By HTTP.
    Url(Url),
}

/// What that says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupFormat {
    /// pgBackRest's `info --output=json`; of this stanza.
    PgBackRest {
        /// Its name.
        stanza: String,
    },
    /// Nothing but the time it was last changed.
    Modified,
}

/// Reads when the last good backup was made.
pub struct BackupProbe {
    source: BackupSource,
    format: BackupFormat,
    client: Option<reqwest::Client>,
}

impl BackupProbe {
    /// # Errors
    /// A `ca_file` that cannot be read or holds no certificate.
    pub fn new(
        clients: &mut HttpClients,
        source: BackupSource,
        format: BackupFormat,
        ca_file: Option<&Path>,
    ) -> Result<Self, ProbeError> {
        let client = match &source {
            BackupSource::Url(url) => Some(clients.client(url, ca_file, false)?),
            BackupSource::File(_) => None,
        };
        Ok(Self { source, format, client })
    }

    async fn look(&self) -> Result<BackupMeasure, Failure> {
        let (place, info) = match (&self.source, &self.client) {
            (BackupSource::Url(url), Some(client)) => {
                let place = format!("backup {}", without_secrets(url));
                let method = if self.format == BackupFormat::Modified { Method::HEAD } else { Method::GET };
                let sent = client.request(method, url.clone()).send().await;
                let answer = sent.map_err(|error| failed(&place, error))?;
                let read = self.of_answer(&place, answer).await?;
                (place, read)
            }
            (BackupSource::File(path), _) => (format!("backup {}", path.display()), self.of_file(path).await?),
            (BackupSource::Url(_), None) => {
                return Err(failure::failure(FailureKind::OurFault, "backup: no HTTP client was made"));
            }
        };
        match (info, &self.format) {
            (Found::At(at), _) => Ok(BackupMeasure { last_success: Some(at), is_ok: true, ..BackupMeasure::default() }),
            (Found::Info(bytes), BackupFormat::PgBackRest { stanza }) => read_info(&bytes, stanza)
                .map_err(|what| failure::failure(FailureKind::WrongAnswer, format!("{place}: {what}"))),
            (Found::Info(_), BackupFormat::Modified) => {
                Err(failure::failure(FailureKind::OurFault, format!("{place}: read, and not asked to be")))
            }
        }
    }

    async fn of_answer(&self, place: &str, mut answer: Response) -> Result<Found, Failure> {
        let status = answer.status();
        if status != StatusCode::OK {
            let kind = match status.as_u16() {
                401 | 403 | 407 => FailureKind::OurFault,
                _ => FailureKind::WrongAnswer,
            };
            return Err(failure::failure(kind, format!("{place}: status {status}")));
        }
        if self.format == BackupFormat::Modified {
            let said = answer.headers().get(LAST_MODIFIED).and_then(|value| value.to_str().ok());
            let at = said.and_then(http_date).ok_or_else(|| {
                failure::failure(
                    FailureKind::WrongAnswer,
                    format!("{place}: no Last-Modified that can be read: {said:?}"),
                )
            })?;
            return Ok(Found::At(at));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| failed(place, error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MAX_INFO_BYTES {
                let what = format!("{place}: more than {MAX_INFO_BYTES} bytes");
                return Err(failure::failure(FailureKind::WrongAnswer, what));
            }
        }
        Ok(Found::Info(bytes))
    }

    async fn of_file(&self, path: &Path) -> Result<Found, Failure> {
        let ours = |error: std::io::Error| {
            failure::failure(FailureKind::OurFault, format!("backup {}: {error}", path.display()))
        };
        if self.format == BackupFormat::Modified {
            let modified = tokio::fs::metadata(path).await.map_err(ours)?.modified().map_err(ours)?;
            let ms = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
            return Ok(Found::At(UnixMs(u64::try_from(ms).unwrap_or(u64::MAX))));
        }
        let mut bytes = Vec::new();
        let file = tokio::fs::File::open(path).await.map_err(ours)?;
        file.take(MAX_INFO_BYTES + 1).read_to_end(&mut bytes).await.map_err(ours)?;
        if bytes.len() as u64 > MAX_INFO_BYTES {
            let what = format!("backup {}: more than {MAX_INFO_BYTES} bytes", path.display());
            return Err(failure::failure(FailureKind::WrongAnswer, what));
        }
        Ok(Found::Info(bytes))
    }
}

enum Found {
    At(UnixMs),
    Info(Vec<u8>),
}

#[async_trait]
impl Probe for BackupProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        let measure = self.look().await?;
        let newest = measure.last_success.unwrap_or_default();
        let now = crate::clock::unix_now();
        if newest.0 > now.0.saturating_add(FUTURE_MS) {
            let ahead_s = (newest.0 - now.0) / 1000;
            let what = format!("the last backup is {ahead_s} s in the future: whose clock is wrong?");
            return Err(failure::failure(FailureKind::WrongAnswer, what));
        }
        Ok(Some(Measure::Backup(measure)))
    }
}

/// One stanza of `pgbackrest info --output=json`, as far as it is read here.
#[derive(Deserialize)]
struct Stanza {
    name: String,
    status: Status,
    #[serde(default)]
    backup: Vec<Backup>,
}

#[derive(Deserialize)]
struct Status {
    code: u64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Backup {
    timestamp: Times,
    /// Pages with wrong checksums were found in it; left out by some versions.
    #[serde(default)]
    error: Option<bool>,
    #[serde(default)]
    info: Option<Sizes>,
}

/// Seconds since 1970.
#[derive(Deserialize)]
struct Times {
    start: u64,
    stop: u64,
}

#[derive(Deserialize)]
struct Sizes {
    #[serde(default)]
    size: Option<u64>,
}

/// What pgBackRest says of one stanza.
///
/// # Errors
/// In words: it is no such JSON, or says nothing of the stanza.
pub fn read_info(bytes: &[u8], stanza: &str) -> Result<BackupMeasure, String> {
    let stanzas: Vec<Stanza> = serde_json::from_slice(bytes)
        .map_err(|error| format!("not what `pgbackrest info --output=json` prints: {error}"))?;
    let Some(found) = stanzas.iter().find(|one| one.name == stanza) else {
        let names: Vec<&str> = stanzas.iter().map(|one| one.name.as_str()).take(10).collect();
        return Err(format!("no stanza {stanza:?} in it, but: {}", names.join(", ")));
    };
    let is_good = |backup: &&Backup| backup.error != Some(true);
    let good = found.backup.iter().filter(is_good).max_by_key(|backup| backup.timestamp.stop);
    let newest = found.backup.iter().max_by_key(|backup| backup.timestamp.stop);
    let note = match (found.status.code, newest) {
        (0, Some(newest)) if newest.error == Some(true) => {
            "the newest backup has pages with wrong checksums".to_owned()
        }
        (0, _) => String::new(),
        (code, _) => format!("status {code}: {}", found.status.message),
    };
    Ok(BackupMeasure {
        last_success: good.map(|backup| UnixMs(backup.timestamp.stop.saturating_mul(1000))),
        is_ok: note.is_empty(),
        took_ms: good.map(|good| good.timestamp.stop.saturating_sub(good.timestamp.start).saturating_mul(1000)),
        size_bytes: good.and_then(|good| good.info.as_ref()?.size),
        note: note.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect(),
    })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, IMF-fixdate: the one form that servers may send).
fn http_date(text: &str) -> Option<UnixMs> {
    let (_, rest) = text.split_once(", ")?;
    let words: Vec<&str> = rest.split(' ').collect();
    let [day, month, year, time, "GMT"] = words[..] else { return None };
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let mut clock = time.splitn(3, ':').map(str::parse::<u64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 by the months of a year that begins in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(UnixMs((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    // date -ud … +%s
    #[test]
    fn dates_of_http_are_read() {
        for (text, s) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
            ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_200),
            ("Sat, 21 Nov 2026 19:28:54 GMT", 1_795_289_334),
        ] {
            assert_eq!(http_date(text), Some(UnixMs(s * 1000)), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 +0700",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "x, 1 Jan 1970 0:0:99 GMT",
        ] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }
}
