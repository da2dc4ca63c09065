//! A closed run reaches a collector as one trace, as OTLP's published JSON has it, also when the collector was down at first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde::Deserialize;

use crate::lab::demo::fail_over;
use crate::lab::parts::{Lab, Options};
use crate::lab::wait;
use crate::scene::{fast, play};

/// opentelemetry/proto/collector/trace/v1/trace_service.proto and what it imports, v1.7.0: the fields that are sent, by their
/// JSON names and kinds; anything else is refused, as a strict collector would.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ExportTraceServiceRequest {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    attributes: Vec<KeyValue>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    name: String,
    #[allow(dead_code, reason = "read for its kind")]
    version: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Span {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: Option<String>,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<KeyValue>,
    events: Vec<Event>,
    #[allow(dead_code, reason = "read for its kind")]
    dropped_events_count: u32,
    status: SpanStatus,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Event {
    time_unix_nano: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpanStatus {
    code: u8,
    #[allow(dead_code, reason = "read for its kind")]
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyValue {
    key: String,
    value: AnyValue,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AnyValue {
    string_value: String,
}

#[derive(Default)]
struct Collector {
    received: Mutex<Vec<Vec<u8>>>,
    refuse_with: AtomicU16,
}

async fn collect(State(collector): State<Arc<Collector>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if headers.get("content-type").is_none_or(|kind| kind != "application/json") {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    if let Ok(status) = StatusCode::from_u16(collector.refuse_with.load(Ordering::SeqCst)) {
        return status;
    }
    collector.received.lock().unwrap_or_else(PoisonError::into_inner).push(body.to_vec());
    StatusCode::OK
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|b| b != b'0')
}

/// The spans, after every rule of the specification that they must keep was asked.
fn judged(body: &[u8]) -> Result<Vec<Span>> {
    let request: ExportTraceServiceRequest = serde_json::from_slice(body)?;
    ensure!(request.resource_spans.len() == 1 && request.resource_spans[0].scope_spans.len() == 1, "{request:?}");
    let of = request.resource_spans.into_iter().next().context("one resource")?;
    let service = of.resource.attributes.iter().find(|one| one.key == "service.name").context("no service.name")?;
    ensure!(service.value.string_value == "failover-watchdog");
    let scoped = of.scope_spans.into_iter().next().context("one scope")?;
    ensure!(scoped.scope.name == "watchdog.run");
    let ids: Vec<&str> = scoped.spans.iter().map(|span| span.span_id.as_str()).collect();
    for (n, span) in scoped.spans.iter().enumerate() {
        ensure!(is_hex(&span.trace_id, 32) && is_hex(&span.span_id, 16), "{span:?}");
        ensure!(
            span.trace_id == scoped.spans[0].trace_id && span.kind == 1 && (1..=2).contains(&span.status.code),
            "{span:?}"
        );
        ensure!(!ids[..n].contains(&span.span_id.as_str()), "an id twice: {span:?}");
        ensure!(span.parent_span_id.as_deref().is_none_or(|parent| ids[..n].contains(&parent)), "an orphan: {span:?}");
        ensure!(span.parent_span_id.is_none() == (n == 0), "one root, and first: {span:?}");
        let (start, end): (u128, u128) = (span.start_time_unix_nano.parse()?, span.end_time_unix_nano.parse()?);
        ensure!(start <= end && start > 1_700_000_000_000_000_000, "{span:?}");
        for event in &span.events {
            ensure!(event.time_unix_nano.parse::<u128>().is_ok() && !event.name.is_empty(), "{event:?}");
        }
    }
    Ok(scoped.spans)
}

fn attribute<'a>(span: &'a Span, key: &str) -> &'a str {
    span.attributes.iter().find(|one| one.key == key).map_or("", |one| one.value.string_value.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_one_trace_though_the_collector_was_down() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let collector = Arc::new(Collector::default());
    collector.refuse_with.store(503, Ordering::SeqCst);
    let app = Router::new().route("/v1/traces", post(collect)).with_state(collector.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let region = "[[region]]\nname = \"hcmc\"\n".to_owned();
    let table = format!("[traces]\nendpoint = \"http://{address}\"\n\n{region}");
    play(Options { changes: vec![(region, table)], ..fast() }, async |lab: &mut Lab| {
        // A collector that is down holds up nothing.
        fail_over(lab, None, false).await?;
        let run = lab.runs().await?.into_iter().next().context("one run")?;
        collector.refuse_with.store(0, Ordering::SeqCst);
        let received = || collector.received.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wait::until("the trace", Duration::from_secs(40), async || {
            ensure!(!received().is_empty(), "nothing yet");
            Ok(())
        })
        .await?;
        let spans = judged(&received()[0])?;
        ensure!(spans[0].trace_id == run.id.replace('-', ""), "{:?}", spans[0]);
        ensure!(spans[0].name == "failover" && spans[0].status.code == 1, "{:?}", spans[0]);
        ensure!(attribute(&spans[0], "watchdog.outcome") == "succeeded", "{:?}", spans[0]);
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        spans.iter().for_each(|span| *names.entry(&span.name).or_default() += 1);
        for name in
            ["verdicts", "decision", "claim", "step fence", "step dns", "step promote", "step verify", "attempt"]
        {
            ensure!(names.contains_key(name), "no {name}: {names:?}");
        }
        ensure!(spans.iter().any(|span| span.name == "verdicts" && !span.events.is_empty()), "no evidence");
        ensure!(received().len() == 1, "sent {} times by one leader", received().len());
        Ok(())
    })
    .await
}
