//! A closed run reaches a collector as one trace, as the published protocol has it, also when the collector was down at first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode as Http};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use serde_json::Value;

use crate::lab::demo::fail_over;
use crate::lab::parts::{Lab, Options};
use crate::lab::wait;
use crate::scene::{fast, play};

#[derive(Default)]
struct Collector {
    received: Mutex<Vec<Vec<u8>>>,
    refuse_with: AtomicU16,
}

async fn collect(State(collector): State<Arc<Collector>>, headers: HeaderMap, body: Bytes) -> Http {
    if headers.get("content-type").is_none_or(|kind| kind != "application/json") {
        return Http::UNSUPPORTED_MEDIA_TYPE;
    }
    if let Ok(status) = Http::from_u16(collector.refuse_with.load(Ordering::SeqCst)) {
        return status;
    }
    collector.received.lock().unwrap_or_else(PoisonError::into_inner).push(body.to_vec());
    Http::OK
}

/// The request, decoded by the published protocol, and nothing of it lost: a field by a wrong name, or of a wrong kind, would
/// not come back. The protocol's own binary form must carry it too.
fn decoded(body: &[u8]) -> Result<ExportTraceServiceRequest> {
    let sent: Value = serde_json::from_slice(body)?;
    let request: ExportTraceServiceRequest = serde_json::from_value(sent.clone())?;
    let back = serde_json::to_value(&request)?;
    is_within(&sent, &back, "")?;
    ensure!(ExportTraceServiceRequest::decode(request.encode_to_vec().as_slice())? == request);
    Ok(request)
}

/// Every field of `sent` stands in `back` with the same value. `back` has the protocol's defaults besides.
fn is_within(sent: &Value, back: &Value, at: &str) -> Result<()> {
    match (sent, back) {
        (Value::Object(sent), Value::Object(back)) => sent.iter().try_for_each(|(name, value)| {
            let found = back.get(name).with_context(|| format!("the protocol has no {at}.{name}"))?;
            is_within(value, found, &format!("{at}.{name}"))
        }),
        (Value::Array(sent), Value::Array(back)) if sent.len() == back.len() => {
            sent.iter().zip(back).try_for_each(|(sent, back)| is_within(sent, back, &format!("{at}[]")))
        }
        _ => {
            ensure!(sent == back, "{at} is {sent}, and to the protocol {back}");
            Ok(())
        }
    }
}

/// The spans, after every rule of the specification that they must keep was asked.
fn judged(body: &[u8]) -> Result<Vec<Span>> {
    let request = decoded(body)?;
    ensure!(request.resource_spans.len() == 1 && request.resource_spans[0].scope_spans.len() == 1, "{request:?}");
    let of = request.resource_spans.into_iter().next().context("one resource")?;
    let resource = of.resource.context("a resource")?;
    ensure!(text(&resource.attributes, "service.name") == "failover-watchdog", "{resource:?}");
    let scoped = of.scope_spans.into_iter().next().context("one scope")?;
    ensure!(scoped.scope.is_some_and(|scope| scope.name == "watchdog.run"));
    let ids: Vec<&[u8]> = scoped.spans.iter().map(|span| span.span_id.as_slice()).collect();
    let is_id = |id: &[u8], bytes: usize| id.len() == bytes && id.iter().any(|byte| *byte != 0);
    for (n, span) in scoped.spans.iter().enumerate() {
        ensure!(is_id(&span.trace_id, 16) && is_id(&span.span_id, 8), "{span:?}");
        ensure!(span.trace_id == scoped.spans[0].trace_id && span.kind() == SpanKind::Internal, "{span:?}");
        ensure!(span.status.as_ref().is_some_and(|status| status.code() != StatusCode::Unset), "{span:?}");
        ensure!(!ids[..n].contains(&span.span_id.as_slice()), "an id twice: {span:?}");
        let parent = span.parent_span_id.as_slice();
        ensure!(parent.is_empty() == (n == 0), "one root, and first: {span:?}");
        ensure!(n == 0 || ids[..n].contains(&parent), "an orphan: {span:?}");
        ensure!(
            span.start_time_unix_nano <= span.end_time_unix_nano
                && span.start_time_unix_nano > 1_700_000_000_000_000_000,
            "{span:?}"
        );
        ensure!(span.events.iter().all(|event| event.time_unix_nano > 0 && !event.name.is_empty()), "{span:?}");
    }
    Ok(scoped.spans)
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|one| one.key == key).and_then(|one| one.value.as_ref()?.value.as_ref());
    if let Some(any_value::Value::StringValue(text)) = found { text } else { "" }
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
        let hex: String = spans[0].trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(hex == run.id.replace('-', ""), "{:?}", spans[0]);
        let is_ok = |span: &Span| span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Ok);
        ensure!(spans[0].name == "failover" && is_ok(&spans[0]), "{:?}", spans[0]);
        ensure!(text(&spans[0].attributes, "watchdog.outcome") == "succeeded", "{:?}", spans[0]);
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        spans.iter().for_each(|span| *names.entry(&span.name).or_default() += 1);
        for name in
            ["verdicts", "decision", "claim", "step fence", "step dns", "step promote", "step verify", "attempt"]
        {
            ensure!(names.contains_key(name), "no {name}: {names:?}");
        }
        ensure!(spans.iter().any(|span| span.name == "verdicts" && !span.events.is_empty()), "no evidence");
        // As many attempts as each step says it took, and each ended as its step did.
        for step in spans.iter().filter(|span| span.name.starts_with("step ") && is_ok(span)) {
            let attempts: Vec<&Span> = spans.iter().filter(|span| span.parent_span_id == step.span_id).collect();
            ensure!(
                attempts.len().to_string() == text(&step.attributes, "watchdog.attempts"),
                "{step:?}: {attempts:?}"
            );
            let ended = text(&attempts.last().context("an attempt")?.attributes, "watchdog.ended");
            ensure!(ended.ends_with(text(&step.attributes, "watchdog.detail")), "{step:?}: {ended}");
        }
        ensure!(received().len() == 1, "sent {} times by one leader", received().len());
        Ok(())
    })
    .await
}
