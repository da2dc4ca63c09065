//! The dead-man heartbeat: small signs of life to an outside receiver, which tells people when they stop.
//!
//! Like healthchecks.io, Dead Man's Snitch or a `Watchdog` route of another Alertmanager: any 2xx counts as heard.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde::Serialize;

use super::Sent;
use super::http::{Address, NotifyError, Poster, bearer};
use super::rfc3339::rfc3339;
use crate::domain::ids::{ClusterName, NodeName, UnixMs};

/// Where the beats go, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Where to.
    pub to: Address,
    /// By `GET`, without a body.
    pub by_get: bool,
    /// File whose first line is a bearer token. Read at every beat.
    pub token_file: Option<PathBuf>,
}

/// Beats for one node.
#[derive(Debug)]
pub struct Heartbeat {
    cluster: ClusterName,
    node: NodeName,
    config: HeartbeatConfig,
    poster: Poster,
}

/// What a beat says. The shape is promised to receivers: fields are added, never renamed or taken away.
#[derive(Serialize)]
struct Body<'a> {
    cluster: &'a ClusterName,
    node: &'a NodeName,
    term: u64,
    at: String,
}

impl Heartbeat {
    /// # Errors
    /// Where no HTTP client can be built.
    pub fn new(
        cluster: ClusterName,
        node: NodeName,
        config: HeartbeatConfig,
        timeout: Duration,
    ) -> Result<Self, NotifyError> {
        let poster = Poster::new(config.to.clone(), timeout)?;
        Ok(Self { cluster, node, config, poster })
    }

    /// One beat: that this node leads in `term`, confirmed by a majority just before.
    pub async fn beat(&self, term: u64, at: UnixMs) -> Sent {
        let (headers, token) = match &self.config.token_file {
            None => (HeaderMap::new(), None),
            Some(path) => match bearer(path).await {
                Ok((headers, token)) => (headers, Some(token)),
                Err(reason) => return Sent::Retry { reason, after: None },
            },
        };
        let said = Body { cluster: &self.cluster, node: &self.node, term, at: rfc3339(at) };
        let body = match (self.config.by_get, serde_json::to_vec(&said)) {
            (true, _) => None,
            (false, Ok(body)) => Some(body),
            (false, Err(error)) => {
                return Sent::Refused { reason: format!("the beat cannot be written as JSON: {error}") };
            }
        };
        self.poster.send(body, headers, token.as_deref()).await
    }
}
