//! Telling: takes pages from the replicated outbox to their receivers.
//!
//! Delivery is at least once (P11): a page may be sent twice by two leaders, and its key makes the receiver collapse the
//! two. Nothing secret is ever in an error, a log line or a debug print: receivers' addresses are shown without their path.

mod alertmanager;
mod dispatcher;
mod heartbeat;
mod http;
mod pagerduty;
mod rfc3339;
mod traces;
mod webhook;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use crate::config::template::Template;
use crate::domain::ids::{ClusterName, NodeName, ReceiverName, UnixMs};
use crate::domain::incident::Incident;
use crate::domain::page::{Notice, Page, PageAction, Severity};

pub use alertmanager::Alertmanager;
pub use dispatcher::{Backoff, Dispatcher, Settle, Told};
pub use heartbeat::{Heartbeat, HeartbeatConfig};
pub use http::{Address, NotifyError, shown_address};
pub use pagerduty::PagerDuty;
pub use traces::Traces;
pub use webhook::{SIGNATURE_HEADER, TIMESTAMP_HEADER, Webhook, sign};

/// Where pages are sent unless the configuration says otherwise.
pub const PAGERDUTY_BASE_URL: &str = "https://events.pagerduty.com";

/// One send, with everything that belongs to it, takes no longer than this.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How a receiver is spoken to.
#[derive(Clone, PartialEq, Eq)]
pub enum ReceiverKind {
    /// PagerDuty's Events API v2.
    PagerDuty {
        /// `https://events.pagerduty.com`, or a compatible server.
        base_url: Url,
        /// File whose first line is the integration's routing key. Read at every send, so that it can be exchanged.
        routing_key_file: PathBuf,
    },
    /// Prometheus' Alertmanager.
    Alertmanager {
        /// `http://127.0.0.1:9093`.
        base_url: Url,
        /// File whose first line is a bearer token. Read at every send.
        token_file: Option<PathBuf>,
    },
    /// A JSON object by `POST`.
    Webhook {
        /// Where to. May carry a secret in its path or query: never shown.
        to: Address,
        /// Another body than the promised one.
        template: Option<Template>,
        /// File whose first line is the key of the HMAC-SHA256 signature. Read at every send.
        secret_file: Option<PathBuf>,
    },
}

impl fmt::Debug for ReceiverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiverKind::PagerDuty { base_url, routing_key_file } => f
                .debug_struct("PagerDuty")
                .field("base_url", &shown_address(base_url))
                .field("routing_key_file", routing_key_file)
                .finish(),
            ReceiverKind::Alertmanager { base_url, token_file } => f
                .debug_struct("Alertmanager")
                .field("base_url", &shown_address(base_url))
                .field("token_file", token_file)
                .finish(),
            ReceiverKind::Webhook { to, secret_file, .. } => {
                f.debug_struct("Webhook").field("to", to).field("secret_file", secret_file).finish_non_exhaustive()
            }
        }
    }
}

/// One receiver of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// Its name in the configuration.
    pub name: ReceiverName,
    /// How it is spoken to.
    pub kind: ReceiverKind,
}

impl ReceiverConfig {
    /// The notifier for it.
    ///
    /// # Errors
    /// Where no HTTP client can be built (no TLS provider or no trusted authorities on this machine).
    pub fn notifier(&self, cluster: &ClusterName, timeout: Duration) -> Result<Box<dyn Notifier>, NotifyError> {
        Ok(match &self.kind {
            ReceiverKind::PagerDuty { base_url, routing_key_file } => {
                Box::new(PagerDuty::new(cluster.clone(), base_url, routing_key_file.clone(), timeout)?)
            }
            ReceiverKind::Alertmanager { base_url, token_file } => {
                Box::new(Alertmanager::new(cluster.clone(), base_url, token_file.clone(), timeout)?)
            }
            ReceiverKind::Webhook { to, template, secret_file } => {
                let hook = Webhook::new(cluster.clone(), to.clone(), secret_file.clone(), timeout)?;
                Box::new(hook.with_template(template.clone()))
            }
        })
    }
}

/// A page on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Parcel<'a> {
    /// Its number in the outbox; `None` for a page sent directly by a node without quorum.
    pub seq: Option<u64>,
    /// When it was put into the outbox, or made.
    pub at: UnixMs,
    /// The page.
    pub page: &'a Page,
    /// Whom it is meant for.
    pub notice: Option<&'a Notice>,
}

/// How one send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The receiver took it.
    Delivered,
    /// It may be taken later (429, 5xx, network, time-out).
    Retry {
        /// What went wrong, with the receiver's address but no secret.
        reason: String,
        /// The receiver asked to be left alone for so long.
        after: Option<Duration>,
    },
    /// It will never be taken as it is (400 and other 4xx).
    Refused {
        /// What the receiver answered and what to look at.
        reason: String,
    },
}

impl Sent {
    /// In a word, as the metrics tell it.
    pub fn word(&self) -> &'static str {
        match self {
            Sent::Delivered => "delivered",
            Sent::Retry { .. } => "retried",
            Sent::Refused { .. } => "refused",
        }
    }
}

/// Sends pages to one receiver. One call is one attempt: nothing is retried underneath.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Sends once. Dropping the future abandons the attempt.
    async fn send(&self, parcel: Parcel<'_>) -> Sent;

    /// Where the receiver forgets what it is not told again: how often it must be. Such a receiver is told by
    /// [`say_again`](Self::say_again) of everything but what is new.
    fn again_every(&self) -> Option<Duration> {
        None
    }

    /// Says how these incidents stand, open ones and those that ended lately.
    async fn say_again(&self, _incidents: &[&Incident]) -> Sent {
        Sent::Delivered
    }
}

/// What a node without quorum pages by itself (P8). All nodes of a cluster use the same key, so that one incident opens.
pub fn no_quorum_page(cluster: &ClusterName, node: &NodeName, action: PageAction, summary: String) -> Page {
    Page {
        key: format!("{cluster}/no-quorum"),
        event: "WATCHDOG_NO_QUORUM".to_owned(),
        action,
        severity: Severity::Critical,
        summary,
        group: None,
        run: None,
        details: [("node".to_owned(), node.to_string())].into(),
    }
}
