//! Prometheus' Alertmanager, API v2: `POST {base_url}/api/v2/alerts`, 200 when taken. Mail and chat hang behind it.
//!
//! An alert there is a state, not an event: it stands until its `endsAt`, and a restarted Alertmanager knows nothing of it.
//! So what stands is said again every minute, and ends by itself some minutes after nobody says it any more. An
//! acknowledgement is an annotation: who may silence what is Alertmanager's own affair.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use serde::Serialize;
use url::Url;

use super::http::{NotifyError, Poster, bearer, shown_address};
use super::rfc3339::rfc3339;
use super::{Notifier, Parcel, Sent};
use crate::clock;
use crate::domain::ids::{ClusterName, UnixMs};
use crate::domain::incident::Incident;
use crate::domain::page::{Page, PageAction};

/// How often what stands is said again; Prometheus itself does so every minute.
const AGAIN_EVERY: Duration = Duration::from_secs(60);
/// What nobody says again ends after this, milliseconds: long enough for an election and a lost quorum's own page.
const STANDS_MS: u64 = 15 * 60 * 1000;
/// So long after its end it is still said to have ended, milliseconds.
const ENDED_MS: u64 = 5 * 60 * 1000;
/// Annotations are cut to this, characters, and there are at most so many.
const TEXT_MAX: usize = 4096;
const DETAILS_MAX: usize = 50;

/// Sends to one Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    cluster: ClusterName,
    token_file: Option<PathBuf>,
    poster: Poster,
}

impl Alertmanager {
    /// For the Alertmanager at `base_url`; with the first line of `token_file` as a bearer token where given.
    ///
    /// # Errors
    /// Where `base_url` cannot be a base, or no HTTP client can be built.
    pub fn new(
        cluster: ClusterName,
        base_url: &Url,
        token_file: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<Self, NotifyError> {
        let mut url = base_url.clone();
        url.path_segments_mut()
            .map_err(|()| NotifyError::BaseUrl { address: shown_address(base_url) })?
            .pop_if_empty()
            .extend(["api", "v2", "alerts"]);
        Ok(Self { cluster, token_file, poster: Poster::new(url, timeout)? })
    }

    async fn post(&self, alerts: &[Alert]) -> Sent {
        let body = match serde_json::to_vec(alerts) {
            Ok(body) => body,
            Err(error) => return Sent::Refused { reason: format!("the page cannot be written as JSON: {error}") },
        };
        let mut headers = HeaderMap::new();
        let mut secret = None;
        if let Some(path) = &self.token_file {
            match bearer(path).await {
                Ok((header, token)) => (headers, secret) = (header, Some(token)),
                Err(reason) => return Sent::Retry { reason, after: None },
            }
        }
        self.poster.post(body, headers, secret.as_deref()).await
    }
}

#[async_trait]
impl Notifier for Alertmanager {
    async fn send(&self, parcel: Parcel<'_>) -> Sent {
        let mut alert = alert(&self.cluster, parcel.page, parcel.at);
        alert.ends_at = match parcel.page.action {
            PageAction::Trigger | PageAction::Acknowledge => rfc3339(clock::unix_now().plus(STANDS_MS)),
            PageAction::Resolve => rfc3339(parcel.at),
        };
        self.post(&[alert]).await
    }

    fn again_every(&self) -> Option<Duration> {
        Some(AGAIN_EVERY)
    }

    async fn say_again(&self, incidents: &[&Incident]) -> Sent {
        let now = clock::unix_now();
        let alerts: Vec<Alert> =
            incidents.iter().filter_map(|incident| standing(&self.cluster, incident, now)).collect();
        if alerts.is_empty() { Sent::Delivered } else { self.post(&alerts).await }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
}

/// The labels are the alert's identity: nothing that changes while it stands may be among them.
fn alert(cluster: &ClusterName, page: &Page, since: UnixMs) -> Alert {
    let mut labels: BTreeMap<&'static str, String> = BTreeMap::from([
        ("alertname", page.event.clone()),
        ("cluster", cluster.to_string()),
        ("severity", page.severity.word().to_owned()),
        ("key", page.key.clone()),
    ]);
    labels.extend(page.group.as_ref().map(|group| ("group", group.to_string())));
    let mut annotations: BTreeMap<String, String> =
        page.details.iter().take(DETAILS_MAX).map(|(name, value)| (label(name), cut(value))).collect();
    annotations.insert("summary".to_owned(), cut(&page.summary));
    annotations.extend(page.run.as_ref().map(|run| ("run".to_owned(), run.to_string())));
    Alert { labels, annotations, starts_at: rfc3339(since), ends_at: String::new() }
}

/// An incident as it stands, or as it ended a while ago; nothing where its end was said for long enough.
fn standing(cluster: &ClusterName, incident: &Incident, now: UnixMs) -> Option<Alert> {
    let mut alert = alert(cluster, &incident.page, incident.at);
    if let Some(word) = &incident.acknowledged {
        alert.annotations.insert("acknowledged_by".to_owned(), format!("{}: {}", word.by, cut(&word.reason)));
    }
    alert.ends_at = match &incident.resolved {
        None => rfc3339(now.plus(STANDS_MS)),
        Some(end) if now.since(end.at) < ENDED_MS => {
            alert.annotations.insert("ended".to_owned(), cut(&end.summary));
            // An end before its start is refused.
            rfc3339(end.at.max(incident.at.plus(1)))
        }
        Some(_) => return None,
    };
    Some(alert)
}

/// Prometheus' label names: letters, digits and `_`.
fn label(name: &str) -> String {
    let mut label: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if label.starts_with(|c: char| c.is_ascii_digit()) || label.is_empty() {
        label.insert(0, '_');
    }
    label
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
