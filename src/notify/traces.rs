//! Traces to a collector: OTLP over HTTP in its JSON form (`POST ENDPOINT/v1/traces`).
//!
//! The published mapping of protobuf to JSON, with OTLP's own exception: ids of traces and spans are hexadecimal. 64-bit
//! numbers are text. <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde::Serialize;
use serde_json::{Value, json};
use url::Url;

use super::Sent;
use super::http::{NotifyError, Poster, bearer, shown_address};
use crate::domain::ids::{ClusterName, NodeName, UnixMs};
use crate::domain::trace::{Span, Trace};

/// A text in a trace is cut to this, characters.
const TEXT_MAX: usize = 1000;
/// Moments of one span, at most.
const EVENTS_MAX: usize = 128;

/// Sends to one collector.
#[derive(Debug)]
pub struct Traces {
    cluster: ClusterName,
    node: NodeName,
    token_file: Option<PathBuf>,
    poster: Poster,
}

impl Traces {
    /// For the collector at `endpoint`, `http://127.0.0.1:4318`; with the first line of `token_file` as a bearer token.
    ///
    /// # Errors
    /// Where `endpoint` cannot be a base, or no HTTP client can be built.
    pub fn new(
        cluster: ClusterName,
        node: NodeName,
        endpoint: &Url,
        token_file: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<Self, NotifyError> {
        let mut url = endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| NotifyError::BaseUrl { address: shown_address(endpoint) })?
            .pop_if_empty()
            .extend(["v1", "traces"]);
        Ok(Self { cluster, node, token_file, poster: Poster::new(url, timeout)? })
    }

    /// One attempt.
    pub async fn send(&self, trace: &Trace) -> Sent {
        let (headers, token) = match &self.token_file {
            None => (HeaderMap::new(), None),
            Some(path) => match bearer(path).await {
                Ok((headers, token)) => (headers, Some(token)),
                Err(reason) => return Sent::Retry { reason, after: None },
            },
        };
        match serde_json::to_vec(&self.request(trace)) {
            Ok(body) => self.poster.post(body, headers, token.as_deref()).await,
            Err(error) => Sent::Refused { reason: format!("the trace cannot be written as JSON: {error}") },
        }
    }

    /// `ExportTraceServiceRequest`.
    fn request(&self, trace: &Trace) -> Value {
        let resource = [
            attribute("service.name", "failover-watchdog"),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.namespace", self.cluster.as_str()),
            attribute("service.instance.id", self.node.as_str()),
        ];
        let id = hex(&trace.id);
        let spans: Vec<SpanJson> = trace.spans.iter().map(|span| SpanJson::of(&id, span)).collect();
        let scope = json!({ "name": "watchdog.run", "version": env!("CARGO_PKG_VERSION") });
        json!({ "resourceSpans": [{ "resource": { "attributes": resource }, "scopeSpans": [{ "scope": scope, "spans": spans }] }] })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: String,
    /// `SPAN_KIND_INTERNAL`.
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Value>,
    events: Vec<Value>,
    dropped_events_count: usize,
    /// `STATUS_CODE_OK` is 1, `STATUS_CODE_ERROR` 2.
    status: Value,
}

impl SpanJson {
    fn of(trace_id: &str, span: &Span) -> Self {
        let event = |(at, what): &(UnixMs, String)| json!({ "timeUnixNano": nanos(*at), "name": cut(what) });
        Self {
            trace_id: trace_id.to_owned(),
            span_id: hex(&span.id),
            parent_span_id: span.parent.map(|id| hex(&id)),
            name: cut(&span.name),
            kind: 1,
            start_time_unix_nano: nanos(span.start),
            end_time_unix_nano: nanos(span.end),
            attributes: span.attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
            events: span.events.iter().take(EVENTS_MAX).map(event).collect(),
            dropped_events_count: span.events.len().saturating_sub(EVENTS_MAX),
            status: match &span.error {
                None => json!({ "code": 1 }),
                Some(why) => json!({ "code": 2, "message": cut(why) }),
            },
        }
    }
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": cut(value) } })
}

fn nanos(at: UnixMs) -> String {
    (u128::from(at.0) * 1_000_000).to_string()
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
