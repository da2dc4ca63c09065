//! `/livez` and `/readyz`, what a load balancer or an orchestrator asks, and `/metrics` for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::backend::Backend;
use crate::api::backend::AdminBackend as _;
use crate::metrics::CONTENT_TYPE;

/// Serves until dropped.
pub async fn serve(listener: TcpListener, backend: Arc<Backend>) {
    let routes = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(backend);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the http listener broke");
    }
}

/// 200 where this node sees a leader and a quorum, else 503 with the reason (P8).
async fn ready(State(backend): State<Arc<Backend>>) -> (StatusCode, Json<Value>) {
    let standing = backend.standing().borrow().clone();
    let is_ready = standing.has_quorum && standing.leader.is_some();
    let body = json!({
        "node": standing.name,
        "leader": standing.leader.as_ref().map(|leader| &leader.name),
        "has_quorum": standing.has_quorum,
        "term": standing.term,
        "note": standing.note,
    });
    (if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
}

/// Everything this node can tell, in Prometheus' text format.
async fn scrape(State(backend): State<Arc<Backend>>) -> Response {
    match super::metrics::sheet(&backend).text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}
