//! PagerDuty's Events API v2: `POST {base_url}/v2/enqueue`, 202 when taken.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use ring::digest;
use serde::Serialize;
use url::Url;

use super::http::{NotifyError, Poster, read_secret, shown_address};
use super::rfc3339::rfc3339;
use super::{Notifier, Parcel, Sent};
use crate::domain::ids::ClusterName;
use crate::domain::page::{PageAction, Severity};

/// PagerDuty's limits, characters.
const SUMMARY_MAX: usize = 1024;
const DEDUP_KEY_MAX: usize = 255;
/// PagerDuty refuses an event above 512 KiB: each fact is cut to this, characters, and there are at most so many.
const DETAIL_MAX: usize = 4096;
const DETAILS_MAX: usize = 100;

/// Sends to one PagerDuty integration.
#[derive(Debug)]
pub struct PagerDuty {
    cluster: ClusterName,
    routing_key_file: PathBuf,
    poster: Poster,
}

impl PagerDuty {
    /// For the integration whose routing key is in `routing_key_file`.
    ///
    /// # Errors
    /// Where `base_url` cannot be a base, or no HTTP client can be built.
    pub fn new(
        cluster: ClusterName,
        base_url: &Url,
        routing_key_file: PathBuf,
        timeout: Duration,
    ) -> Result<Self, NotifyError> {
        let mut url = base_url.clone();
        url.path_segments_mut()
            .map_err(|()| NotifyError::BaseUrl { address: shown_address(base_url) })?
            .pop_if_empty()
            .extend(["v2", "enqueue"]);
        Ok(Self { cluster, routing_key_file, poster: Poster::new(url, timeout)? })
    }
}

#[async_trait]
impl Notifier for PagerDuty {
    async fn send(&self, parcel: Parcel<'_>) -> Sent {
        let routing_key = match read_secret("routing_key_file", &self.routing_key_file).await {
            Ok(key) => key,
            Err(e) => return Sent::Retry { reason: e.to_string(), after: None },
        };
        match serde_json::to_vec(&event(&self.cluster, &routing_key, parcel)) {
            Ok(body) => self.poster.post(body, HeaderMap::new(), Some(&routing_key)).await,
            Err(e) => Sent::Refused { reason: format!("the page cannot be written as JSON: {e}") },
        }
    }
}

#[derive(Serialize)]
struct Event<'a> {
    routing_key: &'a str,
    event_action: PageAction,
    dedup_key: String,
    client: &'static str,
    payload: Payload<'a>,
}

#[derive(Serialize)]
struct Payload<'a> {
    summary: String,
    severity: Severity,
    source: &'a str,
    timestamp: String,
    component: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    class: &'a str,
    custom_details: BTreeMap<&'a str, String>,
}

fn event<'a>(cluster: &'a ClusterName, routing_key: &'a str, parcel: Parcel<'a>) -> Event<'a> {
    let page = parcel.page;
    let mut custom_details: BTreeMap<&str, String> =
        page.details.iter().take(DETAILS_MAX).map(|(name, value)| (name.as_str(), cut(value, DETAIL_MAX))).collect();
    if let Some(notice) = parcel.notice {
        custom_details.entry("ladder_step").or_insert_with(|| notice.step.clone());
        if !notice.contacts.is_empty() {
            let told = notice.contacts.iter().map(|told| format!("{} ({})", told.name, told.role));
            custom_details.entry("contacts").or_insert_with(|| cut(&told.collect::<Vec<_>>().join(", "), DETAIL_MAX));
        }
    }
    if let Some(run) = &page.run {
        custom_details.entry("run").or_insert_with(|| run.to_string());
    }
    if let Some(seq) = parcel.seq {
        custom_details.entry("seq").or_insert_with(|| seq.to_string());
    }
    Event {
        routing_key,
        event_action: page.action,
        dedup_key: dedup_key(&page.key),
        client: "failover-watchdog",
        payload: Payload {
            // An empty summary would be refused, and the page lost for a formality.
            summary: if page.summary.trim().is_empty() { page.event.clone() } else { cut(&page.summary, SUMMARY_MAX) },
            severity: page.severity,
            source: cluster.as_str(),
            timestamp: rfc3339(parcel.at),
            component: "failover-watchdog",
            group: page.group.as_ref().map(|group| group.as_str()),
            class: &page.event,
            custom_details,
        },
    }
}

/// The page's key; one too long keeps its start and ends in a digest, so that two never become the same.
fn dedup_key(key: &str) -> String {
    if key.chars().count() <= DEDUP_KEY_MAX {
        return key.to_owned();
    }
    let sum = digest::digest(&digest::SHA256, key.as_bytes());
    let hex: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let start: String = key.chars().take(DEDUP_KEY_MAX - 1 - hex.len()).collect();
    format!("{start}#{hex}")
}

fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(max - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_at_a_character_and_keys_stay_apart() {
        assert_eq!(cut("Hà Nội", 6), "Hà Nội");
        assert_eq!(cut("Hà Nội", 4), "Hà …");
        let (one, two) = (format!("{}a", "k".repeat(300)), format!("{}b", "k".repeat(300)));
        assert_eq!(dedup_key("demo/aicamera/run"), "demo/aicamera/run");
        assert_eq!(dedup_key(&one).chars().count(), DEDUP_KEY_MAX);
        assert_ne!(dedup_key(&one), dedup_key(&two));
    }
}
