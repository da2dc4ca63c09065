//! `/livez` and `/readyz`: what a load balancer or an orchestrator asks.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::backend::Backend;
use crate::api::backend::AdminBackend as _;

/// Serves until dropped.
pub async fn serve(listener: TcpListener, backend: Arc<Backend>) {
    let routes = Router::new().route("/livez", get(async || "ok\n")).route("/readyz", get(ready)).with_state(backend);
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
