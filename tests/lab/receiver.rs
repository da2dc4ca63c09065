//! Receivers of pages: a webhook, PagerDuty's Events v2 address and a chat's bot, on one port. Everything received is kept.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Result;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::address_of;
use super::folder::Folder;

/// Where the chat's bot is spoken to: its token stands in the address.
pub const CHAT_BOT: &str = "/bot123:planted-T0KEN/sendMessage";

/// One page as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// When.
    pub at: SystemTime,
    /// `webhook`, `pagerduty` or `chat-bot`.
    pub by: &'static str,
    /// The signature header, if any.
    pub signature: Option<String>,
    /// The body.
    pub body: Value,
}

impl Received {
    /// Its body holds this text somewhere.
    pub fn says(&self, text: &str) -> bool {
        self.body.to_string().contains(text)
    }

    /// Event and summary, wherever the receiver's format puts them.
    pub fn headline(&self) -> String {
        let summary = self.find("summary");
        let event = self.find("event").or_else(|| self.find("class"));
        match (event, summary) {
            (Some(event), Some(summary)) => format!("{event}: {summary}"),
            (None, Some(summary)) => summary,
            // A resolve of PagerDuty's carries nothing but its key.
            _ => format!(
                "{} {}",
                self.find("event_action").unwrap_or_default(),
                self.find("dedup_key").unwrap_or_default()
            ),
        }
    }

    fn find(&self, field: &str) -> Option<String> {
        let direct = self.body.get(field);
        let nested = || ["page", "payload"].iter().find_map(|outer| self.body.get(outer)?.get(field));
        let details = || self.body.get("payload")?.get("custom_details")?.get(field);
        direct.or_else(nested).or_else(details)?.as_str().map(str::to_owned)
    }
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    /// Answer this status instead of taking the page; 0 takes it.
    refuse_with: AtomicU16,
    /// Of these receivers only; all where it is `None`.
    refuses: Mutex<Option<&'static str>>,
}

/// The receivers.
pub struct Receivers {
    /// Where they listen.
    pub listen: SocketAddr,
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

impl Receivers {
    /// Starts them.
    pub async fn start(folder: &mut Folder) -> Result<Self> {
        let address = address_of("receivers");
        let listen = SocketAddr::new(address, folder.port(&[address])?);
        let listener = tokio::net::TcpListener::bind(listen).await?;
        let shared = Arc::new(Shared::default());
        let app = Router::new()
            .route("/pages", post(take_webhook))
            .route("/v2/enqueue", post(take_pagerduty))
            .route(CHAT_BOT, post(take_chat_bot))
            .with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { listen, shared, serving })
    }

    /// Everything received so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on answers every page with this status; `None` takes them again.
    pub fn refuse_with(&self, status: Option<u16>) {
        self.refuse(None, status);
    }

    /// The same of one receiver, `pagerduty`.
    pub fn refuse_by(&self, by: &'static str, status: u16) {
        self.refuse(Some(by), Some(status));
    }

    fn refuse(&self, by: Option<&'static str>, status: Option<u16>) {
        *self.shared.refuses.lock().unwrap_or_else(PoisonError::into_inner) = by;
        self.shared.refuse_with.store(status.unwrap_or(0), Ordering::SeqCst);
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take_chat_bot(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    take(&shared, "chat-bot", &headers, body)
}

async fn take_webhook(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    take(&shared, "webhook", &headers, body)
}

async fn take_pagerduty(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    take(&shared, "pagerduty", &headers, body)
}

fn take(shared: &Shared, by: &'static str, headers: &HeaderMap, body: Value) -> (StatusCode, Json<Value>) {
    let refusal = StatusCode::from_u16(shared.refuse_with.load(Ordering::SeqCst)).ok();
    let only = *shared.refuses.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(status) = refusal.filter(|_| only.is_none_or(|only| only == by)) {
        return (status, Json(json!({"status": "refused", "message": "by order of the test"})));
    }
    let signature = headers.iter().find(|(name, _)| name.as_str().contains("signature"));
    let signature = signature.and_then(|(_, value)| value.to_str().ok()).map(str::to_owned);
    let key = body.get("dedup_key").cloned().unwrap_or_default();
    let received = Received { at: SystemTime::now(), by, signature, body };
    shared.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
    (StatusCode::ACCEPTED, Json(json!({"status": "success", "message": "Event processed", "dedup_key": key})))
}
