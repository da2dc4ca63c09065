//! `[heartbeat]`, `[traces]`, and addresses that may be secrets themselves.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::check::{Item, Place};
use crate::config::raw::{RawHeartbeat, RawNode, RawTraces};
use crate::config::types::{Address, HeartbeatConfig, TracesConfig};

use super::Judge;

/// A receiver that waits longer than this hears of silence too late to be of use, seconds.
const INTERVAL_MAX_S: u64 = 3600;

impl Judge<'_> {
    pub(super) fn heartbeat(&mut self, item: &Item<RawHeartbeat>, nodes: &[Item<RawNode>]) -> Option<HeartbeatConfig> {
        let Item { place, value } = item;
        // On one machine there is no outside.
        let is_local = |node: &Item<RawNode>| {
            let listen = node.value.listen.as_ref().and_then(|text| text.parse::<SocketAddr>().ok());
            listen.is_some_and(|listen| listen.ip().is_loopback())
        };
        if place.line.is_none() && nodes.iter().all(is_local) {
            return None;
        }
        if place.line.is_none() {
            let todo = "add [heartbeat] url = \"https://…\": an outside receiver that notices when the beats stop";
            let what = "nobody hears it when the whole cluster falls silent: no [heartbeat]";
            self.report.warn(place, "", what, todo);
            return None;
        }
        let to = self.address(place, &value.url, &value.url_file);
        let methods = [("post", false), ("get", true)];
        let by_get = self.choice(place, "method", &value.method, Some(false), &methods);
        let interval_s = self.number(place, "interval_s", value.interval_s, 60, 1..=INTERVAL_MAX_S);
        let token_file = self.file(place, "token_file", &value.token_file, true);
        if value.token_file.is_some() && value.url.as_deref().is_some_and(|url| url.starts_with("http://")) {
            let what = "the token would cross the network in clear: the address is not https";
            self.report.warn(place, "token_file", what, "use https, unless the receiver is on this machine");
        }
        Some(HeartbeatConfig { to: to?, by_get: by_get?, interval: Duration::from_secs(interval_s), token_file })
    }

    pub(super) fn traces(&mut self, item: &Item<RawTraces>) -> Option<TracesConfig> {
        let Item { place, value } = item;
        place.line?;
        let endpoint = self.url(place, "endpoint", &value.endpoint).map(|url| url.trim_end_matches('/').to_owned());
        let token_file = self.file(place, "token_file", &value.token_file, true);
        if endpoint.as_ref().is_some_and(|url| url.ends_with("/v1/traces")) {
            self.report.error(place, "endpoint", "ends with /v1/traces, which is added to it", "leave that out");
        }
        Some(TracesConfig { endpoint: endpoint?, token_file })
    }

    /// `url`, or `url_file` where the address itself is a secret.
    pub(super) fn address(
        &mut self,
        place: &Place,
        url: &Option<String>,
        url_file: &Option<String>,
    ) -> Option<Address> {
        match (url, url_file) {
            (Some(_), Some(_)) => {
                self.report.error(place, "url_file", "stands beside url", "write one of them");
                None
            }
            (None, Some(_)) => self.file(place, "url_file", url_file, true).map(Address::File),
            _ => self.url(place, "url", url).map(Address::Url),
        }
    }
}
