//! A webhook: one JSON object of stable shape by `POST`, signed where a secret is given.
//!
//! The signature is HMAC-SHA256 over `TIMESTAMP.BODY` (the timestamp in seconds since 1970, as in the header), written
//! `v1=HEX`. A receiver checks it in constant time and refuses an old timestamp, so that a page cannot be played again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use ring::hmac;
use serde::Serialize;

use super::http::{Address, NotifyError, Poster, header, read_secret};
use super::rfc3339::rfc3339;
use super::{Notifier, Parcel, Sent};
use crate::clock;
use crate::config::template::Template;
use crate::domain::ids::{ClusterName, GroupName, LadderName, RunId};
use crate::domain::page::{PageAction, Severity, Told};

/// `v1=` and the signature in hexadecimal.
pub const SIGNATURE_HEADER: &str = "x-watchdog-signature";
/// Seconds since 1970 when it was signed.
pub const TIMESTAMP_HEADER: &str = "x-watchdog-timestamp";

/// Sends to one webhook.
#[derive(Debug)]
pub struct Webhook {
    cluster: ClusterName,
    template: Option<Template>,
    secret_file: Option<PathBuf>,
    poster: Poster,
}

impl Webhook {
    /// For the address; signed with the first line of `secret_file` where given.
    ///
    /// # Errors
    /// Where no HTTP client can be built.
    pub fn new(
        cluster: ClusterName,
        to: impl Into<Address>,
        secret_file: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<Self, NotifyError> {
        Ok(Self { cluster, template: None, secret_file, poster: Poster::new(to, timeout)? })
    }

    /// With another body than the promised one: a chat's.
    #[must_use]
    pub fn with_template(self, template: Option<Template>) -> Self {
        Self { template, ..self }
    }

    fn body(&self, parcel: Parcel<'_>) -> serde_json::Result<Vec<u8>> {
        match &self.template {
            Some(template) => serde_json::to_vec(&template.fill(&in_words(&self.cluster, parcel))),
            None => serde_json::to_vec(&Body::new(&self.cluster, parcel)),
        }
    }
}

#[async_trait]
impl Notifier for Webhook {
    async fn send(&self, parcel: Parcel<'_>) -> Sent {
        let body = match self.body(parcel) {
            Ok(body) => body,
            Err(e) => return Sent::Refused { reason: format!("the page cannot be written as JSON: {e}") },
        };
        let mut headers = HeaderMap::new();
        let mut secret = None;
        if let Some(path) = &self.secret_file {
            let key = match read_secret("secret_file", path).await {
                Ok(key) => key,
                Err(e) => return Sent::Retry { reason: e.to_string(), after: None },
            };
            let timestamp_s = clock::unix_now().0 / 1000;
            headers.extend(header(TIMESTAMP_HEADER, &timestamp_s.to_string()));
            headers.extend(header(SIGNATURE_HEADER, &sign(key.as_bytes(), timestamp_s, &body)));
            secret = Some(key);
        }
        self.poster.post(body, headers, secret.as_deref()).await
    }
}

/// The value of [`SIGNATURE_HEADER`].
pub fn sign(key: &[u8], timestamp_s: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(timestamp_s.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

/// What a template's placeholders stand for.
fn in_words(cluster: &ClusterName, parcel: Parcel<'_>) -> BTreeMap<&'static str, String> {
    let page = parcel.page;
    let details: Vec<String> = page.details.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let told = parcel.notice.map_or(&[][..], |notice| notice.contacts.as_slice());
    let contacts: Vec<String> = told.iter().map(|one| format!("{} ({})", one.name, one.role)).collect();
    let (severity, action) = match page.action {
        PageAction::Trigger => (page.severity.word().to_uppercase(), "trigger"),
        PageAction::Acknowledge => ("acknowledged".to_owned(), "acknowledge"),
        PageAction::Resolve => ("over".to_owned(), "resolve"),
    };
    let lines = [format!("[{severity}] {} ({cluster})", page.event), page.summary.clone(), details.join("\n")];
    let text: Vec<String> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    BTreeMap::from([
        ("cluster", cluster.to_string()),
        ("key", page.key.clone()),
        ("event", page.event.clone()),
        ("severity", page.severity.word().to_owned()),
        ("action", action.to_owned()),
        ("summary", page.summary.clone()),
        ("group", page.group.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("run", page.run.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("at", rfc3339(parcel.at)),
        ("details", details.join("\n")),
        ("contacts", contacts.join(", ")),
        ("text", text.join("\n")),
    ])
}

/// The shape is promised to receivers: fields are added, never renamed or taken away.
#[derive(Serialize)]
struct Body<'a> {
    cluster: &'a ClusterName,
    key: &'a str,
    event: &'a str,
    severity: Severity,
    action: PageAction,
    summary: &'a str,
    group: Option<&'a GroupName>,
    run: Option<&'a RunId>,
    details: &'a BTreeMap<String, String>,
    seq: Option<u64>,
    at: String,
    level: Option<u8>,
    level_name: Option<&'a str>,
    ladder: Option<&'a LadderName>,
    ladder_step: Option<&'a str>,
    contacts: &'a [Told],
}

impl<'a> Body<'a> {
    fn new(cluster: &'a ClusterName, parcel: Parcel<'a>) -> Self {
        let page = parcel.page;
        let level = parcel.notice.and_then(|notice| notice.level.as_ref());
        Self {
            cluster,
            key: &page.key,
            event: &page.event,
            severity: page.severity,
            action: page.action,
            summary: &page.summary,
            group: page.group.as_ref(),
            run: page.run.as_ref(),
            details: &page.details,
            seq: parcel.seq,
            at: rfc3339(parcel.at),
            level: level.map(|level| level.number),
            level_name: level.map(|level| level.name.as_str()),
            ladder: parcel.notice.and_then(|notice| notice.ladder.as_ref()),
            ladder_step: parcel.notice.map(|notice| notice.step.as_str()),
            contacts: parcel.notice.map_or(&[], |notice| notice.contacts.as_slice()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // printf "1700000000.{\"key\":\"a\"}" | openssl dgst -sha256 -hmac Jefe
    #[test]
    fn the_signature_is_what_openssl_computes() {
        assert_eq!(
            sign(b"Jefe", 1_700_000_000, b"{\"key\":\"a\"}"),
            "v1=91ab849977823953051a712e79746f1d1428380bf3de31f5d6ee180e94389e82"
        );
    }
}
